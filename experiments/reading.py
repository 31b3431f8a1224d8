"""How fast a data set with video is read, and how much memory a training on it takes. Writes `results/reading.json`.

    python experiments/reading.py

- **decode**: the frames of two cameras of 640 x 480 pixels, from video files into the cache at the policy's size;
- **train**: steps on images that stay in the cache's file, beside the same steps on images in memory, by turns;
- **memory**: steps on 100,000 frames of two cameras, in a process that may take no more than a given amount of memory
  of its own (`RLIMIT_DATA`). What the system keeps of the file in its own cache does not count: it gives that back
  whenever somebody needs it.

The pictures are those of the course's arm, with noise as of a camera's sensor, which makes video harder to decode.
The machine must be quiet: threads of other programs take from what is measured.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import harness
import numpy as np
import torch
from harness import Job, Row, main, read_json, write_json
from page import grid, place, prose, section_of, source

from tinyvla.act.arm.scene import ArmScene
from tinyvla.data.batch import TensorSplit
from tinyvla.data.demonstrations import Demonstrations
from tinyvla.data.frame_cache import num_cores
from tinyvla.data.lerobot import read_dataset
from tinyvla.data.lerobot_writer import DatasetWriter, Episode
from tinyvla.learn.train import fit
from tinyvla.model.policy import new_policy
from tinyvla.recipes import RecordingConfig, TrainConfig
from tinyvla.speed.step import make_step
from tinyvla.stats import spread

RESULTS = ("reading",)
CAMERAS = ("above", "front")
FPS, SENTENCE = 30, "reach the red block"
MEGABYTE = 2**20


@dataclass(frozen=True)
class Args(harness.Args):
    """Measure and write."""

    frames: int = 3_000
    """Of each camera, to decode."""
    episode: int = 300
    """Frames of an episode."""
    height: int = 480
    width: int = 640
    codecs: tuple[str, ...] = ("av1", "h264")
    repeats: int = 3
    """Times that all frames are decoded."""
    image_size: int = RecordingConfig().image_size
    """Of the policy."""
    preset: str = "nano"
    batch_size: int = 64
    steps: int = 20
    """Of each kind, by turns."""
    many_frames: int = 100_000
    """Of each camera, to train on in little memory."""
    gigabytes: float = 4.0
    """That the process may take."""
    is_worker: bool = False
    """Set by the script for the process whose memory is limited."""
    out: Path = Path("results/reading.json")


def jobs(args: Args) -> list[Job]:
    decode = [Job({"what": "decode", "codec": codec}, alone=True) for codec in args.codecs]
    return [*decode, Job({"what": "train"}, alone=True), Job({"what": "memory"}, alone=True)]


def run(job: Job, args: Args) -> Row:
    with tempfile.TemporaryDirectory() as name:
        os.environ["TINYVLA_CACHE"] = name
        folder = Path(name)
        if job.what["what"] == "decode":
            return decode(folder, job.what["codec"], args)
        return train(folder, args) if job.what["what"] == "train" else memory(folder, args)


def decode(folder: Path, codec: str, args: Args) -> Row:
    """Returns how many frames a second went into the cache."""
    dataset, seconds = record(folder, codec, args), []
    with Memory() as used:
        for number in range(args.repeats):
            os.environ["TINYVLA_CACHE"] = str(folder / str(number))
            started = time.perf_counter()
            read = read_dataset(dataset, args.image_size)
            seconds.append(time.perf_counter() - started)
    count = len(CAMERAS) * len(read)
    rates = spread([count / each for each in seconds])
    size = sum(path.stat().st_size for path in dataset.rglob("*.mp4"))
    return {
        "frames_per_second": rates,
        "frames": count,
        "bytes_per_frame": size / count,
        "megabytes": used.most,
        "threads": num_cores(),
    }


def record(folder: Path, codec: str, args: Args) -> Path:
    """Returns a new data set: the arm's scenes, a new one every few frames, with a sensor's noise."""
    writer, rng = DatasetWriter(folder / "dataset", FPS, [SENTENCE], codec=codec), np.random.RandomState(0)
    for start in range(0, args.frames, args.episode):
        length = min(args.episode, args.frames - start)
        scene, pictures = ArmScene(start), []
        for step in range(length):
            if step % 3 == 0:
                scene.move(np.append(rng.uniform(-1, 1, 6), 1.0), substeps=5)
                seen = scene.pictures(args.height, args.width)
            pictures.append(seen)
        clean = np.stack(pictures, axis=1)
        noise = rng.randint(-3, 4, (16, *clean.shape[2:])).astype(np.int16)
        images = {
            name: np.clip(frames + noise[rng.randint(16, size=length)], 0, 255).astype(np.uint8)
            for name, frames in zip(CAMERAS, clean, strict=True)
        }
        numbers = rng.uniform(-1, 1, (length, 7)).astype(np.float32)
        columns = {"action": numbers, "observation.state": numbers}
        writer.add(Episode.of(images, columns, [SENTENCE] * length, FPS, as_video=True))
    writer.close()
    return folder / "dataset"


def pretended(folder: Path, count: int, args: Args) -> Demonstrations:
    """Returns frames in files of the cache's kind, as they are after decoding."""
    images, rng = {}, np.random.RandomState(0)
    shape = (count, 3, args.image_size, args.image_size)
    for name in CAMERAS:
        path = folder / f"{name}.npy"
        file = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
        for start in range(0, count, 1_000):
            part = file[start : start + 1_000]
            part[:] = rng.randint(0, 256, (1, 3, *shape[2:])).astype(np.uint8)
        file.flush()
        del file
        images[name] = np.load(path, mmap_mode="r")
    numbers = rng.uniform(-1, 1, (count, 7)).astype(np.float32)
    return Demonstrations(images, numbers, [SENTENCE] * count, np.arange(count) // args.episode, numbers, FPS)


def config(args: Args) -> TrainConfig:
    return TrainConfig(batch_size=args.batch_size, learning_rate=1e-3, shift=8)


def train(folder: Path, args: Args) -> Row:
    """Returns the milliseconds of a step on a file and on arrays, by turns."""
    recorded = pretended(folder, args.frames, args)
    policy = new_policy(recorded.robot_config(RecordingConfig(args.image_size), args.preset), 0, args.where)
    stored = recorded.tensors(policy, "cpu")
    policy.prepare_for(stored)
    in_memory = {name: images[:].to(args.where) for name, images in stored.images.items()}
    other = {name: getattr(stored, name) for name in ("input_ids", "attention_mask", "actions", "state", "future")}
    other = {name: value.to(args.where) for name, value in other.items()}
    pads = {"action_is_pad": stored.action_is_pad.to(args.where)}
    kept = {name: images.to(args.where) for name, images in stored.images.items()}
    splits = {"file": TensorSplit(kept, **other, **pads), "arrays": TensorSplit(in_memory, **other, **pads)}
    steps = {name: make_step(policy, split, config(args)) for name, split in splits.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    rng = torch.Generator().manual_seed(0)
    for number in range(args.steps + 2):
        index = torch.randint(len(stored), (args.batch_size,), generator=rng).to(args.where)
        for name, step in steps.items():
            started = time.perf_counter()
            step(index).item()
            if number >= 2:  # the first ones choose kernels
                times[name].append(1_000 * (time.perf_counter() - started))
    return {"milliseconds": {name: spread(values) for name, values in times.items()}, "batch_size": args.batch_size}


def memory(folder: Path, args: Args) -> Row:
    """Returns what a training on many frames took, in a process of its own whose memory is limited."""
    out = folder / "worker.json"
    sizes = ("many_frames", "image_size", "preset", "batch_size", "steps", "gigabytes", "device", "episode")
    options = [word for name in sizes for word in (f"--{name.replace('_', '-')}", str(getattr(args, name)))]
    command = [sys.executable, __file__, "--is-worker", *options, "--out", str(out)]
    environment = {**os.environ, "TMPDIR": str(folder)}
    subprocess.run(command, check=True, env=environment)
    return read_json(out) or {}


def limited(args: Args) -> Row:
    """Train on many frames; the system refuses memory beyond the limit, and the process ends with an error."""
    import resource

    if args.where.type == "cpu":  # CUDA reserves addresses far beyond what it uses
        resource.setrlimit(resource.RLIMIT_DATA, (int(args.gigabytes * 2**30),) * 2)
    with tempfile.TemporaryDirectory() as name, Memory() as used:
        recorded = pretended(Path(name), args.many_frames, args)
        policy = new_policy(recorded.robot_config(RecordingConfig(args.image_size), args.preset), 0, args.where)
        tensors = recorded.tensors(policy, "cpu")
        is_val = torch.from_numpy(recorded.episodes == 0)
        train, val = tensors.rows(~is_val).to(args.where), tensors.rows(is_val).to(args.where)
        policy.prepare_for(train)
        settings = config(args)
        epochs = args.steps / settings.steps_per_epoch(len(train))
        records = fit(policy, train, val, TrainConfig(**{**vars(settings), "epochs": epochs}))
        gigabytes = sum(int(np.prod(images.shape)) for images in recorded.images.values()) / 1e9
    return {
        "frames": args.many_frames,
        "gigabytes_of_images": gigabytes,
        "limit_gigabytes": args.gigabytes,
        "megabytes": used.most,
        "val_loss": records[-1]["val_loss"],
    }


class Memory:
    """The most memory of its own that this process has had, in megabytes; mapped files do not count."""

    def __enter__(self) -> Memory:
        self.most, self._over = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            self.most = max(self.most, own_megabytes())

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()


def own_megabytes() -> float:
    """What `RssAnon` says; not a number where the system does not."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    found = [int(line.split()[1]) / 1_024 for line in lines if line.startswith("RssAnon")]
    return found[0] if found else float("nan")


def summary(rows: list[Row], args: Args) -> Row:
    (training,) = [row for row in rows if row["what"] == "train"]
    (memory,) = [row for row in rows if row["what"] == "memory"]
    return {
        "size": {"height": args.height, "width": args.width, "to": args.image_size, "cameras": len(CAMERAS)},
        "decode": {row["codec"]: row for row in rows if row["what"] == "decode"},
        "train": training,
        "memory": memory,
    }


def section(results: Row) -> str:
    """Returns the results page's section."""
    size, where = results["size"], place(results["machine"], "cpu")
    rows = []
    for codec, row in results["decode"].items():
        rate = f"{row['frames_per_second']['median']:.0f} frames a second"
        rows.append((f"decode {codec}, {size['width']} x {size['height']} to {size['to']} x {size['to']}", rate, where))
    times = {name: row["median"] for name, row in results["train"]["milliseconds"].items()}
    rows.append(("a training step, images in a file", f"{times['file']:.0f} ms", where))
    rows.append(("the same, images in memory", f"{times['arrays']:.0f} ms", where))
    kept = results["memory"]
    what = f"memory for training on {kept['frames']:,} frames of {size['cameras']} cameras"
    rows.append((what, f"{kept['megabytes']:.0f} MB, for {kept['gigabytes_of_images']:.1f} GB of images", where))
    about = "From video to the cache, and from the cache to the policy; medians, on a quiet machine."
    return section_of("Reading recordings", prose(about), grid("what | measured | on", rows), source(results))


if __name__ == "__main__":
    if "--is-worker" in sys.argv:
        import tyro

        options = tyro.cli(Args)
        write_json(options.out, limited(options))
    else:
        main(Args, jobs, run, summary)
