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
# with an action. Such models drive robot arms that follow instructions in plain English. Some are large:
# [pi0](https://arxiv.org/abs/2410.24164) has 3.3 billion parameters and learned from more than 10,000 hours of robot
# work.
#
# This course builds a very small one, all of it, in the open. Its world is a picture with three or four coloured
# blocks. Its instructions are sentences such as "find the red block". Its action is an arrow: which way is that block
# from the centre of the picture? The task is small, but it has the three parts that give a VLA its name: an image to
# look at, a sentence to understand, and an action that depends on both.
#
# A network that chooses actions is called a **policy**. In this chapter you train one and play with it. The chapters
# that follow build each part.
#
# **You will be able to**
#
# - say what goes into a VLA and what comes out;
# - train one, and act with it, in a few lines of Python;
# - check that it listens to the instruction, and does not just point at some block;
# - write such a check yourself;
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
# The image and the instruction go in on the left, and a network of its own turns each into vectors. A *fusion* lets the
# words choose what to look at. A *head* turns the result into an action. The course has one chapter for each box.

# %% tags=["hide-input"] jupyter={"source_hidden": true} mystnb={"image": {"alt": "Diagram from left to right: an image goes through a vision transformer, the sentence “find the red block” through a language model; a fusion joins the two, and an action head turns the result into an arrow."}}
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
# `BlockFind` is the dataset. It draws as many scenes as you ask for, from a seed: the same seed and the same number
# always give the same scenes. (Another number gives other scenes; [Chapter 1](01_dataset.ipynb) shows why.) A scene is
# an image, an instruction and the action that is right.

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
# The policy has the four parts of the drawing and 4.6 million numbers, its *parameters*. (The list below gives the
# language model two rows: its table of words, the token embedding, and the rest.) Most of the numbers start at random.
# Training shows the policy 64 scenes at a time and measures how far its arrows are from the right ones (the mean squared
# error). Then it moves the parameters a little in the direction that makes the error smaller. One pass over the 8,000
# scenes is an *epoch*. Two are enough here.

# %%
policy = new_policy(PRESETS["nano"], seed=0, device=device)
for part, count in policy.num_parameters().items():
    print(f"{part:16} {count:>10,}")

# %% [markdown]
# The largest part is the token embedding: a table with one vector for each of the 30,522 entries of the vocabulary, most of
# them English words and pieces of words. Our sentences use only a few of them. Which parameters will move, then? You will
# see after training.
#
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
# that often. Keep this number in mind: 20 % is what guessing gets.
#
# Now train. It takes about half a minute on two CPU cores.

# %% tags=["nbval-ignore-output", "slow"]
start = {name: values.detach().clone() for name, values in policy.named_parameters()}
config = TrainConfig(epochs=2, learning_rate=1e-3)
splits = [TensorSplit.from_blockfind(split, policy.language.encode, device) for split in (scenes, val)]
records = fit(policy, *splits, config)
print(f"right direction after two epochs: {records[-1]['direction_accuracy']:.1%}")

# %% tags=["slow"]
assert records[-1]["direction_accuracy"] > 0.95, "the policy did not learn: is the package's initialisation unchanged?"
print("it learned")

# %% [markdown]
# Which parameters moved?

# %% tags=["slow"]
moved = {name: values != start[name] for name, values in policy.named_parameters()}
count, total = (sum(int(numbers.sum()) for numbers in moved.values()), policy.num_parameters()["total"])
print(f"{count / 1e6:.1f} of {total / 1e6:.1f} million numbers moved")
print(f"rows of the token embedding that moved: {moved['language.token_embedding.weight'].any(dim=1).sum()} of 30,522")

# %% [markdown]
# Practically every number outside the table moved, and eleven rows of the table: "find", "the", "block", the six colours, and
# two marks that stand at the beginning and at the end of every sentence. The other rows had no part in any answer, so
# they are still what they were at the start.
#
# ## Look at what it does
#
# Here are twelve scenes that it has never seen. Grey is the right arrow, magenta the policy's.

