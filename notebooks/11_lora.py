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
# # 11. LoRA: change a trained policy with one percent of its weights
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/tinyvla/tinyvla/blob/main/notebooks/11_lora.ipynb)
#
# A policy works. Then the task changes: blocks have other colours, people say it in other words. Train everything
# again? For a large model that takes a large GPU, makes a whole new copy for each task, and spoils what the model
# could do before. **LoRA** trains two thin matrices beside each frozen one instead. This chapter builds it in twenty
# lines, shows that the `peft` library computes the same, and measures what it saves, and what it does not.
#
# **You will be able to**
#
# - write a LoRA layer, put it into a policy, and count what is trained;
# - explain why one of its two matrices starts at zero, and only one;
# - adapt a policy with `tinyvla.adapt.lora` and `peft`: save, load and merge an adapter, and switch it off;
# - say from measurements what LoRA saves (optimizer memory, disk) and what not (activations, time);
# - compare it with full fine-tuning and with frozen towers, the old task included.
#
# **Time:** about 60 minutes to read, about 50 seconds on two CPU cores, 30 seconds on a GPU to run.
#
# **Before you start:** [Chapter 2](02_vision.ipynb) builds the attention layers that are adapted here,
# [Chapter 5](05_training.ipynb) the training loop.

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
if importlib.util.find_spec("peft") is None:
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "peft>=0.15"], check=True)

import copy
import math
import re
import tempfile
import textwrap
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch.nn.functional as F
from torch import nn

from tinyvla.adapt.lora import (
    adapter_off,
    add_lora,
    load_adapter,
    merge,
    save_adapter,
    target_layers,
    trainable_parameters,
)
from tinyvla.course.exercises import checking
from tinyvla.course.zoo import load_results, trained_policy
from tinyvla.data.batch import TensorSplit
from tinyvla.data.dataset import BlockFind, ChangedFind
from tinyvla.errors import InputError
from tinyvla.learn.evaluate import Metrics, predict_split
from tinyvla.learn.optimizer import make_optimizer
from tinyvla.learn.train import fit, train_step
from tinyvla.model.policy import count_parameters
from tinyvla.model.tokenizer import encode
from tinyvla.recipes import TrainConfig
from tinyvla.show.plots import PART_COLORS, plot_sample

plt.rcParams.update({"figure.facecolor": "white", "font.size": 10})

# %% [markdown]
# The idea in one picture. A layer multiplies its input by a large matrix $W$. LoRA leaves $W$ alone and adds a detour
# through a narrow place: $A$ squeezes the input to a few numbers, $B$ spreads them out again.

# %% tags=["hide-input"] mystnb={"image": {"alt": "An input x goes two ways: through a large grey square W, frozen, and through a small trapezoid A and a small trapezoid B, trained. Both results are added."}}
fig, ax = plt.subplots(figsize=(8, 2.7), layout="constrained")
ax.set(xlim=(0, 10), ylim=(0, 3.4))
ax.axis("off")


def arrow(start, end):
    """An arrow between two points."""
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": "#444444", "lw": 1.6})


ax.add_patch(plt.Rectangle((3.2, 1.75), 3, 1.5, fc="#9a9a9a"))
ax.text(4.7, 2.5, "$W$, frozen\nd × d", ha="center", va="center", color="white")
trained = PART_COLORS["action"]
ax.add_patch(plt.Polygon([(3.2, 0.1), (3.2, 1.4), (4.2, 0.9), (4.2, 0.6)], fc=trained))
ax.add_patch(plt.Polygon([(5.2, 0.6), (5.2, 0.9), (6.2, 1.4), (6.2, 0.1)], fc=trained))
ax.text(3.55, 0.75, "$A$", ha="center", va="center", color="white")
ax.text(5.87, 0.75, "$B$", ha="center", va="center", color="white")
ax.text(4.7, 0.35, "rank r", ha="center", va="center", color=trained, fontsize=9)
ax.text(1.3, 1.7, "$x$", ha="center", va="center", fontsize=14)
ax.text(7.9, 1.7, "+", ha="center", va="center", fontsize=16)
ax.text(9.4, 1.7, r"$Wx + \dfrac{\alpha}{r} BAx$", ha="center", va="center", fontsize=12)
arrow((1.6, 1.8), (3.1, 2.4))
arrow((1.6, 1.6), (3.1, 0.8))
arrow((4.25, 0.75), (5.15, 0.75))
arrow((6.3, 2.4), (7.6, 1.85))
arrow((6.3, 0.8), (7.6, 1.55))
arrow((8.15, 1.7), (8.5, 1.7))
plt.show()

# %% [markdown]
# ## 1. The task changes
#
# Our base is the course's `nano`, trained on BlockFind. `ChangedFind` draws the same kind of scene in six colours that
# the base has never seen, and asks for them in three wordings that it has never read.

