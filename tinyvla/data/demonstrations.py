"""Recorded demonstrations as arrays, whatever robot, simulator or file they come from.

Notable:
- one shape for all: images by camera, actions, a sentence and an episode's number for each frame;
- `tinyvla.data.lerobot` reads and writes them as a LeRobotDataset; `tensors` makes what `tinyvla.learn.train.fit` takes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from PIL import Image

from tinyvla.data.batch import TensorSplit
from tinyvla.config import InputError
from tinyvla.act.rollout import States


@dataclass(frozen=True)
class Demonstrations:
    """Recorded episodes, frame by frame; the frames of an episode follow each other."""

    images: dict[str, UInt8[np.ndarray, "n 3 h w"]]
    """By camera; the key in the dataset is `observation.images.` and the camera's name."""
    actions: Float32[np.ndarray, "n a"]
    instructions: list[str]
    """One for each frame."""
    episodes: Int64[np.ndarray, "n"]
    """Number of each frame's episode: 0, 1, 2, ..."""
    states: Float32[np.ndarray, "n s"] | None = None
    """The robot's own, such as joint angles; the key is `observation.state`."""
    fps: int = 5
    """Frames a second."""
    action_names: tuple[str, ...] = ()
    """What each number of an action is; unnamed if empty."""

    def __post_init__(self) -> None:
        counts = {name: len(images) for name, images in self.images.items()}
        counts |= {"instructions": len(self.instructions), "episodes": len(self.episodes)}
        counts |= {} if self.states is None else {"states": len(self.states)}
        wrong = {name: count for name, count in counts.items() if count != len(self.actions)}
        if wrong or not len(self.actions):
            raise InputError(f"there are {len(self.actions)} actions, but {wrong or 'no frames at all'}")
        if self.episodes[0] or not np.isin(np.diff(self.episodes), (0, 1)).all():
            raise InputError("episodes must be numbered 0, 1, 2, ..., the frames of each following each other")
        if self.fps < 1:
            raise InputError(f"fps is {self.fps}; it must be at least 1")

    def __len__(self) -> int:
        return len(self.actions)

    @classmethod
    def from_states(cls, states: States, fps: int = 5, done: bool = False) -> Demonstrations:
        """What `tinyvla.act.rollout` recorded, episode by episode.

        Args:
            states: of the closed loop.
            done: export the actions that were done; else the expert's, to learn from.
        """
        order = np.argsort(states.episodes, kind="stable")
        actions = (states.actions if done else states.expert_actions)[order]
        return cls(
            {"camera": states.images[order]},
            actions.astype(np.float32),
            [states.instructions[i] for i in order],
            states.episodes[order].astype(np.int64),
            fps=fps,
            action_names=("dx", "dy"),
        )

    def chunks(self, horizon: int) -> Float32[np.ndarray, "n h a"]:
        """At each frame its action and those that follow; an episode's last action is repeated at its end."""
        last = np.append(np.flatnonzero(np.diff(self.episodes)), len(self) - 1)[self.episodes]
        ahead = np.minimum(np.arange(len(self))[:, None] + np.arange(horizon), last[:, None])
        return self.actions[ahead]

    def tensors(
        self, camera: str | None = None, image_size: int = 64, horizon: int = 1, device: torch.device | str = "cpu"
    ) -> TensorSplit:
        """To train on: images scaled to the policy's size, sentences tokenized, actions in chunks if asked for.

        Raises:
            InputError: there is no such camera, or several and none is named; or a word is unknown.
        """
        images = self.images[_one_camera(list(self.images), camera)]
        if images.shape[2:] != (image_size, image_size):
            images = np.stack([_scaled(image, image_size) for image in images])
        actions = self.actions if horizon == 1 else self.chunks(horizon)
        return TensorSplit.from_arrays(images, self.instructions, actions, device)


def _one_camera(cameras: list[str], asked: str | None) -> str:
    if asked is None and len(cameras) == 1:
        return cameras[0]
    if asked not in cameras:
        raise InputError(f"camera {asked!r} cannot be used; name one of {', '.join(cameras) or '(there is none)'}")
    return asked


def _scaled(image: UInt8[np.ndarray, "3 h w"], size: int) -> UInt8[np.ndarray, "3 s s"]:
    resized = Image.fromarray(image.transpose(1, 2, 0)).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(resized).transpose(2, 0, 1)
