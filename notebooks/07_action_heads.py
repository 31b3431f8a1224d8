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
# # 7. Action heads: one answer, or one of several?
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/tinyvla/tinyvla/blob/main/notebooks/07_action_heads.ipynb)
#
# Up to here a two-layer network turned the fused feature into an arrow, and it was trained with the squared error. In
# scenes with one right answer that is enough. Now put **two** red blocks into the scene and say "find any red block".
# Some demonstrations go to one of them, some to the other. What will the policy do?
#
# It will go between them, to a place where nothing is. A larger network or more data would not change that: it does
# exactly what the loss asks for. In this chapter you build the heads that well-known VLAs use instead: bins (OpenVLA),
# flow matching (pi0, SmolVLA) and diffusion (Octo), and you take the FAST tokens of pi0-FAST apart.
#
# **You will be able to**
#
# - explain why squared error answers with the mean, and measure whether a policy chooses or averages;
# - write flow matching, and build the other heads in about twenty lines each;
# - trade sampling steps for quality, and say what a single step of flow matching gives;
# - normalise actions, turn chunks of them into tokens, and choose a head for data of your own.
#
# **Time:** about 60 minutes to read, about 2 minutes on two CPU cores, 40 seconds on a GPU to run.
#
# **Before you start:** you know what a fused feature is ([Chapter 4](04_fusion.ipynb)) and what the cross-entropy
# does. [Chapter 3](03_language.ipynb) builds the transformer that one of the heads borrows; it is not needed to run
# the cells.

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
from dataclasses import replace
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import torch.nn.functional as F
from torch import nn

from tinyvla.config import HeadConfig, ModelConfig
from tinyvla.course import ch07, ch07_checks
from tinyvla.course.ch07_checks import config_of, same_as_package, says, train
from tinyvla.course.exercises import checking
from tinyvla.course.zoo import load_results
from tinyvla.data.dataset import BlockFind, cell_centers, directions, trajectories, valid_trajectories
from tinyvla.model.heads import make_head
from tinyvla.model.heads.base import Trunk
from tinyvla.model.heads.fast_tokenizer import FastTokenizer, cosine_transform
from tinyvla.model.layers import sincos_positions
from tinyvla.model.normalize import Normalizer
from tinyvla.model.policy import TinyVLA

plt.rcParams.update({"figure.facecolor": "white", "font.size": 10})

# %% [markdown]
# All heads do the same job: a feature comes in, an action goes out. They differ in what they can *say*. In these
# drawings the two rings are the right answers.

# %% mystnb={"image": {"alt": "One feature, five heads: regression says one arrow between the two right ones; directions names one of eight; bins name x, then y; flow and diffusion move noise onto one of the two right answers."}}
ch07.draw_heads()
plt.show()

# %% [markdown]
# ## 1. A feature, and two verbs
#
# A head has two verbs: `loss(features, actions)` is for training, `predict(features)` for acting. The training loop
# calls them and needs to know nothing else about the head.
#
# To study heads alone, we give them **perfect eyes**: a feature that says, for each of the 64 cells, whether it holds a
# block of the named colour. So whatever goes wrong is due to the head or to its short training, and training takes
# seconds. The same heads behind a real backbone were measured by a script; we will read its file as we go.


# %%
def eyes(split):
    """For each cell, 1 if it holds a block of the named colour; (n, 64)."""
    scene, slot = np.nonzero(split.colors == split.colors[:, :1])  # slot 0 is a block of the named colour
    seen = torch.zeros(len(split), 64)
    seen[scene, split.cells[scene, slot]] = 1
    return seen.to(device)


def labels_of(split):
    """The demonstrated actions."""
    return torch.from_numpy(split.actions).to(device)


one, two = BlockFind(20_000, seed=42), BlockFind.ambiguous(20_000, seed=42)
for name, split in (("one answer", one), ("two answers", two)):
    print(f"{name}: {split.instructions[0]!r}, features {tuple(eyes(split).shape)}, actions {split.actions.shape}, "
          f"cells marked in a scene: {sorted(eyes(split).sum(dim=1).int().unique().tolist())}")  # fmt: skip

# %% [markdown]
# For a test we take scenes whose two blocks lie at least 20 degrees apart. Then an answer is within 10 degrees of one of
# them or of neither, and never of both.

# %% mystnb={"image": {"alt": "Four scenes, each with two blocks of the named colour and one or two others. Two grey arrows in each show the two right answers."}}
test = BlockFind.ambiguous(1_000, seed=44)
both = torch.from_numpy(directions(np.sort(test.cells[:, :2], axis=1)))  # (n, 2 blocks, 2), in reading order
apart = (both[:, 0] * both[:, 1]).sum(dim=1) < math.cos(math.radians(20))
test, both = BlockFind.from_blocks(test.cells[apart], test.colors[apart]), both[apart].to(device)
test.article = "any"
seen = eyes(test)
wide = (both[:, 0] - both[:, 1]).abs().min(dim=1).values.cpu().gt(0.5).nonzero()[:4, 0].tolist()  # far apart in x and y
ch07.show_scenes(test, both, wide)
plt.show()
print(f"{len(test)} test scenes with two right answers")

# %% [markdown]
# Three numbers say whether a policy chooses or averages. Ask it 20 times about each scene. **near one** is the share of
# all answers within 10 degrees of one of the two blocks. **first chosen** is the share of those that took the block
# that comes first in reading order. **used both** is the share of scenes in which the 20 answers visit both blocks,
# each in at least three tenths of the answers near one. Without it, a policy that always takes the same block of a
# scene would look as if it chose freely, because "first chosen" is a mean over all scenes. What does a policy score
# that chooses freely? Here are three that are made up.


# %%
def near_each(answers):
    """Which answers are within 10 degrees of the first block, and of the second; (draws, n, 2) -> (draws, n, 2)."""
    return F.cosine_similarity(answers[:, :, None], both, dim=-1) > math.cos(math.radians(10))


def judge(answers, scenes=slice(None)):
    """Share near one of the two, and among those the share that took the first; in some scenes or in all."""
    near = near_each(answers)[:, scenes]
    return near.any(dim=-1).double().mean().item(), (near[..., 0].sum() / near.any(dim=-1).sum().clamp(min=1)).item()


def used_both(answers):
    """Share of the scenes in which each of the two has at least 30 % of the answers near one."""
    near = near_each(answers)
    first = near[..., 0].double().sum(dim=0) / near.any(dim=-1).double().sum(dim=0)  # (n,), NaN where none is near
    return ((first >= 0.3) & (first <= 0.7)).double().mean().item()


@torch.no_grad()
def ask(head, features, num_draws=20):
    """Several answers for each scene; (draws, n, ...)."""
    generator = torch.Generator(device).manual_seed(0)
    return torch.stack([head.predict(features, generator) for _ in range(num_draws)])


