"""The parameters of each preset, for the book. Writes `results/presets.json`.

python experiments/count_presets.py
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import harness
import torch
from harness import Job, Row, main
from page import grid, section_of, source

from tinyvla.config import PRESETS
from tinyvla.model.policy import TinyVLA

RESULTS = ("presets",)


@dataclass(frozen=True)
class Args(harness.Args):
    """Count and write."""

    out: Path = Path("results/presets.json")


def jobs(args: Args) -> list[Job]:
    return [Job({"preset": name}) for name in PRESETS]


def run(job: Job, args: Args) -> Row:
    with torch.device("meta"):  # shapes without memory
        return {"counts": TinyVLA(PRESETS[job.what["preset"]]).num_parameters()}


def summary(rows: list[Row], args: Args) -> Row:
    """The counts; they are the same on every machine."""
    return {"machine": None, "seconds": None, "presets": {row["preset"]: row["counts"] for row in rows}}


def section(presets: Row) -> str:
    counts = presets["presets"].values()
    rows = [(part, *(f"{row[part]:,}" for row in counts)) for part in next(iter(counts))]
    heads = " | ".join(f"`{name}`" for name in presets["presets"])
    return section_of("Parameters", grid(f"part | {heads}", rows), source(presets))


if __name__ == "__main__":
    main(Args, jobs, run, summary)
