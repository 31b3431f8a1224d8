from __future__ import annotations

import time

import numpy as np
import pytest

from tinyvla.act.blocks.painting import draw_frame, paint
from tinyvla.act.blocks.world import WORLD_SIZE, BlockWorld, WorldConfig, expert_action, expert_chunk, random_action
from tinyvla.act.rollout import rollout
from tinyvla.data.dataset import BACKGROUND, PALETTE, BlockFind
from tinyvla.errors import InputError

STOP = np.zeros((1, 2))


def naive_view(centers: np.ndarray, colors: np.ndarray) -> np.ndarray:
    image = np.empty((3, 64, 64), np.uint8)
    image[:] = np.array(BACKGROUND)[:, None, None]
    for (cx, cy), color in zip(centers, colors, strict=True):
        for y in range(int(cy) - 4, int(cy) + 4):
            for x in range(int(cx) - 4, int(cx) + 4):
                if color >= 0 and 0 <= x < 64 and 0 <= y < 64:
                    image[:, y, x] = list(PALETTE.values())[color]
    return image


def test_the_first_view_is_a_scene_of_blockfind():
    world = BlockWorld(range(20))
    for seed, view, words in zip(world.seeds, world.views(), world.instructions, strict=True):
        scene = BlockFind(1, seed)[0]
        np.testing.assert_array_equal(view, scene.image)
        assert words == scene.instruction


def test_painting_matches_painting_pixel_by_pixel():
    rng = np.random.RandomState(0)
    colors = BlockWorld(range(30)).colors
    centers = rng.randint(-8, 73, size=(30, 4, 2)).astype(float)
    colors = np.where(rng.random_sample(colors.shape) < 0.2, -1, colors)
    for slot in range(4):  # blocks of a scene never overlap, so look at them one by one
        one = slice(slot, slot + 1)
        for view, where, color in zip(paint(centers[:, one], colors[:, one]), centers, colors, strict=True):
            np.testing.assert_array_equal(view, naive_view(where[one], color[one]))


def test_after_a_move_blocks_lie_off_the_grid():
    world = BlockWorld([3])
    before = world.views()[0]
    world.step(np.array([[0.75, -0.5]]))  # 3 pixels right, 2 up: what is seen moves the other way
    after = world.views()[0]
    np.testing.assert_array_equal(after[:, 2:, :-3], before[:, :-2, 3:])
    assert not np.array_equal(after, before)


def test_less_than_a_pixel_is_not_seen():
    world = BlockWorld([3])
    before, distance = world.views(), world.distances
    world.step(np.array([[0.1, 0.1]]))
    np.testing.assert_array_equal(world.views(), before)
    assert world.distances != distance


def test_the_view_never_leaves_the_world():
    world = BlockWorld([0], WorldConfig(max_steps=100))
    for _ in range(30):
        world.step(np.array([[5.0, -5.0]]))  # cut off at 1
    np.testing.assert_array_equal(world.camera, [[WORLD_SIZE - 32, 32]])
    assert world.path_lengths[0] == pytest.approx(np.sqrt(2) * 32)


def test_success_needs_the_named_block_and_stopping():
    world = BlockWorld([0])
    world.camera[0] = world.centers[0, 0] - [4, 0]
    world.step(np.array([[1.0, 0.0]]))  # onto it, at full speed
    assert world.distances[0] == 0
    assert world.centered_colors == [world.instructions[0].split()[2]]
    assert not world.succeeded[0]
    world.step(STOP)
    assert world.succeeded[0]
    assert len(world.running) == 0

    world = BlockWorld([0])
    world.camera[0] = world.centers[0, 1]  # another block
    world.step(STOP)
    assert not world.succeeded[0]
    assert world.centered_colors[0] is not None
    assert world.centered_colors[0] not in world.instructions[0]


def test_the_tolerance_is_a_limit():
    for distance, succeeds in ((1.99, True), (2.01, False)):
        world = BlockWorld([0])
        world.camera[0] = world.centers[0, 0] - [0, distance]
        world.step(STOP)
        assert world.succeeded[0] == succeeds


def test_episodes_are_cut_off_and_the_others_go_on():
    world = BlockWorld(range(5), WorldConfig(max_steps=3))
    world.camera[2] = world.centers[2, 0]
    world.step(np.zeros((5, 2)))
    assert world.running.tolist() == [0, 1, 3, 4]
    assert world.views().shape == (4, 3, 64, 64)
    world.step(np.zeros((4, 2)))
    world.step(np.zeros((4, 2)))
    assert world.truncated.tolist() == [True, True, False, True, True]
    assert world.steps.tolist() == [3, 3, 1, 3, 3]


