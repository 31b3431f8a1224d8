"""What every world offers, and what worlds share."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from tinyvla.act.blocks.world import BlockWorld
from tinyvla.act.world import Episodes, World, checked_actions, episode_seeds, num_rows, rows
from tinyvla.errors import InputError


def make_arm(seeds):
    if find_spec("mujoco") is None:
        pytest.skip("MuJoCo is not installed")
    from tinyvla.act.arm.world import ArmWorld

    return ArmWorld(seeds, "pick")


@pytest.mark.parametrize("make", [BlockWorld, make_arm])
def test_each_world_keeps_the_protocol(make):
    world = make([3, 4, 5])
    assert isinstance(world, World)
    assert len(world) == len(world.seeds) == len(world.instructions) == 3
    assert world.running.tolist() == [0, 1, 2]
    assert world.steps.tolist() == [0, 0, 0]
    assert world.succeeded.tolist() == [False] * 3
    seen = world.observe()
    cameras = [key for key in seen if key.startswith("observation.images.")]
    assert cameras
    for key in cameras:
        assert seen[key].dtype == np.uint8
        assert seen[key].shape[:2] == (3, 3)
        np.testing.assert_array_equal(world.observe(np.array([1]))[key], seen[key][1:2])
    plan = world.expert_chunk(4)
    assert plan.shape == (3, 4, world.action_dim)
    picture = world.picture(2, plan[2, 0])
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    while len(world.running):
        world.step(world.expert_chunk(1)[:, 0])
    assert world.succeeded.all()
    assert all(len(values) == 3 for values in world.outcome().values())


def test_episodes_are_counted_until_they_succeed_or_are_cut_off():
    episodes = Episodes([7, 8, 9], max_steps=2)
    episodes.end_step(episodes.running, np.array([False, True, False]))
    assert episodes.running.tolist() == [0, 2]
    episodes.end_step(episodes.running, np.array([True, False]))
    assert episodes.steps.tolist() == [2, 1, 2]
    assert episodes.succeeded.tolist() == [True, True, False]
    assert episodes.truncated.tolist() == [False, False, True]
    assert len(episodes.running) == 0
    assert len(episodes) == 3


def test_seeds_of_different_splits_never_meet():
    assert episode_seeds(3, 44) == [4_400_000, 4_400_001, 4_400_002]
    assert episode_seeds(100_000, 43)[-1] < episode_seeds(1, 44)[0]
    assert episode_seeds(100_000, 42_948)[-1] < 2**32


def test_actions_are_cut_off():
    actions = checked_actions(np.array([[0.5, -3.0]], np.float32), 1, 2)
    np.testing.assert_array_equal(actions, [[0.5, -1.0]])
    assert actions.dtype == np.float64


def test_rows_of_an_observation():
    seen = {"observation.state": np.arange(6).reshape(3, 2), "task": ["a", "b", "c"]}
    for index in (np.array([0, 2]), np.array([True, False, True])):
        some = rows(seen, index)
        np.testing.assert_array_equal(some["observation.state"], [[0, 1], [4, 5]])
        assert some["task"] == ["a", "c"]
        assert num_rows(some) == 2


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: episode_seeds(0, 44), "number of episodes is 0"),
        (lambda: episode_seeds(1, 42_949), "seed is 42949"),
        (lambda: Episodes([], 3), "no seeds"),
        (lambda: Episodes([2**32], 3), "from 0 to 4294967295"),
        (lambda: checked_actions(np.zeros((2, 3)), 2, 7), r"shape \(2, 3\); 2 running episodes need \(2, 7\)"),
        (lambda: checked_actions(np.array([[np.inf]]), 1, 1), "NaN or infinite"),
        (lambda: num_rows({"task": "find the red block"}), "needs a list of sentences under 'task', not 'find the red"),
        (lambda: num_rows({}), "needs a list of sentences"),
    ],
)
def test_what_cannot_be_used_is_refused(call, says):
    with pytest.raises(InputError, match=says):
        call()
