"""What may watch a training: a progress bar, TensorBoard, Ctrl-C, a function of yours.

Notable:
- `tinyvla.learn.train.fit` knows none of them; it calls the methods of `Callback` and looks at `stop`;
- your own is a subclass with the methods that it needs.
"""

from __future__ import annotations

import math
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from tqdm.auto import tqdm

from tinyvla.errors import InputError
from tinyvla.fields import checked
from tinyvla.recipes import TrainConfig

Record = dict[str, Any]
"""What is known at an epoch's end: epoch, step, train_loss, val_loss and the validation metrics."""


class DivergedError(InputError):
    """The loss is NaN or infinite."""


class Interrupted(Exception):
    """A callback asked for the end; the state of a run with a folder has been saved."""


class Callback:
    """Watches a training. Every method does nothing unless a subclass says otherwise."""

    stop = False
    """Set it to True, and the training saves its state after the step that it is in, and ends."""

    def on_start(self, done: int, total: int) -> None:
        """Called before the first step: steps done already by a run that is resumed, and steps in all."""

    def on_step(self, step: int, loss: float, learning_rate: float) -> None:
        """Called after each step, with its number from one, its loss and its learning rate."""

    def on_epoch(self, record: Record) -> None:
        """Called after each validation, with the epoch's record."""

    def on_end(self) -> None:
        """Called when the training ends, also by an error."""


Callbacks = Sequence[Callback]


class OnEpoch(Callback):
    """Calls a function with each epoch's record."""

    @checked
    def __init__(self, function: Callable[[Record], Any]) -> None:
        self.function = function

    def on_epoch(self, record: Record) -> None:
        """Pass the record on."""
        self.function(record)


class ProgressBar(Callback):
    """A bar with the latest loss, and the direction accuracy of the latest validation."""

    def __init__(self) -> None:
        self.shown: dict[str, str] = {}

    def on_start(self, done: int, total: int) -> None:
        """Open the bar."""
        self.bar = tqdm(total=total, initial=done, unit="step", leave=False)

    def on_step(self, step: int, loss: float, learning_rate: float) -> None:
        """Move it."""
        self.shown["loss"] = f"{loss:.4f}"
        self.bar.set_postfix(self.shown, refresh=False)
        self.bar.update(step - self.bar.n)

    def on_epoch(self, record: Record) -> None:
        """Note the accuracy."""
        self.shown["direction"] = f"{record['direction_accuracy']:.1%}"

    def on_end(self) -> None:
        """Remove it."""
        self.bar.close()


@runtime_checkable
class ScalarWriter(Protocol):
    """The part of TensorBoard's `SummaryWriter` that is used here."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> Any:
        """Log one number."""


class LogWarning(UserWarning):
    """What is logged can no longer be written."""


@contextmanager
def event_file(folder: str | Path) -> Iterator[ScalarWriter]:
    """TensorBoard's writer; what it cannot write in its own thread is said by the next call, and only there."""
    from torch.utils.tensorboard import SummaryWriter

    usual = threading.excepthook
    threading.excepthook = lambda what: None if isinstance(what.exc_value, OSError) else usual(what)
    try:
        writer = SummaryWriter(str(folder))
        try:
            yield writer
        finally:
            with _logs_may_end():
                writer.close()
    finally:
        threading.excepthook = usual


@contextmanager
def _logs_may_end() -> Iterator[None]:
    """Warn where logs cannot be written: a training is worth more than they are."""
    try:
        yield
    except OSError as error:
        warnings.warn(f"cannot write logs ({error.strerror or error}); training goes on without them", LogWarning, 3)


class TensorBoard(Callback):
    """Logs the loss and the learning rate of every tenth step, and each validation, while that can be written.

    Args:
        writer: of `torch.utils.tensorboard`, or anything with its `add_scalar`.
    """

    every = 10

    @checked
    def __init__(self, writer: ScalarWriter) -> None:
        self.writer, self.ended = writer, False

    def on_step(self, step: int, loss: float, learning_rate: float) -> None:
        """Log every tenth step."""
        if step % self.every == 0:
            self._log({"train/loss": loss, "train/learning_rate": learning_rate}, step)

    def on_epoch(self, record: Record) -> None:
        """Log the validation."""
        names = ("val_loss", "l2_error", "direction_accuracy", "within_10_degrees")
        self._log({f"val/{name.removeprefix('val_')}": record[name] for name in names}, record["step"])

    def _log(self, values: dict[str, float], step: int) -> None:
        if not self.ended:
            self.ended = True
            with _logs_may_end():
                for tag, value in values.items():
                    self.writer.add_scalar(tag, value, step)
                self.ended = False


class StopOnInterrupt(Callback):
    """Lets the first Ctrl-C end the training between two steps, so that none is torn; the second one kills."""

    def on_start(self, done: int, total: int) -> None:
        """Listen, where this thread may: Python delivers signals to the main one alone."""
        self.stop = False
        self._previous: Any = None
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._note)

    def _note(self, signum: int, frame: Any) -> None:
        self.stop = True
        self.on_end()

    def on_end(self) -> None:
        """Give Ctrl-C back its usual meaning."""
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None


@contextmanager
def watching(callbacks: Callbacks, done: int, total: int) -> Iterator[None]:
    """Let callbacks know of the beginning of a training and, whatever happens, of its end."""
    try:
        for callback in callbacks:
            callback.on_start(done, total)
        yield
    finally:
        for callback in callbacks:
            callback.on_end()


def check_finite(loss: float, step: int, config: TrainConfig) -> None:
    """Refuse a loss that is no number.

    Raises:
        DivergedError: it is NaN or infinite; the message says what helps.
    """
    if not math.isfinite(loss):
        raise DivergedError(
            f"the loss is {loss} at step {step}: training diverged, nothing was saved. Try a lower --learning-rate "
            f"(now {config.learning_rate:g}; 1e-4 to 1e-3 work) or a longer --warmup-steps (now {config.warmup_steps})"
        )
