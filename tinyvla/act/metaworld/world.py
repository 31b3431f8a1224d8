"""Meta-World's tasks as a world of the course: episodes side by side, each with its own task.

It offers what `tinyvla.act.world.World` asks for; `scene` has the protocol and what differs from LeRobot's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64, UInt8

from tinyvla.act.metaworld.scene import ACTION_SIZE, MetaWorldConfig, Scene
from tinyvla.act.metaworld.tasks import GROUPS, TASKS, Task, find_tasks
from tinyvla.act.world import Seeds
from tinyvla.errors import InputError
from tinyvla.fields import checked

if TYPE_CHECKING:
    from tinyvla.act.result import Result


class MetaWorld:
    """Many episodes side by side. `observe`, `expert_chunk` and `step` are about those still running, in order.

    Args:
        seeds: one per episode.
        tasks: one task's name for all episodes, or one per episode.
        config: how episodes are drawn and how long they last.
        instructions: one sentence per episode; the tasks' own by default. Others show whether a policy listens.

    Attributes:
        seeds: as given.
        tasks: one `Task` per episode.
        instructions: one sentence per episode.

    Raises:
        InputError: a seed or a task is not usable, or Meta-World is not.
    """

    action_dim = ACTION_SIZE

    @checked
    def __init__(
        self,
        seeds: Seeds,
        tasks: str | Sequence[str] = "reach",
        config: MetaWorldConfig | None = None,
        instructions: Sequence[str] | None = None,
    ) -> None:
        if not len(seeds) or not all(0 <= seed < 2**32 for seed in seeds):
            raise InputError("give at least one seed; an episode's seed must lie between 0 and 2**32 - 1")
        self.config = config or MetaWorldConfig()
        self.seeds = [int(seed) for seed in seeds]
        self.tasks = _one_task_each(tasks, len(seeds))
        self.instructions = list(instructions or [task.sentence for task in self.tasks])
        if len(self.instructions) != len(seeds):
            raise InputError(f"{len(seeds)} seeds but {len(self.instructions)} instructions; give one per seed")
        self.scenes = [Scene(task, self.config) for task in self.tasks]
        for scene, seed in zip(self.scenes, self.seeds, strict=True):
            scene.begin(seed)

    def __len__(self) -> int:
        return len(self.seeds)

    @property
    def steps(self) -> Int64[np.ndarray, "n"]:
        """Steps done in each episode."""
        return np.array([scene.steps for scene in self.scenes])

    @property
    def succeeded(self) -> Bool[np.ndarray, "n"]:
        """Which episodes have succeeded."""
        return np.array([scene.succeeded for scene in self.scenes])

    @property
    def running(self) -> Int64[np.ndarray, "r"]:
        """Indices of the episodes that go on."""
        return np.flatnonzero([not scene.over for scene in self.scenes])

    def observe(self, episodes: Int64[np.ndarray, "k"] | None = None) -> dict[str, Any]:
        """Returns what a policy may see of some episodes, under LeRobot's keys; of the running ones by default.

        The camera is `corner2`, uint8 `(k, 3, h, w)`; the state is the hand's place and the gripper's opening,
        float32 `(k, 4)`.
        """
        index = self.running if episodes is None else episodes
        scenes = [self.scenes[i] for i in index]
        return {
            f"observation.images.{self.config.camera}": np.stack([s.picture().transpose(2, 0, 1) for s in scenes]),
            "observation.state": np.stack([scene.state for scene in scenes]),
            "task": [self.instructions[i] for i in index],
        }

    def expert_chunk(self, horizon: int) -> Float32[np.ndarray, "r h 4"]:
        """Returns what the scripted experts do next in the running episodes; see `Scene.expert_chunk`."""
        return np.stack([self.scenes[i].expert_chunk(horizon) for i in self.running])

    def step(self, actions: Float[np.ndarray, "..."]) -> None:
        """Take one step in the running episodes, with one action each: the hand's way in x, y, z, and the gripper.

        An action of 1 asks for 1 cm. Numbers beyond [-1, 1] are cut off there.

        Raises:
            InputError: there is not one action per running episode, or one is NaN or infinite.
        """
        running = self.running
        if actions.shape != (len(running), ACTION_SIZE):
            need = (len(running), ACTION_SIZE)
            raise InputError(f"actions have shape {actions.shape}; {len(running)} running episodes need {need}")
        if not np.isfinite(actions).all():
            raise InputError("an action is NaN or infinite")
        for i, action in zip(running, actions, strict=True):
            self.scenes[i].step(action)

    def outcome(self) -> dict[str, np.ndarray]:
        """Returns each episode's `task`, its number in `TASKS`."""
        return {"task": np.array([TASKS.index(task) for task in self.tasks])}

    @staticmethod
    def summary(result: Result) -> dict[str, float]:
        """Returns the success in each group of difficulty that was tried, and `mean_of_groups`, their mean."""
        groups = np.array([TASKS[number].group for number in result.outcome["task"]])
        rates = {
            f"success_{group}": float(result.success[groups == group].mean()) for group in GROUPS if group in groups
        }
        return rates | {"mean_of_groups": float(np.mean(list(rates.values())))}

    def picture(self, episode: int, action: Float[np.ndarray, "4"] | None = None) -> UInt8[np.ndarray, "h w 3"]:
        """Returns an episode's present as a picture for people; the action is not drawn."""
        return self.scenes[episode].picture().copy()

    def close(self) -> None:
        """Give back simulators and renderers."""
        for scene in self.scenes:
            scene.close()


def _one_task_each(tasks: str | Sequence[str], count: int) -> list[Task]:
    """Returns one task per episode from a name for all or a name for each."""
    names = [tasks] * count if isinstance(tasks, str) else list(tasks)
    if len(names) != count:
        raise InputError(f"{count} seeds but {len(names)} tasks; give one task, or one per seed")
    found = [find_tasks([name]) for name in names]
    for name, tasks_of_name in zip(names, found, strict=True):
        if len(tasks_of_name) > 1:
            raise InputError(f"{name!r} is several tasks; give one task per episode")
    return [tasks_of_name[0] for tasks_of_name in found]
