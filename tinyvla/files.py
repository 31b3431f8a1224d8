"""Files that come in and go out: damaged ones refused in words, new ones written whole or not at all.

Notable:
- whatever is read, may come from a stranger: JSON and tensors alone, bounded in size, nothing unpickled;
- a place to write to is checked before the work begins whose result shall lie there;
- a file is written beside its place and moved there in one step, so it is the old one or the new one, whole.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyvla.errors import InputError
from tinyvla.fields import check, shown

if TYPE_CHECKING:
    from torch import Tensor

MAX_JSON_BYTES = 2**24
LFS = b"version https://git-lfs"
PICTURES = (".png", ".jpg", ".pdf", ".svg")
"""Suffixes that a picture may have."""


def parse_json(text: str | bytes, where: str) -> dict[str, Any]:
    """Returns the object that a JSON text describes.

    Args:
        where: the text's place, for messages.

    Raises:
        InputError: it is not JSON, or not an object.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not JSON ({error}); the file is damaged") from None
    check(isinstance(values, dict), f"{where} holds {shown(values)}; it must be an object")
    return values


def read_json(path: Path, missing: str) -> dict[str, Any]:
    """Returns the object in a JSON file.

    Args:
        missing: the message where there is no such file.

    Raises:
        InputError: there is none, it cannot be read, or it is not an object in JSON.
    """
    return parse_json(read_bytes(path, missing), str(path))


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Let what is refused in a file say which file it is.

    Raises:
        InputError: with the file's path before it, whatever was refused.
    """
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def check_is_no_pointer(path: Path) -> None:
    """Refuse what `git clone` leaves in a large file's place where Git LFS is not installed.

    Raises:
        InputError: the file is such a note.
    """
    with open(path, "rb") as file:
        start = file.read(len(LFS))
    check(start != LFS, f"{path} is a note by Git LFS in place of the file; run `git lfs pull` there")


def check_is_file(path: Path) -> None:
    """Refuse what is there and is no ordinary file: to read a pipe is to wait for ever.

    Raises:
        InputError: it is a pipe, a device or a folder.
    """
    check(path.is_file() or not path.exists(), f"{path} is no ordinary file")


def read_bytes(path: Path, missing: str) -> bytes:
    """Returns what a small text file holds.

    Raises:
        InputError: there is no such file, it cannot be read, or it is large.
    """
    check(path.is_file(), missing)
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_JSON_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    check(len(data) <= MAX_JSON_BYTES, f"{path} is larger than {MAX_JSON_BYTES >> 20} MB; it is not what it should be")
    return data


def as_path(value: Any, what: str) -> Path:
    """Returns a path that a file can have.

    Args:
        what: is named by it, for the message.

    Raises:
        InputError: it is no path, is empty or too long, or holds a character that no file's name can hold.
    """
    check(isinstance(value, str | Path) and value != "", f"{what} is {shown(value)}; it must be a path")
    try:
        os.lstat(value)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or "such a character cannot be in one"
        raise InputError(f"{what} is {shown(str(value))}, and no file can have that name: {cause}") from None
    return Path(value)


def check_output(path: Path, suffixes: Sequence[str] = (), option: str = "--out") -> None:
    """Refuse a place for a file before the work begins whose result shall lie there.

    Args:
        suffixes: those that are allowed; all, if empty.
        option: that named the place.

    Raises:
        InputError: it is a folder or a device, its folder is missing or cannot be written to, or the suffix is wrong.
    """
    as_path(path, option)
    as_path(temporary_of(path), option)  # a little longer
    check(not path.is_dir(), f"{option} is the folder {path}; name a file in it")
    allowed = ", ".join(suffixes)
    check(not suffixes or path.suffix.lower() in suffixes, f"{option} is {path}; its name must end with {allowed}")
    check(path.is_file() or not path.exists(), f"{option} is {path}, which is no ordinary file")
    check(path.parent.is_dir(), f"there is no folder {path.parent} to write {path.name} into")
    check_folder(path.parent, option)
    check(not path.exists() or os.access(path, os.W_OK), f"{option} is {path}, which is read-only")


def check_folder(path: Path, option: str) -> None:
    """Refuse a folder in which nothing can be written; one that is not there yet is looked for further up.

    Raises:
        InputError: it is a file, or writing fails.
    """
    as_path(path, option)
    place = next(each for each in (path, *path.absolute().parents) if each.exists())
    if not place.is_dir():
        raise InputError(f"cannot write to {path}: {place} is a file; {option} must name a folder")
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise InputError(f"cannot write to {place}: {error.strerror}; choose another {option}") from None


def cache_folder() -> Path:
    """Where things are kept that can be made anew: `$TINYVLA_CACHE`, or `tinyvla` in the user's cache folder."""
    if chosen := os.environ.get("TINYVLA_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tinyvla"


def temporary_of(path: Path) -> Path:
    """Where this process prepares what shall lie at a path."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a temporary neighbour of `path`, then move it there in one step.

    Raises:
        OSError: it cannot be written; nothing has changed.
    """
    temporary = temporary_of(path)
    try:
        write(temporary)
        sync(temporary)
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is not None and error.filename is None:  # a full disk does not say where
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole, or not at all."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def sync(path: Path) -> None:
    """Wait until a file lies on the disk, not only in its cache."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write a safetensors file; a full disk is an `OSError`, as it is everywhere else."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(dict(tensors), path, dict(metadata))
    except SafetensorError as error:
        raise OSError(None, str(error).split(": ", 1)[-1], str(path)) from None
