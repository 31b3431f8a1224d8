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
# # 0. Quickstart: train a policy and play with it
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/tinyvla/tinyvla/blob/main/notebooks/00_quickstart.ipynb)
#
# A **vision-language-action model** (VLA) is a neural network that looks at an image, reads an instruction and answers
# with an action. Robot arms that follow spoken orders are driven by such models. The well-known ones have billions of
# parameters and learned from weeks of recorded robot work.
#
# This course builds a very small one, all of it, in the open. Its world is a picture with three or four coloured
# blocks. Its instructions are sentences such as "find the red block". Its action is an arrow: which way is that block
# from the centre of the picture? That is little, but nothing is missing: there is an image to look at, a sentence to
# understand, and an answer that is wrong unless both were used.
#
# In this chapter you train it in front of your eyes and play with it. The chapters that follow build each part.
#
# **You will be able to**
#
# - say what goes into a VLA and what comes out;
# - train one, and act with it, in a few lines of Python;
# - check that it listens to the instruction, and does not just point at some block;
# - name what makes this world easier than a robot's.
#
# **Time:** about 15 minutes to read, about 1 minute on two CPU cores, 20 seconds on a GPU to run.
#
# **Before you start:** you should know Python and have trained a neural network once. You need no GPU.

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

import matplotlib.pyplot as plt
import numpy as np

from tinyvla import BlockFind, TinyVLA
from tinyvla.config import PRESETS
from tinyvla.course.exercises import checking
from tinyvla.data.batch import TensorSplit
from tinyvla.learn.evaluate import evaluate
from tinyvla.learn.train import fit
from tinyvla.model.policy import new_policy
from tinyvla.recipes import TrainConfig
from tinyvla.show.plots import PART_COLORS, plot_predictions, plot_sample

# %% [markdown]
# ## What will be trained
#
# Image and instruction go in on the left; each is turned into vectors by a network of its own; a *fusion* lets the
# words choose what to look at; a *head* turns the result into an action. The course has one chapter for each box.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram from left to right: an image goes through a vision transformer, the sentence “find the red block” through a language model; a fusion joins the two, and an action head turns the result into an arrow."}}
boxes = [  # name, what leaves it, x, y, part
    ("vision\ntransformer", "65 vectors", 2.4, 1.6, "vision"),
    ("language\nmodel", "1 vector", 2.4, 0.0, "language"),
    ("fusion", "1 vector", 5.0, 0.8, "fusion"),
    ("action\nhead", "(dx, dy)", 7.4, 0.8, "action"),
]
fig, ax = plt.subplots(figsize=(9, 2.9), layout="constrained")
for name, leaves, x, y, part in boxes:
    ax.text(x, y, name, ha="center", va="center", color="white", fontsize=11, fontweight="bold",
            bbox={"boxstyle": "round,pad=0.6", "fc": PART_COLORS[part], "ec": "none"})  # fmt: skip
    ax.text(x, y - 0.62, leaves, ha="center", va="center", fontsize=9, color="#555555")
for start, end in [((0.75, 1.6), (1.6, 1.6)), ((0.75, 0), (1.6, 0)), ((3.2, 1.5), (4.4, 0.95)),
                   ((3.2, 0.1), (4.4, 0.65)), ((5.6, 0.8), (6.7, 0.8)), ((8.1, 0.8), (8.7, 0.8))]:  # fmt: skip
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": "#555555", "lw": 1.6})
scene = BlockFind(8_000, seed=42)[0]
ax.imshow(scene.image.transpose(1, 2, 0), extent=(-0.75, 0.65, 0.95, 2.35), interpolation="nearest")
ax.text(-0.05, 0, "“find the\nred block”", ha="center", va="center", fontsize=11)
ax.annotate("", (9.5, 0.8 - 0.7 * scene.action[1]), (8.85, 0.8),
            arrowprops={"arrowstyle": "-|>", "color": PART_COLORS["action"], "lw": 3})  # fmt: skip
ax.set(xlim=(-1, 9.8), ylim=(-0.9, 2.5))
ax.axis("off")
plt.show()

