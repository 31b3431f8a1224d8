"""One episode's table in the simulator: three blocks, an arm, and two cameras.

Notable:
- a scene follows from its seed alone; the same seed gives the same scene to every task;
- an action moves the tip *relative to where it is*: no hidden target that the image does not show;
- scenes share one model and one renderer; each has its own state.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int64, UInt8

from tinyvla.act.arm.expert import BLOCK_SIZE, MAX_OPENING, STEP_METRES, STEP_RADIANS
from tinyvla.act.arm.kinematics import (
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
from tinyvla.data.dataset import COLORS, PALETTE, draw_distinct

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


class ArmScene:
    """One table, its blocks and its arm.

    Args:
        seed: decides blocks, colours and where the arm begins.

    Attributes:
        colors: int64 `(3,)`, the blocks' colours, indices into `COLORS`.
    """

    def __init__(self, seed: int) -> None:
        rng = np.random.RandomState(seed)
        places = _draw_places(rng)
        turns = rng.uniform(-0.3, 0.3, NUM_BLOCKS)
        self.colors: Int64[np.ndarray, "3"] = draw_distinct(rng, 1, len(COLORS), NUM_BLOCKS)[0].astype(np.int64)
        place = rng.uniform(AIR[0], AIR[1])
        rotation = rotation_matrix(rng.uniform(-1, 1, 3) * [0.15, 0.15, 0.5])
        self._mujoco, self._model = load_mujoco(), load_model()
        self._data = self._mujoco.MjData(self._model)
        self._bodies = [self._model.body(f"block{i}").id for i in range(NUM_BLOCKS)]
        self._geoms = [self._model.geom(f"block{i}").id for i in range(NUM_BLOCKS)]
        self._begin(places, turns, place, rotation)

    def _begin(
        self,
        places: Float[np.ndarray, "3 2"],
        turns: Float[np.ndarray, "3"],
        place: Float[np.ndarray, "3"],
        rotation: Float[np.ndarray, "3 3"],
    ) -> None:
        """Put the blocks on the table, and the open hand in the air, a little turned and tilted."""
        qpos, ctrl = self._data.qpos, self._data.ctrl
        angles = inverse_kinematics(self._model, _scratch(), HOME, place, rotation, iterations=100)
        qpos[:NUM_JOINTS] = ctrl[:NUM_JOINTS] = angles
        qpos[NUM_JOINTS : NUM_JOINTS + 2] = ctrl[NUM_JOINTS:] = MAX_OPENING / 2
        for block, (x, y), turn in zip(range(NUM_BLOCKS), places, turns, strict=True):
            start = NUM_JOINTS + 2 + 7 * block
            qpos[start : start + 7] = [x, y, BLOCK_SIZE / 2, np.cos(turn / 2), 0, 0, np.sin(turn / 2)]
        self._mujoco.mj_forward(self._model, self._data)

    @property
    def tip(self) -> Float[np.ndarray, "3"]:
        """Place of the point between the fingertips, in metres."""
        return tip_pose(self._model, self._data)[0]

    @property
    def tilt(self) -> Float[np.ndarray, "3"]:
        """The rotation vector, in radians, that would bring the hand upright."""
        return rotation_vector(tip_pose(self._model, self._data)[1].T.copy())

    @property
    def blocks(self) -> Float[np.ndarray, "3 3"]:
        """Centres (x, y, z) of the blocks, in metres."""
        return self._data.xpos[self._bodies]

    @property
    def opening(self) -> float:
        """Metres between the fingers."""
        return float(self._data.qpos[NUM_JOINTS : NUM_JOINTS + 2].sum())

    @property
    def robot_state(self) -> Float32[np.ndarray, "7"]:
        """What the robot itself can feel: six joint angles, in radians, and the gripper's opening, in metres."""
        return np.append(self._data.qpos[:NUM_JOINTS], self.opening).astype(np.float32)

    def pictures(self, height: int, width: int) -> UInt8[np.ndarray, "2 h w 3"]:
        """Returns what the cameras see, in the order of `CAMERAS`."""
        renderer: Any = load_renderer(height, width)
        self._model.geom_rgba[self._geoms, :3] = np.array(list(PALETTE.values()))[self.colors] / 255
        pictures = []
        for camera in CAMERAS:
            renderer.update_scene(self._data, camera)
            pictures.append(renderer.render())
        return np.stack(pictures)

    def move(self, action: Float[np.ndarray, "7"], substeps: int) -> None:
        """Send the tip to a place relative to where it is, set the gripper, and simulate one control step.

        Args:
            action: x, y, z, roll, pitch, yaw in [-1, 1]; the gripper opens where the last number is positive.
            substeps: steps of the simulator.
        """
        place, rotation = tip_pose(self._model, self._data)
        place = np.clip(place + STEP_METRES * action[:3], *LIMITS)
        rotation = rotation_matrix(STEP_RADIANS * action[3:6]) @ rotation
        qpos, ctrl = self._data.qpos, self._data.ctrl
        ctrl[:NUM_JOINTS] = inverse_kinematics(self._model, _scratch(), qpos[:NUM_JOINTS], place, rotation)
        ctrl[NUM_JOINTS:] = MAX_OPENING / 2 if action[6] > 0 else 0.0
        self._mujoco.mj_step(self._model, self._data, substeps)
        self._mujoco.mj_forward(self._model, self._data)


@cache
def _scratch() -> Any:
    """Data of the simulator that may be overwritten, for inverse kinematics."""
    return load_mujoco().MjData(load_model())


def _draw_places(rng: np.random.RandomState) -> Float[np.ndarray, "b 2"]:
    """Places of the blocks, drawn again until they are far enough apart."""
    while True:
        places = rng.uniform(TABLE[0], TABLE[1], size=(NUM_BLOCKS, 2))
        distances = np.linalg.norm(places[:, None] - places, axis=-1)[np.triu_indices(NUM_BLOCKS, 1)]
        if distances.min() >= APART:
            return places
