"""A policy as what the judge asks: pictures, states and tasks in, chunks of actions out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from tinyvla.act.metaworld.judge import Episode, Judges, Mode, judge
from tinyvla.act.metaworld.scene import ACTION_SIZE, STATE_SIZE, MetaWorldConfig
from tinyvla.act.metaworld.tasks import TASKS, Task
from tinyvla.errors import InputError
from tinyvla.fields import SEED, Within, check_number
from tinyvla.model.observation import IMAGE_KEY, STATE_KEY, TASK_KEY
from tinyvla.model.policy import TinyVLA

MAX_EPISODES = 10_000
"""Of each task."""


class PolicyAnswer:
    """A policy as what `Judges` asks: it sees the camera and the state, and is told a sentence for each task.

    Args:
        policy: one camera, named as in `config`, and Meta-World's state and actions; on its device.
        camera: the camera's name.
        told: other sentences than the tasks' own, by the task's name. They show whether a policy listens.

    Raises:
        InputError: the policy has other cameras, another state or other actions.
    """

    def __init__(self, policy: TinyVLA, camera: str = "corner2", told: Mapping[str, str] | None = None) -> None:
        observation, action_dim = policy.config.observation, policy.config.head.action_dim
        if (observation.cameras, action_dim) != ((camera,), ACTION_SIZE) or observation.state_dim not in (
            0,
            STATE_SIZE,
        ):
            raise InputError(
                f"this policy has the cameras {', '.join(observation.cameras)}, a state of {observation.state_dim} and "
                f"actions of {action_dim} numbers; Meta-World has the camera {camera}, a state of {STATE_SIZE} or "
                f"none, and actions of {ACTION_SIZE}"
            )
        self.policy, self.camera = policy, camera
        self.sentences = [(told or {}).get(task.name, task.sentence) for task in TASKS]

    def __call__(self, images: np.ndarray, states: np.ndarray, tasks: np.ndarray) -> np.ndarray:
        """Returns chunks `(w, h, 4)` for pictures uint8 `(w, h, w, 3)`, states `(w, 4)` and numbers of tasks `(w,)`."""
        policy = self.policy
        told = [self.sentences[number] for number in tasks]
        seen = {IMAGE_KEY + self.camera: images.transpose(0, 3, 1, 2), STATE_KEY: states, TASK_KEY: told}
        fast = torch.autocast(policy.device.type, torch.bfloat16, enabled=policy.device.type == "cuda")
        with fast:
            chunks = policy.predict(seen, generator=torch.Generator(policy.device).manual_seed(0)).numpy()
        return chunks if chunks.ndim == 3 else chunks[:, None]


def judge_policy(
    policy: TinyVLA,
    config: MetaWorldConfig,
    tasks: Sequence[Task],
    episodes: int = 10,
    execute: int = 2,
    seed: int = 0,
    workers: int = 1,
    progress_bar: bool = True,
) -> list[Episode]:
    """Returns how a policy's episodes went, in processes that are started and ended here.

    Args:
        policy: on its device.
        config: pictures and length of episodes.
        tasks: which.
        episodes: of each task.
        execute: actions done after each look.
        seed: another one gives other starts.
        workers: processes that simulate, at most one for each episode.
        progress_bar: whether to show one.

    Raises:
        InputError: a number is not usable, or the policy does not fit Meta-World.
    """
    check_number("the number of episodes of a task", episodes, Within(1, MAX_EPISODES))
    check_number("the episodes' seed", seed, SEED)
    answer = PolicyAnswer(policy, config.camera)
    horizon = policy.config.head.horizon
    if not 1 <= execute <= horizon:
        raise InputError(f"execute is {execute}; it must lie between 1 and the policy's chunk of {horizon}")
    judges = Judges(min(workers, len(tasks) * episodes), config, horizon)
    try:
        return judge(judges, answer, tasks, episodes, Mode(execute), seed, progress_bar)
    finally:
        judges.close()
