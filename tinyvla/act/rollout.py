"""The closed loop: let a policy act in a world until every episode is over, and say how it went.

    result = rollout(policy, BlockWorld(episode_seeds(500, seed=44)))
    print(result.table("my policy"))

Notable:
- it is one loop for all worlds: the policy is handed what it may see of all running episodes, and nothing else;
- the expert can act alone, share the control with a policy, or label the states that a policy visits; it is given
  information that no policy sees;
- a disturbed expert also shows how to recover: some of its actions are changed at random, and each state is labelled
  with the action that it intended (DART, https://arxiv.org/abs/1703.09327);
- an episode is its seed and its actions, so it can be done again (`replay`), for a film or to measure something else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from jaxtyping import Float, Int64

from tinyvla.act.controller import Act, Controller
from tinyvla.act.result import Result, States
from tinyvla.act.world import World, num_rows, rows
from tinyvla.errors import InputError
from tinyvla.fields import MANY, Many, Seed, Within, checked
from tinyvla.model.observation import IMAGE_KEY, STATE_KEY, TASK_KEY, Observation
from tinyvla.model.policy import TinyVLA

__all__ = ["expert", "random_policy", "replay", "rollout"]

Disturb = Callable[[np.ndarray, np.random.RandomState], np.ndarray]
"""Actions `(r, a)` as they are meant and a generator in; actions as they are done out."""


def expert(observation: Observation) -> Float[np.ndarray, "r a"]:
    """The world's scripted expert, to be given to `rollout`, which knows it and asks the world what it does."""
    raise InputError("the expert acts only inside rollout(expert, ...): it needs to know places, not images")


@checked
def random_policy(seed: Seed = 0, action_dim: Many = 2) -> Act:
    """Returns a policy that acts without looking or listening, evenly over all actions in [-1, 1]."""
    rng = np.random.RandomState(seed)
    return lambda observation: rng.uniform(-1, 1, size=(num_rows(observation), action_dim))


@checked
def replay(states: States, episode: int) -> Act:
    """Returns a policy that does again what was done in an episode, for a world with that episode's seed alone."""
    actions = iter(states.actions[states.of_episode(episode)])
    return lambda observation: next(actions)[None]


@checked
def rollout(
    act: Controller | TinyVLA | Act,
    world: World,
    execute: int = 1,
    ensemble: float | None = None,
    beta: Annotated[float, Within(0, 1)] = 0.0,
    disturb: Disturb | None = None,
    record: Annotated[int, Within(0, MANY.high)] = 0,
    horizon: Annotated[int, Within(1, 1_024)] = 1,
    on_step: Callable[[World, np.ndarray], None] | None = None,
) -> Result:
    """Run all episodes of a world at once, each until it ends.

    Args:
        act: a policy, a function of an observation, `expert`, or a `Controller` with settings of its own.
        world: a new one; its episodes are over afterwards.
        execute: actions of a chunk that are done before the policy looks again, at most the chunk's length.
        ensemble: averages the chunks of the last steps instead; see `Controller`.
        beta: probability, at each step of each episode, that the expert acts instead.
        disturb: changes what is done, such as `tinyvla.act.arm.expert.disturbance(0.4)`; labels stay what was meant.
        record: keep every state that the first so many episodes visit, with its images and the expert's label.
        horizon: the label is a chunk of the expert's next so many actions.
        on_step: called before each step with the world and the actions of its running episodes.

    Returns:
        How the episodes went. The same arguments give the same result.

    Raises:
        InputError: an argument is not usable, the world's episodes are over, or the policy's actions do not fit.
    """
    if not len(world.running):
        raise InputError("all episodes of this world are over; make a new world for each rollout")
    controller = act if isinstance(act, Controller) else Controller(act, execute, ensemble)
    controller.reset(len(world), world.action_dim)
    actor = _Actor(controller, 1.0 if act is expert else beta, np.random.RandomState(world.seeds[0]))
    visited: list[_Visit] = []
    while len(index := world.running):
        kept = index < record
        plans = world.expert_chunk(horizon) if actor.beta or kept.any() else None
        observation = world.observe(index) if actor.must_look(index) else None
        actions = actor.actions(observation, index, plans)
        actions = disturb(actions, actor.rng) if disturb else actions
        if plans is not None and kept.any():
            seen = rows(observation, kept) if observation else world.observe(index[kept])
            visited.append((seen, plans[kept].astype(np.float32), actions[kept], index[kept]))
        if on_step:
            on_step(world, actions)
        world.step(actions)
    return Result(
        seeds=world.seeds,
        instructions=world.instructions,
        success=world.succeeded.copy(),
        steps=world.steps.copy(),
        outcome=world.outcome(),
        summarize=world.summary,
        states=_states(visited) if visited else None,
        execute=controller.execute,
    )


class _Actor:
    """Who acts in each step: the policy, the expert, or either by chance."""

    def __init__(self, controller: Controller, beta: float, rng: np.random.RandomState) -> None:
        self.controller, self.beta, self.rng = controller, beta, rng

    def must_look(self, index: Int64[np.ndarray, "r"]) -> bool:
        """Whether the policy needs an observation for the next step."""
        return self.beta < 1 and bool(self.controller.due(index).any())

    def actions(
        self, observation: Observation | None, index: Int64[np.ndarray, "r"], plans: Float[np.ndarray, "r h a"] | None
    ) -> Float[np.ndarray, "r a"]:
        """What is meant to be done in the running episodes."""
        if plans is not None and self.beta == 1:
            return plans[:, 0]
        own = self.controller.act(observation, index)
        if plans is None or not self.beta:
            return own
        return np.where(self.rng.random_sample((len(index), 1)) < self.beta, plans[:, 0], own)


_Visit = tuple[Observation, np.ndarray, np.ndarray, np.ndarray]
"""Observation, the expert's chunks, actions and indices of the recorded episodes in one step."""


def _states(visited: list[_Visit]) -> States:
    """All steps of a rollout in one."""
    observations, plans, actions, episodes = zip(*visited, strict=True)

    def joined(key: str) -> Any:
        return np.concatenate([observation[key] for observation in observations])

    first = observations[0]
    return States(
        images={key.removeprefix(IMAGE_KEY): joined(key) for key in first if key.startswith(IMAGE_KEY)},
        state=joined(STATE_KEY) if STATE_KEY in first else None,
        instructions=[text for observation in observations for text in observation[TASK_KEY]],
        expert_chunks=np.concatenate(plans),
        actions=np.concatenate(actions),
        episodes=np.concatenate(episodes),
    )