# %% mystnb={"image": {"alt": "Four scenes: one of the old task, three of the changed one with cyan, magenta, pink, brown and gray blocks and the sentences go to the, move toward the, head for the."}}
old_scenes, new_scenes = BlockFind(4, seed=44), ChangedFind(1_000, seed=142)
fig, axes = plt.subplots(1, 4, figsize=(9, 2.6), layout="constrained")
plot_sample(old_scenes[0], ax=axes[0])
for ax, number in zip(axes[1:], (0, 1, 2), strict=True):
    plot_sample(new_scenes[number], ax=ax)
plt.show()
print("old:", old_scenes.instructions[0])
print("new:", *new_scenes.instructions[:3], sep="\n     ")

# %% [markdown]
# **Guess first.** How often does the base point in the right direction when it is told "go to the cyan square"?

# %% tags=["nbval-ignore-output"]
base = trained_policy("nano", device=device, progress_bar=False)
train = TensorSplit.from_blockfind(new_scenes, encode, device)
new_test, old_test = (
    TensorSplit.from_blockfind(split, encode, device) for split in (ChangedFind(500, 144), BlockFind(500, 44))
)


def accuracy(policy, split):
    """Share of scenes in which the arrow points in the right direction."""
    return Metrics.of(predict_split(policy, split), split.actions.cpu()).direction_accuracy


base_old, base_new = accuracy(base, old_test), accuracy(base, new_test)
print(f"the base on the old task {base_old:.1%}, on the changed one {base_new:.1%}")
assert base_old > 0.95
assert base_new < 0.65

# %% [markdown]
# More than nothing: a scene has three or four blocks, and whoever points to any of them is right quite often. It sees
# that there are blocks. It does not know which one is meant.
#
# ## 2. A LoRA layer
#
# Fine-tuning changes a weight $W$ to $W + \Delta W$. The claim behind LoRA ([Hu et al.](https://arxiv.org/abs/2106.09685)) is
# that a *change of task* needs only a $\Delta W$ of **low rank**: one that can be written as $BA$, with $A$ of `rank`
# rows and $B$ of `rank` columns. Then train $A$ and $B$, and leave $W$ alone.


# %%
class MyLoRA(nn.Module):
    """A frozen linear layer with a trainable low-rank detour."""

    def __init__(self, linear, rank, alpha):
        super().__init__()
        self.linear = linear.requires_grad_(False)
        self.A = nn.Parameter(torch.empty(rank, linear.in_features))
        self.B = nn.Parameter(torch.zeros(linear.out_features, rank))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))  # as nn.Linear begins
        self.scale = alpha / rank

    def forward(self, x):
        return self.linear(x) + self.scale * F.linear(F.linear(x, self.A), self.B)


torch.manual_seed(0)
linear, x = nn.Linear(128, 128), torch.randn(5, 128)
layer = MyLoRA(linear, rank=8, alpha=16)
print("W", tuple(linear.weight.shape), "A", tuple(layer.A.shape), "B", tuple(layer.B.shape))
print(f"W has {linear.weight.numel():,} weights, A and B together {layer.A.numel() + layer.B.numel():,}")
print("a fresh adapter changes nothing:", torch.equal(layer(x), linear(x)))

# %% [markdown]
# - $B$ is zero, so the detour gives zero, and training starts exactly at the base. Nothing is lost on the first day.
# - `alpha / rank` scales the detour. If you double the rank, twice as many terms are added up; the division keeps the
#   size of a step about the same, so the learning rate need not change. Usually `alpha` is set once, to twice the rank,
#   and left there.
#
# **Predict, run, explain.** Why is $A$ *not* zero as well? Guess which of the two gets a gradient in the very first
# step, with $B = 0$ and with both at zero.


# %%
def who_gets_a_gradient(a_is_zero):
    """Names of the matrices whose gradient is not zero in a first step."""
    fresh = MyLoRA(linear, rank=8, alpha=16)
    if a_is_zero:
        nn.init.zeros_(fresh.A)
    fresh(x).square().sum().backward()
    return [name for name in ("A", "B") if getattr(fresh, name).grad.any()] or "none"


print("B zero:   ", who_gets_a_gradient(a_is_zero=False))
print("both zero:", who_gets_a_gradient(a_is_zero=True))

# %% [markdown]
# The gradient of $B$ contains $Ax$, that of $A$ contains $B$. With both at zero each waits for the other, for ever.
# With $B$ alone at zero, $B$ moves in the first step and $A$ from the second on. It is an easy mistake in an
# implementation of your own: the loss stays where it is, and nothing reports an error.
#
# ### Into the policy
#
# Which layers? Here: the four projections of every attention, and the two layers through which pixels and words come
# in. Everything else is frozen.

# %%
ATTENTION, INPUTS = ("query", "key", "value", "output"), ("patch_projection", "text_projection")


