"""Every command that a results file records, or that an experiment's text names, is one that the experiment takes."""

from __future__ import annotations

import importlib
import json
import re
import shlex
from pathlib import Path

import pytest
import tyro

ROOT = Path(__file__).parents[2]
EXPERIMENTS = sorted(
    path.stem
    for path in (ROOT / "experiments").glob("*.py")
    if re.search(r"^ +main\(Args, jobs, run, summary", path.read_text(encoding="utf-8"), re.M)
)


def recorded() -> list[tuple[str, dict]]:
    """Commands in the results files, each with what its file says."""
    found = []
    for path in sorted((ROOT / "results").glob("*.json")):
        results = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(results, list):  # the search on Meta-World has a form of its own
            continue
        parts = [results] if "command" in results else results["presets"].values()
        found += [(command, part) for part in parts for command in part["command"].split(" && ")]
    return [(command, part) for command, part in found if Path(shlex.split(command)[1]).stem in EXPERIMENTS]


def in_texts() -> list[str]:
    """Commands in the experiments' own texts."""
    found = []
    for name in EXPERIMENTS:
        text = importlib.import_module(name).__doc__.replace("\\\n", " ")
        found += re.findall(r"python experiments/[^\n`]*", text)
    return [re.sub(r"\s+", " ", command) for command in found]


def parsed(command: str):
    python, script, *arguments = shlex.split(command)
    assert (python, script.split("/")[0]) == ("python", "experiments")
    return tyro.cli(importlib.import_module(Path(script).stem).Args, args=arguments)


def test_all_experiments_are_there():
    assert len(EXPERIMENTS) >= 14


@pytest.mark.parametrize(("command", "results"), recorded(), ids=lambda value: value if isinstance(value, str) else "")
def test_a_recorded_command_is_taken_and_means_what_its_file_says(command, results):
    args = parsed(command)
    same = {name for name in ("seeds", "preset", "num_test", "episodes", "horizon", "drift") if name in results}
    for name in same & set(vars(args)):
        assert getattr(args, name) == results[name], name


def test_a_command_in_a_text_is_taken():
    commands = in_texts()
    assert len(commands) >= len(EXPERIMENTS)
    for command in commands:
        parsed(command)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_has_the_same_form(name):
    experiment = importlib.import_module(name)
    assert "Writes `results/" in experiment.__doc__
    assert all(callable(getattr(experiment, part)) for part in ("jobs", "run", "summary"))
    # Chapter 8 shows the first two, and the closed loop's section names their commands; two have theirs in other files.
    if name not in ("checkpoints", "chunks", "mt50", "words"):
        assert callable(experiment.section)
        assert all((ROOT / "results" / f"{file}.json").exists() for file in experiment.RESULTS)
