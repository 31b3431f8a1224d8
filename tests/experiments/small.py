"""An experiment without policies, for the tests of the harness: squares of numbers, and jobs that fail."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))

import harness
from harness import Job, Row, main


@dataclass(frozen=True)
class Args(harness.Args):
    """Square some numbers."""

    numbers: tuple[int, ...] = (1, 2, 3)
    seeds: int = 1
    fails: Path = Path("fails")
    """Where there is such a file, the number in it fails in the way that is named there."""
    budget_seconds: float = 100.0
    out: Path = Path("results/small.json")


def jobs(args: Args) -> list[Job]:
    return [Job({"number": number}, seed) for number in args.numbers for seed in range(args.seeds)]


def run(job: Job, args: Args) -> Row:
    number = job.what["number"]
    with (args.out.parent / "log.txt").open("a") as log:
        log.write(f"{number}\n")
    if args.fails.exists():
        which, how = args.fails.read_text().split()
        if number == int(which):
            {"error": error, "death": os._exit, "kill": kill}[how](3)
    return {"square": number**2, "pair": (number, number)}


def error(code: int) -> None:
    raise ValueError(f"no luck {code}\nand a second line")


def kill(code: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def summary(rows: list[Row], args: Args) -> Row:
    return {**args.settings("numbers"), "rows": rows}


if __name__ == "__main__":
    main(Args, jobs, run, summary)