def my_add_lora(policy, rank, alpha):
    """Freeze a policy and adapt its attention and its input projections, in place."""
    policy.requires_grad_(False)
    for name, module in list(policy.named_modules()):
        *parents, last = name.split(".")
        if (last in ATTENTION and parents[-1] == "attention") or last in INPUTS:
            policy.set_submodule(name, MyLoRA(module, rank, alpha).to(policy.device))
    return policy


mine = my_add_lora(copy.deepcopy(base), rank=8, alpha=16)
trained, total = trainable_parameters(mine)
print(f"layers adapted: {sum(isinstance(m, MyLoRA) for m in mine.modules())}")
print(f"trained: {trained:,} of {total:,} parameters, {trained / total:.2%}")
embedding = count_parameters(base.language.token_embedding)
print(f"without the embedding, most of whose rows are words that never occur: {trained / (total - embedding):.2%}")

# %% [markdown]
# Mind the second number. A share depends on what it is a share of, and three quarters of `nano` are its embedding. The
# honest comparison comes below, with a policy of a hundred million parameters.
#
# ### Same as peft
#
# [`peft`](https://huggingface.co/docs/peft) is the library in which most people use LoRA. `tinyvla.adapt.lora.add_lora` lets
# it do the replacing. If ours is right, then the same $A$ and $B$ give the same answers, and the same training steps
# the same losses.

# %%
theirs = add_lora(copy.deepcopy(base), rank=8, alpha=16)
for name, module in mine.named_modules():
    if isinstance(module, MyLoRA):
        nn.init.normal_(module.B, std=0.05)  # so that the detour does something
        other = theirs.get_submodule(name)
        with torch.no_grad():
            other.lora_A["default"].weight.copy_(module.A)
            other.lora_B["default"].weight.copy_(module.B)

difference = (predict_split(mine, new_test) - predict_split(theirs, new_test)).abs().max().item()
settings = TrainConfig(learning_rate=8e-3)
losses = []
for policy in (mine, theirs):
    optimizer, batch = make_optimizer(policy, settings), train.take(slice(64))
    losses.append([train_step(policy, optimizer, batch, settings.grad_clip).item() for _ in range(5)])
apart = np.abs(np.subtract(*losses)).max()
print("parameters trained:", trainable_parameters(theirs)[0], "and", trainable_parameters(mine)[0])
print("same answers:", difference < 1e-4, "| same losses over five steps:", apart < 1e-3)
assert difference < 1e-4
assert apart < 1e-3
assert trainable_parameters(theirs) == trainable_parameters(mine)

# %% [markdown]
# ## 3. Three ways to change a policy
#
# - **Full**: train every weight, from where the base is.
# - **Frozen towers**: leave vision and language as they are, train fusion and head.
# - **LoRA**: as above.
#
# All get the same 1,000 scenes of the changed task and the same number of steps. LoRA wants a larger learning rate than
# full fine-tuning, about ten times; with the same one it only looks slow.
#
# **Guess first.** Which one is best on the changed task? And which one still finds the *red* block afterwards?


# %% tags=["nbval-ignore-output", "slow"]
def changed(way, rate, epochs=8):
    """A copy of the base, changed in one of the ways."""
    policy = copy.deepcopy(base)
    if way == "frozen":
        policy.vision.requires_grad_(False)
        policy.language.requires_grad_(False)
    elif way == "LoRA":
        add_lora(policy, rank=8)
    fit(policy, train, new_test, replace(TrainConfig(), epochs=epochs, learning_rate=rate, warmup_steps=20))
    return policy.eval()


ways = {way: changed(way, rate) for way, rate in {"full": 1e-3, "frozen": 3e-3, "LoRA": 8e-3}.items()}
scores = {way: (accuracy(policy, new_test), accuracy(policy, old_test)) for way, policy in ways.items()}
print(f"{'':10}{'trained':>10}{'changed task':>15}{'old task':>12}")
print(f"{'base':10}{'':>10}{base_new:15.1%}{base_old:12.1%}")
for way, (new, old) in scores.items():
    trained, total = trainable_parameters(ways[way])
    print(f"{way:10}{trained / total:10.2%}{new:15.1%}{old:12.1%}")
assert min(new for new, _ in scores.values()) > 0.85, "each way should learn the changed task"
assert scores["LoRA"][0] > scores["full"][0] - 0.05
assert scores["LoRA"][1] > scores["frozen"][1], "LoRA should forget less than a changed fusion and head"

# %% tags=["slow"] mystnb={"image": {"alt": "Bars of the accuracy on the changed and on the old task for base, full, frozen and LoRA. On the changed task all three are near 100 percent; on the old one LoRA keeps most."}}
fig, ax = plt.subplots(figsize=(7, 2.6), layout="constrained")
shown = {"base": (base_new, base_old), **scores}
for offset, (task, color) in enumerate({"changed task": "action", "old task": "vision"}.items()):
    heights = [100 * score[offset] for score in shown.values()]
    ax.bar(np.arange(len(shown)) + 0.36 * (offset - 0.5), heights, 0.34, color=PART_COLORS[color], label=task)
