"""Demonstrations in from a LeRobotDataset v3; `tinyvla.data.lerobot_writer` writes one, and says how it is laid out.

Notable:
- it is read with `pyarrow` alone; `lerobot` itself (Python 3.12 and later) is needed only for cameras stored as video;
- images are decoded file by file by several threads, straight into one array, so the memory holds them once.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from tinyvla.data.demonstrations import Demonstrations
from tinyvla.data.lerobot_writer import IMAGE_PREFIX, VERSION, write_dataset
from tinyvla.data.parquet import Pictures, joined, num_rows, read_tables, vectors, whole_numbers
from tinyvla.errors import InputError
from tinyvla.fields import Within, check, check_number, shown
from tinyvla.files import read_json

__all__ = ["camera_name", "read_dataset", "read_through_lerobot", "write_dataset"]


def read_dataset(folder: str | Path) -> Demonstrations:
    """Read a LeRobotDataset v3 whose cameras are stored as images; one with video is read through `lerobot`.

    Raises:
        InputError: it is no such dataset, is damaged, lacks what a policy learns from, or holds video and `lerobot` is
            missing.
    """
    folder = Path(folder)
    info = _read_info(folder)
    features = info["features"]
    if any(feature["dtype"] == "video" for feature in features.values()):
        return read_through_lerobot(folder)
    cameras = {key: camera_name(key) for key, feature in features.items() if feature["dtype"] == "image"}
    if "action" not in features or not cameras:
        raise InputError(
            f"{folder} has the features {', '.join(features)}; action and an image are needed to learn from"
        )
    paths = sorted((folder / "data").glob("*/*.parquet"))
    if not paths:
        raise InputError(f"{folder} has no data/*/*.parquet; was only its meta folder downloaded?")
    state = ["observation.state"] * ("observation.state" in features)
    columns = [*cameras, "action", *state, "index", "episode_index", "task_index"]
    count, tables = sum(map(num_rows, paths)), []
    images = {key: Pictures(key, count) for key in cameras}
    with ThreadPoolExecutor() as pool:
        for path in paths:
            table = read_tables([path], columns)
            for key, pictures in images.items():
                pictures.add(table.column(key), pool)
            tables.append(table.drop_columns(list(cameras)))
    table = joined(tables, paths)
    total = info.get("total_frames", len(table))
    check(total == len(table), f"{folder} has {len(table)} frames in data, and its info.json says {shown(total)}")
    tasks = _read_tasks(folder)
    numbers = whole_numbers(table, "task_index")
    unknown = sorted(set(numbers) - set(tasks))
    check(not unknown, f"task_index {shown(unknown)} in {folder} is none of meta/tasks.parquet")
    names = features["action"].get("names")
    order = np.argsort(whole_numbers(table, "index"), kind="stable")
    is_sorted = bool((np.diff(order) == 1).all())
    actions, states = vectors(table, "action"), vectors(table, *state) if state else None
    episodes = np.array(whole_numbers(table, "episode_index"))
    return Demonstrations(
        {cameras[key]: p.values if is_sorted else p.values[order] for key, p in images.items()},
        actions[order],
        [tasks[numbers[i]] for i in order],
        np.unique(episodes[order], return_inverse=True)[1].astype(np.int64),
        None if states is None else states[order],
        fps=info["fps"],
        action_names=tuple(names) if isinstance(names, list) and len(names) == features["action"]["shape"][0] else (),
    )


def read_through_lerobot(folder: str | Path) -> Demonstrations:
    """Read a dataset with `lerobot`'s own class, which also decodes video.

    Raises:
        InputError: `lerobot` is not installed, or cannot read it.
    """
    try:
        from lerobot.datasets import LeRobotDataset
    except ImportError:
        raise InputError(
            f"{folder} stores a camera as video, which lerobot decodes: pip install 'lerobot[dataset]' (Python 3.12 or "
            "later); or turn the videos into images first"
        ) from None
    try:
        dataset = LeRobotDataset(f"local/{Path(folder).name}", root=folder)
        items = [dataset[i] for i in range(len(dataset))]
    except Exception as error:  # lerobot and its decoders raise many kinds
        raise InputError(f"lerobot cannot read {folder} ({type(error).__name__}: {str(error)[:200]})") from None
    state, names = "observation.state", dataset.meta.features["action"].get("names")
    return Demonstrations(
        {
            camera_name(key): np.stack([np.round(255 * item[key].numpy()).astype(np.uint8) for item in items])
            for key in dataset.meta.camera_keys
        },
        np.stack([item["action"].reshape(-1).numpy() for item in items]).astype(np.float32),
        [item["task"] for item in items],
        np.unique([int(item["episode_index"]) for item in items], return_inverse=True)[1].astype(np.int64),
        np.stack([item[state].reshape(-1).numpy() for item in items]) if state in dataset.meta.features else None,
        fps=int(dataset.meta.fps),
        action_names=tuple(names) if isinstance(names, list) else (),
    )


def camera_name(key: str) -> str:
    """The camera behind a key: "wrist" of `observation.images.wrist`, "image" of `observation.image`."""
    return key.removeprefix(IMAGE_PREFIX).removeprefix("observation.")


def _read_info(folder: Path) -> dict[str, Any]:
    path = folder / "meta/info.json"
    info = read_json(path, f"{folder} holds no meta/info.json, so it is no LeRobotDataset")
    version = str(info.get("codebase_version"))
    if not version.startswith("v3."):
        raise InputError(f"{folder} has the format {shown(version)}; {VERSION} is read. lerobot converts older ones")
    info["fps"] = check_number(f"fps in {path}", _whole_if_equal(info.get("fps")), Within(1, 1_000))
    features: Any = info.get("features")
    check(isinstance(features, dict), f"features in {path} are {shown(features)}; they must be an object")
    for key, feature in features.items():
        fits = isinstance(feature, dict) and isinstance(feature.get("dtype"), str)
        fits = fits and isinstance(feature.get("shape"), list) and bool(feature["shape"])
        check(fits, f"the feature {shown(key)} in {path} is {shown(feature)}; it must have a dtype and a shape")
    return info


def _whole_if_equal(value: Any) -> Any:
    """30.0 as 30, which some datasets write."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _read_tasks(folder: Path) -> dict[int, str]:
    table = read_tables([folder / "meta/tasks.parquet"], [])
    names = [name for name in table.column_names if name != "task_index"]
    check(bool(names), f"{folder}/meta/tasks.parquet has no column of sentences")
    return dict(zip(whole_numbers(table, "task_index"), table.column(names[0]).to_pylist(), strict=True))
