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
# - write an instruction swap, measure with it whether a policy listens, and predict which data make it deaf;
# - read attention maps, and check by painting over a block whether they mean anything;
# - report held-out conditions, the failures included, in one table.
#
# **Time:** about 60 minutes to read, about 2 minutes on two CPU cores, 30 seconds on a GPU to run.
#
# **Before you start:** you know what a policy of this course takes and gives: an image and an instruction in, an
# arrow $(dx, dy)$ out ([Chapter 1](01_dataset.ipynb)). [Chapter 4](04_fusion.ipynb) explains the cross-attention whose
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
from tinyvla.course.ch06 import BOXES, draw_conditions, draw_instruments, held_out_conditions, sealed_box
from tinyvla.course.exercises import checking
from tinyvla.course.zoo import load_results, trained_policy
from tinyvla.data.batch import TensorSplit
from tinyvla.data.dataset import COLORS, BlockFind, cell_centers, directions, draw_distinct, render
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

# %% mystnb={"image": {"alt": "Six boxes around a policy and its score: four metrics, interval, floors, instruction swap, attention, held-out conditions; each with its question."}}
draw_instruments()
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
# Each of them leaves something out. First we build them.


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
# Now some made-up policies, one perfect and each of the others with a fault of its own. Before you look at the table,
# guess: which two of the faulty ones have the **same L2 error**? Which four have a **direction accuracy of 100 %**?


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
# have the same L2 error. Which is worse? On an arm that corrects itself ten times a second, the turned one would
# arrive, and the other would run the wrong way in every tenth scene. For a dart it is the other way round: the turned
# one always misses, the other one hits nine times in ten. **The right metric depends on what the action is for**, and
# no metric is enough alone: take a lenient one, a strict one and one that sees lengths.
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
# says $\pm 0$: after three successes in three trials you would be certain. So this recipe fails near 100 %, which is
# where good policies are.
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
# Does Wilson's interval keep its promise? A "95 %" interval should contain the true value in 95 % of all evaluations.
# We can test that, because in a simulation we know the truth: fix a true $p$, evaluate 20,000 times on 50 scenes, and
# count how often each interval contains $p$. **Guess first:** when the true success rate is 99 %, how often does the
# naive interval contain it? (a) 95 % (b) about 90 % (c) about 75 % (d) less than half

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
# The answer is (d). In most of these evaluations the policy succeeds 50 times out of 50. The naive interval is then
# "100 % to 100 %", and the truth is not in it. Wilson's interval contains it in 91 %: less than it promises, and far
# more often than the naive one. What happens at the other true rates? That needs no simulation: the probability of each
# count is a binomial coefficient times powers, and we add up the counts whose interval contains $p$.

# %% mystnb={"image": {"alt": "How often each interval holds the true rate, against that rate: Wilson stays near 95 percent, with two short dips to 84 percent near 0 and 100 percent; there the naive interval falls towards zero."}}
truths = np.linspace(0.0005, 0.9995, 1_999)
counts = np.arange(num_scenes + 1)
ways = np.array([math.comb(num_scenes, k) for k in counts], dtype=float)
probability = ways * truths[:, None] ** counts * (1 - truths[:, None]) ** (num_scenes - counts)  # (truths, counts)
fig, ax = plt.subplots(figsize=(8, 3.2), layout="constrained")
for interval, part in ((naive, "language"), (wilson, "fusion")):
    low, high = np.array([interval(k / num_scenes, num_scenes) for k in counts]).T
    holds = (low <= truths[:, None]) & (truths[:, None] <= high)
    label = "Wilson" if interval is wilson else "naive"
    coverage = (probability * holds).sum(axis=1)  # (truths,)
    print(f"{label:6} holds the truth in {coverage.mean():.0%} on average, in {coverage.min():.0%} at a true rate of "
          f"{100 * truths[coverage.round(9).argmin()]:.2f} %, its worst")  # fmt: skip
    ax.plot(100 * truths, 100 * coverage, color=PART_COLORS[part], lw=1.2, label=label)
ax.axhline(95, color="grey", ls="--", label="promised")
ax.set(xlabel="true success rate (%)", ylabel="interval holds it (%)", ylim=(0, 102), xlim=(0, 100))
ax.legend(frameon=False, loc="lower center", ncols=3)
plt.show()

# %% [markdown]
# The curves have teeth because counts are whole numbers. Wilson's *average* over all true rates is close to 95 %. It
# dips below that in many places, and deepest (for 50 scenes) where the true rate is less than half a percent away from
# 0 % or 100 %: there it holds the truth in 84 % only. The naive interval falls almost to zero at both ends. [Agresti
# and Coull](https://doi.org/10.1080/00031305.1998.10480550) argue that the average is what one should care about.
#
# Now the other way round: **how many scenes does a claim need?**

# %%
print(f"{'scenes':>8}{'if 95 % succeed':>22}{'half the width':>17}{'if all succeed':>20}")
for n in (20, 50, 100, 400, 1_000, 10_000):
    low, high = wilson(0.95, n)
    print(f"{n:8,}{low:14.1%} to {high:5.1%}{100 * (high - low) / 2:10.1f} points{wilson(1, n)[0]:12.2%} or more")

# %% [markdown]
# At 95 %, ten times the scenes make the interval about three times narrower: to halve the interval you need about four
# times as many scenes. The last column shrinks faster. When all scenes succeed, ten times the scenes make the interval
# about *ten* times narrower: 100 scenes leave 3.7 points below 100 %, and 1,000 scenes leave 0.4.
#
# "19 of 20" is compatible with a policy that fails in a fifth of all cases. In simulation scenes are cheap, so use
# many.
#
# Keep in mind what the interval is about: **these weights, new scenes of the same kind**. It says nothing about another
# training seed, and nothing about scenes of another kind. Both come below.
#
# ## 3. Floors
#
# A floor is the score of a policy that lacks something. [Chapter 1](01_dataset.ipynb) derives three of them: the best
# answers under squared error without the image, without the words, or without either. Here they are on the test split,
# now with intervals. For comparison, a random direction is right in $2 \cdot 36.9 / 360 \approx 20\,\%$ of scenes.

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


def deaf_optimum(split):
    """Direction accuracy of the best policy without words that plays for this metric and not for squared error."""
    turns = np.radians(np.arange(360))
    cosine = np.einsum("gd,nbd->gnb", np.stack([np.cos(turns), np.sin(turns)], axis=1), directions(split.cells))
    present = split.cells >= 0
    return (((cosine > 0.8) & present).sum(axis=2).max(axis=0) / present.sum(axis=1)).mean()


print(f"without words, but playing for the direction accuracy: {deaf_optimum(test):.0%}")

