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
# # 1. The dataset: BlockFind
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/tinyvla/tinyvla/blob/main/notebooks/01_dataset.ipynb)
#
# A vision-language-action (VLA) policy sees an image, reads an instruction and answers with an action. To train one
# we need many triples of the three. Real robot data is large and costly: [OpenVLA](https://arxiv.org/abs/2406.09246)
# was trained on 970,000 robot trajectories, [SmolVLA](https://arxiv.org/abs/2506.01844) on about 10 million frames.
# This course makes its own data instead: small pictures of coloured blocks, a sentence that names one block, and an
# arrow that points to it. Ten thousand such triples take a fraction of a second, and every one has a label that can
# be proved right.
#
# "Can be proved right" is the point of this chapter. You build the dataset, break its labels in a way that no training
# curve would show, and write tests that catch the mistake. Then you compute how well a policy can score *without*
# looking or *without* reading. The later chapters compare their policies with those floors.
#
# **You will be able to**
#
# - generate a dataset with vectorised NumPy, the same bytes from the same seed on every machine, and write its label;
# - test labels against the pictures instead of against the code that made them;
# - find duplicates and leaks between splits, and predict how many to expect;
# - read a dataset's balance from plots;
# - compute the floors that a policy must beat before its accuracy means anything.
#
# **Time:** about 40 minutes to read, about 10 seconds on two CPU cores, 20 seconds on a GPU to run.
#
# **Before you start:** Python and NumPy indexing (`a[:, None]`, boolean masks). No deep learning is needed here.
# Nothing from earlier chapters is needed either; [Chapter 0](00_quickstart.ipynb) shows where the data goes.

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
import hashlib
import math
import time
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np

from tinyvla.course.exercises import checking
from tinyvla.data import dataset as package
from tinyvla.learn.evaluate import Metrics, constant_floor, language_only_floor, vision_only_floor
from tinyvla.show.plots import PART_COLORS, plot_sample

plt.rcParams.update({"figure.facecolor": "white", "font.size": 10})

# %% [markdown]
# Here is the whole generator. A seed becomes random numbers, the numbers become blocks, and the blocks become the three
# things a policy is trained with.

# %% tags=["hide-input"] jupyter={"source_hidden": true} mystnb={"image": {"alt": "Diagram: a seed gives three or four blocks, each with a cell and a colour; the blocks give an image, an instruction and an action. On the right an example: a scene, its sentence, and an arrow to the green block."}}
fig, ax = plt.subplots(figsize=(9, 3.7), layout="constrained")
ax.set(xlim=(0, 9), ylim=(0, 3.7))
ax.axis("off")
sample = package.BlockFind(8, seed=42)[4]
boxes = [  # left, bottom, width, height, colour, text
    (0.1, 1.45, 1.25, 0.8, "#555555", "seed\n42"),
    (2.0, 1.2, 1.9, 1.3, "#555555", "blocks\n3 or 4, each with\na cell and a colour;\nthe first is the target"),
    (4.75, 2.55, 1.75, 0.95, PART_COLORS["vision"], "image\nuint8 (3, 64, 64)"),
    (4.75, 1.37, 1.75, 0.95, PART_COLORS["language"], "instruction\na sentence"),
    (4.75, 0.19, 1.75, 0.95, PART_COLORS["action"], "action\nfloat32 (dx, dy)"),
]
for left, bottom, width, height, color, label in boxes:
    ax.add_patch(plt.Rectangle((left, bottom), width, height, facecolor=color, alpha=0.15))
    ax.add_patch(plt.Rectangle((left, bottom), width, height, fill=False, edgecolor=color, lw=1.5))
    ax.text(left + width / 2, bottom + height / 2, label, ha="center", va="center", fontsize=10)
arrows = [((1.35, 1.85), (2.0, 1.85)), *(((3.9, 1.85), (4.75, y)) for y in (3.02, 1.85, 0.67))]
for start, end in arrows:
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": "#555555", "lw": 1.5})
ax.text(7.75, 3.35, f'"{sample.instruction}"', ha="center", fontsize=10, color=PART_COLORS["language"])
ax.imshow(sample.image.transpose(1, 2, 0), extent=(6.65, 8.85, 0.85, 3.05), zorder=1, interpolation="nearest")
ax.add_patch(plt.Rectangle((6.65, 0.85), 2.2, 2.2, fill=False, edgecolor=PART_COLORS["vision"], zorder=2))
ax.arrow(7.75, 1.95, 0.85 * sample.action[0], -0.85 * sample.action[1], width=0.05, length_includes_head=True,
         color=PART_COLORS["action"], zorder=3)  # fmt: skip
ax.text(7.75, 0.5, f"({sample.action[0]:+.2f}, {sample.action[1]:+.2f})", ha="center", color=PART_COLORS["action"])
ax.set(xlim=(0, 9), ylim=(0, 3.7), aspect="equal")
plt.show()

# %% [markdown]
# ## The scene: a grid, blocks and colours
#
# The image is 64 × 64 pixels and is divided into 8 × 8 cells of 8 pixels. A block fills one cell exactly. A scene has
# three or four blocks, in distinct cells and of distinct colours, so "the red block" can only mean one of them. Cells
# are numbered row by row: cell 0 is at the top left, 7 at the top right, 63 at the bottom right. The row is the
# quotient of the number by 8 and the column the remainder.

# %%
IMAGE_SIZE, CELL_SIZE = 64, 8
GRID_SIZE = IMAGE_SIZE // CELL_SIZE
NUM_CELLS = GRID_SIZE**2
MIN_BLOCKS, MAX_BLOCKS = 3, 4
PALETTE = {
    "red": (214, 39, 40),
    "green": (44, 160, 44),
    "blue": (31, 90, 220),
    "yellow": (250, 215, 30),
    "purple": (150, 60, 200),
    "orange": (255, 127, 14),
}
COLORS = tuple(PALETTE)
BACKGROUND = (245, 245, 245)

for cell in (0, 7, 8, 63):
    row, column = divmod(cell, GRID_SIZE)
    print(f"cell {cell:2}: row {row}, column {column}")

# %% [markdown]
# ### Distinct random cells, for all scenes at once
#
# For one scene, `rng.choice(64, size=4, replace=False)` gives four distinct cells. For 8,000 scenes we would call it
# 8,000 times in a Python loop. It is faster to shuffle all scenes at once.
#
# The Fisher-Yates shuffle goes through a list and swaps position $i$ with a random position $j \ge i$. After $k$
# steps the first $k$ items are a uniform draw without replacement, in random order. So we stop after four steps, and
# do each step for all rows with one NumPy expression.


# %%
def draw_distinct(rng, num_samples, num_items, k):
    """Per row, `k` different numbers below `num_items`, in random order."""
    items = np.tile(np.arange(num_items), (num_samples, 1))  # (num_samples, num_items): a fresh deck for each row
    rows = np.arange(num_samples)
    for i in range(k):
        j = i + (rng.random_sample(num_samples) * (num_items - i)).astype(np.int64)  # i <= j < num_items, one per row
        items[rows, i], items[rows, j] = items[rows, j], items[rows, i]
    return items[:, :k]


draws = draw_distinct(np.random.RandomState(0), num_samples=100_000, num_items=6, k=4)
orders, counts = np.unique(draws, axis=0, return_counts=True)
print("shape", draws.shape, "and every row distinct:", (np.diff(np.sort(draws, axis=1), axis=1) > 0).all())
print(f"{len(orders)} orders seen of 6 x 5 x 4 x 3 = {6 * 5 * 4 * 3}; each {counts.min()} to {counts.max()} times, "
      f"{100_000 / 360:.0f} expected")  # fmt: skip

# %% [markdown]
# How much does this save? (Times differ from machine to machine, so yours will not be the ones shown.)


# %% tags=["nbval-ignore-output"]
def draw_in_a_loop(rng, num_samples, num_items, k):
    """The same kind of draw, one scene after the other."""
    return np.array([rng.choice(num_items, size=k, replace=False) for _ in range(num_samples)])


seconds = {}
for function in (draw_distinct, draw_in_a_loop):
    times = []
    for _ in range(3):
        started = time.perf_counter()
        function(np.random.RandomState(0), 4_000, NUM_CELLS, 4)
        times.append(time.perf_counter() - started)
    seconds[function.__name__] = min(times)
    print(f"{function.__name__:15} {1000 * min(times):6.1f} ms for 4,000 scenes")
assert 3 * seconds["draw_distinct"] < seconds["draw_in_a_loop"], "the vectorised draw should be several times faster"