everywhere = torch.arange(len(test), device=device)
picks = torch.randint(2, (20, len(test)), generator=torch.Generator().manual_seed(0)).to(device)
to_center = torch.from_numpy(np.linalg.norm(cell_centers(np.sort(test.cells[:, :2], axis=1)) - 32, axis=-1))
made_up = {
    "tosses a coin": both[everywhere, picks],
    "takes the block nearer to the centre": both[everywhere, to_center.argmin(dim=1).to(device)].expand(20, -1, -1),
    "answers the mean": both.mean(dim=1).expand(20, -1, -1),
}
print(f"{'a policy that':38}{'near one':>9}{'first chosen':>14}{'used both':>11}")
for name, answers in made_up.items():
    near, first = judge(answers)
    print(f"{name:38}{near:9.0%}{first:14.0%}{used_both(answers):11.0%}")

# %% [markdown]
# Two tools come from the [chapter's file](https://github.com/tinyvla/tinyvla/blob/main/tinyvla/course/ch07_checks.py).
# `same_as_package` gives a head that you build the weights of the package's, and asserts that both have the same loss
# and the same answers from the same noise. `train` is a short AdamW loop, the same for all heads.
#
# ## 2. Regression, and why it averages
#
# The head of the chapters before: a hidden layer, an output, and a `tanh` that keeps the numbers in $[-1, 1]$.


# %%
class Regression(nn.Module):
    """Two layers, trained with the mean squared error."""

    def __init__(self, config):
        super().__init__()
        self.hidden = nn.Linear(config.fusion.embed_dim, config.head.hidden_dim)
        self.output = nn.Linear(config.head.hidden_dim, config.head.action_dim)

    def predict(self, features, generator=None):
        return self.output(F.gelu(self.hidden(features))).tanh()

    def loss(self, features, actions, generator=None):
        return F.mse_loss(self.predict(features), actions)


print(same_as_package("regression", Regression))

# %% [markdown]
# **Guess first.** We train it on scenes with two right answers, each demonstrated half of the time. Where will its
# arrows point: (a) to one of the blocks, by chance (b) always to the nearer one (c) between the two (d) anywhere?

# %% tags=["slow", "nbval-ignore-output"]
torch.manual_seed(0)
regression = train(make_head(config_of("regression")), eyes(two), labels_of(two), num_steps=500)
answers = ask(regression, seen)
print(f"regression: near one {judge(answers)[0]:.1%}")
assert judge(answers)[0] < 0.25, "squared error should not choose"

# %% tags=["slow"] mystnb={"image": {"alt": "The four scenes again. All answers of the regression head lie on one spot between the two right arrows, and nearer to the middle of the image than their tips."}}
ch07.show_scenes(test, both, wide, answers)
plt.show()
off = (answers[0] - both.mean(dim=1)).norm(dim=1).median().item()
is_between = off < 0.15
print("the answers lie on the mean of the two right ones:", is_between)
assert is_between, off

# %% [markdown]
# The answer is (c). The loss asks for exactly that. Let $a$ be random, with the feature fixed. For any answer $\hat a$,
#
# $$\mathbb E\,\lVert \hat a - a\rVert^2 = \lVert \hat a - \mathbb E[a]\rVert^2 + \mathbb E\,\lVert a - \mathbb E[a]\rVert^2 .$$
#
# The second term does not depend on $\hat a$, so the best answer is the mean, $\mathbb E[a]$. The mean of two unit
# arrows lies between them and is too short, down to nothing when they are opposite.
#
# The loss goes down and then stays at that second term, which looks like a model that is too small. **When a loss stops
# far above zero and a larger network does not help, look for several answers to one question in your data.**
# Demonstrators may disagree, pass an obstacle on either side, or pause at different moments.
#
# The absolute error (L1) is minimised by a median. With two answers, half of the mass each, *every* number between the
# two is a median. So L1 does not ask for a choice either; the table at the end has both, measured behind a backbone that
# sees images and reads words.
#
# ## 3. Directions: name it
#
# Answer with a **name** instead of numbers: right, up, left, down, or one of eight. The loss is the cross-entropy. The
# head says a probability for each name, and two likely names stay two, because names are not averaged.


# %%
class Directions(nn.Module):
    """A probability for each of a few directions; right first, then counter-clockwise."""

    def __init__(self, config):
        super().__init__()
        self.hidden = nn.Linear(config.fusion.embed_dim, config.head.hidden_dim)
        self.output = nn.Linear(config.head.hidden_dim, config.head.num_directions)
        angles = 2 * math.pi * torch.arange(config.head.num_directions) / config.head.num_directions
        self.directions = torch.stack([angles.cos(), -angles.sin()], dim=1)  # y points down

    def logits(self, features):
        return self.output(F.gelu(self.hidden(features)))

    def predict(self, features, generator=None):
        return self.directions[self.logits(features).argmax(dim=1)]

    def loss(self, features, actions, generator=None):
        nearest = (actions @ self.directions.T).argmax(dim=1)
        return F.cross_entropy(self.logits(features), nearest)


print(same_as_package("directions", Directions, num_directions=4))
print(same_as_package("directions", Directions, num_directions=8))

# %% [markdown]
# This head answers with the likeliest name. The price is precision. With eight names the answer can be off by 22.5
# degrees, with four by 45, and direction accuracy counts a miss from about 37 degrees on. How good can the best possible
# answer be?

# %%
report = load_results("heads")  # measured with a whole policy; the last section shows all of it
measured, machine = report["heads"], report["machine"]["device"]
still = BlockFind(1_000, seed=44)
right = torch.from_numpy(still.actions)
for number in (4, 8):
    head = Directions(config_of("directions", num_directions=number))
    nearest = head.directions[(right @ head.directions.T).argmax(dim=1)]
    cosine = (nearest * right).sum(dim=1)
    print(f"{number} directions, always the nearest: direction accuracy {(cosine > 0.8).double().mean():.0%}, "
          f"within 10 degrees {(cosine > math.cos(math.radians(10))).double().mean():.0%}")  # fmt: skip
    row = measured[f"directions-{number}"]["one answer"]
    print(f"{number} directions in the real policy: right name {ch07.spread(row['class_accuracy'])}")
    assert row["class_accuracy"]["min"] >= 0.98

# %% [markdown]
# So judge such a head by its names. And count them: one name for each combination soon becomes too many. Eight
# directions in a plane are fine; eight values for each of an arm's seven numbers would be $8^7$, two million names.
#
# ## 4. Bins: name each number in turn
#
# The way out is to name the numbers one after the other. Cut the range of each dimension into 256 **bins**, and name one
# bin for each dimension. [RT-2](https://arxiv.org/abs/2307.15818) and [OpenVLA](https://arxiv.org/abs/2406.09246) do this,
# with the tokens of their language model as names.
#
# The heads from here on answer in several passes. In each they must find out which right answer the part said so far
# belongs to. They get a deeper network for it, the package's `Trunk`: two MLPs on a residual stream, a transformer
# block without attention.


