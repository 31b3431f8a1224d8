"""What a field, an option or an argument may hold: its annotation says it, a type and bounds that stand beside it.

    embed_dim: Annotated[int, Within(1, 8_192)] = 192

Notable:
- one check serves configurations made in Python, options of the command line, what a JSON file says, and the arguments
  of functions that are `checked`;
- bounds are far above what anybody trains here, and low enough that nothing hangs or fills the memory.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields
from functools import cache, wraps
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from tinyvla.errors import InputError

Made = TypeVar("Made")
Called = TypeVar("Called", bound=Callable[..., Any])


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
NAMES = {bool: "true or false", str: "text", Path: "a path"}
"""Types in words."""
Seed = Annotated[int, SEED]
Many = Annotated[int, MANY]
StepsAhead = Annotated[int, Within(1, 10**6)]


def check(condition: bool, message: str) -> None:
    """Refuse something, with a message, unless a condition holds.

    Raises:
        InputError: it does not.
    """
    if not condition:
        raise InputError(message)


def shown(value: Any) -> str:
    """A value for a message, cut short; of an array its kind and shape."""
    try:
        text = " ".join(repr(value).split())
        if getattr(value, "ndim", 0):
            text = f"{type(value).__name__} of {value.dtype} and shape {tuple(value.shape)}"
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
    return check_value(name, value, Annotated[int if whole else float, bounds])


def check_value(name: str, value: Any, hint: Any) -> Any:
    """Returns a value once it is known to fit an annotation; a number as Python's own.

    Args:
        name: of the field or the argument, for the message.

    Raises:
        InputError: it does not fit.
    """
    fits, words = _type(hint)
    if not fits(value):  # to show a policy takes longer than to check it
        raise InputError(f"{name} is {shown(value)}; it must be {words}")
    if not isinstance(value, Real) or isinstance(value, bool):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def check_fields(config: Any) -> None:
    """Refuse a dataclass unless each field holds what its annotation says; numbers become Python's own.

    Raises:
        InputError: one of them does not; the message names it and says what is allowed.
    """
    kind: Any = type(config)
    for name, value in _fitting(vars(config), _hints(kind), f"{kind.__name__}.").items():
        object.__setattr__(config, name, value)


def checked(function: Called) -> Called:
    """A decorator: refuse calls with arguments that the annotations do not allow; numbers become Python's own.

    Sizes of the same name in the annotations of arrays, such as the n of `Float[Tensor, "n 2"]`, must be equal.
    """
    signature = inspect.signature(function)
    several = {
        name for name, each in signature.parameters.items() if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    }

    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        bound = signature.bind(*args, **options)
        hints = {name: hint for name, hint in _hints(function).items() if name not in several}
        bound.arguments |= _fitting(bound.arguments, hints)
        return function(*bound.args, **bound.kwargs)

    return call  # type: ignore[return-value]


def _fitting(values: Mapping[str, Any], hints: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Returns those of some values that have an annotation, checked."""
    from jaxtyping import jaxtyped

    with jaxtyped("context"):  # in which sizes of one name are equal
        return {name: check_value(where + name, values[name], hints[name]) for name in values if name in hints}


@cache
def _hints(kind: Any) -> dict[str, Any]:
    """The annotations; a name that was imported for type checkers alone stands for anything."""
    unknown: dict[str, Any] = {}
    while True:
        try:
            return get_type_hints(kind, localns=unknown, include_extras=True)
        except NameError as error:
            unknown[str(error.name)] = Any


Test = Callable[[Any], bool]


@cache
def _type(hint: Any) -> tuple[Test, str]:
    """Returns a test of whether a value fits an annotation, and in words what does; what cannot be told fits."""
    kind, parts = get_origin(hint), get_args(hint)
    if kind is Annotated:
        fits, words = _type(parts[0])
        bounds = next((note for note in parts[1:] if isinstance(note, Within)), None)
        return (lambda value: fits(value) and value in bounds, f"{words} {bounds}") if bounds else (fits, words)
    if hint in (int, float, int | float):
        number, words = (Integral, "a whole number") if hint is int else (Real, "a number")
        return lambda value: isinstance(value, number) and not isinstance(value, bool), words
    if hint in (None, NoneType):
        return lambda value: value is None, "None"
    if kind is Callable:
        return callable, "a function"
    tests, names = [_type(part)[0] for part in parts], [_type(part)[1] for part in parts]
    if kind in (Union, UnionType):
        return lambda value: any(fits(value) for fits in tests), " or ".join(names)
    own: Any = kind or hint
    if own is Any or not isinstance(own, type):
        return lambda value: True, "anything"
    if own is tuple and parts and ... not in parts:
        return lambda value: isinstance(value, tuple) and _each(tests, value), f"({', '.join(names)})"
    if issubclass(own, Mapping) and parts:
        return lambda value: isinstance(value, own) and all(_each(tests, pair) for pair in value.items()), (
            f"a dict, each entry {names[1]}"
        )
    if issubclass(own, Sequence) and parts:
        return (
            lambda value: isinstance(value, own) and not isinstance(value, str | bytes) and all(map(tests[0], value)),
            f"a {'tuple' if own is tuple else 'list'}, each entry {names[0]}",
        )
    same = " (sizes of one name are equal)" if hasattr(own, "dim_str") else ""  # of arrays
    return lambda value: isinstance(value, own), NAMES.get(own, f"a {own.__name__}{same}")


def _each(tests: Sequence[Test], values: Sequence[Any]) -> bool:
    return len(tests) == len(values) and all(fits(value) for fits, value in zip(tests, values, strict=True))


@contextmanager
def taking(index: Any, count: int) -> Iterator[None]:
    """Say in words that an index leads to none of some rows.

    Raises:
        InputError: it does.
    """
    try:
        yield
    except (IndexError, TypeError) as error:
        raise InputError(f"the rows {shown(index)} are none of these {count} ({error})") from None


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
