from __future__ import annotations

import importlib
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from tinyvla.act.blocks import env as module
from tinyvla.act.blocks.env import ENV_ID, BlockFindEnv, expert_action
from tinyvla.act.blocks.world import BlockWorld
from tinyvla.errors import InputError

BY_MODULE = f"tinyvla.act.blocks.env:{ENV_ID}"


def test_gymnasium_finds_nothing_wrong():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(BY_MODULE, render_mode="rgb_array").unwrapped)


def test_an_episode_is_its_seeds():
    env = gymnasium.make(BY_MODULE)
    (one, info), (again, _), (other, _) = (env.reset(seed=seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(one["image"], again["image"])
    assert one["instruction"] == again["instruction"] == info["instruction"]
    assert not np.array_equal(one["image"], other["image"])
    np.testing.assert_array_equal(one["image"], BlockWorld([7]).views()[0])
    drawn = [[env.reset(seed=7), env.reset(), env.reset()][i][1]["seed"] for i in (0, 1, 2)]
    assert len(set(drawn)) == 3
    assert drawn == [[env.reset(seed=7), env.reset(), env.reset()][i][1]["seed"] for i in (0, 1, 2)]


def test_the_expert_succeeds_and_is_rewarded_once():
    env = gymnasium.make(BY_MODULE)
    for seed in range(10):
        _, info = env.reset(seed=seed)
        rewards, ended = [], False
        while not ended:
            action = expert_action(info["offset"], env.unwrapped.config.step_size).astype(np.float32)
            _, reward, terminated, truncated, info = env.step(action)
            rewards.append(reward)
            ended = terminated or truncated
        assert info["is_success"]
        assert terminated
        assert sum(rewards) == rewards[-1] == 1
        assert info["distance"] < 1e-3


def test_an_episode_is_truncated_and_then_over():
    env = BlockFindEnv(max_steps=2)
    env.reset(seed=0)
    zero = np.zeros(2, np.float32)
    assert env.step(zero)[1:4] == (0.0, False, False)
    assert env.step(zero)[1:4] == (0.0, False, True)
    with pytest.raises(InputError, match="the episode is over"):
        env.step(zero)


@pytest.mark.parametrize(
    ("mode", "options"), [("sync", {}), ("async", {"shared_memory": False})], ids=["sync", "async"]
)
def test_it_vectorises(mode, options):
    envs = gymnasium.make_vec(BY_MODULE, num_envs=3, vectorization_mode=mode, vector_kwargs=options)
    try:
        seen, _ = envs.reset(seed=5)
        world = BlockWorld([5, 6, 7])
        actions = np.array([[0.5, 0.25], [-1, 1], [0, 0]], np.float32)
        for _ in range(2):
            np.testing.assert_array_equal(seen["image"], world.views())
            assert list(seen["instruction"]) == world.instructions
            world.step(actions)
            seen, rewards, *_ = envs.step(actions)
            assert rewards.tolist() == [0, 0, 0]
    finally:
        envs.close()


def test_a_frame_shows_the_view_enlarged():
    env = gymnasium.make(BY_MODULE, render_mode="rgb_array")
    env.reset(seed=0)
    first = env.render()
    env.step(np.array([0.5, 0.5], np.float32))
    assert first.shape == env.render().shape == (320, 320, 3)
    assert not np.array_equal(first, env.render())
    assert BlockFindEnv().render() is None


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: BlockFindEnv(render_mode="human"), "unknown render_mode 'human'"),
        (lambda: BlockFindEnv(gravity=9.81), "the rules are step_size, tolerance, stop_norm, max_steps"),
        (lambda: BlockFindEnv(step_size=-1.0), "it must be a"),
        (lambda: BlockFindEnv().step(np.zeros(2)), "call reset"),
    ],
)
def test_what_cannot_be_used_is_refused(call, says):
    with pytest.raises(InputError, match=says):
        call()


def test_without_gymnasium_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr("tinyvla.act.blocks.env", module, raising=False)  # put back after the failed import
    monkeypatch.delitem(sys.modules, "tinyvla.act.blocks.env")
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(InputError, match=r"pip install 'tinyvla\[env\]'"):
        importlib.import_module("tinyvla.act.blocks.env")
