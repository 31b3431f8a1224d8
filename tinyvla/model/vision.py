"""TinyViT: an image becomes 64 patch tokens and one CLS token.

Notable:
- a patch is cut out and projected by one linear layer, as in ViT (https://arxiv.org/abs/2010.11929);
- positions are fixed 2-D sine-cosine features measured from the image's centre, the point the actions start from.
  Learned positions at the usual std of 0.02 are drowned by the patch projection: the policy stays at chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from tinyvla.config import InputError, PretrainedConfig, VisionConfig
from tinyvla.model.layers import Block, sincos_positions

if TYPE_CHECKING:
    from PIL.Image import Image

    ImageLike = Image | np.ndarray | Tensor
else:
    ImageLike = Any


def grid_positions(grid_size: int, dim: int, max_period: float = 100.0) -> Float[Tensor, "n dim"]:
    """2-D positions of a grid's cells, row by row: half the features for x, half for y, origin at the centre."""
    axis = torch.arange(grid_size) - (grid_size - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.cat([sincos_positions(c.flatten(), dim // 2, max_period) for c in (x, y)], dim=1)


class VisionTower(nn.Module):
    """What fusions expect of a vision model: images become tokens. `tinyvla.model.pretrained` has others than TinyViT."""

    config: VisionConfig | PretrainedConfig
    static_shapes = True
    """Whether its work can be recorded (`tinyvla.speed.recorded`)."""

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b t d"]:
        """Encode float images in [0, 1]."""
        raise NotImplementedError


class TinyViT(VisionTower):
    """Vision transformer; `forward` returns the CLS token first, then the patches row by row."""

    config: VisionConfig
    positions: Tensor

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_projection = nn.Linear(config.num_channels * config.patch_size**2, config.embed_dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.embed_dim))
        self.register_buffer("positions", grid_positions(config.grid_size, config.embed_dim), persistent=False)
        self.blocks = nn.ModuleList(
            Block(config.embed_dim, config.num_heads, config.mlp_ratio) for _ in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(config.embed_dim)

    def patchify(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n p"]:
        """Cut images into flattened patches, row by row."""
        size = self.config.patch_size
        patches = images.unfold(2, size, size).unfold(3, size, size)  # (b, c, rows, columns, size, size)
        return patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)

    def embed(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b t d"]:
        """Tokens as they enter the first block: projected patches plus positions, CLS in front."""
        patches = self.patch_projection(self.patchify(2 * images - 1)) + self.positions
        return torch.cat([self.cls_token.expand(len(images), -1, -1), patches], dim=1)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b t d"]:
        """Encode float images in [0, 1]; `t` is `config.num_tokens`."""
        x = self.embed(images)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


def to_image_batch(
    images: ImageLike | Sequence[ImageLike], config: VisionConfig | PretrainedConfig
) -> tuple[Float[Tensor, "b c h w"], bool]:
    """Check images of any accepted form and bring them to float `(b, c, h, w)` in [0, 1].

    Returns:
        The batch, and whether a single image was given.

    Raises:
        InputError: wrong type, shape, dtype or range, or NaN; the message says what is allowed.
    """
    if isinstance(images, Sequence):
        if not images:
            raise InputError("the list of images is empty")
        return torch.stack([_to_chw(image, config) for image in images]), False
    if isinstance(images, np.ndarray | Tensor) and images.ndim == 4:
        if not len(images):
            raise InputError("the batch of images is empty")
        return torch.stack([_to_chw(image, config) for image in images]), False
    return _to_chw(images, config)[None], True


def _to_chw(image: ImageLike, config: VisionConfig | PretrainedConfig) -> Float[Tensor, "c h w"]:
    channels, size = config.num_channels, config.image_size
    if not isinstance(image, Tensor):
        bands = image.getbands() if hasattr(image, "getbands") else None  # only PIL images have bands
        if bands and len(bands) != channels:
            raise InputError(f"the image's bands are {''.join(bands)!r}; convert it first: image.convert('RGB')")
        if not bands and not isinstance(image, np.ndarray):
            raise InputError(f"cannot see a {type(image).__name__}; give a PIL image, a NumPy array or a torch tensor")
        image = torch.from_numpy(np.array(image))
    orders: dict[tuple[int, ...], tuple[int, ...]]
    orders = {(size, size, channels): (2, 0, 1), (channels, size, size): (0, 1, 2)}
    if tuple(image.shape) not in orders:
        raise InputError(
            f"the image has shape {tuple(image.shape)}; it must be ({size}, {size}, {channels}) or "
            f"({channels}, {size}, {size})"
        )
    image = image.permute(orders[tuple(image.shape)])
    if image.dtype == torch.uint8:
        return image.float() / 255
    if not image.is_floating_point():
        raise InputError(f"the image has dtype {image.dtype}; it must be uint8, or float in [0, 1]")
    if not torch.isfinite(image).all():
        raise InputError("the image holds NaN or infinite values")
    if image.min() < 0 or image.max() > 1:
        raise InputError(
            f"the image's values run from {image.min():.3g} to {image.max():.3g}; floats must lie in [0, 1] "
            "(uint8 images run from 0 to 255)"
        )
    return image.float()
