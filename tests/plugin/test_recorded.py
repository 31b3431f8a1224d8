"""What LeRobot's commands and classes wrote, read by us: two cameras of different sizes, as images and as video."""

from __future__ import annotations

import numpy as np
import pytest
from with_lerobot import SIZES

from tinyvla.data.lerobot import read_dataset

from lerobot.datasets.lerobot_dataset import LeRobotDataset  # isort: skip

KEYS = {name: f"observation.images.{name}" for name in SIZES}


def bytes_of(item, key):
    return np.round(255 * item[key].numpy()).astype(int)


def same_frames(mine, theirs, tolerance):
    """Each frame against LeRobot's own reading of it; `tolerance` in levels of 255, on average over a frame."""
    assert set(mine.images) == set(SIZES)
    assert len(mine) == len(theirs)
    for i in range(len(theirs)):
        item = theirs[i]
        for name, key in KEYS.items():
            assert np.abs(mine.images[name][i].astype(int) - bytes_of(item, key)).mean() <= tolerance
        np.testing.assert_array_equal(mine.actions[i], item["action"])
        np.testing.assert_array_equal(mine.states[i], item["observation.state"])
        assert mine.instructions[i] == item["task"]
        assert mine.episodes[i] == item["episode_index"]


def test_a_recording_of_lerobot_record_is_read(recorded):
    mine, theirs = read_dataset(recorded), LeRobotDataset("local/wave", root=recorded)
    assert mine.fps == 15
    assert int(mine.episodes[-1]) == 2
    assert mine.action_names[0] == "shoulder_pan.pos"
    same_frames(mine, theirs, tolerance=1.0)


@pytest.mark.parametrize("dtype", ["image", "video"])
def test_what_their_classes_write_is_read(dtype, tmp_path):
    draw, folder = np.random.RandomState(0), tmp_path / "theirs"
    features = {
        KEYS[name]: {"dtype": dtype, "shape": (*size, 3), "names": ["height", "width", "channels"]}
        for name, size in SIZES.items()
    }
    features |= {
        "observation.state": {"dtype": "float32", "shape": (6,), "names": None},
        "action": {"dtype": "float32", "shape": (6,), "names": None},
    }
    theirs = LeRobotDataset.create("local/theirs", 10, features, root=folder, use_videos=dtype == "video")
    written = {name: [] for name in SIZES}
    for number in range(8):
        frame = {"task": f"task {number // 4}", "observation.state": draw.rand(6).astype(np.float32)}
        for name, (height, width) in SIZES.items():
            smooth = np.indices((height, width)).sum(axis=0) * 0.8 + 6 * number
            image = np.stack([smooth, smooth[::-1], smooth[:, ::-1]], axis=-1).astype(np.uint8)
            written[name].append(image.transpose(2, 0, 1))
            frame[KEYS[name]] = image
        theirs.add_frame({**frame, "action": draw.rand(6).astype(np.float32)})
        if number % 4 == 3:
            theirs.save_episode()
    theirs.finalize()
    mine = read_dataset(folder)
    same_frames(mine, LeRobotDataset("local/theirs", root=folder), tolerance=0 if dtype == "image" else 1.0)
    for name, images in written.items():
        loss = np.abs(mine.images[name].astype(int) - np.stack(images)).mean()
        assert loss == 0 if dtype == "image" else loss < 6  # the codec's
