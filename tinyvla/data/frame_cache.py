"""Decoded frames in a file: made once, at the policy's size, then memory-mapped by every training.

    FOLDER/CAMERA-192x192-stretch-FINGERPRINT.npy         all frames, uint8 (n, 3, h, w)
    FOLDER/CAMERA-192x192-stretch-FINGERPRINT.npy.part    the same while it grows
    FOLDER/CAMERA-192x192-stretch-FINGERPRINT.npy.done    which parts of it are finished, a line for each

Notable:
- the work is cut into parts of at most a thousand frames, which several threads decode; after a kill the finished parts
  stay, and the next call goes on behind them;
- one process decodes and others wait for it: the lock is the system's, so it goes when its holder dies;
- a data set that changed has another fingerprint, and its frames are decoded anew; those of before are removed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock
from typing import Any, Literal

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import Int64, UInt8
from tqdm.auto import tqdm

from tinyvla.data.resize import resized
from tinyvla.errors import InputError
from tinyvla.fields import check
from tinyvla.files import check_is_file
from tinyvla.room import size_of

MOST_FRAMES = 1_000
"""Of a part."""


@dataclass(frozen=True)
class Part:
    """Frames that are decoded one after the other."""

    rows: Int64[np.ndarray, "n"]
    """Where they go in the file."""
    frames: Callable[[], Iterator[UInt8[np.ndarray, "h w 3"]]]
    """Decodes them."""


@dataclass(frozen=True)
class Wanted:
    """One camera's frames, as a policy wants them."""

    camera: str
    size: tuple[int, int] | None
    """Height and width; that of the first frame if None."""
    resize: str
    """As for `tinyvla.data.resize.resized`."""
    fingerprint: str
    """Changes whenever the data set does."""


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cached_frames(folder: Path, wanted: Wanted, parts: Sequence[Part]) -> UInt8[np.ndarray, "n 3 h w"]:
    """Returns a camera's frames, memory-mapped and read-only; those that are not in the cache yet are decoded first.

    Args:
        folder: of the data set's cache.
        wanted: the camera, and how its frames shall look.
        parts: all of its frames.

    Raises:
        InputError: a frame is missing or damaged, frames differ in size where none is asked for, or the disk is full.
    """
    height, width = wanted.size or next(parts[0].frames()).shape[:2]
    stem = f"{wanted.camera.replace('/', '_')}-{height}x{width}-{wanted.resize}-"
    path = folder / f"{stem}{wanted.fingerprint}.npy"
    shape = (sum(len(part.rows) for part in parts), 3, height, width)
    if _opened(path, shape) is None:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            if _opened(path, shape) is None:  # another process may have made it by now
                _Growing(path, shape, wanted).fill(parts)
                for old in folder.glob(f"{stem}*"):
                    if not old.name.startswith(path.name):
                        old.unlink()
    frames = _opened(path, shape)
    check(frames is not None, f"{path} cannot be read although it was written just now; is its disk in order?")
    return frames


def _opened(path: Path, shape: tuple[int, ...], mode: Literal["r", "r+"] = "r") -> Any:
    """Frames in a file of the cache; None where there is none, or it is damaged and has to be made anew."""
    check_is_file(path)
    if not path.exists():
        return None
    try:
        frames = np.load(path, mmap_mode="r")  # "r+" would lengthen a file that was cut
        fits = frames.shape == shape and frames.dtype == np.uint8
        return np.load(path, mmap_mode=mode) if fits else None
    except (ValueError, OSError, EOFError):
        return None


class _Growing:
    """The file while it is made."""

    def __init__(self, path: Path, shape: tuple[int, ...], wanted: Wanted) -> None:
        self.path, self.wanted, self.size = path, wanted, shape[2:]
        self.unfinished, self.note = Path(f"{path}.part"), Path(f"{path}.done")
        self.frames = _opened(self.unfinished, shape, "r+")
        if self.frames is None:
            self.note.unlink(missing_ok=True)
            needed, free = int(np.prod(shape)), shutil.disk_usage(path.parent).free
            check(
                needed < free,
                f"the frames of {wanted.camera} need {size_of(needed)} in {path.parent}, where {size_of(free)} "
                "are free; choose a smaller --image-size, or another folder with TINYVLA_CACHE",
            )
            self.frames = np.lib.format.open_memmap(self.unfinished, mode="w+", dtype=np.uint8, shape=shape)
        self.stopped, self.writing = Event(), Lock()

    def fill(self, parts: Sequence[Part]) -> None:
        """Decode the parts that are missing, and bring the file to its place."""
        noted = self.note.read_text(errors="replace").split() if self.note.is_file() else []
        done = {int(number) for number in noted if number.isascii() and number.isdigit()}
        todo = [number for number in range(len(parts)) if number not in done]
        total = len(self.frames)
        known = total - sum(len(parts[number].rows) for number in todo)
        with (
            tqdm(total=total, initial=known, desc=self.wanted.camera, unit="frame", disable=None) as bar,
            ThreadPoolExecutor(num_cores()) as pool,
        ):
            futures = [pool.submit(self._decode, number, parts[number], bar) for number in todo]
            try:
                finished, _ = wait(futures, return_when=FIRST_EXCEPTION)
                for future in finished:
                    future.result()
            finally:
                self.stopped.set()  # the others end at their next frame
                pool.shutdown(cancel_futures=True)
        self.frames.flush()
        os.replace(self.unfinished, self.path)
        self.note.unlink(missing_ok=True)

    def _decode(self, number: int, part: Part, bar: tqdm) -> None:
        count = 0
        for row, frame in zip(part.rows, part.frames(), strict=True):
            if self.stopped.is_set():
                return
            self.frames[row] = self._sized(frame)
            count += 1
        with self.writing:
            self.frames.flush()  # before the note says that they are there
            with open(self.note, "a") as note:
                note.write(f"{number}\n")
            bar.update(count)

    def _sized(self, frame: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "3 h2 w2"]:
        if self.wanted.size is None and frame.shape[:2] != self.size:
            raise InputError(f"{self.wanted.camera} holds images of different sizes")
        image = torch.from_numpy(frame).permute(2, 0, 1)[None]
        height, width = self.size
        return resized(image, (height, width), self.wanted.resize)[0].numpy()
