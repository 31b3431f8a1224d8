"""Every fusion and the two ablations, the same backbone, several seeds. Writes `results/fusion.json`.

python scripts/compare_fusions.py --device cuda --workers 12
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
from tinyvla.measure.bench import describe_device, spread
from tinyvla.config import ABLATION_KINDS, FUSION_KINDS, DataConfig, TrainConfig, model_config
from tinyvla.data.blockfind import BlockFind
from tinyvla.learn.evaluate import Metrics, predict_split, swap_accuracy
from tinyvla.learn.train import fit, new_policy

METRICS = ("l2_error", "direction_accuracy", "within_10_degrees", "swap_accuracy")


def train_one(job: tuple[str, str, int, float, int, str]) -> dict[str, Any]:
    preset, kind, epochs, learning_rate, seed, device = job
    torch.set_num_threads(1)
    data = DataConfig()
    train, val, test = (
        BlockFind(n, s)
        for n, s in ((data.num_train, data.train_seed), (data.num_val, data.val_seed), (data.num_test, data.test_seed))
    )
    tensors = [TensorSplit.from_blockfind(split, device) for split in (train, val, test)]
    policy = new_policy(model_config(preset, kind), seed, device)
    config = replace(TrainConfig(), epochs=epochs, learning_rate=learning_rate, seed=seed)
    started = time.perf_counter()
    records = fit(policy, tensors[0], tensors[1], config, progress_bar=False)
    metrics = Metrics.of(predict_split(policy, tensors[2]), torch.from_numpy(test.actions))
    return {
        "kind": kind,
        "seed": seed,
        "seconds": time.perf_counter() - started,
        "parameters": policy.num_parameters()["fusion"],
        "first_epoch_at_95": next((r["epoch"] for r in records if r["direction_accuracy"] >= 0.95), None),
        "swap_accuracy": swap_accuracy(policy, test)[0],
        **asdict(metrics),
    }


def main(
    device: str = "cpu",
    workers: int = 1,
    seeds: int = 5,
    preset: str = "nano",
    epochs: int = 5,
    learning_rate: float = 1e-3,
    out: Path = Path("results/fusion.json"),
) -> None:
    """Train and judge every kind with every seed."""
    kinds = FUSION_KINDS + ABLATION_KINDS
    jobs = [(preset, kind, epochs, learning_rate, seed, device) for kind in kinds for seed in range(seeds)]
    with mp.get_context("spawn").Pool(workers, maxtasksperchild=4) as pool:
        rows = list(pool.imap_unordered(train_one, jobs))
    summary = {}
    for kind in kinds:
        runs = sorted((r for r in rows if r["kind"] == kind), key=lambda r: r["seed"])
        summary[kind] = {
            "parameters": runs[0]["parameters"],
            "first_epoch_at_95": [r["first_epoch_at_95"] for r in runs],
            **{name: {**spread([r[name] for r in runs]), "runs": [r[name] for r in runs]} for name in METRICS},
        }
    report = {
        "command": f"python scripts/compare_fusions.py --device {device} --workers {workers} --seeds {seeds}",
        "machine": describe_device(torch.device(device)),
        "preset": preset,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "seeds": seeds,
        "num_test": DataConfig().num_test,
        "kinds": summary,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for kind, row in summary.items():
        values = {name: [round(v, 3) for v in row[name]["runs"]] for name in METRICS}
        print(kind, row["first_epoch_at_95"], values)


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
