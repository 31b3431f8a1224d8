from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from tinyvla.data.demonstrations import Demonstrations
from tinyvla.errors import InputError
from tinyvla.learn.offline import IMAGES, LAST, MEAN, OWN, SENTENCES, STATE, evaluate_offline, other_rows
from tinyvla.model.policy import TinyVLA, new_policy

WORDS = {"go left": -1.0, "go right": 1.0}
EPISODES, LENGTH, HORIZON = 10, 6, 3


@pytest.fixture(scope="module")
def recorded() -> Demonstrations:
    """The action is the sentence's sign, the image's brightness and a part of the state."""
    rng, count = np.random.RandomState(0), EPISODES * LENGTH
    texts = [list(WORDS)[i // LENGTH % 2] for i in range(count)]
    bright = rng.randint(0, 256, count).astype(np.uint8)
    state = rng.uniform(-1, 1, (count, 1)).astype(np.float32)
    actions = np.stack([[10 * WORDS[t] for t in texts], bright / 255 * 4, state[:, 0]], axis=1).astype(np.float32)
    images = np.broadcast_to(bright[:, None, None, None], (count, 3, 32, 32)).copy()
    return Demonstrations({"front": images}, actions, texts, np.arange(count) // LENGTH, state, 5, ("way", "z", "turn"))


class Knows(TinyVLA):
    """Answers as a policy would that had learned some of it: what is left out, it answers with zero."""

    def __init__(self, uses: str, recorded: Demonstrations) -> None:
        super().__init__(recorded.policy_config("nano", horizon=HORIZON, image_size=32))
        self.uses, self.recorded, self.left = uses, recorded, self.language.encode(["go left"])[0][0]

    def forward(self, batch, generator=None):
        count = len(batch)
        is_left = (batch.input_ids[:, : len(self.left)] == self.left).all(dim=1)
        way = torch.where(is_left, -10.0, 10.0) if "words" in self.uses else torch.zeros(count)
        z = 4 * batch.images["front"].mean(dim=(1, 2, 3)) if "images" in self.uses else torch.zeros(count)
        turn = batch.state[:, 0] if "state" in self.uses else torch.zeros(count)
        first = torch.stack([way, z, turn], dim=1)
        # What comes next is known from the recording: only the first action of a chunk depends on what is used.
        rows = [(self.recorded.states[:, 0] == value).nonzero()[0][0] for value in batch.state[:, 0].numpy()]
        chunk = torch.from_numpy(self.recorded.chunks(HORIZON)[0][rows])
        chunk[:, 0] = first
        return chunk


def report(recorded: Demonstrations, uses: str, judged=None):
    judged = recorded.episodes >= 4 if judged is None else judged
    return evaluate_offline(Knows(uses, recorded), recorded, judged)


def test_errors_are_in_the_actions_units(recorded):
    found = report(recorded, "images state")
    mine = found.errors[OWN]
    counted = 6 * (5 * 3 - 3) / (6 * 5)  # actions of a chunk that are counted, on average
    assert mine == pytest.approx([10 / counted, 0, 0], abs=1e-2)
    assert found.num_episodes == 6
    assert found.num_frames == 6 * (LENGTH - 1)
    perfect = report(recorded, "words images state")
    assert perfect.errors[OWN] == pytest.approx([0, 0, 0], abs=1e-2)


def test_the_floors_are_what_they_say(recorded):
    found = report(recorded, "words images state")
    judged = recorded.episodes >= 4
    rows = np.flatnonzero(judged & (np.diff(recorded.episodes, prepend=-1) == 0))
    chunks, is_pad = recorded.chunks(HORIZON)
    weights = ~is_pad[rows][..., None]
    mean = recorded.actions[~judged].astype(np.float64).mean(axis=0)
    for name, answer in ((LAST, recorded.actions[rows - 1][:, None]), (MEAN, mean)):
        off = (np.abs(chunks[rows] - answer) * weights).sum(axis=(0, 1)) / weights.sum()
        np.testing.assert_allclose(found.errors[name], off, rtol=1e-6)
    assert found.errors[LAST][0] == 0, "the sentence stays the same in an episode"


@pytest.mark.parametrize(
    ("uses", "looks", "listens"),
    [("words images state", True, True), ("images state", True, False), ("words state", False, True)],
)
def test_a_policy_that_does_not_look_or_listen_is_found_out(recorded, uses, looks, listens):
    found = report(recorded, uses)
    assert found.is_worse(IMAGES) is looks
    assert found.is_worse(SENTENCES) is listens
    assert found.is_worse(STATE)
    said = found.table()
    assert f"does it look? {'yes' if looks else 'not shown'}" in said
    assert f"does it listen? {'yes' if listens else 'not shown'}" in said
    kept = json.loads(json.dumps(found.to_dict()))
    assert kept["errors"][SENTENCES]["larger_in_episodes"] == found.worse(SENTENCES)[0]


def test_with_one_sentence_listening_cannot_be_judged(recorded):
    found = report(replace(recorded, instructions=["go left"] * len(recorded)), "words images state")
    assert SENTENCES not in found.errors
    assert "cannot be judged" in found.table()


def test_nothing_to_judge_is_refused(recorded):
    with pytest.raises(InputError, match="at least two frames"):
        report(recorded, "words", np.zeros(len(recorded), bool))


@pytest.mark.parametrize("dim", [1, 4])
def test_a_policy_with_other_actions_is_refused(recorded, dim):
    actions = recorded.actions[:, :1].repeat(dim, axis=1)
    other = replace(recorded, actions=actions, action_names=())
    policy = new_policy(other.policy_config("nano", horizon=HORIZON, image_size=32), 0)
    policy.prepare_for(other.tensors(policy))
    with pytest.raises(InputError, match=f"actions have 3 numbers, and the policy's have {dim}"):
        evaluate_offline(policy, recorded, recorded.episodes >= 4)


def test_a_real_policy_is_judged(recorded):
    policy = new_policy(recorded.policy_config("nano", horizon=HORIZON, image_size=32), 0)
    policy.prepare_for(recorded.tensors(policy))
    found = evaluate_offline(policy, recorded, recorded.episodes >= 4)
    assert np.isfinite(found.share(OWN))
    assert not found.is_worse(IMAGES), "a policy that was never trained does not look"


def test_other_rows_have_another_label():
    labels = ["a"] * 5 + ["b"] * 2 + ["c"]
    rows = other_rows(labels, np.random.RandomState(0))
    assert all(labels[i] != labels[j] for i, j in enumerate(rows))
    assert other_rows(["a", "a"], np.random.RandomState(0)) is None
