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
# scenes with one right answer that is all one needs. Now put **two** red blocks into the scene and say "find any red
# block". Some demonstrations go to one of them, some to the other. What will the policy do?
#
# It will go between them, to a place where nothing is. The network is not too small, and more data will not help: it
# does exactly what the loss asks for. In this chapter you build the heads that the well-known VLAs use instead: bins
# (OpenVLA), flow matching (pi0, SmolVLA), diffusion (Octo), and FAST tokens (pi0-FAST).
#
# **You will be able to**
#
# - explain why squared error answers with the mean, and recognise data for which that is wrong;
# - build five heads in about twenty lines each, and show that they equal the package's;
# - measure whether a policy chooses or averages;
# - trade sampling steps for quality, and say what a single step of flow matching gives;
# - normalise actions, turn chunks of them into tokens, and choose a head for data of your own.
#
# **Time:** about 75 minutes to read, about 2 minutes on two CPU cores, 40 seconds on a GPU to run.
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
import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import torch.nn.functional as F
from torch import nn

from tinyvla.config import FusionConfig, HeadConfig, ModelConfig
from tinyvla.course.exercises import checking
from tinyvla.course.zoo import load_results
from tinyvla.data.dataset import BlockFind, directions, trajectories, valid_trajectories
from tinyvla.errors import InputError
from tinyvla.model.heads import Head, make_head
from tinyvla.model.heads.fast_tokenizer import FastTokenizer, cosine_transform
from tinyvla.model.layers import sincos_positions
from tinyvla.model.normalize import Normalizer
from tinyvla.model.policy import TinyVLA
from tinyvla.show.plots import PART_COLORS

plt.rcParams.update({"figure.facecolor": "white", "font.size": 10})

# %% [markdown]
# All heads do the same job: a purple feature comes in, a magenta action goes out. They differ in what they can *say*.

# %% tags=["hide-input"] mystnb={"image": {"alt": "One feature, five heads: regression says one arrow between the two right ones; directions names one of eight; bins name x, then y; flow and diffusion move noise onto one of the two right answers."}}
fig, axes = plt.subplots(1, 5, figsize=(9, 3), layout="constrained")
rng = np.random.RandomState(0)
right = np.array([[-0.6, 0.8], [0.8, 0.6]])  # two right answers; up is up in these drawings
for ax, title in zip(axes, ("regression", "directions", "bins", "flow matching", "diffusion"), strict=True):
    ax.set(xlim=(-1.35, 1.35), ylim=(-1.35, 1.35), aspect="equal", title=title, xticks=[], yticks=[])
    ax.add_patch(plt.Circle((0, 0), 1, fill=False, color="#bbbbbb", lw=1))
    ax.plot(*right.T, "o", mfc="none", mec="#222222", ms=11, mew=1.5)


def draw(ax, end, **style):
    """An action as an arrow from the middle."""
    ax.annotate("", end, (0, 0), arrowprops={"arrowstyle": "-|>", "color": PART_COLORS["action"], "lw": 2, **style})


draw(axes[0], right.mean(axis=0))
axes[0].set_xlabel("one answer:\nthe mean")
for turn in np.arange(8) * math.pi / 4:
    draw(axes[1], (math.cos(turn), math.sin(turn)), color="#bbbbbb", lw=1)
draw(axes[1], (math.cos(math.pi / 4), math.sin(math.pi / 4)))
axes[1].set_xlabel("the name of one\nof eight")
for edge in np.linspace(-1, 1, 11):
    axes[2].plot([edge, edge], [-1, 1], color="#dddddd", lw=0.7, zorder=0)
    axes[2].plot([-1, 1], [edge, edge], color="#dddddd", lw=0.7, zorder=0)
axes[2].axvspan(0.7, 0.9, ymin=0.13, ymax=0.87, color=PART_COLORS["action"], alpha=0.35, lw=0)
axes[2].add_patch(plt.Rectangle((0.7, 0.5), 0.2, 0.2, color=PART_COLORS["action"], lw=0))
axes[2].set_xlabel("a bin for x, then\none for y")
for ax, noise in ((axes[3], 0.0), (axes[4], 0.09)):
    for start in np.random.RandomState(4).uniform(-1.1, 1.1, size=(16, 2)):
        end = right[np.linalg.norm(right - start, axis=1).argmin()]
        way = start + np.linspace(0, 1, 9)[:, None] * (end - start)
        way[1:-1] += noise * rng.normal(size=(7, 2)) * np.linspace(1, 0.1, 7)[:, None]
        ax.plot(*way.T, color=PART_COLORS["action"], lw=0.8, alpha=0.8)
        ax.plot(*start, ".", color="#777777", ms=4)
axes[3].set_xlabel("noise moves along\na learned field")
axes[4].set_xlabel("noise is removed\nstep by step")
plt.show()

# %% [markdown]
# ## 1. A feature, and two verbs
#
# A head has two verbs. `loss(features, actions)` is for training, `predict(features)` for acting. The training loop
# never learns which head it trains.
#
# To study heads alone, we give them **perfect eyes**: a feature that says, for each of the 64 cells, whether it holds
# a block of the named colour. No backbone can hand over more. So whatever goes wrong in this chapter is the head's
# fault. It also trains in seconds. The same heads behind a real backbone, images and words included, were measured by
# a script; we will read its file as we go.


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
    print(f"{name}: {split.instructions[0]!r}")
    print(f"  features {tuple(eyes(split).shape)}, actions {tuple(split.actions.shape)}, "
          f"cells marked in a scene: {sorted(eyes(split).sum(dim=1).int().unique().tolist())}")  # fmt: skip

# %% [markdown]
# For a test we take scenes in which the two blocks lie at least 20 degrees apart. Then an answer can be within 10
# degrees of one of them, of the other, or of neither, and never of both.

# %% mystnb={"image": {"alt": "Four scenes, each with two blocks of the named colour and one or two others. Two grey arrows in each show the two right answers."}}
test = BlockFind.ambiguous(1_000, seed=44)
both = torch.from_numpy(directions(np.sort(test.cells[:, :2], axis=1)))  # (n, 2 blocks, 2), in reading order
apart = (both[:, 0] * both[:, 1]).sum(dim=1) < math.cos(math.radians(20))
test, both = BlockFind.from_blocks(test.cells[apart], test.colors[apart]), both[apart].to(device)
test.article = "any"
seen = eyes(test)


def show_scenes(indices, answers=None, titles=None):
    """Scenes with both right arrows, and a dot at the tip of each answer; `answers` is (draws, n, 2)."""
    fig, axes = plt.subplots(1, len(indices), figsize=(9, 2.6), layout="constrained")
    for ax, index, title in zip(axes, indices, titles or [None] * len(indices), strict=True):
        ax.imshow(test.images[index].transpose(1, 2, 0), interpolation="nearest", alpha=0.45)
        for arrow in both[index].cpu().numpy():
            tip = 31.5 + 25.6 * arrow
            ax.annotate("", tip, (31.5, 31.5), arrowprops={"arrowstyle": "-|>", "color": "#555555", "lw": 1.3})
        if answers is not None:
            tips = 31.5 + 25.6 * answers[:, index].cpu().numpy()
            ax.plot(*tips.T, "o", color=PART_COLORS["action"], ms=4, alpha=0.35, mec="none")
        ax.set(xticks=[], yticks=[], xlim=(-0.5, 63.5), ylim=(63.5, -0.5))
        ax.set_title(title or test.instructions[index], fontsize=9)
    return fig, axes


wide = (both[:, 0] - both[:, 1]).abs().min(dim=1).values.cpu().gt(0.5).nonzero()[:4, 0].tolist()  # far apart in x and y
show_scenes(wide)
plt.show()
print(f"{len(test)} test scenes with two right answers")

# %% [markdown]
# Two numbers say whether a policy chooses or averages. Ask it several times about each scene. **near one** is the
# share of all answers within 10 degrees of one of the two blocks. **first chosen**: among those, how many took the
# block that comes first in reading order. A policy that chooses freely is near 100 % and near 50 %.


