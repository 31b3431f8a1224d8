"""Larger models, more data, less memory. Writes `results/scaling.json`.

    python experiments/scaling.py --device cuda
    python experiments/scaling.py --device cuda --parts runs --out results/scaling_runs.json

- peaks: what the device does at best: matrix products in two precisions, and bytes copied in a second;
- steps: memory and time of one step of each preset, as `tinyvla.speed.scaling` predicts and as measured: in float32 and
  bfloat16, with the batch in parts, with blocks run twice, kernel by kernel and recorded;
- runs: accuracy after a number of steps fixed beforehand, AdamW: against size, each size at two learning rates; and
  against data, the first N scenes of a split. Each seed has its own scenes and initial weights; all runs are judged on
  the same test split, and on (up to) a thousand of their own training scenes.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import harness
import torch
from harness import Job, Row, groups, main, plain, read_json, spreads
from page import Results, grid, percent, place, points, prose, section_of, source
from training import cut, judge, prepared, train_rows

from tinyvla.config import PRESETS
from tinyvla.data.batch import TensorSplit
from tinyvla.data.dataset import BlockFind
from tinyvla.device import synchronize
from tinyvla.learn.train import PlainStep
from tinyvla.measure.throughput import peak_flops, step_flops
from tinyvla.model.policy import TinyVLA, count_parameters, new_policy
from tinyvla.model.tokenizer import encode
from tinyvla.recipes import TrainConfig
from tinyvla.speed.cuda_graph import restart
from tinyvla.speed.memory import SavedTensors, backward_in_parts, recomputed
from tinyvla.speed.scaling import budget
from tinyvla.speed.step import make_step
from tinyvla.speed.tuned import StepOptions

RESULTS = ("scaling",)
RUN_RESULTS = ("scaling_runs", "scaling_runs_cpu", "presets")
DATA_SEED = 100
"""Seed s trains on the scenes of BlockFind seed 100 + s, never on those of validation and test."""
FEW_SEEDS = {"medium": 2, "smolvla_like": 1}
"""At most so many seeds of those that take long."""
VARIANTS: dict[str, Row] = {
    "float32": {},
    "bfloat16": {"bfloat16": True},
    "bfloat16, 4 parts": {"bfloat16": True, "accumulate": 4},
    "bfloat16, recompute": {"bfloat16": True, "recompute": True},
    "bfloat16, 4 parts, recompute": {"bfloat16": True, "accumulate": 4, "recompute": True},
}


@dataclass(frozen=True)
class Args(harness.Args):
    """Measure all parts."""

    device: str = "cuda"
    presets: tuple[str, ...] = tuple(PRESETS)
    seeds: int = 3
    steps: int = 400
    """Of every run, fixed beforehand."""
    scenes: tuple[int, ...] = (250, 500, 1_000, 2_000, 4_000, 8_000)
    """Training scenes, rising; the largest number is also that of the comparison of sizes."""
    rates: tuple[float, ...] = (3e-4, 1e-3)
    """Learning rates of the comparison of sizes; the data are varied at the last one."""
    data_presets: tuple[str, ...] = ("nano", "minimal")
    """With these, the number of scenes is varied."""
    batch_sizes: tuple[int, ...] = (64,)
    large_batch: int = 512
    """Of smolvla_like's step, once more."""
    repeats: int = 5
    """Measured steps of each way; the median counts."""
    budget_seconds: float = 105.0
    """Runs that have not begun by then are left out, and counted as such; the recorded steps follow."""
    parts: tuple[str, ...] = ("steps", "runs", "recorded")
    """Which to measure, of steps, runs and recorded."""
    resume: bool = False
    """Keep the runs that `out` has, from the same settings and device, and add those that it lacks."""
    out: Path = Path("results/scaling.json")

    def about(self) -> Row:
        """Settings that runs of one file share."""
        return {**asdict(TrainConfig()), "steps": self.steps, "seeds": self.seeds, "data_seed": DATA_SEED}


def jobs(args: Args) -> list[Job]:
    """Everything alone; the recorded steps last, as a recording that fails can spoil what comes after it."""
    recorded = args.presets if args.where.type == "cuda" and "recorded" in args.parts else ()
    return [
        Job({"part": "peaks"}, alone=True),
        *(Job({"part": "steps", "preset": name}, alone=True) for name in args.presets if "steps" in args.parts),
        *runs_to_do(args),
        *(Job({"part": "recorded", "preset": name}, alone=True) for name in recorded),
    ]


