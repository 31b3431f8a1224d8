from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pytest

from tinyvla.errors import InputError
from tinyvla.fields import Within, check_fields, check_number, make, shown


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


def test_what_is_shown_is_short():
    assert shown("x" * 1_000) == "'" + "x" * 76 + "..."
    assert shown(10**5_000) == "a int"
    with pytest.raises(InputError, match="a int"):
        check_number("it", 10**5_000, Within(0, 1))
