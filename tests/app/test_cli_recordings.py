"""The verbs on recordings with video: look, train, judge."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tinyvla.app import cli
from tinyvla.app.cli_recordings import held_out, read
from tinyvla.data.demonstrations import Demonstrations
from tinyvla.data.lerobot import write_dataset
from tinyvla.errors import InputError
from tinyvla.recipes import DataConfig

SMALL = ["--preset", "nano", "--image-size", "32", "--horizon", "4", "--waypoints", "2", "--device", "cpu"]
FEW_STEPS = ["--batch-size", "16", "--epochs", "1", "--val-episodes", "0.3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Eight episodes of twelve frames, two cameras, two sentences; in the last one the wrist's camera is dark."""
    rng, count = np.random.RandomState(0), 96
    front = rng.randint(60, 200, (count, 3, 4, 4)).astype(np.uint8).repeat(12, axis=2).repeat(12, axis=3)
    wrist = front // 2
    wrist[-12:] = 0
    actions = rng.uniform(-20, 20, (count, 2)).cumsum(axis=0).astype(np.float32)
    texts = [("pick up the red block", "pick up the blue block")[i // 12 % 2] for i in range(count)]
    recorded = Demonstrations(
        {"front": front, "wrist": wrist}, actions, texts, np.arange(count) // 12, actions, 10, ("shoulder", "elbow")
    )
    return write_dataset(recorded, tmp_path_factory.mktemp("recordings") / "arm", video=True)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TINYVLA_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_look_train_and_judge(folder, place, capsys):
    cli.main(["dataset", str(folder), "--image-size", "32", "--out", "frames.png"])
    said = capsys.readouterr().out
    assert "8 episodes, 96 frames at 10 a second" in said
    assert "episode 7: the camera wrist is dark" in said
    assert (place / "frames.png").stat().st_size > 1_000
    kept = sorted(path.name for path in (place / "cache" / "frames").glob("*/*.npy"))
    cli.main(["dataset", str(folder), "--image-size", "32", "--json"])
    assert [fault["kind"] for fault in json.loads(capsys.readouterr().out)["faults"]] == ["dark"]

    cli.main(["train", "--dataset", str(folder), *SMALL, *FEW_STEPS, "--leave-out", "7"])
    out = capsys.readouterr().out
    assert f"tinyvla evaluate --dataset {folder} --checkpoint checkpoints/best" in out
    assert sorted(path.name for path in (place / "cache" / "frames").glob("*/*.npy")) == kept, "decoded twice"
    config = json.loads(Path("checkpoints/best/config.json").read_text())
    assert config["observation"]["cameras"] == ["front", "wrist"]

    cli.main(["evaluate", "--dataset", str(folder), "--device", "cpu"])
    said = capsys.readouterr().out
    assert "2 episodes, 22 frames" in said
    assert "were held out when the policy was trained" in said
    assert "does it listen?" in said
    cli.main(["evaluate", "--dataset", str(folder), "--device", "cpu", "--json", "--val-episodes", "0.9"])
    judged = json.loads(capsys.readouterr().out)
    assert judged["num_episodes"] == 6, "of seven, for the eighth is left out, one stays for the mean action"
    assert set(judged["spread"]) == {"shoulder", "elbow"}
    cli.main(["evaluate", "--dataset", str(folder), "--device", "cpu", "--leave-out", "0", "1", "2", "7"])
    said = capsys.readouterr().out
    assert "11 frames" in said, "one episode, a share of 0.3 of four"
    assert "its folder does not say" in said, "other episodes are drawn than the run held out"
    cli.main(["train", "--resume"])
    assert "is complete" in capsys.readouterr().out


def test_a_policy_with_one_camera(folder, capsys):
    cli.main(["train", "--dataset", str(folder), *SMALL, *FEW_STEPS, "--cameras", "wrist", "--out", "one"])
    config = json.loads(Path("one/best/config.json").read_text())
    assert config["observation"]["cameras"] == ["wrist"]
    capsys.readouterr()
    cli.main(["evaluate", "--dataset", str(folder), "--checkpoint", "one/best", "--device", "cpu"])
    assert "does it look?" in capsys.readouterr().out


def test_whole_episodes_are_held_out(folder):
    data = DataConfig(dataset=str(folder), val_episodes=0.5, leave_out=(0, 7))
    recordings = read(data, 32)
    train, val = held_out(recordings, data)
    numbers = [set(recordings.episodes[mask].tolist()) for mask in (train, val)]
    assert [len(each) for each in numbers] == [3, 3]
    assert numbers[0] | numbers[1] == set(range(1, 7))
    assert train.sum() == val.sum() == 36


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["train", "--dataset", "{folder}", "--leave-out", "8"], "--leave-out names episode [8]"),
        (
            ["train", "--dataset", "{folder}", "--leave-out", *"0123456"],
            "holds 8 episodes, of which --leave-out leaves one",
        ),
        (["train", "--dataset", "{folder}", "--leave-out", *"01234567"], "of which --leave-out leaves none"),
        (["train", "--dataset", "{folder}", "--leave-out", "1", "2", "1"], "episodes of --leave-out name 1 twice"),
        (["train", "--dataset", "{folder}", "--cameras", "wrist", "wrist"], "the cameras name 'wrist' twice"),
        (["dataset", "{folder}", "--cameras", "wrist", "observation.images.wrist"], "the cameras name 'wrist' twice"),
        (["dataset", "{folder}", "--states", *("observation.state",) * 2], "states name 'observation.state' twice"),
        (["train", "--dataset", "{folder}", "--cameras", "top"], "no camera top"),
        (["train", "--cameras", "front"], "name it: --dataset"),
        (["evaluate", "--leave-out", "1"], "name them with --dataset"),
        (["evaluate", "--dataset", "{folder}", "--val-episodes", "2"], "--val-episodes is 2"),
        (["evaluate", "--dataset", "{folder}", "--checkpoint", "{tiny}"], "no camera camera"),
        (["dataset"], "folder"),
    ],
)
def test_bad_calls_get_one_line(args, message, folder, place, tiny_policy, capsys):
    tiny_policy.save_pretrained(place / "tiny")
    with pytest.raises(SystemExit) as ended:
        cli.main([arg.format(folder=folder, tiny=place / "tiny") for arg in args])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert len(said.splitlines()) == 1
    assert message in said


def test_at_least_two_episodes_are_needed(folder):
    with pytest.raises(InputError, match="at least two are needed"):
        read(DataConfig(dataset=str(folder), leave_out=tuple(range(7))), 32)
