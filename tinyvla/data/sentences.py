"""SentenceFind: BlockFind's scenes, asked for in sentences with structure, by kind of sentence.

    train = SentenceFind(20_000, seed=1)                     # all kinds of training
    test = SentenceFind(500, seed=2, kinds=("new colors",))  # crimson, azure, ...

Notable:
- a kind says which meanings and which words are drawn. Kinds that begin with "new" hold out one thing each: words,
  templates, pairs of a relation and a colour, or lengths;
- a scene is drawn again until some meaning of its kind fits exactly one of its blocks;
- the target lies in slot 0, as in BlockFind, so all that is trained or judged on BlockFind is on this as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Int64

from tinyvla.data.dataset import COLORS, MAX_BLOCKS, MIN_BLOCKS, NUM_CELLS, SCENE_BYTES, BlockFind, draw_distinct
from tinyvla.data.grammar import (
    NEW_EXTREME,
    NEW_NAMES,
    NEW_NEGATION,
    NEW_NOUNS,
    NEW_RELATION,
    NEW_REQUESTS,
    NEW_VERBS,
    OPPOSITE,
    SIDES,
    TRAINING,
    Meaning,
    Sentence,
    Wording,
    right_blocks,
)
from tinyvla.fields import Many, Seed, check, checked, shown, taking
from tinyvla.room import check_room_for

HELD_OUT_RELATIONS = ((0, 0), (1, 1), (2, 2), (3, 3), (0, 4), (1, 5))
"""Pairs of a side and a colour that training never puts together: left of the red one, right of the green one, ..."""
HELD_OUT_NEGATIONS = ((0, 2), (1, 3), (4, 5))
"""Colours that training never negates in one sentence: red and blue, green and yellow, purple and orange."""


@cache
def meanings(kind: str, held_out: bool | None = False) -> tuple[Meaning, ...]:
    """Returns all meanings of a kind that training has, or those that are held out from it; with None, both."""
    colors = range(len(COLORS))
    if kind in ("color", "nearest"):
        found = [(Meaning(kind, (color,)), False) for color in colors]
    elif kind == "extreme":
        found = [(Meaning(kind, side=side), False) for side in range(len(SIDES))]
    elif kind == "relation":
        pairs = [(side, color) for side in range(len(SIDES)) for color in colors]
        found = [(Meaning(kind, (color,), side), (side, color) in HELD_OUT_RELATIONS) for side, color in pairs]
    else:
        groups = [group for size in range(1, MAX_BLOCKS) for group in combinations(colors, size)]
        found = [(Meaning(kind, g), any({*pair} <= {*g} for pair in HELD_OUT_NEGATIONS)) for g in groups]
    return tuple(meaning for meaning, out in found if held_out in (None, out))


@dataclass(frozen=True)
class Kind:
    """What a kind of sentence may mean, and its words."""

    meaning: str
    """As `Meaning.kind`."""
    wording: Wording = TRAINING
    held_out: bool = False
    """Whether it means what training leaves out."""
    min_blocks: int = MIN_BLOCKS


def _new(**words: object) -> Wording:
    return replace(TRAINING, **words)  # type: ignore[arg-type]


KINDS: dict[str, Kind] = {
    "color": Kind("color"),
    "extreme": Kind("extreme"),
    "relation": Kind("relation"),
    "nearest": Kind("nearest"),
    "negation": Kind("negation", min_blocks=2),
    "new colors": Kind("color", _new(names=NEW_NAMES)),
    "new verbs": Kind("color", _new(verbs=NEW_VERBS)),
    "new nouns": Kind("color", _new(nouns=NEW_NOUNS)),
    "new templates": Kind("color", _new(requests=NEW_REQUESTS)),
    "new lengths": Kind("color", _new(additions=("both",))),
    "new extremes": Kind("extreme", _new(extreme=NEW_EXTREME)),
    "new relation words": Kind("relation", _new(relation=NEW_RELATION)),
    "new nearest": Kind("nearest", _new(nearest=("closest to",))),
    "new negation words": Kind("negation", _new(negation=NEW_NEGATION), min_blocks=3),
    "new relations": Kind("relation", held_out=True),
    "new negations": Kind("negation", held_out=True),
}
"""By name. Those that do not begin with "new" are the kinds of training."""
SEEN = tuple(name for name in KINDS if not name.startswith("new"))
NEW = tuple(name for name in KINDS if name.startswith("new"))


def check_kinds(kinds: Sequence[str]) -> None:
    """Refuse names that are none of `KINDS`, and no names.

    Raises:
        InputError: there are such.
    """
    unknown = [name for name in kinds if name not in KINDS]
    check(bool(kinds) and not unknown, f"unknown kinds {shown(unknown or kinds)}; choose from {', '.join(KINDS)}")


class SentenceFind(BlockFind):
    """Scenes with sentences of some kinds, which take turns. Indexing gives a `Sample`, as in `BlockFind`.

    Args:
        num_samples: scenes.
        seed: decides scenes and words.
        kinds: names of `KINDS`; those of training unless given.
        wording: instead of the kinds' own words.

    Attributes:
        images, actions, cells, colors: as of `BlockFind`; slot 0 is the target.
        sentences: one per scene, with its meaning.
        kinds: the name of each scene's kind.

    Raises:
        InputError: a kind is unknown.
    """

    @checked
    def __init__(
        self, num_samples: Many, seed: Seed, kinds: Sequence[str] = SEEN, wording: Wording | None = None
    ) -> None:
        check_room_for(num_samples, SCENE_BYTES, "scenes")
        rng = np.random.RandomState(seed)
        check_kinds(kinds)
        self.kinds = [kinds[i % len(kinds)] for i in range(num_samples)]
        self.sentences: list[Sentence] = [Sentence(Meaning("none"))] * num_samples
        cells, colors = (np.full((num_samples, MAX_BLOCKS), -1) for _ in range(2))
        for name in dict.fromkeys(self.kinds):
            rows = np.array([i for i, kind in enumerate(self.kinds) if kind == name])
            cells[rows], colors[rows], found = _draw(rng, len(rows), KINDS[name])
            for row, meaning in zip(rows, found, strict=True):
                self.sentences[row] = (wording or KINDS[name].wording).sentence(meaning, rng)
        self._set_blocks(cells, colors)

    def _instruction(self, index: int, color: str) -> str:
        """The sentence of the scene with that number."""
        return str(self.sentences[index])

    def rows(self, index: Bool[np.ndarray, "n"] | Int64[np.ndarray, "k"]) -> SentenceFind:
        """Returns the scenes at an index, or where a mask is True, as a split of their own."""
        split = type(self).__new__(type(self))
        with taking(index, len(self)):
            split._set_blocks(self.cells[index], self.colors[index])
        numbers = np.arange(len(self))[index]
        split.sentences, split.kinds = ([values[i] for i in numbers] for values in (self.sentences, self.kinds))
        return split

    def retargeted(self, slot: int = 1) -> SentenceFind:
        """The same images, each sentence changed in one word so that it names another block, where one word can do it.

        The word is a side ("left"), "not", which is left out, or a colour; the first of these that leaves one block.

        Args:
            slot: has no meaning here, because the word decides which block is named.
        """
        changed = self.rows(np.arange(len(self)))
        for row, sentence in enumerate(self.sentences):
            for other in one_word_changes(sentence):
                fits = right_blocks(other.meaning, self.cells[row : row + 1], self.colors[row : row + 1])[0]
                if fits.sum() == 1 and not fits[0]:
                    order = [fits.argmax(), *np.flatnonzero(~fits)]
                    changed.cells[row], changed.colors[row] = self.cells[row, order], self.colors[row, order]
                    changed.sentences[row] = other
                    break
        changed._set_blocks(changed.cells, changed.colors)
        return changed


def one_word_changes(sentence: Sentence) -> Iterator[Sentence]:
    """Sentences that differ in one word from a given one and mean something else: sides first, then "not", colours."""
    meaning, wording = sentence.meaning, _wording_of(sentence)
    if meaning.side >= 0:
        other = replace(meaning, side=OPPOSITE[meaning.side])
        place = wording.phrases(meaning).index(sentence.phrase)
        yield sentence.changed(other, phrase=wording.phrases(other)[place])
    if meaning.kind == "negation" and len(meaning.colors) == 1 and "{or}" in sentence.phrase:
        phrase = sentence.phrase.replace("not ", "").replace("{or}", "{0}")
        yield sentence.changed(replace(meaning, kind="color"), phrase=phrase)
    for place, color in ((p, c) for p in range(len(meaning.colors)) for c in range(len(COLORS))):
        if color not in meaning.colors:
            colors = (*meaning.colors[:place], color, *meaning.colors[place + 1 :])
            names = (*sentence.names[:place], COLORS[color], *sentence.names[place + 1 :])
            yield sentence.changed(replace(meaning, colors=colors), names=names)


def _wording_of(sentence: Sentence) -> Wording:
    """Returns a wording that has the sentence's phrase."""
    wordings = (kind.wording for kind in KINDS.values() if kind.meaning == sentence.meaning.kind)
    return next(wording for wording in wordings if sentence.phrase in wording.phrases(sentence.meaning))