ax.set(xticks=range(len(shown)), xticklabels=shown, ylabel="right direction (%)", ylim=(0, 104))
ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
plt.show()

# %% [markdown]
# All three learn it. That frozen towers are enough deserves a thought: they have never seen cyan, but their features of
# a cyan and of a pink patch differ anyway, and so do the random embeddings of two words that were never trained. What
# is missing is only the link between them, and that lies behind the towers.
#
# The old task is what tells them apart. Everything that is trained without old scenes drifts away from them. This is
# called **catastrophic forgetting**, and it is a reason of its own to change as little as possible.
#
# ## 4. Measured: a policy of 100 million parameters
#
# One seed of `nano` proves little. `experiments/lora.py` did the same with `medium`: three bases, each way with a
# learning rate of its own that was chosen on validation scenes, and with 200, 1,000 and 8,000 changed scenes.

# %%
results = load_results("lora")["presets"]
medium = results["medium"]
print(f"{medium['command']}\non {medium['machine']['device']}; {medium['seeds']} seeds, {medium['steps']} steps each, "
      f"{medium['num_test']} test scenes")  # fmt: skip
print(f"base: old task {medium['base']['old_direction_accuracy']['median']:.1%}, "
      f"changed task {medium['base']['direction_accuracy']['median']:.1%}\n")  # fmt: skip
print(f"{'':10}{'trained':>9}{'scenes':>8}{'changed task, median (min)':>28}{'old task, median (min)':>26}")
for way, entry in medium["ways"].items():
    for scenes, runs in entry["scenes"].items():
        cells = [
            f"{runs[k]['median']:.1%} ({runs[k]['min']:.1%})" for k in ("direction_accuracy", "old_direction_accuracy")
        ]
        print(f"{way:10}{entry['share']:9.2%}{int(scenes):8,}{cells[0]:>28}{cells[1]:>26}")

full, frozen, lora = (medium["ways"][way] for way in ("full", "frozen", "lora-16"))
behind = {
    n: full["scenes"][n]["direction_accuracy"]["median"] - runs["direction_accuracy"]["median"]
    for n, runs in lora["scenes"].items()
}
print(
    f"\nLoRA trains {lora['share']:.2%} and is behind full fine-tuning by {100 * max(behind.values()):.1f} points at most"
)
assert lora["share"] <= 0.02
assert max(behind.values()) <= 0.02

pairs = [
    (a["old_direction_accuracy"], b["old_direction_accuracy"], c["old_direction_accuracy"])
    for n in lora["scenes"]
    for a, b, c in zip(*(entry["scenes"][n]["runs"] for entry in (lora, full, frozen)), strict=True)
]
more_than_full, more_than_frozen = sum(a > b for a, b, _ in pairs), sum(a > c for a, _, c in pairs)
print(f"LoRA keeps more of the old task than full fine-tuning in {more_than_full} of {len(pairs)} runs,")
print(f"  than frozen towers in {more_than_frozen}")
assert more_than_full > len(pairs) / 2
assert more_than_frozen > 0.8 * len(pairs)

# %% [markdown]
# - **LoRA with 1.5 % of the weights does as well as full fine-tuning**, and rank 4, with 0.4 %, does so too.
# - With 200 scenes all ways are less sure; one of three bases is hard for full fine-tuning and LoRA alike. LoRA is not
#   a remedy for too few data here.
# - **It forgets less, on the whole.** Not in each run, and not at any learning rate: rank 4, whose best rate was
#   larger, kept less on the median and only two thirds in one run. Frozen towers, which sound like the careful choice,
#   forget most. Our reading, which these runs do not prove: the link between word and patch lies in fusion and head,
#   and there the old one is overwritten.
#
# ### What it saves, and what not
#
# **Guess first.** LoRA trains 1.5 % of the weights. Does a training step need 1.5 % of the memory, and of the time?

# %% mystnb={"image": {"alt": "Stacked bars of peak memory: weights, gradients with optimizer state, and the rest. Full has all three; LoRA has almost no gradients and optimizer state but the same rest; frozen towers have almost none of the rest either."}}
ways_shown = ("full", "lora-16", "lora-4", "frozen")
parts = {"weights": [], "gradients, optimizer": [], "activations and the rest": []}
for way in ways_shown:
    entry = medium["ways"][way]
    known = entry["weights_gb"], entry["gradients_and_optimizer_gb"]
    for values, size in zip(parts.values(), (*known, entry["peak_gb"] - sum(known)), strict=True):
        values.append(size)
