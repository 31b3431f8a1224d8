"""The block world's pictures: what a camera sees, and the same enlarged, with arrows, for people."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt8
from PIL import Image, ImageDraw

from tinyvla.data.dataset import BACKGROUND, CELL_SIZE, IMAGE_SIZE, PALETTE


def paint(
    centers: Float[np.ndarray, "n b 2"], colors: Int64[np.ndarray, "n b"], palette: Sequence[tuple[int, ...]] = ()
) -> UInt8[np.ndarray, "n 3 64 64"]:
    """Views with blocks at any whole pixel; what lies outside the view is cut off.

    Args:
        centers: the blocks' centres (x, y) in pixels from the view's top-left corner.
        colors: indices into the palette; -1 is no block.
        palette: `PALETTE`'s colours by default.
    """
    images = np.empty((len(centers), 3, IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    images[:] = np.asarray(BACKGROUND, np.uint8)[:, None, None]
    scene, slot = np.nonzero(colors >= 0)
    axis = np.arange(CELL_SIZE) - CELL_SIZE // 2
    x, y = (centers[scene, slot].astype(np.int64)[:, :, None] + axis).transpose(1, 0, 2)
    row, column, block = np.broadcast_arrays(y[:, :, None], x[:, None, :], np.arange(len(scene))[:, None, None])
    seen: Bool[np.ndarray, "k 8 8"] = (row >= 0) & (row < IMAGE_SIZE) & (column >= 0) & (column < IMAGE_SIZE)
    block = block[seen]
    rgb = np.asarray(palette or tuple(PALETTE.values()), np.uint8)[colors[scene, slot][block]]
    images[scene[block], :, row[seen], column[seen]] = rgb
    return images


def draw_frame(
    image: UInt8[np.ndarray, "3 64 64"],
    offset: Float[np.ndarray, "2"],
    action: Float[np.ndarray, "2"] | None = None,
    scale: int = 5,
) -> UInt8[np.ndarray, "s s 3"]:
    """An enlarged view for people, with an arrow to the target (dark) and the action (magenta).

    Args:
        offset: pixels from the camera to the target.
        action: drawn 16 pixels long for a length of 1; nothing is drawn for None.
        scale: side of a pixel in the picture.
    """
    picture = Image.fromarray(image.transpose(1, 2, 0).repeat(scale, axis=0).repeat(scale, axis=1))
    draw = ImageDraw.Draw(picture)
    _arrow(draw, scale * offset, scale * IMAGE_SIZE, (34, 34, 34), scale // 2)
    if action is not None:
        _arrow(draw, scale * 16 * action, scale * IMAGE_SIZE, (194, 24, 91), scale)
    return np.asarray(picture)


def _arrow(draw: ImageDraw.ImageDraw, vector: np.ndarray, side: int, color: tuple[int, ...], width: int) -> None:
    """An arrow from the picture's centre; a dot where it has no length."""
    center = np.full(2, side / 2)
    length, tip, head = float(np.linalg.norm(vector)), center + vector, 3.0 * width
    draw.ellipse([*(center - width), *(center + width)], fill=color)
    if length <= head:
        return
    along = vector / length
    across = np.array([-along[1], along[0]])
    base = tip - head * along
    draw.line([*center, *base], fill=color, width=width)
    draw.polygon([tuple(p) for p in (tip, base + 0.6 * head * across, base - 0.6 * head * across)], fill=color)
