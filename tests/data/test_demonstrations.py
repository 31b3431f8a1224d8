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
from tinyvla.recipes import TrainConfig


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
