from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest

from tinyvla.data.demonstrations import Demonstrations
from tinyvla.data.lerobot import local_folder, read_dataset, write_dataset
from tinyvla.data.lerobot_layout import Layout, camera_name
from tinyvla.errors import InputError


@pytest.fixture
def recorded() -> Demonstrations:
    rng = np.random.RandomState(0)
    images = rng.randint(0, 256, (9, 3, 4, 4)).astype(np.uint8).repeat(8, axis=2).repeat(8, axis=3)
    actions = rng.uniform(-1, 1, (9, 2)).astype(np.float32)
    return Demonstrations(
        {"front": images, "wrist": 255 - images}, actions, ["go"] * 9, np.repeat(np.arange(3), 3), fps=10
    )


@pytest.fixture
def folder(recorded, tmp_path, monkeypatch):
    monkeypatch.setenv("TINYVLA_CACHE", str(tmp_path / "cache"))
    return write_dataset(recorded, tmp_path / "set", video=True)


def test_episodes_lie_behind_each_other(folder):
    layout = Layout.of(folder)
    spans = [layout.span("observation.images.wrist", episode) for episode in range(3)]
    assert [(span.start, span.stop) for span in spans] == [(0, 0.3), (0.3, 0.6), (0.6, 0.9)]
    assert {span.path for span in spans} == {folder / "videos/observation.images.wrist/chunk-000/file-000.mp4"}
    assert layout.tasks() == {0: "go"}


def test_a_large_video_is_followed_by_another(recorded, tmp_path, monkeypatch):
    monkeypatch.setattr("tinyvla.data.lerobot_videos.FILE_MEGABYTES", 0)
    monkeypatch.setattr("tinyvla.data.lerobot_videos.FILES_PER_CHUNK", 2)
    monkeypatch.setenv("TINYVLA_CACHE", str(tmp_path / "cache"))
    long = recorded.rows(np.arange(9).repeat(20))  # longer than what an encoder holds back
    folder = write_dataset(long, tmp_path / "many", video=True)
    spans = [Layout.of(folder).span("observation.images.front", episode) for episode in range(3)]
    names = [span.path.relative_to(folder / "videos/observation.images.front").as_posix() for span in spans]
    assert names == ["chunk-000/file-000.mp4", "chunk-000/file-001.mp4", "chunk-001/file-000.mp4"]
    assert [span.start for span in spans] == [0, 0, 0]
    off = np.abs(read_dataset(folder).images["front"].astype(int) - long.images["front"])
    assert off.mean() < 15


def test_cameras_by_name_or_key(folder):
    layout = Layout.of(folder)
    assert list(layout.cameras()) == ["front", "wrist"]
    assert layout.cameras(("wrist",)) == {"wrist": "observation.images.wrist"}
    assert layout.cameras(("observation.images.front",)) == {"front": "observation.images.front"}
    assert camera_name("observation.image") == "image"
    data = read_dataset(folder, cameras=["wrist"])
    assert list(data.images) == ["wrist"]


def test_states_of_several_keys(folder, recorded):
    info = json.loads((folder / "meta/info.json").read_text())
    assert read_dataset(folder).states is None
    data = read_dataset(folder, states=["action", "index"])
    np.testing.assert_array_equal(data.states, np.concatenate([recorded.actions, np.arange(9)[:, None]], axis=1))
    assert info["features"]["observation.images.front"]["dtype"] == "video"


def test_a_fingerprint_changes_with_the_files_of_its_camera(folder):
    keys = ("observation.images.front", "observation.images.wrist")
    before = [Layout.of(folder).fingerprint(key) for key in keys]
    assert before == [Layout.of(folder).fingerprint(key) for key in keys]
    os.utime(folder / "videos/observation.images.front/chunk-000/file-000.mp4", (1, 1))
    after = [Layout.of(folder).fingerprint(key) for key in keys]
    assert after[0] != before[0]
    assert after[1] == before[1]


def test_half_a_data_set_is_none(recorded, tmp_path):
    odd = Demonstrations(
        {"front": recorded.images["front"][..., :31]}, recorded.actions, recorded.instructions, recorded.episodes
    )
    with pytest.raises(InputError, match="both sides must be even"):
        write_dataset(odd, tmp_path / "odd", video=True)
    assert not (tmp_path / "odd").exists()


def test_a_data_set_in_the_hubs_cache_is_found_without_a_network(folder, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "hub" / "datasets--somebody--blocks"
    shutil.copytree(folder, repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    assert local_folder("somebody/blocks") == repository / "snapshots" / "abc"
    assert len(read_dataset("somebody/blocks")) == 9
    with pytest.raises(InputError, match="hf download --repo-type dataset nobody/nothing"):
        read_dataset("nobody/nothing")
