"""Is this machine fit for the course? Versions, CUDA, disk, real training steps, and an estimate for each preset.

Notable:
- the 20 steps are those that `tinyvla train` takes here: the `minimal` preset on BlockFind, with the step's options;
- other presets are estimated from their arithmetic (counted by PyTorch, on the meta device) at the rate just measured.
"""

from __future__ import annotations

import math
import platform
import shutil
import sys
import time
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version

import torch

from tinyvla.config import PRESETS, ModelConfig
from tinyvla.data.batch import TensorSplit, epoch_order
from tinyvla.data.dataset import BlockFind
from tinyvla.device import choose_device, cpu_name, synchronize
from tinyvla.measure.throughput import step_flops
from tinyvla.model.policy import new_policy
from tinyvla.recipes import RECIPES, DataConfig
from tinyvla.speed.step import make_step

NEEDED = {"torch": "2.6", "numpy": "2.0", "transformers": "4.55", "safetensors": "0.4", "matplotlib": "3.8"}
OPTIONAL = ("tensorboard", "ipywidgets", "jupyterlab", "jupytext")
NUM_STEPS = 20


def seconds_per_step(config: ModelConfig, device: torch.device) -> tuple[float, float, float]:
    """Train `NUM_STEPS` steps (after two that do not count); returns seconds per step, first and last loss."""
    settings = replace(RECIPES["minimal"].train, learning_rate=1e-3)  # so few steps have no time to warm up
    policy = new_policy(config, seed=0, device=device)
    scenes = BlockFind((NUM_STEPS + 2) * settings.batch_size, seed=42)
    split = TensorSplit.from_blockfind(scenes, policy.language.encode, device)
    step = make_step(policy, split, settings)
    losses = []
    for number, index in enumerate(epoch_order(len(split), 0, 0).to(device).split(settings.batch_size)):
        if number == 2:
            synchronize(device)
            started = time.perf_counter()
        losses.append(step(index).item())
    return (time.perf_counter() - started) / NUM_STEPS, losses[0], losses[-1]


def _line(good: bool, name: str, value: str) -> bool:
    print(f"  {'ok  ' if good else 'BAD '} {name:14}{value}")
    return good


def _check_packages() -> bool:
    fine = True
    for name, least in NEEDED.items():
        have = version(name)
        recent = [int(x) for x in have.split("+")[0].split(".")[:2]] >= [int(x) for x in least.split(".")]
        fine &= _line(recent, name, have if recent else f"{have}, but at least {least} is needed")
    for name in OPTIONAL:
        try:
            _line(True, name, version(name))
        except PackageNotFoundError:
            print(f"  --   {name:14}not installed; the notebooks use it: pip install 'tinyvla[course]'")
    return fine


def run_doctor(device_name: str = "auto") -> bool:
    """Print the report; False when something is not fit."""
    device = choose_device(device_name)
    print("versions")
    fine = _line(sys.version_info >= (3, 11), "Python", platform.python_version())
    fine &= _check_packages()
    print("machine")
    _line(True, "CPU", f"{cpu_name()}, {torch.get_num_threads()} thread" + "s" * (torch.get_num_threads() > 1))
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none; the course runs without one"
    _line(True, "CUDA GPU", gpu)
    free = shutil.disk_usage(".").free / 1e9
    fine &= _line(free > 2, "disk", f"{free:.0f} GB free" + ("" if free > 2 else ", checkpoints need about 2"))
    seconds, first, last = seconds_per_step(PRESETS["minimal"], device)
    learns = math.isfinite(last) and last < first
    print("training")
    text = f"{NUM_STEPS} of `minimal` on {device}, {seconds:.3f} s each, loss {first:.2f} -> {last:.2f}"
    fine &= _line(learns, "steps", text)
    _print_estimates(seconds)
    print("ready" if fine else "not ready: mend the lines marked BAD")
    return fine


def _print_estimates(seconds: float) -> None:
    num_scenes = DataConfig().num_train
    per_flop = seconds / step_flops(PRESETS["minimal"], RECIPES["minimal"].train.batch_size)
    print("estimated training time on this machine (`minimal` measured, others by arithmetic)")
    for name, config in PRESETS.items():
        settings, num_steps = RECIPES[name].train, RECIPES[name].num_steps
        flops = step_flops(config, settings.batch_size)
        times = f"{_duration(num_steps * flops * per_flop):>10} for the recipe's {num_steps} steps"
        times += f"{_duration(20 * settings.steps_per_epoch(num_scenes) * flops * per_flop):>12} for 20 epochs"
        print(f"       {name:14}{times}{flops / 1e9:>10.0f} GFLOP a step")


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
