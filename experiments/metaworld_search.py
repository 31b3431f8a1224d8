"""Search for what makes a small policy precise on Meta-World MT50. Writes `results/metaworld_search.json`.

    python experiments/metaworld_search.py collect --data DATA --gpus 4 --workers 56
    python experiments/metaworld_search.py campaign --data DATA --out OUT --gpus 4 --names way192 pos192 --seconds 280
    python experiments/metaworld_search.py gather --out OUT

`campaign` trains several recipes side by side, one per GPU, and judges each; with `--own` each also records its own
demonstrations on its GPU, so its seconds in all are those of one GPU from an empty folder on. Every recipe learns from
50 demonstrations of each task by the scripted experts, without noise, from scratch. `collect` records five more of each
task that are never trained on: the error on them (`held_out`) tells a policy that is too small from one that learns by
heart.

Notable, for speed: all pictures lie on the GPU as bytes; one step (draw a batch, shift it, forward, backward, AdamW,
moving average of the weights) is compiled, captured as a CUDA graph and replayed. The learning rate follows the clock,
so a recipe is trained for a given time and not for a given number of steps.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import multiprocessing
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinyvla.act.metaworld.collect import Plan, collect, episode_seed, read_episode, read_plan
from tinyvla.act.metaworld.judge import Episode, Judges, Mode
from tinyvla.act.metaworld.scene import MetaWorldConfig, Scene
from tinyvla.act.metaworld.tasks import GROUPS, SENTENCES, TASKS, Task, find_tasks

CHUNK = 16
WAYPOINTS = (8, 16, 32, 64, 500)
"""Steps ahead at which the hand's place is an extra target; the last one is the end of the episode."""
POSITIONS = (4, 5, 6, 11, 12, 13, 36, 37, 38)
"""Numbers of the simulator's observation that are places: of two objects and of the goal."""
SENTENCE_OF_TASK = torch.tensor([SENTENCES.index(task.sentence) for task in TASKS])


@dataclass(frozen=True)
class Recipe:
    """A policy and how it is trained."""

    name: str
    image_size: int = 192
    width: int = 256
    depth: int = 6
    heads: int = 4
    batch: int = 512
    learning_rate: float = 8e-4
    weight_decay: float = 0.05
    constant: float = 0.4
    """Part of the training before the learning rate falls, in a straight line, to zero."""
    overlap: bool = True
    """Whether the first convolution's patches overlap; otherwise it is a linear layer on 3 x 3 (or 2 x 2) pixels."""
    shift: int = 8
    """Pictures are moved by up to this many pixels along each axis."""
    state_noise: float = 0.02
    """In standard deviations of the state."""
    drop_state: float = 0.0
    """Part of the samples whose state is replaced by its mean."""
    dropout: float = 0.0
    waypoints: float = 0.0
    """Weight of the loss on where the hand will be."""
    positions: float = 0.0
    """Weight of the loss on where objects and goal are, which only the simulator knows; in training alone."""
    near: float = 1.0
    """Each further step of the chunk counts this much of the one before."""
    balance: float = 0.0
    """0: every frame is drawn equally often; 1: every task is."""
    ema: float = 0.999
    seed: int = 0
    seconds: float = 280.0


BASE = Recipe("base192")
WAY = replace(BASE, name="way192", waypoints=0.3)
RECIPES = {
    recipe.name: recipe
    for recipe in (
        replace(BASE, name="base128", image_size=128, shift=6),
        BASE,
        WAY,
        replace(WAY, name="way128", image_size=128, shift=6),
        replace(BASE, name="pos192", positions=0.3),
        replace(WAY, name="waypos192", positions=0.3),
        replace(WAY, name="big192", width=384, depth=8, heads=6, learning_rate=6e-4),
        replace(WAY, name="bigpos192", width=384, depth=8, heads=6, learning_rate=6e-4, positions=0.3),
        replace(WAY, name="balanced192", balance=0.5),
        replace(WAY, name="patch192", overlap=False),
        replace(WAY, name="tiny", image_size=64, width=64, depth=2, batch=32, heads=2),
    )
}


