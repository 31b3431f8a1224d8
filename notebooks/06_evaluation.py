# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 6. Evaluation: does it listen, or does it guess?
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/tinyvla/tinyvla/blob/main/notebooks/06_evaluation.ipynb)
#
# A policy is trained, its loss is low, and a validation split says 100 %. This chapter asks what that number is
# worth. It builds the instruments one at a time: four metrics and what each of them hides, an interval that says how
# sure a share is, floors that say what a guess would have scored, and the instruction swap, which asks whether the
# words matter at all. Then you will train a policy that is right on every one of its own validation scenes and does
# not listen to a word.
#
# The second half looks for causes and limits: where the policy looks when it reads a word, what its worst scenes have
# in common, and which changes to the scene or the sentence break it.
#
# **You will be able to**
#
# - choose a metric by knowing which mistake it cannot see;
# - write a Wilson interval and say how many scenes a claim needs;
# - measure with an instruction swap whether a policy listens, and predict which data make it deaf;
# - read attention maps, and check by painting over a block whether they mean anything;
# - report held-out conditions, the failures included, in one table.
#
# **Time:** about 60 minutes to read, about 2 minutes on two CPU cores, 30 seconds on a GPU to run.
#
# **Before you start:** you know what a policy of this course takes and gives: an image and an instruction in, an
# arrow
# $(dx, dy)$ out ([Chapter 1](01_dataset.ipynb)). [Chapter 4](04_fusion.ipynb) explains the cross-attention whose
# weights are drawn here. Neither is needed to run the cells.

# %% tags=["nbval-ignore-output"]
# Setup: the same cell in every notebook. Installs tinyvla where it is missing, for example in Colab; leaves torch alone.
import importlib.util
import os
import subprocess
import sys

if importlib.util.find_spec("tinyvla") is None:
    source = os.environ.get("TINYVLA_SOURCE", "git+https://github.com/tinyvla/tinyvla@v0.1.0")
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", source], check=True)

import torch

import tinyvla

device = "cuda" if torch.cuda.is_available() else "cpu"
print(f"tinyvla {tinyvla.__version__}, torch {torch.__version__}, Python {sys.version.split()[0]}, device {device}")

# %%
import math
import warnings
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np

from tinyvla.config import model_config
from tinyvla.course.exercises import checking
from tinyvla.course.zoo import load_results, trained_policy
from tinyvla.data.batch import TensorSplit
from tinyvla.data.dataset import (
    BACKGROUND,
    COLORS,
    PALETTE,
    BlockFind,
    cell_centers,
    directions,
    draw_distinct,
    render,
)
from tinyvla.learn.evaluate import (
    Metrics,
    constant_floor,
    language_only_floor,
    predict_split,
    swap_accuracy,
    vision_only_floor,
)
from tinyvla.learn.train import fit
from tinyvla.model.policy import UnseenWordWarning, new_policy
from tinyvla.model.tokenizer import encode
from tinyvla.recipes import TrainConfig
from tinyvla.show.plots import PART_COLORS, draw_arrow, plot_sample
from tinyvla.stats import share_with_interval, wilson_interval

plt.rcParams.update({"figure.facecolor": "white", "font.size": 10})

# %% [markdown]
# A score says little until it stands among other measurements. This is the instrument panel of the chapter: the
# policy in the middle, and around it six instruments, each with the question that it answers.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Six boxes around a policy and its score: four metrics, interval, floors, instruction swap, attention, held-out conditions; each with its question."}}
fig, ax = plt.subplots(figsize=(9, 4.3), layout="constrained")
ax.set(xlim=(0, 9), ylim=(0, 4.3))
ax.axis("off")
panels = [  # x and y of the middle, colour, title, question
    (1.4, 3.65, "action", "four metrics", "which mistakes\ncan each not see?"),
    (4.5, 3.65, "action", "interval", "how sure is the share,\nafter so many scenes?"),
    (7.6, 3.65, "fusion", "floors", "what would a guess\nhave scored?"),
    (1.4, 0.65, "language", "instruction swap", "does the arrow\nfollow the words?"),
    (4.5, 0.65, "vision", "attention", "where does it look,\nand does that matter?"),
    (7.6, 0.65, "vision", "held-out conditions", "what breaks it?"),
]
for x, y, part, title, question in panels:
    ax.add_patch(plt.Rectangle((x - 1.3, y - 0.57), 2.6, 1.14, fc=PART_COLORS[part], ec="none"))
    ax.text(x, y + 0.3, title, ha="center", va="center", color="white", fontsize=11, weight="bold")
    ax.text(x, y - 0.17, question, ha="center", va="center", color="white", fontsize=10)
    start, end = (x, y - math.copysign(0.57, y - 2)), (4.5 + 0.4 * (x - 4.5), 2.15 + math.copysign(0.42, y - 2))
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": "#555555", "lw": 1.4})
ax.add_patch(plt.Rectangle((2.9, 1.75), 3.2, 0.8, fc="white", ec="#333333", lw=2))
ax.text(4.5, 2.15, 'a policy and its score: "100 %"', ha="center", va="center", fontsize=11)
for start, end, text, at in (
    ((1.5, 2.15), (2.9, 2.15), "image,\nwords", 1.05),
    ((6.1, 2.15), (7.5, 2.15), "arrow", 7.9),
):
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": "#333333", "lw": 2})
    ax.text(at, 2.15, text, ha="center", va="center", fontsize=11)
plt.show()

# %% [markdown]
# ## 1. Four metrics, and what each cannot see
#
# Write $a$ for the right action, a unit vector, and $\hat a$ for the prediction. Four numbers are usual here:
#
# - **L2 error**: the mean of $\lVert \hat a - a \rVert$.
# - **Direction accuracy**: the share of scenes in which the cosine of $\hat a$ and $a$ exceeds 0.8, which means
#   within about 37 degrees.
# - **Within 10 degrees**: the same, with a stricter bound.
# - **Mean angular error**: the mean angle between $\hat a$ and $a$, in degrees.
#
# Each of them throws something away, because one number cannot hold a thousand arrows. First we build them.


# %%
def angle_error(predicted, actions):
    """Angle between prediction and label, in degrees; 90 for (0, 0), which has no direction."""
    p, a = predicted.double(), actions.double()
    cross = p[:, 0] * a[:, 1] - p[:, 1] * a[:, 0]
    degrees = torch.rad2deg(torch.atan2(cross.abs(), (p * a).sum(dim=1)))  # exact for small angles; acos is not
    return torch.where(p.norm(dim=1) == 0, 90.0, degrees)  # (n,)


def four_metrics(predicted, actions):
    """L2 error, direction accuracy, share within 10 degrees, mean angular error."""
    degrees = angle_error(predicted, actions)
    l2_error = (predicted.double() - actions.double()).norm(dim=1).mean()
    is_right = torch.cos(torch.deg2rad(degrees)) > 0.8
    shares = [hits.double().mean().item() for hits in (is_right, degrees <= 10)]
    return l2_error.item(), *shares, degrees.mean().item()


test = BlockFind(1_000, seed=44)
labels = torch.from_numpy(test.actions)
noisy = labels + torch.from_numpy(np.random.RandomState(0).uniform(-0.6, 0.6, labels.shape)).float()
mine, package = four_metrics(noisy, labels), Metrics.of(noisy, labels)
names = ("l2_error", "direction_accuracy", "within_10_degrees", "mean_angular_error")
for name, value in zip(names, mine, strict=True):
    assert abs(value - getattr(package, name)) < 1e-6, name
print("labels", tuple(labels.shape), "predictions", tuple(noisy.shape))
print("all four equal tinyvla.learn.evaluate.Metrics")

# %% [markdown]
# Now some made-up policies, each with one particular fault. Before you look at the table, guess:
# which two of these policies have the **same L2 error**? Which bad one has a **direction accuracy of 100 %**?


