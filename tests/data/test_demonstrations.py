from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from tinyvla.config import PRESETS, InputError, TrainConfig
from tinyvla.data.demonstrations import Demonstrations
from tinyvla.act.rollout import demonstrations, expert, rollout
from tinyvla.learn.train import fit, new_policy
from tinyvla.act.block_world import episode_seeds


@pytest.fixture(scope="module")
def recorded() -> Demonstrations:
    return Demonstrations.from_states(rollout(expert, episode_seeds(5, 1_000), num_recorded=5).states)


def test_frames_of_an_episode_follow_each_other(recorded):
    states = rollout(expert, episode_seeds(5, 1_000), num_recorded=5).states
    assert len(recorded) == len(states)
    assert recorded.episodes[-1] == 4
    for episode in range(5):
        index, frames = states.of_episode(episode), np.flatnonzero(recorded.episodes == episode)
        np.testing.assert_array_equal(recorded.images["camera"][frames], states.images[index])
        np.testing.assert_array_equal(recorded.actions[frames], states.expert_actions[index])
        assert {recorded.instructions[i] for i in frames} == {states.instructions[index[0]]}


def test_tensors_are_those_that_cloning_learns_from(recorded):
    ours, theirs = recorded.tensors(), demonstrations(5, 1_000)
    rows = [tuple(action) for action in theirs.actions.tolist()]
    assert sorted(map(tuple, ours.actions.tolist())) == sorted(rows)
    assert ours.images.sum() == theirs.images.sum()
    records = fit(new_policy(PRESETS["nano"], 0), ours, ours, TrainConfig(epochs=1), progress_bar=False)
    assert records[0]["val_loss"] < 1


def test_chunks_stay_inside_their_episode(recorded):
    chunks = recorded.chunks(3)
    for i, episode in enumerate(recorded.episodes):
        last = np.flatnonzero(recorded.episodes == episode)[-1]
        for ahead in range(3):
            np.testing.assert_array_equal(chunks[i, ahead], recorded.actions[min(i + ahead, last)])
    assert recorded.tensors(horizon=3).actions.shape == (len(recorded), 3, 2)


def test_images_are_scaled_and_cameras_named(recorded):
    wide = np.repeat(np.repeat(recorded.images["camera"], 2, axis=2), 2, axis=3)
    two = dataclasses.replace(recorded, images={"front": wide, "wrist": recorded.images["camera"]})
    front = two.tensors("front").images
    assert front.shape == (len(recorded), 3, 64, 64)
    assert (front.float() - torch.from_numpy(recorded.images["camera"]).float()).abs().mean() < 3
    with pytest.raises(InputError, match="name one of front, wrist"):
        two.tensors()
    with pytest.raises(InputError, match="camera 'top'"):
        two.tensors("top")


def test_what_does_not_fit_together_is_refused(recorded):
    with pytest.raises(InputError, match="'instructions': 2"):
        dataclasses.replace(recorded, instructions=["find the red block"] * 2)
    with pytest.raises(InputError, match="following each other"):
        dataclasses.replace(recorded, episodes=recorded.episodes[::-1].copy())
    with pytest.raises(InputError, match="numbered 0, 1, 2"):
        dataclasses.replace(recorded, episodes=recorded.episodes + 1)
    with pytest.raises(InputError, match="fps is 0"):
        dataclasses.replace(recorded, fps=0)
