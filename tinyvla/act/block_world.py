"""A world larger than the view: the camera moves over it until it stops on the block that it was told to find.

Notable:
- the camera is the agent. The policy sees the 64 x 64 pixels around it and answers how to move it; the blocks stay;
- an episode begins as a BlockFind scene, so the first view is one of the training distribution, on the grid of cells;
  after the first move the blocks lie anywhere;
- all episodes are stepped and painted at once with NumPy, so one forward pass of a policy serves them all;
- the camera's place is a float and is rounded to whole pixels for painting only. What is below a pixel cannot be seen,
  which is why `tolerance` is well above it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt8
from PIL import Image, ImageDraw

from tinyvla.config import InputError
from tinyvla.data.blockfind import BACKGROUND, CELL_SIZE, COLORS, IMAGE_SIZE, PALETTE, BlockFind, cell_centers, instruction_for

WORLD_SIZE = 128
"""Side of the square world, in pixels; the first view lies in its middle."""


@dataclass(frozen=True)
class WorldConfig:
    """The rules of an episode."""

    step_size: float = 4.0
    """Pixels that an action of length 1 moves the camera."""
    tolerance: float = 2.0
    """Largest distance, in pixels, from the camera to the target's centre that counts as centred. Rounding for painting
    hides up to 0.71 pixels (0.5 each way), so this leaves the policy an error of more than one."""
    stop_norm: float = 0.25
    """An action shorter than this counts as stopping; it moves the camera by less than a pixel."""
    max_steps: int = 40
    """Steps until an episode is cut off; the expert needs at most 11."""

    def __post_init__(self) -> None:
        for name in ("step_size", "tolerance", "stop_norm", "max_steps"):
            if not getattr(self, name) > 0:
                raise InputError(f"WorldConfig.{name} is {getattr(self, name)}; it must be positive")


def expert_action(offset: Float[np.ndarray, "*n 2"], step_size: float) -> Float[np.ndarray, "*n 2"]:
    """The scripted expert: straight to the target at full speed, and exactly onto it when one step is enough.

    Args:
        offset: pixels (x, y) from the camera to the target's centre.
        step_size: pixels that an action of length 1 moves the camera.

    Returns:
        An action of length 1, or shorter near the target, down to 0 on it.
    """
    distance = np.linalg.norm(offset, axis=-1, keepdims=True)
    return offset / np.maximum(distance, step_size)


def expert_chunk(offset: Float[np.ndarray, "*n 2"], step_size: float, horizon: int) -> Float[np.ndarray, "*n h 2"]:
    """The expert's next `horizon` actions, planned without looking again; zeros once it has arrived.

    Args:
        offset: pixels (x, y) from the camera to the target's centre.
        step_size: pixels that an action of length 1 moves the camera.
        horizon: actions to plan.
    """
    chunk = []
    for _ in range(horizon):
        chunk.append(expert_action(offset, step_size))
        offset = offset - step_size * chunk[-1]
    return np.stack(chunk, axis=-2)


def random_action(rng: np.random.RandomState, num: int) -> Float[np.ndarray, "num 2"]:
    """Actions drawn evenly from all that there are, [-1, 1]^2."""
    return rng.uniform(-1, 1, size=(num, 2))


def episode_seeds(num_episodes: int, seed: int) -> list[int]:
    """Seeds of `num_episodes` episodes. Those of two different seeds never overlap, so training and test stay apart.

    Raises:
        InputError: `num_episodes` is not in 1 ... 100,000 or `seed` not in 0 ... 42,948.
    """
    block = 100_000
    if not 1 <= num_episodes <= block:
        raise InputError(f"the number of episodes is {num_episodes}; it must lie between 1 and {block:,}")
    if not 0 <= seed < 2**32 // block:
        raise InputError(f"the episodes' seed is {seed}; it must lie between 0 and {2**32 // block - 1:,}")
    return [seed * block + i for i in range(num_episodes)]


class BatchedWorld:
    """Many episodes side by side. `views` and `step` are about those that are still running, in order.

    Attributes:
        seeds: one per episode; `BlockFind(1, seed)` is its scene.
        config: the rules.
        instructions: one sentence per episode.
        centers: float64 `(n, b, 2)`, the blocks' centres in pixels of the world; slot 0 is the target.
        colors: int64 `(n, b)`, indices into `COLORS`, -1 where a scene has fewer blocks.
        camera: float64 `(n, 2)`, the view's centre (x, y) in pixels of the world.
        steps: int64 `(n,)`, steps done.
        path_lengths: float64 `(n,)`, pixels travelled.
        terminated: bool `(n,)`, the camera has stopped on the named block.
        truncated: bool `(n,)`, the steps are used up without success.
    """

    def __init__(self, seeds: Sequence[int], config: WorldConfig | None = None) -> None:
        if not len(seeds):
            raise InputError("there are no seeds; give at least one")
        if not all(0 <= seed < 2**32 for seed in seeds):
            raise InputError("an episode's seed must lie between 0 and 2**32 - 1")
        self.config = config or WorldConfig()
        self.seeds = [int(seed) for seed in seeds]
        scenes = [BlockFind(1, seed) for seed in self.seeds]
        self.colors: Int64[np.ndarray, "n b"] = np.concatenate([scene.colors for scene in scenes])
        cells = np.concatenate([scene.cells for scene in scenes])
        self.centers = cell_centers(cells).astype(np.float64) + (WORLD_SIZE - IMAGE_SIZE) / 2
        self.instructions = [instruction_for(COLORS[color]) for color in self.colors[:, 0]]
        n = len(self.seeds)
        self.camera = np.full((n, 2), WORLD_SIZE / 2)
        self.steps = np.zeros(n, np.int64)
        self.path_lengths = np.zeros(n)
        self.terminated, self.truncated = np.zeros(n, bool), np.zeros(n, bool)

    def __len__(self) -> int:
        return len(self.seeds)

    @property
    def running(self) -> Int64[np.ndarray, "r"]:
        """Indices of the episodes that go on."""
        return np.flatnonzero(~(self.terminated | self.truncated))

    @property
    def offsets(self) -> Float[np.ndarray, "n 2"]:
        """Pixels (x, y) from each camera to its target's centre: what the expert knows and a policy has to see."""
        return self.centers[:, 0] - self.camera

    @property
    def distances(self) -> Float[np.ndarray, "n"]:
        """Pixels from each camera to its target's centre."""
        return np.linalg.norm(self.offsets, axis=1)

    @property
    def centered_colors(self) -> list[str | None]:
        """The colour of the block whose centre lies within the tolerance of each camera, if there is one."""
        distances = np.linalg.norm(self.centers - self.camera[:, None], axis=2)
        distances[self.colors < 0] = np.inf
        nearest = distances.argmin(axis=1)
        rows = np.arange(len(self))
        hit = distances[rows, nearest] <= self.config.tolerance
        return [COLORS[c] if h else None for c, h in zip(self.colors[rows, nearest], hit, strict=True)]

    def views(self, episodes: Int64[np.ndarray, "r"] | None = None) -> UInt8[np.ndarray, "r 3 64 64"]:
        """What the cameras of the running episodes see, or of those with the given indices."""
        index = self.running if episodes is None else episodes
        corner = np.floor(self.camera[index] + 0.5) - IMAGE_SIZE / 2
        return paint(self.centers[index] - corner[:, None], self.colors[index])

    def step(self, actions: Float[np.ndarray, "r 2"]) -> None:
        """Move the cameras of the running episodes, one action (x right, y down) each.

        Components beyond [-1, 1] are cut off there, and the view never leaves the world. An episode terminates when the
        camera is centred on the target after a move whose action was shorter than `stop_norm`.

        Raises:
            InputError: there is not one action per running episode, or one is NaN or infinite.
        """
        index = self.running
        if actions.shape != (len(index), 2):
            raise InputError(f"actions have shape {actions.shape}; {len(index)} running episodes need {len(index), 2}")
        if not np.isfinite(actions).all():
            raise InputError("an action is NaN or infinite")
        actions = np.clip(actions.astype(np.float64), -1, 1)
        before = self.camera[index]
        margin = IMAGE_SIZE / 2
        after = np.clip(before + self.config.step_size * actions, margin, WORLD_SIZE - margin)
        self.camera[index] = after
        self.path_lengths[index] += np.linalg.norm(after - before, axis=1)
        self.steps[index] += 1
        is_stopped = np.linalg.norm(actions, axis=1) < self.config.stop_norm
        self.terminated[index] = is_stopped & (self.distances[index] <= self.config.tolerance)
        self.truncated[index] = ~self.terminated[index] & (self.steps[index] >= self.config.max_steps)


def paint(
    centers: Float[np.ndarray, "n b 2"], colors: Int64[np.ndarray, "n b"], palette: Sequence[tuple[int, ...]] = ()
) -> UInt8[np.ndarray, "n 3 64 64"]:
    """Views with blocks at any whole pixel; what lies outside the view is cut off.

    Args:
        centers: the blocks' centres (x, y) in pixels from the view's top-left corner.
        colors: indices into the palette; -1 is no block.
        palette: `PALETTE`'s colours unless told.
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