# %% [markdown]
# ## One scene
#
# `BlockFind` is the dataset. It draws as many scenes as you ask for, from a seed: the same seed always gives the same
# scenes. A scene is an image, an instruction and the action that is right.

# %%
scenes = BlockFind(num_samples=8_000, seed=42)
scene = scenes[0]
print("image      ", scene.image.shape, scene.image.dtype)
print("instruction", repr(scene.instruction))
print("action     ", scene.action.round(3), "length", np.linalg.norm(scene.action).round(3))
print("blocks     ", scene.colors)

# %% mystnb={"image": {"alt": "A scene with a purple, a red and a blue block, titled “find the red block”. A black arrow starts at the centre and points to the red block."}}
plot_sample(scene)
plt.show()

# %% [markdown]
# The action is a pair (dx, dy): a step of length one from the centre of the image towards the block. x runs to the
# right and, as in all images, y runs **down**. So an arrow to the upper right has a positive dx and a negative dy.
#
# ## Train
#
# The policy has four parts and about five million random numbers, its *parameters*. Training shows it 64 scenes at a
# time, measures how far its arrows are from the right ones (the mean squared error), and moves every parameter a little
# in the direction that makes the error smaller. One pass over the 8,000 scenes is an *epoch*. Two are enough here.

# %%
policy = new_policy(PRESETS["nano"], seed=0, device=device)
for part, count in policy.num_parameters().items():
    print(f"{part:16} {count:>10,}")

# %% [markdown]
# **Guess first.** Before training, how often will the arrow be roughly right, that is, within about 37 degrees of the
# block? (a) never, (b) about one time in five, (c) about one time in two.

# %% tags=["nbval-ignore-output"]
val = BlockFind(num_samples=1_000, seed=43)
before = evaluate(policy, val, scenes)
print(f"right direction before training: {before.policy.direction_accuracy:.1%}")

# %%
assert 0.05 < before.policy.direction_accuracy < 0.40, "an untrained policy should be near chance"

# %% [markdown]
# About one in five: a window of 37 degrees to either side is a fifth of the full circle, so pointing anywhere is right
# that often. Keep this number in mind: 20 % is nothing.
#
# Now train. It takes about half a minute on a laptop.

# %% tags=["nbval-ignore-output", "slow"]
config = TrainConfig(epochs=2, learning_rate=1e-3)
splits = [TensorSplit.from_blockfind(split, policy.language.encode, device) for split in (scenes, val)]
records = fit(policy, *splits, config)
print(f"right direction after two epochs: {records[-1]['direction_accuracy']:.1%}")

# %% tags=["slow"]
assert records[-1]["direction_accuracy"] > 0.95, "the policy did not learn: is the package's initialisation unchanged?"
print("it learned")

# %% [markdown]
# ## Look at what it does
#
# Twelve scenes that it has never seen. Grey is the right arrow, magenta the policy's.

# %% tags=["slow"] mystnb={"image": {"alt": "Twelve scenes, each with its instruction and two arrows from the centre. The policy's magenta arrow lies almost on top of the grey one, the right answer."}}
test = BlockFind(num_samples=12, seed=44)
plot_predictions(test, policy.predict(test.images, test.instructions).numpy())
plt.show()

# %% [markdown]
# ## Does it listen?
#
# A good score can mislead. Suppose that a policy ignored the words and always pointed at the block that stands out
# most. On some scenes it would be right. So the course never shows a score alone. It shows it beside *floors*: what can
# be had without looking, without listening, or without either. And it makes the **instruction swap**: keep the image,
# name another block that is in it, and see whether the arrow turns.

# %% tags=["nbval-ignore-output", "slow"]
report = evaluate(policy, BlockFind(1_000, seed=44), scenes)
print(report.table())

# %% tags=["slow"]
assert report.policy.direction_accuracy > 0.95
assert report.swap_accuracy > 0.95, "the arrow does not follow the words"
assert report.floors["vision only"].direction_accuracy < 0.55, "words should be needed"
print("it listens: naming another block turns the arrow to it")

