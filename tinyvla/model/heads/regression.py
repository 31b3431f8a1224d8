"""Heads with one answer: a number for each dimension, or the name of a direction."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from tinyvla.config import ModelConfig
from tinyvla.errors import InputError
from tinyvla.model.heads.base import Head, mean_of


class RegressionHead(Head):
    """Two-layer MLP, trained with the mean squared error or, as kind "l1", the mean absolute error.

    Bounded to [-1, 1] by tanh, unless actions are normalised by mean and standard deviation, which has no bounds.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.hidden = nn.Linear(config.fusion.embed_dim, config.head.hidden_dim)
        self.output = nn.Linear(config.head.hidden_dim, self.dim)

    def sample(self, features: Float[Tensor, "b d"], generator: Generator | None) -> Float[Tensor, "b n"]:
        """One answer; nothing is drawn."""
        answer = self.output(F.gelu(self.hidden(features)))
        return answer if self.config.normalization == "mean-std" else answer.tanh()

    def flat_loss(
        self,
        features: Float[Tensor, "b d"],
        actions: Float[Tensor, "b n"],
        generator: Generator | None,
        counts: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, ""]:
        """Returns the mean error over scenes and components."""
        error = F.l1_loss if self.config.kind == "l1" else F.mse_loss
        return mean_of(error(self.sample(features, generator), actions, reduction="none"), counts)


class DirectionsHead(Head):
    """Names one of a few directions: right, then counter-clockwise; trained with the cross-entropy.

    With four: right, up, left, down. The label is the direction that is nearest to the action; between two that are
    equally near, the first.
    """

    directions: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        if self.shape != (1, 2) or config.head.normalization != "none":
            raise InputError("a directions head names the direction of one 2-D action, and needs no normalisation")
        self.hidden = nn.Linear(config.fusion.embed_dim, config.head.hidden_dim)
        self.output = nn.Linear(config.head.hidden_dim, config.head.num_directions)
        angles = 2 * torch.pi * torch.arange(config.head.num_directions) / config.head.num_directions
        self.register_buffer("directions", torch.stack([angles.cos(), -angles.sin()], dim=1), persistent=False)

    def classes(self, actions: Float[Tensor, "b 2"]) -> Int[Tensor, "b"]:
        """The index of the nearest direction."""
        # Not a matrix product: under autocast that would be rounded to bfloat16, which cannot tell the two apart.
        cosine = (actions[:, None] * self.directions).sum(dim=-1)
        # Rounding must not decide between two that are equally near: take the first within a hair of the best.
        return (cosine > cosine.max(dim=1, keepdim=True).values - 1e-4).to(torch.uint8).argmax(dim=1)

    def logits(self, features: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        """One for each direction."""
        return self.output(F.gelu(self.hidden(features)))

    def sample(self, features: Float[Tensor, "b d"], generator: Generator | None) -> Float[Tensor, "b n"]:
        """The unit vector of the likeliest direction."""
        return self.directions[self.logits(features).argmax(dim=1)]

    def flat_loss(
        self,
        features: Float[Tensor, "b d"],
        actions: Float[Tensor, "b n"],
        generator: Generator | None,
        counts: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, ""]:
        """Returns the cross-entropy."""
        surprise = F.cross_entropy(self.logits(features), self.classes(actions), reduction="none")
        return mean_of(surprise, None if counts is None else counts[:, 0])