def _draw(
    rng: np.random.RandomState, count: int, kind: Kind
) -> tuple[Int64[np.ndarray, "n b"], Int64[np.ndarray, "n b"], list[Meaning]]:
    """Returns cells, colours and a meaning for each of `count` scenes; the only block that it fits is in slot 0."""
    known = meanings(kind.meaning, kind.held_out)
    parts: list[list[np.ndarray]] = []
    chosen: list[Meaning] = []
    while len(chosen) < count:
        cells, colors = _scenes(rng, max(64, 2 * count), kind.min_blocks)
        fits = np.stack([_fits_one(meaning, cells, colors) for meaning in known], axis=1)  # (n, meanings, b)
        score = np.where(fits.any(axis=2), 1 + rng.random_sample(fits.shape[:2]), 0)
        best = score.argmax(axis=1)
        usable = np.flatnonzero(score.max(axis=1) > 0)
        target = fits[usable, best[usable]].argmax(axis=1)
        order = np.argsort(np.arange(MAX_BLOCKS) != target[:, None], axis=1, kind="stable")
        parts.append([np.take_along_axis(blocks[usable], order, axis=1) for blocks in (cells, colors)])
        chosen += [known[i] for i in best[usable]]
    cells, colors = (np.concatenate(blocks)[:count] for blocks in zip(*parts, strict=True))
    return cells, colors, chosen[:count]


def _scenes(
    rng: np.random.RandomState, count: int, min_blocks: int
) -> tuple[Int64[np.ndarray, "n b"], Int64[np.ndarray, "n b"]]:
    """Returns cells and colours of scenes, -1 where a scene has fewer blocks than most."""
    cells, colors = (draw_distinct(rng, count, items, MAX_BLOCKS) for items in (NUM_CELLS, len(COLORS)))
    numbers = min_blocks + (rng.random_sample(count) * (MAX_BLOCKS - min_blocks + 1)).astype(np.int64)
    absent = np.arange(MAX_BLOCKS) >= numbers[:, None]
    return np.where(absent, -1, cells), np.where(absent, -1, colors)


def _fits_one(
    meaning: Meaning, cells: Int64[np.ndarray, "n b"], colors: Int64[np.ndarray, "n b"]
) -> Bool[np.ndarray, "n b"]:
    """Which block a meaning fits, in scenes where it is one and all colours that it mentions are there."""
    fits = right_blocks(meaning, cells, colors)
    there = (np.isin(colors, meaning.colors) & (cells >= 0)).sum(axis=1) == len(meaning.colors)
    return fits & ((fits.sum(axis=1) == 1) & there)[:, None]
