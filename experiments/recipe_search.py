"""Which settings need the fewest steps to 95 %? Writes `results/search.json`.

    python scripts/search_recipe.py --device cuda --workers 6

Three studies, ten seeds each, every run with a number of steps fixed beforehand:
- budget: share of runs that reach the target, by number of steps, for AdamW and Muon at several learning rates;
- adamw, muon: one change at a time, at a budget that is a little too short, so that help and harm both show.
The seeds differ from those of `tinyvla bench`, so that its runs judge a recipe that was chosen elsewhere.
"""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp
from torch import nn

from tinyvla.data.batch import TensorSplit
from tinyvla.measure.bench import TARGET, Recipe, Runner, describe_device
from tinyvla.config import PRESETS, DataConfig, TrainConfig
from tinyvla.data.blockfind import BlockFind
from tinyvla.learn.evaluate import Metrics, predict_split
from tinyvla.model.policy import TinyVLA
from tinyvla.speed.recorded import StepOptions
from tinyvla.learn.train import new_policy

ADAMW = {"num_steps": 50, "learning_rate": 7e-4}
MUON = {"num_steps": 25, "learning_rate": 4e-3, "optimizer": "muon"}
SHARED: list[dict[str, Any]] = [
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
BUDGETS = [
    *(
        {"optimizer": "adamw", "num_steps": n, "learning_rate": lr}
        for n in (40, 50, 60, 80)
        for lr in (4e-4, 7e-4, 1.2e-3)
    ),
    *({"optimizer": "muon", "num_steps": n, "learning_rate": lr} for n in (20, 25, 30, 35, 40) for lr in (4e-3, 8e-3)),
]


def initial(preset: str, seed: int, weight_gain: float) -> TinyVLA:
    """Initial weights, those of the linear layers multiplied."""
    policy = new_policy(PRESETS[preset], seed)
    with torch.no_grad():
        for module in policy.modules():
            if isinstance(module, nn.Linear):
                module.weight.mul_(weight_gain)
    return policy


def work(job: tuple[str, str, dict[str, Any], int, str]) -> dict[str, Any]:
    """All seeds of one setting."""
    study, preset, change, seeds, device = job
    torch.set_num_threads(1)
    settings = {"batch_size": 64, "weight_gain": 1.0, "warmup": 0.2, **change}
    steps = settings.pop("num_steps")
    gain, warmup = settings.pop("weight_gain"), settings.pop("warmup")
    config = replace(TrainConfig(warmup_steps=max(1, round(warmup * steps))), **settings)
    data, where = DataConfig(), torch.device(device)
    train, val = (
        TensorSplit.from_blockfind(BlockFind(n, s), where)
        for n, s in ((data.num_train, data.train_seed), (data.num_val, data.val_seed))
    )
    runner = Runner(PRESETS[preset], train, Recipe(steps, config), StepOptions.for_device(where))
    found = []
    for seed in range(100, 100 + seeds):
        runner.run(seed, initial(preset, seed, gain))
        found.append(Metrics.of(predict_split(runner.policy, val), val.actions.cpu()).direction_accuracy)
    reached = sum(accuracy >= TARGET for accuracy in found)
    row = {"reached": reached, "runs": seeds, "lowest": min(found), "median": statistics.median(found)}
    return {"study": study, "change": change, **row}


def main(
    device: str = "cpu",
    workers: int = 1,
    seeds: int = 10,
    preset: str = "minimal",
    out: Path = Path("results/search.json"),
) -> None:
    """Run all studies."""
    started = time.perf_counter()
    jobs = [("budget", change) for change in BUDGETS]
    jobs += [(name, base | change) for name, base in (("adamw", ADAMW), ("muon", MUON)) for change in SHARED]
    with mp.get_context("spawn").Pool(workers) as pool:
        rows = pool.map(work, [(study, preset, change, seeds, device) for study, change in jobs], chunksize=1)
    report = {
        "command": f"python scripts/search_recipe.py --device {device} --workers {workers} --seeds {seeds}",
        "machine": describe_device(torch.device(device)),
        "seconds": time.perf_counter() - started,
        "preset": preset,
        "bases": {"adamw": ADAMW, "muon": MUON},
        "rows": rows,
    }
    out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for row in rows:
        print(row["study"], row["change"], f"{row['reached']} of {row['runs']}, lowest {row['lowest']:.3f}")


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