# %% [markdown]
# The line to remember is the third one. **A policy that was trained with squared error and never read a word gets about
# 45 %**, more than twice what chance gives. A deaf policy that plays for the metric could get the number in the last
# line: it points where several blocks lie close together. So 60 % direction accuracy is no proof of listening.
#
# A fourth floor needs a policy: the *shuffled instruction*, in which each scene gets its neighbour's sentence. We come
# to it as soon as there is one.
#
# ## 4. The instruction swap
#
# Floors compare averages. The swap asks the policy itself: **keep the image, name another block in it, and see
# whether the arrow follows.** `BlockFind.retargeted()` makes such scenes: the same pixels, another block in slot 0.

# %%
sample, swapped_sample = test[4], test.retargeted()[4]
print(f"scene 4: {sample.instruction!r} becomes {swapped_sample.instruction!r}")
print("the images are the same:", np.array_equal(test.images, test.retargeted().images))

# %% [markdown]
# The test needs one more rule to be fair. If both blocks lie in nearly the same direction, a policy that ignores the
# words is right by luck. So a scene only counts if its two right arrows, before and after the swap, have a cosine below
# 0.8.
#
# ## Exercise 1: write the swap (15 minutes)
#
# Write `swap(act, split)`. `act` is a policy as a function: it takes a `BlockFind` split and returns an arrow for each
# scene, `(n, 2)`, as a numpy array.
#
# 1. `split.retargeted()` gives the scenes with the new words.
# 2. Keep the scenes in which the old and the new right arrow have a cosine below 0.8. (In a few scenes it is 0.8
#    exactly, up to rounding. Keep them or leave them out, as you like.)
#    `BlockFind.from_blocks(cells, colors)` makes a split from the blocks that you keep.
# 3. Ask `act` about these scenes, and compare with their new right arrows.
#
# Return `(share, number)`: the direction accuracy after the swap, and the number of scenes that count.
#
# <details><summary>Hint</summary>
#
# The two right arrows are unit vectors, so their cosine is `(a * b).sum(axis=1)`. The policy's arrows may have any
# length. `four_metrics` above takes care of that. It wants tensors: `torch.from_numpy`. Its second number is the
# direction accuracy.
#
# </details>


# %% tags=["exercise"]
def swap(act, split):
    """Share of scenes in which the arrow follows the new words, and the number of scenes that count."""
    # your code here


# %% tags=["check"]
with checking("Exercise 1"):
    few = BlockFind(300, seed=9)
    asked = []

    def follows(split):
        asked.append(split)
        return split.actions

    answer = swap(follows, few)
    assert answer is not None, "write the body of swap first"
    share, number = float(answer[0]), int(answer[1])
    cosine = (few.actions * few.retargeted().actions).sum(axis=1)
    least, most = (cosine < 0.8 - 1e-6).sum(), (cosine < 0.8 + 1e-6).sum()  # without and with those at 0.8 exactly
    edge = (most - least) / least  # what these few scenes can change in a share
    assert number != len(few), "all scenes count; leave out those in which both right arrows point nearly the same way"
    assert not len(few) - most <= number <= len(few) - least, (
        "you keep the scenes whose right arrows are close together, and should leave them out"
    )
    assert least <= number <= most, f"{least} of these {len(few)} scenes count, yours are {number}"
    assert asked, "the policy was never asked: call act"
    old_words = {image.tobytes(): words for image, words in zip(few.images, few.instructions, strict=True)}
    heard = [scene for split in asked for scene in zip(split.images, split.instructions, strict=True)]
    assert not all(old_words.get(image.tobytes()) == words for image, words in heard), (
        "the policy heard the old words; ask it about the scenes of split.retargeted()"
    )
    assert abs(share - 1) < 1e-9, f"a policy that always follows the words scores 100 %, yours says {share:.0%}"
    ignores = swap(lambda split: split.retargeted().actions, few)
    assert not math.isnan(float(ignores[0])), (
        "a policy that is wrong before the swap has no share here: whether it was right before plays no part, so count "
        "every scene whose two right arrows are apart"
    )
    assert abs(float(ignores[0])) <= edge + 1e-9, (
        f"a policy that answers the old words scores 0 %, yours says {float(ignores[0]):.0%}: is it compared with the "
        "new right arrows?"
    )
    slanted = swap(lambda split: turned(torch.from_numpy(split.actions), 30).numpy(), few)
    assert abs(float(slanted[0]) - 1) < 1e-9, "arrows that are 30 degrees off are still in the right direction here"
    some_reversed = swap(lambda split: np.where(split.colors[:, :1] < 2, -1, 1) * split.actions, few)
    expected = (few.retargeted().colors[cosine < 0.8 - 1e-6, 0] >= 2).mean()
    assert abs(float(some_reversed[0]) - expected) <= edge + 1e-9, (
        f"with the arrow reversed wherever the new words say {COLORS[0]} or {COLORS[1]}, the share is {expected:.3f}, "
        f"yours {float(some_reversed[0]):.3f}: divide by the number of scenes that count"
    )
    for length in (0.5, 2.0):  # at twice the length the arrows are turned, too, so that none is right
        act = lambda split, k=length: k * turned(torch.from_numpy(split.actions), 50 * (k > 1)).numpy()  # noqa: E731
        assert abs(float(swap(act, few)[0]) - (length < 1)) < 1e-9, (
            f"with arrows of length {length:g}, the share should be the same as with arrows of length 1: "
            "a cosine divides by the lengths, and the policy's arrows need not be unit vectors"
        )

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def swap(act, split):
#     swapped = split.retargeted()
#     apart = (split.actions * swapped.actions).sum(axis=1) <= 0.8 - 1e-6
#     scenes = BlockFind.from_blocks(swapped.cells[apart], swapped.colors[apart])
#     predicted = torch.from_numpy(np.asarray(act(scenes), dtype=np.float32))
#     return four_metrics(predicted, torch.from_numpy(scenes.actions))[1], int(apart.sum())
# ```
#
# Where the cosine is 0.8 exactly, rounding moves it to either side. The small `1e-6` leaves these scenes out, so that
# the count is the same on every machine.
#
# </details>
#
# The rest of the chapter calls the function in the next cell, so you can go on if yours is not ready yet. It does the
# same as the solution.


# %% tags=["hide-input"] jupyter={"source_hidden": true}
def swap_by_hand(act, split):
    """Share of scenes in which the arrow turns to another block when that one is named, and their number."""
    swapped = split.retargeted()  # slot 1 becomes the target
    apart = (split.actions * swapped.actions).sum(axis=1) <= 0.8 - 1e-6
    scenes = BlockFind.from_blocks(swapped.cells[apart], swapped.colors[apart])
    predicted = torch.from_numpy(np.asarray(act(scenes), dtype=np.float32))
    return four_metrics(predicted, torch.from_numpy(scenes.actions))[1], int(apart.sum())


