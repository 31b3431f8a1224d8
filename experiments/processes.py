"""What a second GPU is worth, in training steps a second. Writes `results/processes.json`.

    python scripts/measure_processes.py --processes 1 2

Every count of processes is started by `accelerate launch` and takes the same step: bfloat16, not recorded, gradients
averaged by Accelerate. Two ways to use more GPUs:
- weak scaling: every process keeps its batch of 64, so the whole batch grows;
- strong scaling: the whole batch stays at 256, so every process gets less.
Efficiency is scenes a second, divided by the number of processes and by what one process manages.
The last part trains `minimal` with the most processes, for two epochs, and judges it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from tinyvla.data.batch import TensorSplit
from tinyvla.measure.bench import describe_device, recorded_command, synchronize
from tinyvla.config import DataConfig, TrainConfig, model_config
from tinyvla.data.blockfind import BlockFind
from tinyvla.learn.evaluate import Metrics, predict_split
from tinyvla.speed.recorded import StepOptions
from tinyvla.learn.train import fit, make_optimizer, make_step, new_policy

WAYS = {"weak": 64, "strong": 256}


def scenes_per_second(accelerator: Accelerator, preset: str, batch_size: int, steps: int) -> float:
    """Of the whole batch, warm."""
    device = accelerator.device
    train = TensorSplit.from_blockfind(BlockFind(batch_size, 1), device)
    policy, config = new_policy(model_config(preset), 0, device), TrainConfig(batch_size=batch_size)
    options = replace(StepOptions.for_device(device), graph=False)
    generator, optimizer = torch.Generator(device), make_optimizer(policy, config)
    step = make_step(policy, optimizer, train, config, generator, options, accelerator)
    index = torch.arange(batch_size, device=device)
    for _ in range(5):
        step(index)
    synchronize(device)
    accelerator.wait_for_everyone()
    started = time.perf_counter()
    for _ in range(steps):
        step(index)
    synchronize(device)
    return steps * batch_size / (time.perf_counter() - started)


def train_together(accelerator: Accelerator, preset: str) -> dict[str, Any]:
    """Two epochs at the taught settings."""
    device, data = accelerator.device, DataConfig()
    sizes = ((data.num_train, data.train_seed), (data.num_val, data.val_seed), (data.num_test, data.test_seed))
    train, val, test = (TensorSplit.from_blockfind(BlockFind(n, seed), device) for n, seed in sizes)
    policy = new_policy(model_config(preset), 0, device)
    started = time.perf_counter()
    config, options = TrainConfig(epochs=2), StepOptions.for_device(device)
    fit(policy, train, val, config, progress_bar=False, options=options, accelerator=accelerator)
    seconds = time.perf_counter() - started
    metrics = Metrics.of(predict_split(policy, test), test.actions.cpu())
    accuracy, error = metrics.direction_accuracy, metrics.l2_error
    return {"preset": preset, "seconds": seconds, "direction_accuracy": accuracy, "l2_error": error}


def work(presets: tuple[str, ...], steps: int, train: bool, cpu: bool, out: Path) -> None:
    """What each process does."""
    accelerator = Accelerator(cpu=cpu)
    count = accelerator.num_processes
    rows: dict[str, Any] = {"processes": count, "machine": describe_device(accelerator.device)}
    for way, batch in WAYS.items():
        sizes = {preset: batch * count if way == "weak" else batch for preset in presets}
        rows[way] = {p: scenes_per_second(accelerator, p, size, steps) for p, size in sizes.items()}
        accelerator.print(f"{count} processes, {way}: {rows[way]}", flush=True)
    if train:
        rows["training"] = train_together(accelerator, presets[0])
    if accelerator.is_main_process:
        out.write_text(json.dumps(rows), encoding="utf-8")
    accelerator.end_training()


def launch(count: int, presets: tuple[str, ...], steps: int, train: bool, cpu: bool) -> dict[str, Any]:
    """Start so many processes, and read what they measured."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        one = ["-m", "accelerate.commands.launch", "--num_processes", str(count), "--num_machines", "1"]
        one += ["--mixed_precision", "no", "--dynamo_backend", "no"]
        # On a CPU Accelerate's launcher starts one process; torch's own starts several.
        several = [*one, "--multi_gpu"] if not cpu else ["-m", "torch.distributed.run", "--nproc_per_node", str(count)]
        options = ["--presets", *presets, "--steps", str(steps), "--out", str(path), "--is-worker"]
        options += ["--train"] * train + ["--cpu"] * cpu
        command = [sys.executable, *(one if count == 1 else several), __file__, *options]
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1" if cpu else "8"})
        return json.loads(path.read_text(encoding="utf-8"))


def main(
    processes: tuple[int, ...] = (1, 2),
    presets: tuple[str, ...] = ("minimal", "medium", "smolvla_like"),
    steps: int = 50,
    cpu: bool = False,
    train: bool = False,
    is_worker: bool = False,
    out: Path = Path("results/processes.json"),
) -> None:
    """Measure and write.

    Args:
        processes: counts to compare; the first should be 1.
        steps: that count.
        cpu: without GPUs.
        train: also train the first preset (set by the script for the largest count).
        is_worker: set by the script for the processes that it starts.
    """
    if is_worker:
        return work(presets, steps, train, cpu, out)
    runs = [launch(count, presets, steps, count == max(processes), cpu) for count in processes]
    for run in runs:
        run["efficiency"] = {
            way: {p: run[way][p] / run["processes"] / runs[0][way][p] for p in presets} for way in WAYS
        }
        print(run["processes"], {way: {p: round(x, 2) for p, x in run["efficiency"][way].items()} for way in WAYS})
    command = recorded_command()
    report = {"command": command, "machine": runs[0].pop("machine"), "steps": steps, "batches": WAYS, "runs": runs}
    out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return None


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