# %%
class Bins(nn.Module):
    """One bin for each number, each knowing those before it."""

    def __init__(self, config):
        super().__init__()
        width, self.num_bins, self.dim = config.head.hidden_dim, config.head.num_bins, config.head.action_dim
        self.features_in = nn.Linear(config.fusion.embed_dim, width)
        self.trunk = Trunk(width)
        self.output = nn.Linear(width, self.num_bins)
        self.place = nn.Parameter(torch.randn(self.dim, width))  # which number is being named
        self.previous = nn.Embedding(self.dim * self.num_bins, width)  # what has been named

    def logits(self, features, bins):
        """For number `k`, counted from 0, given the `k` bins before it."""
        k = bins.shape[1]
        rows = bins + self.num_bins * torch.arange(k, device=bins.device)
        return self.output(self.trunk(self.features_in(features) + self.previous(rows).sum(dim=1) + self.place[k]))

    def loss(self, features, actions, generator=None):
        bins = ((actions + 1) / 2 * self.num_bins).long().clamp(0, self.num_bins - 1)
        each = [F.cross_entropy(self.logits(features, bins[:, :k]), bins[:, k]) for k in range(self.dim)]
        return torch.stack(each).mean()  # in training the bins before each are known

    def predict(self, features, generator=None):
        bins = torch.empty(len(features), 0, dtype=torch.long, device=features.device)
        for _ in range(self.dim):
            likely = self.logits(features, bins).softmax(dim=1)
            bins = torch.cat([bins, torch.multinomial(likely, 1, generator=generator)], dim=1)
        return (bins + 0.5) / self.num_bins * 2 - 1  # the middle of each bin


print(same_as_package("bins", Bins))

# %% [markdown]
# In `predict` the answer is **drawn**, so both blocks are visited. And the second number is drawn *after* the first,
# which is part of its input. Is that needed? In the next cell the head answers as trained. Then we take $x$ from one of
# its answers and $y$ from another answer to the same scene: that is what a head would draw that names both at once.
# (We look at scenes in which a mixture does not happen to lie in the direction of a block.)
#
# **Guess first:** how many of these mixed answers are near one of the blocks?

# %% tags=["slow", "nbval-ignore-output"]
torch.manual_seed(0)
bins = train(make_head(config_of("bins")), eyes(two), labels_of(two), num_steps=800, learning_rate=3e-3)
in_turn = ask(bins, seen)
at_once = torch.stack([in_turn[..., 0], in_turn.roll(1, dims=0)[..., 1]], dim=-1)
# The x of one block with the y of the other: (2, n, 2)
ghosts = torch.stack([torch.stack([both[:, i, 0], both[:, 1 - i, 1]], dim=1) for i in (0, 1)])
elsewhere = ~near_each(ghosts).any(dim=-1).any(dim=0)
print(f"in the {elsewhere.sum()} scenes whose mixtures point elsewhere:")
for name, answers in (("in turn", in_turn), ("at once", at_once)):
    near, first = judge(answers, elsewhere)
    print(f"  bins named {name}: near one {near:.1%}, first chosen {first:.1%}")
print(f"in all {len(test)} test scenes: near one {judge(in_turn)[0]:.1%} in turn, {judge(at_once)[0]:.1%} at once; "
      f"used both {used_both(in_turn):.0%} in turn")  # fmt: skip
assert judge(in_turn, elsewhere)[0] > 0.85, "bins should choose"
assert 0.3 < judge(in_turn)[1] < 0.7
assert 0.35 < judge(at_once, elsewhere)[0] < 0.65, "numbers drawn independently should be wrong about half of the time"

# %% tags=["slow"] mystnb={"image": {"alt": "The same four scenes, answers drawn at once. Besides the two right tips there are two more clusters, made of the x of one answer and the y of the other."}}
ch07.show_scenes(test, both, wide, at_once)
plt.show()

# %% [markdown]
# About half in these scenes; over all test scenes about a quarter are wrong. The wrong ones are **ghosts**: the $x$ of
# one block with the $y$ of the other. Each number alone is right, and the pair is wrong, much as in the binding problem
# of [Chapter 4](04_fusion.ipynb). So such bins must be named in turn, each knowing the ones before, and an answer takes
# as many passes as an action has numbers.
#
# The bins are fixed before training: 256 between -1 and 1 are 0.008 wide, enough here.
#
# ## 5. Flow matching: move noise onto an answer
#
# Bins name one number after the other. Flow matching, the head of [pi0](https://arxiv.org/abs/2410.24164) and
# [SmolVLA](https://arxiv.org/abs/2506.01844), decides everything at once, and without a grid. Start from a random point
# $\varepsilon$, normal noise. Learn at each point *in which direction to move*, so that a crowd of random points becomes
# the crowd of demonstrated actions.
#
# How to learn a direction for each point? Pair each action $a$ with a random $\varepsilon$, and draw a straight line
# from the noise to the action. At time $t$ the point on it is
#
# $$x_t = (1 - t)\,\varepsilon + t\,a, \qquad\text{and it moves with velocity}\qquad \frac{dx_t}{dt} = a - \varepsilon .$$
#
# The network sees the feature, the point and the time, and is trained **with the squared error** to say the velocity.
# Squared error means the mean, and here the mean is what we want. Where lines to both blocks pass through the same
# point, the network says the mean of their velocities. Following *that* field carries noise to the distribution of the
# data ([Lipman et al.](https://arxiv.org/abs/2210.02747), theorems 1 and 2, for a field that is learned exactly). The
# averaging happens on the way, while the answer is still open, and not at the end.
#
# To act: draw noise, and take a few steps along the field. (Papers count time from noise to action, as we do;
# [openpi](https://github.com/Physical-Intelligence/openpi) and LeRobot's SmolVLA count it the other way round.) The
# network and the random numbers are given; flow matching and diffusion share them.


# %%
class Denoiser(nn.Module):
    """A network that looks at a feature, a point and a time."""

    num_draws = 8  # noise and times for each action of a batch: the feature is costly, this network is not

    def __init__(self, config):
        super().__init__()
        width, self.dim, self.num_steps = config.head.hidden_dim, config.head.action_dim, config.head.num_steps
        self.features_in = nn.Linear(config.fusion.embed_dim, width)
        self.action_in = nn.Linear(self.dim, width)
        self.time_in = nn.Linear(width, width)
        self.trunk = Trunk(width)
        self.output = nn.Linear(width, self.dim)

    def network(self, features, point, time):
        """What the network says about points (m, dim) at times (m,)."""
        level = sincos_positions(1000 * time, self.time_in.in_features, max_period=10_000.0)  # as for a patch's place
        return self.output(self.trunk(self.features_in(features) + self.action_in(point) + self.time_in(level)))

    def draw_noise_and_times(self, features, actions, generator):
        """Features and actions, each repeated; a noise for each (m, dim), and a time in [0, 1] for each (m,)."""
        features, actions = (x.repeat_interleave(self.num_draws, dim=0) for x in (features, actions))
        count = len(actions)
        offset = torch.rand(count, device=actions.device, generator=generator)
        order = torch.randperm(count, device=actions.device, generator=generator)
        noise = torch.randn(actions.shape, device=actions.device, generator=generator)
        return features, actions, noise, (order + offset) / count  # the times are spread evenly over the batch


