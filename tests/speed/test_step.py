from __future__ import annotations

import pytest
import torch
from steps import tensors

from tinyvla.device import has_bfloat16_units
from tinyvla.errors import InputError
from tinyvla.learn.train import PlainStep
from tinyvla.model.policy import new_policy
from tinyvla.recipes import TrainConfig
from tinyvla.speed.step import make_step, step_options
from tinyvla.speed.tuned import PLAIN, StepOptions, TunedStep

CPU = torch.device("cpu")


def test_kinds_are_options():
    assert step_options("plain", CPU) == PLAIN
    rounds = has_bfloat16_units(CPU)
    assert step_options("auto", CPU) == StepOptions(
        bfloat16=rounds, one_product=rounds, used_rows=True, known_sentences=True
    )
    with pytest.raises(InputError, match="needs a CUDA GPU"):
        step_options("compiled", CPU)
    with pytest.raises(InputError, match="unknown step 'fast'; choose from auto, plain, compiled"):
        step_options("fast", CPU)


def test_without_units_for_bfloat16_auto_stays_in_float32(monkeypatch):
    monkeypatch.setattr("tinyvla.speed.tuned.has_bfloat16_units", lambda device: False)
    assert step_options("auto", CPU) == StepOptions(used_rows=True, known_sentences=True)


def test_the_step_is_made_that_is_asked_for(tiny_config):
    train, policy = tensors(64), new_policy(tiny_config, 0)
    assert type(make_step(policy, train, TrainConfig(), "plain")) is PlainStep
    assert type(make_step(policy, train, TrainConfig(), StepOptions())) is PlainStep
    assert type(make_step(policy, train, TrainConfig(recompute=True), "plain")) is TunedStep
    auto = make_step(policy, train, TrainConfig())
    assert type(auto) is TunedStep
    assert auto.options == step_options("auto", CPU)
    assert auto.read_every == 1
