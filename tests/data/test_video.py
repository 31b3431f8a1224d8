from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tinyvla.data.video import CODECS, VideoWriter, frames_at
from tinyvla.errors import InputError

FPS = 10


def ramp(count: int) -> np.ndarray:
    """Frames of one brightness each, so that each frame says which one it is."""
    return np.broadcast_to((5 * np.arange(count, dtype=np.uint8))[:, None, None, None], (count, 32, 48, 3))


@pytest.fixture(scope="module", params=CODECS)
def video(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "ramp.mp4"
    with VideoWriter(path, FPS, request.param) as writer:
        writer.add(ramp(40)[:15])
        writer.add(ramp(40)[15:])
        assert writer.count == 40
    return path


def numbers(video, times, tolerance=0.05) -> list[int]:
    return [round(float(frame.mean()) / 5) for frame in frames_at(video, np.array(times), tolerance)]


def test_each_frame_comes_back_at_its_time(video):
    assert numbers(video, np.arange(40) / FPS) == list(range(40))
    assert next(iter(frames_at(video, np.zeros(1), 0.05))).shape == (32, 48, 3)


def test_a_part_is_found_without_what_lies_before(video):
    assert numbers(video, [2.3, 2.4, 2.5]) == [23, 24, 25]


@pytest.mark.parametrize("codec", CODECS)
def test_no_thread_gets_real_time_priority(codec, tmp_path):
    """SVT-AV1 takes it where it may, as root may: with it, two busy processes stopped a machine of two cores."""
    tasks = Path("/proc/self/task")
    if not tasks.is_dir():
        pytest.skip("threads are listed so on Linux alone")
    before, real_time = os.sched_getscheduler(0), {os.SCHED_FIFO, os.SCHED_RR}
    with VideoWriter(tmp_path / "a.mp4", FPS, codec) as writer:
        writer.add(ramp(3))
        assert not real_time & {os.sched_getscheduler(int(thread.name)) for thread in tasks.iterdir()}
    assert os.sched_getscheduler(0) == before


def test_decoders_log_nothing_and_so_never_wait_for_python(video):
    av = pytest.importorskip("av")
    av.logging.set_level(av.logging.PANIC)  # as another library may have it; hung in one of 10,000 decodings
    numbers(video, [2.3])
    assert av.logging.get_level() is None


def test_the_nearest_frame_is_taken_as_often_as_it_is_asked_for(video):
    assert numbers(video, [1.04, 1.06, 1.06, 3.9]) == [10, 11, 11, 39]


@pytest.mark.parametrize(("times", "first"), [([3.9, 4.0, 4.1], "4.000"), ([0.0, 0.15, 0.25], "0.150"), ([9.0], "9")])
def test_a_frame_that_is_not_there_is_refused(video, times, first):
    with pytest.raises(InputError, match=f"no frame at {first}"):
        numbers(video, times, tolerance=0.03)


def test_sizes_must_fit(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", FPS) as writer, pytest.raises(InputError, match="must be even"):
        writer.add(np.zeros((1, 33, 48, 3), np.uint8))
    with VideoWriter(tmp_path / "b.mp4", FPS) as writer:
        writer.add(np.zeros((1, 32, 48, 3), np.uint8))
        with pytest.raises(InputError, match="do not go into a video"):
            writer.add(np.zeros((1, 48, 32, 3), np.uint8))
    for shape in ((16, 64), (64, 16)):  # the encoder of PyAV 15 would end this process
        with VideoWriter(tmp_path / "d.mp4", FPS) as writer, pytest.raises(InputError, match="too small for AV1"):
            writer.add(np.zeros((1, *shape, 3), np.uint8))
    with VideoWriter(tmp_path / "e.mp4", FPS, "h264") as writer:
        writer.add(np.zeros((1, 16, 16, 3), np.uint8))
    with pytest.raises(InputError, match="choose from av1, h264"):
        VideoWriter(tmp_path / "c.mp4", FPS, "gif")


def test_a_closed_file_takes_no_more(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", FPS, "h264") as writer:
        writer.add(ramp(3))
    before = (tmp_path / "a.mp4").read_bytes()
    with pytest.raises(InputError, match="is closed"):
        writer.add(ramp(1))
    assert (tmp_path / "a.mp4").read_bytes() == before
