"""Recorded demonstrations as arrays, whatever robot, simulator or file they come from.

Notable:
- one shape for all: images by camera, actions, a sentence and an episode's number for each frame;
- `tinyvla.data.lerobot` reads and writes them as a LeRobotDataset; `tensors` makes what `fit` takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt8

from tinyvla.config import ModelConfig, ObservationConfig, model_config
from tinyvla.data.batch import TensorSplit
from tinyvla.errors import InputError
from tinyvla.recipes import RecordingConfig

if TYPE_CHECKING:
    from tinyvla.model.policy import TinyVLA


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

    def rows(self, index: Int64[np.ndarray, "k"]) -> Demonstrations:
        """Returns the frames at an index as recordings of their own; the episodes must come in order."""
        return replace(
            self,
            images={name: images[index] for name, images in self.images.items()},
            actions=self.actions[index],
            instructions=[self.instructions[i] for i in index],
            episodes=np.unique(self.episodes[index], return_inverse=True)[1].astype(np.int64),
            states=None if self.states is None else self.states[index],
        )

    def policy_config(
        self,
        preset: str = "minimal",
        head: str = "regression",
        horizon: int = 1,
        image_size: int | tuple[int, int] = 64,
        normalization: str = "quantiles",
        fusion: str | None = None,
        patch_size: int = 8,
        stem: str = "linear",
        waypoints: tuple[int, ...] = (),
    ) -> ModelConfig:
        """Returns the configuration of a policy for these recordings: their cameras, their state, their actions.

        Args:
            preset: whose towers and fusion.
            head: one of `tinyvla.registry.HEADS`.
            horizon: actions in a chunk.
            image_size: of the policy, to which images are scaled: pixels, or height and width.
            normalization: of actions and of the state, one of `tinyvla.config.NORMALIZATIONS`.
            fusion: one of `tinyvla.registry.FUSIONS`; the preset's by default.
            patch_size: side of a patch, in pixels, which must divide the image size.
            stem: how a patch becomes a token, one of `tinyvla.config.STEMS`.
            waypoints: steps ahead at which the robot's own state is a further target in training.
        """
        config = model_config(preset, fusion, head)
        vision: Any = config.vision  # a preset's own, never a pretrained one
        state_dim = 0 if self.states is None else self.states.shape[1]
        return replace(
            config,
            vision=replace(vision, image_size=image_size, patch_size=patch_size, stem=stem),
            head=replace(
                config.head,
                action_dim=self.actions.shape[1],
                horizon=horizon,
                normalization=normalization,
                waypoints=waypoints,
            ),
            observation=ObservationConfig(tuple(self.images), state_dim, state_normalization=normalization),
        )

    def robot_config(
        self,
        sizes: RecordingConfig | None = None,
        preset: str = "minimal",
        fusion: str | None = None,
        head: str | None = None,
    ) -> ModelConfig:
        """Returns the configuration that was found best for a robot: many pixels in 64 tokens, words behind them.

        Args:
            sizes: of images and chunks.
            preset: whose towers.
            fusion: one of `tinyvla.registry.FUSIONS`; "prefix" by default.
            head: one of `tinyvla.registry.HEADS`; "l1" by default.
        """
        sizes = sizes or RecordingConfig()
        return self.policy_config(
            preset,
            head or "l1",
            sizes.horizon,
            sizes.image_size,
            sizes.normalization,
            fusion or "prefix",
            sizes.patch_size,
            sizes.stem,
            () if self.states is None else sizes.waypoints,
        )

    def chunks(self, horizon: int) -> tuple[Float32[np.ndarray, "n h a"], Bool[np.ndarray, "n h"]]:
        """Returns each frame's action and those that follow, and which of them lie after the episode's end.

        There the last action is repeated; a policy's loss leaves it out.

        Raises:
            InputError: the horizon is below one.
        """
        if horizon < 1:
            raise InputError(f"horizon is {horizon}; a chunk holds at least one action")
        ahead, last = np.arange(len(self))[:, None] + np.arange(horizon), self._last_frames[:, None]
        return self.actions[np.minimum(ahead, last)], ahead > last

    def future(self, steps: Sequence[int]) -> Float32[np.ndarray, "n p s"]:
        """Returns the robot's own state some steps after each frame; after an episode's end its last one.

        Raises:
            InputError: no states were recorded.
        """
        if self.states is None:
            raise InputError("a policy with waypoints learns from the robot's states, and none were recorded")
        ahead = np.arange(len(self))[:, None] + np.asarray(steps)
        return self.states[np.minimum(ahead, self._last_frames[:, None])]

    @property
    def _last_frames(self) -> Int64[np.ndarray, "n"]:
        """The number of the last frame of each frame's episode."""
        return np.append(np.flatnonzero(np.diff(self.episodes)), len(self) - 1)[self.episodes]

    def tensors(self, policy: TinyVLA, device: torch.device | str | None = None) -> TensorSplit:
        """Returns the frames for a policy to train on: its cameras, its size, its tokenizer, chunks of its length.

        Args:
            policy: the one that shall learn from them.
            device: where to put the tensors; where the policy is, by default.

        Raises:
            InputError: a camera or the state that the policy needs is missing, or a sentence is not usable.
        """
        horizon, waypoints = policy.config.head.horizon, policy.config.head.waypoints
        actions, is_pad = (self.actions, None) if horizon == 1 else self.chunks(horizon)
        where = policy.device if device is None else device
        future = self.future(waypoints) if waypoints else None
        return policy.prepare.split(self.images, self.instructions, actions, where, self.states, is_pad, future)
