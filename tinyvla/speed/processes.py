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
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from tinyvla.config import InputError
from tinyvla.model.policy import TinyVLA

if TYPE_CHECKING:
    from accelerate import Accelerator


class Loss(nn.Module):
    """`policy.loss` as a module's forward pass, the only thing whose gradients are averaged over processes."""

    def __init__(self, policy: TinyVLA) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, *batch: Any) -> Tensor:
        """The policy's training loss."""
        return self.policy.loss(*batch)


def spread_loss(policy: TinyVLA, accelerator: Accelerator) -> nn.Module:
    """A stand-in for `policy.loss` whose backward pass averages the gradients of all processes."""
    return accelerator.prepare_model(Loss(policy))


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
