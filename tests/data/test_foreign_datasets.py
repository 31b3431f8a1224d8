"""Damaged and foreign data sets with video: each is one clear line and exit code 2, or is read right."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tinyvla.app import cli
from tinyvla.data.demonstrations import Demonstrations
from tinyvla.data.lerobot import read_dataset, write_dataset
from tinyvla.data.video import VideoWriter

SECONDS = 20
FPS, LENGTHS, SENTENCES = 10, (8, 6, 7), ("pick up the red block", "pick up the blue block", "pick up the red block")
DATA, TASKS, INFO = "data/chunk-000/file-000.parquet", "meta/tasks.parquet", "meta/info.json"
TABLE = "meta/episodes/chunk-000/file-000.parquet"
FRONT, WRIST = "observation.images.front", "observation.images.wrist"
VIDEO = f"videos/{FRONT}/chunk-000/file-000.mp4"


def pictures(seed: int, count: int, height: int, width: int) -> np.ndarray:
    """Pictures that a codec keeps nearly as they are: a square that moves, on a plain ground that grows brighter."""
    images = np.empty((count, 3, height, width), np.uint8)
    for i in range(count):
        images[i] = 40 + 6 * i + 20 * seed
        images[i, seed % 3, 8:24, 2 * i : 2 * i + 8] = 230
    return images


def recorded() -> Demonstrations:
    count = sum(LENGTHS)
    rng = np.random.RandomState(0)
    return Demonstrations(
        {"front": pictures(0, count, 32, 64), "wrist": pictures(1, count, 48, 64)},
        rng.uniform(-1, 1, (count, 3)).astype(np.float32),
        [text for text, length in zip(SENTENCES, LENGTHS, strict=True) for _ in range(length)],
        np.repeat(np.arange(3), LENGTHS),
        rng.uniform(-90, 90, (count, 2)).astype(np.float32),
        FPS,
        ("x", "y", "gripper"),
    )


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    return write_dataset(recorded(), tmp_path_factory.mktemp("foreign") / "original", video=True)


@pytest.fixture
def folder(original, tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("TINYVLA_CACHE", str(tmp_path / "cache"))
    return shutil.copytree(original, tmp_path / "set")


Damage = Callable[[Path], Any]


def info(**values: Any) -> Damage:
    def change(folder: Path) -> None:
        path = folder / INFO
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def feature(key: str, **values: Any) -> Damage:
    def change(folder: Path) -> None:
        features = json.loads((folder / INFO).read_text())["features"]
        info(features={**features, key: {**features.get(key, {}), **values}})(folder)

    return change


def column(name: str, make: Callable[[list], Any], file: str = DATA) -> Damage:
    """A column made anew; left out where that gives None, added where there was none."""

    def change(folder: Path) -> None:
        table = pq.read_table(folder / file)
        values = make(table.column(name).to_pylist() if name in table.column_names else [None] * len(table))
        table = table.drop_columns([name]) if name in table.column_names else table
        pq.write_table(table if values is None else table.append_column(name, pa.array(values)), folder / file)

    return change


def row(number: int, **values: Any) -> Damage:
    """An episode's row in the table of episodes, changed."""

    def change(folder: Path) -> None:
        rows = pq.read_table(folder / TABLE).to_pylist()
        rows[number] |= {name.replace("__", "/").replace("FRONT", FRONT): value for name, value in values.items()}
        pq.write_table(pa.Table.from_pylist(rows), folder / TABLE)

    return change


def file(name: str, data: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(data) and None


def cut(name: str, share: float) -> Damage:
    def change(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(share * len(data))])

    return change


def refilm(count: int, fps: int = FPS, codec: str = "av1", width: int = 64) -> Damage:
    """The front camera's video made anew."""

    def change(folder: Path) -> None:
        with VideoWriter(folder / VIDEO, fps, codec) as writer:
            writer.add(pictures(0, count, 32, width).transpose(0, 2, 3, 1))

    return change


def times(make: Callable[[np.ndarray], np.ndarray]) -> Damage:
    return column("timestamp", lambda values: make(np.array(values, np.float64)))


def put(values: np.ndarray, where: int, value: float) -> np.ndarray:
    values[where] = value
    return values


def both(*changes: Damage) -> Damage:
    return lambda folder: [change(folder) for change in changes] and None