# ---- the policy ------------------------------------------------------------------------------------------------------


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of pictures (n, c, h, w)."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns the normalized pictures."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Patches(nn.Module):
    """A linear layer on each small square of a picture: (n, c, h, w) to (n, d, h / side, w / side)."""

    def __init__(self, side: int, channels: int) -> None:
        super().__init__()
        self.side, self.linear = side, nn.Linear(3 * side * side, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the squares' features."""
        n, _, h, w = x.shape
        x = x.permute(0, 2, 3, 1).reshape(n, h // self.side, self.side, w // self.side, self.side * 3)
        return self.linear(x.transpose(2, 3).flatten(3)).permute(0, 3, 1, 2)


class Block(nn.Module):
    """A transformer block with normalized queries and keys."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.norm_q, self.norm_k = nn.LayerNorm(width // heads), nn.LayerNorm(width // heads)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the tokens (n, t, width) after attention and feed-forward."""
        n, t, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(self.norm_q(q).to(v.dtype), self.norm_k(k).to(v.dtype), v)
        x = x + F.dropout(self.out(y.transpose(1, 2).reshape(n, t, -1)), self.dropout, self.training)
        return x + F.dropout(self.down(F.gelu(self.up(self.norm2(x)))), self.dropout, self.training)


class Policy(nn.Module):
    """Picture, state and sentence to a chunk of actions, and to the extra targets of training."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        width, first = recipe.width, recipe.image_size // 64
        channels = (3, 48, 96, 192, width)
        layers: list[nn.Module] = []
        for i, (a, b) in enumerate(pairwise(channels)):
            kernel, stride = (first + 2, first) if i == 0 else (3, 2)
            layers.append(nn.Conv2d(a, b, kernel, stride, 1) if i or recipe.overlap else Patches(first, b))
            layers += [ChannelNorm(b), nn.GELU()] if i < 3 else []
        self.stem = nn.Sequential(*layers)
        self.places = nn.Parameter(torch.randn(64, width) * 0.02)
        self.read = nn.Parameter(torch.randn(1, width) * 0.02)
        self.sentence = nn.Embedding(len(SENTENCES), width)
        nn.init.normal_(self.sentence.weight, std=0.02)
        self.state = nn.Sequential(nn.Linear(4, width), nn.GELU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList([Block(width, recipe.heads, recipe.dropout) for _ in range(recipe.depth)])
        self.norm = nn.LayerNorm(width)
        self.actions = nn.Linear(width, CHUNK * 4)
        self.waypoints = nn.Linear(width, len(WAYPOINTS) * 4)
        self.positions = nn.Linear(width, len(POSITIONS))
        for block in self.blocks:  # residual branches begin small, the deeper the policy the smaller
            for layer in (block.out, block.down):
                nn.init.normal_(layer.weight, std=0.02 / math.sqrt(2 * recipe.depth))
                nn.init.zeros_(layer.bias)
        self.register_buffer("state_mean", torch.zeros(4))
        self.register_buffer("state_std", torch.ones(4))
        self.register_buffer("position_mean", torch.zeros(len(POSITIONS)))
        self.register_buffer("position_std", torch.ones(len(POSITIONS)))

    def forward(self, images: Tensor, states: Tensor, sentences: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns actions (n, chunk, 4), waypoints (n, w, 4) and positions (n, p).

        Args:
            images: uint8 (n, h, w, 3).
            states: standardized, (n, 4).
            sentences: numbers of sentences, (n,).
        """
        n = len(images)
        x = self.stem(images.permute(0, 3, 1, 2).float() / 127.5 - 1)
        x = x.flatten(2).transpose(1, 2) + self.places
        extra = torch.stack([self.state(states), self.sentence(sentences), self.read.expand(n, -1)], 1)
        x = torch.cat([extra.to(x.dtype), x], 1)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x[:, 2])
        return self.actions(x).view(n, CHUNK, 4), self.waypoints(x).view(n, -1, 4), self.positions(x)

    def standardize(self, states: Tensor) -> Tensor:
        """Returns states in standard deviations from their mean."""
        return (states - self.state_mean) / self.state_std


# ---- the demonstrations ----------------------------------------------------------------------------------------------


@dataclass
class Frames:
    """All frames of a split, on the device."""

    images: Tensor
    states: Tensor
    actions: Tensor
    masks: Tensor
    tasks: Tensor
    waypoints: Tensor
    positions: Tensor

    def __len__(self) -> int:
        return len(self.tasks)


def shrink(images: Tensor, size: int) -> Tensor:
    """Returns pictures uint8 (n, h, w, 3) with another number of pixels, averaged rather than picked."""
    if images.shape[1] == size:
        return images
    small = F.interpolate(images.permute(0, 3, 1, 2).float(), (size, size), mode="bilinear", antialias=True)
    return small.round().clamp(0, 255).byte().permute(0, 2, 3, 1)


def load(folder: Path, image_size: int, device: torch.device) -> Frames:
    """Returns all frames of a collection, with the targets of each frame."""
    plan = read_plan(folder)
    episodes = plan.episodes
    with ThreadPoolExecutor(16) as pool:
        paths = [plan.path(folder, task, index) for task, index in episodes]
        small = list(pool.map(lambda path: read_episode(path, "state", "action", "environment_state"), paths))
        starts = np.cumsum([0] + [len(state) for state, _, _ in small])
        images = torch.empty((starts[-1], image_size, image_size, 3), dtype=torch.uint8, device=device)

        def put(i: int) -> None:
            (frames,) = read_episode(paths[i], "images")
            images[starts[i] : starts[i + 1]] = shrink(torch.from_numpy(frames).to(device), image_size)

        list(pool.map(put, range(len(paths))))
    columns: list[list[np.ndarray]] = [[] for _ in range(6)]
    for (task, _), (state, action, everything) in zip(episodes, small, strict=True):
        steps = np.arange(len(state))
        ahead = steps[:, None] + np.arange(CHUNK)
        later = np.minimum(steps[:, None] + np.array(WAYPOINTS), len(state) - 1)
        values = (
            state,
            action[np.minimum(ahead, len(state) - 1)],
            ahead < len(state),
            np.full(len(state), TASKS.index(task)),
            state[later],
            everything[:, POSITIONS],
        )
        for column, value in zip(columns, values, strict=True):
            column.append(value)
    return Frames(images, *(torch.from_numpy(np.concatenate(column)).to(device) for column in columns))


def shifted(images: Tensor, reach: int) -> Tensor:
    """Returns pictures (n, h, w, 3), each moved by up to `reach` pixels; the edge is repeated."""
    n, h, w, _ = images.shape
    moves = torch.randint(-reach, reach + 1, (n, 2, 1), device=images.device)
    rows = (torch.arange(h, device=images.device) + moves[:, 0]).clamp(0, h - 1)
    columns = (torch.arange(w, device=images.device) + moves[:, 1]).clamp(0, w - 1)
    return images[torch.arange(n, device=images.device)[:, None, None], rows[:, :, None], columns[:, None, :]]


# ---- training --------------------------------------------------------------------------------------------------------


def losses(policy: nn.Module, recipe: Recipe, batch: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Returns the loss to train on and the L1 error of the actions alone."""
    images, states, sentences, actions, mask, waypoints, positions = batch
    with torch.autocast(images.device.type, torch.bfloat16):
        answer, way, place = policy(images, states, sentences)
    weights = mask.float() * recipe.near ** torch.arange(CHUNK, device=images.device)
    error = ((answer.float() - actions).abs().mean(-1) * weights).sum() / weights.sum()
    loss = error
    if recipe.waypoints:
        loss = loss + recipe.waypoints * (way.float() - waypoints).abs().mean()
    if recipe.positions:
        loss = loss + recipe.positions * (place.float() - positions).abs().mean()
    return loss, error.detach()


def rate(recipe: Recipe, progress: float) -> float:
    """Returns the learning rate: it rises, stays, and falls in a straight line to zero."""
    rise, fall = min(1.0, progress / 0.02), min(1.0, (1 - progress) / (1 - recipe.constant))
    return recipe.learning_rate * max(0.0, min(rise, fall))


class Trainer:
    """One recipe's training on one device."""

    def __init__(self, recipe: Recipe, data: Frames) -> None:
        self.recipe, self.data = recipe, data
        self.device = data.images.device
        torch.manual_seed(recipe.seed)
        self.policy = Policy(recipe).to(self.device)
        if self.device.type == "cuda":
            self.policy = self.policy.to(memory_format=torch.channels_last)
        for name, values in (("state", data.states), ("position", data.positions)):
            getattr(self.policy, f"{name}_mean").copy_(values.mean(0))
            getattr(self.policy, f"{name}_std").copy_(values.std(0).clamp_min(1e-3))
        self.average = copy.deepcopy(self.policy).eval().requires_grad_(False)
        self.rate = torch.tensor(0.0, device=self.device)
        decay = [p for p in self.policy.parameters() if p.ndim > 1]
        plain = [p for p in self.policy.parameters() if p.ndim <= 1]
        groups = [{"params": decay, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        cuda = self.device.type == "cuda"
        self.optimizer = torch.optim.AdamW(groups, lr=self.rate, betas=(0.9, 0.99), fused=cuda, capturable=cuda)
        counts = torch.bincount(data.tasks, minlength=len(TASKS)).float()
        chance = counts[data.tasks] ** -recipe.balance
        self.chances = (chance / chance.sum()).double().cumsum(0)
        self.loss_fn: Callable[..., tuple[Tensor, Tensor]] = losses
        self.error = torch.zeros((), device=self.device)
        self.captured: torch.cuda.CUDAGraph | None = None
        self.how = "eager"

    def batch(self, data: Frames, rows: Tensor, noise: bool) -> tuple[Tensor, ...]:
        """Returns a batch of the given frames, disturbed if `noise`."""
        recipe, policy = self.recipe, self.policy
        images, states = data.images[rows], policy.standardize(data.states[rows])
        if noise:
            images = shifted(images, recipe.shift) if recipe.shift else images
            states = states + recipe.state_noise * torch.randn_like(states)
            if recipe.drop_state:
                states = states * (torch.rand(len(rows), 1, device=self.device) >= recipe.drop_state)
        sentences = self.sentences[data.tasks[rows]]
        way = policy.standardize(data.waypoints[rows])
        places = (data.positions[rows] - policy.position_mean) / policy.position_std
        return images, states, sentences, data.actions[rows], data.masks[rows], way, places

    @property
    def sentences(self) -> Tensor:
        """A task's number to its sentence's number."""
        if not hasattr(self, "_sentences"):
            self._sentences = SENTENCE_OF_TASK.to(self.device)
        return self._sentences

    def one_step(self) -> None:
        """Draw a batch, learn from it, and move the average of the weights."""
        drawn = torch.rand(self.recipe.batch, device=self.device, dtype=torch.float64)
        rows = torch.searchsorted(self.chances, drawn).clamp_max(len(self.data) - 1)
        loss, error = self.loss_fn(self.policy, self.recipe, self.batch(self.data, rows, noise=True))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.policy.parameters(), 1.0)
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.policy.parameters()), 1 - self.recipe.ema)
            self.error.lerp_(error.float(), 0.01)

    def prepare(self) -> None:
        """Compile and capture one step, where the device can; steps taken here are thrown away."""
        if self.device.type != "cuda":
            return
        before = copy.deepcopy(self.policy.state_dict())
        for compiled in (True, False):
            try:
                self.loss_fn = torch.compile(losses) if compiled else losses
                side = torch.cuda.Stream()
                side.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(side):
                    for _ in range(4):
                        self.one_step()
                torch.cuda.current_stream().wait_stream(side)
                torch.cuda.synchronize()
                self.optimizer.zero_grad(set_to_none=True)
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    self.one_step()
                self.captured, self.how = graph, "compiled, CUDA graph" if compiled else "CUDA graph"
                break
            except Exception as error:
                print(f"{self.recipe.name}: {'compiled' if compiled else 'plain'} capture failed: {error!r}"[:2000])
        with torch.no_grad():
            self.policy.load_state_dict(before)
            self.average.load_state_dict(before)
            for state in self.optimizer.state.values():
                for value in state.values():
                    value.zero_()
            self.error.zero_()

    @torch.no_grad()
    def held_out(self, data: Frames, every: int = 1) -> dict[str, Any]:
        """Returns the average's error on frames that it was not trained on: chunk, first action, first per task."""
        rows = torch.arange(0, len(data), every, device=self.device)
        wrong, first = [], []
        for part in rows.split(1024):
            images, states, sentences, actions, mask, _, _ = self.batch(data, part, noise=False)
            with torch.autocast(self.device.type, torch.bfloat16):
                answer = self.average(images, states, sentences)[0].float()
            error = (answer - actions).abs().mean(-1)
            wrong.append((error * mask).sum(1) / mask.sum(1))
            first.append(error[:, 0])
        firsts, tasks = torch.cat(first), data.tasks[rows]
        sums = torch.zeros(len(TASKS), device=self.device).index_add_(0, tasks, firsts)
        counts = torch.bincount(tasks, minlength=len(TASKS)).clamp_min(1)
        by_task = dict(zip((task.name for task in TASKS), (sums / counts).tolist(), strict=True))
        return {
            "chunk": float(torch.cat(wrong).mean()),
            "first": float(firsts.mean()),
            "by_task": {name: round(value, 4) for name, value in by_task.items() if value},
        }

    def fit(self, held_out: Frames | None, max_steps: int = 10**9) -> dict[str, Any]:
        """Train for the recipe's seconds. Returns steps, seconds and the curve of errors."""
        started = time.time()
        self.prepare()
        ready = time.time()
        curve: list[dict[str, float]] = []
        steps, next_look = 0, 20.0
        while (elapsed := time.time() - ready) < self.recipe.seconds and steps < max_steps:
            self.rate.fill_(rate(self.recipe, elapsed / self.recipe.seconds))
            for _ in range(20 if self.captured else 1):
                if self.captured:
                    self.captured.replay()
                else:
                    self.one_step()
                steps += 1
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            if elapsed > next_look and held_out is not None:
                next_look = elapsed + 20
                look = self.held_out(held_out, every=4)
                row = {"seconds": elapsed, "steps": steps, "train": float(self.error), **look}
                row.pop("by_task")
                curve.append({key: round(value, 5) for key, value in row.items()})
                print(f"{self.recipe.name}: {curve[-1]}", flush=True)
        result: dict[str, Any] = {
            "steps": steps,
            "seconds": round(time.time() - ready, 1),
            "seconds_to_compile": round(ready - started, 1),
            "step": self.how,
            "train": float(self.error),
            "curve": curve,
        }
        return result | ({"held_out": self.held_out(held_out)} if held_out is not None else {})


# ---- judging ---------------------------------------------------------------------------------------------------------


class Answerer:
    """A trained policy that answers for all processes at once, replayed as a CUDA graph where that works."""

    def __init__(self, policy: Policy, recipe: Recipe, workers: int, recorded_size: int) -> None:
        self.policy, self.size = policy.eval(), recipe.image_size
        device = policy.state_mean.device
        self.images = torch.zeros(workers, recorded_size, recorded_size, 3, dtype=torch.uint8, device=device)
        self.states = torch.zeros(workers, 4, device=device)
        self.tasks = torch.zeros(workers, dtype=torch.int64, device=device)
        self.sentences = SENTENCE_OF_TASK.to(device)
        self.graph: torch.cuda.CUDAGraph | None = None
        if device.type == "cuda":
            try:
                for _ in range(3):
                    self.chunks = self.compute()
                torch.cuda.synchronize()
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    self.chunks = self.compute()
                self.graph = graph
            except Exception as error:
                print(f"no graph for answers: {error!r}"[:500])

    @torch.no_grad()
    def compute(self) -> Tensor:
        """Returns chunks float32 (workers, chunk, 4) for what lies in the buffers."""
        states = self.policy.standardize(self.states)
        with torch.autocast(states.device.type, torch.bfloat16):
            return self.policy(shrink(self.images, self.size), states, self.sentences[self.tasks])[0].float()

    def __call__(self, images: np.ndarray, states: np.ndarray, tasks: np.ndarray) -> np.ndarray:
        """Returns the chunks for all processes."""
        for buffer, values in ((self.images, images), (self.states, states), (self.tasks, tasks)):
            buffer.copy_(torch.from_numpy(values))
        if self.graph:
            self.graph.replay()
        else:
            self.chunks = self.compute()
        return self.chunks.cpu().numpy()


def wilson(successes: int, trials: int, z: float = 1.96) -> list[float]:
    """Returns the 95 % interval of a success rate (Wilson 1927)."""
    middle = (successes + z * z / 2) / (trials + z * z)
    half = z / (trials + z * z) * math.sqrt(successes * (trials - successes) / trials + z * z / 4)
    return [round(middle - half, 4), round(middle + half, 4)]


def summary(episodes: list[Episode], planned: int) -> dict[str, Any]:
    """Returns success by group, with intervals, and by task from episodes of one mode."""
    groups = {}
    for group in GROUPS:
        names = {task.name for task in TASKS if task.group == group}
        ended = [episode.success for episode in episodes if episode.task in names]
        if ended:
            rate_of_group = round(sum(ended) / len(ended), 4)
            groups[group] = {
                "success": rate_of_group,
                "interval": wilson(sum(ended), len(ended)),
                "successes": sum(ended),
                "episodes": len(ended),
            }
    tasks = {
        task.name: [sum(e.success for e in episodes if e.task == task.name), sum(e.task == task.name for e in episodes)]
        for task in TASKS
        if any(e.task == task.name for e in episodes)
    }
    return {
        "complete": len(episodes) == planned,
        "mean_of_groups": round(sum(group["success"] for group in groups.values()) / max(len(groups), 1), 4),
        "over_episodes": round(sum(e.success for e in episodes) / max(len(episodes), 1), 4),
        "groups": groups,
        "successes_and_episodes_by_task": tasks,
        "steps_of_successes": round(float(np.mean([e.steps for e in episodes if e.success] or [0])), 1),
    }


def line(name: str, mode: str, found: dict[str, Any]) -> str:
    """Returns one line of the table."""
    groups = " / ".join(f"{100 * group['success']:.1f}" for group in found["groups"].values())
    return f"{name:12s} {mode:13s} {groups}  mean {100 * found['mean_of_groups']:.1f}"


# ---- commands --------------------------------------------------------------------------------------------------------


def run(given: argparse.Namespace) -> None:
    """Train one recipe on this process's GPU, judge it, and write what is known after each part.

    With `--own` it records its own demonstrations first, so the seconds in all are those from an empty folder on.
    """
    started = time.time()
    recipe = RECIPES[given.names[0]]
    recipe = replace(recipe, seed=given.seed, seconds=given.seconds or recipe.seconds)
    path = given.out / f"{recipe.name}_s{recipe.seed}{given.suffix}.json"
    folder = given.data / path.stem if given.own else given.data
    if given.own:
        _record_on_this_gpu(given, folder)
    recorded = read_plan(folder / "train")
    judges = Judges(given.workers, recorded.config, CHUNK, given.gpu, start="fork")  # before CUDA is used
    collected = time.time()
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    data = load(folder / "train", recipe.image_size, device)
    measured = (folder / "validation" / "collection.json").exists()
    held_out = load(folder / "validation", recipe.image_size, device) if measured else None
    trainer = Trainer(recipe, data)
    report: dict[str, Any] = {
        "name": recipe.name,
        "recipe": asdict(recipe),
        "parameters": sum(p.numel() for p in trainer.policy.parameters()),
        "demonstrations_per_task": recorded.demos,
        "frames": len(data),
        "recorded_image_size": recorded.image_size,
        "samples_per_pixel": recorded.samples,
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "torch": torch.__version__,
        "command": given.command_line,
        "judge_seed": given.judge_seed,
        "seconds_to_collect": round(collected - started, 1) if given.own else None,
        "seconds_to_load": round(time.time() - collected, 1),
    }
    report |= trainer.fit(held_out, given.max_steps)
    path.write_text(json.dumps(report) + "\n")
    weights = {key: value.half().cpu() for key, value in trainer.average.state_dict().items()}
    torch.save({"recipe": asdict(recipe), "weights": weights}, given.data / f"{path.stem}.pt")
    answer = Answerer(trainer.average, recipe, given.workers, recorded.image_size)
    del data, held_out, trainer.data
    judge(given, judges, answer, recorded, report, path)
    report["seconds_in_all"] = round(time.time() - started, 1)
    path.write_text(json.dumps(report) + "\n")
    judges.close()


def _record_on_this_gpu(given: argparse.Namespace, folder: Path) -> None:
    """Record demonstrations with processes that do not import torch."""
    command = [sys.executable, "-m", "tinyvla.act.metaworld.collect", folder / "train", "--tasks", given.tasks]
    command += ["--demos", given.demos, "--image-size", given.image_size, "--samples", given.samples]
    command += ["--workers", given.workers, "--gpus", given.gpu]
    subprocess.run(list(map(str, command)), check=True)


def judge(
    given: argparse.Namespace, judges: Judges, answer: Answerer, recorded: Plan, report: dict[str, Any], path: Path
) -> None:
    """Run the episodes of all modes and write what is known every few seconds."""
    modes = [Mode(ensemble=float(name[1:])) if name[0] == "e" else Mode(int(name)) for name in given.modes]
    tasks = find_tasks(recorded.tasks)
    planned = len(tasks) * given.episodes
    episodes: list[Episode] = []
    started = noted = time.time()

    def seed(task: Task, index: int) -> int:
        return episode_seed("judge", task, index, given.judge_seed)

    for episode in judges.run(answer, modes, tasks, seed, given.episodes, given.judge_seconds):
        episodes.append(episode)
        if len(episodes) % planned == 0 or time.time() - noted > 5:
            noted = time.time()
            report["seconds_to_judge"] = round(noted - started, 1)
            _note(report, episodes, planned, path)
    _note(report, episodes, planned, path)


def _note(report: dict[str, Any], episodes: list[Episode], planned: int, path: Path) -> None:
    """Write what is known so far, one entry per mode."""
    report.setdefault("judged", {})
    for mode in dict.fromkeys(episode.mode for episode in episodes):
        report["judged"][mode] = summary([episode for episode in episodes if episode.mode == mode], planned)
    path.write_text(json.dumps(report) + "\n")


def campaign(given: argparse.Namespace) -> None:
    """Run several recipes, one per GPU, and print the table when all have ended or time is up."""
    started = time.time()
    given.out.mkdir(parents=True, exist_ok=True)
    jobs = []
    for place, spec in enumerate(given.names):
        name, _, seed = spec.partition(":")
        judge_seed = given.judge_seed if given.judge_seed >= 0 else int(seed or 0)
        options = [
            *("--data", given.data, "--out", given.out, "--names", name, "--seed", seed or 0, "--modes", *given.modes),
            *("--seconds", given.seconds, "--judge-seconds", given.judge_seconds, "--workers", given.workers),
            *("--episodes", given.episodes, "--gpu", place % given.gpus, "--suffix", given.suffix),
            *(["--own"] if given.own else []),
            *("--tasks", given.tasks, "--demos", given.demos, "--image-size", given.image_size),
            *("--samples", given.samples, "--judge-seed", judge_seed, "--max-steps", given.max_steps),
            *("--command-line", given.command_line),
        ]
        command = [sys.executable, "-u", __file__, "run", *map(str, options)]
        env = os.environ | {"CUDA_VISIBLE_DEVICES": str(place % given.gpus), "OMP_NUM_THREADS": "4"}
        log = (given.out / f"{name}_s{seed or 0}{given.suffix}.log").open("w")
        jobs.append(subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT))
    while any(job.poll() is None for job in jobs) and time.time() - started < given.limit:
        time.sleep(1)
    for job in jobs:
        if job.poll() is None:
            job.kill()
    print(f"campaign: {time.time() - started:.0f} s, exits {[job.poll() for job in jobs]}")
    gather(given)


