from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tinyvla import __version__
from tinyvla.app import cli
from tinyvla.config import PRESETS
from tinyvla.data.sentences import KINDS, SEEN
from tinyvla.model.policy import TinyVLA

SMALL = ["--preset", "nano", "--num-train", "512", "--num-val", "64", "--num-test", "64", "--device", "cpu"]


def tinyvla(*args: str, code: int = 0) -> None:
    """Run a verb in this process and check its exit code."""
    assert exit_code(*args) == code


def exit_code(*args: str) -> int | str:
    try:
        cli.main([str(a) for a in args])
    except SystemExit as stop:
        return stop.code or 0
    return 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    tinyvla("train", *SMALL, "--epochs", "1", "--out", folder / "run", "--log-dir", folder / "logs")
    return folder / "run"


def test_train_leaves_a_run(trained):
    assert {p.name for p in trained.iterdir()} == {"config.json", "metrics.jsonl", "best"}
    assert list((trained.parent / "logs" / "run").glob("events*"))
    assert json.loads((trained / "config.json").read_text())["versions"]["torch"]


def test_evaluate_prints_a_table(trained, capsys):
    tinyvla("evaluate", "--checkpoint", trained / "best", "--num-samples", "50")
    said = capsys.readouterr().out
    assert "this policy" in said
    assert "vision only" in said


def test_evaluate_prints_one_json_object(trained, capsys):
    tinyvla("evaluate", "--checkpoint", trained / "best", "--num-samples", "50", "--json")
    values = json.loads(capsys.readouterr().out)
    assert values["num_samples"] == 50
    assert 0 <= values["swap_accuracy"] <= 1


def test_evaluate_by_kind_of_sentence(trained, capsys, monkeypatch):
    monkeypatch.setattr("tinyvla.learn.evaluate_sentences.FLOOR_SCENES", 100)
    monkeypatch.setattr("tinyvla.data.sentences.KINDS", {kind: KINDS[kind] for kind in (*SEEN, "new relations")})
    tinyvla("evaluate", "--checkpoint", trained / "best", "--num-samples", "20", "--sentences")
    assert "new relations" in capsys.readouterr().out
    tinyvla("evaluate", "--checkpoint", trained / "best", "--num-samples", "20", "--sentences", "--json")
    values = json.loads(capsys.readouterr().out)
    assert list(values) == [*SEEN, "new relations"]
    assert values["color"]["num_samples"] == 20


