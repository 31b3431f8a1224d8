"""Sentences with structure: what an instruction means, which block it names in a scene, and the words for it.

    meaning = Meaning("relation", colors=(0,), side=0)      # left of the red one
    right_blocks(meaning, cells, colors)                    # which blocks of each scene it fits
    wording.sentence(meaning, rng)                          # "please touch the square left of the red one"

Notable:
- a meaning is kept apart from its words. The same meaning has hundreds of sentences, and a sentence has one meaning;
- words come in two lists: those of training, and those that are held out, to ask what a policy makes of a new word;
- BlockFind's own sentence, "find the {color} block", is one of the sentences of training.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int64

from tinyvla.data.dataset import COLORS, GRID_SIZE

SIDES = ("left", "right", "above", "below")
OPPOSITE = (1, 0, 3, 2)
"""The side across from each of `SIDES`."""


@dataclass(frozen=True)
class Meaning:
    """What a sentence says of the block that it names."""

    kind: str
    """- "color": it has that colour;
    - "extreme": it lies farthest to a side;
    - "relation": it lies on a side of the block of that colour;
    - "nearest": it lies nearest to the block of that colour;
    - "negation": it has none of those colours."""
    colors: tuple[int, ...] = ()
    """Indices into `COLORS`."""
    side: int = -1
    """Index into `SIDES`, where the kind needs one."""


def right_blocks(
    meaning: Meaning, cells: Int64[np.ndarray, "n b"], colors: Int64[np.ndarray, "n b"]
) -> Bool[np.ndarray, "n b"]:
    """Returns which blocks of each scene a meaning fits; none where the block that it mentions is missing.

    Args:
        meaning: what is said.
        cells: numbered row by row, -1 for no block.
        colors: indices into `COLORS`, -1 likewise.
    """
    is_block = cells >= 0
    is_named = np.isin(colors, meaning.colors) & is_block
    if meaning.kind == "color":
        return is_named
    if meaning.kind == "negation":
        return is_block & ~is_named
    if meaning.kind == "nearest":
        return _nearest(cells, is_block, is_named)
    place = _along(meaning.side, cells)  # smaller is farther to that side
    if meaning.kind == "extreme":
        return is_block & (place == np.where(is_block, place, GRID_SIZE).min(axis=1, keepdims=True))
    reference = np.where(is_named, place, -GRID_SIZE).max(axis=1, keepdims=True)
    return is_block & (place < reference)


def _along(side: int, cells: Int64[np.ndarray, "n b"]) -> Int64[np.ndarray, "n b"]:
    """Column or row of each cell, with its sign chosen so that the smallest lies farthest to the side."""
    rows, columns = np.divmod(cells, GRID_SIZE)
    return (columns, -columns, rows, -rows)[side]


def _nearest(
    cells: Int64[np.ndarray, "n b"], is_block: Bool[np.ndarray, "n b"], is_named: Bool[np.ndarray, "n b"]
) -> Bool[np.ndarray, "n b"]:
    """Which blocks lie nearest to the named one, straight through the grid."""
    places = np.stack(np.divmod(cells, GRID_SIZE), axis=-1)
    named = np.where(is_named[..., None], places, 0).sum(axis=1, keepdims=True)
    squared = ((places - named) ** 2).sum(axis=-1)
    squared[~is_block | is_named] = 2 * GRID_SIZE**2
    is_there = is_named.any(axis=1, keepdims=True)
    return (squared == squared.min(axis=1, keepdims=True)) & is_there & is_block & ~is_named


@dataclass(frozen=True)
class Wording:
    """The words that sentences are made of; one of each list is drawn for a sentence."""

    verbs: tuple[tuple[str, str], ...] = (
        ("find", "found"),
        ("touch", "touched"),
        ("reach", "reached"),
        ("point at", "pointed at"),
        ("go for", "gone for"),
    )
    """As they stand in a request, and in the passive."""
    nouns: tuple[str, ...] = ("block", "square", "one")
    requests: tuple[str, ...] = (
        "{verb} {phrase}",
        "can you {verb} {phrase}",
        "i want you to {verb} {phrase}",
        "{phrase} should be {done}",
        "{phrase} is to be {done}",
    )
    openings: tuple[str, ...] = ("please", "now", "robot")
    closings: tuple[str, ...] = ("please", "now", "for me")
    additions: tuple[str, ...] = ("", "opening", "closing")
    """Which of the two a sentence may have: none, one, or "both", which makes it longer."""
    names: tuple[tuple[str, ...], ...] = tuple((color,) for color in COLORS)
    """Of each colour."""
    color: tuple[str, ...] = ("the {0} {noun}", "the {noun} that is {0}")
    extreme: tuple[tuple[str, ...], ...] = (
        ("the leftmost {noun}", "the {noun} on the far left"),
        ("the rightmost {noun}", "the {noun} on the far right"),
        ("the top {noun}", "the {noun} at the top"),
        ("the bottom {noun}", "the {noun} at the bottom"),
    )
    """For each of `SIDES`."""
    relation: tuple[tuple[str, ...], ...] = (
        ("left of",),
        ("right of",),
        ("above",),
        ("below",),
    )
    """For each of `SIDES`; between "the {noun}" and "the red one"."""
    nearest: tuple[str, ...] = ("nearest to",)
    negation: tuple[str, ...] = ("the {noun} that is not {or}", "the {noun} that is not the {or} one")

    def sentence(self, meaning: Meaning, rng: np.random.RandomState) -> Sentence:
        """Returns a sentence of that meaning, its words drawn at random."""

        def draw(words: tuple[str, ...]) -> str:
            return words[rng.randint(len(words))]

        verb, done = self.verbs[rng.randint(len(self.verbs))]
        added = draw(self.additions)
        parts = {
            "opening": draw(self.openings) if added in ("opening", "both") else "",
            "request": draw(self.requests),
            "closing": draw(self.closings) if added in ("closing", "both") else "",
            "phrase": draw(self.phrases(meaning)),
            "noun": draw(self.nouns),
        }
        names = tuple(draw(self.names[color]) for color in meaning.colors)
        return Sentence(meaning, verb=verb, done=done, names=names, **parts)

    def phrases(self, meaning: Meaning) -> tuple[str, ...]:
        """Returns the ways to say it, with places for noun and colours."""
        if meaning.kind in ("color", "negation"):
            found: tuple[str, ...] = getattr(self, meaning.kind)
            return found
        if meaning.kind == "extreme":
            return self.extreme[meaning.side]
        words = self.nearest if meaning.kind == "nearest" else self.relation[meaning.side]
        return tuple(f"the {{noun}} {between} the {{0}} one" for between in words)


@dataclass(frozen=True)
class Sentence:
    """A meaning and the words that were chosen for it; `str` writes it out."""

    meaning: Meaning
    opening: str = ""
    request: str = "{verb} {phrase}"
    closing: str = ""
    verb: str = "find"
    done: str = "found"
    phrase: str = "the {0} {noun}"
    noun: str = "block"
    names: tuple[str, ...] = ()
    """Of the meaning's colours."""

    def __str__(self) -> str:
        *first, last = self.names or ("",)
        lists = {"or": f"{', '.join(first)} or {last}" if first else last, "nor": " nor ".join(self.names)}
        phrase = self.phrase.format(*self.names, noun=self.noun, **lists)
        words = (self.opening, self.request.format(verb=self.verb, done=self.done, phrase=phrase), self.closing)
        return " ".join(part for part in words if part)

    def changed(self, meaning: Meaning, phrase: str | None = None, names: tuple[str, ...] | None = None) -> Sentence:
        """Returns the sentence with another meaning and all other words as they were."""
        return replace(
            self, meaning=meaning, phrase=phrase or self.phrase, names=self.names if names is None else names
        )


