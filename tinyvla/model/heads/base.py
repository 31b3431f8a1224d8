"""What all action heads share."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn

from tinyvla.config import ModelConfig
from tinyvla.errors import InputError
from tinyvla.model.normalize import Normalizer


class Head(nn.Module):
    """What all heads share: callers give and get actions in their own units; inside they are normalised and flat.

    A subclass has `flat_loss` and `sample`. Actions are `(b, action_dim)`, or `(b, horizon, action_dim)` where the
    horizon is longer than one.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config.head
        self.shape = (self.config.horizon, self.config.action_dim)
        self.dim = math.prod(self.shape)
        self.normalizer = Normalizer(config.head.normalization, config.head.action_dim)

    def loss(
        self,
        features: Float[Tensor, "b d"],
        actions: Float[Tensor, "b *chunk"] | None,
        generator: Generator | None = None,
        action_is_pad: Bool[Tensor, "b h"] | None = None,
    ) -> Float[Tensor, ""]:
        """Returns the training loss.

        Args:
            features: what the fusion makes of the observations.
            actions: `(b, horizon, action_dim)` in their own units, or `(b, action_dim)` where the horizon is one.
            generator: for heads that draw noise.
            action_is_pad: True on actions after an episode's end. They do not count, whatever they are.

        Raises:
            InputError: there are no actions, or their shape is not the head's.
        """
        if actions is None:
            raise InputError("there are no actions to learn from; a batch for training needs `actions`")
        chunks = actions[:, None] if actions.ndim == 2 else actions
        if chunks.shape[1:] != self.shape:
            raise InputError(
                f"the actions are {tuple(actions.shape[1:])} each, and the policy's head makes {self.shape}: "
                "(horizon, action_dim)"
            )
        if action_is_pad is None:
            return self.flat_loss(features, self.normalizer(chunks).flatten(1), generator)
        chunks = hold_last(chunks, action_is_pad)
        counts = (~action_is_pad)[..., None].expand_as(chunks).flatten(1)
        return self.flat_loss(features, self.normalizer(chunks).flatten(1), generator, counts)

    def predict(self, features: Float[Tensor, "b d"], generator: Generator | None = None) -> Float[Tensor, "b *chunk"]:
        """Actions in their own units."""
        actions = self.normalizer.inverse(self.sample(features, generator).unflatten(1, self.shape))
        return actions[:, 0] if self.config.horizon == 1 else actions

    def fit(self, actions: Float[Tensor, "n *chunk"]) -> str:
        """Take from the training actions what must be known before training; returns its fingerprint."""
        return self.normalizer.fit(actions)

    def check(self, fingerprint: str) -> None:
        """Refuse to train or act with statistics that are missing or another data set's.

        Raises:
            InputError: they are; the message says what to do.
        """
        self.normalizer.check(fingerprint)

    def flat_loss(
        self,
        features: Float[Tensor, "b d"],
        actions: Float[Tensor, "b n"],
        generator: Generator | None,
        counts: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, ""]:
        """Returns the loss for normalised, flattened actions, over the numbers that count: all of them by default."""
        raise NotImplementedError

    def sample(self, features: Float[Tensor, "b d"], generator: Generator | None) -> Float[Tensor, "b n"]:
        """Normalised, flattened actions."""
        raise NotImplementedError


def hold_last(actions: Float[Tensor, "b h a"], action_is_pad: Bool[Tensor, "b h"]) -> Float[Tensor, "b h a"]:
    """Returns chunks whose padding repeats the last real action, whatever the data set holds there."""
    last = (~action_is_pad).sum(dim=1).clamp(min=1) - 1
    held = actions[torch.arange(len(actions), device=actions.device), last]
    return torch.where(action_is_pad[..., None], held[:, None], actions)


def mean_of(values: Float[Tensor, "*n"], counts: Bool[Tensor, "*n"] | None) -> Float[Tensor, ""]:
    """Returns the mean of the values that count."""
    return values.mean() if counts is None else (values * counts).sum() / counts.sum().clamp(min=1)


class Trunk(nn.Module):
    """What a head that learns a distribution thinks with: MLPs on a residual stream, each behind a LayerNorm.

    A transformer block without the attention. Two layers are enough for one answer; they are not for telling which
    of two answers a half-denoised action, or a first bin, belongs to.
    """

    num_blocks = 2
    mlp_ratio = 2

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = self.mlp_ratio * width
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
            for _ in range(self.num_blocks)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Float[Tensor, "*b c"]) -> Float[Tensor, "*b c"]:
        """Transform; normalised, ready for the layer that reads it out."""
        for block in self.blocks:
            x = x + block(x)
        return self.norm(x)
