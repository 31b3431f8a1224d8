from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tinyvla.config import HeadConfig, ModelConfig, ObservationConfig
from tinyvla.data.batch import Batch
from tinyvla.errors import InputError
from tinyvla.model.policy import new_policy
from tinyvla.model.tokenizer import encode


@pytest.fixture
def policy(tiny_config):
    config = replace(
        tiny_config,
        head=replace(tiny_config.head, kind="l1", waypoints=(1, 9)),
        observation=ObservationConfig(state_dim=3),
    )
    policy = new_policy(config, 0)
    policy.fit_statistics(state=torch.tensor([[0.0, 0.0, 0.0], [2.0, 4.0, 8.0]]))
    return policy


def batch(future: torch.Tensor | None) -> Batch:
    ids, mask = encode(["find the red block"] * 2)
    images = {"camera": torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))}
    return Batch(images, ids, mask, torch.ones(2, 3), torch.zeros(2, 2), future=future)


def test_the_loss_is_the_heads_and_the_weighted_error_of_the_normalised_states(policy):
    future = torch.rand(2, 2, 3)
    observed = batch(future)
    features = policy.features(observed)
    answer = policy.waypoints.output(features).view(2, 2, 3)
    wanted = (future - torch.tensor([1.0, 2.0, 4.0])) / torch.tensor([1.0, 2.0, 4.0])
    own = policy.head.loss(features, observed.actions)
    torch.testing.assert_close(policy.loss(observed), own + 0.3 * (answer - wanted).abs().mean())


def test_waypoints_play_no_part_in_acting(policy):
    observed = batch(None)
    before = policy(observed)
    with torch.no_grad():
        policy.waypoints.output.weight.normal_()
    assert torch.equal(policy(observed), before)
    assert policy.num_parameters()["waypoints"] == 16 * 6 + 6


def test_missing_future_states_are_named(policy):
    with pytest.raises(InputError, match=r"needs `future` states \(2, 3\) in each batch; it has none"):
        policy.loss(batch(None))
    with pytest.raises(InputError, match=r"it has \(1, 3\)"):
        policy.loss(batch(torch.zeros(2, 1, 3)))


def test_unusable_waypoints_are_refused():
    with pytest.raises(InputError, match="each entry a whole number from 1 to"):
        HeadConfig(waypoints=(0,))
    with pytest.raises(InputError, match="this policy knows no state"):
        ModelConfig(head=HeadConfig(waypoints=(4,)))


def test_a_checkpoint_keeps_them(policy, tmp_path):
    policy.save_pretrained(tmp_path / "best")
    again = type(policy).from_pretrained(tmp_path / "best")
    assert again.config.head.waypoints == (1, 9)
    assert torch.equal(again.waypoints.output.weight, policy.waypoints.output.weight)
