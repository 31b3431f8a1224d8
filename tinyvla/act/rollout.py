"""The closed loop: let a policy steer the camera, judge where it ends, and teach it from where it went.

Notable:
- `rollout` asks a policy once a step for all running episodes; it hands over images and instructions and nothing else;
- a policy may answer with a chunk of actions, of which `execute` are done before it is asked again;
- a policy trained on the expert's states alone meets others once it errs; `dagger` labels those with the expert's
  action and trains on them too (Ross et al. 2011, https://arxiv.org/abs/1011.0686);
- a success is weighted by its path, as in SPL (Anderson et al. 2018, https://arxiv.org/abs/1807.06757).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8

from tinyvla.data.batch import TensorSplit
from tinyvla.config import DataConfig, InputError, ModelConfig, TrainConfig
from tinyvla.data.blockfind import instruction_for
from tinyvla.learn.evaluate import predict_split, share_with_interval, wilson_interval
from tinyvla.model.policy import TinyVLA
from tinyvla.learn.train import fit, new_policy
from tinyvla.act.block_world import (
    BatchedWorld,
    WorldConfig,
    episode_seeds,
    expert_action,
    expert_chunk,
    random_action,
)

Act = Callable[[np.ndarray, list[str]], np.ndarray]
"""Images, uint8 `(n, 3, 64, 64)`, and `n` instructions in; actions `(n, 2)` or chunks of them, `(n, h, 2)`, out."""


def expert(images: UInt8[np.ndarray, "n 3 64 64"], instructions: list[str]) -> Float[np.ndarray, "n 2"]:
    """The scripted expert, to be given to `rollout`, which knows it and tells it where the target is."""
    raise InputError("the expert acts only inside rollout(expert, ...): it needs the target's place, not images")


def random_policy(seed: int = 0) -> Act:
    """Acts without looking or listening, evenly over all actions."""
    rng = np.random.RandomState(seed)
    return lambda images, instructions: random_action(rng, len(images))


def policy_act(policy: TinyVLA) -> Act:
    """A policy as `rollout` takes it, on the device where it is."""

    def act(images: np.ndarray, instructions: list[str]) -> np.ndarray:
        no_labels = np.zeros((len(images), 2), np.float32)
        tokenize = policy.language.encode
        states = TensorSplit.from_arrays(images, instructions, no_labels, policy.device, tokenize)
        return predict_split(policy, states).numpy()

    return act


@dataclass(frozen=True)
class States:
    """What was seen and done at each step of some episodes, step by step."""

    images: UInt8[np.ndarray, "m 3 64 64"]
    instructions: list[str]
    offsets: Float[np.ndarray, "m 2"]
    """Pixels to the target; no policy sees them."""
    expert_actions: Float[np.ndarray, "m 2"]
    actions: Float[np.ndarray, "m 2"]
    """What was done."""
    episodes: Int64[np.ndarray, "m"]
    """Index of each state's episode."""

    def __len__(self) -> int:
        return len(self.images)

    def tensors(self, device: torch.device | str = "cpu") -> TensorSplit:
        """The states with the expert's actions as labels, to train on."""
        return TensorSplit.from_arrays(self.images, self.instructions, self.expert_actions, device)

    def of_episode(self, episode: int) -> Int64[np.ndarray, "k"]:
        """Indices of an episode's states, in order.

        Raises:
            InputError: there is no such episode.
        """
        index = np.flatnonzero(self.episodes == episode)
        if not len(index):
            raise InputError(f"there is no episode {episode}; the last one is {self.episodes.max()}")
        return index


