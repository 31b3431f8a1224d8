from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from tinyvla.app import cli, cli_train
from tinyvla.app.cli_train import GivenTrainConfig, Place
from tinyvla.config import PRESETS
from tinyvla.recipes import RECIPES, TrainConfig, recipe
from tinyvla.speed.data_parallel import OnlyReading

SMALL = ["--preset", "nano", "--num-train", "128", "--num-val", "32", "--num-test", "32", "--device", "cpu"]


@pytest.fixture
def settings(monkeypatch, tmp_path):
    """The settings that a command line asks for; nothing is trained."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli_train, "_fit", lambda *args: None)
    monkeypatch.setattr(cli_train, "_judge", lambda *args: None)

    def ask(*args: str) -> dict:
        cli.main(["train", "--device", "cpu", "--overwrite", *args])
        return json.loads(Path("checkpoints/config.json").read_text())

    return ask


def as_json(config: TrainConfig) -> dict:
    return json.loads(json.dumps(vars(config)))


def test_the_options_are_the_configurations():
    assert [f.name for f in fields(GivenTrainConfig)] == [f.name for f in fields(TrainConfig)]


@pytest.mark.parametrize("preset", PRESETS)
def test_without_flags_a_presets_own_recipe_is_used(settings, preset):
    assert settings("--preset", preset)["train"] == as_json(recipe(preset))
    assert settings("--preset", preset)["step"] == "auto"


def test_the_plain_recipe_is_the_missions(settings):
    assert settings("--recipe", "plain")["train"] == as_json(TrainConfig())
    assert settings("--recipe", "plain", "--epochs", "3")["train"] == as_json(TrainConfig(epochs=3))


def test_a_flag_that_is_given_wins_also_with_a_default_value(settings):
    chosen = settings("--learning-rate", "3e-4", "--epochs", "20", "--optimizer", "adamw", "--recompute")["train"]
    assert (chosen["learning_rate"], chosen["epochs"], chosen["optimizer"]) == (3e-4, 20, "adamw")
    assert chosen["warmup_steps"] == RECIPES["minimal"].train.warmup_steps
    assert chosen["recompute"]


def test_the_steps_stay_when_the_batch_or_the_split_changes(settings):
    for args, num_scenes in ((["--batch-size", "32"], 8_000), (["--num-train", "1000"], 1_000)):
        train = TrainConfig(**settings(*args)["train"])
        assert train.total_steps(num_scenes) == RECIPES["minimal"].num_steps


@pytest.mark.parametrize("args", [["--head", "flow"], ["--fusion", "prefix"]])
def test_other_parts_are_trained_plainly_unless_told(settings, args):
    assert settings(*args)["train"] == as_json(TrainConfig())
    assert settings(*args, "--recipe", "measured")["train"] == as_json(recipe("minimal"))


def test_a_part_of_an_epoch_is_trained_and_complete(tmp_path, capsys):
    args = [*SMALL, "--epochs", "1.5", "--out", str(tmp_path / "run"), "--log-dir", str(tmp_path / "logs")]
    cli.main(["train", *args])
    shown = capsys.readouterr().out
    assert "3 steps of 64 scenes, muon at 0.01 (step: " in shown
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [(r["epoch"], r["step"]) for r in records] == [(1, 2), (1.5, 3)]
    cli.main(["train", "--resume", "--out", str(tmp_path / "run"), "--device", "cpu"])
    assert "is complete: 1.5 epochs" in capsys.readouterr().out


def test_a_run_of_before_the_steps_were_renamed_resumes(tmp_path, capsys):
    args = [*SMALL, "--epochs", "2", "--out", str(tmp_path / "run"), "--log-dir", str(tmp_path / "logs")]
    cli.main(["train", *args])
    config = tmp_path / "run" / "config.json"
    config.write_text(config.read_text().replace('"step": "auto"', '"step": "fast"'))
    cli.main(["train", "--resume", "--out", str(tmp_path / "run"), "--device", "cpu"])
    assert "is complete: 2 epochs" in capsys.readouterr().out


def test_only_the_main_process_watches_and_writes(monkeypatch, tmp_path):
    class Accelerator:
        device, is_main_process, num_processes = torch.device("cpu"), False, 2

    monkeypatch.setattr("tinyvla.speed.data_parallel.make_accelerator", lambda device: Accelerator())
    place = Place.of("cpu", "auto")
    assert str(place) == "2 processes (cpu)"
    with cli_train._watchers(place, tmp_path / "logs") as callbacks:
        assert callbacks == []
    assert OnlyReading(tmp_path).save_state(None, None, None) is None
    with cli_train._watchers(Place(torch.device("cpu")), tmp_path / "logs") as callbacks:
        assert [type(c).__name__ for c in callbacks] == ["StopOnInterrupt", "TensorBoard", "OnEpoch"]
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with cli_train._watchers(Place(torch.device("cpu")), tmp_path / "logs") as callbacks:
        assert [type(c).__name__ for c in callbacks] == ["StopOnInterrupt", "ProgressBar", "TensorBoard", "OnEpoch"]
