"""Learning to act: clone the expert's episodes, or label the states that the policy itself came to.

Notable:
- a policy trained on the expert's states alone meets others once it errs; `dagger` labels those with the expert's
  action and trains on them too (Ross et al. 2011, https://arxiv.org/abs/1011.0686);
- both work in every world whose expert can plan; labels are chunks of the policy's length;
- images and sentences are prepared by the policy itself, so they are what it will see and hear when it acts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Any

import torch

from tinyvla.act.blocks.world import BlockWorld
from tinyvla.act.controller import Act
from tinyvla.act.result import States
from tinyvla.act.rollout import expert, rollout
from tinyvla.act.world import World, episode_seeds
from tinyvla.config import ModelConfig
from tinyvla.data.batch import TensorSplit
from tinyvla.errors import InputError
from tinyvla.fields import Many, Within, checked
from tinyvla.learn.train import fit
from tinyvla.model.policy import TinyVLA, new_policy
from tinyvla.recipes import DataConfig, TrainConfig

NUM_VAL = 100
"""Episodes of the expert that validate."""


@checked
def demonstrations(world: World, policy: TinyVLA, device: torch.device | str | None = None) -> TensorSplit:
    """Returns the states that the expert visits, with its actions: what behaviour cloning learns from.

    Args:
        world: a new one; the expert runs all its episodes.
        policy: the one that shall learn from them; the labels are chunks of its length.
        device: where to put the tensors; where the policy is, by default.
    """
    return visited_states(expert, world, policy.config.head.horizon).tensors(policy, device)


@checked
def visited_states(act: TinyVLA | Act, world: World, horizon: int = 1, beta: float = 0.0) -> States:
    """Returns the states of all episodes of a new world, with chunks of the expert's actions as labels."""
    states = rollout(act, world, beta=beta, record=len(world), horizon=horizon).states
    assert states is not None
    return states


@checked
def dagger(
    policy_config: ModelConfig,
    rounds: int = 3,
    episodes: Many = 200,
    train_config: TrainConfig = TrainConfig(epochs=4, learning_rate=1e-3),  # noqa: B008 - frozen
    make_world: Callable[[Sequence[int]], World] = BlockWorld,
    beta: Annotated[float, Within(0, 1)] = 0.0,
    data: DataConfig = DataConfig(),  # noqa: B008 - frozen
    num_test: Many = 500,
    device: torch.device | str = "cpu",
    on_round: Callable[[dict[str, Any]], None] | None = None,
) -> tuple[TinyVLA, list[dict[str, Any]]]:
    """Dataset aggregation (https://arxiv.org/abs/1011.0686, algorithm 3.1): let the policy act, let the expert label.

    Round 0 clones the expert's own episodes. Each later round rolls the policy out over new episodes, labels every
    state that it visited with the expert's action, adds them to all earlier ones and trains on the whole.

    Training goes on from the last round's weights (warm) with a fresh optimizer and schedule. The paper trains from
    scratch; warm costs less, and nothing is forgotten, since all earlier states stay in the data.

    Args:
        policy_config: of the policy, which is made here from `train_config.seed`.
        rounds: rounds after the cloning; 0 is behaviour cloning alone.
        episodes: new ones in each round, never used before.
        train_config: of each round; its epochs are passes over all states so far.
        make_world: a world from the seeds of its episodes, such as `lambda seeds: ArmWorld(seeds, "reach")`.
        beta: in round i the expert acts with probability `beta ** i`; 0 lets the policy act alone, the paper's
            parameter-free choice.
        data: seeds of the episodes to train, validate and test on, as given to `episode_seeds`.
        num_test: test episodes, the same after each round; nothing is chosen by them.
        on_round: called with each round's record.

    Returns:
        The policy, and one record per round: round, num_states and train_steps so far, val_loss (on states of the
        expert), and `Result.to_dict()` of the test episodes.

    Raises:
        InputError: `rounds` is negative or a number of episodes is not usable.
    """
    if rounds < 0:
        raise InputError(f"rounds is {rounds}; it must not be negative (0 is behaviour cloning alone)")
    seeds = episode_seeds(episodes * (rounds + 1), data.train_seed)
    policy = new_policy(policy_config, train_config.seed, device)
    val = demonstrations(make_world(episode_seeds(NUM_VAL, data.val_seed)), policy)
    states: list[States] = []
    records: list[dict[str, Any]] = []
    train_steps = 0
    for number in range(rounds + 1):
        world = make_world(seeds[number * episodes :][:episodes])
        act = policy if number else expert
        states.append(visited_states(act, world, policy_config.head.horizon, beta**number))
        aggregate = States.joined(states).tensors(policy)
        if not number:
            policy.prepare_for(aggregate)
        settings = replace(train_config, seed=(train_config.seed + number) % 2**63)
        trained = fit(policy, aggregate, val, settings)
        train_steps += trained[-1]["step"]
        result = rollout(policy, make_world(episode_seeds(num_test, data.test_seed)))
        record = {"round": number, "num_states": len(aggregate), "train_steps": train_steps}
        records.append({**record, "val_loss": trained[-1]["val_loss"], **result.to_dict()})
        if on_round:
            on_round(records[-1])
    return policy.eval(), records
