"""Time to 95 % direction accuracy, measured so that it can be compared.

Notable:
- target, number of runs and number of steps are fixed before the first run, as in cifar10-airbench
  (https://github.com/KellerJordan/cifar10-airbench): nobody looks at validation to decide when to stop;
- every run is reported, also one that fails. Warm time is that of the steps alone; `tinyvla.measure.cold` has the rest;
- `--reference` times the plain recipe (`tinyvla.measure.plain_recipe`) in the same call, so that a claim is a ratio
  from one run;
- the result says on what it was measured: device, versions, threads.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from typing import Any

import torch

from tinyvla.config import ModelConfig
from tinyvla.data.batch import TensorSplit, epoch_order
from tinyvla.data.dataset import BlockFind
from tinyvla.device import describe_device, synchronize
from tinyvla.learn.evaluate import Metrics, predict_split
from tinyvla.learn.optimizer import learning_rate_at, set_learning_rate
from tinyvla.measure.plain_recipe import reference_to_target
from tinyvla.model.policy import TinyVLA, new_policy
from tinyvla.model.tokenizer import encode
from tinyvla.recipes import DataConfig, Recipe, TrainConfig
from tinyvla.speed.cuda_graph import restart
from tinyvla.speed.step import make_step, step_options
from tinyvla.speed.tuned import StepOptions
from tinyvla.stats import spread

TARGET = 0.95


RECIPES = {
    "nano": Recipe(70, TrainConfig(learning_rate=1.5e-3, warmup_steps=14)),
    "minimal": Recipe(35, TrainConfig(learning_rate=8e-3, warmup_steps=7, optimizer="muon")),
    "medium": Recipe(60, TrainConfig(learning_rate=2e-3, warmup_steps=12, optimizer="muon")),
    "smolvla_like": Recipe(60, TrainConfig(learning_rate=1e-3, warmup_steps=12, optimizer="muon")),
}
"""To the target and no further; `tinyvla.recipes.RECIPES` are those that end settled."""


class Runner:
    """A policy and its step, prepared once; every run starts them anew from another seed.

    Args:
        kind: of the step; see `tinyvla.speed.step.make_step`.
    """

    def __init__(
        self, config: ModelConfig, train: TensorSplit, recipe: Recipe, kind: str | StepOptions = "auto"
    ) -> None:
        self.train, self.recipe = train, recipe
        self.policy = new_policy(config, recipe.train.seed, train.device)
        self.step = make_step(self.policy, train, recipe.train, kind)
        for _ in range(2):  # the first one records, where steps are recorded; memory is asked for
            self.step(torch.arange(recipe.train.batch_size, device=train.device))

    def run(self, seed: int, fresh: TinyVLA | None = None) -> float:
        """Train from the initial weights of a seed, or from those of `fresh`; returns the seconds of the steps."""
        config, device = self.recipe.train, self.train.device
        restart(self.policy, self.step.optimizer, fresh or new_policy(self.policy.config, seed))
        synchronize(device)
        started = time.perf_counter()
        for step, index in enumerate(self._batches(seed)):
            set_learning_rate(self.step.optimizer, learning_rate_at(step, self.recipe.num_steps, config))
            self.step(index)
        synchronize(device)
        return time.perf_counter() - started

    def _batches(self, seed: int) -> list[torch.Tensor]:
        """As many batches as the recipe has steps, epoch after epoch."""
        size, needed = self.recipe.train.batch_size, self.recipe.num_steps
        per_epoch = len(self.train) // size
        orders = (epoch_order(len(self.train), seed, epoch) for epoch in range(math.ceil(needed / per_epoch)))
        whole = [order[: per_epoch * size] for order in orders]
        return list(torch.cat(whole).to(self.train.device).split(size))[:needed]


def splits(device: torch.device, data: DataConfig | None = None) -> dict[str, TensorSplit]:
    """Returns the three splits, "train", "val" and "test", for policies with the course's own tokenizer."""
    data = data or DataConfig()
    sizes = {
        "train": (data.num_train, data.train_seed),
        "val": (data.num_val, data.val_seed),
        "test": (data.num_test, data.test_seed),
    }
    return {name: TensorSplit.from_blockfind(BlockFind(*size), encode, device) for name, size in sizes.items()}


def bench(
    config: ModelConfig,
    recipe: Recipe,
    device: torch.device,
    seeds: int,
    kind: str | StepOptions = "auto",
    data: DataConfig | None = None,
) -> dict[str, Any]:
    """Warm time of a recipe over several seeds, and how many of them reach the target on the validation split."""
    options = kind if isinstance(kind, StepOptions) else step_options(kind, device)
    data_splits = splits(device, data)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    runner = Runner(config, data_splits["train"], recipe, options)
    first = recipe.train.seed
    runs = [_one_run(runner, seed, data_splits["val"]) for seed in range(first, first + seeds)]
    return {
        "target_direction_accuracy": TARGET,
        "machine": describe_device(device),
        "train_config": asdict(recipe.train),
        "options": asdict(options),
        "peak_gpu_memory_gb": torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None,
        **summary(runs),
    }


def _one_run(runner: Runner, seed: int, val: TensorSplit) -> dict[str, Any]:
    """Returns what came of a seed."""
    seconds, steps = runner.run(seed), runner.recipe.num_steps
    accuracy = Metrics.of(predict_split(runner.policy, val), val.actions.cpu()).direction_accuracy
    run = {"seed": seed, "reached": accuracy >= TARGET, "steps": steps, "seconds": seconds}
    return run | {"seconds_per_step": seconds / steps, "direction_accuracy": accuracy}


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
    val = splits(device, data)["val"]
    runs = [reference_to_target(config, split, val, seed, TARGET, max_steps) for seed in range(seeds)]
    return summary(runs)


def bench_epochs(
    config: ModelConfig, device: torch.device, epochs: int, batch_size: int, compile: bool
) -> dict[str, Any]:
    """Many epochs at the taught settings but for the fast step: the time of their steps, and how good it gets."""
    data_splits = splits(device)
    train, test = data_splits["train"], data_splits["test"]
    rate = TrainConfig().learning_rate * math.sqrt(batch_size / TrainConfig().batch_size)  # usual for Adam
    settings = TrainConfig(epochs=epochs, batch_size=batch_size, learning_rate=rate)
    recipe = Recipe(epochs * (len(train) // batch_size), settings)
    started = time.perf_counter()
    runner = Runner(config, train, recipe, "compiled" if compile else "auto")
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
