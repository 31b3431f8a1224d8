"""Demonstrations out to a LeRobotDataset v3 and in from one: Parquet files, images inside, and a folder of facts.

    meta/info.json                            frames a second, features with shapes and names, where files lie
    meta/stats.json                           minimum, maximum, mean, std and quantiles of every feature
    meta/tasks.parquet                        the sentences, numbered
    meta/episodes/chunk-000/file-000.parquet  a row for each episode: its length, its sentences, where it lies
    data/chunk-000/file-000.parquet           a row for each frame; many episodes a file, a row group for each

Notable:
- the layout is that of https://github.com/huggingface/lerobot/blob/main/docs/source/lerobot-dataset-v3.mdx, written and
  read with `pyarrow` alone; `lerobot` itself (Python 3.12 and later) is needed only for cameras stored as video;
- images are stored as PNG, so what is read is what was written, bit for bit;
- the statistics are computed from all frames, so a `Normalizer` fitted on what was read has those of `stats.json`.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Num
from PIL import Image

from tinyvla.data.demonstrations import Demonstrations
from tinyvla.data.parquet import decoded, pa, pq, read_tables, vectors, whole_numbers
from tinyvla.errors import InputError
from tinyvla.fields import Within, check, check_number, shown
from tinyvla.files import read_json

VERSION = "v3.0"
IMAGE_PREFIX = "observation.images."
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
FILES_PER_CHUNK, FILE_MEGABYTES = 1_000, 100
QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)
INDICES = {"timestamp": "float32", "frame_index": "int64", "episode_index": "int64", "index": "int64"}
INDICES["task_index"] = "int64"


def feature_statistics(values: Num[np.ndarray, "n *shape"]) -> dict[str, list[Any]]:
    """Minimum, maximum, mean, std and quantiles over the frames, as `stats.json` has them.

    Images `(n, 3, h, w)` in [0, 1] are summed up over their pixels as well, to `(3, 1, 1)`.
    """
    axes = (0, 2, 3) if values.ndim == 4 else 0
    wide = values[:, None] if values.ndim == 1 else values
    keep = wide.ndim == 4
    found = {name: getattr(wide, name)(axis=axes, keepdims=keep) for name in ("min", "max", "mean", "std")}
    found |= {f"q{round(100 * q):02d}": np.quantile(wide, q, axis=axes, keepdims=keep) for q in QUANTILES}
    statistics = {name: (value[0] if keep else value).tolist() for name, value in found.items()}
    return {**statistics, "count": [len(values)]}


def write_dataset(demonstrations: Demonstrations, folder: str | Path, robot_type: str = "tinyvla") -> Path:
    """Write a LeRobotDataset v3; returns its folder.

    Args:
        demonstrations: what was recorded.
        folder: must not exist yet.
        robot_type: noted in `info.json`.

    Raises:
        InputError: the folder exists.
    """
    folder, data = Path(folder), demonstrations
    if folder.exists():
        raise InputError(f"{folder} exists already; choose another folder, or remove it")
    tasks = list(dict.fromkeys(data.instructions))
    columns, features = _columns(data, tasks)
    statistics = {name: feature_statistics(values) for name, values in columns.items()}
    starts = np.flatnonzero(np.diff(data.episodes, prepend=-1))
    bounds = list(zip(starts.tolist(), [*starts[1:].tolist(), len(data)], strict=True))
    places = _write_frames(folder, columns, bounds)
    rows = [
        _episode_row(columns, data, number, bound, place)
        for number, (bound, place) in enumerate(zip(bounds, places, strict=True))
    ]
    _write_table(pa.Table.from_pylist(rows), folder / EPISODES_PATH.format(chunk_index=0, file_index=0))
    _write_table(_task_table(tasks), folder / "meta/tasks.parquet")
    info = {
        "codebase_version": VERSION,
        "robot_type": robot_type,
        "total_episodes": len(bounds),
        "total_frames": len(data),
        "total_tasks": len(tasks),
        "chunks_size": FILES_PER_CHUNK,
        "data_files_size_in_mb": FILE_MEGABYTES,
        "fps": data.fps,
        "splits": {"train": f"0:{len(bounds)}"},
        "data_path": DATA_PATH,
        "video_path": None,
        "features": features,
    }
    for name, content in (("info", info), ("stats", statistics)):
        (folder / f"meta/{name}.json").write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
    return folder


def _columns(data: Demonstrations, tasks: list[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Every feature's values, and what `info.json` says of it. Images as floats in [0, 1], as statistics take them."""
    number = {task: i for i, task in enumerate(tasks)}
    starts = np.flatnonzero(np.diff(data.episodes, prepend=-1))
    frames = np.arange(len(data)) - starts[data.episodes]
    columns: dict[str, np.ndarray] = {}
    features: dict[str, Any] = {}
    for camera, images in data.images.items():
        columns[IMAGE_PREFIX + camera] = images / np.float32(255)
        shape = [*images.shape[2:], images.shape[1]]
        features[IMAGE_PREFIX + camera] = {"dtype": "image", "shape": shape, "names": ["height", "width", "channels"]}
    vectors = {"action": (data.actions, list(data.action_names) or None)}
    if data.states is not None:
        vectors["observation.state"] = (data.states, None)
    for key, (values, names) in vectors.items():
        columns[key] = values
        features[key] = {"dtype": "float32", "shape": [values.shape[1]], "names": names}
    columns["timestamp"] = (frames / data.fps).astype(np.float32)
    columns |= {"frame_index": frames, "episode_index": data.episodes, "index": np.arange(len(data))}
    columns["task_index"] = np.array([number[text] for text in data.instructions])
    return columns, features | {key: {"dtype": dtype, "shape": [1], "names": None} for key, dtype in INDICES.items()}