fig, ax = plt.subplots(figsize=(8, 2.6), layout="constrained")
left = np.zeros(len(ways_shown))
for (name, values), color in zip(parts.items(), ("#9a9a9a", PART_COLORS["action"], PART_COLORS["vision"]), strict=True):
    ax.barh(ways_shown, values, left=left, color=color, label=name)
    left += values
ax.invert_yaxis()
ax.set(xlabel="peak memory of a training step, batch of 64 (GB)")
ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
plt.show()
print(f"{'':41}memory, GB{'step, ms':>25}")
print(f"{'':9}{'peak':>6}{'weights':>10}{'gradients, optimizer':>22}{'the rest':>10}{'recorded':>13}{'plain':>7}")
for way, *sizes in zip(ways_shown, *parts.values(), strict=True):
    entry = medium["ways"][way]
    recorded, plain = entry["scenes"]["1000"]["seconds"]["median"] / medium["steps"], entry["plain_step_seconds"]
    print(f"{way:9}{sum(sizes):6.2f}{sizes[0]:10.2f}{sizes[1]:22.2f}{sizes[2]:10.2f}", end="")
    print(f"{1000 * recorded:13.1f}{1000 * plain:7.0f}")
rest = dict(zip(ways_shown, parts["activations and the rest"], strict=True))
assert lora["peak_gb"] < 0.7 * full["peak_gb"]
assert 0.8 < rest["lora-16"] / rest["full"] < 1.2, "activations are not saved"
assert rest["frozen"] < 0.2 * rest["full"]

# %% [markdown]
# Three numbers per weight vanish with the frozen ones: its gradient and Adam's two moments. That is what LoRA saves, in
# training. It does **not** save
#
# - **activations**: the gradient has to travel back to the first adapter, through every frozen layer, so what these
#   layers need for it is kept as before. For frozen towers nobody has to go back through them, so they need
#   neither. If activations are your problem, look at [Chapter 12](12_scaling.ipynb);
# - **time**: the forward pass gets longer, by two small products a layer, and the backward pass gets only a part
#   shorter. A recorded step ([Chapter 9](09_speed.ipynb)) takes about as long as a full one. A plain step, as most
#   programs make it, is slower than a full one: each small product has to be asked for. Only frozen towers are fast;
# - **weights**: the base lies in memory as a whole. Storing it with 4 bits a weight is another idea, called
#   [QLoRA](https://arxiv.org/abs/2305.14314).
#
# Does the first point matter? Take a policy of 7 billion parameters: gradients and moments in float32 are 84 GB. With
# LoRA they are about one.
#
# ## 5. Save, load, switch off, merge
#
# An adapter is a small file. `save_adapter` writes `peft`'s own format, so `peft.PeftModel.from_pretrained` reads it
# as well.

# %%
adapted = add_lora(copy.deepcopy(base), rank=8)
fit(adapted, train, new_test, replace(TrainConfig(), epochs=2, learning_rate=8e-3, warmup_steps=5))
answers = predict_split(adapted, new_test)

folder = Path(tempfile.mkdtemp())
save_adapter(adapted, folder / "adapter")
base.save_pretrained(folder / "base")
sizes = [
    path.stat().st_size for path in (folder / "base/model.safetensors", folder / "adapter/adapter_model.safetensors")
]
print(sorted(path.name for path in (folder / "adapter").glob("adapter_*")))
print(f"checkpoint of the base {sizes[0] / 1e6:.1f} MB, adapter {sizes[1] / 1e6:.2f} MB")

loaded = load_adapter(copy.deepcopy(base), folder / "adapter")
print("loaded, it gives the same answers:", torch.equal(predict_split(loaded, new_test), answers))

# %% [markdown]
# Ten tasks are ten such files and one base, and that is how large models are shared. What if somebody loads the file on
# *another* base, of the same shape? Every matrix fits. Nothing crashes. The answers are nonsense, since $BA$ was made
# to correct one particular $W$. So `save_adapter` writes a fingerprint of the base into the file:

# %%
stranger = copy.deepcopy(base)
with torch.no_grad():
    stranger.head.output.bias.add_(0.001)
try:
    load_adapter(stranger, folder / "adapter")
except InputError as error:
    message = re.sub(r"[0-9a-f]{12}", "...", str(error).replace(str(folder), "FOLDER"))
    print(textwrap.fill(f"InputError: {message}", 80))

# %% [markdown]
# ### Nothing is forgotten that can be switched off
#
# The base's weights have not changed by a bit. So the old task is one line away, in the same policy:

# %%
with adapter_off(adapted):
    same = torch.equal(predict_split(adapted, old_test), predict_split(base, old_test))
print("with its adapter off, it is the base again:", same)
assert same