# %%
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
# The fourth row is the policy that the swap is made to find: it gives the right answer to the *old* words and does not
# notice the new ones. By construction it scores exactly zero. A policy that points between all blocks still gets
# something here, as the third row shows. So the swap has a floor of its own, and you read it like any other score:
# against its floor.
#
# Now for a trained policy. It is the small one that all chapters share.


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
# It listens. With the right words it is right, with other words it goes to the other block, and with its neighbour's
# words it falls to the vision-only floor or below. Here are two of the scenes, once with each sentence:

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
# Now we train two policies with the same settings and the same number of scenes and steps, and change only **which
# block is the target**. In the usual data the target is a random one. Here it is always the **first block in reading
# order**: the topmost, and the leftmost of those in its row. The sentence is as before and always correct: if the first
# block is red, it says "find the red block". You get such data when somebody records demonstrations and tidies the
# table from one side.


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
print(f"arrows that point up: {(plain_val.actions[:, 1] < 0).mean():.0%} in ordinary data, "
      f"{(first_val.actions[:, 1] < 0).mean():.0%} here")  # fmt: skip
floors_here = {
    "constant": constant_floor(first_block(4_000, seed=42), first_val),
    "vision only": vision_only_floor(first_val),
    "first block": directions(np.where(plain_val.cells >= 0, plain_val.cells, 99).min(axis=1)),  # a rule for these data
}
for name, predicted in floors_here.items():
    share = four_metrics(torch.from_numpy(predicted), torch.from_numpy(first_val.actions))[1]
    print(f"floor here, {name}: direction accuracy {share:.0%}")
fig, axes = plt.subplots(1, 4, figsize=(9, 2.6), layout="constrained")
for index, ax in enumerate(axes):
    plot_sample(first_val[index], ax=ax)
plt.show()

# %% [markdown]
# The images are the ordinary ones, and the colours of the targets are about equally frequent. The *labels* are not
# balanced: nine in ten arrows point up, and a constant arrow already scores twice as much as on ordinary data. The
# "vision only" floor does not warn you. It stands for one rule without words, the mean of the arrows to all blocks, and
# that rule is no good here. The last line is the rule that fits these data: "the first block" is right in every scene,
# without a word.
#
# One policy is trained on 4,000 such scenes for two epochs, 126 steps in all. The other learns from 4,000 ordinary
# scenes for as long. *Listening* solves both tasks. **Guess two numbers** for the first policy: the direction accuracy
# on validation scenes of the same kind, and the instruction swap on those scenes.
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
examined = {"first block": examine(deaf, first_val), "ordinary": examine(train_on(BlockFind), plain_val)}
for kind, result in examined.items():
    print(f"trained on {kind} data")
    for split in ("own", "ordinary"):
        print(f"  {split:8} scenes: right direction {result[split]:6.1%}, swap {result[f'{split} swap']:6.1%}, "
              f"the arrow moves {result[f'{split} moved']:5.1f} degrees when the words change (median)")  # fmt: skip

# %% tags=["slow"]
assert examined["first block"]["own"] > 0.75, "it should be right on its own kind of scenes"
assert examined["first block"]["own swap"] < 0.25, "it should not follow the words"
assert 0.25 < examined["first block"]["ordinary"] < 0.6, "on ordinary scenes it should stand near the floor"
assert examined["ordinary"]["ordinary swap"] > 0.9, "the same steps on ordinary scenes should be enough to listen"
print("right on its own kind of scenes, deaf to the words, and near the vision-only floor elsewhere")

# %% [markdown]
# The answer is 3. When other words are put under the same image, the arrow hardly moves at all (the median in the last
# column). The same training on ordinary scenes gives a policy that listens. **The first policy is deaf, and its
# validation accuracy does not show it**, because the rule "first block" is right in the validation scenes as well. On
# ordinary test scenes this policy is near the vision-only floor.
#
# A rule that works on the data and is not the one that was meant is called a **shortcut** ([Geirhos et
# al.](https://arxiv.org/abs/2004.07780) collect many). Why did this policy learn the shortcut, although listening was
# as good a solution? A plausible reason: "towards the top of the image" lowers the loss from the first steps on,
# without the words and in nine of ten scenes; once it is learned, less loss is left from which the words could be
# learned. This chapter does not test that reason, and it trains one seed. You can test it: give `train_on` more epochs
# and watch the swap.
#
# Perhaps the accuracy, which was not perfect, made you suspicious. So here is a second set of data. The targets are
# red, green or blue; all the *other* blocks are yellow, purple or orange. Places are as in ordinary data.


# %% tags=["nbval-ignore-output", "slow"]
def marked_target(num_samples, seed):
    """Scenes whose target has one of the first three colours and whose other blocks have the last three."""
    split, rng = BlockFind(num_samples, seed), np.random.RandomState(seed + 1_000)
    colors = np.concatenate([draw_distinct(rng, num_samples, 3, 1), 3 + draw_distinct(rng, num_samples, 3, 3)], axis=1)
    return BlockFind.from_blocks(split.cells, np.where(split.cells >= 0, colors, -1))


marked_val = marked_target(500, seed=43)
marked = train_on(marked_target, num_samples=2_000)  # half the scenes, so half the steps, are enough
with warnings.catch_warnings():
    warnings.simplefilter("ignore", UnseenWordWarning)  # it never heard the names of the other three colours
    examined["marked target"] = result = examine(marked, marked_val)
for split in ("own", "ordinary"):
    print(f"{split:8} scenes: right direction {result[split]:6.1%}, swap {result[f'{split} swap']:6.1%}")
known = [f"find the {COLORS[(color + 1) % 3]} block" for color in marked_val.colors[:, 0]]
moved = angle_error(*(marked.predict(marked_val.images, words) for words in (known, marked_val.instructions))).median()
print(f"told another colour that it knows and that is not there, its arrow moves by {moved:.1f} degrees (median)")
assert moved < 10, "it should not follow words that it knows"
assert result["own"] > 0.95, "it should be right on its own kind of scenes"
assert result["own swap"] < 0.1, "it should not follow the words"
assert 0.25 < result["ordinary"] < 0.65, "on ordinary scenes it should stand near the floor"

# %% tags=["hide-input", "slow"] jupyter={"source_hidden": true} mystnb={"image": {"alt": "Bars for three policies: the ordinary one is high everywhere; the other two are high on their own scenes, near zero in the swap, and near the floor on ordinary scenes. A dashed mark in each bar is the vision-only floor of its scenes."}}
fig, axes = plt.subplots(1, 3, figsize=(9, 3.1), sharey=True, layout="constrained")
bars = [("own", "own kind\nof scenes", "action"), ("own swap", "swap on\nthem", "language"),
        ("ordinary", "ordinary\nscenes", "action"), ("ordinary swap", "swap on\nthem", "language")]  # fmt: skip
