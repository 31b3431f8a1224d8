from __future__ import annotations

import first_command
import harness
import pytest

from tinyvla.app import cli
from tinyvla.stats import spread

SMALL = ["--num-train", "128", "--num-val", "32", "--num-test", "32", "--epochs", "1", "--step", "plain"]


def test_the_figures_are_read_from_what_the_command_prints(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cli.main(["train", "--preset", "nano", "--device", "cpu", *SMALL])
    shown = capsys.readouterr().out
    figures = first_command.figures(shown)
    assert figures.keys() == first_command.SHOWN.keys()
    assert 0.5 < figures["l2_error"] < 2
    assert all(0 <= figures[name] <= 1 for name in figures if name != "l2_error")


def test_each_seed_is_timed_in_processes_of_its_own(tmp_path, monkeypatch):
    calls = []
    table = """
                        L2 error     direction (cos > 0.8)         within 10 degrees
this policy               0.0412    100.0% [99.6%, 100.0%]      99.9% [99.4%, 100.0%]
instruction swap: the arrow follows the new words in 100.0% [99.5%, 100.0%] of 772 scenes
"""

    def timed(verb, folder, args):
        calls.append((verb, folder))
        return (40.0, table) if verb[0] == "train" else (5.0, "wrote predictions.png")

    monkeypatch.setattr(first_command, "timed", timed)
    args = first_command.Args(seeds=2, out=tmp_path / "first_command.json")
    report = harness.measure(args, first_command.jobs, first_command.run, first_command.summary)
    assert [verb[0] for verb, _ in calls] == ["train", "visualize"] * 2
    assert calls[0][1] == calls[1][1] != calls[2][1]
    assert calls[2][0][-2:] == ["--seed", "1"]
    row = report["presets"]["minimal"]
    assert row["total"] == spread([45.0, 45.0])
    assert (row["l2_error"]["max"], row["within_10_degrees"]["min"]) == (0.0412, pytest.approx(0.999))
    assert "0.041 (0.041-0.041)" in first_command.section(report, report)


def test_a_command_that_fails_says_how(tmp_path):
    with pytest.raises(RuntimeError, match="unknown verb 'fly'"):
        first_command.timed(["fly"], str(tmp_path), first_command.Args())