# %% [markdown]
# Full fine-tuning has no such switch. Of course somebody has to know which task it is: the switch is worth as much as
# that knowledge.
#
# ### Merge
#
# $Wx + sBAx = (W + sBA)x$. So after training the detour can be added to the weight, once. What is left is a plain
# policy: nothing extra to compute, and checkpoints, export and everything else work as ever.

# %%
merged = merge(copy.deepcopy(adapted))
difference = (predict_split(merged, new_test) - answers).abs().max().item()
print("same answers up to rounding:", difference < 1e-5)
print("adapters left:", sum(hasattr(m, "lora_A") for m in merged.modules()))
print("same names as the base's weights:", merged.state_dict().keys() == base.state_dict().keys())
assert difference < 1e-5

# %% [markdown]
# Loading was exact, to the bit. Merging rounds: a sum of two products is not the product of a sum, in floating point.
# What you give up is the switch. For `medium` the measured differences and sizes are:

# %%
print(f"checkpoint {lora['checkpoint_mb']:.0f} MB, adapter {lora['adapter_mb']:.1f} MB")
print(f"largest difference of an answer after loading {lora['difference_after_loading']:.0e}, "
      f"after merging {lora['difference_after_merging']:.0e}")  # fmt: skip

# %% [markdown]
# ## 6. On pretrained towers
#
# Until now the base was our own. LoRA was made for bases that somebody else has trained: those of
# [Chapter 10](10_pretrained.ipynb), with frozen towers from the hub. The verbs are the same. Only the layers have
# other names, which is the first thing that goes wrong with LoRA on a new model: a target that fits *some* layers and
# silently leaves out the rest. `tinyvla.adapt.lora.TARGETS` knows the usual names, `target_layers` shows what they mean, and
# a target that fits no layer is an error.
#
# Here with the shapes of real towers and no weights (the device `meta` keeps none), so nothing is downloaded. The
# shapes are those of [SigLIP-B/16](https://huggingface.co/google/siglip-base-patch16-224/blob/main/config.json) and of
# [SmolLM2-135M](https://huggingface.co/HuggingFaceTB/SmolLM2-135M/blob/main/config.json).

# %%
import transformers

with torch.device("meta"):
    # The defaults are those of B/16; its pooling head is left out, as in tinyvla.model.pretrained.
    vision = transformers.SiglipVisionConfig(image_size=224, patch_size=16, vision_use_head=False)
    language = transformers.LlamaConfig(
        hidden_size=576, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3, intermediate_size=1536,
        vocab_size=49_152,
    )  # fmt: skip
    towers = nn.ModuleDict(
        {"vision": transformers.SiglipVisionModel(vision), "language": transformers.LlamaModel(language)}
    )

total = count_parameters(towers)
for targets in (("attention",), ("attention", "mlp")):
    names = target_layers(towers, targets)
    layers = [towers.get_submodule(name) for name in names]
    for rank in (4, 16):
        extra = sum(rank * (layer.in_features + layer.out_features) for layer in layers)
        print(
            f"{' and '.join(targets):18}{len(names):4} layers, rank {rank:2}: {extra:>10,} weights, {extra / total:.2%}"
        )
print("such as", *target_layers(towers, ("attention",))[:3], sep="\n  ")

# %% [markdown]
# Does it *work* there? Towers of the same `transformers` classes, small and trained here on BlockFind, were changed in
# the same three ways:

# %%
for preset in [name for name in results if name.startswith("towers")]:
    part = results[preset]
    print(textwrap.fill(part["command"], 80, subsequent_indent="  "))
    print(f"on {part['machine']['device']}; {part['seeds']} seeds, {part['steps']} steps\n")
    print(f"{'':10}{'trained':>9}{'gradients, optimizer':>22}{'changed task':>15}{'old task':>11}   medians")
    runs = {way: entry["scenes"][str(part["middle"])] for way, entry in part["ways"].items()}
    new, old = (
        {way: run[key]["median"] for way, run in runs.items()}
        for key in ("direction_accuracy", "old_direction_accuracy")
    )
    for way, entry in part["ways"].items():
        memory = 1000 * entry["gradients_and_optimizer_gb"]
        print(f"{way:10}{entry['share']:9.2%}{memory:19.1f} MB{new[way]:15.1%}{old[way]:11.1%}")
    print(f"LoRA keeps more of the old task than full fine-tuning: {'yes' if old['lora-8'] > old['full'] else 'no'}")
    assert new["lora-8"] >= new["full"] - 0.02
    assert part["ways"]["lora-8"]["share"] <= 0.02

# %% [markdown]
# LoRA reaches full fine-tuning there as well. Two seeds of a small policy do not say much more, and two things are less
# pretty than in Section 4. One of the two full runs stayed behind, at the largest rate that was tried, so full
# fine-tuning may do better than this table says. And LoRA **did not forget less** than full fine-tuning here. So do not
# promise anybody that LoRA forgets less. Measure it, on your task.