def gather(given: argparse.Namespace) -> None:
    """Print all results of a folder and write them as one file, `metaworld_search.json`.

    Of a way to act whose episodes have not all ended only their number is kept: successes end sooner than failures, so
    the rate of those that have ended would be too high.
    """
    found: list[dict[str, Any]] = []
    for path in sorted(given.out.glob("*.json")):
        content = json.loads(path.read_text())
        found += [] if path.name == "metaworld_search.json" else content if isinstance(content, list) else [content]
    for report in found:
        report["command"] = portable(shlex.split(report["command"])[2:])
        held = report.get("held_out", {})
        print(
            f"{report['name']} seed {report['recipe']['seed']}: {report['parameters'] / 1e6:.1f} M, {report['steps']} "
            f"steps in {report['seconds']} s ({report['step']}, compile {report['seconds_to_compile']} s, load "
            f"{report['seconds_to_load']} s), train {report['train']:.4f}, held out {held.get('chunk', 0):.4f} first "
            f"{held.get('first', 0):.4f}, {report.get('seconds_in_all')} s in all"
        )
        for mode, result in report.get("judged", {}).items():
            if result["complete"]:
                print("   ", line(report["name"], mode, result))
            else:
                ended = result.get("episodes") or sum(row["episodes"] for row in result["groups"].values())
                report["judged"][mode] = {"complete": False, "episodes": ended}
    results = {"command": "python experiments/metaworld_search.py gather --out OUT", "runs": found}
    (given.out / "metaworld_search.json").write_text(json.dumps(results, indent=1) + "\n")


