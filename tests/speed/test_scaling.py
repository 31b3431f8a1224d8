from __future__ import annotations

import copy
import dataclasses
from contextlib import nullcontext

import pytest
import torch
from steps import tensors

from tinyvla.config import PRESETS
from tinyvla.errors import InputError
from tinyvla.measure.throughput import step_flops
from tinyvla.model.policy import TinyVLA, new_policy
from tinyvla.speed.memory import SavedTensors, recomputed
from tinyvla.speed.scaling import BLOCK_NUMBERS, block_weights, budget, towers


@pytest.mark.parametrize("preset", PRESETS)
def test_parameters_on_paper_are_close(preset):
    with torch.device("meta"):
        total = TinyVLA(PRESETS[preset]).num_parameters()["total"]
    assert 0.96 < budget(PRESETS[preset]).parameters / total < 1


@pytest.mark.parametrize(("preset", "low"), [("nano", 0.8), ("minimal", 0.9), ("medium", 0.95), ("smolvla_like", 0.95)])
def test_arithmetic_on_paper_is_close(preset, low):
    for size in (64, 256):
        assert low < budget(PRESETS[preset], size).flops / step_flops(PRESETS[preset], size) < 1


def saved_by_blocks(policy, split, first, last, recompute):
    """Bytes kept for `last` blocks beyond what `first` blocks keep."""
    kept = []
    for count in (first, last):
        cut = new_policy(dataclasses.replace(policy, vision=dataclasses.replace(policy.vision, num_layers=count)), 0)
        batch = split.take(slice(0, 16))
        with recomputed(cut) if recompute else nullcontext(), SavedTensors(cut) as saved:
            cut.vision(batch.image).sum()
        kept.append(saved.bytes)
    return kept[1] - kept[0]


@pytest.mark.parametrize(("recompute", "numbers"), [(False, BLOCK_NUMBERS), (True, 1)])
def test_a_block_keeps_as_many_numbers_as_on_paper(recompute, numbers):
    """In float32, for each token and unit of width; statistics of the norms and of attention come on top."""
    config, split = PRESETS["nano"], tensors(16)
    stream = 16 * config.vision.num_tokens * config.vision.embed_dim * 4
    assert saved_by_blocks(config, split, 1, 3, recompute) / (2 * stream) == pytest.approx(numbers, rel=0.03)


def test_what_saves_memory_and_what_it_costs():
    config = PRESETS["smolvla_like"]
    plain, mixed = budget(config, 256), budget(config, 256, bfloat16=True)
    assert plain.memory == pytest.approx(16 * plain.parameters + plain.activations)
    assert mixed.activations == pytest.approx(40 / 72 * plain.activations)
    assert mixed.copies > 0
    parts, twice = budget(config, 256, accumulate=4), budget(config, 256, recompute=True)
    assert parts.activations < 0.3 * plain.activations
    assert twice.activations < 0.2 * plain.activations
    assert twice.flops == pytest.approx(4 / 3 * plain.flops)
    assert parts.flops == pytest.approx(plain.flops, rel=0.05)


def test_least_time_adds_arithmetic_and_traffic():
    paper = budget(PRESETS["nano"])
    assert paper.seconds(1e12, 1e12) == pytest.approx((paper.flops + 40 * paper.parameters) / 1e12)


def test_block_weights_are_twelve_widths_squared():
    assert block_weights(PRESETS["nano"]) == (12 * 2 * 96**2, 12 * 2 * 128**2)


def test_other_towers_are_refused():
    config = copy.copy(PRESETS["nano"])
    object.__setattr__(config, "vision", None)  # whatever stands in its place
    with pytest.raises(InputError, match="from scratch"):
        towers(config)
