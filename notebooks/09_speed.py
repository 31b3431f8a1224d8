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
# # 9. Speed: the same losses, sooner
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/tinyvla/tinyvla/blob/main/notebooks/09_speed.ipynb)
#
# Training time is a product of two factors: how long a step takes, and how many steps it needs. You can make both smaller,
# by different means. The first factor is about waiting: a small policy's arithmetic takes a modern GPU a fraction of a
# millisecond at best, and almost all of a plain step is something else. The second is about learning: what a step does with its
# gradient.
#
# This chapter starts from a plain loop and changes one thing at a time. In the first half, a change is worth keeping if the
# losses stay the same and the clock shows less. The second half changes the steps themselves, and there a target decides.
#
# **You will be able to**
#
# - work out how fast a step could be, and how far from that it is;
# - write a clock that measures what a device really needs;
# - take the waiting out of a loop, change by change, with the losses as a check;
# - say what a recorded step (CUDA graph) must not do, and see two of the mistakes happen;
# - explain Muon, write its main part, and report a speed so that others can compare.
#
# **Time:** about 60 minutes to read, about 2 minutes on two CPU cores, 30 seconds on a GPU to run.
#
# **Before you start:** [Chapter 5](05_training.ipynb) builds the plain loop. No cell needs a GPU; where only a GPU
# shows an effect, the figures are measured ones from the `results` folder.

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
import copy
import math
import statistics
import time
from contextlib import nullcontext
from dataclasses import replace

import matplotlib.pyplot as plt
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader

from tinyvla import PRESETS, BlockFind, TrainConfig
from tinyvla.course.exercises import checking
from tinyvla.course.zoo import load_results
from tinyvla.data.batch import CAMERA, Batch, TensorSplit, epoch_order
from tinyvla.device import has_bfloat16_units, synchronize
from tinyvla.learn.evaluate import Metrics, predict_split
from tinyvla.learn.muon import NEWTON_SCHULZ, Muon, orthogonalize
from tinyvla.learn.optimizer import make_optimizer
from tinyvla.learn.train import PlainStep, train_step
from tinyvla.measure.bench import RECIPES, TARGET, Runner
from tinyvla.measure.throughput import peak_flops, step_flops
from tinyvla.model.policy import new_policy
from tinyvla.model.tokenizer import encode
from tinyvla.show.plots import PART_COLORS
from tinyvla.speed.cuda_graph import encode_known
from tinyvla.speed.embedding_rows import UsedRows
from tinyvla.speed.patching import one_product
from tinyvla.speed.precision import precision
from tinyvla.speed.step import make_step
from tinyvla.speed.tuned import StepOptions

BLUE, ORANGE, PURPLE, PINK = PART_COLORS.values()
where = torch.device(device)
torch.set_num_threads(1)  # on a CPU: several threads wait for each other when another program uses a core
scenes = BlockFind(8_000, seed=42)
train = TensorSplit.from_blockfind(scenes, encode, device)
print("scenes", len(train), "tokens", tuple(train.input_ids.shape))

# %% [markdown]
# This picture shows where the chapter leads. Each point is a way to train `minimal` to 95 % direction accuracy. Along a grey
# line the product, the training time, is the same. The plain recipe is `tinyvla/measure/plain_recipe.py`: PyTorch's own
# transformer modules, a `DataLoader`, AdamW. Both points were measured on the same GPU in the same run. The plain
# recipe is validated every 25 steps and stopped when that shows 95 %, which favours it; the other one's number of steps was fixed
# beforehand.

# %% tags=["hide-input"] jupyter={"source_hidden": true} mystnb={"image": {"alt": "Steps to 95 % against milliseconds per step, both axes logarithmic, with grey lines of equal training time. The plain recipe is at the top right, TinyVLA's recipe at the bottom left, about two powers of ten of training time lower; a dashed path leads left (fewer steps) and down (faster step)."}}
bench = load_results("bench_minimal_cuda")
points = {
    "plain recipe": (bench["reference"]["steps"]["median"], 1e3 * bench["reference"]["seconds_per_step"]["median"]),
    "this chapter's end": (bench["steps"]["median"], 1e3 * bench["seconds_per_step"]["median"]),
}
(slow_steps, slow_ms), (fast_steps, fast_ms) = points.values()
fig, ax = plt.subplots(figsize=(7, 3.6), layout="constrained", facecolor="white")
for seconds in (0.1, 1, 10):
    ax.plot([10, 2000], [1e3 * seconds / 10, 1e3 * seconds / 2000], color="#bbbbbb", lw=1)
    x = max(10.5, 1e3 * seconds / 85)
    ax.text(x, 1e3 * seconds / x, f"  {seconds:g} s", color="#777777", fontsize=9, va="center")
ax.plot([slow_steps, slow_steps, fast_steps], [slow_ms, fast_ms, fast_ms], color="#444444", ls="--", lw=1.3)
ax.text(slow_steps * 1.07, math.sqrt(slow_ms * fast_ms), "faster\nstep", va="center", fontsize=10)
ax.text(math.sqrt(slow_steps * fast_steps), fast_ms * 0.93, "fewer steps", ha="center", va="top", fontsize=10)
for (name, (steps, ms)), color in zip(points.items(), (ORANGE, BLUE), strict=True):
    ax.scatter([steps], [ms], s=80, color=color, zorder=3)
    ax.annotate(f"{name}\n{steps * ms / 1e3:.2g} s", (steps, ms), (-10, 4), textcoords="offset points", ha="right")
ax.set(xscale="log", yscale="log", xlim=(10, 2000), ylim=(1, 100), xlabel="steps to 95 %", ylabel="ms per step")
ax.set_title(f"minimal, {bench['machine']['device']}", fontsize=10)
plt.show()
assert bench["reference"]["seconds"]["median"] > 10 * bench["seconds"]["median"]
print("the two recipes' training times differ by more than a factor of ten")

# %% [markdown]
# ## Two numbers before any change
#
# **How fast could a step be?** Count its multiplications and additions, and divide by what the device can do in a
# second. Nearly all of them are in matrix products. A linear layer with $W$ weights takes $2W$ operations for each
# token: one multiplication and one addition per weight. Attention compares every token with every other, and mixes
# the values by the result: two products, $4T^2d$ operations for $T$ tokens of width $d$. The backward pass needs two
# products for each one of the forward pass (one for the inputs' gradients, one for the weights'), so a step costs
# three times its forward pass.


# %%
def vision_flops(config, batch_size):
    """Forward operations of the vision tower, counted with a pencil."""
    vision = config.vision
    patches, width = math.prod(vision.grid), vision.embed_dim
    tokens = patches + 1  # and CLS
    embed = 2 * patches * vision.num_channels * vision.patch_size**2 * width
    weights = 4 * width**2 + 2 * vision.mlp_ratio * width**2  # query, key, value, output; two layers of the MLP
    block = 2 * tokens * weights + 4 * tokens**2 * width
    return batch_size * (embed + vision.num_layers * block)


config = PRESETS["minimal"]
by_pencil, by_counter = 3 * vision_flops(config, 64), step_flops(config, 64)
assert 0.95 * by_counter < by_pencil <= by_counter
print(f"vision, by pencil: {by_pencil / 1e9:.1f} billion operations a step")
print("at least 95 % of what tinyvla.measure.throughput.step_flops counts for both towers")

# %% [markdown]
# The pencil leaves out the language model and is still close. A batch holds few different instructions (six, as you will
# see below) of six tokens each, and 36 tokens are few beside 64 pictures of 65 tokens.
#
# **Predict first.** On the GPU of the results file, how much of a plain step is this arithmetic? Half? A tenth?

