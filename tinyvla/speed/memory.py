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
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from types import TracebackType
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.utils.checkpoint import checkpoint

from tinyvla.data.batch import Batch
from tinyvla.model.layers import Block
from tinyvla.speed.patching import all_patched
from tinyvla.speed.precision import precision


@contextmanager
def recomputed(module: nn.Module, bfloat16: bool = False) -> Iterator[None]:
    """Let every transformer block keep its input alone, and run again in the backward pass.

    Args:
        module: any with blocks, on its device already.
        bfloat16: as the forward pass around it has it; the second run must round as the first did.
    """
    contexts = partial(_contexts, next(module.parameters()).device, bfloat16)
    blocks = [block for block in module.modules() if isinstance(block, Block)]
    with all_patched((block, "forward", partial(_run_twice, block.forward, contexts)) for block in blocks):
        yield


def _run_twice(forward: Callable[..., Tensor], contexts: Callable[[], Any], *inputs: Any) -> Tensor:
    """Returns what a block's `forward` does; where a backward pass is to come, that will call it again."""
    if not torch.is_grad_enabled():
        return forward(*inputs)
    # Nothing here draws random numbers, so their state need not be kept; that also lets the step be recorded.
    return checkpoint(forward, *inputs, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)


def _contexts(
    device: torch.device, bfloat16: bool
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Of the first run, which is inside the step's precision already, and of the second one, which is not."""
    return nullcontext(), precision(device, bfloat16)


def in_parts(batch: Batch, parts: int) -> Iterator[Batch]:
    """The batch in that many parts of nearly equal size, at most as many as it has scenes."""
    for places in torch.arange(len(batch)).tensor_split(min(parts, len(batch))):
        yield batch[int(places[0]) : int(places[-1]) + 1]


def share_of_actions(part: Batch, whole: Batch) -> float | Float[Tensor, ""]:
    """Returns how much of a batch's mean loss comes from a part: its share of the actions that count."""
    if part.action_is_pad is None or whole.action_is_pad is None:
        return len(part) / len(whole)
    return (~part.action_is_pad).sum() / (~whole.action_is_pad).sum().clamp(min=1)


def backward_in_parts(
    loss_of: Callable[..., Tensor],
    batch: Batch,
    parts: int = 1,
    generator: Generator | None = None,
    bfloat16: bool = False,
) -> Float[Tensor, ""]:
    """Add the gradient of a batch's mean loss to the weights' `.grad`, part by part; returns the loss.

    A part's mean counts with its share of the actions, so that the sum is the batch's mean, whatever the parts' sizes.
    Heads that draw noise draw it part by part, so theirs is the gradient of other draws.

    Args:
        loss_of: `policy.loss`, or what stands in for it. One that averages gradients over processes (`no_sync`) does
            so once, with the last part.
        bfloat16: the forward pass's precision.
    """
    done, losses = 0, []
    for part in in_parts(batch, parts):
        done += len(part)
        is_last = done == len(batch)
        with nullcontext() if is_last else getattr(loss_of, "no_sync", nullcontext)():
            with precision(batch.device, bfloat16):
                loss = loss_of(part, generator)
            if len(part) < len(batch):
                loss = loss * share_of_actions(part, batch)
            loss.backward()
        losses.append(loss.detach())
    return losses[0] if len(losses) == 1 else torch.stack(losses).sum()


class SavedTensors:
    """Counts the memory that autograd keeps from a forward pass for its backward pass, weights left out.

    Around a forward pass::

        with SavedTensors(policy) as saved:
            loss = policy.loss(batch)
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
