"""Matrix products in bfloat16, where the device has units for it. Weights, norms and the loss stay in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode


class _Float32Attention(TorchFunctionMode):
    """Attention itself in float32: on a CPU its bfloat16 backward takes longer than all the rest of the step."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        with torch.autocast("cpu", enabled=False):
            return func(*(x.float() for x in args), **kwargs)


@contextmanager
def precision(device: torch.device, bfloat16: bool) -> Iterator[None]:
    """Run a forward pass in bfloat16 or, as it is, in float32."""
    attention = _Float32Attention() if bfloat16 and device.type == "cpu" else nullcontext()
    with attention, torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
        yield
