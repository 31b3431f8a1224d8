"""The training loop: a step for each batch, a validation after each epoch, checkpoints, resume.

Notable:
- `fit` works on tensors alone; give it a `RunFolder` and it also writes checkpoints and resumes;
- nothing depends on hidden random state: a run that is killed and resumed gives the same weights, bit for bit on a CPU;
- another kind of step needs no other loop, for a step is an object; whatever watches the training is a callback.
"""

from __future__ import annotations

from contextlib import nullcontext

from jaxtyping import Float, Int64
from torch import Generator, Tensor, nn, optim, stack

from tinyvla.data.batch import Batch, TensorSplit, epoch_order
from tinyvla.fields import check, checked
from tinyvla.learn.augment import Augmentation
from tinyvla.learn.callbacks import Callbacks, Interrupted, Record, check_finite, watching
from tinyvla.learn.checkpoint import Progress, RunFolder
from tinyvla.learn.evaluate import validation_loss
from tinyvla.learn.optimizer import learning_rate_at, make_optimizer, set_learning_rate
from tinyvla.model.policy import TinyVLA
from tinyvla.recipes import TrainConfig


@checked
def train_step(
    policy: TinyVLA, optimizer: optim.Optimizer, batch: Batch, grad_clip: float, generator: Generator | None = None
) -> Float[Tensor, ""]:
    """Take one step of gradient descent; returns the batch's loss before it."""
    optimizer.zero_grad()  # before the forward pass: old gradients need not lie in memory beside its activations
    loss = policy.loss(batch, generator)
    loss.backward()
    nn.utils.clip_grad_norm_(policy.parameters(), grad_clip)
    optimizer.step()
    return loss.detach()


class PlainStep:
    """The step that the course teaches: float32, kernel by kernel, on every device. Others are in `tinyvla.speed`."""

    read_every = 1
    """Steps between two looks at the loss; each look waits for the device."""

    def __init__(
        self, policy: TinyVLA, train: TensorSplit, config: TrainConfig, optimizer: optim.Optimizer | None = None
    ) -> None:
        self.policy, self.train, self.config = policy, train, config
        self.optimizer = optimizer or make_optimizer(policy, config)
        self.augment, self.generator = Augmentation(config, train), Generator(train.device)

    def __call__(self, index: Int64[Tensor, "b"]) -> Float[Tensor, ""]:
        """Learn from the scenes at an index; returns their loss before that."""
        batch = self.augment(self.train.take(index), self.generator)
        return train_step(self.policy, self.optimizer, batch, self.config.grad_clip, self.generator)


@checked
def fit(
    policy: TinyVLA,
    train: TensorSplit,
    val: TensorSplit,
    config: TrainConfig,
    step: PlainStep | None = None,
    run: RunFolder | None = None,
    callbacks: Callbacks = (),
) -> list[Record]:
    """Train a policy in place.

    Args:
        train, val: on the policy's device.
        step: made for this policy, split and configuration; a `PlainStep` unless given.
        run: where to keep checkpoints; training goes on from what is saved there.
        callbacks: what watches, and may ask for the end.

    Returns:
        One record per epoch: epoch, step, train_loss, val_loss and the validation metrics.

    Raises:
        DivergedError: the loss is not finite. Nothing of the step is kept.
        Interrupted: a callback asked for the end. The state of a run with a folder has been saved.
    """
    policy.check_statistics()
    policy.prepare.check(train, val)
    policy.language.note_words(train.input_ids)
    is_taught = config.accumulate == 1 and not config.recompute
    check(is_taught or step is not None, "accumulate and recompute need a `step` of tinyvla.speed.step.make_step")
    step = step or PlainStep(policy, train, config)
    total = config.total_steps(len(train))
    progress = run.load_state(policy, step.optimizer, total) if run else Progress()
    records = [r for r in run.records() if r["step"] <= progress.step] if run else []  # a kill may leave later ones
    policy.train()
    with run.held() if run else nullcontext(), watching(callbacks, progress.step, total):
        while progress.step < total:
            if _train_epoch(step, train, config, progress, callbacks):
                records.append(_validate(policy, val, len(train), config, progress))
                if run:
                    run.save_epoch(policy, step.optimizer, progress, records, config.checkpoint_every)
                for callback in callbacks:
                    callback.on_epoch(records[-1])
            elif run:
                run.save_state(policy, step.optimizer, progress)
            if progress.step < total and any(callback.stop for callback in callbacks):
                raise Interrupted(f"stopped at step {progress.step} of {total}")
    if run:
        run.finish()
    return records


def _train_epoch(
    step: PlainStep, train: TensorSplit, config: TrainConfig, progress: Progress, callbacks: Callbacks
) -> bool:
    """Take the steps that are left of an epoch; returns False where a callback ended it before its last step."""
    total = config.total_steps(len(train))
    epoch, done = divmod(progress.step, config.steps_per_epoch(len(train)))
    order = epoch_order(len(train), config.seed, epoch).to(train.device)
    batches = order.split(config.batch_size)[done : done + total - progress.step]
    losses: list[Tensor] = []
    for number, index in enumerate(batches, start=1):
        set_learning_rate(step.optimizer, learning_rate_at(progress.step, total, config))
        step.generator.manual_seed((1_000_003 * config.seed + progress.step) % 2**63)
        losses.append(step(index))
        progress.step += 1
        if len(losses) == step.read_every or number == len(batches):
            _read(losses, config, total, progress, callbacks)
            if any(callback.stop for callback in callbacks):
                return number == len(batches)
    return True


def _read(losses: list[Tensor], config: TrainConfig, total: int, progress: Progress, callbacks: Callbacks) -> None:
    """Check, add up and report the losses of the latest steps, and empty their list."""
    for step, loss in enumerate(stack(losses).tolist(), start=progress.step - len(losses)):
        check_finite(loss, step, config)
        progress.loss_sum += loss
        for callback in callbacks:
            callback.on_step(step + 1, loss, learning_rate_at(step, total, config))
    losses.clear()


def _validate(policy: TinyVLA, val: TensorSplit, num_scenes: int, config: TrainConfig, progress: Progress) -> Record:
    """Returns the record of the epoch that has ended; the last one may be a part of an epoch."""
    val_loss, metrics = validation_loss(policy, val)
    check_finite(val_loss, progress.step, config)
    epoch, rest = divmod(progress.step, config.steps_per_epoch(num_scenes))
    number = config.epochs if progress.step == config.total_steps(num_scenes) else epoch
    train_loss = progress.loss_sum / (rest or config.steps_per_epoch(num_scenes))
    progress.loss_sum = 0.0
    return {"epoch": number, "step": progress.step, "train_loss": train_loss, "val_loss": val_loss} | vars(metrics)
