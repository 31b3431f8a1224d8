"""Several processes, each with a GPU, train one policy: Hugging Face Accelerate starts them and joins their gradients.

    accelerate launch --num_processes 2 -m tinyvla train

Notable:
- every process holds the whole policy and the whole split; each takes its share of every batch;
- gradients are averaged while the backward pass runs, so all processes take the same step, and the step is that of one
  process with the whole batch;
- the main process alone writes files.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int64
from torch import Generator, Tensor, nn

from tinyvla.data.batch import Batch, TensorSplit
from tinyvla.errors import InputError
from tinyvla.learn.checkpoint import RunFolder
from tinyvla.model.policy import TinyVLA
from tinyvla.recipes import TrainConfig
from tinyvla.speed.tuned import PLAIN, StepOptions, TunedStep

if TYPE_CHECKING:
    from accelerate import Accelerator


class Loss(nn.Module):
    """`policy.loss` as a module's forward pass, the only thing whose gradients are averaged over processes."""

    def __init__(self, policy: TinyVLA) -> None:
        super().__init__()
        self.policy = policy
        self.weight: float | Tensor = 1.0

    def forward(self, batch: Batch, generator: Generator | None = None) -> Float[Tensor, ""]:
        """The policy's training loss, weighted."""
        return self.policy.loss(batch, generator) * self.weight


class SharedStep(TunedStep):
    """A step that several processes take together, each with its share of the batch.

    It is not recorded, and the whole embedding takes part: its gradient is one of those that are averaged.
    """

    def __init__(
        self,
        policy: TinyVLA,
        train: TensorSplit,
        config: TrainConfig,
        accelerator: Accelerator,
        options: StepOptions = PLAIN,
    ) -> None:
        super().__init__(policy, train, config, replace(options, graph=False, compile=False, used_rows=False))
        self.accelerator = accelerator
        self.loss = Loss(policy)
        self.loss_of = accelerator.prepare_model(self.loss)

    def __call__(self, index: Int64[Tensor, "b"]) -> Float[Tensor, ""]:
        """Learn from this process's share of the scenes at an index; returns the mean of the processes' losses."""
        mine = share(index, self.accelerator)
        self.loss.weight = self._weight(mine)
        return self.accelerator.reduce(super().__call__(mine), "mean")

    def _weight(self, mine: Int64[Tensor, "s"]) -> float | Tensor:
        """Returns what this share counts in the processes' mean: where chunks are padded, as its actions that count."""
        if self.train.action_is_pad is None:
            return 1.0
        count = (~self.train.action_is_pad[mine]).sum().float()
        return count / self.accelerator.reduce(count.clone(), "mean").clamp(min=1e-6)


class OnlyReading(RunFolder):
    """The run's folder for all processes but the main one: they resume from it, and write nothing."""

    def _nothing(self, *args: Any, **kwargs: Any) -> None: ...

    save_checkpoint = save_state = write_records = swap = drop_unsaved = finish = check_is_own = _nothing
    held = nullcontext  # type: ignore[assignment]


def share(index: Int64[Tensor, "b"], accelerator: Accelerator) -> Int64[Tensor, "s"]:
    """This process's part of a batch. Where it does not divide evenly, its first scenes are taken twice."""
    count, rank = accelerator.num_processes, accelerator.process_index
    places = torch.arange(rank, -(-len(index) // count) * count, count, device=index.device)
    return index[places % len(index)]


def make_accelerator(device: str) -> Accelerator | None:
    """The accelerator of a process that `accelerate launch` started beside others; None for one on its own.

    Raises:
        InputError: Accelerate is not installed.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None
    try:
        from accelerate import Accelerator
    except ImportError:
        raise InputError('several processes need Accelerate: pip install "tinyvla[distributed]"') from None
    return Accelerator(cpu=device == "cpu")
