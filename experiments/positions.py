"""Learned positions: the smaller they start, the longer the loss stays on its plateau? Writes `results/positions.json`.

    python experiments/positions.py --device cuda --workers 7

The same `nano` policy with several kinds of positions, each with ten seeds. The learning rate stays constant after
the warm-up, so that no schedule ends a run early. A run ends when it has learned the task, or after `steps` steps.
- sine-cosine: the package's own, fixed;
- learned-STD: a trainable table that starts at that standard deviation, the same draw for each, only scaled;
- scaled: the table of learned-0.02, multiplied by 50 where it is added.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
import torch
from harness import Job, Row, groups, main
from page import grid, prose, section_of, source, span
from torch import Tensor, nn
from torch.nn.utils import parametrize
from training import Clock, blockfind, judge, tensors, train

from tinyvla.config import model_config
from tinyvla.data.batch import TensorSplit
from tinyvla.learn.callbacks import Interrupted
from tinyvla.model.policy import TinyVLA, new_policy
from tinyvla.model.vision import TinyViT
from tinyvla.recipes import TrainConfig
from tinyvla.speed.step import make_step
from tinyvla.speed.tuned import StepOptions
from tinyvla.stats import spread

RESULTS = ("positions",)
KINDS = ("sine-cosine", "learned-1.0", "scaled", "learned-0.1", "learned-0.02")
WINDOW = 20
"""Steps over which the loss is averaged."""
LEFT, LEARNED = 0.4, 0.1
"""Mean losses at which a run has left the plateau (0.5 is the loss of always answering (0, 0)) and learned the task."""


@dataclass(frozen=True)
class Args(harness.Args):
    """Train every kind with every seed."""

    kinds: tuple[str, ...] = KINDS
    seeds: int = 10
    preset: str = "nano"
    steps: int = 3_000
    """After which a run that has not learned the task ends."""
    learning_rate: float = 1e-3
    out: Path = Path("results/positions.json")


class Times(nn.Module):
    """Multiplies a parameter by a number where it is used."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, value: Tensor) -> Tensor:
        """Returns the value that is used."""
        return self.factor * value


class UntilLearned(Clock):
    """Stops when the task is learned; notes, every ten steps, how long positions are, measured in patches' lengths."""

    every = 10

    def __init__(self, vision: TinyViT, split: TensorSplit) -> None:
        self.vision, self.images = vision, next(iter(split.images.values()))[:64].float() / 255
        self.ratios: list[float] = [length_ratio(vision, self.images)]

    def on_step(self, step: int, loss: float, learning_rate: float) -> None:
        """Count the step, and look."""
        super().on_step(step, loss, learning_rate)
        if step % self.every == 0:
            self.ratios.append(length_ratio(self.vision, self.images))
            self.stop = step >= WINDOW and sum(self.losses[-WINDOW:]) / WINDOW < LEARNED


@torch.no_grad()
def length_ratio(vision: TinyViT, images: Tensor) -> float:
    """Mean length of the position vectors, divided by that of the projected patches."""
    patches = vision.patch_projection(vision.patchify(2 * images - 1))
    return (vision.positions.norm(dim=-1).mean() / patches.norm(dim=-1).mean()).item()


def set_positions(policy: TinyVLA, kind: str, seed: int) -> None:
    """Replace the fixed positions of a policy by the kind's."""
    vision: Any = policy.vision
    if kind == "sine-cosine":
        return
    noise = torch.randn(vision.positions.shape, generator=torch.Generator().manual_seed(seed)).to(policy.device)
    del vision.positions  # a buffer; a parameter of that name takes its place
    std = 0.02 if kind == "scaled" else float(kind.removeprefix("learned-"))
    vision.positions = nn.Parameter(std * noise)
    if kind == "scaled":
        parametrize.register_parametrization(vision, "positions", Times(50))


def jobs(args: Args) -> list[Job]:
    return [Job({"kind": kind}, seed) for kind in args.kinds for seed in range(args.seeds)]


