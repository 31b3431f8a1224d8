from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import harness
import pytest
import small
from harness import Job, measure, recorded_command, startable
from small import Args

SMALL = Path(small.__file__)


@pytest.fixture
def args(tmp_path) -> Args:
    return Args(out=tmp_path / "small.json", fails=tmp_path / "fails")


def do(args: Args) -> dict:
    return measure(args, small.jobs, small.run, small.summary)


def done(args: Args) -> list[int]:
    """The numbers that were worked on, in order."""
    return [int(line) for line in (args.out.parent / "log.txt").read_text().split()]


def test_the_file_says_what_was_found_and_how(args, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["somewhere/small.py", "--seeds", "2", "--out", str(args.out), "--fails=x"])
    report = do(replace(args, seeds=2))
    assert report["command"] == "python experiments/small.py --seeds 2"
    assert {"device", "torch", "python"} <= report["machine"].keys()
    assert report["seconds"] > 0
    assert report["numbers"] == [1, 2, 3]
    assert report["rows"][3] == {"number": 2, "seed": 1, "square": 4, "pair": [2, 2]}
    assert json.loads(args.out.read_text()) == report
    assert [path.name for path in args.out.parent.iterdir() if path.name.startswith("small")] == ["small.json"]


def test_an_error_is_told_in_one_line_and_the_rest_is_kept(args):
    args.fails.write_text("2 error")
    with pytest.raises(SystemExit) as ended:
        do(args)
    message = ended.value.code
    assert message.startswith("the job (number 2, seed 0) failed with ValueError: no luck 3; traceback in ")
    assert "\n" not in message
    assert "raise ValueError" in (args.folder / "failure.txt").read_text()
    args.fails.unlink()
    report = do(args)
    assert done(args) == [1, 2, 2, 3]
    assert [row["square"] for row in report["rows"]] == [1, 4, 9]


def test_a_run_that_was_killed_goes_on_from_there(args):
    args.fails.write_text("3 kill")
    command = [sys.executable, str(SMALL), "--numbers", "1", "2", "3", "4"]
    options = ["--out", str(args.out), "--fails", str(args.fails)]
    killed = subprocess.run([*command, *options], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not args.out.exists()
    args.fails.unlink()
    report = do(replace(args, numbers=(1, 2, 3, 4)))
    assert done(args) == [1, 2, 3, 3, 4]
    assert [row["square"] for row in report["rows"]] == [1, 4, 9, 16]


def test_a_dead_worker_is_told_in_one_line_and_workers_share_the_rest(args):
    args.fails.write_text("1 death")
    with pytest.raises(SystemExit) as ended:
        do(replace(args, workers=2))
    assert "failed with BrokenProcessPool" in ended.value.code
    assert "\n" not in ended.value.code
    args.fails.unlink()
    report = do(replace(args, workers=2))
    assert [row["square"] for row in report["rows"]] == [1, 4, 9], "in the order of the jobs"


def test_jobs_of_other_settings_are_not_mixed_in(args):
    args.fails.write_text("2 error")
    with pytest.raises(SystemExit, match="failed"):
        do(args)
    with pytest.raises(SystemExit, match="holds jobs of other settings"):
        do(replace(args, numbers=(1, 5)))


def test_a_job_that_is_asked_for_twice_is_refused(args):
    with pytest.raises(SystemExit, match="to be done twice: number 1, seed 0"):
        do(replace(args, numbers=(1, 1)))


def test_optional_jobs_are_left_out_when_the_time_is_over(args):
    jobs = [Job({"number": 1}), Job({"number": 2}, optional=True)]
    report = measure(replace(args, budget_seconds=0), lambda _: jobs, small.run, small.summary)
    assert [row["number"] for row in report["rows"]] == [1]


def test_the_old_file_is_combined_with_the_new_results(args):
    do(args)
    measure(args, small.jobs, small.run, small.summary, lambda old, new, _: {"old": old["rows"], "new": new["rows"]})
    both = json.loads(args.out.read_text())
    assert both["old"] == both["new"]


def test_a_job_waits_for_others_and_may_want_to_be_alone():
    first, second = Job({"n": 1}), Job({"n": 2})
    third, alone = Job({"n": 3}, after=(first.name,)), Job({"n": 4}, alone=True)
    assert startable([first, second, third], [], [], workers=3) == [first, second]
    assert startable([first, second], [], [], workers=1) == [first]
    assert startable([third], [second], [first.name], workers=2) == [third]
    assert startable([third], [second], [], workers=2) == []
    assert startable([alone, second], [], [], workers=2) == [alone]
    assert startable([alone, second], [first], [], workers=2) == [], "it holds up those behind it"
    assert startable([second], [alone], [], workers=2) == []
    with pytest.raises(ValueError, match="waits for another that nobody does: n 1"):
        startable([third], [], [], workers=2)


def test_a_job_is_named_by_what_it_does():
    assert Job({"head": "flow", "data": "two answers"}, 3).name == "head flow, data two answers, seed 3"
    assert Job({"preset": "nano"}).name == "preset nano"


def test_the_command_is_recorded_without_the_places_of_files(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/x/arm.py", "--film", "a b.png", "--seeds", "3", "--out=y", "--cpu"])
    assert recorded_command(("--out", "--film")) == "python experiments/arm.py --seeds 3 --cpu"
    assert set(harness.places(Args())) == {"--fails", "--out"}


def test_a_file_is_written_as_a_whole(tmp_path):
    path = tmp_path / "new" / "file.json"
    harness.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        harness.write_json(path, {"a": object()})
    assert harness.read_json(path) == {"a": 1}
    assert harness.read_json(tmp_path / "none.json") is None
