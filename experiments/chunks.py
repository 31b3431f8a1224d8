"""Predict how many actions at once, do how many before looking again? Writes `results/closed_loop_chunks.json`.

    python scripts/measure_chunks.py --device cuda --workers 8

Policies clone the expert in chunks of several lengths, with the regression head and with flow matching. Each is rolled
out with every execution horizon up to its chunk's length, in two worlds:
- exact: the camera moves as told;
- drifting: a steady current carries the camera to the right at every step. Nobody is trained on that.

`results/closed_loop_chunks_longer.json` is flow matching alone with long chunks and three times as many epochs
(`--heads flow --horizons 16 --epochs 60`).
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.multiprocessing as mp

from tinyvla.measure.bench import describe_device, recorded_command, spread, take_turns
from tinyvla.config import DataConfig, ModelConfig, TrainConfig, model_config
from tinyvla.act.rollout import Act, demonstrations, policy_act, rollout
from tinyvla.learn.train import fit, new_policy
from tinyvla.act.block_world import WorldConfig, episode_seeds

METRICS = ("success", "reached", "path_ratio", "mean_steps", "mean_looks")


def with_head(preset: str, kind: str, horizon: int) -> ModelConfig:
    config = model_config(preset, head=kind)
    return replace(config, head=replace(config.head, horizon=horizon))


def carried(act: Act, pixels: float) -> Act:
    """The same policy in a current: every step carries the camera that far to the right, whatever it does."""
    current = np.array([pixels / WorldConfig().step_size, 0.0])
    return lambda images, instructions: act(images, instructions) + current


def train_one(job: tuple[str, int, int, dict[str, Any]]) -> list[dict[str, Any]]:
    """One policy, rolled out with every execution horizon in both worlds."""
    kind, horizon, seed, settings = job
    torch.set_num_threads(1)
    take_turns(seed)
    device, data = settings["device"], DataConfig()
    train = demonstrations(settings["episodes"], 1_000 + seed, device=device, horizon=horizon)
    val = demonstrations(100, data.val_seed, device=device, horizon=horizon)
    policy = new_policy(with_head(settings["preset"], kind, horizon), seed, device)
    config = replace(TrainConfig(), epochs=settings["epochs"], learning_rate=1e-3, seed=seed)
    records = fit(policy, train, val, config, progress_bar=False)
    test = episode_seeds(settings["num_test"], data.test_seed)
    rows = []
    for execute in [e for e in settings["executes"] if e <= horizon]:
        for world, pixels in (("exact", 0.0), ("drifting", settings["drift"])):
            result = rollout(carried(policy_act(policy), pixels), test, execute=execute)
            values = {**result.to_dict(), "mean_looks": float(result.looks.mean())}
            row = {"head": kind, "horizon": horizon, "execute": execute, "world": world, "seed": seed}
            rows.append({**row, **{m: values[m] for m in METRICS}, "val_loss": records[-1]["val_loss"]})
    return rows


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Spread over the seeds of each combination."""
    keys = ("head", "horizon", "execute", "world")
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[k] for k in keys), []).append(row)
    return [
        {**dict(zip(keys, group, strict=True)), **{m: spread([r[m] for r in runs]) for m in METRICS}}
        for group, runs in groups.items()
    ]


def main(
    device: str = "cpu",
    workers: int = 1,
    seeds: int = 4,
    heads: tuple[str, ...] = ("regression", "flow"),
    horizons: tuple[int, ...] = (1, 2, 4, 8, 16),
    episodes: int = 400,
    epochs: int = 20,
    drift: float = 0.8,
    num_test: int = 500,
    preset: str = "nano",
    out: Path = Path("results/closed_loop_chunks.json"),
) -> None:
    """Train and judge them all.

    Args:
        horizons: chunk lengths, and the execution horizons to try.
        episodes: the expert's, to clone.
        drift: pixels per step.
    """
    settings: dict[str, Any] = {
        "preset": preset,
        "device": device,
        "episodes": episodes,
        "epochs": epochs,
        "executes": horizons,
        "drift": drift,
        "num_test": num_test,
    }
    jobs = [(kind, horizon, seed, settings) for horizon in horizons for kind in heads for seed in range(seeds)]
    started = time.perf_counter()
    with mp.get_context("spawn").Pool(workers) as pool:
        rows = [row for run in pool.imap(train_one, jobs, chunksize=1) for row in run]
    report = {
        "command": recorded_command(),
        "machine": describe_device(torch.device(device)),
        "seconds": time.perf_counter() - started,
        "seeds": seeds,
        "heads": heads,
        "horizons": horizons,
        "learning_rate": 1e-3,
        **{k: v for k, v in settings.items() if k not in ("device", "executes")},
        "runs": summary(rows),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"{len(jobs)} policies in {report['seconds']:.0f} s; wrote {out}")
    for row in report["runs"]:
        print(f"{row['head']:11}{row['world']:9}{row['horizon']:4}{row['execute']:4}", end="")
        print(f"{row['success']['min']:7.3f} -{row['success']['max']:6.3f}{row['path_ratio']['median']:8.3f}", end="")
        print(f"{row['mean_looks']['median']:7.1f}")


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
