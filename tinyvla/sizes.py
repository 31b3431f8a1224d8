"""Checks of sizes that several parts of a configuration share: images, patches, attention heads."""

from __future__ import annotations

from typing import Any

from tinyvla.fields import MAX_SIDE, check, shown


def height_and_width(image_size: int | tuple[int, int]) -> tuple[int, int]:
    """Returns both, where one number stands for both."""
    return (image_size, image_size) if isinstance(image_size, int) else image_size


def check_image_size(config: Any) -> None:
    """Refuse a configuration's image size that is not one or two whole numbers of pixels."""
    check_sides(f"{type(config).__name__}.image_size", config.image_size)


def check_sides(name: str, size: Any) -> None:
    """Refuse what is not one or two whole numbers of pixels."""
    sides = size if isinstance(size, tuple) else (size, size)
    check(
        len(sides) == 2 and all(type(side) is int and 1 <= side <= MAX_SIDE for side in sides),
        f"{name} is {shown(size)}; it must be pixels, from 1 to {MAX_SIDE}: one number, or height and width",
    )


def nearest(side: int, patch_size: int) -> str:
    """The sizes next to `side` that the patch divides, in words."""
    below, above = side // patch_size * patch_size, -(-side // patch_size) * patch_size
    return f"{below} or {above}" if below else f"{above}"


def check_heads(config: Any) -> None:
    """Refuse a width that the attention heads cannot share."""
    check(
        config.embed_dim % config.num_heads == 0,
        f"{type(config).__name__}: embed_dim {config.embed_dim} is not divisible by num_heads "
        f"{config.num_heads}; choose num_heads among the divisors of {config.embed_dim}",
    )
