"""Action heads: a fused feature becomes an action.

Notable:
- every head answers two verbs, `loss(features, actions)` for training and `predict(features)` for acting, so the
  training loop never knows which head it trains.
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tinyvla.config import ModelConfig


class RegressionHead(nn.Module):
    """Two-layer MLP, bounded to [-1, 1] by tanh, trained with the mean squared error."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.hidden = nn.Linear(config.fusion.embed_dim, config.head.hidden_dim)
        self.output = nn.Linear(config.head.hidden_dim, config.head.action_dim)

    def predict(self, features: Float[Tensor, "b d"]) -> Float[Tensor, "b a"]:
        """Actions, every component in [-1, 1]."""
        return self.output(F.gelu(self.hidden(features))).tanh()

    def loss(self, features: Float[Tensor, "b d"], actions: Float[Tensor, "b a"]) -> Float[Tensor, ""]:
        """Mean over scenes and components of the squared error."""
        return F.mse_loss(self.predict(features), actions)
