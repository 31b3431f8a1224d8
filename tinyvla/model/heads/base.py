"""What all action heads share."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Generator, Tensor, nn

from tinyvla.config import InputError, ModelConfig
from tinyvla.model.normalize import Normalizer


class Head(nn.Module):
    """What all heads share: actions in their own units outside, normalised and flat inside.

    A subclass has `flat_loss` and `sample`. Actions are `(b, action_dim)`, or `(b, horizon, action_dim)` where the
    horizon is longer than one.
    """

    static_shapes = True
    """Whether the loss's shapes are the same for every batch, so that a training step can be recorded."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config.head
        self.shape = (self.config.horizon, self.config.action_dim)
        self.dim = math.prod(self.shape)
        self.normalizer = Normalizer(config.head)

    def loss(
        self, features: Float[Tensor, "b d"], actions: Float[Tensor, "b *chunk"], generator: Generator | None = None
    ) -> Float[Tensor, ""]:
        """The training loss.

        Raises:
            InputError: the actions' shape is not the head's.
        """
        shape = self.shape[1:] if self.config.horizon == 1 else self.shape
        if actions.shape[1:] != shape:
            raise InputError(f"the actions are {tuple(actions.shape[1:])} each, and the policy's head makes {shape}")
        normalised = self.normalizer(actions.unflatten(0, (-1, 1)) if actions.ndim == 2 else actions)
        return self.flat_loss(features, normalised.flatten(1), generator)

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
        self, features: Float[Tensor, "b d"], actions: Float[Tensor, "b n"], generator: Generator | None
    ) -> Float[Tensor, ""]:
        """The loss for normalised, flattened actions."""
        raise NotImplementedError

    def sample(self, features: Float[Tensor, "b d"], generator: Generator | None) -> Float[Tensor, "b n"]:
        """Normalised, flattened actions."""
        raise NotImplementedError


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
