"""What a field of a configuration, or an option of a command, may hold: a type, and bounds that stand beside it.

    embed_dim: Annotated[int, Within(1, 8_192)] = 192

Notable:
- one check serves configurations made in Python, options of the command line and what a JSON file says;
- bounds are far above what anybody trains here, and low enough that nothing hangs or fills the memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from numbers import Integral, Real
from types import UnionType
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from tinyvla.errors import InputError

Made = TypeVar("Made")


@dataclass(frozen=True)
class Within:
    """The smallest and the largest number that is allowed."""

    low: int | float
    high: int | float
    above: bool = False
    """Whether the number must lie above `low`."""

    def __contains__(self, number: Any) -> bool:
        return bool((self.low < number if self.above else self.low <= number) and number <= self.high)

    def __str__(self) -> str:
        return f"above {self.low} and at most {self.high}" if self.above else f"from {self.low} to {self.high}"


SEED = Within(0, 2**32 - 1)
"""Seeds that NumPy takes."""
MAX_SIDE = 8_192
"""Pixels along one side of an image."""
MANY = Within(1, 2**20)
"""How many of anything: scenes, episodes, runs."""


def check(condition: bool, message: str) -> None:
    """Refuse something, with a message, unless a condition holds.

    Raises:
        InputError: it does not.
    """
    if not condition:
        raise InputError(message)


def shown(value: Any) -> str:
    """A value for a message, cut short."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a number of thousands of digits, or an object that cannot be shown
        text = f"a {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."


def check_once(values: Sequence[Any], what: str) -> None:
    """Refuse a list that names something twice.

    Args:
        what: it names, such as "cameras", for the message.

    Raises:
        InputError: it does.
    """
    twice = next((value for number, value in enumerate(values) if value in values[:number]), None)
    check(twice is None, f"the {what} name {shown(twice)} twice; name it once")


def check_number(name: str, value: Any, bounds: Within, whole: bool = True) -> Any:
    """Returns a number as Python's own, once it is known to be one and to lie within bounds.

    Args:
        name: of the field or the option, for the message.
        whole: whether 1.0 is refused.

    Raises:
        InputError: it is no number, not whole or out of bounds.
    """
    is_one = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
    what = "a whole number" if whole else "a number"
    check(is_one and value in bounds, f"{name} is {shown(value)}; it must be {what} {bounds}")
    return int(value) if isinstance(value, Integral) else float(value)


def check_fields(config: Any) -> None:
    """Refuse a dataclass unless each field holds what its annotation says; numbers become Python's own.

    Tuples are left to the class itself.

    Raises:
        InputError: one of them does not; the message names it and says what is allowed.
    """
    kind_of: Any = type(config)
    for name, hint in _hints(kind_of).items():
        label, value = f"{type(config).__name__}.{name}", getattr(config, name)
        kind, *notes = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        bounds = next((note for note in notes if isinstance(note, Within)), None)
        if bounds is not None:
            object.__setattr__(config, name, check_number(label, value, bounds, whole=kind is int))
            continue
        parts = get_args(kind) if isinstance(kind, UnionType) else (kind,)
        kinds = tuple(k for k in parts if k in (bool, str) or is_dataclass(k))
        words = {bool: "true or false", str: "text"}
        what = " or ".join(words.get(k, f"a {k.__name__}") for k in kinds)
        check(not kinds or isinstance(value, kinds), f"{label} is {shown(value)}; it must be {what}")


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def make(kind: type[Made], values: Any, where: str) -> Made:
    """Returns a dataclass made of what a JSON file says.

    Args:
        kind: the dataclass.
        values: its fields.
        where: the file or its part, for messages.

    Raises:
        InputError: the values are no object, a key is unknown or missing, or the class refuses a value.
    """
    check(isinstance(values, dict), f"{where} holds {shown(values)}; it must be an object")
    columns: dict[str, Any] = {each.name: each for each in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(columns))
    check(not unknown, f"{where} holds unknown keys {shown(unknown)}; known are {', '.join(columns)}")
    needed = [name for name, each in columns.items() if each.default is MISSING and each.default_factory is MISSING]
    missing = [name for name in needed if name not in values]
    check(not missing, f"{where} lacks {', '.join(missing)}")
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
