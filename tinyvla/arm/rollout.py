"""Episodes of the arm: the expert's, to learn from, and a policy's, to judge it.

Notable:
- `rollout` is the loop of `tinyvla.rollout` for seven dimensions: images and instructions in, chunks of actions out;
- a disturbed expert's lessons hold the way back: its commands are falsified now and then, and each state that it comes
  to is labelled with what it *meant* to do (DART, https://arxiv.org/abs/1703.09327);
- labels are the expert's planned chunks, so every state can be labelled, also one that a policy came to (DAgger).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8

from tinyvla.arm.expert import expert_action, expert_chunk
from tinyvla.arm.world import ArmConfig, ArmWorld
from tinyvla.batching import TensorSplit
from tinyvla.config import InputError, ModelConfig, model_config
from tinyvla.evaluate import wilson_interval
from tinyvla.rollout import Act

DISTURBED = 0.5
"""Share of the steps in which a disturbed expert's command is falsified."""
SLIPPED = 0.03
"""Share of the steps in which its gripper does the opposite."""


def arm_expert(images: UInt8[np.ndarray, "n 3 h w"], instructions: list[str]) -> Float[np.ndarray, "n 7"]:
    """The scripted expert, to be given to `rollout`, which knows it and tells it where everything is."""
    raise InputError("the expert acts only inside rollout(arm_expert, ...): it needs places, not images")


def random_arm(seed: int = 0) -> Act:
    """Acts without looking or listening, evenly over all actions."""
    rng = np.random.RandomState(seed)
    return lambda images, instructions: rng.uniform(-1, 1, (len(images), 7))


def arm_config(preset: str = "nano", horizon: int = 8, image_size: int = 64) -> ModelConfig:
    """A policy for the arm: a preset with a flow head that makes chunks of seven-dimensional actions."""
    config = model_config(preset, head="flow")
    head = replace(config.head, action_dim=7, horizon=horizon, normalization="mean-std")
    return replace(config, head=head, vision=replace(config.vision, image_size=image_size))


@dataclass(frozen=True)
class ArmStates:
    """What was seen at each step of some episodes, and what the expert would do from there."""

    images: UInt8[np.ndarray, "m 3 h w"]
    instructions: list[str]
    chunks: Float[np.ndarray, "m k 7"]
    """The expert's plan from each state."""
    actions: Float[np.ndarray, "m 7"]
    """What was done."""
    episodes: Int64[np.ndarray, "m"]
    """Index of each state's episode."""

    def __len__(self) -> int:
        return len(self.images)

    def tensors(self, device: torch.device | str = "cpu") -> TensorSplit:
        """The states with the expert's chunks as labels, to train on."""
        return TensorSplit.from_arrays(self.images, self.instructions, self.chunks, device)

    @staticmethod
    def joined(parts: Sequence[ArmStates]) -> ArmStates:
        """All states of several recordings; the episodes are numbered on."""
        starts = np.cumsum([0, *(part.episodes.max(initial=-1) + 1 for part in parts)])
        return ArmStates(
            np.concatenate([part.images for part in parts]),
            [text for part in parts for text in part.instructions],
            np.concatenate([part.chunks for part in parts]),
            np.concatenate([part.actions for part in parts]),
            np.concatenate([part.episodes + start for part, start in zip(parts, starts, strict=False)]),
        )


