"""Each exercise's check takes every right answer, and refuses every wrong one with a message that names the mistake.

The answers to chapter NN stand in `tests/exercises/NN_topic.py`. A chapter's cells run once, the slow ones left out and
each stub replaced by the printed solution; when an exercise is reached, all of its answers are tried there.

To try one chapter: `pytest tests/test_exercises.py -n 0 -k 03_language`.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import io
import linecache
import random
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import jupytext
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import torch
from exercises.answers import Answers

FOLDER = Path(__file__).parent.parent / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
LEAST_RIGHT, LEAST_WRONG = 2, 4


def read(name: str) -> list[nbformat.NotebookNode]:
    """A chapter's cells, from the source that people edit; they are without outputs."""
    return jupytext.read(FOLDER / f"{name}.py").cells


def answers_of(name: str) -> dict[str, Answers]:
    """What `tests/exercises/NAME.py` holds; nothing where there is no such file."""
    if not (Path(__file__).parent / "exercises" / f"{name}.py").exists():
        return {}
    return importlib.import_module(f"exercises.{name}").ANSWERS


def tags_of(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def title_of(check: nbformat.NotebookNode) -> str:
    """The text that a check's cell gives to `checking`, for example "Exercise 1"."""
    return re.search(r'checking\("([^"]+)"\)', check.source)[1]


def titles_in(cells: list[nbformat.NotebookNode]) -> list[str]:
    return [title_of(cell) for cell in cells if "check" in tags_of(cell)]


def solution_after(cells: list[nbformat.NotebookNode], number: int) -> str:
    """The printed solution to the exercise in a cell."""
    for cell in cells[number + 1 :]:
        if cell.cell_type == "markdown" and "<summary>Solution</summary>" in cell.source:
            return "\n\n".join(re.findall(r"```python\n(.*?)```", cell.source, re.S))
        if "exercise" in tags_of(cell):
            break
    raise AssertionError(f"no solution follows the exercise in cell {number}")


def check_after(cells: list[nbformat.NotebookNode], number: int) -> int:
    """The number of the cell that checks the exercise in a cell: the next code."""
    following = next(later for later in range(number + 1, len(cells)) if cells[later].cell_type == "code")
    assert "check" in tags_of(cells[following]), f"no check follows the exercise in cell {number}"
    return following


def without_magics(source: str) -> str:
    return "\n".join(line for line in source.splitlines() if not line.startswith(("%", "!")))


def execute(source: str, where: str, names: dict[str, Any]) -> str:
    """Run a cell's code, as a notebook would; returns what it printed."""
    source = without_magics(source)
    linecache.cache[where] = (len(source), None, source.splitlines(keepends=True), where)  # for inspect.getsource
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(source, where, "exec"), names)
    return said.getvalue().strip()


@contextlib.contextmanager
def as_for_a_learner() -> Iterator[None]:
    """Shapes and types go unchecked in the block: outside the tests, no hook checks them."""
    checked = not jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", not checked)


@contextlib.contextmanager
def trial(names: dict[str, Any]) -> Iterator[None]:
    """Whatever the block defines or draws by chance leaves no trace."""
    kept, dice = dict(names), (random.getstate(), np.random.get_state(), torch.get_rng_state())
    try:
        with as_for_a_learner():
            yield
    finally:
        names.clear()
        names.update(kept)
        random.setstate(dice[0]), np.random.set_state(dice[1]), torch.set_rng_state(dice[2])


def verdict_on(answer: str, check: str, where: str, names: dict[str, Any]) -> str:
    """What the check says of an answer; the names are afterwards what they were."""
    with trial(names):
        try:
            execute(answer, f"{where} answer", names)
            return execute(check, f"{where} check", names)
        except Exception as error:  # not in the check's `checking`, so a notebook would stop here
            return f"stops the notebook: {type(error).__name__}: {error}"
        finally:
            plt.close("all")


def faults_of(title: str, answers: Answers, check: str, where: str, names: dict[str, Any]) -> list[str]:
    """Right answers that are refused, and wrong ones that are taken or refused for another reason."""
    found = []
    for number, source in enumerate(answers.right, start=1):
        verdict = verdict_on(source, check, where, names)
        if not verdict.endswith(f"{title}: solved."):
            found.append(f"{title}, right answer {number} is refused: {verdict}")
    for mistake, (source, reason) in answers.wrong.items():
        verdict = verdict_on(source, check, where, names)
        message = verdict.partition(f"{title}: not yet.")[2]
        if reason.lower() not in message.lower() or not message:
            found.append(f"{title}, wrong answer {mistake!r}: the message should say {reason!r}, but: {verdict}")
    return found


def try_answers(name: str, cells: list, answers: dict[str, Answers], names: dict[str, Any]) -> list[str]:
    """Run a chapter and try its exercises' answers where they stand; returns what is wrong, one line each."""
    found = []
    for number, cell in enumerate(cells):
        if cell.cell_type != "code" or "slow" in tags_of(cell):
            continue
        where, source = f"{name}[{number}]", cell.source
        if "exercise" in tags_of(cell):
            source = solution_after(cells, number)
            check = cells[check_after(cells, number)]
            title = title_of(check)
            if title in answers:
                found += faults_of(title, answers[title], check.source, where, names)
        with as_for_a_learner() if {"exercise", "check"} & {*tags_of(cell)} else contextlib.nullcontext():
            said = execute(source, where, names)
        plt.close("all")
        if "check" in tags_of(cell) and not said.endswith(f"{title_of(cell)}: solved."):
            found.append(f"{title_of(cell)}, the printed solution is refused: {said}")
    return found


