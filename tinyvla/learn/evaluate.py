"""Metrics, floors and the instruction swap: is a policy accurate, does it beat trivial baselines, does it listen?

Notable:
- every share comes with its 95 % Wilson interval;
- floors are policies that lack something (the image, the words, both): a number means little until it beats them;
- the instruction swap keeps the image and names another block in it: a policy that ignores words follows it
  only by chance.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from tinyvla.data.batch import Encoded, TensorSplit
from tinyvla.data.dataset import BlockFind, directions
from tinyvla.fields import Many, check, checked
from tinyvla.model.policy import TinyVLA
from tinyvla.stats import share_with_interval, wilson_interval

DIRECTION_COSINE = 0.8
"""A prediction counts as the right direction when its cosine with the label exceeds this (about 37 degrees)."""


@dataclass(frozen=True)
class Metrics:
    """How well predicted actions match the labels."""

    l2_error: float
    """Mean Euclidean distance; 1.0 for a policy that always answers (0, 0)."""
    direction_accuracy: float
    """Share with cosine similarity above 0.8."""
    within_10_degrees: float
    """Share within 10 degrees of the label."""
    mean_angular_error: float
    """Degrees."""
    num_samples: int

    @classmethod
    @checked
    def of(cls, predicted: Float[Tensor, "n *chunk"], actions: Float[Tensor, "n *chunk"]) -> Metrics:
        """Compare predictions with labels. A chunk's direction is that of the sum of its actions."""
        check(len(actions) > 0, "there are no actions to compare; give at least one")
        predicted, actions = predicted.double(), actions.double()
        l2_error = (predicted - actions).flatten(1).norm(dim=1).mean().item()
        if actions.ndim == 3:
            predicted, actions = predicted.sum(dim=1), actions.sum(dim=1)
        cosine = F.cosine_similarity(predicted, actions, dim=1)
        degrees = torch.rad2deg(torch.acos(cosine.clamp(-1, 1)))
        return cls(
            l2_error=l2_error,
            direction_accuracy=(cosine > DIRECTION_COSINE).double().mean().item(),
            within_10_degrees=(degrees <= 10).double().mean().item(),
            mean_angular_error=degrees.mean().item(),
            num_samples=len(actions),
        )


@torch.no_grad()
@checked
def predict_split(policy: TinyVLA, split: TensorSplit) -> Float32[Tensor, "n *chunk"]:
    """Actions for every scene, on the CPU; a head that draws, draws the same each time."""
    policy.prepare.check(split)
    was_training = policy.training
    policy.eval()
    generator = torch.Generator(split.device).manual_seed(0)
    actions = [policy(batch, generator) for batch in split.in_order()]
    policy.train(was_training)
    return torch.cat(actions).float().cpu()


@torch.no_grad()
@checked
def predict_told(policy: TinyVLA, split: TensorSplit, tellings: Sequence[Encoded]) -> list[Float32[Tensor, "n *chunk"]]:
    """Actions for every scene under several sets of sentences; each image is looked at once, for looking costs most.

    Args:
        tellings: token ids and mask of a sentence for each scene, one pair for each set.

    Returns:
        For each set what `predict_split` returns.
    """
    was_training = policy.training
    policy.eval()
    generators = [torch.Generator(split.device).manual_seed(0) for _ in tellings]
    told = [replace(split, input_ids=ids, attention_mask=mask) for ids, mask in tellings]
    actions: list[list[Tensor]] = [[] for _ in tellings]
    for batches in zip(*(each.in_order() for each in told), strict=True):
        tokens = policy.see(batches[0])
        for found, batch, generator in zip(actions, batches, generators, strict=True):
            found.append(policy.head.predict(policy.features(batch, tokens), generator))
    policy.train(was_training)
    return [torch.cat(found).float().cpu() for found in actions]


@torch.no_grad()
@checked
def validation_loss(policy: TinyVLA, split: TensorSplit) -> tuple[float, Metrics]:
    """Mean training loss over a split, and its metrics."""
    policy.prepare.check(split)
    was_training = policy.training
    policy.eval()
    generator = torch.Generator(split.device).manual_seed(0)
    loss, counted, predicted = 0.0, 0, []
    for batch in split.in_order():
        features = policy.features(batch)
        counts = len(batch) if batch.action_is_pad is None else int((~batch.action_is_pad).sum())
        loss += counts * policy.head.loss(features, batch.actions, generator, batch.action_is_pad).item()
        counted += counts
        predicted.append(policy.head.predict(features, generator))
    policy.train(was_training)
    return loss / counted, Metrics.of(torch.cat(predicted).float().cpu(), split.actions.cpu())


