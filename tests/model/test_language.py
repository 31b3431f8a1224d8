from __future__ import annotations

import pytest
import torch

from tinyvla.config import LanguageConfig
from tinyvla.model.language import TinyLanguageModel, causal_mask
from tinyvla.model.tokenizer import encode


@pytest.fixture
def language(tiny_policy) -> TinyLanguageModel:
    return tiny_policy.language


def test_one_state_per_token(language):
    ids, mask = encode(["find the red block"])
    assert language(ids, mask).shape == (1, 6, 16)


def test_mask_is_causal_and_hides_padding():
    allowed = causal_mask(torch.tensor([[True, True, False]]))[0, 0]
    assert allowed.tolist() == [[True, False, False], [True, True, False], [True, True, False]]


def test_later_words_do_not_change_earlier_states(language):
    a, mask = encode(["find the red block"])
    b, _ = encode(["find the blue cube"])
    torch.testing.assert_close(language(a, mask)[:, :3], language(b, mask)[:, :3])
    assert not torch.allclose(language(a, mask)[:, 3:], language(b, mask)[:, 3:])


def test_padding_does_not_change_anything(language):
    short, short_mask = encode(["find the red block"])
    padded, mask = encode(["find the red block", "please find the small red block"])
    width = short.shape[1]
    assert padded.shape[1] > width
    torch.testing.assert_close(language(padded, mask)[0, :width], language(short, short_mask)[0])
    torch.testing.assert_close(language.sentence(padded, mask)[0], language.sentence(short, short_mask)[0])
    # What stands under the padding is never looked at.
    scribbled = padded.masked_fill(~mask, 2417)
    torch.testing.assert_close(language.sentence(scribbled, mask), language.sentence(padded, mask))


def test_sentence_is_the_mean_of_real_states_in_the_given_order(language):
    ids, mask = encode(["find the red block", "blue", "find the red block", "go left"])
    states = language(ids, mask)
    want = torch.stack([row[keep].mean(0) for row, keep in zip(states, mask, strict=True)])
    torch.testing.assert_close(language.sentence(ids, mask), want)


def test_words_start_at_the_scale_of_the_positions():
    model = TinyLanguageModel(LanguageConfig(embed_dim=64))
    torch.nn.init.normal_(model.token_embedding.weight)
    ratio = model.token_embedding.weight.std() / model.positions.std()
    assert 0.5 < ratio < 3
