"""Sentences are read back by a reader that knows nothing of the grammar, and scenes are searched for what they say."""

from __future__ import annotations

import re
from itertools import product

import numpy as np
import pytest

from tinyvla.data.dataset import COLORS, instruction_for
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
from tinyvla.data.sentences import KINDS, meanings

COLOR_OF = {name: i for i, color in enumerate(COLORS) for name in (color, *NEW_NAMES[i])}
EXTREMES = (
    "leftmost|far left|farthest to the left",
    "rightmost|far right|farthest to the right",
    r"\btop\b|topmost|highest",
    r"\bbottom\b|bottommost|lowest",
)
RELATIONS = (
    "left of the|on the left side of",
    "right of the|on the right side of",
    "above the|over the|higher than the",
    "below the|under the|lower than the",
)


def read(text: str) -> Meaning:
    """What a sentence says, by its words alone."""
    named = tuple(sorted(COLOR_OF[word] for word in re.findall(r"\w+", text) if word in COLOR_OF))
    if re.search(r"\bnot\b|\bneither\b", text):
        return Meaning("negation", named)
    if re.search("nearest to|closest to", text):
        return Meaning("nearest", named)
    sides = [side for side, words in enumerate(RELATIONS) if named and re.search(words, text)]
    if sides:
        (side,) = sides
        return Meaning("relation", named, side)
    if not named:
        (side,) = (side for side, words in enumerate(EXTREMES) if re.search(words, text))
        return Meaning("extreme", side=side)
    return Meaning("color", named)


def named_blocks(meaning: Meaning, cells: list[int], colors: list[int]) -> list[int]:
    """Searches a scene block by block, with plain numbers."""
    blocks = [(i, cell // 8, cell % 8, colors[i]) for i, cell in enumerate(cells) if cell >= 0]
    others = [(row, column) for _, row, column, color in blocks if color in meaning.colors]
    if meaning.kind == "color":
        return [i for i, _, _, color in blocks if color in meaning.colors]
    if meaning.kind == "negation":
        return [i for i, _, _, color in blocks if color not in meaning.colors]
    if meaning.kind == "nearest":
        (place,) = others or [None]
        if place is None:
            return []
        far = {i: (r - place[0]) ** 2 + (c - place[1]) ** 2 for i, r, c, color in blocks if color not in meaning.colors}
        return [i for i in far if far[i] == min(far.values())]
    way = {0: lambda r, c: -c, 1: lambda r, c: c, 2: lambda r, c: -r, 3: lambda r, c: r}[meaning.side]
    how_far = {i: way(r, c) for i, r, c, _ in blocks}
    if meaning.kind == "extreme":
        return [i for i in how_far if how_far[i] == max(how_far.values())]
    return [i for i in how_far if others and how_far[i] > way(*others[0])]


def all_sentences(kind: str) -> list[Sentence]:
    """Every sentence that the words of a kind can make, with one opening and one closing for all."""
    words, found = KINDS[kind].wording, []
    for meaning in meanings(KINDS[kind].meaning, None):
        if "{nor}" in "".join(words.negation) and meaning.kind == "negation" and len(meaning.colors) < 2:
            continue
        names = list(product(*(words.names[color] for color in meaning.colors)))
        for phrase, request, (verb, done), noun, name in product(
            words.phrases(meaning), words.requests, words.verbs, words.nouns, names
        ):
            found.append(Sentence(meaning, "robot", request, "for me", verb, done, phrase, noun, name))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_sentence_says_what_it_means_and_nothing_else(kind):
    sentences = all_sentences(kind)
    assert len(sentences) > 90
    for sentence in sentences:
        assert read(str(sentence)) == sentence.meaning, str(sentence)
        assert not re.search(r"[{}]|  ", str(sentence)), str(sentence)


def test_a_meaning_fits_the_blocks_that_a_search_finds():
    """All meanings, on scenes of every number of blocks; also where the block that is mentioned is missing."""
    rng = np.random.RandomState(0)
    everything = [m for kind in ("color", "extreme", "relation", "nearest", "negation") for m in meanings(kind, None)]
    count = 60
    cells = np.stack([rng.permutation(64)[:4] for _ in range(count)])
    colors = np.stack([rng.permutation(6)[:4] for _ in range(count)])
    for scene in range(count):
        cells[scene, 2 + scene % 3 :] = colors[scene, 2 + scene % 3 :] = -1
    crowded = cells.copy()
    crowded[:, :2] = rng.permutation(8)[:2]  # ties in a row
    for places, meaning in product((cells, crowded), everything):
        fits = right_blocks(meaning, places, colors)
        for scene in range(count):
            expected = named_blocks(meaning, places[scene].tolist(), colors[scene].tolist())
            assert np.flatnonzero(fits[scene]).tolist() == expected, (meaning, places[scene], colors[scene])


def test_blockfinds_own_sentence_is_one_of_training():
    for color, name in enumerate(COLORS):
        assert str(Sentence(Meaning("color", (color,)), names=(name,))) == instruction_for(name)
    first = {name: getattr(TRAINING, name)[0] for name in ("requests", "nouns", "color")}
    assert first == {"requests": "{verb} {phrase}", "nouns": "block", "color": "the {0} {noun}"}
    assert TRAINING.verbs[0][0] == "find"


def words_of(*texts: str) -> set[str]:
    return {word for text in texts for word in re.findall(r"[a-z]+", re.sub(r"{.*?}", "", text))}


def test_held_out_words_are_not_in_training():
    known = words_of(
        *(str(s) for kind in ("color", "extreme", "relation", "nearest", "negation") for s in all_sentences(kind))
    )
    assert not known & words_of(*(name for names in NEW_NAMES for name in names))
    assert not known & words_of(*NEW_NOUNS, *(word for pair in NEW_VERBS for word in pair))
    for name, new in (("requests", NEW_REQUESTS), ("negation", NEW_NEGATION)):
        assert not set(getattr(TRAINING, name)) & set(new)
    for name, sides in (("relation", NEW_RELATION), ("extreme", NEW_EXTREME)):
        for old, new in zip(getattr(TRAINING, name), sides, strict=True):
            assert not set(old) & set(new)


def test_sides_have_opposites():
    assert [SIDES[side] for side in OPPOSITE] == ["right", "left", "below", "above"]
    for words in (TRAINING.extreme, TRAINING.relation, NEW_EXTREME, NEW_RELATION):
        assert all(len(words[side]) == len(words[OPPOSITE[side]]) for side in range(4))  # so that they can be exchanged


def test_words_are_drawn_from_the_wording_alone():
    few = Wording(verbs=(("seek", "sought"),), nouns=("cube",), requests=("{phrase} is {done}",), additions=("both",))
    sentence = few.sentence(Meaning("color", (3,)), np.random.RandomState(0))
    assert re.fullmatch(
        "(please|now|robot) the (yellow cube|cube that is yellow) is sought (please|now|for me)", str(sentence)
    )


def test_lists_of_colors_read_like_english():
    phrase = "the {noun} that is not {or}"
    texts = [str(Sentence(Meaning("negation", tuple(range(n))), phrase=phrase, names=COLORS[:n])) for n in (1, 2, 3)]
    assert texts == [
        "find the block that is not red",
        "find the block that is not red or green",
        "find the block that is not red, green or blue",
    ]
    neither = Sentence(Meaning("negation", (0, 1)), phrase=NEW_NEGATION[0], names=("red", "green"))
    assert str(neither) == "find the block that is neither red nor green"