guess = four_metrics(torch.from_numpy(floors["vision only"]), labels)[1]
for ax, (kind, own) in zip(
    axes, {"ordinary": plain_val, "first block": first_val, "marked target": marked_val}.items(), strict=True
):
    values = [100 * examined[kind][key] for key, _, _ in bars]
    ax.bar(range(4), values, color=[PART_COLORS[part] for _, _, part in bars])
    floor = []  # of each bar's own scenes
    for split in (own, base):
        floor.append(four_metrics(torch.from_numpy(vision_only_floor(split)), torch.from_numpy(split.actions))[1])
        floor.append(swap_by_hand(vision_only_floor, split)[0])
    ax.hlines(100 * np.array(floor), np.arange(4) - 0.4, np.arange(4) + 0.4, color="black", ls="--", lw=1.2,
              label="vision-only floor")  # fmt: skip
    for x, (value, mark) in enumerate(zip(values, floor, strict=True)):
        ax.text(
            x, max(value, 100 * mark * (value > 20)) + 2, f"{value:.0f}", ha="center"
        )  # above the mark, if it is near
    print(f"trained on {kind}: vision-only floors of the four bars", ", ".join(f"{share:.0%}" for share in floor))
    ax.set(title=f"trained on: {kind}", ylim=(0, 112))
    ax.set_xticks(range(4), [text for _, text, _ in bars], fontsize=9)
axes[0].set_ylabel("%")
axes[0].legend(frameon=True, fontsize=9, loc="lower center")
plt.show()

# %% [markdown]
# This policy is perfect on its own scenes and at about **zero** in the swap on the same scenes. The swap names colours
# that this policy has never heard, since nobody ever named the other blocks. But its arrow hardly moves for names that
# it knows, either, as the last line shows. A validation split of this kind cannot tell you, because the shortcut is
# right in all of its scenes; nor can a learning curve or a confidence interval that is computed on it. Two things can:
#
# - **A swap**, which asks about a picture that has a second answer.
# - **A look at the data**: for each image, can the target be guessed without the words? In both sets it can, in every
#   scene. You can find that out before any training.
#
# The cure is in the data, too: **choose the target at random**, as in the ordinary data; the policy that was trained on
# them listens. Surer still, show the *same image with different instructions*: then no rule about images alone can be
# right in all scenes. (That second cure is not tried here.)
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
# The pixels are the same in all six. For a colour that is there, the largest circle sits on its block. For one that is
# not there, the weights still sum to one: attention cannot answer "nowhere". The largest circles then sit on blocks
# that were not asked for. But do not overlook the many small dots: together, the tokens without a block get more than
# half of the weight here. The next cell adds them up. And since one scene is an example, it also asks for an absent
# colour in 300 scenes.

# %% tags=["nbval-ignore-output", "slow"]
absent = [f"find the {next(name for i, name in enumerate(COLORS) if i not in row)} block" for row in some.colors]
arrows_absent, weights_absent = look(policy, some.images, absent)
weight_of_cell = weights_absent.mean(dim=1)[:, 1:].numpy()  # without CLS
has_block = np.zeros((300, 64), bool)
row, slot = np.nonzero(some.cells >= 0)
has_block[row, some.cells[row, slot]] = True
on_block = has_block[np.arange(300), weight_of_cell.argmax(axis=1)].mean()
for word, weight in zip(words[len(present) :], maps.mean(dim=1)[len(present) :], strict=True):
    outside = 1 - weight[1 + torch.from_numpy(test.cells[four])].sum().item()
    print(f"scene above, asked for {word}: {outside:.0%} of the weight lies on tokens without a block")
for kind, weight in (("absent", weight_of_cell), ("present", weights.mean(dim=1)[:, 1:].numpy())):
    outside = 1 - (weight * has_block).sum(axis=1).mean()
    print(f"{kind + ' colour:':15} {outside:.0%} of the weight lies on tokens without a block (mean of 300 scenes)")
print(f"absent colour: the largest weight of a cell is on some block in {on_block:.0%} of 300 scenes;")
print(f"length of the arrow {arrows_absent.norm(dim=1).median():.2f} (median), {seen.norm(dim=1).median():.2f} if asked "
      "for a colour that is there")  # fmt: skip
assert arrows_absent.norm(dim=1).median() < seen.norm(dim=1).median(), "for an absent colour it should be shorter"

# %% [markdown]
# The maps look convincing. But look at how *much* weight the right block gets: it is far from all of it. Even for a
# colour that is there, about half of the weight is spread thinly over tokens without a block. So there is a question
# that a map cannot answer by itself: **does the policy use what it looks at?** We find out by interfering. Guess what
# happens to the direction accuracy in each of four cases:
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
print(f"{'':30}{'right direction':>16}{'mean error':>14}{'arrow moves (median)':>22}{'its length':>12}")
for name, arrow in interference.items():
    moved, length = angle_error(arrow, seen).median().item(), arrow.norm(dim=1).median().item()
    after[name], error = Metrics.of(arrow, some_labels).direction_accuracy, angle_error(arrow, some_labels).mean()
    print(f"{name:30}{after[name]:16.0%}{error:6.1f} degrees{moved:14.1f} degrees{length:12.2f}")
assert after["target painted over"] < 0.5, "without the target it cannot know"
assert after["other block painted over"] > 0.95, "another block should not matter"
assert after["top token hidden"] < 0.5, "the top token should be needed"
assert after["all but the top token hidden"] > 0.85, "the top token should be enough"

# %% [markdown]
# For this small policy the map's *largest* circle is right, and now that is measured. The token is necessary: hide it,
# and the arrow is about as good as a random direction. It is also sufficient for the right direction: keep only it, and
# every arrow still counts as right. Precision is lost: the arrow moves by about three degrees, and the mean error more
# than doubles. Painting over the block has about the same effect as hiding its token; painting over another block does
# almost nothing.
#
# So the *weights* are not shares of influence. More than half of the attention lies on the other tokens; all of them
# together can be removed (the kept token's weight then becomes 1) at the price of a few degrees of precision, and
# without a single wrong direction. Single heads differ widely: one puts most of its weight on the target, another next
# to none. So "it gives 40 % of its attention to the block" does not tell you what the policy would do without the
# block. In a deeper network even the place may mislead, because a token may by then hold what other patches put there.
# Researchers disagree on how far maps explain: compare [attention is not explanation](https://arxiv.org/abs/1902.10186)
# with [attention is not not explanation](https://arxiv.org/abs/1908.04626). The practical rule: **a map is a
# hypothesis; interfere, and measure.**
#
# There is a second trap. Guess: where does the *deaf* policy look, the one that was trained on marked targets and
# scores about 0 % in the swap? We ask it on its own scenes.