# %% tags=["slow"] mystnb={"image": {"alt": "Twelve scenes, each with its instruction and two arrows from the centre. The policy's magenta arrow lies almost on top of the grey one, the right answer."}}
test = BlockFind(num_samples=12, seed=44)
plot_predictions(test, policy.predict(test.images, test.instructions).numpy())
plt.show()

# %% [markdown]
# ## Does it listen?
#
# A good score can mislead. Suppose that a policy ignored the words and always pointed at the block that stands out
# most. In some scenes it would be right. So when the course asks whether a policy listens, it shows the score beside
# *floors*: the scores of policies that cannot see, cannot read, or can do neither, and of the policy itself when it is
# told the wrong sentence. And it makes the **instruction swap**: keep the image, name another block that is in it, and
# see whether the arrow turns.
#
# In the table, *L2 error* is the mean distance between the tips of the policy's arrow and of the right one. *cos > 0.8* is
# the share of arrows that are within about 37 degrees, because 0.8 is the cosine of 37 degrees. The brackets say where the
# true share probably lies.

# %% tags=["nbval-ignore-output", "slow"]
report = evaluate(policy, BlockFind(1_000, seed=44), scenes)
print(report.table())

# %% tags=["slow"]
assert report.policy.direction_accuracy > 0.95
assert report.swap_accuracy > 0.95, "the arrow does not follow the words"
assert report.floors["vision only"].direction_accuracy < 0.55, "words should be needed"
print("it listens: naming another block turns the arrow to it")

# %% [markdown]
# The policy is right in nearly all scenes, and when another block is named, its arrow turns there. (The swap counts only
# scenes in which the two blocks lie in clearly different directions.) Compare that with the floors in the middle of the
# table:
#
# - *constant action* and *language only*: a policy that sees nothing is right about one time in five, with the words or
#   without them;
# - *vision only*: a policy that cannot read, and points to the average of the blocks, does better. There are only three
#   or four places to point at, and some of them may lie in nearly the same direction;
# - *shuffled instruction*: our own policy, told the sentence of another scene. It falls far below its own score. It is
#   within 10 degrees more often than *vision only*, which points between the blocks. There are only six colours, so now
#   and then the other sentence names the same colour, and then its arrow is right.
#
# Being right every time takes both the image and the words.
#
# ## Play
#
# Move blocks, change the words, watch the arrow. Click a cell to put a block of the chosen colour there. Turn on the
# attention overlay to see which patches of the image the policy looks at. (The controls need a running kernel. On a page
# without one, look at the figure below: it shows the same. In its lower row, a circle lies on each patch. The larger its
# area, the more attention the fusion pays to that patch, averaged over its heads; the largest circle of each picture
# nearly fills its patch.)

# %% tags=["nbval-ignore-output", "slow", "remove-output"]
from tinyvla.show.widgets import playground, playground_figure

playground(policy)

# %% tags=["slow"] mystnb={"image": {"alt": "One scene under three instructions. Above, the arrow turns to the block that is named. Below, circles on the patches show where the policy looks; the largest one lies on that block."}}
fig, axes = playground_figure(policy)
plt.show()

# %% [markdown]
# Ask for a colour that is not in the scene. The policy still answers: it has no way to say "there is no such block".
# Use a word that was in no training sentence, such as "violet". The policy answers again, and the playground tells you that
# the word was never seen in training, so that the policy cannot know what it means.
#
# ## Save, load, act
#
# A policy is saved as a folder with three files: the weights, the configuration and a README. The Hugging Face hub takes
# the folder as it is. A policy that is loaded from the folder gives the same answer, to the last bit.

# %%
import tempfile

with tempfile.TemporaryDirectory() as folder:
    policy.save_pretrained(folder)
    loaded = TinyVLA.from_pretrained(folder, device=device)
same = (loaded.predict(scene.image, scene.instruction) == policy.predict(scene.image, scene.instruction)).all()
print("same answer after loading:", bool(same))