def give_memory_back() -> None:
    """Seventeen chapters in one process would hold 4 GB otherwise, most of it freed and kept by the C library."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # not everywhere is glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)


@pytest.mark.parametrize("name", NAMES)
def test_checks_take_right_answers_and_refuse_wrong_ones(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    main = types.ModuleType("__main__")  # where a notebook's names live
    monkeypatch.setitem(sys.modules, "__main__", main)
    cells = read(name)
    assert titles_in(cells)
    found = try_answers(name, cells, answers_of(name), main.__dict__)
    main.__dict__.clear()
    give_memory_back()
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("name", NAMES)
def test_every_exercise_is_left_to_the_reader(name):
    executed = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).cells
    stored = [cell.outputs[0].text.strip() for cell in executed if "check" in tags_of(cell)]
    assert stored
    assert all("not yet" in verdict for verdict in stored), stored


@pytest.mark.parametrize("name", NAMES)
def test_every_exercise_has_right_and_wrong_answers(name):
    titles, answers = titles_in(read(name)), answers_of(name)
    in_order = [f"Exercise {number}" for number in range(1, len(titles) + 1)]
    assert titles == in_order, "exercises are numbered in the order in which they stand"
    assert set(titles) == set(answers), f"tests/exercises/{name}.py and the notebook have different exercises"
    for title, given in answers.items():
        wrong = [source for source, _ in given.wrong.values()]
        assert len(set(given.right)) >= LEAST_RIGHT, f"{title}: fewer than {LEAST_RIGHT} right answers"
        assert len(set(wrong)) >= LEAST_WRONG, f"{title}: fewer than {LEAST_WRONG} wrong answers"
        assert all(reason.strip() for _, reason in given.wrong.values()), f"{title}: say why each is refused"


INSTRUCTORS = (FOLDER.parent / "book" / "instructors.md").read_text(encoding="utf-8")


def headings_of(name: str) -> list[tuple[str, str, str]]:
    """Number, title and time of a chapter's exercises, from their headings."""
    prose = "\n".join(cell.source for cell in read(name) if cell.cell_type == "markdown")
    return re.findall(r"^#+ Exercise (\d+): (.+) \((.+)\)$", prose, re.M)


@pytest.mark.parametrize("name", NAMES)
def test_instructors_find_every_exercise_with_its_time(name):
    exercises = [f"{number} {title} ({time.replace('minutes', 'min')})" for number, title, time in headings_of(name)]
    section = INSTRUCTORS.split(f"### Chapter {int(name[:2])}:")[1].split("###")[0]
    row = f"| **Exercises** | {'; '.join(exercises)} |"
    assert row in section, f"write into book/instructors.md: {row}"


def test_timetables_name_exercises_that_exist():
    exist = {(int(name[:2]), int(number)) for name in NAMES for number, _, _ in headings_of(name)}
    rows = [line for line in INSTRUCTORS.split("## Chapter by chapter")[0].splitlines() if line.startswith("|")]
    named = {(int(a), int(b)) for row in rows for a, b in re.findall(r"(?<![\w.])(\d+)\.(\d+)(?![\w.])", row)}
    assert len(named) > 30
    assert not named - exist


# --- the harness itself, on a chapter of five cells ---


CHECK = """\
with checking("Exercise 1"):
    assert double(3) is not None, "write the body of double first"
    assert double(3) == 2 * three, "twice 3 is 6"
"""
SMALL_CHAPTER = [
    nbformat.v4.new_code_cell("%matplotlib inline\nfrom tinyvla.course.exercises import checking\nthree = 3"),
    nbformat.v4.new_code_cell("def double(x):\n    '''x, twice.'''", metadata={"tags": ["exercise"]}),
    nbformat.v4.new_code_cell(CHECK, metadata={"tags": ["check"]}),
    nbformat.v4.new_markdown_cell(
        "<details><summary>Solution</summary>\n\n```python\ndef double(x):\n    return 2 * x\n```\n\n</details>"
    ),
    nbformat.v4.new_code_cell("assert double(5) == 10 and three == 3"),
]


def faults_with(right: list[str], wrong: dict[str, tuple[str, str]], cells: list = SMALL_CHAPTER) -> list[str]:
    return try_answers("small", cells, {"Exercise 1": Answers(right, wrong)}, {})


def test_good_answers_have_no_fault():
    squares = "def double(x):\n    return x * x"
    assert not faults_with(["double = lambda x: x + x"], {"squares": (squares, "Twice 3 is 6")})


def test_a_right_answer_that_is_refused_is_a_fault():
    (fault,) = faults_with(["double = lambda x: x + 2"], {})
    assert "right answer 1 is refused" in fault


def test_a_wrong_answer_that_is_taken_is_a_fault():
    (fault,) = faults_with([], {"adds three": ("def double(x):\n    return x + 3", "twice 3")})
    assert "'adds three'" in fault
    assert "solved" in fault


@pytest.mark.parametrize("source", ["def double(x):\n    return 1 / 0", "def double(x):\n    return"])
def test_a_wrong_answer_that_is_refused_for_another_reason_is_a_fault(source):
    assert "the message should say" in faults_with([], {"squares": (source, "twice 3")})[0]


def test_an_answer_outside_the_check_that_fails_is_a_fault():
    assert "stops the notebook: NameError" in faults_with(["double = nothing"], {})[0]


def test_a_printed_solution_that_is_refused_is_a_fault():
    cells = [*SMALL_CHAPTER[:3], nbformat.v4.new_markdown_cell(SMALL_CHAPTER[3].source.replace("2 * x", "3 * x"))]
    assert "the printed solution is refused" in faults_with([], {}, cells)[0]


def test_an_answer_leaves_nothing_behind():
    assert not faults_with(["three = 4\ndouble = lambda x: 8", "double = lambda x: 2 * three"], {})
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    with trial({}):
        torch.rand(1)
    assert torch.rand(1) == expected