# %%
def turned(arrows, degrees):
    """All arrows turned by the same angle, clockwise on the screen (y points down)."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return arrows @ torch.tensor([[c, s], [-s, c]], dtype=arrows.dtype)


tenth = torch.arange(len(labels)) % 10 == 0  # every tenth scene
made_up = {
    "perfect": labels,
    "half as long": 0.5 * labels,
    "a hundredth as long": 0.01 * labels,
    "all turned by 30 degrees": turned(labels, 30),
    "all turned by 11.5 degrees": turned(labels, 11.5),
    "9 in 10 perfect, 1 opposite": torch.where(tenth[:, None], -labels, labels),
    "9 in 10 perfect, 1 at 38 degrees": torch.where(tenth[:, None], turned(labels, 38), labels),
    "always (0, 0)": torch.zeros_like(labels),
}
print(f"{'':34}{'L2 error':>9}{'direction':>11}{'within 10':>11}{'mean angle':>12}")
for name, predicted in made_up.items():
    l2, direction, within_10, angle = four_metrics(predicted, labels)
    print(f"{name:34}{l2:9.2f}{direction:11.0%}{within_10:11.0%}{angle:12.1f}")

# %% [markdown]
# | metric | what it cannot see |
# |---|---|
# | L2 error | whether many are slightly wrong or a few are terribly wrong; whether length or direction is at fault |
# | direction accuracy | anything below 37 degrees; the length; how wrong the wrong ones are |
# | within 10 degrees | the length; it calls 11 degrees and 180 degrees the same |
# | mean angular error | the length; and, like every mean, how the error is spread over the scenes |
#
# The policy that is turned by 11.5 degrees and the one that runs in the opposite direction in a tenth of its scenes
# have the same L2 error. Which is worse? For an arm that corrects itself ten times a second, the turned one arrives
# and the other crashes. For a dart, neither hits. **The metric depends on what the action is for**, and no metric
# does well alone: take a lenient one, a strict one and one that sees lengths.
#
# A policy turned by 30 degrees is at 100 % in the course's main metric. So if you read "direction accuracy 100 %"
# anywhere, look at the column beside it.
#
# ## 2. How sure is a share?
#
# A direction accuracy of 97 % on 1,000 scenes is a *count*, 970 of 1,000. Other scenes would have given another
# count. If the true probability of success is $p$, then the share $\hat p$ seen in $n$ independent scenes scatters
# around $p$ with a standard error of $\sqrt{p(1-p)/n}$.
#
# The usual recipe puts the *seen* share into that formula: $\hat p \pm 1.96\sqrt{\hat p(1-\hat p)/n}$. At 100 % it
# says $\pm 0$: after three successes in three trials you would be certain. The recipe breaks exactly where
# good policies live.
#
# **Wilson's** interval ([1927](https://doi.org/10.2307/2276774)) asks the question the other way round: *for which
# true $p$ would the share that we saw be unsurprising?* It keeps every $p$ that is at most 1.96 of **its own**
# standard errors away:
#
# $$|\hat p - p| \le z\sqrt{\frac{p(1-p)}{n}}, \qquad z = 1.96.$$
#
# Squared, this is a quadratic inequality in $p$, and its two solutions are the ends of the interval:
#
# $$\frac{\hat p + \frac{z^2}{2n} \pm z\sqrt{\frac{\hat p(1-\hat p)}{n} + \frac{z^2}{4n^2}}}{1 + \frac{z^2}{n}}.$$


# %%
def naive(share, n, z=1.96):
    """The seen share, and 1.96 standard errors to either side."""
    half = z * math.sqrt(share * (1 - share) / n)
    return share - half, share + half


def wilson(share, n, z=1.96):
    """All p for which the seen share lies within 1.96 of p's own standard errors."""
    middle = share + z**2 / (2 * n)  # pulled towards one half
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return (middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)


for successes, n in ((3, 3), (19, 20), (97, 100), (970, 1_000), (1_000, 1_000)):
    low, high = wilson(successes / n, n)
    for end in (low, high):  # both ends really are 1.96 of their own standard errors away
        assert abs(abs(successes / n - end) - 1.96 * math.sqrt(max(end * (1 - end), 0) / n)) < 1e-9
    package = wilson_interval(successes / n, n)
    assert max(abs(low - package[0]), abs(high - package[1])) < 1e-9
    old = naive(successes / n, n)
    print(f"{successes:5,} of {n:5,}: naive {old[0]:6.1%} to {old[1]:6.1%}    Wilson {low:6.1%} to {high:6.1%}")
print("equal to tinyvla.learn.evaluate.wilson_interval")

# %% [markdown]
# "1,000 of 1,000" still allows a policy that fails in almost four scenes of a thousand.
#
# Is Wilson's interval honest? A "95 %" interval should contain the true value in 95 % of all evaluations. We can test
# that, since here we play nature: fix a true $p$, evaluate 20,000 times on 50 scenes, and count how often each
# interval contains $p$. **Guess first:** when the true success rate is 99 %, how often does the naive interval hold
# it? (a) 95 % (b) about 90 % (c) about 75 % (d) less than half

# %%
num_scenes, num_evaluations = 50, 20_000
draws = np.random.RandomState(0).random_sample((num_evaluations, num_scenes))
print(f"{num_evaluations:,} evaluations on {num_scenes} scenes each; the interval contains the truth in")
for truth in (0.5, 0.8, 0.95, 0.99):
    counts = (draws < truth).sum(axis=1)  # (evaluations,): scenes in which the policy succeeded
    contains = {}
    for interval in (naive, wilson):
        low, high = np.array([interval(k / num_scenes, num_scenes) for k in range(num_scenes + 1)])[counts].T
        contains[interval.__name__] = ((low <= truth) & (truth <= high)).mean()
    print(f"  true rate {truth:.0%}:   naive {contains['naive']:.0%}   Wilson {contains['wilson']:.0%}")

# %% [markdown]
# (d). In most of these evaluations the policy succeeds 50 times out of 50, the naive interval is "100 % to 100 %",
# and the truth is not in it. Wilson's interval stays near its promise. How near, for every true rate? No simulation
# is needed: the probability of each count is a binomial coefficient times powers, and we add those whose interval
# holds $p$.

# %% mystnb={"image": {"alt": "How often each interval holds the true rate, against that rate: Wilson stays near 95 percent, the naive interval collapses near 0 and 100 percent."}}
truths = np.linspace(0.002, 0.998, 499)
counts = np.arange(num_scenes + 1)
ways = np.array([math.comb(num_scenes, k) for k in counts], dtype=float)
probability = ways * truths[:, None] ** counts * (1 - truths[:, None]) ** (num_scenes - counts)  # (truths, counts)
fig, ax = plt.subplots(figsize=(8, 3.2), layout="constrained")
for interval, part in ((naive, "language"), (wilson, "fusion")):
    low, high = np.array([interval(k / num_scenes, num_scenes) for k in counts]).T
    holds = (low <= truths[:, None]) & (truths[:, None] <= high)
    label = "Wilson" if interval is wilson else "naive"
    ax.plot(100 * truths, 100 * (probability * holds).sum(axis=1), color=PART_COLORS[part], lw=1.2, label=label)
ax.axhline(95, color="grey", ls="--", label="promised")
ax.set(xlabel="true success rate (%)", ylabel="interval holds it (%)", ylim=(0, 102), xlim=(0, 100))
ax.legend(frameon=False, loc="lower center", ncols=3)
plt.show()

# %% [markdown]
# The teeth are there because counts are whole numbers. Wilson dips below 95 % in places, but its *average* is close
# to 95 % ([Agresti and Coull](https://doi.org/10.1080/00031305.1998.10480550) argue that this is what one should
# want), and nowhere does it collapse.
#
# Now turn it round: **how many scenes does a claim need?**

# %%
print(f"{'scenes':>8}{'if 95 % succeed':>22}{'half the width':>17}{'if all succeed':>20}")
for n in (20, 50, 100, 400, 1_000, 10_000):
    low, high = wilson(0.95, n)
    print(f"{n:8,}{low:14.1%} to {high:5.1%}{100 * (high - low) / 2:10.1f} points{wilson(1, n)[0]:12.1%} or more")

# %% [markdown]
# Ten times the scenes make the interval about three times narrower: precision costs the *square*. With 20 scenes, a
# common number of trials with a real robot, "19 of 20" is compatible with a policy that fails in a fifth of all
# cases. In simulation scenes are cheap, so there is no excuse for 20.
#
# Mind what the interval is about: **these weights, new scenes of the same kind**. It says nothing about another
# training seed, and nothing about scenes of another kind. Both come below.
#
# ## 3. Floors
#
# [Chapter 1](01_dataset.ipynb) derives what deprived policies score: the best answers under squared error without the
# image, without the words, or without either. A random direction is right in $2 \cdot 37 / 360 \approx 20\,\%$ of
# scenes. Here they are on the test split, now with intervals.

# %%
train = BlockFind(8_000, seed=42)
floors = {
    "constant": constant_floor(train, test),
    "language only": language_only_floor(train, test),
    "vision only": vision_only_floor(test),
}
print(f"{'':16}{'L2 error':>9}{'direction accuracy':>26}{'within 10 degrees':>26}")
for name, predicted in floors.items():
    l2, direction, within_10, _ = four_metrics(torch.from_numpy(predicted), labels)
    shares = [share_with_interval(share, len(test)) for share in (direction, within_10)]
    print(f"{name:16}{l2:9.2f}{shares[0]:>26}{shares[1]:>26}")

# %% [markdown]
# The line to remember is the third one. **A policy that has never read a word gets about 45 %**, twice what chance
# gives. A fourth floor needs a policy: the *shuffled instruction*, in which each scene gets its neighbour's sentence.
# We come to it as soon as there is one.
#
# ## 4. The instruction swap
#
# Floors compare averages. The swap asks the policy itself: **keep the image, name another block in it, and see
# whether the arrow follows.** `BlockFind.retargeted()` makes such scenes: the same pixels, another block in slot 0.
#
# One detail decides whether the test is fair. If both blocks lie in nearly the same direction, a policy that ignores
# the words is right by luck. So only scenes count in which the two right arrows are apart (cosine at most 0.8).


# %%
def swap_by_hand(act, split):
    """Share of scenes in which the arrow turns to another block when that one is named, and their number.

    `act` takes a split and returns an arrow for each scene, `(n, 2)`.
    """
    swapped = split.retargeted()  # slot 1 becomes the target
    assert np.array_equal(swapped.images, split.images)  # only the words changed
    apart = (split.actions * swapped.actions).sum(axis=1) <= 0.8 - 1e-6
    scenes = BlockFind.from_blocks(swapped.cells[apart], swapped.colors[apart])
    predicted = torch.from_numpy(np.asarray(act(scenes), dtype=np.float32))
    return four_metrics(predicted, torch.from_numpy(scenes.actions))[1], int(apart.sum())


sample, swapped_sample = test[4], test.retargeted()[4]
print(f"scene 4: {sample.instruction!r} becomes {swapped_sample.instruction!r}")
actors = {
    "constant": lambda split: constant_floor(train, split),
    "language only": lambda split: language_only_floor(train, split),
    "vision only": vision_only_floor,
    "the answers to the old words": lambda split: split.retargeted().actions,
    "the right answers": lambda split: split.actions,
}
for name, act in actors.items():
    share, num_swaps = swap_by_hand(act, test)
    print(f"{name:30} {share:6.1%} of {num_swaps} swaps")