def runs_to_do(args: Args) -> list[Job]:
    """The runs that the file lacks, the longest first."""
    if "runs" not in args.parts:
        return []
    most, before = max(args.scenes), read_json(args.out) if args.resume else None
    done = {name_of(run) for run in before["runs"]} if before else set()
    sizes = [
        (name, rate, most, seed)
        for name in reversed(args.presets)
        for seed in range(min(args.seeds, FEW_SEEDS.get(name, args.seeds)))
        for rate in args.rates
    ]
    varied = [name for name in args.presets if name in args.data_presets]
    fewer = [
        (name, args.rates[-1], count, seed)
        for seed in range(args.seeds)
        for name in varied
        for count in args.scenes[:-1]
    ]
    keys = ("preset", "learning_rate", "num_scenes", "seed")
    rows = [dict(zip(keys, run, strict=True)) for run in sizes + fewer]
    return [run_job(row) for row in rows if name_of(row) not in done]


def run_job(row: Row) -> Job:
    what = {name: value for name, value in row.items() if name != "seed"}
    return Job({"part": "runs", **what}, row["seed"], alone=True, optional=True)


def name_of(run: Row) -> tuple[str, float, int, int]:
    """What tells one run from another."""
    return run["preset"], run["learning_rate"], run["num_scenes"], run["seed"]


def run(job: Job, args: Args) -> Row:
    part = job.what["part"]
    if part == "peaks":
        return peaks(args.where)
    if part == "runs":
        return run_one(job, args)
    trainer.cache_clear()  # their memory would be measured
    name = job.what["preset"]
    policy = new_policy(PRESETS[name], 0, args.where)
    sizes = [*args.batch_sizes]
    if part == "steps" and name == "smolvla_like" and args.large_batch:
        sizes.append(args.large_batch)
    can_record = args.where.type == "cuda"
    rows = [measure_way(name, policy, args, *way) for way in ways(sizes, part == "recorded", can_record)]
    flops = {str(size): step_flops(PRESETS[name], size) for size in sizes}
    return {"parameters": count_parameters(policy), "flops": flops, "rows": rows}


def peaks(device: torch.device) -> dict[str, float]:
    """Operations per second of one large product, and bytes read and written per second by one large copy."""
    origin = torch.empty(2**28 if device.type == "cuda" else 2**24, device=device)
    target = torch.empty_like(origin)
    moved = 2 * origin.numel() * origin.element_size()
    return {
        "bfloat16_flops_per_second": peak_flops(device, torch.bfloat16),
        "float32_flops_per_second": peak_flops(device, torch.float32),
        "bytes_per_second": moved / median_seconds(lambda: target.copy_(origin), 6, device),
    }