# %% [markdown]
# ## What makes this world easy
#
# This is a real VLA in a world that was made easy. Here is where, and which chapters say more about it.
#
# | here | on a robot | chapter |
# |---|---|---|
# | blocks stand on a grid, one block fills one patch of the image | objects stand anywhere, at any angle | 6, 13 |
# | six colours, one sentence form | thousands of things, any wording | 3, 6, 16 |
# | the action is an arrow, judged once | a stream of commands, and errors add up | 8, 13, 14 |
# | exactly one block is right | often several actions are right, and their average is wrong | 7 |
# | labels cost nothing, because a program draws the scenes | people record demonstrations, slowly | 10, 15 |

# %% [markdown]
# ## Exercise 1: which way is that? (5 minutes)
#
# An angle is easier to read than (dx, dy). Write `angle_of`, the direction of an action in degrees, counter-clockwise
# from the right: 0 is right, 90 is **up**, 180 is left, 270 is down. Return a number from 0 up to, and not including,
# 360. The arrow may have any length. Remember which way y runs.
#
# <details><summary>Hint</summary>
#
# `math.atan2(y, x)` gives the angle of a vector whose y points up, in radians between -pi and pi. Change the sign of dy,
# convert with `math.degrees`, and bring the result into 0 to 360 with `% 360`.
#
# </details>


# %% tags=["exercise"]
def angle_of(dx, dy):
    """Direction of an action in degrees: 0 is right, 90 is up."""
    # your code here


# %% tags=["check"]
with checking("Exercise 1"):
    answer = angle_of(1.0, 0.0)
    assert answer is not None, "write the body of angle_of first"
    for (dx, dy), want in {
        (1, 0): 0, (0, -1): 90, (-1, 0): 180, (0, 1): 270, (0.6, -0.8): 53.130102, (-0.8, -0.6): 143.130102,
        (-0.6, 0.8): 233.130102, (0.8, 0.6): 323.130102, (1.2, -1.6): 53.130102,
    }.items():  # fmt: skip
        answer = float(angle_of(dx, dy))
        where = f"({dx}, {dy}) is {want:.5g} degrees, yours is {answer:.5g}"
        assert 0 <= answer < 360, f"{where}; bring it into the range from 0 up to 360"
        close = abs(answer - want) < 1e-4
        assert close or abs(math.degrees(answer) - want) > 1e-3, f"{where}; these are radians"
        mirrored = not close and abs(answer + want - 360) < 1e-4
        blind = mirrored and dy > 0 and abs(float(angle_of(dx, -dy)) - answer) < 1e-4
        assert not blind, f"{where}; yours is the same for up and down"
        assert not mirrored, f"{where}; y runs down, so change the sign of dy"
        assert close, where
    answer = float(angle_of(0.3, 0.4))
    assert abs(answer - 306.869898) < 1e-4, f"(0.3, 0.4), a short arrow, is 306.87 degrees, yours is {answer:.5g}"

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
# It takes four lines. So why learn? A camera image has light, shadow and clutter, and nobody has written down the rules
# that find every object in it from every wording. Here the rules are known, so we can judge what the policy learned.
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
    assert find_block(scenes[0].image, "red") is not None, "write the body of find_block first"
    for number in range(100):
        sample, turned = scenes[number], scenes.retargeted()[number]  # the same image, another block is named
        for color, right in ((sample.colors[0], sample.action), (turned.colors[0], turned.action)):
            answer = np.asarray(find_block(sample.image, color), dtype=float)
            where = f"scene {number}" if color == sample.colors[0] else f"scene {number}, asked for {color}"
            assert answer.shape == (2,), f"{where}: return two numbers; yours has shape {answer.shape}"
            assert not np.isnan(answer).any(), f"{where}: your answer is {answer}; did it find any pixel?"
            close = np.abs(answer - right).max() < 1e-3
            assert close or np.abs(answer[::-1] - right).max() > 1e-3, f"{where}: x and y are exchanged; rows are y"
            assert close or np.abs(answer * [1, -1] - right).max() > 1e-3, f"{where}: y runs down in an image"
            assert close or np.abs(answer + right).max() > 1e-3, f"{where}: it points away from the block"
            length = np.linalg.norm(answer)
            assert abs(length - 1) < 1e-4, f"{where}: the length should be 1, yours is {length:.3f}"
            degrees = math.degrees(math.acos(np.clip(answer @ right, -1, 1)))
            why = "the middle of pixel i is at i + 0.5" if degrees < 10 else "are these the pixels of that colour?"
            y, x = np.argwhere((sample.image == np.array(PALETTE[color])[:, None, None]).all(axis=0))[0] - 31.5
            at_first = np.abs(answer - np.array([x, y]) / math.hypot(x, y)).max() < 1e-3
            assert close or not at_first, f"{where}: this points to the block's first pixel; average over all of them"
            assert close, f"{where}: off by {degrees:.1f} degrees; {why}"
    drawn = np.full((3, 64, 64), 255, dtype=np.uint8)
    drawn[:, 8:16, 8:16] = np.array(PALETTE["red"])[:, None, None]
    for channel in range(3):  # stray pixels that share one of red's three numbers
        drawn[channel, 40:48, 16 * channel : 16 * channel + 8] = PALETTE["red"][channel]
    near = np.abs(np.asarray(find_block(drawn, "red"), dtype=float) + 0.5**0.5).max() < 1e-3
    assert near, "a pixel has the colour only if all three of its numbers agree; compare all channels"
    red, green, blue = PALETTE["red"]
    drawn[:, 48:56, 8:16] = np.array([green, blue, red])[:, None, None]  # the same three numbers in other channels
    for channel in range(3):  # stray pixels that share two of red's three numbers
        others = np.array([0 if number == channel else PALETTE["red"][number] for number in range(3)])
        drawn[:, 56:64, 16 * channel : 16 * channel + 8] = others[:, None, None]
    near = np.abs(np.asarray(find_block(drawn, "red"), dtype=float) + 0.5**0.5).max() < 1e-3
    why = "channel by channel: neither two channels nor the sum of all three tell a colour from others"
    assert near, f"compare all three numbers, {why}"

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
# ## Exercise 3: does it follow your words? (20 minutes)
#
# Now use the policy. Write the instruction swap for one scene: ask for **every** block in it, and count. The function
# `share_followed(policy, image, arrows)` gets
#
# - `policy`: anything with `policy.predict(image, sentence)`, which returns (dx, dy) as a tensor;
# - `image`: one scene, uint8 (3, 64, 64);
# - `arrows`: a dictionary from the name of each colour in the scene to the right arrow, a unit vector.
#
# Ask "find the COLOR block" for each colour. Return the share of colours for which the policy's arrow has the right
# direction: the cosine of the angle between the two arrows is above 0.8. The policy's arrows need not have length one.
#
# <details><summary>Hint</summary>
#
# The cosine of two vectors is `a @ b / (norm(a) * norm(b))`. Go through `arrows.items()`, collect True or False in a
# list, and return its mean. `np.asarray` makes an array of a tensor.
#
# </details>