# %% [markdown]
# The fourth row is the policy that we look for: it knew the right answer to the *old* words and does not notice the
# new ones. It scores exactly zero, by construction. A policy that points between all blocks gets something here too,
# so the swap has a floor of its own, and it is not zero. Read it like any other score: against its floor.
#
# Time for a trained policy. It is the small one that all chapters share.


# %% tags=["nbval-ignore-output", "slow"]
def act_with(policy):
    """A policy as a function from a split to arrows."""
    return lambda split: policy.predict(split.images, split.instructions).numpy()


policy = trained_policy()
arrows = act_with(policy)(test)
trained_metrics = Metrics.of(torch.from_numpy(arrows), labels)
share, num_swaps = swap_by_hand(act_with(policy), test)
package_share, package_swaps = swap_accuracy(policy, test)
assert (num_swaps, package_swaps) == (package_swaps, num_swaps)
assert abs(share - package_share) < 0.005, "the hand-made swap differs from tinyvla.learn.evaluate.swap_accuracy"
shuffled = policy.predict(test.images, test.instructions[-1:] + test.instructions[:-1])
shuffled_share = Metrics.of(shuffled, labels).direction_accuracy
print(f"direction accuracy    {share_with_interval(trained_metrics.direction_accuracy, len(test))}")
print(f"within 10 degrees     {share_with_interval(trained_metrics.within_10_degrees, len(test))}")
print(
    f"instruction swap      {share_with_interval(share, num_swaps)}   the same as tinyvla.learn.evaluate.swap_accuracy"
)
print(f"shuffled instruction  {share_with_interval(shuffled_share, len(test))}")
assert trained_metrics.direction_accuracy > 0.95, "the shared policy has not learned the task"
assert share > 0.95, "the arrow does not follow the words"
assert shuffled_share < 0.6, "with the wrong words it should not be right"

# %% [markdown]
# With the right words it is right, with other words it goes to the other block, with a stranger's words it falls to
# about the vision-only floor or below. It listens. Two of the scenes, once with each sentence:

# %% tags=["slow"] mystnb={"image": {"alt": "Two scenes, each with two instructions; the predicted arrow goes to the block that is named."}}
fig, axes = plt.subplots(1, 4, figsize=(9, 2.8), layout="constrained")
for column, index in enumerate((4, 9)):
    for ax, split in zip(axes[2 * column : 2 * column + 2], (test, test.retargeted()), strict=True):
        plot_sample(split[index], policy.predict(split[index].image, split[index].instruction).numpy(), ax=ax)
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
plt.show()

# %% [markdown]
# ## 5. Predict, run, explain: data that make a policy deaf
#
# Now we keep policy, training and number of steps, and change only **which block is the target**. In the
# usual data the target is a random one. Here it is always the **first block in reading order**: the topmost, and the
# leftmost of those in its row. The sentence is as before and always correct: if the first block is red, it says "find
# the red block". Images, colours and labels are as fair as ever. This is not far-fetched: it is what you get when
# somebody records demonstrations and tidies the table from one side.


# %% mystnb={"image": {"alt": "Four scenes in which the arrow goes to the topmost block."}}
def with_target(split, slot):
    """The same images, the block in `slot` (one per scene) as the target, and the sentence to match."""
    order = np.argsort(np.arange(split.cells.shape[1]) != slot[:, None], axis=1, kind="stable")
    cells, colors = (np.take_along_axis(blocks, order, axis=1) for blocks in (split.cells, split.colors))
    return BlockFind.from_blocks(cells, colors)


def first_block(num_samples, seed):
    """Scenes whose target is the first block in reading order, which is the one with the smallest cell number."""
    split = BlockFind(num_samples, seed)
    return with_target(split, np.where(split.cells >= 0, split.cells, 99).argmin(axis=1))


first_val, plain_val = first_block(500, seed=43), BlockFind(500, seed=43)
base = BlockFind.from_blocks(test.cells[:500], test.colors[:500])  # half of the test split is enough from here on
print("the images are those of the ordinary split:", np.array_equal(first_val.images, plain_val.images))
print("targets by colour:", np.bincount(first_val.colors[:, 0]).tolist())
fig, axes = plt.subplots(1, 4, figsize=(9, 2.6), layout="constrained")
for index, ax in enumerate(axes):
    plot_sample(first_val[index], ax=ax)
plt.show()

# %% [markdown]
# A policy is trained on 4,000 such scenes, 125 steps. Note that *listening* solves this task, too, and
# [Chapter 4](04_fusion.ipynb) shows that 125 steps of ordinary data are enough to learn it. **Guess two
# numbers**: the direction accuracy on validation scenes of the same kind, and the instruction swap on those scenes.
#
# 1. Both high. The words are right in every scene, so it learns to use them.
# 2. Accuracy high, swap about one half: it uses both, position and words.
# 3. Accuracy high, swap near zero.
# 4. Both low: "first in reading order" is too difficult to find out.


# %% tags=["nbval-ignore-output", "slow"]
def train_on(make_split, num_samples=4_000, seed=0):
    """Train `nano` for two epochs on one kind of data."""
    student = new_policy(model_config("nano"), seed, device)
    splits = [TensorSplit.from_blockfind(make_split(n, s), encode, device) for n, s in ((num_samples, 42), (250, 43))]
    settings = replace(TrainConfig(), epochs=2, learning_rate=1e-3, seed=seed)
    fit(student, *splits, settings)
    return student.eval()


def examine(policy, own):
    """Accuracy and swap on scenes of its own kind and on ordinary test scenes."""
    result = {}
    for kind, split in (("own", own), ("ordinary", base)):
        predicted = torch.from_numpy(act_with(policy)(split))
        result[kind] = Metrics.of(predicted, torch.from_numpy(split.actions)).direction_accuracy
        result[f"{kind} swap"] = swap_by_hand(act_with(policy), split)[0]
        after_swap = policy.predict(split.images, split.retargeted().instructions)  # other words, same images
        result[f"{kind} moved"] = angle_error(after_swap, predicted).median().item()
    return result


deaf = train_on(first_block)
examined = {"first block": examine(deaf, first_val), "ordinary": examine(policy, plain_val)}
for kind, result in examined.items():
    print(f"trained on {kind} data")
    for split in ("own", "ordinary"):
        print(f"  {split:8} scenes: right direction {result[split]:6.1%}, swap {result[f'{split} swap']:6.1%}, "
              f"the arrow moves {result[f'{split} moved']:5.1f} degrees when the words change (median)")  # fmt: skip

# %% tags=["slow"]
assert examined["first block"]["own"] > 0.75, "it should be right on its own kind of scenes"
assert examined["first block"]["own swap"] < 0.25, "it should not follow the words"
assert 0.25 < examined["first block"]["ordinary"] < 0.6, "on ordinary scenes it should stand near the floor"
assert examined["ordinary"]["ordinary swap"] > 0.95
print("right on its own kind of scenes, deaf to the words, and near the vision-only floor elsewhere")

# %% [markdown]
# Number 3. When other words are put under the same image, its arrow hardly moves at all. **It is deaf, and its
# validation accuracy does not show it**, because its validation scenes have the same hole as its training scenes. On
# ordinary test scenes it is at the vision-only floor.
#
# Why did it not listen, where listening was as good a solution? Gradient descent does not look for the solution that
# we had in mind. It follows whatever lowers the loss *first*. "Top of the image" helps from the first steps on, in
# every scene, without the words. The words only help once a query fits a key. When they could have begun to help,
# most of the loss was gone, and with it the reason to learn. Such a rule, which works on the data and is not the one
# that was meant, is called a **shortcut** ([Geirhos et al.](https://arxiv.org/abs/2004.07780) collect many).
#
# You might object that its accuracy was not perfect and might have made you suspicious. So here is a second set. The
# targets are red, green or blue, all the *other* blocks are yellow, purple or orange. Nothing is said about places.


# %% tags=["nbval-ignore-output", "slow"]
def marked_target(num_samples, seed):
    """Scenes whose target has one of the first three colours and whose other blocks have the last three."""
    split, rng = BlockFind(num_samples, seed), np.random.RandomState(seed + 1_000)
    colors = np.concatenate([draw_distinct(rng, num_samples, 3, 1), 3 + draw_distinct(rng, num_samples, 3, 3)], axis=1)
    return BlockFind.from_blocks(split.cells, np.where(split.cells >= 0, colors, -1))


marked_val = marked_target(500, seed=43)
marked = train_on(marked_target, num_samples=2_000)  # half the steps are enough
examined["marked target"] = result = examine(marked, marked_val)
for split in ("own", "ordinary"):
    print(f"{split:8} scenes: right direction {result[split]:6.1%}, swap {result[f'{split} swap']:6.1%}")
assert result["own"] > 0.95, "it should be right on its own kind of scenes"
assert result["own swap"] < 0.1, "it should not follow the words"
assert 0.25 < result["ordinary"] < 0.65, "on ordinary scenes it should stand near the floor"

# %% tags=["hide-input", "slow"] mystnb={"image": {"alt": "Bars for three policies: the ordinary one is high everywhere; the other two are high on their own scenes, near zero in the swap, and at the floor on ordinary scenes."}}
fig, axes = plt.subplots(1, 3, figsize=(9, 3.1), sharey=True, layout="constrained")
bars = [("own", "own kind\nof scenes", "action"), ("own swap", "swap on\nthem", "language"),
        ("ordinary", "ordinary\nscenes", "action"), ("ordinary swap", "swap on\nthem", "language")]  # fmt: skip
