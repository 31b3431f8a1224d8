"""The training loop: AdamW, warm-up, clipping, validation, checkpoints, resume, TensorBoard.

Notable:
- `fit` is the whole loop, and works on tensors alone; give it a `RunFolder` and it also writes checkpoints and resumes;
- the learning rate climbs, holds, and falls linearly to zero over the last half, so that a run of 2 epochs ends as
  settled as one of 20;
- nothing depends on hidden random state: a run that is killed and resumed gives the same weights, bit for bit on a CPU;
- the loop is the same for the plain step and the fast one (`tinyvla.speed.recorded`), for one process and for several.
"""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from tinyvla.data.batch import Batch, TensorSplit, epoch_order
from tinyvla.learn.checkpoint import Progress, RunFolder
from tinyvla.config import InputError, ModelConfig, TrainConfig
from tinyvla.speed.processes import share, spread_loss
from tinyvla.learn.evaluate import validation_loss
from tinyvla.speed.memory import backward_in_parts, save_memory
from tinyvla.model.policy import TinyVLA
from tinyvla.learn.muon import Muon
from tinyvla.speed.recorded import PLAIN, GraphedStep, StepOptions, has_bfloat16_units

if TYPE_CHECKING:
    from accelerate import Accelerator


class DivergedError(InputError):
    """The loss is NaN or infinite."""


class Interrupted(Exception):
    """Ctrl-C arrived; the run's state has been saved."""


