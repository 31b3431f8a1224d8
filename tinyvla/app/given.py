"""Which options stand on the command line: one that is given with its default's value is given, too.

Notable:
- tyro hands a verb values alone, so what was given is read from the words themselves.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar

from tinyvla.errors import InputError
from tinyvla.fields import check, shown

_GIVEN: ContextVar[frozenset[str]] = ContextVar("given", default=frozenset())


def note_options(argv: Iterable[str]) -> None:
    """Remember which options stand on a command line.

    Raises:
        InputError: one stands there twice.
    """
    options = [word.split("=", 1)[0] for word in argv if word.startswith("--")]
    names = [option[2:].replace("-", "_").removeprefix("no_") for option in options]
    twice = next((option for option, name in zip(options, names, strict=True) if names.count(name) > 1), None)
    check(twice is None, f"{shown(twice)} is given twice; give it once")
    _GIVEN.set(frozenset(names))


def given(*names: str) -> list[str]:
    """Returns those of some options, by their names in Python, that stand on the command line."""
    return [name for name in names if name in _GIVEN.get()]


def refuse(names: Iterable[str], why: str) -> None:
    """Refuse options that a verb has for another use.

    Raises:
        InputError: one of them was given.
    """
    found = [f"--{name.replace('_', '-')}" for name in given(*names)]
    if found:
        raise InputError(f"{', '.join(found)}: {why}; leave {'it' if len(found) == 1 else 'them'} out")