# %%
def near_each(answers):
    """Which answers are within 10 degrees of the first block, and of the second; (draws, n, 2) -> (draws, n, 2)."""
    return F.cosine_similarity(answers[:, :, None], both, dim=-1) > math.cos(math.radians(10))


def judge(answers):
    """Share near one of the two, and among those the share that took the first."""
    near = near_each(answers)
    return near.any(dim=-1).double().mean().item(), (near[..., 0].sum() / near.any(dim=-1).sum().clamp(min=1)).item()


@torch.no_grad()
def ask(head, features, num_draws=20):
    """Several answers for each scene; (draws, n, ...)."""
    generator = torch.Generator(device).manual_seed(0)
    return torch.stack([head.predict(features, generator) for _ in range(num_draws)])


picks = torch.randint(2, (20, len(test)), generator=torch.Generator().manual_seed(0)).to(device)
choosing = both[torch.arange(len(test), device=device), picks]
near, first = judge(choosing)
print(f"a policy that tosses a coin: near one {near:.0%}, first chosen {first:.0%}")
near, first = judge(both.mean(dim=1).expand(20, -1, -1))
print(f"a policy that answers the mean: near one {near:.0%}")

# %% [markdown]
# One more tool, as in the chapters before: each head that you build must load the weights of the package's, and then
# give the same loss and the same answers from the same noise.


# %%
def config_of(kind, **changes):
    """A policy's configuration with this head on a feature of 64 numbers."""
    return ModelConfig(fusion=FusionConfig(embed_dim=64), head=HeadConfig(kind=kind, hidden_dim=128, **changes))


def same_as_package(kind, head_class, **changes):
    """Give `head_class` the weights of the package's head of that kind, and compare losses and answers."""
    torch.manual_seed(0)
    theirs, mine = make_head(config_of(kind, **changes)), head_class(config_of(kind, **changes))
    mine.load_state_dict(theirs.state_dict())  # fails unless the names and shapes of all weights agree
    features, actions = torch.randn(5, 64), F.normalize(torch.randn(5, 2), dim=1)
    with torch.no_grad():
        for verb, inputs in (("loss", (features, actions)), ("predict", (features,))):
            said = [getattr(h, verb)(*inputs, torch.Generator().manual_seed(1)) for h in (mine, theirs)]
            torch.testing.assert_close(*said)
    print(f"{kind}: equals tinyvla.model.heads.{type(theirs).__name__}; ", end="")
    print(f"{sum(p.numel() for p in mine.parameters()):,} parameters, answers {tuple(said[0].shape)}")


def train(head, features, actions, num_steps, learning_rate=2e-3, batch_size=128):
    """AdamW on random batches; the learning rate climbs, holds, and falls to zero over the last half."""
    head.to(device).train()
    optimizer = torch.optim.AdamW(head.parameters(), lr=learning_rate, betas=(0.9, 0.99))
    generator = torch.Generator(device).manual_seed(0)
    for step in range(num_steps):
        optimizer.param_groups[0]["lr"] = learning_rate * min(1, (step + 1) / 50, 2 * (1 - step / num_steps))
        index = torch.randint(len(features), (batch_size,), device=device, generator=generator)
        loss = head.loss(features[index], actions[index], generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return head.eval()


# %% [markdown]
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


same_as_package("regression", Regression)

# %% [markdown]
# **Guess first.** It is now trained on scenes with two right answers, each demonstrated half of the time. Where
# will its arrows point: (a) to one of the blocks, by chance (b) always to the nearer one (c) between the two (d)
# anywhere?

# %% tags=["slow", "nbval-ignore-output"]
regression = train(make_head(config_of("regression")), eyes(two), labels_of(two), num_steps=500)
answers = ask(regression, seen)
near, first = judge(answers)
print(f"regression: near one {near:.1%}")
assert near < 0.25, "squared error should not choose"

# %% tags=["slow"] mystnb={"image": {"alt": "The four scenes again. All answers of the regression head lie on one spot between the two right arrows, and nearer to the middle of the image than their tips."}}
show_scenes(wide, answers)
plt.show()
off = (answers[0] - both.mean(dim=1)).norm(dim=1).median().item()
is_between = off < 0.15
print("the answers lie on the mean of the two right ones:", is_between)
assert is_between, off

# %% [markdown]
# (c), and exactly so. Let $a$ be random, with the feature fixed. For any answer $\hat a$,
#
# $$\mathbb E\,\lVert \hat a - a\rVert^2 = \lVert \hat a - \mathbb E[a]\rVert^2 + \mathbb E\,\lVert a - \mathbb E[a]\rVert^2 .$$
#
# The second term does not depend on $\hat a$, so the best answer is the mean, $\mathbb E[a]$. With two arrows on the
# unit circle the mean lies between them, and it is too short: the wider apart they are, the shorter, down to nothing
# when they are opposite.
#
# Nothing in the loss tells you. It goes down, and then stays at that second term, which looks like a model that is
# too small. **When a loss stops far above zero and a larger network does not help, look for several answers to one
# question in your data.** Demonstrators who disagree, who pass an obstacle on either side, who pause at different
# moments: all of that is this.
#
# What about another distance? The absolute error (L1) is minimised by a median. With two answers, half of the mass
# each, *every* number between the two is a median. L1 does not choose either; it only stops caring. In the real
# policy, with a backbone that sees images and reads words:

# %%
report = load_results("heads")
measured = report["heads"]
machine = report["machine"]["device"]
print(f"{report['preset']}, {report['scenes']:,} scenes, {report['seeds']} seeds, {machine}; median (min to max)")


def spread(row, digits=1):
    """Median, smallest and largest of the seeds, in percent."""
    return f"{row['median']:.{digits}%} ({row['min']:.{digits}%} to {row['max']:.{digits}%})"


for name in ("regression", "l1"):
    print(f"{name:10} two answers: near one {spread(measured[name]['two answers']['near_one'])}")
    assert measured[name]["two answers"]["near_one"]["max"] < 0.5

# %% [markdown]
# ## 3. Directions: name it
#
# If averaging numbers is the trouble, do not answer with numbers. Answer with a **name**: right, up, left, down, or
# one of eight. The loss is the cross-entropy, the head says a probability for each name, and two likely names stay
# two. Names cannot be averaged.


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


same_as_package("directions", Directions, num_directions=4)
same_as_package("directions", Directions, num_directions=8)

# %% [markdown]
# (The package adds one thing: between two directions that are equally near, rounding must not decide, or labels would
# differ between machines.)
#
# The price is precision. With eight names the answer can be off by 22.5 degrees, with four by 45, and direction
# accuracy counts a miss from about 37 degrees on. How good can the best possible answer be?

# %%
still = BlockFind(1_000, seed=44)
right = torch.from_numpy(still.actions)
for number in (4, 8):
    head = Directions(config_of("directions", num_directions=number))
    nearest = head.directions[(right @ head.directions.T).argmax(dim=1)]
    cosine = (nearest * right).sum(dim=1)
    print(f"{number} directions, always the nearest: direction accuracy {(cosine > 0.8).double().mean():.0%}, "
          f"within 10 degrees {(cosine > math.cos(math.radians(10))).double().mean():.0%}")  # fmt: skip
for number in (4, 8):
    row = measured[f"directions-{number}"]["one answer"]
    print(f"{number} directions in the real policy: right name {spread(row['class_accuracy'])}")
    assert row["class_accuracy"]["min"] >= 0.98

# %% [markdown]
# So judge such a head by its names. And count: a name for each combination does not scale. Eight directions in a
# plane are fine; eight values for each of an arm's seven numbers would be $8^7$, two million names.
#
# ## 4. Bins: name each number in turn
#
# The way out is old: write a number's digits one at a time. Cut the range of each dimension into 256 **bins**, and
# name one bin for each dimension. RT-2 and OpenVLA do this, with the tokens of their language model as names.
#
# The heads from here on need more than two layers, because they must work out which of several answers a half-said
# one belongs to. They share a trunk: MLPs on a residual stream, a transformer block without attention.


# %%
class Trunk(nn.Module):
    """Two MLPs on a residual stream, each behind a LayerNorm."""

    def __init__(self, width):
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
            for _ in range(2)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, x):
        for block in self.blocks:
            x = x + block(x)
        return self.norm(x)


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


