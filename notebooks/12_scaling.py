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
# # 12. Scaling: predict first, then measure
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/tinyvla/tinyvla/blob/main/notebooks/12_scaling.ipynb)
#
# Will it fit? How long will it take? Is a larger one worth it? You can answer the first two questions before anything
# runs, with four short formulas. This chapter writes them down, compares each with a measurement, and looks at where
# they are off. Then it makes large policies fit: the same gradient with less memory, in two ways, each built by hand.
# Paper does not answer the third question, so it was measured: accuracy against size and against data, from `nano` to
# a policy as large as SmolVLA.
#
# **You will be able to**
#
# - predict parameters, arithmetic, memory and the least time of a training step, and say how far to trust each;
# - count what autograd keeps for the backward pass, and watch it come and go during a step;
# - write the backward pass of a block that runs twice, take a batch in parts, and check that the gradient stays the same;
# - choose between accumulation, recomputing and bfloat16 by what each costs;
# - read curves of accuracy against size and data, and say what they leave open; train on several GPUs.
#
# **Time:** about 60 minutes to read, about 50 seconds on two CPU cores, 20 seconds on a GPU to run.
#
# **Before you start:** [Chapter 5](05_training.ipynb) builds the training loop and [chapter 9](09_speed.ipynb) measures its
# speed. No cell needs a GPU; the large presets' figures are measured ones from the `results` folder.

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
import dataclasses
import math
import statistics
import time
import weakref
from contextlib import nullcontext

import matplotlib.pyplot as plt
import torch.utils.checkpoint
from torch import nn

from tinyvla import PRESETS, BlockFind, TinyVLA, TrainConfig
from tinyvla.course.exercises import checking
from tinyvla.course.zoo import load_results
from tinyvla.data.batch import TensorSplit
from tinyvla.device import synchronize
from tinyvla.learn.train import PlainStep
from tinyvla.measure.throughput import peak_flops, step_flops
from tinyvla.model.layers import Block
from tinyvla.model.policy import new_policy
from tinyvla.model.tokenizer import encode
from tinyvla.show.plots import PART_COLORS
from tinyvla.speed.memory import SavedTensors, backward_in_parts, recomputed
from tinyvla.speed.scaling import budget
from tinyvla.speed.step import make_step

BLUE, ORANGE, PURPLE, PINK = PART_COLORS.values()
where = torch.device(device)
torch.set_num_threads(1)  # on a CPU: several threads wait for each other when another program uses a core
train = TensorSplit.from_blockfind(BlockFind(2_000, seed=42), encode, device)
scaling = load_results("scaling")
NAMES = list(PRESETS)
print("presets:", ", ".join(NAMES))

# %% [markdown]
# This picture shows where the chapter leads. Lines are predictions, made on paper. Dots were measured on a GPU: counted
# parameters, operations of the two towers as PyTorch counts them, and memory and time of a real training step in bfloat16
# with 64 scenes.


# %% tags=["hide-input"] jupyter={"source_hidden": true} mystnb={"image": {"alt": "Four panels over the four presets, logarithmic: parameters, operations of a step, memory of a step, time of a step. Lines predicted on paper, dots measured. Dots lie on the line for parameters, operations and memory of the larger presets; measured times lie far above the line."}}
def measured(preset, variant="bfloat16", graph=False, batch_size=64):
    """The row of one way to take a step, from the results file."""
    rows = scaling["steps"][preset]["rows"]
    return next(r for r in rows if (r["variant"], r["graph"], r["batch_size"]) == (variant, graph, batch_size))


peaks = scaling["peaks"]
FLOPS, BYTES = peaks["bfloat16_flops_per_second"], peaks["bytes_per_second"]
papers = {name: budget(PRESETS[name], bfloat16=True) for name in NAMES}
panels = {
    "parameters": (
        [papers[n].parameters for n in NAMES],
        [scaling["steps"][n]["parameters"] for n in NAMES],
    ),
    "operations a step": ([papers[n].flops for n in NAMES], [scaling["steps"][n]["flops"]["64"] for n in NAMES]),
    "memory, GB": ([papers[n].memory / 1e9 for n in NAMES], [measured(n)["peak_bytes"] / 1e9 for n in NAMES]),
    "time a step, ms": (
        [1e3 * papers[n].seconds(FLOPS, BYTES) for n in NAMES],
        [1e3 * measured(n, graph=True)["seconds"] for n in NAMES],
    ),
}
fig, axes = plt.subplots(1, 4, figsize=(10, 2.8), layout="constrained", facecolor="white")
for ax, (title, (paper, real)) in zip(axes, panels.items(), strict=True):
    ax.plot(range(4), paper, color=ORANGE, lw=1.8, label="on paper")
    ax.scatter(range(4), real, color=BLUE, zorder=3, label="measured")
    ax.set(yscale="log", title=title, xticks=range(4), xticklabels=NAMES)
    ax.tick_params(axis="x", rotation=35)
axes[0].legend(frameon=False, fontsize=9)
plt.show()

# %% [markdown]
# ## 1. Parameters
#
# Nearly all weights of these policies lie in the blocks and in the token table. Attention has four square matrices (query, key, value, output),
# the MLP two matrices with a hidden width of four times $C$: together $4C^2 + 8C^2 = 12C^2$ for a block of width $C$.
# The token table adds a row of width $C$ for each of $V$ words:
#
# $$N \approx 12\,L_{\text{vision}}C_{\text{vision}}^2 + 12\,L_{\text{language}}C_{\text{language}}^2 + V C_{\text{language}}.$$
#
# **Predict first.** The formula leaves out biases, norms, the patch projection, the fusion and the head. For which
# preset will it be off most, and by how much: 1 %, 5 %, 20 %<!-- given -->?


# %%
def parameters_on_paper(config):
    """Blocks and the token table, nothing else."""
    vision, language = config.vision, config.language
    blocks = 12 * vision.num_layers * vision.embed_dim**2 + 12 * language.num_layers * language.embed_dim**2
    return blocks + language.vocab_size * language.embed_dim


counts = {}
for name, config in PRESETS.items():
    with torch.device("meta"):  # shapes without memory
        counts[name] = TinyVLA(config).num_parameters()
    paper = parameters_on_paper(config)
    assert paper == budget(config).parameters  # the same as the package
    print(f"{name:14} on paper {paper / 1e6:6.1f} M, counted {counts[name]['total'] / 1e6:6.1f} M", end="")
    print(f", off by {1 - paper / counts[name]['total']:.1%}")

# %% [markdown]
# The formula is off most for `minimal`, by 3.2 %, and least for the largest preset, by 1.3 %. Most of
# what it leaves out is the fusion and the head. There is one of each, however many blocks there are, so their share shrinks
# as blocks are added. (The biases and norms of the blocks are left out, too. They grow with the blocks, but in none of the
# four are they a tenth of what is missing.) `nano` would be off most, but 84 %<!-- given --> of it is the token table, which
# the formula counts exactly. You can read off two more things:
#
# - **Doubling the width costs four times the weights of the blocks and twice the token table; doubling the depth costs twice
#   the blocks.**
# - In `nano` most weights are rows of the token table, which do no arithmetic at all. A "4.6 M model" and a "0.7 M
#   model with a large table" are the same thing. When two papers compare sizes, ask what was counted.
#
# | preset | vision | language | why |
# |---|---|---|---|
# | `medium` | 512 x 10 | 640 x 10 | about 100 M, the token table included |
# | `smolvla_like` | 768 x 12 | 960 x 30 | SmolVLA's widths and size; its action expert's share became language layers |
#
# `smolvla_like` is SmolVLA's *size*, not SmolVLA: nothing is pretrained, and
# [SmolVLA](https://arxiv.org/abs/2506.01844) uses 16 language layers and an action expert of about 100 M parameters.
#
# ## 2. Arithmetic
#
# A weight takes part in one multiplication and one addition for each token that passes, and the backward pass costs
# twice the forward pass: $6$ operations per weight and token. That is the famous $6ND$
# ([Kaplan et al.](https://arxiv.org/abs/2001.08361), section 2.1): $N$ parameters, $D$ tokens.
#
# **Predict first.** Put `minimal`'s total into $N$, and 64 scenes of 65 image tokens into $D$. The result is too large.
# By 10 %, by a factor of 2, or by a factor of 7?

# %%
print(f"{'':14}{'naive 6ND':>12}{'each its own':>14}{'counted':>10}   GFLOP for 64 scenes")
for name, config in PRESETS.items():
    image_tokens, word_tokens = 64 * config.vision.num_tokens, 6 * 6  # six distinct sentences of six tokens
    naive = 6 * counts[name]["total"] * image_tokens
    vision = 12 * config.vision.num_layers * config.vision.embed_dim**2
    language = 12 * config.language.num_layers * config.language.embed_dim**2
    own = 6 * (vision * image_tokens + language * word_tokens)
    counted = step_flops(config, batch_size=64)
    print(f"{name:14}{naive / 1e9:12.0f}{own / 1e9:14.0f}{counted / 1e9:10.0f}")
    assert own == budget(config).flops  # the same as the package
    assert 0.8 < own / counted < 1

