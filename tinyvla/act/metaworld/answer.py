"""A policy as what the judge asks: pictures, states and tasks in, chunks of actions out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from tinyvla.act.metaworld.scene import ACTION_SIZE, STATE_SIZE
from tinyvla.act.metaworld.tasks import TASKS
from tinyvla.errors import InputError
from tinyvla.model.observation import IMAGE_KEY, STATE_KEY, TASK_KEY
from tinyvla.model.policy import TinyVLA


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
