"""A table with three blocks and an arm that is told to reach or to pick up one of them.

Notable:
- many episodes side by side with one model, as in `tinyvla.act.block_world`, so one forward pass of a policy serves them all;
- an action moves the tip *relative to where it is*: no hidden target that the image does not show;
- two cameras, one image: seen from above on top (x and y), from the front below (y and height, opening). What the task
  needs can be seen; the joints' angles are not told to a policy;
- a scene follows from its seed alone; the same seed gives the same scene to both tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt8

from tinyvla.act.arm.control import (
    HOME,
    NUM_JOINTS,
    inverse_kinematics,
    load_model,
    load_mujoco,
    load_renderer,
    rotation_matrix,
    rotation_vector,
    tip_pose,
)
from tinyvla.act.arm.expert import BLOCK_SIZE, HOVER, MAX_OPENING, STEP_METRES, STEP_RADIANS, TASKS, ArmState
from tinyvla.config import InputError
from tinyvla.data.blockfind import COLORS, PALETTE, draw_distinct

NUM_BLOCKS = 3
CAMERAS = ("above", "front")
TABLE = np.array([[0.31, -0.17], [0.49, 0.17]])
"""Where blocks may stand: lowest and highest (x, y) of their centres, in metres."""
AIR = np.array([[0.31, -0.17, 0.12], [0.49, 0.17, 0.2]])
"""Where the tip begins, in metres."""
LIMITS = np.array([[0.25, -0.26, 0.018], [0.55, 0.26, 0.3]])
"""Where the tip may be sent, in metres; the lowest keeps the fingers off the table."""
APART = 0.11
"""Least distance between two blocks' centres, in metres: an open gripper fits between them."""


def arm_instruction(task: str, color: str) -> str:
    """The sentence for a task: "reach the red block" or "pick up the red block"."""
    return f"{'pick up' if task == 'pick' else 'reach'} the {color} block"


@dataclass(frozen=True)
class ArmConfig:
    """The rules of an episode."""

    image_size: int = 64
    """Side of the square image, in pixels; each of the two views is half as high."""
    max_steps: int = 40
    """Control steps until an episode is cut off; the expert needs about 8 to reach and 14 to pick up."""
    tolerance: float = 0.03
    """Reach: largest distance, in metres, of the tip from the point over the named block."""
    still: float = 0.01
    """Reach: largest distance, in metres, that the tip moved in the last step; farther is not stopped."""
    lift: float = 0.05
    """Pick: height, in metres, by which the named block must have left the table."""
    substeps: int = 20
    """Steps of 5 ms of the simulator in one control step."""

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if not getattr(self, name) > 0:
                raise InputError(f"ArmConfig.{name} is {getattr(self, name)}; it must be positive")
        if self.image_size % 2:
            raise InputError(f"ArmConfig.image_size is {self.image_size}; it must be even, as two views share it")


def _draw_places(rng: np.random.RandomState) -> Float[np.ndarray, "b 2"]:
    """Places of the blocks, drawn again until they are far enough apart."""
    while True:
        places = rng.uniform(TABLE[0], TABLE[1], size=(NUM_BLOCKS, 2))
        distances = np.linalg.norm(places[:, None] - places, axis=-1)[np.triu_indices(NUM_BLOCKS, 1)]
        if distances.min() >= APART:
            return places


