from __future__ import annotations

import multiprocessing
import os
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from tinyvla.data import frame_cache
from tinyvla.data.frame_cache import Part, Wanted, cached_frames
from tinyvla.data.resize import resized
from tinyvla.errors import InputError

FRAMES = np.random.RandomState(0).randint(0, 256, (12, 20, 30, 3)).astype(np.uint8)


def decode(rows: np.ndarray, log: Path, seconds: float = 0.0):
    """Frames of those rows; each is noted, and takes its time."""
    for row in rows:
        time.sleep(seconds)
        with open(log, "a") as file:
            file.write(f"{row}\n")
        yield FRAMES[row]


def parts(log: Path, seconds: float = 0.0) -> list[Part]:
    """Four parts whose rows do not follow each other."""
    rows = np.random.RandomState(1).permutation(12).reshape(4, 3)
    return [Part(each, partial(decode, each, log, seconds)) for each in rows]


def wanted(**changes) -> Wanted:
    return Wanted(**{"camera": "front", "size": (8, 8), "resize": "stretch", "fingerprint": "abc", **changes})


def scaled() -> np.ndarray:
    return resized(torch.from_numpy(FRAMES.transpose(0, 3, 1, 2).copy()), (8, 8)).numpy()


def test_frames_are_decoded_once_and_mapped(tmp_path):
    log = tmp_path / "log"
    frames = cached_frames(tmp_path / "cache", wanted(), parts(log))
    assert isinstance(frames, np.memmap)
    assert not frames.flags.writeable
    np.testing.assert_array_equal(frames, scaled())
    assert sorted(log.read_text().split(), key=int) == [str(i) for i in range(12)]
    np.testing.assert_array_equal(cached_frames(tmp_path / "cache", wanted(), parts(log)), scaled())
    assert len(log.read_text().split()) == 12
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {".lock", "front-8x8-stretch-abc.npy"}


def test_without_a_size_frames_stay_as_they_are(tmp_path):
    frames = cached_frames(tmp_path, wanted(size=None), parts(tmp_path / "log"))
    np.testing.assert_array_equal(frames, FRAMES.transpose(0, 3, 1, 2))
    odd = [*parts(tmp_path / "log"), Part(np.array([12]), lambda: iter([np.zeros((9, 9, 3), np.uint8)]))]
    with pytest.raises(InputError, match="different sizes"):
        cached_frames(tmp_path, wanted(size=None, fingerprint="odd"), odd)


def test_what_has_changed_is_decoded_anew_and_other_sizes_stay(tmp_path):
    for changes in ({}, {"size": (4, 4)}, {"fingerprint": "new"}):
        cached_frames(tmp_path / "cache", wanted(**changes), parts(tmp_path / "log"))
    names = {path.name for path in (tmp_path / "cache").glob("*.npy")}
    assert names == {"front-4x4-stretch-abc.npy", "front-8x8-stretch-new.npy"}


@pytest.mark.parametrize("name", ["front-8x8-stretch-abc.npy", "front-8x8-stretch-abc.npy.part"])
@pytest.mark.parametrize("content", ["", "nonsense", "cut", "another shape"])
def test_damaged_files_of_the_cache_are_made_anew(tmp_path, name, content):
    cache = tmp_path / "cache"
    whole = cached_frames(cache, wanted(), parts(tmp_path / "log"))
    if "part" in name:
        (cache / "front-8x8-stretch-abc.npy").unlink()
        (cache / "front-8x8-stretch-abc.npy.done").write_text("0 one 2")
    if content == "another shape":
        with (cache / name).open("wb") as file:
            np.save(file, whole[:3])
    else:
        np.save(cache / "whole.npy", whole)
        text = (cache / "whole.npy").read_bytes()[:200] if content == "cut" else content.encode()
        (cache / name).write_bytes(text)
    np.testing.assert_array_equal(cached_frames(cache, wanted(), parts(tmp_path / "log")), scaled())


def test_a_damaged_part_leaves_the_finished_ones(tmp_path):
    log = tmp_path / "log"

    def damaged():
        time.sleep(0.3)  # the others are finished by then
        raise InputError("damaged")
        yield

    some = parts(log)
    with pytest.raises(InputError, match="damaged"):
        cached_frames(tmp_path / "cache", wanted(), [*some[:3], Part(some[3].rows, damaged)])
    assert not (tmp_path / "cache" / "front-8x8-stretch-abc.npy").exists()
    done = set(log.read_text().split())
    assert len(done) == 9
    frames = cached_frames(tmp_path / "cache", wanted(), some)
    np.testing.assert_array_equal(frames, scaled())
    assert len(log.read_text().split()) == 12, "what was finished was decoded again"


def test_a_killed_process_leaves_what_it_finished(tmp_path, monkeypatch):
    log, note = tmp_path / "log", tmp_path / "cache" / "front-8x8-stretch-abc.npy.done"
    monkeypatch.setattr(frame_cache, "num_cores", lambda: 1)
    process = multiprocessing.get_context("fork").Process(
        target=cached_frames, args=(tmp_path / "cache", wanted(), parts(log, 0.05))
    )
    process.start()
    for _ in range(400):
        if note.exists() and len(note.read_text().split()) >= 2:
            break
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    finished = 3 * len(note.read_text().split())
    assert 6 <= finished < 12
    log.unlink()
    np.testing.assert_array_equal(cached_frames(tmp_path / "cache", wanted(), parts(log)), scaled())
    assert len(log.read_text().split()) == 12 - finished


def test_two_processes_decode_once(tmp_path):
    log = tmp_path / "log"
    context = multiprocessing.get_context("fork")
    both = [
        context.Process(target=cached_frames, args=(tmp_path / "cache", wanted(), parts(log, 0.02))) for _ in range(2)
    ]
    for process in both:
        process.start()
    for process in both:
        process.join()
        assert process.exitcode == 0
    assert len(log.read_text().split()) == 12
