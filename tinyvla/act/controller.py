"""A policy that acts: it is asked, its chunk of actions is used up or averaged, and it is asked again.

    controller = Controller(policy, execute=4)
    action = controller.act(observation)[0]  # of a robot: one episode, so each observation has one row

Notable:
- one controller serves many episodes, which may begin and end at different times; each has its own plan;
- **a queue**: of each chunk, `execute` actions are done before the policy looks again;
- **temporal ensembling**, from ACT (https://arxiv.org/abs/2304.13705): the policy looks at every step, and the action
  is the mean of all that its last chunks planned for this step, with weight exp(-m i), where i = 0 is the oldest. A
  large m trusts the oldest plan, a negative one the newest;
- a policy's answer depends on nothing but what it sees: a head that draws, draws from the same seed in each call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64

from tinyvla.act.world import num_rows, rows
from tinyvla.errors import InputError, counted
from tinyvla.fields import Many, Within, check, check_number, checked, shown
from tinyvla.model.observation import Observation
from tinyvla.model.policy import TinyVLA

Act = Callable[[Observation], Any]
"""An observation of r episodes in; r actions `(r, a)`, or chunks of them `(r, h, a)`, out."""

ROWS_AT_ONCE = 250


def answers_of(policy: TinyVLA) -> Act:
    """Returns a policy as a function of an observation of many episodes, which answers the same each time."""

    def act(observation: Observation) -> np.ndarray:
        generator = torch.Generator(policy.device).manual_seed(0)
        count = num_rows(observation)
        parts = np.split(np.arange(count), range(ROWS_AT_ONCE, count, ROWS_AT_ONCE))
        answers = [policy.predict(rows(observation, part), generator=generator).numpy() for part in parts]
        return np.concatenate(answers)

    return act


class Controller:
    """Asks a policy when it has to and hands out one action at a time.

    Args:
        policy: a policy, or a function of an observation (see `Act`).
        execute: actions of a chunk that are done before the policy looks again, at most the chunk's length.
        ensemble: ACT's m, to average chunks (0.01 there); None executes them as they are. Needs `execute` 1.

    Raises:
        InputError: `execute` or `ensemble` is not usable.
    """

    def __init__(self, policy: TinyVLA | Act, execute: int = 1, ensemble: float | None = None) -> None:
        execute = check_number("execute", execute, Within(1, 1_024))
        if ensemble is not None:
            ensemble = check_number("ensemble", ensemble, Within(-5, 5), whole=False)
        check(callable(policy), f"the policy is {shown(policy)}; it must be a TinyVLA, or a function of an observation")
        if ensemble is not None and execute != 1:
            raise InputError(f"execute is {execute}, but ensembling looks at every step; leave execute at 1")
        self.execute, self.ensemble = execute, ensemble
        self._ask = answers_of(policy) if isinstance(policy, TinyVLA) else policy
        self.reset()

    @checked
    def reset(self, num_episodes: Many = 1, action_dim: Many | None = None) -> None:
        """Forget all plans and begin some episodes.

        Args:
            num_episodes: how many; `act` names them by their indices.
            action_dim: numbers in an action, to check the policy's answers against; not checked if None.
        """
        self.action_dim = action_dim
        self._left: Int64[np.ndarray, "n"] = np.zeros(num_episodes, np.int64)  # actions to do before the next look
        self._plans: np.ndarray | None = None  # (n, h, a): the next actions, or sums of weighted ones
        self._weights: np.ndarray | None = None  # (n, h): the sums' weights

    def due(self, episodes: Int64[np.ndarray, "r"]) -> Bool[np.ndarray, "r"]:
        """Returns which of some episodes need a look for their next action. The others need no observation."""
        return self._left[episodes] == 0

    def act(
        self, observation: Observation | None, episodes: Int64[np.ndarray, "r"] | None = None
    ) -> Float[np.ndarray, "r a"]:
        """Returns the next action of some episodes.

        Args:
            observation: with one row for each of them; may be None where none is due.
            episodes: their indices, in the observation's order; all by default.

        Raises:
            InputError: the policy's answer has a wrong shape, is shorter than `execute` or is not finite, or the
                observation does not fit the episodes.
        """
        episodes = np.arange(len(self._left)) if episodes is None else episodes
        due = self.due(episodes)
        if due.any():
            self._plan(self._chunks(observation, due), episodes[due])
        assert self._plans is not None
        actions = self._plans[episodes, 0]
        if self._weights is not None:
            actions = actions / self._weights[episodes, :1]
        self._go_on(episodes)
        return actions

    def _chunks(self, observation: Observation | None, due: Bool[np.ndarray, "r"]) -> Float[np.ndarray, "k h a"]:
        """The policy's answer to the rows that are due, checked."""
        if observation is None or num_rows(observation) != len(due):
            seen = "no observation" if observation is None else f"an observation of {num_rows(observation)} rows"
            raise InputError(f"given are {counted(len(due), 'episode')} and {seen}; give one row for each episode")
        count, need = int(due.sum()), self.action_dim or "a"
        answer = np.asarray(self._ask(observation if due.all() else rows(observation, due)), np.float64)
        chunks = answer[:, None] if answer.ndim == 2 else answer
        if chunks.ndim != 3 or len(chunks) != count or self.action_dim not in (None, chunks.shape[2]):
            shapes = f"({count}, {need}), or ({count}, h, {need}) for chunks"
            raise InputError(f"actions have shape {answer.shape}; {count} running episodes need {shapes}")
        if chunks.shape[1] < self.execute:
            raise InputError(
                f"execute is {self.execute}, but the policy answers with {chunks.shape[1]} action(s) at a time"
            )
        if not np.isfinite(chunks).all():
            raise InputError("an action is NaN or infinite")
        if self._plans is not None and chunks.shape[1:] != self._plans.shape[1:]:
            before, now = self._plans.shape[1:], chunks.shape[1:]
            raise InputError(f"the policy answered with chunks of shape {before} before and of {now} now")
        return chunks

    def _plan(self, chunks: Float[np.ndarray, "k h a"], episodes: Int64[np.ndarray, "k"]) -> None:
        """Take in new chunks: in place of what is left of the old ones, or into the weighted sums."""
        if self._plans is None:
            self._plans = np.zeros((len(self._left), *chunks.shape[1:]))
            self._weights = None if self.ensemble is None else np.zeros(self._plans.shape[:2])
        if self.ensemble is None or self._weights is None:
            self._plans[episodes] = chunks
        else:  # older chunks gain on the new one, so that their weights keep ACT's ratio
            growth = np.exp(self.ensemble)
            self._plans[episodes] = self._plans[episodes] * growth + chunks
            self._weights[episodes] = self._weights[episodes] * growth + 1
        self._left[episodes] = self.execute

    def _go_on(self, episodes: Int64[np.ndarray, "r"]) -> None:
        """Drop the actions of this step."""
        for plans in (self._plans, self._weights):
            if plans is not None:
                plans[episodes] = np.roll(plans[episodes], -1, axis=1)
                plans[episodes, -1] = 0
        self._left[episodes] -= 1