# %% tags=["nbval-ignore-output"]
gpu = load_results("throughput_cuda")
row = gpu["presets"]["minimal"]
possible = row["flops_per_step"] / gpu["peak_flops_per_second"]
plain_step, fast_step = bench["reference"]["seconds_per_step"]["median"], row["seconds_per_step"]
print(f"{gpu['machine']['device']}, one large product: {gpu['peak_flops_per_second'] / 1e12:.0f} TFLOP/s")
print(f"the arithmetic of a step at that rate: {1e3 * possible:.3f} ms")
print(f"plain step: {1e3 * plain_step:.1f} ms; the arithmetic is {possible / plain_step:.2%} of it")
print(f"fast step:  {1e3 * fast_step:.1f} ms; the arithmetic is {possible / fast_step:.1%} of it")
assert possible < 0.01 * plain_step
here = peak_flops(
    where, torch.bfloat16 if has_bfloat16_units(where) else torch.float32, size=None if device == "cuda" else 1024
)
print(f"your device: {here / 1e12:.3g} TFLOP/s, so {1e3 * by_counter / here:.3g} ms at best")

# %% [markdown]
# It is less than a hundredth, at the rate of bfloat16 and with each sentence encoded once. (The plain step computes in
# float32 and encodes 64 padded sentences, so its own arithmetic takes longer: a few hundredths of the step.) If the GPU
# multiplied twice as fast, you would hardly notice. The percentage is called *model FLOP utilisation*, MFU
# ([PaLM](https://arxiv.org/abs/2204.02311), appendix B). We divide by what one large product reached on this device,
# PaLM by the device's theoretical peak, so compare only figures of the same kind. MFU says how much there is to win. It
# does not say where the time goes. (The last line is for `minimal`. The steps that you will time on your device below
# are those of `nano`, which is smaller.)
#
# ## Where the time goes
#
# Four things take time in a step, and each has a remedy of its own. A *kernel* is a program that a GPU runs for an
# operation; the *host* is the CPU with the Python that asks for it.
#
# | what | looks like | remedy |
# |---|---|---|
# | **host**: Python asks for each operation | many small operations; the GPU idles in between | fewer, larger operations; record them once |
# | **waiting**: the host stops for a result | `.item()`, `print(loss)`, `.cpu()`, `if tensor:` | look rarely |
# | **memory**: numbers are read and written | copies, casts, norms, the optimizer | fewer bytes; fused kernels |
# | **arithmetic**: matrix products | what you wanted | smaller numbers (bfloat16); less work |
#
# To measure any of this we need a clock, and a clock is easy to get wrong. A GPU works through a queue: a call returns as
# soon as its work stands in line, long before it is done.
#
# ### Exercise 1: a clock that you can trust (15 minutes)
#
# Write `median_time(call, wait, clock, warmup, repeats)`. `call()` starts the work, `wait()` returns when the device
# has finished, `clock()` gives the time in seconds. Return the median of `repeats` measured times, after `warmup` calls
# that do not count. Each call is timed on its own. The check brings a device of its own, whose calls return at once and
# whose work takes time.
#
# <details><summary>Hint</summary>
#
# Two waits for each call. Without the first, work that was left in the queue before is counted as yours.
#
# </details>


# %% tags=["exercise"]
def median_time(call, wait, clock, warmup=2, repeats=5):
    """Median seconds of a call, the device's work included."""
    # your code here


# %% tags=["check"]
class FakeDevice:
    """Calls only queue work; waiting does it. Each job takes the next number of seconds."""

    def __init__(self, seconds, left_over=0.0):
        self.now, self.queue, self.jobs, self.calls = 0.0, left_over, list(seconds), 0

    def call(self):
        assert self.calls < len(self.jobs), (
            f"you make more than {len(self.jobs)} calls: warmup and repeats say how many"
        )
        self.queue += self.jobs[self.calls]
        self.calls += 1

    def wait(self):
        self.now += self.queue
        self.queue = 0.0

    def clock(self):
        return self.now


with checking("Exercise 1"):
    fake = FakeDevice([1.0] * 7)
    answer = median_time(fake.call, fake.wait, fake.clock)
    assert answer is not None, "write the body of median_time first"
    assert answer > 0, "it took no time at all: wait for the device before you stop the clock"
    assert fake.calls == 7, f"2 warm-up calls and 5 measured ones are 7; you made {fake.calls}"
    assert answer > 0.1, (
        f"each call takes 1 s of this device's time, yours says {answer:g} s: read the time from `clock`"
    )
    assert abs(answer - 1.0) < 1e-9, f"each call takes 1 s, yours says {answer:g} s: does each time hold one call?"
    fake = FakeDevice([50.0, 50.0, 1.0, 1.0, 1.0, 2.0, 3.0, 90.0])
    answer = median_time(fake.call, fake.wait, fake.clock, warmup=2, repeats=6)
    assert answer < 10, "the slow first calls count in yours, or the mean does: warm up first, and take the median"
    assert abs(answer - 1.0) > 1e-9, (
        "of 1, 1, 1, 2, 3 and 90 the median is 1.5: yours is the shortest, or the lower half's"
    )
    assert abs(answer - 1.5) < 1e-9, f"of 1, 1, 1, 2, 3 and 90 the median is 1.5, yours {answer:g}"
    fake = FakeDevice([0.1, 1.0, 2.0, 3.0])
    answer = median_time(fake.call, fake.wait, fake.clock, warmup=1, repeats=3)
    assert abs(answer - 2.0) < 1e-9, "leave out the first calls, not the slowest: a warm-up may be fast, too"
    fake = FakeDevice([3.0], left_over=100.0)
    answer = median_time(fake.call, fake.wait, fake.clock, warmup=0, repeats=1)
    assert abs(answer - 3.0) < 1e-9, "work that was in the queue before was counted: wait before you start the clock"

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def median_time(call, wait, clock, warmup=2, repeats=5):
#     """Median seconds of a call, the device's work included."""
#     times = []
#     for _ in range(warmup + repeats):
#         wait()
#         started = clock()
#         call()
#         wait()
#         times.append(clock() - started)
#     return statistics.median(times[warmup:])
# ```
#
# </details>
#
# The chapter goes on with `seconds_per_call`, the same for real devices. It will say how long PyTorch takes for an
# operation with almost no work. And how many operations does a step ask for? A dispatch mode sees each one, and counts
# them.


# %%
def seconds_per_call(call, device, warmup=3, repeats=15):
    """Median time of a call: warmed up, and with the device's work inside the measured span."""
    times = []
    for _ in range(warmup + repeats):
        synchronize(device)
        started = time.perf_counter()
        call()
        synchronize(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times[warmup:])


class Counting(TorchDispatchMode):
    """Counts the operations that PyTorch is asked for."""

    number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.number += 1
        return func(*args, **(kwargs or {}))


nano = PRESETS["nano"]
policy = new_policy(nano, seed=0, device=device)
optimizer = make_optimizer(policy, TrainConfig())
batch = train.take(torch.arange(64, device=device))
with Counting() as counting:
    train_step(policy, optimizer, batch, grad_clip=1.0)
assert counting.number > 100
print("a step of nano asks for more than a hundred operations")

# %% tags=["nbval-ignore-output"]
one = torch.zeros(1, device=device)
tiny = seconds_per_call(lambda: [one.add_(1) for _ in range(100)], where) / 100
step = seconds_per_call(lambda: train_step(policy, optimizer, batch, grad_clip=1.0), where, repeats=5)
print(f"{counting.number} operations; the smallest operation takes {1e6 * tiny:.1f} microseconds on {device}")
print(f"asking alone: {1e3 * tiny * counting.number:.1f} ms of a step of {1e3 * step:.1f} ms")
assert tiny * counting.number > 0

# %% [markdown]
# On a CPU, asking is a small part of the step. On a GPU the arithmetic shrinks by orders of magnitude and the asking does
# not. For small models that is the main difference between the two devices.
#
# `seconds_per_call` follows three rules:
#
# - **synchronise**, before the clock starts and before it stops. Without this you time the queueing, and get figures that
#   are too good;
# - **warm up**. The first calls choose kernels, reserve memory and make the optimizer's moments;
# - **take the median**, not the mean, so that a moment in which another program was busy does not count.
#
# ## One change at a time
#
# The plain loop does what many first versions do: a `DataLoader` collates 64 samples, tokenizes their sentences and
# pads them to the longest allowed length, the language model encodes all 64 sentences, the optimizer loops over its
# tensors, and the loss is read at every step. The model is always `nano`, with the same scenes in the same order. So **the
# losses must agree** after every change. A change of speed that also changes the losses is another experiment. A few steps
# find gross errors only, such as another order of the scenes; the package's tests compare the weights as well.