# %% [markdown]
# ### Exercise 1: flow matching (25 minutes)
#
# Write the two verbs. Each needs three or four lines.
#
# - `loss`: the points on the lines at their times, and the mean squared error between what the network says there and
#   the velocities.
# - `predict`: from noise, at time 0, take `self.num_steps` equal steps along the field, to time 1. Each step uses the
#   velocity at its start (an *Euler step*). Return where the points arrive.
#
# <details><summary>Hint</summary>
#
# `time[:, None]` has the shape `(m, 1)` and multiplies each row of `(m, dim)`. In `predict` the network wants one time
# for each point: `torch.full((len(x),), t, device=x.device)`.
#
# </details>


# %% tags=["exercise"]
class Flow(Denoiser):
    """Learn the velocity from noise to action, then follow it."""

    def loss(self, features, actions, generator=None):
        features, actions, noise, time = self.draw_noise_and_times(features, actions, generator)  # noqa: RUF059
        # your code here

    def predict(self, features, generator=None):
        x = torch.randn(len(features), self.dim, device=features.device, generator=generator)  # noqa: F841
        # your code here


# %% tags=["check"]
with checking("Exercise 1"):
    ch07_checks.check_flow(Flow(config_of("flow", num_steps=4)))
    same_as_package("flow", Flow)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# class Flow(Denoiser):
#     def loss(self, features, actions, generator=None):
#         features, actions, noise, time = self.draw_noise_and_times(features, actions, generator)
#         point = (1 - time)[:, None] * noise + time[:, None] * actions
#         return F.mse_loss(self.network(features, point, time), actions - noise)
#
#     def predict(self, features, generator=None):
#         x = torch.randn(len(features), self.dim, device=features.device, generator=generator)
#         for step in range(self.num_steps):
#             time = torch.full((len(x),), step / self.num_steps, device=x.device)
#             x = x + self.network(features, x, time) / self.num_steps
#         return x
# ```
#
# With the package's weights it gives the package's loss and answers; the check has compared them.
#
# </details>
#
# If yours is not ready yet, go on all the same: the next cells train the package's `FlowHead`.

# %% tags=["slow", "nbval-ignore-output"]
torch.manual_seed(0)
flow = train(make_head(config_of("flow")), eyes(two), labels_of(two), num_steps=1_200, learning_rate=5e-3)
answers = ask(flow, seen)
near, first = judge(answers)
print(f"flow matching: near one {near:.1%}, first chosen {first:.1%}, used both {used_both(answers):.0%}")
assert used_both(answers) > 0.6, "flow matching should visit both"
assert near > 0.85, "flow matching should choose"
assert 0.3 < first < 0.7

# %% [markdown]
# Here is the field at work in one scene, from left to right. Until about the middle of the time the crowd only shifts
# and shrinks. Then it parts. The arrows show what the network says at each place. A dot that ends between the rings is
# one of the few answers that miss.

# %% tags=["slow"] mystnb={"image": {"alt": "Five moments of flow matching in one scene, from a round cloud of noise to two tight clusters on the right answers. Small arrows show the velocity; late in time they point to the nearer of the two."}}
ch07.show_field(flow.network, seen[wide[0]], both[wide[0]])
plt.show()

# %% [markdown]
# ### How many steps?
#
# Each step is one pass of the head's network. [pi0](https://arxiv.org/abs/2410.24164) takes 10. **Guess first:** where
# does a single long step from noise end, along the velocity at $t=0$: (a) near one of the blocks, a little off (b)
# between them (c) anywhere?

# %% tags=["slow", "nbval-ignore-output"]
by_steps = {}
cosine = (both[:, 0] * both[:, 1]).sum(dim=1)
for steps in (1, 2, 5, 10, 20):
    flow.config = replace(flow.config, num_steps=steps)
    by_steps[steps] = ask(flow, seen)
    parts = [judge(by_steps[steps], scenes)[0] for scenes in (slice(None), cosine > 0.5, cosine < -0.5)]
    print(f"{steps:2} steps: near one {parts[0]:.1%}; two blocks less than 60 degrees apart {parts[1]:.1%}, "
          f"more than 120 {parts[2]:.1%}")  # fmt: skip
flow.config = replace(flow.config, num_steps=10)
assert judge(by_steps[1])[0] < 0.3 < 0.8 < judge(by_steps[10])[0]

# %% tags=["slow"]
off = (by_steps[1] - both.mean(dim=1)).norm(dim=-1).median().item()
is_mean = off < 0.25
print("one step ends at the mean of the two answers:", is_mean)
assert is_mean, off

# %% [markdown]
# The answer is (b). At $t = 0$ the point is pure noise and says nothing about the action. The best guess of the velocity
# $a - \varepsilon$ is then $\mathbb E[a] - \varepsilon$, and one full step from $\varepsilon$ lands on $\mathbb E[a]$.
# **One step of flow matching is regression.** With more steps the network looks again on the way, when the point has
# begun to lean to one side. Blocks that lie far apart need fewer steps: compare the last two columns from 2 steps on.
#
# ## 6. Diffusion: remove the noise
#
# Diffusion came first ([Diffusion Policy](https://arxiv.org/abs/2303.04137), [Octo](https://arxiv.org/abs/2405.12213))
# and is a close relative. The network and the squared error are the same; the path, the target and the walk differ.
#
# - **Path**: $x = \cos(\tfrac{\pi}{2} t)\,a + \sin(\tfrac{\pi}{2} t)\,\varepsilon$. Time runs the other way, from 0,
#   clean, to 1, noise. The path is an arc.
# - **Target**: the velocity along that arc, per unit of its angle $\tfrac{\pi}{2} t$:
#   $\cos(\tfrac{\pi}{2} t)\,\varepsilon - \sin(\tfrac{\pi}{2} t)\,a$. From it and $x$, action and noise both follow,
#   which is what the walk needs.
# - **Walk**: at each step, estimate the clean action; then put back a little less noise, some of it *fresh*.