same_as_package("bins", Bins)

# %% [markdown]
# Two things to see in `predict`. The answer is **drawn**, not the likeliest one: so the same scene can get
# different answers, and both blocks are visited. And the second number is drawn *after* the first, which is part of
# its input. Is that needed? In the next cell the head answers as trained; and then we take $x$ from one of its
# answers and $y$ from another answer to the same scene, which is what a head would draw that names both at once.
# (We look at scenes in which a mixture does not happen to lie in the direction of a block.)
#
# **Guess first:** how many of these mixed answers are near one of the blocks?

# %% tags=["slow", "nbval-ignore-output"]
bins = train(make_head(config_of("bins")), eyes(two), labels_of(two), num_steps=800, learning_rate=3e-3)
in_turn = ask(bins, seen)
at_once = torch.stack([in_turn[..., 0], in_turn.roll(1, dims=0)[..., 1]], dim=-1)
# The x of one block with the y of the other: (2, n, 2)
ghosts = torch.stack([torch.stack([both[:, i, 0], both[:, 1 - i, 1]], dim=1) for i in (0, 1)])
elsewhere = ~near_each(ghosts).any(dim=-1).any(dim=0)
shares = [near_each(answers)[:, elsewhere].any(dim=-1).double().mean().item() for answers in (in_turn, at_once)]
print(f"bins named in turn: near one {shares[0]:.1%}, first chosen {judge(in_turn)[1]:.1%} ({elsewhere.sum()} scenes)")
print(f"bins named at once: near one {shares[1]:.1%}")
assert shares[0] > 0.85, "bins should choose"
assert 0.3 < judge(in_turn)[1] < 0.7
assert 0.35 < shares[1] < 0.65, "numbers that do not know each other should be wrong about half of the time"

# %% tags=["slow"] mystnb={"image": {"alt": "The same four scenes, answers drawn at once. Besides the two right tips there are two more clusters, made of the x of one answer and the y of the other."}}
show_scenes(wide, at_once)
plt.show()

# %% [markdown]
# About half. The other half are **ghosts**: the $x$ of one block with the $y$ of the other. Each number alone is
# right, and the pair is wrong. It is the binding problem of [Chapter 4](04_fusion.ipynb) again, now at the output.
# So bins must be named in turn, each knowing the ones before, and that is why a VLA that names bins needs as many
# passes as an action has numbers.
#
# The tips also show the grid: 256 bins between -1 and 1 are 0.008 wide. That is enough here, and it is the part
# that you decide once and cannot train away.

# %% [markdown]
# ## 5. Flow matching: move noise onto an answer
#
# Bins name a number after the other. Flow matching, the head of pi0 and SmolVLA, decides everything at once, and
# without a grid. Start from a random point $\varepsilon$, normal noise. Learn at each point *in which direction to
# move*, so that the crowd of random points becomes the crowd of demonstrated actions.
#
# How to learn a direction for each point? Pair each action $a$ with a random $\varepsilon$, and draw a straight line
# from one to the other. At time $t$ the point on it is
#
# $$x_t = (1 - t)\,\varepsilon + t\,a, \qquad\text{and it moves with velocity}\qquad \frac{dx_t}{dt} = a - \varepsilon .$$
#
# The network sees the feature, the point and the time, and is trained **with the squared error** to say the
# velocity. Wait: squared error means the mean! Yes, and here the mean is what we want. Where lines to both blocks
# pass through the same point, the network says the mean of their velocities. Following *that* field carries noise
# to exactly the distribution of the data ([Lipman et al.](https://arxiv.org/abs/2210.02747), theorems 1 and 2). The
# averaging happens on the way, while the answer is still open, and not at the end.
#
# To act: draw noise, and take a few steps along the field. (Papers count time from noise to action, as we do;
# openpi and LeRobot's SmolVLA count it the other way round.)


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
        level = sincos_positions(1000 * time, self.time_in.in_features, max_period=10_000.0)  # as for a patch's place
        return self.output(self.trunk(self.features_in(features) + self.action_in(point) + self.time_in(level)))

    def draw_noise_and_times(self, features, actions, generator):
        features, actions = (x.repeat_interleave(self.num_draws, dim=0) for x in (features, actions))
        count = len(actions)
        offset = torch.rand(count, device=actions.device, generator=generator)
        order = torch.randperm(count, device=actions.device, generator=generator)
        noise = torch.randn(actions.shape, device=actions.device, generator=generator)
        return features, actions, noise, (order + offset) / count  # the times are spread evenly over the batch


class Flow(Denoiser):
    """Learn the velocity from noise to action, then follow it."""

    def loss(self, features, actions, generator=None):
        features, actions, noise, time = self.draw_noise_and_times(features, actions, generator)
        point = (1 - time)[:, None] * noise + time[:, None] * actions
        return F.mse_loss(self.network(features, point, time), actions - noise)

    def predict(self, features, generator=None):
        x = torch.randn(len(features), self.dim, device=features.device, generator=generator)
        for step in range(self.num_steps):
            time = torch.full((len(x),), step / self.num_steps, device=x.device)
            x = x + self.network(features, x, time) / self.num_steps  # an Euler step
        return x


same_as_package("flow", Flow)

# %% tags=["slow", "nbval-ignore-output"]
flow = train(make_head(config_of("flow")), eyes(two), labels_of(two), num_steps=1_200, learning_rate=5e-3)
answers = ask(flow, seen)
near, first = judge(answers)
print(f"flow matching: near one {near:.1%}, first chosen {first:.1%}")
assert near > 0.85, "flow matching should choose"
assert 0.3 < first < 0.7

# %% [markdown]
# Here is the field at work in one scene. Follow the points from left to right: until about the middle of the time the
# crowd only shifts and shrinks. Then it parts. The arrows show what the network says at each place.


# %% tags=["slow"] mystnb={"image": {"alt": "Five moments of flow matching in one scene, from a round cloud of noise to two tight clusters on the right answers. Small arrows show the velocity; late in time they point to the nearer of the two."}}
@torch.no_grad()
def flow_moments(head, feature, moments, num_points=300, num_steps=50):
    """Where a crowd of noise is at some moments."""
    x = torch.randn(num_points, 2, generator=torch.Generator().manual_seed(0)).to(device)
    places = {}
    for step in range(num_steps + 1):
        if (time := step / num_steps) in moments:
            places[time] = x.cpu()
        x = x + head.network(feature.expand(len(x), -1), x, torch.full((len(x),), time, device=device)) / num_steps
    return places


def show_field(head, index, moments=(0.0, 0.4, 0.7, 0.9, 1.0)):
    """The crowd and the velocities at some moments, in one scene."""
    fig, axes = plt.subplots(1, len(moments), figsize=(9, 2.3), layout="constrained")
    grid = torch.cartesian_prod(torch.linspace(-1.6, 1.6, 9), torch.linspace(-1.6, 1.6, 9)).to(device)
    crowd = flow_moments(head, seen[index], moments)
    for ax, time in zip(axes, moments, strict=True):
        with torch.no_grad():
            field = head.network(seen[index].expand(len(grid), -1), grid, torch.full((len(grid),), time, device=device))
        if time < 1:
            field = field / field.norm(dim=1, keepdim=True).clamp(min=0.5)
            ax.quiver(*grid.T.cpu(), *field.T.cpu(), color="#999999", angles="xy", scale=11, width=0.006)
        ax.plot(*crowd[time].T, "o", ms=2.2, color=PART_COLORS["action"], alpha=0.5, mec="none")
        ax.plot(*both[index].T.cpu(), "o", ms=11, mfc="none", mec="#222222", mew=1.3)
        ax.set(xlim=(-1.9, 1.9), ylim=(1.9, -1.9), aspect="equal", xticks=[], yticks=[], title=f"t = {time:g}")
    return fig, axes


