from __future__ import annotations

import hashlib
import time

import numpy as np
import pytest

from tinyvla.data.dataset import (
    BACKGROUND,
    COLORS,
    IMAGE_SIZE,
    PALETTE,
    BlockFind,
    cell_centers,
    directions,
    render,
    trajectories,
)
from tinyvla.errors import InputError
from tinyvla.recipes import DataConfig

# Written once by `BlockFind(n, seed)`; a change here is a change of every result of the course.
FINGERPRINTS = {(8_000, 42): "e3b734bbafce80ee", (1_000, 43): "d65c80763a19fbdf", (1_000, 44): "075480e5bced00f1"}


@pytest.fixture(scope="module")
def train() -> BlockFind:
    return BlockFind(8_000, 42)


@pytest.mark.parametrize(("num_samples", "seed"), FINGERPRINTS)
def test_same_seed_same_bytes(num_samples, seed):
    split = BlockFind(num_samples, seed)
    digest = hashlib.sha256(split.images.tobytes() + split.actions.tobytes() + split.colors.tobytes()).hexdigest()
    assert digest[:16] == FINGERPRINTS[num_samples, seed]


def test_shapes_and_types(train):
    assert train.images.shape == (8_000, 3, 64, 64)
    assert train.images.dtype == np.uint8
    assert train.actions.shape == (8_000, 2)
    assert train.actions.dtype == np.float32
    assert len(train) == len(train.instructions) == 8_000


def test_the_arrow_is_a_unit_vector_through_the_block(train):
    """Walk along each arrow from the centre, pixel by pixel: it must enter the named block's colour."""
    lengths = np.linalg.norm(train.actions, axis=1)
    np.testing.assert_allclose(lengths, 1.0, atol=1e-6)
    steps = np.arange(0.0, IMAGE_SIZE * 0.75, 0.25)
    for scene in range(1_000):
        points = IMAGE_SIZE / 2 + steps[:, None] * train.actions[scene]
        inside = ((points >= 0) & (points < IMAGE_SIZE)).all(axis=1)
        x, y = points[inside].astype(int).T
        seen = {tuple(rgb) for rgb in train.images[scene][:, y, x].T.tolist()}
        assert PALETTE[COLORS[train.colors[scene, 0]]] in seen, scene


def test_the_arrow_aims_at_the_centre_of_mass_of_the_named_pixels(train):
    grid = np.arange(IMAGE_SIZE) + 0.5
    for scene in range(200):
        sample = train[scene]
        rgb = np.array(PALETTE[sample.colors[0]])[:, None, None]
        y, x = np.nonzero((sample.image == rgb).all(axis=0))
        offset = np.array([grid[x].mean(), grid[y].mean()]) - IMAGE_SIZE / 2
        np.testing.assert_allclose(offset / np.linalg.norm(offset), sample.action, atol=1e-5)


def test_scenes_have_3_or_4_blocks_of_distinct_colours_on_distinct_cells(train):
    counts = (train.cells >= 0).sum(axis=1)
    assert set(counts) == {3, 4}
    assert abs((counts == 3).mean() - 0.5) < 0.03
    for cells, colors, n in zip(train.cells, train.colors, counts, strict=True):
        assert len(set(cells[:n])) == n
        assert len(set(colors[:n])) == n
        assert (cells[n:] == -1).all()
        assert (colors[n:] == -1).all()


def test_targets_are_spread_evenly(train):
    colors = np.bincount(train.colors[:, 0], minlength=6) / len(train)
    cells = np.bincount(train.cells[:, 0], minlength=64) / len(train)
    np.testing.assert_allclose(colors, 1 / 6, atol=0.015)
    np.testing.assert_allclose(cells, 1 / 64, atol=0.006)


def test_no_scene_is_shared_between_splits():
    data = DataConfig()
    seeds = ((data.num_train, data.train_seed), (data.num_val, data.val_seed), (data.num_test, data.test_seed))
    train, val, test = ({image.tobytes() for image in BlockFind(n, seed).images} for n, seed in seeds)
    assert not train & val
    assert not train & test
    assert not val & test


def test_the_instruction_names_the_target(train):
    sample = train[5]
    assert sample.instruction == f"find the {sample.colors[0]} block"
    assert sample.instruction == train.instructions[5]


def test_retargeting_keeps_the_image_and_names_another_present_block(train):
    other = train.retargeted()
    np.testing.assert_array_equal(other.images, train.images)
    assert (other.colors[:, 0] != train.colors[:, 0]).all()
    np.testing.assert_array_equal(other.actions, directions(train.cells[:, 1]))


def test_cells_are_numbered_row_by_row():
    np.testing.assert_array_equal(cell_centers(np.array([0, 7, 8, 63])), [[4, 4], [60, 4], [4, 12], [60, 60]])


def test_render_paints_whole_cells():
    image = render(np.array([[9, -1]]), np.array([[0, -1]]))[0]
    assert (image[:, 8:16, 8:16] == np.array(PALETTE["red"])[:, None, None]).all()
    image[:, 8:16, 8:16] = np.array(BACKGROUND)[:, None, None]
    assert (image == np.array(BACKGROUND)[:, None, None]).all()


def test_ten_thousand_scenes_take_at_most_0_3_seconds():
    times = []
    for _ in range(5):
        started = time.perf_counter()
        BlockFind(10_000, 0)
        times.append(time.perf_counter() - started)
    assert min(times) <= 0.3, times


def test_no_samples_is_an_error():
    with pytest.raises(InputError, match="num_samples is"):
        BlockFind(0, 0)


def test_where_two_answers_are_right_the_label_is_one_of_them_by_chance():
    split = BlockFind.ambiguous(2_000, seed=42)
    assert (split.colors[:, 0] == split.colors[:, 1]).all()
    assert (split.colors[:, 0] != split.colors[:, 2]).all()
    assert split[0].instruction == split.instructions[0] == f"find any {split[0].colors[0]} block"
    first = (split.cells[:, 0] < split.cells[:, 1]).mean()
    assert 0.46 < first < 0.54, "neither place is favoured"


def test_trajectories_lead_to_the_target_with_a_pause_and_a_bulge():
    split = BlockFind(400, seed=0)
    steps = trajectories(split, horizon=16, seed=1)
    assert steps.shape == (400, 16, 2)
    way = cell_centers(split.cells[:, 0]) - 32
    np.testing.assert_allclose(steps.sum(axis=1), way, atol=1e-4)
    still = np.linalg.norm(steps, axis=2) < 1e-6
    assert (still.sum(axis=1) >= 4).all(), "each rests for a quarter of the time"
    middle = steps.cumsum(axis=1)[:, 7]
    side = np.sign(way[:, 0] * middle[:, 1] - way[:, 1] * middle[:, 0])
    assert 0.4 < (side > 0).mean() < 0.6, "some pass on one side, some on the other"
    with pytest.raises(InputError, match="at least 4"):
        trajectories(split, horizon=3, seed=0)
