"""Where a policy looks: the weights of its fusion's attention, a number for each cell of the image."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from tinyvla.data.dataset import NUM_CELLS
from tinyvla.model.observation import IMAGE_KEY, TASK_KEY
from tinyvla.model.policy import TinyVLA


def has_attention_map(policy: TinyVLA) -> bool:
    """Whether the fusion is a sentence's query to 64 patches and CLS, so that its weights make a picture."""
    asks = callable(getattr(policy.fusion, "query", None))
    attends = hasattr(getattr(policy.fusion, "attention", None), "weights")
    return asks and attends and policy.config.vision.num_tokens == NUM_CELLS + 1


@torch.no_grad()
def attention_map(
    policy: TinyVLA, image: UInt8[np.ndarray, "3 64 64"], instruction: str
) -> Float32[np.ndarray, "64"] | None:
    """The fusion's attention to each cell, row by row, averaged over the heads; None where the fusion has no such map.

    The CLS token is left out, so the weights sum to one less its share.

    Raises:
        InputError: the instruction cannot be read.
    """
    if not has_attention_map(policy):
        return None
    shown = {IMAGE_KEY + policy.config.observation.cameras[0]: image, TASK_KEY: instruction}
    batch = policy.prepare(shown)[0].to(policy.device)
    fusion: Any = policy.fusion
    query = fusion.query(policy.language, batch.input_ids, batch.attention_mask)
    weights = fusion.attention.weights(query, context=policy.vision(batch.image))  # (1, heads, 1, 65)
    return weights[0, :, 0, 1:].mean(dim=0).float().cpu().numpy()
