"""Where things lie in a LeRobotDataset, of format v3 or v2: facts, sentences, files of frames, videos.

They lie in these places::

                    v3                                        v2.0, v2.1
    sentences       meta/tasks.parquet                        meta/tasks.jsonl
    frames          data/chunk-000/file-000.parquet           data/chunk-000/episode_000000.parquet
    videos          videos/KEY/chunk-000/file-000.mp4         videos/chunk-000/KEY/episode_000000.mp4

Notable:
- in v3 a file holds many episodes, and `meta/episodes` says from which second on each of them lies in a video;
- paths follow the format and not the templates in `info.json`: a stranger's file does not decide what is opened.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from tinyvla.data.parquet import read_tables, whole_numbers
from tinyvla.errors import InputError
from tinyvla.fields import Within, check, check_number, check_once, checked, shown
from tinyvla.files import cache_folder, parse_json, read_bytes, read_json

IMAGE_PREFIX = "observation.images."
CONVERT = "python -m lerobot.scripts.convert_dataset_v21_to_v30 --repo-id=OWNER/NAME"
"""LeRobot 0.6's command for v2.1, from its `src/lerobot/datasets/utils.py`."""
CHANNELS = 3


@checked
def camera_name(key: str) -> str:
    """The camera behind a key: "wrist" of `observation.images.wrist`, "image" of `observation.image`."""
    return key.removeprefix(IMAGE_PREFIX).removeprefix("observation.")


@dataclass(frozen=True)
class Span:
    """Where an episode lies in a video."""

    path: Path
    start: float
    """Seconds."""
    stop: float


