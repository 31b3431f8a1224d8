"""The form in which a chapter's file states the answers to one exercise."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Answers:
    """What learners may write into one exercise's cell.

    Attributes:
        right: sources of the cell that its check must accept; the printed solution is one more and not among them.
        wrong: by the name of a mistake: the source, and a part of the message with which the check refuses it.
    """

    right: list[str]
    wrong: dict[str, tuple[str, str]]