# %% [markdown]
# Read the table from below. A policy that knows only the words, or nothing at all, is right one time in five. One that
# knows only the image does better, because there are only three or four places to point at. Only with both can it be
# right every time.
#
# ## Play
#
# Move blocks, change the words, watch the arrow. Click a cell to put a block of the chosen colour there. Turn on the
# attention overlay to see which patches of the image the words pick out. (The controls need a running kernel. On a page
# without one, look at the figure below: it says the same.)

# %% tags=["nbval-ignore-output", "slow", "remove-output"]
from tinyvla.show.widgets import playground, playground_figure

playground(policy)

# %% tags=["slow"] mystnb={"image": {"alt": "One scene under three instructions. Above, the arrow turns to the block that is named. Below, circles on the patches show where the policy looks; the largest one lies on that block."}}
fig, axes = playground_figure(policy)
plt.show()

# %% [markdown]
# Ask for a colour that is not in the scene. The policy still answers: it has no way to say "there is no such block".
# Nobody taught it to. Ask for a word that it does not know, and the tokenizer refuses, which is better than a guess.
#
# ## Save, load, act
#
# A policy is saved as a folder with three files that people and the Hugging Face hub can read. Loading it back gives
# the same answers, to the last bit.

# %%
import tempfile

with tempfile.TemporaryDirectory() as folder:
    policy.save_pretrained(folder)
    loaded = TinyVLA.from_pretrained(folder, device=device)
same = (loaded.predict(scene.image, scene.instruction) == policy.predict(scene.image, scene.instruction)).all()
print("same answer after loading:", bool(same))

# %% [markdown]
# ## Where this one cheats
#
# It is a real VLA in a world that was made easy. It is honest to say where.
#
# | here | on a robot | chapter |
# |---|---|---|
# | blocks stand on a grid, one block fills one patch of the image | objects stand anywhere, half hidden | 2, 6 |
# | six colours, one sentence form | thousands of things, any wording | 3, 6 |
# | the action is an arrow, judged once | a stream of joint commands, and errors add up | 7, 8 |
# | exactly one block is right | often several actions are right, and their average is wrong | 7 |
# | all scenes are drawn by a program | demonstrations are recorded by people, slowly | 10 |
#
# Later chapters take these one by one.

# %% [markdown]
# ## Exercise 1: which way is that? (5 minutes)
#
# An angle is easier to read than (dx, dy). Write `angle_of`, the direction of an action in degrees, counter-clockwise
# from the right: 0 is right, 90 is **up**, 180 is left, 270 is down. Remember which way y runs.
#
# <details><summary>Hint</summary>
#
# `math.atan2(y, x)` gives the angle of a vector whose y points up, in radians between -pi and pi. Turn dy round, convert
# with `math.degrees`, and bring the result into 0 to 360 with `% 360`.
#
# </details>


# %% tags=["exercise"]
def angle_of(dx, dy):
    """Direction of an action in degrees: 0 is right, 90 is up."""
    # your code here


# %% tags=["check"]
with checking("Exercise 1"):
    for (dx, dy), want in {(1, 0): 0, (0, -1): 90, (-1, 0): 180, (0, 1): 270}.items():
        answer = angle_of(dx, dy)
        assert answer is not None, "write the body of angle_of first"
        assert abs(answer - want) < 1e-6, f"({dx}, {dy}) is {want} degrees, yours is {answer}"

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def angle_of(dx, dy):
#     return math.degrees(math.atan2(-dy, dx)) % 360
# ```
#
# `atan2` wants y to point up, and images have it pointing down, so dy changes sign. The remainder brings negative
# angles into the range from 0 to 360.
#
# </details>

