"""The videos of a LeRobotDataset v3 that is written: one file a camera, episodes one behind the other.

    videos/KEY/chunk-000/file-000.mp4

Notable:
- a frame's time in its file goes on from episode to episode; the table of episodes says where each begins and ends;
- when a file is large, the next episode begins a new one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from tinyvla.data.video import CODECS, VideoWriter
from tinyvla.fields import check, shown

VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
FILE_MEGABYTES, FILES_PER_CHUNK = 200, 1_000


class VideoFiles:
    """Writes the cameras of a data set.

    Args:
        folder: the data set's.
        fps: frames a second.
        codec: one of `tinyvla.data.video.CODECS`.
    """

    def __init__(self, folder: Path, fps: int, codec: str) -> None:
        check(codec in CODECS, f"unknown codec {codec!r}; choose from {', '.join(CODECS)}")
        self.folder, self.fps, self.codec = folder, fps, codec
        self._open: dict[str, VideoWriter] = {}
        self._files: dict[str, int] = {}

    @property
    def is_used(self) -> bool:
        """Whether there is any video."""
        return bool(self._files)

    def add(self, key: str, frames: UInt8[np.ndarray, "t h w 3"]) -> dict[str, Any]:
        """Write a camera's frames of an episode; returns what the table of episodes says of them.

        Raises:
            InputError: the key cannot be the name of a folder, or the frames cannot be written as video.
        """
        writer = self._open.get(key)
        if writer is not None and writer.bytes > FILE_MEGABYTES * 2**20:
            writer.close()
            writer = None
        if writer is None:
            fits = re.fullmatch(r"[\w.-]+", key) and key.strip(".")
            check(bool(fits), f"the camera {shown(key)} cannot name a folder; use letters, digits, _, - and .")
            number = self._files[key] = self._files.get(key, -1) + 1
            path = self.folder / VIDEO_PATH.format(video_key=key, **place_of(number))
            path.parent.mkdir(parents=True, exist_ok=True)
            writer = self._open[key] = VideoWriter(path, self.fps, self.codec)
        start = writer.count / self.fps
        writer.add(frames)
        row = {**place_of(self._files[key]), "from_timestamp": start, "to_timestamp": writer.count / self.fps}
        return {f"videos/{key}/{name}": value for name, value in row.items()}

    def described(self, frames: UInt8[np.ndarray, "t h w 3"]) -> dict[str, Any]:
        """Returns what `info.json` says of a camera."""
        height, width = frames.shape[1:3]
        facts = {
            "video.height": height,
            "video.width": width,
            "video.codec": self.codec,
            "video.pix_fmt": "yuv420p",
            "video.fps": self.fps,
            "video.channels": 3,
            "is_depth_map": False,
            "has_audio": False,
        }
        names = ["height", "width", "channels"]
        return {"dtype": "video", "shape": [height, width, 3], "names": names, "info": facts}

    def close(self) -> None:
        """Write what the encoders still hold."""
        for writer in self._open.values():
            writer.close()


def place_of(number: int) -> dict[str, int]:
    """Returns where the file of a number lies."""
    return dict(zip(("chunk_index", "file_index"), divmod(number, FILES_PER_CHUNK), strict=True))