show_field(flow, wide[0])
plt.show()

# %% [markdown]
# ### How many steps?
#
# Each step is one pass of the head's network. pi0 takes 10. What if a robot is in a hurry and takes **one**?
#
# **Guess first:** one long step from noise, along the velocity at $t=0$. Where does it end: (a) near one of the
# blocks, a little off (b) between them (c) anywhere?

# %% tags=["slow", "nbval-ignore-output"]
by_steps = {}
for steps in (1, 2, 5, 10, 20):
    flow.config = replace(flow.config, num_steps=steps)
    by_steps[steps] = ask(flow, seen)
    print(f"{steps:2} steps: near one {judge(by_steps[steps])[0]:.1%}")
flow.config = replace(flow.config, num_steps=10)
assert judge(by_steps[1])[0] < 0.3 < 0.8 < judge(by_steps[10])[0]

# %% tags=["slow"]
off = (by_steps[1] - both.mean(dim=1)).norm(dim=-1).median().item()
is_mean = off < 0.25
print("one step ends at the mean of the two answers:", is_mean)
assert is_mean, off

# %% [markdown]
# (b). At $t = 0$ the point is pure noise and says nothing about the action. The best guess of the velocity $a -
# \varepsilon$ is then $\mathbb E[a] - \varepsilon$, and one full step from $\varepsilon$ lands on $\mathbb E[a]$.
# **One step of flow matching is regression.** What makes it better is to look again on the way, when the point has
# begun to lean to one side. The wider apart the answers, the earlier it is settled, and the fewer steps it takes.
#
# ## 6. Diffusion: remove the noise
#
# Diffusion came first (Diffusion Policy, Octo), and is a close relative. The network, the loss and the idea are the
# same; the path and the walk differ.
#
# - **Path**: $x = \cos(\tfrac{\pi}{2} t)\,a + \sin(\tfrac{\pi}{2} t)\,\varepsilon$. Time runs the other way, from 0,
#   clean, to 1, noise, and the path is an arc that keeps the variance at one.
# - **Target**: the velocity along that arc, $\cos(\tfrac{\pi}{2} t)\,\varepsilon - \sin(\tfrac{\pi}{2} t)\,a$. From
#   it and $x$, action and noise both follow, which is what the walk needs.
# - **Walk**: at each step, estimate the clean action; then put back a little less noise, some of it *fresh*. The
#   path of a point is random, too, where in flow matching only its start is.


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


same_as_package("diffusion", Diffusion)

# %% tags=["slow", "nbval-ignore-output"]
diffusion = train(
    make_head(config_of("diffusion", num_steps=20)), eyes(two), labels_of(two), num_steps=1_200, learning_rate=5e-3
)
near, first = judge(ask(diffusion, seen))
print(f"diffusion: near one {near:.1%}, first chosen {first:.1%}")
assert near > 0.85, "diffusion should choose"
assert 0.3 < first < 0.7

# %% [markdown]
# Steps against quality, in the real policy:

# %% mystnb={"image": {"alt": "Share of answers near one of the two blocks against sampling steps, 1 to 50, for flow matching and diffusion. Both start low at one step and rise steeply up to ten steps, then level off."}}
fig, ax = plt.subplots(figsize=(8, 3.2), layout="constrained")
for name, part in (("flow", "action"), ("diffusion", "vision")):
    rows = {int(k): v for k, v in measured[name]["two answers"]["by_sampling_steps"].items()}
    ax.plot(list(rows), [100 * r["median"] for r in rows.values()], "-o", ms=4, color=PART_COLORS[part], label=name)
    low, high = ([100 * r[end] for r in rows.values()] for end in ("min", "max"))
    ax.fill_between(list(rows), low, high, color=PART_COLORS[part], alpha=0.2, lw=0)
ax.set(xscale="log", xlabel="sampling steps", ylabel="near one of the two (%)", ylim=(0, 102))
ax.set_xticks(list(rows), [str(k) for k in rows])
ax.minorticks_off()
ax.axhline(95, color="grey", lw=0.8, ls="--")
ax.text(1, 94, "95 %", va="top", color="#555555", fontsize=9)
ax.legend(frameon=False, loc="lower right")
plt.show()
for name in ("flow", "diffusion"):
    rows = measured[name]["two answers"]["by_sampling_steps"]
    few = min(int(k) for k in rows if rows[k]["median"] >= 0.95)
    print(f"{name}: 1 step {rows['1']['median']:.0%}, 10 steps {rows['10']['median']:.1%}, 50 steps "
          f"{rows['50']['median']:.1%}; at least 95 % from {few} steps on")  # fmt: skip
    assert rows["1"]["median"] < 0.5 < 0.9 < rows["10"]["median"] <= rows["50"]["median"] + 0.01

# %% [markdown]
# Both need several steps and neither needs hundreds: an action has few numbers and the paths are short.
#
# ## 7. Units: normalise, and do not lose the statistics
#
# So far all actions were unit vectors. A robot's are metres, radians, and a gripper that is 0 or 1. With such
# numbers side by side, a squared error sees the dimension with the largest numbers and no other; noise of variance
# one drowns the small ones; and bins between -1 and 1 name nothing.
#
# So heads work in **normalised** units, dimension by dimension, and the answer is turned back at the end. Two ways
# are usual: subtract the mean and divide by the standard deviation (SmolVLA, pi0), or map the 1 % and 99 %
# quantiles to -1 and 1 (OpenVLA), which one wild value cannot spoil.


# %%
class MyNormalizer:
    """Maps actions to comparable units and back."""

    def __init__(self, kind):
        self.kind = kind

    def fit(self, actions):
        flat = actions.reshape(-1, actions.shape[-1]).double()
        if self.kind == "mean-std":
            self.offset, scale = flat.mean(dim=0), flat.std(dim=0, correction=0)
        else:
            low, high = torch.stack([torch.stack([c.quantile(q) for c in flat.T]) for q in (0.01, 0.99)])
            self.offset, scale = (low + high) / 2, (high - low) / 2
        self.scale = torch.where(scale < 1e-6, 1.0, scale)  # a joint that never moved: shift it, do not stretch it

    def forward(self, actions):
        return ((actions.double() - self.offset) / self.scale).to(actions.dtype)

    def inverse(self, normalised):
        return (normalised.double() * self.scale + self.offset).to(normalised.dtype)


rng = torch.Generator().manual_seed(0)
arm = torch.randn(2_000, 3, generator=rng) * torch.tensor([0.02, 3.0, 400.0]) + torch.tensor([0.5, 0.0, 90.0])
arm[0, 2] = 1e6  # one broken sensor reading
for kind in ("mean-std", "quantiles"):
    mine, theirs = MyNormalizer(kind), Normalizer(kind, 3)
    mine.fit(arm)
    theirs.fit(arm)
    torch.testing.assert_close(mine.forward(arm), theirs(arm[:, None])[:, 0])
    back = mine.inverse(mine.forward(arm.double())).float()
    used = (mine.forward(arm)[1:, 2].max() - mine.forward(arm)[1:, 2].min()).item()
    print(f"{kind:9} equals the package's; there and back is exact: {torch.equal(back, arm)};")
    print(f"{'':9} all but the broken value of the third dimension span {used:.1f}")

# %% [markdown]
# One broken value in two thousand, and with mean and standard deviation all the rest of that dimension lies within a
# tenth of a unit: the head would not see it any more. Quantiles do not notice the outlier. But they have a price of
# their own. What lies beyond them is outside of $[-1, 1]$: bins cannot name it, and it comes out clipped.
#
# A bug that users of VLAs often report is not a wrong formula. It is the **wrong statistics**: a checkpoint
# fine-tuned on one robot, un-normalised with the numbers of another. Nothing crashes; the arm moves to plausible,
# wrong places. In OpenVLA one names the right set with `unnorm_key`. Here the statistics lie in the checkpoint
# beside the weights, with a fingerprint in `config.json`, and are checked whenever a policy is loaded, trained or
# asked.