guess = four_metrics(torch.from_numpy(floors["vision only"]), labels)[1]
for ax, kind in zip(axes, ("ordinary", "first block", "marked target"), strict=True):
    values = [100 * examined[kind][key] for key, _, _ in bars]
    drawn = ax.bar(range(4), values, color=[PART_COLORS[part] for _, _, part in bars])
    ax.axhline(100 * guess, color="black", ls="--", lw=1)
    ax.bar_label(drawn, fmt="%.0f", padding=2)
    ax.set(title=f"trained on: {kind}", ylim=(0, 112))
    ax.set_xticks(range(4), [text for _, text, _ in bars], fontsize=9)
axes[0].set_ylabel("%")
axes[2].text(1, 100 * guess + 2, "vision only", ha="center", fontsize=9)
plt.show()

# %% [markdown]
# Perfect on its own scenes, **zero** in the swap on the same scenes. No learning curve, no validation split of this
# kind, no confidence interval would have told you. Two things would have:
#
# - **A swap**, since it asks about a picture that has a second answer.
# - **A floor computed on the data**: for each image, could the target be guessed without the words? In both sets it
#   could, in every scene. You can find that out before any training.
#
# And the cure is in the data, too: show the *same image with different instructions*. Then no rule about images alone
# can be right.
#
# ## 6. Where does it look?
#
# In the cross-attention of this policy the whole sentence becomes **one query**. So there is one map of attention for
# each *instruction*, and not one for each word: "find", "the" and "block" have no map of their own. The query meets
# 65 tokens, the CLS token and 64 patches, in each of four heads. We write out what the fusion does, since we want to
# interfere with it: `hidden` names tokens that the query may not look at.


# %% tags=["slow"]
@torch.no_grad()
def look(policy, images, sentences, hidden=None):
    """Arrows and attention weights; where `hidden` (n, 65) is True, the query may not look."""
    batch = torch.from_numpy(images).to(policy.device).float() / 255
    words = [tensor.to(policy.device) for tensor in encode(sentences)]
    attention = policy.fusion.attention
    query = policy.fusion.query(policy.language, *words)  # (n, 1, width): one question per sentence
    q, k, v = attention.project(query, policy.vision(batch))  # (n, heads, 1 or 65, width of a head)
    logits = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (n, heads, 1, 65)
    if hidden is not None:
        logits = logits.masked_fill(torch.from_numpy(hidden).to(policy.device)[:, None, None], -torch.inf)
    weights = logits.softmax(dim=-1)
    feature = attention.output((weights @ v).transpose(1, 2).flatten(2))[:, 0]  # (n, width)
    return policy.head.predict(feature).cpu(), weights[:, :, 0].cpu()


some = BlockFind.from_blocks(test.cells[:300], test.colors[:300])
some_labels = torch.from_numpy(some.actions)
seen, weights = look(policy, some.images, some.instructions)
torch.testing.assert_close(seen, policy.predict(some.images, some.instructions), atol=1e-4, rtol=1e-4)
torch.testing.assert_close(weights.sum(dim=-1), torch.ones(300, 4))
print("attention weights", tuple(weights.shape), "(scenes, heads, CLS and 64 patches)")
print("the arrows equal those of the package's policy")

# %% [markdown]
# One scene with four blocks, and all six colour words. Two of the colours are not there. The area of a circle is
# the weight on that cell, the mean over the heads; the arrow is the policy's answer.


# %% tags=["slow"] mystnb={"image": {"alt": "One scene, six instructions: for each colour that is there the largest circle of attention lies on its block."}}
def show_attention(ax, image, weights, arrow, title):
    """Circles whose areas are the weights on the 64 cells, and the arrow."""
    ax.imshow(image.transpose(1, 2, 0), interpolation="nearest")
    for cell, weight in enumerate(weights[1:]):
        center = cell_centers(np.array(cell)) - 0.5  # imshow puts the middle of the first pixel at 0
        radius = 5.5 * math.sqrt(float(weight))  # area in proportion to the weight
        ax.add_patch(plt.Circle(tuple(center), radius, fc=(0, 0, 0, 0.75), ec="white"))
    draw_arrow(ax, arrow.numpy(), PART_COLORS["action"], "predicted")
    ax.set_title(title, fontsize=10)
    ax.set(xticks=[], yticks=[], xlim=(-0.5, 63.5), ylim=(63.5, -0.5))


four = int(np.nonzero((test.cells >= 0).all(axis=1))[0][3])  # a scene with four blocks
present = [COLORS[c] for c in test.colors[four]]
words = [*present, *(color for color in COLORS if color not in present)]
sentences = [f"find the {word} block" for word in words]
arrows_to, maps = look(policy, np.repeat(test.images[four][None], 6, axis=0), sentences)
fig, axes = plt.subplots(2, 3, figsize=(8.4, 5.9), layout="constrained")
for ax, word, weight, arrow in zip(axes.flat, words, maps.mean(dim=1), arrows_to, strict=True):
    note = "" if word in present else " (not there)"
    show_attention(ax, test.images[four], weight, arrow, f"find the {word} block{note}")
plt.show()

# %% [markdown]
# The same pixels, six questions. For a colour that is there, the largest circle sits on its block. For one that is
# not there, the weights still have to sum to one: attention cannot answer "nowhere", so they go to blocks that have
# not been asked for, and the arrow that comes out is shorter.
#
# The maps look convincing. But also look at how *much* weight the right block gets. It is far from all of it, and the
# rest is spread over the other blocks and the empty background. So here is the question that a map cannot answer by
# itself: **does the policy use what it looks at?** We find out by interfering. Guess what happens to the direction
# accuracy in each of four cases:
#
# 1. paint over the target block with background;
# 2. paint over another block;
# 3. leave the image alone, but hide from the query the one token with the largest weight;
# 4. hide **all tokens but** that one, which throws away much of the attention.


# %% tags=["nbval-ignore-output", "slow"]
def without_block(split, slot):
    """The images with one block painted over."""
    cells = split.cells.copy()
    cells[:, slot] = -1
    return render(cells, split.colors)


mean_weights = weights.mean(dim=1).numpy()  # (300, 65)
scene = np.arange(len(some))
top = mean_weights.argmax(axis=1)
is_top = np.arange(65) == top[:, None]
on_target = mean_weights[scene, 1 + some.cells[:, 0]]
print(f"largest weight on the target's patch in {(top == 1 + some.cells[:, 0]).mean():.0%} of {len(some)} scenes")
print(f"weight there: {np.median(on_target):.2f} (median)")
by_head = weights[scene, :, torch.from_numpy(1 + some.cells[:, 0])].median(dim=0).values
print("head by head:", ", ".join(f"{w:.2f}" for w in by_head.tolist()), "\n")
interference = {
    "nothing": seen,
    "target painted over": look(policy, without_block(some, 0), some.instructions)[0],
    "other block painted over": look(policy, without_block(some, 1), some.instructions)[0],
    "top token hidden": look(policy, some.images, some.instructions, hidden=is_top)[0],
    "all but the top token hidden": look(policy, some.images, some.instructions, hidden=~is_top)[0],
}
after = {}
print(f"{'':30}{'right direction':>16}{'arrow moves (median)':>22}{'its length':>12}")
for name, arrow in interference.items():
    moved, length = angle_error(arrow, seen).median().item(), arrow.norm(dim=1).median().item()
    after[name] = Metrics.of(arrow, some_labels).direction_accuracy
    print(f"{name:30}{after[name]:16.0%}{moved:14.1f} degrees{length:12.2f}")
assert after["target painted over"] < 0.5, "without the target it cannot know"
assert after["other block painted over"] > 0.95, "another block should not matter"
assert after["top token hidden"] < 0.5, "the top token should be needed"
assert after["all but the top token hidden"] > 0.85, "the top token should be enough"

# %% [markdown]
# For this small policy the map's *largest* circle tells the truth, and now we know it instead of hoping for it. The
# token is necessary (hide it, and the arrow is a guess) and sufficient (keep only it, and the arrow hardly moves).
# Painting over the block does the same as hiding its token; painting over another block does almost nothing.
#
# But the *weights* are not shares of influence. Much of the attention lies on tokens that can be removed without
# loss. Single heads differ widely: one puts most of its weight on the target, another next to none. "It gives
# so-and-so much of its attention to the block" says nothing that you could act on. In deep networks even the first
# half fails, since by the time attention reads a token, it may hold what other patches put there. There is a
# literature on whether [attention is not explanation](https://arxiv.org/abs/1902.10186) or [not not
# explanation](https://arxiv.org/abs/1908.04626). The practical rule: **a map is a hypothesis; interfere, and
# measure.**
#
# There is a second trap. Guess: where does the *deaf* policy look, the one trained on marked targets, with
# its 0 % in the swap? On its own scenes?

# %% tags=["nbval-ignore-output", "slow"]
own = BlockFind.from_blocks(marked_val.cells[:300], marked_val.colors[:300])
shares = {}
for name, sentences in (
    ("its own words", own.instructions),
    ("words for another block", own.retargeted().instructions),
):
    _, marked_weights = look(marked, own.images, sentences)
    where = marked_weights.mean(dim=1)[:, 1:].argmax(dim=1).numpy()  # the cell with the largest weight
    shares[name] = (where == own.cells[:, 0]).mean(), (where == own.cells[:, 1]).mean()
    print(
        f"{name:24} looks most at: old target {shares[name][0]:4.0%}, other block {shares[name][1]:4.0%} of the scenes"
    )
