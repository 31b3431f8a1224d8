"""Checks for the course's exercises: they say what is wrong, and never stop a notebook.

Notable:
- a check is a block of plain assertions; an unsolved exercise prints "not yet" and why, and the notebook goes on;
- nothing is graded elsewhere: the same cell works in Colab, in JupyterLab and in CI.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def checking(exercise: str) -> Iterator[None]:
    """Run the assertions of the block and print a verdict.

    Example:
        >>> with checking("Exercise 1"):
        ...     assert 1 + 1 == 3, "one and one are not three"
        Exercise 1: not yet. One and one are not three.
    """
    try:
        yield
    except AssertionError as error:
        print(f"{exercise}: not yet. {_sentence(str(error) or 'a check failed')}")
    except Exception as error:
        print(f"{exercise}: not yet. Your code raised {type(error).__name__}: {_sentence(str(error))}")
    else:
        print(f"{exercise}: solved.")


def _sentence(text: str) -> str:
    """First letter capital, a full stop at the end, first line only."""
    line = text.strip().splitlines()[0] if text.strip() else "no message"
    return line[:1].upper() + line[1:] + ("" if line.endswith((".", "?", "!")) else ".")