# %% [markdown]
# For `minimal` the naive figure is almost seven times too large. The formula holds for one group of weights and the tokens that pass
# through *them*. So ask **which** parameters meet **which** tokens:
#
# - The token table is looked up, not multiplied.
# - The vision tower meets 65 tokens for each scene. The language model meets the *words*, and each distinct sentence of a
#   batch only once: 36 tokens, whatever the batch. So the language blocks of `smolvla_like`, three quarters of its
#   weights, meet 36 of about 4,200 tokens.
#
# This holds for TinyVLA's late fusions only. In [SmolVLA](https://arxiv.org/abs/2506.01844),
# [OpenVLA](https://arxiv.org/abs/2406.09246) and [pi0](https://arxiv.org/abs/2410.24164), image tokens go *through* the
# language model, and then its weights meet all of them. The same number of parameters costs several times the arithmetic
# there. [Chapter 2](02_vision.ipynb) has an exercise that counts a tower completely; what is missing here, about a sixth
# in `nano`, is attention's own products and the patch projection. Fusion and head are in neither number.
#
# ## 3. Memory
#
# Two parts, and they follow different rules.
#
# **With the parameters.** Training with AdamW takes four numbers for each weight: the weight, its gradient, two moments.
# In float32 that is 16 bytes a parameter. A model of 450 M parameters takes 7.2 GB<!-- given --> before it has seen a picture.
#
# **With the batch.** To compute gradients, the backward pass needs the inputs of the layers, so the forward pass keeps
# them: the *activations*. How many? Go through one block, and count in units of $B\,T\,C$ (scenes, tokens, width):
#
# | kept because | numbers |
# |---|---|
# | the first norm needs its input | 1 |
# | query, key and value layers need theirs (the same one) | 1 |
# | QK-norm, the norm of queries and keys before they are multiplied, needs both | 2 |
# | attention needs normed queries, normed keys, values | 3 |
# | the output layer needs what attention gave | 1 |
# | the second norm needs its input | 1 |
# | the MLP's first layer needs its input | 1 |
# | GELU needs its input, the MLP's last layer needs its own: both four times as wide | 8 |
# | **together** | **18** |
#
# Attention's weights, $T \times T$ for each head, are not in the list: the fused kernel does not store them. That is
# [Korthikanti et al.](https://arxiv.org/abs/2205.05198)'s count (their section 4), without dropout and with QK-norm.
#
# PyTorch can be asked what it keeps. `saved_tensors_hooks` calls a function with every tensor that autograd puts aside.


# %%
class Kept:
    """Notes what autograd puts aside, each piece of memory once, weights left out."""

    def __init__(self, module):
        self.weights = {p.untyped_storage().data_ptr() for p in module.parameters()}
        self.storages = {}

    def note(self, tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.weights:
            self.storages[storage.data_ptr()] = storage  # held, so that no address is used twice
        return tensor

    def hooks(self):
        return torch.autograd.graph.saved_tensors_hooks(self.note, lambda tensor: tensor)

    @property
    def bytes(self):
        return sum(storage.nbytes() for storage in self.storages.values())


SCENES, TOKENS, WIDTH = 16, 65, 96
block = Block(WIDTH, num_heads=3, mlp_ratio=4).to(device)
x = torch.randn(SCENES, TOKENS, WIDTH, device=device, requires_grad=True)
kept = Kept(block)
with kept.hooks():
    block(x).sum()
unit = 4 * SCENES * TOKENS * WIDTH
with SavedTensors(block) as package:
    block(x).sum()
assert kept.bytes == package.bytes  # the same as the package
assert abs(kept.bytes / unit - 18) < 0.5
print(f"a block keeps {kept.bytes / unit:.0f} numbers for each token and unit of width")

# %% [markdown]
# So on paper, in float32,
#
# $$\text{memory} \approx 16\,N + 4 \cdot 18 \sum_{\text{towers}} L\,B\,T\,C \quad \text{bytes.}$$
#
# **Predict first.** For 64 scenes in float32, which preset's activations are more than half of its memory?

# %% mystnb={"image": {"alt": "Stacked bars of memory on paper for the four presets: weights, gradients, moments, activations, each as a share of the preset's own total; a dark mark shows the measured peak. Activations are about half of it in nano, minimal and medium, and less than a third in smolvla_like. The measured peak is well above the paper for nano, a little above for minimal, and on it for the two large presets."}}
fig, ax = plt.subplots(figsize=(8, 2.9), layout="constrained", facecolor="white")
kinds = {"weights": BLUE, "gradients": PURPLE, "moments": PINK, "activations": ORANGE}
for row, name in enumerate(NAMES):
    paper, left = budget(PRESETS[name]), 0.0
    for kind, color in kinds.items():
        share = getattr(paper, kind) / paper.memory
        ax.barh(row, share, left=left, color=color, label=kind if row == 0 else None)
        left += share
    real = measured(name, "float32")["peak_bytes"]
    ax.plot(
        [real / paper.memory] * 2, [row - 0.4, row + 0.4], color="black", lw=2.5, label="measured" if row == 0 else None
    )
totals = [f"{name}\n{budget(PRESETS[name]).memory / 1e9:.2f} GB on paper" for name in NAMES]
ax.set(yticks=range(4), yticklabels=totals, xlabel="share of the memory on paper", xlim=(0, 1.5))
ax.invert_yaxis()
ax.legend(frameon=False, ncols=5, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1))
plt.show()
shares = {n: budget(PRESETS[n]).activations / budget(PRESETS[n]).memory for n in NAMES}
print("activations' share on paper:", ", ".join(f"{n} {share:.0%}" for n, share in shares.items()))

# %% [markdown]
# Only `minimal`'s are, and `medium`'s nearly. Where the black mark is not at 1, the paper is off. Two things that the
# formula does not know work in opposite directions:
#
# - **It leaves things out**: fusion, norms, the patch projection, working memory of the libraries. They move the mark to
#   the right. In `nano`, where everything else is small, the mark lies farthest to the right.
# - **Not everything is there at once.** Before the backward pass there are no gradients, and while gradients come,
#   activations go. That moves the mark to the left, and only if the old gradients were dropped *before* the forward pass.
#   A loop that calls `zero_grad` after it needs the whole sum. Section 5 draws this for a small step.
#
# ## 4. Time
#
# Two lower bounds: the arithmetic at the speed of the device's best matrix product, and the optimizer's traffic at
# the speed of its memory. Clipping and AdamW read and write ten numbers for each weight (clipping reads the gradient, then
# reads and writes it; AdamW reads four and writes three): 40 bytes a parameter, however small the batch.
#
# $$\text{time} \ge \frac{6ND}{\text{operations per second}} + \frac{40\,N}{\text{bytes per second}}.$$
#
# **Predict first.** By which factor is a real step on your device slower than this bound: 1.5, 5, 50? Is the factor
# larger for `nano` or for `minimal`?


# %%
def seconds_per_call(call, warmup=1, repeats=3):
    """Median time of a call, the device's work inside the measured span."""
    times = []
    for _ in range(warmup + repeats):
        synchronize(where)
        started = time.perf_counter()
        call()
        synchronize(where)
        times.append(time.perf_counter() - started)
    return statistics.median(times[warmup:])


batch = train.take(torch.arange(64, device=device))
product = peak_flops(where, torch.float32, size=None if device == "cuda" else 1024)
source, target = (torch.zeros(2**24, device=device) for _ in range(2))
bandwidth = 2 * 4 * len(source) / seconds_per_call(lambda: target.copy_(source))  # read once, written once
slower = {}
for name in ("nano", "minimal"):
    take_step = PlainStep(new_policy(PRESETS[name], seed=0, device=device), train, TrainConfig())
    step = seconds_per_call(lambda take_step=take_step: take_step(torch.arange(64, device=device)))
    slower[name] = (step, budget(PRESETS[name]).seconds(product, bandwidth))
assert all(step > 0.5 * bound for step, bound in slower.values())  # half: another program may have slowed the bound
print("no step is far below the bound")

# %% tags=["nbval-ignore-output"]
print(f"here ({device}): {product / 1e9:,.0f} GFLOP/s in float32, {bandwidth / 1e9:.0f} GB/s")
for name, (step, bound) in slower.items():
    print(f"{name:8} at least {1e3 * bound:7.2f} ms, measured {1e3 * step:7.1f} ms: {step / bound:5.1f} times as long")
assert bandwidth > 0

# %% [markdown]
# On the CPU of the printed run, a step took between one and a half and three times the bound. On a GPU the gap is far wider for the two
# small presets.
# Here are the steps of the results file that were recorded as a graph:

