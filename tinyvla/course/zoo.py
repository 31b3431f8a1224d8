"""What the notebooks share: trained policies, trained once on each machine and then cached, and measured figures.

Notable:
- the cache's key is everything that decides the weights, so a changed setting trains anew and nothing goes stale;
- the folder is `$TINYVLA_CACHE`, or `tinyvla` in the user's cache folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict, replace
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

import tinyvla
from tinyvla.config import ModelConfig, model_config
from tinyvla.data.batch import TensorSplit
from tinyvla.data.dataset import BlockFind
from tinyvla.device import choose_device
from tinyvla.errors import InputError
from tinyvla.files import cache_folder
from tinyvla.learn.callbacks import ProgressBar
from tinyvla.learn.train import fit
from tinyvla.model.policy import TinyVLA, new_policy
from tinyvla.recipes import DataConfig, TrainConfig
from tinyvla.speed.step import make_step
from tinyvla.speed.tuned import StepOptions


def load_results(name: str) -> dict[str, Any]:
    """A file of measured figures, `results/NAME.json`, with the command that made it under "command".

    Raises:
        InputError: there is no such file; the message lists those that there are.
    """
    installed = resources.files("tinyvla") / "results"  # in a wheel; a checkout has them beside the package
    folder = installed if installed.is_dir() else Path(__file__).parents[2] / "results"
    files = {path.name.removesuffix(".json"): path for path in folder.iterdir() if path.name.endswith(".json")}
    if name not in files:
        raise InputError(f"there are no results {name!r}; choose from {', '.join(sorted(files))}")
    return Figures(json.loads(files[name].read_text(encoding="utf-8")), name)


class Figures(dict[str, Any]):
    """What a results file says; where it lacks something, the error names the command that measures it."""

    def __init__(self, values: dict[str, Any], name: str) -> None:
        super().__init__(values)
        self.name = name

    def __missing__(self, key: str) -> Any:
        command = f"{self.get('command', 'tinyvla bench')} --out results/{self.name}.json"
        raise InputError(f"results/{self.name}.json lacks {key!r}; measure it with the options for it: {command}")


def trained_policy(
    preset: str = "nano",
    fusion: str | None = None,
    epochs: int = 2,
    learning_rate: float = 1e-3,
    seed: int = 0,
    device: str = "auto",
    progress_bar: bool = True,
) -> TinyVLA:
    """A policy trained on BlockFind, ready to act: from the cache, or trained now and kept there.

    Two epochs of `nano` take about half a minute on two CPU cores.
    """
    config = model_config(preset, fusion)
    settings = replace(TrainConfig(), epochs=epochs, learning_rate=learning_rate, seed=seed)
    identity = {"model": config.to_dict(), "train": asdict(settings), "data": asdict(DataConfig())}
    text = json.dumps({**identity, "version": tinyvla.__version__}, sort_keys=True)
    folder = cache_folder() / f"{preset}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):  # two notebooks that start together train it once
        if not _is_whole(folder):
            _train(config, settings, choose_device(device), folder, progress_bar)
    return TinyVLA.from_pretrained(folder, device=str(choose_device(device)))


def _is_whole(folder: Path) -> bool:
    """Whether a policy can be loaded from a folder; one that is damaged is removed, to be trained again."""
    if not folder.exists():
        return False
    try:
        TinyVLA.from_pretrained(folder)
    except InputError:
        shutil.rmtree(folder)
    return folder.exists()


def _train(config: ModelConfig, settings: TrainConfig, where: torch.device, folder: Path, progress_bar: bool) -> None:
    """Train a policy on BlockFind and keep it in a folder."""
    policy = new_policy(config, settings.seed, where)
    data = DataConfig()
    train, val = (
        TensorSplit.from_blockfind(BlockFind(n, s), policy.language.encode, where)
        for n, s in ((data.num_train, data.train_seed), (data.num_val, data.val_seed))
    )
    step = make_step(policy, train, settings, StepOptions(used_rows=True))  # the plain step's weights, sooner
    fit(policy, train, val, settings, step, callbacks=[ProgressBar()] if progress_bar else [])
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed
    policy.save_pretrained(temporary)
    os.replace(temporary, folder)