@dataclass(frozen=True)
class RolloutResult:
    """How some episodes went, one entry per episode."""

    seeds: list[int]
    instructions: list[str]
    success: Bool[np.ndarray, "n"]
    """Stopped on the named block."""
    reached: Bool[np.ndarray, "n"]
    """Was centred on the named block at some step, whether it stopped there or not."""
    steps: Int64[np.ndarray, "n"]
    path_lengths: Float[np.ndarray, "n"]
    """Pixels travelled."""
    expert_path_lengths: Float[np.ndarray, "n"]
    """Pixels that the expert travels in the same episode: the straight line."""
    final_distances: Float[np.ndarray, "n"]
    """Pixels to the named block in the end."""
    ended_on: list[str | None]
    """Colour of the block that the camera was centred on in the end, named or not."""
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
    def path_ratio(self) -> float:
        """Mean over all episodes of success * expert's path / max(own path, expert's path): 1 for the expert."""
        longer = np.maximum(self.path_lengths, self.expert_path_lengths)
        return float(np.mean(self.success * self.expert_path_lengths / longer))

    def to_dict(self) -> dict[str, Any]:
        """What `tinyvla rollout --json` prints."""
        ends = zip(self.ended_on, self.instructions, strict=True)
        on_other = [end is not None and instruction_for(end) != text for end, text in ends]
        return {
            "success": self.success_rate,
            "success_interval": wilson_interval(self.success_rate, len(self)),
            "reached": float(self.reached.mean()),
            "ended_on_another_block": float(np.mean(on_other)),
            "path_ratio": self.path_ratio,
            "mean_steps": float(self.steps.mean()),
            "mean_final_distance": float(self.final_distances.mean()),
            "num_episodes": len(self),
        }

    def table(self, name: str) -> str:
        """One row under a head, for the terminal."""
        values = self.to_dict()
        head = f"{'':22}{'success':>24}{'reached':>9}{'path ratio':>12}{'steps':>7}{'final distance':>17}"
        row = f"{name[-21:]:22}{share_with_interval(self.success_rate, len(self)):>24}{values['reached']:>9.1%}"
        row += f"{self.path_ratio:>12.3f}{values['mean_steps']:>7.1f}{values['mean_final_distance']:>14.1f} px"
        rule = "-" * len(head)
        notes = [
            f"{len(self)} episodes; 95 % Wilson interval in brackets",
            "success: stopped on the named block; reached: was on it at some step, whether it stopped or not",
            "path ratio: mean of success * expert's path / max(own, expert's); steps, distance: means of all episodes",
        ]
        return "\n".join([head, rule, row, rule, *notes])


def rollout(
    act: Act,
    seeds: Sequence[int],
    config: WorldConfig | None = None,
    beta: float = 0.0,
    num_recorded: int = 0,
    execute: int = 1,
) -> RolloutResult:
    """Run one episode per seed, all at once, each until it ends.

    Args:
        act: a policy (see `Act`), or `expert`.
        beta: probability, at each step of each episode, that the expert acts instead.
        num_recorded: keep every state that the first so many episodes visit, 12 KiB each.
        execute: actions of a chunk that are done before the policy looks again, at most the chunk's length.

    Raises:
        InputError: `beta` is not in [0, 1], `execute` is not in 1 ... the chunk's length, or the actions are not finite
            numbers of the right shape.
    """
    if not 0 <= beta <= 1:
        raise InputError(f"beta is {beta}; it must lie in [0, 1]")
    if execute < 1:
        raise InputError(f"execute is {execute}; at least one action must be done before the policy looks again")
    beta = 1.0 if act is expert else beta
    world = BatchedWorld(seeds, config)
    rng = np.random.RandomState(world.seeds[0])
    straight = world.distances
    reached = np.zeros(len(world), bool)
    visited: list[tuple[np.ndarray, ...]] = []
    plans = np.zeros((len(world), execute, 2))
    while len(index := world.running):
        images, offsets = world.views(), world.offsets[index]
        taught = expert_action(offsets, world.config.step_size)
        actions = taught
        if beta < 1:
            planned = int(world.steps[index[0]]) % execute  # all episodes began together, so all look together
            if planned == 0:
                plans[index] = _plan(act, images, [world.instructions[i] for i in index], execute)
            own = plans[index, planned]
            actions = np.where(rng.random_sample((len(index), 1)) < beta, taught, own)
        if num_recorded:
            kept = index < num_recorded
            visited.append((images[kept], offsets[kept], taught[kept].astype(np.float32), actions[kept], index[kept]))
        world.step(actions)
        reached |= world.distances <= world.config.tolerance
    return RolloutResult(
        seeds=world.seeds,
        instructions=world.instructions,
        success=world.terminated,
        reached=reached,
        steps=world.steps,
        path_lengths=world.path_lengths,
        expert_path_lengths=straight,
        final_distances=world.distances,
        ended_on=world.centered_colors,
        states=_states(visited, world.instructions) if num_recorded else None,
        execute=execute,
    )


def _plan(act: Act, images: np.ndarray, instructions: list[str], execute: int) -> np.ndarray:
    """Ask for the next actions of each episode, `(n, execute, 2)`."""
    answer = np.asarray(act(images, instructions), np.float64)
    chunks = answer[:, None] if answer.ndim == 2 else answer
    count = len(images)
    if chunks.ndim != 3 or chunks.shape[::2] != (count, 2):
        need = f"{count} running episodes need {count, 2}, or {(count, 'h', 2)} for chunks"
        raise InputError(f"actions have shape {answer.shape}; {need}".replace("'", ""))
    if chunks.shape[1] < execute:
        raise InputError(f"execute is {execute}, but the policy answers with {chunks.shape[1]} action(s) at a time")
    return chunks[:, :execute]