# %%
STEPS, SIZE, WARM = 6, 64, 2
config = TrainConfig(learning_rate=1e-3, weight_decay=0.0, batch_size=SIZE)
order = epoch_order(len(train), seed=0, epoch=0)[: STEPS * SIZE]
length = nano.language.max_length


def collate(samples):
    """What a first version does for every batch, in Python."""
    ids, mask = encode([s.instruction for s in samples], length)
    space = (0, length - ids.shape[1])
    images = torch.stack([torch.from_numpy(s.image).float() / 255 for s in samples])
    actions = torch.stack([torch.from_numpy(s.action) for s in samples])
    return Batch({CAMERA: images}, F.pad(ids, space), F.pad(mask, space), actions=actions).to(device)


def from_loader():
    yield from DataLoader(scenes, SIZE, sampler=order.tolist(), collate_fn=collate)


def from_tensors(split):
    yield from (split.take(index) for index in order.to(device).split(SIZE))


space = (0, length - train.input_ids.shape[1])
padded = replace(train, input_ids=F.pad(train.input_ids, space), attention_mask=F.pad(train.attention_mask, space))
by_loader, by_index, short = next(from_loader()), next(from_tensors(padded)), next(from_tensors(train))
for name in ("image", "input_ids", "attention_mask", "actions"):
    torch.testing.assert_close(getattr(by_loader, name), getattr(by_index, name))
print("by loader", tuple(by_loader.input_ids.shape), "by index", tuple(by_index.input_ids.shape), "- the same batch")
print("not padded beyond the longest sentence", tuple(short.input_ids.shape))

# %% [markdown]
# **Data in place.** 8,000 scenes as bytes are about a hundred megabytes. They are put on the device once and tokenized
# once. A batch is then an index, and bytes become floats on the device. **No padding.** The longest sentence of this task is
# far shorter than the longest that the model allows.
#
# **Each sentence once.** How many of a batch's 64 sentences differ?

# %%
distinct = short.input_ids.unique(dim=0)
used = train.input_ids.unique()
embedding = policy.language.token_embedding.weight
numbers = sum(p.numel() for p in policy.parameters())
print(f"{len(distinct)} distinct sentences among {len(short.input_ids)}")
print(f"{len(used)} of {len(embedding):,} rows of the embedding are ever used")
print(f"the embedding is {embedding.numel() / numbers:.0%} of nano's numbers: so much of clipping and optimizer")

every = policy.language.mean_state(short.input_ids, short.attention_mask)
once = policy.language.sentence(short.input_ids, short.attention_mask)
torch.testing.assert_close(once, every, rtol=1e-3, atol=1e-4)
print("encoding each distinct sentence once gives the same states")

# %% [markdown]
# The second line may surprise you. The vocabulary is DistilBERT's, which has most English words, and this task uses a
# handful of them. For all the other rows the gradient is zero. Still, every step makes that gradient, measures
# its length, and lets Adam read the rows with their two moments and add zero.
#
# **Only the words in use.** May those rows be left out? A row without a gradient has moments of zero, so Adam does not
# move it; and embeddings do not decay ([chapter 5](05_training.ipynb)). So they may, and only the time changes. The package's
# step takes the rows in use out of the table, as a small parameter of its own. While the step runs, this parameter takes the
# table's place; then it is written back. What is saved looks as always, and a run can be stopped with one kind of step and
# resumed with the other.

# %%
policies = [new_policy(nano, seed=0, device=device) for _ in range(2)]
whole = PlainStep(policies[0], train, config)
rows = make_step(policies[1], train, config, StepOptions(used_rows=True))
for index in order.to(device).split(SIZE)[:3]:
    assert abs(whole(index).item() - rows(index).item()) < 1e-4
for one, other in zip(policies[0].parameters(), policies[1].parameters(), strict=True):
    torch.testing.assert_close(one, other, rtol=0, atol=1e-4)
kept = [sum(x.numel() for s in step.optimizer.state.values() for x in s.values() if x.ndim) for step in (whole, rows)]
print(f"numbers that the optimizer keeps: {kept[0]:,}, or {kept[1]:,} with the rows in use alone")
print("after three steps: the same losses, the same weights")
assert kept[1] < 0.2 * kept[0]

# %% [markdown]
# **A fused optimizer** makes one pass over each tensor's memory, where the simple one makes seven, one for each
# operation of the formula. **Not reading the loss** lets the host run ahead of a GPU. **bfloat16** halves the
# bytes of the matrix products' inputs, and uses special units where the device has them. The folded cell holds a loop with
# a switch for each change.


# %% tags=["hide-input"] jupyter={"source_hidden": true}
def timed(batches, encode_all=False, fused=True, used_rows=False, read=True, bfloat16=False):
    """Losses of a few steps from the same beginning, and the seconds per step after the warm-up."""
    policy = new_policy(nano, seed=0, device=device).train()
    if encode_all:
        policy.language.sentence = policy.language.mean_state
    betas = (config.beta1, config.beta2)
    optimizer = torch.optim.AdamW(
        policy.parameters(), config.learning_rate, betas, weight_decay=0, fused=fused, foreach=False
    )
    rows = UsedRows(policy.language.token_embedding, train.input_ids, optimizer) if used_rows else None
    losses = []
    for number, batch in enumerate(batches):
        if number == WARM:
            synchronize(where)
            started = time.perf_counter()
        with rows.instead() if rows else nullcontext():
            optimizer.zero_grad()
            with precision(where, bfloat16):  # of the forward pass; the backward pass follows it
                loss = policy.loss(batch)
            loss.backward()
            nn.utils.clip_grad_norm_(policy.parameters(), config.grad_clip)
            optimizer.step()
        losses.append(loss.item() if read else loss.detach())
    synchronize(where)
    return torch.tensor([float(x) for x in losses]), (time.perf_counter() - started) / (STEPS - WARM)


def recorded():
    """The package's recorded step, for GPUs."""
    step = make_step(new_policy(nano, seed=0, device=device).train(), train, config)
    losses = []
    for number, index in enumerate(order.to(device).split(SIZE)):
        if number == WARM:
            synchronize(where)
            started = time.perf_counter()
        losses.append(step(index))
    synchronize(where)
    return torch.stack(losses).cpu(), (time.perf_counter() - started) / (STEPS - WARM)


rungs = {
    "as first written": lambda: timed(from_loader(), encode_all=True, fused=False),
    "data in place": lambda: timed(from_tensors(padded), encode_all=True, fused=False),
    "no padding": lambda: timed(from_tensors(train), encode_all=True, fused=False),
    "each sentence once": lambda: timed(from_tensors(train), fused=False),
    "fused optimizer": lambda: timed(from_tensors(train)),
    "only words in use": lambda: timed(from_tensors(train), used_rows=True),
    "loss not read": lambda: timed(from_tensors(train), used_rows=True, read=False),
}
exact = list(rungs)
if has_bfloat16_units(where):
    rungs["bfloat16"] = lambda: timed(from_tensors(train), used_rows=True, read=False, bfloat16=True)
if device == "cuda":
    rungs["recorded"] = recorded

# %% [markdown]
# **Predict first.** Which change brings most on your device?

# %% tags=["slow"]
measured = {name: [] for name in rungs}
for _ in range(2):  # two rounds, so that a burst of another program does not meet one rung alone
    for name, rung in rungs.items():
        measured[name].append(rung())
losses = {name: runs[0][0] for name, runs in measured.items()}
for name in rungs:
    tolerance = 2e-3 if name in exact else 0.05
    gap = (losses[name] - losses["as first written"]).abs().max()
    assert gap < tolerance, f"{name}: losses differ by {gap:.2g}"
milliseconds = {name: 1e3 * min(seconds for _, seconds in runs) for name, runs in measured.items()}
assert min(milliseconds.values()) < milliseconds["as first written"]
print("all rungs take the same losses; the first one is not the fastest")

