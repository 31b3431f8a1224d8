from __future__ import annotations

import dataclasses

import pytest
import torch
from steps import losses, tensors

from tinyvla.config import PRESETS, HeadConfig
from tinyvla.learn.train import fit
from tinyvla.model.policy import new_policy
from tinyvla.recipes import TrainConfig
from tinyvla.registry import HEAD_KINDS
from tinyvla.speed.step import make_step
from tinyvla.speed.tuned import PLAIN, StepOptions, TunedStep

ROUNDED = StepOptions(bfloat16=True)


def test_plain_is_the_default_and_float32():
    assert StepOptions() == PLAIN
    assert not any(dataclasses.asdict(PLAIN).values())
    assert str(PLAIN) == "plain"
    assert str(StepOptions(bfloat16=True, used_rows=True)) == "bfloat16, words in use"


def test_without_options_it_is_the_plain_step_bit_for_bit(tiny_config):
    train, config = tensors(300), TrainConfig(learning_rate=1e-3, batch_size=32)
    step = TunedStep(new_policy(tiny_config, 0), train, config)
    tuned = [step(torch.arange(number, number + 32)).item() for number in range(4)]
    plain = make_step(new_policy(tiny_config, 0), train, config, "plain")
    assert tuned == [plain(torch.arange(number, number + 32)).item() for number in range(4)]


def test_bfloat16_on_the_cpu_gives_the_same_losses_up_to_rounding():
    config = PRESETS["nano"]
    plain, rounded = losses(config, PLAIN, steps=8), losses(config, ROUNDED, steps=8)
    assert (plain - rounded).abs().max() < 0.02
    assert not torch.equal(plain, rounded)


@pytest.mark.parametrize("head", [kind for kind in HEAD_KINDS if kind != "fast"])
def test_every_head_has_about_the_same_loss_in_bfloat16(tiny_config, head):
    plain = losses(tiny_config, PLAIN, steps=3, head=head)
    rounded = losses(tiny_config, ROUNDED, steps=3, head=head)
    torch.testing.assert_close(rounded, plain, rtol=0.02, atol=0.02)


def test_bfloat16_leaves_weights_and_gradients_in_float32(tiny_config):
    policy = new_policy(tiny_config, 0)
    make_step(policy, tensors(32), TrainConfig(), ROUNDED)(torch.arange(32))
    assert {p.dtype for p in policy.parameters()} == {p.grad.dtype for p in policy.parameters()} == {torch.float32}


def test_fit_takes_another_step_with_the_same_result_up_to_rounding(tiny_config):
    train, val = tensors(256), tensors(64, 43)
    settings = TrainConfig(epochs=2, batch_size=32, learning_rate=1e-3)
    results = []
    for options in (PLAIN, StepOptions(bfloat16=True, one_product=True, used_rows=True)):
        policy = new_policy(tiny_config, 0)
        results.append(fit(policy, train, val, settings, make_step(policy, train, settings, options))[-1])
    assert results[0]["train_loss"] == pytest.approx(results[1]["train_loss"], abs=0.02)


def test_a_head_that_cannot_be_recorded_is_not(tiny_config):
    wanted = StepOptions(bfloat16=True, graph=True, compile=True)
    for kind in HEAD_KINDS:
        policy = new_policy(dataclasses.replace(tiny_config, head=HeadConfig(hidden_dim=16, kind=kind)), 0)
        assert wanted.supported_by(policy).graph == (kind != "fast")
        assert wanted.supported_by(policy).bfloat16
