"""What chapter 1 needs for the floors of its harder task, "find the block nearest to the red block"."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32

from tinyvla.data.dataset import GRID_SIZE, BlockFind, directions


def nearest_arrows(split: BlockFind) -> tuple[Float32[np.ndarray, "n b 2"], Bool[np.ndarray, "n b"]]:
    """Returns, for each block that might be named, the arrow to the block nearest to it, and whether that is clear.

    It is not clear where two blocks are equally near, or where there is no block to name.
    """
    rows, columns = np.divmod(split.cells, GRID_SIZE)
    distance = (rows[:, :, None] - rows[:, None]) ** 2 + (columns[:, :, None] - columns[:, None]) ** 2  # (n, b, b)
    present, itself = split.cells >= 0, np.eye(split.cells.shape[1], dtype=bool)
    distance = np.where(present[:, None] & ~itself, distance, 2 * GRID_SIZE**2)  # farther than any block
    smallest = np.sort(distance, axis=2)
    arrows = directions(np.take_along_axis(split.cells, distance.argmin(axis=2), axis=1))
    return arrows, present & (smallest[..., 0] < smallest[..., 1])