def _states(visited: list[tuple[np.ndarray, ...]], instructions: list[str]) -> States:
    images, offsets, taught, actions, episodes = (np.concatenate(part) for part in zip(*visited, strict=True))
    return States(images, [instructions[i] for i in episodes], offsets, taught, actions, episodes)


def demonstrations(
    num_episodes: int,
    seed: int,
    config: WorldConfig | None = None,
    device: torch.device | str = "cpu",
    horizon: int = 1,
) -> TensorSplit:
    """The states that the expert visits, with its actions: what behaviour cloning learns from.

    Args:
        horizon: with more than 1, the labels are chunks: the expert's next so many actions.
    """
    return _visited(expert, episode_seeds(num_episodes, seed), config, device=device, horizon=horizon)


def _visited(
    act: Act,
    seeds: Sequence[int],
    config: WorldConfig | None,
    beta: float = 0.0,
    device: torch.device | str = "cpu",
    horizon: int = 1,
) -> TensorSplit:
    states = rollout(act, seeds, config, beta, num_recorded=len(seeds)).states
    assert states is not None
    split = states.tensors(device)
    if horizon == 1:
        return split
    chunks = expert_chunk(states.offsets, (config or WorldConfig()).step_size, horizon)
    return replace(split, actions=torch.from_numpy(chunks).float().to(device))


def dagger(
    policy_config: ModelConfig,
    rounds: int = 3,
    episodes: int = 200,
    train_config: TrainConfig = TrainConfig(epochs=4, learning_rate=1e-3),  # noqa: B008 - frozen
    config: WorldConfig | None = None,
    beta: float = 0.0,
    data: DataConfig = DataConfig(),  # noqa: B008 - frozen
    num_test: int = 500,
    device: torch.device | str = "cpu",
    on_round: Callable[[dict[str, Any]], None] | None = None,
) -> tuple[TinyVLA, list[dict[str, Any]]]:
    """Dataset aggregation (https://arxiv.org/abs/1011.0686, algorithm 3.1): let the policy act, let the expert label.

    Round 0 clones the expert's own episodes. Each later round rolls the policy out over new episodes, labels every
    state that it visited with the expert's action, adds them to all earlier ones and trains on the whole.

    Training goes on from the last round's weights (warm) with a fresh optimizer and schedule. The paper trains from
    scratch; warm costs less, and nothing is forgotten, since all earlier states stay in the data.

    Args:
        rounds: rounds after the cloning; 0 is behaviour cloning alone.
        episodes: new ones in each round, never used before.
        train_config: of each round; its epochs are passes over all states so far.
        beta: in round i the expert acts with probability `beta ** i`; 0 lets the policy act alone, the paper's
            parameter-free choice.
        data: seeds of the episodes to train, validate and test on, as given to `episode_seeds`.
        num_test: test episodes, the same after each round; nothing is chosen by them.
        on_round: called with each round's record.

    Returns:
        The policy, and one record per round: round, num_states and train_steps so far, val_loss (on states of the
        expert), and `RolloutResult.to_dict()` of the test episodes.

    Raises:
        InputError: `rounds` is negative or a number of episodes is not usable.
    """
    if rounds < 0:
        raise InputError(f"rounds is {rounds}; it must not be negative (0 is behaviour cloning alone)")
    seeds = episode_seeds(episodes * (rounds + 1), data.train_seed)
    policy = new_policy(policy_config, train_config.seed, device)
    val = demonstrations(100, data.val_seed, config, device)
    aggregate: TensorSplit | None = None
    records: list[dict[str, Any]] = []
    train_steps = 0
    for number in range(rounds + 1):
        act = policy_act(policy) if number else expert
        new = _visited(act, seeds[number * episodes :][:episodes], config, beta**number, device)
        aggregate = new if aggregate is None else aggregate.joined(new)
        order_seed = (train_config.seed + number) % 2**63
        trained = fit(policy, aggregate, val, replace(train_config, seed=order_seed), progress_bar=False)
        train_steps += trained[-1]["step"]
        result = rollout(policy_act(policy), episode_seeds(num_test, data.test_seed), config)
        record = {"round": number, "num_states": len(aggregate), "train_steps": train_steps}
        records.append({**record, "val_loss": trained[-1]["val_loss"], **result.to_dict()})
        if on_round:
            on_round(records[-1])
    return policy.eval(), records
