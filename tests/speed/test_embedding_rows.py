from __future__ import annotations

import dataclasses

import pytest
import torch
from steps import losses, tensors

from tinyvla.config import PRESETS
from tinyvla.learn.callbacks import OnEpoch
from tinyvla.learn.checkpoint import RunFolder, RunSettings
from tinyvla.learn.train import PlainStep, fit
from tinyvla.model.policy import new_policy
from tinyvla.recipes import DataConfig, TrainConfig
from tinyvla.registry import FUSION_KINDS
from tinyvla.speed.embedding_rows import learned_embedding
from tinyvla.speed.step import make_step
from tinyvla.speed.tuned import PLAIN, StepOptions

ROWS = StepOptions(used_rows=True)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_weights_are_those_of_the_plain_step(optimizer):
    train, config = tensors(128), TrainConfig(optimizer=optimizer, learning_rate=3e-3)
    policies = [new_policy(PRESETS["nano"], 0) for _ in range(2)]
    steps = [PlainStep(policies[0], train, config), make_step(policies[1], train, config, ROWS)]
    for index in torch.arange(128).split(32):
        assert steps[0](index).item() == pytest.approx(steps[1](index).item(), abs=1e-6)
    for a, b in zip(*(p.parameters() for p in policies), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-5 if optimizer == "muon" else 1e-6)
    fresh = new_policy(PRESETS["nano"], 0).language.token_embedding.weight
    for policy in policies:
        moved = (policy.language.token_embedding.weight != fresh).any(dim=1)
        assert torch.equal(moved.nonzero().flatten(), train.input_ids.unique())


@pytest.mark.parametrize("fusion", FUSION_KINDS)
def test_every_fusion_looks_its_words_up_in_them(tiny_config, fusion):
    config = dataclasses.replace(tiny_config, fusion=dataclasses.replace(tiny_config.fusion, kind=fusion))
    torch.testing.assert_close(losses(config, ROWS, steps=4), losses(config, PLAIN, steps=4), rtol=1e-5, atol=1e-6)


def test_the_optimizer_holds_moments_for_these_rows_alone(tiny_config):
    train = tensors(64)
    step = make_step(new_policy(tiny_config, 0), train, TrainConfig(), ROWS)
    step(torch.arange(32))
    used = len(train.input_ids.unique())
    shapes = {tuple(s["exp_avg"].shape) for s in step.optimizer.state.values()}
    assert (used, 16) in shapes
    assert not any(shape[0] == 30_522 for shape in shapes)


def test_outside_of_a_step_the_policy_is_as_it_was(tiny_config):
    train, policy = tensors(64), new_policy(tiny_config, 0)
    embedding, names = policy.language.token_embedding, [name for name, _ in policy.named_parameters()]
    weight = embedding.weight
    step = make_step(policy, train, TrainConfig(), ROWS)
    step(torch.arange(32))
    assert embedding.weight is weight
    assert "forward" not in vars(embedding)
    assert [name for name, _ in policy.named_parameters()] == names
    policy.head.output.weight.data.fill_(torch.nan)
    with pytest.raises(IndexError), step.rows.instead():
        policy.predict(torch.zeros(3, 64, 64), "put the spoon in the pot")  # words that no training sentence holds
    assert embedding.weight is weight


def test_another_kind_of_step_goes_on_where_one_was_stopped(tiny_config, tmp_path):
    """What is saved has the plain step's shape, and what is read may have been written by it."""
    train, config = tensors(128), TrainConfig(epochs=2, batch_size=32, learning_rate=1e-2, warmup_steps=0)

    class Stop(Exception): ...

    def stop(record):
        raise Stop

    ends = []
    for kinds in (("plain", "plain"), (ROWS, ROWS), (ROWS, "plain"), ("plain", ROWS)):
        run = RunFolder(tmp_path / str(len(ends)))
        run.start(RunSettings(tiny_config, config, DataConfig()), {}, overwrite=False)
        for kind, callbacks in zip(kinds, ([OnEpoch(stop)], []), strict=True):
            policy = new_policy(tiny_config, 0)
            try:
                fit(policy, train, train, config, make_step(policy, train, config, kind), run, callbacks)
            except Stop:
                continue
        ends.append(torch.cat([p.detach().flatten() for p in policy.parameters()]))
    unbroken = new_policy(tiny_config, 0)
    fit(unbroken, train, train, config, make_step(unbroken, train, config, ROWS))
    assert torch.equal(ends[1], torch.cat([p.detach().flatten() for p in unbroken.parameters()]))
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], rtol=0, atol=1e-5)


def test_an_embedding_that_does_not_learn_or_is_adapted_is_left_alone(tiny_config):
    policy = new_policy(tiny_config, 0)
    assert learned_embedding(policy) is policy.language.token_embedding
    policy.language.requires_grad_(False)
    assert learned_embedding(policy) is None
    adapted = new_policy(tiny_config, 0)
    adapted.language.token_embedding = torch.nn.Sequential(adapted.language.token_embedding)
    assert learned_embedding(adapted) is None
    assert make_step(policy, tensors(64), TrainConfig(), ROWS)(torch.arange(32)).isfinite()