# %%
print(f"{scaling['machine']['device']}: {FLOPS / 1e12:.0f} TFLOP/s in bfloat16, {BYTES / 1e12:.1f} TB/s\n")
print(f"{'':14}{'arithmetic':>11}{'optimizer':>11}{'measured':>10}   ms; of the measured time the bound is")
for name in NAMES:
    paper, real = papers[name], measured(name, graph=True)["seconds"]
    bound = paper.seconds(FLOPS, BYTES)
    print(
        f"{name:14}{1e3 * paper.flops / FLOPS:11.2f}{1e3 * paper.traffic / BYTES:11.2f}{1e3 * real:10.2f}{bound / real:9.0%}"
    )
assert papers["nano"].seconds(FLOPS, BYTES) < 0.2 * measured("nano", graph=True)["seconds"]

# %% [markdown]
# The bound says little about small models and comes within a factor of three for the largest. Its share of the measured
# time rises with size. [Chapter 9](09_speed.ipynb) shows what else a GPU does in that time: it starts and ends kernels, it
# normalises, casts and copies. Activations travel, too, and the bound does not count them: each of those 18 numbers is
# written once and read at least twice.
#
# Compare the first two columns. In every row the optimizer's traffic takes longer than the arithmetic. Traffic grows with
# the number of weights, arithmetic with the number of weights times their tokens, and 64 scenes are few tokens.
#
# A lower bound is useful even where it is far off. If it says three weeks, the machine will not need less.
#
# ## 5. The same gradient with less memory
#
# ### Take the batch in parts
#
# `backward` *adds* to `.grad`. So a batch can be taken in parts, one after the other, with one optimizer step at the end:
# gradient accumulation. An exercise of [chapter 5](05_training.ipynb) builds it. Each part has to be weighted by its share.
#
# **Predict first.** 20 scenes come in parts of 8, 8 and 4, and somebody averages the three losses. What is wrong with
# the gradient: nothing, its length alone, or its direction as well?


# %%
def gradient(policy, parts, weights):
    """The gradient of a weighted sum of the parts' mean losses."""
    policy.zero_grad()
    for part, weight in zip(parts, weights, strict=True):
        (weight * policy.loss(part)).backward()  # the part's activations are gone after this
    return torch.cat([p.grad.flatten() for p in policy.parameters()])


def waked(policy):
    """Blocks start as the identity; give their output layers something to do, so that every gradient counts."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in policy.modules():
            if isinstance(module, Block):
                for layer in (module.attention.output, module.mlp.output):
                    layer.weight.copy_(0.05 * torch.randn(layer.weight.shape, generator=generator))
    return policy


policy = waked(new_policy(PRESETS["nano"], seed=0, device=device))
index = torch.arange(20, device=device)
parts = [train.take(piece) for piece in index.split(8)]
whole = gradient(policy, [train.take(index)], [1])
ways = {"averaged": [1 / 3] * 3, "by their share of the scenes": [len(part) / 20 for part in parts]}
for name, weights in ways.items():
    got = gradient(policy, parts, weights)
    angle = math.degrees(math.acos(min(1.0, torch.cosine_similarity(got, whole, dim=0).item())))
    same = torch.allclose(got, whole, rtol=1e-3, atol=1e-5)
    print(f"{name}: {'the same gradient' if same else 'another gradient'}, {'turned' if angle > 1 else 'not turned'}")

policy.zero_grad()
backward_in_parts(policy.loss, train.take(index), parts=3)
package = torch.cat([p.grad.flatten() for p in policy.parameters()])
torch.testing.assert_close(package, whole, rtol=1e-3, atol=1e-5)
print("tinyvla.speed.memory.backward_in_parts gives the gradient of the whole")

# %% [markdown]
# Its direction is wrong as well. In the plain average, the four scenes of the last part count twice as much as the others. Such a
# fault is easy to miss, since there is no error and training goes on.
#
# It has happened in real libraries. When sequences differ in length, a mean over *tokens* has this fault, and in 2024 it
# was found [in widely used training code](https://huggingface.co/blog/gradient_accumulation). Chunks of actions have the same
# trap: where an episode ends within a chunk, the rest is padding and does not count
# ([chapter 15](15_real_data.ipynb), [Own data](../book/own_data.md)). So the package weights a part by its share of the
# actions that *do* count.
#
# How much memory does this save? It saves activations, and nothing else.


# %%
def kept_by(policy, num_scenes):
    """Bytes that autograd keeps for one forward pass."""
    with SavedTensors(policy) as saved:
        policy.loss(train.take(torch.arange(num_scenes, device=device)))
    return saved.bytes


for num_parts in (1, 2, 4, 8):
    share = kept_by(policy, 64 // num_parts) / kept_by(policy, 64)
    assert abs(share - 1 / num_parts) < 0.05
    print(f"64 scenes in {num_parts} parts: about {1 / num_parts:.0%} of the activations")

# %% [markdown]
# What does it cost? The arithmetic stays nearly the same (each part reads its own distinct sentences), but small parts use a device badly, and the host asks for everything
# several times. On the GPU of the table below, 64 scenes in four parts take about four times as long.
#
# ### Run each block twice
#
# The other way saves memory *within* one part: keep only each block's input, and in the backward pass run the block
# again to get the rest back ([Chen et al.](https://arxiv.org/abs/1604.06174)). It is called activation checkpointing.
# A checkpoint is also a folder with weights, so this package says `recompute`.
#
# ### Exercise 1: the second run (15 minutes)
#
# The forward pass has kept a block's input `x` and nothing else. Now the backward pass arrives with `output_gradient`,
# the gradient of the loss with respect to the block's output. Write `second_run(block, x, output_gradient)`: run the block
# once more, and return a list with the gradient of `x` first, then the gradients of the block's weights, in the order of
# `block.parameters()`. Leave `.grad` of the weights alone.
#
# PyTorch calls this from inside a backward pass, and there autograd is switched off.
#
# <details><summary>Hint</summary>
#
# `with torch.enable_grad():` switches autograd on. `x.detach().requires_grad_()` is the same input as a fresh leaf.
# `torch.autograd.grad(output, inputs, output_gradient)` returns one gradient for each of `inputs`.
#
# </details>


# %% tags=["exercise"]
def second_run(block, x, output_gradient):
    """The gradients of a block's input and weights, from its input alone."""
    # your code here


# %% tags=["check"]
with checking("Exercise 1"):
    torch.manual_seed(0)
    small = Block(24, num_heads=3, mlp_ratio=2)
    for weight in small.parameters():  # none zero, so that every gradient counts
        nn.init.normal_(weight, std=0.3)
    seen, arriving = torch.randn(2, 5, 24), torch.randn(2, 5, 24)
    leaf = seen.clone().requires_grad_()
    wanted = torch.autograd.grad(small(leaf), (leaf, *small.parameters()), arriving)
    evenly = torch.autograd.grad(small(leaf).sum(), (leaf, *small.parameters()))
    for weight in small.parameters():  # as if an earlier part of the batch had left them
        weight.grad = torch.ones_like(weight)
    try:
        with torch.no_grad():  # as in a backward pass
            answer = second_run(small, seen, arriving)
    except RuntimeError as error:
        if "not require grad" not in str(error):
            raise
        raise AssertionError("let x require a gradient, and run the block under torch.enable_grad()") from None
    assert answer is not None, "write the body of second_run first"
    answer = list(answer)
    assert len(answer) == len(wanted), (
        f"return {len(wanted)} gradients, of x and of each weight; yours are {len(answer)}"
    )
    assert all(weight.grad is not None and weight.grad.eq(1).all() for weight in small.parameters()), (
        "the weights' .grad has changed; what an earlier part left there has to stay: use torch.autograd.grad"
    )
    shapes = [tuple(gradient.shape) for gradient in answer]
    assert shapes == [tuple(gradient.shape) for gradient in wanted], "the gradient of x comes first, then the weights'"
    assert not torch.allclose(answer[0], evenly[0], atol=1e-4), "your gradients ignore output_gradient: hand it on"
    assert torch.allclose(answer[0], wanted[0], atol=1e-4), "the gradient of x is wrong"
    same = all(torch.allclose(got, right, atol=1e-4) for got, right in zip(answer, wanted, strict=True))
    assert same, "the gradient of x is right, those of the weights are not: do they stand in the order of parameters()?"
    assert not seen.requires_grad, "you have changed the x that was kept: detach it first"
    inside = 1 * leaf  # as in a policy: the kept x was computed and needs a gradient
    try:
        with torch.no_grad():
            answer = list(second_run(small, inside, arriving))
            switched_on = torch.is_grad_enabled()
    except RuntimeError as error:
        if "leaf" not in str(error):
            raise
        raise AssertionError("you change the x that was kept, and change it back: work on a detached one") from None
    assert inside.requires_grad, "you have changed the x that was kept: detach it first"
    assert all(torch.allclose(got, right, atol=1e-4) for got, right in zip(answer, wanted, strict=True)), (
        "where x itself was computed with autograd, your gradients are wrong: detach it first"
    )
    assert not switched_on, "autograd is still on afterwards: `with torch.enable_grad():` switches it off again"
    assert not any(gradient.requires_grad for gradient in answer), (
        "your gradients hold on to the graph of the second run, and so to its memory: leave out create_graph"
    )

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def second_run(block, x, output_gradient):
#     x = x.detach().requires_grad_()
#     with torch.enable_grad():
#         output = block(x)
#     return list(torch.autograd.grad(output, (x, *block.parameters()), output_gradient))
# ```
#
# </details>
#
# The whole autograd function follows, with the second run inside. It works whether yours is ready or not.


