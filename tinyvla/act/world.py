"""What every world offers: many episodes side by side, in which one policy acts.

Notable:
- an episode follows from its seed, so every policy can be judged on the same ones;
- `observe`, `expert_chunk` and `step` are about the episodes that are still running, in order, so one forward pass of
  a policy serves them all; whoever has finished costs nothing;
- an observation is a dict with LeRobot's keys, as `TinyVLA.predict` takes it, with one row per running episode;
- a new world needs these few methods, and no copy of a rollout, a result or a film strip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt8

from tinyvla.act.result import Result
from tinyvla.errors import InputError
from tinyvla.fields import SEED, Within, check_number, checked, shown
from tinyvla.model.observation import TASK_KEY, Observation

SEEDS_OF_A_SPLIT = 100_000
Seeds = Sequence[int] | np.ndarray
"""One whole number for each episode."""


@runtime_checkable
class World(Protocol):
    """Episodes side by side. Below, n is the number of all episodes, r of those that are running."""

    @property
    def seeds(self) -> list[int]:
        """One per episode."""

    @property
    def instructions(self) -> list[str]:
        """One sentence per episode."""

    @property
    def action_dim(self) -> int:
        """Numbers in an action."""

    @property
    def steps(self) -> Int64[np.ndarray, "n"]:
        """Steps done in each episode."""

    @property
    def succeeded(self) -> Bool[np.ndarray, "n"]:
        """Which episodes have ended in success."""

    @property
    def running(self) -> Int64[np.ndarray, "r"]:
        """Indices of the episodes that go on."""

    def __len__(self) -> int:
        """Number of episodes."""

    def observe(self, episodes: Int64[np.ndarray, "k"] | None = None) -> Observation:
        """Returns what a policy may see of some episodes; of the running ones by default.

        Keys: `observation.images.NAME`, uint8 `(k, 3, h, w)`; `observation.state`, float32 `(k, s)`, where the robot
        has one; `task`, k sentences.
        """

    def expert_chunk(self, horizon: int) -> Float[np.ndarray, "r h a"]:
        """Returns the expert's next actions in the running episodes. It may know what no policy sees."""

    def step(self, actions: Float[np.ndarray, "r a"]) -> None:
        """Take one step in the running episodes, with one action each.

        Raises:
            InputError: there is not one action per running episode, or one is NaN or infinite.
        """

    def outcome(self) -> dict[str, np.ndarray]:
        """Returns how each episode went so far, by name: arrays with one entry per episode."""

    def summary(self, result: Result) -> dict[str, float]:
        """Returns an outcome in a few numbers, by name. A `staticmethod` travels between processes with the result."""

    def picture(self, episode: int, action: Float[np.ndarray, "a"] | None = None) -> UInt8[np.ndarray, "h w 3"]:
        """Returns an episode's present as a picture for people; a world may draw in the action that comes next."""


class Episodes:
    """The counting that worlds share: seeds, steps, and which episodes are over.

    Args:
        seeds: one per episode.
        max_steps: steps until an episode is cut off.

    Attributes:
        seeds: as given.
        steps: int64 `(n,)`, steps done.
        succeeded: bool `(n,)`, which episodes have ended in success.
        truncated: bool `(n,)`, which have used up their steps without success.

    Raises:
        InputError: there are no seeds, or one is out of range.
    """

    @checked
    def __init__(self, seeds: Seeds, max_steps: int) -> None:
        if not len(seeds):
            raise InputError("there are no seeds; give at least one seed")
        self.seeds = [check_number("an episode's seed", seed, SEED) for seed in seeds]
        self.max_steps = max_steps
        self.steps: Int64[np.ndarray, "n"] = np.zeros(len(seeds), np.int64)
        self.succeeded: Bool[np.ndarray, "n"] = np.zeros(len(seeds), bool)
        self.truncated: Bool[np.ndarray, "n"] = np.zeros(len(seeds), bool)

    def __len__(self) -> int:
        return len(self.seeds)

    @property
    def running(self) -> Int64[np.ndarray, "r"]:
        """Indices of the episodes that go on."""
        return np.flatnonzero(~(self.succeeded | self.truncated))

    def end_step(self, index: Int64[np.ndarray, "r"], succeeded: Bool[np.ndarray, "r"]) -> None:
        """Count a step of the running episodes and note which of them are over."""
        self.steps[index] += 1
        self.succeeded[index] = succeeded
        self.truncated[index] = ~succeeded & (self.steps[index] >= self.max_steps)


def checked_actions(actions: Float[np.ndarray, "..."], count: int, action_dim: int) -> Float[np.ndarray, "r a"]:
    """Returns actions as float64, cut off at [-1, 1].

    Raises:
        InputError: there is not one action per running episode, or one is NaN or infinite.
    """
    if actions.shape != (count, action_dim):
        raise InputError(f"actions have shape {actions.shape}; {count} running episodes need {count, action_dim}")
    if not np.isfinite(actions).all():
        raise InputError("an action is NaN or infinite")
    return np.clip(actions.astype(np.float64), -1, 1)


def rows(observation: Observation, index: Int64[np.ndarray, "k"] | Bool[np.ndarray, "r"]) -> Observation:
    """Returns some rows of an observation, by their numbers or by a mask."""
    numbers = np.flatnonzero(index) if index.dtype == bool else index
    return {
        key: [value[i] for i in numbers] if isinstance(value, list | tuple) else value[numbers]
        for key, value in observation.items()
    }


def num_rows(observation: Observation) -> int:
    """Returns the number of rows of an observation.

    Raises:
        InputError: it has no sentences, or a single one.
    """
    texts = observation.get(TASK_KEY) if isinstance(observation, Mapping) else None
    if not isinstance(texts, list | tuple):
        raise InputError(
            f"an observation of many episodes needs a list of sentences under {TASK_KEY!r}, not {shown(texts)}"
        )
    return len(texts)


def episode_seeds(num_episodes: int, seed: int) -> list[int]:
    """Returns the seeds of some episodes. Those of two different seeds never overlap, so training and test stay apart.

    Raises:
        InputError: `num_episodes` is not in 1 ... 100,000 or `seed` not in 0 ... 42,948.
    """
    block = SEEDS_OF_A_SPLIT
    check_number("the number of episodes", num_episodes, Within(1, block))
    check_number("the episodes' seed", seed, Within(0, 2**32 // block - 1))
    return [seed * block + i for i in range(num_episodes)]
