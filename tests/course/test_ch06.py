from __future__ import annotations

import numpy as np
import pytest
import torch

from tinyvla.course.ch06 import BOXES, draw_conditions, draw_instruments, held_out_conditions, sealed_box
from tinyvla.data.dataset import BlockFind, directions
from tinyvla.learn.evaluate import Metrics
from tinyvla.stats import wilson_interval


@pytest.fixture(scope="module")
def conditions():
    return held_out_conditions(BlockFind(40, seed=44))


def test_the_first_condition_is_the_control(conditions):
    base = BlockFind(40, seed=44)
    assert np.array_equal(conditions[0].images, base.images)
    assert conditions[0].sentences == base.instructions


def test_each_condition_is_whole_and_has_a_name_of_its_own(conditions):
    assert len({row.name for row in conditions}) == len(conditions) == 29
    for row in conditions:
        assert len(row.images) == len(row.sentences) == len(row.actions) == len(row.scenes) == len(row)
        np.testing.assert_allclose(np.linalg.norm(row.actions, axis=1), 1, atol=1e-5)
        assert row.images.dtype == np.uint8


def test_floors_follow_from_the_number_of_blocks(conditions):
    floors = {row.name: row.floor for row in conditions}
    assert floors["1 block"] == 1
    assert floors["6 blocks"] < floors["2 blocks"] < 1


def test_blocks_off_the_grid_keep_the_way_to_the_target(conditions):
    row = next(row for row in conditions if row.name == "off the grid by up to 4 px")
    on_grid = directions(row.scenes.cells[:, 0])
    assert not np.allclose(row.actions, on_grid)
    assert ((row.actions * on_grid).sum(axis=1) > 0).mean() > 0.9


@pytest.mark.parametrize("kind", BOXES)
def test_a_sealed_box_does_what_its_name_says(kind):
    split = BlockFind(200, seed=1)
    metrics = Metrics.of(torch.from_numpy(sealed_box(kind, 3)(split)), torch.from_numpy(split.actions))
    assert (metrics.direction_accuracy == 1) == (kind in ("listens", "turned"))
    assert (metrics.within_10_degrees == 1) == (kind == "listens")


def test_drawings(conditions):
    assert len(draw_instruments()[1].texts) >= 12
    intervals = {row.name: wilson_interval(0.5, len(row)) for row in conditions}
    _, ax = draw_conditions(conditions, {row.name: 0.5 for row in conditions}, intervals)
    assert len(ax.get_yticklabels()) == len(conditions)
