from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from tinyvla.act.blocks.world import BlockWorld
from tinyvla.act.dagger import demonstrations
from tinyvla.act.rollout import expert, rollout
from tinyvla.act.world import episode_seeds
from tinyvla.config import PRESETS
from tinyvla.data.demonstrations import Demonstrations
from tinyvla.errors import InputError
from tinyvla.learn.train import fit
from tinyvla.model.policy import new_policy
from tinyvla.recipes import RecordingConfig, TrainConfig


@pytest.fixture(scope="module")
def recorded() -> Demonstrations:
    return recorded_states().demonstrations()


def recorded_states():
    return rollout(expert, BlockWorld(episode_seeds(5, 1_000)), record=5).states


def test_frames_of_an_episode_follow_each_other(recorded):
    states = recorded_states()
    assert len(recorded) == len(states)
    assert recorded.episodes[-1] == 4
    for episode in range(5):
        index, frames = states.of_episode(episode), np.flatnonzero(recorded.episodes == episode)
        np.testing.assert_array_equal(recorded.images["camera"][frames], states.images["camera"][index])
        np.testing.assert_array_equal(recorded.actions[frames], states.expert_actions[index])
        assert {recorded.instructions[i] for i in frames} == {states.instructions[index[0]]}


def test_tensors_are_those_that_cloning_learns_from(recorded):
    policy = new_policy(PRESETS["nano"], 0)
    ours, theirs = recorded.tensors(policy), demonstrations(BlockWorld(episode_seeds(5, 1_000)), policy)
    rows = [tuple(action) for action in theirs.actions.tolist()]
    assert sorted(map(tuple, ours.actions.tolist())) == sorted(rows)
    assert ours.images["camera"].sum() == theirs.images["camera"].sum()
    assert fit(policy, ours, ours, TrainConfig(epochs=1))[0]["val_loss"] < 1


def test_chunks_stay_inside_their_episode(recorded):
    chunks, is_pad = recorded.chunks(3)
    for i, episode in enumerate(recorded.episodes):
        last = np.flatnonzero(recorded.episodes == episode)[-1]
        for ahead in range(3):
            np.testing.assert_array_equal(chunks[i, ahead], recorded.actions[min(i + ahead, last)])
            assert is_pad[i, ahead] == (i + ahead > last)
    policy = new_policy(recorded.policy_config("nano", horizon=3), 0)
    train = recorded.tensors(policy)
    assert train.actions.shape == (len(recorded), 3, 2)
    np.testing.assert_array_equal(train.action_is_pad, is_pad)
    with pytest.raises(InputError, match="horizon is 0"):
        recorded.chunks(0)


def test_images_are_scaled_and_cameras_named(recorded):
    wide = np.repeat(np.repeat(recorded.images["camera"], 2, axis=2), 2, axis=3)
    states = np.arange(2 * len(recorded), dtype=np.float32).reshape(-1, 2)
    two = dataclasses.replace(recorded, images={"front": wide, "wrist": recorded.images["camera"]}, states=states)
    config = two.policy_config("nano")
    assert config.observation.cameras == ("front", "wrist")
    assert (config.observation.state_dim, config.head.action_dim) == (2, 2)
    train = two.tensors(new_policy(config, 0))
    assert train.images["front"].shape == (len(recorded), 3, 64, 64)
    assert (train.images["front"].float() - torch.from_numpy(recorded.images["camera"]).float()).abs().mean() < 3
    np.testing.assert_array_equal(train.state, states)
    with pytest.raises(InputError, match=r"lacks observation\.images\.camera; it has observation.images.front"):
        two.tensors(new_policy(PRESETS["nano"], 0))
    with pytest.raises(InputError, match=r"observation\.state has shape .* this policy needs"):
        dataclasses.replace(two, states=states[:, :1]).tensors(new_policy(config, 0))


def test_what_does_not_fit_together_is_refused(recorded):
    with pytest.raises(InputError, match="'instructions': 2"):
        dataclasses.replace(recorded, instructions=["find the red block"] * 2)
    with pytest.raises(InputError, match="following each other"):
        dataclasses.replace(recorded, episodes=recorded.episodes[::-1].copy())
    with pytest.raises(InputError, match="numbered 0, 1, 2"):
        dataclasses.replace(recorded, episodes=recorded.episodes + 1)
    with pytest.raises(InputError, match="fps is 0"):
        dataclasses.replace(recorded, fps=0)


@pytest.fixture
def with_state(recorded):
    return dataclasses.replace(recorded, states=np.arange(2 * len(recorded), dtype=np.float32).reshape(-1, 2))


def test_future_states_stop_at_the_episodes_end(with_state):
    future = with_state.future((1, 3, 500))
    assert future.shape == (len(with_state), 3, 2)
    for i in range(len(with_state)):
        last = np.flatnonzero(with_state.episodes == with_state.episodes[i])[-1]
        wanted = [with_state.states[min(i + step, last)] for step in (1, 3, 500)]
        np.testing.assert_array_equal(future[i], wanted)


def test_future_states_need_states(recorded):
    with pytest.raises(InputError, match="none were recorded"):
        recorded.future((1,))


def test_rows_are_recordings_of_their_own(with_state):
    part = with_state.rows(np.flatnonzero(with_state.episodes >= 3))
    assert part.episodes.tolist() == (with_state.episodes[with_state.episodes >= 3] - 3).tolist()
    np.testing.assert_array_equal(part.states, with_state.states[with_state.episodes >= 3])
    assert part.instructions == [
        text for text, episode in zip(with_state.instructions, with_state.episodes, strict=True) if episode >= 3
    ]


def test_a_robots_policy_fits_its_recordings(with_state, recorded):
    config = with_state.robot_config()
    assert config.vision.grid == (8, 8)
    assert (config.vision.stem, config.fusion.kind, config.head.horizon) == ("convolutional", "prefix", 16)
    assert config.observation.state_dim == 2
    assert config.head.waypoints
    assert recorded.robot_config().head.waypoints == (), "without states there is nothing to learn there"


def test_a_policy_with_waypoints_learns_from_recordings(with_state):
    sizes = RecordingConfig(image_size=32, horizon=2, waypoints=(1, 4))
    policy = new_policy(with_state.robot_config(sizes, preset="nano"), 0)
    train = with_state.tensors(policy)
    assert train.future.shape == (len(with_state), 2, 2)
    policy.prepare_for(train)
    config = TrainConfig(epochs=4, batch_size=16, learning_rate=3e-3, warmup_steps=1, shift=1, state_noise=0.01)
    losses = [record["train_loss"] for record in fit(policy, train, train, config)]
    assert losses[-1] < 0.9 * losses[0]