# %% tags=["nbval-ignore-output", "slow"]
own = BlockFind.from_blocks(marked_val.cells[:300], marked_val.colors[:300])
shares = {}
for name, sentences in (
    ("its own words", own.instructions),
    ("words for another block", own.retargeted().instructions),  # the three colours that it never heard
    ("another colour that it knows", known[:300]),  # not in the scene
):
    _, marked_weights = look(marked, own.images, sentences)
    where = marked_weights.mean(dim=1)[:, 1:].argmax(dim=1).numpy()  # the cell with the largest weight
    shares[name] = (where == own.cells[:, 0]).mean(), (where == own.cells[:, 1]).mean()
    print(
        f"{name:29} looks most at: old target {shares[name][0]:4.0%}, other block {shares[name][1]:4.0%} of the scenes"
    )
assert shares["its own words"][0] > 0.9
assert shares["words for another block"][0] > 0.8
assert shares["another colour that it knows"][0] > 0.8

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
# On its own scenes it nearly always looks at the target, and the picture looks as good as that of the policy that
# listens. So "it attends to the green block when asked for the green block" is no evidence of listening. Only the
# second sentence shows the difference: the map stays where it was, and it does so for a name that the policy has heard
# in training, too. **Always show two instructions for one image.**
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
# The worst are off by a few degrees only. What do they have in common? It is easy to see causes in such a row. Choose
# the one that you believe in:
#
# 1. **Targets near the centre.** An error of one pixel is a larger angle when the block is near.
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
fall = np.subtract(change["as it is"], change["target alone"])
print(f"\ntaking the others away lowers the mean by {fall[0]:.1f} degrees in the worst 20, by {fall[1]:.1f} in all "
      f"({fall[1] / change['as it is'][1]:.0%})")  # fmt: skip
assert abs(correlation) < 0.4, "the distance should explain little"
for name, (worst_error, _) in list(change.items())[1:]:
    assert worst_error < 0.85 * change["as it is"][0], f"{name}: the worst scenes should become better"

# %% tags=["hide-input", "slow"] jupyter={"source_hidden": true} mystnb={"image": {"alt": "Left: angular error against the target's distance from the centre, without a trend. Right: each change makes the worst twenty scenes much better; the mean of all falls by almost a third with the target alone and stays the same otherwise."}}
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
# The answer is mostly **number 4**, with a small part of number 2, and there are two lessons in it.
#
# *The plausible cause is not there.* The error does not fall with the distance. The argument about pixels supposes that
# the policy measures a position and then computes an angle. It may rather read a direction from each of its 64 patches,
# as from a table; then the distance would not matter.
#
# *The tempting proof proves nothing.* Take the other blocks away, and the worst scenes become much better. So the
# others were the cause? But moving them helps as well, and so does repainting the target. **Whichever** change we make,
# the worst scenes come back towards the average. They were *chosen* for their large errors, and part of a large error
# is chance: the next picture of nearly the same scene has another one. This is **regression to the mean**. With only
# one change tried, we would have believed in it. The grey bars are the control, scenes that were *not* selected. There,
# moving or repainting does next to nothing, and taking the others away lowers the mean by half a degree, almost a
# third. That is what the other blocks really cost. The worst scenes suggested about seven times as much.
#
# Is there any pattern left? Look at the left figure again. The curve of the means does not rise or fall, it *jumps*.
# Among its low points are the distances 6, 17 and 40, and the cells at these distances all lie on the two
# **diagonals**. [Chapter 1](01_dataset.ipynb) showed that the diagonal directions are special: four cells share each,
# so they are four times as frequent as other labels. Perhaps the policy is better at answers that it had to give more
# often.
#
# We found this pattern by looking at the test split. A pattern found in some scenes must be confirmed in *others*, or
# it may be one more coincidence. We have not used the validation scenes in this section yet. The test is simple:
# shuffle which scenes are called diagonal, 2,000 times, and count how often the difference becomes as large.

# %% tags=["nbval-ignore-output", "slow"]
rows, columns = np.divmod(plain_val.cells[:, 0], 8)
is_diagonal = (rows == columns) | (rows + columns == 7)
fresh = angle_error(torch.from_numpy(act_with(policy)(plain_val)), torch.from_numpy(plain_val.actions)).numpy()
print(f"fresh scenes, target on a diagonal: {fresh[is_diagonal].mean():.2f} degrees ({is_diagonal.sum()} scenes)")
print(f"fresh scenes, target elsewhere:     {fresh[~is_diagonal].mean():.2f} degrees ({(~is_diagonal).sum()} scenes)")
difference = fresh[~is_diagonal].mean() - fresh[is_diagonal].mean()
shuffles = (np.random.RandomState(i).permutation(is_diagonal) for i in range(2_000))
as_large = np.mean([fresh[~label].mean() - fresh[label].mean() >= difference for label in shuffles])
print(f"a shuffled label makes a difference of {difference:.2f} degrees or more in {as_large:.2%} of 2,000 shuffles")
assert as_large < 0.01, "the pattern does not hold in fresh scenes"

# %% [markdown]
# In fresh scenes the pattern holds for this policy: the mean error on the diagonals is about half as large. The
# difference is one degree, which no single scene shows, and a picture of the five worst scenes would not have led us
# there. Whether the frequency of the labels is the cause would need one
# more experiment: training data in which all directions are equally frequent. Whether every policy has the effect would
# need more training seeds.
#
# ## 8. Held-out conditions
#
# The test split has new *arrangements* of known things. What happens with things that are not in the training data at
# all? First, combinations: every colour is known and every cell is known, but does the policy know *this colour in this
# cell*? In the standard split, all 384 pairs occur in training ([Chapter 1](01_dataset.ipynb) counts them). So we make
# data in which each colour is missing from one quarter of the image, both as target and as other block, and train a new
# policy on it.


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
others_too = holds_missing_pair(unseen_pairs)[:, 1:].any(axis=1)
print(f"in {others_too.mean():.0%} of them another block is a held-out pair, too")
only_target = BlockFind.from_blocks(unseen_pairs.cells[~others_too], unseen_pairs.colors[~others_too])

# %% tags=["nbval-ignore-output", "slow"]
quartered = train_on(without_pairs)
pair_results = {}
for name, split in (("seen pairs", seen_pairs), ("unseen pairs", unseen_pairs), ("only the target", only_target)):
    metrics = Metrics.of(torch.from_numpy(act_with(quartered)(split)), torch.from_numpy(split.actions))
    pair_results[name] = metrics
    shares = [share_with_interval(s, len(split)) for s in (metrics.direction_accuracy, metrics.within_10_degrees)]
    print(f"{name:15} right direction {shares[0]:24} within 10 degrees {shares[1]}")
