"""Demonstrations in from a LeRobotDataset: a folder or an id on the Hugging Face hub, cameras as images or as video.

Notable:
- `pyarrow` and PyAV read it; `lerobot` itself, whose pins are other ones, is not needed;
- video, and whatever is wanted at another size, is decoded once into a file (`tinyvla.data.frame_cache`), so that a
  data set may be larger than the memory. Images at their own size are decoded into memory;
- `tinyvla.data.lerobot_writer` writes one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from tinyvla.config import RESIZES
from tinyvla.data.demonstrations import Demonstrations
from tinyvla.data.frame_cache import MOST_FRAMES, Part, Wanted, cached_frames
from tinyvla.data.lerobot_layout import Layout, camera_name
from tinyvla.data.lerobot_writer import write_dataset
from tinyvla.data.parquet import Pictures, joined, num_rows, pa, picture_rows, read_tables, vectors, whole_numbers
from tinyvla.data.video import frames_at
from tinyvla.errors import InputError, counted
from tinyvla.fields import check, check_once, checked, shown
from tinyvla.files import as_path
from tinyvla.sizes import check_sides

__all__ = ["camera_name", "read_dataset", "write_dataset"]

STATE = "observation.state"


@checked
def read_dataset(
    source: str | Path,
    size: int | tuple[int, int] | None = None,
    cameras: Sequence[str] = (),
    states: Sequence[str] = (),
    resize: str = "stretch",
) -> Demonstrations:
    """Read a LeRobotDataset of format v3 or v2.

    Args:
        source: its folder, or `owner/name` on the Hugging Face hub.
        size: height and width to which images are scaled, from then on in the cache; one number means both. Their own
            if None.
        cameras: names of those that are wanted; all if empty.
        states: keys whose numbers make the state, one behind the other; `observation.state` if empty.
        resize: "stretch" or "pad", as in the policy's configuration.

    Raises:
        InputError: it is no such dataset, is damaged, lacks what a policy learns from, or the hub does not give it.
    """
    check(resize in RESIZES, f"unknown resize {shown(resize)}; choose from {', '.join(RESIZES)}")
    if size is not None:
        check_sides("size", size)
    layout = Layout.of(local_folder(source, cameras))
    chosen = layout.cameras(tuple(cameras))
    folder, features = layout.folder, layout.features
    state = [key for key in states or [STATE] if states or key in features]
    check_once(state, "states")
    known = [key for key, feature in features.items() if feature["dtype"] not in ("image", "video")]
    lacking = [key for key in state if key not in known]
    check(not lacking, f"{folder} lacks {', '.join(lacking)}; it has the features {', '.join(known)}")
    in_memory = size is None and not any(layout.is_video(key) for key in chosen.values())
    columns = list(dict.fromkeys(["action", *state, "index", "episode_index", "task_index"]))
    needs_time = any(layout.is_video(key) for key in chosen.values())
    columns += ["timestamp"] * ((needs_time or "timestamp" in features) and "timestamp" not in columns)
    paths = layout.data_files()
    pictures = {key: Pictures(key, sum(map(num_rows, paths))) for key in chosen.values()} if in_memory else {}
    table = _read(paths, columns, pictures)
    rows = _Rows.of(table, layout)
    rows.check_rate(layout)
    for what, count in (("frame", len(table)), ("episode", len(np.unique(rows.episodes)))):
        said = layout.info.get(f"total_{what}s", count)
        check(said == count, f"{folder} has {counted(count, what)} in data, and its info.json says {shown(said)}")
    order, tasks = rows.order, layout.tasks()
    numbers = whole_numbers(table, "task_index")
    unknown = sorted(set(numbers) - set(tasks))
    check(not unknown, f"task_index {shown(unknown)} in {folder} is none of meta/tasks")
    actions = vectors(table, "action")
    given = [vectors(table, key) for key in state]
    names = features["action"].get("names")
    names = _flat(names) if isinstance(names, dict) else names
    texts = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
    wanted = (size, size) if isinstance(size, int) else size
    images = (
        {camera_name(key): p.values if rows.is_sorted else p.values[order] for key, p in pictures.items()}
        if in_memory
        else {name: _cached(layout, name, key, rows, wanted, resize) for name, key in chosen.items()}
    )
    return Demonstrations(
        images,
        actions[order],
        [tasks[numbers[i]] for i in order],
        np.unique(rows.episodes[order], return_inverse=True)[1].astype(np.int64),
        np.concatenate(given, axis=1)[order] if given else None,
        fps=layout.fps,
        action_names=tuple(texts) if len(texts) == actions.shape[1] else (),
        timestamps=None if rows.timestamps is None else rows.timestamps[order],
    )


@dataclass(frozen=True)
class _Rows:
    """The frames of a data set, as its files have them."""

    order: Int64[np.ndarray, "n"]
    """Which row comes first, second, ..."""
    episodes: Int64[np.ndarray, "n"]
    timestamps: Float64[np.ndarray, "n"] | None

    @classmethod
    def of(cls, table: pa.Table, layout: Layout) -> _Rows:
        """Returns the rows of a table."""
        index, times = np.array(whole_numbers(table, "index")), None
        if "timestamp" in table.column_names:
            values = vectors(table, "timestamp")
            check(
                values.shape[1] == 1 and bool(np.isfinite(values).all()),
                f"timestamp in {layout.folder} must be one finite number for each frame",
            )
            times = values[:, 0].astype(np.float64)
        order = np.argsort(index, kind="stable")
        check(bool((np.diff(index[order]) > 0).all()), f"index in {layout.folder} names a frame twice")
        return cls(order, np.array(whole_numbers(table, "episode_index")), times)

    def check_rate(self, layout: Layout) -> None:
        """Refuse time stamps that go on at another rate than the data set says.

        Raises:
            InputError: they do.
        """
        if self.timestamps is None:
            return
        times, episodes = self.timestamps[self.order], self.episodes[self.order]
        steps = np.diff(times)[np.diff(episodes) == 0]
        rate = 1 / max(float(np.median(steps)), 1e-9) if len(steps) else layout.fps
        check(
            0.8 < rate / layout.fps < 1.25 or rate > 1_000,  # those that stand still are refused elsewhere
            f"the time stamps in {layout.folder} go on at {rate:.4g} frames a second, and info.json says {layout.fps}",
        )

    @property
    def is_sorted(self) -> bool:
        """Whether the files have them in their order."""
        return bool((np.diff(self.order) == 1).all())


def _read(paths: list[Path], columns: list[str], pictures: dict[str, Pictures]) -> pa.Table:
    """The columns of all files; pictures that are wanted in memory are decoded on the way."""
    tables = []
    with ThreadPoolExecutor() as pool:
        for path in paths:
            table = read_tables([path], [*pictures, *columns])
            for key, of_camera in pictures.items():
                of_camera.add(table.column(key), pool)
            tables.append(table.drop_columns(list(pictures)))
    return joined(tables, paths)


def _cached(
    layout: Layout, name: str, key: str, rows: _Rows, size: tuple[int, int] | None, resize: str
) -> UInt8[np.ndarray, "n 3 h w"]:
    """One camera's frames, from the cache."""
    parts = list(_video_parts(layout, key, rows) if layout.is_video(key) else _picture_parts(layout, key, rows))
    return cached_frames(layout.cache(), Wanted(name, size, resize, layout.fingerprint(key)), parts)


