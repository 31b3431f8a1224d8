from __future__ import annotations

import pytest
import torch

from tinyvla.config import InputError
from tinyvla.data.blockfind import COLORS, instruction_for
from tinyvla.model.tokenizer import encode, unknown_words

# Ids that DistilBERT's own tokenizer gives these sentences.
KNOWN = {
    "find the red block": [101, 2424, 1996, 2417, 3796, 102],
    "find the green block": [101, 2424, 1996, 2665, 3796, 102],
    "find the blue block": [101, 2424, 1996, 2630, 3796, 102],
    "find the yellow block": [101, 2424, 1996, 3756, 3796, 102],
    "find the purple block": [101, 2424, 1996, 6379, 3796, 102],
    "find the orange block": [101, 2424, 1996, 4589, 3796, 102],
    "Go to the CYAN block, please!": [101, 2175, 2000, 1996, 22330, 2319, 3796, 1010, 3531, 999, 102],
    "find the magenta block": [101, 2424, 1996, 17454, 12380, 3796, 102],
}


@pytest.mark.parametrize("sentence", KNOWN)
def test_ids_are_distilberts(sentence):
    ids, mask = encode([sentence])
    assert ids[0].tolist() == KNOWN[sentence]
    assert mask.all()


def test_every_instruction_of_the_task_is_covered():
    assert {instruction_for(color) for color in COLORS} <= set(KNOWN)


def test_padding_stands_on_the_right():
    ids, mask = encode(["find the cyan block", "red"])
    assert ids.shape == mask.shape == (2, 7)
    assert ids[1].tolist() == [101, 2417, 102, 0, 0, 0, 0]
    assert mask[1].tolist() == [True] * 3 + [False] * 4
    assert ids.dtype == torch.int64


def test_words_outside_the_vocabulary_are_reported_never_dropped():
    assert unknown_words("find the zebra block near the xylophone") == ["zebra", "xylophone"]
    # Made of pieces that the bundle holds, but not a word that it vouches for.
    assert unknown_words("redan") == ["redan"]
    with pytest.raises(InputError, match=r"unknown words 'zebra'"):
        encode(["find the zebra block"])


@pytest.mark.parametrize("text", ["", "   ", "\n"])
def test_empty_instructions_are_refused(text):
    with pytest.raises(InputError, match="empty"):
        encode([text])


def test_over_long_instructions_are_refused():
    with pytest.raises(InputError, match="42 tokens, at most 32 fit"):
        encode(["red " * 40])
