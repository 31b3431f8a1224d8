"""TinyLanguageModel: a causal transformer over the instruction's tokens.

Notable:
- token embeddings start at std 1.0, about the scale of the sine-cosine positions; at 0.02 the words are drowned at
  first, and the policy learns them much later (chapter 3);
- it returns hidden states, not logits: nothing here predicts the next word;
- `sentence` averages the states of the real tokens, so it depends on every word from the first step on. The last token
  sees the words through attention that starts at zero, so its state depends on them from the second step on; a policy
  that reads it learns as well (chapter 3);
- a batch holds few distinct instructions, so each one is encoded once;
- `LanguageTower` says what any model in the language slot must offer; `tinyvla.model.pretrained` has others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tinyvla.config import LanguageConfig, PretrainedConfig
from tinyvla.data.batch import Encoded
from tinyvla.errors import InputError
from tinyvla.model.layers import Block, sincos_positions
from tinyvla.model.tokenizer import encode, split_words


def causal_mask(attention_mask: Bool[Tensor, "b t"]) -> Bool[Tensor, "b 1 t t"]:
    """True where a token may look: at itself and at earlier tokens that are not padding."""
    length = attention_mask.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool, device=attention_mask.device).tril()
    return earlier & attention_mask[:, None, None, :]


class LanguageTower(nn.Module):
    """What fusions expect of a language model: a tokenizer, embeddings, and one state per token."""

    config: LanguageConfig | PretrainedConfig
    token_embedding: nn.Module

    def encode(self, instructions: Sequence[str]) -> Encoded:
        """Token ids and mask of instructions, as `tinyvla.model.tokenizer.encode`."""
        return encode(instructions, self.config.max_length)

    def embed(self, input_ids: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """Tokens as they enter the first block."""
        raise NotImplementedError

    def read(
        self, x: Float[Tensor, "b n d"], allowed: Bool[Tensor, "b 1 n n"], skip: int = 0
    ) -> Float[Tensor, "b t d"]:
        """Returns hidden states of embedded tokens (image tokens may be among them), without the first `skip`."""
        raise NotImplementedError

    def forward(self, input_ids: Int[Tensor, "b t"], attention_mask: Bool[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """Encode token ids; `attention_mask` is True on real tokens, False on padding."""
        raise NotImplementedError

    def mean_state(self, input_ids: Int[Tensor, "b t"], attention_mask: Bool[Tensor, "b t"]) -> Float[Tensor, "b d"]:
        """One vector per instruction: the mean state of its real tokens."""
        hidden = self(input_ids, attention_mask) * attention_mask[..., None]
        return hidden.sum(dim=1) / attention_mask.sum(dim=1, keepdim=True)

    def sentence(self, input_ids: Int[Tensor, "b t"], attention_mask: Bool[Tensor, "b t"]) -> Float[Tensor, "b d"]:
        """Returns the mean state of each instruction; a batch holds few different ones, and each is encoded once."""
        rows = torch.cat([input_ids, attention_mask.to(input_ids.dtype)], dim=1)
        distinct = rows.unique(dim=0)
        ids, mask = distinct.chunk(2, dim=1)
        states = self.mean_state(ids, mask.bool())
        is_it = (rows[:, None] == distinct).all(dim=-1)  # (b, distinct)
        return is_it.to(states.dtype) @ states

    def note_words(self, input_ids: Int[Tensor, "*b t"]) -> None:
        """Remember the tokens of the training sentences; a tower that knows words from elsewhere need not."""

    def unseen_words(self, text: str) -> list[str]:
        """Returns the words of a sentence that no training sentence held, as far as that is known."""
        return []


class TinyLanguageModel(LanguageTower):
    """Causal transformer; maps token ids to one state per token."""

    config: LanguageConfig
    token_embedding: nn.Embedding
    positions: Tensor
    seen: Tensor

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.embed_dim)
        positions = sincos_positions(torch.arange(config.max_length).float(), config.embed_dim, 10_000.0)
        self.register_buffer("positions", positions, persistent=False)
        self.blocks = nn.ModuleList(
            Block(config.embed_dim, config.num_heads, config.mlp_ratio) for _ in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(config.embed_dim)
        self.register_buffer("seen", torch.zeros(config.vocab_size, dtype=torch.bool))
        self.register_load_state_dict_pre_hook(_nothing_seen)

    def note_words(self, input_ids: Int[Tensor, "*b t"]) -> None:
        """Remember the tokens of the training sentences; the record travels with the checkpoint."""
        self.seen[input_ids.unique()] = True

    def unseen_words(self, text: str) -> list[str]:
        """Returns the words of which no training sentence held all tokens; none where nothing was recorded."""
        seen = set(self.seen.nonzero().flatten().tolist())
        unseen = [word for word, ids in split_words(text) if not seen.issuperset(ids)] if seen else []
        return list(dict.fromkeys(unseen))

    def encode(self, instructions: Sequence[str]) -> Encoded:
        """Returns token ids and mask, padded on the right to the longest.

        Raises:
            InputError: an instruction is not text, is empty or too long, or has a token beyond `config.vocab_size`.
        """
        input_ids, attention_mask = super().encode(instructions)
        if input_ids.max() >= self.config.vocab_size:
            words = [
                word for text in instructions for word, ids in split_words(text) if max(ids) >= self.config.vocab_size
            ]
            raise InputError(
                f"{words[0]!r} is beyond this policy's {self.config.vocab_size} tokens; a larger "
                "LanguageConfig.vocab_size takes it, up to 30522"
            )
        return input_ids, attention_mask

    def embed(self, input_ids: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """Token embeddings plus positions."""
        return self.token_embedding(input_ids) + self.positions[: input_ids.shape[1]]

    def forward(self, input_ids: Int[Tensor, "b t"], attention_mask: Bool[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """Encode token ids; `attention_mask` is True on real tokens, False on padding."""
        return self.read(self.embed(input_ids), causal_mask(attention_mask))

    def read(
        self, x: Float[Tensor, "b n d"], allowed: Bool[Tensor, "b 1 n n"], skip: int = 0
    ) -> Float[Tensor, "b t d"]:
        """States of embedded tokens but for the first `skip`, through all blocks."""
        for block in self.blocks:
            x = block(x, allowed)
        return self.norm(x[:, skip:])


def _nothing_seen(tower: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """A checkpoint of before the record was kept has none."""
    state.setdefault(prefix + "seen", torch.zeros_like(tower.seen))
