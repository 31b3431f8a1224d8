from __future__ import annotations

import json

import torch

from tinyvla.config import PRESETS
from tinyvla.data.batch import TensorSplit
from tinyvla.data.dataset import BlockFind
from tinyvla.measure.bench import RECIPES, Runner, bench, bench_reference, table
from tinyvla.model.tokenizer import encode
from tinyvla.recipes import DataConfig, Recipe, TrainConfig
from tinyvla.speed.tuned import PLAIN
from tinyvla.stats import spread

SMALL = DataConfig(num_train=256, num_val=64)
RECIPE = Recipe(10, TrainConfig(batch_size=32))
CPU = torch.device("cpu")


def test_every_run_is_reported_also_those_that_fail(tiny_config):
    result = bench(tiny_config, RECIPE, CPU, seeds=3, kind=PLAIN, data=SMALL)
    assert [run["seed"] for run in result["runs"]] == [0, 1, 2]
    assert [run["steps"] for run in result["runs"]] == [10, 10, 10]
    assert result["reached"] == sum(run["direction_accuracy"] >= 0.95 for run in result["runs"]) == 0
    assert result["seconds"]["median"] > 0
    assert {"device", "torch", "python", "tinyvla"} <= set(result["machine"])
    json.dumps(result)


def test_a_run_depends_on_its_seed_alone(tiny_config):
    runner = Runner(tiny_config, TensorSplit.from_blockfind(BlockFind(256, 42), encode), RECIPE, PLAIN)

    def weights(seed):
        runner.run(seed)
        return torch.cat([p.detach().flatten() for p in runner.policy.parameters()])

    first = weights(5)
    assert not torch.equal(first, weights(6))
    assert torch.equal(first, weights(5))


def test_a_recipe_may_be_longer_than_an_epoch(tiny_config):
    runner = Runner(tiny_config, TensorSplit.from_blockfind(BlockFind(70, 42), encode), RECIPE, PLAIN)
    batches = runner._batches(0)
    assert [len(b) for b in batches] == [32] * 10
    assert not torch.equal(batches[0], batches[2])  # the second epoch has another order


def test_every_preset_has_a_recipe():
    assert RECIPES.keys() == PRESETS.keys()


def test_the_reference_and_the_table(tiny_config):
    result = bench(tiny_config, RECIPE, CPU, seeds=1, kind=PLAIN, data=SMALL)
    result["reference"] = bench_reference(tiny_config, CPU, seeds=1, data=SMALL, max_steps=2)
    result["speedup"] = 3.0
    shown = table("tiny", result)
    assert "0 of 1 runs reached 95%" in shown
    assert "3.0 times as long" in shown


def test_spread():
    assert spread([3.0, 1.0, 2.0]) == {"min": 1.0, "median": 2.0, "max": 3.0, "mean": 2.0, "std": 1.0}
