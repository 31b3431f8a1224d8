"""Predict how many actions at once, do how many before looking again? Writes `results/closed_loop_chunks.json`.

    python experiments/chunks.py --device cuda --workers 8

Policies clone the expert in chunks of several lengths, with the regression head and with flow matching. Each is rolled
out with every execution horizon up to its chunk's length, in two worlds:
- exact: the camera moves as told;
- drifting: a steady current carries the camera to the right at every step, whatever the policy does. It belongs to the
  world and is not cut off with the action. Nobody is trained on that.

`results/closed_loop_chunks_longer.json` is flow matching alone with long chunks and three times as many epochs
(`--heads flow --horizons 16 --epochs 60`). Chapter 8 shows both; the results page names them beside the closed loop.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import harness
from harness import Job, Row, groups, main, spreads
from training import train

from tinyvla.act.blocks.world import BlockWorld
from tinyvla.act.dagger import demonstrations
from tinyvla.act.rollout import rollout
from tinyvla.act.world import episode_seeds
from tinyvla.config import ModelConfig, model_config
from tinyvla.course.ch08 import CurrentWorld
from tinyvla.model.policy import new_policy
from tinyvla.recipes import TrainConfig

METRICS = ("success", "reached", "path_ratio", "mean_steps", "mean_looks")
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Args(harness.Args):
    """Train and judge them all."""

    seeds: int = 4
    heads: tuple[str, ...] = ("regression", "flow")
    horizons: tuple[int, ...] = (1, 2, 4, 8, 16)
    """Chunk lengths, and the execution horizons to try."""
    episodes: int = 400
    """The expert's, to clone."""
    val_episodes: int = 100
    """The expert's, to validate on."""
    epochs: int = 20
    drift: float = 0.8
    """Pixels per step."""
    num_test: int = 500
    preset: str = "nano"
    out: Path = Path("results/closed_loop_chunks.json")


def jobs(args: Args) -> list[Job]:
    kinds = [(head, horizon) for horizon in args.horizons for head in args.heads]
    return [Job({"head": head, "horizon": horizon}, seed) for head, horizon in kinds for seed in range(args.seeds)]


def run(job: Job, args: Args) -> list[Row]:
    """One policy, rolled out with every execution horizon in both worlds."""
    policy = new_policy(with_head(args.preset, job.what["head"], job.what["horizon"]), job.seed, args.where)
    split = demonstrations(BlockWorld(episode_seeds(args.episodes, 1_000 + job.seed)), policy)
    val = demonstrations(BlockWorld(episode_seeds(args.val_episodes, args.data.val_seed)), policy)
    config = TrainConfig(epochs=args.epochs, learning_rate=LEARNING_RATE, seed=job.seed)
    trained = train(policy, split, val, config, "plain")
    test = episode_seeds(args.num_test, args.data.test_seed)
    rows = []
    for execute in [e for e in args.horizons if e <= job.what["horizon"]]:
        for world, place in (("exact", BlockWorld(test)), ("drifting", CurrentWorld(test, args.drift))):
            result = rollout(policy, place, execute=execute)
            values = {**result.to_dict(), "mean_looks": float(result.looks.mean())}
            row = {"execute": execute, "world": world, "val_loss": trained.last["val_loss"]}
            rows.append({**row, **{name: values[name] for name in METRICS}})
    return rows


def with_head(preset: str, kind: str, horizon: int) -> ModelConfig:
    """A preset with a head that answers with chunks."""
    config = model_config(preset, head=kind)
    return replace(config, head=replace(config.head, horizon=horizon))


def summary(rows: list[Row], args: Args) -> Row:
    """Spread over the seeds of each combination."""
    keys = ("head", "horizon", "execute", "world")
    runs = [
        {**dict(zip(keys, group, strict=True)), **spreads(found, METRICS)}
        for group, found in groups(rows, *keys).items()
    ]
    names = ("seeds", "heads", "horizons", "preset", "episodes", "epochs", "drift", "num_test")
    return {**args.settings(*names), "learning_rate": LEARNING_RATE, "runs": runs}


if __name__ == "__main__":
    main(Args, jobs, run, summary)