def run(job: Job, args: Args) -> Row:
    """Train until the task is learned, and note the way there."""
    policy = new_policy(model_config(args.preset), job.seed, args.where)
    set_positions(policy, job.what["kind"], job.seed)
    split, val = (tensors(policy, scenes) for scenes in blockfind(args.data)[:2])
    epochs = args.steps * 64 / len(split)
    config = TrainConfig(epochs=epochs, learning_rate=args.learning_rate, decay_fraction=0.0, seed=job.seed)
    watch = UntilLearned(policy.vision, split)
    step = make_step(policy, split, config, StepOptions(used_rows=True))  # the plain step's weights, sooner
    with suppress(Interrupted):
        train(policy, split, val, config, step=step, callbacks=[watch])
    return {
        "steps": len(watch.losses),
        "left": first_below(watch.losses, LEFT),
        "learned": first_below(watch.losses, LEARNED),
        "direction_accuracy": judge(policy, val).direction_accuracy,
        "losses": [round(loss, 4) for loss in watch.losses],
        "ratios": [round(ratio, 4) for ratio in watch.ratios],
    }


def first_below(losses: list[float], level: float) -> int | None:
    """Returns the first step at which the mean loss of the last `WINDOW` steps lies below a level, if there is one."""
    means = (sum(losses[end - WINDOW : end]) / WINDOW for end in range(WINDOW, len(losses) + 1))
    return next((step for step, mean in enumerate(means, start=WINDOW) if mean < level), None)


def summary(rows: list[Row], args: Args) -> Row:
    """For each kind how many runs learned the task, when they left the plateau, and their curves, ten steps a point."""
    kinds = {}
    for (kind,), runs in groups(rows, "kind").items():
        kinds[kind] = {
            "learned": sum(run["learned"] is not None for run in runs),
            "runs": len(runs),
            **{name: spread_of([run[key] for run in runs]) for name, key in STEPS.items()},
            "direction_accuracy": spread([run["direction_accuracy"] for run in runs]),
            "ratio_at_start": spread([run["ratios"][0] for run in runs]),
            "ratio_at_end": spread([run["ratios"][-1] for run in runs]),
            "losses": [tens(run["losses"]) for run in runs],
            "ratios": [run["ratios"] for run in runs],
        }
    return {**args.settings("preset", "learning_rate", "seeds", "steps"), "kinds": kinds}


STEPS = {"steps_to_leave": "left", "steps_to_learn": "learned"}


def spread_of(values: list[Any]) -> Row | None:
    """Spread of the figures that there are; None where there is none."""
    found = [value for value in values if value is not None]
    return spread(found) if found else None


def tens(losses: list[float]) -> list[float]:
    """Means of ten steps each."""
    return [round(sum(losses[i : i + 10]) / len(losses[i : i + 10]), 4) for i in range(0, len(losses), 10)]


def section(positions: Row) -> str:
    rows = []
    for kind, row in positions["kinds"].items():
        ratio = f"{row['ratio_at_start']['median']:.2f}"
        steps = [span(row[name], ".0f") if row[name] else "not yet" for name in STEPS]
        rows.append((kind, ratio, f"{row['learned']} of {row['runs']}", *steps))
    about = f"""`{positions["preset"]}`, learning rate {positions["learning_rate"]:g}, constant after the warm-up,
        {positions["seeds"]} seeds. A run ends when it has learned the task, and at the latest after
        {positions["steps"]:,} steps. It has left the plateau when the mean loss of {WINDOW} steps is below {LEFT}, and
        learned the task below {LEARNED}; the steps are those of the runs that did. The length is that of the positions
        before training, divided by that of the projected patches. Kinds: fixed sine-cosine features; a trainable table
        that starts at a standard deviation; scaled, the table that starts at 0.02, multiplied by 50 where it is
        added."""
    heads = "positions | length | learned | steps to leave the plateau | steps to learn"
    return section_of("Positions", prose(about), grid(heads, rows), source(positions))


if __name__ == "__main__":
    main(Args, jobs, run, summary)