# %%
class RunTwice(torch.autograd.Function):
    """A block's output; of the forward pass, only the input is kept."""

    @staticmethod
    def forward(ctx, block, x, *weights):
        ctx.block = block
        ctx.save_for_backward(x)
        return block(x)  # inside a Function, autograd is off: nothing else is kept

    @staticmethod
    def backward(ctx, output_gradient):
        x = ctx.saved_tensors[0].detach().requires_grad_()
        with torch.enable_grad():
            output = ctx.block(x)  # once more, and this time everything is kept, for this one block
        inputs = (x, *ctx.block.parameters())
        return None, *torch.autograd.grad(output, inputs, output_gradient)


def run(blocks, x, twice):
    for block in blocks:
        x = RunTwice.apply(block, x, *block.parameters()) if twice else block(x)
    return x


blocks = nn.ModuleList(Block(WIDTH, num_heads=3, mlp_ratio=4) for _ in range(4)).to(device)
x = torch.randn(SCENES, TOKENS, WIDTH, device=device, requires_grad=True)
results, numbers = [], []
for twice in (False, True):
    blocks.zero_grad()
    with SavedTensors(blocks) as saved:
        output = run(blocks, x, twice)
    output.square().mean().backward()
    results.append([output.detach(), *(p.grad for p in blocks.parameters())])
    numbers.append(saved.bytes / unit / len(blocks))
for plain, again in zip(*results, strict=True):
    torch.testing.assert_close(again, plain)
print(f"numbers kept by a block: {numbers[0]:.0f} and {numbers[1]:.0f}; the output and all gradients are the same")

# %% [markdown]
# The weights are arguments of the function though `forward` does not use them. That is how autograd learns that the output
# depends on them. A block that drew random numbers (dropout) would have to draw the same ones again. PyTorch's
# `torch.utils.checkpoint` takes care of both. The package's blocks hold no switch for this: inside `with
# recomputed(policy):`, each block's `forward` is exchanged for one that runs twice ([chapter 9](09_speed.ipynb) shows such an
# exchange).
#
# ### Memory over a step
#
# When is which memory there? `Trace` follows a step of eight blocks. It notes what autograd puts aside, when autograd lets
# go of it, and when a gradient arrives.
#
# **Predict first.** With the batch in four parts, does the memory between two parts fall back to zero?


# %%
class Trace:
    """Bytes of activations and of gradients, after each event of a step."""

    def __init__(self, module):
        self.weights = {p.untyped_storage().data_ptr() for p in module.parameters()}
        self.uses, self.now, self.events = {}, [0, 0], []
        for parameter in module.parameters():
            parameter.register_post_accumulate_grad_hook(self.arrive)
        self.arrived = set()

    def note(self, kind, change):
        self.now[kind] += change
        self.events.append(tuple(self.now))

    def arrive(self, parameter):
        if parameter not in self.arrived:  # later parts add to the same memory
            self.arrived.add(parameter)
            self.note(1, parameter.grad.nbytes)

    def put_aside(self, tensor):
        storage = tensor.untyped_storage()
        place = storage.data_ptr()
        if place not in self.weights:
            self.uses[place] = self.uses.get(place, 0) + 1
            if self.uses[place] == 1:
                self.note(0, storage.nbytes())
        held = Held([tensor.detach()])
        weakref.finalize(held, self.let_go, place, storage.nbytes())
        return held

    def let_go(self, place, size):
        if place not in self.weights:
            self.uses[place] -= 1
            if self.uses[place] == 0:
                self.note(0, -size)


class Held(list):
    """A list that can be watched: we hear when autograd drops it."""


def traced_step(parts, twice):
    """The events of one forward and backward pass, with the batch in parts or each block run twice."""
    torch.manual_seed(0)
    stack = nn.ModuleList(Block(WIDTH, num_heads=3, mlp_ratio=4) for _ in range(8)).to(device)
    trace = Trace(stack)
    for part in torch.randn(8, TOKENS, WIDTH, device=device).chunk(parts):
        with torch.autograd.graph.saved_tensors_hooks(trace.put_aside, lambda held: held[0]):
            run(stack, part.clone().requires_grad_(), twice).square().mean().backward()
    return trace.events


traces = {
    "as it is": traced_step(parts=1, twice=False),
    "batch in four parts": traced_step(parts=4, twice=False),
    "each block run twice": traced_step(parts=1, twice=True),
}
peaks_of = {name: max(sum(event) for event in events) for name, events in traces.items()}
assert all(events[-1][0] == 0 for events in traces.values()), "autograd lets go of everything in the end"
assert peaks_of["batch in four parts"] < 0.7 * peaks_of["as it is"]
assert peaks_of["each block run twice"] < 0.7 * peaks_of["as it is"]
print("both ways have a lower peak, and in the end only the gradients are left")

# %% tags=["hide-input"] jupyter={"source_hidden": true} mystnb={"image": {"alt": "Three panels, memory of gradients and activations over the events of a step. As it is: activations rise to a peak in the middle and fall while gradients rise. In four parts: four lower peaks; from the second on they stand on gradients that stay. Each block run twice: a small rise, then eight short peaks in the backward pass while gradients rise beneath them."}}
fig, axes = plt.subplots(1, 3, figsize=(9.5, 2.7), layout="constrained", facecolor="white", sharey=True)
for ax, (name, events) in zip(axes, traces.items(), strict=True):
    activations, gradients = ([event[kind] / 1e6 for event in events] for kind in (0, 1))
    ax.stackplot(
        range(len(events)), gradients, activations, colors=(PURPLE, ORANGE), labels=("gradients", "activations")
    )
    ax.set(title=name, xlabel="events of the step", xticks=[])
axes[0].set_ylabel("MB, beside weights and moments")
axes[2].legend(frameon=False, fontsize=9, loc="upper right")
plt.show()

# %% [markdown]
# It does not fall to zero: from the second part on, the gradients of the first part stay, and the next part's activations
# come on top. With each block run twice, the forward pass keeps eight inputs, and the backward pass needs all the numbers
# of *one* block at a time.
#
# **Predict first.** The forward pass runs twice, and the backward pass costs two forward passes. How much longer is a
# step that is all arithmetic?

# %%
policy = waked(new_policy(PRESETS["minimal"], seed=0, device=device))
calls = []
hooks = [block.mlp.hidden.register_forward_hook(lambda *_: calls.append(1)) for block in policy.vision.blocks]
rows = {}
for recompute in (False, True):
    calls.clear()
    policy.zero_grad()
    with recomputed(policy) if recompute else nullcontext():
        kept_bytes = kept_by(policy, 64)
        backward_in_parts(policy.loss, batch)
    gradients = torch.cat([p.grad.flatten() for p in policy.parameters()])
    rows[recompute] = (kept_bytes, gradients, len(calls) - len(hooks))  # the first pass was for counting bytes
for hook in hooks:
    hook.remove()
torch.testing.assert_close(rows[True][1], rows[False][1], rtol=1e-4, atol=1e-6)
print(f"runs of each block in a step: {rows[False][2] // len(hooks)} and {rows[True][2] // len(hooks)}")
assert rows[True][0] < rows[False][0] / 5
print("activations kept: less than a fifth")

# %% tags=["nbval-ignore-output"]
seconds = {}
for recompute in (False, True):
    with recomputed(policy) if recompute else nullcontext():
        seconds[recompute] = seconds_per_call(lambda: backward_in_parts(policy.loss, batch))
print(
    f"forward and backward: {1e3 * seconds[False]:.0f} ms, with blocks run twice {1e3 * seconds[True]:.0f} ms", end=""
)
print(f": {seconds[True] / seconds[False]:.2f} times as long; 4/3 on paper")
assert seconds[True] > 0

# %% [markdown]
# On paper a third longer. In the run printed here it was less. The time here is not all arithmetic, so the ratio depends on
# the device; the table below has it for a GPU.
#
# ### bfloat16
#
# Numbers of two bytes for the inputs of matrix products, four for weights, moments and the residual stream (the sum that
# runs from block to block, and to which each block adds). **Predict first:** does it halve the memory of `smolvla_like`?
#
# 16 of a block's 18 numbers shrink to two bytes, so on paper activations take 40 bytes instead of 72. But weights,
# gradients and moments stay as they are, and the products need the *weights* in bfloat16 as well. A copy, two bytes for
# each weight that multiplies, is made in each step and kept for the backward pass. With many weights and few tokens the
# copy is larger than what the activations save. From how many scenes on does bfloat16 save memory at all?