# %%
small = TinyVLA(ModelConfig(head=HeadConfig(action_dim=3, normalization="quantiles")))
image, words = one[0].image, one[0].instruction


def says(action):
    """The first part of the error that an action ends with, without fingerprints."""
    try:
        action()
    except InputError as error:
        return re.sub(r" \([0-9a-f]{12}\)", "", str(error)).split(";")[0]
    return "no objection"


print("before fit_statistics:", says(lambda: small.predict(image, words)))
small.fit_statistics(arm)
print("after fit_statistics: ", says(lambda: small.predict(image, words)))
small.head.normalizer.scale *= 2  # what loading another robot's statistics amounts to
print("foreign statistics:   ", says(lambda: small.predict(image, words)))
seven = torch.zeros(4, 7)
print("another robot's data: ", says(lambda: small.fit_statistics(seven)))

# %% [markdown]
# ## 8. Chunks: several right ways
#
# A robot rarely predicts one action. It predicts a **chunk**, the next 16 or 50 of them, and executes some before
# it looks again ([Chapter 8](08_closed_loop.ipynb) asks how many). With chunks, several right answers are no
# exception any more: they are the rule. `trajectories` makes such demonstrations: from the image's centre to the
# block in 16 steps, along an arc to the left or to the right, with a pause of 4 steps at any moment. For one scene
# that gives 22 right chunks.

# %% mystnb={"image": {"alt": "Left: a scene with the ways to its block, an arc to each side, and the straight dashed mean between them. Right: speed over the 16 steps: each demonstration stands still for four steps at some moment, the mean never does."}}
HORIZON = 16
ways = valid_trajectories(still, HORIZON)  # (scenes, ways, steps, 2), in pixels
index = int(np.abs(np.linalg.norm(ways[:40, 0].sum(axis=1), axis=1) - 33).argmin())  # a block that is far enough away
mean_way = ways[index].mean(axis=0)
fig, axes = plt.subplots(1, 2, figsize=(9, 3.1), layout="constrained", width_ratios=(1, 2))


def show_ways(ax, chunks, **style):
    """Paths from the image's centre."""
    for chunk in chunks:
        path = 31.5 + np.concatenate([np.zeros((1, 2)), chunk.cumsum(axis=0)])
        ax.plot(*path.T, **style)


axes[0].imshow(still.images[index].transpose(1, 2, 0), interpolation="nearest", alpha=0.45)
show_ways(axes[0], ways[index], color="#555555", lw=1)
show_ways(axes[0], [mean_way], color=PART_COLORS["action"], lw=2, ls="--")
axes[0].set(xticks=[], yticks=[], title=still.instructions[index])
for way, style in zip(ways[index, 4::6], ("-", ":", "-."), strict=True):
    axes[1].plot(np.linalg.norm(way, axis=1), style, color="#555555", lw=1.2)
axes[1].plot(np.linalg.norm(mean_way, axis=1), color=PART_COLORS["action"], lw=2, ls="--", label="mean of all")
axes[1].set(xlabel="step", ylabel="pixels in this step", title="speed of three right ways, and of the mean of all")
axes[1].set_ylim(-0.2, 5.6)
axes[1].legend(frameon=False, loc="upper right")
plt.show()
print(f"{ways.shape[1]} right ways for a scene, {HORIZON} steps each; all end at the block: "
      f"{bool(np.allclose(ways.sum(axis=2), ways[:, :1].sum(axis=2), atol=1e-3))}")  # fmt: skip

# %% [markdown]
# The mean of them is a straight line without a pause, a way that nobody showed. It ends at the block. So if you
# only measure the end point, regression looks perfect. We also measure the distance to the *nearest* right way, at
# each step, on average; less than 1.5 pixels counts as near.
#
# A chunk is a longer action, so nothing new is needed: the heads flatten it. We train regression and flow matching on
# chunks, normalised by mean and standard deviation.

# %% tags=["slow", "nbval-ignore-output"]
chunks = torch.from_numpy(trajectories(one, HORIZON, seed=0)).to(device)
drawn = {}
for kind, num_steps in (("regression", 500), ("flow", 2_000)):
    head = make_head(config_of(kind, horizon=HORIZON, normalization="mean-std")).to(device)
    head.fit(chunks)
    train(head, eyes(one), chunks, num_steps, learning_rate=3e-3)
    drawn[kind] = ask(head, eyes(still), num_draws=12).cpu().numpy()  # (draws, scenes, steps, 2)


def judge_chunks(chunk):
    """Median error of the end in pixels, and the share near one of the right ways; chunk is (scenes, steps, 2)."""
    ends = np.linalg.norm(chunk.sum(axis=1) - ways[:, 0].sum(axis=1), axis=1)
    off = np.linalg.norm(chunk.cumsum(axis=1)[:, None] - ways.cumsum(axis=2), axis=-1).mean(axis=2).min(axis=1)
    return np.median(ends), (off < 1.5).mean()


for kind, chunk in drawn.items():
    end, near = judge_chunks(chunk[0])
    print(f"{kind:10} ends {end:.1f} px from the block, near a right way {near:.0%}")
assert max(judge_chunks(chunk[0])[0] for chunk in drawn.values()) < 4, "both should end near the block"
assert judge_chunks(drawn["flow"][0])[1] > 0.5 > 0.25 > judge_chunks(drawn["regression"][0])[1]

# %% tags=["slow"] mystnb={"image": {"alt": "Two panels with the same scene. Regression: one straight path. Flow matching: twelve paths, some along the left arc, some along the right one, all ending at the block."}}
fig, axes = plt.subplots(1, 2, figsize=(6.4, 3.1), layout="constrained")
for ax, kind in zip(axes, drawn, strict=True):
    ax.imshow(still.images[index].transpose(1, 2, 0), interpolation="nearest", alpha=0.45)
    show_ways(ax, ways[index, :2], color="#555555", lw=4, alpha=0.25)
    show_ways(ax, drawn[kind][:, index], color=PART_COLORS["action"], lw=1.2, marker="o", ms=2, alpha=0.7)
    ax.set(xticks=[], yticks=[], title=f"{kind}, 12 answers")
plt.show()

# %% [markdown]
# ## 9. FAST: a chunk as a few tokens
#
# Bins on a chunk of 16 steps in the plane are 32 names, one pass each; on a real arm with 50 steps of 7 numbers, 350.
# And neighbours in time are nearly the same number, so most of these names say nothing new. **FAST**
# ([pi0-FAST](https://arxiv.org/abs/2501.09747)) compresses the chunk first, with two old tools.
#
# **First, a cosine transform**, as in JPEG. Each dimension's 16 numbers over time become 16 frequencies. Motion is
# smooth, so most of it is in the lowest ones. Multiply by a scale and round to whole numbers: what is left in the
# high ones becomes -1, 0 or 1. Our chunks are a hard case, because a sudden pause is not smooth.

# %%
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
small = (np.abs(numbers) <= 1).mean()
worst = np.linalg.norm((back - demonstrated).cumsum(axis=1), axis=2).max(axis=1)
print("equal to tinyvla.model.heads.fast_tokenizer.cosine_transform")
print(f"the lowest 4 of {HORIZON} frequencies hold {lowest:.0%} of the motion;")
print(f"{small:.0%} of the rounded numbers are -1, 0 or 1")
print(f"drawn from the rounded numbers, a way is off by {np.median(worst):.1f} px at its worst step (median)")

