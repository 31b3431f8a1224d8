"""A table with three blocks and an arm that is told to reach or to pick up one of them.

Notable:
- many episodes side by side, as in `tinyvla.act.blocks.world`, so one forward pass of a policy serves them all;
- two cameras: from above (x and y) and from the front (y and height, opening). What the task needs can be seen. As one
  picture, one over the other, they suit a policy with one camera; apart, a policy with two (`ArmConfig.cameras`);
- the robot's own state, joint angles and the gripper's opening, is in every observation. A policy may do without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64, UInt8

from tinyvla.act.arm.expert import BLOCK_SIZE, HOVER, TASKS, ArmState, expert_chunk
from tinyvla.act.arm.kinematics import NUM_JOINTS, load_mujoco
from tinyvla.act.arm.scene import CAMERAS, NUM_BLOCKS, ArmScene
from tinyvla.act.result import Result
from tinyvla.act.world import Episodes, Seeds, checked_actions
from tinyvla.data.batch import CAMERA
from tinyvla.data.dataset import COLORS
from tinyvla.errors import InputError
from tinyvla.fields import Within, check_fields, checked
from tinyvla.model.observation import IMAGE_KEY, STATE_KEY, TASK_KEY, Observation

ACTION_DIM = 7
STATE_DIM = NUM_JOINTS + 1
"""Numbers in the robot's own state: the angles of its joints, in radians, and the gripper's opening, in metres."""
ARRANGEMENTS = ("stacked", "separate")
PICTURE_SIZE = 192
"""Side of the pictures for people, in pixels."""


def arm_instruction(task: str, color: str) -> str:
    """The sentence for a task: "reach the red block" or "pick up the red block"."""
    return f"{'pick up' if task == 'pick' else 'reach'} the {color} block"


@dataclass(frozen=True)
class ArmConfig:
    """The rules of an episode."""

    image_size: Annotated[int, Within(2, 2_048)] = 64
    """Width of a camera's picture, in pixels; each of the two is half as high."""
    max_steps: Annotated[int, Within(1, 10**6)] = 40
    """Control steps until an episode is cut off; the expert needs about 8 to reach and 14 to pick up."""
    tolerance: Annotated[float, Within(0, 10, above=True)] = 0.03
    """Reach: largest distance, in metres, of the tip from the point over the named block."""
    still: Annotated[float, Within(0, 10, above=True)] = 0.01
    """Reach: largest distance, in metres, that the tip moved in the last step; farther is not stopped."""
    lift: Annotated[float, Within(0, 10, above=True)] = 0.05
    """Pick: height, in metres, by which the named block must have left the table."""
    substeps: Annotated[int, Within(1, 1_000)] = 20
    """Steps of 5 ms of the simulator in one control step."""
    cameras: str = "stacked"
    """`stacked`: one square picture, the camera `camera`. `separate`: the two cameras `above` and `front`."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.cameras not in ARRANGEMENTS:
            raise InputError(f"unknown ArmConfig.cameras {self.cameras!r}; choose from {', '.join(ARRANGEMENTS)}")
        if self.image_size % 2:
            raise InputError(f"ArmConfig.image_size is {self.image_size}; it must be even, as two views share it")


class ArmWorld(Episodes):
    """Many episodes side by side, in which one policy acts.

    Args:
        seeds: one per episode; it decides blocks, colours and where the arm begins.
        task: "reach" or "pick" for all episodes, or one per episode.
        config: the rules.
        named: which of the three blocks the instruction names; 1 or 2 is the same scene with another block named.

    Attributes:
        instructions: one sentence per episode.
        colors: int64 `(n, 3)`, indices into `COLORS`.
        steps, succeeded, truncated: see `tinyvla.act.world.Episodes`.

    Raises:
        InputError: MuJoCo is missing, or a seed, a task or a block is not usable.
    """

    action_dim = ACTION_DIM

    @checked
    def __init__(
        self, seeds: Seeds, task: str | Sequence[str] = "reach", config: ArmConfig | None = None, named: int = 0
    ) -> None:
        self.config, self.named = config or ArmConfig(), named
        super().__init__(seeds, self.config.max_steps)
        self.tasks = [task] * len(seeds) if isinstance(task, str) else list(task)
        if unknown := sorted(set(self.tasks) - set(TASKS)):
            raise InputError(f"unknown task {unknown[0]!r}; choose from {', '.join(TASKS)}")
        if len(self.tasks) != len(seeds):
            raise InputError(f"{len(seeds)} seeds but {len(self.tasks)} tasks; give one task, or one per seed")
        if not 0 <= named < NUM_BLOCKS:
            raise InputError(f"named is {named}; the blocks are 0 to {NUM_BLOCKS - 1}")
        load_mujoco()
        self.scenes = [ArmScene(seed) for seed in self.seeds]
        self.colors: Int64[np.ndarray, "n 3"] = np.stack([scene.colors for scene in self.scenes])
        names = [COLORS[row[named]] for row in self.colors]
        self.instructions = [arm_instruction(t, color) for t, color in zip(self.tasks, names, strict=True)]

    @property
    def tips(self) -> Float[np.ndarray, "n 3"]:
        """Places of the point between the fingertips, in metres."""
        return np.stack([scene.tip for scene in self.scenes])

    @property
    def blocks(self) -> Float[np.ndarray, "n 3 3"]:
        """Centres (x, y, z) of each episode's three blocks, in metres."""
        return np.stack([scene.blocks for scene in self.scenes])

    def state(self, episodes: Int64[np.ndarray, "k"] | None = None) -> ArmState:
        """Returns what the expert knows of some episodes, and a policy has to see; of the running ones by default."""
        chosen = self._chosen(episodes)
        return ArmState(
            offsets=np.stack([scene.blocks[self.named] - scene.tip for scene in chosen]),
            tilts=np.stack([scene.tilt for scene in chosen]),
            openings=np.array([scene.opening for scene in chosen]),
            picking=np.array([self.tasks[i] == "pick" for i in (self.running if episodes is None else episodes)]),
        )

    def _chosen(self, episodes: Int64[np.ndarray, "k"] | None) -> list[ArmScene]:
        return [self.scenes[i] for i in (self.running if episodes is None else episodes)]

    @property
    def distances(self) -> Float[np.ndarray, "n b"]:
        """Metres from each tip to the point over each block that "reach" asks for."""
        goals = self.blocks + np.array([0.0, 0.0, HOVER])
        return np.linalg.norm(goals - self.tips[:, None], axis=2)

    @property
    def nearest(self) -> Int64[np.ndarray, "n"]:
        """Which block each tip is nearest to, seen from above."""
        return np.linalg.norm((self.blocks - self.tips[:, None])[..., :2], axis=2).argmin(axis=1)

    def robot_state(self, episodes: Int64[np.ndarray, "k"] | None = None) -> Float32[np.ndarray, "k 7"]:
        """Returns what the robots themselves can feel in some episodes; in the running ones by default.

        Six joint angles, in radians, and the gripper's opening, in metres.
        """
        return np.stack([scene.robot_state for scene in self._chosen(episodes)])

    def camera_views(
        self, episodes: Int64[np.ndarray, "k"] | None = None, size: int = 0
    ) -> dict[str, UInt8[np.ndarray, "k 3 h w"]]:
        """Returns the pictures of both cameras, by name, `size` pixels wide and half as high.

        Args:
            episodes: indices; the running ones by default.
            size: the rules' `image_size` by default.
        """
        size = size or self.config.image_size
        pictures = np.stack([scene.pictures(size // 2, size) for scene in self._chosen(episodes)])
        return {name: pictures[:, i].transpose(0, 3, 1, 2) for i, name in enumerate(CAMERAS)}

    def views(self, episodes: Int64[np.ndarray, "k"] | None = None, size: int = 0) -> UInt8[np.ndarray, "k 3 h w"]:
        """Returns both cameras' pictures as one square one, above over front; arguments as of `camera_views`."""
        return np.concatenate(list(self.camera_views(episodes, size).values()), axis=2)

    def observe(self, episodes: Int64[np.ndarray, "k"] | None = None) -> Observation:
        """Returns what a policy may see of some episodes, under LeRobot's keys; of the running ones by default.

        Its cameras are `camera`, or `above` and `front`, as `ArmConfig.cameras` says; its state is `robot_state`.
        """
        index = self.running if episodes is None else episodes
        views = self.camera_views(index) if self.config.cameras == "separate" else {CAMERA: self.views(index)}
        images = {IMAGE_KEY + name: pictures for name, pictures in views.items()}
        return {**images, STATE_KEY: self.robot_state(index), TASK_KEY: [self.instructions[i] for i in index]}

    def expert_chunk(self, horizon: int) -> Float[np.ndarray, "r h 7"]:
        """Returns the expert's next actions in the running episodes, planned without looking again."""
        return expert_chunk(self.state(), horizon)

    def step(self, actions: Float[np.ndarray, "..."]) -> None:
        """Move the arms of the running episodes, one action each: x, y, z, roll, pitch, yaw, gripper.

        An action of 1 moves the tip by 3 cm along the table's axes, or turns the hand by 0.15 radians about them; the
        gripper opens where the last number is positive and closes elsewhere. Numbers beyond [-1, 1] are cut off there.

        Raises:
            InputError: there is not one action per running episode, or one is NaN or infinite.
        """
        index = self.running
        before = self.tips
        for i, action in zip(index, checked_actions(actions, len(index), ACTION_DIM), strict=True):
            self.scenes[i].move(action, self.config.substeps)
        moved = np.linalg.norm(self.tips - before, axis=1)
        self.end_step(index, self._have_succeeded(moved)[index])

    def _have_succeeded(self, moved: Float[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
        picking = np.array([task == "pick" for task in self.tasks])
        lifted = self.blocks[:, self.named, 2] - BLOCK_SIZE / 2 >= self.config.lift
        reached = (self.distances[:, self.named] <= self.config.tolerance) & (moved <= self.config.still)
        return np.where(picking, lifted, reached)

    def outcome(self) -> dict[str, np.ndarray]:
        """Returns how each episode went so far.

        - `named`: the block that the instruction names; `went_to`: the one that the tip is nearest to, from above;
        - `final_distances`: metres from the tip to the point over the named block that "reach" asks for.
        """
        named = np.full(len(self), self.named)
        return {"named": named, "went_to": self.nearest, "final_distances": self.distances[:, self.named]}

    @staticmethod
    def summary(result: Result) -> dict[str, float]:
        """Returns an outcome in a few numbers: `went_to_named`, a share of the episodes."""
        return {"went_to_named": float((result.outcome["went_to"] == result.outcome["named"]).mean())}

    def picture(
        self, episode: int, action: Float[np.ndarray, "7"] | None = None, size: int = PICTURE_SIZE
    ) -> UInt8[np.ndarray, "h w 3"]:
        """Returns an episode's present as a square picture for people, above over front; the action is not drawn."""
        picture = self.views(np.array([episode]), size)[0].transpose(1, 2, 0).copy()
        picture[size // 2] = 255  # a line between the two views
        return picture
