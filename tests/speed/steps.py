"""What the tests of steps share."""

from __future__ import annotations

import dataclasses

import torch

from tinyvla.config import ModelConfig
from tinyvla.data.batch import TensorSplit
from tinyvla.data.dataset import BlockFind
from tinyvla.learn.optimizer import set_learning_rate
from tinyvla.model.policy import new_policy
from tinyvla.model.tokenizer import encode
from tinyvla.recipes import TrainConfig
from tinyvla.speed.step import make_step
from tinyvla.speed.tuned import StepOptions


def tensors(number: int, seed: int = 42, device: str = "cpu") -> TensorSplit:
    return TensorSplit.from_blockfind(BlockFind(number, seed), encode, device)


def losses(
    config: ModelConfig,
    kind: str | StepOptions,
    device: str = "cpu",
    steps: int = 20,
    head: str = "",
    partial: bool = False,
    **settings: object,
) -> torch.Tensor:
    """The losses of a few steps from the same beginning."""
    train_config = TrainConfig(**{"learning_rate": 1e-3, "batch_size": 32, **settings})
    if head:
        config = dataclasses.replace(config, head=dataclasses.replace(config.head, kind=head))
    train, policy = tensors(300, device=device), new_policy(config, 0, device)
    if head == "fast":
        policy.fit_statistics(train.actions)
    step = make_step(policy, train, train_config, kind)
    seen = []
    for number in range(steps):
        set_learning_rate(step.optimizer, train_config.learning_rate * (number + 1) / steps)
        step.generator.manual_seed(number)
        index = torch.arange(number, number + (20 if partial and number % 3 == 2 else 32), device=device)
        seen.append(step(index).item())
    return torch.tensor(seen)