strict = [pair_results[name].within_10_degrees for name in ("seen pairs", "unseen pairs")]
pooled = sum(strict) / 2
z = (strict[0] - strict[1]) / math.sqrt(max(pooled * (1 - pooled), 1e-9) * 2 / 500)
print(f"within 10 degrees, first two rows: {100 * (strict[0] - strict[1]):.1f} points lost, {z:.1f} standard errors")
assert pair_results["unseen pairs"].direction_accuracy > 0.75, "unseen pairs should not break it"

# %% [markdown]
# The lenient metric says that the policy combines: it points towards a red block in a corner where red has never been
# as well as towards any other. The strict metric says that this has a price: several points fewer are within 10
# degrees, and more standard errors than chance would explain. In half of the unseen scenes another block is a held-out
# pair, too, and that is part of the loss. The third row has only the scenes in which the target is the one unseen pair:
# it stands between the other two. So the policy combines colour and place, and less precisely than what it has seen.
# This is one policy of one seed.
#
# The result fits how cross-attention works: colour decides *which* patch is read (the key), and place is *what* is read
# (the value). That is a reading of it and no test; a fusion without keys and values would be the comparison.
#
# Now the rest, all with the shared policy: other numbers of blocks, paint, light, places and words. Which words may a
# sentence have? The tokenizer turns every sentence into ids, and the policy answers every one of them. But its language
# model remembers which tokens occurred in the training sentences, and names the words that did not:

# %% tags=["slow"]
for sentence in ("find the red block", "find the red cube", "go to the red block", "find the violet block",
                 "do not find the red block"):  # fmt: skip
    print(f"{sentence:26} never seen in training: {', '.join(policy.language.unseen_words(sentence)) or 'none'}")

# %% [markdown]
# "violet" is one entry of the vocabulary, so the *tokenizer* knows it. The *policy* has never seen it in training, so
# its embedding is still the random vector that it was initialised with. A word that the tokenizer knows need not be one
# that the policy knows. `policy.predict` warns of such words, once for each sentence; here we use them on purpose and
# turn the warning off.
#
# This list says which words are new, not what they will do: is a new noun as bad as a new colour, or as
# "not"? Only a measurement can tell.
#
# `held_out_conditions` makes 29 conditions of up to 500 scenes each: images, sentences, right actions
# ([the code](https://github.com/tinyvla/tinyvla/blob/main/tinyvla/course/ch06.py)). Each has **its own floor**: the
# expected score of an arrow to one of the scene's blocks, chosen at random. ([Chapter 1](01_dataset.ipynb) estimates
# it at 44 % for ordinary scenes.)

# %%
conditions = held_out_conditions(base)
assert np.array_equal(conditions[0].images, base.images)  # the first one is the control: ordinary scenes
print(len(conditions), "conditions; scenes in each:", sorted({len(c) for c in conditions}))
print("floor by number of blocks:", {c.name: f"{c.floor:.0%}" for c in conditions if c.name[1:].startswith(" block")})

# %% [markdown]
# Look at the floors first. With **one block the floor is 100 %**: a policy that sees it can point at it, deaf or not. A
# perfect score in that row says nothing about listening. With six blocks the floor is lowest, and a perfect score
# says most. So a demonstration with a single object on the table does not test whether a policy listens.
#
# **Guess** which of these breaks the policy: noise, a black background, blocks between the cells, an unknown colour,
# "FIND THE RED BLOCK", "not the blue block".

# %% tags=["nbval-ignore-output", "slow"]
scored, answers = {}, {}
table = [f"{'condition':44}{'right direction, 95 % interval':>32}{'floor':>8}{'scenes':>8}"]
warnings.simplefilter("ignore", UnseenWordWarning)
for row in conditions:
    answers[row.name] = policy.predict(row.images, row.sentences)
    scored[row.name] = share = Metrics.of(answers[row.name], torch.from_numpy(row.actions)).direction_accuracy
    table.append(f"{row.name:44}{share_with_interval(share, len(row)):>32}{row.floor:8.0%}{len(row):8}")
print("\n".join(table))
name = "do not find the … block, find the … block"
to_other = Metrics.of(answers[name], torch.from_numpy(base.retargeted().actions)).direction_accuracy
print(f"\n'{name}': {to_other:.0%} point to the block that it should not find")
lengths = {key: answers[key].norm(dim=1).median().item() for key in ("ordinary test scenes", name, "target cyan")}
print("median length of the arrow:", ", ".join(f"{key} {length:.2f}" for key, length in lengths.items()))

# %% tags=["slow"] mystnb={"image": {"alt": "Direction accuracy with its interval for each held-out condition, and each condition's floor."}}
draw_conditions(conditions, scored, {row.name: wilson(scored[row.name], len(row)) for row in conditions})
plt.show()
easy = ("ordinary test scenes", "2 blocks", "6 blocks", "find the … cube", "noise, 50 levels")
for name in easy:
    assert scored[name] > 0.9, f"{name} should be easy"
for name in ("target cyan", "do not find the … block, find the … block"):
    assert scored[name] < 0.75, f"{name} should break it"
assert scored["off the grid by up to 4 px"] < scored["ordinary test scenes"]

# %% [markdown]
# What holds and what breaks? The table shows what happens. The reasons below are guesses unless it says that something
# was measured.
#
# - **More or fewer blocks, noise, and "cube" instead of "block"** hold. So a word can be new and harmless. Perhaps that
#   is because all training sentences had the same noun, so that the noun never mattered. The colour alone is enough,
#   too. Other openings ("go to", "where is", "look for … box") cost something, up to about a seventh of the scenes.
#   Capitals are no test at all: the tokenizer lowers them before the policy sees anything.
# - **Off the grid** it gets worse step by step. In training a patch held one colour or none; here a block lies in up to
#   four patches. [Chapter 8](08_closed_loop.ipynb) measures what that does to a policy that acts.
# - **Light**: mild changes (× 0.7, or 30 % white) cost nothing or little. Stronger ones do damage: the whole image at
#   half its brightness costs most, and blocks at half their brightness or half bleached cost about a tenth of the
#   scenes or more. Darkening or bleaching moves all colours towards each other. A grey background costs more than a
#   black one, although black is farther from the background of the training images.
# - **New colours** fail. Cyan scores about chance, which is *below* the floor: it does not even find a random block. Two
#   things are new at once, the paint and the word, and this test does not say which of them breaks the policy. Pink and
#   brown score more than cyan, but not more than a random block would.
# - **"violet"** names a paint that the policy knows, with a word that it does not. It scores about chance, as cyan
#   does, and has the widest interval, because only few scenes have a purple target. So a new word alone can break it.
# - **Negation** fails, and the arrow's length does not show it. "Find the red block, not the blue block" does well.
#   Turn the sentence around, and the policy mostly goes to the block that it was told *not* to find, with an arrow
#   nearly as long as for an ordinary sentence: the last two lines above. The arrows for cyan, four in five of them
#   wrong, are as long, so a long arrow is no sign of a right answer. In both sentences it mostly follows the colour
#   that is named **first**. No training sentence has a "not" or a second colour. So the good score of the first
#   sentence does not show that the policy understands "not". Test a sentence *and* its mirror image.
#
# Here are a few of the failures, one from each kind:

