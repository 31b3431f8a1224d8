"""The chapters' own files (`tinyvla.course.chNN`): what they hold is used by the chapter, and drawn by its cells."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
MODULES = (
    "tinyvla.course.ch00",
    "tinyvla.course.ch01",
    "tinyvla.course.ch02",
    "tinyvla.course.ch03",
    "tinyvla.course.ch04",
    "tinyvla.course.ch05",
    "tinyvla.course.ch06",
    "tinyvla.course.ch07",
    "tinyvla.course.ch07_checks",
    "tinyvla.course.ch08",
    "tinyvla.course.ch13",
    "tinyvla.course.ch15",
    "tinyvla.course.ch16",
)
"""Each is run by its chapter, whose cells pytest executes."""


def test_no_file_is_left_out():
    folder = NOTEBOOKS.parent / "tinyvla" / "course"
    assert sorted(f"tinyvla.course.{path.stem}" for path in folder.glob("ch*.py")) == sorted(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_all_that_a_chapters_file_offers_is_used(name):
    module = importlib.import_module(name)
    here = Path(inspect.getfile(module)).read_text(encoding="utf-8")
    chapters = "".join(path.read_text(encoding="utf-8") for path in sorted(NOTEBOOKS.glob("*.py")))
    everything = here + chapters + "".join(p.read_text(encoding="utf-8") for p in Path(__file__).parent.glob("*.py"))
    for public, value in vars(module).items():
        if public.startswith("_") or getattr(value, "__module__", "") != name:
            continue
        assert value.__doc__, f"{public} has no docstring"
        assert everything.count(public) > 1, f"{public} is used by nothing"
    assert here.startswith('"""')
