"""Video files: the frames at given times out, frames in. AV1, H.264 and what else FFmpeg knows, through PyAV.

Notable:
- a frame is asked for by its time, not by its number: a file may hold many episodes, and another rate than was meant;
- a frame that is not there, because the file is cut, damaged or has another rate, is refused in words and never
  replaced by its neighbour;
- the AV1 encoder (SVT-AV1) gives real-time priority to its threads, and to the one that opens it, where it may, as it
  may for root on Colab and in containers; a process that computes with it lets no other run. So it is taken back.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt8

from tinyvla.errors import InputError
from tinyvla.fields import MAX_SIDE, Within, check, check_number, shown
from tinyvla.files import as_path, check_is_no_pointer

KEY_FRAME_EVERY = 2
"""Frames between two that can be decoded without others; LeRobot's choice, so that single frames are found quickly."""
CODECS: dict[str, dict[str, str]] = {
    "av1": {"g": str(KEY_FRAME_EVERY), "crf": "30", "preset": "11"},
    "h264": {"g": str(KEY_FRAME_EVERY), "crf": "23"},
}
"""Codecs that can be written, and how finely: LeRobot writes AV1 at the same `crf`."""
ENCODERS = {"av1": "libsvtav1", "h264": "libx264"}
MOST_AV1_FPS = 240
"""Frames a second that SVT-AV1 takes."""
LEAST_AV1_SIDE = 32
"""Pixels. For a side of 16, LeRobot's PyAV (15.1) ends the whole process with a floating point exception."""


def load_av() -> Any:
    """Returns PyAV.

    Raises:
        InputError: it is not installed.
    """
    try:
        import av
    except ImportError:
        raise InputError(
            "video needs PyAV, which is not installed; install it with: pip install 'tinyvla[lerobot]'"
        ) from None
    # What goes wrong is said once, by what is raised. At any level but none, a decoder's thread that has something to
    # log waits for Python's lock, and whoever closes the decoder with that lock in hand waits for the thread: for ever.
    av.logging.set_level(None)
    return av