# %% mystnb={"image": {"alt": "Three panels. The steps of one chunk in x and y. Its rounded frequencies: large at the left, small or zero at the right. The way drawn from them again lies on the original."}}
chosen = next(i for i in range(500) if np.linalg.norm(demonstrated[i].sum(axis=0)) > 30)
fig, axes = plt.subplots(1, 3, figsize=(9, 2.8), layout="constrained")
for axis, (part, name) in enumerate((("vision", "x"), ("language", "y"))):
    axes[0].plot(demonstrated[chosen, :, axis], "-o", ms=3, color=PART_COLORS[part], label=name)
    axes[1].bar(
        np.arange(HORIZON) + 0.4 * axis, numbers[chosen, :, axis], width=0.4, color=PART_COLORS[part], label=name
    )
axes[0].set(xlabel="step", title="pixels in each step")
axes[1].set(xlabel="frequency (half waves in a chunk)", title="rounded frequencies")
axes[0].legend(frameon=False)
axes[2].plot(*demonstrated[chosen].cumsum(axis=0).T, "-", color="#999999", lw=4, label="demonstrated")
axes[2].plot(*back[chosen].cumsum(axis=0).T, "-o", ms=3, color=PART_COLORS["action"], label="from tokens")
axes[2].set(aspect="equal", adjustable="datalim", title="the way", xlabel="x (pixels)", ylabel="y (pixels)")
axes[2].invert_yaxis()  # as in an image
axes[2].legend(frameon=False, fontsize=9)
plt.show()

# %% [markdown]
# **Second, byte-pair encoding**, the same that makes words of letters in language models. Write the numbers in a
# row, lowest frequencies first. Find the pair of neighbours that occurs most often in all rows, and give it a token
# of its own. Do it again, a few hundred times. Runs of zeros become single tokens. Three rounds by hand:


# %%
def merge(rows):
    """Give the most frequent pair of neighbours a token of its own; returns the pair and the shorter rows."""
    pair = Counter(p for row in rows for p in pairwise(row)).most_common(1)[0][0]
    merged = []
    for row in rows:
        out = []
        for token in row:
            if out and (out[-1], token) == pair:
                out[-1] = pair  # the new token: the pair itself
            else:
                out.append(token)
        merged.append(out)
    return pair, merged


rows = [row.tolist() for row in numbers[:2_000].reshape(2_000, -1)]
print(f"numbers in a chunk: {len(rows[0])}")
for round_number in range(3):
    pair, rows = merge(rows)
    print(
        f"round {round_number + 1}: the most frequent pair is {pair}, {np.mean([len(r) for r in rows]):.0f} tokens left"
    )

# %% [markdown]
# The package leaves the counting to Hugging Face's `tokenizers` and starts from the same numbers. How many tokens
# does a chunk take in the end, and what if the motion were not smooth? We shuffle all numbers in time to find out.

# %%
tokenizer = FastTokenizer(HORIZON, 2, scale=SCALE)
assert (tokenizer.frequencies(scaled) == numbers.reshape(len(numbers), -1)).all()
print("the same numbers as tinyvla.model.heads.fast_tokenizer.FastTokenizer")
tokenizer.fit(scaled, vocab_size=512)
decoded = tokenizer.decode(tokenizer.encode(scaled[:200])) * span
np.testing.assert_allclose(decoded, back[:200], atol=1e-9)
jagged = np.random.RandomState(0).permutation(scaled.flat).reshape(scaled.shape)
lengths = {n: np.mean([len(ids) for ids in tokenizer.encode(x[:2_000])]) for n, x in (("smooth", scaled), ("jagged", jagged))}  # fmt: skip
print(f"there and back: only the rounding is lost. Numbers in a chunk: {2 * HORIZON}")
print("tokens for a smooth chunk are fewer than two thirds of its numbers:", lengths["smooth"] < 2 * HORIZON * 2 / 3)
print("a jagged one takes more than a smooth one:", lengths["jagged"] > 1.2 * lengths["smooth"])

# %% [markdown]
# `FastHead` then names these tokens one after the other with a small causal transformer, until it names the end
# mark. It is the bins head with another vocabulary: cross-entropy in training, drawing when it acts. Since chunks
# differ in length, it is the only head whose work depends on the data. [Chapter 9](09_speed.ipynb) records a training
# step and plays it back, which needs the same shapes each time; with FAST that is not possible.
#
# The price of FAST is that the tokenizer is learned, too. It belongs into the checkpoint and has a fingerprint, as
# the statistics have.
#
# ## 10. All heads, one table
#
# The same backbone, three kinds of data, several seeds each.

# %%
print(f"{report['preset']} backbone, {report['scenes']:,} scenes, {report['seeds']} seeds, on {machine}: median\n")
print(f"{'':14}{'one answer':>22}{'two answers':>23}{'time of an answer, ms':>25}")
print(f"{'':14}{'direction':>11}{'within 10':>11}{'near one':>12}{'first':>11}{'1 scene':>14}{'256 scenes':>11}")
for name, row in measured.items():
    if "one answer" not in row:
        continue
    single, double = row["one answer"], row["two answers"]
    cells = (single["direction_accuracy"], single["within_10_degrees"], double["near_one"], double["first_chosen"])
    shares = [f"{cell['median']:.1%}" for cell in cells]
    times = [f"{single['milliseconds'][n]:.1f}" for n in ("1", "256")]
    print(f"{name:14}{shares[0]:>11}{shares[1]:>11}{shares[2]:>12}{shares[3]:>11}{times[0]:>14}{times[1]:>11}")

print(f"\n{'':14}{'':>9}{'near a right way':^26}{'':>6}{'still':>8}{'1 scene,':>11}")
print(f"{'trajectories':14}{'end, px':>9}{'worst':>10}{'median':>8}{'best':>8}{'left':>6}{'steps':>8}{'ms':>11}")
for name, row in measured.items():
    if "trajectories" not in row:
        continue
    row = row["trajectories"]
    end, left, stopped = (row[k]["median"] for k in ("end_error", "left_chosen", "still_steps"))
    worst, median, best = (row["near_a_way"][k] for k in ("min", "median", "max"))
    print(f"{name:14}{end:>9.2f}{worst:>10.1%}{median:>8.1%}{best:>8.1%}{left:>6.0%}{stopped:>8.1f}", end="")
    print(f"{row['milliseconds']['1']:>11.1f}")

# %%
for name in ("bins", "flow", "diffusion"):
    row = measured[name]["two answers"]
    assert row["near_one"]["min"] >= 0.95, name
    assert 0.3 <= row["first_chosen"]["min"] <= row["first_chosen"]["max"] <= 0.7, name
for name in set(measured) - {"fast", "directions-4"}:  # four directions are too coarse for this metric, see above
    assert measured[name]["one answer"]["direction_accuracy"]["min"] >= 0.95, name
print("one right answer: every head is right in every seed (four directions by their names)")
print("two: bins, flow and diffusion take one of them in 95 % or more, in every seed")
chunk_rows = {name: row["trajectories"] for name, row in measured.items() if "trajectories" in row}
for name in ("bins", "flow", "diffusion"):
    assert chunk_rows[name]["near_a_way"]["min"] > 2 * chunk_rows["regression"]["near_a_way"]["max"], name
print("trajectories: these three are near a way at least twice as often as regression")
fast = chunk_rows["fast"]["near_a_way"]
assert fast["max"] > 0.9 > 0.5 > fast["median"]  # the text below speaks of it
print(f"FAST: {fast['max']:.0%} of the chunks near a right way in its best seed, {fast['min']:.0%} in its worst")
longer = load_results("heads_longer")["heads"]["fast"]["trajectories"]
before, near = chunk_rows["fast"]["epochs"], longer["near_a_way"]
print(f"      trained for {longer['epochs']} epochs instead of {before}: {near['min']:.1%} to {near['max']:.1%}")
assert near["min"] > 0.95