# %% [markdown]
# ## Exercise 1: what rank fits? (10 minutes)
#
# Write `largest_rank(shapes, total, share)`: the largest rank whose adapter weighs at most `share` of all parameters.
# `shapes` holds `(inputs, outputs)` of each adapted layer; `total` counts the base's parameters. Count the share as this
# chapter does: the adapter's weights divided by base *and* adapter. If not even rank 1 fits, the answer is 0.
#
# <details><summary>Hint</summary>
#
# An adapter of rank $r$ has $r \cdot n$ weights, with $n$ the sum of inputs and outputs over all layers. Try one rank
# after the other, or solve $rn / (T + rn) \le s$ for $r$.
#
# </details>


# %% tags=["exercise"]
def largest_rank(shapes, total, share):
    """The largest rank whose adapter is at most `share` of base and adapter together."""
    # your code here


# %% tags=["check"]
with checking("Exercise 1"):
    shapes = [
        (m.in_features, m.out_features)
        for m in (base.get_submodule(n) for n in target_layers(base, ("attention", "inputs")))
    ]
    total = count_parameters(base)
    answer = largest_rank(shapes, total, 0.02)
    assert answer is not None, "write the body of largest_rank first"
    assert largest_rank([(10, 10)], 1_000, 0.001) == 0, "where not even rank 1 fits, the answer is 0"
    assert largest_rank([(10, 10)], 180, 0.1) == 1, "20 weights beside 180 are a tenth of all, so rank 1 fits"
    for rank, fits in ((answer, True), (answer + 1, False)):
        trained, whole = trainable_parameters(add_lora(copy.deepcopy(base), rank=rank))
        assert (trained / whole <= 0.02) == fits, (
            f"rank {rank} trains {trained / whole:.2%}, so {answer} is not the largest"
        )

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def largest_rank(shapes, total, share):
#     per_rank = sum(inputs + outputs for inputs, outputs in shapes)
#     rank = 0
#     while (rank + 1) * per_rank <= share * (total + (rank + 1) * per_rank):
#         rank += 1
#     return rank
# ```
#
# </details>

# %% [markdown]
# ## Exercise 2: merge by hand (15 minutes)
#
# Write `my_merge(policy)` for our own `MyLoRA` layers: replace each of them, in place, by a plain `nn.Linear` with the
# same answers, and return the policy.
#
# <details><summary>Hint</summary>
#
# The weight of the plain layer is `W + scale * B @ A`, and its bias stays; work under `torch.no_grad()`.
# `policy.set_submodule(name, layer)` replaces a layer; go through `list(policy.named_modules())`, because a dictionary
# must not change while you walk through it.
#
# </details>


# %% tags=["exercise"]
def my_merge(policy):
    """Replace every MyLoRA by a plain linear layer with the same answers."""
    # your code here


# %% tags=["check"]
with checking("Exercise 2"):
    before = predict_split(mine, new_test)
    weight_before = mine.vision.patch_projection.linear.weight.clone()
    plain = my_merge(copy.deepcopy(mine))
    assert plain is not None, "write the body of my_merge first, and return the policy"
    left = sum(isinstance(module, MyLoRA) for module in plain.modules())
    assert left == 0, f"{left} MyLoRA layers are left"
    wrong = (predict_split(plain, new_test) - before).abs().max().item()
    assert wrong < 1e-4, f"the answers differ by up to {wrong:.3f}; is the scale in it, and is it B @ A?"
    assert plain.state_dict().keys() == base.state_dict().keys(), "the weights' names should be the base's"
    assert torch.equal(mine.vision.patch_projection.linear.weight, weight_before), "the original must not change"

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# @torch.no_grad()
# def my_merge(policy):
#     for name, module in list(policy.named_modules()):
#         if isinstance(module, MyLoRA):
#             module.linear.weight += module.scale * module.B @ module.A
#             policy.set_submodule(name, module.linear)
#     return policy
# ```
#
# </details>

# %% [markdown]
# ## Exercise 3: how low is the rank of a full change? (20 minutes)
#
# LoRA's premise can be tested. Full fine-tuning was free to change each $W$ as it liked. Was its $\Delta W$ of low rank?
#
# Write `rank_needed(change, share)`: the smallest $r$ such that the best approximation of rank $r$ holds at least
# `share` of the squared entries' sum. By a theorem of Eckart and Young that share is that of the first $r$ squared
# singular values.
#
# <details><summary>Hint</summary>
#
# `torch.linalg.svdvals(change)` gives the singular values, largest first. Square, `cumsum`, divide by the sum, and count
# how many are still below `share`.
#
# </details>


# %% tags=["exercise"]
def rank_needed(change, share=0.9):
    """How many singular values hold that share of the change."""
    # your code here


