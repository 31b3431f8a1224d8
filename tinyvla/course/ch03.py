"""A small world in which a policy learns within seconds on a CPU, for the experiments of Chapters 3 and 4."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from tinyvla.config import FusionConfig, HeadConfig, LanguageConfig, ModelConfig, VisionConfig
from tinyvla.data.batch import TensorSplit
from tinyvla.data.dataset import COLORS, GRID_SIZE, BlockFind, draw_distinct
from tinyvla.model.tokenizer import encode

SMALL = ModelConfig(
    VisionConfig(image_size=32, embed_dim=64, num_layers=1, num_heads=2),
    LanguageConfig(vocab_size=8192, embed_dim=64, num_layers=1, num_heads=2),
    FusionConfig(embed_dim=64, num_heads=2),
    HeadConfig(hidden_dim=64),
)
"""A policy for the small world. Its vocabulary ends behind the words of BlockFind's sentences."""


def small_scenes(num_samples: int, seed: int) -> BlockFind:
    """Returns scenes of three blocks on the central 4 x 4 cells."""
    rng = np.random.RandomState(seed)
    rows, columns = np.divmod(draw_distinct(rng, num_samples, 16, 3), 4)
    colors = draw_distinct(rng, num_samples, len(COLORS), 3)
    return BlockFind.from_blocks((rows + 2) * GRID_SIZE + columns + 2, colors)


def small_world(num_samples: int, seed: int, device: torch.device | str = "cpu") -> TensorSplit:
    """Returns `small_scenes` with their sentences, in images of 32 x 32 pixels with the same centre."""
    split = TensorSplit.from_blockfind(small_scenes(num_samples, seed), encode, device)
    return replace(split, images={name: each[:][..., 16:48, 16:48].contiguous() for name, each in split.images.items()})
