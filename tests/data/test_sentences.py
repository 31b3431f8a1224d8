from __future__ import annotations

import hashlib

import numpy as np
import pytest
from data.test_grammar import named_blocks, read

from tinyvla.data.batch import TensorSplit
from tinyvla.data.dataset import directions
from tinyvla.data.grammar import TRAINING, Wording
from tinyvla.data.sentences import (
    HELD_OUT_NEGATIONS,
    HELD_OUT_RELATIONS,
    KINDS,
    NEW,
    SEEN,
    SentenceFind,
    meanings,
    one_word_changes,
)
from tinyvla.errors import InputError
from tinyvla.model.tokenizer import encode

COUNT = 100


@pytest.fixture(scope="module")
def splits() -> dict[str, SentenceFind]:
    return {kind: SentenceFind(COUNT, 7, (kind,)) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_every_sentence_has_exactly_one_right_block_and_the_arrow_points_to_it(kind, splits):
    split = splits[kind]
    for scene, text in enumerate(split.instructions):
        found = named_blocks(read(text), split.cells[scene].tolist(), split.colors[scene].tolist())
        assert found == [0], text
    np.testing.assert_array_equal(split.actions, directions(split.cells[:, 0]))
    assert set(split.kinds) == {kind}


@pytest.mark.parametrize("kind", KINDS)
def test_the_target_is_not_always_where_it_was_drawn(kind, splits):
    """Each colour is asked for, and no corner of the grid is left out."""
    split = splits[kind]
    assert len(np.unique(split.colors[:, 0])) == 6
    assert (np.bincount(split.cells[:, 0] // 16, minlength=4) > COUNT // 30).all()


def test_same_seed_same_bytes():
    split = SentenceFind(500, 7)
    told = "\n".join(split.instructions).encode()
    digest = hashlib.sha256(split.images.tobytes() + split.actions.tobytes() + told).hexdigest()
    assert digest[:16] == "828a01bdcd3f5750"


def test_kinds_take_turns():
    split = SentenceFind(11, 0)
    assert split.kinds == [SEEN[i % len(SEEN)] for i in range(11)]


def test_what_is_held_out_is_not_in_training(splits):
    train = SentenceFind(900, 1)
    pairs = {(s.meaning.side, s.meaning.colors[0]) for s in train.sentences if s.meaning.kind == "relation"}
    assert len(pairs) == 24 - len(HELD_OUT_RELATIONS)
    assert not pairs & set(HELD_OUT_RELATIONS)
    asked = {(s.meaning.side, s.meaning.colors[0]) for s in splits["new relations"].sentences}
    assert asked == set(HELD_OUT_RELATIONS)
    negated = {s.meaning.colors for s in train.sentences if s.meaning.kind == "negation"}
    assert not any({*pair} <= {*colors} for pair in HELD_OUT_NEGATIONS for colors in negated)
    assert all(any({*p} <= {*s.meaning.colors} for p in HELD_OUT_NEGATIONS) for s in splits["new negations"].sentences)
    longest = max(
        len(text.split()) for text, kind in zip(train.instructions, train.kinds, strict=True) if kind == "color"
    )
    assert max(len(text.split()) for text in splits["new lengths"].instructions) > longest
    assert all(s.opening and s.closing for s in splits["new lengths"].sentences)
    assert not any(s.opening and s.closing for s in train.sentences)


def test_each_new_kind_differs_from_training_in_one_thing():
    for kind in NEW:
        words, pairs = KINDS[kind].wording, KINDS[kind].held_out
        changed = [name for name in vars(words) if getattr(words, name) != getattr(TRAINING, name)]
        assert len(changed) + pairs == 1, kind


def test_meanings_are_counted():
    counts = {kind: (len(meanings(kind)), len(meanings(kind, True))) for kind in ("color", "extreme", "nearest")}
    assert counts == {"color": (6, 0), "extreme": (4, 0), "nearest": (6, 0)}
    assert (len(meanings("relation")), len(meanings("relation", True))) == (18, 6)
    assert (len(meanings("negation")), len(meanings("negation", True))) == (6 + 12 + 8, 3 + 12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_sentence_differs_in_one_word_and_names_another_block(kind, splits):
    split, other = splits[kind], splits[kind].retargeted()
    changed = 0
    for scene, (before, after) in enumerate(zip(split.instructions, other.instructions, strict=True)):
        if before == after:
            np.testing.assert_array_equal(split.cells[scene], other.cells[scene])
            continue
        changed += 1
        one, two = before.split(), after.split()
        if len(one) == len(two):
            assert sum(a != b for a, b in zip(one, two, strict=True)) == 1, (before, after)
        else:
            assert " ".join(one).replace("not ", "", 1) == after
        found = named_blocks(read(after), other.cells[scene].tolist(), other.colors[scene].tolist())
        assert found == [0], after
        assert other.cells[scene, 0] != split.cells[scene, 0]
        assert sorted(other.cells[scene]) == sorted(split.cells[scene])
    np.testing.assert_array_equal(split.images, other.images)
    assert changed > COUNT / 3


def test_sides_are_changed_before_colors():
    (sentence,) = SentenceFind(1, 0, ("relation",)).sentences
    first = next(one_word_changes(sentence))
    assert first.meaning.colors == sentence.meaning.colors
    assert first.meaning.side != sentence.meaning.side


def test_rows_keep_scene_and_sentence_together():
    split = SentenceFind(20, 3)
    part = split.rows(np.arange(20) % 3 == 1)
    assert part.instructions == split.instructions[1::3]
    assert part.kinds == split.kinds[1::3]
    np.testing.assert_array_equal(part.images, split.images[1::3])


def test_a_split_can_be_given_other_words():
    split = SentenceFind(30, 0, ("color",), Wording(nouns=("cube",)))
    assert all("cube" in text for text in split.instructions)


def test_it_goes_where_blockfind_goes():
    split = SentenceFind(12, 0)
    tensors = TensorSplit.from_blockfind(split, encode)
    assert len(tensors) == 12
    sample = split[3]
    assert sample.instruction == split.instructions[3]
    np.testing.assert_allclose(sample.action, directions(split.cells[3:4, 0])[0])


@pytest.mark.parametrize("kinds", [("colours",), (), ("color", "verbs")])
def test_unknown_kinds_are_refused(kinds):
    with pytest.raises(InputError, match="choose from color, extreme"):
        SentenceFind(3, 0, kinds)