# %% [markdown]
# How to read it:
#
# - **One right answer: take regression.** It is as good as the others, none is clearly faster, and its answer is
#   the same each time. OpenVLA-OFT replaced OpenVLA's bins with L1 regression on chunks ([arXiv
#   2502.19645](https://arxiv.org/abs/2502.19645)).
# - **"within 10 degrees" of the directions heads** is low for a reason that no training changes: they can only name a
#   few. The near-one column shows the same.
# - **Several right answers: take a head that draws.** Which one is a matter of cost. Bins cost a pass for each
#   number. Flow and diffusion cost a pass for each sampling step, however long the chunk. FAST costs a pass for
#   each token, and each of them a transformer over all tokens so far.
# - **Read the times as orders of magnitude.** Passes this small are ruled by how fast Python asks for them, and
#   that varied between the measurements: 20 passes of diffusion took about as long as 10 of flow matching, and on
#   chunks even less. FAST's 254 ms are not explained: in the longer run below, on another GPU, the same head took 21.
# - **On trajectories** regression and L1 are near a way in 6.6 %: the blocks right beside the centre, where the
#   straight line and the arcs are less than 1.5 pixels apart.
# - **FAST needs longer.** All heads of the table got the same epochs, and with them only one of its three seeds has
#   learned. FAST names tokens in rows of different lengths, and one wrong token shifts all that follow. Its chunks
#   pause nearly as they should even where they end far from the block: it looks as if it learns first how one moves
#   and then where to. With twice the epochs all three seeds have learned it. Only FAST was given more, so this does
#   not put it above the others; it says that its low row is not the best that the head can do. That it needs more
#   epochs than the others here is a property of the head.
# - In `still steps`, the demonstrations have 4. Regression has none: the mean of pauses at different moments is not a
#   pause. A robot that should wait for a gripper to close, and never quite does, may have this in its data. Bins can
#   name a zero and get all 4. Flow matching and diffusion pause, too, but what is left of the noise moves them a
#   little, and still means here: less than a tenth of the chunk's mean step.
# - **A drawn answer differs each time.** If you evaluate with one draw, the draw adds to the spread; if you need
#   the same answer twice, pass a generator.
#
# | system | head | from |
# |---|---|---|
# | OpenVLA | 256 bins for each dimension, named with tokens of the language model | `action_tokenizer.py` |
# | pi0 | flow matching, 10 steps, chunks of 50 | openpi, `pi0.py` |
# | pi0-FAST | FAST tokens | openpi, `pi0_fast.py` |
# | SmolVLA | flow matching, 10 steps, chunks of 50 | LeRobot, `modeling_smolvla.py` |
# | Octo | diffusion, 20 steps, chunks of 4 | octo, `action_heads.py` |
#
# To train the policy with another head: `tinyvla train --head flow`.
#
# ## Exercise 1: a better step (15 minutes)
#
# An Euler step goes all the way in the direction that held at its *start*. Heun's method asks twice: take the Euler
# step, ask for the velocity at its end, go back, and go with the mean of both velocities. That is two passes a
# step. Write `heun(velocity, x, num_steps)`: from time 0 to time 1 in equal steps; `velocity(x, time)` takes the
# points and a float.
#
# The check uses a field whose answer is known: if the actions are normal with mean 2 and deviation 0.3, the exact
# flow carries $\varepsilon$ to $2 + 0.3\,\varepsilon$.
#
# <details><summary>Hint</summary>
#
# With `step = 1 / num_steps` and time `t = i * step`: `first = velocity(x, t)`, then `second = velocity(x + step *
# first, t + step)`, and `x` moves by `step` times the mean of the two.
#
# </details>


# %%
def normal_velocity(x, time, mean=2.0, deviation=0.3):
    """The exact field of flow matching for normal actions."""
    variance = (1 - time) ** 2 + time**2 * deviation**2
    return mean + (time * deviation**2 - (1 - time)) / variance * (x - time * mean)


def euler(velocity, x, num_steps):
    """What the flow head does."""
    for i in range(num_steps):
        x = x + velocity(x, i / num_steps) / num_steps
    return x


start = torch.linspace(-2, 2, 101, dtype=torch.float64)
for number in (5, 10, 20):
    error = (euler(normal_velocity, start, number) - (2 + 0.3 * start)).abs().max()
    print(f"Euler, {number:2} steps: off by at most {error:.3f}")


# %% tags=["exercise"]
def heun(velocity, x, num_steps):
    """From noise at time 0 to an action at time 1."""
    # your code here


# %% tags=["check"]
with checking("Exercise 1"):
    answer = heun(normal_velocity, start, 10)
    assert answer is not None, "write the body of heun first"
    calls = []
    heun(lambda x, time: calls.append(float(time)) or torch.zeros_like(x), start, 4)
    assert len(calls) == 8, f"4 steps should ask 8 times, yours asked {len(calls)} times"
    assert min(calls) == 0, "the first question is at time 0"
    assert abs(max(calls) - 1) < 1e-9, f"the last question is at time 1, yours at {max(calls):.2f}"
    errors = [(heun(normal_velocity, start, n) - (2 + 0.3 * start)).abs().max().item() for n in (10, 20)]
    straight = (euler(normal_velocity, start, 20) - (2 + 0.3 * start)).abs().max().item()
    assert errors[0] < straight / 2, (
        f"10 Heun steps ask as often as 20 Euler steps and should err less than half as much; {errors[0]:.3f} is too much"
    )
    assert errors[1] < errors[0] / 2.5, "with twice the steps the error should fall to about a quarter"

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def heun(velocity, x, num_steps):
#     step = 1 / num_steps
#     for i in range(num_steps):
#         first = velocity(x, i * step)
#         second = velocity(x + step * first, (i + 1) * step)
#         x = x + step * (first + second) / 2
#     return x
# ```
#
# Twice the steps, a quarter of the error: a method of second order. At the same number of passes it beats Euler
# here. On a *learned* field it helps until the network's own error is the larger one, which for ten steps it soon
# is.
#
# </details>

