"""How the faster steps change a policy that knows nothing of them: methods of single objects are exchanged for a while.

Notable:
- each exchange is a context manager and is undone when it ends, also by an error: outside of a step a policy is as it
  was, so it can be saved, copied and called like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tinyvla.model.layers import Attention


@contextmanager
def patched(owner: Any, name: str, method: Callable[..., Any]) -> Iterator[None]:
    """Exchange a method of one object."""
    before = vars(owner).get(name)
    setattr(owner, name, method)
    try:
        yield
    finally:
        delattr(owner, name)
        if before is not None:
            setattr(owner, name, before)


@contextmanager
def all_patched(patches: Iterable[tuple[Any, str, Callable[..., Any]]]) -> Iterator[None]:
    """Exchange several methods: owner, name, method."""
    with ExitStack() as stack:
        for owner, name, method in patches:
            stack.enter_context(patched(owner, name, method))
        yield


@contextmanager
def one_product(policy: nn.Module) -> Iterator[None]:
    """Let self-attention project queries, keys and values in one product instead of three.

    Where its layers are not plain ones, as with an adapter, they stay as they are. Hooks on the three are passed by.
    """
    layers = [module for module in policy.modules() if isinstance(module, Attention)]
    plain = [a for a in layers if all(type(linear) is nn.Linear for linear in (a.query, a.key, a.value))]
    with all_patched((attention, "project", _projecting_together(attention)) for attention in plain):
        yield


def _projecting_together(attention: Attention) -> Callable[..., Any]:
    def project(x: Float[Tensor, "b q c"], context: Float[Tensor, "b k e"] | None = None) -> tuple[Tensor, ...]:
        """Returns queries, keys and values by head, as `Attention.project`."""
        if context is not None:
            return Attention.project(attention, x, context)
        linears = (attention.query, attention.key, attention.value)
        weight, bias = (torch.cat([getattr(linear, name) for linear in linears]) for name in ("weight", "bias"))
        return attention.by_head(*F.linear(x, weight, bias).chunk(3, dim=-1))

    return project
