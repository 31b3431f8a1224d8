"""What chapter 0 needs for its last exercise: policies whose answers are known beforehand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from tinyvla.data.dataset import COLORS, BlockFind, directions, instruction_for

Arrows = dict[str, Float[np.ndarray, "2"]]


def arrows_of(split: BlockFind, number: int) -> Arrows:
    """Returns the right arrow for every colour in a scene, the target's first."""
    cells, colors = split.cells[number], split.colors[number]
    arrows = directions(cells)
    return {COLORS[color]: arrow for cell, color, arrow in zip(cells, colors, arrows, strict=True) if cell >= 0}


class StandIn:
    """Acts like a policy, with answers that are given: a check knows what its score must be.

    Args:
        arrows: what it answers when a colour is named.
        length: by which each answer is multiplied.
        degrees: by which each answer is turned.

    Attributes:
        asked: the colours that it was asked for, or whole sentences of another form.
        shown: what it was given for an image, one entry for each sentence.
    """

    def __init__(self, arrows: Arrows, length: float = 1.0, degrees: int | float = 0.0) -> None:
        cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        turn = length * np.array([[cosine, -sine], [sine, cosine]])
        self.answers = {instruction_for(color): (color, turn @ arrow) for color, arrow in arrows.items()}
        self.asked: set[str] = set()
        self.shown: list[object] = []

    def predict(self, image: object, instructions: str | Sequence[str]) -> Float32[Tensor, "*b 2"]:
        """Returns the answer to a sentence, or to each of several; (0, 0) where it knows none."""
        if not isinstance(instructions, str):
            return torch.stack([self.predict(image, sentence) for sentence in instructions])
        color, answer = self.answers.get(instructions, (repr(instructions), np.zeros(2)))
        self.asked.add(color)
        self.shown.append(image)
        return torch.tensor(answer, dtype=torch.float32)
