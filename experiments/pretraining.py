r"""How many labels does a pretraining save? Writes `results/pretraining.json`.

    python scripts/measure_pretraining.py --device cuda --workers 8

The towers are pretrained on captioned photographs (`tinyvla.adapt.contrastive`), anew for each seed. Then policies learn to
act from few and from many labelled photographs, all for the same number of steps, without early stopping:
- scratch: everything learns, from initial weights;
- frozen: the pretrained towers stay as they are; fusion and head learn;
- fine-tuned: everything learns, the towers from their pretrained weights on;
- random: the towers stay as they are and were never trained, which tells what freezing alone does;
- clean: scratch on the plain renderings, which tells how much of the difficulty the photographs make.

The second command asks the same of worse photographs, and writes `results/pretraining_worse.json`:

    python scripts/measure_pretraining.py --device cuda --workers 8 \
        --camera.light 1.6 --camera.ground 80 --camera.shade 30 --camera.grain 24 --out results/pretraining_worse.json
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file
from torch import Tensor

from tinyvla.data.batch import TensorSplit, epoch_order
from tinyvla.measure.bench import describe_device, recorded_command, spread, take_turns
from tinyvla.config import DataConfig, TrainConfig, model_config
from tinyvla.adapt.contrastive import (
    Camera,
    ImageCaptionModel,
    PretrainConfig,
    captioned,
    matching_accuracy,
    photograph,
    pretrain,
    take_towers,
)
from tinyvla.data.blockfind import BlockFind
from tinyvla.learn.evaluate import Metrics, predict_split
from tinyvla.model.policy import TinyVLA
from tinyvla.speed.recorded import StepOptions, restart
from tinyvla.learn.train import choose_device, learning_rate_at, make_optimizer, make_step, new_policy, set_learning_rate

METHODS = ("scratch", "frozen", "fine-tuned", "random", "clean")
PAIRS = (("frozen", "scratch"), ("fine-tuned", "scratch"), ("frozen", "random"))
METRICS = ("direction_accuracy", "within_10_degrees", "l2_error")
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 8: 2.365, 10: 2.262}
"""Student's t for a 95 % interval of a mean of so many values."""


def labelled(count: int, seed: int, device: torch.device, camera: Camera | None) -> TensorSplit:
    """Scenes with instruction and action; photographed, or plain without a camera. The same on every device."""
    tensors = TensorSplit.from_blockfind(BlockFind(count, seed))
    if camera:
        generator = torch.Generator().manual_seed(seed)
        parts = [photograph(part, generator, camera) for part in tensors.images.split(500)]
        tensors = replace(tensors, images=torch.cat(parts))
    return TensorSplit(*(getattr(tensors, name).to(device) for name in TensorSplit.__dataclass_fields__))


def towers_of(preset: str, seed: int) -> ImageCaptionModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ImageCaptionModel(model_config(preset))


def pretrain_one(job: tuple[int, str, dict[str, Any]]) -> dict[str, Any]:
    """One pretraining; its weights go to a file."""
    seed, folder, settings = job
    torch.set_num_threads(1)
    take_turns(seed)
    device, camera = torch.device(settings["device"]), Camera(**settings["camera"])
    model = towers_of(settings["preset"], seed).to(device)
    options = replace(StepOptions.for_device(device), graph=False)
    started = time.perf_counter()
    config = replace(PretrainConfig(**settings["pretraining"]), seed=seed)
    loss = pretrain(model, config, camera, options)
    seconds = time.perf_counter() - started
    images, (ids, mask) = captioned(200, 8_000_000, device)
    photographs = photograph(images, torch.Generator(device).manual_seed(0), camera)
    match = matching_accuracy(model, photographs, ids, mask)
    save_file({name: value.cpu().contiguous() for name, value in model.state_dict().items()}, f"{folder}/{seed}")
    return {"seed": seed, "loss": loss, "matching_accuracy_of_200": match, "seconds": seconds}


def batches(num_labels: int, batch_size: int, num_steps: int, seed: int) -> Iterator[Tensor]:
    """Indices of each step's scenes: epoch after epoch, all of the same length."""
    epochs = math.ceil(num_steps * batch_size / num_labels)
    order = torch.cat([epoch_order(num_labels, seed, epoch) for epoch in range(epochs)])
    return iter(order[: num_steps * batch_size].split(batch_size))


def start_of(method: str, seed: int, folder: str, settings: dict[str, Any]) -> TinyVLA:
    """A policy as it is before the first label."""
    policy = new_policy(model_config(settings["preset"]), seed)
    if method in ("frozen", "fine-tuned"):
        model = towers_of(settings["preset"], seed)
        model.load_state_dict(load_file(f"{folder}/{seed}"))
        take_towers(policy, model, frozen=method == "frozen")
    if method == "random":
        policy.vision.requires_grad_(False)
        policy.language.requires_grad_(False)
    return policy