# %% [markdown]
# ## Exercise 2: a policy without learning (20 minutes)
#
# How hard is this task for a program that knows the rules? Write `find_block(image, color)`: find the pixels of a
# colour and return the unit vector from the image's centre to their middle. `PALETTE` holds the colours' RGB values.
# The image is uint8 with shape (3, 64, 64): channels, rows (y), columns (x). The centre of the image lies at 32 pixels,
# between pixels 31 and 32; the middle of pixel number i lies at i + 0.5.
#
# If that is so easy, why learn? Because the rules of the real world cannot be written down. Keep this function in mind:
# a network that needs thousands of scenes to match it is not clever yet.
#
# <details><summary>Hint</summary>
#
# `(image == rgb[:, None, None]).all(axis=0)` is a 64 x 64 array that is True on the block's pixels, where
# `rgb = np.array(PALETTE[color])`. `np.nonzero` of it gives rows and columns. Average each, add 0.5, subtract 32, and
# divide by the length.
#
# </details>

# %%
from tinyvla.data.dataset import PALETTE

print({color: rgb for color, rgb in list(PALETTE.items())[:2]})


# %% tags=["exercise"]
def find_block(image, color):
    """Unit vector (dx, dy) from the image's centre to the middle of the pixels of that colour."""
    # your code here


# %% tags=["check"]
with checking("Exercise 2"):
    for number in range(100):
        sample = scenes[number]
        answer = find_block(sample.image, sample.colors[0])
        assert answer is not None, "write the body of find_block first"
        answer = np.asarray(answer, dtype=float)
        assert answer.shape == (2,), f"return two numbers, yours has shape {answer.shape}"
        assert abs(np.linalg.norm(answer) - 1) < 1e-6, f"scene {number}: the length is not 1"
        flipped = np.abs(answer[::-1] - sample.action).max() < 1e-3 < np.abs(answer - sample.action).max()
        assert not flipped, f"scene {number}: x and y are exchanged; rows are y"
        assert np.abs(answer - sample.action).max() < 1e-3, (
            f"scene {number}: off by {np.abs(answer - sample.action).max():.3f}"
        )

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def find_block(image, color):
#     rgb = np.array(PALETTE[color])
#     rows, columns = np.nonzero((image == rgb[:, None, None]).all(axis=0))
#     offset = np.array([columns.mean() + 0.5 - 32, rows.mean() + 0.5 - 32])
#     return offset / np.linalg.norm(offset)
# ```
#
# Forgetting the half pixel turns some arrows by a few degrees. Chapter 1 shows what happens when a dataset forgets half
# a *cell*.
#
# </details>

# %% [markdown]
# ## Check yourself
#
# <details><summary>What are the inputs and the output of a VLA?</summary>
#
# An image (often several, and the robot's own state) and an instruction go in; an action comes out. Here the action is
# a unit vector in the image plane.
#
# </details>
#
# <details><summary>A policy points in the right direction 45 % of the time. Has it learned to listen?</summary>
#
# Not necessarily. That is what the best policy that never reads the words reaches here: it points at the average of the
# blocks. Swap the instruction and see whether the arrow moves.
#
# </details>
#
# <details><summary>Why is a policy that answers at random right 20 % of the time?</summary>
#
# "Right direction" means a cosine similarity above 0.8, an angle below about 37 degrees to either side. That window of
# 74 degrees is about a fifth of the circle.
#
# </details>
#
# <details><summary>The scene has no green block, and you ask for it. What does the policy do, and why?</summary>
#
# It answers with some arrow. Every training scene contained the named block, so nothing in training rewarded saying
# that it is missing.
#
# </details>

# %% [markdown]
# ## Summary
#
# - A VLA turns an image and an instruction into an action.
# - Training changed about five million numbers until the arrows were right on scenes never seen before.
# - A score means something only beside its floors; the instruction swap tells listening from guessing.
# - This world is easy on purpose, and we know where.
#
# ## Sources
#
# - RT-2, which made the term vision-language-action model common: [arXiv:2307.15818](https://arxiv.org/abs/2307.15818)
# - OpenVLA: [arXiv:2406.09246](https://arxiv.org/abs/2406.09246); pi0: [arXiv:2410.24164](https://arxiv.org/abs/2410.24164);
#   SmolVLA: [arXiv:2506.01844](https://arxiv.org/abs/2506.01844)
#
# ## Next
#
# [Chapter 1](01_dataset.ipynb) builds the dataset from nothing, and finds a bug in how such data is often labelled.