def test_train_on_sentences(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tinyvla.learn.evaluate_sentences.FLOOR_SCENES", 100)
    monkeypatch.setattr("tinyvla.data.sentences.KINDS", {**{kind: KINDS[kind] for kind in SEEN}})
    sizes = ("--num-train", "64", "--num-val", "16", "--num-test", "8", "--epochs", "1", "--preset", "nano")
    tinyvla("train", *sizes, "--sentences", "--out", tmp_path / "run", "--log-dir", tmp_path / "logs")
    assert "negation" in capsys.readouterr().out
    policy = TinyVLA.from_pretrained(tmp_path / "run" / "best")
    assert policy.language.unseen_words("touch the block that is not red") == []
    assert policy.language.unseen_words("grab the crimson one") == ["grab", "crimson"]


def test_pictures_are_written(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tinyvla("visualize", "--checkpoint", trained / "best", "--num-samples", "5")
    tinyvla("sample", "--index", "3")
    for name in ("predictions.png", "sample_visualization.png"):
        assert Path(name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("preset", PRESETS)
def test_info_counts(preset, capsys):
    tinyvla("info", "--preset", preset, "--json")
    counts = json.loads(capsys.readouterr().out)
    assert counts["total"] == sum(v for k, v in counts.items() if k != "total")


def test_info_shows_what_the_embedding_costs(trained, capsys):
    tinyvla("info", "--preset", "minimal")
    assert "30,522" in capsys.readouterr().out
    tinyvla("info", "--checkpoint", trained / "best")
    assert "token embedding" in capsys.readouterr().out


def test_bench_writes_its_figures(tmp_path, capsys):
    out = tmp_path / "bench.json"
    tinyvla("bench", "--preset", "nano", "--seeds", "1", "--steps", "3", "--device", "cpu", "--out", out)
    values = json.loads(out.read_text())
    assert values["command"].startswith("tinyvla bench --preset nano")
    assert values["runs"][0]["steps"] == 3


def test_it_says_its_version(capsys):
    tinyvla("--version")
    assert capsys.readouterr().out == f"tinyvla {__version__}\n"


def test_every_verb_has_help(capsys):
    for verb in cli.VERBS:
        tinyvla(verb, "--help")
        assert verb in capsys.readouterr().out
    tinyvla()
    assert "subcommands" in capsys.readouterr().out


def test_resuming_a_complete_run_says_so(trained, capsys):
    before = (trained / "best" / "model.safetensors").read_bytes()
    tinyvla("train", "--resume", "--out", trained, "--device", "cpu", "--log-dir", trained.parent / "logs")
    assert "is complete" in capsys.readouterr().out
    assert (trained / "best" / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["fly"], "unknown verb 'fly'; choose from train, evaluate"),
        (["train", "--preset", "huge"], "unknown preset 'huge'; choose from nano, minimal"),
        (["train", "--fusion", "telepathy"], "unknown fusion 'telepathy'; choose from cross-attention, prefix"),
        (["train", "--device", "tpu"], "unknown device 'tpu'; choose from auto, cpu, cuda, mps"),
        (["train", "--epochs", "0"], "--epochs is 0; it must be a number above 0"),
        (["train", "--step", "fast"], "unknown step 'fast'; choose from auto, plain, compiled"),
        (["train", "--step", "compiled", "--device", "cpu"], "needs a CUDA GPU"),
        (["train", "--recipe", "secret"], "unknown recipe 'secret'; choose from auto, measured, plain"),
        (["train", "--resume", "--out", "{run}", "--step", "plain"], "goes on with the auto step; plain needs"),
        (["train", "--learning-rate", "0"], "--learning-rate is 0.0; it must be a number above 0"),
        (["train", "--val-seed", "42"], "must differ"),
        (["train", "--resume", "--out", "{tmp}/none"], "holds no run to resume"),
        (["train", "--resume", "--out", "{run}", "--epochs", "7"], "--resume goes on with epochs 1; 7 needs a new run"),
        *(
            (
                ["train", "--resume", "--out", "{run}", *options],
                f"{named}: --resume goes on with the saved model; leave",
            )
            for options, named in (
                (["--preset", "medium"], "--preset"),
                (["--fusion", "prefix"], "--fusion"),
                (["--vision", "nobody/nothing"], "--vision"),
                (["--language", "nobody/nothing", "--preset", "nano"], "--preset, --language"),
                (["--learn-towers"], "--learn-towers"),
            )
        ),
        (["train", "--resume", "--out", "{run}", "--dataset", "x"], "goes on with dataset nothing; x needs a new run"),
        (["train", "--num-train", "0"], "error: --num-train is 0; it must be"),
        (["train", "--dataset", "x", "--horizon", "0"], "error: --horizon is 0; it must be"),
        (["train", "--epochs", "nan"], "error: --epochs is nan; it must be"),
        (["metaworld", "collect", "x", "--demos", "0"], "error: --demos is 0; it must be"),
        (
            ["metaworld", "collect", "x", "--tasks", "reach", "--image-size", "1"],
            "--image-size is 1; it must be",
        ),
        (["metaworld", "collect", ""], "what stands after 'collect' is empty; name something"),
        (["sample", "--out", ""], "the value of --out is empty; leave the option out"),
        (["sample", "--gif", "x"], "error: Unrecognized options: --gif x; `tinyvla sample --help` lists the options"),
        (["sample", "--ot", "x"], "(perhaps --out is meant)"),
        (["--nonsense"], "error: Unrecognized options: --nonsense; `tinyvla --help` lists the verbs"),
        (["evaluate", "--leave-out", "x"], "Error parsing --leave-out: 'x' cannot be such a value"),
        (["train", "--learn-towers"], "--learn-towers is for pretrained towers"),
        (["train", "--vision", "{tmp}/none"], "cannot load"),
        (["train", "--out", "{run}"], "holds a run already; go on with --resume"),
        (["train", "--out", "{file}"], "is a file; --out must name a folder"),
        (["train", "--out", "{file}/below"], "file is a file; --out must name a folder"),
        (["evaluate", "--checkpoint", "{tmp}/none"], "no checkpoint folder"),
        (["evaluate", "--checkpoint", "nobody/nothing"], "the hub did not give one"),
        (["evaluate", "--checkpoint", "{run}/best", "--num-samples", "0"], "--num-samples is 0"),
        (["evaluate", "--checkpoint", "{run}"], "is the folder of a run, not of a checkpoint; pass"),
        (["visualize", "--checkpoint", "{run}/best", "--num-samples", "100"], "a picture holds 1 to 64 scenes"),
        (["visualize", "--checkpoint", "{run}/best", "--out", "{tmp}/none/a.png"], "there is no folder"),
        (["sample", "--index", "-1"], "--index is -1"),
        (["info", "--preset", "huge"], "unknown preset"),
        (["bench", "--seeds", "0"], "--seeds is 0; it must be a whole number from 1"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(args, says, trained, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    before = {p: p.read_bytes() for p in trained.rglob("*") if p.is_file()}
    names = {"tmp": tmp_path, "run": trained, "file": tmp_path / "file"}
    tinyvla(*(a.format(**names) for a in args), code=2)
    said = capsys.readouterr().err
    assert says in said
    assert len(said.strip().splitlines()) == 1, said
    assert (tmp_path / "file").read_text() == "mine"
    assert {p: p.read_bytes() for p in trained.rglob("*") if p.is_file()} == before


def run_process(folder: Path, *args: str) -> subprocess.Popen:
    command = [
        sys.executable,
        "-m",
        "tinyvla",
        "train",
        *args,
        "--out",
        str(folder),
        "--log-dir",
        str(folder) + "-logs",
    ]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def test_killed_and_interrupted_runs_resume_to_the_same_weights(tmp_path):
    """The real thing: SIGKILL, then Ctrl-C, then to the end, against a run that nobody disturbed."""
    settings = [*SMALL, "--epochs", "3", "--checkpoint-every", "1"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run_process(whole, *settings).wait(120) == 0

    first = run_process(broken, *settings)
    deadline = time.time() + 60
    while not (broken / "resume.safetensors").exists() and time.time() < deadline:
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    assert not (broken / "epoch_003").exists(), "killed too late to show anything"

    second = run_process(broken, "--resume", "--device", "cpu")
    before = os.stat(broken / "resume.safetensors").st_mtime_ns
    while second.poll() is None and time.time() < deadline + 60:
        time.sleep(0.02)
        if (broken / "resume.safetensors").exists() and os.stat(broken / "resume.safetensors").st_mtime_ns != before:
            second.send_signal(signal.SIGINT)
            break
    _, said = second.communicate(timeout=60)
    assert second.returncode in (0, 130)
    if second.returncode == 130:
        assert f"go on with: tinyvla train --resume --out {broken}" in said
        assert run_process(broken, "--resume", "--device", "cpu").wait(120) == 0
    for name in ("best", "epoch_001", "epoch_002", "epoch_003"):
        a, b = (load_file(run / name / "model.safetensors") for run in (whole, broken))
        assert all((a[k] == b[k]).all() for k in a), name
    assert (whole / "metrics.jsonl").read_text() == (broken / "metrics.jsonl").read_text()


def test_a_warning_of_the_package_is_one_line_without_its_place_in_the_code(tiny_policy, tmp_path, capsys, monkeypatch):
    """A policy that was trained with one colour, on scenes of six."""

    def show(*what: object) -> None:  # pytest would keep warnings for itself
        sys.stderr.write(warnings.formatwarning(*what[:4]))  # type: ignore[arg-type]

    monkeypatch.setattr(warnings, "showwarning", show)
    tiny_policy.language.note_words(tiny_policy.language.encode(["find the red block"])[0])
    tiny_policy.save_pretrained(tmp_path / "policy")
    cli.main(["visualize", "--checkpoint", str(tmp_path / "policy"), "--out", str(tmp_path / "a.png")])
    said = capsys.readouterr().err.splitlines()
    pattern = r"tinyvla: warning: never seen in training: '\w+'; the answer may mean nothing"
    assert said
    assert all(re.fullmatch(pattern, line) for line in said), said


def test_rules_of_dashes_do_not_come_into_the_message(capsys):
    with pytest.raises(SystemExit):
        cli.main(["metaworld"])
    said = capsys.readouterr().err
    assert said.startswith("tinyvla: error: Missing from tinyvla metaworld: ")
    assert "---" not in said


def test_a_terminal_without_letters_and_a_reader_that_leaves_are_no_errors(tmp_path):
    """One process prints a name that ASCII has not, into a pipe that is closed already or is read to its end."""
    code = "import sys; from tinyvla.app.cli import main; sys.stdin.read(); main(['sample', '--out', 'ü.png'])"
    for is_read in (True, False):
        with subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={**os.environ, "PYTHONIOENCODING": "ascii"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            if not is_read:
                process.stdout.close()
            process.stdin.close()
            if is_read:
                assert process.stdout.read().startswith("wrote \\xfc.png")
            assert process.stderr.read() == ""
        assert (tmp_path / "ü.png").is_file()