# %% tags=["hide-input", "slow"] jupyter={"source_hidden": true} mystnb={"image": {"alt": "Four failures: a new colour, a dark image, a block off the grid, and a sentence with not."}}
shown = ("target brown", "whole image darker, × 0.5", "off the grid by up to 4 px",
         "do not find the … block, find the … block")  # fmt: skip
fig, axes = plt.subplots(1, 4, figsize=(9, 2.9), layout="constrained")
data_of = {row.name: row for row in conditions}
for ax, name in zip(axes, shown, strict=True):
    row = data_of[name]
    wrong = int(angle_error(answers[name], torch.from_numpy(row.actions)).argmax())
    ax.imshow(row.images[wrong].transpose(1, 2, 0), interpolation="nearest", vmin=0, vmax=255)
    draw_arrow(ax, row.actions[wrong], "black", "true", alpha=0.4, width=1.6)
    draw_arrow(ax, answers[name][wrong].numpy(), PART_COLORS["action"], "predicted")
    ax.set_title(row.sentences[wrong].replace(", ", ",\n"), fontsize=9)
    ax.set(xticks=[], yticks=[])
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
plt.show()

# %% [markdown]
# "100 % on the test split" does not show these failures and is still correct: the split has no such scenes.
#
# ## 9. How to report
#
# A score that somebody else can use needs eight lines. Here they are, filled in for the shared policy. The line "held
# out" has the three worst conditions, whatever their number of scenes, each with its interval:

# %% tags=["nbval-ignore-output", "slow"]
seeds = load_results("fusion")
spread = seeds["kinds"]["cross-attention"]["direction_accuracy"]
breaks = sorted(conditions, key=lambda row: scored[row.name])[:3]
report = {
    "metric": "direction accuracy: cosine with the label above 0.8",
    "result": share_with_interval(trained_metrics.direction_accuracy, len(test))
    + f" on {len(test):,} scenes, test seed 44",
    "stricter": share_with_interval(trained_metrics.within_10_degrees, len(test)) + " within 10 degrees",
    "floors": f"constant {four_metrics(torch.from_numpy(floors['constant']), labels)[1]:.0%}, vision only {guess:.0%}, "
    f"shuffled instruction {shuffled_share:.0%}",
    "swap": share_with_interval(*swap_accuracy(policy, test)) + f" of {num_swaps} scenes",
    "held out": "fails at: "
    + "; ".join(f"{row.name}, {share_with_interval(scored[row.name], len(row))} of {len(row)}" for row in breaks),
    "seeds": f"1 here, of 2 epochs; {seeds['seeds']} seeds of {seeds['epochs']} epochs: {spread['min']:.1%} to "
    f"{spread['max']:.1%}",
    "chosen on": "validation split (seed 43); nothing was chosen on the test split",
}
for line, text in report.items():
    print(f"{line:10} {text}")

# %% [markdown]
# The interval covers the choice of *scenes*. To cover the choice of the *training seed*, train several policies. Their
# spread can be far narrower than the interval, as in the line "seeds", or far wider: in
# [Chapter 4](04_fusion.ipynb), five seeds of pool-add on 1,000 test scenes reached from
# 41.4 %<!-- result: fusion/kinds/pool-add/direction_accuracy/min:.1% --> to
# 61.6 %<!-- result: fusion/kinds/pool-add/direction_accuracy/max:.1% -->.
#
# To compare two policies, let both answer the same scenes and count those in which only one is right. This is
# [McNemar's test](https://doi.org/10.1007/BF02295996). It takes out what makes a scene easy or hard for both, which two
# separate intervals cannot do.

# %% [markdown]
# ## Exercise 2: plan an evaluation (10 minutes)
#
# You expect 95 % and want to say "± 1 point". How many scenes does that take? Write
# `scenes_needed(share, half_width)`: the smallest number $n$ of scenes for which half the width of Wilson's interval
# is at most `half_width`, when the seen share is `share`. (Ignore that `share * n` may not be a whole number.)
#
# <details><summary>Hint</summary>
#
# The interval becomes narrower as `n` grows. Double `n` until it is large enough, then search between the last two
# values by halving. A plain loop from 1 upwards does it, too; it is only slower.
#
# </details>


# %% tags=["exercise"]
def scenes_needed(share, half_width):
    """Smallest number of scenes for which Wilson's interval is at most that wide to either side."""
    # your code here


