"""A policy judged on recordings, without a robot: its error in real units, beside floors that anybody could have.

Notable:
- for each number of an action: how far the policy's answer is from what the person did, in the action's own unit;
- floors need no learning: repeat the last action, or always give the mean one. An error below theirs is no proof of
  skill, and an error above them no proof of failure;
- the policy is also shown other pictures, and told other sentences: where its error stays the same, nothing shows that
  it needs what was taken away;
- frames of one episode resemble each other, so what is compared is counted in episodes, with a 95 % Wilson interval;
- a small error is no success: how often a robot succeeds shows only when it acts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from tinyvla.data.batch import TensorSplit
from tinyvla.data.demonstrations import Demonstrations
from tinyvla.data.stored import StoredImages
from tinyvla.errors import InputError, printable
from tinyvla.fields import Seed, checked
from tinyvla.learn.evaluate import predict_split
from tinyvla.model.policy import TinyVLA
from tinyvla.stats import share_with_interval, wilson_interval

OWN, LAST, MEAN = "this policy", "last action", "mean action"
IMAGES, SENTENCES, STATE = "other images", "other words", "other state"
QUESTIONS = {IMAGES: "look", SENTENCES: "listen", STATE: "feel"}


@dataclass(frozen=True)
class OfflineReport:
    """How far a policy's answers, and the floors', are from what was recorded."""

    names: tuple[str, ...]
    """Of the numbers of an action."""
    spread: Float[np.ndarray, "a"]
    """Standard deviation of the recorded actions, in their units; 1 for a number that never changes."""
    errors: dict[str, Float[np.ndarray, "a"]]
    """Mean absolute error in the actions' units: of the policy, then of the floors."""
    by_episode: dict[str, Float[np.ndarray, "e"]]
    """The same for each episode, as a share of the spread, over all numbers of an action."""
    num_frames: int

    @property
    def num_episodes(self) -> int:
        """Episodes that it was judged on."""
        return len(self.by_episode[OWN])

    def share(self, name: str) -> float:
        """Returns a mean error as a share of the spread, over all numbers, also those that never change."""
        return float(np.mean(self.errors[name] / self.spread))

    def worse(self, name: str) -> tuple[float, int]:
        """Returns the share of the episodes in which a floor's error is larger than the policy's, and their number."""
        return float(np.mean(self.by_episode[name] > self.by_episode[OWN])), self.num_episodes

    def is_worse(self, name: str) -> bool:
        """Whether a floor's error is larger in more than half of all episodes, as far as these can tell."""
        return wilson_interval(*self.worse(name))[0] > 0.5

    def to_dict(self) -> dict[str, Any]:
        """One plain object, as `--json` prints it."""
        rows = {
            name: {
                "error": dict(zip(self.names, errors.tolist(), strict=True)),
                "share_of_spread": self.share(name),
                "larger_in_episodes": None if name == OWN else self.worse(name)[0],
            }
            for name, errors in self.errors.items()
        }
        spread = dict(zip(self.names, self.spread.tolist(), strict=True))
        return {"spread": spread, "errors": rows, "num_episodes": self.num_episodes, "num_frames": self.num_frames}

    def table(self) -> str:
        """A table for the terminal: a row for each number of an action, then what the floors say."""
        width = max(14, *(len(name) + 2 for name in self.names))
        head = f"{'mean error of':{width}}{'spread':>12}" + "".join(f"{name:>14}" for name in self.errors)
        rule = "-" * len(head)
        rows = [
            f"{name:{width}}{self.spread[i]:>12.4g}" + "".join(f"{e[i]:>14.4g}" for e in self.errors.values())
            for i, name in enumerate(self.names)
        ]
        total = f"{'of the spread':{width}}{'':>12}" + "".join(f"{self.share(name):>14.1%}" for name in self.errors)
        return "\n".join(map(printable, [head, rule, *rows, rule, total, "", *self.remarks()]))

    def remarks(self) -> list[str]:
        """Sentences that say what the comparison shows."""
        floors = [name for name in (LAST, MEAN) if name in self.errors]
        lines = [
            f"{name}: its error is larger than the policy's in {share_with_interval(*self.worse(name))} of the episodes"
            + ("" if self.is_worse(name) else "; the policy is not shown to be better")
            for name in floors
        ]
        for name, verb in QUESTIONS.items():
            if name not in self.errors:
                continue
            times = self.share(name) / max(self.share(OWN), 1e-12)
            lines.append(
                f"does it {verb}? {'yes' if self.is_worse(name) else 'not shown'}: with {name} the error is "
                f"{times:.2f} times its own, and larger in {share_with_interval(*self.worse(name))} of the episodes"
            )
        if SENTENCES not in self.errors:
            lines.append("does it listen? cannot be judged here: all these episodes have the same sentence")
        lines.append(f"{self.num_episodes} episodes, {self.num_frames} frames; errors in the actions' own units")
        return lines


