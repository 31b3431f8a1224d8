"""Does it learn, whatever the seed, the learning rate and the preset? Writes `results/learning.json`.

    python scripts/measure_learning.py --device cuda --workers 10

Three studies, each over five seeds unless told otherwise:
- robustness: steps until 95 % validation direction accuracy, `nano` and `minimal`, three learning rates;
- full: 20 epochs with the default settings, judged on the test split;
- large: the same target for `medium` and `smolvla_like`, one seed.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp

from tinyvla.data.batch import TensorSplit
from tinyvla.measure.bench import describe_device, spread, time_to_target
from tinyvla.config import PRESETS, DataConfig, TrainConfig
from tinyvla.data.blockfind import BlockFind
from tinyvla.learn.evaluate import Metrics, predict_split, swap_accuracy
from tinyvla.learn.train import fit, new_policy

LEARNING_RATES = (1e-4, 3e-4, 1e-3)
STEPS_IN_20_EPOCHS = 2_500


def splits(device: str) -> tuple[TensorSplit, TensorSplit, BlockFind]:
    data = DataConfig()
    train, val = BlockFind(data.num_train, data.train_seed), BlockFind(data.num_val, data.val_seed)
    test = BlockFind(data.num_test, data.test_seed)
    return TensorSplit.from_blockfind(train, device), TensorSplit.from_blockfind(val, device), test


def reach(preset: str, learning_rate: float, seed: int, device: str) -> dict[str, Any]:
    """Steps until the target."""
    train, val, _ = splits(device)
    config = replace(TrainConfig(), learning_rate=learning_rate, seed=seed)
    result = time_to_target(PRESETS[preset], train, val, config, max_steps=STEPS_IN_20_EPOCHS)
    return {"study": "reach", "preset": preset, "learning_rate": learning_rate, **result}


def full(preset: str, seed: int, device: str) -> dict[str, Any]:
    """20 epochs, judged on the test split."""
    train, val, test = splits(device)
    config = replace(TrainConfig(), seed=seed)
    policy = new_policy(PRESETS[preset], seed, device)
    fit(policy, train, val, config, progress_bar=False)
    metrics = Metrics.of(
        predict_split(policy, TensorSplit.from_blockfind(test, device)), torch.from_numpy(test.actions)
    )
    swap, _ = swap_accuracy(policy, test)
    return {"study": "full", "preset": preset, "seed": seed, **asdict(metrics), "swap_accuracy": swap}


def work(job: tuple[str, tuple[Any, ...]]) -> dict[str, Any]:
    torch.set_num_threads(max(1, torch.get_num_threads() // 2) if job[1][-1] == "cpu" else 1)
    started = time.perf_counter()
    result = {"reach": reach, "full": full}[job[0]](*job[1])
    return {**result, "wall_seconds": time.perf_counter() - started}


def main(
    device: str = "cpu", workers: int = 1, seeds: int = 5, large: bool = True, out: Path = Path("results/learning.json")
) -> None:
    """Run all studies.

    Args:
        workers: processes that share the device.
        seeds: seeds 0, 1, ... of each setting.
        large: also train `medium` and `smolvla_like`; needs a GPU to end in reasonable time.
    """
    small = ("nano", "minimal")
    jobs = [("full", (preset, seed, device)) for preset in small for seed in range(seeds)]
    jobs += [
        ("reach", (preset, lr, seed, device)) for preset in small for lr in LEARNING_RATES for seed in range(seeds)
    ]
    if large:
        jobs = [("reach", (preset, 3e-4, 0, device)) for preset in ("smolvla_like", "medium")] + jobs
    with mp.get_context("spawn").Pool(workers, maxtasksperchild=4) as pool:
        rows = list(pool.imap_unordered(work, jobs))
    report: dict[str, Any] = {
        "command": f"python scripts/measure_learning.py --device {device} --workers {workers} --seeds {seeds}",
        "machine": describe_device(torch.device(device)),
        "settings": asdict(TrainConfig()),
        "reach": {},
        "full": {},
    }
    for preset in PRESETS:
        for lr in LEARNING_RATES:
            runs = [r for r in rows if r["study"] == "reach" and r["preset"] == preset and r["learning_rate"] == lr]
            if runs:
                report["reach"][f"{preset} {lr:g}"] = {
                    "reached": sum(r["reached"] for r in runs),
                    "runs": len(runs),
                    "steps": spread([r["steps"] for r in runs]),
                }
        runs = [r for r in rows if r["study"] == "full" and r["preset"] == preset]
        names = ("l2_error", "direction_accuracy", "within_10_degrees", "mean_angular_error", "swap_accuracy")
        if runs:
            report["full"][preset] = {"runs": len(runs), **{n: spread([r[n] for r in runs]) for n in names}}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({k: report[k] for k in ("reach", "full")}, indent=1))


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
