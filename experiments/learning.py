"""Does it learn, whatever the seed, the learning rate and the preset? Writes `results/learning.json`.

    python experiments/learning.py --device cuda --workers 10

Three studies, each over five seeds, except where a study says otherwise:
- robustness: steps until 95 % validation direction accuracy, `nano` and `minimal`, three learning rates;
- full: 20 epochs with the default settings, judged on the test split;
- large: the same target for `medium` and `smolvla_like`, one seed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import harness
from harness import Job, Row, groups, main, spreads
from page import grid, section_of, share, source, span
from training import train_and_judge, train_to_target

from tinyvla.config import PRESETS
from tinyvla.model.policy import new_policy
from tinyvla.recipes import TrainConfig
from tinyvla.stats import spread

RESULTS = ("learning",)
METRICS = ("l2_error", "direction_accuracy", "within_10_degrees", "mean_angular_error", "swap_accuracy")


@dataclass(frozen=True)
class Args(harness.Args):
    """Run all studies."""

    workers: int = 1
    """Processes that share the device."""
    seeds: int = 5
    """Seeds 0, 1, ... of each setting."""
    presets: tuple[str, ...] = ("nano", "minimal")
    large: bool = True
    """Also train `medium` and `smolvla_like`; needs a GPU to end in reasonable time."""
    rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3)
    """Learning rates at which the target must be reached."""
    epochs: int = 20
    out: Path = Path("results/learning.json")


def jobs(args: Args) -> list[Job]:
    """The longest first."""
    seeds = range(args.seeds)
    large = ("smolvla_like", "medium") if args.large else ()
    reach = [(preset, rate, seed) for preset in args.presets for rate in args.rates for seed in seeds]
    return [
        *(_reach(preset, TrainConfig().learning_rate, 0) for preset in large),
        *(Job({"study": "full", "preset": preset}, seed) for preset in args.presets for seed in seeds),
        *(_reach(*case) for case in reach),
    ]


def _reach(preset: str, rate: float, seed: int) -> Job:
    return Job({"study": "reach", "preset": preset, "learning_rate": rate}, seed)


def run(job: Job, args: Args) -> Row:
    """Steps until the target, or all epochs and the figures of the test split."""
    preset, config = PRESETS[job.what["preset"]], TrainConfig(epochs=args.epochs, seed=job.seed)
    if job.what["study"] == "reach":
        return train_to_target(preset, args.data, replace(config, learning_rate=job.what["learning_rate"]), args.where)
    return train_and_judge(new_policy(preset, job.seed, args.where), args.data, config, "plain")


def summary(rows: list[Row], args: Args) -> Row:
    """Runs that reached the target with their steps, and the figures after all epochs; small presets first."""
    studies = groups(rows, "study")
    order = {name: number for number, name in enumerate(PRESETS)}
    reach = groups(studies[("reach",)], "preset", "learning_rate")
    full = groups(studies[("full",)], "preset")
    return {
        "settings": asdict(TrainConfig(epochs=args.epochs)),
        "reach": {
            f"{preset} {rate:g}": {
                "reached": sum(run["reached"] for run in runs),
                "runs": len(runs),
                "steps": spread([run["steps"] for run in runs]),
            }
            for (preset, rate), runs in sorted(reach.items(), key=lambda item: (order[item[0][0]], item[0][1]))
        },
        "full": {preset: {"runs": len(runs), **spreads(runs, METRICS)} for (preset,), runs in full.items()},
    }


def section(learning: Row) -> str:
    reach = []
    for name, row in learning["reach"].items():
        preset, rate = name.split()
        reached = f"{row['reached']} of {row['runs']}"
        reach.append((f"`{preset}`", f"{float(rate):g}", reached, span(row["steps"], ".0f")))
    shares = ("direction_accuracy", "within_10_degrees", "swap_accuracy")
    full = [
        (f"`{preset}`", span(row["l2_error"], ".4f"), *(share(row[key]) for key in shares))
        for preset, row in learning["full"].items()
    ]
    return section_of(
        "Does it always learn?",
        "Training steps of 64 scenes until 95 % of the validation scenes are right.",
        grid("preset | learning rate | reached | steps", reach),
        "After 20 epochs, on the test split:",
        grid("preset | L2 error | direction accuracy | within 10 degrees | follows a swapped instruction", full),
        source(learning),
    )


if __name__ == "__main__":
    main(Args, jobs, run, summary)