# %%
class Diffusion(Denoiser):
    """Learn to tell action from noise, then remove the noise step by step."""

    def schedule(self, time):
        angle = math.pi / 2 * time[:, None]
        return angle.cos(), angle.sin()  # how much action, how much noise

    def loss(self, features, actions, generator=None):
        features, actions, noise, time = self.draw_noise_and_times(features, actions, generator)
        signal, sigma = self.schedule(time)
        point = signal * actions + sigma * noise
        return F.mse_loss(self.network(features, point, time), signal * noise - sigma * actions)

    def predict(self, features, generator=None):
        x = torch.randn(len(features), self.dim, device=features.device, generator=generator)
        for now, following in pairwise(torch.linspace(1, 0, self.num_steps + 1, device=x.device)):
            (signal, sigma), (next_signal, next_sigma) = (self.schedule(t.expand(len(x))) for t in (now, following))
            velocity = self.network(features, x, now.expand(len(x)))
            action, noise = signal * x - sigma * velocity, sigma * x + signal * velocity
            kept = (next_sigma * signal / (sigma * next_signal).clamp(min=1e-8)).clamp(max=1.0)
            fresh = torch.randn(x.shape, device=x.device, generator=generator)
            x = next_signal * action + next_sigma * (kept * noise + (1 - kept**2).sqrt() * fresh)
        return x


print(same_as_package("diffusion", Diffusion))

# %% tags=["slow", "nbval-ignore-output"]
torch.manual_seed(0)
diffusion = make_head(config_of("diffusion", num_steps=20))
train(diffusion, eyes(two), labels_of(two), num_steps=1_200, learning_rate=5e-3)
answers = ask(diffusion, seen)
near, first = judge(answers)
print(f"diffusion: near one {near:.1%}, first chosen {first:.1%}, used both {used_both(answers):.0%}")
assert used_both(answers) > 0.6, "diffusion should visit both"
assert near > 0.85, "diffusion should choose"
assert 0.3 < first < 0.7

# %% [markdown]
# Behind a real backbone both need their steps. With 1, 10 and 50 of them flow matching is near one block in
# 3 %<!-- result: heads/heads/flow/two answers/by_sampling_steps/1/median:.0% -->, 98 %<!-- result: heads/heads/flow/two answers/by_sampling_steps/10/median:.0% --> and 100 %<!-- result: heads/heads/flow/two answers/by_sampling_steps/50/median:.0% -->, and diffusion in
# 4 %<!-- result: heads/heads/diffusion/two answers/by_sampling_steps/1/median:.0% -->, 97 %<!-- result: heads/heads/diffusion/two answers/by_sampling_steps/10/median:.0% --> and 100 %<!-- result: heads/heads/diffusion/two answers/by_sampling_steps/50/median:.0% --> of its answers (medians of three seeds).
#
# ## 7. Units: normalise, and keep the statistics
#
# So far all actions were unit vectors. A robot's are metres, radians, and a gripper that is 0 or 1. With such numbers
# side by side, the dimension with the largest numbers rules the squared error, noise of variance one drowns the small
# ones, and bins between -1 and 1 do not fit.
#
# So heads work in **normalised** units, dimension by dimension, and the answer is turned back at the end. Two ways are
# usual: subtract the mean and divide by the standard deviation (the default of [LeRobot's
# SmolVLA](https://github.com/huggingface/lerobot)), or map the 1 % and 99 % quantiles to -1 and 1
# ([OpenVLA](https://github.com/openvla/openvla)). A gripper is better left alone: if it has the same value in nearly
# all of a data set, both quantiles are the same number. OpenVLA keeps a `mask` that says which dimensions are
# normalised at all.
#
# ### Exercise 2: the statistics of a robot (15 minutes)
#
# Write `masked_statistics(actions, mask)`: actions are `(n, dims)`, `mask` is a list of booleans. Return
# `(offset, scale)`, one number for each dimension, from the 1 %<!-- given --> and 99 %<!-- given --> quantiles, so that `(actions - offset) / scale`
# is normalised where the mask is true and **unchanged** where it is false. A dimension that is to be normalised and does
# not move (its quantiles are less than `1e-6` apart) is shifted and not stretched.
#
# <details><summary>Hint</summary>
#
# `torch.quantile(actions, q, dim=0)` gives one number for each dimension. Unchanged means offset 0 and scale 1;
# `torch.where(mask, a, b)` picks.
#
# </details>


# %% tags=["exercise"]
def masked_statistics(actions, mask):
    """Offset and scale of each dimension."""
    # your code here


# %% tags=["check"]
with checking("Exercise 2"):
    ch07_checks.check_statistics(masked_statistics)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def masked_statistics(actions, mask):
#     low, high = (torch.quantile(actions, q, dim=0) for q in (0.01, 0.99))
#     scale = (high - low) / 2
#     scale = torch.where(scale < 0.5e-6, 1.0, scale)
#     mask = torch.tensor(mask)
#     return torch.where(mask, (low + high) / 2, 0.0), torch.where(mask, scale, 1.0)
# ```
#
# </details>
#
# The package's `Normalizer` does the same for all dimensions, and knows both ways. What does one broken sensor reading in
# two thousand do to each?

# %%
rng = torch.Generator().manual_seed(0)
arm = torch.randn(2_000, 3, generator=rng) * torch.tensor([0.02, 3.0, 400.0]) + torch.tensor([0.5, 0.0, 90.0])
arm[0, 2] = 1e6  # one broken sensor reading
for kind in ("mean-std", "quantiles"):
    normalizer = Normalizer(kind, 3)
    normalizer.fit(arm)
    forward = normalizer(arm[:, None])[:, 0]
    back = normalizer.inverse(normalizer(arm[:, None].double()))[:, 0].float()
    print(f"{kind:9} there and back is exact: {torch.equal(back, arm)}; all but the broken value of the third dimension "
          f"span {forward[1:, 2].max() - forward[1:, 2].min():.1f}")  # fmt: skip
    clean = Normalizer(kind, 3)
    clean.fit(arm[1:])
    print(f"{'':9} a unit of the third dimension is {normalizer.scale[2]:,.0f} wide with the broken value, "
          f"{clean.scale[2]:,.0f} without it")  # fmt: skip

# %% [markdown]
# With mean and standard deviation the rest of that dimension spans about a tenth of a unit: hardly anything is left for
# the head to see. The broken value hardly moves the quantiles. Their price: what lies beyond them is outside of
# $[-1, 1]$, where bins cannot name it and a `tanh` cannot reach it, so it comes out clipped.
#
# A common bug is not a wrong formula but the **wrong statistics**: a checkpoint that was fine-tuned on one robot, and
# un-normalised with the numbers of another. Nothing crashes; the arm moves to plausible, wrong places. In
# [OpenVLA](https://github.com/openvla/openvla) one names the right set with `unnorm_key`. Here a fingerprint of the
# statistics stands in `config.json`, and is checked whenever a policy is loaded, trained or asked.

