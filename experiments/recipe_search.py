"""Which settings need the fewest steps to 95 %? Writes `results/search.json`.

    python experiments/recipe_search.py --device cuda --workers 6

Three studies, ten seeds each, every run with a number of steps fixed beforehand:
- budget: share of runs that reach the target, by number of steps, for AdamW and Muon at several learning rates;
- adamw, muon: one change at a time, at a budget that is a little too short, so that help and harm both show.
The seeds differ from those of `tinyvla bench`, so that its runs judge a recipe that was chosen elsewhere.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path

import harness
import torch
from harness import Job, Row, main
from page import grid
from torch import nn
from training import TARGET, blockfind, judge, prepared, tensors, train_rows

from tinyvla.config import PRESETS
from tinyvla.model.policy import TinyVLA, new_policy
from tinyvla.recipes import TrainConfig
from tinyvla.speed.cuda_graph import restart

RESULTS = ("search",)
FIRST_SEED = 100
ADAMW: Row = {"num_steps": 50, "learning_rate": 7e-4}
MUON: Row = {"num_steps": 25, "learning_rate": 4e-3, "optimizer": "muon"}
SHARED: list[Row] = [
    {},
    {"batch_size": 128},
    {"weight_gain": 1.5},
    {"weight_gain": 0.5},
    {"decay_fraction": 0.25},
    {"decay_fraction": 1.0},
    {"warmup": 0.04},
    {"warmup": 0.5},
    {"beta2": 0.95},
    {"beta2": 0.999},
    {"grad_clip": 1e9},
    {"weight_decay": 0.0},
    {"weight_decay": 0.1},
]
BUDGETS: list[Row] = [
    *(
        {"optimizer": "adamw", "num_steps": n, "learning_rate": lr}
        for n in (40, 50, 60, 80)
        for lr in (4e-4, 7e-4, 1.2e-3)
    ),
    *({"optimizer": "muon", "num_steps": n, "learning_rate": lr} for n in (20, 25, 30, 35, 40) for lr in (4e-3, 8e-3)),
]


@dataclass(frozen=True)
class Args(harness.Args):
    """Run all studies."""

    seeds: int = 10
    preset: str = "minimal"
    studies: tuple[str, ...] = ("budget", "adamw", "muon")
    out: Path = Path("results/search.json")


def jobs(args: Args) -> list[Job]:
    changes = {
        "budget": BUDGETS,
        "adamw": [ADAMW | change for change in SHARED],
        "muon": [MUON | change for change in SHARED],
    }
    return [Job({"study": study, "change": change}) for study in args.studies for change in changes[study]]


def run(job: Job, args: Args) -> Row:
    """All seeds of one setting; the step is prepared once."""
    settings = {"weight_gain": 1.0, "warmup": 0.2, **job.what["change"]}
    steps, gain, warmup = (settings.pop(name) for name in ("num_steps", "weight_gain", "warmup"))
    settings["warmup_steps"] = max(1, round(warmup * steps))
    policy = new_policy(PRESETS[args.preset], 0, args.where)
    split, val = (tensors(policy, scenes) for scenes in blockfind(args.data)[:2])
    step = prepared(policy, split, TrainConfig(**settings))
    found = []
    for seed in range(FIRST_SEED, FIRST_SEED + args.seeds):
        restart(policy, step.optimizer, initial(args.preset, seed, gain))
        config = TrainConfig(seed=seed, **settings)
        train_rows(policy, split, config, step, range(len(split)), steps)
        found.append(judge(policy, val).direction_accuracy)
    reached = sum(accuracy >= TARGET for accuracy in found)
    return {"reached": reached, "runs": len(found), "lowest": min(found), "median": statistics.median(found)}


def initial(preset: str, seed: int, weight_gain: float) -> TinyVLA:
    """Initial weights, those of the linear layers multiplied."""
    policy = new_policy(PRESETS[preset], seed)
    with torch.no_grad():
        for module in policy.modules():
            if isinstance(module, nn.Linear):
                module.weight.mul_(weight_gain)
    return policy


def summary(rows: list[Row], args: Args) -> Row:
    return {"preset": args.preset, "bases": {"adamw": ADAMW, "muon": MUON}, "rows": rows}


def section(search: Row) -> str:
    """The end of the section on where the time goes (`tools/results_of_bench.py`)."""
    rows = [row for row in search["rows"] if row["study"] == "budget"]
    return "\n\n".join(
        [
            "Runs of ten that reach 95 %, by the number of steps fixed beforehand:",
            grid("optimizer | learning rate | steps | reached | lowest accuracy", map(budget_row, rows)),
        ]
    )


def budget_row(row: Row) -> tuple[str, ...]:
    """An optimizer, its learning rate and its number of steps."""
    change, reached = row["change"], f"{row['reached']} of {row['runs']}"
    rate, steps = f"{change['learning_rate']:g}", str(change["num_steps"])
    return change["optimizer"], rate, steps, reached, f"{row['lowest']:.2f}"


if __name__ == "__main__":
    main(Args, jobs, run, summary)
