"""Every fusion and the two ablations, the same backbone, several seeds. Writes `results/fusion.json`.

python experiments/fusions.py --device cuda --workers 12
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import harness
from harness import Job, Row, groups, main, spreads
from page import grid, prose, section_of, share, source, span
from training import train_and_judge

from tinyvla.config import model_config
from tinyvla.model.policy import new_policy
from tinyvla.recipes import TrainConfig
from tinyvla.registry import ABLATION_KINDS, FUSION_KINDS

RESULTS = ("fusion",)
METRICS = ("l2_error", "direction_accuracy", "within_10_degrees", "swap_accuracy")


@dataclass(frozen=True)
class Args(harness.Args):
    """Train and judge every kind with every seed."""

    kinds: tuple[str, ...] = FUSION_KINDS + ABLATION_KINDS
    seeds: int = 5
    preset: str = "nano"
    epochs: int = 5
    learning_rate: float = 1e-3
    out: Path = Path("results/fusion.json")


def jobs(args: Args) -> list[Job]:
    return [Job({"kind": kind}, seed) for kind in args.kinds for seed in range(args.seeds)]


def run(job: Job, args: Args) -> Row:
    policy = new_policy(model_config(args.preset, job.what["kind"]), job.seed, args.where)
    config = TrainConfig(epochs=args.epochs, learning_rate=args.learning_rate, seed=job.seed)
    found = train_and_judge(policy, args.data, config, "plain")
    return {**found, "parameters": policy.num_parameters()["fusion"]}


def summary(rows: list[Row], args: Args) -> Row:
    kinds = {}
    for (kind,), runs in groups(rows, "kind").items():
        spread_over_seeds = spreads(runs, METRICS)
        kinds[kind] = {
            "parameters": runs[0]["parameters"],
            "first_epoch_at_95": [run["first_epoch_at_95"] for run in runs],
            **{name: {**spread_over_seeds[name], "runs": [run[name] for run in runs]} for name in METRICS},
        }
    return {
        **args.settings("preset", "epochs", "learning_rate", "seeds"),
        "num_test": args.data.num_test,
        "kinds": kinds,
    }


def section(fusion: Row) -> str:
    rows = [
        (kind, share(row["direction_accuracy"]), span(row["l2_error"], ".3f"), f"{row['parameters']:,}")
        for kind, row in sorted(fusion["kinds"].items(), key=lambda item: item[1]["l2_error"]["median"])
    ]
    about = f"""`{fusion["preset"]}`, {fusion["epochs"]} epochs, {fusion["seeds"]} seeds, {fusion["num_test"]} test
        scenes each. The kinds vision-only and language-only lack an input on purpose."""
    heads = "fusion | direction accuracy | L2 error | parameters"
    return section_of("Fusions", prose(about), grid(heads, rows), source(fusion))


if __name__ == "__main__":
    main(Args, jobs, run, summary)