# %% tags=["slow", "hide-input"] jupyter={"source_hidden": true} mystnb={"image": {"alt": "Bars of milliseconds per step for nano, one bar per rung from 'as first written' at the top downwards. The bars get shorter with the changes made."}}
fig, ax = plt.subplots(figsize=(7, 3.2), layout="constrained", facecolor="white")
bars = ax.barh(list(milliseconds), list(milliseconds.values()), color=[ORANGE] + [BLUE] * (len(milliseconds) - 1))
ax.bar_label(bars, [f"{x:,.1f} ms" for x in milliseconds.values()], padding=4)
ax.invert_yaxis()
ax.margins(x=0.22)
ax.set(xlabel="ms per step of 64 scenes")
ax.set_title(f"nano on this machine ({device}, one thread)", fontsize=10)
plt.show()

# %% [markdown]
# On a CPU, less work means less time. Padding was arithmetic without use, and leaving it out brings most in the run printed
# here. Keeping the data in place, encoding each sentence once, the fused optimizer and bfloat16 each save about a tenth or
# more. Leaving out the words that never occur saves too little to be seen here, and so does not reading the loss, because
# there is no queue behind which the host could run ahead. Neighbouring bars that differ by a few per cent cannot be told
# apart by so few steps.
#
# On a GPU you will see another picture. There the number of operations counts, and there is one more change that needs a
# GPU, the recorded step. A plain and a recorded step of `minimal` on a GPU stand above, as plain step and fast step. For the
# single changes, run these cells on a GPU.
#
# ## Recording a step
#
# A CUDA graph is a recording. Python goes through the step once. The GPU does not run its kernels then; CUDA writes down
# which were asked for, with the **addresses** that they read and write. A replay asks for all kernels at once, and Python does not run at all. That makes it
# fast. It also brings new kinds of mistakes: whatever Python decided during the recording stays decided.
#
# You need no GPU to see them. This tape notes every operation with the tensors it read and wrote (and, unlike a CUDA graph,
# carries it out at once), and a replay does the
# same operations again, into the same tensors.


