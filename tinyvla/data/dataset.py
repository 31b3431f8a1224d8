"""BlockFind: scenes of coloured blocks, an instruction that names one, and the arrow that points to it.

Notable:
- the whole split is drawn at once with NumPy: 10,000 scenes take a fraction of a second;
- the label is the unit vector from the image's centre to the block's *centre*; aiming at the cell's corner would turn
  arrows by up to 45 degrees;
- draws come from `numpy.random.RandomState`, whose stream NumPy guarantees never to change, so a seed gives the same
  bytes on every platform.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64, UInt8

from tinyvla.errors import InputError
from tinyvla.fields import Many, Seed, Within, check, checked, taking
from tinyvla.room import check_room_for

IMAGE_SIZE = 64
CELL_SIZE = 8
GRID_SIZE = IMAGE_SIZE // CELL_SIZE
NUM_CELLS = GRID_SIZE**2
MIN_BLOCKS, MAX_BLOCKS = 3, 4
Horizon = Annotated[int, Within(1, 1_024)]
SCENE_BYTES = 9 * IMAGE_SIZE**2
"""That a scene takes: its image, which is copied twice before a policy sees it."""

PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (214, 39, 40),
    "green": (44, 160, 44),
    "blue": (31, 90, 220),
    "yellow": (250, 215, 30),
    "purple": (150, 60, 200),
    "orange": (255, 127, 14),
}
COLORS: tuple[str, ...] = tuple(PALETTE)
BACKGROUND = (245, 245, 245)

NEW_PALETTE: dict[str, tuple[int, int, int]] = {
    "cyan": (23, 190, 207),
    "magenta": (225, 0, 150),
    "pink": (250, 170, 195),
    "brown": (120, 75, 45),
    "black": (25, 25, 25),
    "gray": (135, 135, 135),
}
NEW_WORDINGS = ("go to the {} square", "move toward the {} one", "head for the {} box")


def instruction_for(color: str, article: str = "the") -> str:
    """The sentence that names a block, "find the {color} block"."""
    return f"find {article} {color} block"


def cell_centers(cells: Int64[np.ndarray, "*n"]) -> Float32[np.ndarray, "*n 2"]:
    """Centres (x, y) in pixels of grid cells numbered row by row; -1 (no block) gives a meaningless value."""
    rows, columns = np.divmod(cells, GRID_SIZE)
    return ((np.stack([columns, rows], axis=-1) + 0.5) * CELL_SIZE).astype(np.float32)


def directions(cells: Int64[np.ndarray, "*n"]) -> Float32[np.ndarray, "*n 2"]:
    """Unit vectors (dx, dy), x right and y down, from the image's centre to the cells' centres."""
    offset = cell_centers(cells).astype(np.float64) - IMAGE_SIZE / 2
    return (offset / np.linalg.norm(offset, axis=-1, keepdims=True)).astype(np.float32)


def render(
    cells: Int64[np.ndarray, "n b"],
    colors: Int64[np.ndarray, "n b"],
    palette: tuple[tuple[int, int, int], ...] = tuple(PALETTE.values()),
) -> UInt8[np.ndarray, "n 3 64 64"]:
    """Paint each scene's blocks, one whole cell each; entries with cell -1 are skipped."""
    images = np.empty((len(cells), 3, IMAGE_SIZE, IMAGE_SIZE), dtype=np.uint8)
    images[:] = np.asarray(BACKGROUND, dtype=np.uint8)[:, None, None]
    tiles = images.reshape(-1, 3, GRID_SIZE, CELL_SIZE, GRID_SIZE, CELL_SIZE)  # a view: row, y in cell, column, x
    scene, slot = np.nonzero(cells >= 0)
    row, column = np.divmod(cells[scene, slot], GRID_SIZE)
    paint = np.asarray(palette, dtype=np.uint8)[colors[scene, slot]]
    tiles[scene, :, row, :, column, :] = paint[:, :, None, None]
    return images