# %%
small = TinyVLA(ModelConfig(head=HeadConfig(action_dim=3, normalization="quantiles")))
image, words = one[0].image, one[0].instruction

print("before fit_statistics:", says(lambda: small.predict(image, words)))
small.fit_statistics(arm)
print("after fit_statistics: ", says(lambda: small.predict(image, words)))
small.head.normalizer.scale *= 2  # what loading another robot's statistics amounts to
print("foreign statistics:   ", says(lambda: small.predict(image, words)))
print("another robot's data: ", says(lambda: small.fit_statistics(torch.zeros(4, 7))))

# %% [markdown]
# ## 8. Chunks: several right ways
#
# Many policies predict a **chunk**, the next 16 or 50 actions, and do some of them before they look again
# ([Chapter 8](08_closed_loop.ipynb) asks how many). With chunks, several right answers are the rule. `trajectories` makes
# such demonstrations: from the image's centre to the block in 16 steps, along an arc to either side, with a pause of 4
# steps at any moment. For one scene that gives 22 right chunks.

# %% mystnb={"image": {"alt": "Left: a scene with the ways to its block, an arc to each side, and the straight dashed mean between them. Right: speed over the 16 steps: each demonstration stands still for four steps at some moment, the mean never does."}}
HORIZON = 16
ways = valid_trajectories(still, HORIZON)  # (scenes, ways, steps, 2), in pixels
index = int(np.abs(np.linalg.norm(ways[:40, 0].sum(axis=1), axis=1) - 33).argmin())  # a block that is far enough away
ch07.draw_ways(still, ways, index)
plt.show()
print(f"{ways.shape[1]} right ways for a scene, {HORIZON} steps each; all end at the block: "
      f"{bool(np.allclose(ways.sum(axis=2), ways[:, :1].sum(axis=2), atol=1e-3))}")  # fmt: skip

# %% [markdown]
# Their mean is a straight line without a pause, a way that nobody showed. It ends at the block. So if you only measure
# the end point, regression looks perfect. We also measure the mean distance to the *nearest* right way,
# step by step, so a pause at another moment counts too; less than 1.5 pixels counts as near.
#
# The heads flatten a chunk, so nothing new is needed. We train regression for 500 steps and flow matching for 2,000, on
# chunks normalised by mean and standard deviation. Such numbers are not bounded by $[-1, 1]$, so regression has no `tanh`
# here. (Its best answer is the mean, however long it trains.)

# %% tags=["slow", "nbval-ignore-output"]
chunks = torch.from_numpy(trajectories(one, HORIZON, seed=0)).to(device)
torch.manual_seed(0)
drawn = {}
for kind, num_steps in (("regression", 500), ("flow", 2_000)):
    head = make_head(config_of(kind, horizon=HORIZON, normalization="mean-std")).to(device)
    head.fit(chunks)
    train(head, eyes(one), chunks, num_steps, learning_rate=3e-3)
    drawn[kind] = ask(head, eyes(still), num_draws=12).cpu().numpy()  # (draws, scenes, steps, 2)


def judge_chunks(chunk):
    """Median error of the end in pixels, and which are near one of the right ways; chunk is (scenes, steps, 2)."""
    ends = np.linalg.norm(chunk.sum(axis=1) - ways[:, 0].sum(axis=1), axis=1)
    off = np.linalg.norm(chunk.cumsum(axis=1)[:, None] - ways.cumsum(axis=2), axis=-1).mean(axis=2).min(axis=1)
    return np.median(ends), off < 1.5


for kind, chunk in drawn.items():
    end, near = judge_chunks(chunk[0])
    print(f"{kind:10} ends {end:.1f} px from the block, near a right way {near.mean():.1%}")
is_beside_centre = np.linalg.norm(cell_centers(still.cells[:, 0]) - 32, axis=1) < 6
print(f"targets in the four cells beside the centre {is_beside_centre.mean():.1%}, "
      f"regression near a way elsewhere {judge_chunks(drawn['regression'][0])[1][~is_beside_centre].mean():.1%}")  # fmt: skip
assert max(judge_chunks(chunk[0])[0] for chunk in drawn.values()) < 4, "both should end near the block"
assert judge_chunks(drawn["flow"][0])[1].mean() > 0.5 > 0.25 > judge_chunks(drawn["regression"][0])[1].mean()

# %% tags=["slow"] mystnb={"image": {"alt": "Two panels with the same scene. Regression: one straight path. Flow matching: twelve paths, some along the left arc, some along the right one, all ending at the block."}}
ch07.draw_chunks(still, ways, index, drawn)
plt.show()

# %% [markdown]
# ## 9. FAST: a chunk as a few tokens
#
# Bins on a chunk of 16 steps in the plane are 32 names, one pass each; on a real arm with 50 steps of 7 numbers they are
# 350. And neighbours in time are nearly the same number, so most of these names say little that is new. **FAST**
# ([pi0-FAST](https://arxiv.org/abs/2501.09747)) compresses the chunk first, in two stages.
#
# **First, a cosine transform**, as in JPEG. Each dimension's 16 numbers over time become 16 frequencies. Multiply by a
# scale and round to whole numbers. The smoother the motion, the smaller are the numbers of the high frequencies. Our
# chunks are a hard case, because a sudden pause is not smooth.

# %% mystnb={"image": {"alt": "Three panels. The steps of one chunk in x and y. Its rounded frequencies: large at the left, smaller but not zero at the right. The way drawn from them again lies on the original."}}
moments = (np.arange(HORIZON) + 0.5) / HORIZON
transform = np.cos(np.pi * np.arange(HORIZON)[:, None] * moments) * np.sqrt(2 / HORIZON)  # row k: k half waves
transform[0] /= np.sqrt(2)
np.testing.assert_allclose(transform, cosine_transform(HORIZON))
np.testing.assert_allclose(transform @ transform.T, np.eye(HORIZON), atol=1e-12)  # so its inverse is its transpose

SCALE = 20.0
demonstrated = trajectories(one, HORIZON, seed=0).astype(np.float64)
span = np.abs(demonstrated).max()
scaled = demonstrated / span  # in [-1, 1]
frequencies = np.einsum("kh,nha->nka", transform, scaled)  # (chunks, frequencies, 2)
numbers = np.rint(SCALE * frequencies).astype(int)
back = np.einsum("kh,nka->nha", transform, numbers / SCALE) * span
lowest = (frequencies[:, :4] ** 2).sum() / (frequencies**2).sum()
small, few = ((np.abs(numbers[:, 8:]) <= size).mean() for size in (1, 5))
worst = np.linalg.norm((back - demonstrated).cumsum(axis=1), axis=2).max(axis=1)
print("equal to tinyvla.model.heads.fast_tokenizer.cosine_transform")
print(f"the lowest 4 of {HORIZON} frequencies hold {lowest:.0%} of the motion;")
print(f"of the highest 8, {small:.0%} of the rounded numbers are -1, 0 or 1, and {few:.0%} lie between -5 and 5")
print(f"drawn from the rounded numbers, a way is off by {np.median(worst):.1f} px at its worst step (median)")
chosen = next(i for i in range(500) if np.linalg.norm(demonstrated[i].sum(axis=0)) > 30)
ch07.draw_frequencies(demonstrated[chosen], numbers[chosen], back[chosen])
plt.show()