REFUSED: dict[str, tuple[Damage, str]] = {
    "the frames are missing": (lambda f: (f / DATA).unlink(), "no data/*/*.parquet"),
    "the frames are cut": (cut(DATA, 0.5), "missing or damaged"),
    "the frames are a note by Git LFS": (file(DATA, b"version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "a video is missing": (lambda f: (f / VIDEO).unlink(), "is missing"),
    "a video is empty": (file(VIDEO, b""), "is damaged"),
    "a video is nonsense": (file(VIDEO, b"nonsense" * 1_000), "is damaged"),
    "a video is a note by Git LFS": (file(VIDEO, b"version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "a video is cut in the middle": (cut(VIDEO, 0.5), "is damaged"),
    "a video is cut at its end": (cut(VIDEO, 0.9), "is damaged"),
    "a video is a folder": (lambda f: ((f / VIDEO).unlink(), (f / VIDEO).mkdir()), "is missing"),
    "a video has fewer frames": (refilm(17), "has no frame at 1.700 s"),
    "a video has another rate": (refilm(21, fps=3), "has no frame at"),
    "fps is not the time stamps'": (info(fps=30), "go on at 10 frames a second, and info.json says 30"),
    "fps is a fraction": (info(fps=29.97), "fps in"),
    "time stamps jump ahead": (times(lambda t: put(t, 5, 9.0)), "time stamps of episode 0"),
    "time stamps run out of their video": (times(lambda t: put(t, 7, 9.0)), "jump: they end at 9.000 s"),
    "time stamps go back": (times(lambda t: put(t, 3, 0.1)), "do not ascend: at frame 3"),
    "time stamps stand still": (times(lambda t: 0 * t), "do not ascend"),
    "a time stamp is NaN": (times(lambda t: put(t, 3, np.nan)), "one finite number"),
    "there are no time stamps": (column("timestamp", lambda values: None), "lacks the columns timestamp"),
    "the table of episodes is missing": (lambda f: (f / TABLE).unlink(), "no meta/episodes"),
    "the table of episodes is cut": (cut(TABLE, 0.5), "missing or damaged"),
    "an episode is not in the table": (
        lambda f: pq.write_table(pq.read_table(f / TABLE).slice(0, 2), f / TABLE),
        "episode 2 is none of meta/episodes",
    ),
    "the table knows no videos": (
        column(f"videos/{FRONT}/from_timestamp", lambda values: None, TABLE),
        "lacks the columns",
    ),
    "an episode ends before it begins": (row(1, videos__FRONT__to_timestamp=0.1), "that cannot be"),
    "an episode begins nowhere": (row(1, videos__FRONT__from_timestamp=None), "that cannot be"),
    "an episode lies in another file": (row(1, videos__FRONT__file_index=7), "file-007.mp4 is missing"),
    "an episode lies elsewhere in its file": (row(2, videos__FRONT__to_timestamp=1.5), "jump: they end at"),
    "an action is NaN": (column("action", lambda v: [*v[:3], [np.nan] * 3, *v[4:]]), "the actions hold nan in frame 3"),
    "a sentence is empty": (column("task", lambda values: ["", "x"], TASKS), "list of sentences"),
    "there are no sentences": (lambda f: (f / TASKS).unlink(), "tasks.parquet is missing"),
    "a camera has four channels": (feature(FRONT, shape=[32, 64, 4]), "--cameras"),
    "a camera sees depth": (feature(FRONT, info={"is_depth_map": True}), "depth"),
    "a key leads elsewhere": (feature("observation.images/../x", dtype="video", shape=[1, 1, 3]), "the feature"),
    "version 1.6": (info(codebase_version="v1.6"), "convert_dataset_v21_to_v30"),
    "version 2.1 without its files": (info(codebase_version="v2.1"), "no meta/tasks.jsonl"),
    "version 4.0": (info(codebase_version="v4.0"), "v3 and v2 are read"),
    "no camera": (
        lambda f: both(*(feature(key, dtype="float32") for key in (FRONT, WRIST)))(f),
        "action and an image",
    ),
}


def digest(folder: Path) -> str:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(str(path).encode() + path.read_bytes() for path in paths)).hexdigest()


def refusal(capsys: Any, *args: str) -> str:
    """The one line that a bad call ends with."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main(list(args))
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert said.out == ""
    assert len(said.err.splitlines()) == 1, said.err
    return said.err


@pytest.mark.parametrize(("damage", "message"), REFUSED.values(), ids=REFUSED)
def test_a_damaged_dataset_is_refused(damage, message, folder, capsys):
    damage(folder)
    before, start = digest(folder), time.monotonic()
    assert message in refusal(capsys, "dataset", str(folder), "--image-size", "32")
    assert time.monotonic() - start < SECONDS
    assert digest(folder) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("nobody/nothing",), "the Hugging Face hub did not give a data set of that name"),
        (("no such folder",), "it is no owner/name"),
        (("{file}",), "there is no folder"),
        (("{set}", "--cameras", "top"), "no camera top; it has front, wrist"),
        (("{set}", "--states", "observation.velocity"), "lacks observation.velocity"),
        (("{set}", "--out", "x.csv"), "must end with"),
        (("{set}", "--image-size", "0"), "--image-size"),
    ],
)
def test_a_wrong_call_is_refused(options, message, folder, capsys):
    places = {"set": str(folder), "file": str(folder / INFO)}
    assert message in refusal(capsys, "dataset", *(option.format(**places) for option in options))


def test_a_cache_that_cannot_be_is_refused(folder, monkeypatch, capsys):
    monkeypatch.setenv("TINYVLA_CACHE", str(folder / INFO))
    assert "cannot read or write" in refusal(capsys, "dataset", str(folder))
    monkeypatch.setenv("TINYVLA_CACHE", str(folder.parent / "cache"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    assert "choose a smaller --image-size" in refusal(capsys, "dataset", str(folder))


def as_v2(folder: Path) -> None:
    """The same recording in the files of format v2.1."""
    table, rows = pq.read_table(folder / DATA), pq.read_table(folder / TABLE).to_pylist()
    tasks = pq.read_table(folder / TASKS).to_pylist()
    videos = {key: recorded().images[key.rpartition(".")[2]].transpose(0, 2, 3, 1) for key in (FRONT, WRIST)}
    for name in ("data", "videos", "meta/episodes"):
        shutil.rmtree(folder / name)
    (folder / TASKS).unlink()
    (folder / "data/chunk-000").mkdir(parents=True)
    for number, each in enumerate(rows):
        start, stop = each["dataset_from_index"], each["dataset_to_index"]
        pq.write_table(table.slice(start, stop - start), folder / f"data/chunk-000/episode_{number:06d}.parquet")
        for key, frames in videos.items():
            path = folder / f"videos/chunk-000/{key}/episode_{number:06d}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            with VideoWriter(path, FPS) as writer:
                writer.add(frames[start:stop])
    (folder / "meta/tasks.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks))
    info(codebase_version="v2.1")(folder)


def in_two_files(folder: Path) -> None:
    table = pq.read_table(folder / DATA)
    pq.write_table(table.slice(10), folder / DATA)
    pq.write_table(table.slice(0, 10), folder / "data/chunk-000/file-001.parquet")


def one_camera_as_images(folder: Path) -> None:
    import io

    from PIL import Image

    rows = []
    for image in recorded().images["wrist"]:
        buffer = io.BytesIO()
        Image.fromarray(image.transpose(1, 2, 0)).save(buffer, "PNG")
        rows.append({"bytes": buffer.getvalue(), "path": None})
    column(WRIST, lambda values: rows)(folder)
    feature(WRIST, dtype="image")(folder)


READ: dict[str, Damage] = {
    "as it was written": lambda f: None,
    "actions in double precision": column("action", lambda v: np.array(v).tolist()),
    "an episode without frames": lambda f: pq.write_table(
        pa.concat_tables([pq.read_table(f / TABLE), pq.read_table(f / TABLE).slice(2)]).set_column(
            0, "episode_index", pa.array([0, 1, 2, 3])
        ),
        f / TABLE,
    ),
    "more columns": both(
        column("next.reward", lambda v: [0.5] * len(v)),
        column("subtask", lambda v: ["reach"] * len(v)),
        column("observation.contacts", lambda v: [[[1.0, 2.0]]] * len(v)),
        feature("next.reward", dtype="float32", shape=[1]),
        feature("subtask", dtype="string", shape=[1]),
    ),
    "names in groups": feature("action", names={"motors": ["x", "y", "gripper"]}),
    "fps as 10.0": info(fps=10.0),
    "version 3.1": info(codebase_version="v3.1"),
    "version 2.1": as_v2,
    "H.264": refilm(21, codec="h264"),
    "a video with more frames a second": lambda f: refilm_doubled(f),
    "frames in two files, the later first": in_two_files,
    "one camera as images, one as video": one_camera_as_images,
    "time stamps that are off by a little": times(lambda t: np.maximum(0, t + 0.02 * np.sin(40 * t))),
}


def refilm_doubled(folder: Path) -> None:
    with VideoWriter(folder / VIDEO, 2 * FPS) as writer:
        writer.add(pictures(0, 21, 32, 64).repeat(2, axis=0).transpose(0, 2, 3, 1))


@pytest.mark.parametrize("change", READ.values(), ids=READ)
def test_a_foreign_dataset_is_read_right(change, folder):
    change(folder)
    before, wanted, data = digest(folder), recorded(), read_dataset(folder)
    for camera, images in wanted.images.items():
        assert data.images[camera].shape == images.shape
        off = np.abs(data.images[camera].astype(int) - images).mean(axis=(1, 2, 3))
        assert off.max() < 3, f"frame {off.argmax()} of {camera}"
    np.testing.assert_allclose(data.actions, wanted.actions, rtol=1e-6)
    np.testing.assert_array_equal(data.states, wanted.states)
    np.testing.assert_array_equal(data.episodes, wanted.episodes)
    assert data.instructions == wanted.instructions
    assert (data.fps, data.action_names) == (FPS, wanted.action_names)
    assert digest(folder) == before


def test_there_are_many():
    assert len(REFUSED) + len(READ) >= 50