assert shares["its own words"][0] > 0.9
assert shares["words for another block"][0] > 0.8

# %% tags=["slow"] mystnb={"image": {"alt": "The deaf policy's attention under two instructions for one image: the same block both times; beside it, the share of scenes in which that happens."}}
fig, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
index = int(np.nonzero((own.actions * own.retargeted().actions).sum(axis=1) < 0)[0][0])  # two blocks well apart
for ax, split in zip(axes, (own, own.retargeted()), strict=False):
    arrow, weight = look(marked, split.images[index][None], split.instructions[index : index + 1])
    show_attention(ax, split.images[index], weight[0].mean(dim=0), arrow[0], split.instructions[index])
axes[2].bar(
    ["old target", "other block"], [100 * s for s in shares["words for another block"]], color=PART_COLORS["fusion"]
)
axes[2].set(title="largest weight, words swapped", ylabel="% of scenes", ylim=(0, 100))
axes[2].title.set_fontsize(10)
plt.show()

# %% [markdown]
# On its own scenes it looks at the target, always, and the picture is as pretty as that of the policy that
# listens. "It attends to the green block when asked for the green block" is no evidence of listening. Only the second
# sentence tells: the map stays where it was. **Show two instructions for one image, or show none.**
#
# ## 7. The worst scenes
#
# A mean hides its tail, so look at the tail. Here are the five test scenes with the largest angular error.

# %% tags=["slow"] mystnb={"image": {"alt": "The five test scenes with the largest angular errors, each off by a few degrees."}}
signed = np.degrees(np.arctan2(
    test.actions[:, 0] * arrows[:, 1] - test.actions[:, 1] * arrows[:, 0], (test.actions * arrows).sum(axis=1)
))  # fmt: skip
errors = np.abs(signed)
worst = np.argsort(-errors)[:20]
fig, axes = plt.subplots(1, 5, figsize=(9, 2.5), layout="constrained")
for ax, index in zip(axes, worst, strict=False):
    plot_sample(test[int(index)], arrows[index], ax=ax)
    ax.set_xlabel(f"off by {errors[index]:.1f}°", fontsize=10)
    ax.title.set_fontsize(9)
plt.show()

# %% [markdown]
# Nothing terrible: the worst are off by a few degrees. But what do they have in common? It is hard not to see causes
# in such a row. Choose the one you believe in:
#
# 1. **Targets near the centre.** A pixel's error turns a short distance by a larger angle.
# 2. **Other blocks pull** the arrow towards them.
# 3. **Similar colours**: orange, red and yellow are confused.
# 4. None of these.
#
# Every one of these can be tested. For 1, plot the error against the distance. For 2 and 3, change the scene and
# leave everything else: take away the other blocks, move them, or paint the target in a colour that is not in the
# scene.


# %% tags=["nbval-ignore-output", "slow"]
def elsewhere(cells, seed=0):
    """The other blocks of each scene at new random cells."""
    rng = np.random.RandomState(seed)
    new = draw_distinct(rng, len(cells), 63, 3)
    new = new + (new >= cells[:, :1])  # any cell but the target's
    return np.concatenate([cells[:, :1], np.where(cells[:, 1:] >= 0, new, -1)], axis=1)


free_color = np.array([next(c for c in range(6) if c not in row) for row in test.colors])
changed = {
    "as it is": test,
    "target alone": BlockFind.from_blocks(test.cells[:, :1], test.colors[:, :1]),
    "others elsewhere": BlockFind.from_blocks(elsewhere(test.cells), test.colors),
    "target recoloured": BlockFind.from_blocks(
        test.cells, np.concatenate([free_color[:, None], test.colors[:, 1:]], axis=1)
    ),
}
distance = np.linalg.norm(cell_centers(test.cells[:, 0]) - 32, axis=1)  # pixels from the image's centre
correlation = np.corrcoef(errors, distance)[0, 1]
print(f"correlation of error and distance from the centre: {correlation:+.2f}\n")
print(f"{'mean error in degrees':24}{'worst 20':>10}{'all 1,000':>11}")
change = {}
for name, split in changed.items():
    error = angle_error(torch.from_numpy(act_with(policy)(split)), torch.from_numpy(split.actions)).numpy()
    change[name] = (error[worst].mean(), error.mean())
    print(f"{name:24}{change[name][0]:10.1f}{change[name][1]:11.1f}")
assert abs(correlation) < 0.4, "the distance should explain little"
for name, (worst_error, _) in list(change.items())[1:]:
    assert worst_error < 0.85 * change["as it is"][0], f"{name}: the worst scenes should become better"

# %% tags=["hide-input", "slow"] mystnb={"image": {"alt": "Left: angular error against the target's distance from the centre, without a trend. Right: each change makes the worst twenty scenes better and leaves the mean of all about the same."}}
fig, axes = plt.subplots(1, 2, figsize=(9, 3.1), layout="constrained")
axes[0].plot(distance, errors, ".", ms=4, alpha=0.35, color=PART_COLORS["vision"])
places = np.unique(distance.round(3))
means = [errors[np.isclose(distance, place, atol=0.01)].mean() for place in places]
axes[0].plot(places, means, "o-", color=PART_COLORS["action"], ms=4, lw=1, label="mean")
axes[0].set(xlabel="target's distance from the centre (pixels)", ylabel="angular error (degrees)", ylim=(0, None))
axes[0].legend(frameon=False)
y = np.arange(len(change))
axes[1].barh(y - 0.2, [w for w, _ in change.values()], 0.38, color=PART_COLORS["action"], label="worst 20")
axes[1].barh(y + 0.2, [a for _, a in change.values()], 0.38, color="grey", label="all 1,000")
axes[1].set(yticks=y, yticklabels=list(change), xlabel="mean angular error (degrees)")
axes[1].invert_yaxis()
axes[1].legend(frameon=False, loc="lower right")
plt.show()

# %% [markdown]
# **Number 4**, more or less, and there are two lessons in it.
#
# *The plausible cause is not there.* The error does not fall with the distance. The near-centre argument supposes
# that the policy measures a position in pixels and then computes an angle. It does not. It has 64 patches, and from
# each it reads the direction almost as from a table, near the centre as well as far out.
#
# *The tempting proof is none.* Take the other blocks away, and the worst scenes are cured. So the others were the
# cause? But moving them also cures, and so does repainting the target. **Whatever** we change, the worst scenes come
# back towards the average. They were *chosen* because several small errors happened to add up; change any of them,
# and the coincidence is gone. This is **regression to the mean**. Had we tried only one change, we would have
# believed in it. The grey bars are the control, scenes that were *not* selected: moving or repainting does next to
# nothing there, and taking the others away helps a little. That little is the true effect of the other blocks, a
# fraction of what the worst scenes made us believe.
#
# Is anything else left? Look at the left figure again. The curve of the means does not rise or fall, it *jumps*. Among
# its low points are the distances 6, 17 and 40, and the cells at these distances all lie on the two **diagonals**.
# [Chapter 1](01_dataset.ipynb) showed that the diagonal directions are special: four cells share each, so they are
# four times as frequent as other labels. Perhaps the policy is better at answers that it had to give more often.
#
# Note how we came to this: by staring at the test split. A pattern found in some scenes must be confirmed in
# *others*, or it is one more coincidence. We have not used the validation scenes in this section.

# %% tags=["nbval-ignore-output", "slow"]
rows, columns = np.divmod(plain_val.cells[:, 0], 8)
is_diagonal = (rows == columns) | (rows + columns == 7)
fresh = angle_error(torch.from_numpy(act_with(policy)(plain_val)), torch.from_numpy(plain_val.actions)).numpy()
print(f"fresh scenes, target on a diagonal: {fresh[is_diagonal].mean():.2f} degrees ({is_diagonal.sum()} scenes)")
print(f"fresh scenes, target elsewhere:     {fresh[~is_diagonal].mean():.2f} degrees ({(~is_diagonal).sum()} scenes)")
assert fresh[is_diagonal].mean() < fresh[~is_diagonal].mean(), "the pattern does not hold in fresh scenes"

# %% [markdown]
# It holds. It is a small effect, in the balance of the labels and not in any single scene; and a picture of the five
# worst scenes would never have led us there. (Whether it is really the frequency would need one more experiment:
# training data in which all directions are equally frequent.)
#
# ## 8. Held-out conditions
#
# The test split holds new *arrangements* of known things. The more interesting question is what happens with things
# that are not in the training data at all. First, combinations: every colour is known and every cell is known, but
# does it know *this colour in this cell*? In the standard split, all 384 pairs occur in training
# ([Chapter 1](01_dataset.ipynb) counts them). So we make data in which each colour is missing from one quarter
# of the image, both as target and as other block, and train a new policy on it.


# %%
MISSING = np.array([0, 1, 2, 3, 0, 1])  # for each colour, the quarter where it never is (0 and 1 above, 2 and 3 below)


def holds_missing_pair(split):
    """For each block, whether its colour is held out from its quarter; `(n, b)`."""
    rows, columns = np.divmod(split.cells, 8)
    quarter = 2 * (rows >= 4) + (columns >= 4)
    return (quarter == MISSING[split.colors]) & (split.cells >= 0)


def without_pairs(num_samples, seed):
    """Scenes without any held-out pair."""
    split = BlockFind(4 * num_samples, seed)
    kept = np.nonzero(~holds_missing_pair(split).any(axis=1))[0][:num_samples]
    assert len(kept) == num_samples
    return BlockFind.from_blocks(split.cells[kept], split.colors[kept])


