from __future__ import annotations

import json

import torch

from tinyvla.bench import bench, spread
from tinyvla.config import DataConfig, TrainConfig

SMALL = DataConfig(num_train=256, num_val=64)


def test_every_seed_is_reported_also_those_that_fail(tiny_config):
    result = bench(tiny_config, TrainConfig(batch_size=32), torch.device("cpu"), seeds=3, max_steps=10, data=SMALL)
    assert [run["seed"] for run in result["runs"]] == [0, 1, 2]
    assert result["reached"] == sum(run["reached"] for run in result["runs"])
    assert all(run["steps"] == 10 for run in result["runs"] if not run["reached"])
    assert result["seconds"]["median"] > 0
    assert {"device", "torch", "python", "tinyvla"} <= set(result["machine"])
    json.dumps(result)


def test_spread():
    assert spread([3.0, 1.0, 2.0]) == {"min": 1.0, "median": 2.0, "max": 3.0, "mean": 2.0, "std": 1.0}
