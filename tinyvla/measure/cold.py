"""Cold wall-clock: from the start of a Python process to a trained policy.

Notable:
- what a user waits for is not the warm time of the steps: Python imports torch, the data is made, the step is prepared;
- so a fresh process is started for each measurement, and says when each part was done.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import torch

from tinyvla.config import model_config
from tinyvla.data.batch import TensorSplit
from tinyvla.data.dataset import BlockFind
from tinyvla.device import synchronize
from tinyvla.measure.bench import RECIPES, Runner
from tinyvla.model.tokenizer import encode
from tinyvla.recipes import DataConfig
from tinyvla.stats import spread


def bench_cold(preset: str, device: torch.device, runs: int = 3) -> dict[str, Any]:
    """Wall-clock of fresh Python processes that end with a trained policy, and where it goes."""
    rows = []
    for _ in range(runs):
        started = time.time()  # the one clock that two processes share
        command = [sys.executable, "-m", "tinyvla.measure.cold", preset, str(device), str(started)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        rows.append({"total": time.time() - started, **json.loads(done.stdout.splitlines()[-1])})
    return {name: spread([row[name] for row in rows]) for name in rows[0]}


def cold_run(preset: str, device: torch.device, started: float) -> dict[str, float]:
    """What `bench_cold`'s processes do: seconds of the imports, the data, the preparation and the training."""
    recipe, marks = RECIPES[preset], [started, time.time()]
    data = DataConfig()
    train = TensorSplit.from_blockfind(BlockFind(data.num_train, data.train_seed), encode, device)
    marks.append(time.time())
    runner = Runner(model_config(preset), train, recipe)
    synchronize(device)
    marks.append(time.time())
    parts = {name: marks[i + 1] - marks[i] for i, name in enumerate(("import", "data", "prepare"))}
    return {**parts, "train": runner.run(recipe.train.seed)}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(cold_run(sys.argv[1], torch.device(sys.argv[2]), float(sys.argv[3]))) + "\n")
