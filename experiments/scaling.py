"""Larger models, more data, less memory. Writes `results/scaling.json`, again after every part.

    python scripts/measure_scaling.py --device cuda
    python scripts/measure_scaling.py --device cuda --parts runs --out results/scaling_runs.json

- peaks: what the device does at best: matrix products in two precisions, and bytes copied in a second;
- steps: memory and time of one step of each preset, as `tinyvla.speed.budget` predicts and as measured: in float32 and
  bfloat16, with the batch in parts, with blocks run twice, kernel by kernel and recorded;
- runs: accuracy after a number of steps fixed beforehand, AdamW: against size, each size at two learning rates; and
  against data, the first N scenes of a split. Each seed has its own scenes and initial weights; all runs are judged on
  the same test split, and on (up to) a thousand of their own training scenes.
"""

from __future__ import annotations

import copy
import gc
import json
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from tinyvla.data.batch import TensorSplit, epoch_order
from tinyvla.measure.bench import describe_device, recorded_command, spread, synchronize
from tinyvla.config import PRESETS, DataConfig, ModelConfig, TrainConfig
from tinyvla.data.blockfind import BlockFind
from tinyvla.learn.evaluate import Metrics, predict_split
from tinyvla.speed.memory import SavedTensors, backward_in_parts, save_memory
from tinyvla.model.policy import TinyVLA, count_parameters
from tinyvla.speed.budget import budget
from tinyvla.speed.recorded import StepOptions, restart
from tinyvla.measure.throughput import peak_flops, step_flops
from tinyvla.learn.train import learning_rate_at, make_optimizer, make_step, new_policy, set_learning_rate

DATA_SEED = 100
"""Seed s trains on the scenes of BlockFind seed 100 + s, never on those of validation and test."""
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("float32", {}),
    ("bfloat16", {"bfloat16": True}),
    ("bfloat16, 4 parts", {"bfloat16": True, "accumulate": 4}),
    ("bfloat16, recompute", {"bfloat16": True, "recompute": True}),
    ("bfloat16, 4 parts, recompute", {"bfloat16": True, "accumulate": 4, "recompute": True}),
]


def peaks(device: torch.device) -> dict[str, float]:
    """Operations per second of one large product, and bytes read and written per second by one large copy."""
    source = torch.empty(2**28 if device.type == "cuda" else 2**24, device=device)
    target, times = torch.empty_like(source), []
    for _ in range(8):
        synchronize(device)
        started = time.perf_counter()
        target.copy_(source)
        synchronize(device)
        times.append(time.perf_counter() - started)
    moved = 2 * source.numel() * source.element_size()
    return {
        "bfloat16_flops_per_second": peak_flops(device, torch.bfloat16),
        "float32_flops_per_second": peak_flops(device, torch.float32),
        "bytes_per_second": moved / statistics.median(times[2:]),
    }


def measure_step(
    policy: TinyVLA, train: TensorSplit, batch_size: int, variant: dict[str, Any], graph: bool, repeats: int
) -> dict[str, Any]:
    """One way to take a step: its peak memory, what autograd keeps, and its time."""
    device = train.images.device
    settings = TrainConfig(
        batch_size=batch_size, accumulate=variant.get("accumulate", 1), recompute=variant.get("recompute", False)
    )
    options = StepOptions(bfloat16=variant.get("bfloat16", False), graph=graph)
    row: dict[str, Any] = {"graph": graph, "batch_size": batch_size, **variant}
    policy.zero_grad()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        # The weights are there already and belong to the step.
        before = torch.cuda.memory_allocated(device) - 4 * count_parameters(policy)
    optimizer = make_optimizer(policy, settings, capturable=graph)
    step = make_step(policy, optimizer, train, settings, torch.Generator(device), options)
    indices = torch.arange((repeats + 2) * batch_size, device=device).remainder(len(train)).split(batch_size)
    times = []
    for index in indices:
        synchronize(device)
        started = time.perf_counter()
        step(index)
        synchronize(device)
        times.append(time.perf_counter() - started)
    row["seconds"] = statistics.median(times[2:])
    if device.type == "cuda":
        row["peak_bytes"] = torch.cuda.max_memory_allocated(device) - before
    if not graph:
        row["saved_bytes"] = saved_bytes(policy, train, settings, options)
    policy.zero_grad()
    return row


def saved_bytes(policy: TinyVLA, train: TensorSplit, settings: TrainConfig, options: StepOptions) -> int:
    """What autograd keeps from the forward pass of one part."""
    size = settings.batch_size // settings.accumulate
    batch = train.take(torch.arange(size, device=train.images.device))
    save_memory(policy, settings, options)
    with SavedTensors(policy) as saved:
        backward_in_parts(policy.loss, batch, options=options)
    return saved.bytes


def ways(batch_sizes: list[int], recorded: bool) -> list[tuple[int, str, dict[str, Any], bool]]:
    """Ways to take a step as (batch size, name, variant, graph)."""
    if recorded:  # the plain one is measured with the others, kernel by kernel
        return [(batch_sizes[0], *VARIANTS[-1], True)]
    plain = [(batch_sizes[0], *VARIANTS[1], True)] if torch.cuda.is_available() else []
    return [(size, *variant, False) for size in batch_sizes for variant in VARIANTS] + plain