class ArmWorld:
    """Many episodes side by side. `views` and `step` are about those that are still running, in order.

    Args:
        seeds: one per episode; it decides blocks, colours and where the arm begins.
        task: "reach" or "pick" for all episodes, or one per episode.
        config: the rules.
        named: which of the three blocks the instruction names; 1 or 2 is the same scene with another block named.

    Attributes:
        instructions: one sentence per episode.
        colors: int64 `(n, 3)`, indices into `COLORS`.
        steps: int64 `(n,)`, control steps done.
        terminated: bool `(n,)`, the task is done.
        truncated: bool `(n,)`, the steps are used up without success.

    Raises:
        InputError: MuJoCo is missing, or a seed, a task or a block is not usable.
    """

    def __init__(
        self, seeds: Sequence[int], task: str | Sequence[str] = "reach", config: ArmConfig | None = None, named: int = 0
    ) -> None:
        if not len(seeds) or not all(0 <= seed < 2**32 for seed in seeds):
            raise InputError("give at least one seed; an episode's seed must lie between 0 and 2**32 - 1")
        self.tasks = [task] * len(seeds) if isinstance(task, str) else list(task)
        if unknown := sorted(set(self.tasks) - set(TASKS)):
            raise InputError(f"unknown task {unknown[0]!r}; choose from {', '.join(TASKS)}")
        if len(self.tasks) != len(seeds):
            raise InputError(f"{len(seeds)} seeds but {len(self.tasks)} tasks; give one task, or one per seed")
        if not 0 <= named < NUM_BLOCKS:
            raise InputError(f"named is {named}; the blocks are 0 to {NUM_BLOCKS - 1}")
        self.config, self.named = config or ArmConfig(), named
        self.seeds = [int(seed) for seed in seeds]
        self._mujoco, self._model = load_mujoco(), load_model()
        self._scratch = self._mujoco.MjData(self._model)
        self._block_bodies = [self._model.body(f"block{i}").id for i in range(NUM_BLOCKS)]
        self._block_geoms = [self._model.geom(f"block{i}").id for i in range(NUM_BLOCKS)]
        self.colors: Int64[np.ndarray, "n 3"] = np.zeros((len(seeds), NUM_BLOCKS), np.int64)
        self._data = [self._begin(i, seed) for i, seed in enumerate(self.seeds)]
        names = [COLORS[row[named]] for row in self.colors]
        self.instructions = [arm_instruction(t, color) for t, color in zip(self.tasks, names, strict=True)]
        n = len(self.seeds)
        self.steps = np.zeros(n, np.int64)
        self.terminated, self.truncated = np.zeros(n, bool), np.zeros(n, bool)

    def _begin(self, index: int, seed: int) -> Any:
        """The scene of a seed: blocks on the table, the hand in the air, a little turned and tilted, and open."""
        rng = np.random.RandomState(seed)
        places = _draw_places(rng)
        turns = rng.uniform(-0.3, 0.3, NUM_BLOCKS)
        self.colors[index] = draw_distinct(rng, 1, len(COLORS), NUM_BLOCKS)[0]
        place = rng.uniform(AIR[0], AIR[1])
        rotation = rotation_matrix(rng.uniform(-1, 1, 3) * [0.15, 0.15, 0.5])
        data = self._mujoco.MjData(self._model)
        angles = inverse_kinematics(self._model, self._scratch, HOME, place, rotation, iterations=100)
        data.qpos[:NUM_JOINTS] = data.ctrl[:NUM_JOINTS] = angles
        data.qpos[NUM_JOINTS : NUM_JOINTS + 2] = data.ctrl[NUM_JOINTS:] = MAX_OPENING / 2
        for block, (x, y), turn in zip(range(NUM_BLOCKS), places, turns, strict=True):
            start = NUM_JOINTS + 2 + 7 * block
            data.qpos[start : start + 7] = [x, y, BLOCK_SIZE / 2, np.cos(turn / 2), 0, 0, np.sin(turn / 2)]
        self._mujoco.mj_forward(self._model, data)
        return data

    def __len__(self) -> int:
        return len(self.seeds)

    @property
    def running(self) -> Int64[np.ndarray, "r"]:
        """Indices of the episodes that go on."""
        return np.flatnonzero(~(self.terminated | self.truncated))

    @property
    def tips(self) -> Float[np.ndarray, "n 3"]:
        """Places of the point between the fingertips, in metres."""
        return np.stack([tip_pose(self._model, data)[0] for data in self._data])

    @property
    def blocks(self) -> Float[np.ndarray, "n 3 3"]:
        """Centres (x, y, z) of each episode's three blocks, in metres."""
        return np.stack([data.xpos[self._block_bodies] for data in self._data])

    def state(self, episodes: Int64[np.ndarray, "r"] | None = None) -> ArmState:
        """What the expert may know of the running episodes, or of those with the given indices; a policy has to see."""
        index = self.running if episodes is None else episodes
        poses = [tip_pose(self._model, self._data[i]) for i in index]
        return ArmState(
            offsets=np.stack([self._data[i].xpos[self._block_bodies[self.named]] for i in index])
            - np.stack([place for place, _ in poses]),
            tilts=np.stack([rotation_vector(rotation.T.copy()) for _, rotation in poses]),
            openings=np.array([self._data[i].qpos[NUM_JOINTS : NUM_JOINTS + 2].sum() for i in index]),
            picking=np.array([self.tasks[i] == "pick" for i in index]),
        )

    @property
    def distances(self) -> Float[np.ndarray, "n b"]:
        """Metres from each tip to the point over each block that "reach" asks for."""
        goals = self.blocks + np.array([0.0, 0.0, HOVER])
        return np.linalg.norm(goals - self.tips[:, None], axis=2)

    @property
    def nearest(self) -> Int64[np.ndarray, "n"]:
        """Which block each tip is nearest to, seen from above."""
        return np.linalg.norm((self.blocks - self.tips[:, None])[..., :2], axis=2).argmin(axis=1)

    def views(self, episodes: Int64[np.ndarray, "r"] | None = None, size: int = 0) -> UInt8[np.ndarray, "r 3 h w"]:
        """Both cameras of the running episodes, or of those with the given indices, above on top of front.

        Args:
            episodes: indices; the running ones unless told.
            size: side of the square image in pixels; the rules' unless told.
        """
        index = self.running if episodes is None else episodes
        size = size or self.config.image_size
        renderer = load_renderer(size // 2, size)
        return np.stack([self._view(int(i), renderer) for i in index])

    def _view(self, episode: int, renderer: Any) -> UInt8[np.ndarray, "3 h w"]:
        paint = np.array(list(PALETTE.values()))[self.colors[episode]] / 255
        self._model.geom_rgba[self._block_geoms, :3] = paint
        pictures = []
        for camera in CAMERAS:
            renderer.update_scene(self._data[episode], camera)
            pictures.append(renderer.render())
        return np.concatenate(pictures).transpose(2, 0, 1)

    def step(self, actions: Float[np.ndarray, "r 7"]) -> None:
        """Move the arms of the running episodes, one action each: x, y, z, roll, pitch, yaw, gripper.

        An action of 1 moves the tip by 3 cm along the table's axes, or turns the hand by 0.15 radians about them; the
        gripper opens where the last number is positive and closes elsewhere. Numbers beyond [-1, 1] are cut off there.

        Raises:
            InputError: there is not one action per running episode, or one is NaN or infinite.
        """
        index = self.running
        if actions.shape != (len(index), 7):
            raise InputError(f"actions have shape {actions.shape}; {len(index)} running episodes need {len(index), 7}")
        if not np.isfinite(actions).all():
            raise InputError("an action is NaN or infinite")
        before = self.tips
        for i, action in zip(index, np.clip(actions.astype(np.float64), -1, 1), strict=True):
            self._move(self._data[i], action)
        moved = np.linalg.norm(self.tips - before, axis=1)
        self.steps[index] += 1
        self.terminated[index] = self._succeeded(moved)[index]
        self.truncated[index] = ~self.terminated[index] & (self.steps[index] >= self.config.max_steps)

    def _move(self, data: Any, action: Float[np.ndarray, "7"]) -> None:
        """Send the tip to a place relative to where it is and simulate one control step."""
        place, rotation = tip_pose(self._model, data)
        place = np.clip(place + STEP_METRES * action[:3], *LIMITS)
        rotation = rotation_matrix(STEP_RADIANS * action[3:6]) @ rotation
        qpos, ctrl = data.qpos, data.ctrl
        ctrl[:NUM_JOINTS] = inverse_kinematics(self._model, self._scratch, qpos[:NUM_JOINTS], place, rotation)
        ctrl[NUM_JOINTS:] = MAX_OPENING / 2 if action[6] > 0 else 0.0
        self._mujoco.mj_step(self._model, data, self.config.substeps)
        self._mujoco.mj_forward(self._model, data)

    def _succeeded(self, moved: Float[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
        picking = np.array([task == "pick" for task in self.tasks])
        lifted = self.blocks[:, self.named, 2] - BLOCK_SIZE / 2 >= self.config.lift
        reached = (self.distances[:, self.named] <= self.config.tolerance) & (moved <= self.config.still)
        return np.where(picking, lifted, reached)