@runtime_checkable
class ScalarWriter(Protocol):
    """The part of TensorBoard's `SummaryWriter` that `fit` uses."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> Any:
        """Log one number."""


def train_step(
    policy: TinyVLA,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    grad_clip: float,
    generator: torch.Generator | None = None,
    options: StepOptions = PLAIN,
    loss_of: Callable[..., Tensor] | None = None,
    accumulate: int = 1,
) -> Tensor:
    """One step of gradient descent; returns the loss before it.

    Args:
        generator: for heads that draw noise.
        options: the precision.
        loss_of: stands in for `policy.loss`, compiled or spread over processes.
        accumulate: parts in which the batch is taken.
    """
    optimizer.zero_grad()  # before the forward pass: old gradients need not lie in memory beside its activations
    loss = backward_in_parts(loss_of or policy.loss, batch, accumulate, generator, options)
    nn.utils.clip_grad_norm_(policy.parameters(), grad_clip)
    optimizer.step()
    return loss


def make_step(
    policy: TinyVLA,
    optimizer: torch.optim.Optimizer,
    train: TensorSplit,
    config: TrainConfig,
    generator: torch.Generator,
    options: StepOptions = PLAIN,
    accelerator: Accelerator | None = None,
) -> Callable[[Tensor], Tensor]:
    """A function that trains on the scenes at an index and returns the loss, which stays on the device."""
    save_memory(policy, config, options)
    loss_of = policy.loss if accelerator is None else spread_loss(policy, accelerator)

    def step(index: Tensor) -> Tensor:
        if accelerator is not None:
            index = share(index, accelerator)
        settings = (config.grad_clip, generator, options, loss_of, config.accumulate)
        loss = train_step(policy, optimizer, train.take(index), *settings)
        return loss if accelerator is None else accelerator.reduce(loss, "mean")

    if not options.graph or accelerator is not None:
        return step
    recorded = GraphedStep(policy, optimizer, train, config.batch_size, step, generator, options.compile)
    return lambda index: (recorded if len(index) == config.batch_size else step)(index)


def fit(
    policy: TinyVLA,
    train: TensorSplit,
    val: TensorSplit,
    config: TrainConfig,
    run: RunFolder | None = None,
    writer: ScalarWriter | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
    progress_bar: bool = True,
    options: StepOptions = PLAIN,
    accelerator: Accelerator | None = None,
) -> list[dict[str, Any]]:
    """Train a policy in place.

    Args:
        train, val: on the policy's device.
        run: where to keep checkpoints; training goes on from what is saved there.
        writer: gets scalars for TensorBoard.
        on_epoch: called with each epoch's record.
        options: how a step is carried out; `StepOptions.for_device` knows what is fast.
        accelerator: of several processes that train together; each calls `fit`, the main one alone writes.

    Returns:
        One record per epoch: epoch, step, train_loss, val_loss and the validation metrics.

    Raises:
        DivergedError: the loss is not finite. Nothing of the step is kept.
        Interrupted: Ctrl-C during a run with a folder; its state has been saved.
    """
    policy.head.check(policy.config.head.statistics)
    is_main = accelerator is None or accelerator.is_main_process
    options = options.that_work_with(policy)
    optimizer = make_optimizer(policy, config, capturable=options.graph)
    generator = torch.Generator(train.images.device)  # seeded anew in each step, so that a resumed run draws the same
    progress = run.load_state(policy, optimizer) if run else Progress()
    take_step = make_step(policy, optimizer, train, config, generator, options, accelerator)
    steps_per_epoch = math.ceil(len(train) / config.batch_size)
    total = config.epochs * steps_per_epoch
    # A kill between two writes can leave a record of an epoch that is about to be trained again.
    records = [r for r in run.records() if r["step"] <= progress.step] if run else []
    policy.train()
    bar = tqdm(total=total, initial=progress.step, unit="step", disable=not (progress_bar and is_main), leave=False)
    with bar, _interrupts_noted(enabled=run is not None and accelerator is None) as interrupted:
        while progress.step < total:
            epoch, offset = divmod(progress.step, steps_per_epoch)
            bar.set_description(f"epoch {epoch + 1}/{config.epochs}")
            order = epoch_order(len(train), config.seed, epoch).to(train.images.device)
            unread: list[Tensor] = []
            for index in order.split(config.batch_size)[offset:]:
                set_learning_rate(optimizer, learning_rate_at(progress.step, total, config))
                generator.manual_seed((1_000_003 * config.seed + progress.step) % 2**63)
                unread.append(take_step(index))
                progress.step += 1
                # Reading a loss waits for the device, so the fast step is read in batches.
                if len(unread) < options.read_every and progress.step % steps_per_epoch and not interrupted():
                    continue
                losses = torch.stack(unread).tolist()
                unread.clear()
                _note_losses(losses, progress, total, config, writer)
                bar.update(len(losses))
                bar.set_postfix(_postfix(losses[-1], records), refresh=False)
                if interrupted() and run:
                    run.save_state(policy, optimizer, progress)
                    raise Interrupted(f"stopped at step {progress.step} of {total}")
            record = _end_epoch(policy, val, progress, steps_per_epoch, config)
            records.append(record)
            if run and is_main:
                _save(run, policy, optimizer, progress, records, config)
            if writer:
                for name in ("val_loss", "l2_error", "direction_accuracy", "within_10_degrees"):
                    writer.add_scalar(f"val/{name.removeprefix('val_')}", record[name], progress.step)
            if on_epoch and is_main:
                on_epoch(record)
    if run and is_main:
        run.finish()
    return records


def _note_losses(
    losses: list[float], progress: Progress, total: int, config: TrainConfig, writer: ScalarWriter | None
) -> None:
    """Check, sum and log the losses of the latest steps."""
    first = progress.step - len(losses)
    for step, loss in enumerate(losses, start=first):
        _check_finite(loss, step, config)
        progress.loss_sum += loss
        if writer and (step + 1) % 10 == 0:
            writer.add_scalar("train/loss", loss, step + 1)
            writer.add_scalar("train/learning_rate", learning_rate_at(step, total, config), step + 1)


def _end_epoch(
    policy: TinyVLA, val: TensorSplit, progress: Progress, steps_per_epoch: int, config: TrainConfig
) -> dict[str, Any]:
    """Validate; the record says what came out."""
    val_loss, metrics = validation_loss(policy, val)
    _check_finite(val_loss, progress.step, config)
    record = {
        "epoch": progress.step // steps_per_epoch,
        "step": progress.step,
        "train_loss": progress.loss_sum / steps_per_epoch,
        "val_loss": val_loss,
        **asdict(metrics),
    }
    progress.loss_sum = 0.0
    return record


def _save(
    run: RunFolder,
    policy: TinyVLA,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    records: list[dict[str, Any]],
    config: TrainConfig,
) -> None:
    """Write the epoch's files, the resume state last: a kill before it repeats the epoch and writes them again."""
    record = records[-1]
    if record["val_loss"] <= progress.best_loss:
        progress.best_loss = record["val_loss"]
        run.save_checkpoint(policy, "best")
    if record["epoch"] % config.checkpoint_every == 0:
        run.save_checkpoint(policy, f"epoch_{record['epoch']:03d}")
    run.write_records(records)
    run.save_state(policy, optimizer, progress)


def _postfix(loss: float, records: list[dict[str, Any]]) -> dict[str, str]:
    shown = {"loss": f"{loss:.4f}"}
    return {**shown, "direction": f"{records[-1]['direction_accuracy']:.1%}"} if records else shown


def _check_finite(loss: float, step: int, config: TrainConfig) -> None:
    if not math.isfinite(loss):
        raise DivergedError(
            f"the loss is {loss} at step {step}: training diverged, nothing was saved. Try a lower --learning-rate "
            f"(now {config.learning_rate:g}; 1e-4 to 1e-3 work) or a longer --warmup-steps (now {config.warmup_steps})"
        )


@contextmanager
def _interrupts_noted(enabled: bool) -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a flag that is read between steps, so that no step is torn; the second one kills."""
    if not enabled or threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    noted = threading.Event()

    def note(signum: int, frame: Any) -> None:
        noted.set()
        signal.signal(signal.SIGINT, previous)

    previous = signal.signal(signal.SIGINT, note)
    try:
        yield noted.is_set
    finally:
        signal.signal(signal.SIGINT, previous)