def steps_of(
    config: ModelConfig, policy: TinyVLA, train: TensorSplit, batch_sizes: list[int], repeats: int, recorded: bool
) -> list[dict[str, Any]]:
    """Several ways to take a step, each beside what is predicted."""
    rows = []
    for size, name, variant, graph in ways(batch_sizes, recorded):
        paper = budget(config, size, **variant)
        row: dict[str, Any] = {"variant": name, "paper": {**asdict(paper), "memory": paper.memory}}
        try:
            row |= measure_step(policy, train, size, variant, graph, repeats)
        except Exception as error:  # one way that fails must not lose the others
            row |= {"graph": graph, "batch_size": size, **variant, "error": str(error)[:300]}
        rows.append(row)
    save_memory(policy, TrainConfig())
    return rows


class Trainer:
    """Trains one size again and again, each time from new weights, by one prepared step."""

    def __init__(self, policy: TinyVLA, scenes: TensorSplit, test: TensorSplit, steps: int) -> None:
        self.policy, self.scenes, self.test, self.steps = policy, scenes, test, steps
        device, settings = scenes.images.device, TrainConfig()
        options = StepOptions.for_device(device)
        self.optimizer = make_optimizer(policy, settings, capturable=options.graph)
        self.step = make_step(policy, self.optimizer, scenes, settings, torch.Generator(device), options)

    def run(self, fresh: TinyVLA, seed: int, num_scenes: int, rate: float, per_seed: int) -> dict[str, Any]:
        """One run: `num_scenes` of the scenes that belong to the seed."""
        first, settings = seed * per_seed, TrainConfig(learning_rate=rate)
        device = self.scenes.images.device
        restart(self.policy, self.optimizer, fresh)
        synchronize(device)
        started = time.perf_counter()
        for step, index in enumerate(batches(num_scenes, seed, self.steps, settings.batch_size)):
            set_learning_rate(self.optimizer, learning_rate_at(step, self.steps, settings))
            self.step((first + index).to(device))
        synchronize(device)
        seconds = time.perf_counter() - started
        own = cut(self.scenes, first, min(num_scenes, 1_000))
        seen = Metrics.of(predict_split(self.policy, own), own.actions.cpu())
        unseen = Metrics.of(predict_split(self.policy, self.test), self.test.actions.cpu())
        row = {"seed": seed, "num_scenes": num_scenes, "learning_rate": rate, "steps": self.steps, "seconds": seconds}
        return {**row, "train": asdict(seen), "test": asdict(unseen)}


def cut(split: TensorSplit, start: int, count: int) -> TensorSplit:
    """`count` scenes from `start` on."""
    rows = slice(start, start + count)
    return TensorSplit(split.images[rows], split.input_ids[rows], split.attention_mask[rows], split.actions[rows])


def batches(num_scenes: int, seed: int, steps: int, size: int) -> Iterator[torch.Tensor]:
    """As many batches as there are steps, epoch after epoch, each in another order; what does not fill one waits."""
    done = epoch = 0
    while done < steps:
        for index in epoch_order(num_scenes, seed, epoch).split(size):
            if len(index) == size and done < steps:
                done += 1
                yield index
        epoch += 1


def plan(
    presets: tuple[str, ...],
    seeds: int,
    scenes: tuple[int, ...],
    rates: tuple[float, ...],
    data_presets: tuple[str, ...],
) -> list[tuple[str, float, int, int]]:
    """Runs as (preset, learning rate, scenes, seed), the dearest first; fewer seeds of those that take long."""
    most, few = max(scenes), {"medium": min(2, seeds), "smolvla_like": 1}
    jobs = [
        (name, rate, most, seed) for name in reversed(presets) for seed in range(few.get(name, seeds)) for rate in rates
    ]
    varied = [name for name in presets if name in data_presets]
    return jobs + [(name, rates[-1], num, seed) for seed in range(seeds) for name in varied for num in scenes[:-1]]


def draw(presets_and_seeds: set[tuple[str, int]]) -> dict[tuple[str, int], TinyVLA]:
    """New policies on the CPU, the same as `new_policy` makes; once each, since the largest takes seconds."""
    return {(name, seed): new_policy(PRESETS[name], seed) for name, seed in sorted(presets_and_seeds)}


