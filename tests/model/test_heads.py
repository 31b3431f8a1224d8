from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from tinyvla.data.dataset import BlockFind, trajectories
from tinyvla.errors import InputError
from tinyvla.model.heads import DiffusionHead, DirectionsHead, RegressionHead, make_head
from tinyvla.model.policy import TinyVLA
from tinyvla.registry import HEAD_KINDS, HEADS


def with_head(config, **changes):
    return replace(config, head=replace(config.head, **changes))


def ready(head):
    """FAST must have seen actions before it can name them."""
    if head.config.kind == "fast":
        head.fit(torch.rand(300, *head.shape, generator=generator()) * 2 - 1)
    return head


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def learned(head, features, actions, steps=400, lr=3e-3):
    """The head after training on these features alone."""
    optimizer = torch.optim.Adam(head.parameters(), lr=lr)
    draws = generator()
    for _ in range(steps):
        optimizer.zero_grad()
        head.loss(features, actions, draws).backward()
        optimizer.step()
    return head


def test_every_kind_has_a_head():
    assert set(HEADS) == set(HEAD_KINDS)


def test_actions_stay_within_bounds(tiny_config):
    head = RegressionHead(tiny_config)
    actions = head.predict(100 * torch.randn(50, 16))
    assert actions.shape == (50, 2)
    assert actions.abs().max() <= 1


@pytest.mark.parametrize(("kind", "error"), [("regression", F.mse_loss), ("l1", F.l1_loss)])
def test_regression_loss_is_the_error_of_the_prediction(tiny_config, kind, error):
    head = make_head(with_head(tiny_config, kind=kind))
    features, actions = torch.randn(5, 16), torch.randn(5, 2)
    torch.testing.assert_close(head.loss(features, actions), error(head.predict(features), actions))


@pytest.mark.parametrize("kind", [kind for kind in HEAD_KINDS if kind != "directions"])
@pytest.mark.parametrize(("horizon", "action_dim"), [(1, 2), (1, 7), (8, 2), (5, 3)])
def test_chunks_of_any_size_come_out_as_they_went_in(tiny_config, kind, horizon, action_dim):
    head = ready(make_head(with_head(tiny_config, kind=kind, horizon=horizon, action_dim=action_dim)))
    shape = (6, action_dim) if horizon == 1 else (6, horizon, action_dim)
    features = torch.randn(6, 16)
    loss = head.loss(features, torch.rand(shape) * 2 - 1, generator())
    assert loss.ndim == 0
    assert torch.isfinite(loss)
    loss.backward()
    assert all(p.grad is not None for p in head.parameters())
    assert head.predict(features, generator()).shape == shape


@pytest.mark.parametrize("kind", HEAD_KINDS)
def test_a_wrong_shape_is_refused(tiny_config, kind):
    head = make_head(with_head(tiny_config, kind=kind))
    with pytest.raises(InputError, match=r"\(7,\) each, and the policy's head makes \(1, 2\)"):
        head.loss(torch.randn(3, 16), torch.randn(3, 7))


