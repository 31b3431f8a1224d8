"""Demonstrations out to a LeRobotDataset v3: Parquet files, images inside or beside them as video, and facts.

    meta/info.json                            frames a second, features with shapes and names, where files lie
    meta/stats.json                           minimum, maximum, mean, std and quantiles of every feature
    meta/tasks.parquet                        the sentences, numbered
    meta/episodes/chunk-000/file-000.parquet  a row for each episode: its length, its sentences, where it lies
    data/chunk-000/file-000.parquet           a row for each frame; many episodes a file, a row group for each
    videos/KEY/chunk-000/file-000.mp4         cameras that are stored as video (`tinyvla.data.lerobot_videos`)

Notable:
- the layout is that of https://github.com/huggingface/lerobot/blob/main/docs/source/lerobot-dataset-v3.mdx, and
  `pyarrow` alone writes it;
- episodes are added one at a time, so a data set may be larger than the memory. `Episode` encodes its images as PNG, so
  what is read is what was written; many processes can make episodes, one of them writes;
- the statistics are exact, over all frames: of images they are made from how often each of the 256 values occurs.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image

from tinyvla.data.demonstrations import Demonstrations
from tinyvla.data.lerobot_layout import IMAGE_PREFIX
from tinyvla.data.lerobot_statistics import (
    Histogram,
    Statistics,
    feature_statistics,
    histogram_of,
    image_statistics,
)
from tinyvla.data.lerobot_videos import VIDEO_PATH, VideoFiles
from tinyvla.errors import InputError
from tinyvla.fields import check, checked
from tinyvla.files import as_path, write_text

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError:
    raise InputError(
        "LeRobot's format needs pyarrow, which is not installed; install it with: pip install 'tinyvla[lerobot]'"
    ) from None

VERSION = "v3.0"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
INFO_PATH = "meta/info.json"
FILES_PER_CHUNK, FILE_MEGABYTES = 1_000, 100
INDICES = {"timestamp": "float32", "frame_index": "int64", "episode_index": "int64", "index": "int64"}
INDICES["task_index"] = "int64"
PNG_LEVEL = 1
"""Of zlib; higher ones take longer and save little."""


@dataclass(frozen=True)
class Episode:
    """One episode in the form in which it is written: a table with a row for each frame."""

    table: pa.Table
    tasks: list[str]
    """The sentence of each frame."""
    histograms: dict[str, Histogram]
    """By camera's key."""
    statistics: dict[str, Statistics]
    """By the key of each column."""
    videos: dict[str, UInt8[np.ndarray, "t h w 3"]] = field(default_factory=dict)
    """By camera's key: frames that are to be written as video."""

    @classmethod
    def of(
        cls,
        images: Mapping[str, UInt8[np.ndarray, "t h w 3"]],
        columns: Mapping[str, Float32[np.ndarray, "t d"] | Bool[np.ndarray, "t"]],
        tasks: Sequence[str],
        fps: int,
        as_video: bool = False,
    ) -> Episode:
        """Returns an episode, its images encoded; for video they are encoded when they are written.

        Args:
            images: by camera's name.
            columns: vectors such as `action` and `observation.state`, or flags, under the data set's own keys.
            tasks: the sentence of each frame.
            fps: frames a second.
            as_video: whether the cameras are to be stored as video.
        """
        arrays, histograms = {}, {IMAGE_PREFIX + name: histogram_of(frames) for name, frames in images.items()}
        for name, frames in images.items() if not as_video else ():
            rows = [{"bytes": _png(frame), "path": f"frame-{i:06d}.png"} for i, frame in enumerate(frames)]
            arrays[IMAGE_PREFIX + name] = pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
        arrays |= {key: _array(values) for key, values in columns.items()}
        frame = np.arange(len(next(iter(arrays.values()))))
        arrays |= {"timestamp": pa.array((frame / fps).astype(np.float32)), "frame_index": pa.array(frame)}
        statistics = {key: image_statistics(value, len(frame)) for key, value in histograms.items()}
        statistics |= {key: feature_statistics(values) for key, values in columns.items()}
        videos = {IMAGE_PREFIX + name: frames for name, frames in images.items() if as_video}
        return cls(pa.table(arrays), list(tasks), histograms, statistics, videos)

    def save(self, path: Path) -> None:
        """Write it as a file of its own, to be added to a data set later; under another name until it is whole.

        Raises:
            InputError: its cameras are to be stored as video.
        """
        check(not self.videos, "an episode with video cannot be kept in a file of its own; add it to its data set")
        histograms = {key: value.tolist() for key, value in self.histograms.items()}
        note = {"tasks": self.tasks, "histograms": histograms, "statistics": self.statistics}
        unfinished = path.with_suffix(f".{os.getpid()}.part")
        pq.write_table(
            self.table.replace_schema_metadata({"tinyvla": json.dumps(note)}), unfinished, compression="none"
        )
        unfinished.replace(path)

    @classmethod
    def load(cls, path: Path) -> Episode:
        """Returns what `save` wrote."""
        table = pq.read_table(path)
        note = json.loads(table.schema.metadata[b"tinyvla"])
        histograms = {key: np.array(value) for key, value in note["histograms"].items()}
        return cls(table.replace_schema_metadata(None), note["tasks"], histograms, note["statistics"])


