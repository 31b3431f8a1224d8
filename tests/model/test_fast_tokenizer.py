from __future__ import annotations

import numpy as np
import pytest

from tinyvla.data.dataset import BlockFind, trajectories
from tinyvla.errors import InputError
from tinyvla.model.heads.fast_tokenizer import FastTokenizer, cosine_transform

HORIZON = 16


@pytest.fixture(scope="module")
def chunks():
    return trajectories(BlockFind(1_000, seed=0), HORIZON, seed=0).astype(np.float64) / 6


@pytest.fixture(scope="module")
def tokenizer(chunks):
    tokenizer = FastTokenizer(HORIZON, 2, scale=20.0)
    tokenizer.fit(chunks, vocab_size=512)
    return tokenizer


def test_the_transform_is_orthonormal_and_finds_a_cosine():
    transform = cosine_transform(HORIZON)
    np.testing.assert_allclose(transform @ transform.T, np.eye(HORIZON), atol=1e-12)
    wave = np.cos(np.pi * 3 * (np.arange(HORIZON) + 0.5) / HORIZON)
    assert np.flatnonzero(np.abs(transform @ wave) > 1e-9).tolist() == [3]


def test_there_and_back_loses_only_the_rounding(chunks, tokenizer):
    back = tokenizer.decode(tokenizer.encode(chunks))
    assert np.abs(tokenizer.frequencies(back) - tokenizer.frequencies(chunks)).max() == 0
    error = np.linalg.norm((back - chunks).reshape(len(chunks), -1), axis=1)
    assert error.max() <= 0.5 / 20.0 * np.sqrt(2 * HORIZON) + 1e-9


def test_smooth_chunks_take_fewer_tokens_than_numbers_and_jagged_ones_more(chunks, tokenizer):
    jagged_chunks = np.random.RandomState(0).permutation(chunks.flat).reshape(chunks.shape)
    smooth, jagged = (np.mean([len(ids) for ids in tokenizer.encode(x)]) for x in (chunks, jagged_chunks))
    assert smooth < 0.7 * 2 * HORIZON
    assert smooth < 0.8 * jagged


def test_what_was_learned_travels_as_text(chunks, tokenizer):
    again = FastTokenizer(HORIZON, 2, scale=20.0)
    assert again.vocab_size == 0
    again.load_json(tokenizer.to_json())
    assert again.encode(chunks) == tokenizer.encode(chunks)
    assert again.to_json() == tokenizer.to_json()


def test_learning_twice_gives_the_same_tokens(chunks, tokenizer):
    again = FastTokenizer(HORIZON, 2, scale=20.0)
    again.fit(chunks, vocab_size=512)
    assert again.to_json() == tokenizer.to_json()


def test_numbers_never_seen_are_brought_to_the_nearest_that_was(chunks, tokenizer):
    back = tokenizer.decode(tokenizer.encode(100 * chunks[:5]))
    assert np.isfinite(back).all()


def test_rows_of_any_length_are_decoded(tokenizer):
    assert tokenizer.decode([[], [0] * 99, [3]]).shape == (3, HORIZON, 2)


def test_a_vocabulary_that_is_too_small_is_refused(chunks):
    with pytest.raises(InputError, match=r"choose a larger .* or a smaller fast_scale"):
        FastTokenizer(HORIZON, 2, scale=1e3).fit(chunks, vocab_size=64)


def test_one_glitch_is_refused_and_not_spelled_out(chunks):
    wild = chunks.copy()
    wild[0, 0, 0] = 1e9
    with pytest.raises(InputError, match=r"choose a larger .* or a smaller fast_scale"):
        FastTokenizer(HORIZON, 2, scale=20.0).fit(wild, vocab_size=1024)