@checked
def evaluate_offline(
    policy: TinyVLA, recordings: Demonstrations, judged: Bool[np.ndarray, "n"], seed: Seed = 0
) -> OfflineReport:
    """Judge a policy on recorded episodes.

    Args:
        policy: the one to be judged.
        recordings: all frames.
        judged: True on those to judge it on: whole episodes, which it has not learned from. The mean action is that of
            the others, or of these where there are no others.
        seed: of the draw of other images and sentences.

    Raises:
        InputError: nothing is to be judged, or the policy does not fit the recordings.
    """
    dim = recordings.actions.shape[1]
    if dim != policy.config.head.action_dim:
        raise InputError(
            f"the recordings' actions have {dim} numbers, and the policy's have {policy.config.head.action_dim}: it "
            "has learned from other recordings"
        )
    # The first frame of an episode has no last action that could be repeated, so no row of the table counts it.
    has_last = np.diff(recordings.episodes, prepend=-1) == 0
    rows = np.flatnonzero(judged & has_last)
    if not len(rows):
        raise InputError("there is no episode of at least two frames to judge the policy on")
    split = recordings.tensors(policy, "cpu").rows(torch.from_numpy(rows)).to(policy.device)
    horizon = policy.config.head.horizon
    wanted, is_pad = recordings.chunks(horizon)
    wanted, counted = wanted[rows].astype(np.float64), ~is_pad[rows][..., None]
    others = recordings.actions[~judged] if not judged.all() else recordings.actions[judged]
    answers = {OWN: _answers(policy, split, horizon)}
    answers[LAST] = np.repeat(recordings.actions[rows - 1][:, None], horizon, axis=1)
    answers[MEAN] = np.broadcast_to(others.astype(np.float64).mean(axis=0), wanted.shape)
    for name, changed in _changed(split, recordings, rows, np.random.RandomState(seed)).items():
        answers[name] = _answers(policy, changed, horizon)
    spread = recordings.actions[judged].astype(np.float64).std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    errors, by_episode = {}, {}
    episodes = np.unique(recordings.episodes[rows], return_inverse=True)[1]
    for name, answer in answers.items():
        off = np.abs(answer - wanted) * counted
        errors[name] = off.sum(axis=(0, 1)) / counted.sum()
        share = (off / spread).sum(axis=(1, 2)) / dim
        by_episode[name] = np.bincount(episodes, share) / np.bincount(episodes, counted.sum(axis=(1, 2)))
    names = recordings.action_names or tuple(f"action {i}" for i in range(dim))
    return OfflineReport(names, spread, errors, by_episode, len(rows))


def _answers(policy: TinyVLA, split: TensorSplit, horizon: int) -> Float[np.ndarray, "n h a"]:
    answer = predict_split(policy, split).double().numpy()
    return answer.reshape(len(answer), horizon, -1)


def _changed(
    split: TensorSplit, recordings: Demonstrations, rows: Int64[np.ndarray, "n"], rng: np.random.RandomState
) -> dict[str, TensorSplit]:
    """The split with other images, other sentences or another state, as far as there are any."""
    changed = {}
    if (place := other_rows(recordings.episodes[rows].tolist(), rng)) is not None:
        index = torch.from_numpy(place).to(split.device)
        images = {name: _taken(each, index) for name, each in split.images.items()}
        changed[IMAGES] = replace(split, images=images)
    if (place := other_rows([recordings.instructions[i] for i in rows], rng)) is not None:
        index = torch.from_numpy(place).to(split.device)
        changed[SENTENCES] = replace(
            split, input_ids=split.input_ids[index], attention_mask=split.attention_mask[index]
        )
    place = other_rows(recordings.episodes[rows].tolist(), rng)
    if split.state is not None and place is not None:
        changed[STATE] = replace(split, state=split.state[torch.from_numpy(place).to(split.device)])
    return changed


def _taken(images: Tensor | StoredImages, index: Int64[Tensor, "n"]) -> Tensor | StoredImages:
    return images.rows(index) if isinstance(images, StoredImages) else images[index]


def other_rows(labels: Sequence[Any], rng: np.random.RandomState) -> Int64[np.ndarray, "n"] | None:
    """Returns for each row a random one with another label; None where all labels are the same."""
    numbers = np.unique(np.asarray(labels), return_inverse=True)[1]
    if numbers.max() == 0:
        return None
    chosen = np.empty(len(numbers), np.int64)
    for number in np.unique(numbers):
        mine = numbers == number
        chosen[mine] = rng.choice(np.flatnonzero(~mine), mine.sum())
    return chosen