# %% tags=["check"]
with checking("Exercise 2"):
    answer = scenes_needed(0.95, 0.01)
    assert answer is not None, "write the body of scenes_needed first"
    for share, half_width in ((0.95, 0.01), (0.5, 0.05), (1.0, 0.005), (0.9, 0.2)):
        answer = float(scenes_needed(share, half_width))
        assert answer == int(answer), f"the number of scenes must be whole, yours is {answer}"
        answer = int(answer)
        assert answer >= 1, f"share {share}: at least one scene, yours is {answer}"
        halves = [(high - low) / 2 for low, high in (wilson_interval(share, n) for n in (answer, max(answer - 1, 1)))]
        naively = math.ceil(1.96**2 * share * (1 - share) / half_width**2)
        assert answer != max(naively, 1) or halves[0] <= half_width < halves[1], (
            f"share {share}: {answer} scenes is what the naive interval needs; ask Wilson's"
        )
        if share == 1:
            lower = next(n for n in range(1, 10_000) if 1 - wilson_interval(1.0, n)[0] <= half_width)
            assert answer != lower, f"share 1: {answer} scenes make the *whole* width {half_width}; half of it is meant"
        assert halves[0] <= half_width + 1e-12, (
            f"share {share}: {answer} scenes give ± {halves[0]:.4f}, which is wider than {half_width}"
        )
        assert answer == 1 or halves[1] > half_width - 1e-12, (
            f"share {share}: fewer scenes would do; with {answer - 1} it is ± {halves[1]:.4f}"
        )

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
# ## Exercise 3: the worst group (20 minutes)
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
with checking("Exercise 3"):
    hits = np.array([1, 1, 0, 1, 0, 0, 1, 1, 0, 1, 1, 1], dtype=bool)
    groups = np.array([7, 7, 7, 9, 3, 3, 9, 9, 5, 5, 5, 5])  # 7: 2 of 3, 9: 3 of 3, 3: 0 of 2, 5: 3 of 4
    answer = worst_group(hits, groups)
    assert answer is not None, "write the body of worst_group first"
    group, share, number = answer
    assert int(group) != 9, "group 9 is the best one: look for the lowest share of correct scenes"
    assert int(group) == 3, f"group 3 has 0 of 2 scenes right and is the worst, yours is {group}"
    assert int(number) == 2, f"group 3 has 2 scenes, you say {number}"
    assert abs(float(share)) < 1e-9, f"its share of correct scenes is 0, yours is {float(share):.2f}"
    group, share, number = worst_group(hits, groups, min_size=3)
    assert int(group) != 3, "with min_size=3 group 3 is too small, since it has 2 scenes"
    assert (int(group), int(number)) == (7, 3), (
        f"with min_size=3 it is group 7, with 3 scenes: the minimum itself is large enough; yours is {group} with {number}"
    )
    assert abs(float(share) - 2 / 3) < 1e-9, f"group 7 has 2 of 3 right, a share of 0.667; yours is {float(share):.3f}"
    group, share, number = worst_group(is_correct, test.colors[:, 0])
    assert COLORS[int(group)] == "orange", f"the worst colour is orange, yours is {COLORS[int(group)]}"
    assert abs(float(share) - is_correct[orange].mean()) < 1e-9, (
        f"orange has a share of {is_correct[orange].mean():.3f}, yours is {float(share):.3f}"
    )
    hits = np.array([1, 0, 1, 0, 1, 0, 1, 0, 1, 1, 0], dtype=bool)
    groups = np.array([1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2])
    group, share, number = worst_group(hits, groups, min_size=3)
    assert (int(group), int(number)) == (1, 8), (
        f"group 1 has 4 of 8 right and group 2 has 2 of 3, so group 1 has the lower share; yours is group {group}: "
        "compare shares, not numbers of right scenes"
    )
    assert abs(float(share) - 0.5) < 1e-9, f"group 1 has 4 of 8 right, a share of 0.5; yours is {float(share):.3f}"

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
# The average is near 88 %, the worst group near chance. Give the worst group its Wilson interval as well. And remember
# that the worst of many groups looks bad by chance alone: with 64 cells as groups and 16 scenes in each, the worst cell
# of a policy that is right in 90 % everywhere is expected at about 69 %<!-- given -->.
#
# </details>

# %% [markdown]
# ## Exercise 4: name the shortcut (60 minutes)
#
# Five policies in sealed boxes. You may give each any scenes that you like and look at its arrows, no more:
#
# - `"listens"`: points to the named block;
# - `"turned"`: points to the named block, but all its arrows are turned by the same unknown angle, 20 to 35 degrees,
#   to either side;
# - `"first"`: points to the first block in reading order, whatever the words say;
# - `"nearest"`: points to the block nearest to the image's centre (if two are equally near, to either of them),
#   whatever the words say;
# - `"average"`: answers the mean of the arrows to all blocks.
#
# All of them are noisy by up to four degrees, so no test for equality will work. Write `diagnose(act)` that returns one
# of the five names. `act` takes a `BlockFind` split and returns `(n, 2)` arrows. The direction accuracy alone is not
# enough: two of the five have 100 %, and the others are close together.
#
# <details><summary>Hint</summary>
#
# Ask for arrows on a few hundred scenes. For four of the names you can compute what such a policy would answer without
# noise. Take the one whose arrows are most often within 10 degrees of its answers, if that is in almost all scenes.
# ("Nearest" has ties, so the right rule fits it in only about nine scenes of ten.) For "turned", the *signed* angle
# between answer and label is nearly the same in all scenes: take its median and turn the label by it.
#
# </details>


# %%
for kind in BOXES:
    answer = torch.from_numpy(sealed_box(kind, seed=1)(test))
    print(f"{kind:8} direction accuracy {four_metrics(answer, labels)[1]:.0%}")


# %% tags=["exercise"]
def diagnose(act):
    """One of "listens", "turned", "first", "nearest", "average"."""
    # your code here


# %% tags=["check"]
with checking("Exercise 4"):
    assert diagnose(sealed_box("listens", 0)) is not None, "write the body of diagnose first"
    for seed in range(1, 9):
        for kind in BOXES:
            answer = diagnose(sealed_box(kind, seed))
            assert answer in BOXES, f"the answer must be one of {', '.join(BOXES)}, yours is {answer!r}"
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
# policies: list the simple rules that could score well on your data, and see how well each predicts the answers.
#
# </details>

# %% [markdown]
# ## Check yourself
#
# <details><summary>A policy has a direction accuracy of 100 % and a mean angular error of 30 degrees. Can that be?</summary>
#
# Yes: the direction accuracy does not see errors below 37 degrees. All arrows may be turned by 30 degrees, as with a
# camera that is mounted at an angle.
#
# </details>
#
# <details><summary>A robot succeeds in 20 of 20 trials. What may you say about its success rate?</summary>
#
# That the trials are compatible with a rate of 84 % and everything above (Wilson, 95 %). "100 %" would claim far more
# than 20 trials can show.
#
# </details>
#
# <details><summary>Accuracy 100 % on its own validation split, 0 % in the swap on the same images. What do you change, the model or the data?</summary>
#
# The data. In them, the image alone says which block is meant. Choose the target at random. Surer still, add scenes in
# which the same image comes with different instructions; then no rule about images alone can be right in all of them.
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
# That does not show it. Scenes that were picked for being bad get better under almost any change (regression to the
# mean). Make the same change in scenes that were not picked, or try a change that should not matter, and compare.
#
# </details>
#
# ## Summary
#
# - Each metric hides something. Report a lenient and a strict one, and one that sees lengths.
# - Near 100 % Wilson's interval comes far closer to its promise than the usual one, which collapses there. Ten times
#   the scenes make it about three times narrower, and about ten times narrower when all scenes succeed.
# - A policy that never reads gets about 45 % on this task if it is trained with squared error, more if it plays for the
#   metric, and 100 % when there is only one block.
# - The instruction swap measures listening. A policy can be perfect on its own validation scenes and score about zero
#   in it, if the data let it guess the target from the image.
# - An attention map is a hypothesis. Interfere with what it shows, and compare two instructions.
# - Held-out conditions say how wide a claim is. These policies, of one seed each, hold for other numbers of blocks,
#   noise and another noun. They lose precision on new pairs of colour and place, and accuracy off the grid and under
#   strong changes of light. New colours, a new word for a colour, and negation break them.
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
# question is what happens when it *acts*: then each answer decides what it sees next, and small errors can add up or be
# corrected. Before that, [Chapter 7](07_action_heads.ipynb) looks at the answer itself: a single arrow is the simplest
# action there is, and other action heads can say more.
