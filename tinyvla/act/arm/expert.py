"""The scripted expert: where it is and what it sees decide what it does, and nothing else.

Notable:
- it has no clock and no memory. Phases (approach, descend, close, lift) follow from the place of the tip and the
  opening of the gripper, both of which can be seen in the image; a policy that sees one image can imitate it;
- the way down is a funnel: the farther from the block's axis, the higher the tip stays. So it never sweeps through
  blocks, and after a disturbance it goes up as far as it must and no farther;
- it plans chunks in a simple model of itself: the tip goes where it is sent, the gripper closes at constant speed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from tinyvla.errors import InputError

TASKS = ("reach", "pick")
ACTION_NAMES = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
STEP_METRES = 0.03
"""How far an action of length 1 moves the tip in one control step."""
STEP_RADIANS = 0.15
"""How far an action of 1 turns the hand about an axis in one control step."""
STEP_OPENING = 0.04
"""How far the gripper opens or closes in one control step, in metres, as the expert's plan assumes."""
HOVER = 0.07
"""Height of the tip over the block's centre before it goes down, and the height that "reach" asks for, in metres."""
MAX_OPENING = 0.1
BLOCK_SIZE = 0.048
"""Side of a block, in metres."""
DISTURBED = 0.5
"""Share of the steps in which a disturbed expert's command is falsified."""
SLIPPED = 0.03
"""Share of the steps in which its gripper does the opposite."""


@dataclass(frozen=True)
class ArmState:
    """All that the expert knows of some episodes."""

    offsets: Float[np.ndarray, "n 3"]
    """Metres from the tip to the centre of the named block."""
    tilts: Float[np.ndarray, "n 3"]
    """The rotation vector, in radians, that would bring the hand upright."""
    openings: Float[np.ndarray, "n"]
    """Metres between the fingers."""
    picking: Bool[np.ndarray, "n"]
    """Whether the block shall be picked up, or only reached."""

    @property
    def around(self) -> Bool[np.ndarray, "n"]:
        """Whether the block lies between the fingers."""
        beside = np.linalg.norm(self.offsets[:, :2], axis=1)
        return (beside < 0.02) & (np.abs(self.offsets[:, 2]) < 0.018)

    @property
    def gripped(self) -> Bool[np.ndarray, "n"]:
        """Whether the fingers hold the block."""
        return self.around & (self.openings < BLOCK_SIZE + 0.006)


def expert_action(state: ArmState) -> Float[np.ndarray, "n 7"]:
    """What the expert does: x, y, z, roll, pitch, yaw in [-1, 1], and 1 to open the gripper or -1 to close it."""
    beside = np.linalg.norm(state.offsets[:, :2], axis=1)
    funnel = np.where(state.picking, np.clip(4 * (beside - 0.008), 0, HOVER), HOVER)
    way = state.offsets + np.stack([0 * funnel, 0 * funnel, funnel], axis=1)
    lift = state.picking & state.gripped
    close = state.picking & state.around
    way = np.where(lift[:, None], [[0.0, 0.0, STEP_METRES]], way)
    way[close & ~lift] = 0.0  # wait for the fingers
    move = way / np.maximum(np.linalg.norm(way, axis=1, keepdims=True), STEP_METRES)
    turn = np.clip(state.tilts / STEP_RADIANS, -1, 1)
    return np.concatenate([move, turn, np.where(close, -1.0, 1.0)[:, None]], axis=1)


def imagined(state: ArmState, actions: Float[np.ndarray, "n 7"]) -> ArmState:
    """Where the expert thinks that it will be after its actions."""
    held = state.gripped & (actions[:, 6] < 0)
    offsets = np.where(held[:, None], state.offsets, state.offsets - STEP_METRES * actions[:, :3])
    narrowest = np.where(state.around, BLOCK_SIZE, 0.0)
    openings = state.openings + np.where(actions[:, 6] > 0, STEP_OPENING, -STEP_OPENING)
    openings = np.clip(openings, narrowest, MAX_OPENING)
    return replace(state, offsets=offsets, tilts=state.tilts - STEP_RADIANS * actions[:, 3:6], openings=openings)


def expert_chunk(state: ArmState, horizon: int) -> Float[np.ndarray, "n h 7"]:
    """The expert's next `horizon` actions, planned without looking again."""
    if horizon < 1:
        raise InputError(f"horizon is {horizon}; a chunk holds at least one action")
    chunk = []
    for _ in range(horizon):
        chunk.append(expert_action(state))
        state = imagined(state, chunk[-1])
    return np.stack(chunk, axis=1)


def disturbance(noise: float) -> Callable[[np.ndarray, np.random.RandomState], np.ndarray]:
    """Returns what `rollout(expert, world, disturb=...)` takes: it falsifies what is done, and leaves the label.

    It adds normal noise to the six motions in half of the steps, and turns the gripper round in a few (the idea is
    DART's, https://arxiv.org/abs/1703.09327).

    Args:
        noise: standard deviation; actions lie in [-1, 1].
    """

    def disturb(actions: Float[np.ndarray, "n 7"], rng: np.random.RandomState) -> Float[np.ndarray, "n 7"]:
        hit = rng.random_sample((len(actions), 1)) < DISTURBED
        moved = actions[:, :6] + hit * noise * rng.randn(len(actions), 6)
        slip = np.where(rng.random_sample(len(actions)) < SLIPPED, -1.0, 1.0)
        return np.concatenate([moved, (slip * actions[:, 6])[:, None]], axis=1)

    return disturb
