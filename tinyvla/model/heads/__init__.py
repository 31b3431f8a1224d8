"""Chapter 7 (action heads): a fused feature becomes an action, or a chunk of them.

    base             what all heads share: `loss`, `predict`, normalisation, padding
    regression       one answer: a number for each dimension, or the name of a direction
    tokens           bins and FAST tokens, named one after the other
    fast_tokenizer   chunks of actions as a few FAST tokens
    denoising        flow matching and diffusion: from noise to an action

Notable:
- every head answers two verbs, `loss(features, actions)` for training and `predict(features)` for acting, so the
  training loop never knows which head it trains;
- regression answers with one action, the mean of what was demonstrated. The others learn a distribution and draw from
  it, so that two right answers stay two;
- all randomness comes from a generator that the caller may give, so training and acting can be repeated exactly.
"""

from __future__ import annotations

from tinyvla.config import ModelConfig
from tinyvla.fields import checked
from tinyvla.model.heads.base import Head
from tinyvla.model.heads.denoising import DenoisingHead, DiffusionHead, FlowHead
from tinyvla.model.heads.regression import DirectionsHead, RegressionHead
from tinyvla.model.heads.tokens import BinsHead, FastHead
from tinyvla.registry import HEADS

__all__ = [
    "BinsHead",
    "DenoisingHead",
    "DiffusionHead",
    "DirectionsHead",
    "FastHead",
    "FlowHead",
    "Head",
    "RegressionHead",
    "make_head",
]


@checked
def make_head(config: ModelConfig) -> Head:
    """Returns the head that a configuration names."""
    return HEADS[config.head.kind](config)