# %% [markdown]
# **Second, byte-pair encoding**, which language models use to build words from letters. Write the numbers in a row,
# lowest frequencies first. Find the pair of neighbours that occurs most often in all rows, and give it a token of its
# own. Do it again, a few hundred times. Runs of zeros become single tokens. The package leaves the counting to Hugging
# Face's `tokenizers` and starts from the same numbers. How many tokens does a chunk take in the end, and what if the
# motion were not smooth? To find out, we shuffle all numbers of all chunks. We count their tokens twice: with the
# tokenizer that was fitted on the smooth chunks, and with one that is fitted anew on the shuffled ones.

# %%
tokenizer = FastTokenizer(HORIZON, 2, scale=SCALE)
assert (tokenizer.frequencies(scaled) == numbers.reshape(len(numbers), -1)).all()
print("the same numbers as tinyvla.model.heads.fast_tokenizer.FastTokenizer")
tokenizer.fit(scaled, vocab_size=512)
decoded = tokenizer.decode(tokenizer.encode(scaled[:200])) * span
np.testing.assert_allclose(decoded, back[:200], atol=1e-9)
jagged = np.random.RandomState(0).permutation(scaled.flat).reshape(scaled.shape)
anew = FastTokenizer(HORIZON, 2, scale=SCALE)
anew.fit(jagged, vocab_size=512)
print(f"there and back: only the rounding is lost. Tokens for the {2 * HORIZON} numbers of a chunk, on average:")
cases = {
    "smooth chunks": (tokenizer, scaled),
    "shuffled, the same tokenizer": (tokenizer, jagged),
    "shuffled, a tokenizer fitted anew": (anew, jagged),
}
for name, (codec, given) in cases.items():
    print(f"  {name}: {np.mean([len(ids) for ids in codec.encode(given[:2_000])]):.1f}")
print("of the neighbours in the rows, the 300 commonest pairs make")
for name, given in (("smooth chunks", scaled), ("shuffled", jagged)):
    rows = tokenizer.frequencies(given)
    counts = np.sort(
        np.unique(np.stack([rows[:, :-1], rows[:, 1:]], axis=-1).reshape(-1, 2), axis=0, return_counts=True)[1]
    )
    print(f"  {name}: {counts[-300:].sum() / counts.sum():.0%}")

# %% [markdown]
# A smooth chunk takes about half as many tokens as it has numbers. Shuffled chunks take more, also with a tokenizer of
# their own: their high frequencies are as large as their low ones, so fewer pairs repeat, as the last lines show. The
# tokenizer of the smooth chunks does worst on them. A likely reason is that it knows pairs that are rare there.
#
# `FastHead` then names these tokens one after the other with a small causal transformer, until it names the end mark: the
# bins head with another vocabulary. The tokenizer is learned from the data, so it belongs in the checkpoint and has a
# fingerprint, as the statistics have.
#
# ## 10. All heads, one table
#
# The same backbone, three kinds of data, three seeds each; the figures are medians. **The rows for two answers have
# different budgets**: heads that answer one thing trained for 2 epochs, heads that draw for 9. The lines below the
# table compare all but the directions heads after 2 epochs (of nine for the heads that draw, whose learning rate has
# not fallen yet). Directions heads are low within 10 degrees because they name only a few directions. **Steps** are the
# sampling steps of an answer. **A way** is a whole path with its timing: 22 of them are right in a scene.

# %%
print(f"{report['preset']} backbone, {report['scenes']:,} scenes, {report['seeds']} seeds, on {machine}\n")
print(ch07.table_of_answers(measured) + "\n")
print("near one after 2 epochs for all (validation scenes, all seeds):")
for name in ("regression", "l1", "bins", "flow", "diffusion"):
    early = [curve[1] for curve in measured[name]["two answers"]["curves"]]
    print(f"  {name:12}{min(early):.0%} to {max(early):.0%}")
print("\n" + ch07.table_of_chunks(measured))

# %%
chunk_rows = {name: row["trajectories"] for name, row in measured.items() if "trajectories" in row}
for name in ("bins", "flow", "diffusion"):
    row = measured[name]["two answers"]
    assert row["near_one"]["min"] >= 0.95, name
    assert 0.3 <= row["first_chosen"]["min"] <= row["first_chosen"]["max"] <= 0.7, name
    assert row["used_both"]["min"] > 0.85, name
    assert chunk_rows[name]["near_a_way"]["min"] > 2 * chunk_rows["regression"]["near_a_way"]["max"], name
for name in ("regression", "l1"):
    assert measured[name]["two answers"]["near_one"]["max"] < 0.5, name
    assert measured[name]["two answers"]["used_both"]["max"] == 0, name
for name in set(measured) - {"fast", "directions-4"}:  # four directions are too coarse for this metric, see above
    assert measured[name]["one answer"]["direction_accuracy"]["min"] >= 0.95, name
print("one right answer: every head measured (not FAST) is right in every seed (four directions by their names)")
print("two: bins, flow and diffusion take one of them in 95 % or more, and visit both in most scenes, in every seed")
for steps in ("10", "20"):
    medians = [measured[name]["two answers"]["by_sampling_steps"][steps]["median"] for name in ("flow", "diffusion")]
    print(f"two answers, {steps} sampling steps: flow near one {medians[0]:.1%}, diffusion {medians[1]:.1%}")
print("trajectories: these three are near a way at least twice as often as regression")
longer = load_results("heads_longer")["heads"]["fast"]["trajectories"]
for row in (chunk_rows["fast"], longer):
    low, middle, high = (row["near_a_way"][key] for key in ("min", "median", "max"))
    print(f"FAST, {row['epochs']} epochs: near a right way {low:.1%}, {middle:.1%} and {high:.1%} in its three seeds")
    assert (low > 0.95) if row is longer else (high > 0.9 > 0.5 > middle)

