"""Training and judging, the same for every experiment: each training is one call of `tinyvla.learn.train.fit`.

Notable:
- seconds are those of the steps; validation and preparing the step do not count;
- where one preparation serves many runs, a run's batches can be decided beforehand (`BatchesOf`), so that the number of
  steps is the same whatever the number of scenes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from harness import Row
from torch import Tensor

from tinyvla.config import ModelConfig
from tinyvla.data.batch import TensorSplit, epoch_order
from tinyvla.data.dataset import BlockFind
from tinyvla.learn.callbacks import Callback, Interrupted
from tinyvla.learn.evaluate import Metrics, predict_split, swap_accuracy
from tinyvla.learn.train import PlainStep, fit
from tinyvla.measure.bench import TARGET
from tinyvla.model.policy import TinyVLA, new_policy
from tinyvla.recipes import DataConfig, TrainConfig
from tinyvla.speed.step import make_step
from tinyvla.speed.tuned import StepOptions


class Clock(Callback):
    """Seconds of the steps, and their losses."""

    def on_start(self, done: int, total: int) -> None:
        """Start the clock."""
        self.losses: list[float] = []
        self.seconds, self._since = 0.0, time.perf_counter()

    def on_step(self, step: int, loss: float, learning_rate: float) -> None:
        """Count the step."""
        self.losses.append(loss)
        now = time.perf_counter()
        self.seconds, self._since = self.seconds + now - self._since, now

    def on_epoch(self, record: dict[str, Any]) -> None:
        """Leave out the validation."""
        self._since = time.perf_counter()


class UntilTarget(Clock):
    """Stops the training when validation reaches `TARGET`; looks every ten steps, and the clock stops meanwhile."""

    every = 10

    def __init__(self, policy: TinyVLA, val: TensorSplit) -> None:
        self.policy, self.val, self.accuracy = policy, val, 0.0

    def on_step(self, step: int, loss: float, learning_rate: float) -> None:
        """Count the step, and look."""
        super().on_step(step, loss, learning_rate)
        if step % self.every == 0:
            predicted = predict_split(self.policy, self.val)
            self.accuracy = Metrics.of(predicted, self.val.actions.cpu()).direction_accuracy
            self.stop = self.accuracy >= TARGET
            self._since = time.perf_counter()


class BatchesOf(PlainStep):
    """A step whose batches are decided beforehand: epoch after epoch of some rows of the split, each batch full.

    Args:
        step: takes a batch's index.
        rows: of the split to learn from.
        config: size of a batch, and the seed of the order.
        steps: batches in all.
    """

    def __init__(self, step: PlainStep, rows: range, config: TrainConfig, steps: int) -> None:
        self.step, self.policy, self.train, self.config = step, step.policy, step.train, config
        self.optimizer, self.generator, self.read_every = step.optimizer, step.generator, step.read_every
        needed = steps * config.batch_size
        epochs = math.ceil(needed / len(rows))
        order = torch.cat([epoch_order(len(rows), config.seed, epoch) for epoch in range(epochs)])
        indices = (rows.start + order[:needed]).to(step.generator.device)
        self.batches = iter(indices.split(config.batch_size))

    def __call__(self, index: Tensor) -> Tensor:
        """Learn from the next batch, instead of the one at the index."""
        return self.step(next(self.batches))


@dataclass(frozen=True)
class Trained:
    """How a training went."""

    records: list[dict[str, Any]]
    """Of each validation, as `fit` returns them."""
    losses: list[float]
    """Of each step."""
    seconds: float

    @property
    def last(self) -> dict[str, Any]:
        """The record of the last validation."""
        return self.records[-1]


def train(
    policy: TinyVLA,
    split: TensorSplit,
    val: TensorSplit,
    config: TrainConfig,
    kind: str = "auto",
    step: PlainStep | None = None,
    callbacks: Sequence[Callback] = (),
) -> Trained:
    """Train a policy in place.

    Args:
        kind: of step, where none is given: "plain", or "auto" for the fastest on this device.
        step: one that was made before.
    """
    clock = Clock()
    step = step or make_step(policy, split, config, kind)
    records = fit(policy, split, val, config, step, callbacks=[*callbacks, clock])
    return Trained(records, clock.losses, clock.seconds)


def prepared(policy: TinyVLA, split: TensorSplit, config: TrainConfig, kind: str | StepOptions = "auto") -> PlainStep:
    """Returns a step that has been taken once, so that kernels are chosen, or recorded, before the clock starts."""
    step = make_step(policy.train(), split, config, kind)
    step(torch.arange(config.batch_size, device=split.device) % len(split))
    return step


def train_rows(
    policy: TinyVLA, split: TensorSplit, config: TrainConfig, step: PlainStep, rows: range, steps: int
) -> Trained:
    """As `train`, for that many steps on some rows of the split alone; nobody looks meanwhile."""
    config = replace(config, epochs=steps / config.steps_per_epoch(len(split)))
    return train(policy, split, cut(split, range(1)), config, step=BatchesOf(step, rows, config, steps))


def cut(split: TensorSplit, rows: range) -> TensorSplit:
    """Some rows that follow each other."""
    part = slice(rows.start, rows.stop)
    images = {name: tensor[part] for name, tensor in split.images.items()}
    return TensorSplit(images, split.input_ids[part], split.attention_mask[part], split.actions[part])


def train_to_target(model: ModelConfig, data: DataConfig, config: TrainConfig, device: torch.device) -> Row:
    """Returns after how many plain steps validation reached `TARGET`, if it did."""
    policy = new_policy(model, config.seed, device)
    split, val = (tensors(policy, scenes) for scenes in blockfind(data)[:2])
    watch = UntilTarget(policy, val)
    with suppress(Interrupted):
        fit(policy, split, val, config, callbacks=[watch])
    steps, accuracy = len(watch.losses), watch.accuracy
    row = {"reached": accuracy >= TARGET, "steps": steps, "seconds": watch.seconds}
    return {**row, "seconds_per_step": watch.seconds / steps, "direction_accuracy": accuracy}


def train_and_judge(policy: TinyVLA, data: DataConfig, config: TrainConfig, kind: str = "auto") -> Row:
    """Train on BlockFind, and return the figures of the test split with the seconds of the training."""
    train_scenes, val_scenes, test = blockfind(data)
    trained = train(policy, tensors(policy, train_scenes), tensors(policy, val_scenes), config, kind)
    first = next((r["epoch"] for r in trained.records if r["direction_accuracy"] >= TARGET), None)
    figures = asdict(judge(policy, tensors(policy, test)))
    swap, _ = swap_accuracy(policy, test)
    return {"seconds": trained.seconds, "first_epoch_at_95": first, **figures, "swap_accuracy": swap}


def judge(policy: TinyVLA, split: TensorSplit) -> Metrics:
    """Metrics of the policy's answers on a split."""
    return Metrics.of(predict_split(policy, split), split.actions.cpu())


def tensors(policy: TinyVLA, scenes: BlockFind) -> TensorSplit:
    """Scenes with the policy's own token ids, on its device."""
    return TensorSplit.from_blockfind(scenes, policy.language.encode, policy.device)


@lru_cache(maxsize=2)
def blockfind(data: DataConfig) -> tuple[BlockFind, BlockFind, BlockFind]:
    """Training, validation and test split."""
    sizes = ((data.num_train, data.train_seed), (data.num_val, data.val_seed), (data.num_test, data.test_seed))
    train_scenes, val_scenes, test_scenes = (BlockFind(count, seed) for count, seed in sizes)
    return train_scenes, val_scenes, test_scenes
