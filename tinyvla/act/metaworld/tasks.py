"""The 50 tasks of Meta-World MT50: their names, their groups of difficulty and their sentences.

Notable:
- names, sentences, groups and the order of the list are those of LeRobot (`src/lerobot/envs/metaworld.py`), which
  writes "-v3" after each name; both spellings are understood here;
- there are 49 sentences for 50 tasks: "Push the puck to a goal" stands for push and for push-back, so a policy has to
  see in the picture which of the two is meant.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tinyvla.errors import InputError

GROUPS = ("easy", "medium", "hard", "very_hard")
"""The groups of difficulty. The benchmark's figure is the mean of their four success rates."""


@dataclass(frozen=True)
class Task:
    """One of the 50 tasks."""

    name: str
    """Meta-World's name without the version, such as "door-open"."""
    group: str
    """One of `GROUPS`."""
    sentence: str
    """What a policy is told."""

    @property
    def full_name(self) -> str:
        """Meta-World's name with the version, such as "door-open-v3"."""
        return f"{self.name}-v3"


TASKS = (
    Task("assembly", "hard", "Pick up a nut and place it onto a peg"),
    Task("basketball", "medium", "Dunk the basketball into the basket"),
    Task("bin-picking", "medium", "Grasp the puck from one bin and place it into another bin"),
    Task("box-close", "medium", "Grasp the cover and close the box with it"),
    Task("button-press-topdown", "easy", "Press a button from the top"),
    Task("button-press-topdown-wall", "easy", "Bypass a wall and press a button from the top"),
    Task("button-press", "easy", "Press a button"),
    Task("button-press-wall", "easy", "Bypass a wall and press a button"),
    Task("coffee-button", "easy", "Push a button on the coffee machine"),
    Task("coffee-pull", "medium", "Pull a mug from a coffee machine"),
    Task("coffee-push", "medium", "Push a mug under a coffee machine"),
    Task("dial-turn", "easy", "Rotate a dial 180 degrees"),
    Task("disassemble", "very_hard", "Pick a nut out of a peg"),
    Task("door-close", "easy", "Close a door with a revolving joint"),
    Task("door-lock", "easy", "Lock the door by rotating the lock clockwise"),
    Task("door-open", "easy", "Open a door with a revolving joint"),
    Task("door-unlock", "easy", "Unlock the door by rotating the lock counter-clockwise"),
    Task("drawer-close", "easy", "Push and close a drawer"),
    Task("drawer-open", "easy", "Open a drawer"),
    Task("faucet-close", "easy", "Rotate the faucet clockwise"),
    Task("faucet-open", "easy", "Rotate the faucet counter-clockwise"),
    Task("hammer", "medium", "Hammer a screw on the wall"),
    Task("hand-insert", "hard", "Insert the gripper into a hole"),
    Task("handle-press-side", "easy", "Press a handle down sideways"),
    Task("handle-press", "easy", "Press a handle down"),
    Task("handle-pull-side", "easy", "Pull a handle up sideways"),
    Task("handle-pull", "easy", "Pull a handle up"),
    Task("lever-pull", "easy", "Pull a lever down 90 degrees"),
    Task("peg-insert-side", "medium", "Insert a peg sideways"),
    Task("peg-unplug-side", "easy", "Unplug a peg sideways"),
    Task("pick-out-of-hole", "hard", "Pick up a puck from a hole"),
    Task("pick-place", "hard", "Pick and place a puck to a goal"),
    Task("pick-place-wall", "very_hard", "Pick a puck, bypass a wall and place the puck"),
    Task("plate-slide-back-side", "easy", "Get a plate from the cabinet sideways"),
    Task("plate-slide-back", "easy", "Get a plate from the cabinet"),
    Task("plate-slide-side", "easy", "Slide a plate into a cabinet sideways"),
    Task("plate-slide", "easy", "Slide a plate into a cabinet"),
    Task("push-back", "hard", "Push the puck to a goal"),
    Task("push", "hard", "Push the puck to a goal"),
    Task("push-wall", "medium", "Bypass a wall and push a puck to a goal"),
    Task("reach", "easy", "Reach a goal position"),
    Task("reach-wall", "easy", "Bypass a wall and reach a goal"),
    Task("shelf-place", "very_hard", "Pick and place a puck onto a shelf"),
    Task("soccer", "medium", "Kick a soccer into the goal"),
    Task("stick-pull", "very_hard", "Grasp a stick and pull a box with the stick"),
    Task("stick-push", "very_hard", "Grasp a stick and push a box using the stick"),
    Task("sweep-into", "medium", "Sweep a puck into a hole"),
    Task("sweep", "medium", "Sweep a puck off the table"),
    Task("window-open", "easy", "Push and open a window"),
    Task("window-close", "easy", "Push and close a window"),
)

SENTENCES = tuple(dict.fromkeys(task.sentence for task in TASKS))
"""The 49 different sentences, in the order of the tasks."""


SPLITS = ("train", "validation", "judge")
"""What episodes are for; each has its own seeds."""


def find_tasks(names: str | Iterable[str]) -> list[Task]:
    """Returns the tasks from their names: tasks, groups of difficulty or "mt50" for all.

    Args:
        names: several names, or one string with names between commas, such as "reach,door-open-v3" or "hard".

    Raises:
        InputError: a name is unknown.
    """
    parts = names.split(",") if isinstance(names, str) else list(names)
    by_name = {task.name: task for task in TASKS}
    found: dict[str, Task] = {}
    for part in (part.strip().removesuffix("-v3") for part in parts):
        if part == "mt50":
            chosen = list(TASKS)
        elif part in GROUPS:
            chosen = [task for task in TASKS if task.group == part]
        elif part in by_name:
            chosen = [by_name[part]]
        else:
            raise InputError(
                f"unknown Meta-World task {part!r}; choose mt50, a group ({', '.join(GROUPS)}) "
                f"or tasks: {', '.join(by_name)}"
            )
        found |= {task.name: task for task in chosen}
    return list(found.values())


def episode_seed(split: str, task: Task, index: int, attempt: int = 0) -> int:
    """Returns an episode's seed from what it is for: no two episodes of any split share a seed, but by rare chance."""
    parts = [SPLITS.index(split), TASKS.index(task), index, attempt]
    return int(np.random.SeedSequence(parts).generate_state(1)[0])