# %%
for name in NAMES:
    pays = (
        n for n in range(1, 512) if budget(PRESETS[name], n, bfloat16=True).memory < budget(PRESETS[name], n).memory
    )
    print(f"{name:14} bfloat16 saves memory on paper from {next(pays)} scenes on")

# %% [markdown]
# Here are all ways together, on the GPU, each beside what the formulas say.


# %%
def table(preset, batch_size):
    """Memory and time of every way to take a step."""
    title = f"{preset}, {batch_size} scenes"
    print(f"{title:44}{'memory, GB':>17}{'time, ms':>17}")
    print(f"{'':38}{'paper':>11}{'measured':>12}{'measured':>12}")
    for row in scaling["steps"][preset]["rows"]:
        if row["batch_size"] == batch_size:
            paper, peak = row["paper"]["memory"], row["peak_bytes"]
            name = row["variant"] + (", recorded" if row["graph"] else "")
            print(f"{name:38}{paper / 1e9:11.2f}{peak / 1e9:12.2f}{1e3 * row['seconds']:12.1f}")
    print()


print(scaling["machine"]["device"], "\n")
table("medium", 64)
table("smolvla_like", 64)
table("smolvla_like", 512)

# %%
rows = [row for name in ("medium", "smolvla_like") for row in scaling["steps"][name]["rows"]]
off = [row["peak_bytes"] / row["paper"]["memory"] - 1 for row in rows]
assert max(abs(x) for x in off) < 0.2
print(f"{len(rows)} measurements of the two large presets: off by {min(off):.0%} to {max(off):+.0%}")
alone, both = (
    measured("smolvla_like", f"bfloat16, {way}")["peak_bytes"] for way in ("recompute", "4 parts, recompute")
)
copies = papers["smolvla_like"].copies
print(f"four parts on top of recomputing: {(both - alone) / 1e9:+.2f} GB; copies in bfloat16: {copies / 1e9:.2f} GB")
assert both > alone

# %% [markdown]
# Three things to read closely.
#
# **For these two presets the paper is good enough to plan with.** Its errors have both signs, and the two largest belong to
# parts *with* recomputing. (For `nano` it is not: Section 3 shows how far the measured peak is above it.)
#
# **A surprise.** With 64 scenes, parts *and* recomputing need **more** memory than recomputing alone, and the formula says
# less. It leaves out one thing: mixed precision keeps its bfloat16 copies of the weights until the forward pass is over, even
# if no block needs them for the backward pass. With one part, the copies are gone before the gradients come, whose room the
# formula counts. With several parts both are there at once, as the picture above shows for the gradients. The last line shows that the difference has about the size of the copies; it does not prove the
# explanation. With 512 scenes the parts save more than that, and both together need the least. When both savings are switched
# on, the batch is small and it still does not fit, try fewer parts.
#
# **Time.** Most rows were measured kernel by kernel. There, [chapter 9](09_speed.ipynb) has shown, a GPU that is not full
# mostly waits for the host to ask, and four parts ask four times. The recorded rows take the asking away, and
# yet both savings together take about three times as long there. With 512 scenes some factors come nearer to those on
# paper, which are about 1 for parts and 4/3 for running twice, and none reaches them. And some steps with 512 scenes took less time
# than the same ones with 64: times of unrecorded steps depend on the host, too.
#
# On the command line:
#
# ```bash
# tinyvla train --preset smolvla_like --accumulate 4 --recompute
# ```
#
# In Python, `make_step(policy, train, config)` of `tinyvla.speed.step` follows `config.accumulate` and
# `config.recompute`, and `fit` takes the step that it returns. Here is a step with both savings:

# %%
savings = TrainConfig(batch_size=16, accumulate=4, recompute=True)
frugal = make_step(new_policy(PRESETS["nano"], seed=0, device=device), train, savings, "plain")
plain = make_step(new_policy(PRESETS["nano"], seed=0, device=device), train, TrainConfig(batch_size=16), "plain")
index = torch.arange(16, device=device)
difference = max(abs(frugal(index).item() - plain(index).item()) for _ in range(3))
assert difference < 1e-3
print("three steps in four parts, each block run twice: the losses of the plain step")

# %% [markdown]
# ## 6. Does size pay?
#
# All four presets, the same number of scenes and of steps, fixed beforehand; AdamW at two learning rates, since a rate
# that suits one size may not suit another. Direction accuracy is at its ceiling, so look at the L2 error.
#
# The runs come from two measurements with the same settings. The first ran on a GPU and was stopped when its 75 seconds<!-- given -->
# were over, so it lacks 37<!-- result: scaling_runs/left_out --> runs, those of `nano` and of the data among them. The second
# made `nano`'s runs on a CPU, and `minimal`'s at the higher rate once more. A GPU takes these steps in bfloat16 and a CPU may
# take them in float32, so the table says where each row was measured, and in the figures points of a CPU are white inside.
# The bars reach from the smallest to the largest error of the seeds.
#
# **Predict first.** From `nano` to `smolvla_like` the parameters grow a hundredfold. By what factor does the error fall
# on unseen scenes: 100, 10, 2, or does it rise?

# %% mystnb={"image": {"alt": "L2 error on unseen scenes against parameters, left, and against the operations of the whole training, right, at two learning rates. The lowest errors are minimal's; from there both curves rise slightly towards medium. smolvla_like is a little higher at the lower rate and about ten times as high at the higher one. Points measured on a CPU are white inside: both of nano, and one of minimal."}}
measurements = {"GPU": load_results("scaling_runs"), "CPU": load_results("scaling_runs_cpu")}
settings = measurements["GPU"]["settings"]
assert settings == measurements["CPU"]["settings"]
every_row = [{**row, "on": on} for on, measured_there in measurements.items() for row in measured_there["summary"]]


def key(row):
    return row["preset"], row["learning_rate"], row["num_scenes"]


# Where both measured the same, the curves take the row with more seeds. The table below shows both.
best = {key(row): row for row in sorted(every_row, key=lambda row: row["seeds"])}
summary = sorted(best.values(), key=key)
most = max(row["num_scenes"] for row in summary)


def operations(row):
    """Of the whole training, counted."""
    return settings["steps"] * scaling["steps"][row["preset"]]["flops"]["64"]


def line(ax, rows, across, color, label, split="test", style="-"):
    """Medians with a bar from the least to the largest of the seeds."""
    rows = sorted(rows, key=across)
    at = [across(row) for row in rows]
    middle = [row[split]["l2_error"]["median"] for row in rows]
    low, high = ([row[split]["l2_error"][end] for row in rows] for end in ("min", "max"))
    ends = [[m - a for m, a in zip(middle, low, strict=True)], [b - m for m, b in zip(middle, high, strict=True)]]
    ax.errorbar(at, middle, ends, color=color, marker="o", ls=style, lw=1.8, capsize=3, label=label)
    ax.set_yscale("log")
    ax.set_yticks([0.02, 0.03, 0.05, 0.1, 0.2, 0.4], ["0.02", "0.03", "0.05", "0.1", "0.2", "0.4"])
    ax.tick_params(axis="y", which="minor", left=False, labelleft=False)
    hollow = [number for number, row in enumerate(rows) if row["on"] == "CPU"]
    ax.plot([at[i] for i in hollow], [middle[i] for i in hollow], "o", ms=3, color="white", zorder=4)


fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained", facecolor="white", sharey=True)
for rate, color in zip(sorted({row["learning_rate"] for row in summary}), (BLUE, ORANGE), strict=True):
    rows = [row for row in summary if row["learning_rate"] == rate and row["num_scenes"] == most]
    line(left, rows, lambda row: scaling["steps"][row["preset"]]["parameters"], color, f"learning rate {rate:g}")
    line(right, rows, operations, color, f"learning rate {rate:g}")
left.set(xscale="log", xlabel="parameters", ylabel="L2 error on unseen scenes")
right.set(xscale="log", xlabel="operations of the whole training")
left.plot([], [], "o", color="black", mfc="white", label="measured on a CPU")
left.legend(frameon=False, fontsize=9)
fig.suptitle(f"{settings['steps']} steps of 64 scenes out of {most:,}; bars: all seeds", fontsize=10)
plt.show()

# %%
print(f"{'':14}{'rate':>8}{'on':>5}{'seeds':>7}{'L2 error, median':>18}{'lowest direction accuracy':>27}{'TFLOP':>9}")
for row in sorted(every_row, key=lambda row: (NAMES.index(row["preset"]), row["learning_rate"], row["on"])):
    if row["num_scenes"] == most:
        test = row["test"]
        print(f"{row['preset']:14}{row['learning_rate']:8g}{row['on']:>5}{row['seeds']:7}", end="")
        print(f"{test['l2_error']['median']:18.4f}{test['direction_accuracy']['min']:27.1%}", end="")
        print(f"{operations(row) / 1e12:9,.0f}")
rates = {row["learning_rate"]: row for row in summary if row["preset"] == "smolvla_like"}
assert rates[3e-4]["test"]["direction_accuracy"]["min"] > 0.95 > rates[1e-3]["test"]["direction_accuracy"]["max"]
print("smolvla_like, one seed each: beyond 95 % at the lower rate, not at the higher one")

