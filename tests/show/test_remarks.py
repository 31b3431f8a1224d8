from __future__ import annotations

import pytest

from tinyvla.data.dataset import BlockFind
from tinyvla.show.remarks import angle_of, named_colors, note_on_words, warning_for


@pytest.fixture
def sample():
    return BlockFind(1, 0)[0]  # blue, orange, purple, yellow


def test_angle_is_counter_clockwise_with_up_at_90():
    assert [angle_of(*v) for v in ((1.0, 0.0), (0.0, -1.0), (-1.0, 0.0), (0.0, 1.0))] == [0, 90, 180, 270]


def test_named_colours_are_whole_words():
    assert named_colors("Find the RED block, not the blue one") == ["red", "blue"]
    assert named_colors("find the reddish block") == []


def test_warnings(sample):
    assert warning_for("find the blue block", sample) is None
    assert "no red block in this scene" in warning_for("find the red block", sample)
    assert "names no block colour" in warning_for("find the block", sample)


def test_words_that_training_never_showed_are_named_once():
    assert note_on_words([]) is None
    assert note_on_words(["spoon", "please", "spoon"]).startswith("never seen in training: 'spoon', 'please'; ")