def test_the_expert_is_fast_far_away_and_exact_nearby():
    offsets = np.array([[30.0, 40.0], [3.0, 4.0], [0.0, 1.0], [0.0, 0.0]])
    np.testing.assert_allclose(expert_action(offsets, 4.0), [[0.6, 0.8], [0.6, 0.8], [0, 0.25], [0, 0]])
    np.testing.assert_allclose(expert_action(np.array([1.0, -2.0]), 4.0), [0.25, -0.5])


def test_a_chunk_is_what_the_expert_does_next():
    world = BlockWorld(range(8))
    chunk = expert_chunk(world.offsets, 4.0, 12)
    assert chunk.shape == (8, 12, 2)
    done = np.zeros((8, 12, 2))
    for step in range(12):
        if len(index := world.running):
            done[index, step] = expert_action(world.offsets[index], 4.0)
            world.step(done[index, step])
    np.testing.assert_allclose(chunk, done, atol=1e-9)
    np.testing.assert_allclose(4.0 * chunk.sum(axis=1), BlockWorld(range(8)).offsets, atol=1e-9)


def test_random_actions_fill_the_square():
    actions = random_action(np.random.RandomState(0), 1_000)
    assert actions.shape == (1_000, 2)
    assert np.abs(actions).max() <= 1
    assert np.abs(actions.mean(axis=0)).max() < 0.1
    assert actions.min() < -0.95


def test_500_views_are_painted_quickly():
    world = BlockWorld(range(500))
    world.views()
    started = time.perf_counter()
    world.views()
    assert time.perf_counter() - started < 0.25  # about 6 ms on an idle core


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: BlockWorld([]), "no seeds"),
        (lambda: BlockWorld([-1]), "from 0 to 4294967295"),
        (lambda: BlockWorld([2**32]), "from 0 to 4294967295"),
        (lambda: BlockWorld([0]).step(np.zeros((2, 2))), "1 running episodes need"),
        (lambda: BlockWorld([0]).step(np.array([[np.nan, 0]])), "NaN"),
        (lambda: WorldConfig(tolerance=0.0), "tolerance is 0.0; it must be a number above 0"),
    ],
)
def test_what_cannot_be_used_is_refused(call, says):
    with pytest.raises(InputError, match=says):
        call()


def test_an_observation_is_what_predict_takes(tiny_policy):
    world = BlockWorld(range(5), WorldConfig(max_steps=1))
    seen = world.observe()
    np.testing.assert_array_equal(seen["observation.images.camera"], world.views())
    assert seen["task"] == world.instructions
    assert tiny_policy.predict(seen).shape == (5, 2)
    two = world.observe(np.array([3, 1]))
    np.testing.assert_array_equal(two["observation.images.camera"], world.views()[[3, 1]])
    assert two["task"] == [world.instructions[3], world.instructions[1]]


def test_its_expert_plans_for_the_running_episodes():
    world = BlockWorld(range(4), WorldConfig(step_size=2.0))
    world.camera[1] = world.centers[1, 0]
    world.step(np.zeros((4, 2)))
    chunk = world.expert_chunk(3)
    assert chunk.shape == (3, 3, 2)
    np.testing.assert_array_equal(chunk, expert_chunk(world.offsets[[0, 2, 3]], 2.0, 3))


def test_an_outcome_has_an_entry_for_each_episode():
    result = rollout(lambda seen: np.zeros((len(seen["task"]), 2)), BlockWorld(range(6), WorldConfig(max_steps=2)))
    assert {name: len(values) for name, values in result.outcome.items()} == dict.fromkeys(
        ("reached", "path_lengths", "expert_path_lengths", "final_distances", "ended_on"), 6
    )
    np.testing.assert_array_equal(result.outcome["path_lengths"], 0)
    np.testing.assert_array_equal(result.outcome["final_distances"], result.outcome["expert_path_lengths"])
    assert result.summary == {
        "reached": 0.0,
        "ended_on_another_block": 0.0,
        "path_ratio": 0.0,
        "mean_final_distance": BlockWorld(range(6)).distances.mean(),
    }


def test_a_picture_is_the_view_with_arrows():
    world = BlockWorld([5, 6])
    action = np.array([0.5, -0.5])
    expected = draw_frame(world.views()[1], world.offsets[1], action)
    np.testing.assert_array_equal(world.picture(1, action), expected)
    assert not np.array_equal(world.picture(1), expected)


def test_a_frame_shows_target_and_action():
    blank = paint(np.zeros((1, 1, 2)), np.array([[-1]]))[0]
    plain, full = (draw_frame(blank, np.array([10.0, 0.0]), a) for a in (None, np.array([0.0, 1.0])))
    assert plain.shape == full.shape == (320, 320, 3)
    assert plain.dtype == np.uint8
    assert tuple(plain[160, 180]) == (34, 34, 34)
    assert tuple(full[220, 160]) == (194, 24, 91)
    assert draw_frame(blank, np.zeros(2), np.zeros(2)).shape == (320, 320, 3)
