"""What a second GPU is worth, in training steps a second. Writes `results/processes.json`.

    python experiments/processes.py --processes 1 2

Every count of processes is started by `accelerate launch` and takes the same step: bfloat16, not recorded, gradients
averaged by Accelerate. Two ways to use more GPUs:
- weak scaling: every process keeps its batch of 64, so the whole batch grows;
- strong scaling: the whole batch stays at 256, so every process gets less.
Efficiency is scenes a second, divided by the number of processes and by what one process manages.
The last part trains `minimal` with the most processes, for two epochs, and judges it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import harness
import torch
import tyro
from accelerate import Accelerator
from harness import Job, Row, main, read_json, write_json
from page import Results, grid, listed, percent, prose, section_of, source
from training import blockfind, judge, tensors, train

from tinyvla.config import model_config
from tinyvla.data.dataset import BlockFind
from tinyvla.device import describe_device, synchronize
from tinyvla.model.policy import new_policy
from tinyvla.recipes import TrainConfig
from tinyvla.speed.step import make_step

RESULTS = ("processes",)
WAYS = {"weak": 64, "strong": 256}


@dataclass(frozen=True)
class Args(harness.Args):
    """Measure and write."""

    device: str = "auto"
    processes: tuple[int, ...] = (1, 2)
    """Counts to compare; the first should be 1."""
    presets: tuple[str, ...] = ("minimal", "medium", "smolvla_like")
    steps: int = 50
    """That count."""
    epochs: int = 2
    """Of the training in the end."""
    cpu: bool = False
    """Without GPUs."""
    train: bool = False
    """Also train the first preset (set by the script for the largest count)."""
    is_worker: bool = False
    """Set by the script for the processes that it starts."""
    out: Path = Path("results/processes.json")


def jobs(args: Args) -> list[Job]:
    return [Job({"processes": count}, alone=True) for count in args.processes]


def run(job: Job, args: Args) -> Row:
    """Start so many processes, and read what they measured."""
    count = job.what["processes"]
    path = args.folder / f"{count}.json"
    worker = replace(args, train=count == max(args.processes), is_worker=True, out=path)
    one = ["-m", "accelerate.commands.launch", "--num_processes", str(count), "--num_machines", "1"]
    one += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    # On a CPU Accelerate's launcher starts one process; torch's own starts several.
    torchrun = ["-m", "torch.distributed.run", "--nproc_per_node", str(count)]
    several = torchrun if args.cpu else [*one, "--multi_gpu"]
    command = [sys.executable, *(one if count == 1 else several), __file__, *options(worker)]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1" if args.cpu else "8"})
    return read_json(path)


def options(args: Args) -> list[str]:
    """The command line that says the same as the arguments."""
    data = [f"--data.{name.replace('_', '-')}={value}" for name, value in vars(args.data).items() if type(value) is int]
    flags = ["--is-worker"] * args.is_worker + ["--train"] * args.train + ["--cpu"] * args.cpu
    sizes = ["--steps", str(args.steps), "--epochs", str(args.epochs), "--out", str(args.out)]
    return ["--presets", *args.presets, *sizes, *data, *flags]


def work(args: Args) -> None:
    """What each process does."""
    accelerator = Accelerator(cpu=args.cpu)
    count = accelerator.num_processes
    rows: Row = {"machine": describe_device(accelerator.device)}
    for way, batch in WAYS.items():
        sizes = {preset: batch * count if way == "weak" else batch for preset in args.presets}
        rows[way] = {p: scenes_per_second(accelerator, p, size, args.steps) for p, size in sizes.items()}
        accelerator.print(f"{count} processes, {way}: {rows[way]}", flush=True)
    if args.train:
        rows["training"] = train_together(accelerator, args)
    if accelerator.is_main_process:
        write_json(args.out, rows)
    accelerator.end_training()


def scenes_per_second(accelerator: Accelerator, preset: str, batch_size: int, steps: int) -> float:
    """Of the whole batch, warm."""
    policy = new_policy(model_config(preset), 0, accelerator.device)
    split, config = tensors(policy, BlockFind(batch_size, 1)), TrainConfig(batch_size=batch_size)
    step, index = make_step(policy, split, config, accelerator=accelerator), torch.arange(batch_size)
    index = index.to(accelerator.device)
    for _ in range(5):
        step(index)
    synchronize(accelerator.device)
    accelerator.wait_for_everyone()
    started = time.perf_counter()
    for _ in range(steps):
        step(index)
    synchronize(accelerator.device)
    return steps * batch_size / (time.perf_counter() - started)


def train_together(accelerator: Accelerator, args: Args) -> Row:
    """The first preset at the taught settings."""
    preset, config = args.presets[0], TrainConfig(epochs=args.epochs)
    policy = new_policy(model_config(preset), 0, accelerator.device)
    split, val, test = (tensors(policy, scenes) for scenes in blockfind(args.data))
    started = time.perf_counter()
    train(policy, split, val, config, step=make_step(policy, split, config, accelerator=accelerator))
    seconds, metrics = time.perf_counter() - started, judge(policy, test)
    accuracy, error = metrics.direction_accuracy, metrics.l2_error
    return {"preset": preset, "seconds": seconds, "direction_accuracy": accuracy, "l2_error": error}


def summary(rows: list[Row], args: Args) -> Row:
    """Each count of processes beside one process; the machine is as the first of them saw it."""
    machine, alone = rows[0]["machine"], rows[0]
    runs = [{name: value for name, value in row.items() if name != "machine"} for row in rows]
    for run in runs:
        run["efficiency"] = {
            way: {p: run[way][p] / run["processes"] / alone[way][p] for p in args.presets} for way in WAYS
        }
    return {"machine": machine, "steps": args.steps, "batches": WAYS, "runs": runs}


def section(results: Row) -> str:
    runs, batches, rows = results["runs"], results["batches"], []
    most = runs[-1]
    for preset in most["weak"]:
        for run in runs:
            cells = []
            for way in ("weak", "strong"):
                cells += [
                    f"{step_milliseconds(results, run, way, preset):.1f}",
                    percent(run["efficiency"][way][preset]),
                ]
            rows.append((f"`{preset}`", str(run["processes"]), *cells))
    training = most["training"]
    about = f"""Up to {most["processes"]} GPUs through `accelerate launch`. Weak scaling: every GPU has a batch of
        {batches["weak"]} of its own. Strong scaling: they share one of {batches["strong"]}. Scaling is scenes a
        second for each GPU, as a share of what one alone manages. Several processes take the plain step, not the
        recorded one."""
    check = f"""As a check, {most["processes"]} GPUs train `{training["preset"]}` for two epochs: in
        {training["seconds"]:.1f} s, to a direction accuracy of {percent(training["direction_accuracy"], 1)}."""
    return section_of(
        "Several GPUs",
        prose(about),
        grid("preset | GPUs | weak: ms a step | weak scaling | strong: ms a step | strong scaling", rows),
        why_not_faster(results),
        prose(check),
        source(results),
    )


def step_milliseconds(results: Results, run: Results, way: str, preset: str) -> float:
    """Of the whole batch, which grows with the processes in weak scaling."""
    scenes = results["batches"][way] * (run["processes"] if way == "weak" else 1)
    return 1000 * scenes / run[way][preset]


def why_not_faster(results: Results) -> str:
    """What one GPU's own steps say about sharing a batch, as far as they say it."""
    alone, most, batches = results["runs"][0], results["runs"][-1], results["batches"]
    idle, slower = [], []
    for preset in most["weak"]:
        small, large = (step_milliseconds(results, alone, way, preset) for way in ("weak", "strong"))
        if large < 1.25 * small:
            idle.append(f"`{preset}` {large / small:.2f} times as long")
        if step_milliseconds(results, most, "strong", preset) > large:
            slower.append(f"`{preset}`")
    text = ""
    if idle:
        text = f"""On one GPU, {batches["strong"]} scenes take hardly longer than {batches["weak"]}
            ({listed(idle)}). Such a step is bound by launching its kernels, not by arithmetic. A GPU that gets
            fewer scenes is done no sooner, and averaging the gradients comes on top. """
    if slower:
        text += f"One batch shared by {most['processes']} GPUs takes *longer* than on one alone: {listed(slower)}."
    return prose(text)


if __name__ == "__main__":
    if "--is-worker" in sys.argv:
        work(tyro.cli(Args))
    else:
        main(Args, jobs, run, summary)
