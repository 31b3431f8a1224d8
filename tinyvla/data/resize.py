"""Images at another size: the same for what a policy learns from and for what it is shown."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Shaped
from torch import Tensor


def resized(
    images: Shaped[Tensor, "n c h w"], size: tuple[int, int], kind: str = "stretch"
) -> Shaped[Tensor, "n c h2 w2"]:
    """Returns images, uint8 or float, at another height and width; those that have it already are returned as they are.

    Args:
        images: on the CPU.
        size: height and width in pixels.
        kind: "stretch" fills the size; "pad" keeps the proportions and fills the rest with black, evenly on both sides.
    """
    height, width = images.shape[-2:]
    if (height, width) == size:
        return images
    if kind == "stretch":
        return F.interpolate(images, size=size, mode="bilinear", antialias=True)
    scale = min(size[0] / height, size[1] / width)
    inner = (max(1, round(height * scale)), max(1, round(width * scale)))
    top, left = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    around = (left, size[1] - inner[1] - left, top, size[0] - inner[0] - top)
    return F.pad(F.interpolate(images, size=inner, mode="bilinear", antialias=True), around)
