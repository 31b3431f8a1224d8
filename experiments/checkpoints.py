"""Does a low offline error promise success? Writes `results/closed_loop_checkpoints.json`.

    python experiments/checkpoints.py --device cuda --workers 8

Every checkpoint is judged twice: by its error on held-out data, without acting, and by rollouts on the same test
episodes. Runs of three kinds, several seeds each:
- cloning: the expert's episodes, a few or many of them, a checkpoint after each few steps; held out: the expert's;
- dagger: a checkpoint after each round; held out: the expert's states, as for cloning;
- stills: BlockFind's first views and their unit arrows; held out: other first views, which is what somebody would look
  at who has no rollouts. The error on the expert's states is noted beside it.
Chapter 8 shows them; the results page names them beside the closed loop.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import harness
from harness import Job, Row, main
from training import blockfind, tensors, train

from tinyvla.act.blocks.world import BlockWorld
from tinyvla.act.dagger import dagger, demonstrations
from tinyvla.act.rollout import rollout
from tinyvla.act.world import episode_seeds
from tinyvla.config import model_config
from tinyvla.data.batch import TensorSplit
from tinyvla.data.dataset import BlockFind
from tinyvla.learn.callbacks import OnEpoch
from tinyvla.learn.evaluate import validation_loss
from tinyvla.model.policy import TinyVLA, new_policy
from tinyvla.recipes import TrainConfig

SHOWN = ("success", "success_interval", "reached", "path_ratio", "mean_steps", "num_episodes")
SETTINGS = TrainConfig(learning_rate=1e-3)


@dataclass(frozen=True)
class Args(harness.Args):
    """Train and judge them all."""

    seeds: int = 4
    steps: int = 600
    """Of each run of cloning and stills, about."""
    checkpoints: int = 12
    """Of each such run."""
    cloning: tuple[int, ...] = (50, 200, 800)
    """Numbers of the expert's episodes."""
    stills: tuple[int, ...] = (4_000,)
    """Numbers of first views."""
    val_episodes: int = 100
    """The expert's, whose states are held out."""
    dagger_episodes: tuple[int, ...] = (50,)
    """New ones in each of DAgger's rounds."""
    dagger_rounds: int = 4
    dagger_epochs: int = 4
    num_test: int = 500
    preset: str = "nano"
    out: Path = Path("results/closed_loop_checkpoints.json")


def jobs(args: Args) -> list[Job]:
    sizes = (("dagger", args.dagger_episodes), ("cloning", args.cloning), ("stills", args.stills))
    kinds = [{"kind": kind, "size": size} for kind, of_kind in sizes for size in of_kind]
    return [Job(kind, seed) for kind in kinds for seed in range(args.seeds)]


def run(job: Job, args: Args) -> list[Row]:
    """All checkpoints of one run."""
    return train_dagger(job, args) if job.what["kind"] == "dagger" else train_offline(job, args)


def train_dagger(job: Job, args: Args) -> list[Row]:
    """A checkpoint after each round."""
    config = replace(SETTINGS, epochs=args.dagger_epochs, seed=job.seed)
    data = replace(args.data, train_seed=1_000 + job.seed)
    options: dict[str, Any] = {"data": data, "num_test": args.num_test, "device": args.where}
    _, records = dagger(model_config(args.preset), args.dagger_rounds, job.what["size"], config, **options)
    return [
        {
            "step": record["train_steps"],
            "own_error": record["val_loss"],
            "expert_error": record["val_loss"],
            **{name: record[name] for name in (*SHOWN, "num_states")},
        }
        for record in records
    ]


def train_offline(job: Job, args: Args) -> list[Row]:
    """Cloning or stills: a checkpoint after each of `checkpoints` equal shares of the steps."""
    policy = new_policy(model_config(args.preset), job.seed, args.where)
    expert_states = demonstrations(BlockWorld(episode_seeds(args.val_episodes, args.data.val_seed)), policy)
    split, own = split_and_val(job, args, policy, expert_states)
    epochs = max(1, round(args.steps / SETTINGS.steps_per_epoch(len(split))))
    wanted = {round(epochs * (i + 1) / args.checkpoints) for i in range(args.checkpoints)}
    rows: list[Row] = []

    def note(record: Row) -> None:
        if record["epoch"] in wanted:
            row = {"step": record["step"], "own_error": record["val_loss"], "num_states": len(split)}
            rows.append({**row, **judge(policy, expert_states, args)})

    train(policy, split, own, replace(SETTINGS, epochs=epochs, seed=job.seed), callbacks=[OnEpoch(note)])
    return rows


def split_and_val(job: Job, args: Args, policy: TinyVLA, expert_states: TensorSplit) -> tuple[TensorSplit, TensorSplit]:
    """What is learned from, and what is held out of the same kind."""
    if job.what["kind"] == "cloning":
        return demonstrations(BlockWorld(episode_seeds(job.what["size"], 1_000 + job.seed)), policy), expert_states
    first_views = BlockFind(job.what["size"], args.data.train_seed + 1_000 + job.seed)
    return tensors(policy, first_views), tensors(policy, blockfind(args.data)[1])


def judge(policy: TinyVLA, expert_states: TensorSplit, args: Args) -> Row:
    """Error on the expert's held-out states, and success."""
    result = rollout(policy, BlockWorld(episode_seeds(args.num_test, args.data.test_seed))).to_dict()
    loss, metrics = validation_loss(policy, expert_states)
    accuracy = metrics.direction_accuracy
    return {"expert_error": loss, "expert_direction_accuracy": accuracy, **{name: result[name] for name in SHOWN}}


def summary(rows: list[Row], args: Args) -> Row:
    names = ("seeds", "preset", "num_test", "steps", "checkpoints", "dagger_rounds", "dagger_epochs")
    return {**args.settings(*names), "learning_rate": SETTINGS.learning_rate, "checkpoint_rows": rows}


if __name__ == "__main__":
    main(Args, jobs, run, summary)
