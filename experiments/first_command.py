"""How long the README's first command takes once all is installed, and how good its policy is.

    python experiments/first_command.py

Each seed trains, judges and draws as a user would, in processes of their own: `tinyvla train && tinyvla visualize`.
The clock sees everything that the user waits for, Python's start and the imports included. The commands share no
process and no cache. Writes `results/first_command.json`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import harness
from harness import Job, Row, groups, main, spreads
from page import grid, prose, section_of, share, source, span

RESULTS = ("first_command", "first_command_cuda")
FIGURES = ("total", "train", "visualize", "l2_error", "direction_accuracy", "within_10_degrees", "swap_accuracy")
SHOWN = {
    "l2_error": r"^this policy +([\d.]+)",
    "direction_accuracy": r"^this policy +[\d.]+ +([\d.]+)%",
    "within_10_degrees": r"^this policy .*\] +([\d.]+)%",
    "swap_accuracy": r"^instruction swap: .* in ([\d.]+)%",
}
"""Where the figures stand in what `tinyvla train` prints."""


@dataclass(frozen=True)
class Args(harness.Args):
    """Run the command once for each seed."""

    seeds: int = 5
    """Seeds 0, 1, ..."""
    presets: tuple[str, ...] = ("minimal",)
    recipe: str = "auto"
    """As the option of `tinyvla train`: `plain` for the mission's."""
    step: str = "auto"
    """As the option of `tinyvla train`: `plain` takes float32 on every device."""
    epochs: str = ""
    """Instead of the recipe's."""
    out: Path = Path("results/first_command.json")


def jobs(args: Args) -> list[Job]:
    return [Job({"preset": name}, seed, alone=True) for name in args.presets for seed in range(args.seeds)]


def run(job: Job, args: Args) -> Row:
    """The wall clock of both commands, and the figures that the first one prints."""
    options = {"preset": job.what["preset"], "recipe": args.recipe, "step": args.step, "epochs": args.epochs}
    options |= {"device": args.device, "seed": str(job.seed)}
    with tempfile.TemporaryDirectory() as folder:
        chosen = [part for name, value in options.items() if value for part in (f"--{name}", value)]
        train, shown = timed(["train", *chosen], folder, args)
        visualize, _ = timed(["visualize", "--device", args.device], folder, args)
    return {"total": train + visualize, "train": train, "visualize": visualize, **figures(shown)}


def timed(verb: list[str], folder: str, args: Args) -> tuple[float, str]:
    """Seconds that a command takes, and what it prints."""
    environment = dict(os.environ)
    if args.threads:
        environment["OMP_NUM_THREADS"] = str(args.threads)
    command = [sys.executable, "-m", "tinyvla", *verb]
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-500:]}")
    return seconds, done.stdout


def figures(shown: str) -> Row:
    """The figures of the policy in a printed table; shares as numbers up to one."""
    found = {name: float(re.search(pattern, shown, re.M)[1]) for name, pattern in SHOWN.items()}  # type: ignore[index]
    return {name: value if name == "l2_error" else value / 100 for name, value in found.items()}


def summary(rows: list[Row], args: Args) -> Row:
    presets = groups(rows, "preset")
    return {
        "settings": args.settings("recipe", "step", "epochs", "threads"),
        "presets": {name: {**spreads(runs, FIGURES), "runs": runs} for (name,), runs in presets.items()},
    }


def section(result: Row, cuda: Row) -> str:
    rows, shares = [], ("direction_accuracy", "within_10_degrees", "swap_accuracy")
    for measured, where in ((result, "2 CPU cores"), (cuda, cuda["machine"]["device"])):
        for preset, row in measured["presets"].items():
            seconds, error = span(row["total"], ".0f"), span(row["l2_error"], ".3f")
            seeds = f"{len(row['runs'])}"
            rows.append((f"`{preset}`", where, seeds, seconds, error, *(share(row[name]) for name in shares)))
    about = """`tinyvla train && tinyvla visualize`, from the start of Python to the picture. Seconds on the wall clock;
        the other figures are those of the test split that the command prints."""
    heads = "preset | on | seeds | seconds | L2 error | direction accuracy | within 10 degrees | follows a swap"
    return section_of("The first command", prose(about), grid(heads, rows), source(result, cuda))


if __name__ == "__main__":
    main(Args, jobs, run, summary)
