"""Time to 95 % direction accuracy, measured so that it can be compared.

Notable:
- target and number of seeds are fixed before the first run; every seed is reported, also one that fails;
- only training steps are timed. Validation, imports, making the data and two warm-up steps are counted apart;
- the result says on what it was measured: device, versions, threads.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import torch

from tinyvla.batching import TensorSplit, epoch_order
from tinyvla.config import DataConfig, ModelConfig, TrainConfig
from tinyvla.dataset import BlockFind
from tinyvla.evaluate import Metrics, predict_split
from tinyvla.train import learning_rate_at, make_optimizer, new_policy, train_step

TARGET = 0.95


def describe_device(device: torch.device) -> dict[str, Any]:
    """Hardware and versions that a figure depends on."""
    import tinyvla

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    return {
        "device": name,
        "cpu_threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "tinyvla": tinyvla.__version__,
    }


def cpu_name() -> str:
    """The processor's name, as well as the system tells it."""
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


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
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(step, max_steps, config)
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


def bench(
    model_config: ModelConfig,
    config: TrainConfig,
    device: torch.device,
    seeds: int,
    max_steps: int = 1_000,
    data: DataConfig | None = None,
) -> dict[str, Any]:
    """Time to 95 % over several seeds; see the module's notes for what is counted."""
    data = data or DataConfig()
    started = time.perf_counter()
    splits = [BlockFind(data.num_train, data.train_seed), BlockFind(data.num_val, data.val_seed)]
    data_seconds = time.perf_counter() - started
    train, val = (TensorSplit.from_blockfind(split, device) for split in splits)
    started = time.perf_counter()
    warmup = replace(config, seed=2**31)
    time_to_target(model_config, train, val, warmup, max_steps=2, check_every=2)
    warmup_seconds = time.perf_counter() - started
    runs = [
        time_to_target(model_config, train, val, replace(config, seed=config.seed + s), max_steps) for s in range(seeds)
    ]
    peak = torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None
    return {
        "target_direction_accuracy": TARGET,
        "machine": describe_device(device),
        "train_config": asdict(config),
        "data_seconds": data_seconds,
        "warmup_seconds": warmup_seconds,
        "reached": sum(run["reached"] for run in runs),
        "seconds": spread([run["seconds"] for run in runs]),
        "steps": spread([run["steps"] for run in runs]),
        "seconds_per_step": spread([run["seconds_per_step"] for run in runs]),
        "peak_gpu_memory_gb": peak,
        "runs": runs,
    }


def table(preset: str, result: dict[str, Any]) -> str:
    """What `bench` returned, for the terminal."""
    machine = result["machine"]
    reached = f"{result['reached']} of {len(result['runs'])} seeds reached {result['target_direction_accuracy']:.0%}"
    lines = [
        f"{preset} on {machine['device']}, {machine['cpu_threads']} CPU threads, torch {machine['torch']}",
        reached,
        f"{'':24}{'min':>9}{'median':>9}{'max':>9}",
    ]
    for name, key in (("seconds of training", "seconds"), ("steps", "steps"), ("seconds per step", "seconds_per_step")):
        lines.append(f"{name:24}" + "".join(f"{result[key][k]:>9.3f}" for k in ("min", "median", "max")))
    data_seconds, warmup_seconds = result["data_seconds"], result["warmup_seconds"]
    lines.append(f"apart: data {data_seconds:.2f} s, two warm-up steps and a validation {warmup_seconds:.2f} s")
    return "\n".join(lines)


def spread(values: Sequence[int | float]) -> dict[str, float]:
    """Minimum, median, maximum, mean and standard deviation."""
    values = [float(value) for value in values]
    return {
        "min": min(values),
        "median": statistics.median(values),
        "max": max(values),
        "mean": statistics.fmean(values),
        "std": statistics.stdev(values) if len(values) > 1 else 0.0,
    }