many = BlockFind(4_000, seed=44)
unseen = np.nonzero(holds_missing_pair(many)[:, 0])[0][:500]  # scenes whose *target* is a pair never trained on
unseen_pairs = BlockFind.from_blocks(many.cells[unseen], many.colors[unseen])
seen_pairs = without_pairs(500, seed=44)
in_train = np.unique(np.argwhere(holds_missing_pair(without_pairs(4_000, seed=42))), axis=0)
print("held-out pairs of colour and cell:", 6 * 16, "of", 6 * 64)
print("held-out pairs in the training scenes:", len(in_train))
print("test scenes with an unseen pair as the target:", len(unseen_pairs))

# %% tags=["nbval-ignore-output", "slow"]
quartered = train_on(without_pairs)
pair_results = {}
for name, split in (("seen pairs", seen_pairs), ("unseen pairs", unseen_pairs)):
    metrics = Metrics.of(torch.from_numpy(act_with(quartered)(split)), torch.from_numpy(split.actions))
    pair_results[name] = metrics
    shares = [share_with_interval(s, len(split)) for s in (metrics.direction_accuracy, metrics.within_10_degrees)]
    print(f"{name:14} right direction {shares[0]:24} within 10 degrees {shares[1]}")
assert pair_results["unseen pairs"].direction_accuracy > 0.75, "unseen pairs should not break it"

# %% [markdown]
# It combines. A red block in a corner where red has never been is found like any other; at most the strict
# metric shows a small loss. Cross-attention explains why: colour decides *which* patch is read (the key), place is
# *what* is read (the value), and the two were learned apart.
#
# Now the rest, all with the shared policy: other numbers of blocks, paint, light, places and words. What may the
# words be? The tokenizer turns every sentence into ids, and the policy answers every one of them. But its language model
# remembers which tokens occurred in the training sentences, and names the words that did not:

# %% tags=["slow"]
for sentence in ("find the red block", "find the red cube", "go to the red block", "find the violet block",
                 "do not find the red block"):  # fmt: skip
    print(f"{sentence:26} never seen in training: {', '.join(policy.language.unseen_words(sentence)) or 'none'}")

# %% [markdown]
# "violet" is one entry of the vocabulary, so the *tokenizer* knows it. The *policy* has never seen it in training, so
# its embedding is still the random vector that it was born with. Known to the tokenizer does not mean known to the
# policy. `policy.predict` warns of such words, once for each sentence; here we use them on purpose and turn the warning
# off.
#
# The record says that a word is new, not what it does. Is a new noun as bad as a new colour, or as "not"? Only a
# measurement can tell.
#
# Each condition below is up to 500 scenes: images, sentences, right actions. And each gets **its own floor**: the
# expected score of a guesser that points to one of the blocks at random. ([Chapter 1](01_dataset.ipynb) estimates it
# at 44 % for ordinary scenes.)

# %%
paint = np.array(list(PALETTE.values()), dtype=float)  # (6, 3)
named = [COLORS[c] for c in base.colors[:, 0]]
other = [COLORS[c] for c in base.colors[:, 1]]


def with_palette(split, palette):
    return render(split.cells, split.colors, tuple(tuple(int(x) for x in rgb) for rgb in np.round(palette)))


def with_blocks(count):
    """500 scenes with that many blocks."""
    rng = np.random.RandomState(50 + count)
    return BlockFind.from_blocks(draw_distinct(rng, 500, 64, count), draw_distinct(rng, 500, 6, count))


def new_color(rgb):
    """The target in a paint that no training image holds."""
    colors = base.colors.copy()
    colors[:, 0] = 6
    return render(base.cells, colors, (*PALETTE.values(), rgb))


def shifted(split, pixels, seed=0):
    """Each block moved by up to that many pixels in x and y; images, and the actions that are now right."""
    images = np.empty_like(split.images)
    images[:] = np.array(BACKGROUND, dtype=np.uint8)[:, None, None]
    rows, columns = np.divmod(split.cells, 8)
    moves = np.random.RandomState(seed).randint(-pixels, pixels + 1, size=(*split.cells.shape, 2))
    corners = np.clip(8 * np.stack([columns, rows], axis=-1) + moves, 0, 56)  # (n, b, 2)
    for i, slot in zip(*np.nonzero(split.cells[:, ::-1] >= 0), strict=True):
        slot = split.cells.shape[1] - 1 - slot  # the target last, so that nothing covers it
        x, y = corners[i, slot]
        images[i, :, y : y + 8, x : x + 8] = paint[split.colors[i, slot]][:, None, None]
    offset = corners[:, 0] + 4 - 32.0
    length = np.linalg.norm(offset, axis=1)
    return images, (offset / np.maximum(length, 1)[:, None]).astype(np.float32), length > 3


def with_background(level):
    is_background = (base.images == 245).all(axis=1, keepdims=True)
    return np.where(is_background, level, base.images).astype(np.uint8)


conditions = {}  # (group, name): images, sentences, actions, scenes for the floor


def add(group, name, images=base.images, sentences=base.instructions, actions=base.actions, scenes=base):
    conditions[group, name] = images, sentences, actions, scenes


add("blocks", "ordinary test scenes")
for count in (1, 2, 5, 6):
    scenes = with_blocks(count)
    add("blocks", f"{count} block{'s' * (count > 1)}", scenes.images, scenes.instructions, scenes.actions, scenes)
for pixels in (1, 2, 4):
    images, actions, clear = shifted(base, pixels)
    kept = BlockFind.from_blocks(base.cells[clear], base.colors[clear])
    add("blocks", f"off the grid by up to {pixels} px", images[clear], kept.instructions, actions[clear], kept)
for factor in (0.7, 0.5):
    add("paint and light", f"blocks darker, × {factor}", with_palette(base, factor * paint))
for mix in (0.3, 0.5):
    add("paint and light", f"blocks paler, {mix:.0%} white", with_palette(base, (1 - mix) * paint + mix * 255))
for factor in (0.7, 0.5):
    add("paint and light", f"whole image darker, × {factor}", (factor * base.images).astype(np.uint8))
for level in (150, 0):
    add("paint and light", f"background {'black' if level == 0 else 'grey'}", with_background(level))
noise = np.random.RandomState(0).normal(0, 50, base.images.shape)
add("paint and light", "noise, 50 levels", np.clip(base.images + noise, 0, 255).astype(np.uint8))
for name, rgb in (("cyan", (23, 190, 207)), ("pink", (227, 119, 194)), ("brown", (140, 86, 75))):
    add("new colours", f"target {name}", new_color(rgb), [f"find the {name} block"] * 500)
for words in ("find the {} cube", "FIND THE {} BLOCK", "{}", "go to the {} block", "where is the {} block",
              "look for the {} box"):  # fmt: skip
    add(
        "words",
        words.format("…") if " " in words else "… (the colour alone)",
        sentences=[words.format(color) for color in named],
    )
add("words", "find the … block, not the … block",
    sentences=[f"find the {a} block, not the {b} block" for a, b in zip(named, other, strict=True)])  # fmt: skip
mirrored = [f"do not find the {b} block, find the {a} block" for a, b in zip(named, other, strict=True)]
add("words", "do not find the … block, find the … block", sentences=mirrored)
purple = np.nonzero(base.colors[:, 0] == COLORS.index("purple"))[0]
scenes = BlockFind.from_blocks(base.cells[purple], base.colors[purple])
add("words", "violet, for purple", scenes.images, ["find the violet block"] * len(scenes), scenes.actions, scenes)


def random_block_floor(scenes, actions):
    """Expected direction accuracy of pointing to a random block of each scene."""
    present = scenes.cells >= 0  # (n, b)
    cosine = (directions(scenes.cells) * actions[:, None]).sum(axis=2)
    return (((cosine > 0.8 + 1e-6) & present).sum(axis=1) / present.sum(axis=1)).mean()


floor_of = {key: random_block_floor(scenes, actions) for key, (_, _, actions, scenes) in conditions.items()}
print(len(conditions), "conditions; scenes in each:", sorted({len(c[2]) for c in conditions.values()}))
print("floor by number of blocks:",
      {name: f"{floor:.0%}" for (_, name), floor in floor_of.items() if name[1:].startswith(" block")})  # fmt: skip

# %% [markdown]
# Look at the floors first. With **one block the floor is 100 %**: whoever sees it can point at it, deaf or not. A
# perfect score in that row says nothing about listening. With six blocks the floor is lowest, and a perfect score
# says most. A demonstration with a single object on the table is the weakest test of a policy's ears.
#
# **Guess** which of these breaks the policy: noise, a black background, blocks between the cells, an unknown colour,
# "FIND THE RED BLOCK", "not the blue block".

# %% tags=["nbval-ignore-output", "slow"]
scored, answers = {}, {}
table = [f"{'condition':44}{'right direction, 95 % interval':>32}{'floor':>8}{'scenes':>8}"]
warnings.simplefilter("ignore", UnseenWordWarning)
for (group, name), (images, sentences, actions, _) in conditions.items():
    answers[name] = policy.predict(images, sentences)
    share = Metrics.of(answers[name], torch.from_numpy(actions)).direction_accuracy
    scored[name] = share, len(actions)
    table.append(f"{name:44}{share_with_interval(share, len(actions)):>32}{floor_of[group, name]:8.0%}{len(actions):8}")
print("\n".join(table))
name = "do not find the … block, find the … block"
to_other = Metrics.of(answers[name], torch.from_numpy(base.retargeted().actions)).direction_accuracy
print(f"\n'{name}': {to_other:.0%} point to the block that it should not find")