@checked
def swap_accuracy(policy: TinyVLA, split: BlockFind) -> tuple[float, int]:
    """Share of scenes in which naming another present block turns the arrow to that block, and their number.

    Only scenes where the two blocks lie in clearly different directions count (cosine below 0.8): elsewhere a policy
    that ignores the words would be right by luck.
    """
    swapped = split.retargeted()
    predicted = predict_split(policy, TensorSplit.from_blockfind(swapped, policy.language.encode, policy.device))
    return _share_that_follows(predicted, split, swapped)


def _share_that_follows(predicted: Float[Tensor, "n 2"], split: BlockFind, swapped: BlockFind) -> tuple[float, int]:
    """Of the scenes in which both blocks lie apart, the share with an arrow to the other one, and their number."""
    apart = (split.actions * swapped.actions).sum(axis=1) <= DIRECTION_COSINE - 1e-6  # less what rounding could add
    if not apart.any():
        return 0.0, 0
    metrics = Metrics.of(predicted[apart], torch.from_numpy(swapped.actions[apart]))
    return metrics.direction_accuracy, metrics.num_samples


@dataclass(frozen=True)
class Ambiguity:
    """What a policy does where two answers are right (`BlockFind.ambiguous`)."""

    near_one: float
    """Share of the answers within 10 degrees of one of the two blocks."""
    first_chosen: float
    """Among those, the share that took the block that comes first in reading order."""
    used_both: float
    """Share of the scenes in which each of the two was taken in at least 30 % of the answers near one."""
    num_scenes: int
    num_draws: int


@torch.no_grad()
@checked
def ambiguity(policy: TinyVLA, split: BlockFind, num_draws: Many = 20) -> Ambiguity:
    """Ask a policy several times about each scene in which blocks 0 and 1 fit the instruction alike.

    Only scenes count in which the two lie at least 20 degrees apart, so that an answer is near at most one.
    """
    answers = torch.from_numpy(directions(np.sort(split.cells[:, :2], axis=1)))  # (n, 2 blocks, 2), in reading order
    apart = (answers[:, 0] * answers[:, 1]).sum(dim=1) < np.cos(np.radians(20))
    scenes = BlockFind.from_blocks(split.cells[apart], split.colors[apart])
    scenes.article = split.article
    tensors = TensorSplit.from_blockfind(scenes, policy.language.encode, policy.device)
    generator = torch.Generator(policy.device).manual_seed(0)
    features = [policy.features(batch) for batch in tensors.in_order()]
    drawn = torch.stack([torch.cat([policy.head.predict(f, generator) for f in features]) for _ in range(num_draws)])
    cosine = F.cosine_similarity(drawn.float().cpu()[:, :, None], answers[apart], dim=-1)  # (draws, n, 2)
    near = cosine > np.cos(np.radians(10))
    first = near[..., 0].double().sum(dim=0) / near.any(dim=-1).double().sum(dim=0)  # (n,), NaN where none is near
    return Ambiguity(
        near_one=near.any(dim=-1).double().mean().item(),
        first_chosen=(near[..., 0].sum() / near.any(dim=-1).sum().clamp(min=1)).item(),
        used_both=((first >= 0.3) & (first <= 0.7)).double().mean().item(),
        num_scenes=len(scenes),
        num_draws=num_draws,
    )


@checked
def constant_floor(train: BlockFind, split: BlockFind) -> Float32[np.ndarray, "n 2"]:
    """Neither image nor words: the mean training action, always."""
    return np.tile(train.actions.mean(axis=0), (len(split), 1))


@checked
def language_only_floor(train: BlockFind, split: BlockFind) -> Float32[np.ndarray, "n 2"]:
    """Words without the image: the mean training action of each colour, the best that squared error allows."""
    by_color: dict[int, list[np.ndarray]] = defaultdict(list)
    for color, action in zip(train.colors[:, 0], train.actions, strict=True):
        by_color[int(color)].append(action)
    mean = train.actions.mean(axis=0)
    rows = [np.mean(by_color[int(c)], axis=0) if int(c) in by_color else mean for c in split.colors[:, 0]]
    return np.stack(rows).astype(np.float32)


