from __future__ import annotations

import pytest

from tinyvla.course.exercises import checking


def test_solved(capsys):
    with checking("Exercise 1"):
        assert True
    assert capsys.readouterr().out == "Exercise 1: solved.\n"


def test_a_failed_check_says_why_and_goes_on(capsys):
    with checking("Exercise 1"):
        assert 1 + 1 == 3, "one and one are not three"
    assert capsys.readouterr().out == "Exercise 1: not yet. One and one are not three.\n"


def test_a_crash_is_named(capsys):
    with checking("Exercise 2"):
        [][0]
    assert capsys.readouterr().out == "Exercise 2: not yet. Your code raised IndexError: List index out of range.\n"


def test_ctrl_c_still_stops():
    with pytest.raises(KeyboardInterrupt), checking("Exercise 1"):
        raise KeyboardInterrupt
