from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from tinyvla import BlockFind
from tinyvla.errors import InputError
from tinyvla.measure.latency import WARMUP, latency


@pytest.mark.parametrize("batch", [1, 5])
def test_times_are_ordered_milliseconds_of_both_ways(batch, tiny_policy):
    result = latency(tiny_policy, BlockFind(5, seed=0), batch, repeats=3)
    assert (result["batch"], result["repeats"]) == (batch, 3)
    assert set(result) == {"batch", "repeats", "predict", "forward"}
    for way in ("predict", "forward"):
        assert 0 < result[way]["min"] <= result[way]["median"] <= result[way]["max"] < 10_000


def test_every_way_gets_the_same_scenes_and_a_warm_up(tiny_policy, monkeypatch):
    seen: list[tuple] = []
    split = BlockFind(4, seed=0)

    def predict(images, instructions):
        seen.append((images, instructions))
        time.sleep(0.05)

    monkeypatch.setattr(tiny_policy, "predict", predict)
    shapes = []

    def exported(batch):
        shapes.append((batch.image.shape, batch.input_ids.shape, batch.attention_mask.dtype))
        return torch.zeros(len(batch), 2)

    result = latency(tiny_policy, split, 4, repeats=2, exported=exported)
    assert len(seen) == len(shapes) == WARMUP + 2
    images, sentences = seen[0]
    assert (images.dtype, images.shape) == (np.uint8, (4, 64, 64, 3))
    assert (images.transpose(0, 3, 1, 2) == split.images).all()
    assert sentences == list(split.instructions)
    assert result["predict"]["min"] >= 50
    assert 0 < result["exported"]["median"] < 50
    assert shapes[0] == ((4, 3, 64, 64), (4, 6), torch.bool)


@pytest.mark.gpu
def test_on_a_gpu(tiny_policy):
    result = latency(tiny_policy.to("cuda"), BlockFind(256, seed=0), 256, repeats=3)
    assert result["forward"]["median"] > 0


@pytest.mark.parametrize(
    ("batch", "repeats", "says"),
    [(0, 1, "batch is 0"), (1, 0, "repeats is 0"), (6, 1, "too few for a batch of 6")],
)
def test_unusable_numbers_are_refused(batch, repeats, says, tiny_policy):
    with pytest.raises(InputError, match=says):
        latency(tiny_policy, BlockFind(5, seed=0), batch, repeats)