def draw_distinct(rng: np.random.RandomState, num_samples: int, num_items: int, k: int) -> Int64[np.ndarray, "n k"]:
    """Per row, `k` different numbers below `num_items`, in random order (the first steps of a Fisher-Yates shuffle)."""
    items = np.tile(np.arange(num_items), (num_samples, 1))
    rows = np.arange(num_samples)
    for i in range(k):
        j = i + (rng.random_sample(num_samples) * (num_items - i)).astype(np.int64)
        items[rows, i], items[rows, j] = items[rows, j], items[rows, i]
    return items[:, :k]


@dataclass(frozen=True)
class Sample:
    """One scene: what the policy sees, is told, and should answer."""

    image: UInt8[np.ndarray, "3 64 64"]
    instruction: str
    action: Float32[np.ndarray, "2"]
    colors: tuple[str, ...]
    """Colours of the blocks in the scene; the first is the target's."""


class BlockFind:
    """A split of the task, drawn from one seed. Indexing gives a `Sample`.

    Attributes:
        images: uint8 `(n, 3, 64, 64)`.
        actions: float32 `(n, 2)`, unit vectors (dx, dy) from the image's centre to the target's centre.
        cells: int64 `(n, b)`, the blocks' grid cells, numbered row by row; -1 where a scene has fewer blocks.
        colors: int64 `(n, b)`, the blocks' colours as indices into `COLORS`; -1 likewise. Slot 0 is the target.
    """

    article = "the"
    """In the instruction; "any" where the sentence fits more than one block."""
    palette = PALETTE
    """Names and values of the colours that blocks can have."""

    @checked
    def __init__(self, num_samples: Many, seed: Seed) -> None:
        check_room_for(num_samples, SCENE_BYTES, "scenes")
        rng = np.random.RandomState(seed)
        cells = draw_distinct(rng, num_samples, NUM_CELLS, MAX_BLOCKS)
        colors = draw_distinct(rng, num_samples, len(COLORS), MAX_BLOCKS)
        counts = MIN_BLOCKS + (rng.random_sample(num_samples) * (MAX_BLOCKS - MIN_BLOCKS + 1)).astype(np.int64)
        absent = np.arange(MAX_BLOCKS) >= counts[:, None]
        # Cells and colours are in random order, so taking slot 0 as the target is a uniform choice.
        self._set_blocks(np.where(absent, -1, cells), np.where(absent, -1, colors))

    @classmethod
    @checked
    def from_blocks(cls, cells: Int64[np.ndarray, "n b"], colors: Int64[np.ndarray, "n b"]) -> BlockFind:
        """Scenes of your own: blocks' cells and colours, -1 for none, the target in slot 0."""
        split = cls.__new__(cls)
        split._set_blocks(cells, colors)
        return split

    @classmethod
    def ambiguous(cls, num_samples: int, seed: int) -> BlockFind:
        """Two blocks of the named colour, in slots 0 and 1: "find any red block". The label is one, by chance."""
        plain = cls(num_samples, seed)
        colors = plain.colors.copy()
        colors[:, 1] = colors[:, 0]
        split = cls.from_blocks(plain.cells, colors)
        split.article = "any"
        return split

    def _set_blocks(self, cells: Int64[np.ndarray, "n b"], colors: Int64[np.ndarray, "n b"]) -> None:
        is_known = (cells < NUM_CELLS) & (colors < len(self.palette)) & ((cells < 0) | (colors >= 0))
        check(
            bool(is_known.all() and (cells[:, :1] >= 0).all()),
            f"cells must be below {NUM_CELLS} and colours below {len(self.palette)}, -1 for none, never in slot 0",
        )
        self.cells = cells
        self.colors = colors
        self.images = render(cells, colors, tuple(self.palette.values()))
        self.actions = directions(cells[:, 0])

    @property
    def instructions(self) -> list[str]:
        """One sentence per scene."""
        names = tuple(self.palette)
        return [self._instruction(index, names[color]) for index, color in enumerate(self.colors[:, 0])]

    def _instruction(self, index: int, color: str) -> str:
        """The sentence of the scene with that number."""
        return instruction_for(color, self.article)

    @checked
    def retargeted(self, slot: Annotated[int, Within(0, MAX_BLOCKS - 1)] = 1) -> BlockFind:
        """The same images with the instruction naming another present block, the one in `slot` (1 or 2)."""
        order = [slot, *(s for s in range(self.cells.shape[1]) if s != slot)]
        return type(self).from_blocks(self.cells[:, order], self.colors[:, order])

    def rows(self, index: Bool[np.ndarray, "n"] | Int64[np.ndarray, "k"]) -> BlockFind:
        """Returns the scenes at an index, or where a mask is True, as a split of their own."""
        with taking(index, len(self)):
            split = type(self).from_blocks(self.cells[index], self.colors[index])
        split.article = self.article
        return split

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, index: int) -> Sample:
        present, names = self.colors[index][self.colors[index] >= 0], tuple(self.palette)
        names = tuple(names[c] for c in present)
        return Sample(self.images[index], self._instruction(index, names[0]), self.actions[index], names)