# %%
class Tape(TorchDispatchMode):
    """A CUDA graph in miniature: operations and the places they read and write."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out

    @torch.no_grad()
    def replay(self):
        for func, args, kwargs, out in self.calls:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def record(function, *inputs):
    """The tape of a function, and the tensor in which its results appear."""
    with torch.no_grad(), Tape() as tape:
        result = function(*inputs)
    return tape, result


x = torch.tensor([1.0, 2.0, 4.0])
tape, y = record(lambda x: (2 * x + 1).square(), x)
x.copy_(torch.tensor([0.0, 1.0, 2.0]))  # new values at the recorded place
tape.replay()
print("replayed:", y.tolist())
assert y.tolist() == [1.0, 9.0, 25.0]

# %% [markdown]
# **A recorded step must not depend on values.** The function below divides by the largest value. Predict what a replay with
# other numbers gives, then run.

# %%
x = torch.tensor([1.0, 2.0, 4.0])
tape, y = record(lambda x: x / x.max().item(), x)
tape_on_device, y_on_device = record(lambda x: x / x.max(), x)
x.copy_(torch.tensor([10.0, 20.0, 40.0]))
tape.replay()
tape_on_device.replay()
print("with .item():", y.tolist())
print("without:     ", y_on_device.tolist())

# %% [markdown]
# `.item()` made a Python number of the maximum, and the recording holds that number: it goes on dividing by 4. On a
# GPU, PyTorch refuses to record an `.item()`, so there you are warned. An `if` on a Python value is frozen without a warning.
#
# Our own language model cannot be recorded as it is. It looks for the *distinct* sentences of a batch, and how many there
# are depends on the batch. Recorded with two, it cannot take three.

# %%
language = new_policy(nano, seed=0).language.eval()
sentences = [f"find the {color} block" for color in ("red", "green", "blue")]
all_ids, all_mask = encode(sentences)
other = torch.tensor([2, 0, 1, 1])
ids, mask = all_ids[[0, 0, 1, 1]], all_mask[[0, 0, 1, 1]]
with torch.no_grad():
    expected = language.sentence(all_ids[other], all_mask[other])

tape, states = record(language.sentence, ids, mask)
ids.copy_(all_ids[other]), mask.copy_(all_mask[other])
try:
    tape.replay()
    print("replayed")
except RuntimeError:
    print("the recording has two distinct sentences; three do not fit")

# %% [markdown]
# The remedy: encode a list of *all* sentences that can occur, always the same number, and pick by comparison. A few
# sentences more cost little, and the shapes stay. That is `encode_known` in `tinyvla.speed.cuda_graph`; the recorded step
# takes its list from the training split.

# %%
known = torch.cat([all_ids, all_mask.long()], dim=1)
ids, mask = all_ids[[0, 0, 1, 1]], all_mask[[0, 0, 1, 1]]
tape, states = record(lambda ids, mask: encode_known(language, known, ids, mask), ids, mask)
ids.copy_(all_ids[other]), mask.copy_(all_mask[other])
tape.replay()
torch.testing.assert_close(states, expected)
print("with a list of known sentences, the replay is right for other batches")

# %% [markdown]
# **It must not free what it reads.** A recording knows addresses. Our tape keeps the tensors that lie there alive; a
# recording does not. Suppose the list of known sentences is a local variable. When the function returns, its memory is given
# back, and soon other numbers are there. No error is raised. A test that compares the losses with the plain step's can find
# it.
#
# To see what happens then, we overwrite the list.

# %%
known.fill_(7)  # as if the memory had been given to somebody else
tape.replay()
print("largest number in the replayed states:", states.abs().max().item())
assert not torch.allclose(states, expected)

# %% [markdown]
# Every sentence state is zero now: the policy no longer gets its instruction, and there is no error. That is why
# `RecordedStep` keeps the list as `self.sentences` as long as the recording lives.
#
# **It must not draw from a generator that it does not know.** Random numbers come from a counter. A recording that
# held the counter's value would draw the same noise at every replay. PyTorch's graphs advance the generators that
# were registered (`graph.register_generator_state`), and diffusion and flow heads
# ([chapter 7](07_action_heads.ipynb)) need that.
#
# The package's recorded step has two more changes. **The text alongside the picture**: the two towers do not need each
# other until the fusion, so they run on two streams (queues of a GPU's work), and neither waits for the other. **One
# product instead of three**: self-attention multiplies the same tokens by three matrices, and one matrix three times as
# wide needs one kernel.
#
# ### The policy itself stays simple
#
# Attention, language model and heads hold no switch for any of this. A faster step exchanges a method of an object,
# for as long as the step or the recording takes, and then puts the old one back, even after an error
# (`tinyvla.speed.patching`). Otherwise the policy would stay changed, and one that encodes only known sentences gives zeros
# for any other.

# %%
policy = new_policy(nano, seed=0).eval()
eight = TensorSplit.from_blockfind(BlockFind(8, seed=1), encode).take(slice(None))
attention = policy.vision.blocks[0].attention
with torch.no_grad():
    three = policy(eight)
    with one_product(policy):
        print("inside: ", "its own method" if "project" not in vars(attention) else "an exchanged one")
        torch.testing.assert_close(policy(eight), three)
print("outside:", "its own method" if "project" not in vars(attention) else "an exchanged one")

# %% [markdown]
# ## Fewer steps
#
# Now to the other factor. For this study the number of steps was fixed before each run, and no run was stopped early. Each
# setting has ten seeds. The score is how many of the ten end at 95 % or more.

# %% mystnb={"image": {"alt": "Runs of ten that reach 95 % against the number of steps. Muon's two lines rise to ten of ten at 25 to 30 steps. AdamW's three lines lie to the right; the two lower learning rates reach ten of ten later, the highest does not within the range."}}
search = load_results("search")
budget = [row for row in search["rows"] if row["study"] == "budget"]
fig, ax = plt.subplots(figsize=(7, 3.2), layout="constrained", facecolor="white")
markers = iter("os^os")
for optimizer, color in (("adamw", ORANGE), ("muon", BLUE)):
    for rate in sorted({r["change"]["learning_rate"] for r in budget if r["change"]["optimizer"] == optimizer}):
        line = [
            (r["change"]["num_steps"], r["reached"])
            for r in budget
            if r["change"]["optimizer"] == optimizer and r["change"]["learning_rate"] == rate
        ]
        ax.plot(*zip(*line, strict=True), marker=next(markers), color=color, lw=1.8, label=f"{optimizer}, {rate:g}")
ax.set(xlabel="steps, fixed beforehand", ylabel="runs of ten at 95 %", ylim=(-0.5, 10.5))
ax.legend(frameon=False, fontsize=9, loc="lower right", title="optimizer, learning rate", ncols=2)
plt.show()
fewest = {
    name: min(
        r["change"]["num_steps"] for r in budget if r["change"]["optimizer"] == name and r["reached"] == r["runs"]
    )
    for name in ("adamw", "muon")
}
assert fewest["muon"] < fewest["adamw"]
print("fewest steps at which all ten seeds reach 95 %:", fewest)

# %% [markdown]
# ### What Muon does
#
# The gradient of a weight matrix is usually dominated by a few directions: its largest singular values are far above the
# rest. A step along it moves the weights in those directions and hardly in the others.
# [Muon](https://kellerjordan.github.io/posts/muon) keeps the directions (the singular vectors) of the averaged
# gradient and sets the singular values to about one, so that the directions move alike.
#
# A singular value decomposition would do that, but it is slow. Take an odd polynomial of a matrix instead,
# $aX + b(XX^\top)X + c(XX^\top)^2X$. With $X=U\Sigma V^\top$ it is $U\,(a\Sigma+b\Sigma^3+c\Sigma^5)\,V^\top$: the
# vectors stay, and the polynomial acts on the singular values. So choose one that pulls everything between 0 and 1
# towards 1, and apply it five times. That needs only matrix products, and devices are fast at those.
#
# ### Exercise 2: orthogonalize (15 minutes)
#
# Write `orthogonalize_by_hand(matrix, steps=5)` for a matrix with at most as many rows as columns:
#
# 1. divide it by its Frobenius norm, `matrix.norm()`: no singular value is larger than that, so all are at most one then;
# 2. replace $X$ by $aX + b(XX^\top)X + c(XX^\top)^2X$, `steps` times.
#
# <details><summary>Hint</summary>
#
# `a, b, c = NEWTON_SCHULZ`. Compute `square = x @ x.T` once in each step.
#
# </details>


# %% tags=["exercise"]
def orthogonalize_by_hand(matrix, steps=5):
    """Singular values near one, the singular vectors kept."""
    # your code here


# %% tags=["check"]
with checking("Exercise 2"):
    draw = torch.Generator().manual_seed(0)
    for shape in ((6, 15), (4, 4)):
        given = 3 * torch.randn(shape, generator=draw)
        matrix = given.clone()
        answer = orthogonalize_by_hand(matrix)
        assert answer is not None, "write the body of orthogonalize_by_hand first"
        assert torch.equal(matrix, given), "your code changes the matrix that it was given: work on a new one"
        assert answer.shape == shape, f"the shape should stay {shape}, yours is {tuple(answer.shape)}"
        assert answer.dtype == given.dtype, f"the type should stay {given.dtype}, yours is {answer.dtype}"
        assert answer.isfinite().all(), (
            "the numbers have run away: divide by the norm before the first step, and compute all three terms from the same X"
        )
        values = torch.linalg.svdvals(answer)
        assert (values - 1).abs().max() >= 1e-4, (
            "all singular values are one to four digits: is it the polynomial, with the coefficients of NEWTON_SCHULZ?"
        )
        one = orthogonalize_by_hand(given.clone(), steps=1)
        assert torch.allclose(one, orthogonalize(given, steps=1), atol=1e-4), (
            "one step differs from aX + b(XX^T)X + c(XX^T)^2 X: is the norm Frobenius's, are all three terms there?"
        )
        assert not torch.allclose(answer, one, atol=1e-4), "five steps give what one gives: repeat it"
        assert torch.allclose(answer, orthogonalize(given), atol=1e-3), (
            "after five steps yours differs from the package's"
        )
        assert torch.allclose(
            orthogonalize_by_hand(given.clone(), steps=3), orthogonalize(given, steps=3), atol=1e-3
        ), "the number of steps is an argument"

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def orthogonalize_by_hand(matrix, steps=5):
#     a, b, c = NEWTON_SCHULZ
#     x = matrix / matrix.norm()
#     for _ in range(steps):
#         square = x @ x.T
#         x = a * x + b * square @ x + c * square @ square @ x
#     return x
# ```
#
# </details>
#
# The next cell takes the package's `orthogonalize`, which does the same for many matrices at once. It compares the
# singular values before and after with five pulls of the polynomial. The gradient is that of the second training step:
# the output layers of the towers' blocks start at zero, so in the first step no gradient reaches the layers before them
# in the block.


# %%
def pull(s):
    """What one iteration does to a singular value."""
    a, b, c = NEWTON_SCHULZ
    return a * s + b * s**3 + c * s**5


policy = new_policy(nano, seed=0)
cpu_batch = TensorSplit.from_blockfind(BlockFind(64, seed=42), encode).take(slice(None))
optimizer = make_optimizer(policy, TrainConfig(learning_rate=1e-3))
for _ in range(2):  # the output layers start at zero; after a step gradients reach everything
    train_step(policy, optimizer, cpu_batch, grad_clip=1.0)
gradient = policy.vision.blocks[0].mlp.hidden.weight.grad

before = torch.linalg.svdvals(gradient.double()) / gradient.double().norm()
expected = before
for _ in range(5):
    expected = pull(expected)
after = torch.linalg.svdvals(orthogonalize(gradient.T.double(), dtype=torch.double))
torch.testing.assert_close(after, expected.sort(descending=True).values, rtol=1e-3, atol=1e-3)
print("the singular values of the orthogonalized gradient are five pulls of the old ones")

# %% mystnb={"image": {"alt": "Left: five applications of the polynomial lift every value between about 0.002 and 1 to between 0.7 and 1.2. Right: singular values of a gradient, sorted, on a logarithmic axis. The gradient's fall from one over about seven powers of ten within the first third, then slowly. Orthogonalized, about the first dozen lie on a level near one; the others keep their fall, several hundred times higher than before."}}
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained", facecolor="white")
grid = torch.logspace(-4, 0, 400)
curve = grid
for number in range(1, 6):
    curve = pull(curve)
    left.plot(grid, curve, color=BLUE, alpha=0.15 + 0.17 * number, lw=1.6)
left.axhline(1, color="grey", lw=0.8, ls="--")
left.set(xscale="log", xlabel="singular value before", ylabel="after 1 ... 5 pulls")
right.semilogy(before, color=ORANGE, lw=2, label="gradient, norm 1")
right.semilogy(after, color=BLUE, lw=2, label="orthogonalized")
right.set(xlabel="number of the singular value, largest first", ylabel="singular value")
right.legend(frameon=False)
plt.show()
few = int((before.square().cumsum(0) < 0.9).sum()) + 1
assert few < len(before) / 4, f"{few} of {len(before)} directions"
print("fewer than a quarter of the directions hold nine tenths of this gradient")

# %% [markdown]
# On the left: the polynomial does not settle at one. It stays within about 0.7 and 1.2, and in return it rises faster
# at zero. Five pulls bring to about one whatever lies above roughly two thousandths of the norm; the rest stays small.
#
# On the right: the gradient's norm is one, and its largest singular value is close to that. So this early a single
# direction holds nearly all of it. Most of the others are about as small as rounding errors.
#
# The package's `Muon` uses this for the matrices of linear layers and leaves embeddings, biases and norms to AdamW. It
# scales its update to the size of AdamW's ([Liu et al.](https://arxiv.org/abs/2502.16982), section 2.2), so that one
# learning rate serves both parts of the same run. That does not make it the best rate of a run with AdamW alone: in the
# figures, Muon's rates are several times AdamW's.
#
# Muon costs time: those products are extra work in each step. So compare the number of steps times the seconds of a
# step. Both times are of recorded steps on the same kind of GPU: Muon's from the bench, AdamW's from the throughput
# file.

# %% tags=["nbval-ignore-output"]
muon_step, adamw_step = bench["seconds_per_step"]["median"], row["seconds_per_step"]
print(f"minimal, a step: AdamW {1e3 * adamw_step:.2f} ms, Muon {1e3 * muon_step:.2f} ms")
print(f"steps for ten of ten: {fewest['adamw']} and {fewest['muon']}")
print(f"product: {fewest['adamw'] * adamw_step:.3f} s and {fewest['muon'] * muon_step:.3f} s")
assert fewest["muon"] * muon_step < fewest["adamw"] * adamw_step

# %% [markdown]
# ### What helps, and what does not
#
# The same study changed one setting at a time, at a number of steps that is a little too small. (AdamW's base succeeds in 8
# of 10 runs, so there only harm can show clearly.) Before you look: **how large is chance?** Suppose two settings are
# equally good, and each run succeeds with probability 0.8. How often do ten runs of one and ten of the other differ by two
# or more?

# %%
chance = [math.comb(10, k) * 0.8**k * 0.2 ** (10 - k) for k in range(11)]
differ = sum(chance[i] * chance[j] for i in range(11) for j in range(11) if abs(i - j) >= 2)
print(f"by two or more: {differ:.0%} of the time")
assert differ > 0.3

# %% tags=["hide-input"] jupyter={"source_hidden": true} mystnb={"image": {"alt": "Two panels of bars, runs of ten that reach 95 %, one bar per changed setting; a line marks the unchanged base. AdamW: a gain of 0.5 fails always, a very short warm-up harms; batch 128 and gain 1.5 are at nine or ten; the others lie near the base. Muon: batch 128, gain 1.5, shorter decay and shorter warm-up raise it; gain 0.5 and decay over the whole run fail always; beta2, clipping and weight decay are at the base or one run below it."}}
fig, axes = plt.subplots(1, 2, figsize=(9.5, 4), layout="constrained", sharey=True, facecolor="white")
for ax, study, color in zip(axes, ("adamw", "muon"), (ORANGE, BLUE), strict=True):
    base, rows = search["bases"][study], [r for r in search["rows"] if r["study"] == study]
    changes = [{k: v for k, v in r["change"].items() if base.get(k) != v} for r in rows]
    names = [", ".join(f"{k} {v:g}" for k, v in change.items()) or "base" for change in changes]
    names = [name.replace("_", " ").replace("grad clip 1e+09", "no clipping") for name in names]
    ax.barh(names, [r["reached"] for r in rows], color=["#444444" if n == "base" else color for n in names])
    ax.axvline(rows[0]["reached"], color="#444444", lw=1, ls="--")
    ax.set(xlabel="runs of ten at 95 %", xlim=(0, 10.3))
    ax.set_title(f"{study}, {base['num_steps']} steps, learning rate {base['learning_rate']:g}", fontsize=10)
axes[0].invert_yaxis()
plt.show()
muon = {tuple(r["change"].items())[3:]: r["reached"] for r in search["rows"] if r["study"] == "muon"}
base = muon[()]
for name in ("beta2", "grad_clip", "weight_decay"):
    assert all(abs(reached - base) <= 1 for change, reached in muon.items() if change and change[0][0] == name)
print("Muon: beta2, clipping and weight decay change at most one run of ten")

# %% [markdown]
# Trust only the large differences. (Where a bar is missing, none of the ten runs got there.)
#
# - **The initial gain** (all linear weights multiplied) matters most here: with half of it no run gets there. With 1.5
#   times the gain all or nearly all do, which is a clear help with Muon. The package does not adopt it: the figures of the
#   earlier chapters rest on $0.5/\sqrt{\text{inputs}}$, and a change for speed should not silently change them.
# - **Twice the batch** helps Muon (from 4 of ten to all), but it is also twice the scenes. With AdamW, 8 and 10 of ten are
#   within chance.
# - **Schedule.** With Muon at this low rate, no run gets there when the rate falls over the whole run, and most do with a
#   shorter fall or a shorter warm-up. With AdamW a very short warm-up does harm.
# - **beta2, clipping, weight decay**: ten seeds show no effect, in so short a run.
#
# The recipe that came out stands in `tinyvla.measure.bench.RECIPES`, with a margin of steps. Its figures were then measured
# with **other seeds**, since a setting looks too good on the seeds on which it was chosen. `tinyvla train` has recipes of its
# own, in `tinyvla.recipes.RECIPES`. They train longer, until the policy ends settled, which takes more steps than 95 % does.
#
# Now one run on your machine, `nano` with its own recipe, steps fixed beforehand.

# %% tags=["slow"]
recipe = RECIPES["nano"]
runner = Runner(nano, train, recipe)
seconds = runner.run(seed=0)
val = TensorSplit.from_blockfind(BlockFind(1_000, seed=43), encode, device)
accuracy = Metrics.of(predict_split(runner.policy, val), val.actions.cpu()).direction_accuracy
assert accuracy > 0.9, f"direction accuracy {accuracy:.3f}"
print(f"nano after {recipe.num_steps} steps: direction accuracy above 0.9")

# %% tags=["nbval-ignore-output", "slow"]
print(f"{seconds:.2f} s of steps on {device}, direction accuracy {accuracy:.1%}, target {TARGET:.0%}")
assert seconds > 0

# %% [markdown]
# ## How to report a speed
#
# - **Fix target, steps and seeds first.** If you stop when validation looks good, each run is judged at its luckiest moment.
#   [cifar10-airbench](https://github.com/KellerJordan/cifar10-airbench) fixes them beforehand, too.
# - **Report every run**, also those that fail.
# - **Say what the clock saw.** *Warm* is the steps alone. *Cold* is what you wait for: a fresh process that imports,
#   makes the data, prepares and trains.
# - **Measure the comparison in the same run**, on the same machine.

# %% tags=["nbval-ignore-output"]
n, reference = len(bench["runs"]), bench["reference"]
print(f"{bench['command']}\n{bench['machine']['device']}, torch {bench['machine']['torch']}")
print(
    f"{bench['reached']} of {n} seeds reach {bench['target_direction_accuracy']:.0%} in {bench['steps']['max']:.0f} steps"
)
print(
    f"warm: median {bench['seconds']['median']:.3f} s, from {bench['seconds']['min']:.3f} to {bench['seconds']['max']:.3f}"
)
print(f"plain recipe: median {reference['seconds']['median']:.1f} s of {len(reference['runs'])} seeds")
print(f"ratio of the medians: {bench['speedup']:.0f}")
print(f"cold: median {bench['cold']['total']['median']:.1f} s")
assert bench["reached"] == n

# %% tags=["hide-input"] jupyter={"source_hidden": true} mystnb={"image": {"alt": "One stacked bar of the cold run: import, data and preparation fill nearly all of it; the training itself is a sliver at the right end."}}
parts = {name: bench["cold"][name]["median"] for name in ("import", "data", "prepare", "train")}
parts["rest"] = max(0.0, bench["cold"]["total"]["median"] - sum(parts.values()))
fig, ax = plt.subplots(figsize=(8, 1.6), layout="constrained", facecolor="white")
left = 0.0
for (name, seconds), color in zip(parts.items(), (BLUE, ORANGE, PURPLE, PINK, "#aaaaaa"), strict=True):
    ax.barh([0], [seconds], left=left, color=color, label=f"{name} {seconds:.2g} s")
    left += seconds
ax.set(yticks=[], xlabel="seconds since the command was given", ylim=(-0.5, 0.5))
ax.legend(frameon=False, ncols=5, loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=9)
plt.show()
assert parts["train"] < 0.1 * bench["cold"]["total"]["median"]
print("of a cold run, training is less than a tenth")

# %% [markdown]
# The warm figure alone is true, but you will not have your policy in that time. For one short run, importing and
# preparing (the policy is made, the step is warmed up and recorded) take far longer than all its steps. The rest is not
# training either: new initial weights before the first step, and the end of the process. A fast step pays off when it is
# taken many times.
#
# ### What is left
#
# Here is the recorded step of each preset on the same GPU. Left: how much of the peak it uses. Right: what its kernels do.

# %% tags=["hide-input"] jupyter={"source_hidden": true} mystnb={"image": {"alt": "Left: model FLOP utilisation of four presets, from below one per cent for nano to more than ten per cent for the two large ones. Right: stacked shares of the kernels' time. Matrix products take about a fifth in every preset; copies and casts, norms and the optimizer take most of the rest."}}
presets = gpu["presets"]
kinds = list(presets["minimal"]["profile"]["milliseconds"])
fig, (left, right) = plt.subplots(
    1, 2, figsize=(9.5, 3.4), layout="constrained", facecolor="white", width_ratios=(1, 2)
)
bars = left.bar(list(presets), [100 * p["mfu"] for p in presets.values()], color=BLUE)
left.bar_label(bars, [f"{p['mfu']:.1%}" for p in presets.values()])
left.set(ylabel="% of the device's peak")
left.margins(y=0.15)
left.tick_params(axis="x", rotation=25)
start = [0.0] * len(presets)
for kind, color in zip(kinds, plt.get_cmap("tab10").colors, strict=False):
    shares = [
        p["profile"]["milliseconds"].get(kind, 0) / sum(p["profile"]["milliseconds"].values()) for p in presets.values()
    ]
    right.barh(list(presets), shares, left=start, color=color, label=kind)
    start = [a + b for a, b in zip(start, shares, strict=True)]
right.invert_yaxis()
right.set(xlabel="share of the kernels' time", xlim=(0, 1))
right.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()
assert presets["nano"]["mfu"] < presets["minimal"]["mfu"] < presets["medium"]["mfu"]
print("the larger of nano, minimal and medium uses more of the device")

# %% [markdown]
# The small presets use little of the GPU. Their products are small. And even when the device always has a kernel to run, only
# about a fifth of the kernels' time goes into matrix products, in the large presets, too. Copies, casts and
# gathers take about a quarter, norms a fifth or less, and sums, the optimizer and other small kernels most of the rest.
#
# `--step compiled` fuses some of those kernels. For 20 epochs of `minimal` (one run each) the steps took
# 4.1<!-- result: bench_minimal_cuda/epochs/compile=True/seconds:.1f --> s instead of
# 5.7<!-- result: bench_minimal_cuda/epochs/compile=False/seconds:.1f --> s, but preparing them took
# 23.4<!-- result: bench_minimal_cuda/epochs/compile=True/setup_seconds:.1f --> s instead of
# 0.4<!-- result: bench_minimal_cuda/epochs/compile=False/setup_seconds:.1f --> s. So it pays only for long runs.
#
# Larger batches take less time for the same scenes. Whether they also learn more per second, the two runs below do not show,
# since they end at different times. On an H100, with one seed and twice the learning rate, 20 epochs in batches of 256 took
# 3.2<!-- result: epochs_minimal_cuda/epochs/batch_size=256/seconds:.1f --> s, where batches of 64 took
# 5.9<!-- result: epochs_minimal_cuda/epochs/batch_size=64/seconds:.1f --> s. They ended with an L2 error of
# 0.0089<!-- result: epochs_minimal_cuda/epochs/batch_size=256/l2_error:.4f -->, and batches of 64 with
# 0.0025<!-- result: epochs_minimal_cuda/epochs/batch_size=64/l2_error:.4f -->.
#
# ### At the command line
#
# ```bash
# tinyvla train                    # the preset's recipe, with the step that pays on this device
# tinyvla train --step plain       # the step that the course teaches
# tinyvla train --step compiled    # CUDA only: fused kernels, for long runs
# tinyvla train --recipe plain     # AdamW at 3e-4, 100 steps of warm-up, 20 epochs
# tinyvla bench --preset minimal --seeds 20 --reference 3 --cold 3
# tinyvla throughput --presets nano minimal
# accelerate launch --num_processes 2 -m tinyvla train
# ```
#
# The last line trains in two processes, each with a GPU ([Accelerate](https://huggingface.co/docs/accelerate)). Each
# takes half of every batch, and gradients are averaged during the backward pass. For policies of this size expect
# little from it: half of a batch asks for as many kernels as all of it, and several processes do not record the step.
# With a shared batch of 256, two H100s trained `minimal` and `medium` *slower* than one
# ([chapter 12](12_scaling.ipynb) has the figures).
#
# ## Exercises
#
# ### Exercise 3: only the words that are used (20 minutes)
#
# Write `only_used_words(policy, split)`. It returns a copy of the policy whose embedding has one row for each token
# id that occurs in the split, in rising order, and a split with the ids renumbered to match. Training must give the
# same losses. Leave the policy that you were given as it is.
#
# <details><summary>Hint</summary>
#
# `unique()` returns sorted ids, and `torch.searchsorted(used, ids)` finds their numbers. `copy.deepcopy` copies a
# policy; `nn.Embedding.from_pretrained(rows, freeze=False)` makes an embedding of given rows; `replace` exchanges
# one field of a split.
#
# </details>


# %% tags=["exercise"]
def only_used_words(policy, split):
    """A copy of the policy with a small embedding, and the split renumbered for it."""
    # your code here


# %% tags=["check"]
def three_losses(policy, split):
    """Losses of three steps."""
    optimizer = make_optimizer(policy, TrainConfig(learning_rate=1e-3))
    return torch.stack([train_step(policy, optimizer, split.take(torch.arange(16)), 1.0) for _ in range(3)])


with checking("Exercise 3"):
    sixteen = TensorSplit.from_blockfind(BlockFind(16, seed=42), encode)
    whole = new_policy(nano, seed=0)
    made = only_used_words(whole, sixteen)
    assert made is not None, "write the body of only_used_words first"
    assert len(made) == 2, "return two things: the policy and the split"
    small, renumbered = made
    table = small.language.token_embedding
    rows, words = table.num_embeddings, len(sixteen.input_ids.unique())
    assert whole.language.token_embedding.num_embeddings == nano.language.vocab_size, "copy the policy, keep the old"
    assert rows == words, (
        f"{words} different ids occur; your embedding's num_embeddings is {rows}: make one with a row for "
        "each, and no more"
    )
    assert len(table.weight) == words, f"the embedding's weight should have {words} rows, yours has {len(table.weight)}"
    assert sixteen.input_ids.max() > rows, "copy the split, too: yours changes the one it was given"
    assert renumbered.input_ids.max() < rows, "the split still has the old ids: renumber them"
    assert table.weight.requires_grad, "the new embedding is frozen: freeze=False"
    old, new = whole.language.token_embedding(sixteen.input_ids), table(renumbered.input_ids)
    assert torch.equal(old, new), "a token should keep its vector: do the rows and the new ids have the same order?"
    rising = whole.language.token_embedding.weight[sixteen.input_ids.unique()]
    assert torch.equal(table.weight, rising), "the rows should stand in rising order of the ids"
    at = {p.data_ptr() for p in whole.parameters()} & {p.data_ptr() for p in small.parameters()}
    assert not at, "the two policies share weights, so training one changes the other: copy.deepcopy"
    expected = three_losses(whole, sixteen)
    torch.testing.assert_close(three_losses(small, renumbered), expected, rtol=1e-3, atol=1e-5)
    trained = whole.language.token_embedding.weight[sixteen.input_ids.unique()]
    assert torch.allclose(table.weight, trained, atol=1e-4), (
        "after three steps a row differs from that of the whole embedding: does every row train, the first one, too?"
    )
    again, _ = only_used_words(whole, sixteen)  # of a policy that has been trained
    assert torch.equal(again.vision.cls_token, whole.vision.cls_token), (
        "the other weights should be those of the policy that was given, yours are new ones: copy.deepcopy"
    )
    longer = replace(
        sixteen, input_ids=F.pad(sixteen.input_ids, (0, 2)), attention_mask=F.pad(sixteen.attention_mask, (0, 2))
    )
    rows, words = only_used_words(whole, longer)[0].language.token_embedding.num_embeddings, words + 1
    assert rows == words, (
        f"with padding {words} different ids occur, your embedding has {rows} rows: the padding's id is one of them"
    )

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def only_used_words(policy, split):
#     """A copy of the policy with a small embedding, and the split renumbered for it."""
#     used = split.input_ids.unique()
#     small = copy.deepcopy(policy)
#     rows = small.language.token_embedding.weight.detach()[used]
#     small.language.token_embedding = nn.Embedding.from_pretrained(rows, freeze=False)
#     return small, replace(split, input_ids=torch.searchsorted(used, split.input_ids))
# ```
#
# The losses agree because rows without a gradient do not move: their moments stay zero, and embeddings do not decay.
# The package does this only while a step runs (`tinyvla/speed/embedding_rows.py`). A policy that kept the small table could
# not be given a new word, and no other model would use its ids.
#
# </details>
#
# ### Exercise 4: Muon's step (30 minutes)
#
# Write `muon_step(weight, gradient, moment, learning_rate, momentum=0.95)`. It changes `weight` and `moment` in place, for
# one matrix and without weight decay:
#
# 1. the moment moves towards the gradient: $m \leftarrow \mu m + (1-\mu) g$;
# 2. look ahead, after Nesterov: $u = \mu m + (1-\mu) g$, with the new $m$;
# 3. orthogonalize $u$, with the shorter side first, which saves time;
# 4. subtract it, times the learning rate and $0.2\sqrt{\text{longer side}}$.
#
# <details><summary>Hint</summary>
#
# `moment.lerp_(gradient, 1 - momentum)` is line 1. A tall matrix is transposed before `orthogonalize` and back
# afterwards.
#
# </details>


# %% tags=["exercise"]
def muon_step(weight, gradient, moment, learning_rate, momentum=0.95):
    """One update of a matrix, in place."""
    # your code here


# %% tags=["check"]
with checking("Exercise 4"):
    for shape, momentum in (((8, 24), 0.95), ((24, 8), 0.95), ((8, 24), 0.6)):
        draw = torch.Generator().manual_seed(0)
        start = torch.randn(shape, generator=draw)
        package = nn.Parameter(start.clone())
        theirs = Muon([package], [nn.Parameter(torch.zeros(1))], momentum=momentum, lr=0.1, weight_decay=0.0)
        weight, moment = start.clone(), torch.zeros(shape)
        for number in range(3):
            gradient = torch.randn(shape, generator=draw)
            package.grad = gradient.clone()
            theirs.step()
            muon_step(weight, gradient.clone(), moment, 0.1, momentum)
            differs = f"step {number + 1} of a {shape[0]} x {shape[1]} matrix differs from the package's"
            if number == 0:
                assert not torch.equal(weight, start), "write the body of muon_step first, and change weight in place"
                assert moment.any(), "the moment has not moved: change it in place"
                assert torch.allclose(moment, (1 - momentum) * gradient, atol=1e-6), (
                    f"with momentum {momentum} the first moment is {1 - momentum:.2f} times the gradient; yours is not"
                )
                mine, right = weight - start, package.detach() - start
                size = (mine.norm() / right.norm()).item()
                cosine = F.cosine_similarity(mine.flatten(), right.flatten(), dim=0)
                assert cosine > -0.9, "your step goes uphill: subtract the update"
                assert 0.9 < size < 1.1, (
                    f"your first step is {size:.2f} times as long as the package's: the factor is 0.2 and the root of "
                    "the longer side"
                )
                assert cosine > 0.9 or shape[0] <= shape[1], (
                    "your step of a tall matrix has another direction: transpose the update back, a reshape mixes its "
                    "numbers"
                )
                assert torch.allclose(weight, package.detach(), atol=1e-4), differs
            assert torch.allclose(weight, package.detach(), atol=1e-4), (
                f"{differs}, and the first did not: does it look ahead, with the new moment?"
            )
    handed = gradient.clone()
    muon_step(weight, handed, moment, 0.1)
    assert torch.equal(handed, gradient), "your code changes the gradient that it was given: work on a new tensor"

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def muon_step(weight, gradient, moment, learning_rate, momentum=0.95):
#     """One update of a matrix, in place."""
#     moment.lerp_(gradient, 1 - momentum)
#     ahead = momentum * moment + (1 - momentum) * gradient
#     tall = weight.shape[0] > weight.shape[1]
#     update = orthogonalize(ahead.T if tall else ahead)
#     update = update.T if tall else update
#     weight.sub_(learning_rate * 0.2 * math.sqrt(max(weight.shape)) * update)
# ```
#
# An orthogonal matrix has entries of about $1/\sqrt{\text{longer side}}$, and an update of AdamW has entries of about
# 0.2: hence the factor.
#
# </details>
#
# ## Check yourself
#
# <details><summary>You time a step on a GPU and get a few microseconds. What happened?</summary>
#
# You timed how long it takes to put work into the queue; for a recorded step that is a single call. Synchronise before
# the clock starts and before it stops.
#
# </details>
#
# <details><summary>MFU is one per cent. Will a GPU with twice the peak train twice as fast?</summary>
#
# No. The arithmetic is one per cent of the time, so at most half a per cent can be won by it. Find out first whether the
# host, waiting or memory takes the rest.
#
# </details>
#
# <details><summary>A recorded step trains, but worse than the plain one. Name three suspects.</summary>
#
# A Python value that was frozen (a learning rate as a float, a number that was read before the recording, an `if`); memory that was given back and
# is now used by others; noise that repeats. The test is the same for all: both steps from the same beginning, losses
# side by side.
#
# </details>
#
# <details><summary>Setting A reaches the target in 8 of 10 seeds, setting B in 6. Is A better?</summary>
#
# These runs do not say. Equal settings often differ that much; the cell under "What helps, and what does not" computes how
# often. Take more seeds, or a budget at which the difference is larger.
#
# </details>
#
# <details><summary>Why is the warm time of a recipe not measured on the seeds on which it was chosen?</summary>
#
# The recipe was chosen because it did well on those seeds, luck included. On other seeds that luck is gone.
#
# </details>
#
# ## Summary
#
# - Training time = steps x time of a step. Work out what the arithmetic costs before you speed anything up; for small
#   policies it is a tiny part.
# - The rest is asking, waiting and moving numbers. Keep the data in place, do no work twice, read results rarely, record
#   the step. After each change the losses must be the same.
# - A recording holds shapes, Python values and addresses. What depends on values must become a fixed amount of work,
#   and what is read must stay alive.
# - Muon moves all large enough directions of a matrix alike. It needed fewer steps here, and each step costs more.
#   Compare steps times seconds per step.
# - Ten seeds show large effects only. Fix steps and seeds first, report all runs, and say whether the clock was warm.
#
# ## Sources
#
# - Chowdhery et al., [PaLM](https://arxiv.org/abs/2204.02311) (2022), appendix B: model FLOP utilisation
# - Jordan, [Muon: an optimizer for hidden layers](https://kellerjordan.github.io/posts/muon) (2024), and
#   [cifar10-airbench](https://github.com/KellerJordan/cifar10-airbench): how a training speed is reported
# - Liu et al., [Muon is scalable for LLM training](https://arxiv.org/abs/2502.16982) (2025): the scale of the update
# - [PyTorch's notes on CUDA](https://docs.pytorch.org/docs/stable/notes/cuda.html): queues, graphs and what they forbid
# - [`tinyvla/speed/cuda_graph.py`](https://github.com/tinyvla/tinyvla/blob/main/tinyvla/speed/cuda_graph.py),
#   [`embedding_rows.py`](https://github.com/tinyvla/tinyvla/blob/main/tinyvla/speed/embedding_rows.py),
#   [`muon.py`](https://github.com/tinyvla/tinyvla/blob/main/tinyvla/learn/muon.py),
#   [`bench.py`](https://github.com/tinyvla/tinyvla/blob/main/tinyvla/measure/bench.py) and
#   [`throughput.py`](https://github.com/tinyvla/tinyvla/blob/main/tinyvla/measure/throughput.py)
#
# ## Next
#
# The step is fast, but the policy still learns everything from the beginning. [Chapter 10](10_pretrained.ipynb) starts from
# pretrained parts.
