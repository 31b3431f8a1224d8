from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tinyvla.act.blocks.world import BlockWorld
from tinyvla.act.rollout import expert, rollout
from tinyvla.act.world import episode_seeds
from tinyvla.data import lerobot_writer
from tinyvla.data.demonstrations import Demonstrations
from tinyvla.data.lerobot import camera_name, read_dataset, write_dataset
from tinyvla.data.lerobot_statistics import feature_statistics, image_statistics
from tinyvla.errors import InputError
from tinyvla.model.normalize import Normalizer


@pytest.fixture(scope="module")
def recorded() -> Demonstrations:
    """Two cameras of different sizes and a state, so that nothing rests on there being one."""
    states = rollout(expert, BlockWorld(episode_seeds(6, 1_000)), record=6).states
    plain = states.demonstrations(action_names=("dx", "dy"))
    wrist = plain.images["camera"][:, :, ::2, ::4].copy()
    joints = np.cumsum(plain.actions, axis=0, dtype=np.float32).repeat(2, axis=1)
    return dataclasses.replace(plain, images={**plain.images, "wrist": wrist}, states=joints)


@pytest.fixture
def folder(recorded, tmp_path):
    return write_dataset(recorded, tmp_path / "set")


def same(one: Demonstrations, other: Demonstrations) -> None:
    assert one.images.keys() == other.images.keys()
    for camera, images in one.images.items():
        np.testing.assert_array_equal(images, other.images[camera])
    for name in ("actions", "episodes", "states"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert getattr(one, name).dtype == getattr(other, name).dtype
    for name in ("instructions", "fps", "action_names"):
        assert getattr(one, name) == getattr(other, name)


def test_what_is_read_is_what_was_written(recorded, folder):
    same(read_dataset(folder), recorded)


def test_the_files_are_those_of_the_format(recorded, folder):
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*"))
    assert files == [
        "data/chunk-000/file-000.parquet",
        "meta/episodes/chunk-000/file-000.parquet",
        "meta/info.json",
        "meta/stats.json",
        "meta/tasks.parquet",
    ]
    info = json.loads((folder / "meta/info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["total_episodes"]) == ("v3.0", 5, 6)
    assert info["total_frames"] == len(recorded)
    assert info["features"]["observation.images.wrist"] == {
        "dtype": "image",
        "shape": [32, 16, 3],
        "names": ["height", "width", "channels"],
    }
    assert info["features"]["action"] == {"dtype": "float32", "shape": [2], "names": ["dx", "dy"]}
    schema = pq.read_schema(folder / "data/chunk-000/file-000.parquet")
    assert set(schema.names) == set(info["features"])
    assert schema.field("action").type == pa.list_(pa.float32(), 2)
    assert schema.field("observation.images.camera").type == pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def test_episodes_say_where_their_frames_lie(recorded, folder):
    rows = pq.read_table(folder / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    frames = pq.ParquetFile(folder / "data/chunk-000/file-000.parquet")
    assert frames.num_row_groups == len(rows) == 6
    for number, row in enumerate(rows):
        start, stop = row["dataset_from_index"], row["dataset_to_index"]
        assert (recorded.episodes[start:stop] == number).all()
        assert row["length"] == stop - start == frames.metadata.row_group(number).num_rows
        assert row["tasks"] == [recorded.instructions[start]]
        assert row["stats/action/max"] == recorded.actions[start:stop].max(axis=0).tolist()
    last = frames.read_row_group(5).to_pydict()
    assert last["index"] == list(range(start, stop))
    assert last["timestamp"] == pytest.approx([i / 5 for i in range(stop - start)])


def test_the_statistics_are_those_of_a_normalizer(recorded, folder):
    statistics = json.loads((folder / "meta/stats.json").read_text())
    action = {name: np.array(value) for name, value in statistics["action"].items()}
    for kind, offset, scale in (
        ("mean-std", action["mean"], action["std"]),
        ("quantiles", (action["q01"] + action["q99"]) / 2, (action["q99"] - action["q01"]) / 2),
    ):
        normalizer = Normalizer(kind, 2)
        normalizer.fit(torch.from_numpy(read_dataset(folder).actions))
        np.testing.assert_allclose(normalizer.offset, offset, atol=1e-6)
        np.testing.assert_allclose(normalizer.scale, scale, atol=1e-6)
    image = statistics["observation.images.camera"]
    assert np.shape(image["mean"]) == (3, 1, 1)
    assert 0 <= np.min(image["min"]) < np.max(image["max"]) <= 1
    assert action["count"] == [len(recorded)]


def test_statistics_of_numbers_and_images():
    ramp = feature_statistics(np.arange(101, dtype=np.float64))
    assert (ramp["min"], ramp["max"], ramp["mean"], ramp["q90"]) == ([0], [100], [50], [90])
    flags = feature_statistics(np.array([False, True, True, False]))
    assert (flags["min"], flags["max"], flags["mean"]) == ([0], [1], [0.5])


def test_statistics_of_images_are_numpys():
    images = np.random.RandomState(0).randint(3, 250, (3, 5, 7, 3)).astype(np.uint8)
    histogram = np.stack([np.bincount(images[..., channel].ravel(), minlength=256) for channel in range(3)])
    found, values = image_statistics(histogram, count=3), images / 255
    assert found["count"] == [3]
    for name in ("min", "max", "mean", "std"):
        np.testing.assert_allclose(np.ravel(found[name]), getattr(values, name)(axis=(0, 1, 2)), atol=1e-12)
    for q in (0.01, 0.1, 0.5, 0.9, 0.99):
        wanted = np.quantile(values, q, axis=(0, 1, 2))
        np.testing.assert_allclose(np.ravel(found[f"q{round(100 * q):02d}"]), wanted, atol=1e-12)


def test_a_new_file_begins_where_one_is_full(recorded, tmp_path, monkeypatch):
    monkeypatch.setattr("tinyvla.data.lerobot_writer.FILE_MEGABYTES", 0.01)
    monkeypatch.setattr("tinyvla.data.lerobot_writer.FILES_PER_CHUNK", 2)
    folder = write_dataset(recorded, tmp_path / "many")
    files = sorted(str(path.relative_to(folder)) for path in (folder / "data").rglob("*.parquet"))
    assert len(files) > 2
    assert "data/chunk-001/file-000.parquet" in files
    row = pq.read_table(folder / "meta/episodes/chunk-000/file-000.parquet").to_pylist()[-1]
    assert (folder / files[-1]) == folder / lerobot_writer.DATA_PATH.format(
        chunk_index=row["data/chunk_index"], file_index=row["data/file_index"]
    )
    same(read_dataset(folder), recorded)


def test_vectors_of_one_number_are_numbers(recorded, tmp_path):
    narrow = dataclasses.replace(recorded, actions=recorded.actions[:, :1], action_names=())
    folder = write_dataset(narrow, tmp_path / "narrow")
    assert pq.read_schema(folder / "data/chunk-000/file-000.parquet").field("action").type == pa.float32()
    same(read_dataset(folder), narrow)


def change_info(folder, **changes):
    path = folder / "meta/info.json"
    info = json.loads(path.read_text())
    path.write_text(json.dumps({**info, **changes}))


def test_what_cannot_be_used_is_refused(recorded, folder, tmp_path):
    with pytest.raises(InputError, match="exists already"):
        write_dataset(recorded, folder)
    with pytest.raises(InputError, match="no LeRobotDataset"):
        read_dataset(tmp_path)
    features = json.loads((folder / "meta/info.json").read_text())["features"]
    change_info(folder, features={k: v for k, v in features.items() if k != "action"})
    with pytest.raises(InputError, match="action and an image"):
        read_dataset(folder)
    change_info(folder, codebase_version="v1.6")
    with pytest.raises(InputError, match=r"v1\.6.*convert_dataset_v21_to_v30"):
        read_dataset(folder)
    change_info(folder, codebase_version="v3.0", features=features)
    shutil.rmtree(folder / "data")
    with pytest.raises(InputError, match="only its meta folder"):
        read_dataset(folder)


def test_without_pyav_the_message_says_what_to_install(recorded, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match="pip install 'tinyvla"):
        write_dataset(recorded, tmp_path / "video", video=True)


@pytest.mark.parametrize("size", [0, -1, 10**6, (64, 0), True])
def test_sizes_that_are_none_are_refused(folder, size):
    with pytest.raises(InputError, match=r"it must be (pixels, from 1 to|a whole number or)"):
        read_dataset(folder, size)


def test_an_unknown_way_to_resize_is_refused(folder):
    with pytest.raises(InputError, match="unknown resize 'crop'; choose from stretch, pad"):
        read_dataset(folder, 32, resize="crop")


@pytest.mark.parametrize("name", ["../../victim", "/tmp/victim", "a/b", "a\\b"])
def test_a_camera_s_name_leads_nowhere(recorded, tmp_path, name):
    images = next(iter(recorded.images.values())).repeat(8, axis=2).repeat(8, axis=3)[..., :32, :32]
    named = dataclasses.replace(recorded, images={name: images})
    with pytest.raises(InputError, match="cannot name a folder"):
        write_dataset(named, tmp_path / "set", video=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == []


def test_camera_names():
    keys = ("observation.images.wrist", "observation.image")
    assert [camera_name(key) for key in keys] == ["wrist", "image"]


def test_without_pyarrow_the_message_says_what_to_install():
    code = "import sys; sys.modules['pyarrow'] = None; import tinyvla.data.lerobot"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'tinyvla[lerobot]'" in done.stderr.splitlines()[-1]


def test_the_page_on_own_data_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[2] / "book" / "own_data.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    exec(compile("\n\n".join(blocks), str(page), "exec"), {})
    assert (tmp_path / "blockfind_expert" / "meta" / "info.json").exists()


@pytest.fixture
def their_dataset():
    """lerobot's own class."""
    reason = "lerobot is not installed; it needs Python 3.12"
    return pytest.importorskip("lerobot.datasets", reason=reason, exc_type=ImportError).LeRobotDataset


@pytest.mark.parametrize("video", [False, True], ids=["images", "video"])
def test_lerobot_reads_the_same(recorded, tmp_path, their_dataset, video):
    if video:  # AV1 takes no side of 16 pixels
        wrist = recorded.images["wrist"].repeat(2, axis=2).repeat(6, axis=3)
        recorded = dataclasses.replace(recorded, images={**recorded.images, "wrist": wrist})
    folder = write_dataset(recorded, tmp_path / "ours", video=video)
    read, theirs = read_dataset(folder), their_dataset("local/ours", root=folder)
    for i in range(0, len(recorded), 7):
        item = theirs[i]
        for camera in recorded.images:
            seen = np.round(255 * item[f"observation.images.{camera}"].numpy()).astype(int)
            assert np.abs(seen - read.images[camera][i]).max() <= (2 if video else 0)  # decoders round colours
        np.testing.assert_array_equal(item["action"], recorded.actions[i])
        np.testing.assert_array_equal(item["observation.state"], recorded.states[i])
        assert item["task"] == recorded.instructions[i]
        assert item["episode_index"] == recorded.episodes[i]


def test_lerobot_makes_the_same_chunks(recorded, folder, their_dataset):
    ahead = {"action": [step / recorded.fps for step in range(4)]}
    theirs = their_dataset("local/set", root=folder, delta_timestamps=ahead)
    np.testing.assert_array_equal(np.stack([item["action"] for item in theirs]), recorded.chunks(4)[0])


@pytest.mark.parametrize("dtype", ["image", "video"])
def test_what_lerobot_recorded_is_read(recorded, tmp_path, their_dataset, dtype):
    camera = {"dtype": dtype, "shape": (64, 64, 3), "names": ["height", "width", "channels"]}
    action = {"dtype": "float32", "shape": (2,), "names": ["dx", "dy"]}
    features = {"observation.images.camera": camera, "action": action}
    folder = tmp_path / "theirs"
    theirs = their_dataset.create("local/theirs", 5, features, root=folder, use_videos=dtype == "video")
    for i, image in enumerate(recorded.images["camera"]):
        frame = {"observation.images.camera": image.transpose(1, 2, 0), "action": recorded.actions[i]}
        theirs.add_frame({**frame, "task": recorded.instructions[i]})
        if i + 1 == len(recorded) or recorded.episodes[i + 1] != recorded.episodes[i]:
            theirs.save_episode()
    theirs.finalize()
    read = read_dataset(folder)
    loss = np.abs(read.images["camera"].astype(float) - recorded.images["camera"]).mean()
    assert loss == 0 if dtype == "image" else loss < 10  # video is compressed with loss
    plain = dataclasses.replace(recorded, images=read.images, states=None)
    for name in ("actions", "episodes", "instructions", "fps", "action_names"):
        np.testing.assert_array_equal(getattr(read, name), getattr(plain, name))