class ChangedFind(BlockFind):
    """The changed task: the same scenes in six new colours, asked for in three new wordings that take turns."""

    palette = NEW_PALETTE

    def _instruction(self, index: int, color: str) -> str:
        return NEW_WORDINGS[index % len(NEW_WORDINGS)].format(color)


@checked
def trajectories(split: BlockFind, horizon: Horizon, seed: Seed) -> Float32[np.ndarray, "n h 2"]:
    """Chunks of steps, in pixels, from the image's centre to the target's: an arc, gently begun and ended, a pause.

    The arc bulges to the left or to the right and the pause lies anywhere, both by chance, so that many chunks are
    right for one scene. The steps of a chunk sum to the whole way.

    Raises:
        InputError: the horizon is too short for a pause.
    """
    if horizon < 4:
        raise InputError(f"horizon is {horizon}; a trajectory with a pause needs at least 4 steps")
    rng = np.random.RandomState(seed)
    begins = rng.randint(1, horizon - horizon // 4, size=len(split))
    sides = rng.choice([-1.0, 1.0], size=len(split))
    return _arcs(split, horizon, begins, sides)


@checked
def valid_trajectories(split: BlockFind, horizon: Horizon) -> Float32[np.ndarray, "n v h 2"]:
    """All chunks that `trajectories` may draw for each scene: every beginning of the pause, on either side."""
    ways = [(begin, side) for begin in range(1, horizon - horizon // 4) for side in (-1.0, 1.0)]
    count = len(split)
    return np.stack([_arcs(split, horizon, np.full(count, b), np.full(count, s)) for b, s in ways], axis=1)


def _arcs(
    split: BlockFind, horizon: int, begins: Int64[np.ndarray, "n"], sides: Float[np.ndarray, "n"]
) -> Float32[np.ndarray, "n h 2"]:
    """Steps along arcs that bulge to a side, with a pause from the given moments on."""
    way = cell_centers(split.cells[:, 0]).astype(np.float64) - IMAGE_SIZE / 2  # (n, 2)
    pause, begins = horizon // 4, begins[:, None]
    moment = np.arange(horizon + 1)
    moving = np.where(moment <= begins, moment, np.maximum(begins, moment - pause)) / (horizon - pause)  # (n, h + 1)
    progress = moving**2 * (3 - 2 * moving)
    bulge = 0.25 * sides[:, None] * np.sin(np.pi * progress)
    across = np.stack([-way[:, 1], way[:, 0]], axis=1)
    places = progress[..., None] * way[:, None] + bulge[..., None] * across[:, None]  # (n, h + 1, 2)
    return np.diff(places, axis=1).astype(np.float32)
