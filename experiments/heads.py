"""Every action head on the same backbone, where one answer is right and where several are. Writes `results/heads.json`.

    python scripts/compare_heads.py --device cuda --workers 8

Three kinds of data, three seeds each:
- one answer: BlockFind;
- two answers: two blocks of the named colour, the label is one of them by chance;
- trajectories: chunks of steps to the block along an arc, to either side, with a pause at any moment.
Flow matching and diffusion are also asked with fewer and with more sampling steps than they were trained for; the time
of an answer is measured at the end, with the trained weights and nothing else running.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.multiprocessing as mp

from tinyvla.data.batch import TensorSplit
from tinyvla.measure.bench import describe_device, recorded_command, spread, synchronize, take_turns
from tinyvla.config import DataConfig, ModelConfig, TrainConfig, model_config
from tinyvla.data.blockfind import BlockFind, trajectories, valid_trajectories
from tinyvla.learn.evaluate import Metrics, ambiguity, predict_split
from tinyvla.model.heads import DirectionsHead
from tinyvla.model.policy import TinyVLA
from tinyvla.speed.recorded import StepOptions
from tinyvla.learn.train import fit, new_policy

HORIZON = 16
HIDDEN = 256
GENERATIVE = ("bins", "fast", "flow", "diffusion")
SAMPLING_STEPS = (1, 2, 5, 10, 20, 50)
HEADS: dict[str, dict[str, Any]] = {
    "regression": {"kind": "regression"},
    "l1": {"kind": "l1"},
    "directions-4": {"kind": "directions", "num_directions": 4},
    "directions-8": {"kind": "directions", "num_directions": 8},
    "bins": {"kind": "bins"},
    "fast": {"kind": "fast"},
    "flow": {"kind": "flow", "num_steps": 10},
    "diffusion": {"kind": "diffusion", "num_steps": 20},
}
KINDS_OF_DATA = {
    "one answer": [name for name in HEADS if name != "fast"],
    "two answers": [name for name in HEADS if name != "fast"],
    "trajectories": ["regression", "l1", "bins", "fast", "flow", "diffusion"],
}


def with_head(preset: str, name: str, data: str) -> ModelConfig:
    config = model_config(preset)
    head = replace(config.head, hidden_dim=HIDDEN, **HEADS[name])
    if data == "trajectories":
        # Tokens need bounded numbers; noise of variance one needs actions of about that variance.
        normalization = "quantiles" if name in ("bins", "fast") else "mean-std"
        head = replace(head, horizon=HORIZON, normalization=normalization)
    return replace(config, head=head)


def tensors(split: BlockFind, data: str, seed: int, device: str) -> TensorSplit:
    if data != "trajectories":
        return TensorSplit.from_blockfind(split, device)
    return TensorSplit.from_arrays(split.images, split.instructions, trajectories(split, HORIZON, seed), device)


def judge(policy: TinyVLA, name: str, data: str, test: BlockFind, device: str) -> dict[str, Any]:
    """What a trained policy is worth on the test split."""
    if data == "two answers":
        return asdict(ambiguity(policy, test))
    predicted = predict_split(policy, tensors(test, data, 0, device))
    if data == "trajectories":
        return judge_chunks(predicted.numpy(), test)
    row = asdict(Metrics.of(predicted, torch.from_numpy(test.actions)))
    head = policy.head.cpu()
    if isinstance(head, DirectionsHead):
        right = head.classes(predicted) == head.classes(torch.from_numpy(test.actions))
        row["class_accuracy"] = right.double().mean().item()
    policy.to(device)
    return row


def judge_chunks(predicted: np.ndarray, test: BlockFind) -> dict[str, float]:
    """How far from the block a chunk ends, and from the nearest of the ways that were demonstrated, in pixels.

    Also: how many of its steps stand still, shorter than a tenth of the mean step, and the share of the chunks near a
    way that bulge to the left.
    """
    valid = valid_trajectories(test, HORIZON)
    ends = np.linalg.norm(predicted.sum(axis=1) - valid[:, 0].sum(axis=1), axis=1)
    places, ways = predicted.cumsum(axis=1), valid.cumsum(axis=2)
    off = np.linalg.norm(places[:, None] - ways, axis=-1).mean(axis=2)  # (n, ways); sides take turns
    nearest, off = off.argmin(axis=1), off.min(axis=1)
    lengths = np.linalg.norm(predicted, axis=2)
    return {
        "end_error": float(np.median(ends)),
        "distance_to_a_way": float(np.median(off)),
        "near_a_way": float((off < 1.5).mean()),
        "left_chosen": float((nearest[off < 1.5] % 2 == 0).mean()) if (off < 1.5).any() else 0.5,
        "still_steps": float((lengths < 0.1 * lengths.mean(axis=1, keepdims=True)).sum(axis=1).mean()),
    }


def checkpoint_name(name: str, data: str) -> str:
    return f"{name} {data}".replace(" ", "_")


def train_one(job: tuple[int, str, str, str, int, int, int, float, str, str]) -> dict[str, Any]:
    number, preset, name, data, seed, scenes, epochs, learning_rate, device, folder = job
    torch.set_num_threads(1)
    take_turns(number)
    where, sizes = torch.device(device), DataConfig()
    make = BlockFind.ambiguous if data == "two answers" else BlockFind
    train, val, test = make(scenes, sizes.train_seed), make(1_000, sizes.val_seed), make(1_000, sizes.test_seed)
    splits = [tensors(split, data, number, device) for number, split in enumerate((train, val))]
    policy = new_policy(with_head(preset, name, data), seed, where)
    if data == "trajectories":
        policy.fit_statistics(splits[0].actions)
    config = replace(TrainConfig(), epochs=epochs, learning_rate=learning_rate, seed=seed)
    curve: list[float] = []

    def look(record: dict[str, Any]) -> None:
        if data == "two answers":
            curve.append(ambiguity(policy, val, num_draws=2).near_one)

    started = time.perf_counter()
    fit(policy, *splits, config, on_epoch=look, progress_bar=False, options=StepOptions.for_device(where))
    row = {"head": name, "data": data, "seed": seed, "seconds": time.perf_counter() - started, "curve": curve}
    row |= judge(policy, name, data, test, device)
    if seed == 0:
        policy.save_pretrained(Path(folder) / checkpoint_name(name, data))
    if data == "two answers" and name in ("flow", "diffusion"):
        row["by_sampling_steps"] = {}
        for steps in SAMPLING_STEPS:
            policy.head.config = replace(policy.head.config, num_steps=steps)
            row["by_sampling_steps"][str(steps)] = ambiguity(policy, test).near_one
    return row


@torch.no_grad()
def milliseconds(policy: TinyVLA, batch: int) -> float:
    """Median time of an answer, image and words included."""
    b = TensorSplit.from_blockfind(BlockFind(batch, 1), policy.device).take(slice(0, batch))
    times = []
    for _ in range(23):
        synchronize(policy.device)
        started = time.perf_counter()
        policy(b.images, b.input_ids, b.attention_mask)
        synchronize(policy.device)
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times[3:])


def main(
    device: str = "cpu",
    workers: int = 1,
    seeds: int = 3,
    preset: str = "nano",
    scenes: int = 40_000,
    epochs: tuple[int, int, int] = (2, 8, 8),
    learning_rate: float = 1e-3,
    heads: tuple[str, ...] = tuple(HEADS),
    out: Path = Path("results/heads.json"),
) -> None:
    """Train and judge every head on all kinds of data with every seed.

    Args:
        scenes: of the training split.
        epochs: on one answer, on two, and on trajectories. Heads with one answer per scene have nothing to gain from
            seeing two of them for longer, so on two answers they get as many epochs as on one.
    """
    passes = dict(zip(KINDS_OF_DATA, epochs, strict=True))
    passes_of = {
        (head, data): passes["one answer"] if data == "two answers" and head not in GENERATIVE else passes[data]
        for head in HEADS
        for data in KINDS_OF_DATA
    }
    checkpoints = tempfile.TemporaryDirectory()
    jobs = [
        (preset, head, data, seed, scenes, passes_of[head, data], learning_rate, device, checkpoints.name)
        for data in ("two answers", "trajectories", "one answer")  # the longest first
        for head in KINDS_OF_DATA[data]
        for seed in range(seeds)
        if head in heads
    ]
    with mp.get_context("spawn").Pool(workers) as pool:
        rows = []
        for row in pool.imap_unordered(train_one, [(number, *job) for number, job in enumerate(jobs)]):
            rows.append(row)
            shown = {k: round(v, 3) for k, v in row.items() if isinstance(v, float)}
            print(row["head"], row["data"], row["seed"], shown, [round(x, 2) for x in row["curve"]], flush=True)
    summary: dict[str, dict[str, Any]] = {head: {} for head in heads}
    for head in heads:
        for data in KINDS_OF_DATA:
            runs = sorted((r for r in rows if (r["head"], r["data"]) == (head, data)), key=lambda r: r["seed"])
            if runs:
                names = [name for name, value in runs[0].items() if isinstance(value, int | float) and name != "seed"]
                summary[head][data] = {name: spread([r[name] for r in runs]) for name in names} | {
                    "epochs": passes_of[head, data],
                    "curves": [r["curve"] for r in runs],
                }
                if steps := runs[0].get("by_sampling_steps"):
                    summary[head][data]["by_sampling_steps"] = {
                        k: spread([r["by_sampling_steps"][k] for r in runs]) for k in steps
                    }
                policy = TinyVLA.from_pretrained(Path(checkpoints.name) / checkpoint_name(head, data), device)
                summary[head][data]["milliseconds"] = {str(n): milliseconds(policy, n) for n in (1, 256)}
                summary[head][data]["parameters"] = policy.num_parameters()["head"]
    checkpoints.cleanup()
    report = {
        "command": recorded_command(),
        "machine": describe_device(torch.device(device)),
        "preset": preset,
        "scenes": scenes,
        "hidden_dim": HIDDEN,
        "learning_rate": learning_rate,
        "horizon": HORIZON,
        "seeds": seeds,
        "heads": summary,
    }
    out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