# %% [markdown]
# ## Exercise 2: leave the gripper alone (15 minutes)
#
# A gripper's command is 0 or 1. Mapping its quantiles to -1 and 1 is harmless until a data set holds almost only
# closed grippers; then both quantiles are 1. OpenVLA keeps a `mask` beside its statistics that says which
# dimensions are normalised at all. Write `masked_statistics(actions, mask)`: actions are `(n, dims)`, `mask` is a
# list of booleans. Return `(offset, scale)`, one number for each dimension, from the 1 % and 99 % quantiles, so
# that `(actions - offset) / scale` is normalised where the mask is true and **unchanged** where it is false. A
# masked-in dimension that does not move (its quantiles are less than `1e-6` apart) is shifted and not stretched.
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
    robot = torch.randn(5_000, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    robot = robot * torch.tensor([0.02, 3.0, 0.0, 1.0]) + torch.tensor([0.5, 0.0, 7.0, 0.0])
    robot[:, 3] = (robot[:, 3] > 2.5).double()  # the gripper: nearly always 0
    answer = masked_statistics(robot, [True, True, True, False])
    assert answer is not None, "write the body of masked_statistics first"
    offset, scale = answer
    assert offset.shape == scale.shape == (4,), (
        f"one offset and one scale for each dimension, not {tuple(offset.shape)}"
    )
    assert (scale > 0).all(), "a scale of zero would divide by zero: what about the joint that does not move?"
    normalised = (robot - offset) / scale
    assert torch.equal(normalised[:, 3], robot[:, 3]), "the gripper must come out unchanged"
    inside = (normalised[:, :2].abs() <= 1).double().mean()
    assert abs(inside - 0.98) < 0.01, f"98 % of a normalised dimension lie in [-1, 1], here {inside:.0%} do"
    assert (normalised[:, 2] == 0).all(), "a dimension that does not move becomes 0"
    assert torch.allclose(normalised * scale + offset, robot), "there and back must be exact"

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

# %% [markdown]
# ## Exercise 3: a head of your own (45 minutes)
#
# There is an older way to say "one of several": a **mixture**. The head answers with 4 arrows, a weight for each,
# and one deviation; the loss is the negative log-likelihood of the demonstrated action,
#
# $$-\log \sum_{k=1}^{4} w_k\, \mathcal N(a;\ \mu_k, \sigma^2 I).$$
#
# To act, draw one of the four by its weight and answer with its arrow. The layers are given. Write `flat_loss` and
# `sample`. The class inherits from `tinyvla.model.heads.Head`, so shapes, chunks and normalisation already work.
#
# <details><summary>Hint</summary>
#
# Work with logarithms. For each `k`: `log w_k` from `log_softmax`, and `log N` is minus the squared distance over
# $2 \sigma^2$, minus `dim * (log_sigma + 0.5 * log(2 pi))`. `torch.logsumexp` over `k` adds the four. To draw, give
# the weights to `torch.multinomial`, and pick rows with `means[torch.arange(n), index]`.
#
# </details>


# %% tags=["exercise"]
class MixtureHead(Head):
    """Four answers, a weight for each, and one deviation."""

    num_answers = 4

    def __init__(self, config):
        super().__init__(config)
        width = config.head.hidden_dim
        self.hidden = nn.Sequential(
            nn.Linear(config.fusion.embed_dim, width), nn.GELU(), nn.Linear(width, width), nn.GELU()
        )
        self.output = nn.Linear(width, self.num_answers * (self.dim + 1))
        self.log_sigma = nn.Parameter(torch.zeros(()))

    def parts(self, features):
        """Means (n, 4, dim) and log-weights (n, 4)."""
        means, weights = (
            self.output(self.hidden(features)).unflatten(1, (self.num_answers, -1)).split([self.dim, 1], -1)
        )
        return means, weights[..., 0].log_softmax(dim=1)

    def flat_loss(self, features, actions, generator):
        """Mean of the negative log-likelihood; begin with `means, log_weights = self.parts(features)`."""
        # your code here

    def sample(self, features, generator):
        """One arrow for each feature, drawn."""
        # your code here


# %% tags=["check"]
with checking("Exercise 3"):
    torch.manual_seed(0)
    head = MixtureHead(config_of("regression"))
    some, wanted = torch.randn(6, 64), torch.randn(6, 2)
    loss = head.flat_loss(some, wanted, None)
    assert loss is not None, "write the body of flat_loss first"
    with torch.no_grad():
        means, log_weights = head.parts(some)
        normals = torch.distributions.Independent(torch.distributions.Normal(means, head.log_sigma.exp()), 1)
        mixture = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(logits=log_weights), normals)
        right_loss = -mixture.log_prob(wanted).mean()
    assert loss.ndim == 0, f"the loss is one number: the mean over the batch; yours has shape {tuple(loss.shape)}"
    assert torch.allclose(loss, right_loss, atol=1e-4), (
        f"the loss should be {right_loss:.4f}, yours is {loss.item():.4f}"
    )
    drawn_once = head.sample(some, torch.Generator().manual_seed(0))
    assert drawn_once is not None, "write the body of sample"
    assert drawn_once.shape == (6, 2), f"one arrow for each feature: (6, 2), yours is {tuple(drawn_once.shape)}"
    gap = (drawn_once[:, None] - means).norm(dim=-1).min(dim=1).values.max()
    assert gap < 1e-5, "each answer should be one of the four means"
    trained = train(head, eyes(two), labels_of(two), num_steps=800, learning_rate=3e-3)
    near, first = judge(ask(trained, seen))
    assert near > 0.6, f"after training, {near:.0%} of its answers are near one of the two; 60 % are expected at least"
    assert 0.3 < first < 0.7, f"it should choose both; the first was taken in {first:.0%}"

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# class MixtureHead(Head):
#     num_answers = 4
#
#     def __init__(self, config):
#         super().__init__(config)
#         width = config.head.hidden_dim
#         self.hidden = nn.Sequential(
#             nn.Linear(config.fusion.embed_dim, width), nn.GELU(), nn.Linear(width, width), nn.GELU()
#         )
#         self.output = nn.Linear(width, self.num_answers * (self.dim + 1))
#         self.log_sigma = nn.Parameter(torch.zeros(()))
#
#     def parts(self, features):
#         means, weights = self.output(self.hidden(features)).unflatten(1, (self.num_answers, -1)).split([self.dim, 1], -1)
#         return means, weights[..., 0].log_softmax(dim=1)
#
#     def flat_loss(self, features, actions, generator):
#         means, log_weights = self.parts(features)
#         distance = ((actions[:, None] - means) ** 2).sum(dim=-1)
#         log_normal = -distance / (2 * torch.exp(2 * self.log_sigma))
#         log_normal = log_normal - self.dim * (self.log_sigma + 0.5 * math.log(2 * math.pi))
#         return -torch.logsumexp(log_weights + log_normal, dim=1).mean()
#
#     def sample(self, features, generator):
#         means, log_weights = self.parts(features)
#         index = torch.multinomial(log_weights.exp(), 1, generator=generator)[:, 0]
#         return means[torch.arange(len(means), device=means.device), index]
# ```
#
# It learns fast and acts in one pass. Its limits: the number of answers is fixed beforehand, and with the right
# ways of a whole chunk (22 here, more in life) components run out, or several share one answer and others get none.
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
# <details><summary>A bins head names x and y in one pass, independently. Each is right by itself. What can go wrong?</summary>
#
# With two right answers it may take the x of one and the y of the other: a ghost where nothing is. Name them in turn,
# each knowing those before.
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
# <details><summary>Your chunk has 50 steps of 7 numbers. How many passes does an answer take with bins, with flow matching, with FAST?</summary>
#
# 350 with bins; as many as you choose with flow matching, 10 for instance; with FAST as many as the chunk has
# tokens, which depends on how smooth it is.
#
# </details>
#
# ## Summary
#
# - Squared error answers with the mean. Where several answers are right, the mean may be none of them.
# - A head that names (directions, bins, FAST tokens) or that moves noise (flow matching, diffusion) learns the
#   distribution, and draws from it.
# - Numbers that are named must know each other. Points that are moved decide on the way, so they need a few steps;
#   one step is regression.
# - Normalise each dimension, keep the statistics with the weights, and check them.
# - An end point says little about a chunk. Measure the distance to the nearest way that was shown.
# - With one right answer, the simplest head is as good as any.
#
# ## Sources
#
# - Lipman et al., [Flow matching for generative modeling](https://arxiv.org/abs/2210.02747); Black et al.,
#   [pi0](https://arxiv.org/abs/2410.24164) and [openpi's
#   `pi0.py`](https://github.com/Physical-Intelligence/openpi/blob/main/src/openpi/models/pi0.py), whose comment
#   explains the direction of time.
# - Chi et al., [Diffusion Policy](https://arxiv.org/abs/2303.04137); Octo, [arXiv
#   2405.12213](https://arxiv.org/abs/2405.12213); Salimans and Ho, [Progressive
#   distillation](https://arxiv.org/abs/2202.00512), for the velocity of diffusion.
# - Brohan et al., [RT-2](https://arxiv.org/abs/2307.15818); Kim et al., [OpenVLA](https://arxiv.org/abs/2406.09246)
#   and [OpenVLA-OFT](https://arxiv.org/abs/2502.19645).
# - Pertsch et al., [FAST](https://arxiv.org/abs/2501.09747).
# - Shukor et al., [SmolVLA](https://arxiv.org/abs/2506.01844).
# - [`tinyvla/heads`](https://github.com/tinyvla/tinyvla/tree/main/tinyvla/heads),
#   [`fast.py`](https://github.com/tinyvla/tinyvla/blob/main/tinyvla/model/heads/fast_tokenizer.py),
#   [`normalize.py`](https://github.com/tinyvla/tinyvla/blob/main/tinyvla/model/normalize.py): what you have built.
#
# ## Next
#
# A good chunk is a promise; the world decides whether it holds. [Chapter 8](08_closed_loop.ipynb) puts the policy
# into a loop in which its own actions choose what it sees next.