# %% [markdown]
# At the lower rate the error falls from `nano` to `minimal`; at the higher one the two overlap. From there on it *rises*
# with size, and the one run of the largest at the higher rate did not even reach the target. Before you conclude that large
# is worse, go through what this table can and cannot say.
#
# - **The rate.** A rate that suits a small policy can be too much for a large one. With Adam the best rate falls with the
#   width ([Yang et al.](https://arxiv.org/abs/2203.03466)). Two rates are a coarse grid: the largest may want less than
#   either. With the higher rate alone, the table would have said that a policy of this size does not learn the task.
# - **The seeds.** There are two or three, and one for `smolvla_like`. One run that fails shows that this rate *can* fail. It
#   does not show how often, and neighbours whose bars overlap cannot be ranked.
# - **The length.** 400 steps are less than a fifth of the usual 20 epochs. See below.
# - **The cost.** That is the last column. It was counted, for the two towers: fusion and head would add some 2 to
#   9 %<!-- given -->, most in `nano`.

# %%
learning = load_results("learning")
for name in ("nano", "minimal"):
    error = learning["full"][name]["l2_error"]
    print(f"{name:8} after {learning['settings']['epochs']} epochs: L2 error {error['median']:.4f}", end="")
    print(f" ({error['min']:.4f} to {error['max']:.4f})")
assert learning["full"]["minimal"]["l2_error"]["max"] < learning["full"]["nano"]["l2_error"]["min"]

# %% [markdown]
# After 20 epochs `minimal` ends with about half of `nano`'s error, and the worst of its runs is better than the best of
# `nano`'s. After 400 steps their errors were six to twelve times as large. A comparison of sizes at one training length is a
# comparison *at that length*, and at that rate. (The long runs used the lower rate, at which `minimal` was ahead of `nano`
# after 400 steps, too.) Whether `medium` and `smolvla_like` would catch up with more steps was not measured.
#
# Do not expect a gain in success here: direction accuracy is at its ceiling from `nano` on. BlockFind does not need a
# policy of that size.
#
# How fast do the two large presets reach the course's target, 95 % direction accuracy? Here with Muon, the number of steps
# fixed beforehand ([chapter 9](09_speed.ipynb) explains the recipe).

# %%
for name in ("medium", "smolvla_like"):
    bench = load_results(f"bench_{name}_cuda")
    print(f"{name} on {bench['machine']['device']}:")
    print(f"  {bench['reached']} of {len(bench['runs'])} seeds reach 95 %", end="")
    print(f" in {bench['steps']['max']:.0f} steps; median {bench['seconds']['median']:.2f} s,", end="")
    print(f" {bench['peak_gpu_memory_gb']:.1f} GB; lowest accuracy {bench['direction_accuracy']['min']:.1%}")
    assert bench["reached"] == len(bench["runs"])

# %% [markdown]
# ## 7. Does more data pay?
#
# Now the size is fixed, and so is the number of steps; only the number of *different* scenes changes. With few scenes
# each one is seen often.
#
# (All of these runs were made on a CPU, and again the bars show all seeds.)
#
# **Predict first.** How many scenes does `nano` need until the error on unseen scenes is within a factor of two of
# what all scenes give: 500, 2,000, all?

# %% mystnb={"image": {"alt": "L2 error of nano against the number of different scenes. On unseen scenes it falls steeply from 250 to 1,000 scenes and then stays level. On training scenes it rises from a low value; from 2,000 scenes on the two curves coincide."}}
rate = max(row["learning_rate"] for row in summary)
curves = {n: [row for row in summary if row["preset"] == n and row["learning_rate"] == rate] for n in NAMES}
curves = {n: sorted(rows, key=lambda row: row["num_scenes"]) for n, rows in curves.items() if len(rows) > 2}
fig, axes = plt.subplots(1, len(curves), figsize=(4.8 * len(curves), 3.3), layout="constrained", squeeze=False)
for ax, (name, rows) in zip(axes[0], curves.items(), strict=True):
    line(ax, rows, lambda row: row["num_scenes"], BLUE, "unseen scenes")
    line(ax, rows, lambda row: row["num_scenes"], ORANGE, "training scenes", "train", "--")
    ax.set(xscale="log", xlabel="different scenes", ylabel="L2 error")
    ax.set_title(f"{name}, {settings['steps']} steps, learning rate {rate:g}, {settings['seeds']} seeds", fontsize=10)
    ax.set_xticks([row["num_scenes"] for row in rows], [f"{row['num_scenes']:,}" for row in rows])
    ax.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
axes[0, 0].legend(frameon=False)
plt.show()

# %%
for name, rows in curves.items():
    print(f"{name + ':':8}{'scenes':>6}{'unseen':>9}{'training':>10}{'ratio':>7}{'direction accuracy, unseen':>28}")
    for row in rows:
        unseen, seen = (row[split]["l2_error"]["median"] for split in ("test", "train"))
        accuracy = row["test"]["direction_accuracy"]["min"]
        print(f"{row['num_scenes']:14,}{unseen:9.4f}{seen:10.4f}{unseen / seen:7.1f}{accuracy:28.1%}")

# %% [markdown]
# 500 scenes are enough for that. There are two regimes, and the gap between the two curves tells them apart.
#
# - **A gap.** With 250 scenes the error on unseen scenes is several times that on the training scenes, and more scenes bring
#   it down. Here the run is short of data.
# - **No gap.** From about 2,000 scenes on, unseen scenes are as good as training scenes, and further scenes change nothing
#   that the spread of the seeds would show. In 400 steps each of 2,000 scenes is seen 13 times, each of 8,000 three times.
#   More data would not help at this length. More steps do: at the lower rate, `nano`'s error was 0.051 after 400 steps and
#   0.005 after 20 epochs, a tenth (Section 6; the long runs were made on a GPU).
#
# The training error *rises* with more data. That is no fault, since fewer scenes are easier to fit. And direction accuracy
# hides all of this: even 250 scenes give nearly a hundred per cent. Choose a metric that has room to move.
#
# Demonstrations of a robot are expensive, so a robot's policy is often short of data. This curve does not say how many a
# robot needs, but the method carries over: train on a half and on a quarter of what you have, plot both errors, and see
# whether there is a gap before you collect more or buy a larger GPU.
#
# ## 8. More than one GPU
#
# When one device is too slow, several can share a batch. Each holds the *whole* policy and takes its part of every batch,
# and the gradients are averaged while the backward pass runs. This is data parallelism. The code stays the same, and
# [Accelerate](https://huggingface.co/docs/accelerate) starts the processes:
#
# ```bash
# accelerate launch --num_processes 2 -m tinyvla train --preset smolvla_like --batch-size 128
# accelerate launch --num_processes 8 -m tinyvla train --preset smolvla_like --batch-size 512 --accumulate 2 --recompute
# ```
#
# `--batch-size` is that of all processes together, so a step means the same however many take part. Two things do not
# change: memory for weights, gradients and moments is needed on *every* device, and with `--accumulate` gradients are
# averaged once, with the last part.
#
# **Predict first.** Gradients of `smolvla_like` are 1.8 GB<!-- given -->. In each step all processes must agree on them. With 64
# scenes a step, do two GPUs take half the time of one?


# %%
gradients = papers["smolvla_like"].gradients
arithmetic, step = papers["smolvla_like"].flops / FLOPS, measured("smolvla_like", graph=True)["seconds"]
LINKS = {"PCIe 5.0 x16": 64e9, "NVLink of an H100": 450e9}  # bytes a second in one direction, as their makers state
for name, bytes_per_second in LINKS.items():
    for num in (2, 8):
        seconds = 2 * (num - 1) / num * gradients / bytes_per_second
        print(f"{num} GPUs, {name:18} {1e3 * seconds:5.1f} ms to average the gradients")
print(f"the recorded step of one GPU: {1e3 * step:.1f} ms, of which arithmetic {1e3 * arithmetic:.1f} ms")

# %% [markdown]
# The usual way to average is a ring: every device passes pieces on to its neighbour, until all have the whole. It sends $2\,\frac{n-1}{n}$ times the gradients' bytes out of every device, whatever the batch. Only the
# part of the step that grows with the batch is divided by two, and a good part of this step does not grow: the optimizer's
# traffic is the same on every device. Part of the averaging hides behind the backward pass. On paper, two GPUs do **not**
# halve this step. A larger batch changes the balance, since arithmetic grows with it and gradients do not. That is why data
# parallelism is used with large batches, and then the learning rate has to be looked at again.
#
# There is a second price here. Several processes take the plain step, since a recorded one would have to hold the averaging,
# too, and kernel by kernel this step takes several times as long. `experiments/processes.py` has measured the two middle
# presets in two ways: either every GPU takes as many scenes as one GPU did, or all share one batch.

