"""A policy judged by kind of sentence: which words and which meanings does it follow, and which only seem so?

Notable:
- each kind stands beside two floors, because a relation gives a part of its answer away: what lies left of a block lies
  rather on the left;
- the pairs are the instruction swap for structure: two sentences about one image that differ in one word (left and
  right; with and without "not") and name different blocks. The share of pairs with two right answers is zero for a
  policy that does not hear the word, because pairs whose blocks lie close together do not count (`APART_COSINE`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float32
from torch import Tensor

from tinyvla.data.batch import TensorSplit
from tinyvla.data.grammar import Meaning, Sentence
from tinyvla.data.sentences import KINDS, SentenceFind, check_kinds
from tinyvla.fields import Many, Seed, checked
from tinyvla.learn.evaluate import DIRECTION_COSINE, Metrics, predict_split, vision_only_floor
from tinyvla.model.policy import TinyVLA
from tinyvla.stats import share_with_interval, wilson_interval

FLOOR_SCENES = 8_000
"""From which the language-only floor learns."""
APART_COSINE = 2 * DIRECTION_COSINE**2 - 1
"""Of the two labels of a pair that counts, at most: the cosine of twice the angle by which a right answer may be off.
An arrow half-way between two labels that lie closer together would be right about both."""
CHANGES = ("color", "side", "not")
"""What the one word is in which the sentences of a pair differ."""


def is_right(predicted: Float32[Tensor, "n 2"], actions: Float32[Tensor, "n 2"]) -> Bool[Tensor, "n"]:
    """Whether each prediction has the right direction, as `Metrics.direction_accuracy` counts it."""
    return F.cosine_similarity(predicted.double(), actions.double(), dim=1) > DIRECTION_COSINE


def changed_word(before: Sentence, after: Sentence) -> str:
    """Returns which of `CHANGES` two sentences that differ in one word differ in."""
    if before.meaning.kind != after.meaning.kind:
        return "not"
    return "side" if before.meaning.side != after.meaning.side else "color"


@checked
def pair_accuracy(policy: TinyVLA, split: SentenceFind) -> dict[str, tuple[float, int]]:
    """Returns, for each word that changes, the share of pairs in which both answers are right, and their number.

    Only pairs count whose two blocks lie so far apart that no one arrow is right about both (`APART_COSINE`).
    """
    other = split.retargeted()
    apart = np.flatnonzero((split.actions * other.actions).sum(axis=1) <= APART_COSINE - 1e-6)
    if not len(apart):
        return {}
    both = np.ones(len(apart), bool)
    for part in (split.rows(apart), other.rows(apart)):
        tensors = TensorSplit.from_blockfind(part, policy.language.encode, policy.device)
        both &= is_right(predict_split(policy, tensors), tensors.actions.cpu()).numpy()
    words = np.array([changed_word(split.sentences[i], other.sentences[i]) for i in apart])
    return {word: (both[words == word].mean().item(), int((words == word).sum())) for word in CHANGES if word in words}


@checked
def meaning_floor(train: SentenceFind, split: SentenceFind) -> Float32[np.ndarray, "n 2"]:
    """Words without the image: the mean training action of each meaning, the best that squared error allows.

    A meaning that training does not have gets the mean of its kind and side.
    """
    sums: dict[Any, list[np.ndarray]] = {}
    for sentence, action in zip(train.sentences, train.actions, strict=True):
        for key in _keys(sentence.meaning):
            sums.setdefault(key, []).append(action)
    means = {key: np.mean(actions, axis=0) for key, actions in sums.items()}
    found = [next(means[key] for key in _keys(s.meaning) if key in means) for s in split.sentences]
    return np.stack(found).astype(np.float32)


def _keys(meaning: Meaning) -> tuple[Any, ...]:
    return (meaning, (meaning.kind, meaning.side), None)


@dataclass(frozen=True)
class KindReport:
    """How well a policy follows one kind of sentence."""

    policy: Metrics
    vision_only: float
    """Direction accuracy of the best that can be had without words."""
    language_only: float
    """Direction accuracy of the best that can be had without the image."""
    pairs: dict[str, tuple[float, int]]
    """For each word that changes, the share of pairs with two right answers, and the number of pairs."""


@dataclass(frozen=True)
class SentenceReport:
    """A policy's report by kind of sentence."""

    kinds: dict[str, KindReport]

    def to_dict(self) -> dict[str, Any]:
        """One object a kind, shares with their 95 % Wilson intervals."""
        return {name: _flat(report) for name, report in self.kinds.items()}

    def table(self) -> str:
        """A table for the terminal."""
        head = f"{'kind of sentence':20}{'direction (cos > 0.8)':>24}{'no words':>10}{'no image':>10}   word changed"
        rows = [_row(name, report) for name, report in self.kinds.items()]
        note = (
            "no words, no image: the best possible without them; word changed: share of pairs of sentences that differ "
            "in one word in which both answers are right"
        )
        return "\n".join([head, "-" * len(head), *rows, "-" * len(head), note])


def _flat(report: KindReport) -> dict[str, Any]:
    share, count = report.policy.direction_accuracy, report.policy.num_samples
    pairs = {
        word: {"share": both, "interval": wilson_interval(both, pairs), "num_pairs": pairs}
        for word, (both, pairs) in report.pairs.items()
    }
    floors = {"vision_only": report.vision_only, "language_only": report.language_only}
    interval = wilson_interval(share, count)
    return {**asdict(report.policy), "direction_accuracy_interval": interval, **floors, "pairs": pairs}


def _row(name: str, report: KindReport) -> str:
    share = share_with_interval(report.policy.direction_accuracy, report.policy.num_samples)
    pairs = ", ".join(f"{word} {both:.0%} of {count}" for word, (both, count) in report.pairs.items())
    return f"{name:20}{share:>24}{report.vision_only:>10.1%}{report.language_only:>10.1%}   {pairs}"


@checked
def evaluate_sentences(
    policy: TinyVLA, kinds: Sequence[str] = tuple(KINDS), num_scenes: Many = 500, seed: Seed = 45
) -> SentenceReport:
    """Judge a policy on sentences of each kind.

    Args:
        policy: trained.
        kinds: names of `tinyvla.data.sentences.KINDS`.
        num_scenes: of each kind.
        seed: of the scenes; those that the language-only floor learns from are others.
    """
    check_kinds(kinds)
    train = SentenceFind(FLOOR_SCENES, seed + 1)
    return SentenceReport({kind: _judge(policy, SentenceFind(num_scenes, seed, (kind,)), train) for kind in kinds})


def _judge(policy: TinyVLA, split: SentenceFind, train: SentenceFind) -> KindReport:
    tensors = TensorSplit.from_blockfind(split, policy.language.encode, policy.device)
    actions = tensors.actions.cpu()
    floors = (vision_only_floor(split), meaning_floor(train, split))
    seeing, hearing = (Metrics.of(torch.from_numpy(floor), actions).direction_accuracy for floor in floors)
    metrics = Metrics.of(predict_split(policy, tensors), actions)
    return KindReport(metrics, seeing, hearing, pair_accuracy(policy, split))
