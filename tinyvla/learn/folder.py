"""A folder that one process at a time works in, and from which nothing is removed but what was written there.

Notable:
- `held` takes a lock, which the system releases when its holder dies, whatever it dies of;
- a file's name is noted in `config.json` before the file is there, and nothing else is ever removed;
- a run that shall replace another grows in `.new`. Once it has a checkpoint, one `os.replace` makes it `.swap`; whoever
  takes the lock from then on finishes the exchange.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock, Timeout

from tinyvla.errors import InputError
from tinyvla.fields import check
from tinyvla.files import read_json, write_text

SETTINGS, METRICS, STATE, BEST = "config.json", "metrics.jsonl", "resume.safetensors", "best"
NEW, SWAP, LOCK = ".new", ".swap", ".lock"
CHECKPOINT = ("config.json", "model.safetensors", "README.md")
NAMES = r"(config\.json|metrics\.jsonl|resume\.safetensors|best|epoch_\d+)"
"""What lies in a run's folder."""


class Folder:
    """A place for a run, and for another one that shall replace it."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._lock = FileLock(self.path / LOCK)

    @property
    def place(self) -> Path:
        """Where the run that was started last lies."""
        return self.path / NEW if (self.path / NEW / SETTINGS).is_file() else self.path

    @property
    def best(self) -> Path:
        """The best checkpoint's folder."""
        return self.place / BEST

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes out of the folder, which is made where it is missing, and tidy it up.

        Raises:
            InputError: another process works in it, or it is no folder.
        """
        check(self.path.is_dir() or not self.path.exists(), f"{self.path} is a file; --out must name a folder")
        self.path.mkdir(parents=True, exist_ok=True)
        note = self.path / LOCK
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            holder = "another process"
            with suppress(OSError):
                holder = f"process {note.read_text(encoding='utf-8')}"
            raise InputError(
                f"{self.path} is in use by {holder}; wait until it ends, or choose another --out"
            ) from None
        try:
            if self._lock.lock_counter == 1:
                note.write_text(str(os.getpid()), encoding="utf-8")
                self._tidy()
            yield
        finally:
            if self._lock.lock_counter == 1:
                with suppress(OSError):
                    note.unlink()
            self._lock.release()

    def _tidy(self) -> None:
        """Remove what a killed process was about to write, and finish what it was about to swap."""
        for folder in (self.path, self.path / NEW):
            for path in folder.iterdir() if folder.is_dir() else ():
                if re.fullmatch(rf"\.{NAMES}\.\d+\.tmp", path.name):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                elif re.fullmatch(r"\.tmp\w{6}", path.name) and path.is_file():  # of safetensors
                    path.unlink()
        if (self.path / SWAP).is_dir():
            self._finish_swap()

    def make_way(self, overwrite: bool) -> Path:
        """Returns where a new run can begin: here, or beside a run that stays until the new one has a checkpoint.

        Raises:
            InputError: a run is here and `overwrite` is false, or other files are where a run would write.
        """
        if foreign := self._foreign():
            raise InputError(f"{self.path} holds {', '.join(foreign)} not written by a run; choose another --out")
        is_kept = any((self.path / name).exists() for name in written(self.path) if name not in (SETTINGS, METRICS))
        if (is_kept or (self.path / NEW / STATE).exists()) and not overwrite:
            raise InputError(
                f"{self.path} holds a run already; go on with --resume, replace it with --overwrite, "
                "or choose another --out"
            )
        shutil.rmtree(self.path / NEW, ignore_errors=True)
        if not is_kept:
            _remove(self.path, written(self.path))
        place = self.path / NEW if is_kept else self.path
        place.mkdir(exist_ok=True)
        return place

    def _foreign(self) -> list[str]:
        """Names that a run would write and that no run has written."""
        ours = {PurePosixPath(name).parts[0] for name in written(self.path)}
        here = {path.name: path for path in self.path.iterdir() if re.fullmatch(NAMES, path.name)}
        return sorted(name for name, path in here.items() if name not in ours or path.is_symlink())

    def drop_unsaved(self) -> None:
        """Forget a run that shall replace another and has saved nothing yet."""
        if not (self.path / NEW / STATE).exists():
            shutil.rmtree(self.path / NEW, ignore_errors=True)

    def swap(self) -> None:
        """Put a run that grew beside another one in its place."""
        if self.place != self.path:
            os.replace(self.path / NEW, self.path / SWAP)
            self._finish_swap()

    def _finish_swap(self) -> None:
        """Bring the new run's files to their places, its settings last: until then this can be begun again."""
        new = self.path / SWAP
        if (new / SETTINGS).is_file():
            _remove(self.path, set(written(self.path)) - set(written(new)))
            for file in sorted((p for p in new.rglob("*") if p.is_file()), key=lambda p: p == new / SETTINGS):
                target = self.path / file.relative_to(new)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, target)
        shutil.rmtree(new)

    def note(self, names: Iterable[str]) -> None:
        """Write down which files will be this run's."""
        values = read_json(self.place / SETTINGS, f"{self.place} holds no {SETTINGS}")
        files = list(dict.fromkeys([*written(self.place), *names]))
        if files != values.get("files"):
            write_settings(self.place, {**values, "files": files})


def written(folder: Path) -> list[str]:
    """Returns the names of the files that a run has written into a folder, as its `config.json` notes them.

    Where it notes nothing, as it once did, these are the usual names. Names that lead elsewhere are left out.
    """
    try:
        values = read_json(folder / SETTINGS, "there is none")
    except InputError:
        return []
    if not {"model", "train", "data"} <= values.keys():
        return []
    names = (BEST, *sorted(path.name for path in folder.glob("epoch_*")))
    files = values.get(
        "files", [SETTINGS, METRICS, STATE, *(f"{name}/{file}" for name in names for file in CHECKPOINT)]
    )
    return [name for name in files if _is_ours(name)] if isinstance(files, list) else []


def _is_ours(name: Any) -> bool:
    """Whether a name leads to a place where a run may write."""
    if not isinstance(name, str) or "\0" in name:
        return False
    parts = PurePosixPath(name).parts
    return bool(parts) and ".." not in parts and bool(re.fullmatch(NAMES, parts[0]))


def _remove(folder: Path, names: Iterable[str]) -> None:
    """Remove files of these names, and folders that are empty then."""
    for name in names:
        path = folder / name
        path.unlink(missing_ok=True)
        for parent in list(path.parents)[: len(Path(name).parts) - 1]:
            with suppress(OSError):
                parent.rmdir()


def write_settings(folder: Path, values: dict[str, Any]) -> None:
    """Write `config.json`."""
    write_text(folder / SETTINGS, json.dumps(values, indent=2) + "\n")