@checked
def vision_only_floor(split: BlockFind) -> Float32[np.ndarray, "n 2"]:
    """The image without words: the mean of the arrows to all blocks, the best that squared error allows."""
    present: Bool[np.ndarray, "n b"] = split.cells >= 0
    arrows = directions(split.cells) * present[..., None]
    return (arrows.sum(axis=1) / present.sum(axis=1, keepdims=True)).astype(np.float32)


@checked
def floors(train: BlockFind, split: BlockFind) -> dict[str, Metrics]:
    """What can be had without looking, without listening, or without either.

    They are the best possible under squared error, computed and not trained.
    """
    computed = {
        "constant action": constant_floor(train, split),
        "language only": language_only_floor(train, split),
        "vision only": vision_only_floor(split),
    }
    actions = torch.from_numpy(split.actions)
    return {name: Metrics.of(torch.from_numpy(predicted), actions) for name, predicted in computed.items()}


@dataclass(frozen=True)
class Report:
    """Everything `tinyvla evaluate` says about a policy."""

    policy: Metrics
    swap_accuracy: float
    num_swaps: int
    floors: dict[str, Metrics]

    def to_dict(self) -> dict[str, Any]:
        """One flat object with intervals, floors nested, as `--json` prints it."""
        shares = ("direction_accuracy", "within_10_degrees")
        intervals = {f"{s}_interval": wilson_interval(getattr(self.policy, s), self.policy.num_samples) for s in shares}
        return {
            **asdict(self.policy),
            **intervals,
            "swap_accuracy": self.swap_accuracy,
            "swap_accuracy_interval": wilson_interval(self.swap_accuracy, self.num_swaps),
            "num_swaps": self.num_swaps,
            "floors": {name: asdict(metrics) for name, metrics in self.floors.items()},
        }

    def table(self) -> str:
        """A table for the terminal: the policy, then the floors, then the swap."""
        head = f"{'':22}{'L2 error':>10}{'direction (cos > 0.8)':>26}{'within 10 degrees':>26}"
        rule = "-" * len(head)
        rows = [_row(name, metrics) for name, metrics in {"this policy": self.policy, **self.floors}.items()]
        swap = share_with_interval(self.swap_accuracy, self.num_swaps)
        notes = [
            f"instruction swap: the arrow follows the new words in {swap} of {self.num_swaps} scenes",
            f"{self.policy.num_samples} test scenes; 95 % Wilson intervals in brackets",
        ]
        return "\n".join([head, rule, rows[0], rule, *rows[1:], rule, *notes])


def _row(name: str, metrics: Metrics) -> str:
    shares = (metrics.direction_accuracy, metrics.within_10_degrees)
    columns = "".join(f"{share_with_interval(s, metrics.num_samples):>26}" for s in shares)
    return f"{name:22}{metrics.l2_error:>10.4f}{columns}"


@checked
def evaluate(policy: TinyVLA, split: BlockFind, train: BlockFind) -> Report:
    """Metrics, instruction swap and floors of a policy.

    Beside the computed floors stands the policy itself, told each scene's neighbour's sentence.

    Args:
        split: the scenes to judge it on.
        train: the scenes that the constant and language-only floors may learn from.
    """
    tensors = TensorSplit.from_blockfind(split, policy.language.encode, policy.device)
    swapped = split.retargeted()
    ids, mask = tensors.input_ids, tensors.attention_mask
    others = TensorSplit.from_blockfind(swapped, policy.language.encode, policy.device)
    tellings = [(ids, mask), (ids.roll(1, dims=0), mask.roll(1, dims=0)), (others.input_ids, others.attention_mask)]
    own, shuffled, other = predict_told(policy, tensors, tellings)
    actions = tensors.actions.cpu()
    swap, num_swaps = _share_that_follows(other, split, swapped)
    without = {**floors(train, split), "shuffled instruction": Metrics.of(shuffled, actions)}
    return Report(Metrics.of(own, actions), swap, num_swaps, without)
