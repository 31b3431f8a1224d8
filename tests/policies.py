"""Policies and batches that tests of several folders make."""

from __future__ import annotations

import torch

from tinyvla.data.batch import CAMERA, Batch
from tinyvla.model.policy import TinyVLA


def awakened(policy: TinyVLA) -> TinyVLA:
    """Blocks start as the identity; random outputs make them do something that a test can see."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for block in (*policy.vision.blocks, *policy.language.blocks):
            for linear in (block.attention.output, block.mlp.output):
                linear.weight.normal_(std=0.2, generator=generator)
    return policy


def batch_of(
    images: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor, actions: torch.Tensor | None = None
) -> Batch:
    """A batch of the default camera."""
    return Batch({CAMERA: images}, input_ids, attention_mask, actions=actions)
