"""The verbs on Meta-World and on recordings, from an empty folder to a policy that acts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tinyvla.act.metaworld.scene import MetaWorldConfig, Scene
from tinyvla.act.metaworld.tasks import find_tasks
from tinyvla.app import cli, cli_recordings
from tinyvla.config import ObservationConfig
from tinyvla.data.lerobot import read_dataset
from tinyvla.errors import InputError
from tinyvla.model.policy import new_policy
from tinyvla.recipes import DataConfig, RecordingConfig

SMALL = ["--preset", "nano", "--image-size", "32", "--horizon", "4", "--waypoints", "2", "--device", "cpu"]


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    """Two tasks, collected by the verb."""
    try:
        scene = Scene(find_tasks("drawer-close")[0], MetaWorldConfig(image_size=32))
        scene.begin(0)
        scene.picture()
    except InputError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("metaworld") / "recordings"
    options = ["--tasks", "drawer-close,button-press", "--demos", "2", "--image-size", "32", "--workers", "1"]
    cli.main(["metaworld", "collect", str(folder), *options])
    return folder


def refusal(capsys, *args: str) -> str:
    """The one line that a bad call ends with."""
    with pytest.raises(SystemExit) as ended:
        cli.main(list(args))
    assert ended.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    return lines[-1]


def test_collect_train_and_roll_out(collected, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    train = ["--batch-size", "32", "--epochs", "2", "--val-episodes", "0.25"]
    cli.main(["train", "--dataset", str(collected), *SMALL, *train])
    assert "judged by the held-out episodes' loss" in capsys.readouterr().out
    kept = json.loads(Path("checkpoints/config.json").read_text())
    assert kept["data"]["dataset"] == str(collected)
    assert kept["train"]["optimizer"] == "muon"
    judged = ["--world", "metaworld", "--tasks", "drawer-close", "--episodes", "1", "--device", "cpu", "--workers", "1"]
    cli.main(["rollout", *judged, "--films", "films", "--json"])
    assert [path.suffix for path in Path("films").iterdir()] == [".gif"]
    assert json.loads(capsys.readouterr().out)["tasks"]["drawer-close"]["episodes"] == 1
    cli.main(["train", "--resume"])
    assert "is complete" in capsys.readouterr().out
    assert "execute is 9" in refusal(capsys, "rollout", *judged, "--execute", "9")


def test_bad_calls_get_one_line(collected, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert "unknown Meta-World task 'fly'" in refusal(capsys, "metaworld", "collect", "x", "--tasks", "fly")
    assert "unknown action 'fetch'" in refusal(capsys, "metaworld", "fetch", "x")
    assert "another collection" in refusal(capsys, "metaworld", "collect", str(collected), "--demos", "9")
    assert "workers are -1" in refusal(capsys, "metaworld", "collect", "x", "--workers", "-1")
    assert "there is no folder nowhere" in refusal(capsys, "train", "--dataset", "nowhere")
    assert "name them with --dataset" in refusal(capsys, "train", "--image-size", "64")
    assert "32 must divide it" in refusal(capsys, "train", "--dataset", str(collected), "--image-size", "50")
    assert "do not go with --dataset" in refusal(capsys, "train", "--dataset", str(collected), "--vision", "x")
    assert "unknown --world 'moon'" in refusal(capsys, "rollout", "--world", "moon")
    assert "in place of --gif" in refusal(capsys, "rollout", "--world", "metaworld", "--gif", "x.gif")


@pytest.mark.parametrize(("given", "expected"), [([], 10), (["--episodes", "500"], 500), (["--episodes", "7"], 7)])
def test_as_many_episodes_as_are_given(given, expected, monkeypatch):
    calls = []
    monkeypatch.setattr(cli, "roll_out", lambda *args: calls.append(args))
    cli.main(["rollout", "--world", "metaworld", *given])
    assert calls[0][2] == expected


def test_a_machine_that_cannot_draw_is_told_so(collected, tmp_path, monkeypatch, capfd):
    """Meta-World is first used in the processes that act; what they say is said here, once."""
    data = read_dataset(collected)
    policy = new_policy(data.robot_config(RecordingConfig(image_size=32, horizon=2), preset="nano"), 0)
    policy.prepare_for(data.tensors(policy, policy.device))
    policy.save_pretrained(tmp_path / "policy")
    monkeypatch.setenv("MUJOCO_GL", "nonsense")
    options = ["--world", "metaworld", "--checkpoint", str(tmp_path / "policy"), "--device", "cpu", "--workers", "2"]
    said = refusal(capfd, "rollout", *options, "--tasks", "reach", "--episodes", "1")
    assert "MuJoCo cannot draw" in said or "needs metaworld" in said


def test_a_policy_of_another_robot_is_refused(collected, tiny_policy, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tiny_policy.save_pretrained(tmp_path / "checkpoints" / "best")
    robot = ObservationConfig(("corner2",), 4, state_normalization="none")
    new_policy(replace(tiny_policy.config, observation=robot), 0).save_pretrained(tmp_path / "robot")
    said = refusal(capsys, "rollout", "--checkpoint", "robot", "--device", "cpu")
    assert "sees corner2 and a state of 4 numbers; --world blocks shows 'camera' and no state, and --world meta" in said
    assert "--dataset judges others" in refusal(capsys, "evaluate", "--checkpoint", "robot", "--device", "cpu")
    assert "Meta-World has the camera corner2" in refusal(capsys, "rollout", "--world", "metaworld", "--device", "cpu")


def test_whole_episodes_are_held_out(collected):
    """`tinyvla.app.cli_recordings`: what is learned and what is held out."""
    data = DataConfig(dataset=str(collected), val_episodes=0.25)
    recordings = cli_recordings.read(data)
    policy = new_policy(recordings.robot_config(RecordingConfig(image_size=32, horizon=2), preset="nano"), 0)
    train, val = cli_recordings.splits(recordings, policy, data, policy.device)
    lengths = {int(count) for count in np.bincount(recordings.episodes)}
    assert len(train) + len(val) == len(recordings)
    assert len(val) in lengths, "one episode of four"
    again = cli_recordings.splits(recordings, policy, data, policy.device)[1]
    assert torch.equal(again.actions, val.actions), "the same one each time"
