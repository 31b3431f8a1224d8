"""The world as a Gymnasium environment, `tinyvla/BlockFind-v0`, registered when this module is imported.

    import gymnasium
    env = gymnasium.make("tinyvla.act.blocks.env:tinyvla/BlockFind-v0")

Notable:
- it is a `tinyvla.act.blocks.world.BlockWorld` with one episode, the same as in `tinyvla.act.rollout`;
- `reset(seed=s)` gives episode `s`; `reset()` draws the next episode from the environment's own generator;
- `info` holds what a policy must not see: the target's offset, for the expert and for judging;
- `gymnasium.make_vec` works with its default, synchronous mode. With `vectorization_mode="async"` also pass
  `vector_kwargs={"shared_memory": False}`: through shared memory, Gymnasium reads a text only once, when the workers
  start (seen in 1.4.0; https://github.com/Farama-Foundation/Gymnasium/issues/1164).
"""

from __future__ import annotations

import string
from typing import Any

import numpy as np

from tinyvla.act.blocks.world import BlockWorld, WorldConfig
from tinyvla.act.blocks.world import expert_action as expert_action
from tinyvla.act.blocks.world import random_action as random_action
from tinyvla.data.dataset import COLORS, IMAGE_SIZE, instruction_for
from tinyvla.errors import InputError

try:
    import gymnasium
    from gymnasium import spaces
except ImportError:
    raise InputError(
        "tinyvla.act.blocks.env needs Gymnasium, which is not installed; install it with: pip install 'tinyvla[env]' "
        "(tinyvla.act.blocks.world and tinyvla.act.rollout work without it)"
    ) from None

ENV_ID = "tinyvla/BlockFind-v0"
INSTRUCTIONS = [instruction_for(color) for color in COLORS]

Observation = dict[str, Any]


class BlockFindEnv(gymnasium.Env[Observation, np.ndarray]):
    """Move the camera onto the block that the instruction names, and stop there.

    Observation: `image`, uint8 `(3, 64, 64)`, the view around the camera, and `instruction`, a sentence.
    Action: float32 `(2,)` in [-1, 1]; the camera moves by `step_size` pixels times the action (x right, y down).
    Reward: 1 at success, which terminates the episode; else 0. `truncated` after `max_steps`.
    Info: `instruction`; `offset`, float64 `(2,)`, and `distance`, both in pixels; `is_success`; `seed`, the episode's.

    Args:
        render_mode: "rgb_array" or None.
        rules: fields of `tinyvla.act.blocks.world.WorldConfig`, such as `step_size=2.0`.

    Raises:
        InputError: the render mode or a rule is unknown or not usable.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012 - Gymnasium's own form

    def __init__(self, render_mode: str | None = None, **rules: Any) -> None:
        if render_mode not in (None, "rgb_array"):
            raise InputError(f"unknown render_mode {render_mode!r}; choose from None, 'rgb_array'")
        try:
            self.config = WorldConfig(**rules)
        except TypeError as error:
            raise InputError(f"{error}; the rules are {', '.join(WorldConfig.__dataclass_fields__)}") from None
        self.render_mode = render_mode
        lengths = [len(text) for text in INSTRUCTIONS]
        text = spaces.Text(max(lengths), min_length=min(lengths), charset=string.ascii_lowercase + " ")
        image = spaces.Box(0, 255, (3, IMAGE_SIZE, IMAGE_SIZE), np.uint8)
        self.observation_space = spaces.Dict({"image": image, "instruction": text})
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.world: BlockWorld | None = None
        self.last_action: np.ndarray | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin episode `seed`, or one drawn from the environment's own generator."""
        super().reset(seed=seed)
        episode = int(self.np_random.integers(2**32)) if seed is None else seed
        self.world = BlockWorld([episode], self.config)
        self.last_action = None
        return self._observe(self.world)

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Move the camera; returns observation, reward, terminated, truncated and info.

        Raises:
            InputError: there is no episode, it is over, or the action is not two finite numbers.
        """
        world = self._world()
        if not len(world.running):
            raise InputError("the episode is over; call reset() to begin another")
        self.last_action = np.asarray(action, np.float64)
        world.step(self.last_action[None])
        observation, info = self._observe(world)
        return observation, float(info["is_success"]), info["is_success"], bool(world.truncated[0]), info

    def render(self) -> np.ndarray | None:
        """The view enlarged, uint8 `(320, 320, 3)`: an arrow to the target (dark), the last action (magenta)."""
        if self.render_mode is None:
            return None
        return self._world().picture(0, self.last_action)

    def _world(self) -> BlockWorld:
        if self.world is None:
            raise InputError("there is no episode yet; call reset() first")
        return self.world

    def _observe(self, world: BlockWorld) -> tuple[Observation, dict[str, Any]]:
        observation = {"image": world.views(np.arange(1))[0], "instruction": world.instructions[0]}
        info = {
            "instruction": world.instructions[0],
            "offset": world.offsets[0],
            "distance": float(world.distances[0]),
            "is_success": bool(world.succeeded[0]),
            "seed": world.seeds[0],
        }
        return observation, info


if ENV_ID not in gymnasium.registry:
    # The limit of steps is the world's, so that rollouts without Gymnasium have it too.
    gymnasium.register(ENV_ID, entry_point="tinyvla.act.blocks.env:BlockFindEnv")
