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
from jaxtyping import Bool, Float32, Float64, Int64, UInt8

from tinyvla.config import ModelConfig, ObservationConfig, model_config
from tinyvla.data.batch import TensorSplit, check_finite
from tinyvla.errors import InputError
from tinyvla.fields import StepsAhead, Within, check, check_number, checked, shown, taking
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
    timestamps: Float64[np.ndarray, "n"] | None = None
    """Seconds since the episode's beginning, as they were recorded; `fps` says what they should be."""

    def __post_init__(self) -> None:
        self._check_kinds()
        counts = {name: len(images) for name, images in self.images.items()}
        counts |= {"instructions": len(self.instructions), "episodes": len(self.episodes)}
        counts |= {} if self.states is None else {"states": len(self.states)}
        counts |= {} if self.timestamps is None else {"timestamps": len(self.timestamps)}
        wrong = {name: count for name, count in counts.items() if count != len(self.actions)}
        if wrong or not len(self.actions):
            raise InputError(f"there are {len(self.actions)} actions, but {wrong or 'no frames at all'}")
        if self.episodes[0] or not np.isin(np.diff(self.episodes), (0, 1)).all():
            raise InputError("episodes must be numbered 0, 1, 2, ..., the frames of each following each other")
        for values, what in ((self.actions, "the actions"), (self.states, "the states")):
            if values is not None:
                check_finite(torch.from_numpy(values), what)

    def _check_kinds(self) -> None:
        """Refuse arrays of another shape or type, sentences that are none, names that do not fit."""
        is_named = isinstance(self.images, dict) and all(isinstance(name, str) and name for name in self.images)
        check(is_named, f"the images are {shown(self.images)}; they must be a dict of arrays, by camera")
        check(bool(self.images), "there are no images; give those of at least one camera")
        for name, images in self.images.items():
            _check_array(images, f"the images of {shown(name)}", "uint8", 4)
            check(images.shape[1] == 3, f"the images of {shown(name)} are {images.shape}; they must be (n, 3, h, w)")
        _check_array(self.actions, "actions", "float32", 2)
        _check_array(self.episodes, "episodes", "int64", 1)
        if self.states is not None:
            _check_array(self.states, "states", "float32", 2)
        if self.timestamps is not None:
            _check_array(self.timestamps, "timestamps", "float64", 1)
            check(bool(np.isfinite(self.timestamps).all()), "timestamps hold NaN or infinite numbers; they are seconds")
        object.__setattr__(self, "fps", check_number("fps", self.fps, Within(1, 1_000)))
        texts = self.instructions if isinstance(self.instructions, list) else [None]
        wrong = [text for text in texts if not isinstance(text, str) or not text.strip()]
        check(not wrong, f"instructions hold {shown(wrong[:1])}; they must be a list of sentences")
        names, dim = self.action_names, self.actions.shape[1]
        fits = not names or (len(names) == dim and all(isinstance(name, str) for name in names))
        check(fits, f"action_names are {shown(names)}; there must be {dim}, one for each number of an action, or none")

    def __len__(self) -> int:
        return len(self.actions)

    def rows(self, index: Int64[np.ndarray, "k"]) -> Demonstrations:
        """Returns the frames at an index as recordings of their own; the episodes must come in order."""
        with taking(index, len(self)):
            return replace(
                self,
                images={name: images[index] for name, images in self.images.items()},
                actions=self.actions[index],
                instructions=[self.instructions[i] for i in index],
                episodes=np.unique(self.episodes[index], return_inverse=True)[1].astype(np.int64),
                states=None if self.states is None else self.states[index],
                timestamps=None if self.timestamps is None else self.timestamps[index],
            )

    @checked
    def joined(self, other: Demonstrations) -> Demonstrations:
        """Returns these episodes and then the other's, which must have the same cameras and the same numbers.

        Raises:
            InputError: they have not.
        """
        fits = self.images.keys() == other.images.keys() and self.fps == other.fps
        fits = fits and (self.states is None) == (other.states is None) and self.action_names == other.action_names
        check(fits, "only recordings with the same cameras, states, action names and fps can be joined")
        try:
            return replace(
                self,
                images={name: np.concatenate([images, other.images[name]]) for name, images in self.images.items()},
                actions=np.concatenate([self.actions, other.actions]),
                instructions=[*self.instructions, *other.instructions],
                episodes=np.concatenate([self.episodes, other.episodes + self.episodes[-1] + 1]),
                states=_both(self.states, other.states),
                timestamps=_both(self.timestamps, other.timestamps),
            )
        except ValueError as error:
            raise InputError(f"recordings of other sizes cannot be joined ({error})") from None

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

    @checked
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
        check_number("horizon", horizon, Within(1, 1_024))
        ahead, last = np.arange(len(self))[:, None] + np.arange(horizon), self._last_frames[:, None]
        return self.actions[np.minimum(ahead, last)], ahead > last

    @checked
    def future(self, steps: Sequence[StepsAhead]) -> Float32[np.ndarray, "n p s"]:
        """Returns the robot's own state some steps after each frame; after an episode's end its last one.

        Raises:
            InputError: no states were recorded.
        """
        if self.states is None:
            raise InputError("a policy with waypoints learns from the robot's states, and none were recorded")
        ahead = np.arange(len(self))[:, None] + np.asarray(steps, np.int64)
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
        check(hasattr(policy, "prepare"), f"policy is {shown(policy)}; it must be a TinyVLA")
        horizon, waypoints = policy.config.head.horizon, policy.config.head.waypoints
        actions, is_pad = (self.actions, None) if horizon == 1 else self.chunks(horizon)
        where = policy.device if device is None else device
        future = self.future(waypoints) if waypoints else None
        return policy.prepare.split(self.images, self.instructions, actions, where, self.states, is_pad, future)


def _both(one: np.ndarray | None, other: np.ndarray | None) -> np.ndarray | None:
    return None if one is None or other is None else np.concatenate([one, other])


def _check_array(array: Any, what: str, kind: str, ndim: int) -> None:
    fits = isinstance(array, np.ndarray) and array.dtype == kind and array.ndim == ndim
    have = f"{array.dtype} with {array.ndim} dimensions" if isinstance(array, np.ndarray) else shown(array)
    check(fits, f"{what} are {have}; they must be a NumPy array of {kind} with {ndim} dimensions")