# %% tags=["slow"] mystnb={"image": {"alt": "Direction accuracy with its interval for each held-out condition, and each condition's floor."}}
tints = {"blocks": "vision", "paint and light": "fusion", "new colours": "action", "words": "language"}
fig, ax = plt.subplots(figsize=(9, 7.2), layout="constrained")
rows = list(conditions)
for y, (group, name) in enumerate(rows):
    share, n = scored[name]
    low, high = wilson(share, n)
    ax.plot([100 * low, 100 * high], [y, y], color=PART_COLORS[tints[group]], lw=2.5, alpha=0.5)
    ax.plot(100 * share, y, "o", color=PART_COLORS[tints[group]], ms=6)
    ax.plot(100 * floor_of[group, name], y, "|", color="black", ms=11, mew=1.6)
for y in [i - 0.5 for i in range(1, len(rows)) if rows[i][0] != rows[i - 1][0]]:
    ax.axhline(y, color="#bbbbbb", lw=0.8)
ax.axvline(20, color="grey", ls=":", lw=1)
ax.text(20.5, len(rows) - 0.35, "chance", color="grey", fontsize=9, va="center")
ax.set(yticks=range(len(rows)), yticklabels=[name for _, name in rows], xlim=(0, 101), ylim=(len(rows), -0.7))
ax.set_xlabel("right direction (%), with its interval; black mark: its floor, a random block")
plt.show()
easy = ("ordinary test scenes", "2 blocks", "6 blocks", "find the … cube", "noise, 50 levels")
for name in easy:
    assert scored[name][0] > 0.9, f"{name} should be easy"
for name in ("target cyan", "do not find the … block, find the … block"):
    assert scored[name][0] < 0.75, f"{name} should break it"
assert scored["off the grid by up to 4 px"][0] < scored["ordinary test scenes"][0]

# %% [markdown]
# What holds and what breaks, and why:
#
# - **More or fewer blocks, noise, other nouns** hold. Cross-attention asks each patch the same question, however many
#   blocks there are. The noun was the same in all training sentences, so it never mattered, and still does not: a
#   word can be new and harmless. Other verbs cost something. Capitals are no test at all: the tokenizer lowers them
#   before the policy sees anything.
# - **Off the grid** it gets worse step by step. A patch used to hold one colour or none; now a block lies in up to
#   four patches. And the policy's table has one answer per patch, while the right answer now changes within it.
# - **Light**: moderate changes hold, strong ones do damage. A dark or a pale image moves all colours towards each
#   other.
# - **New colours** fail. Two things are new at once, the paint and the word: no query was learned for the word, and
#   no key for the paint. Cyan scores about chance, which is *below* the floor: not even a random block is found.
#   Whatever pink and brown score above that is luck of their paint, and nothing to build on.
# - **"violet"** is a fresh, random word vector. Whatever it scores, it scores by accident. It also has the widest
#   interval, since only few scenes have a purple target.
# - **Negation** fails worst, because it fails with confidence. "Find the red block, not the blue block" does well,
#   but turn the sentence around, and the policy goes mostly to the block that it was told *not* to find. In both
#   sentences it goes to the colour that is named **first**. It has learned nothing about "not": no training sentence
#   has one, or a second colour. The good score of the first sentence is an accident of word order. Test a sentence
#   *and* its mirror image.
#
# A few of the failures, one from each kind:

# %% tags=["hide-input", "slow"] mystnb={"image": {"alt": "Four failures: a new colour, a dark image, a block off the grid, and a sentence with not."}}
shown = ("target brown", "whole image darker, × 0.5", "off the grid by up to 4 px",
         "do not find the … block, find the … block")  # fmt: skip
fig, axes = plt.subplots(1, 4, figsize=(9, 2.9), layout="constrained")
data_of = {name: data for (_, name), data in conditions.items()}
for ax, name in zip(axes, shown, strict=True):
    images, sentences, actions, _ = data_of[name]
    wrong = int(angle_error(answers[name], torch.from_numpy(actions)).argmax())
    ax.imshow(images[wrong].transpose(1, 2, 0), interpolation="nearest", vmin=0, vmax=255)
    draw_arrow(ax, actions[wrong], "black", "true", alpha=0.4, width=1.6)
    draw_arrow(ax, answers[name][wrong].numpy(), PART_COLORS["action"], "predicted")
    ax.set_title(sentences[wrong].replace(", ", ",\n"), fontsize=9)
    ax.set(xticks=[], yticks=[])
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
plt.show()

# %% [markdown]
# None of these failures shows in "100 % on the test split", and none contradicts it. The split holds none of
# them.
#
# ## 9. How to report
#
# A score that somebody else can use needs eight lines. Here they are, filled in for the shared policy:

# %% tags=["nbval-ignore-output", "slow"]
seeds = load_results("fusion")
spread = seeds["kinds"]["cross-attention"]["direction_accuracy"]
breaks = sorted((share, name) for name, (share, n) in scored.items() if n == 500)[:3]
report = {
    "metric": "direction accuracy: cosine with the label above 0.8",
    "result": share_with_interval(trained_metrics.direction_accuracy, len(test))
    + f" on {len(test):,} scenes, test seed 44",
    "stricter": share_with_interval(trained_metrics.within_10_degrees, len(test)) + " within 10 degrees",
    "floors": f"constant {four_metrics(torch.from_numpy(floors['constant']), labels)[1]:.0%}, vision only {guess:.0%}, "
    f"shuffled instruction {shuffled_share:.0%}",
    "swap": share_with_interval(*swap_accuracy(policy, test)) + f" of {num_swaps} scenes",
    "held out": "fails at: " + "; ".join(f"{name} ({share:.0%})" for share, name in breaks),
    "seeds": f"1 here; {seeds['seeds']} seeds of {seeds['epochs']} epochs: {spread['min']:.1%} to {spread['max']:.1%}",
    "chosen on": "validation split (seed 43); the test split decided nothing",
}
for line, text in report.items():
    print(f"{line:10} {text}")

# %% [markdown]
# The interval covers the choice of *scenes*. The choice of the *training seed* has to be covered by training several
# policies, and their spread is often wider. If you compare two policies, let both answer the same scenes and look at
# those where only one is right: that is more sensitive than comparing two intervals.

# %% [markdown]
# ## Exercise 1: plan an evaluation (10 minutes)
#
# You expect 95 % and want to say "± 1 point". How many scenes does that take? Write
# `scenes_needed(share, half_width)`: the smallest number $n$ of scenes for which half the width of Wilson's interval
# is at most `half_width`, when the seen share is `share`. (Ignore that `share * n` may not be a whole number.)
#
# <details><summary>Hint</summary>
#
# The width shrinks as `n` grows. Double `n` until it is large enough, then search between the last two values by
# halving. A plain loop from 1 upwards does it, too; it is only slower.
#
# </details>


# %% tags=["exercise"]
def scenes_needed(share, half_width):
    """Smallest number of scenes for which Wilson's interval is at most that wide to either side."""
    # your code here


# %% tags=["check"]
with checking("Exercise 1"):
    answer = scenes_needed(0.95, 0.01)
    assert answer is not None, "write the body of scenes_needed first"
    assert answer == int(answer), f"the number of scenes must be whole, yours is {answer}"
    for share, half_width in ((0.95, 0.01), (0.5, 0.05), (1.0, 0.005), (0.9, 0.2)):
        answer = int(scenes_needed(share, half_width))
        assert answer >= 1, f"share {share}: at least one scene, yours is {answer}"
        halves = [(high - low) / 2 for low, high in (wilson_interval(share, n) for n in (answer, max(answer - 1, 1)))]
        assert halves[0] <= half_width + 1e-12, (
            f"share {share}: {answer} scenes give ± {halves[0]:.4f}, not {half_width}"
        )
        assert answer == 1 or halves[1] > half_width - 1e-12, f"share {share}: {answer - 1} scenes would do as well"

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def scenes_needed(share, half_width):
#     def is_enough(n):
#         low, high = wilson_interval(share, n)
#         return (high - low) / 2 <= half_width
#
#     enough = 1
#     while not is_enough(enough):
#         enough *= 2
#     too_few = enough // 2
#     while enough - too_few > 1:
#         middle = (enough + too_few) // 2
#         enough, too_few = (middle, too_few) if is_enough(middle) else (enough, middle)
#     return enough
# ```
#
# For 95 % ± 1 point it takes a little over 1,800 scenes. The course's 1,000 are enough for about ± 1.4.
#
# </details>

# %% [markdown]
# ## Exercise 2: the worst group (20 minutes)
#
# The policy below is perfect, except that it cannot tell orange from the rest: asked for it, it points to another
# block. Its average does not look bad. Write `worst_group(correct, groups, min_size)`: among the groups with at least
# `min_size` scenes, find the one with the lowest share of correct scenes, and return `(group, share, number of
# scenes)`. Why the minimum size? A group with two scenes is easily at 0 %.
#
# <details><summary>Hint</summary>
#
# `np.unique(groups)` lists the groups, `correct[groups == g].mean()` is one group's share. Python's `min` of tuples
# compares their first entries first.
#
# </details>


# %%
orange = test.colors[:, 0] == COLORS.index("orange")
confused = np.where(orange[:, None], test.retargeted().actions, test.actions)
is_correct = angle_error(torch.from_numpy(confused), labels).numpy() < 36
print(f"on average {is_correct.mean():.1%} correct")


# %% tags=["exercise"]
def worst_group(correct, groups, min_size=1):
    """Group with the lowest share of correct scenes, that share, and the group's number of scenes."""
    # your code here