def record(given: argparse.Namespace) -> None:
    """Record demonstrations for training and, apart from them, for the held-out error."""
    names = tuple(task.name for task in find_tasks(given.tasks))
    for split, demos in (("train", given.demos), ("validation", given.held_out)):
        started = time.time()
        plan = Plan(names, demos, given.image_size, given.samples, split)
        collect(given.data / split, plan, given.workers, range(given.gpus))
        tries = [int(read_episode(plan.path(given.data / split, *e), "tries")[0]) for e in plan.episodes]
        print(f"{split}: {len(tries)} episodes, {sum(tries)} tries, {time.time() - started:.0f} s", flush=True)


def _draw(row: int, gpu: int, size: int, start: Any, speeds: Any) -> None:
    """One process of `draw`."""
    os.environ["MUJOCO_EGL_DEVICE_ID"] = str(gpu)
    for samples in (0, 4):
        scene = Scene(find_tasks("assembly")[0], MetaWorldConfig(image_size=size, samples=samples))
        scene.begin(row)
        scene.picture()
        start.wait(60)
        started = time.time()
        for _ in range(200):
            scene.picture()
        speeds.put((samples, 200 / (time.time() - started)))


def draw(given: argparse.Namespace) -> None:
    """Print pictures per second of many processes on one GPU, without and with smooth edges; last, what to record."""
    context = multiprocessing.get_context("fork")
    start, speeds = context.Barrier(given.workers), context.Queue()
    rows = range(given.workers)
    processes = [
        context.Process(target=_draw, args=(row, given.gpu, given.image_size, start, speeds), daemon=True)
        for row in rows
    ]
    for process in processes:
        process.start()
    found = [speeds.get(timeout=60) for _ in range(2 * given.workers)]
    totals = {samples: sum(speed for kind, speed in found if kind == samples) for samples in (0, 4)}
    print(f"{given.workers} processes draw {totals[0]:.0f} pictures a second, {totals[4]:.0f} with 4 samples per pixel")
    print(4 if totals[4] > 0.75 * totals[0] else 0)


