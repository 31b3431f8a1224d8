"""Time to 95 % direction accuracy, measured so that it can be compared.

Notable:
- target, number of runs and number of steps are fixed before the first run, as in cifar10-airbench
  (https://github.com/KellerJordan/cifar10-airbench): nobody looks at validation to decide when to stop;
- every run is reported, also one that fails. Warm time is that of the steps alone; for the rest see `tinyvla.measure.cold`;
- `--reference` times the plain recipe (`tinyvla.measure.plain_recipe`) in the same call, so that a claim is a ratio from one run;
- the result says on what it was measured: device, versions, threads.
"""

from __future__ import annotations

import math
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from tinyvla.data.batch import TensorSplit, epoch_order
from tinyvla.config import DataConfig, ModelConfig, TrainConfig
from tinyvla.data.blockfind import BlockFind
from tinyvla.learn.evaluate import Metrics, predict_split
from tinyvla.model.policy import TinyVLA
from tinyvla.measure.plain_recipe import reference_to_target
from tinyvla.speed.recorded import StepOptions, restart
from tinyvla.learn.train import (
    learning_rate_at,
    make_optimizer,
    make_step,
    new_policy,
    set_learning_rate,
    train_step,
)

TARGET = 0.95


@dataclass(frozen=True)
class Recipe:
    """Training settings and a number of steps, chosen once by `scripts/search_recipe.py`."""

    num_steps: int
    train: TrainConfig


def _recipe(num_steps: int, learning_rate: float, **settings: Any) -> Recipe:
    warmup = num_steps // 5
    return Recipe(num_steps, TrainConfig(learning_rate=learning_rate, warmup_steps=warmup, **settings))


RECIPES = {
    "nano": _recipe(70, 1.5e-3),
    "minimal": _recipe(35, 8e-3, optimizer="muon"),
    "medium": _recipe(60, 2e-3, optimizer="muon"),
    "smolvla_like": _recipe(60, 1e-3, optimizer="muon"),
}


def recorded_command(places: Sequence[str] = ("--out",)) -> str:
    """The script's command as a results file records it, without the options that say where files go."""
    arguments = sys.argv[1:]
    for place in places:
        if place in arguments:
            at = arguments.index(place)
            del arguments[at : at + 2]
    return shlex.join(["python", f"scripts/{os.path.basename(sys.argv[0])}", *arguments])


def time_to_target(
    model_config: ModelConfig,
    train: TensorSplit,
    val: TensorSplit,
    config: TrainConfig,
    max_steps: int,
    check_every: int = 10,
) -> dict[str, Any]:
    """Train until validation reaches `TARGET`, looking every `check_every` steps; the clock stops meanwhile."""
    device = train.images.device
    policy = new_policy(model_config, config.seed, device)
    optimizer = make_optimizer(policy, config)
    seconds, step, epoch = 0.0, 0, 0
    accuracy = 0.0
    policy.train()
    while step < max_steps:
        order = epoch_order(len(train), config.seed, epoch).to(device)
        epoch += 1
        for index in order.split(config.batch_size):
            started = time.perf_counter()
            set_learning_rate(optimizer, learning_rate_at(step, max_steps, config))
            train_step(policy, optimizer, train.take(index), config.grad_clip).item()
            synchronize(device)
            seconds += time.perf_counter() - started
            step += 1
            if step % check_every == 0:
                accuracy = Metrics.of(predict_split(policy, val), val.actions.cpu()).direction_accuracy
            if accuracy >= TARGET or step >= max_steps:
                reached = accuracy >= TARGET
                return {
                    "seed": config.seed,
                    "reached": reached,
                    "steps": step,
                    "seconds": seconds,
                    "seconds_per_step": seconds / step,
                    "direction_accuracy": accuracy,
                }
    raise AssertionError("unreachable: max_steps is at least 1")


class Runner:
    """A policy, its optimizer and its step, prepared once; every run starts them anew from another seed."""

    def __init__(self, config: ModelConfig, train: TensorSplit, recipe: Recipe, options: StepOptions) -> None:
        device = train.images.device
        self.train, self.recipe = train, recipe
        self.policy = new_policy(config, recipe.train.seed, device)
        self.optimizer = make_optimizer(self.policy, recipe.train, capturable=options.graph)
        generator = torch.Generator(device)
        self.step = make_step(self.policy, self.optimizer, train, recipe.train, generator, options)
        if not options.graph:  # a recording has taken its warm-up steps already
            for _ in range(2):
                self.step(torch.arange(recipe.train.batch_size, device=device))

    def run(self, seed: int, fresh: TinyVLA | None = None) -> float:
        """Train from the initial weights of a seed, or from those of `fresh`; returns the seconds of the steps."""
        config, device = self.recipe.train, self.train.images.device
        restart(self.policy, self.optimizer, fresh or new_policy(self.policy.config, seed))
        synchronize(device)
        started = time.perf_counter()
        for step, index in enumerate(self._batches(seed)):
            set_learning_rate(self.optimizer, learning_rate_at(step, self.recipe.num_steps, config))
            self.step(index)
        synchronize(device)
        return time.perf_counter() - started

    def _batches(self, seed: int) -> list[torch.Tensor]:
        """As many batches as the recipe has steps, epoch after epoch."""
        size, needed = self.recipe.train.batch_size, self.recipe.num_steps
        per_epoch = len(self.train) // size
        orders = (epoch_order(len(self.train), seed, epoch) for epoch in range(math.ceil(needed / per_epoch)))
        whole = [order[: per_epoch * size] for order in orders]
        return list(torch.cat(whole).to(self.train.images.device).split(size))[:needed]