def frames_at(
    path: Path, times: Float64[np.ndarray, "n"], tolerance: float, threads: int = 0
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Yields the frames of a video at times, in their order; for each time the nearest frame.

    Args:
        path: of the video.
        times: in seconds from the file's beginning, ascending.
        tolerance: seconds by which a frame may lie off its time.
        threads: of the decoder; 0 lets it choose.

    Raises:
        InputError: the file is missing or damaged, or has no frame near a time.
    """
    av = load_av()
    fits = isinstance(times, np.ndarray) and times.ndim == 1 and len(times) > 0 and times.dtype.kind == "f"
    check(fits and bool(np.isfinite(times).all()), f"the times are {shown(times)}; they must be seconds, at least one")
    path = as_path(path, "the video")
    check(path.is_file(), f"the video {path} is missing")
    check_is_no_pointer(path)
    reformatter, done, last = av.video.reformatter.VideoReformatter(), 0, None
    try:
        with av.open(str(path)) as container:
            check(bool(container.streams.video), f"{path} holds no video")
            stream = container.streams.video[0]
            side = max(stream.width, stream.height)
            check(0 < side <= MAX_SIDE, f"{path} has {side} pixels a side; at most {MAX_SIDE} are read")
            stream.thread_type, stream.codec_context.thread_count = "AUTO", threads
            container.seek(int(max(0.0, times[0] - tolerance) / stream.time_base), backward=True, stream=stream)
            for frame in _in_order(container.decode(stream)):
                if last is not None:
                    upto = int(np.searchsorted(times, (last.time + frame.time) / 2))
                    yield from _repeated(reformatter, last, times, slice(done, upto), tolerance, path)
                    done = max(done, upto)
                last = frame
                if done == len(times):
                    return
            if last is not None:
                yield from _repeated(reformatter, last, times, slice(done, len(times)), tolerance, path)
    except (av.FFmpegError, ValueError, OSError, EOFError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"the video {path} is damaged ({' '.join(str(error).split())[:200]})") from None
    check(last is not None, f"the video {path} holds no frame that can be decoded")


def _in_order(frames: Iterable[Any]) -> Iterator[Any]:
    """The frames that have a time and come after those before."""
    time = -np.inf
    for frame in frames:
        if frame.time is not None and frame.time > time:
            time = frame.time
            yield frame


def _repeated(
    reformatter: Any, frame: Any, times: Float64[np.ndarray, "n"], part: slice, tolerance: float, path: Path
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """A frame for each of the times that it is nearest to."""
    asked = times[part]
    if not len(asked):
        return
    off = np.abs(asked - frame.time)
    missing = off > tolerance
    check(
        not bool(missing.any()),
        f"the video {path} has no frame at {asked[missing.argmax()]:.3f} s, the nearest is at {frame.time:.3f} s: it "
        "is cut short, or has another rate than fps in meta/info.json",
    )
    picture = reformatter.reformat(frame, format="rgb24").to_ndarray()
    for _ in asked:
        yield picture


class VideoWriter:
    """Writes frames into one file, at a constant rate; a context manager.

    Args:
        path: must end with .mp4; its folder must exist.
        fps: frames a second.
        codec: one of `CODECS`.

    Attributes:
        count: frames that were written.
        bytes: size of what the encoder has given so far.
    """

    def __init__(self, path: Path, fps: int, codec: str = "av1") -> None:
        check(codec in CODECS, f"unknown codec {codec!r}; choose from {', '.join(CODECS)}")
        fps = check_number("fps", fps, Within(1, MOST_AV1_FPS if codec == "av1" else 1_000))
        self.path, self.fps, self.codec = as_path(path, "the video"), fps, codec
        self.count, self.bytes = 0, 0
        self._av = load_av()
        os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder reports its settings otherwise
        self._container: Any = None
        self._stream: Any = None
        self._closed = False

    def add(self, frames: UInt8[np.ndarray, "t h w 3"]) -> None:
        """Write frames behind the others.

        Raises:
            InputError: the file is closed; a side has an odd number of pixels, which the codecs' colours do not allow,
                or is too short for AV1; or sizes differ.
        """
        check(not self._closed, f"{self.path} is closed; frames added now would replace those that it holds")
        height, width = frames.shape[1:3]
        if self._container is None:
            check(
                not (height % 2 or width % 2),
                f"frames of {height} x {width} pixels cannot be written as video; both sides must be even",
            )
            check(
                self.codec != "av1" or min(height, width) >= LEAST_AV1_SIDE,
                f"frames of {height} x {width} pixels are too small for AV1: at least {LEAST_AV1_SIDE} on each side; "
                "choose codec='h264', or store images",
            )
            self._container = self._av.open(str(self.path), "w")
            self._stream = self._container.add_stream(ENCODERS[self.codec], self.fps, options=CODECS[self.codec])
            self._stream.height, self._stream.width, self._stream.pix_fmt = height, width, "yuv420p"
            with _same_priority():
                self._stream.codec_context.open()
        sizes = (self._stream.height, self._stream.width)
        check((height, width) == sizes, f"frames of {height} x {width} do not go into a video of {sizes}")
        for frame in frames:
            picture = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture.pts = self.count
            self._write(self._stream.encode(picture))
            self.count += 1

    def _write(self, packets: list[Any]) -> None:
        self.bytes += sum(packet.size for packet in packets)
        self._container.mux(packets)

    def close(self) -> None:
        """Write what the encoder still holds; nothing can be added afterwards."""
        self._closed = True
        if self._container is not None:
            self._write(self._stream.encode())
            self._container.close()
            self._container = None

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


@contextmanager
def _same_priority() -> Iterator[None]:
    """What runs leaves its thread the priority that it has, and gives the same to threads that it starts (on Linux)."""
    tasks = Path("/proc/self/task")
    if not tasks.is_dir():
        yield
        return
    policy, parameter, before = os.sched_getscheduler(0), os.sched_getparam(0), set(os.listdir(tasks))
    try:
        yield
    finally:
        for thread in {*os.listdir(tasks)} - before | {str(threading.get_native_id())}:
            with suppress(OSError):  # it has ended
                os.sched_setscheduler(int(thread), policy, parameter)
