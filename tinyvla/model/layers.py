"""Attention, MLP, positions and the transformer block that both towers and the fusion share.

Notable:
- one `Attention` serves self-attention, causal attention and cross-attention;
- queries and keys are normalised over each head (QK-norm), so attention logits start at the same scale whatever the
  inputs' scale;
- blocks are pre-norm; the projections that write to the residual stream start at zero (see `TinyVLA.init_weights`).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn


def naive_attention(
    query: Float[Tensor, "b h q d"],
    key: Float[Tensor, "b h k d"],
    value: Float[Tensor, "b h k d"],
    allowed: Bool[Tensor, "#b #h #q k"] | None = None,
) -> tuple[Float[Tensor, "b h q d"], Float[Tensor, "b h q k"]]:
    """Scaled dot-product attention, written out (https://arxiv.org/abs/1706.03762, section 3.2.1).

    Args:
        query, key, value: already split into heads.
        allowed: True where a query may look at a key.

    Returns:
        The attended values and the attention weights, which sum to one over the keys.
    """
    logits = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    if allowed is not None:
        logits = logits.masked_fill(~allowed, -torch.inf)
    weights = logits.softmax(dim=-1)
    return weights @ value, weights


def sincos_positions(coordinates: Float[Tensor, "n"], dim: int, max_period: float) -> Float[Tensor, "n dim"]:
    """Sines and cosines of the coordinates at `dim / 2` frequencies from 1 down to `1 / max_period`."""
    frequencies = max_period ** -torch.linspace(0, 1, dim // 2, device=coordinates.device)
    angles = coordinates[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class Attention(nn.Module):
    """Multi-head attention with QK-norm (https://arxiv.org/abs/2302.05442, section 2).

    Args:
        embed_dim: width of the queries and of the output.
        num_heads: must divide `embed_dim`.
        context_dim: width of the keys' and values' source; `embed_dim` by default.
    """

    def __init__(self, embed_dim: int, num_heads: int, context_dim: int | None = None) -> None:
        super().__init__()
        context_dim = embed_dim if context_dim is None else context_dim
        self.num_heads = num_heads
        self.query = nn.Linear(embed_dim, embed_dim)
        self.key = nn.Linear(context_dim, embed_dim)
        self.value = nn.Linear(context_dim, embed_dim)
        self.output = nn.Linear(embed_dim, embed_dim)

    def _split_heads(self, x: Float[Tensor, "b t c"]) -> Float[Tensor, "b t h d"]:
        return x.unflatten(-1, (self.num_heads, -1))

    def project(
        self, x: Float[Tensor, "b q c"], context: Float[Tensor, "b k e"] | None = None
    ) -> tuple[Float[Tensor, "b h q d"], Float[Tensor, "b h k d"], Float[Tensor, "b h k d"]]:
        """Queries, keys and values by head; queries and keys with root mean square one."""
        source = x if context is None else context
        return self.by_head(self.query(x), self.key(source), self.value(source))

    def by_head(
        self, query: Float[Tensor, "b q c"], key: Float[Tensor, "b k c"], value: Float[Tensor, "b k c"]
    ) -> tuple[Float[Tensor, "b h q d"], Float[Tensor, "b h k d"], Float[Tensor, "b h k d"]]:
        """Returns projections split into heads, the queries and keys normalised."""
        query, key, value = (self._split_heads(part) for part in (query, key, value))
        # Normalised before the heads move in front of the tokens: afterwards each norm would first copy its input.
        head_dim = (query.shape[-1],)
        query, key = F.rms_norm(query, head_dim), F.rms_norm(key, head_dim)
        return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)

    def forward(
        self,
        x: Float[Tensor, "b q c"],
        context: Float[Tensor, "b k e"] | None = None,
        allowed: Bool[Tensor, "#b 1 #q k"] | None = None,
    ) -> Float[Tensor, "b q c"]:
        """Attend from `x` to `context` (to itself when None), where `allowed` is True."""
        query, key, value = self.project(x, context)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed)
        return self.output(attended.transpose(1, 2).flatten(2))

    def weights(
        self,
        x: Float[Tensor, "b q c"],
        context: Float[Tensor, "b k e"] | None = None,
        allowed: Bool[Tensor, "#b 1 #q k"] | None = None,
    ) -> Float[Tensor, "b h q k"]:
        """The attention weights that `forward` uses, for pictures and tests."""
        return naive_attention(*self.project(x, context), allowed)[1]


class MLP(nn.Module):
    """Two linear layers with a GELU between, applied to each token."""

    def __init__(self, embed_dim: int, mlp_ratio: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(embed_dim, mlp_ratio * embed_dim)
        self.output = nn.Linear(mlp_ratio * embed_dim, embed_dim)

    def forward(self, x: Float[Tensor, "b t c"]) -> Float[Tensor, "b t c"]:
        """Apply to every token."""
        return self.output(F.gelu(self.hidden(x)))


class Block(nn.Module):
    """Pre-norm transformer block: attention, then MLP, each added to the residual stream."""

    def __init__(self, embed_dim: int, num_heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(embed_dim)
        self.attention = Attention(embed_dim, num_heads)
        self.mlp_norm = nn.LayerNorm(embed_dim)
        self.mlp = MLP(embed_dim, mlp_ratio)

    def forward(
        self, x: Float[Tensor, "b t c"], allowed: Bool[Tensor, "#b 1 #t t"] | None = None
    ) -> Float[Tensor, "b t c"]:
        """Mix the tokens where `allowed` is True, then transform each."""
        x = x + self.attention(self.attention_norm(x), allowed=allowed)
        return x + self.mlp(self.mlp_norm(x))