# %% tags=["exercise"]
def share_followed(policy, image, arrows):
    """Share of the scene's colours for which the policy's arrow has the right direction."""
    # your code here


# %% tags=["check"]
from tinyvla.course.ch00 import StandIn, arrows_of

with checking("Exercise 3"):
    image, arrows = scenes.images[70], arrows_of(scenes, 70)  # four blocks, in clearly different directions
    assert share_followed(StandIn(arrows), image, arrows) is not None, "write the body of share_followed first"
    first, *others = arrows
    deaf, half_deaf = dict.fromkeys(arrows, arrows[first]), {**arrows, first: -arrows[first]}
    cases = (
        ("a perfect policy", StandIn(arrows), 1),
        (
            "a policy with right but very short arrows (the cosine divides by both lengths)",
            StandIn(arrows, length=0.1),
            1,
        ),
        (
            "a policy with right but very long arrows (the cosine divides by both lengths)",
            StandIn(arrows, length=9.0),
            1,
        ),
        ("a policy that points the opposite way", StandIn(arrows, length=-1.0), 0),
        (f"a deaf policy, which always points to the {first} block,", StandIn(deaf), 0.25),
        ("a policy with three right answers of four", StandIn(half_deaf), 0.75),
        ("a policy that is 35 degrees off", StandIn(arrows, degrees=35), 1),
        ("a policy that is 38 degrees off", StandIn(arrows, degrees=38), 0),
        ("a policy that is 35 degrees off to the other side", StandIn(arrows, degrees=-35), 1),
        ("a policy that is 38 degrees off to the other side", StandIn(arrows, degrees=-38), 0),
    )
    for name, stand_in, want in cases:
        answer = float(share_followed(stand_in, image, arrows))
        asked, wanted = (", ".join(sorted(colors)) for colors in (stand_in.asked, arrows))
        why = f"; the sentence should be 'find the {first} block'" if stand_in.asked - {*arrows} else ""
        assert asked == wanted, f"ask for each of {wanted}; yours asks for {asked or 'nothing'}{why}"
        assert abs(answer - want) < 1e-6, f"{name} should score {want}, and yours says {answer:.3g}"
    two = {color: half_deaf[color] for color in (first, others[0])}
    answer = float(share_followed(StandIn(two), image, {color: arrows[color] for color in two}))
    assert abs(answer - 0.5) < 1e-6, f"one right answer of two should score 0.5, and yours says {answer:.3g}"
    turns = -0.3, 0.2, 1.5, -1.2
    left = {color: np.array([-math.cos(turn), math.sin(turn)]) for color, turn in zip(arrows, turns, strict=True)}
    answer = float(share_followed(StandIn(left, degrees=35), image, left))
    assert answer == 1, (
        f"35 degrees off with blocks on the left should score 1, yours {answer:.3g}: do angles wrap at 180?"
    )
    stand_in, other = StandIn(arrows), scenes.images[71]
    share_followed(stand_in, other, arrows)
    same = [np.shape(shown)[-3:] == other.shape and np.all(np.asarray(shown) == other) for shown in stand_in.shown]
    assert all(same), "show the policy the image that your function was given; yours shows it something else"

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def share_followed(policy, image, arrows):
#     right = []
#     for color, arrow in arrows.items():
#         answer = np.asarray(policy.predict(image, f"find the {color} block"))
#         cosine = answer @ arrow / (np.linalg.norm(answer) * np.linalg.norm(arrow))
#         right.append(cosine > 0.8)
#     return np.mean(right)
# ```
#
# In this scene, whose blocks lie in clearly different directions, a deaf policy can be right for one block of four at most.
# To be right for all of them it has to listen. Where blocks lie close together, a deaf policy can be right for more of
# them, so judge over many scenes. The course uses the swap whenever it asks whether a policy listens.
#
# </details>

