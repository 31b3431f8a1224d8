"""Which options stand on the command line: one that is given with its default's value is given, too.

Notable:
- tyro hands a verb values alone, so what was given is read from the words themselves.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import fields

from tinyvla.errors import InputError
from tinyvla.fields import check, shown
from tinyvla.recipes import DataConfig, RecordingConfig, TrainConfig

OF_MODEL = ("preset", "fusion", "head", "vision", "language", "learn_towers")
OF_TOWERS = OF_MODEL[3:]
OF_SCENES = ("num_train", "num_val", "num_test", "train_seed", "test_seed", "sentences")
OF_SIZES = tuple(each.name for each in fields(RecordingConfig))
OF_RECORDINGS = ("val_episodes", "cameras", "states", "leave_out", *OF_SIZES)
LONGEST = 100
"""Characters of an option."""
_GIVEN: ContextVar[frozenset[str]] = ContextVar("given", default=frozenset())


def note_options(argv: Iterable[str]) -> None:
    """Remember which options stand on a command line.

    Raises:
        InputError: one stands there twice, or is so long that it can be none.
    """
    options = [word.split("=", 1)[0] for word in argv if word.startswith("--")]
    endless = [option for option in options if len(option) > LONGEST]  # it would take tyro seconds to say so
    check(not endless, f"there is no option {shown(endless[:1])}; `tinyvla VERB --help` lists a verb's options")
    names = [option[2:].replace("-", "_").removeprefix("no_") for option in options]
    twice = next((option for option, name in zip(options, names, strict=True) if names.count(name) > 1), None)
    check(twice is None, f"{shown(twice)} is given twice; give it once")
    _GIVEN.set(frozenset(names))


def given(*names: str) -> list[str]:
    """Returns those of some options, by their names in Python, that stand on the command line."""
    return [name for name in names if name in _GIVEN.get()]


def option_of(name: str) -> str:
    """Returns the option of a setting if it stands on the command line, otherwise nothing."""
    return f"--{name.replace('_', '-')}" if given(name) else ""


def refuse(names: Iterable[str], why: str) -> None:
    """Refuse options that a verb has for another use.

    Raises:
        InputError: one of them was given.
    """
    found = [option_of(name) for name in given(*names)]
    if found:
        raise InputError(f"{', '.join(found)}: {why}; leave {'it' if len(found) == 1 else 'them'} out")


def check_train(resume: bool, is_recorded: bool) -> None:
    """Refuse options of `train` that would be passed over.

    Raises:
        InputError: one of them was given.
    """
    if resume:
        refuse(("recipe", "overwrite", *OF_SIZES), "--resume goes on with the run as it was started")
    elif is_recorded:
        refuse((*OF_SCENES, *OF_TOWERS), "such options do not go with --dataset")
    else:
        refuse(OF_RECORDINGS, "for recordings (name them with --dataset)")


def compared() -> set[str]:
    """Returns the fields of a run's settings that were given, which must be as the run has them."""
    named = [each.name for kind in (TrainConfig, DataConfig) for each in fields(kind)]
    return {*given("step", *named), *(["model"] if given(*OF_MODEL) else [])}