@dataclass(frozen=True)
class Layout:
    """A data set's folder and what its `info.json` says."""

    folder: Path
    info: dict[str, Any]
    is_v3: bool

    @classmethod
    def of(cls, folder: Path) -> Layout:
        """Returns the layout of a data set.

        Raises:
            InputError: it is none, is of another version, or its facts are damaged.
        """
        path = folder / "meta/info.json"
        info = read_json(path, f"{folder} holds no meta/info.json, so it is no LeRobotDataset")
        version = str(info.get("codebase_version"))
        if not version.startswith(("v3.", "v2.")):
            raise InputError(
                f"{folder} has the format {shown(version)}; v3 and v2 are read. LeRobot 0.6 brings v2.1 to v3 with: "
                f"{CONVERT} --root={folder} --push-to-hub=false; for older formats see "
                "https://github.com/huggingface/lerobot/pull/461"
            )
        info["fps"] = check_number(f"fps in {path}", _whole_if_equal(info.get("fps")), Within(1, 1_000))
        features: Any = info.get("features")
        check(isinstance(features, dict), f"features in {path} are {shown(features)}; they must be an object")
        for key, feature in features.items():
            fits = isinstance(feature, dict) and isinstance(feature.get("dtype"), str)
            fits = fits and isinstance(feature.get("shape"), list) and bool(feature["shape"])
            fits = fits and not {"..", ""} & set(str(key).split("/"))
            check(fits, f"the feature {shown(key)} in {path} is {shown(feature)}; it must have a dtype and a shape")
        _check_links(folder)
        return cls(folder, info, version.startswith("v3."))

    @property
    def fps(self) -> int:
        """Frames a second."""
        return int(self.info["fps"])

    @property
    def features(self) -> dict[str, Any]:
        """By key: dtype, shape, names."""
        return self.info["features"]

    def cameras(self, chosen: tuple[str, ...] = ()) -> dict[str, str]:
        """Returns the cameras' keys by their names.

        Args:
            chosen: names, or keys; all if empty.

        Raises:
            InputError: there is none, a chosen one is missing, or one gives no colour pictures.
        """
        keys = {camera_name(k): k for k, feature in self.features.items() if feature["dtype"] in ("image", "video")}
        check(
            "action" in self.features and bool(keys),
            f"{self.folder} has the features {', '.join(self.features)}; action and an image are needed to learn from",
        )
        names = [camera_name(name) for name in chosen] or list(keys)
        check_once(names, "cameras")
        unknown = [name for name in names if name not in keys]
        check(not unknown, f"{self.folder} has no camera {', '.join(unknown)}; it has {', '.join(keys)}")
        for name in names:
            self._check_colors(name, self.features[keys[name]])
        return {name: keys[name] for name in names}

    def _check_colors(self, name: str, feature: dict[str, Any]) -> None:
        shape, names = feature["shape"], feature.get("names")
        place = names.index("channels") if isinstance(names, list) and "channels" in names else None
        channels = shape[place] if place is not None and place < len(shape) else None
        channels = CHANNELS if channels is None and CHANNELS in shape else channels
        notes = [feature.get("info") or {}, feature.get("video_info") or {}]
        is_depth = any(isinstance(n, dict) and (n.get("is_depth_map") or n.get("video.is_depth_map")) for n in notes)
        check(
            channels == CHANNELS and not is_depth,
            f"the camera {name} in {self.folder} gives {'depth' if is_depth else shown(shape)}, and colours in three "
            "channels are needed; name the other cameras with --cameras",
        )

    def is_video(self, key: str) -> bool:
        """Whether a camera's frames lie in videos."""
        return self.features[key]["dtype"] == "video"

    def data_files(self) -> list[Path]:
        """Returns the files of frames.

        Raises:
            InputError: there are none.
        """
        paths = sorted((self.folder / "data").glob("*/*.parquet"))
        check(bool(paths), f"{self.folder} has no data/*/*.parquet; was only its meta folder downloaded?")
        return paths

    def tasks(self) -> dict[int, str]:
        """Returns the sentences by their numbers."""
        if self.is_v3:
            table = read_tables([self.folder / "meta/tasks.parquet"], [])
            names = [name for name in table.column_names if name != "task_index"]
            check(bool(names), f"{self.folder}/meta/tasks.parquet has no column of sentences")
            return dict(zip(whole_numbers(table, "task_index"), table.column(names[0]).to_pylist(), strict=True))
        path = self.folder / "meta/tasks.jsonl"
        lines = read_bytes(path, f"{self.folder} holds no meta/tasks.jsonl with the sentences").splitlines()
        rows = [parse_json(line, f"a line of {path}") for line in lines if line.strip()]
        fits = all(isinstance(row.get("task_index"), int) and isinstance(row.get("task"), str) for row in rows)
        check(fits, f"{path} holds {shown(rows)}; each line must have a task_index and a task")
        return {row["task_index"]: row["task"] for row in rows}

    @cached_property
    def _spans(self) -> dict[int, dict[str, Any]]:
        """The rows of v3's table of episodes, by episode."""
        paths = sorted((self.folder / "meta/episodes").glob("*/*.parquet"))
        check(
            bool(paths), f"{self.folder} has no meta/episodes/*/*.parquet, which say where episodes lie in the videos"
        )
        wanted = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")
        keys = [key for key in self.features if self.is_video(key)]
        columns = [f"videos/{key}/{name}" for key in keys for name in wanted]
        return {row["episode_index"]: row for row in read_tables(paths, ["episode_index", *columns]).to_pylist()}

    def span(self, key: str, episode: int) -> Span:
        """Returns where an episode lies in a camera's videos.

        Raises:
            InputError: the data set does not say so.
        """
        if not self.is_v3:
            size = check_number("chunks_size in info.json", self.info.get("chunks_size", 1_000), Within(1, 10**9))
            place = f"videos/chunk-{episode // size:03d}/{key}/episode_{episode:06d}.mp4"
            return Span(self.folder / place, 0.0, float("inf"))
        check(episode in self._spans, f"episode {episode} is none of meta/episodes in {self.folder}")
        row = self._spans[episode]
        chunk, file, start, stop = (
            row[f"videos/{key}/{name}"] for name in ("chunk_index", "file_index", "from_timestamp", "to_timestamp")
        )
        fits = isinstance(chunk, int) and isinstance(file, int) and isinstance(start, float) and isinstance(stop, float)
        check(
            fits and 0 <= start < stop < float("inf"),
            f"episode {episode} lies from {shown(start)} to {shown(stop)} s in file {shown(file)} of {key}, says "
            f"meta/episodes in {self.folder}; that cannot be",
        )
        return Span(self.folder / f"videos/{key}/chunk-{chunk:03d}/file-{file:03d}.mp4", start, stop)

    def fingerprint(self, key: str) -> str:
        """Returns twelve hexadecimal digits that change when a file does from which a camera's frames come."""
        others = {k for k in self.features if self.is_video(k)} - {key}
        digest = hashlib.sha256(key.encode())
        for path in sorted(path for name in ("meta", "data", "videos") for path in (self.folder / name).rglob("*.*")):
            name = path.relative_to(self.folder)
            if path.is_file() and not others & set(name.parts):
                state = path.stat()
                digest.update(f"{name}\0{state.st_size}\0{state.st_mtime_ns}\0".encode())
        return digest.hexdigest()[:12]

    def cache(self) -> Path:
        """Returns the folder where its decoded frames are kept."""
        whole = self.folder.resolve()
        return cache_folder() / "frames" / f"{whole.name}-{hashlib.sha256(str(whole).encode()).hexdigest()[:8]}"


def _check_links(folder: Path) -> None:
    """Refuse a data set of which a folder is a link that leads out of it, for example to all files of this machine.

    Links in place of files are the Hugging Face cache's way to keep them.

    Raises:
        InputError: there is one.
    """
    places = [str(folder / name) for name in ("meta", "data", "videos")]
    below = (os.path.join(path, name) for place in places for path, names, _ in os.walk(place) for name in names)
    for path in chain(places, below):  # one after the other: below a link to / lies everything
        if os.path.islink(path) and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
            raise InputError(f"{path} is a link that leads out of the data set; put the folder itself in its place")


def _whole_if_equal(value: Any) -> Any:
    """30.0 as 30, which some datasets write."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
