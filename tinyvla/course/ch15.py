"""Chapter 15's recording: a Saturday's work with the course's arm, with the faults that such recordings have.

Notable:
- the arm is chapter 13's and so is the expert; here it moves half as fast, before two cameras, and its actions are
  written down in the units of a workshop: millimetres, degrees, per cent;
- two blocks are red and blue, and the person who records has a habit, of which no file speaks;
- each fault is one that real recordings have, and `FAULTS` says where it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from tinyvla.act.arm.expert import STEP_METRES, STEP_RADIANS, expert_action
from tinyvla.act.arm.world import ArmConfig, ArmWorld, arm_instruction
from tinyvla.act.controller import Act, answers_of
from tinyvla.act.rollout import rollout
from tinyvla.act.world import episode_seeds
from tinyvla.data.dataset import COLORS
from tinyvla.data.demonstrations import Demonstrations
from tinyvla.model.policy import TinyVLA

FPS = 10
ACTION_NAMES = ("x mm", "y mm", "z mm", "roll deg", "pitch deg", "yaw deg", "gripper %")
UNITS = np.array([1_000 * STEP_METRES] * 3 + [np.degrees(STEP_RADIANS)] * 3 + [100.0])
"""What an action of 1 is in the world that the arm lives in."""
SPEED = 0.5
"""Of a person's hand, as a share of what the arm could do in a step."""
RULES = ArmConfig(cameras="separate", max_steps=50)
FAULTS = {
    "dark": (4,),
    "swapped": (9, 10),
    "frozen": (17,),
    "jump": (23,),
    "sentence": (38,),
    "short": (44,),
    "idle": (52,),
}
"""Which episodes of `saturday` have which fault, by the names of `tinyvla.data.report`."""
PAUSE = 20
"""Frames of the pause before one of the episodes."""


class Table(ArmWorld):
    """Tables with a red, a blue and a yellow block, on which the arm is told to reach the red or the blue one.

    Args:
        seeds: one for each table; which of the two is named depends on it.
        other: name the other one of the two, on the same tables.

    Attributes:
        left: bool `(n,)`, whether the named block stands left of the other one, as the camera above sees them.
    """

    def __init__(self, seeds: list[int], other: bool = False) -> None:
        super().__init__(seeds, "reach", RULES, int(other))
        red, blue, yellow = (COLORS.index(color) for color in ("red", "blue", "yellow"))
        for seed, scene in zip(self.seeds, self.scenes, strict=True):
            scene.colors = np.array([red, blue, yellow] if seed % 2 else [blue, red, yellow])
        self.colors = np.stack([scene.colors for scene in self.scenes])
        self.instructions = [arm_instruction("reach", COLORS[row[self.named]]) for row in self.colors]
        across = self.blocks[..., 1]
        self.left = across[:, self.named] < across[:, 1 - self.named]


def tables(count: int, seed: int, left: bool) -> list[int]:
    """Returns seeds of tables on which the named block stands left of the other one, or right of it."""
    seeds = episode_seeds(4 * count, seed=seed)
    return [s for s, is_left in zip(seeds, Table(seeds).left, strict=True) if is_left == left][:count]


def record(world: Table) -> Demonstrations:
    """Returns what is written down while a person drives the arm on some tables, each until the block is reached."""
    seen: dict[str, list[np.ndarray]] = {"above": [], "front": []}
    done, numbers, states = [], [], []
    while len(index := world.running):
        move = expert_action(world.state())
        move[:, :6] *= SPEED
        for name, pictures in world.camera_views().items():
            seen[name].append(pictures)
        states.append(world.robot_state())
        done.append(move * UNITS)
        numbers.append(index)
        world.step(move)
    episodes = np.concatenate(numbers)
    order = np.argsort(episodes, kind="stable")
    episodes = episodes[order]
    return Demonstrations(
        {name: np.concatenate(pictures)[order] for name, pictures in seen.items()},
        np.concatenate(done)[order].astype(np.float32),
        [world.instructions[number] for number in episodes],
        episodes,
        np.concatenate(states)[order],
        FPS,
        ACTION_NAMES,
        _times(episodes),
    )


def _times(episodes: np.ndarray) -> Float[np.ndarray, "n"]:
    """Time stamps of frames that follow each other at `FPS`."""
    starts = np.flatnonzero(np.diff(episodes, prepend=-1))
    return (np.arange(len(episodes)) - starts[episodes]) / FPS


def saturday(count: int = 60) -> Demonstrations:
    """Returns the recording, faults and all."""
    return spoiled(record(Table(tables(count, 1, left=True))))


def spoiled(clean: Demonstrations) -> Demonstrations:
    """Returns a recording with the faults in the episodes of `FAULTS`."""
    images = {name: frames.copy() for name, frames in clean.images.items()}
    actions, instructions = clean.actions.copy(), list(clean.instructions)

    def frames_of(kind: str) -> np.ndarray:
        return np.flatnonzero(np.isin(clean.episodes, FAULTS[kind]))

    images["above"][frames_of("dark")] = 6
    swapped = frames_of("swapped")
    images["above"][swapped], images["front"][swapped] = clean.images["front"][swapped], clean.images["above"][swapped]
    frozen = frames_of("frozen")
    images["front"][frozen[1:]] = images["front"][frozen[1]]
    jump = frames_of("jump")
    actions[jump[len(jump) // 2], 1] += 60.0
    for frame in frames_of("sentence"):
        instructions[frame] = instructions[frame].replace("block", "blokc")
    whole = replace(clean, images=images, actions=actions, instructions=instructions)
    pause, short = frames_of("idle"), frames_of("short")
    kept = np.setdiff1d(np.arange(len(clean)), short[2:])
    first = int(np.flatnonzero(kept == pause[0])[0])
    rows = np.insert(kept, first, np.full(PAUSE, pause[0]))
    waiting = slice(first, first + PAUSE)
    found = whole.rows(rows)
    found.actions[waiting, :6] = 0.0
    return replace(found, timestamps=_times(found.episodes))


def as_actor(policy: TinyVLA) -> Act:
    """Returns a policy that was trained on the recording as the world takes it: in the world's own units."""
    answer: Callable[..., np.ndarray] = answers_of(policy)
    return lambda observation: answer(observation) / UNITS


def tried(policy: TinyVLA, left: bool, count: int = 40, seed: int = 77) -> dict[str, float]:
    """Lets a policy act on new tables.

    Args:
        policy: trained on the recording.
        left: whether the named block stands left of the other one.
        count: tables.
        seed: of the tables.

    Returns:
        Shares of the tables: `success`, `named` where the tip ended nearest to the named block, `other` where it ended
        nearest to the other one of the two.
    """
    result = rollout(as_actor(policy), Table(tables(count, seed, left)), execute=4)
    went = result.outcome["went_to"]
    return {"success": result.success_rate, "named": float((went == 0).mean()), "other": float((went == 1).mean())}
