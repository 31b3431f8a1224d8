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
# # 2. Vision: from pixels to tokens
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/tinyvla/tinyvla/blob/main/notebooks/02_vision.ipynb)
#
# An image of 64 x 64 pixels is 12,288 numbers. In this chapter you build the part that turns them into 65 vectors, called
# tokens: one for each 8 x 8 patch and one for the whole scene. It is a small vision transformer (ViT), of the same kind
# as the vision parts of full-size robot policies. [OpenVLA](https://arxiv.org/abs/2406.09246), for example, cuts its
# camera image into 256 patches and hands the patch tokens to a language model.
#
# Then you look inside the tokens: what does a patch token know before any training, and what after? The last part is
# about one number, the scale at which the positions start. If it is small, the loss hardly falls for hundreds of steps,
# sometimes for more than a thousand, although all that the policy needs to know is there.
#
# **You will be able to**
#
# - write the function that cuts an image into patches, and show that projecting them equals a strided convolution;
# - write attention, with its mask;
# - build a pre-norm transformer block with QK-norm, and say what each part is for;
# - measure what a token knows with a linear probe, and say what a probe does not prove;
# - say why a flat loss curve does not prove that a policy cannot learn.
#
# **Time:** about 30 minutes to read, about 2 minutes on two CPU cores, 20 seconds on a GPU to run.
#
# **Before you start:** tensors, `nn.Module` and what a training step is. [Chapter 1](01_dataset.ipynb) introduces the
# scenes: 64 x 64 images with three or four coloured blocks, each filling one cell of an 8 x 8 grid.

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
import contextlib
import math
from unittest import mock

import matplotlib.pyplot as plt
import torch.nn.functional as F
from torch import nn

import tinyvla.model.vision
from tinyvla.config import VisionConfig, model_config
from tinyvla.course.exercises import checking
from tinyvla.course.zoo import trained_policy
from tinyvla.data.batch import TensorSplit
from tinyvla.data.dataset import BlockFind, cell_centers, directions
from tinyvla.learn.callbacks import TensorBoard
from tinyvla.learn.evaluate import Metrics
from tinyvla.learn.train import fit
from tinyvla.model.policy import count_parameters, new_policy
from tinyvla.model.tokenizer import encode
from tinyvla.recipes import TrainConfig
from tinyvla.show.plots import PART_COLORS

scenes = BlockFind(1_000, seed=44)
images = torch.from_numpy(scenes.images).float() / 255  # (scenes, channels, height, width), values in [0, 1]
config = model_config("nano").vision
print(f"images {tuple(images.shape)}")
print(config)

# %% [markdown]
# This is what you will build. An image enters at the left; tokens leave at the right.

# %% tags=["hide-input"] jupyter={"source_hidden": true} mystnb={"image": {"alt": "Diagram: an image is cut into 64 patches; a linear layer, positions, CLS, two blocks and a LayerNorm follow. Below, one block: LayerNorm with attention, then LayerNorm with an MLP, each added to the stream that runs through."}}
fig, ax = plt.subplots(figsize=(9, 3.7), layout="constrained")
fig.set_facecolor("white")
ax.set(xlim=(0, 100), ylim=(0, 40))
ax.axis("off")


def draw_box(x, y, width, height, text, color=PART_COLORS["vision"], **style):
    """A filled box with centred text."""
    ax.add_patch(plt.Rectangle((x, y), width, height, facecolor=color, edgecolor="none", **style))
    ax.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=9.5, color="white")


def connect(x, y, to_x, to_y):
    """An arrow from one point to another."""
    ax.annotate("", (to_x, to_y), (x, y), arrowprops={"arrowstyle": "-|>", "color": "#444444", "lw": 1.2})


image_ax = ax.inset_axes([0, 22, 15, 18], transform=ax.transData)
image_ax.imshow(scenes.images[4].transpose(1, 2, 0))
image_ax.set(xticks=[], yticks=[])
tower = [
    (20, "cut into\n64 patches"),
    (36, "linear layer\n192 → 96"),
    (52, "add\npositions"),
    (68, "2 blocks"),
    (84, "LayerNorm"),
]
for x, text in tower:
    draw_box(x, 26, 12, 10, text)
    connect(x - 4 if x > 20 else 15.5, 31, x, 31)
connect(96, 31, 100, 31)
ax.text(100, 38, "65 tokens of width 96", ha="right", fontsize=9)
ax.text(66, 38, "CLS joins", ha="center", fontsize=9)
connect(66, 37.5, 66, 31.5)
# One block, below: two branches, each added to the stream that runs through.
ax.text(15.5, 8, "one block", ha="right", va="center", fontsize=9.5)
connect(18, 3, 100, 3)
for x, text in ((26, "attention"), (64, "MLP")):
    draw_box(x, 9, 10, 6, "LayerNorm", color="#8a8a8a")
    draw_box(x + 13, 9, 10, 6, text)
    connect(x - 2, 3, x, 11)
    connect(x + 10, 12, x + 13, 12)
    connect(x + 23, 11, x + 26.3, 4.2)
    ax.text(x + 27, 3, "+", ha="center", va="center", fontsize=13, bbox={"boxstyle": "circle,pad=0.1", "fc": "white"})
ax.plot([68, 18], [25.5, 17], [80, 100], [25.5, 17], color="#aaaaaa", lw=1, ls=":")
plt.show()

# %% [markdown]
# ## 1. Patches
#
# A transformer works on a list of vectors, so the image must become a list. One vector per pixel would be 4,096 of
# them, and attention compares each with each. ViT cuts squares instead ([Dosovitskiy et al.
# 2020](https://arxiv.org/abs/2010.11929)): here 8 x 8 pixels, which gives 64 vectors.
#
# Cutting needs no loop. Row `y` of the image is row `y // 8` of the grid and row `y % 8` inside the patch. So the height
# axis splits into two axes, and so does the width. Then the two grid axes move to the front, and the rest is flattened.
#
# ## Exercise 1: cut the image into patches (10 minutes)
#
# Write `cut_patches(images, patch_size)`. Images of shape `(batch, channels, height, width)` become patches of shape
# `(batch, rows * columns, channels * patch_size**2)`. The patches go row by row, as one reads. The numbers inside a patch
# are ordered by channel, then by y, then by x. Images need not be square.
#
# <details><summary>Hint</summary>
#
# `reshape` to `(batch, channels, rows, patch_size, columns, patch_size)`. `permute` so that rows and columns follow the
# batch, and channel, y and x come last. Then `reshape` once more.
#
# </details>


# %% tags=["exercise"]
def cut_patches(images, patch_size):
    """Patches (batch, rows * columns, channels * patch_size**2) of images (batch, channels, height, width)."""
    # your code here