def _png(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=PNG_LEVEL)
    return buffer.getvalue()


def _array(values: np.ndarray) -> pa.Array:
    """Numbers, flags or vectors; the format stores vectors of one number as numbers."""
    if values.ndim == 1 or values.shape[1] == 1:
        return pa.array(values.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1), pa.float32()), values.shape[1])


class DatasetWriter:
    """Adds episodes to a new data set, one after another; `close` makes it whole.

    Args:
        folder: where to; the facts are written last, so what was not closed is no data set.
        fps: frames a second.
        tasks: all sentences, in the order of their numbers.
        names: of a vector's numbers, by its key.
        robot_type: noted in `info.json`.
        codec: of cameras that are stored as video, one of `tinyvla.data.video.CODECS`.
    """

    def __init__(
        self,
        folder: Path,
        fps: int,
        tasks: Sequence[str],
        names: Mapping[str, Sequence[str]] | None = None,
        robot_type: str = "tinyvla",
        codec: str = "av1",
    ) -> None:
        self.folder, self.fps, self.tasks = folder, fps, list(tasks)
        self.names, self.robot_type = dict(names or {}), robot_type
        self._rows: list[dict[str, Any]] = []
        self._numbers: dict[str, list[np.ndarray]] = {}
        self._histograms: dict[str, Histogram] = {}
        self._features: dict[str, Any] = {}
        self._file: pq.ParquetWriter | None = None
        self._size, self._frames, self._files = 0.0, 0, 0
        self._videos = VideoFiles(folder, fps, codec)

    def add(self, episode: Episode) -> None:
        """Write an episode behind the others."""
        length, number = len(episode.table), len(self._rows)
        columns = {"episode_index": np.full(length, number), "index": self._frames + np.arange(length)}
        columns["task_index"] = np.array([self.tasks.index(task) for task in episode.tasks])
        table = episode.table
        for key, values in columns.items():
            table = table.append_column(key, pa.array(values))
        self._features = self._features or self._described(table, episode.videos)
        row: dict[str, Any] = {"episode_index": number, "tasks": list(dict.fromkeys(episode.tasks)), "length": length}
        row |= self._write(table)
        row |= {"dataset_from_index": self._frames, "dataset_to_index": self._frames + length}
        for key, frames in episode.videos.items():
            row |= self._videos.add(key, frames)
        for key in [*episode.videos, *table.column_names]:
            statistics = episode.statistics.get(key)
            if key in episode.histograms:
                self._histograms[key] = self._histograms.get(key, 0) + episode.histograms[key]
            else:
                values = numbers_of(table.column(key))
                statistics = statistics or feature_statistics(values)
                self._numbers.setdefault(key, []).append(values)
            row |= {f"stats/{key}/{name}": value for name, value in (statistics or {}).items()}
        self._rows.append({**row, "meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0})
        self._frames += length

    def _write(self, table: pa.Table) -> dict[str, int]:
        """Write an episode's rows, beginning a new file where one is full; returns where they lie."""
        if self._file is None or self._size + table.nbytes > FILE_MEGABYTES * 2**20:
            if self._file is not None:
                self._file.close()
            path = self.folder / DATA_PATH.format(**_place(self._files))
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file, self._size, self._files = pq.ParquetWriter(path, table.schema), 0, self._files + 1
        self._file.write_table(table)
        self._size += table.nbytes
        return {f"data/{key}": value for key, value in _place(self._files - 1).items()}

    def _described(self, table: pa.Table, videos: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """What `info.json` says of every feature."""
        features = {key: self._videos.described(frames) for key, frames in videos.items()}
        for key in table.column_names:
            if key.startswith(IMAGE_PREFIX):
                with Image.open(io.BytesIO(table.column(key)[0]["bytes"].as_py())) as image:
                    shape = [image.height, image.width, 3]
                features[key] = {"dtype": "image", "shape": shape, "names": ["height", "width", "channels"]}
                continue
            values = numbers_of(table.column(key))
            dtype = INDICES.get(key, "bool" if values.dtype == bool else "float32")
            names = list(self.names[key]) if key in self.names else None
            described: dict[str, Any] = {"dtype": dtype, "shape": [1, *values.shape[1:]][-1:], "names": names}
            features[key] = described
        return features

    def close(self) -> None:
        """Write the facts.

        Raises:
            InputError: no episode was added.
        """
        if self._file is None:
            raise InputError("a data set needs at least one episode")
        self._file.close()
        self._videos.close()
        statistics = {key: feature_statistics(np.concatenate(values)) for key, values in self._numbers.items()}
        statistics |= {key: image_statistics(value, self._frames) for key, value in self._histograms.items()}
        _write_table(pa.Table.from_pylist(self._rows), self.folder / EPISODES_PATH.format(**_place(0)))
        _write_table(_task_table(self.tasks), self.folder / "meta/tasks.parquet")
        info = {
            "codebase_version": VERSION,
            "robot_type": self.robot_type,
            "total_episodes": len(self._rows),
            "total_frames": self._frames,
            "total_tasks": len(self.tasks),
            "chunks_size": FILES_PER_CHUNK,
            "data_files_size_in_mb": FILE_MEGABYTES,
            "fps": self.fps,
            "splits": {"train": f"0:{len(self._rows)}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if self._videos.is_used else None,
            "features": self._features,
        }
        for path, content in (("meta/stats.json", statistics), (INFO_PATH, info)):
            write_text(self.folder / path, json.dumps(content, indent=4) + "\n")


@checked
def write_dataset(
    demonstrations: Demonstrations,
    folder: str | Path,
    robot_type: str = "tinyvla",
    video: bool = False,
    codec: str = "av1",
) -> Path:
    """Write a LeRobotDataset v3; returns its folder.

    Args:
        demonstrations: what was recorded.
        folder: must not exist yet.
        robot_type: noted in `info.json`.
        video: whether cameras are stored as video, which is small and loses a little, or as images, which lose nothing.
        codec: of videos, one of `tinyvla.data.video.CODECS`.

    Raises:
        InputError: the folder exists, or the images cannot be written as video.
    """
    folder, data = as_path(folder, "the folder"), demonstrations
    if folder.exists():
        raise InputError(f"{folder} exists already; choose another folder, or remove it")
    names = {"action": list(data.action_names)} if data.action_names else {}
    writer = DatasetWriter(folder, data.fps, list(dict.fromkeys(data.instructions)), names, robot_type, codec)
    try:
        _add_all(writer, data, video)
        writer.close()
    except BaseException:  # half a data set is none
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def _add_all(writer: DatasetWriter, data: Demonstrations, as_video: bool) -> None:
    starts = np.flatnonzero(np.diff(data.episodes, prepend=-1))
    for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(data)], strict=True):
        images = {name: frames[start:stop].transpose(0, 2, 3, 1) for name, frames in data.images.items()}
        columns = {"action": data.actions[start:stop]}
        columns |= {} if data.states is None else {"observation.state": data.states[start:stop]}
        writer.add(Episode.of(images, columns, data.instructions[start:stop], data.fps, as_video))


def _place(file: int) -> dict[str, int]:
    return dict(zip(("chunk_index", "file_index"), divmod(file, FILES_PER_CHUNK), strict=True))


def numbers_of(column: pa.ChunkedArray) -> np.ndarray:
    """A column of numbers, flags or vectors as an array."""
    array = column.combine_chunks()
    if pa.types.is_fixed_size_list(array.type):
        return array.flatten().to_numpy().reshape(-1, array.type.list_size)
    return array.to_numpy(zero_copy_only=False)


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