# %% tags=["check"]
with checking("Exercise 3"):
    answer = rank_needed(torch.diag(torch.tensor([3.0, 1.0, 1.0, 1.0])), 0.75)
    assert answer is not None, "write the body of rank_needed first"
    assert answer == 1, f"of 9 + 1 + 1 + 1 the first holds three quarters; you need {answer}"
    assert rank_needed(torch.diag(torch.tensor([3.0, 1.0, 1.0, 1.0])), 0.8) == 2, "for 80 % it takes two"
    torch.manual_seed(0)
    for rank in (1, 3, 5):
        product = torch.randn(40, rank) @ torch.randn(rank, 30)
        assert rank_needed(product, 0.9999) == rank, (
            f"a product of rank {rank} needs {rank}, yours {rank_needed(product, 0.9999)}"
        )

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def rank_needed(change, share=0.9):
#     energy = torch.linalg.svdvals(change).square()
#     return int((energy.cumsum(0) / energy.sum() < share).sum()) + 1
# ```
#
# Then ask the fully tuned policy:
#
# ```
# for name in target_layers(base, ("attention", "inputs")):
#     change = ways["full"].get_submodule(name).weight - base.get_submodule(name).weight
#     print(name, rank_needed(change.detach()), "of", min(change.shape))
# ```
#
# You will see numbers from 2 to about 14, of 96 or 128, most of them below 10. A random matrix of these shapes needs
# about half of its rank (`rank_needed(torch.randn(128, 128))`). So the premise holds here, and rank 8 is no bad choice.
#
# </details>

# %% [markdown]
# ## Check yourself
#
# <details><summary>A fresh adapter with B = 0 gives the base's answers. What would both at zero do, and what would both at random do?</summary>
#
# Both at zero: the gradients of both are zero, nothing is ever learned, and nothing says so. Both at random: the policy
# is disturbed before the first step, and training has to repair that first.
#
# </details>
#
# <details><summary>LoRA trains 1.5 % of the weights. Why does the peak memory fall by less than half?</summary>
#
# Gradients and optimizer state nearly vanish. The weights still lie in memory, and so do the activations, since the
# gradient goes back through all frozen layers to the first adapter.
#
# </details>
#
# <details><summary>You load a colleague's adapter on your checkpoint of the same preset. It fits, and the policy points anywhere. What happened?</summary>
#
# It was trained on other weights. $BA$ corrects one particular $W$. With `tinyvla.adapt.lora` the fingerprint catches it; in
# plain `peft` you have to keep track yourself of which base, in which version, an adapter belongs to.
#
# </details>
#
# <details><summary>Your LoRA run learns slowly at the learning rate of your full fine-tuning. Is the rank too small?</summary>
#
# First try about ten times the learning rate. Here rank 4 was enough for a policy of 100 million parameters, at a rate
# 40 times that of full fine-tuning.
#
# </details>
#
# <details><summary>When are frozen towers the better choice?</summary>
#
# When their features already hold what the task needs, and memory or time is short: no activations are kept for the
# towers, and a step takes a third of the time. Look at what they forget.
#
# </details>
#
# ## Summary
#
# - LoRA adds $\frac{\alpha}{r}BA$ to frozen weights and trains $A$ and $B$. $B$ starts at zero, $A$ must not.
# - On a changed task, new colours and new words, it did as well as full fine-tuning with 1.5 % of the weights, and with
#   0.4 %.
# - It saves gradients, optimizer state and disk. It does not save activations, nor time.
# - On `medium` it forgot less than full fine-tuning in most runs, and frozen towers forgot most; on small `transformers`
#   towers it did not forget less. With the adapter off, nothing is forgotten.
# - An adapter belongs to one base. Merging makes it a plain policy again, equal up to rounding.
#
# ## Sources
#
# - Hu et al., [LoRA: low-rank adaptation of large language models](https://arxiv.org/abs/2106.09685): the method; section
#   4.1 for the scale and the initial values.
# - Dettmers et al., [QLoRA](https://arxiv.org/abs/2305.14314): the same over a base of 4-bit weights.
# - [peft](https://huggingface.co/docs/peft), its [LoRA
#   guide](https://huggingface.co/docs/peft/developer_guides/lora).
# - Kim et al., [OpenVLA](https://arxiv.org/abs/2406.09246), section 5.3: LoRA, frozen vision and other ways to fine-tune
#   a VLA of 7 billion parameters, compared. There, too, LoRA with 1.4 % of the parameters did about as well as all.
# - [`tinyvla/adapt/lora.py`](https://github.com/tinyvla/tinyvla/blob/main/tinyvla/adapt/lora.py),
#   [`experiments/lora.py`](https://github.com/tinyvla/tinyvla/blob/main/experiments/lora.py).
#
# ## Next
#
# Adapters make a large model cheap to change. What does it take to train a large one at all, and what does size buy?
# [Chapter 12](12_scaling.ipynb) predicts first, and measures then.
