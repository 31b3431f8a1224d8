"""The one error that users meet: something they gave cannot be used."""

from __future__ import annotations

LONGEST_WORD, LONGEST = 300, 800
"""Characters of a message's words, and of the whole; what is in the middle is left out."""


def printable(text: str) -> str:
    """Returns a text in which characters that a terminal would obey, or could not show, are spelled out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def counted(number: int, what: str) -> str:
    """How many there are: 1 episode, 2 episodes."""
    return f"{number} {what}{'s' * (number != 1)}"


def one_line(text: str) -> str:
    """Returns a message as one line that can be shown anywhere and is not endless."""
    line = " ".join(_cut(word, LONGEST_WORD) for word in printable(" ".join(text.split())).split())
    return _cut(line, LONGEST)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[5 - most // 2 :]}"


class InputError(ValueError):
    """Something the user gave cannot be used; the message says what was wrong and what is allowed."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))