TRAINING = Wording()
"""The words of training."""
NEW_NAMES: tuple[tuple[str, ...], ...] = (
    ("crimson", "scarlet", "ruby", "maroon"),
    ("emerald", "olive", "lime", "jade"),
    ("azure", "navy", "cobalt", "sapphire"),
    ("golden", "lemon", "canary", "mustard"),
    ("violet", "lavender", "lilac", "plum"),
    ("tangerine", "apricot", "pumpkin", "carrot"),
)
"""Other words for each colour, held out."""
NEW_VERBS = (
    ("grab", "grabbed"),
    ("locate", "located"),
    ("fetch", "fetched"),
    ("seek", "sought"),
    ("approach", "approached"),
)
NEW_NOUNS = ("cube", "box", "tile", "brick")
NEW_REQUESTS = (
    "your task is to {verb} {phrase}",
    "could you {verb} {phrase}",
    "what you need to {verb} is {phrase}",
    "{phrase} has to be {done}",
    "try to {verb} {phrase}",
)
NEW_RELATION = (
    ("to the left of", "on the left side of"),
    ("to the right of", "on the right side of"),
    ("over", "higher than"),
    ("under", "lower than"),
)
NEW_EXTREME = (
    ("the {noun} farthest to the left",),
    ("the {noun} farthest to the right",),
    ("the topmost {noun}", "the highest {noun}"),
    ("the bottommost {noun}", "the lowest {noun}"),
)
NEW_NEGATION = ("the {noun} that is neither {nor}",)