@dataclass(frozen=True)
class ArmResult:
    """How some episodes went, one entry per episode."""

    seeds: list[int]
    instructions: list[str]
    success: Bool[np.ndarray, "n"]
    steps: Int64[np.ndarray, "n"]
    named: int
    """Which block the instructions named."""
    went_to: Int64[np.ndarray, "n"]
    """The block that the tip was nearest to in the end, seen from above."""
    final_distances: Float[np.ndarray, "n"]
    """Metres, in the end, from the tip to the point over the named block that "reach" asks for."""
    states: ArmStates | None = None
    """The visited states, where they were asked for."""

    def __len__(self) -> int:
        return len(self.seeds)

    @property
    def success_rate(self) -> float:
        """Share of episodes that ended in success."""
        return float(self.success.mean())

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, with the interval of the success."""
        return {
            "success": self.success_rate,
            "success_interval": wilson_interval(self.success_rate, len(self)),
            "went_to_named": float((self.went_to == self.named).mean()),
            "mean_steps": float(self.steps.mean()),
            "num_episodes": len(self),
        }

    @staticmethod
    def joined(parts: Sequence[ArmResult]) -> ArmResult:
        """The episodes of several results."""
        states = [part.states for part in parts if part.states is not None]
        return ArmResult(
            [seed for part in parts for seed in part.seeds],
            [text for part in parts for text in part.instructions],
            np.concatenate([part.success for part in parts]),
            np.concatenate([part.steps for part in parts]),
            parts[0].named,
            np.concatenate([part.went_to for part in parts]),
            np.concatenate([part.final_distances for part in parts]),
            ArmStates.joined(states) if states else None,
        )


def rollout(
    act: Act,
    seeds: Sequence[int],
    task: str | Sequence[str] = "reach",
    config: ArmConfig | None = None,
    execute: int = 4,
    named: int = 0,
    noise: float = 0.0,
    horizon: int = 0,
) -> ArmResult:
    """Run one episode per seed, side by side, each until it ends.

    Args:
        act: a policy (`tinyvla.rollout.policy_act` makes one into this form), or `arm_expert`.
        task: "reach" or "pick", or one per episode.
        execute: actions of a chunk that are done before the policy looks again, at most the chunk's length.
        named: which of a scene's three blocks the instruction names.
        noise: standard deviation of what is added to commands, in half of the steps; the gripper slips now and then.
        horizon: record every visited state with the expert's next so many actions; 0 records nothing.

    Raises:
        InputError: the actions do not fit, `execute` is not in 1 ... the chunk's length, or the world refuses its
            arguments.
    """
    if execute < 1:
        raise InputError(f"execute is {execute}; at least one action must be done before the policy looks again")
    world = ArmWorld(seeds, task, config, named)
    rng = np.random.RandomState(world.seeds[0])
    visited: list[tuple[Any, ...]] = []
    plans = np.zeros((len(world), execute, 7))
    while len(index := world.running):
        planned = int(world.steps[index[0]]) % execute  # all episodes began together, so all look together
        images = world.views() if horizon or (planned == 0 and act is not arm_expert) else None
        if act is arm_expert:
            actions = expert_action(world.state())
        else:
            if planned == 0:
                plans[index] = _plan(act, images, [world.instructions[i] for i in index], execute)
            actions = plans[index, planned]
        if noise:
            actions = disturbed(actions, noise, rng)
        if horizon:
            chunks = expert_chunk(world.state(), horizon).astype(np.float32)
            visited.append((images, chunks, actions.astype(np.float32), index))
        world.step(actions)
    return ArmResult(
        seeds=world.seeds,
        instructions=world.instructions,
        success=world.terminated,
        steps=world.steps,
        named=named,
        went_to=world.nearest,
        final_distances=world.distances[:, named],
        states=_states(visited, world.instructions) if horizon else None,
    )


def _plan(act: Act, images: Any, instructions: list[str], execute: int) -> Float[np.ndarray, "n e 7"]:
    """Ask for the next actions of each episode."""
    answer = np.asarray(act(images, instructions), np.float64)
    chunks = answer[:, None] if answer.ndim == 2 else answer
    if chunks.ndim != 3 or chunks.shape[::2] != (len(images), 7):
        raise InputError(f"actions have shape {answer.shape}; {len(images)} running episodes need 7 numbers each")
    if chunks.shape[1] < execute:
        raise InputError(f"execute is {execute}, but the policy answers with {chunks.shape[1]} action(s) at a time")
    return chunks[:, :execute]


def disturbed(actions: Float[np.ndarray, "n 7"], noise: float, rng: np.random.RandomState) -> Float[np.ndarray, "n 7"]:
    """Actions with normal noise on the six motions in half of the rows, and the gripper turned round in a few."""
    hit = rng.random_sample((len(actions), 1)) < DISTURBED
    moved = actions[:, :6] + hit * noise * rng.randn(len(actions), 6)
    slip = np.where(rng.random_sample(len(actions)) < SLIPPED, -1.0, 1.0)
    return np.concatenate([moved, (slip * actions[:, 6])[:, None]], axis=1)


def _states(visited: list[tuple[Any, ...]], instructions: list[str]) -> ArmStates:
    images, chunks, actions, episodes = (np.concatenate(part) for part in zip(*visited, strict=True))
    return ArmStates(images, [instructions[i] for i in episodes], chunks, actions, episodes)