def portable(words: list[str]) -> str:
    """Returns the command with names in place of this machine's folders."""
    words = [
        "DATA" if before == "--data" else "OUT" if before == "--out" else word
        for before, word in pairwise(["", *words])
    ]
    return "python experiments/metaworld_search.py " + shlex.join(words)


def speed(given: argparse.Namespace) -> None:
    """Print steps per second of some recipes on made-up pictures, and which kernels take the time."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    n = 20_000 if device.type == "cuda" else 64
    for recipe in (RECIPES[name] for name in given.names):
        size = recipe.image_size
        pictures = torch.randint(0, 256, (n, size, size, 3), dtype=torch.uint8, device=device)
        tasks = torch.randint(0, len(TASKS), (n,), device=device)
        shapes = ((4,), (CHUNK, 4), (len(WAYPOINTS), 4), (len(POSITIONS),))
        states, actions, waypoints, positions = (torch.randn(n, *shape, device=device) for shape in shapes)
        masks = torch.ones(n, CHUNK, dtype=torch.bool, device=device)
        data = Frames(pictures, states, actions, masks, tasks, waypoints, positions)
        trainer = Trainer(replace(recipe, seconds=1e9), data)
        found = trainer.fit(None, min(given.max_steps, 400))
        rate_of_steps = found["steps"] / found["seconds"]
        print(f"{recipe.name}: {rate_of_steps:.1f} steps/s, {found['step']}, compile {found['seconds_to_compile']} s")
        activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=activities) as profile:
            for _ in range(3):
                trainer.one_step()
        sort = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
        print(profile.key_averages().table(sort_by=sort, row_limit=16, max_name_column_width=60), flush=True)


RESULTS = ("metaworld_search",)
AIDS = {
    (False, False): "none",
    (True, False): "waypoints",
    (False, True): "positions",
    (True, True): "waypoints, positions",
}


def section(results: dict[str, Any]) -> str:
    """Returns the results page's section: every policy that was trained, and how it did."""
    from page import bullets, grid, prose, section_of

    runs = results["runs"]
    about = f"""The first search for a small policy that solves [Meta-World](https://arxiv.org/abs/1910.10897)'s 50
        tasks (MT50). Each row is one training from scratch on {runs[0]["demonstrations_per_task"]}
        demonstrations a task by the scripted experts ({runs[0]["frames"]:,} pictures of
        {runs[0]["recorded_image_size"]} x {runs[0]["recorded_image_size"]} pixels), on one
        {runs[0]["device"]}, judged in 500 episodes, ten a task, with two actions done after each look.
        Success is given in per cent for the four difficulty groups and as their mean, as LeRobot reports
        it. Rows with different seconds of training had different budgets."""
    rows = []
    for run in sorted(runs, key=lambda run: run["judged"]["execute 2"]["mean_of_groups"]):
        recipe, judged = run["recipe"], run["judged"]["execute 2"]
        groups = " / ".join(f"{100 * group['success']:.1f}" for group in judged["groups"].values())
        aid = AIDS[recipe["waypoints"] > 0, recipe["positions"] > 0]
        cells = (f"{run['parameters'] / 1e6:.1f} M", aid, str(recipe["seed"]), f"{run['seconds']:.0f} s")
        rows.append((*cells, f"{run['steps']:,}", groups, f"{100 * judged['mean_of_groups']:.1f}"))
    heads = "size | also learns | seed | training | steps | easy / medium / hard / very hard | mean"
    notes = """Waypoints are a further target in training: the hand's own recorded state 8, 16, 32 and 64 steps
        ahead and at the episode's end. Positions are the places of object and goal, taken from the
        simulator; they are a target in training and never an input, but no camera gives them, so rows with
        them have had more than pictures. Only waypoints with positions were trained with three seeds; every
        other row is one seed and no more than a lead. The rows of seed 0 were judged from the same starts,
        the others from starts that go with their seed. What else differs from LeRobot's protocol stands in
        `tinyvla/act/metaworld/scene.py`: our own demonstrations by the same experts, pictures drawn without
        shadows, and the task as an embedding in place of its sentence."""
    commands = list(dict.fromkeys(run["command"] for run in runs))
    source = f"Made by `{results['command']}` from what these wrote:\n\n" + bullets(f"`{text}`" for text in commands)
    return section_of("Meta-World MT50", prose(about), grid(heads, rows), prose(notes), source)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "draw", "collect", "run", "campaign", "gather"])
    parser.add_argument("--data", type=Path, default=Path("metaworld_data"))
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--tasks", default="mt50")
    parser.add_argument("--demos", type=int, default=50)
    parser.add_argument("--held-out", type=int, default=5)
    parser.add_argument("--image-size", type=int, default=192, help="side of the recorded pictures")
    parser.add_argument("--samples", type=int, default=0, help="samples per pixel of the recorded pictures")
    parser.add_argument("--workers", type=int, default=18, help="processes; per GPU when judging")
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--gpu", type=int, default=0, help="run: where to draw")
    parser.add_argument("--names", nargs="+", default=["way192"], help="recipes, with a seed as in way192:1")
    parser.add_argument(
        "--modes", nargs="+", default=["1", "2", "4", "e0.01"], help="steps executed, or e and a weight"
    )
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--max-steps", type=int, default=10**9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--judge-seed", type=int, default=0, help="which episodes; -1: those with the recipe's seed")
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--judge-seconds", type=float, default=1e9)
    parser.add_argument("--limit", type=float, default=1e9, help="campaign: seconds until what runs is ended")
    parser.add_argument("--suffix", default="")
    parser.add_argument("--own", action="store_true", help="each recipe records its own demonstrations on its own GPU")
    parser.add_argument("--command-line", default=portable(sys.argv[1:]), help=argparse.SUPPRESS)
    given = parser.parse_args()
    {"speed": speed, "draw": draw, "collect": record, "run": run, "campaign": campaign, "gather": gather}[given.what](
        given
    )


if __name__ == "__main__":
    main()
