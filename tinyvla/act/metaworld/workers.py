"""Processes that simulate: how many, and how they end.

Notable:
- Ctrl-C reaches every process of a terminal; the main one alone answers it, and ends the others;
- a worker whose main process was killed ends at once, so that nobody writes into a folder that no lock protects.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType

from tinyvla.fields import Within, check

PER_CORE = 8
"""Processes at most, for each core: more of them only take turns, and each takes some 500 MB."""


def num_processes(asked: int = 0) -> int:
    """Returns a number of processes: what is asked for, or one for each core if that is 0.

    Raises:
        InputError: it is negative, or far above the number of cores.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    most = PER_CORE * cores
    check(
        asked in Within(0, most),
        f"workers are {asked}; give at least 1 and at most {most}, or 0 for as many as there are cores",
    )
    return asked or cores


def be_worker() -> None:
    """Let this process leave Ctrl-C to its main process, and end when that is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if main := multiprocessing.parent_process():

        def watch() -> None:
            main.join()
            os._exit(1)  # nothing is tidied: the next main process does it

        threading.Thread(target=watch, daemon=True).start()


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Hold Ctrl-C back while processes are started, which then never hear it, not even during their imports."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # or it would be started with the first process, and let Ctrl-C through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end this process as an error does, so that its workers are ended, and locks removed."""

    def end(signum: int, frame: FrameType | None) -> None:
        sys.exit(128 + signum)

    if threading.current_thread() is not threading.main_thread():  # Python delivers signals to that one alone
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