def _picture_parts(layout: Layout, key: str, rows: _Rows) -> Iterator[Part]:
    """Images inside the data files: a part for each row group."""
    place, done = np.argsort(rows.order), 0
    for path in layout.data_files():
        for group, count in picture_rows(path, key):
            yield Part(place[done : done + count], partial(Pictures.of_group, path, key, group, done))
            done += count


def _video_parts(layout: Layout, key: str, rows: _Rows) -> Iterator[Part]:
    """Videos: each episode's frames, a thousand at a time."""
    assert rows.timestamps is not None  # read because there is video
    tolerance = 0.5 / layout.fps
    times_in_order, episodes = rows.timestamps[rows.order], rows.episodes[rows.order]
    starts = np.flatnonzero(np.diff(episodes, prepend=episodes[0] - 1)).tolist()
    for first, end in zip(starts, [*starts[1:], len(episodes)], strict=True):
        episode, times = int(episodes[first]), times_in_order[first:end]
        span = layout.span(key, episode)
        steps = np.diff(times)
        check(
            bool((steps > 0).all() and times[0] >= 0),
            f"the time stamps of episode {episode} in {layout.folder} do not ascend: at frame "
            f"{int(np.argmin(steps)) + 1 if len(steps) else 0} they go back",
        )
        check(
            bool(span.start + times[-1] < span.stop + tolerance),
            f"the time stamps of episode {episode} in {layout.folder} jump: they end at {times[-1]:.3f} s, and the "
            f"episode's part of its video is {span.stop - span.start:.3f} s long",
        )
        for start in range(0, len(times), MOST_FRAMES):
            some = span.start + times[start : start + MOST_FRAMES]
            yield Part(first + start + np.arange(len(some)), partial(frames_at, span.path, some, tolerance, 1))


def _flat(names: dict[str, object]) -> list[object]:
    """Names that are grouped, as {"motors": ["shoulder", ...]}, one after the other."""
    return [name for group in names.values() for name in (group if isinstance(group, list) else [group])]


def local_folder(source: str | Path, cameras: Sequence[str] = ()) -> Path:
    """Returns the folder of a data set; one on the hub is downloaded, or found in the hub's cache.

    Args:
        source: a folder, or `owner/name` on the hub.
        cameras: whose videos are downloaded; all if empty.

    Raises:
        InputError: there is neither.
    """
    folder = as_path(source, "the data set")
    if folder.is_dir() or not re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)):
        check(folder.is_dir(), f"there is no folder {source}, and it is no owner/name on the Hugging Face hub either")
        return folder
    from huggingface_hub import constants, snapshot_download

    videos = [f"videos/*{camera_name(camera)}/*" for camera in cameras] or ["videos/*"]
    try:
        return Path(snapshot_download(str(source), repo_type="dataset", allow_patterns=["meta/*", "data/*", *videos]))
    except Exception as error:  # the client raises many kinds
        cause = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"there is no folder {source}, and the Hugging Face hub did not give a data set of that name ({cause}); "
            f"where there is a network, `hf download --repo-type dataset {source}` fills {constants.HF_HUB_CACHE}"
        ) from None