def bench(
    config: ModelConfig,
    recipe: Recipe,
    device: torch.device,
    seeds: int,
    options: StepOptions | None = None,
    data: DataConfig | None = None,
) -> dict[str, Any]:
    """Warm time of a recipe over several seeds, and how many of them reach the target on the validation split."""
    options = StepOptions.for_device(device) if options is None else options
    data = data or DataConfig()
    train, val = (
        TensorSplit.from_blockfind(BlockFind(n, s), device)
        for n, s in ((data.num_train, data.train_seed), (data.num_val, data.val_seed))
    )
    peak = None
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    runner = Runner(config, train, recipe, options)
    runs = []
    for seed in range(recipe.train.seed, recipe.train.seed + seeds):
        seconds = runner.run(seed)
        if device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(device) / 1e9
        accuracy = Metrics.of(predict_split(runner.policy, val), val.actions.cpu()).direction_accuracy
        runs.append({"seed": seed, "reached": accuracy >= TARGET, "steps": recipe.num_steps, "seconds": seconds})
        runs[-1] |= {"seconds_per_step": seconds / recipe.num_steps, "direction_accuracy": accuracy}
    return {
        "target_direction_accuracy": TARGET,
        "machine": describe_device(device),
        "train_config": asdict(recipe.train),
        "options": asdict(options),
        "peak_gpu_memory_gb": peak,
        **summary(runs),
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Spread of time, steps and accuracy over runs, and the runs."""
    names = ("seconds", "steps", "seconds_per_step", "direction_accuracy")
    spreads = {name: spread([run[name] for run in runs]) for name in names}
    return {"reached": sum(run["reached"] for run in runs), **spreads, "runs": runs}


def bench_reference(
    config: ModelConfig, device: torch.device, seeds: int, data: DataConfig | None = None, max_steps: int = 2_500
) -> dict[str, Any]:
    """The plain recipe's time to the target."""
    data = data or DataConfig()
    split = BlockFind(data.num_train, data.train_seed)
    val = TensorSplit.from_blockfind(BlockFind(data.num_val, data.val_seed), device)
    runs = [reference_to_target(config, split, val, seed, TARGET, max_steps) for seed in range(seeds)]
    return summary(runs)


def bench_epochs(
    config: ModelConfig, device: torch.device, epochs: int, batch_size: int, compile: bool
) -> dict[str, Any]:
    """Many epochs at the taught settings but for the fast step: the time of their steps, and how good it gets."""
    data = DataConfig()
    splits = [BlockFind(n, s) for n, s in ((data.num_train, data.train_seed), (data.num_test, data.test_seed))]
    train, test = (TensorSplit.from_blockfind(split, device) for split in splits)
    rate = TrainConfig().learning_rate * math.sqrt(batch_size / TrainConfig().batch_size)  # usual for Adam
    settings = TrainConfig(epochs=epochs, batch_size=batch_size, learning_rate=rate)
    recipe = Recipe(epochs * (len(train) // batch_size), settings)
    started = time.perf_counter()
    runner = Runner(config, train, recipe, StepOptions.for_device(device, compile))
    setup = time.perf_counter() - started
    seconds = runner.run(settings.seed)
    metrics = Metrics.of(predict_split(runner.policy, test), test.actions.cpu())
    row: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "compile": compile, "steps": recipe.num_steps}
    row |= {"setup_seconds": setup, "seconds": seconds, "seconds_per_step": seconds / recipe.num_steps}
    return row | asdict(metrics)


def table(preset: str, result: dict[str, Any]) -> str:
    """What was measured, for the terminal."""
    machine = result["machine"]
    reached = f"{result['reached']} of {len(result['runs'])} runs reached {result['target_direction_accuracy']:.0%}"
    lines = [
        f"{preset} on {machine['device']}, {machine['cpu_threads']} CPU threads, torch {machine['torch']}",
        f"{reached} in the {result['runs'][0]['steps']} steps fixed beforehand",
        f"{'':26}{'min':>9}{'median':>9}{'mean':>9}{'max':>9}",
    ]
    rows = [("seconds of training", result["seconds"]), ("direction accuracy", result["direction_accuracy"])]
    if reference := result.get("reference"):
        rows.append(("plain recipe, seconds", reference["seconds"]))
    if cold := result.get("cold"):
        rows += [(f"cold {name}, seconds", cold[name]) for name in cold]
    for name, row in rows:
        lines.append(f"{name:26}" + "".join(f"{row[k]:>9.3f}" for k in ("min", "median", "mean", "max")))
    if reference:
        lines.append(f"the plain recipe takes {result['speedup']:.1f} times as long (ratio of the medians)")
    for row in result.get("epochs", []):
        how = "compiled" if row["compile"] else "not compiled"
        lines.append(
            f"{row['epochs']} epochs, batches of {row['batch_size']}, {how}: {row['seconds']:.2f} s, "
            f"L2 error {row['l2_error']:.4f}, direction accuracy {row['direction_accuracy']:.1%}"
        )
    return "\n".join(lines)