# %% tags=["check"]
with checking("Exercise 2"):
    answer = worst_group(is_correct, test.colors[:, 0])
    assert answer is not None, "write the body of worst_group first"
    group, share, number = answer
    assert COLORS[int(group)] == "orange", f"the worst colour is orange, yours is {COLORS[int(group)]}"
    assert number == orange.sum(), f"there are {orange.sum()} scenes with an orange target, you say {number}"
    assert abs(share - is_correct[orange].mean()) < 1e-9, (
        f"its share is {is_correct[orange].mean():.3f}, not {share:.3f}"
    )
    hits, small = np.array([1, 1, 0, 1, 0, 0, 1, 1], dtype=bool), np.array([7, 7, 7, 9, 3, 3, 9, 9])
    group, share, number = worst_group(hits, small)
    assert (int(group), number) == (3, 2), f"group 3 has 0 of 2, yours is group {group} with {number} scenes"
    group, share, number = worst_group(hits, small, min_size=3)
    assert (int(group), number) == (7, 3), (
        f"with min_size=3 it is group 7 with 3 scenes, yours is {group} with {number}"
    )

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def worst_group(correct, groups, min_size=1):
#     found = []
#     for group in np.unique(groups):
#         members = groups == group
#         if members.sum() >= min_size:
#             found.append((correct[members].mean(), int(group), int(members.sum())))
#     share, group, number = min(found)
#     return group, share, number
# ```
#
# The average is near 87 %, the worst group near chance. Give the worst group its Wilson interval as well, and mind
# that the worst of many groups looks bad by luck alone: with 64 cells as groups and 16 scenes in each, the worst
# of a perfectly even 90 % policy lies far below 90 %.
#
# </details>

# %% [markdown]
# ## Exercise 3: name the shortcut (60 minutes)
#
# Five policies in sealed boxes. You may give each any scenes that you like and look at its arrows, no more:
#
# - `"listens"`: points to the named block;
# - `"turned"`: points to the named block, but all its arrows are turned by the same unknown angle, 20 to 35 degrees,
#   to either side;
# - `"first"`: points to the first block in reading order, whatever the words say;
# - `"nearest"`: points to the block nearest to the image's centre, whatever the words say;
# - `"average"`: answers the mean of the arrows to all blocks.
#
# All of them are noisy by a few degrees, so no test for equality will work. Write `diagnose(act)` that returns one of
# the five names. `act` takes a `BlockFind` split and returns `(n, 2)` arrows. The direction accuracy alone does not
# do it: two of the five have 100 %, and the others are close together.
#
# <details><summary>Hint</summary>
#
# Ask for arrows on a few hundred scenes. For four of the names you can compute what such a policy would answer
# without noise; see which computed arrows are within 10 degrees of its answers in almost all scenes. For "turned",
# the *signed* angle between answer and label is nearly the same in all scenes: take its median and turn the label by
# it.
#
# </details>


# %%
def sealed_box(kind, seed):
    """A mystery policy. (It peeks at the blocks instead of looking at pixels; your test may not look in here.)"""
    rng = np.random.RandomState(seed)
    angle = rng.uniform(20, 35) * rng.choice([-1, 1]) if kind == "turned" else 0.0

    def act(split):
        present, scene = split.cells >= 0, np.arange(len(split))
        distance = np.linalg.norm(cell_centers(split.cells) - 32, axis=-1) + 1e-3 * split.cells
        slot = {
            "first": np.where(present, split.cells, 99).argmin(axis=1),
            "nearest": np.where(present, distance, 999).argmin(axis=1),
        }.get(kind, np.zeros(len(split), dtype=np.int64))
        arrows = vision_only_floor(split) if kind == "average" else directions(split.cells[scene, slot])
        turns = np.radians(angle + rng.uniform(-4, 4, len(split)))
        x = np.cos(turns) * arrows[:, 0] - np.sin(turns) * arrows[:, 1]
        y = np.sin(turns) * arrows[:, 0] + np.cos(turns) * arrows[:, 1]
        return np.stack([x, y], axis=1).astype(np.float32)

    return act


KINDS = ("listens", "turned", "first", "nearest", "average")
for kind in KINDS:
    answer = torch.from_numpy(sealed_box(kind, seed=1)(test))
    print(f"{kind:8} direction accuracy {four_metrics(answer, labels)[1]:.0%}")


# %% tags=["exercise"]
def diagnose(act):
    """One of "listens", "turned", "first", "nearest", "average"."""
    # your code here


# %% tags=["check"]
with checking("Exercise 3"):
    assert diagnose(sealed_box("listens", 0)) is not None, "write the body of diagnose first"
    for seed in range(1, 5):
        for kind in KINDS:
            answer = diagnose(sealed_box(kind, seed))
            assert answer in KINDS, f"the answer must be one of {', '.join(KINDS)}, yours is {answer!r}"
            assert answer == kind, f"a box that is {kind!r} was taken for {answer!r} (seed {seed})"

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def diagnose(act):
#     split = BlockFind(300, seed=7)
#     answers = np.asarray(act(split), dtype=np.float64)
#     present, scene = split.cells >= 0, np.arange(len(split))
#     distance = np.linalg.norm(cell_centers(split.cells) - 32, axis=-1)
#     right = split.actions.astype(np.float64)
#     cross = right[:, 0] * answers[:, 1] - right[:, 1] * answers[:, 0]
#     angle = np.median(np.degrees(np.arctan2(cross, (right * answers).sum(axis=1))))
#     expected = {
#         "listens": split.actions,
#         "turned": turned(torch.from_numpy(split.actions), angle).numpy(),
#         "first": directions(split.cells[scene, np.where(present, split.cells, 99).argmin(axis=1)]),
#         "nearest": directions(split.cells[scene, np.where(present, distance, 999).argmin(axis=1)]),
#         "average": vision_only_floor(split),
#     }
#     shares = {}
#     for name, arrows in expected.items():
#         degrees = angle_error(torch.from_numpy(arrows), torch.from_numpy(answers))
#         shares[name] = (degrees <= 10).double().mean().item()
#     if shares["listens"] > 0.9:  # a turn by almost nothing fits as well, so ask for this first
#         return "listens"
#     return max(shares, key=shares.get)
# ```
#
# Each shortcut is a *hypothesis that predicts arrows*; the test is to predict and compare. That also works on real
# policies: list the stupid rules that could score well on your data, and see how well each predicts the answers.
#
# </details>

# %% [markdown]
# ## Check yourself
#
# <details><summary>A policy has a direction accuracy of 100 % and a mean angular error of 30 degrees. Can that be?</summary>
#
# Yes: the direction accuracy sees nothing below 37 degrees. All arrows may be turned by 30 degrees, as with a
# camera that is mounted at an angle.
#
# </details>
#
# <details><summary>A robot succeeds in 20 of 20 trials. What may you say about its success rate?</summary>
#
# That it is compatible with 84 % and everything above (Wilson, 95 %). "100 %" would claim far more than 20 trials
# can show.
#
# </details>
#
# <details><summary>Accuracy 100 % on its own validation split, 0 % in the swap on the same images. What do you change, the model or the data?</summary>
#
# The data. In them, the image alone tells which block is meant. Add scenes in which the same image comes with
# different instructions; then no rule about images alone can be right.
#
# </details>
#
# <details><summary>The attention map lies on the red block when the policy is asked for the red block. What does that show?</summary>
#
# That its query fits that patch in this scene. A deaf policy that always looks at the marked target gives the same
# picture. Ask for another block in the same image; and hide the token, to see whether the arrow needs it.
#
# </details>
#
# <details><summary>You remove the distractors from your ten worst scenes, and the errors halve. Were the distractors the cause?</summary>
#
# Not shown. Scenes that were picked for being bad get better under almost any change (regression to the mean). Make
# the same change in scenes that were not picked, or try a change that should not matter, and compare.
#
# </details>
#
# ## Summary
#
# - Each metric hides something. Report a lenient and a strict one, and one that sees lengths.
# - Wilson's interval is honest near 100 %, where the usual one breaks. Ten times the scenes: about three times
#   narrower.
# - A policy that never reads gets about 45 % on this task, and 100 % as soon as there is only one block.
# - The instruction swap measures listening. A policy can be perfect on its own validation scenes and score zero in
#   it, if the data let it guess the target from the image.
# - An attention map is a hypothesis. Interfere with what it shows, and compare two instructions.
# - Held-out conditions say how wide a claim is. This policy holds for new combinations, numbers, noise and nouns; it
#   breaks at new colours, strong changes of light, blocks off the grid, and negation.
#
# ## Sources
#
# - E. B. Wilson, [Probable inference, the law of succession, and statistical
#   inference](https://doi.org/10.2307/2276774), 1927.
# - Agresti and Coull, [Approximate is better than "exact" for interval estimation of binomial
#   proportions](https://doi.org/10.1080/00031305.1998.10480550), 1998.
# - Geirhos et al., [Shortcut learning in deep neural networks](https://arxiv.org/abs/2004.07780).
# - Jain and Wallace, [Attention is not explanation](https://arxiv.org/abs/1902.10186), and the answer by Wiegreffe
#   and Pinter, [Attention is not not explanation](https://arxiv.org/abs/1908.04626).
# - [`tinyvla/learn/evaluate.py`](https://github.com/tinyvla/tinyvla/blob/main/tinyvla/learn/evaluate.py): metrics, floors, swap
#   and the report of `tinyvla evaluate`.
#
# ## Next
#
# Everything in this chapter is **offline**: the policy answers one picture, and its answer changes nothing. The next
# question is what happens when it *acts*, so that each answer decides what it sees next, and small errors can add up
# or be corrected. And a single arrow is the simplest action there is; other action heads can say more.
