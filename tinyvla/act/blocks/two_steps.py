"""Two steps in one sentence: "find the red block, then find the blue block".

    result = rollout(policy, TwoSteps(episode_seeds(100, seed=44), told="step"))

Notable:
- an episode succeeds when the camera has stopped on the first block and after that on the second;
- a policy that sees one image has no memory, so nothing tells it which step it is in. Told the whole sentence all the
  time (`told="all"`), the best that it can do is the first step. A planner has to remember for it: `told="step"` cuts
  the sentence at "then" and tells the policy the step that is due.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int64

from tinyvla.act.blocks.world import BlockWorld, WorldConfig
from tinyvla.act.result import Result
from tinyvla.act.world import Seeds
from tinyvla.data.dataset import COLORS, instruction_for
from tinyvla.errors import InputError
from tinyvla.fields import checked
from tinyvla.model.observation import TASK_KEY, Observation

THEN = ", then "
TOLD = ("step", "all")


def steps_of(sentence: str) -> list[str]:
    """Returns the sentences of a sentence's steps, in order: what a planner makes of it."""
    return [step.strip() for step in sentence.split(THEN)]


class TwoSteps(BlockWorld):
    """The block world with two blocks to stop on, one after the other.

    Args:
        seeds: one per episode, as of `BlockWorld`; blocks 0 and 1 of its scene are the targets.
        config: the rules; by default an episode may take twice as many steps.
        told: one of `TOLD`, what the policy hears: the step that is due, or the whole sentence.

    Attributes:
        stage: int64 `(n,)`, how many of the two have been stopped on, in order.

    Raises:
        InputError: `told` is unknown.
    """

    @checked
    def __init__(self, seeds: Seeds, config: WorldConfig | None = None, told: str = "step") -> None:
        if told not in TOLD:
            raise InputError(f"unknown told {told!r}; choose from {', '.join(TOLD)}")
        super().__init__(seeds, config or WorldConfig(max_steps=80))
        self.told, self.stage = told, np.zeros(len(self), dtype=np.int64)
        pairs = (THEN.join(instruction_for(COLORS[color]) for color in colors[:2]) for colors in self.colors)
        self.instructions = list(pairs)
        self._straight = self._straight + np.linalg.norm(self.centers[:, 1] - self.centers[:, 0], axis=1)

    def observe(self, episodes: Int64[np.ndarray, "k"] | None = None) -> Observation:
        """Returns views and what the policy is told in some episodes; in the running ones by default."""
        index = self.running if episodes is None else episodes
        observation = super().observe(index)
        if self.told == "step":
            due = [steps_of(self.instructions[i])[min(self.stage[i], 1)] for i in index]
            observation = {**observation, TASK_KEY: due}
        return observation

    def end_step(self, index: Int64[np.ndarray, "r"], succeeded: Bool[np.ndarray, "r"]) -> None:
        """Count a step; where the first block has been stopped on, the second is the target from now on."""
        arrived = index[succeeded]
        first = arrived[self.stage[arrived] == 0]
        self.stage[arrived] += 1
        for blocks in (self.centers, self.colors):
            blocks[first, :2] = blocks[first, 1::-1]
        super().end_step(index, succeeded & ~np.isin(index, first))

    def outcome(self) -> dict[str, np.ndarray]:
        """Returns how each episode went, as in `BlockWorld`, and `stage`, how many blocks it stopped on in order."""
        return {**super().outcome(), "stage": self.stage.copy()}

    @staticmethod
    def summary(result: Result) -> dict[str, float]:
        """Returns the shares of episodes that stopped on the first block, and on both."""
        stage = result.outcome["stage"]
        return {"first": float((stage >= 1).mean()), "both": float((stage >= 2).mean())}
