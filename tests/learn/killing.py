"""Kills a tiny training at every write and at random moments, resumes each, and compares bit for bit; prints JSON.

Run by `test_kill.py` in a process of its own, which forks one child at a time after everything is imported: a child
trains until it is killed, then this process resumes what it has left.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from tinyvla.config import FusionConfig, HeadConfig, LanguageConfig, ModelConfig, VisionConfig
from tinyvla.data.batch import TensorSplit
from tinyvla.data.dataset import BlockFind
from tinyvla.errors import InputError
from tinyvla.learn.checkpoint import RunFolder, RunSettings
from tinyvla.learn.train import fit
from tinyvla.model.policy import TinyVLA, new_policy
from tinyvla.model.tokenizer import encode
from tinyvla.recipes import DataConfig, TrainConfig

MODEL = ModelConfig(
    VisionConfig(embed_dim=8, num_layers=1, num_heads=1),
    LanguageConfig(vocab_size=6_400, embed_dim=8, num_layers=1, num_heads=1),
    FusionConfig(embed_dim=8, num_heads=1),
    HeadConfig(hidden_dim=8),
)
SPLIT = TensorSplit.from_blockfind(BlockFind(48, 0), encode)
EPOCHS = 2


def settings(seed: int) -> RunSettings:
    train = TrainConfig(epochs=EPOCHS, batch_size=16, checkpoint_every=1, learning_rate=1e-2, seed=seed)
    return RunSettings(MODEL, train, DataConfig())


def train(path: Path, seed: int, overwrite: bool) -> None:
    """As `tinyvla train` does it."""
    run = RunFolder(path)
    with run.held():
        run.start(settings(seed), {}, overwrite)
        fit(new_policy(MODEL, seed), SPLIT, SPLIT, settings(seed).train, run=run)


def resume(path: Path) -> int:
    """As `tinyvla train --resume` does it; returns the seed of the run that was gone on with."""
    run = RunFolder(path)
    run.settings()
    with run.held():
        found = run.settings()
        if not run.is_complete(found):
            fit(new_policy(MODEL, found.train.seed), SPLIT, SPLIT, found.train, run=run)
    return found.train.seed


def result(path: Path) -> dict[str, bytes]:
    """All that a run leaves."""
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def killed_child(path: Path, overwrite: bool, prepare: Callable[[], None]) -> bool:
    """Train in a child, which `prepare` arms; returns whether it was killed."""
    child = os.fork()
    if not child:
        try:
            prepare()
            train(path, seed=1, overwrite=overwrite)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def at_write(number: int) -> Callable[[], None]:
    """Die at the so-manieth write: before a replacement, or after what was written has come to the disk."""

    def prepare() -> None:
        real, count = {"replace": os.replace, "fsync": os.fsync}, 0

        def fatal(name: str) -> Callable[..., None]:
            def call(*args: object) -> None:
                nonlocal count
                count += 1
                if count == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                real[name](*args)

            return call

        os.replace, os.fsync = fatal("replace"), fatal("fsync")  # type: ignore[assignment]

    return prepare


def after(seconds: float) -> Callable[[], None]:
    """Die some time later, wherever that is: an alarm that nobody handles kills."""
    return lambda: signal.setitimer(signal.ITIMER_REAL, seconds) and None


def case(folder: Path, overwrite: bool, prepare: Callable[[], None], whole: dict[int, dict[str, bytes]]) -> str | None:
    """One death and what comes after it; returns what was lost, "" for nothing, and None where nobody died."""
    path = folder / "run"
    shutil.rmtree(path, ignore_errors=True)
    if overwrite:
        shutil.copytree(folder / "old", path)
    died = killed_child(path, overwrite, prepare)
    if overwrite:
        TinyVLA.from_pretrained(path / "best")
    try:
        seed = resume(path)
    except InputError:  # it died before its settings were written
        if overwrite:
            return "the old run cannot be resumed"
        train(path, seed=1, overwrite=False)
        seed = 1
    if seed == 0 and result(path) == whole[0]:  # it died before anything new was noted; the old run is untouched
        train(path, seed=1, overwrite=True)
        seed = 1
    have = result(path)
    if have != whole[1]:
        return f"differs in {sorted(k for k in have.keys() | whole[1].keys() if have.get(k) != whole[1].get(k))}"
    return "" if died else None


def main(folder: Path, moments: int) -> None:
    torch.set_num_threads(1)
    whole = {}
    for seed, name in ((0, "old"), (1, "new")):
        started = time.perf_counter()
        train(folder / name, seed, overwrite=False)
        seconds = time.perf_counter() - started
        whole[seed] = result(folder / name)
    found: dict[str, list[str]] = {"writes": [], "writes of an overwriting run": [], "moments": []}
    for kind, overwrite in (("writes", False), ("writes of an overwriting run", True)):
        for number in range(1, 1_000):
            lost = case(folder, overwrite, at_write(number), whole)
            if lost is None:
                break
            found[kind].append(lost)
    rng = random.Random(0)
    while len(found["moments"]) < moments:
        lost = case(folder, rng.random() < 0.5, after(rng.uniform(0.001, seconds)), whole)
        if lost is not None:
            found["moments"].append(lost)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