def _png(image: Float32[np.ndarray, "3 h w"]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.round(255 * image).astype(np.uint8).transpose(1, 2, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def _frames(columns: dict[str, np.ndarray], start: int, stop: int) -> pa.Table:
    """The rows of one episode."""
    arrays = {}
    for key, values in columns.items():
        part = values[start:stop]
        if key.startswith(IMAGE_PREFIX):
            rows = [{"bytes": _png(image), "path": f"frame-{i:06d}.png"} for i, image in enumerate(part)]
            arrays[key] = pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
        elif part.ndim == 1:
            arrays[key] = pa.array(part, getattr(pa, INDICES[key])())
        elif part.shape[1] == 1:  # the format stores vectors of one number as numbers
            arrays[key] = pa.array(part[:, 0], pa.float32())
        else:
            arrays[key] = pa.FixedSizeListArray.from_arrays(pa.array(part.reshape(-1), pa.float32()), part.shape[1])
    return pa.table(arrays)


def _write_frames(folder: Path, columns: dict[str, np.ndarray], bounds: list[tuple[int, int]]) -> list[dict[str, int]]:
    """Write all episodes, beginning a new file where one is full; returns the place of each."""
    places: list[dict[str, int]] = []
    writer, file, size = None, -1, 0
    for start, stop in bounds:
        table = _frames(columns, start, stop)
        if writer is None or size + table.nbytes > FILE_MEGABYTES * 2**20:
            if writer is not None:
                writer.close()
            file, size = file + 1, 0
            place = dict(zip(("chunk_index", "file_index"), divmod(file, FILES_PER_CHUNK), strict=True))
            path = folder / DATA_PATH.format(**place)
            path.parent.mkdir(parents=True, exist_ok=True)
            writer = pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
        size += table.nbytes
        places.append({f"data/{key}": value for key, value in place.items()})
    assert writer is not None
    writer.close()
    return places


def _episode_row(
    columns: dict[str, np.ndarray], data: Demonstrations, number: int, bound: tuple[int, int], place: dict[str, int]
) -> dict[str, Any]:
    start, stop = bound
    row: dict[str, Any] = {"episode_index": number, "tasks": list(dict.fromkeys(data.instructions[start:stop]))}
    row |= {"length": stop - start, **place, "dataset_from_index": start, "dataset_to_index": stop}
    for key, values in columns.items():
        row |= {f"stats/{key}/{name}": value for name, value in feature_statistics(values[start:stop]).items()}
    return {**row, "meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}


def _task_table(tasks: list[str]) -> pa.Table:
    """Numbers, with the sentences as the index of a pandas table: the format is read with pandas."""
    column = {"metadata": None}
    note = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [
            {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64", **column},
            {"name": "task", "field_name": "task", "pandas_type": "unicode", "numpy_type": "object", **column},
        ],
        "pandas_version": "2.0.0",
    }
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": pa.array(tasks, pa.string())})
    return table.replace_schema_metadata({"pandas": json.dumps(note)})


def _write_table(table: pa.Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


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
    table = read_tables(paths, columns)
    whole_numbers(table, "index")
    table = table.sort_by("index")
    total = info.get("total_frames", len(table))
    check(total == len(table), f"{folder} has {len(table)} frames in data, and its info.json says {shown(total)}")
    tasks = _read_tasks(folder)
    numbers = whole_numbers(table, "task_index")
    unknown = sorted(set(numbers) - set(tasks))
    check(not unknown, f"task_index {shown(unknown)} in {folder} is none of meta/tasks.parquet")
    names = features["action"].get("names")
    return Demonstrations(
        {name: decoded(table.column(key), key) for key, name in cameras.items()},
        vectors(table, "action"),
        [tasks[number] for number in numbers],
        np.unique(whole_numbers(table, "episode_index"), return_inverse=True)[1].astype(np.int64),
        vectors(table, *state) if state else None,
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
