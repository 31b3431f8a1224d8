"""Demonstrations in from a LeRobotDataset v3; `tinyvla.data.lerobot_writer` writes one, and says how it is laid out.

Notable:
- it is read with `pyarrow` alone; `lerobot` itself (Python 3.12 and later) is needed only for cameras stored as video;
- images are decoded file by file by several threads, straight into one array, so the memory holds them once.
"""

from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from tinyvla.data.demonstrations import Demonstrations
from tinyvla.data.lerobot_writer import IMAGE_PREFIX, VERSION, numbers_of, write_dataset
from tinyvla.errors import InputError

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError:
    raise InputError(
        "LeRobot's format needs pyarrow, which is not installed; install it with: pip install 'tinyvla[lerobot]'"
    ) from None

__all__ = ["camera_name", "read_dataset", "read_through_lerobot", "write_dataset"]


def read_dataset(folder: str | Path) -> Demonstrations:
    """Read a LeRobotDataset v3 whose cameras are stored as images; one with video is read through `lerobot`.

    Raises:
        InputError: it is no such dataset, lacks what a policy learns from, or holds video and `lerobot` is missing.
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
    has_state = "observation.state" in features
    images = {name: _Images(key, sum(map(_num_rows, paths))) for key, name in cameras.items()}
    columns: dict[str, list[np.ndarray]] = {key: [] for key in ("action", "observation.state")[: 1 + has_state]}
    columns |= {key: [] for key in ("index", "task_index", "episode_index")}
    with ThreadPoolExecutor() as pool:
        for path in paths:
            table = pq.read_table(path, columns=[*cameras, *columns])
            for key, name in cameras.items():
                images[name].add(table.column(key), pool)
            for key, parts in columns.items():
                parts.append(_vectors(table.column(key)) if key in ("action", "observation.state") else
                             table.column(key).to_numpy())  # fmt: skip
    values = {key: np.concatenate(parts) for key, parts in columns.items()}
    tasks, names = _read_tasks(folder), features["action"].get("names")
    data = Demonstrations(
        {name: array.values for name, array in images.items()},
        values["action"],
        [tasks[number] for number in values["task_index"].tolist()],
        np.unique(values["episode_index"], return_inverse=True)[1].astype(np.int64),
        values.get("observation.state"),
        fps=int(info["fps"]),
        action_names=tuple(names) if isinstance(names, list) else (),
    )
    order = np.argsort(values["index"], kind="stable")
    return data if (np.diff(order) == 1).all() else data.rows(order)


def read_through_lerobot(folder: str | Path) -> Demonstrations:
    """Read a dataset with `lerobot`'s own class, which also decodes video.

    Raises:
        InputError: `lerobot` is not installed.
    """
    try:
        from lerobot.datasets import LeRobotDataset
    except ImportError:
        raise InputError(
            f"{folder} stores a camera as video, which lerobot decodes: pip install 'lerobot[dataset]' (Python 3.12 or "
            "later); or turn the videos into images first"
        ) from None
    dataset = LeRobotDataset(f"local/{Path(folder).name}", root=folder)
    items = [dataset[i] for i in range(len(dataset))]
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
    if not path.exists():
        raise InputError(f"{folder} holds no meta/info.json, so it is no LeRobotDataset")
    info = json.loads(path.read_text(encoding="utf-8"))
    version = str(info.get("codebase_version"))
    if not version.startswith("v3."):
        raise InputError(f"{folder} has the format {version}; {VERSION} is read. lerobot converts older ones")
    return info


def _read_tasks(folder: Path) -> dict[int, str]:
    table = pq.read_table(folder / "meta/tasks.parquet")
    sentences = next(table.column(name) for name in table.column_names if name != "task_index")
    return dict(zip(table.column("task_index").to_pylist(), sentences.to_pylist(), strict=True))


def _num_rows(path: Path) -> int:
    return int(pq.read_metadata(path).num_rows)


def _vectors(column: pa.ChunkedArray) -> Float32[np.ndarray, "n d"]:
    """Numbers, or lists of them, as rows."""
    if pa.types.is_fixed_size_list(column.type):
        return numbers_of(column).astype(np.float32)
    rows = np.array(column.to_pylist(), np.float32)
    return rows[:, None] if rows.ndim == 1 else rows


class _Images:
    """One camera's images, decoded one file after another into one array."""

    def __init__(self, key: str, count: int) -> None:
        self.key, self.count, self.done = key, count, 0
        self.values: UInt8[np.ndarray, "n 3 h w"] = np.zeros((0, 3, 1, 1), np.uint8)

    def add(self, column: pa.ChunkedArray, pool: ThreadPoolExecutor) -> None:
        """Decode a file's images behind the others."""
        cells = [cell["bytes"].as_py() for cell in column]
        if not all(cells):
            raise InputError(f"{self.key} names image files and does not hold the images; embed them first")
        if not self.done:
            self.values = np.empty((self.count, *_decoded(cells[0]).shape), np.uint8)
        for image in pool.map(_decoded, cells):
            if image.shape != self.values.shape[1:]:
                raise InputError(f"{self.key} holds images of different sizes")
            self.values[self.done] = image
            self.done += 1


def _decoded(data: bytes) -> UInt8[np.ndarray, "3 h w"]:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).transpose(2, 0, 1)