# %% [markdown]
# **Why `RandomState` and not the newer `default_rng`?** The course promises the same bytes from the same seed on
# every machine. NumPy froze the stream of `RandomState` for good, but lets the newer `Generator`'s stream change
# between versions ([NEP 19](https://numpy.org/neps/nep-0019-rng-policy.html)). A dataset that is drawn anew on every
# machine needs the frozen one. We also draw only uniform floats. They are the simplest thing that a generator makes, and
# the rest of the arithmetic is ours.
#
# Now the blocks of a whole split. Each scene gets four cells and four colours; scenes with three blocks have their last
# slot set to −1. Slot 0 is the target. The cells are already in random order, so "the first one" is a fair choice. Here
# are five scenes. (A larger split from the same seed does not begin with these five. The part on splits shows why.)


# %%
def draw_blocks(num_samples, seed):
    """Cells and colours of every scene's blocks, -1 where a scene has fewer than four; slot 0 is the target."""
    rng = np.random.RandomState(seed)
    cells = draw_distinct(rng, num_samples, NUM_CELLS, MAX_BLOCKS)  # (n, 4)
    colors = draw_distinct(rng, num_samples, len(COLORS), MAX_BLOCKS)  # (n, 4)
    counts = MIN_BLOCKS + (rng.random_sample(num_samples) * (MAX_BLOCKS - MIN_BLOCKS + 1)).astype(np.int64)  # (n,)
    absent = np.arange(MAX_BLOCKS) >= counts[:, None]  # (n, 4)
    return np.where(absent, -1, cells), np.where(absent, -1, colors)


cells, colors = draw_blocks(num_samples=5, seed=42)
print("cells", cells.shape, "colours", colors.shape)
for cell_row, color_row in zip(cells.tolist(), colors.tolist(), strict=True):
    print("  ".join(f"{COLORS[k]:>6} at {c:2}" for c, k in zip(cell_row, color_row, strict=True) if c >= 0))

# %% [markdown]
# ### Painting
#
# The images are stored as `(n, 3, 64, 64)`: scenes, channels, rows (y), columns (x). To paint a cell without
# computing any pixel coordinates, we look at the same memory as `(n, 3, 8, 8, 8, 8)`: row of the grid, y inside the
# cell, column of the grid, x inside the cell. A reshape of a contiguous array is a *view*, so what we write there
# appears in the images.


# %%
def render(cells, colors):
    """Paint each scene's blocks; entries with cell -1 are skipped."""
    images = np.empty((len(cells), 3, IMAGE_SIZE, IMAGE_SIZE), dtype=np.uint8)
    images[:] = np.array(BACKGROUND, dtype=np.uint8)[:, None, None]
    tiles = images.reshape(-1, 3, GRID_SIZE, CELL_SIZE, GRID_SIZE, CELL_SIZE)  # (n, 3, row, y, column, x), a view
    scene, slot = np.nonzero(cells >= 0)  # one entry per block that is there
    row, column = np.divmod(cells[scene, slot], GRID_SIZE)
    paint = np.array(list(PALETTE.values()), dtype=np.uint8)[colors[scene, slot]]  # (blocks, 3)
    tiles[scene, :, row, :, column, :] = paint[:, :, None, None]  # (blocks, 3, y, x)
    return images