def train_one(job: tuple[str, int, str, dict[str, Any]]) -> list[dict[str, Any]]:
    """One method and seed, with every number of labels. A recorded step serves them all."""
    method, seed, folder, settings = job
    torch.set_num_threads(1)
    take_turns(seed * len(METHODS) + METHODS.index(method))
    device, steps = torch.device(settings["device"]), settings["num_steps"]
    camera = None if method == "clean" else Camera(**settings["camera"])
    sizes = settings["few_sizes"] if method in ("random", "clean") else settings["sizes"]
    train = labelled(max(sizes), 1_000 + seed, device, camera)
    test = labelled(settings["num_test"], DataConfig().test_seed, device, camera)
    config = TrainConfig(learning_rate=1e-3, seed=seed)
    options = StepOptions.for_device(device)
    start = start_of(method, seed, folder, settings).to(device)
    policy = start_of(method, seed, folder, settings).to(device).train()
    optimizer = make_optimizer(policy, config, capturable=options.graph)
    take_step = make_step(policy, optimizer, train, config, torch.Generator(device), options)
    rows = []
    for num_labels in sizes:
        restart(policy, optimizer, start)
        started, losses = time.perf_counter(), []
        for step, index in enumerate(batches(num_labels, config.batch_size, steps, seed)):
            set_learning_rate(optimizer, learning_rate_at(step, steps, config))
            losses.append(take_step(index.to(device)))
        last = torch.stack(losses[-20:]).mean().item()
        seconds = time.perf_counter() - started
        metrics = Metrics.of(predict_split(policy, test), test.actions.cpu())
        row = {"method": method, "num_labels": num_labels, "seed": seed, "train_loss": last, "seconds": seconds}
        rows.append({**row, **{name: getattr(metrics, name) for name in METRICS}})
    return rows


def paired_difference(rows: list[dict[str, Any]], better: str, worse: str, num_labels: int) -> dict[str, Any]:
    """Mean difference in direction accuracy over the seeds, and its 95 % t-interval."""

    def by_seed(method: str) -> dict[int, float]:
        found = [r for r in rows if (r["method"], r["num_labels"]) == (method, num_labels)]
        return {r["seed"]: r["direction_accuracy"] for r in found}

    one, other = by_seed(better), by_seed(worse)
    gaps = torch.tensor([one[seed] - other[seed] for seed in sorted(one.keys() & other.keys())], dtype=torch.double)
    half = T_95[len(gaps)] * gaps.std().item() / math.sqrt(len(gaps)) if len(gaps) in T_95 else math.nan
    mean = gaps.mean().item()
    return {"better": better, "worse": worse, "num_labels": num_labels, "mean": mean,
            "interval": [mean - half, mean + half], "gaps": gaps.tolist()}  # fmt: skip


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Spread over the seeds of each method and number of labels."""
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["method"], row["num_labels"]), []).append(row)
    names = (*METRICS, "train_loss")
    return [
        {"method": method, "num_labels": count, **{name: spread([r[name] for r in runs]) for name in names}}
        for (method, count), runs in groups.items()
    ]


def main(
    device: str = "cpu",
    workers: int = 1,
    seeds: int = 10,
    methods: tuple[str, ...] = METHODS,
    sizes: tuple[int, ...] = (100, 200, 500, 1000, 2000, 8000),
    few_sizes: tuple[int, ...] = (100, 500, 2000),
    num_steps: int = 800,
    num_pairs: int = 50_000,
    pretrain_steps: int = 5_000,
    pretrain_batch: int = 256,
    num_test: int = 1_000,
    preset: str = "nano",
    camera: Camera = Camera(),  # noqa: B008 - frozen
    out: Path = Path("results/pretraining.json"),
) -> None:
    """Pretrain, then train and judge all.

    Args:
        sizes: numbers of labelled scenes.
        few_sizes: of the controls, random and clean.
        num_steps: of each policy's training, whatever its number of labels.
        num_pairs: captioned scenes for the pretraining.
    """
    pretraining = PretrainConfig(num_pairs=num_pairs, num_steps=pretrain_steps, batch_size=pretrain_batch)
    settings: dict[str, Any] = {
        "preset": preset, "device": choose_device(device).type, "sizes": sizes, "few_sizes": few_sizes,
        "num_steps": num_steps, "num_test": num_test, "camera": asdict(camera), "pretraining": asdict(pretraining),
    }  # fmt: skip
    report: dict[str, Any] = {
        "command": recorded_command(),
        "machine": describe_device(choose_device(device)),
        "seeds": seeds,
        "learning_rate": TrainConfig(learning_rate=1e-3).learning_rate,
        "batch_size": TrainConfig().batch_size,
        **{name: value for name, value in settings.items() if name != "device"},
    }
    started, rows = time.perf_counter(), []

    def write(complete: bool = False) -> None:
        gaps = [
            paired_difference(rows, better, worse, count)
            for better, worse in PAIRS
            for count in sizes
            if all(any((r["method"], r["num_labels"]) == (m, count) for r in rows) for m in (better, worse))
        ]
        report.update(complete=complete, seconds=time.perf_counter() - started)
        report.update(differences=gaps, summary=summary(rows), rows=rows)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")

    with tempfile.TemporaryDirectory() as folder, mp.get_context("spawn").Pool(workers) as pool:
        jobs = [(seed, folder, settings) for seed in range(seeds)]
        report["pretrained"] = []
        for run in pool.imap(pretrain_one, jobs, chunksize=1):
            report["pretrained"].append(run)
            write()
        print(f"pretrained {len(jobs)} times in {report['seconds']:.0f} s", report["pretrained"], flush=True)
        trainings = [(method, seed, folder, settings) for seed in range(seeds) for method in methods]
        for found in pool.imap_unordered(train_one, trainings, chunksize=1):
            rows += found
            write()
        write(complete=True)
    print(f"{len(rows)} policies; {report['seconds']:.0f} s; wrote {out}")
    for row in report["summary"]:
        accuracy = row["direction_accuracy"]
        print(f"{row['method']:12}{row['num_labels']:6}{accuracy['min']:7.3f} -{accuracy['max']:6.3f}", end="")
        print(f"  loss {row['train_loss']['median']:.3f}")
    for gap in report["differences"]:
        print(f"{gap['better']} - {gap['worse']}, {gap['num_labels']}: {gap['mean']:+.3f} {gap['interval']}")


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
