"""Waypoints: where the robot itself will be some steps later, as a further target in training.

Notable:
- the recorded states of the same episode are the labels, so it costs no data and no labelling;
- nothing of it is used when the policy acts: it shapes the feature that the actions are made from.
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tinyvla.config import ModelConfig
from tinyvla.errors import InputError
from tinyvla.model.normalize import Normalizer


class Waypoints(nn.Module):
    """One linear layer from the fused feature to future states.

    Args:
        config: the policy's; `config.head.waypoints` are steps ahead.
    """

    weight = 0.3
    """Of this loss beside the head's."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.shape = (len(config.head.waypoints), config.observation.state_dim)
        self.output = nn.Linear(config.fusion.embed_dim, self.shape[0] * self.shape[1])

    def loss(
        self, features: Float[Tensor, "b d"], future: Float[Tensor, "b p s"] | None, normalizer: Normalizer
    ) -> Float[Tensor, ""]:
        """Returns the weighted mean absolute error of the normalised states.

        Args:
            features: what the fusion makes of the observations.
            future: states some steps later, in their own units.
            normalizer: the state's.

        Raises:
            InputError: there are no future states, or not as many as the policy has waypoints.
        """
        if future is None or tuple(future.shape[1:]) != self.shape:
            given = "none" if future is None else tuple(future.shape[1:])
            raise InputError(
                f"a policy with waypoints needs `future` states {self.shape} in each batch; it has {given}"
            )
        answer = self.output(features).unflatten(1, self.shape)
        return self.weight * F.l1_loss(answer, normalizer(future))
