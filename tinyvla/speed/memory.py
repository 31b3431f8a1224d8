"""The same gradient with less memory: a batch in parts, and activations that are computed twice.

Notable:
- what the forward pass keeps for the backward pass grows with the batch. Taken in parts, whose gradients are added up,
  a batch needs the memory of one part (gradient accumulation);
- a block can keep its input alone and run once more in the backward pass: more arithmetic, less memory (activation
  checkpointing, https://arxiv.org/abs/1604.06174; `recompute` here, since a checkpoint is also a folder);
- neither changes the gradient but for rounding, so both can be recorded as a CUDA graph like any other step;
- `SavedTensors` counts what autograd keeps, on every device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from functools import partial
from types import TracebackType
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from tinyvla.data.batch import Batch
from tinyvla.config import InputError, TrainConfig
from tinyvla.model.layers import Block
from tinyvla.model.policy import TinyVLA
from tinyvla.speed.recorded import PLAIN, StepOptions, precision


def save_memory(policy: TinyVLA, config: TrainConfig, options: StepOptions = PLAIN) -> None:
    """Prepare a policy for steps as `config.accumulate` and `config.recompute` ask for.

    Raises:
        InputError: the two do not go together with the head or the step.
    """
    if config.accumulate > 1 and policy.config.head.kind == "fast":
        raise InputError(
            "the head `fast` averages its loss over tokens, and parts of a batch have different numbers of them, so "
            "their gradients do not add up to the batch's; leave out --accumulate"
        )
    if config.recompute and options.compile:
        raise InputError("--compile decides by itself what to compute twice; leave out --recompute or --compile")
    recompute_blocks(policy, config.recompute, options)


def recompute_blocks(policy: nn.Module, recompute: bool = True, options: StepOptions = PLAIN) -> None:
    """Let every transformer block keep its input alone and run again in the backward pass, or stop that.

    Args:
        policy: any module with blocks, on its device already.
        options: of the steps; the second run must round as the first did.
    """
    contexts = partial(_contexts, next(policy.parameters()).device, options)
    for module in policy.modules():
        if isinstance(module, Block):
            module.recompute = contexts if recompute else None


def _contexts(
    device: torch.device, options: StepOptions
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Of the first run, which is inside the step's precision already, and of the second one, which is not."""
    return nullcontext(), precision(device, options)


def in_parts(batch: Batch, parts: int) -> Iterator[Batch]:
    """The batch in that many parts of nearly equal size, at most as many as it has scenes."""
    parts = min(parts, len(batch.images))
    columns = [getattr(batch, field.name).tensor_split(parts) for field in fields(batch)]
    return (Batch(*part) for part in zip(*columns, strict=True))


def backward_in_parts(
    loss_of: Callable[..., Tensor],
    batch: Batch,
    parts: int = 1,
    generator: Generator | None = None,
    options: StepOptions = PLAIN,
) -> Float[Tensor, ""]:
    """Add the gradient of a batch's mean loss to the weights' `.grad`, part by part; returns the loss.

    A part's mean counts with its share of the scenes, so that the sum is the batch's mean, whatever the parts' sizes.
    Heads that draw noise draw it part by part, so theirs is the gradient of other draws.

    Args:
        loss_of: `policy.loss`, or what stands in for it. One that averages gradients over processes (`no_sync`) does
            so once, with the last part.
    """
    size, done, losses = len(batch.images), 0, []
    for part in in_parts(batch, parts):
        done += len(part.images)
        alone = getattr(loss_of, "no_sync", nullcontext) if done < size else nullcontext
        with alone():
            with precision(part.images.device, options):
                loss = loss_of(part.images, part.input_ids, part.attention_mask, part.actions, generator)
            if len(part.images) < size:
                loss = loss * (len(part.images) / size)
            loss.backward()
        losses.append(loss.detach())
    return losses[0] if len(losses) == 1 else torch.stack(losses).sum()


class SavedTensors:
    """Counts the memory that autograd keeps from a forward pass for its backward pass, weights left out.

    Around a forward pass::

        with SavedTensors(policy) as saved:
            loss = policy.loss(...)
        print(saved.bytes)

    Memory that several tensors share counts once. Copies of weights in another precision count too.
    """

    def __init__(self, module: nn.Module) -> None:
        self._weights = {p.untyped_storage().data_ptr() for p in module.parameters()}
        self._kept: dict[int, torch.UntypedStorage] = {}  # held, so that no address is used twice
        self._hooks: Any = torch.autograd.graph.saved_tensors_hooks(self._note, lambda tensor: tensor)

    def _note(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._weights:
            self._kept[storage.data_ptr()] = storage
        return tensor

    def __enter__(self) -> SavedTensors:
        self._hooks.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hooks.__exit__(kind, error, trace)

    @property
    def bytes(self) -> int:
        """Bytes kept so far."""
        return sum(storage.nbytes() for storage in self._kept.values())
