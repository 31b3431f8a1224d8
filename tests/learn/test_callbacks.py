from __future__ import annotations

import errno
import os
import signal
import threading
import time
import warnings

import pytest

from tinyvla.learn.callbacks import (
    Callback,
    DivergedError,
    LogWarning,
    OnEpoch,
    ProgressBar,
    StopOnInterrupt,
    TensorBoard,
    check_finite,
    event_file,
    watching,
)
from tinyvla.recipes import TrainConfig

RECORD = {"step": 30, "val_loss": 0.4, "l2_error": 0.3, "direction_accuracy": 0.5, "within_10_degrees": 0.1}


class Notes(Callback):
    def __init__(self):
        self.heard = []

    def on_start(self, done, total):
        self.heard.append(("start", done, total))

    def on_end(self):
        self.heard.append("end")


def test_whoever_watches_hears_of_beginning_and_end_also_of_an_error():
    notes = Notes()
    with watching([Callback(), notes], 3, 10):
        assert notes.heard == [("start", 3, 10)]
    assert notes.heard[-1] == "end"
    with pytest.raises(MemoryError), watching([notes], 0, 1):
        raise MemoryError
    assert notes.heard == [("start", 3, 10), "end", ("start", 0, 1), "end"]


def test_a_function_is_called_with_each_record():
    seen = []
    OnEpoch(seen.append).on_epoch(RECORD)
    assert seen == [RECORD]


def test_the_bar_shows_loss_and_accuracy(capsys):
    bar = ProgressBar()
    with watching([bar], 5, 10):
        bar.on_step(6, 0.25, 1e-3)
        bar.on_epoch(RECORD)
        bar.on_step(7, 0.125, 1e-3)
        assert bar.bar.n == 7
        assert bar.shown == {"loss": "0.1250", "direction": "50.0%"}
    assert "5/10" in capsys.readouterr().err


def test_every_tenth_step_and_each_validation_are_logged():
    logged = []

    class Writer:
        def add_scalar(self, tag, scalar_value, global_step):
            logged.append((tag, scalar_value, global_step))

    board = TensorBoard(Writer())
    for step in range(1, 21):
        board.on_step(step, step / 100, 1e-3)
    assert logged == [
        ("train/loss", 0.1, 10),
        ("train/learning_rate", 1e-3, 10),
        ("train/loss", 0.2, 20),
        ("train/learning_rate", 1e-3, 20),
    ]
    board.on_epoch(RECORD)
    assert ("val/loss", 0.4, 30) in logged
    assert ("val/direction_accuracy", 0.5, 30) in logged


def test_logs_that_cannot_be_written_end_with_a_warning(capfd, monkeypatch, tmp_path):
    from tensorboard.summary.writer.record_writer import RecordWriter

    def fail(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    with event_file(tmp_path) as writer:
        board = TensorBoard(writer)
        board.on_step(10, 0.5, 1e-3)
        writer.flush()
        monkeypatch.setattr(RecordWriter, "write", fail)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            for step in range(20, 2_000, 10):
                board.on_step(step, 0.5, 1e-3)
                time.sleep(0.01 * (not board.ended))
            board.on_epoch(RECORD)
        texts = [str(each.message) for each in said if each.category is LogWarning]
        assert texts == ["cannot write logs (No space left on device); training goes on without them"]
        warnings.simplefilter("ignore", LogWarning)  # for the writer's end
    assert capfd.readouterr().err == ""


def test_the_first_ctrl_c_is_noted_and_the_second_kills():
    stopper, before = StopOnInterrupt(), signal.getsignal(signal.SIGINT)
    with watching([stopper], 0, 10):
        assert not stopper.stop
        os.kill(os.getpid(), signal.SIGINT)
        assert stopper.stop
        assert signal.getsignal(signal.SIGINT) is before
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    with watching([stopper], 0, 10):
        assert not stopper.stop
    assert signal.getsignal(signal.SIGINT) is before


def test_another_thread_cannot_listen_and_trains_all_the_same():
    def listen():
        with watching([StopOnInterrupt()], 0, 10):
            heard.append(True)

    heard = []
    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert heard


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_refused(loss):
    check_finite(0.5, 3, TrainConfig())
    with pytest.raises(DivergedError, match=r"at step 3.*lower --learning-rate \(now 0.0003"):
        check_finite(loss, 3, TrainConfig())