# %% tags=["check"]
with checking("Exercise 1"):
    for channels, height, width, size in ((3, 16, 24, 8), (2, 12, 8, 4)):
        numbered = torch.arange(2 * channels * height * width).float().view(2, channels, height, width)
        answer = cut_patches(numbered, size)
        assert answer is not None, "write the body of cut_patches first"
        about = f"images of {height} x {width} with {channels} channels, patches of {size}"
        corners = [(y, x) for y in range(0, height, size) for x in range(0, width, size)]
        cut = [numbered[:, :, y : y + size, x : x + size] for y, x in corners]
        right = torch.stack([patch.flatten(1) for patch in cut], dim=1)
        shape, want = tuple(answer.shape), tuple(right.shape)
        assert shape == want, f"{about}: the shape should be {want}, yours is {shape}"
        columns = [patch for x in range(width // size) for patch in cut[x :: width // size]]
        mistakes = {
            "a bare reshape has the right shape, but its patches are stripes": numbered.reshape(right.shape),
            "the patches go column by column": torch.stack([patch.flatten(1) for patch in columns], dim=1),
            "x and y are exchanged inside the patches": torch.stack([patch.mT.flatten(1) for patch in cut], dim=1),
            "the channel comes first inside a patch, and yours comes last": torch.stack(
                [patch.permute(0, 2, 3, 1).flatten(1) for patch in cut], dim=1
            ),
        }
        for mistake, wrong in mistakes.items():
            assert torch.equal(answer, right) or not torch.equal(answer, wrong), f"{about}: {mistake}"
        assert answer.unique().numel() == numbered.numel(), f"{about}: some pixels are lost or doubled"
        assert torch.equal(answer, right), (
            f"{about}: all pixels are there, some in the wrong place; check the permutation"
        )

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def cut_patches(images, patch_size):
#     batch, channels, height, width = images.shape
#     rows, columns = height // patch_size, width // patch_size
#     split = images.reshape(batch, channels, rows, patch_size, columns, patch_size)
#     return split.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, channels * patch_size**2)
# ```
#
# The permutation brings the axes to (batch, row, column, channel, y in patch, x in patch). Axes that are neighbours can
# then be merged: row and column become the patch's number, the other three its values.
#
# </details>

# %% [markdown]
# The package cuts in another way: `unfold` slides a window along an axis. The next cell writes it out, and the notebook
# goes on with that version, so you can read on if yours is not ready yet. A `reshape` straight to `(batch, 64, 192)` has
# the right shape too, but its "patches" are stripes of pixel rows.


# %%
def patchify(images, patch_size):
    """Cut images into flattened patches, row by row."""
    windows = images.unfold(2, patch_size, patch_size).unfold(3, patch_size, patch_size)
    # windows: (batch, channels, rows, columns, patch_size, patch_size)
    return windows.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)


patch_size = 8
grid_size = 64 // patch_size
patches = patchify(images, patch_size)
print("images ", tuple(images.shape), "(batch, channel, y, x)")
print("patches", tuple(patches.shape), "(batch, patch, values of one patch)")
assert torch.equal(patches, tinyvla.model.vision.TinyViT(config).patchify(images))
assert not torch.equal(patches, images.reshape(-1, 64, 192))
print("the package cuts the same patches; a bare reshape does not")

# %% tags=["hide-input"] jupyter={"source_hidden": true} mystnb={"image": {"alt": "Left: a scene with the grid drawn in. Middle: the same cut into 64 numbered patches, three of them coloured. Right: the 192 numbers of the blue block's patch, three flat pieces for red, green and blue, the blue one highest."}}
fig, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained", width_ratios=[1, 1, 1.25])
fig.set_facecolor("white")
chosen = int(scenes.cells[4, 0])  # the cell of the target block
axes[0].imshow(scenes.images[4].transpose(1, 2, 0))
axes[0].set(title="64 x 64 pixels", xticks=[], yticks=[])
for line in range(0, 65, 8):
    axes[0].axhline(line - 0.5, color="grey", lw=0.4)
    axes[0].axvline(line - 0.5, color="grey", lw=0.4)
axes[1].set(title="64 patches, row by row", xlim=(0, 8), ylim=(8, 0), aspect="equal")
axes[1].axis("off")
for number, patch in enumerate(patches[4]):
    row, column = divmod(number, 8)
    axes[1].imshow(patch.view(3, 8, 8).permute(1, 2, 0), extent=(column + 0.07, column + 0.93, row + 0.93, row + 0.07))
    ink = "white" if patch.mean() < 0.8 else "#777777"
    axes[1].text(column + 0.5, row + 0.52, number, fontsize=9, ha="center", va="center", color=ink)
axes[1].set(xlim=(0, 8), ylim=(8, 0))
for channel, (name, color) in enumerate({"red": "#d62728", "green": "#2ca02c", "blue": "#1f5adc"}.items()):
    values, start = patches[4, chosen].view(3, 64)[channel], 64 * channel
    axes[2].plot(range(start, start + 64), values, color=color, lw=3)
    axes[2].text(start + 32, values.mean() + 0.03, name, ha="center", fontsize=10, color=color)
axes[2].set(
    title=f"patch {chosen} as 192 numbers",
    ylim=(0, 1.05),
    xticks=[0, 64, 128, 192],
    ylabel="value",
    xlabel="number in the vector",
)
plt.show()

# %% [markdown]
# In BlockFind a block fills exactly one patch, so each patch has a single colour. That makes the tokens easy to study.
# In camera images an object spans many patches, and the transformer's blocks have to put them together.
#
# ## 2. One linear layer
#
# Each patch, 192 numbers, is mapped to the width of the model, here 96, by one linear layer that all patches share.
# Pixel values are first moved from [0, 1] to [-1, 1], so that dark and bright are equally far from zero.
#
# Many implementations write this step as a convolution with kernel size and stride 8. It is the same thing: the kernel
# lands once on each patch and forms the same weighted sums. Only the shape of the weights differs: `(96, 192)` for the
# linear layer, `(96, 3, 8, 8)` for the convolution.

# %%
torch.manual_seed(0)
projection = nn.Linear(3 * patch_size**2, config.embed_dim)
projected = projection(patchify(2 * images - 1, patch_size))
print("projected  ", tuple(projected.shape), "(batch, patch, width)")

convolution = nn.Conv2d(3, config.embed_dim, kernel_size=patch_size, stride=patch_size)
with torch.no_grad():
    convolution.weight.copy_(projection.weight.view(config.embed_dim, 3, patch_size, patch_size))
    convolution.bias.copy_(projection.bias)
feature_map = convolution(2 * images - 1)
print("convolution", tuple(feature_map.shape), "(batch, width, row, column)")
torch.testing.assert_close(feature_map.flatten(2).transpose(1, 2), projected, atol=1e-4, rtol=1e-4)
print("same numbers")

# %% [markdown]
# ## 3. Positions
#
# How many *different* tokens does a scene give so far?

# %%
for scene in range(3):
    num_blocks = int((scenes.cells[scene] >= 0).sum())
    print(f"scene {scene}: {num_blocks} blocks, 64 patches, {len(patches[scene].unique(dim=0))} different ones")

# %% [markdown]
# One for each colour, and one for all the background. Two scenes with the same colours in other places give the same
# tokens in another order, and a transformer's block pays no attention to order (you will test that in part 5). A policy
# that has to say *where* a block is needs the position inside the token.
#
# The usual way is to **add** a vector to each projected patch, a different one for each grid cell. TinyViT uses fixed
# vectors made of sines and cosines. For one coordinate $c$ and frequencies $\omega_1 \dots \omega_k$:
#
# $$\bigl(\sin \omega_1 c, \dots, \sin \omega_k c, \; \cos \omega_1 c, \dots, \cos \omega_k c\bigr)$$
#
# Fast frequencies (one radian a cell) tell neighbours apart. Slow sines (1/100 radian a cell) are almost straight lines
# over the image, so they say how far along it a cell lies; slow cosines hardly change. Half of the features encode $x$,
# half encode $y$.
#
# The coordinates count from the image's **centre**, because the actions do: the label is the arrow from the centre to
# the block. A sine is odd, so left and right of the centre differ by the sign of a feature.


# %%
def sincos_positions(coordinates, dim, max_period=100.0):
    """Sines and cosines of the coordinates at `dim / 2` frequencies from 1 down to `1 / max_period`."""
    frequencies = max_period ** -torch.linspace(0, 1, dim // 2)
    angles = coordinates[:, None] * frequencies  # (cells, dim / 2)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def grid_positions(grid_size, dim):
    """Positions of a grid's cells, row by row; the origin is the grid's centre."""
    axis = torch.arange(grid_size) - (grid_size - 1) / 2  # -3.5, -2.5, ..., 3.5 for a grid of 8
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.cat([sincos_positions(x.flatten(), dim // 2), sincos_positions(y.flatten(), dim // 2)], dim=1)


positions = grid_positions(grid_size, config.embed_dim)
print("positions", tuple(positions.shape), "(patch, width)")
torch.testing.assert_close(positions, tinyvla.model.vision.grid_positions((8, 8), 96))
tokens = projected + positions
print(f"same as the package; scene 0 now has {len(tokens[0].unique(dim=0))} different tokens")

# %% tags=["hide-input"] jupyter={"source_hidden": true} mystnb={"image": {"alt": "Left: the 64 position vectors as a colour map in four stripes, sine and cosine of x and of y; the x stripes repeat in every grid row. Right: for three cells, the similarity to all cells, which fades with distance."}}
fig, axes = plt.subplots(1, 4, figsize=(9, 2.9), layout="constrained", width_ratios=[1.6, 1, 1, 1])
fig.set_facecolor("white")
axes[0].imshow(positions, cmap="RdBu", vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
axes[0].set(title="the 64 position vectors", xlabel="feature", ylabel="patch", yticks=[0, 16, 32, 48, 63])
axes[0].set_xticks([12, 36, 60, 84], ["sin x", "cos x", "sin y", "cos y"], fontsize=9)
for boundary in (24, 48, 72):
    axes[0].axvline(boundary - 0.5, color="black", lw=0.8)
for ax, cell in zip(axes[1:], (0, 27, 38), strict=True):
    similarity = F.cosine_similarity(positions[cell], positions, dim=1).view(8, 8)
    picture = ax.imshow(similarity, cmap="viridis", vmin=0.3, vmax=1)
    ax.plot(cell % 8, cell // 8, "o", ms=5, color="#c2185b")
    ax.set(title=f"similarity to {cell}", xticks=[], yticks=[])
fig.colorbar(picture, ax=axes[1:], shrink=0.7, label="cosine similarity")
plt.show()

# %% [markdown]
# Left: one row per grid cell, red for negative, blue for positive. Most sines of $x$ go from negative to positive within
# each row of the grid and start again in the next. Those of $y$ change once from top to bottom. Right: a cell (dark pink dot)
# is most similar to its neighbours. Along its own row and column the similarity falls to about 0.75, because one of the
# two coordinates stays the same; diagonally it falls to about 0.5. The model has no other way to know that the grid has
# two dimensions.
#
# One more token is put in front of the patches: **CLS**, a learned vector that belongs to no place. It can collect what
# concerns the whole scene.
#
# ## 4. Attention
#
# So far each token knows its own patch. Attention lets tokens read from each other. Each token makes three vectors by
# linear layers: a **query** (what am I looking for), a **key** (what do I offer) and a **value** (what I pass on). The
# query is compared with all keys; a softmax turns the products into weights that sum to one; the result is the weighted
# mean of the values ([Vaswani et al. 2017](https://arxiv.org/abs/1706.03762)):
#
# $$\mathrm{attention}(Q, K, V) = \mathrm{softmax}\!\left(\frac{Q K^\top}{\sqrt{d}}\right) V$$
#
# The sum of $d$ products of numbers of size 1 has size $\sqrt d$; dividing by it keeps the softmax's inputs at size 1
# whatever the width. Several **heads** do this side by side, each on its own slice of the width, so that a token can
# look for several things at once.
#
# A **mask** says which query may look at which key. Where it is False, the weight must be zero, and the other weights must
# still sum to one. So it is applied *before* the softmax: a logit of minus infinity becomes a weight of zero.
#
# ## Exercise 2: attention (15 minutes)
#
# Write the formula. `query` is `(batch, heads, queries, d)`, `key` and `value` are `(batch, heads, keys, d)`. The mask
# `allowed`, if there is one, is bool with True where a query may look at a key. Its last two axes are `(queries, keys)`.
# Return the attended values, `(batch, heads, queries, d)`. Do not call PyTorch's own attention; the check does.
#
# <details><summary>Hint</summary>
#
# `key.transpose(-2, -1)` is $K^\top$, and `@` multiplies all heads at once. `logits.masked_fill(~allowed, -torch.inf)`
# fills what is not allowed. The softmax runs over the keys, the last axis.
#
# </details>


# %% tags=["exercise"]
def attention(query, key, value, allowed=None):
    """Weighted means of the values (batch, heads, queries, d); `allowed` is True where a query may look at a key."""
    # your code here


# %% tags=["check"]
with checking("Exercise 2"):
    torch.manual_seed(1)
    q, k, v = torch.randn(2, 3, 5, 16), 2 * torch.randn(2, 3, 7, 16), torch.randn(2, 3, 7, 16)
    answer = attention(q, k, v)
    assert answer is not None, "write the body of attention first"
    assert not isinstance(answer, tuple), "return the attended values alone, not a tuple"
    assert answer.shape == q.shape, (
        f"the shape should be {tuple(q.shape)}, as the queries', yours is {tuple(answer.shape)}"
    )
    queries = q.clone()
    attention(q, k, v)
    assert torch.equal(q, queries), "the queries that were passed have changed; do not scale them in place"
    products, root = q @ k.transpose(-2, -1), 16**0.5
    mask = torch.rand(5, 7) < 0.5
    mask[:, 0] = True  # everybody may look at something
    right = {
        "without a mask": (F.scaled_dot_product_attention(q, k, v), attention(q, k, v)),
        "with a mask": (F.scaled_dot_product_attention(q, k, v, attn_mask=mask), attention(q, k, v, mask)),
    }
    mistakes = {
        "without a mask": {
            "divide the products by the square root of d": products.softmax(-1) @ v,
            "divide by the square root of d, not by d": (products / 16).softmax(-1) @ v,
            "d is the width of one head, not of all heads together": (products / 48**0.5).softmax(-1) @ v,
            "divide before the softmax, not after it": products.softmax(-1) / root @ v,
            "the softmax runs over the keys, the last axis": (products / root).softmax(-2) @ v,
            "the softmax is missing": products / root @ v,
        },
        "with a mask": {
            "the mask is not used": right["without a mask"][0],
            "True means that a query may look; yours is turned around": F.scaled_dot_product_attention(
                q, k, v, attn_mask=~mask
            ).nan_to_num(),
            "fill with minus infinity: a logit of 0 still gets weight": (products * mask / root).softmax(-1) @ v,
            "mask before the softmax, or the weights no longer sum to one": (products / root).softmax(-1) * mask @ v,
        },
    }
    for case, (want, answer) in right.items():
        close = torch.allclose(answer, want, atol=1e-4, rtol=1e-4)
        for mistake, wrong in mistakes[case].items():
            assert close or not torch.allclose(answer.nan_to_num(), wrong, atol=1e-4), f"{case}: {mistake}"
        assert not answer.isnan().any(), f"{case}: your answer has NaN in it; is infinity times 0 in it?"
        assert close, f"{case}: your numbers differ from PyTorch's by up to {(answer - want).abs().max():.2f}"
    each = torch.rand(2, 1, 5, 7) < 0.5
    each[..., 0] = True
    want = F.scaled_dot_product_attention(q, k, v, attn_mask=each)
    assert torch.allclose(attention(q, k, v, each), want, atol=1e-4), "a mask with a batch axis of its own goes wrong"
    q, k, v = 3 * torch.randn(1, 2, 4, 9), 3 * torch.randn(1, 2, 6, 9), torch.randn(1, 2, 6, 9)
    want, answer = F.scaled_dot_product_attention(q, k, v), attention(q, k, v)
    assert torch.allclose(answer, want, atol=1e-3), "with d = 9 your numbers are wrong; is another d written into it?"
    mask = torch.eye(4, 6).bool()
    q, k, v = q.double(), k.double(), v.double()
    k[:, :, :4] = -10 * q  # what is allowed gets a very negative logit
    want, answer = F.scaled_dot_product_attention(q, k, v, attn_mask=mask), attention(q, k, v, mask)
    why = "what is not allowed gets weight where the logits are very negative; fill with minus infinity"
    assert torch.allclose(answer, want, atol=1e-3), why
    q, k = torch.ones(1, 2, 4, 9).double(), torch.randn(1, 2, 6, 9).double()
    mask[:, 0] = True
    for shift in (1_000, -1_000_000):  # of every logit by 3,000 or -3,000,000, which changes no weight
        want, answer = F.scaled_dot_product_attention(q, k, v, attn_mask=mask), attention(q, k + shift, v, mask)
        size = "large" if shift > 0 else "very negative"
        assert not answer.isnan().any(), f"{size} logits give NaN: subtract the largest before exp, as `softmax` does"
        assert torch.allclose(answer, want, atol=1e-3), f"{why}, not with a number that seems small enough"
    with mock.patch.object(F, "scaled_dot_product_attention", side_effect=AssertionError) as ready_made:
        with contextlib.suppress(AssertionError):
            attention(q, k, v)
        assert not ready_made.called, "write the formula yourself; yours calls PyTorch's scaled_dot_product_attention"

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def attention(query, key, value, allowed=None):
#     logits = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])  # (batch, heads, queries, keys)
#     if allowed is not None:
#         logits = logits.masked_fill(~allowed, -torch.inf)
#     return logits.softmax(dim=-1) @ value
# ```
#
# `@` and `softmax` work on the last axes, so the same lines serve any number of scenes and heads.
#
# </details>

# %% [markdown]
# The package has the same function. It also returns the weights, which is good for pictures, so the notebook goes on with
# it. For speed there is PyTorch's fused version, `F.scaled_dot_product_attention`. Do the two agree?

# %%
from tinyvla.model.layers import naive_attention

torch.manual_seed(1)
query, key, value = torch.randn(3, 2, 3, 65, 32)  # each (batch 2, heads 3, tokens 65, head width 32)
attended, weights = naive_attention(query, key, value)
print("attended", tuple(attended.shape), " weights", tuple(weights.shape))
torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 3, 65))
earlier = torch.ones(1, 1, 65, 65).tril().bool()  # one mask out of many: look only back
for mask in (None, earlier):
    written_out, _ = naive_attention(query, key, value, mask)
    fused = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    torch.testing.assert_close(written_out, fused, atol=1e-5, rtol=1e-4)
print("written out or fused, with a mask or without: the same numbers")

# %% [markdown]
# ### QK-norm
#
# The division by $\sqrt d$ assumes that queries and keys have entries of size 1. At the start of training we can arrange
# that. Later the weights of the query and key layers may grow, and nothing stops them. Watch the largest attention
# weight, averaged over the queries, when the two layers are multiplied by a factor. **QK-norm** divides each query and
# each key by its root mean square, head by head.

# %%
torch.manual_seed(2)
x = F.layer_norm(tokens[:4], (config.embed_dim,))  # (4, 64, 96): real tokens, normalised
query_layer, key_layer = torch.randn(2, 96, 96) / math.sqrt(96)
print("factor   largest weight   with QK-norm")
for factor in (1, 2, 4, 8):
    query, key = (x @ (factor * layer) for layer in (query_layer, key_layer))
    query, key = (y.unflatten(-1, (3, 32)).transpose(1, 2) for y in (query, key))  # (4, heads, 64, 32)
    plain = naive_attention(query, key, key)[1].amax(dim=-1).mean()
    query, key = F.rms_norm(query, (32,)), F.rms_norm(key, (32,))
    normed = naive_attention(query, key, key)[1].amax(dim=-1).mean()
    print(f"{factor:>6} {plain:>16.2f} {normed:>14.2f}")
logits = query @ key.transpose(-2, -1) / math.sqrt(32)
assert logits.abs().max() <= math.sqrt(32) + 1e-4
print("with QK-norm no logit exceeds the square root of the head width,", round(math.sqrt(32), 2))

# %% [markdown]
# Without the norm, growing weights put most of the attention on a single token. A softmax whose largest weight is close to
# 1 hardly changes when its inputs do, so little gradient comes back through it. The authors of the [22-billion-parameter
# ViT](https://arxiv.org/abs/2302.05442) (section 2) saw large models diverge in this way, and normalise queries and keys
# with a LayerNorm to prevent it. TinyVLA divides by the root mean square and has no learned scale: a scale could grow, and
# the bound with it. The bound on the logits holds at any size; whether a policy as small as ours needs it is not tested in
# this chapter.
#
# The module is short. `allowed` is a mask of shape (1, 1, tokens, tokens), the same for all scenes and heads. The names of
# the layers match the package's, so that weights can be exchanged later.


# %%
class Attention(nn.Module):
    """Multi-head self-attention with QK-norm."""

    def __init__(self, embed_dim, num_heads):
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(embed_dim, embed_dim)
        self.key = nn.Linear(embed_dim, embed_dim)
        self.value = nn.Linear(embed_dim, embed_dim)
        self.output = nn.Linear(embed_dim, embed_dim)  # mixes what the heads found

    def split_heads(self, x):
        """(batch, tokens, width) to (batch, heads, tokens, head width)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def forward(self, x, allowed=None):
        query, key, value = (self.split_heads(layer(x)) for layer in (self.query, self.key, self.value))
        head_dim = (query.shape[-1],)
        query, key = F.rms_norm(query, head_dim), F.rms_norm(key, head_dim)
        attended, _ = naive_attention(query, key, value, allowed)
        return self.output(attended.transpose(1, 2).flatten(2))  # heads side by side again


print(tuple(Attention(96, 3)(tokens[:4]).shape), "in and out the same shape")

# %% [markdown]
# ## 5. The block
#
# Attention mixes tokens; an **MLP** (two linear layers, applied to each token alone) transforms them. A block holds
# one of each. Three decisions:
#
# - **Residual**: each part's result is *added* to its input. The tokens run through as a stream; parts write into it.
# - **Pre-norm**: LayerNorm stands before each part, inside the branch. The stream itself is never rescaled, so
#   gradients pass from the last block to the first ([Xiong et al. 2020](https://arxiv.org/abs/2002.04745)).
# - **Zero-initialised outputs**: the layers that write to the stream start at zero. A new block changes nothing; the
#   patches reach the rest of the policy as they are, and the blocks begin to write when that lowers the loss. (The
#   classes below keep PyTorch's random values. `TinyVLA.init_weights` sets these layers to zero.)


# %%
class MLP(nn.Module):
    """Two linear layers with a GELU between, applied to each token."""

    def __init__(self, embed_dim, mlp_ratio):
        super().__init__()
        self.hidden = nn.Linear(embed_dim, mlp_ratio * embed_dim)
        self.output = nn.Linear(mlp_ratio * embed_dim, embed_dim)

    def forward(self, x):
        return self.output(F.gelu(self.hidden(x)))


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, embed_dim, num_heads, mlp_ratio):
        super().__init__()
        self.attention_norm = nn.LayerNorm(embed_dim)
        self.attention = Attention(embed_dim, num_heads)
        self.mlp_norm = nn.LayerNorm(embed_dim)
        self.mlp = MLP(embed_dim, mlp_ratio)

    def forward(self, x, allowed=None):
        x = x + self.attention(self.attention_norm(x), allowed)
        return x + self.mlp(self.mlp_norm(x))


# Two tests. Does the block care about the order of its tokens? Is it the identity once its outputs are zero?
torch.manual_seed(3)
block = Block(96, 3, 4)
x = torch.randn(2, 64, 96)
shuffle = torch.randperm(64)
torch.testing.assert_close(block(x[:, shuffle]), block(x)[:, shuffle], atol=1e-4, rtol=1e-4)
print("shuffled tokens in: the same outputs, shuffled. Order means nothing to a block")

for part in (block.attention, block.mlp):
    nn.init.zeros_(part.output.weight)
    nn.init.zeros_(part.output.bias)
assert torch.equal(block(x), x)
print("outputs at zero: the block is the identity")

# %% [markdown]
# ## 6. TinyViT
#
# Everything together: patches, projection, positions, CLS, blocks and a last LayerNorm.


# %%
class TinyViT(nn.Module):
    """Vision transformer; returns the CLS token first, then the patches row by row."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.patch_projection = nn.Linear(config.num_channels * config.patch_size**2, config.embed_dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.embed_dim))
        # A buffer moves with the module from device to device, but is not trained; it can always be computed again.
        self.register_buffer("positions", grid_positions(config.grid[0], config.embed_dim), persistent=False)
        self.blocks = nn.ModuleList(
            Block(config.embed_dim, config.num_heads, config.mlp_ratio) for _ in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(config.embed_dim)

    def embed(self, images):
        """Tokens as they enter the first block."""
        patches = patchify(2 * images - 1, self.config.patch_size)
        patches = self.patch_projection(patches) + self.positions
        return torch.cat([self.cls_token.expand(len(images), -1, -1), patches], dim=1)

    def forward(self, images):
        x = self.embed(images)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


vit = TinyViT(config)
print("tokens", tuple(vit(images[:4]).shape), "(batch, CLS + patches, width)")
print(f"{count_parameters(vit):,} parameters")

# %% [markdown]
# ### Same as the package
#
# `tinyvla.model.vision.TinyViT` uses the same names, so its weights can be loaded into yours. If your version is right, both
# give the same numbers.

# %%
torch.manual_seed(4)
theirs = tinyvla.model.vision.TinyViT(config)  # freshly made, so that its blocks' outputs are random and not zero
nn.init.normal_(theirs.cls_token)
vit.load_state_dict(theirs.state_dict())
with torch.no_grad():
    torch.testing.assert_close(vit(images[:50]), theirs(images[:50]), atol=1e-4, rtol=1e-4)
print("all weights loaded; both towers give the same tokens")

# %% [markdown]
# ## 7. What does a patch token know?
#
# A **linear probe** answers that: fix the tokens, and fit one linear map from a token to some fact, by least squares,
# on part of the scenes. If the map is right on scenes it has not seen, the fact can be read from the token
# ([Alain and Bengio 2016](https://arxiv.org/abs/1610.01644)). The facts here, for each block in 1,000 scenes:
#
# - its **colour**, one of six (fit to a one-hot vector; the largest output is the answer);
# - its **position**, the centre in pixels;
# - its **arrow**, the unit vector from the image's centre: what the policy must answer if this block is asked for.
#
# The CLS token is asked for a fact about the scene: are there **three or four blocks**?

# %%
cells, colors = torch.from_numpy(scenes.cells), torch.from_numpy(scenes.colors)
scene, slot = (cells >= 0).nonzero(as_tuple=True)  # one entry per block
cell, color = cells[scene, slot], colors[scene, slot]
center = torch.from_numpy(cell_centers(cell.numpy()))
arrow = torch.from_numpy(directions(cell.numpy()))
has_four = (cells >= 0).all(dim=1).long()
is_seen, scene_is_seen = scene < 700, torch.arange(1_000) < 700  # fit on these, judge on the others
print(f"{is_seen.sum()} blocks to fit on, {(~is_seen).sum()} to judge on")


def linear_probe(inputs, targets, is_seen, ridge=1e-3):
    """Fit targets = inputs @ weights + bias by least squares where `is_seen`; returns the answers everywhere."""
    inputs = F.pad(inputs.double(), (0, 1), value=1.0)  # the ones become the bias
    seen, answers = inputs[is_seen], targets[is_seen].double()
    # A tiny ridge keeps the system solvable when features depend on each other.
    weights = torch.linalg.solve(seen.T @ seen + ridge * torch.eye(inputs.shape[1]).double(), seen.T @ answers)
    return inputs @ weights


# %% [markdown]
# We probe three things: the 192 raw pixel values of the block's patch; the block's token from a tower with
# **untrained** weights; the block's token from the tower of a **trained** policy.
#
# **Predict.** What can be read from the tokens of the *untrained* tower?
#
# 1. Nothing: random weights scramble the image.
# 2. The colour, not the position.
# 3. The position, not the colour.
# 4. Both.
#
# And the number of blocks, from its CLS token?

# %% tags=["nbval-ignore-output", "slow"]
untrained = new_policy(model_config("nano"), seed=0).vision
trained = trained_policy(progress_bar=False).vision.cpu()  # the first time it is trained now, then it is cached
with torch.no_grad():
    sources = {
        "raw pixels": patchify(images, 8),
        "untrained tower": untrained(images),
        "trained tower": trained(images),
    }
knows = {}
print(f"{'':18}{'colour':>8}{'position':>12}{'arrow':>12}{'3 or 4 blocks':>16}")
for name, source in sources.items():
    features = source[scene, cell + source.shape[1] - 64]  # towers put CLS first, so their patches start at 1
    color_right = linear_probe(features, F.one_hot(color), is_seen).argmax(dim=1) == color
    pixels_off = (linear_probe(features, center, is_seen) - center).norm(dim=1)
    degrees_off = Metrics.of(linear_probe(features, arrow, is_seen)[~is_seen], arrow[~is_seen]).mean_angular_error
    count_right = linear_probe(source[:, 0], F.one_hot(has_four), scene_is_seen).argmax(dim=1) == has_four
    knows[name] = {
        "color": color_right[~is_seen].double().mean().item(),
        "position": pixels_off[~is_seen].mean().item(),
        "arrow": degrees_off,
        "count": count_right[~scene_is_seen].double().mean().item(),
    }
    row = knows[name]
    count = "-" if name == "raw pixels" else f"{row['count']:.0%}"
    print(f"{name:18}{row['color']:>8.0%}{row['position']:>9.1f} px{row['arrow']:>8.1f} deg{count:>16}")
share_four = has_four[~scene_is_seen].double().mean().item()
center_off = (center - 32).norm(dim=1)[~is_seen].mean()
print(f"always answering the image's centre: {center_off:.1f} px off")
print(f"always giving the commoner answer to the last question: {max(share_four, 1 - share_four):.0%}")

pixels, before, after = knows.values()
assert pixels["position"] > 15, "a patch of one colour does not show its place"
for row in (before, after):
    assert row["color"] > 0.9, "a token should hold its block's colour"
    assert row["position"] < 5, "a token should hold its block's position"
assert after["arrow"] < before["arrow"], "training should make the arrow easier to read"
assert before["count"] < 0.6 < after["count"], "only a trained CLS token should know about the scene"

# %% [markdown]
# **Explain.** Both: colour and position can be read from the untrained tokens almost perfectly. A random linear map does
# not scramble. It turns colours into random directions, and different colours stay different. The position was added to
# that, and the blocks, whose outputs start at zero, change nothing. Raw pixels know no place: their error is that of
# always answering the image's centre.
#
# So what did training do? Now the *arrow* is easier to read. Its angle is a curved function of $x$ and $y$, and from a
# trained token one linear layer reads it with a much smaller error. The CLS token has changed, too. At the start it is
# the same vector for every image, so its probe can give only one constant answer. Now it knows something about the scene.
# The only way in is attention: it is the one part of a transformer block in which a token reads from others. What does CLS
# look at? The tower has two transformer blocks, which we call layer 1 and layer 2 here, and each has three heads.

# %% tags=["nbval-ignore-output", "slow"] mystnb={"image": {"alt": "A scene of three blocks, and three maps of the weights that the trained CLS gives the patches. In layer 1 the blocks are somewhat darker than most patches; in its strongest head they are by far the darkest; in layer 2 two of them are the palest."}}
from tinyvla.course.ch02 import attention_of_cls, plot_attention_of_cls
from tinyvla.data.dataset import COLORS

is_colored = torch.zeros(len(scenes), 64).index_put((scene, cell), torch.tensor(1.0))  # 1 where a coloured block is
share_of_patches = is_colored.mean().item()
print(f"coloured blocks are {share_of_patches:.1%} of all patches; they get this share of CLS's attention to patches:")
looks, shares = {}, {}
for name, tower in {"untrained": untrained, "trained": trained}.items():
    looks[name] = attention_of_cls(tower, images)  # for each layer: (scenes, heads, patches)
    for layer, weights in enumerate(looks[name], start=1):
        of_heads = (weights * is_colored[:, None]).sum(dim=(0, 2)) / weights.sum(dim=(0, 2))
        mean = weights.mean(dim=1)
        shares[name, layer] = ((mean * is_colored).sum() / mean.sum()).item()
        heads = ", ".join(f"{share:.0%}" for share in of_heads)
        print(f"{name:10} layer {layer}: {shares[name, layer]:4.0%} (head by head: {heads})")
assert shares["trained", 2] < share_of_patches < shares["trained", 1], (
    "layer 1 should look at the blocks, layer 2 past them"
)
first, last = looks["trained"]
print("trained    layer 2: the weight of a block's patch, by colour; 1 is that of an average patch")
mean_and_heads = torch.cat([last.mean(dim=1, keepdim=True), last], dim=1)  # (scenes, 1 + heads, patches)
relative = 64 * mean_and_heads / mean_and_heads.sum(dim=-1, keepdim=True)
for number, name in enumerate(COLORS):
    mean, *heads = relative[scene[color == number], :, cell[color == number]].mean(dim=0).tolist()
    print(f"  {name:8}{mean:.1f} (head by head: {', '.join(f'{head:.1f}' for head in heads)})")
strongest = (first * is_colored[:, None]).sum(dim=(0, 2)).argmax()
maps = {
    "layer 1": first[4].mean(dim=0),
    f"layer 1, head {strongest + 1}": first[4, strongest],
    "layer 2": last[4].mean(dim=0),
}
plot_attention_of_cls(scenes.images[4], maps)
plt.show()

# %% [markdown]
# In layer 2, CLS seems to look past the coloured blocks: taken together, they get less of its attention than their share of
# the patches. Whoever sees only that map concludes that CLS does not look at them. But in layer 1 it gives them 13 %, more
# than twice their share, and one of its three heads gives them 23 %. (In this scene that head looks at some empty patches
# near the left edge, too.) And the sum of layer 2 hides something as well: a blue block gets about as much as an average
# patch, and from the third head more than twice as much. So neither a map averaged over the heads nor a sum over all
# colours shows what a token has looked at. Look at every layer, every head and every kind of patch before you say "it does
# not look there".
#
# Look at the untrained tower, too. By the chance of its random weights one of its heads gives the blocks 18 %, although its
# CLS knows nothing about the scene: the layers that would write down what was read start at zero. A map shows the weights,
# and not what becomes of the values.
#
# Two warnings about probes. A probe shows that something *can be read*, not that the policy *uses* it. And a high score
# means little without a floor: compare with raw inputs and with an untrained network before you credit training. (This
# was one trained policy, from one seed. Another one gives other numbers.)
#
# ## 8. How positions drown
#
# Sines and cosines are one choice. Many vision transformers learn their positions: a table with one vector per patch,
# drawn at random with standard deviation 0.02 and then trained. [The original ViT
# does](https://github.com/google-research/vision_transformer/blob/main/vit_jax/models_vit.py). What happens here?
#
# First the scales. A projected patch and its position are added, so compare their lengths.


# %%
def use_learned_positions(vit, std):
    """Replace the fixed positions by a trainable table. The same draw for every std, only scaled."""
    noise = torch.randn(vit.positions.shape, generator=torch.Generator().manual_seed(0))
    del vit.positions  # a buffer; a parameter of that name takes its place
    vit.positions = nn.Parameter(std * noise)


def vit_with(std):
    """An untrained tower with learned positions; with the package's own sine-cosine positions where std is None."""
    vit = new_policy(model_config("nano"), seed=0).vision
    if std is not None:
        use_learned_positions(vit, std)
    return vit


for name, std in {"sine-cosine": None, "std 1.0": 1.0, "std 0.02": 0.02}.items():
    vit = vit_with(std)
    with torch.no_grad():
        patch_norm = vit.patch_projection(vit.patchify(2 * images - 1)).norm(dim=-1).mean().item()
        position_norm = vit.positions.norm(dim=-1).mean().item()
    print(f"{name:12} projected patch {patch_norm:.1f}, position {position_norm:.1f}")
    assert (position_norm > patch_norm) == (std != 0.02)

# %% [markdown]
# At 0.02 the position is about twenty times shorter than what it is added to, and the LayerNorm at the entrance of each
# block keeps that ratio. Is it lost? Ask a probe for the arrow, by least squares, on tokens after a LayerNorm.

# %%
for name, std in {"sine-cosine": None, "std 1.0": 1.0, "std 0.02": 0.02}.items():
    with torch.no_grad():
        x = F.layer_norm(vit_with(std).embed(images)[scene, cell + 1], (96,))  # (blocks, 96)
    predicted = linear_probe(x, arrow, is_seen)
    right = Metrics.of(predicted[~is_seen], arrow[~is_seen]).direction_accuracy
    print(f"{name:12} arrows of unseen blocks: {right:.0%} in the right direction")
    assert right > 0.95, name

# %% [markdown]
# Least squares reads the arrow from all three. So at std 0.02 the information is all there.
#
# **Predict.** Now train the whole policy for 125 steps, once with learned positions at std 1.0 and once at std 0.02.
# The table is the same draw, only scaled, and it is trained along with everything else. Chance is about 20 % direction
# accuracy. What will the second one reach?
#
# 1. The same: the information is there, and the model can learn to make it louder.
# 2. A little less.
# 3. It is still at chance.


# %% tags=["nbval-ignore-output", "slow"] mystnb={"image": {"alt": "Loss over the training steps. With positions at std 1.0 the curve leaves the dashed line, the loss of always answering (0, 0), and falls far below it; with positions at std 0.02 it stays on that line."}}
class LossCurve:
    """Collects the losses that `fit` logs every ten steps: it stands in for TensorBoard's writer, which has this method."""

    def __init__(self):
        self.steps, self.losses = [], []

    def add_scalar(self, tag, scalar_value, global_step):
        if tag == "train/loss":
            self.steps.append(global_step)
            self.losses.append(scalar_value)


train = TensorSplit.from_blockfind(BlockFind(8_000, seed=42), encode, device)  # 125 batches of 64
val = TensorSplit.from_blockfind(BlockFind(500, seed=43), encode, device)
curves, accuracy = {}, {}
for std in (1.0, 0.02):
    policy = new_policy(model_config("nano"), seed=0)
    use_learned_positions(policy.vision, std)
    curves[std] = LossCurve()
    settings = TrainConfig(epochs=1, learning_rate=1e-3)
    records = fit(policy.to(device), train, val, settings, callbacks=[TensorBoard(curves[std])])
    accuracy[std] = records[-1]["direction_accuracy"]
    print(f"std {std:<5} direction accuracy {accuracy[std]:.0%}")
assert accuracy[1.0] > 0.6, "with positions at std 1.0 the policy should have left chance"
assert accuracy[0.02] < 0.35, "with positions at std 0.02 the policy should still be at chance"

fig, ax = plt.subplots(figsize=(6, 2.9), layout="constrained")
fig.set_facecolor("white")
for std, color in ((1.0, PART_COLORS["vision"]), (0.02, PART_COLORS["action"])):
    ax.plot(curves[std].steps, curves[std].losses, marker="o", ms=3, color=color, label=f"positions at std {std}")
ax.axhline(0.5, color="grey", lw=0.8, ls="--")
ax.text(9, 0.535, "dashed: always answering (0, 0)", fontsize=9, color="#555555")
ax.set(xlabel="step", ylabel="mean squared error", ylim=(0, 0.62))
ax.legend(frameon=False, loc="lower left")
plt.show()

# %% [markdown]
# It is still at chance. The loss stays at 0.5, which is what always answering (0, 0) costs. Does that mean that the policy
# cannot learn with these positions? One short run cannot tell.
#
# **Predict again.** What happens if you simply go on, with a constant learning rate?
#
# 1. It stays at chance for good.
# 2. It gets better slowly, a little with every step.
# 3. Nothing happens for a long time, and then it learns.
#
# Longer runs take minutes, so we have measured them: `python experiments/positions.py` trains `nano` with several kinds of
# positions, ten seeds each. The settings are those above, except that the learning rate climbs for 100 steps instead of 31
# and does not fall at the end. A run has left the plateau when the mean loss of 20 steps is below 0.4, and it has learned
# the task when that is below 0.1. It stops then, and at the latest after 3,000 steps. *Learned-1.0* is a table that starts at std 1.0,
# and so on. *Scaled* is the table at std 0.02, multiplied by 50 where it is added. Mind the axis of the steps: from one
# mark to the next their number grows about threefold.

# %% mystnb={"image": {"alt": "The loss over the training steps, on a logarithmic axis, ten seeds for each scale. All curves begin on the dashed line, the loss of always answering (0, 0). At std 1.0 they fall together, shortly before step 100. At std 0.1 they fall between step 100 and 500. At std 0.02 they lie on the line, or a little below it, for hundreds of steps; the first falls after step 200, most between 700 and 1,200, the last after 2,000."}}
from tinyvla.course.ch02 import lengths_on_the_way, plot_plateau, steps_on_the_line
from tinyvla.course.zoo import load_results

results = load_results("positions")
print(f"steps, median (fewest-most) of {results['seeds']} seeds; at most {results['steps']:,}")
print(f"{'':14}{'learned':>9}{'leaves the plateau':>22}{'has learned':>18}")
for kind, row in results["kinds"].items():
    steps = [row[name] for name in ("steps_to_leave", "steps_to_learn")]
    texts = [f"{s['median']:.0f} ({s['min']:.0f}-{s['max']:.0f})" if s else "-" for s in steps]
    print(f"{kind:14}{row['learned']:>4} of {row['runs']}{texts[0]:>22}{texts[1]:>18}")
on_the_line = [steps_on_the_line(losses) for losses in results["kinds"]["learned-0.02"]["losses"]]
print(f"learned-0.02: ten-step means of the loss reach 0.495 until step {min(on_the_line)} to {max(on_the_line)}")
print("learned-0.02: the length of a position, in lengths of a projected patch, median of the runs")
for moment, length in lengths_on_the_way(results["kinds"]["learned-0.02"]).items():
    print(f"  {length:.3f} {moment}")
plot_plateau(results)
plt.show()

# %% [markdown]
# **Explain.** All thirty runs of the three scales learn the task, but the smaller the positions start, the longer the
# plateau: the medians are 82, 150 and 746 steps. At std 1.0 every seed has left it after 99 steps. At std 0.1 it takes 86
# to 387 steps, and at std 0.02 from 228 to 1,904. There the loss lies on the dashed line for 170 to 840 steps. Then it
# sinks a little, and in some runs it lies on a second plateau: the longest run stays close to 0.45 for a thousand steps.
# Nothing in the curve tells you that a plateau will end, or when. Two runs that differ in nothing but the seed can need
# 274 and 2,793 steps. So a flat curve does not prove that a policy cannot learn, and a short run cannot tell a plateau
# from a failure.
#
# Does the policy first make its positions louder, and then learn? Only in part. In the runs of std 0.02 a position, measured
# in lengths of a patch, first loses half of its length (from
# 0.045<!-- result: positions/kinds/learned-0.02/ratio_at_start/median:.3f --> to about 0.02, the median of the ten runs), and has it
# back when the loss has left the plateau. When the task is learned it still has only
# 0.06<!-- result: positions/kinds/learned-0.02/ratio_at_end/median:.2f --> times the length of a patch. So the positions
# become louder than they were at their quietest, but they stay quiet, and the policy learns to read them.
#
# Is it the scale in the sum that counts, or are the numbers in the table too small? *Scaled* tells the two apart. Its
# table starts at std 0.02, but its tokens start as those of std 1.0, and it learns at least as soon (85 to 108 steps,
# against 97 to 126). So the scale in the sum counts.
#
# The lesson goes beyond positions: **quantities that are added should start at comparable scales.** TinyVLA's sine-cosine
# positions start somewhat longer than the projected patches (6.9 against 4.1 above). Its CLS and word embeddings are drawn at
# std 1.0 (see [Chapter 3](03_language.ipynb) for the words). Of the kinds in the table, sine-cosine learns soonest.
#
# The original ViT starts with 0.02 all the same. Its longest training passes several times over
# [300 million images](https://arxiv.org/abs/2010.11929), in batches of 4,096. That is more than 70,000 steps a pass, so even
# a plateau of two thousand steps would hardly be seen.
#
# ## Exercise 3: positions for another grid (10 minutes)
#
# Cameras are rarely square. Write the positions of a grid with any number of rows and columns, for instance 4 x 4 or
# 4 x 6: half of the features for x, half for y, row by row, origin at the centre. Use `sincos_positions`.
#
# <details><summary>Hint</summary>
#
# Start from `grid_positions`. x runs over the columns and y over the rows, so you need two axes of different
# length; `torch.meshgrid(y_axis, x_axis, indexing="ij")` takes both.
#
# </details>


# %% tags=["exercise"]
def rectangle_positions(rows, columns, dim):
    """Positions (rows * columns, dim) of a grid's cells, row by row."""
    # your code here


# %% tags=["check"]
with checking("Exercise 3"):
    for rows, columns, dim in ((4, 6, 32), (5, 3, 24), (4, 4, 32), (4, 5, 16)):
        answer = rectangle_positions(rows, columns, dim)
        assert answer is not None, "write the body of rectangle_positions first"
        shape, want = tuple(answer.shape), (rows * columns, dim)
        grid = f"{rows} rows, {columns} columns"
        assert shape == want, f"{grid}, dim {dim}: the shape should be {want}, yours is {shape}"
        cells = [(row, column) for row in range(rows) for column in range(columns)]

        def positions_at(y, x):
            return torch.cat([sincos_positions(torch.tensor([float(c)]), dim // 2)[0] for c in (x, y)])  # noqa: B023

        middle_y, middle_x = (rows - 1) / 2, (columns - 1) / 2
        right = torch.stack([positions_at(r - middle_y, c - middle_x) for r, c in cells])
        mistakes = {
            "the origin of y should lie in the middle of the rows": [(r - middle_x, c - middle_x) for r, c in cells],
            "the origin of x should lie in the middle of the columns": [(r - middle_y, c - middle_y) for r, c in cells],
            "the origin lies in a corner, not in the middle": cells,
            "the origin is half a cell off": [(r - rows / 2, c - columns / 2) for r, c in cells],
            "whole cells: // rounds the middle": [(r - (rows - 1) // 2, c - (columns - 1) // 2) for r, c in cells],
            "the first half of the features is for x, the second for y": [
                (c - middle_x, r - middle_y) for r, c in cells
            ],
            "cells should be numbered row by row": [
                (r - middle_y, c - middle_x) for c in range(columns) for r in range(rows)
            ],
        }
        close = torch.allclose(answer.float(), right, atol=1e-5)
        for mistake, places in mistakes.items():
            wrong = torch.stack([positions_at(*place) for place in places])
            assert close or not torch.allclose(answer.float(), wrong, atol=1e-5), f"{grid}: {mistake}"
        assert close, f"{grid}: cell {(answer - right).abs().amax(dim=1).argmax()} is wrong"

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def rectangle_positions(rows, columns, dim):
#     y_axis = torch.arange(rows) - (rows - 1) / 2
#     x_axis = torch.arange(columns) - (columns - 1) / 2
#     y, x = torch.meshgrid(y_axis, x_axis, indexing="ij")
#     return torch.cat([sincos_positions(x.flatten(), dim // 2), sincos_positions(y.flatten(), dim // 2)], dim=1)
# ```
#
# Nothing in the features needs a square. They are computed and not learned, so you can even give a model a larger grid than
# it was trained on. Whether it copes with that is another question.
#
# </details>

# %% [markdown]
# ## Exercise 4: look only at your neighbours (20 minutes)
#
# An attention mask says which token may look at which. Write the mask for **local** attention: a patch may look at the
# patches at most `radius` rows and `radius` columns away (itself included) and at CLS; CLS (token 0) may look at
# everything. With radius 1 a patch pays attention to at most 10 tokens instead of 65, and the rest of the scene reaches it by
# way of CLS or over several blocks.
#
# <details><summary>Hint</summary>
#
# The row and column of all patches are `torch.arange(grid_size**2) // grid_size` and `... % grid_size`. The
# differences between all pairs come from broadcasting: `row[:, None] - row[None, :]`. Put the result into a matrix of
# ones that has one more row and column.
#
# </details>


# %% tags=["exercise"]
def local_mask(grid_size, radius):
    """Bool (tokens, tokens): True where the row's token may look at the column's. Token 0 is CLS."""
    # your code here


# %% tags=["check"]
with checking("Exercise 4"):
    for grid, radius in ((8, 1), (5, 2), (4, 0), (6, 3)):
        answer = local_mask(grid, radius)
        assert answer is not None, "write the body of local_mask first"
        about, size = f"grid of {grid}, radius {radius}", grid**2 + 1
        shape = tuple(answer.shape)
        assert shape == (size, size), f"{about}: the shape should be {(size, size)}, yours is {shape}; is CLS in it?"
        assert answer.dtype == torch.bool, f"a mask is bool, yours is {answer.dtype}"
        assert answer[0].all(), f"{about}: CLS should see every token, so row 0 must be True"
        assert answer[:, 0].all(), f"{about}: every token should see CLS, so column 0 must be True"
        assert answer.diagonal().all(), f"{about}: every token should see itself"
        for one in range(grid**2):
            for other in range(grid**2):
                rows, columns = abs(one // grid - other // grid), abs(one % grid - other % grid)
                sees, want = bool(answer[1 + one, 1 + other]), max(rows, columns) <= radius
                why = f"patch {other} is {rows} rows and {columns} columns from patch {one}"
                assert sees or not want, f"{about}: {why}, and should be seen"
                assert want or not sees, f"{about}: {why}, and should not be seen"
    torch.manual_seed(5)
    layer, x = Attention(96, 3), torch.randn(1, 65, 96)
    changed = x.clone()
    changed[:, 64] += 1  # the last patch changes
    mask = local_mask(8, 1)[None, None]
    change = (layer(changed, mask) - layer(x, mask)).abs().amax(dim=-1)[0]
    assert change[1] < 1e-6 < change[55], "a change in the last patch should reach its neighbour and not patch 0"

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def local_mask(grid_size, radius):
#     number = torch.arange(grid_size**2)
#     row, column = number // grid_size, number % grid_size
#     is_near = (row[:, None] - row).abs().maximum((column[:, None] - column).abs()) <= radius
#     mask = torch.ones(grid_size**2 + 1, grid_size**2 + 1, dtype=torch.bool)
#     mask[1:, 1:] = is_near
#     return mask
# ```
#
# The larger of the two differences is the distance of a king on a chessboard. Comparing patch *numbers* instead would
# make the end of one row a neighbour of the start of the next.
#
# </details>

# %% [markdown]
# ## Exercise 5: what a ViT costs (45 minutes)
#
# Before you train a large model you want to know what it costs. Write a formula for the parameters and for the
# multiply-adds of one image, from the configuration alone. Count a product of an $(a, b)$ with a $(b, c)$ matrix as
# $a\,b\,c$ multiply-adds, and leave out biases, norms, softmax and GELU. The check counts both on the real module. For the
# multiply-adds it watches every matrix product that PyTorch executes.
#
# With $T$ tokens of width $D$, note which terms grow as $T D^2$ and which as $T^2 D$. What would 4-pixel patches cost?
#
# <details><summary>Hint: parameters</summary>
#
# Projection: weights and biases. CLS: $D$. Per block: four square layers with biases, two MLP layers with biases, two
# LayerNorms of $2D$ each. One last LayerNorm. The positions are a buffer: no parameters.
#
# </details>
#
# <details><summary>Hint: multiply-adds</summary>
#
# The projection runs on the patches without CLS. Per block: four products of $(T, D)$ with $(D, D)$; the logits and the
# weighted mean, $T \cdot T \cdot D$ each (all heads together); two MLP products.
#
# </details>


# %% tags=["exercise"]
def vit_cost(config):
    """(parameters, multiply-adds per image) of TinyViT(config)."""
    # your code here


# %% tags=["check"]
from torch.utils.flop_counter import FlopCounterMode

with checking("Exercise 5"):
    small = VisionConfig(patch_size=4, embed_dim=64, num_layers=3, num_heads=2, mlp_ratio=3)
    other = VisionConfig(image_size=48, num_channels=2, embed_dim=32, num_layers=1, num_heads=2, mlp_ratio=2)
    for shape in (small, config, VisionConfig(), other):
        answer = vit_cost(shape)
        assert answer is not None, "write the body of vit_cost first"
        module, width, layers = TinyViT(shape), shape.embed_dim, shape.num_layers
        name = f"width {width}, {layers} blocks, patches of {shape.patch_size}, MLP ratio {shape.mlp_ratio}"
        wanted, hidden = count_parameters(module), shape.mlp_ratio * width
        patch, three = shape.num_channels * shape.patch_size**2, 3 * shape.patch_size**2
        off = answer[0] - wanted
        reasons = {
            (three - patch) * width: "an image need not have 3 channels; use num_channels",
            (shape.num_tokens - 1) * width: "the positions are a buffer, no parameters",
            -layers * (5 * width + hidden) - width: "do the linear layers have biases?",
            -width: "one vector of the width is missing: CLS, or the bias of the projection",
            -2 * width: "is the last LayerNorm in it?",
            -layers * 4 * width: "each block has two LayerNorms",
            -layers * 2 * width: "each block has two LayerNorms, each with a scale and a shift",
            -layers * (width * hidden + width): "the MLP has two layers",
            -layers * hidden: "the MLP's first layer has a bias, too",
            layers * 2 * (4 - shape.mlp_ratio) * width**2 + layers * (4 - shape.mlp_ratio) * width: "use mlp_ratio",
        }
        why = reasons.get(int(off), "go through the parts one by one")
        assert off == 0, f"{name}: {wanted:,} parameters, your formula says {answer[0]:,}; {why}"
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            module(torch.zeros(1, shape.num_channels, *shape.size))
        wanted = counter.get_total_flops() // 2  # it counts a multiply-add as two operations
        off, tokens = answer[1] - wanted, shape.num_tokens
        per_token, fixed = (4 + 2 * shape.mlp_ratio) * width**2, (64 // shape.patch_size) ** 2 + 1
        of_a_fixed_size = (fixed - 1) * patch * width + layers * (fixed * per_token + 2 * fixed**2 * width)
        reasons = {
            of_a_fixed_size - wanted: "an image need not have 64 x 64 pixels; use image_size",
            wanted: "a multiply-add counts once here",
            patch * width: "the projection runs on the patches, without CLS",
            -(tokens - 1) * patch * width: "the projection is missing",
            -layers * 2 * tokens**2 * width: "attention's own two products are missing",
            -layers * tokens**2 * width: "attention has two products: the logits, and the weighted mean",
            layers * 2 * tokens**2 * width * (shape.num_heads - 1): "the width of the heads together is D",
            -layers * ((4 + 2 * shape.mlp_ratio) * width**2 + 2 * (2 * tokens - 1) * width): "CLS is a token, too",
        }
        why = reasons.get(int(off), "go through the products one by one")
        assert off == 0, f"{name}: {wanted:,} multiply-adds, your formula says {answer[1]:,}; {why}"
    with mock.patch.object(nn.Module, "__init__", side_effect=AssertionError("use the configuration alone, no model")):
        vit_cost(small)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def vit_cost(config):
#     width, ratio, tokens = config.embed_dim, config.mlp_ratio, config.num_tokens
#     patch_values = config.num_channels * config.patch_size**2
#     attention = 4 * (width**2 + width)
#     mlp = 2 * ratio * width**2 + ratio * width + width
#     block = attention + mlp + 4 * width
#     parameters = patch_values * width + width + width + config.num_layers * block + 2 * width
#     block_work = (4 + 2 * ratio) * tokens * width**2 + 2 * tokens**2 * width
#     multiply_adds = (tokens - 1) * patch_values * width + config.num_layers * block_work
#     return parameters, multiply_adds
# ```
#
# Patches of 4 pixels make four times the tokens. That is about four times the work in the blocks' linear layers (none more in the
# patch projection, whose patches are smaller), sixteen times the work in attention's two products, and hardly any change in the parameters. At 65 tokens attention's products are a small
# part. They overtake the linear layers once $2T$ exceeds $12D$ (for an MLP ratio of 4).
#
# </details>

# %% [markdown]
# ## Check yourself
#
# <details><summary>The patch size becomes 16, the image stays 64 x 64. How many tokens are there, and how long is a flattened patch?</summary>
#
# Sixteen patches and CLS: 17 tokens. A patch has $3 \cdot 16 \cdot 16 = 768$ values. Each patch would then cover four
# grid cells, so one token would have to say which of its four cells holds a block.
#
# </details>
#
# <details><summary>Without positions, which could the policy still learn: how many blocks there are, or where the red one is?</summary>
#
# How many. Without positions the order of the tokens means nothing. Counting needs no order, and pointing does.
#
# </details>
#
# <details><summary>A probe reads the colour from the tokens of an untrained tower. Has the tower learned colours?</summary>
#
# No. The colour was in the pixels, and a random linear map keeps it. A probe says what can be read, not who put it
# there, and not whether the policy uses it.
#
# </details>
#
# <details><summary>Why does QK-norm bound the logits late in training, too, and not only at the start?</summary>
#
# We can choose the size of the logits at the start, but the query and key layers may grow as they are trained. QK-norm
# takes their size out: whatever the weights do, a logit stays below the square root of the head width.
#
# </details>
#
# <details><summary>Keep the table at std 0.02, but add `50 * positions` to the patches. Does the policy learn?</summary>
#
# Yes: this is *scaled* in the table of part 8, where all ten seeds learn the task. It starts with the tokens of std 1.0.
# (There is one difference: a step of Adam now moves the position 50 times as far.) The scale in the sum counts, not
# where it is written.
#
# </details>
#
# ## Summary
#
# - An image becomes tokens by cutting it into patches and projecting each with one linear layer, which equals a strided
#   convolution.
# - A transformer does not see order. Positions are added to the tokens; here, sines and cosines measured from the
#   image's centre.
# - Attention is a weighted mean of values; QK-norm bounds its logits whatever the weights do.
# - A block adds to its input and starts as the identity, because its output layers start at zero.
# - Tokens of an untrained tower already hold colour and position. Training makes the answer easier to read and lets CLS
#   gather the scene. A probe shows what can be read, not what is used.
# - That the information is there does not mean that training finds it soon. The smaller the positions start, the longer
#   the loss stays on its plateau: about 80 steps at std 1.0, hundreds at 0.02. A flat curve may be a plateau.
#
# ## Sources
#
# - Dosovitskiy et al., [An Image is Worth 16x16 Words](https://arxiv.org/abs/2010.11929), 2020: the vision transformer;
#   its [code](https://github.com/google-research/vision_transformer/blob/main/vit_jax/models_vit.py) with positions at
#   std 0.02
# - Vaswani et al., [Attention Is All You Need](https://arxiv.org/abs/1706.03762), 2017, section 3.2
# - Dehghani et al., [Scaling Vision Transformers to 22 Billion Parameters](https://arxiv.org/abs/2302.05442), 2023:
#   QK-norm, section 2
# - Xiong et al., [On Layer Normalization in the Transformer Architecture](https://arxiv.org/abs/2002.04745), 2020:
#   pre-norm
# - Alain and Bengio, [Understanding intermediate layers using linear classifier
#   probes](https://arxiv.org/abs/1610.01644), 2016
# - Kim et al., [OpenVLA](https://arxiv.org/abs/2406.09246), 2024
# - In the package: [`vision.py`](https://github.com/tinyvla/tinyvla/blob/main/tinyvla/model/vision.py) and
#   [`layers.py`](https://github.com/tinyvla/tinyvla/blob/main/tinyvla/model/layers.py)
#
# ## Next
#
# [Chapter 3: Language](03_language.ipynb) turns the instruction into tokens of the same kind.
