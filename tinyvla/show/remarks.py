"""What to say of a question before its answer is believed: words never seen, blocks that are not there."""

from __future__ import annotations

import math

from tinyvla.data.dataset import COLORS, Sample


def named_colors(instruction: str) -> list[str]:
    """The block colours that an instruction mentions."""
    words = "".join(c if c.isalpha() else " " for c in instruction.lower()).split()
    return [color for color in COLORS if color in words]


def angle_of(dx: float, dy: float) -> float:
    """Direction of an action in degrees, counter-clockwise: 0 is right, 90 is up."""
    return math.degrees(math.atan2(-dy, dx)) % 360


def warning_for(instruction: str, sample: Sample) -> str | None:
    """What is wrong with asking this of this scene, if anything."""
    named = named_colors(instruction)
    present = ", ".join(sorted(sample.colors))
    if not named:
        return f"warning: the instruction names no block colour; in this scene are {present}"
    absent = [color for color in named if color not in sample.colors]
    if absent:
        return (
            f"warning: there is no {' or '.join(absent)} block in this scene, only {present}; the arrow means nothing"
        )
    return None


def note_on_words(unseen: list[str]) -> str | None:
    """What to say of words that training never showed, if there are any."""
    if not unseen:
        return None
    words = ", ".join(map(repr, dict.fromkeys(unseen)))
    return f"never seen in training: {words}; the policy cannot know what this means"
