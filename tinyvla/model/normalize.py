"""Normalisation of actions and states: the model works in comparable units, robots in their own.

Notable:
- two ways, as in the field: mean and standard deviation (SmolVLA, pi0), or the 1 % and 99 % quantiles (OpenVLA);
- the statistics are buffers, so they lie in the checkpoint beside the weights that they belong to, and a fingerprint of
  them in `config.json`: statistics that were lost or exchanged are noticed when a policy is loaded.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from tinyvla.config import NORMALIZATIONS
from tinyvla.data.batch import check_finite
from tinyvla.errors import InputError
from tinyvla.fields import MANY, Within, check, check_number, shown

MOST_FOR_TORCH = 2**24
"""Numbers of which `torch.quantile` finds a quantile."""
SMALLEST_SCALE = 1e-6
"""A dimension that moves less than this is shifted, and not stretched."""


class Normalizer(nn.Module):
    """Maps actions or states to about [-1, 1] or to unit variance, dimension by dimension, and back.

    Args:
        kind: one of `tinyvla.config.NORMALIZATIONS`.
        dim: numbers in an action or a state.
        what: the word for them in messages.
    """

    offset: Tensor
    scale: Tensor

    def __init__(self, kind: str, dim: int, what: str = "actions") -> None:
        super().__init__()
        check(kind in NORMALIZATIONS, f"unknown normalization {shown(kind)}; choose from {', '.join(NORMALIZATIONS)}")
        check_number("dim", dim, Within(1, MANY.high))
        self.kind, self.what = kind, what
        if kind != "none":
            self.register_buffer("offset", torch.zeros(dim, dtype=torch.float64))
            self.register_buffer("scale", torch.zeros(dim, dtype=torch.float64))

    def fit(self, actions: Float[Tensor, "*n a"]) -> str:
        """Take the statistics of these actions; returns their fingerprint.

        Raises:
            InputError: their number of dimensions is not the policy's, or a value is not finite.
        """
        if self.kind == "none":
            raise InputError(
                f"this policy does not normalise its {self.what}; set a normalization in its configuration"
            )
        if not actions.numel():
            raise InputError(f"there are no {self.what} to take statistics from; give at least one row")
        flat = actions.reshape(-1, actions.shape[-1]).double().to(self.offset.device)
        if flat.shape[1] != len(self.offset):
            raise InputError(f"the {self.what} have {flat.shape[1]} dimensions, the policy has {len(self.offset)}")
        check_finite(flat, f"the {self.what}")
        if self.kind == "mean-std":
            offset, scale = flat.mean(dim=0), flat.std(dim=0, correction=0)
        else:
            low, high = (torch.stack([_quantile(column, q) for column in flat.T]) for q in (0.01, 0.99))
            offset, scale = (low + high) / 2, (high - low) / 2
        self.offset.copy_(offset)
        self.scale.copy_(torch.where(scale < SMALLEST_SCALE, 1.0, scale))
        return self.fingerprint()

    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that change whenever a statistic does."""
        return hashlib.sha256(torch.stack([self.offset, self.scale]).cpu().numpy().tobytes()).hexdigest()[:12]

    def check(self, fingerprint: str) -> None:
        """Refuse to act with statistics that are not the policy's own.

        Raises:
            InputError: there are none, or they are another data set's.
        """
        if self.kind == "none":
            return
        if not fingerprint or not (self.scale > 0).all():
            raise InputError(
                f"this policy normalises its {self.what} ({self.kind}) and has no statistics; "
                f"call policy.fit_statistics(...) with the training {self.what} first"
            )
        if self.fingerprint() != fingerprint:
            raise InputError(
                f"the statistics of the {self.what} ({self.fingerprint()}) are not those that the policy was trained "
                f"with ({fingerprint}); its {self.what} would be in wrong units"
            )

    def forward(self, actions: Float[Tensor, "*b a"]) -> Float[Tensor, "*b a"]:
        """Normalised actions."""
        if self.kind == "none":
            return actions
        return ((actions.double() - self.offset) / self.scale).to(actions.dtype)

    def inverse(self, normalised: Float[Tensor, "*b a"]) -> Float[Tensor, "*b a"]:
        """The actions that `forward` was given, in their own units."""
        if self.kind == "none":
            return normalised
        return (normalised.double() * self.scale + self.offset).to(normalised.dtype)


def _quantile(column: Float[Tensor, "n"], share: float) -> Float[Tensor, ""]:
    """A quantile of any number of values; `torch.quantile` refuses more than 16 million."""
    if column.numel() <= MOST_FOR_TORCH:
        return column.quantile(share)
    return torch.tensor(np.quantile(column.cpu().numpy(), share), device=column.device)