def median_seconds(call: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Of a call, after two that do not count."""
    times = []
    for _ in range(repeats + 2):
        synchronize(device)
        started = time.perf_counter()
        call()
        synchronize(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times[2:])


@cache
def scenes_of_all_seeds(args: Args) -> TensorSplit:
    """The scenes of each seed, one seed after the other."""
    split: TensorSplit | None = None
    for seed in range(args.seeds):
        more = TensorSplit.from_blockfind(BlockFind(max(args.scenes), DATA_SEED + seed), encode, args.where)
        split = more if split is None else split.joined(more)
    assert split is not None
    return split


def ways(batch_sizes: Sequence[int], recorded: bool, can_record: bool) -> list[tuple[int, str, bool]]:
    """Ways to take a step as (batch size, variant, recorded)."""
    if recorded:  # the plain one is measured with the others, kernel by kernel
        return [(batch_sizes[0], "bfloat16, 4 parts, recompute", True)]
    also = [(batch_sizes[0], "bfloat16", True)] if can_record else []
    return [(size, name, False) for size in batch_sizes for name in VARIANTS] + also


def measure_way(preset: str, policy: TinyVLA, args: Args, size: int, name: str, graph: bool) -> Row:
    """One way to take a step, beside what is predicted."""
    paper, variant = budget(PRESETS[preset], size, **VARIANTS[name]), VARIANTS[name]
    row: Row = {"variant": name, "paper": {**asdict(paper), "memory": paper.memory}}
    row |= {"graph": graph, "batch_size": size, **variant}
    try:
        return row | measure_step(policy, scenes_of_all_seeds(args), size, variant, graph, args.repeats)
    except Exception as error:  # one way that fails must not lose the others
        return row | {"error": str(error)[:300]}


def measure_step(
    policy: TinyVLA, split: TensorSplit, size: int, variant: Row, graph: bool, repeats: int
) -> dict[str, float]:
    """Peak memory of a step, what autograd keeps, and its time."""
    parts, recompute = variant.get("accumulate", 1), variant.get("recompute", False)
    config = TrainConfig(batch_size=size, accumulate=parts, recompute=recompute)
    device, row, before = split.device, {}, 0
    policy.zero_grad()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        # The weights are there already and belong to the step.
        before = torch.cuda.memory_allocated(device) - 4 * count_parameters(policy)
    step = make_step(policy, split, config, StepOptions(bfloat16=variant.get("bfloat16", False), graph=graph))
    indices = iter(torch.arange((repeats + 2) * size, device=device).remainder(len(split)).split(size))
    row["seconds"] = median_seconds(lambda: step(next(indices)), repeats, device)
    if device.type == "cuda":
        row["peak_bytes"] = torch.cuda.max_memory_allocated(device) - before
    if not graph:
        row["saved_bytes"] = saved_bytes(policy, split, size // parts, variant)
    policy.zero_grad()
    return row


def saved_bytes(policy: TinyVLA, split: TensorSplit, size: int, variant: Row) -> int:
    """What autograd keeps from the forward pass of one part."""
    bfloat16 = variant.get("bfloat16", False)
    changed = recomputed(policy, bfloat16) if variant.get("recompute") else nullcontext()
    with changed, SavedTensors(policy) as saved:
        backward_in_parts(policy.loss, split.take(torch.arange(size, device=split.device)), bfloat16=bfloat16)
    return saved.bytes


@cache
def trainer(preset: str, args: Args) -> tuple[TinyVLA, PlainStep]:
    """A policy and a step that serve all runs of a preset, each time from new weights."""
    policy = new_policy(PRESETS[preset], 0, args.where)
    return policy, prepared(policy, scenes_of_all_seeds(args), TrainConfig())


def run_one(job: Job, args: Args) -> Row:
    """One run: some of the scenes that belong to the seed."""
    preset, rate, count = (job.what[name] for name in ("preset", "learning_rate", "num_scenes"))
    policy, step = trainer(preset, args)
    restart(policy, step.optimizer, new_policy(PRESETS[preset], job.seed))
    split, start = scenes_of_all_seeds(args), job.seed * max(args.scenes)
    config = TrainConfig(learning_rate=rate, seed=job.seed)
    trained = train_rows(policy, split, config, step, range(start, start + count), args.steps)
    own = cut(split, range(start, start + min(count, 1_000)))
    test = TensorSplit.from_blockfind(BlockFind(args.data.num_test, args.data.test_seed), encode, args.where)
    seen, unseen = (asdict(judge(policy, part)) for part in (own, test))
    return {"steps": args.steps, "seconds": trained.seconds, "train": seen, "test": unseen}


def summary(rows: list[Row], args: Args) -> Row:
    """The parts; what a step of a preset takes is one part, recorded or not."""
    parts = groups(rows, "part")
    steps: Row = {}
    for row in parts.get(("steps",), []) + parts.get(("recorded",), []):
        kept = {name: row[name] for name in ("parameters", "flops", "rows")}
        found = steps.setdefault(row["preset"], {**kept, "rows": []})
        found["rows"] = found["rows"] + row["rows"]
    runs = [{name: value for name, value in row.items() if name != "part"} for row in parts.get(("runs",), [])]
    rates = {name: value for name, value in parts[("peaks",)][0].items() if name != "part"}
    left_out = len(runs_to_do(args)) - len(runs)
    report = {"settings": args.about(), "peaks": rates, "steps": steps, "left_out": left_out, "runs": runs}
    return {**report, "summary": over_seeds(runs)}


def over_seeds(runs: list[Row]) -> list[Row]:
    """Spread over the seeds of each combination."""
    keys = ("preset", "learning_rate", "num_scenes")
    rows = []
    for group, members in groups(runs, *keys).items():
        row: Row = {**dict(zip(keys, group, strict=True)), "seeds": len(members)}
        for split in ("train", "test"):
            row[split] = spreads([member[split] for member in members], ("l2_error", "direction_accuracy"))
        rows.append({**row, **spreads(members, ["seconds"])})
    return rows


def combine(old: Row, new: Row, args: Args) -> Row:
    """With `--resume`, the runs of before and those of now.

    Raises:
        SystemExit: those of before had other settings, or ran on another device.
    """
    if not (old and args.resume):
        return new
    # On fewer threads it only takes longer.
    if old["machine"]["device"] != new["machine"]["device"] or old["settings"] != plain(args.about()):
        raise SystemExit(f"the runs in {args.out} had other settings or another device")
    runs, command = old["runs"] + new["runs"], f"{old['command']} && {new['command']}"
    return {**new, "command": command, "runs": runs, "summary": over_seeds(runs)}


def section(scaling: Row) -> str:
    rows = [row for preset in ("medium", "smolvla_like") for row in scaling["steps"][preset]["rows"]]
    off = [row["peak_bytes"] / row["paper"]["memory"] - 1 for row in rows]
    about = """A step of 64 scenes in bfloat16: what the formulas of `tinyvla.speed.scaling` say, and what was counted
        or measured. The time on paper is a lower bound: arithmetic and the optimizer's traffic at the device's own
        peaks. Memory is that of the plain step, time that of the recorded one."""
    more = f"""Over all {len(off)} ways to take a step of `medium` and `smolvla_like` that were tried (float32, in
        parts, blocks run twice, recorded), the measured memory differs from the paper's by {points(min(off))} % to
        {points(max(off))} %."""
    heads = "preset | million parameters, on paper | counted | GB, on paper | measured | ms, at least | measured"
    return section_of(
        "Predicted and measured",
        prose(about),
        grid(heads, (paper_row(preset, part, scaling["peaks"]) for preset, part in scaling["steps"].items())),
        prose(more),
        source(scaling),
    )


def paper_row(preset: str, part: Results, rates: Results) -> tuple[str, ...]:
    """A preset's step of 64 scenes in bfloat16: memory of the plain step, time of the recorded one."""
    plain_step, recorded = (
        next(r for r in part["rows"] if (r["variant"], r["batch_size"], r["graph"]) == ("bfloat16", 64, graph))
        for graph in (False, True)
    )
    paper = plain_step["paper"]
    bound = paper["flops"] / rates["bfloat16_flops_per_second"] + paper["traffic"] / rates["bytes_per_second"]
    sizes = (f"{number / 1e6:.1f}" for number in (paper["parameters"], part["parameters"]))
    memory = (f"{size / 1e9:.2f}" for size in (paper["memory"], plain_step["peak_bytes"]))
    times = (f"{1000 * seconds:.2f}" for seconds in (bound, recorded["seconds"]))
    return f"`{preset}`", *sizes, *memory, *times


def section_of_runs(on_gpu: Row, on_cpu: Row, presets: Row) -> str:
    settings, files = on_gpu["settings"], {"cuda": on_gpu, "cpu": on_cpu}
    about = f"""{settings["steps"]} steps of {settings["batch_size"]} scenes with AdamW, however many different
        scenes there are. L2 errors are medians over the seeds, {settings["seeds"]} unless the time that was set ran
        out; with one or two they rank no neighbours. Accuracy is the lowest of the seeds, on unseen scenes."""
    heads = "preset | learning rate | scenes | seeds | L2, training | L2, unseen | accuracy | on"
    rows = size_rows(files, list(presets["presets"]))
    return section_of("Accuracy against size and data", prose(about), grid(heads, rows), source(on_gpu, on_cpu))


def size_rows(files: dict[str, Results], presets: list[str]) -> list[tuple[str, ...]]:
    """One row for each preset, rate and number of scenes; the first file's, where several have it."""
    found: dict[tuple[int, float, int], tuple[str, ...]] = {}
    for device, results in files.items():
        for row in results["summary"]:
            seen, unseen = (f"{row[split]['l2_error']['median']:.3f}" for split in ("train", "test"))
            lowest = percent(row["test"]["direction_accuracy"]["min"], 1)
            counts = (f"{row['learning_rate']:g}", f"{row['num_scenes']:,}", str(row["seeds"]))
            cells = (f"`{row['preset']}`", *counts, seen, unseen, lowest, place(results["machine"], device))
            found.setdefault((presets.index(row["preset"]), row["learning_rate"], row["num_scenes"]), cells)
    return [found[key] for key in sorted(found)]


if __name__ == "__main__":
    main(Args, jobs, run, summary, combine)