def render_in_a_loop(cells, colors):
    """The same, one block after the other: easy to read, so it checks the fast one."""
    images = np.full((len(cells), 3, IMAGE_SIZE, IMAGE_SIZE), 245, dtype=np.uint8)
    for image, scene_cells, scene_colors in zip(images, cells, colors, strict=True):
        for cell, color in zip(scene_cells, scene_colors, strict=True):
            if cell >= 0:
                y, x = CELL_SIZE * (cell // GRID_SIZE), CELL_SIZE * (cell % GRID_SIZE)
                image[:, y : y + CELL_SIZE, x : x + CELL_SIZE] = np.array(PALETTE[COLORS[color]])[:, None, None]
    return images


images = render(cells, colors)
print("images", images.shape, images.dtype)
print("equal to the slow version:", np.array_equal(images, render_in_a_loop(cells, colors)))

# %% [markdown]
# ## The instruction and the label
#
# The sentence is a template, `find the {color} block`. A template is enough to ask this chapter's question: does a
# policy *need* the words? (It does. The floors at the end show how far it gets without them.)
#
# The **action** is the direction in which to move: the unit vector from the image's centre to the *centre* of the
# target block, $x$ to the right and $y$ **down**, as everywhere in images:
#
# $$a = \frac{p - c}{\lVert p - c \rVert}, \qquad c = (32, 32), \qquad
# p = \left(8\,(\text{column} + \tfrac12),\; 8\,(\text{row} + \tfrac12)\right).$$
#
# Two details deserve care.
#
# - **The half.** A cell that starts at pixel 8 and is 8 wide has its centre at 12. Without the "+ ½" the arrow aims
#   at the cell's top-left corner. We come back to that.
# - **Pixels and points.** Pixel 0 covers the interval from 0 to 1, so its centre is at 0.5, and the image's centre is
#   at 32, between pixels 31 and 32. (Matplotlib's `imshow` counts differently: there pixel 0 is centred at 0 unless
#   you pass `extent`. Mixing the two conventions moves everything by half a pixel.)
#
# Block centres lie at 4, 12, ..., 60, never at 32, so the vector is never zero and always has a direction.
#
# The label is the most important line of the dataset: whatever it says, the policy will learn. So you write it.
#
# ## Exercise 1: write the label (10 minutes)
#
# Write `label_of(cells)`: for an integer array of cell numbers, of any shape, the unit vectors (dx, dy) from the image's
# centre to the cells' centres. One cell gives shape `(2,)`, an array of shape `(n, b)` gives `(n, b, 2)`. The check
# paints a block into every cell and compares your arrows with the pixels.
#
# <details><summary>Hint</summary>
#
# `np.divmod(cells, GRID_SIZE)` gives rows and columns. `np.stack([x, y], axis=-1)` puts the two coordinates into a new
# last axis. `np.linalg.norm(offset, axis=-1, keepdims=True)` is what to divide by.
#
# </details>


# %% tags=["exercise"]
def label_of(cells):
    """Unit vectors (dx, dy), x right and y down, from the image's centre to the cells' centres."""
    # your code here


# %% tags=["check"]
with checking("Exercise 1"):
    answer = label_of(np.arange(NUM_CELLS))
    assert answer is not None, "write the body of label_of first"
    answer = np.asarray(answer, dtype=float)
    assert answer.shape == (64, 2), f"64 cells should give the shape (64, 2), yours is {answer.shape}"
    bad = ~np.isfinite(answer).all(axis=1)
    assert not bad.any(), (
        f"cell {bad.argmax()}: your answer is {answer[bad.argmax()]}; did you divide by 0? From the image's centre to a "
        "cell's centre it is at least 5.7 pixels"
    )
    painted = render(np.arange(64)[:, None], np.zeros((64, 1), dtype=np.int64))  # a block in each cell
    places = [np.argwhere((image != 245).any(axis=0)) + 0.5 for image in painted]  # of its pixels, (y, x)
    offset = np.array([place.mean(axis=0)[::-1] - 32 for place in places])
    right = offset / np.linalg.norm(offset, axis=1, keepdims=True)
    close = np.abs(answer - right).max() < 1e-5
    corner, others = offset - CELL_SIZE / 2, np.arange(64) != 36  # cell 36's corner is the image's centre
    mistakes = {
        "x and y are exchanged: the column says how far right, the row how far down": offset[:, ::-1],
        "y runs down in an image, as the rows do; your arrows run up": offset * [1, -1],
        "the arrows point from the blocks to the centre": -offset,
        "the arrows aim at the cells' corners; the centre of a cell is half a cell further": corner,
    }
    for mistake, wrong in mistakes.items():
        wrong, mine = (arrows[others] / np.linalg.norm(arrows[others], axis=1)[:, None] for arrows in (wrong, answer))
        assert close or not np.allclose(mine, wrong, atol=1e-3), mistake
    lengths = np.linalg.norm(answer, axis=1)
    worst = np.abs(lengths - 1).argmax()
    assert abs(lengths[worst] - 1) < 1e-5, f"cell {worst}: the length should be 1, yours is {lengths[worst]:.3f}"
    degrees = np.degrees(np.arccos(np.clip((answer * right).sum(axis=1), -1, 1)))
    worst = degrees.argmax()
    assert close, (
        f"cell {worst}: the arrow misses the middle of the pixels by {degrees[worst]:.1f} degrees; "
        "the image's centre is at (32, 32), the middle of cell 0 at (4, 4)"
    )
    assert np.shape(label_of(np.array(7))) == (2,), "one cell should give the shape (2,)"
    table = np.array([[0, 7, 59], [3, 28, 16]])
    assert np.shape(label_of(table)) == (2, 3, 2), "cells of shape (2, 3) should give the shape (2, 3, 2)"
    assert np.abs(np.asarray(label_of(table)) - right[table]).max() < 1e-5, "wrong for cells of shape (2, 3)"

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def label_of(cells):
#     rows, columns = np.divmod(cells, GRID_SIZE)
#     centers = (np.stack([columns, rows], axis=-1) + 0.5) * CELL_SIZE
#     offset = centers - IMAGE_SIZE / 2
#     return offset / np.linalg.norm(offset, axis=-1, keepdims=True)
# ```
#
# The column becomes x and the row y. y already runs down, as the rows do, so no sign changes.
#
# </details>

# %% [markdown]
# The next cell holds the version that this notebook goes on with, so you can read on if yours is not ready yet. It
# computes in float64 and returns float32, as the package does.


# %%
def instruction_for(color):
    return f"find the {color} block"


def cell_centers(cells):
    """Centres (x, y) of grid cells, in pixels."""
    rows, columns = np.divmod(cells, GRID_SIZE)
    return ((np.stack([columns, rows], axis=-1) + 0.5) * CELL_SIZE).astype(np.float32)


def directions(cells):
    """Unit vectors (dx, dy), x right and y down, from the image's centre to the cells' centres."""
    offset = cell_centers(cells).astype(np.float64) - IMAGE_SIZE / 2
    return (offset / np.linalg.norm(offset, axis=-1, keepdims=True)).astype(np.float32)


all_cells = np.arange(NUM_CELLS)
actions = directions(all_cells)  # (64, 2)
print("shape", actions.shape, "lengths between", f"{np.linalg.norm(actions, axis=1).min():.4f} and "
      f"{np.linalg.norm(actions, axis=1).max():.4f}")  # fmt: skip
print("distinct directions:", len(np.unique(actions.round(5), axis=0)), "for", NUM_CELLS, "cells")
for name, cell in (("top left", 0), ("just right of the centre, above", 28), ("bottom, just left", 59)):
    dx, dy = actions[cell]
    print(f"cell {cell:2} ({name}): centre {cell_centers(np.array(cell)).tolist()}, action ({dx:+.2f}, {dy:+.2f})")

# %% [markdown]
# There are 64 cells but only 52 directions. The four cells of each half-diagonal share one, because an arrow of length
# one does not say how far to go.

# %% [markdown]
# ## The dataset, and the same as the package
#
# All parts are there. A split is the blocks of all scenes and what follows from them.


# %%
class BlockFind:
    """A split of the task, drawn from one seed."""

    def __init__(self, num_samples, seed):
        self.cells, self.colors = draw_blocks(num_samples, seed)  # (n, 4) each
        self.images = render(self.cells, self.colors)  # (n, 3, 64, 64)
        self.actions = directions(self.cells[:, 0])  # (n, 2), the target is in slot 0

    @property
    def instructions(self):
        return [instruction_for(COLORS[color]) for color in self.colors[:, 0]]

    def __len__(self):
        return len(self.cells)


mine = BlockFind(8_000, seed=42)
print("images", mine.images.shape, mine.images.dtype)
print("actions", mine.actions.shape, mine.actions.dtype)
print("first instruction:", mine.instructions[0])

# %% [markdown]
# Is it the dataset of the package, byte for byte? We compare every array, and the hash that the package's own tests
# keep. If NumPy, the platform or the code ever changed a single byte, the hash would differ.

# %% mystnb={"image": {"alt": "The first four training scenes, three or four coloured blocks each, with their instructions above. In each a black arrow from the centre points to the named block."}}
train = package.BlockFind(8_000, seed=42)
for name in ("cells", "colors", "images", "actions"):
    ours, theirs = getattr(mine, name), getattr(train, name)
    assert ours.dtype == theirs.dtype, name
    assert ours.tobytes() == theirs.tobytes(), f"{name} differ"
assert mine.instructions == train.instructions
digest = hashlib.sha256(mine.images.tobytes() + mine.actions.tobytes() + mine.colors.tobytes()).hexdigest()
assert digest.startswith("e3b734bbafce80ee"), digest
print("8,000 scenes, equal byte for byte with tinyvla.data.dataset.BlockFind; fingerprint", digest[:16])

fig, axes = plt.subplots(1, 4, figsize=(9, 2.7), layout="constrained")
for index, ax in enumerate(axes):
    plot_sample(train[index], ax=ax)
plt.show()

# %% [markdown]
# From here on we use the package's class. It adds three conveniences: `split[5]` is a `Sample` with image, instruction,
# action and colours, `BlockFind.from_blocks` makes a split from blocks that you choose yourself, and `split.retargeted()`
# has the same images with another of their blocks named.

# %% [markdown]
# ## Predict, run, explain: labels that are half a cell off
#
# A mistake that is easily made: compute the label from `8 * column` and `8 * row`. That leaves out the half, so the arrow
# aims at the cell's **top-left corner**, 4 pixels to the left of the block's centre and 4 pixels above it. Before you run
# the next cell, guess:
#
# 1. How far off is the arrow in the worst cell? (a) about 4 degrees (b) about 10 (c) about 20 (d) 45 or more
# 2. Suppose a policy learns these wrong labels perfectly. Its accuracy is measured as the share of arrows within
#    about 37 degrees, against **correct** labels. What does it score? (a) about 50 % (b) about 80 % (c) about 95 %
#    (d) 100 %


# %%
def corner_directions(cells):
    """The mistake: unit vectors to the cells' top-left corners; (0, 0) where there is nothing to normalise."""
    rows, columns = np.divmod(cells, GRID_SIZE)
    offset = np.stack([columns, rows], axis=-1) * CELL_SIZE - IMAGE_SIZE / 2  # no + 0.5
    length = np.linalg.norm(offset, axis=-1, keepdims=True)
    return (offset / np.where(length == 0, 1, length)).astype(np.float32)


wrong = corner_directions(all_cells)  # (64, 2)
cross = actions[:, 0] * wrong[:, 1] - actions[:, 1] * wrong[:, 0]
errors = np.abs(np.degrees(np.arctan2(cross, (actions * wrong).sum(axis=1))))  # (64,)
has_direction = np.linalg.norm(wrong, axis=1) > 0
print("cells without any direction:", all_cells[~has_direction].tolist(), "label", wrong[~has_direction].tolist())
for low, high in pairwise([0, 0.1, 5, 10, 20, 37, 46]):
    inside = has_direction & (errors >= low) & (errors < high)
    print(f"off by {low:4} to {high:2} degrees: {inside.sum():2} cells")
print(f"mean {errors[has_direction].mean():.1f}, worst {errors[has_direction].max():.1f} degrees")

test = package.BlockFind(1_000, seed=44)
corner_labels = torch.from_numpy(corner_directions(test.cells[:, 0]))
score = Metrics.of(corner_labels, torch.from_numpy(test.actions))
print(f"a policy that learned the corners: {score.direction_accuracy:.0%} within 37 degrees, "
      f"{score.within_10_degrees:.0%} within 10 degrees")  # fmt: skip

# %% tags=["hide-input"] jupyter={"source_hidden": true} mystnb={"image": {"alt": "Four scenes of one block: a black arrow to the block's middle, a magenta one to its top-left corner. Beside the centre they differ most; in the last scene the corner is the centre itself, and the magenta arrow shrinks to a dot."}}
chosen = np.array([28, 42, 14, 36])
fig, axes = plt.subplots(1, 4, figsize=(9, 2.9), layout="constrained")
for ax, cell, image in zip(axes, chosen, render(chosen[:, None], np.full((4, 1), 2)), strict=True):
    ax.imshow(image.transpose(1, 2, 0), extent=(0, 64, 64, 0), interpolation="nearest")
    for arrow, color, label in ((actions[cell], "#222222", "centre"), (wrong[cell], PART_COLORS["action"], "corner")):
        if arrow.any():
            ax.arrow(
                32, 32, *(27.0 * arrow), color=color, width=0.9, head_width=4, length_includes_head=True, label=label
            )
        else:
            ax.plot(32, 32, "o", color=color, ms=8)
    off = f"off by {errors[cell]:.0f}°" if wrong[cell].any() else "(0, 0), no direction"
    ax.set(title=f"cell {cell}: {off}", xticks=[0, 32, 64], yticks=[0, 32, 64])
    ax.title.set_fontsize(10)
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
plt.show()

# %% [markdown]
# **Explanation.** The corner is 5.7 pixels from the block's centre. For a block at the image's edge that is little. But
# the four blocks around the image's centre are themselves only 5.7 pixels away from it, and there the arrow turns by up
# to 45 degrees. One cell's corner *is* the image's centre. Its label is (0, 0), which has no direction. (Without the
# guard against a division by zero it would be NaN.)
#
# The second answer is the dangerous one. The policy still scores about 95 %, because the mistake is small in most cells
# and the usual metric is lenient. And a training curve compares the policy with its *own* labels. A policy that learned
# them perfectly has a loss of zero there. **A metric that is computed from the same wrong labels cannot see that they
# are wrong.** It takes something that does not depend on them: correct labels and a stricter metric (within 10 degrees
# only about 60 % remain), or a look at the pictures.

# %% [markdown]
# ### A test that looks at the picture
#
# A label test must not repeat the formula of the label, or it repeats its mistake. So we test against the pixels. Start
# at the image's centre and go along the arrow: does the ray pass through the named block? It does if the block has
# pixels ahead of us **on both sides** of the ray. The cross product's sign tells the side. (We look at the middles of
# the pixels, so a ray that touches no more than the block's outermost half pixel counts as a miss.)


# %%
def pixel_offsets(image, color):
    """Centres of all pixels of that colour, as (x, y) from the image's centre; shape (pixels, 2)."""
    y, x = np.nonzero((image == np.array(PALETTE[color])[:, None, None]).all(axis=0))
    return np.stack([x, y], axis=1) + 0.5 - IMAGE_SIZE / 2


def ray_hits(image, color, action):
    """Whether the ray from the image's centre along `action` passes through the block of that colour."""
    offset = pixel_offsets(image, color)
    ahead = offset[offset @ action > 0]
    side = action[0] * ahead[:, 1] - action[1] * ahead[:, 0]  # > 0 on one side of the ray, < 0 on the other
    return bool((side > 0).any() and (side < 0).any())


one_block = render(all_cells[:, None], np.zeros((NUM_CELLS, 1), dtype=np.int64))  # a red block in each cell
hits_right = np.array([ray_hits(image, "red", a) for image, a in zip(one_block, actions, strict=True)])
hits_wrong = np.array([ray_hits(image, "red", a) for image, a in zip(one_block, wrong, strict=True)])
hits_train = [ray_hits(train.images[i], train[i].colors[0], train.actions[i]) for i in range(1_000)]
print(f"labels at the centre: the ray hits the block in {hits_right.sum()} of 64 cells")
print(f"labels at the corner: the ray hits the block in {hits_wrong.sum()} of 64 cells")
print(f"our training split:   the ray hits the named block in {sum(hits_train)} of {len(hits_train)} scenes")

# %% tags=["hide-input"] jupyter={"source_hidden": true} mystnb={"image": {"alt": "Two 8 by 8 grids. Left: the corner label's error per cell, 0 on the main diagonal, up to 45 degrees next to the centre. Right: crosses where the ray test catches it; a square at the upper left and one at the lower right have none."}}
fig, axes = plt.subplots(1, 2, figsize=(9, 4.3), layout="constrained")
grid = np.where(has_direction, errors, np.nan).reshape(8, 8)
axes[0].imshow(grid, cmap="YlOrRd", vmin=0, vmax=60)
for cell in all_cells:
    row, column = divmod(int(cell), GRID_SIZE)
    text = f"{errors[cell]:.0f}" if has_direction[cell] else "none"
    axes[0].text(column, row, text, ha="center", va="center", fontsize=9)
axes[0].set(title="how far the corner label is off (degrees)", xlabel="column", ylabel="row")
axes[1].imshow(hits_wrong.reshape(8, 8), cmap="Greys", vmin=-0.2, vmax=3)
for cell in all_cells[~hits_wrong]:
    axes[1].text(cell % 8, cell // 8, "×", ha="center", va="center", fontsize=15, color=PART_COLORS["action"])
axes[1].set(title="cells in which the ray test catches it (×)", xlabel="column", ylabel="row")
for ax in axes:
    ax.axhline(3.5, color="black", lw=0.8)
    ax.axvline(3.5, color="black", lw=0.8)
plt.show()

# %% [markdown]
# The ray test catches the mistake in 39 cells, and misses it in 25. To the upper left of the centre, the top-left corner
# lies *behind* the block, and the ray to it goes through the block. To the lower right it lies *before* the block, and
# the ray goes on into it, except in row 4 and column 4: there it runs along the block's edge and counts as a miss, and
# cell 36 has no ray at all. In the other two quarters of the picture the corner is at the block's side, and the ray
# misses the block. If we had tried the test on one cell, chosen by chance, it would have found nothing with a chance of
# 25 in 64. **Run label tests over every case there is, not over one example.** Here there are only 64.

# %% [markdown]
# ## Exercise 2: a stricter label test (20 minutes)
#
# Write a test that asks for more than touching the block. `aims_at_centre` gets an image, the named colour and an action
# of any length. It returns `True` when the action's direction differs from the direction to the **mean position of the
# block's pixels** by at most `tolerance` degrees, to either side. An action of (0, 0) has no direction: return `False`.
# Use only the pixels, no cell numbers.
#
# <details><summary>Hint</summary>
#
# `pixel_offsets(image, color).mean(axis=0)` is where the block is. The angle between two vectors is
# `atan2(|cross product|, dot product)`.
#
# </details>


# %% tags=["exercise"]
def aims_at_centre(image, color, action, tolerance=1.0):
    """Whether the action points to the mean position of that colour's pixels, within `tolerance` degrees."""
    # your code here


# %% tags=["check"]
with checking("Exercise 2"):
    assert aims_at_centre(one_block[0], "red", actions[0]) is not None, "write the body of aims_at_centre first"

    def turned(action, degrees):
        turn = np.exp(1j * np.radians(degrees)) * complex(*action)
        return np.array([turn.real, turn.imag])

    for cell, (image, action) in enumerate(zip(one_block, actions, strict=True)):
        assert aims_at_centre(image, "red", action), f"it refuses the correct label of cell {cell}"
        assert not aims_at_centre(image, "red", -action), f"it accepts the opposite of the correct arrow in cell {cell}"
        for length in (0.2, 5.0):
            answer = aims_at_centre(image, "red", length * action)
            assert answer, f"cell {cell}: it refuses an arrow of length {length} in the right direction"
        for degrees in (-1.5, 1.5):
            answer = aims_at_centre(image, "red", turned(action, degrees))
            assert not answer, f"cell {cell}: it accepts an arrow that is off by {degrees} degrees"
            answer = aims_at_centre(image, "red", turned(action, degrees), tolerance=3.0)
            assert answer, f"cell {cell}: off by {degrees} degrees, it should be accepted with a tolerance of 3"
        for degrees in (-1.2, -0.8, 0.8, 1.2):
            answer = aims_at_centre(image, "red", turned(action, degrees))
            assert bool(answer) == (abs(degrees) < 1), (
                f"cell {cell}: off by {degrees} degrees, with a tolerance of 1 it says {bool(answer)}; is that an angle?"
            )
    assert not aims_at_centre(one_block[36], "red", np.zeros(2)), "it accepts (0, 0), which has no direction"
    for cell, other in ((24, 32), (3, 4)):  # 16 degrees apart, on either side of an axis
        answer = aims_at_centre(one_block[cell], "red", actions[other], tolerance=20.0)
        assert answer, f"cell {cell}: an arrow to cell {other} is off by 16 degrees; do angles wrap around at 180?"
    retargeted = train.rows(np.arange(200)).retargeted()  # the same images, another block is named
    for index in range(200):
        sample, other = train[index], retargeted[index]
        for color, action in ((sample.colors[0], sample.action), (other.colors[0], other.action)):
            answer = aims_at_centre(sample.image, color, action)
            assert answer, f"scene {index} has several blocks; look only at the pixels of the named one, {color}"
    caught = sum(not aims_at_centre(image, "red", a) for image, a in zip(one_block, wrong, strict=True))
    assert caught == 57, f"it should catch the corner labels in 57 of 64 cells, yours catches {caught}"
    for degrees in (-51, -49, 49, 51):  # far enough for the sine, the tangent and the chord to differ from the angle
        answer = bool(aims_at_centre(one_block[0], "red", turned(actions[0], degrees), tolerance=50.0))
        assert answer == (abs(degrees) < 50), (
            f"off by {degrees} degrees, with a tolerance of 50 it says {answer}; compare the angle itself, not its sine, "
            "its tangent or the distance of the arrows' tips"
        )
    axis = bool(aims_at_centre(one_block[24], "red", np.array([-1.0, 0.0]), tolerance=50.0))
    assert axis, "an arrow along an axis has a direction, too: only (0, 0) has none"
    assert aims_at_centre(one_block[0], "red", 0.01 * actions[0]), "it refuses a very short arrow; any length will do"
    beside = bool(aims_at_centre(one_block[0], "red", turned(actions[0], 100), tolerance=120.0))
    assert beside, "off by 100 degrees is within a tolerance of 120"

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def aims_at_centre(image, color, action, tolerance=1.0):
#     target = pixel_offsets(image, color).mean(axis=0)
#     if not np.any(action):
#         return False
#     cross = target[0] * action[1] - target[1] * action[0]
#     dot = target @ action
#     return bool(np.degrees(np.arctan2(abs(cross), dot)) <= tolerance)
# ```
#
# It catches 57 cells. The other seven lie on the diagonal from the top left to the bottom right. There corner and centre
# are in the same direction, so the wrong formula happens to be right. `atan2` is exact for small angles, where `acos` of
# a rounded cosine is not.
#
# </details>

# %% [markdown]
# ## Splits, seeds and leakage
#
# The course uses three splits, each with a seed of its own:
#
# | split | scenes | seed | used for |
# |---|---|---|---|
# | train | 8,000 | 42 | fitting the weights |
# | val | 1,000 | 43 | decisions: when to stop, which learning rate, which fusion |
# | test | 1,000 | 44 | the number that is reported; nothing is decided by it |
#
# Why three? Each decision that you make by looking at a split fits that split a little. The test split stays clean only
# as long as nothing is decided by it. A **leak** is anything that carries the answers of the test split into training.
# We look at three suspects.
#
# **One: the same scene by chance.** There are few blocks and many cells. Do scenes repeat? Guess first: if we draw
# scene after scene, after how many do we expect the first repeated image? (a) about 5,000 (b) about 100,000 (c) about
# 5 million (d) more than 100 million

# %%
val = package.BlockFind(1_000, seed=43)
splits = {"train": train, "val": val, "test": test}
images_of = {name: [image.tobytes() for image in split.images] for name, split in splits.items()}
for name, found in images_of.items():
    print(f"{name:5}: {len(found):5} images, {len(found) - len(set(found))} repeated")
for a, b in (("train", "val"), ("train", "test"), ("val", "test")):
    print(f"in {a} and {b}: {len(set(images_of[a]) & set(images_of[b]))}")

ways = {k: math.comb(64, k) * math.perm(6, k) for k in (3, 4)}  # which cells, then which colours on them
collision = sum(0.5**2 / number for number in ways.values())  # both scenes have k blocks, and they are the same
print(f"possible images: {ways[3]:,} with three blocks and {ways[4]:,} with four")
print(f"two scenes are the same with probability {collision:.1e}")
print(f"first repeat expected after about {math.sqrt(math.pi / 2 / collision):,.0f} scenes")

# %% [markdown]
# **The birthday argument.** Two given scenes are almost never the same. But $n$ scenes form $n(n-1)/2$ *pairs*, and
# with 8,000 scenes that is 32 million<!-- given --> chances. The expected number of equal pairs is
#
# $$\frac{n(n-1)}{2}\, q, \qquad q = \frac{(1/2)^2}{N_3} + \frac{(1/2)^2}{N_4},$$
#
# where $N_k$ is the number of images with $k$ blocks. In the same way, two splits of $n$ and $m$ scenes share $n m q$
# images on average. Does it hold? We count repeats in larger draws.


# %%
def equal_pairs(cells, colors):
    """Number of pairs of scenes with the same image, counted without painting it."""
    blocks = np.sort(np.where(cells >= 0, cells * len(COLORS) + colors, -1), axis=1)  # block order does not matter
    _, counts = np.unique(blocks @ np.array([400**3, 400**2, 400, 1]), return_counts=True)  # one number a scene
    return int((counts * (counts - 1) // 2).sum())


for n in (8_000, 25_000, 50_000, 100_000):
    found = equal_pairs(*draw_blocks(n, seed=42))
    print(f"{n:7,} scenes: {found:3} equal pairs found, {n * (n - 1) / 2 * collision:6.1f} expected")

shared = collision * (8_000 * 1_000 + 8_000 * 1_000 + 1_000 * 1_000)
print(f"images shared between the three splits: {shared:.2f} expected; "
      f"{math.exp(-shared):.0%} of all choices of three seeds share none")  # fmt: skip

# %% [markdown]
# The first repeat comes after about five and a half thousand scenes, although there are hundreds of millions of images.
# (Most repeats are scenes with three blocks: there are only five million of those.) One image occurs twice in train,
# which does no harm. The splits with the seeds 42, 43 and 44 share no image. That was not certain, so the package has a
# test for it: **count, do not assume**. And keep it in proportion: one shared image among 1,000 test scenes would change
# the accuracy by at most 0.1 points.
#
# **Two: the same seed.** What if somebody draws the validation split with the training seed, only shorter? Guess: how
# many of its 1,000 images are in train? (a) all (b) about a tenth (c) next to none

# %%
careless = package.BlockFind(1_000, seed=42)
number_of = {image: number for number, image in enumerate(images_of["train"])}
shared = {i: number_of[image.tobytes()] for i, image in enumerate(careless.images) if image.tobytes() in number_of}
print(f"of its {len(careless):,} images, {len(shared)} in train; its number and that in train: {shared}")
print("target cells equal to train's, scene by scene:", np.mean(careless.cells[:, 0] == train.cells[:1_000, 0]))
print("actions equal to train's, scene by scene:     ", np.array_equal(careless.actions, train.actions[:1_000]))

# %% [markdown]
# Next to none of the images, and all of the actions. (The single shared image is a chance repeat, as in the birthday
# argument: it has another number in train.) The generator draws for all scenes at once: first the target cell of every
# scene, then the next cell of every scene, and so on. Both splits begin with the same random numbers, so their target
# cells agree. After 1,000 numbers the shorter split goes on with its second blocks, and from there the two differ.
#
# Is it a leak? Our policy cannot use it, because nothing tells it the number of a scene. But the split is not what it
# claims to be. It does not ask about target cells that were drawn anew, it asks about the first thousand of train, in
# the same order. A check for duplicate images does not notice. So give each split a seed of its own: the package's
# `DataConfig` refuses equal seeds.
#
# **Three: rows that belong together.** Say we want more varied sentences and give every scene four wordings:
# "find the red block", "point to the red block", and so on. Then we shuffle all rows and cut off 10 %<!-- given --> for testing,
# which is the obvious thing to do. How many test rows show an image that was trained on, with the same answer?

# %%
scene_of_row = np.repeat(np.arange(2_000), 4)  # four wordings of each scene
shuffled = np.random.RandomState(0).permutation(scene_of_row)
train_rows, test_rows = np.split(shuffled, [int(0.9 * len(shuffled))])
leaked = np.isin(test_rows, train_rows).mean()
print(f"split by row:   {leaked:.1%} of {len(test_rows)} test rows show a scene from train")

scenes = np.random.RandomState(0).permutation(2_000)
is_test = np.isin(scene_of_row, scenes[:200])
leaked = np.isin(scene_of_row[is_test], scene_of_row[~is_test]).mean()
print(f"split by scene: {leaked:.1%} of {is_test.sum()} test rows")

# %% [markdown]
# Practically all of them. A policy could pass that test by remembering pictures. The rule: **find the thing that rows
# share, and split by that thing.** Here it is the scene. With robots it is the episode, because neighbouring frames of
# one recording are almost the same picture. Often it is also the room, the object or the robot.
#
# Finally, what does our test split *test*? There are 6 × 64 = 384 pairs of target colour and target cell.

# %%
pair_of = {name: split.colors[:, 0] * NUM_CELLS + split.cells[:, 0] for name, split in splits.items()}
per_pair = np.bincount(pair_of["train"], minlength=6 * NUM_CELLS)
print(f"pairs of target colour and cell in train: {np.count_nonzero(per_pair)} of {len(per_pair)}, "
      f"each {per_pair.min()} to {per_pair.max()} times")  # fmt: skip
print(f"test scenes whose pair was never in train: {np.sum(per_pair[pair_of['test']] == 0)} of {len(test)}")

# %% [markdown]
# In train, every colour has been the target in every cell. So test accuracy says how well the policy handles new
# *arrangements* of known colours in known places. It says nothing about new colours, unseen pairs of colour and cell, or
# other sizes.

# %% [markdown]
# ## Reading the data: is it balanced?
#
# If one colour or one corner were more frequent, a policy could gain by guessing it. So before you train on any dataset,
# plot its answers. In the two bar charts the grey band is where a fair draw falls nearly always (three standard
# deviations).

# %% mystnb={"image": {"alt": "Four plots of the training labels. Target colours and numbers of blocks are even, inside a grey band; target cells differ only by chance; the directions of the actions have high peaks at the four half-diagonals."}}
n = len(train)
target_colors = np.bincount(train.colors[:, 0], minlength=6)
block_counts = np.bincount((train.cells >= 0).sum(axis=1), minlength=5)[3:]
target_cells = np.bincount(train.cells[:, 0], minlength=NUM_CELLS)
angles = np.degrees(np.arctan2(-train.actions[:, 1], train.actions[:, 0])) % 360

fig, axes = plt.subplots(2, 2, figsize=(9, 6.2), layout="constrained")
for ax, values, names, paint in (
    (axes[0, 0], target_colors, COLORS, [np.array(rgb) / 255 for rgb in PALETTE.values()]),
    (axes[0, 1], block_counts, ("3 blocks", "4 blocks"), PART_COLORS["vision"]),
):
    ax.bar(names, values, color=paint)
    share = 1 / len(values)
    spread = 3 * math.sqrt(n * share * (1 - share))
    ax.axhspan(n * share - spread, n * share + spread, color="grey", alpha=0.35, zorder=0)
    ax.tick_params(axis="x", labelsize=9)
axes[0, 0].set(title="target colour", ylabel="scenes")
axes[0, 1].set(title="blocks in the scene", ylabel="scenes")
picture = axes[1, 0].imshow(target_cells.reshape(8, 8), cmap="Blues", vmin=0)
axes[1, 0].set(title="target cell", xlabel="column", ylabel="row", xticks=range(8), yticks=range(8))
fig.colorbar(picture, ax=axes[1, 0], label="scenes")
axes[1, 1].hist(angles, bins=np.arange(-2.5, 360, 5), color=PART_COLORS["action"])
axes[1, 1].set(title="direction of the action", xlabel="degrees, counter-clockwise from the right", ylabel="scenes",
               xticks=range(0, 361, 45))  # fmt: skip
plt.show()

print("target colours:", dict(zip(COLORS, target_colors.tolist(), strict=True)), f"expected {n / 6:.0f}")
print(f"target cells: {target_cells.min()} to {target_cells.max()} scenes, {n / 64:.0f} expected")
low, high = (n / 64 + sign * 3 * math.sqrt(n / 64 * 63 / 64) for sign in (-1, 1))
print(f"outside three standard deviations: {np.sum((target_cells < low) | (target_cells > high))} of 64 cells")

# %% [markdown]
# Colours, numbers of blocks and cells are even. The **directions are not**, and that is no mistake. The four highest bars
# are the half-diagonals: four cells share each of these directions. Each of the other 48 directions belongs to one cell.
# A bar is 5 degrees wide, and eight of the bars hold two such directions (8.1 and 11.3 degrees, for example), so they are
# about twice as high as the rest. Where there is no bar, there is no cell. Here a flat plot would be a sign of an error.

# %% [markdown]
# ## Bytes: why images stay uint8
#
# A pixel's channel has 256 values, and one byte holds them exactly. Networks want floats, but only for the batch they
# work on.

# %%
print(f"train as uint8:   {train.images.nbytes / 1e6:6.1f} MB")
print(f"train as float32: {train.images.size * 4 / 1e6:6.1f} MB")
print(f"train as float64: {train.images.size * 8 / 1e6:6.1f} MB, which is what NumPy's images / 255 makes:",
      (train.images[:1] / 255).dtype)  # fmt: skip
print(f"only the blocks:  {(train.cells.nbytes + train.colors.nbytes) / 1e6:6.1f} MB, enough to draw the rest again")

batch = torch.from_numpy(train.images[:64]).float() / 255  # what happens when a batch is taken
print("a batch:", tuple(batch.shape), batch.dtype, f"from {batch.min():.2f} to {batch.max():.2f}")

background = np.array(BACKGROUND, dtype=np.uint8)
print(f"arithmetic on uint8 wraps around: 2 * {background.tolist()} gives {(2 * background).tolist()}")

# %% [markdown]
# So the package keeps uint8 and converts when a batch is taken. That is a quarter of float32's memory, and a quarter of
# the bytes that go to a GPU. The last line shows a common accident: uint8 overflows without a warning. Convert to float
# **before** you do arithmetic.

# %% [markdown]
# ## Floors: how good is a policy that lacks something?
#
# Suppose a policy scores 45 %<!-- given -->. Is that good? Only a comparison can tell. A **floor** is the score of a policy that lacks
# something on purpose: the image, the words, or both. A policy that does not beat a floor has not shown that it uses
# what the floor lacks.
#
# The main metric is **direction accuracy**: the share of arrows whose cosine with the label is above 0.8, which means
# within $\arccos 0.8 \approx 37$ degrees. An arrow in a random direction is right when it falls into the 37 degrees
# to either side of the label, so with probability
#
# $$\frac{2 \cdot 37}{360} \approx 20\,\%.$$
#
# A *constant* answer scores about the same. Not exactly, because our labels have only 52 directions; this is the
# score of each constant answer when all 64 cells are equally likely:

# %% mystnb={"image": {"alt": "The direction accuracy of every constant answer from 0 to 360 degrees: a stepped line that stays close to the dashed line of a random direction, a little above it at the diagonals and below it at the axes."}}
answer_angles = np.arange(0.1, 360, 0.2)  # avoids angles that are exactly on the edge
radians = np.radians(answer_angles)
answers = np.stack([np.cos(radians), -np.sin(radians)], axis=1)  # (1800, 2), y down
constant_scores = (answers @ actions.T > 0.8).mean(axis=1)  # (1800,)
chance = 2 * math.degrees(math.acos(0.8)) / 360
print(f"2 x {math.degrees(math.acos(0.8)):.2f} / 360 = {chance:.4f}")
print(f"constant answers: {constant_scores.min():.1%} to {constant_scores.max():.1%}", end=", ")
print(f"{constant_scores.mean():.1%} on average")

fig, ax = plt.subplots(figsize=(7, 2.8), layout="constrained")
ax.plot(answer_angles, 100 * constant_scores, color=PART_COLORS["action"], label="always the same direction")
ax.axhline(100 * chance, color="grey", ls="--", label="a random direction")
ax.set(xlabel="the constant answer (degrees)", ylabel="direction accuracy (%)", ylim=(0, 32), xticks=range(0, 361, 45))
ax.legend(frameon=False, ncols=2, loc="upper center")
plt.show()

# %% [markdown]
# Now three policies that lack something. None needs training: we can say what the *best possible* policy of each kind
# would answer. Our policies will be trained with the squared error, and the answer that makes the squared error smallest
# is known: the **mean of the labels** that are still possible, given what the policy sees.
#
# - *Constant*: sees nothing. Answers the mean of all training labels.
# - *Language only*: answers the mean label of the named colour.
# - *Vision only*: sees the blocks but not the words. Each block is the target with equal probability, so it answers
#   the mean of the arrows to all of them.
#
# Guess the direction accuracy of the last one before you run the cell: (a) 20 % (b) 30 % (c) 45 % (d) 60 %

# %%
labels = torch.from_numpy(test.actions)
floors = {
    "constant": constant_floor(train, test),
    "language only": language_only_floor(train, test),
    "vision only": vision_only_floor(test),
    "the labels themselves": test.actions,
}
print(f"{'':22}{'L2 error':>9}{'direction accuracy':>20}{'within 10 degrees':>19}")
for name, answer in floors.items():
    metrics = Metrics.of(torch.from_numpy(answer), labels)
    print(f"{name:22}{metrics.l2_error:9.2f}{metrics.direction_accuracy:20.2f}{metrics.within_10_degrees:19.2f}")

one, other = np.nonzero(~np.eye(NUM_CELLS, dtype=bool))  # all pairs of different cells
lucky = Metrics.of(torch.from_numpy(actions[one]), torch.from_numpy(actions[other])).direction_accuracy
target = (1 / 3 + 1 / 4) / 2
print(f"a random block is the target in {target:.0%}, another one lies in nearly its direction in {lucky:.0%}: "
      f"together {target + (1 - target) * lucky:.0%}")  # fmt: skip
lengths = {name: np.linalg.norm(answer, axis=1).mean() for name, answer in floors.items()}
print("mean length of the answers:", {name: f"{length:.2f}" for name, length in lengths.items()})

# %% [markdown]
# **Constant and language only** are at chance. For every direction the opposite one is just as likely, so the mean label
# is almost the zero vector (see its length), and the little direction it has is noise. The language-only policy has one
# constant answer for each colour. It knows no more about places than the constant does: the curve above says that a
# constant scores between 16 % and 23 %. With 1,000 test scenes, a share near 0.2 is also uncertain by about 0.025 either
# way. The L2 error is 1.00, the distance from (0, 0) to any unit vector.
#
# **Vision only** is far above chance. Why? Suppose that it pointed to a random block. That is the target with probability
# ½ · ⅓ + ½ · ¼ ≈ 29 %. And if it is another block, that one may lie in nearly the same direction: for two random cells
# this happens in 21 % of cases. (Some pairs lie exactly on the edge, at a cosine of 0.8. Rounded, it comes out a hair
# above 0.8, so the metric counts them as right. Without them it would be 19 %<!-- given -->.) Together
# 0.29 + 0.71 · 0.21 ≈ 0.44. The mean of all arrows, which makes the squared error smallest, scores about the same here:
# 0.45.
#
# Look at the lengths, too. A vision-only policy answers with *short* arrows, because arrows in different directions
# partly cancel when they are averaged. If the arrows of your trained policy are short, it is probably averaging over
# answers that it cannot tell apart.
#
# ### Floors depend on the objective
#
# 0.45 is the floor of a policy trained with the squared error. Is it the most that *any* policy without words can reach?
# No. A policy can aim at the metric itself. For each image it chooses the direction that has the most blocks within 37
# degrees:

# %%
arrows = directions(test.cells)  # (n, 4, 2)
present = test.cells >= 0  # (n, 4)
near = (np.einsum("gd,nbd->gnb", answers, arrows) > 0.8) & present  # (1800, n, 4)
right_if_random_target = near.sum(axis=2) / present.sum(axis=1)  # (1800, n): share of blocks hit
best = right_if_random_target.max(axis=0)
squared = Metrics.of(torch.from_numpy(floors["vision only"]), labels)
print(f"vision only, best for the squared error:      {squared.direction_accuracy:.2f}")
print(f"vision only, best for the direction accuracy: {best.mean():.2f}")

# %% [markdown]
# So on these scenes a policy with 60 % direction accuracy may not have read a single word, and one with 95 % must have. On
# data with a shortcut the floors are higher, as the next section shows, so the same accuracy proves less. So
# [Chapter 6](06_evaluation.ipynb) does not stop at accuracy: it swaps the instruction and looks whether the arrow follows.
#
# ### Floors find shortcuts in the data
#
# A floor describes the *data*, so it can warn you before any training. Here we keep only scenes in which red, green and
# blue targets are in the left half and targets of the other colours in the right half. In the picture of a single scene
# you would notice nothing.


# %%
def keep_biased(split):
    """Scenes in which the first three colours are targets on the left, the others on the right."""
    keep = (split.cells[:, 0] % GRID_SIZE < GRID_SIZE // 2) == (split.colors[:, 0] < 3)
    return package.BlockFind.from_blocks(split.cells[keep], split.colors[keep])


biased_train, biased_test = keep_biased(train), keep_biased(test)
answer = torch.from_numpy(language_only_floor(biased_train, biased_test))
metrics = Metrics.of(answer, torch.from_numpy(biased_test.actions))
print(f"{len(biased_train)} training and {len(biased_test)} test scenes")
print(f"language only: direction accuracy {metrics.direction_accuracy:.2f}, L2 error {metrics.l2_error:.2f}")

# %% [markdown]
# A policy that never looks now does far better than chance. Baselines that see only a part of the input have uncovered such
# shortcuts in well-known datasets: the question without the picture in [questions about
# images](https://arxiv.org/abs/1612.00837), one of the two sentences in [textual
# inference](https://arxiv.org/abs/1805.01042).

# %% [markdown]
# ## Exercise 3: point to a random block (20 minutes)
#
# The text estimated that pointing to a random block is right in about 44 % of scenes. Check it. Write
# `random_block_floor(split, seed)`: for every scene, the unit vector to one of its blocks, each with equal probability.
# The shape is `(n, 2)`. It must never point to a block that is not there (cell −1), and the same seed must choose the
# same blocks.
#
# <details><summary>Hint</summary>
#
# Count the blocks of each scene, draw a slot below that count (as `draw_blocks` draws its counts), and pick the cell
# with `split.cells[np.arange(n), slot]`.
#
# </details>


# %% tags=["exercise"]
def random_block_floor(split, seed):
    """For each scene the unit vector to one of its blocks, chosen at random."""
    # your code here


# %% tags=["check"]
with checking("Exercise 3"):
    many = package.BlockFind(4_000, seed=7)
    answer = random_block_floor(many, 0)
    assert answer is not None, "write the body of random_block_floor first"
    answer = np.asarray(answer)
    assert answer.shape == (4_000, 2), f"the shape should be (4000, 2), yours is {answer.shape}"
    matches = np.abs(directions(many.cells) - answer[:, None]).max(axis=2) < 1e-5  # (n, 4)
    nowhere = (matches & (many.cells < 0)).any(axis=1) & ~(matches & (many.cells >= 0)).any(axis=1)
    assert not nowhere.any(), f"scene {nowhere.argmax()}: the arrow points to a block that is not there (cell -1)"
    matches &= many.cells >= 0
    hits = matches.any(axis=1)
    assert hits.all(), f"scene {hits.argmin()}: the arrow points to no block; is it the unit vector to one of them?"
    three = (many.cells >= 0).sum(axis=1) == 3
    for blocks, chosen_shares in ((3, matches[three].mean(axis=0)[:3]), (4, matches[~three].mean(axis=0))):
        fair = np.abs(chosen_shares - chosen_shares.mean()).max() < 0.05
        assert fair, (
            f"in scenes with {blocks} blocks, the shares of the slots should be equal; "
            f"yours are {chosen_shares.round(2).tolist()}"
        )
    slots = matches[three].argmax(axis=1)
    assert np.mean(slots[1:] == slots[:-1]) < 0.5, "many scenes in a row choose the same slot; draw for each scene"
    assert np.array_equal(answer, random_block_floor(many, 0)), "the same seed should choose the same blocks"
    assert not np.array_equal(answer, random_block_floor(many, 1)), "another seed should choose other blocks"
    for blocks, scene in ((3, three.argmax()), (4, (~three).argmax())):
        copies = package.BlockFind.from_blocks(
            *(np.repeat(a[[scene]], 2_000, axis=0) for a in (many.cells, many.colors))
        )
        answer = np.asarray(random_block_floor(copies, 0))
        slots = (np.abs(directions(copies.cells) - answer[:, None]).max(axis=2) < 1e-5)[:, :blocks].argmax(axis=1)
        for apart in range(1, 13):
            equal = np.mean(slots[apart:] == slots[:-apart])
            assert abs(equal - 1 / blocks) < 0.08, (
                f"in 2,000 copies of one scene with {blocks} blocks, scenes that are {apart} apart get the same slot in "
                f"{equal:.0%}, and chance gives {1 / blocks:.0%}: a rule chooses, not a random number"
            )

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def random_block_floor(split, seed):
#     rng = np.random.RandomState(seed)
#     counts = (split.cells >= 0).sum(axis=1)
#     slot = (rng.random_sample(len(split)) * counts).astype(np.int64)
#     return directions(split.cells[np.arange(len(split)), slot])
# ```
#
# `Metrics.of(torch.from_numpy(random_block_floor(test, 0)), labels)` compares it with the table above. The direction
# accuracy is nearly that of the vision-only floor. The L2 error is larger, because a wrong arrow of length one costs
# more than a short one. Nearly the same accuracy can go with a very different loss.
#
# </details>

# %% [markdown]
# ## Exercise 4: a new instruction (60 minutes)
#
# Make a harder task from the same scenes: **"find the block nearest to the red block"**. The named block is no longer
# the target: it is where to start looking. Write `nearest_task(split)`. For each scene, the block in slot 0 is the
# one that is *named*; the target is the other block whose centre is closest to it. Return three things:
#
# - `instructions`: a list of sentences, `find the block nearest to the {color} block`;
# - `actions`: `(n, 2)`, unit vectors from the image's centre to the target's centre;
# - `clear`: bool `(n,)`, `False` where two blocks are equally near. Such a scene has no right answer, and a dataset
#   must not ask about it.
#
# Where `clear` is `False` the action may be anything. Compare *squared* distances in whole cells: they are integers,
# so ties are exact. When it works, think about the task's floor: how far would a policy get with the image alone? The
# cell after the exercise computes it.
#
# <details><summary>Hint</summary>
#
# `rows, columns = np.divmod(split.cells, 8)`, then the squared distance of slots 1 to 3 from slot 0, shape `(n, 3)`.
# Set it to a large number where the cell is −1. The smallest and second smallest of a row: `np.sort(distance,
# axis=1)[:, :2]`.
#
# </details>


# %% tags=["exercise"]
def nearest_task(split):
    """Instructions, actions and clear flags of "find the block nearest to the {color} block"."""
    # your code here


# %% tags=["check"]
with checking("Exercise 4"):
    hand_cells = np.array([[0, 1, 63, -1], [9, 8, 10, -1], [27, 63, 2, 26], [1, 19, 4, -1], [6, 22, 12, -1]])
    hand_colors = np.array([[0, 1, 2, -1], [3, 1, 2, -1], [4, 1, 2, 3], [1, 0, 2, -1], [5, 0, 2, -1]])
    by_hand = package.BlockFind.from_blocks(hand_cells, hand_colors)
    result = nearest_task(by_hand)
    assert result is not None, "write the body of nearest_task first"
    instructions, new_actions, clear = result
    new_actions, clear = np.asarray(new_actions), np.asarray(clear)
    named = ["red", "yellow", "purple", "green", "orange"]
    wanted = [f"find the block nearest to the {color} block" for color in named]
    for number, (sentence, want) in enumerate(zip(instructions, wanted, strict=True)):
        assert sentence == want, f"scene {number}: the sentence is {sentence!r}, and slot 0 is {named[number]}"
    assert clear.tolist() == [True, False, True, True, True], (
        f"clear should be [True, False, True, True, True] (8 and 10 tie for 9), not {clear.tolist()}"
    )
    assert new_actions.shape == (5, 2), f"the actions of 5 scenes have the shape {new_actions.shape}, not (5, 2)"
    hints = {
        0: "cell 1 is beside cell 0",
        2: "slot 3 is a block, too: cell 26 is beside cell 27",
        3: "cell 19 is 2 rows and 2 columns away, cell 4 is 3 columns away; in a straight line 19 is nearer",
        4: "cell 22 is 2 rows away; a cell of -1 is no block",
    }
    for number, cell in ((0, 1), (2, 26), (3, 19), (4, 22)):
        from_named = directions(hand_cells[number, :1])[0]
        assert np.abs(new_actions[number] - from_named).max() > 1e-5, f"scene {number}: it points to the named block"
        close = np.abs(new_actions[number] - directions(np.array(cell))).max() < 1e-5
        assert close, f"scene {number}: the arrow should go from the image's centre to cell {cell}; {hints[number]}"
    many = package.BlockFind(2_000, seed=5)
    before = many.cells.copy()
    instructions, new_actions, clear = nearest_task(many)
    assert (many.cells == before).all(), "the split's cells were changed; work on a copy"
    assert len(instructions) == len(new_actions) == len(clear) == 2_000, "2000 scenes should give 2000 of each"
    for scene in range(2_000):
        color = COLORS[many.colors[scene, 0]]
        assert instructions[scene] == f"find the block nearest to the {color} block", f"scene {scene}: wrong sentence"
        places = [divmod(cell, 8) for cell in many.cells[scene].tolist() if cell >= 0]
        far = [(r - places[0][0]) ** 2 + (c - places[0][1]) ** 2 for r, c in places[1:]]
        assert bool(clear[scene]) == (far.count(min(far)) == 1), (
            f"scene {scene}: clear is {clear[scene]}, and the squared distances are {far}"
        )
        target = directions(many.cells[scene, 1 + far.index(min(far))])
        close = np.abs(np.asarray(new_actions[scene]) - target).max() < 1e-5
        assert close or not clear[scene], f"scene {scene}: wrong target; the squared distances are {far}"

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def nearest_task(split):
#     instructions = [f"find the block nearest to the {COLORS[c]} block" for c in split.colors[:, 0]]
#     rows, columns = np.divmod(split.cells, GRID_SIZE)
#     distance = (rows[:, 1:] - rows[:, :1]) ** 2 + (columns[:, 1:] - columns[:, :1]) ** 2  # (n, 3)
#     distance[split.cells[:, 1:] < 0] = 10_000  # farther than any block
#     smallest = np.sort(distance, axis=1)
#     target = 1 + distance.argmin(axis=1)
#     actions = directions(split.cells[np.arange(len(split)), target])
#     return instructions, actions, smallest[:, 0] < smallest[:, 1]
# ```
#
# `distance` starts as whole numbers, so "equally near" is exact. Filling the missing blocks with a large number keeps
# them from being the nearest.
#
# </details>

# %% [markdown]
# ### The floors of the new task
#
# The words alone still know nothing about places. What about the image alone? Guess: is its floor lower than the old
# task's 0.45, about the same, or higher?
#
# We need it for the *new* task. For a policy that cannot read, any block may be the named one, and each name has its own
# right answer: the nearest other block. Under the squared error the best answer is the mean of those.

# %%
from tinyvla.course.ch01 import nearest_arrows

nearest, possible = nearest_arrows(
    test
)  # (n, 4, 2) and (n, 4): the right arrow if slot 0, 1, 2, 3 is named; is it clear?
clear = possible[:, 0]
truth = nearest[clear, 0]
nearest, possible, old_floor = nearest[clear], possible[clear], vision_only_floor(test)[clear]
mean = (nearest * possible[..., None]).sum(axis=1) / possible.sum(axis=1, keepdims=True)
near = (np.einsum("gd,nbd->gnb", answers, nearest) > 0.8) & possible
best = (near.sum(axis=2) / possible.sum(axis=1)).max(axis=0)
for name, answer in (("mean of the arrows to all blocks", old_floor), ("mean of the possible answers", mean)):
    accuracy = Metrics.of(torch.from_numpy(answer), torch.from_numpy(truth)).direction_accuracy
    print(f"vision only, {name:35} {accuracy:.2f}")
print(f"vision only, {'best for the direction accuracy':35} {best.mean():.2f}")
different = [len(np.unique(arrows[names], axis=0)) for arrows, names in zip(nearest, possible, strict=True)]
print(
    f"{clear.sum()} clear scenes, each with {possible.sum() / clear.sum():.1f} names and {np.mean(different):.1f} answers"
)
pairs = []  # for each two different answers of one scene: do they lie within 37 degrees?
for scene_arrows, names in zip(nearest, possible, strict=True):
    distinct = np.unique(scene_arrows[names], axis=0)
    pairs.extend((distinct @ distinct.T)[np.triu_indices(len(distinct), k=1)] > 0.8)
print(f"two different answers of a scene lie in nearly the same direction in {np.mean(pairs):.0%} of cases", end=", ")
print(f"two random cells in {lucky:.0%}")

# %% [markdown]
# The floor of the image alone is much **higher** than before, although the task sounds harder. A block in a crowd is the
# nearest one to several others, so it is the answer to several sentences: a scene has fewer different answers than names.
# And two answers of a scene lie in nearly the same direction more often than two random cells do, as the last line says,
# because they are often near each other. So one arrow can serve two answers.
#
# The first line is the answer that was the old task's floor, the mean of the arrows to *all* blocks, judged on this task. It is
# no floor here: a policy that cannot read gets further. **A new task needs its floors computed anew.**

# %% [markdown]
# ## Check yourself
#
# <details><summary>Why does the label test look at pixels and not at cell numbers?</summary>
#
# A test that uses the same formula, or the same intermediate result, as the label repeats its mistakes. The pixels
# are what the policy sees; if label and pixels agree, the label is right whatever the code says.
#
# </details>
#
# <details><summary>The training loss falls to nearly zero on the corner labels. What does that say about them?</summary>
#
# Nothing. The loss compares the policy with the labels, right or wrong. Only a comparison with something that does not
# depend on the labels, such as the pixels, can show that they are wrong.
#
# </details>
#
# <details><summary>Two scenes are equal once in twenty million times. Why do 8,000 scenes have a repeat?</summary>
#
# Because 8,000 scenes form 32 million<!-- given --> pairs, and each pair has that chance. Repeats grow with the square of the
# number of scenes: twice as many scenes, four times as many equal pairs.
#
# </details>
#
# <details><summary>A policy's direction accuracy is 44 %, its mean arrow length about a half. What is wrong?</summary>
#
# That looks like the vision-only floor: the policy sees the blocks and averages over them, so the instruction probably
# does not reach the action. Look at the way from the words to the action ([Chapters 3](03_language.ipynb) and
# [4](04_fusion.ipynb)), and whether instructions and images still belong together.
#
# </details>
#
# <details><summary>You record 50 episodes with a robot, 200 frames each. How do you split them?</summary>
#
# By episode (or by room or object, if you want to know about new rooms or objects), never by frame. Neighbouring
# frames are almost the same picture with almost the same action, so a split by frame puts near-copies of the test
# into training.
#
# </details>

# %% [markdown]
# ## Summary
#
# - A BlockFind scene is 3 or 4 coloured blocks on an 8 × 8 grid, a sentence that names one, and the unit vector from
#   the image's centre to that block's centre.
# - Drawing all scenes at once with `RandomState` is fast and gives the same bytes on every machine.
# - A label that is half a cell off turns arrows by up to 45 degrees, and costs only about 5 points of a lenient accuracy.
#   Test labels against the pixels, in every case there is.
# - Different images do not make splits independent. Count duplicates, give each split its own seed, split by what
#   rows share.
# - Floors give accuracy its meaning: about 20 % for a constant or for words alone, about 45 % for the image alone under
#   the squared error, and about 62 % for an image-only policy that aims at the metric. Another task has other floors.
#
# ## Sources
#
# - [NEP 19, Random number generator policy](https://numpy.org/neps/nep-0019-rng-policy.html): why `RandomState` never
#   changes.
# - [CLEVR](https://arxiv.org/abs/1612.06890): a synthetic dataset built to control biases, in the same spirit and far
#   richer.
# - [Making the V in VQA Matter](https://arxiv.org/abs/1612.00837) and [Hypothesis Only Baselines in Natural Language
#   Inference](https://arxiv.org/abs/1805.01042): what floors found in other datasets.
# - [OpenVLA](https://arxiv.org/abs/2406.09246) and [SmolVLA](https://arxiv.org/abs/2506.01844): the sizes of real
#   robot datasets.
# - [`tinyvla/data/dataset.py`](https://github.com/tinyvla/tinyvla/blob/main/tinyvla/data/dataset.py): the module that you have
#   just rebuilt, and
#   [`tests/data/test_dataset.py`](https://github.com/tinyvla/tinyvla/blob/main/tests/data/test_dataset.py), its tests.
#
# ## Next
#
# [Chapter 2: Vision](02_vision.ipynb) turns these images into tokens, and shows what happens when a token says much about
# what a patch shows and little about where it is.
