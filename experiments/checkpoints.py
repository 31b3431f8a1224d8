"""Does a low offline error promise success? Writes `results/closed_loop_checkpoints.json`.

    python scripts/measure_checkpoints.py --device cuda --workers 8

Every checkpoint is judged twice: by its error on held-out data, without acting, and by rollouts on the same test
episodes. Runs of three kinds, several seeds each:
- cloning: the expert's episodes, a few or many of them, a checkpoint after each few steps; held out: the expert's;
- dagger: a checkpoint after each round; held out: the expert's states, as for cloning;
- stills: BlockFind's first views and their unit arrows; held out: other first views, which is what somebody would look
  at who has no rollouts. The error on the expert's states is noted beside it.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp

from tinyvla.data.batch import TensorSplit
from tinyvla.measure.bench import describe_device, recorded_command, take_turns
from tinyvla.config import DataConfig, TrainConfig, model_config
from tinyvla.data.blockfind import BlockFind
from tinyvla.learn.evaluate import validation_loss
from tinyvla.model.policy import TinyVLA
from tinyvla.act.rollout import dagger, demonstrations, policy_act, rollout
from tinyvla.speed.recorded import StepOptions
from tinyvla.learn.train import fit, new_policy
from tinyvla.act.block_world import episode_seeds

Job = tuple[str, int, int, dict[str, Any]]
"""Kind, episodes or scenes, seed, settings."""

SHOWN = ("success", "success_interval", "reached", "path_ratio", "mean_steps", "num_episodes")


def judge(policy: TinyVLA, expert_states: TensorSplit, settings: dict[str, Any]) -> dict[str, Any]:
    """Error on the expert's held-out states, and success."""
    result = rollout(policy_act(policy), episode_seeds(settings["num_test"], DataConfig().test_seed)).to_dict()
    loss, metrics = validation_loss(policy, expert_states)
    return {
        "expert_error": loss,
        "expert_direction_accuracy": metrics.direction_accuracy,
        **{k: result[k] for k in SHOWN},
    }


def train_stills_or_clone(kind: str, size: int, seed: int, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """A checkpoint after each of `checkpoints` equal shares of the steps."""
    device, data = settings["device"], DataConfig()
    expert_states = demonstrations(100, data.val_seed, device=device)
    if kind == "stills":
        train = TensorSplit.from_blockfind(BlockFind(size, data.train_seed + 1_000 + seed), device)
        own = TensorSplit.from_blockfind(BlockFind(data.num_val, data.val_seed), device)
    else:
        train, own = demonstrations(size, 1_000 + seed, device=device), expert_states
    policy = new_policy(model_config(settings["preset"]), seed, device)
    steps_per_epoch = math.ceil(len(train) / 64)
    epochs = max(1, round(settings["steps"] / steps_per_epoch))
    wanted = {round(epochs * (i + 1) / settings["checkpoints"]) for i in range(settings["checkpoints"])}
    rows: list[dict[str, Any]] = []

    def note(record: dict[str, Any]) -> None:
        if record["epoch"] in wanted:
            judged = judge(policy, expert_states, settings)
            rows.append({"step": record["step"], "own_error": record["val_loss"], **judged})

    config = replace(TrainConfig(), epochs=epochs, learning_rate=1e-3, seed=seed)
    options = StepOptions.for_device(torch.device(device))
    fit(policy, train, own, config, on_epoch=note, progress_bar=False, options=options)
    return [{**row, "num_states": len(train)} for row in rows]


def train_dagger(episodes: int, seed: int, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """A checkpoint after each round."""
    config = replace(TrainConfig(), epochs=settings["dagger_epochs"], learning_rate=1e-3, seed=seed)
    data = DataConfig(train_seed=1_000 + seed)
    model = model_config(settings["preset"])
    options = {"data": data, "num_test": settings["num_test"], "device": settings["device"]}
    _, records = dagger(model, settings["dagger_rounds"], episodes, config, **options)
    return [
        {
            "step": record["train_steps"],
            "own_error": record["val_loss"],
            "expert_error": record["val_loss"],
            **{k: record[k] for k in (*SHOWN, "num_states")},
        }
        for record in records
    ]


def train_one(job: Job) -> list[dict[str, Any]]:
    """All checkpoints of one run."""
    kind, size, seed, settings = job
    torch.set_num_threads(1)
    take_turns(seed)
    rows = train_dagger(size, seed, settings) if kind == "dagger" else train_stills_or_clone(kind, size, seed, settings)
    return [{"kind": kind, "size": size, "seed": seed, **row} for row in rows]


def main(
    device: str = "cpu",
    workers: int = 1,
    seeds: int = 4,
    steps: int = 600,
    checkpoints: int = 12,
    cloning: tuple[int, ...] = (50, 200, 800),
    stills: tuple[int, ...] = (4_000,),
    dagger_episodes: tuple[int, ...] = (50,),
    dagger_rounds: int = 4,
    dagger_epochs: int = 4,
    num_test: int = 500,
    preset: str = "nano",
    out: Path = Path("results/closed_loop_checkpoints.json"),
) -> None:
    """Train and judge them all.

    Args:
        steps: of each run of cloning and stills, about.
        checkpoints: of each such run.
        cloning: numbers of the expert's episodes.
        stills: numbers of first views.
        dagger_episodes: new ones in each of DAgger's rounds.
    """
    settings: dict[str, Any] = {
        "preset": preset,
        "device": device,
        "num_test": num_test,
        "steps": steps,
        "checkpoints": checkpoints,
        "dagger_rounds": dagger_rounds,
        "dagger_epochs": dagger_epochs,
    }
    sizes = (("dagger", dagger_episodes), ("cloning", cloning), ("stills", stills))
    jobs = [(kind, size, seed, settings) for kind, of_kind in sizes for size in of_kind for seed in range(seeds)]
    started = time.perf_counter()
    with mp.get_context("spawn").Pool(workers) as pool:
        rows = [row for run in pool.imap(train_one, jobs, chunksize=1) for row in run]
    report = {
        "command": recorded_command(),
        "machine": describe_device(torch.device(device)),
        "seconds": time.perf_counter() - started,
        "seeds": seeds,
        "learning_rate": 1e-3,
        **{k: v for k, v in settings.items() if k != "device"},
        "checkpoint_rows": rows,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"{len(rows)} checkpoints in {report['seconds']:.0f} s; wrote {out}")


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
