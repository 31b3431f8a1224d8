"""TinyViT: an image becomes 64 patch tokens and one CLS token.

Notable:
- a patch is cut out and projected by one linear layer, as in ViT (https://arxiv.org/abs/2010.11929), or goes through a
  few convolutions, which train more steadily and see more detail (https://arxiv.org/abs/2106.14881);
- positions are fixed 2-D sine-cosine features measured from the image's centre, the point the actions start from.
  Learned positions that start at the usual std of 0.02 are drowned by the patch projection: `nano` then needs about a
  thousand steps to learn the task, where std 1.0 takes about a hundred (`experiments/positions.py`).
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tinyvla.config import PretrainedConfig, VisionConfig
from tinyvla.model.layers import Block, sincos_positions


def grid_positions(grid: tuple[int, int], dim: int, max_period: float = 100.0) -> Float[Tensor, "n dim"]:
    """Returns 2-D positions of a grid's cells, row by row: half the features for x, half for y, origin at the centre.

    Args:
        grid: rows and columns.
        dim: features for each cell; divisible by four.
        max_period: period of the slowest wave, in cells, divided by 2 pi.
    """
    y, x = torch.meshgrid(*(torch.arange(count) - (count - 1) / 2 for count in grid), indexing="ij")
    return torch.cat([sincos_positions(c.flatten(), dim // 2, max_period) for c in (x, y)], dim=1)


class VisionTower(nn.Module):
    """What fusions expect of a vision model: images become tokens. Others are in `tinyvla.model.pretrained`."""

    config: VisionConfig | PretrainedConfig

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b t d"]:
        """Encode float images in [0, 1]."""
        raise NotImplementedError


class ConvolutionalStem(nn.Module):
    """Patches in three steps: squares of a quarter of their side through a linear layer, then two convolutions.

    Each convolution looks at 3 x 3 neighbours and halves rows and columns, so a token also knows what lies above its
    patch and to the left, up to three quarters of a patch away.

    Args:
        config: `patch_size` must be divisible by four.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width = config.embed_dim
        widths = (width // 2, 3 * width // 4, width)
        self.side = config.patch_size // 4
        self.squares = nn.Linear(config.num_channels * self.side**2, widths[0])
        self.norms = nn.ModuleList(nn.LayerNorm(size) for size in widths[:2])
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths))

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        """Returns one token for each patch, row by row."""
        x = self.squares(rearranged(images, self.side))  # (b, rows, columns, width)
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            x = convolution(F.gelu(norm(x)).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x.flatten(1, 2)


def rearranged(images: Float[Tensor, "b c h w"], side: int) -> Float[Tensor, "b rows columns p"]:
    """Returns images cut into squares, the pixels of each in one row of numbers, channel by channel."""
    squares = images.unfold(2, side, side).unfold(3, side, side)  # (b, c, rows, columns, side, side)
    return squares.permute(0, 2, 3, 1, 4, 5).flatten(3)


class TinyViT(VisionTower):
    """Vision transformer; `forward` returns the CLS token first, then the patches row by row."""

    config: VisionConfig
    positions: Tensor

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        if config.stem == "linear":
            self.patch_projection = nn.Linear(config.num_channels * config.patch_size**2, config.embed_dim)
        else:
            self.stem = ConvolutionalStem(config)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.embed_dim))
        self.register_buffer("positions", grid_positions(config.grid, config.embed_dim), persistent=False)
        self.blocks = nn.ModuleList(
            Block(config.embed_dim, config.num_heads, config.mlp_ratio) for _ in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(config.embed_dim)

    def patchify(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n p"]:
        """Cut images into flattened patches, row by row."""
        return rearranged(images, self.config.patch_size).flatten(1, 2)

    def embed(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b t d"]:
        """Tokens as they enter the first block: projected patches plus positions, CLS in front."""
        pixels = 2 * images - 1
        is_linear = self.config.stem == "linear"
        patches = self.patch_projection(self.patchify(pixels)) if is_linear else self.stem(pixels)
        return torch.cat([self.cls_token.expand(images.shape[0], -1, -1), patches + self.positions], dim=1)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b t d"]:
        """Encode float images in [0, 1]; `t` is `config.num_tokens`."""
        x = self.embed(images)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)