# %%
shared = load_results("processes")
alone, several = shared["runs"][0], shared["runs"][-1]
count, batches = several["processes"], shared["batches"]
print(f"{shared['machine']['device']}: scenes a second, plain step\n")
print(f"{'':40}{'1 GPU':>9}{f'{count} GPUs':>9}{'ratio':>7}")
for preset in alone["weak"]:
    for way, text in (("weak", f"{batches['weak']} scenes a GPU"), ("strong", f"{batches['strong']} scenes shared")):
        one, many = alone[way][preset], several[way][preset]
        print(f"{preset:14}{text:26}{one:9,.0f}{many:9,.0f}{many / one:7.2f}")
    recorded = 64 / measured(preset, graph=True)["seconds"]
    print(f"{preset:14}{'64 scenes, recorded step':26}{recorded:9,.0f}")
    assert alone["strong"][preset] > 3 * alone["weak"][preset]
    assert several["strong"][preset] < alone["strong"][preset] < recorded

# %% [markdown]
# When each GPU has a batch of its own, a second one brings a half to three quarters more scenes a second. When both *share*
# a batch, training gets **slower**. The left column suggests why. 256 scenes a step are four times as many as 64, and one GPU
# does about four times as many a second. So a step takes about as long with 256 as with 64, halving its scenes saves nothing,
# and averaging is added on top. For `minimal` the link is hardly the reason. Its 53 MB<!-- given --> of gradients take about
# 0.1 ms<!-- given --> over an NVLink and 0.8 ms<!-- given --> over PCIe 5.0, and a step of 256 scenes became 11 ms<!-- given --> longer
# (32.8 ms<!-- given --> with one GPU, 43.7 ms<!-- given --> with two). More likely it is the asking again; this measurement does not
# separate the two. One GPU with a recorded step does more than two without. For BlockFind one is enough. Measure what a
# second one is worth to *your* policy: `python experiments/processes.py --processes 1 2`.
#
# When the policy itself does not fit on one device, its weights, gradients and moments have to be spread over several as
# well ([ZeRO](https://arxiv.org/abs/1910.02054); FSDP in PyTorch). At 450 M parameters and 16 bytes each, that is not
# needed; at the 7 billion of [OpenVLA](https://arxiv.org/abs/2406.09246) it is.

# %% [markdown]
# ## Exercises
#
# ### Exercise 2: what fits? (10 minutes)
#
# Write `largest_batch(config, gigabytes, **ways)`: the largest batch, a power of two, whose step fits on paper into that
# many GB (of $10^9$ bytes) with a tenth to spare: it takes at most nine tenths of them. `ways` are handed to `budget`: `bfloat16`, `accumulate`, `recompute`.
# Return 0 if not even one scene fits.
#
# <details><summary>Hint</summary>
#
# `budget(config, batch_size, **ways).memory` is the sum in bytes. Double the batch as long as it fits.
#
# </details>


# %% tags=["exercise"]
def largest_batch(config, gigabytes, **ways):
    """The largest power of two that fits on paper, or 0."""
    # your code here


# %% tags=["check"]
with checking("Exercise 2"):
    large = PRESETS["smolvla_like"]
    assert largest_batch(large, 24) is not None, "write the body of largest_batch first"
    assert largest_batch(large, 4) == 0, "weights, gradients and moments take more than 4 GB: nothing fits, return 0"
    for gigabytes in (8.1, 8.6, 11, 12, 24, 80):
        for ways in ({}, {"bfloat16": True}, {"recompute": True}, {"bfloat16": True, "accumulate": 4}):
            size = int(largest_batch(large, gigabytes, **ways))
            needs, doubled = (budget(large, max(1, n), **ways).memory for n in (size, 2 * size))
            plain_ways = largest_batch(large, gigabytes)
            assert not ways or needs <= 0.9e9 * gigabytes or size != plain_ways, "hand the ways on to budget"
            assert size == 0 or math.log2(size).is_integer(), f"{size} is no power of two"
            assert size == 0 or needs <= 1e9 * gigabytes, f"{size} does not fit into {gigabytes} GB, {ways}"
            assert size == 0 or needs <= 0.9e9 * gigabytes, (
                f"{size} fits into {gigabytes} GB, but without a tenth to spare; is a GB 1e9 bytes?"
            )
            one_fits = budget(large, 1, **ways).memory <= 0.9e9 * gigabytes
            assert size or not one_fits, f"one scene fits into {gigabytes} GB with {ways}: begin with a batch of 1"
            assert doubled > 0.9e9 * gigabytes, (
                f"twice {size} fits into {gigabytes} GB with {ways}, too: do the ways reach budget?"
            )
    for name in ("minimal", "medium"):
        size = int(largest_batch(PRESETS[name], 24))
        needs, doubled = (budget(PRESETS[name], max(1, n)).memory for n in (size, 2 * size))
        assert needs <= 0.9e9 * 24 < doubled, f"for {name} and 24 GB you say {size}: does config reach budget?"

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def largest_batch(config, gigabytes, **ways):
#     size = 1
#     while budget(config, size, **ways).memory <= 0.9e9 * gigabytes:
#         size *= 2
#     return size // 2
# ```
#
# The tenth to spare is for what the formulas leave out: fusion and head, buffers of the libraries, and memory that is
# free but in pieces.
#
# </details>
#
# ### Exercise 3: neither every block nor none (25 minutes)
#
# Keeping each block's input costs one number a block; running a block again costs the 18 of *one* block at a time.
# There is something in between: cut the blocks into segments, and keep only each *segment's* input. Fewer inputs are kept,
# and more is there while a segment runs again.
#
# Write `run_in_segments(blocks, x, size)`: the blocks one after the other, in segments of `size` (the last may be
# shorter), each of which keeps only its input. Use `torch.utils.checkpoint.checkpoint(function, x, use_reentrant=False)`.
#
# Also write `numbers_at_once(num_blocks, size)`: how many numbers, per token and width, are there at most? Count the inputs
# of all segments, and 18 for each block of the largest segment.
#
# <details><summary>Hint</summary>
#
# `blocks[start : start + size]` of an `nn.ModuleList` is a `ModuleList`. A function that is defined in a loop sees the
# loop variable's *last* value when it is called later, in the backward pass. So hand the segment over as a default
# argument, or make an `nn.Sequential` of it.
#
# </details>


# %% tags=["exercise"]
def run_in_segments(blocks, x, size):
    """The blocks' output; of the forward pass, only each segment's input is kept."""
    # your code here


def numbers_at_once(num_blocks, size):
    """Inputs of the segments, and all of one segment."""
    # your code here


# %% tags=["check"]
with checking("Exercise 3"):
    answer = run_in_segments(blocks, x, 2)
    assert answer is not None, "write the body of run_in_segments first"
    expected = run(blocks, x, twice=False)
    wanted = torch.autograd.grad(expected.square().mean(), [x, *blocks.parameters()])
    for size in (1, 2, 3, 4):
        with SavedTensors(blocks) as saved:
            answer = run_in_segments(blocks, x, size)
        assert torch.allclose(answer, expected, atol=1e-5), (
            f"segments of {size} give another output: does every block run once, those of a shorter last segment too?"
        )
        got = torch.autograd.grad(answer.square().mean(), [x, *blocks.parameters()], allow_unused=True)
        same = all(a is not None and torch.allclose(a, b, atol=1e-5) for a, b in zip(got, wanted, strict=True))
        assert same, f"segments of {size} give other gradients: which blocks run again in the backward pass?"
        inputs, segments = saved.bytes / unit, math.ceil(4 / size)
        assert abs(inputs - segments) < 0.1, (
            f"segments of {size} should keep {segments} inputs and nothing else; yours keep {inputs:.1f} numbers"
        )
    assert numbers_at_once(30, 1) is not None, "write the body of numbers_at_once, too"
    assert numbers_at_once(30, 1) == 30 + 18, f"30 blocks one by one: 30 inputs and 18; yours {numbers_at_once(30, 1)}"
    assert numbers_at_once(30, 30) == 1 + 18 * 30, "all in one segment: one input, and all of every block"
    assert numbers_at_once(7, 3) == 3 + 18 * 3, "7 blocks in threes are 3 segments; the largest has 3 blocks"
    assert numbers_at_once(4, 10) == 1 + 18 * 4, "4 blocks in tens are one segment of 4 blocks, not of 10"
    assert numbers_at_once(30, 20) == 2 + 18 * 20, (
        "30 blocks in twenties are 2 segments, of 20 blocks and of 10: count the larger one, not two of 15"
    )

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def run_in_segments(blocks, x, size):
#     for start in range(0, len(blocks), size):
#         segment = nn.Sequential(*blocks[start : start + size])
#         x = torch.utils.checkpoint.checkpoint(segment, x, use_reentrant=False)
#     return x
#
#
# def numbers_at_once(num_blocks, size):
#     return math.ceil(num_blocks / size) + 18 * min(size, num_blocks)
# ```
#
# Try `min(range(1, 31), key=lambda size: numbers_at_once(30, size))`. One block at a time is best unless there are very
# many blocks: the minimum lies at $\sqrt{L/18}$. Chen et al.'s $\sqrt{L}$ counts one number for each layer.
#
# </details>
#
# ### Exercise 4: a law from six points? (20 minutes)
#
# Scaling laws have the form $\text{error} = a\,n^{-b}$: a straight line in a plot with two logarithmic axes. Write
# `fit_power_law(sizes, errors)`, which returns $a$ and $b$ by least squares on the logarithms. Then look at what it says
# about the data curve, and at what it would promise for a million scenes.
#
# <details><summary>Hint</summary>
#
# $\log \text{error} = \log a - b \log n$. `numpy.polyfit(x, y, 1)` returns slope and intercept of a line; so does
# `statistics.linear_regression(x, y)`.
#
# </details>


