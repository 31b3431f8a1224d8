"""What Chapter 5 watches its reader's training loop with.

Notable:
- a loop is called with a split and an optimizer that note what they are given, so a check can say which part of a step
  went wrong, and when;
- the loop to compare with is made of the package's own pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tinyvla.data.batch import Batch, TensorSplit, epoch_order
from tinyvla.learn.optimizer import learning_rate_at
from tinyvla.model.policy import TinyVLA
from tinyvla.recipes import TrainConfig


@dataclass
class Watched:
    """What a training loop did, step by step."""

    losses: Sequence[Any] | None = None
    """What it returned."""
    scenes: list[list[int]] = field(default_factory=list)
    """The index of each batch that it took."""
    rates: list[list[float]] = field(default_factory=list)
    """The learning rate of each of the optimizer's groups."""
    gradients: list[Tensor] = field(default_factory=list)
    """The policy's gradient as the optimizer got it, end to end; zeros where a weight had none."""


class WatchedSplit:
    """A split that notes which batches are taken."""

    def __init__(self, split: TensorSplit, watched: Watched) -> None:
        self._split, self._watched = split, watched

    def __len__(self) -> int:
        return len(self._split)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._split, name)

    def take(self, index: Any) -> Batch:
        """Returns the batch at an index, and notes it."""
        index = torch.as_tensor(index)
        self._watched.scenes.append(index.tolist())
        return self._split.take(index)


class WatchedOptimizer:
    """An optimizer that notes learning rates and gradients before each of its steps."""

    def __init__(self, optimizer: Any, policy: TinyVLA, watched: Watched) -> None:
        self._optimizer, self._policy, self._watched = optimizer, policy, watched

    def __getattr__(self, name: str) -> Any:
        return getattr(self._optimizer, name)

    def step(self) -> None:
        """Note, then step."""
        self._watched.rates.append([group["lr"] for group in self.param_groups])
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._policy.parameters()]
        self._watched.gradients.append(torch.cat([part.flatten() for part in parts]))
        self._optimizer.step()


Loop = Callable[[TinyVLA, Any, TrainConfig, Any], Any]
"""A training loop: policy, split, settings and optimizer; it returns the losses."""


def watch_loop(
    loop: Loop, policy: TinyVLA, split: TensorSplit, config: TrainConfig, optimizer: Any, watched: Watched
) -> None:
    """Run a training loop, and note what it does.

    Args:
        loop: trains the policy in place.
        policy: fresh, on the CPU.
        split: what to train on.
        config: settings of the training.
        optimizer: of the policy's weights.
        watched: empty; filled while the loop runs.
    """
    watched.losses = loop(policy, WatchedSplit(split, watched), config, WatchedOptimizer(optimizer, policy, watched))


def package_loop(policy: TinyVLA, split: Any, config: TrainConfig, optimizer: Any) -> list[float]:
    """Train in place with the package's order and learning rates; returns the loss of each step."""
    total, losses = config.total_steps(len(split)), []
    for step in range(total):
        epoch, position = divmod(step, config.steps_per_epoch(len(split)))
        order = epoch_order(len(split), config.seed, epoch)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, total, config)
        optimizer.zero_grad()
        loss = policy.loss(split.take(order.split(config.batch_size)[position]))
        loss.backward()
        nn.utils.clip_grad_norm_(policy.parameters(), config.grad_clip)
        optimizer.step()
        losses.append(loss.item())
    return losses
