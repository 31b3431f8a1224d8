"""A lock on a folder: `.lock`, with the number of the process that holds it, which the system releases when it dies."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from tinyvla.errors import InputError
from tinyvla.fields import check

LOCK = ".lock"


@contextmanager
def held(lock: FileLock, what: str, another: str, tidy: Callable[[str], None] = lambda dead: None) -> Iterator[None]:
    """Hold a lock, which may be held already by this very object.

    Args:
        lock: on `LOCK` in a folder that is there.
        what: takes such locks, for messages.
        another: folder than this one, as messages advise it.
        tidy: called once the lock is taken, with the number of the process that held it and died, empty if none did.

    Raises:
        InputError: another process holds it, or the file is somebody's own.
    """
    note = Path(lock.lock_file)
    dead = _number_in(note, what, another)  # whoever this was: once the lock is taken, it works no more
    try:
        lock.acquire(timeout=0)
    except Timeout:
        with suppress(OSError):
            dead = note.read_text(encoding="utf-8")
        holder = f"process {dead}" if dead else "another process"
        raise InputError(f"{note.parent} is in use by {holder}; wait until it ends, or {another}") from None
    try:
        if lock.lock_counter == 1:
            tidy(dead)
            note.write_text(str(os.getpid()), encoding="utf-8")
        yield
    finally:
        if lock.lock_counter == 1:
            with suppress(OSError):
                note.unlink()
        lock.release()


def _number_in(lock: Path, what: str, another: str) -> str:
    """Returns the number of the process that wrote into a lock; empty where there is none.

    Raises:
        InputError: no such process wrote it.
    """
    message = f"{lock} was not written by {what}; move it away, or {another}"
    check(not lock.is_symlink() and (lock.is_file() or not lock.exists()), message)
    try:
        text = lock.read_bytes()[:100]
    except OSError:  # there is none, or its holder keeps others from reading
        return ""
    check(bool(re.fullmatch(rb"\d{0,20}", text)), message)
    return text.decode()