def summary(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Spread over the seeds of each combination."""
    keys = ("preset", "learning_rate", "num_scenes")
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault(tuple(run[key] for key in keys), []).append(run)
    rows = []
    for group, members in groups.items():
        row: dict[str, Any] = {**dict(zip(keys, group, strict=True)), "seeds": len(members)}
        for split in ("train", "test"):
            row[split] = {
                name: spread([m[split][name] for m in members]) for name in ("l2_error", "direction_accuracy")
            }
        rows.append({**row, "seconds": spread([m["seconds"] for m in members])})
    return rows


def main(
    device: str = "cuda",
    presets: tuple[str, ...] = tuple(PRESETS),
    seeds: int = 3,
    steps: int = 400,
    scenes: tuple[int, ...] = (250, 500, 1_000, 2_000, 4_000, 8_000),
    rates: tuple[float, ...] = (3e-4, 1e-3),
    data_presets: tuple[str, ...] = ("nano", "minimal"),
    batch_sizes: tuple[int, ...] = (64,),
    large_batch: int = 512,
    repeats: int = 5,
    budget_seconds: float = 105.0,
    parts: tuple[str, ...] = ("steps", "runs", "recorded"),
    resume: bool = False,
    out: Path = Path("results/scaling.json"),
) -> None:
    """Measure all parts.

    Args:
        steps: of every run, fixed beforehand.
        scenes: training scenes, rising; the largest number is also that of the comparison of sizes.
        rates: learning rates of the comparison of sizes; the data are varied at the last one.
        large_batch: of smolvla_like's step, once more.
        repeats: measured steps of each way; the median counts.
        budget_seconds: runs that have not begun by then are left out, and counted as such; the recorded steps follow.
        parts: which to measure, of steps, runs and recorded.
        resume: keep the runs that `out` has, from the same settings and device, and add those that it lacks.
    """
    where, started = torch.device(device), time.perf_counter()
    jobs = plan(presets, seeds, scenes, rates, data_presets)
    pool = ThreadPoolExecutor(1)  # weights are drawn while scenes are; nothing is measured meanwhile
    drawing = pool.submit(draw, {(name, 0) for name in presets} | {(name, seed) for name, _, _, seed in jobs})
    per_seed = max(scenes)
    many = [TensorSplit.from_blockfind(BlockFind(per_seed, DATA_SEED + s), where) for s in range(seeds)]
    train = many[0]
    for other in many[1:]:
        train = train.joined(other)
    data = DataConfig()
    test = TensorSplit.from_blockfind(BlockFind(data.num_test, data.test_seed), where)
    fresh = drawing.result()
    pool.shutdown()
    print(f"scenes and weights, {time.perf_counter() - started:.0f} s", flush=True)
    report: dict[str, Any] = {
        "command": recorded_command(),
        "machine": describe_device(where),
        "settings": {**asdict(TrainConfig()), "steps": steps, "seeds": seeds, "data_seed": DATA_SEED},
        "peaks": peaks(where),
        "steps": {},
        "left_out": 0,
        "runs": [],
    }
    if resume:
        before = json.loads(out.read_text(encoding="utf-8"))
        same = report["machine"]["device"] == before["machine"]["device"]  # on fewer threads it only takes longer
        assert same, "the runs in that file are another device's"
        assert json.loads(json.dumps(report["settings"])) == before["settings"], "those runs had other settings"
        report["command"] = f"{before['command']} && {report['command']}"
        report["runs"] = before["runs"]
        done = {(run["preset"], run["learning_rate"], run["num_scenes"], run["seed"]) for run in report["runs"]}
        jobs = [job for job in jobs if job not in done]

    def write() -> None:
        result = {**report, "summary": summary(report["runs"]), "seconds": time.perf_counter() - started}
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")

    for name in presets if "steps" in parts else ():
        sizes = [*batch_sizes, large_batch] if name == "smolvla_like" and large_batch else [*batch_sizes]
        policy = copy.deepcopy(fresh[name, 0]).to(where)
        rows = steps_of(PRESETS[name], policy, train, sizes, repeats, recorded=False)
        flops = {str(size): step_flops(PRESETS[name], size) for size in sizes}
        report["steps"][name] = {"parameters": count_parameters(policy), "flops": flops, "rows": rows}
        del policy
        write()
        print(f"{name}: steps, {time.perf_counter() - started:.0f} s", flush=True)
    trainers: dict[str, Trainer] = {}
    for number, (name, rate, num, seed) in enumerate(jobs if "runs" in parts else ()):
        if time.perf_counter() - started > budget_seconds:
            report["left_out"] = len(jobs) - number
            break
        if name not in trainers:
            trainers[name] = Trainer(copy.deepcopy(fresh[name, 0]).to(where), train, test, steps)
        run = {"preset": name, **trainers[name].run(fresh[name, seed], seed, num, rate, per_seed)}
        report["runs"].append(run)
        write()
        what = f"{name:13} {num:5} scenes, rate {rate:g}, seed {seed}: L2 {run['test']['l2_error']:.4f}"
        print(f"{what}, {time.perf_counter() - started:.0f} s", flush=True)
    if where.type == "cuda" and "recorded" in parts:  # last, as a recording that fails can spoil what comes after it
        trainers.clear()
        for name in presets:
            policy = copy.deepcopy(fresh[name, 0]).to(where)
            rows = steps_of(PRESETS[name], policy, train, [*batch_sizes], repeats, recorded=True)
            report["steps"].setdefault(name, {"rows": []})["rows"] += rows
            del policy
            write()
            print(f"{name}: recorded steps, {time.perf_counter() - started:.0f} s", flush=True)
    write()
    print(f"{report['left_out']} runs left out; wrote {out}")


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
