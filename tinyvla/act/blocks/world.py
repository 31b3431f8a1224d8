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

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from jaxtyping import Float, Int64, UInt8

from tinyvla.act.blocks.painting import draw_frame, paint
from tinyvla.act.result import Result
from tinyvla.act.world import Episodes, Seeds, checked_actions
from tinyvla.data.batch import CAMERA
from tinyvla.data.dataset import COLORS, IMAGE_SIZE, BlockFind, cell_centers, instruction_for
from tinyvla.fields import Within, check_fields, checked
from tinyvla.model.observation import IMAGE_KEY, TASK_KEY, Observation

WORLD_SIZE = 128
"""Side of the square world, in pixels; the first view lies in its middle."""


@dataclass(frozen=True)
class WorldConfig:
    """The rules of an episode."""

    step_size: Annotated[float, Within(0, WORLD_SIZE, above=True)] = 4.0
    """Pixels that an action of length 1 moves the camera."""
    tolerance: Annotated[float, Within(0, WORLD_SIZE, above=True)] = 2.0
    """Largest distance, in pixels, from the camera to the target's centre that counts as centred. Rounding for painting
    hides up to 0.71 pixels (0.5 each way), so this leaves the policy an error of more than one."""
    stop_norm: Annotated[float, Within(0, 2, above=True)] = 0.25
    """An action shorter than this counts as stopping; it moves the camera by less than a pixel."""
    max_steps: Annotated[int, Within(1, 10**6)] = 40
    """Steps until an episode is cut off; the expert needs at most 11."""

    def __post_init__(self) -> None:
        check_fields(self)


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


class BlockWorld(Episodes):
    """The block world: move each camera onto the block that its sentence names, and stop there.

    Args:
        seeds: one per episode; `BlockFind(1, seed)` is its scene.
        config: the rules.

    Attributes:
        config: the rules.
        instructions: one sentence per episode.
        centers: float64 `(n, b, 2)`, the blocks' centres in pixels of the world; slot 0 is the target.
        colors: int64 `(n, b)`, indices into `COLORS`, -1 where a scene has fewer blocks.
        camera: float64 `(n, 2)`, the view's centre (x, y) in pixels of the world.
        path_lengths: float64 `(n,)`, pixels travelled.
        reached: bool `(n,)`, whether the camera was centred on the target after some step.
        steps, succeeded, truncated: see `tinyvla.act.world.Episodes`.
    """

    action_dim = 2

    @checked
    def __init__(self, seeds: Seeds, config: WorldConfig | None = None) -> None:
        self.config = config or WorldConfig()
        super().__init__(seeds, self.config.max_steps)
        scenes = [BlockFind(1, seed) for seed in self.seeds]
        self.colors: Int64[np.ndarray, "n b"] = np.concatenate([scene.colors for scene in scenes])
        cells = np.concatenate([scene.cells for scene in scenes])
        self.centers = cell_centers(cells).astype(np.float64) + (WORLD_SIZE - IMAGE_SIZE) / 2
        self.instructions = [instruction_for(COLORS[color]) for color in self.colors[:, 0]]
        self.camera = np.full((len(self), 2), WORLD_SIZE / 2)
        self.path_lengths, self.reached = np.zeros(len(self)), np.zeros(len(self), bool)
        self._straight = self.distances

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
        row = np.arange(len(self))
        hit = distances[row, nearest] <= self.config.tolerance
        return [COLORS[c] if h else None for c, h in zip(self.colors[row, nearest], hit, strict=True)]

    def views(self, episodes: Int64[np.ndarray, "k"] | None = None) -> UInt8[np.ndarray, "k 3 64 64"]:
        """Returns what the cameras of some episodes see; of the running ones by default."""
        index = self.running if episodes is None else episodes
        corner = np.floor(self.camera[index] + 0.5) - IMAGE_SIZE / 2
        return paint(self.centers[index] - corner[:, None], self.colors[index])

    def observe(self, episodes: Int64[np.ndarray, "k"] | None = None) -> Observation:
        """Returns views and sentences of some episodes, under LeRobot's keys; of the running ones by default."""
        index = self.running if episodes is None else episodes
        return {IMAGE_KEY + CAMERA: self.views(index), TASK_KEY: [self.instructions[i] for i in index]}

    def expert_chunk(self, horizon: int) -> Float[np.ndarray, "r h 2"]:
        """Returns the expert's next actions in the running episodes, straight to the target."""
        return expert_chunk(self.offsets[self.running], self.config.step_size, horizon)

    def step(self, actions: Float[np.ndarray, "..."]) -> None:
        """Move the cameras of the running episodes, one action (x right, y down) each.

        Components beyond [-1, 1] are cut off there, and the view never leaves the world. An episode succeeds when the
        camera is centred on the target after a move whose action was shorter than `stop_norm`.

        Raises:
            InputError: there is not one action per running episode, or one is NaN or infinite.
        """
        index = self.running
        actions = checked_actions(actions, len(index), self.action_dim)
        before = self.camera[index]
        margin = IMAGE_SIZE / 2
        after = np.clip(before + self.config.step_size * actions, margin, WORLD_SIZE - margin)
        self.camera[index] = after
        self.path_lengths[index] += np.linalg.norm(after - before, axis=1)
        is_centered = self.distances[index] <= self.config.tolerance
        self.reached[index] |= is_centered
        self.end_step(index, is_centered & (np.linalg.norm(actions, axis=1) < self.config.stop_norm))

    def outcome(self) -> dict[str, np.ndarray]:
        """Returns how each episode went so far.

        - `reached`: was centred on the named block after some step, whether it stopped there or not;
        - `path_lengths`: pixels travelled; `expert_path_lengths`: what the expert would travel, the straight line;
        - `final_distances`: pixels to the named block;
        - `ended_on`: colour of the block that the camera is centred on, named or not, or None.
        """
        return {
            "reached": self.reached.copy(),
            "path_lengths": self.path_lengths.copy(),
            "expert_path_lengths": self._straight,
            "final_distances": self.distances,
            "ended_on": np.array(self.centered_colors, dtype=object),
        }

    @staticmethod
    def summary(result: Result) -> dict[str, float]:
        """Returns an outcome in a few numbers.

        - `reached` and `ended_on_another_block`: shares of the episodes;
        - `path_ratio`: mean of success * expert's path / max(own path, expert's path), 1 for the expert: SPL (Anderson
          et al. 2018, https://arxiv.org/abs/1807.06757);
        - `mean_final_distance`: pixels.
        """
        outcome = result.outcome
        straight = outcome["expert_path_lengths"]
        longer = np.maximum(outcome["path_lengths"], straight)
        ends = zip(outcome["ended_on"], result.instructions, strict=True)
        on_another = [color is not None and instruction_for(color) != text for color, text in ends]
        return {
            "reached": float(outcome["reached"].mean()),
            "ended_on_another_block": float(np.mean(on_another)),
            "path_ratio": float(np.mean(result.success * straight / longer)),
            "mean_final_distance": float(outcome["final_distances"].mean()),
        }

    def picture(self, episode: int, action: Float[np.ndarray, "2"] | None = None) -> UInt8[np.ndarray, "h w 3"]:
        """Returns an episode's view enlarged, with an arrow to the target (dark) and the action (magenta)."""
        return draw_frame(self.views(np.array([episode]))[0], self.offsets[episode], action)