# %% [markdown]
# When your function is right, let it judge the policy that you trained, in twenty scenes:
#
# ```python
# np.mean([share_followed(policy, scenes.images[i], arrows_of(scenes, i)) for i in range(20)])
# ```

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
# Not necessarily. A policy that never reads the words, and points to the average of the blocks, gets that far (the row
# *vision only* above). Chapter 1 finds a deaf policy that gets further still. Swap the instruction and see whether the
# arrow turns.
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
# It answers with some arrow. An arrow is all that it can answer with, and in training the named block was always there.
#
# </details>

# %% [markdown]
# ## Summary
#
# - A VLA turns an image and an instruction into an action.
# - Training moved 0.7 of 4.6 million numbers until the arrows were right on scenes never seen before. Of the table of
#   words, only the rows in use moved.
# - A score means something only beside its floors; the instruction swap tells listening from guessing.
# - This world is easy on purpose, and the table above says where.
#
# ## Sources
#
# - RT-2, which made the term vision-language-action model common: [arXiv:2307.15818](https://arxiv.org/abs/2307.15818)
# - OpenVLA: [arXiv:2406.09246](https://arxiv.org/abs/2406.09246); pi0: [arXiv:2410.24164](https://arxiv.org/abs/2410.24164);
#   SmolVLA: [arXiv:2506.01844](https://arxiv.org/abs/2506.01844)
#
# ## Next
#
# [Chapter 1](01_dataset.ipynb) builds the dataset from nothing, makes a mistake in its labels that no training curve shows, and
# writes the tests that find it.
