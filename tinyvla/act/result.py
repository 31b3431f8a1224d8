"""What is left of a rollout: how the episodes went, and the states that they visited."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64, UInt8

from tinyvla.data.batch import TensorSplit
from tinyvla.data.demonstrations import Demonstrations
from tinyvla.errors import InputError, counted
from tinyvla.model.policy import TinyVLA
from tinyvla.stats import share_with_interval, wilson_interval


@dataclass(frozen=True)
class States:
    """What was seen and done at each step of some episodes, and what the expert would have done; step by step."""

    images: dict[str, UInt8[np.ndarray, "m 3 h w"]]
    """By camera."""
    state: Float32[np.ndarray, "m s"] | None
    """The robot's own, where it has one."""
    instructions: list[str]
    expert_chunks: Float32[np.ndarray, "m k a"]
    """The expert's next actions from each state, planned there, whoever acted."""
    actions: Float[np.ndarray, "m a"]
    """What was done."""
    episodes: Int64[np.ndarray, "m"]
    """Index of each state's episode."""

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def expert_actions(self) -> Float32[np.ndarray, "m a"]:
        """The expert's next action from each state."""
        return self.expert_chunks[:, 0]

    def of_episode(self, episode: int) -> Int64[np.ndarray, "k"]:
        """Returns the indices of an episode's states, in order.

        Raises:
            InputError: there is no such episode.
        """
        index = np.flatnonzero(self.episodes == episode)
        if not len(index):
            raise InputError(f"there is no episode {episode}; the last one is {self.episodes.max()}")
        return index

    def tensors(self, policy: TinyVLA, device: torch.device | str | None = None) -> TensorSplit:
        """Returns the states for a policy to train on, with the expert's actions as labels, in chunks of its length.

        Images, sentences and states are treated as the policy treats them when it acts: its size, its tokenizer.

        Args:
            policy: the one that shall learn from them.
            device: where to put the tensors; where the policy is, by default.

        Raises:
            InputError: the recorded chunks are too short, or a camera or the state that the policy needs is missing.
        """
        horizon, recorded = policy.config.head.horizon, self.expert_chunks.shape[1]
        if recorded < horizon:
            raise InputError(
                f"the policy makes chunks of {horizon} actions, but {recorded} of the expert's were recorded; "
                f"record with horizon={horizon}"
            )
        actions = self.expert_actions if horizon == 1 else self.expert_chunks[:, :horizon]
        where = policy.device if device is None else device
        return policy.prepare.split(self.images, self.instructions, actions, where, self.state)

    def demonstrations(self, fps: int = 5, done: bool = False, action_names: Sequence[str] = ()) -> Demonstrations:
        """Returns the states episode by episode, as a recording that can be written to a file.

        Args:
            fps: frames a second.
            done: take the actions that were done; else the expert's, to learn from.
            action_names: what each number of an action is.
        """
        order = np.argsort(self.episodes, kind="stable")
        actions = self.actions if done else self.expert_actions
        return Demonstrations(
            {name: images[order] for name, images in self.images.items()},
            actions[order].astype(np.float32),
            [self.instructions[i] for i in order],
            self.episodes[order],
            None if self.state is None else self.state[order],
            fps,
            tuple(action_names),
        )

    @staticmethod
    def joined(parts: Sequence[States]) -> States:
        """Returns all states of several recordings; the episodes are numbered on."""
        starts = np.cumsum([0, *(part.episodes.max(initial=-1) + 1 for part in parts)])
        states = [part.state for part in parts if part.state is not None]
        return States(
            {name: np.concatenate([part.images[name] for part in parts]) for name in parts[0].images},
            np.concatenate(states) if states else None,
            [text for part in parts for text in part.instructions],
            np.concatenate([part.expert_chunks for part in parts]),
            np.concatenate([part.actions for part in parts]),
            np.concatenate([part.episodes + start for part, start in zip(parts, starts, strict=False)]),
        )


@dataclass(frozen=True)
class Result:
    """How some episodes went, one entry per episode."""

    seeds: list[int]
    instructions: list[str]
    success: Bool[np.ndarray, "n"]
    steps: Int64[np.ndarray, "n"]
    outcome: dict[str, np.ndarray]
    """What the world says about each episode's end, by name."""
    summarize: Callable[[Result], dict[str, float]] = field(repr=False)
    """The world's `summary`."""
    states: States | None = None
    """The visited states, of as many episodes as were asked for."""
    execute: int = 1
    """Actions done after each look."""

    def __len__(self) -> int:
        return len(self.seeds)

    @property
    def success_rate(self) -> float:
        """Share of episodes that ended in success."""
        return float(self.success.mean())

    @property
    def looks(self) -> Int64[np.ndarray, "n"]:
        """How often the policy was asked in each episode."""
        return -(-self.steps // self.execute)

    @property
    def summary(self) -> dict[str, float]:
        """The world's own measures in a few numbers, by name."""
        return self.summarize(self)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain numbers, as `tinyvla rollout --json` prints them, with the interval of the success."""
        return {
            "success": self.success_rate,
            "success_interval": wilson_interval(self.success_rate, len(self)),
            **self.summary,
            "mean_steps": float(self.steps.mean()),
            "num_episodes": len(self),
        }

    def table(self, name: str) -> str:
        """Returns the numbers as lines for the terminal."""
        head = f"{name[-25:]:27}{counted(len(self), 'episode')}; 95 % Wilson interval in brackets"
        values = {name.replace("_", " "): f"{value:.3f}" for name, value in self.summary.items()}
        lines = {"success": share_with_interval(self.success_rate, len(self)), **values}
        lines["mean steps"] = f"{self.steps.mean():.1f}"
        rule = "-" * len(head)
        return "\n".join([head, rule, *(f"{label:27}{value}" for label, value in lines.items()), rule])

    @staticmethod
    def joined(parts: Sequence[Result]) -> Result:
        """Returns the episodes of several results of one world, such as those of several processes."""
        states = [part.states for part in parts if part.states is not None]
        return Result(
            [seed for part in parts for seed in part.seeds],
            [text for part in parts for text in part.instructions],
            np.concatenate([part.success for part in parts]),
            np.concatenate([part.steps for part in parts]),
            {name: np.concatenate([part.outcome[name] for part in parts]) for name in parts[0].outcome},
            parts[0].summarize,
            States.joined(states) if states else None,
            parts[0].execute,
        )
