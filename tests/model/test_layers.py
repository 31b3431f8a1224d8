from __future__ import annotations

import jaxtyping
import pytest
import torch
import torch.nn.functional as F

from tinyvla.model.layers import MLP, Attention, Block, naive_attention


def heads(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("masked", [False, True])
def test_naive_attention_equals_pytorchs(masked):
    query, key, value = heads(2, 3, 5, 8), heads(2, 3, 7, 8, seed=1), heads(2, 3, 7, 8, seed=2)
    allowed = (torch.rand(2, 1, 5, 7) > 0.3) if masked else None
    if allowed is not None:
        allowed[..., 0] = True
    naive, weights = naive_attention(query, key, value, allowed)
    torch.testing.assert_close(naive, F.scaled_dot_product_attention(query, key, value, attn_mask=allowed))
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 5))


def test_attention_ignores_forbidden_keys():
    attention = Attention(16, 2)
    x = heads(1, 6, 16)
    allowed = torch.ones(1, 1, 6, 6, dtype=torch.bool)
    allowed[..., 4:] = False
    changed = x.clone()
    changed[:, 4:] += 10
    torch.testing.assert_close(attention(x, allowed=allowed)[:, :4], attention(changed, allowed=allowed)[:, :4])


def test_queries_and_keys_are_normalised_whatever_the_inputs_scale():
    attention = Attention(16, 2)
    for scale in (0.01, 1.0, 100.0):
        query, key, _ = attention.project(scale * heads(1, 5, 16))
        for x in (query, key):
            torch.testing.assert_close(x.pow(2).mean(-1), torch.ones(1, 2, 5), atol=1e-2, rtol=0)


def test_cross_attention_takes_keys_of_another_width():
    attention = Attention(16, 2, context_dim=12)
    assert attention(heads(3, 1, 16), context=heads(3, 9, 12)).shape == (3, 1, 16)
    assert attention.weights(heads(3, 1, 16), context=heads(3, 9, 12)).shape == (3, 2, 1, 9)


def test_weights_are_those_that_forward_uses():
    attention = Attention(16, 2)
    x = heads(1, 5, 16)
    value = attention.project(x)[2]
    mixed = (attention.weights(x) @ value).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attention.output(mixed), attention(x))


def test_block_is_the_identity_when_its_outputs_are_zero():
    block = Block(16, 2, 4)
    for linear in (block.attention.output, block.mlp.output):
        torch.nn.init.zeros_(linear.weight)
        torch.nn.init.zeros_(linear.bias)
    x = heads(2, 5, 16)
    torch.testing.assert_close(block(x), x)


def test_shapes_are_checked_at_run_time():
    with pytest.raises(jaxtyping.TypeCheckError):
        MLP(16, 4)(torch.zeros(16))
    with pytest.raises(jaxtyping.TypeCheckError):
        naive_attention(heads(1, 1, 2, 4), heads(1, 1, 3, 4), heads(1, 1, 2, 4))
