"""The arm as Gymnasium environments, `tinyvla/ArmReach-v0` and `tinyvla/ArmPick-v0`.

    import gymnasium
    env = gymnasium.make("tinyvla.act.arm:tinyvla/ArmPick-v0")

Notable:
- it is a `tinyvla.act.arm.world.ArmWorld` with one episode, the same as in `tinyvla.act.rollout`;
- `reset(seed=s)` gives episode `s`; `reset()` draws the next episode from the environment's own generator;
- `info` holds what a policy must not see: the block's place, for the expert and for judging.
"""

from __future__ import annotations

import string
from typing import Any

import numpy as np

from tinyvla.act.arm.expert import TASKS, expert_action
from tinyvla.act.arm.kinematics import load_mujoco
from tinyvla.act.arm.world import ArmConfig, ArmWorld, arm_instruction
from tinyvla.data.dataset import COLORS
from tinyvla.errors import InputError

try:
    import gymnasium
    from gymnasium import spaces
except ImportError:
    raise InputError(
        "tinyvla.act.arm.env needs Gymnasium, which is not installed; install it with: pip install 'tinyvla[arm]' "
        "(tinyvla.act.arm.world and tinyvla.act.rollout work without it)"
    ) from None

Observation = dict[str, Any]
RENDERED_SIZE = 320
"""Side of the pictures that `render` gives, in pixels."""


class ArmEnv(gymnasium.Env[Observation, np.ndarray]):
    """Reach, or pick up, the block that the instruction names.

    Observation: `image`, uint8 `(3, s, s)`, always the view from above on top of the view from the front, and
    `instruction`.
    Action: float32 `(7,)` in [-1, 1]: x, y, z (3 cm each), roll, pitch, yaw (0.15 radians each), gripper (positive
    opens it, else it closes). Motions are relative to where the hand is, along and about the table's axes.
    Reward: 1 at success, which terminates the episode; else 0. `truncated` after `max_steps`.
    Info: `instruction`; `offset`, float64 `(3,)`, metres from the tip to the named block's centre; `opening`, metres
    between the fingers; `expert_action`, float64 `(7,)`; `is_success`; `seed`, the episode's.

    Args:
        task: "reach" or "pick".
        render_mode: "rgb_array" or None.
        rules: fields of `tinyvla.act.arm.world.ArmConfig`, such as `max_steps=60`.

    Raises:
        InputError: MuJoCo is missing, or the task, the render mode or a rule is unknown or not usable.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - Gymnasium's own form

    def __init__(self, task: str = "reach", render_mode: str | None = None, **rules: Any) -> None:
        if render_mode not in (None, "rgb_array"):
            raise InputError(f"unknown render_mode {render_mode!r}; choose from None, 'rgb_array'")
        if task not in TASKS:
            raise InputError(f"unknown task {task!r}; choose from {', '.join(TASKS)}")
        try:
            self.config = ArmConfig(**rules)
        except TypeError as error:
            raise InputError(f"{error}; the rules are {', '.join(ArmConfig.__dataclass_fields__)}") from None
        load_mujoco()  # say now if it is missing
        self.task, self.render_mode = task, render_mode
        lengths = [len(arm_instruction(task, color)) for color in COLORS]
        text = spaces.Text(max(lengths), min_length=min(lengths), charset=string.ascii_lowercase + " ")
        image = spaces.Box(0, 255, (3, self.config.image_size, self.config.image_size), np.uint8)
        self.observation_space = spaces.Dict({"image": image, "instruction": text})
        self.action_space = spaces.Box(-1.0, 1.0, (7,), np.float32)
        self.world: ArmWorld | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin episode `seed`, or one drawn from the environment's own generator."""
        super().reset(seed=seed)
        episode = int(self.np_random.integers(2**32)) if seed is None else seed
        self.world = ArmWorld([episode], self.task, self.config)
        return self._observe(self.world)

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Move the arm for 0.1 seconds; returns observation, reward, terminated, truncated and info.

        Raises:
            InputError: there is no episode, it is over, or the action is not seven finite numbers.
        """
        world = self._world()
        if not len(world.running):
            raise InputError("the episode is over; call reset() to begin another")
        world.step(np.asarray(action, np.float64)[None])
        observation, info = self._observe(world)
        return observation, float(info["is_success"]), info["is_success"], bool(world.truncated[0]), info

    def render(self) -> np.ndarray | None:
        """The same two views, larger: uint8 `(320, 320, 3)`."""
        if self.render_mode is None:
            return None
        return self._world().views(np.arange(1), RENDERED_SIZE)[0].transpose(1, 2, 0)

    def _world(self) -> ArmWorld:
        if self.world is None:
            raise InputError("there is no episode yet; call reset() first")
        return self.world

    def _observe(self, world: ArmWorld) -> tuple[Observation, dict[str, Any]]:
        state = world.state(np.arange(1))
        observation = {"image": world.views(np.arange(1))[0], "instruction": world.instructions[0]}
        info = {
            "instruction": world.instructions[0],
            "offset": state.offsets[0],
            "opening": float(state.openings[0]),
            "expert_action": expert_action(state)[0],
            "is_success": bool(world.succeeded[0]),
            "seed": world.seeds[0],
        }
        return observation, info