# %% tags=["exercise"]
def fit_power_law(sizes, errors):
    """Returns a and b of error = a * n ** -b."""
    # your code here


# %% tags=["check"]
with checking("Exercise 4"):
    answer = fit_power_law([1, 10, 100], [2.0, 1.0, 0.5])
    assert answer is not None, "write the body of fit_power_law first"
    assert len(answer) == 2, "return two numbers, a and b"
    sizes = [250, 500, 1_000, 2_000, 4_000, 8_000]
    for a, b in ((3.0, 0.5), (0.1, 0.07), (50.0, 1.0)):
        got = [float(x) for x in fit_power_law(sizes, [a * n**-b for n in sizes])]
        assert abs(got[0] - b) > 1e-4, "return a first and b second; yours stand the other way round"
        assert abs(got[1] + b) > 1e-4, (
            f"here b should be {b}, yours is {got[1]:.4f}: the law has -b, so turn the slope's sign"
        )
        assert abs(got[1] - b) < 1e-4, (
            f"here b should be {b}, yours is {got[1]:.4f}: take logarithms of sizes and of errors"
        )
        assert abs(got[0] - math.log(a)) > 1e-4, f"here a should be {a}; yours is its logarithm: the intercept is log a"
        assert abs(got[0] / a - 1) < 1e-3, (
            f"here a should be {a}, yours is {got[0]:.4f}: is it exp of the same logarithm?"
        )
    bent = [float(x) for x in fit_power_law([1, 10, 100, 1000], [1.0, 0.5, 0.1, 0.1])]
    assert abs(bent[1] - 0.3699) < 1e-3, (
        f"for four points off the line b should be 0.370, yours is {bent[1]:.3f}: use all points, each with the same weight, "
        "and least squares of the log errors over the log sizes"
    )
    assert abs(bent[0] - 0.9541) < 1e-3, "for a, take exp of the fitted intercept, not the first point"
    rising = float(fit_power_law([1, 10, 100], [0.5, 1.0, 2.0])[1])
    assert abs(rising + 0.3010) < 1e-3, (
        f"where errors grow with size b is negative, here -0.301, and yours is {rising:.3f}: turn the sign, do not drop it"
    )

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def fit_power_law(sizes, errors):
#     slope, intercept = statistics.linear_regression([math.log(n) for n in sizes], [math.log(e) for e in errors])
#     return math.exp(intercept), -slope
# ```
#
# Now fit it to the chapter's curve: `rows = curves["nano"]`, sizes `row["num_scenes"]`, errors
# `row["test"]["l2_error"]["median"]`. Fitted to the first three points, the law promises an error at 8,000 scenes that is far
# below the measured one. The curve levels off, and a pure power law does not. Published laws
# add a constant for it ([Hoffmann et al.](https://arxiv.org/abs/2203.15556), equation 2), and were fitted over several powers
# of ten. Fitted to all six points, it promises about a third of the error for a million scenes, though the last
# three are level. Six points of one task make no law.
#
# </details>

# %% [markdown]
# ## Check yourself
#
# <details><summary>A paper says "6ND = 10^21 operations". Which two questions do you ask before you believe it of your own model?</summary>
#
# Which parameters are in $N$ (a token table does no arithmetic), and which tokens in $D$: does every part of the model see
# all of them?
#
# </details>
#
# <details><summary>Training runs out of memory. A batch of half the size runs out, too, and so does one of a quarter. What now?</summary>
#
# Ask the formulas before you guess. What does not shrink with the batch is 16 bytes a parameter. If that alone does not fit,
# smaller batches, accumulation and recomputing will not help: take a smaller model, an optimizer with fewer moments, freeze
# a part, or spread the model over several devices. But a quarter may simply be too large still. On paper `smolvla_like`
# takes 29 GB<!-- given --> with 512 scenes, 18 with 256, 13 with 128 and 10 with 64, of which 7 do not depend on the batch. On a card of
# 12 GB<!-- given --> the first three fail, and yet 512 scenes fit with bfloat16 and recomputing, in 9 GB<!-- given --> (9.6 measured<!-- given -->). In
# four parts they need 11 GB<!-- given --> on paper and more when measured, too close to the edge.
#
# </details>
#
# <details><summary>Accumulation and recomputing both save activations. When is which one the better choice?</summary>
#
# On paper accumulation is the cheaper one: it costs hardly any arithmetic, and recomputing about a third more. But small
# parts leave a device idle. In the table of Section 5, recomputing took less memory *and* less time than four parts in
# each of the three cases that were measured on that GPU. So measure both on yours. Where even one scene's activations are too many,
# only recomputing helps.
#
# </details>
#
# <details><summary>With few scenes, bfloat16 makes a large model's step need more memory on paper, not less. How can that be?</summary>
#
# Weights, gradients and moments stay in float32, and a bfloat16 copy of the weights is kept for the backward pass. With few
# tokens, that copy is larger than what the activations save.
#
# </details>
#
# <details><summary>A larger model has a smaller error than a small one after the same number of steps. Is size what helped?</summary>
#
# Perhaps. Did both have a learning rate that suits them? Were there several seeds? And would the small one have done as
# well in the same *time*, with more steps?
#
# </details>
#
# ## Summary
#
# - $12LC^2 + VC$ parameters; $6ND$ operations, with each part's own $N$ and $D$; 16 bytes a parameter, and 18 numbers for
#   each token, unit of width and block: these formulas say how large a step is, and how long it takes at least.
# - How good was the paper? Parameters: off by 3.2 % at most. Operations of the two towers: up to a sixth too low, in `nano`.
#   Memory of the two large presets: within a fifth. The measured peak of `nano` was well above the paper.
#   Time: a lower bound, and no more.
# - Parts of a batch, weighted by their share, give the same gradient with the activations of one part. Blocks that run twice
#   give it with their inputs alone, for a third more arithmetic.
# - bfloat16 shrinks activations, not weights, gradients and moments.
# - Every preset reached 95 % on BlockFind. `smolvla_like` was trained once with AdamW at each of two rates, and missed it at
#   the higher one. After 400 steps `medium` and `smolvla_like` were not better than `minimal`; after 20 epochs `minimal` ended better than `nano`.
# - Compare the errors on training and on unseen scenes. A gap says that more data can help. No gap says that more data will
#   not help much at this length; it does not say what will.
# - Data parallelism divides the work that grows with the batch, not the optimizer's, and adds the gradients' traffic.
#
# ## Sources
#
# - Kaplan et al., [Scaling laws for neural language models](https://arxiv.org/abs/2001.08361): $6ND$, section 2.1.
# - Hoffmann et al., [Training compute-optimal large language models](https://arxiv.org/abs/2203.15556): size against data at
#   a fixed amount of arithmetic.
# - Yang et al., [Tensor Programs V](https://arxiv.org/abs/2203.03466): how a learning rate carries over to another width.
# - Korthikanti et al., [Reducing activation recomputation](https://arxiv.org/abs/2205.05198): what a block keeps.
# - Chen et al., [Training deep nets with sublinear memory cost](https://arxiv.org/abs/1604.06174): checkpointing.
# - Micikevicius et al., [Mixed precision training](https://arxiv.org/abs/1710.03740): which numbers stay in float32.
# - Li et al., [PyTorch Distributed](https://arxiv.org/abs/2006.15704): averaging gradients during the backward pass.
# - Rajbhandari et al., [ZeRO](https://arxiv.org/abs/1910.02054): weights, gradients and moments spread over devices.
# - NVIDIA, [H100](https://www.nvidia.com/en-us/data-center/h100/): bandwidths (NVLink 900 GB/s, both directions together).
# - Hugging Face, [Fixing gradient accumulation](https://huggingface.co/blog/gradient_accumulation).
# - [`tinyvla/speed/scaling.py`](https://github.com/tinyvla/tinyvla/blob/main/tinyvla/speed/scaling.py),
#   [`memory.py`](https://github.com/tinyvla/tinyvla/blob/main/tinyvla/speed/memory.py) and
#   [`experiments/scaling.py`](https://github.com/tinyvla/tinyvla/blob/main/experiments/scaling.py).
#
# ## Next
#
# BlockFind never needed a larger policy. [Chapter 13](13_robot_arm.ipynb) makes the task harder instead: an arm with seven
# degrees of freedom.
