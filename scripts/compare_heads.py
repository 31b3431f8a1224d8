"""Every action head on the same backbone, where one answer is right and where two are. Writes `results/heads.json`.

python scripts/compare_heads.py --device cuda --workers 12
"""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp

from tinyvla.batching import TensorSplit
from tinyvla.bench import describe_device, spread, synchronize
from tinyvla.config import DataConfig, ModelConfig, TrainConfig, model_config
from tinyvla.dataset import BlockFind
from tinyvla.evaluate import Metrics, ambiguity, predict_split
from tinyvla.heads import DirectionsHead
from tinyvla.model import TinyVLA
from tinyvla.train import fit, new_policy

HEADS: dict[str, dict[str, Any]] = {
    "regression": {"kind": "regression"},
    "l1": {"kind": "l1"},
    "directions-4": {"kind": "directions", "num_directions": 4},
    "directions-8": {"kind": "directions", "num_directions": 8},
    "bins": {"kind": "bins"},
    "flow": {"kind": "flow", "num_steps": 10},
    "diffusion": {"kind": "diffusion", "num_steps": 20},
}
DATA = ("one answer", "two answers")


def with_head(preset: str, name: str) -> ModelConfig:
    config = model_config(preset)
    return replace(config, head=replace(config.head, **HEADS[name]))


@torch.no_grad()
def milliseconds(policy: TinyVLA, split: TensorSplit, batch: int) -> float:
    """Median time of an answer, image and words included."""
    b = split.take(slice(0, batch))
    times = []
    for _ in range(23):
        synchronize(policy.device)
        started = time.perf_counter()
        policy(b.images, b.input_ids, b.attention_mask)
        synchronize(policy.device)
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times[3:])


def train_one(job: tuple[str, str, str, int, int, float, str]) -> dict[str, Any]:
    preset, name, kind_of_data, seed, epochs, learning_rate, device = job
    torch.set_num_threads(1)
    data = DataConfig()
    make = BlockFind if kind_of_data == "one answer" else BlockFind.ambiguous
    sizes = ((data.num_train, data.train_seed), (data.num_val, data.val_seed), (data.num_test, data.test_seed))
    train, val, test = (make(n, s) for n, s in sizes)
    tensors = [TensorSplit.from_blockfind(split, device) for split in (train, val, test)]
    policy = new_policy(with_head(preset, name), seed, device)
    config = replace(TrainConfig(), epochs=epochs, learning_rate=learning_rate, seed=seed)
    fit(policy, tensors[0], tensors[1], config, progress_bar=False)
    row: dict[str, Any] = {"head": name, "data": kind_of_data, "seed": seed}
    if kind_of_data == "two answers":
        return {**row, **asdict(ambiguity(policy, test))}
    predicted = predict_split(policy, tensors[2])
    row |= asdict(Metrics.of(predicted, torch.from_numpy(test.actions)))
    if isinstance(head := policy.head.cpu(), DirectionsHead):
        right = head.classes(predicted) == head.classes(torch.from_numpy(test.actions))
        row["class_accuracy"] = right.double().mean().item()
    policy.to(device)
    row |= {f"milliseconds_{n}": milliseconds(policy, tensors[2], n) for n in (1, 256)}
    return row | {"parameters": policy.num_parameters()["head"]}


def main(
    device: str = "cpu",
    workers: int = 1,
    seeds: int = 3,
    preset: str = "nano",
    epochs: int = 5,
    learning_rate: float = 1e-3,
    heads: tuple[str, ...] = tuple(HEADS),
    out: Path = Path("results/heads.json"),
) -> None:
    """Train and judge every head on both kinds of data with every seed."""
    jobs = [(preset, h, d, seed, epochs, learning_rate, device) for h in heads for d in DATA for seed in range(seeds)]
    with mp.get_context("spawn").Pool(workers, maxtasksperchild=4) as pool:
        rows = list(pool.imap_unordered(train_one, jobs))
    summary: dict[str, dict[str, Any]] = {}
    for head in heads:
        summary[head] = {}
        for kind_of_data in DATA:
            runs = [r for r in rows if (r["head"], r["data"]) == (head, kind_of_data)]
            names = [name for name in runs[0] if name not in ("head", "data", "seed")]
            summary[head][kind_of_data] = {name: spread([r[name] for r in runs]) for name in names}
    report = {
        "command": f"python scripts/compare_heads.py --device {device} --workers {workers} --seeds {seeds}",
        "machine": describe_device(torch.device(device)),
        "preset": preset,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "seeds": seeds,
        "heads": summary,
    }
    out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for head, by_data in summary.items():
        for kind_of_data, row in by_data.items():
            print(f"{head:14}{kind_of_data:12}", {k: (round(v["min"], 3), round(v["max"], 3)) for k, v in row.items()})


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
