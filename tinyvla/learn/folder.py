"""A folder that one process at a time works in, and from which nothing is removed but what was written there.

Notable:
- `held` takes a lock, which the system releases when its holder dies, whatever it dies of;
- a file's name is noted in `config.json` before the file is there, and nothing else is ever removed but what bears the
  number of a process that held the lock and died;
- a link, or a folder in a file's place, is refused wherever a run would write: nothing is followed out of the folder;
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
from itertools import product
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock

from tinyvla.errors import InputError
from tinyvla.fields import check
from tinyvla.files import as_path, read_json, write_text
from tinyvla.lock import LOCK, held

SETTINGS, METRICS, STATE, BEST = "config.json", "metrics.jsonl", "resume.safetensors", "best"
NEW, SWAP = ".new", ".swap"
CHECKPOINT = ("config.json", "model.safetensors", "README.md")
NAMES = r"(config\.json|metrics\.jsonl|resume\.safetensors|best|epoch_\d+)"
"""What lies in a run's folder."""
LATER = {SETTINGS, METRICS}
"""What a run writes that may be written anew without a word, where nothing else was kept."""


class Folder:
    """A place for a run, and for another one that shall replace it."""

    def __init__(self, path: Path) -> None:
        self.path = as_path(path, "the run's folder")
        self._lock = FileLock(self.path / LOCK)

    @property
    def place(self) -> Path:
        """Where the run that was started last lies."""
        new = self.path / NEW
        return new if not new.is_symlink() and written(new) else self.path

    @property
    def best(self) -> Path:
        """The best checkpoint's folder."""
        return self.place / BEST

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes out of the folder, which is made where it is missing, and tidy it up.

        Raises:
            InputError: another process works in it, it is no folder, or `.lock` in it is somebody's own.
        """
        check(self.path.is_dir() or not self.path.exists(), f"{self.path} is a file; --out must name a folder")
        self.path.mkdir(parents=True, exist_ok=True)
        with held(self._lock, "a run", "choose another --out", self._tidy):
            yield

    def _tidy(self, dead: str) -> None:
        """Remove what a killed process was about to write, and finish what it was about to swap.

        Args:
            dead: the number of the process that held the lock and did not release it; empty if there was none.
        """
        for folder in (self.path, self.path / NEW) if dead else ():
            names = NAMES if written(folder) else re.escape(SETTINGS)  # the settings are what a run writes first
            for path in folder.iterdir() if _is_folder(folder) else ():
                if re.fullmatch(rf"\.{names}\.{dead}\.tmp", path.name):
                    shutil.rmtree(path) if _is_folder(path) else path.unlink()
        if _is_folder(self.path / SWAP) and written(self.path) and not self._foreign():
            self._finish_swap()

    def make_way(self, overwrite: bool) -> Path:
        """Returns where a new run can begin: here, or beside a run that stays until the new one has a checkpoint.

        Raises:
            InputError: a run is here and `overwrite` is false, or other files are where a run would write.
        """
        self.check_is_free(overwrite)
        is_kept = _is_kept(self.path)
        _remove_run(self.path / NEW)
        if not is_kept:
            _remove(self.path, written(self.path))
        place = self.path / NEW if is_kept else self.path
        place.mkdir(exist_ok=True)
        return place

    def check_is_free(self, overwrite: bool) -> None:
        """Refuse a folder in which no new run can begin; one that is not there yet is free.

        Raises:
            InputError: a run is here and `overwrite` is false, or other files are where a run would write.
        """
        if not self.path.is_dir():
            return
        self.check_is_own("choose another --out")
        if (_is_kept(self.path) or _is_kept(self.path / NEW)) and not overwrite:
            raise InputError(
                f"{self.path} holds a run already; go on with --resume, replace it with --overwrite, "
                "or choose another --out"
            )

    def check_is_own(self, advice: str) -> None:
        """Refuse to write where others have written, or where a link leads elsewhere.

        Args:
            advice: what to do about it.

        Raises:
            InputError: it is so.
        """
        if foreign := self._foreign():
            raise InputError(f"{self.path} holds {', '.join(foreign)} not written by a run; {advice}")

    def _foreign(self) -> list[str]:
        """Names of what is where a run would write, and that no run has written."""
        new, swap, own = self.path / NEW, self.path / SWAP, written(self.path)
        noted = {self.path: {*own}, new: {*written(new)}, swap: {*written(swap)} if own else set()}
        ours = {PurePosixPath(name).parts[0] for name in noted[self.path] | noted[swap]}
        here = [path for path in self.path.iterdir() if re.fullmatch(NAMES, path.name)]
        found = {path for path in here if path.name not in ours or path.is_symlink()}
        for folder in (new, swap):
            if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
                found.add(folder)
                continue
            for path in folder.rglob("*"):
                name = path.relative_to(folder).as_posix()
                is_half = folder == new and re.match(rf"\.{NAMES}\.\d+\.tmp(/|$)", name)
                if not (_is_folder(path) or name in noted[folder] or is_half):
                    found.add(path)
        return sorted(
            {*(path.relative_to(self.path).as_posix() for path in found), *self._astray(set().union(*noted.values()))}
        )

    def _astray(self, names: Iterable[str]) -> list[str]:
        """Links on the way to files of these names, here or in `.new` and `.swap`, and folders in their place."""
        found = set()
        for place, name in product((Path(), Path(NEW), Path(SWAP)), names):
            parts = PurePosixPath(name).parts
            way = [place.joinpath(*parts[: count + 1]) for count in range(len(parts))]
            found |= {each.as_posix() for each in way if (self.path / each).is_symlink()}
            found |= {way[-1].as_posix()} if (self.path / way[-1]).is_dir() else set()
        return sorted(found)

    def drop_unsaved(self) -> None:
        """Forget a run that shall replace another and has saved nothing yet."""
        new = self.path / NEW
        if _is_folder(new) and not (new / STATE).exists():
            _remove_run(new)

    def swap(self) -> None:
        """Put a run that grew beside another one in its place."""
        if self.place != self.path:
            os.replace(self.path / NEW, self.path / SWAP)
            self._finish_swap()

    def _finish_swap(self) -> None:
        """Bring the new run's files to their places, its settings last: until then this can be begun again."""
        new = self.path / SWAP
        if names := written(new):
            _remove(self.path, set(written(self.path)) - set(names))
            for name in sorted(names, key=lambda name: name == SETTINGS):
                if (new / name).is_file():
                    (self.path / name).parent.mkdir(parents=True, exist_ok=True)
                    os.replace(new / name, self.path / name)
        _remove_run(new)

    def note(self, names: Iterable[str]) -> None:
        """Write down which files will be this run's.

        Raises:
            InputError: a link is on the way to one of them.
        """
        names = list(names)
        astray = self._astray(names)
        check(not astray, f"{self.path} holds {', '.join(astray)} not written by a run; move it away")
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
    if not isinstance(name, str) or not name.isascii() or len(name) > 255 or {"\0", "\\"} & set(name):
        return False
    parts = PurePosixPath(name).parts
    return bool(parts) and ".." not in parts and bool(re.fullmatch(NAMES, parts[0]))


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _is_kept(folder: Path) -> bool:
    """Whether a run has saved more there than its settings and its metrics."""
    return any((folder / name).exists() for name in written(folder) if name not in LATER)


def _remove(folder: Path, names: Iterable[str]) -> None:
    """Remove files of these names, and folders that are empty then."""
    for name in names:
        path = folder / name
        if path.is_file():
            path.unlink()
        for parent in list(path.parents)[: len(Path(name).parts) - 1]:
            with suppress(OSError):
                parent.rmdir()


def _remove_run(folder: Path) -> None:
    """Remove the files of a run, its settings last, and all folders that are empty then."""
    _remove(folder, sorted(written(folder), key=lambda name: name == SETTINGS))
    for path in sorted(filter(_is_folder, (folder, *folder.rglob("*"))), reverse=True):
        with suppress(OSError):
            path.rmdir()


def write_settings(folder: Path, values: dict[str, Any]) -> None:
    """Write `config.json`."""
    write_text(folder / SETTINGS, json.dumps(values, indent=2) + "\n")