@pytest.mark.parametrize("kind", ["bins", "fast", "flow", "diffusion"])
def test_the_same_generator_gives_the_same_answer(tiny_config, kind):
    head = ready(make_head(with_head(tiny_config, kind=kind)))
    features = torch.randn(4, 16)
    first, same, other = (head.predict(features, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("kind", ["bins", "fast", "flow", "diffusion"])
def test_two_right_answers_stay_two(tiny_config, kind):
    """Half the demonstrations go left and up, half right and down; regression would answer (0, 0)."""
    torch.manual_seed(0)
    answers = torch.tensor([[-0.8, -0.6], [0.6, 0.8]])
    features, actions = torch.ones(64, 16), answers.repeat(32, 1)
    head = make_head(with_head(tiny_config, kind=kind, hidden_dim=64, num_steps=20))
    if kind == "fast":
        head.fit(actions)
    learned(head, features, actions)
    with torch.no_grad():
        drawn = head.predict(torch.ones(400, 16), generator())
    distance = torch.cdist(drawn, answers)
    assert (distance.min(dim=1).values < 0.2).double().mean() > 0.9
    assert 0.3 < (distance.argmin(dim=1) == 0).double().mean() < 0.7


def test_regression_answers_with_the_mean(tiny_config):
    answers = torch.tensor([[-0.8, -0.6], [0.6, 0.8]])
    head = learned(RegressionHead(tiny_config), torch.ones(64, 16), answers.repeat(32, 1))
    torch.testing.assert_close(head.predict(torch.ones(1, 16)), answers.mean(dim=0, keepdim=True), atol=0.02, rtol=0)


def test_one_step_of_flow_matching_is_regression(tiny_config):
    """At the start a point says nothing about the action, so the best velocity leads to the mean of all."""
    torch.manual_seed(0)
    answers = torch.tensor([[-0.8, -0.6], [0.6, 0.8]])
    head = make_head(with_head(tiny_config, kind="flow", hidden_dim=64, num_steps=1))
    learned(head, torch.ones(64, 16), answers.repeat(32, 1))
    with torch.no_grad():
        off = head.predict(torch.ones(200, 16), generator()) - answers.mean(dim=0)
    assert off.norm(dim=1).median() < 0.25


@pytest.mark.parametrize("num_directions", [4, 8])
def test_directions_are_named_as_on_a_compass(tiny_config, num_directions):
    head = DirectionsHead(with_head(tiny_config, kind="directions", num_directions=num_directions))
    right_up_left_down = torch.tensor([[1.0, 0.0], [0.0, -1.0], [-1.0, 0.0], [0.0, 1.0]])
    assert head.classes(right_up_left_down).tolist() == [i * num_directions // 4 for i in range(4)]
    torch.testing.assert_close(head.directions.norm(dim=1), torch.ones(num_directions))


def test_equally_near_directions_are_the_same_class_in_every_rounding(tiny_config):
    head = DirectionsHead(with_head(tiny_config, kind="directions", num_directions=4))
    diagonal = torch.tensor([[0.5**0.5, -(0.5**0.5)]])
    for nudge in (-1e-7, 0, 1e-7):
        assert head.classes(diagonal + torch.tensor([[nudge, 0.0]])).tolist() == [0]


def test_directions_need_one_2d_action(tiny_config):
    with pytest.raises(InputError, match="one 2-D action"):
        make_head(with_head(tiny_config, kind="directions", action_dim=3))


def test_bins_lose_no_more_than_half_a_bin(tiny_config):
    head = make_head(with_head(tiny_config, kind="bins"))
    actions = torch.linspace(-1, 1, 1001)[:, None]
    assert (head.centers(head.bins(actions)) - actions).abs().max() <= 1 / 256 + 1e-6
    assert head.bins(torch.tensor([[-9.0, 9.0]])).tolist() == [[0, 255]]


def test_a_bin_knows_the_bins_before_it_and_none_after(tiny_config):
    head = make_head(with_head(tiny_config, kind="bins", action_dim=3))
    features, bins = torch.randn(1, 16), torch.tensor([[10, 20]])
    before, after = head.logits(features, bins), head.logits(features, torch.tensor([[10, 99]]))
    assert torch.equal(before[:, :2], after[:, :2])
    assert not torch.equal(before[:, 2], after[:, 2])
    torch.testing.assert_close(head.logits(features, bins[:, :1])[:, 1], before[:, 1])


def test_the_noise_schedule_really_ends_in_noise():
    signal, sigma = DiffusionHead.schedule(torch.tensor([0.0, 0.5, 1.0]))
    torch.testing.assert_close(signal**2 + sigma**2, torch.ones(3, 1))
    assert signal[-1].abs() < 1e-6
    assert sigma[0] == 0


# --- normalisation in a policy ---


@pytest.fixture
def normalising(tiny_config):
    """A policy that answers in millimetres."""
    policy = TinyVLA(with_head(tiny_config, normalization="quantiles")).eval()
    policy.fit_statistics(1000 * torch.randn(200, 2, generator=generator()))
    return policy


def test_statistics_travel_with_the_checkpoint(normalising, tmp_path):
    normalising.save_pretrained(tmp_path)
    again = TinyVLA.from_pretrained(tmp_path)
    scene = BlockFind(1, seed=0)[0]
    assert torch.equal(
        again.predict(scene.image, scene.instruction), normalising.predict(scene.image, scene.instruction)
    )
    assert again.config == normalising.config


def test_without_statistics_a_policy_neither_trains_nor_acts(tiny_config):
    policy = TinyVLA(with_head(tiny_config, normalization="mean-std"))
    scene = BlockFind(1, seed=0)[0]
    with pytest.raises(InputError, match=r"has no statistics; call policy\.fit_statistics"):
        policy.predict(scene.image, scene.instruction)


def test_a_checkpoint_that_lost_its_statistics_is_refused(normalising, tmp_path):
    normalising.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "normalizer" not in k}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"does not fit its config\.json.*normalizer"):
        TinyVLA.from_pretrained(tmp_path)


def test_a_checkpoint_with_foreign_statistics_is_refused(normalising, tmp_path):
    normalising.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["head.normalizer.scale"] *= 2
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="not those that the policy was trained with"):
        TinyVLA.from_pretrained(tmp_path)


def test_a_checkpoint_with_another_action_dim_is_refused(normalising, tmp_path):
    normalising.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["head"]["action_dim"] = 7
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"does not fit its config\.json"):
        TinyVLA.from_pretrained(tmp_path)


def test_the_action_tokenizer_travels_with_the_checkpoint(tiny_config, tmp_path):
    policy = TinyVLA(with_head(tiny_config, kind="fast", horizon=8, normalization="quantiles")).eval()
    scene = BlockFind(1, seed=0)[0]
    with pytest.raises(InputError, match="no action tokenizer"):
        policy.predict(scene.image, scene.instruction)
    policy.fit_statistics(torch.from_numpy(trajectories(BlockFind(300, seed=0), 8, seed=0)))
    policy.save_pretrained(tmp_path)
    again = TinyVLA.from_pretrained(tmp_path)
    answers = [p.predict(scene.image, scene.instruction, generator()) for p in (policy, again)]
    assert answers[0].shape == (8, 2)
    assert torch.equal(*answers)
    again.head.tokenizer.lowest += 1
    with pytest.raises(InputError, match="not those that the policy was trained with"):
        again.predict(scene.image, scene.instruction)