# %% [markdown]
# How to read it:
#
# - **One right answer: take regression.** Here it is as good as the others, is the simplest, and gives the same answer each
#   time. OpenVLA-OFT replaced OpenVLA's bins with [L1 regression on chunks](https://arxiv.org/abs/2502.19645).
# - **Several right answers: take a head that draws.** After two of their nine epochs, bins, flow matching and diffusion
#   are already far above regression and L1 after their full two. In most scenes they visit both blocks ("both"); a head
#   that answers with one thing never does. They differ in cost, and in the points below: bins take a pass for each
#   number, flow matching and diffusion one for each sampling step, FAST one for each token, through a transformer over
#   all tokens so far.
# - **Flow matching has 10 sampling steps here, diffusion 20.** With two answers and equal steps it is flow matching that
#   is slightly more often near one, as the lines above show.
# - **Do not rank heads by these times.** FAST took 254<!-- result: heads/heads/fast/trajectories/milliseconds/1:.0f -->
#   ms in one run and 21<!-- result: heads_longer/heads/fast/trajectories/milliseconds/1:.0f --> ms in another, on
#   another GPU, and we do not know why. On trajectories diffusion took less time with 20 steps than flow matching with
#   10, which its passes cannot explain, either.
# - **On trajectories** regression and L1 are near a way in 6.6 %. For regression, Section 8 showed which: the blocks
#   right beside the centre, where the straight line and the arcs are close together. L1 also ends 6.7 pixels from the
#   block: its medians, number by number, need not add up to the way.
# - **FAST needed longer.** All heads got 3 epochs on trajectories; one of FAST's three seeds learned it in that time, and
#   with 6 epochs all three did. The others were not given more, so this does not rank it.
# - **Still steps**: the demonstrations have 4. Regression has none, since the mean of pauses at different moments is no
#   pause: look for this if your robot should wait for a gripper to close and never quite does. Bins have all 4; flow
#   matching and diffusion have fewer (a step is still if it is below a tenth of the chunk's mean step).
# - **A drawn answer differs each time.** If you need the same answer twice, pass a new generator with the same seed
#   each time; the same generator, passed twice, goes on to other numbers.
#
# To train the policy with another head: `tinyvla train --head flow`.
#
# ## Exercise 3: a head of your own (30 minutes)
#
# There is an older way to say "one of several": a **mixture**. The head answers with 4 arrows, a weight for each,
# and one deviation; the loss is the negative log-likelihood of the demonstrated action,
#
# $$-\log \sum_{k=1}^{4} w_k\, \mathcal N(a;\ \mu_k, \sigma^2 I).$$
#
# To act, **draw** one of the four by its weight and answer with its arrow. The network is given; write the two functions
# that make a head of it. Shapes: `means (n, 4, dim)`, `log_weights (n, 4)`, `actions (n, dim)`; `log_sigma` is a single
# number. The loss is the mean over the batch.
#
# <details><summary>Hint</summary>
#
# For each `k`, `log N` is minus the squared distance over $2 \sigma^2$, minus `dim * (log_sigma + 0.5 * log(2 pi))`.
# `torch.logsumexp` over `k` adds the four. To draw, give the weights and the generator to `torch.multinomial`, and pick
# rows with `means[torch.arange(n), index]`.
#
# </details>


# %% tags=["exercise"]
def mixture_loss(means, log_weights, log_sigma, actions):
    """Mean of the negative log-likelihood."""
    # your code here


def draw_one(means, log_weights, generator):
    """One of the four means for each row, drawn by its weight; (n, dim)."""
    # your code here


# %% tags=["check"]
with checking("Exercise 3"):
    ch07_checks.check_mixture(mixture_loss, draw_one)
    torch.manual_seed(0)
    head = ch07_checks.MixtureHead(config_of("regression"), mixture_loss, draw_one)
    answers = ask(train(head, eyes(two), labels_of(two), num_steps=800, learning_rate=3e-3), seen)
    near, first = judge(answers)
    assert near > 0.6, f"after training, {near:.0%} of its answers are near one of the two; 60 % are expected at least"
    assert 0.3 < first < 0.7, f"it should choose both; the first was taken in {first:.0%}"
    assert used_both(answers) > 0.4, (
        f"it should visit both blocks of a scene; only in {used_both(answers):.0%} of the scenes it does"
    )

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def mixture_loss(means, log_weights, log_sigma, actions):
#     distance = ((actions[:, None] - means) ** 2).sum(dim=-1)
#     log_normal = -distance / (2 * torch.exp(2 * log_sigma))
#     log_normal = log_normal - actions.shape[1] * (log_sigma + 0.5 * math.log(2 * math.pi))
#     return -torch.logsumexp(log_weights + log_normal, dim=1).mean()
#
#
# def draw_one(means, log_weights, generator):
#     index = torch.multinomial(log_weights.exp(), 1, generator=generator)[:, 0]
#     return means[torch.arange(len(means), device=means.device), index]
# ```
#
# It acts in one pass. Its limit is that the number of answers is fixed beforehand: a whole chunk has 22 right ways here
# and may have far more on a robot.
#
# </details>

# %% [markdown]
# ## Check yourself
#
# <details><summary>Half of your demonstrators pass an obstacle on the left, half on the right. What does a policy do that was trained with squared error?</summary>
#
# It steers for the middle, where the obstacle is, since that is the mean of both. The loss stays well above zero, and
# neither a larger network nor more demonstrations of this kind change it.
#
# </details>
#
# <details><summary>Flow matching is trained with squared error. Why does it not average the answers?</summary>
#
# It averages velocities at a point on the way, not answers. Early on, that mean points between the answers, and it
# should. Later the point itself shows which answer it is heading for, and the mean is over those alone. With a
# single step there is no later, and it does average.
#
# </details>
#
# <details><summary>A fine-tuned policy has a low loss, and the arm moves smoothly to wrong places. What do you look at first?</summary>
#
# At the statistics that un-normalise its actions. They must be those of the data that it was trained on.
#
# </details>
#
# ## Summary
#
# - Squared error answers with the mean. Where several answers are right, the mean may be none of them.
# - Bins, FAST tokens, flow matching and diffusion learn a distribution over actions and draw from it. A directions head
#   learns one over a few names, and answers with the likeliest.
# - A bins head names one number after the other, and each must depend on those before it. Drawn independently, they mix
#   two right answers into a wrong one, in up to half of their answers.
# - Flow matching and diffusion settle on one answer during their sampling steps, so they need several. A single step gives
#   the mean, as regression does.
# - Normalise each dimension, keep the statistics with the weights, and check them.
# - An end point says little about a chunk. Measure the distance to the nearest way that was shown.
#
# ## Sources
#
# The papers are linked where they are named. Beside them: openpi's
# [`pi0.py`](https://github.com/Physical-Intelligence/openpi/blob/main/src/openpi/models/pi0.py), on the direction of time;
# [Progressive distillation](https://arxiv.org/abs/2202.00512), for the velocity of diffusion; and
# [`tinyvla/model/heads`](https://github.com/tinyvla/tinyvla/tree/main/tinyvla/model/heads), which you have built.
#
# ## Next
#
# A good chunk is a plan; the world decides whether it works. [Chapter 8](08_closed_loop.ipynb) puts the policy into a
# loop in which its own actions choose what it sees next.
