from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import jaxtyping
import numpy as np
import pytest
from jaxtyping import Float

from tinyvla.errors import InputError
from tinyvla.fields import Many, Within, check_fields, check_number, checked, make, shown, taking

if TYPE_CHECKING:
    from nowhere import Thing


@dataclass(frozen=True)
class Arm:
    joints: Annotated[int, Within(1, 9)]
    reach: Annotated[float, Within(0, 2, above=True)] = 1.0
    name: str = "arm"
    is_left: bool = False

    def __post_init__(self):
        check_fields(self)


def test_numbers_become_pythons_own():
    arm = Arm(np.int64(7), np.float32(0.5))
    assert (type(arm.joints), type(arm.reach)) == (int, float)
    assert Arm(7, 1).reach == 1


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"joints": 0}, "Arm.joints is 0; it must be a whole number from 1 to 9"),
        ({"joints": 2.0}, "Arm.joints is 2.0; it must be a whole number"),
        ({"joints": True}, "Arm.joints is True"),
        ({"reach": 0}, "Arm.reach is 0; it must be a number above 0 and at most 2"),
        ({"reach": float("nan")}, "Arm.reach is nan"),
        ({"name": 5}, "Arm.name is 5; it must be text"),
        ({"is_left": 1}, "Arm.is_left is 1; it must be true or false"),
    ],
)
def test_what_is_not_allowed_is_named(values, says):
    with pytest.raises(InputError) as caught:
        Arm(**{"joints": 7, **values})
    assert says in str(caught.value)


def test_an_object_becomes_a_dataclass():
    assert make(Arm, {"joints": 3}, "arm.json") == Arm(3)
    for values, says in (([], "must be an object"), ({"joint": 3}, "unknown keys"), ({}, "arm.json lacks joints")):
        with pytest.raises(InputError, match=says):
            make(Arm, values, "arm.json")


@checked
def move(
    joints: Many,
    places: Float[np.ndarray, "n 2"],
    speeds: Float[np.ndarray, "n"],
    names: Sequence[str] = (),
    limits: Mapping[str, tuple[int, float]] | None = None,
    done: Callable[[], None] | None = None,
    log: str | Path = "log",
    thing: Thing | None = None,
    *rest: int,
    **more: int,
) -> tuple[Any, ...]:
    """Called by the tests below."""
    return joints, names, rest, more


PLACES, SPEEDS = np.zeros((3, 2)), np.zeros(3)


def test_a_checked_function_gets_what_its_annotations_allow():
    joints, *others = move(np.int64(7), PLACES, SPEEDS, ["a"], {"a": (1, 2)}, print, Path("x"), "thing", 4, more=5)
    assert type(joints) is int
    assert others == [["a"], (4,), {"more": 5}]
    assert move.__doc__ == "Called by the tests below."
    with pytest.raises(TypeError, match="missing a required argument: 'speeds'"):
        move(7, PLACES)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"joints": 0}, "joints is 0; it must be a whole number from 1 to 1048576"),
        ({"places": [[0.0, 0.0]]}, "places is [[0.0, 0.0]]; it must be a Float[ndarray, 'n 2']"),
        ({"places": np.zeros((3, 2), int)}, "places is ndarray of int64 and shape (3, 2); it must be a Float"),
        ({"speeds": np.zeros(4)}, "shape (4,); it must be a Float[ndarray, 'n'] (sizes of one name are equal)"),
        ({"names": "wrist"}, "names is 'wrist'; it must be a list, each entry text"),
        ({"names": [5]}, "names is [5]; it must be a list, each entry text"),
        ({"names": None}, "names is None"),
        ({"limits": {"a": (1, "x")}}, "it must be a dict, each entry (a whole number, a number) or None"),
        ({"limits": {"a": (1,)}}, "limits is {'a': (1,)}"),
        ({"limits": {5: (1, 2)}}, "limits is {5: (1, 2)}"),
        ({"done": 5}, "done is 5; it must be a function or None"),
        ({"log": 5}, "log is 5; it must be text or a path"),
    ],
)
def test_a_checked_function_refuses_the_rest(values, says, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as users have it
    with pytest.raises(InputError) as caught:
        move(**{"joints": 7, "places": PLACES, "speeds": SPEEDS, **values})
    assert says in str(caught.value)


def test_rows_that_are_not_there_are_named():
    with pytest.raises(InputError, match=r"the rows \[9\] are none of these 3 \(index 9"), taking([9], 3):
        SPEEDS[[9]]


def test_what_is_shown_is_short():
    assert shown("x" * 1_000) == "'" + "x" * 76 + "..."
    assert shown(10**5_000) == "a int"
    with pytest.raises(InputError, match="a int"):
        check_number("it", 10**5_000, Within(0, 1))
