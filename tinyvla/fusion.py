"""Fusion: vision tokens and an instruction become one feature vector per scene.

Notable:
- one signature for all: `(vision tokens, language model, input_ids, attention_mask) -> (b, d)`. A fusion gets the
  language model itself, not its output, because some fusions put image tokens *into* it;
- in the cross-attention fusion the sentence asks and the patches answer. The sentence itself is not added to the
  answer: without that residual path there is nothing to fall back on but looking, and it learns faster.
"""

from __future__ import annotations

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tinyvla.config import ModelConfig
from tinyvla.language import TinyLanguageModel
from tinyvla.layers import Attention


class PoolAdd(nn.Module):
    """The average patch plus the sentence, each projected to the same width. Late fusion at its simplest."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.vision_projection = nn.Linear(config.vision.embed_dim, config.fusion.embed_dim)
        self.text_projection = nn.Linear(config.language.embed_dim, config.fusion.embed_dim)

    def forward(
        self,
        vision: Float[Tensor, "b n v"],
        language: TinyLanguageModel,
        input_ids: Int[Tensor, "b t"],
        attention_mask: Bool[Tensor, "b t"],
    ) -> Float[Tensor, "b d"]:
        """Mean vision token plus sentence."""
        sentence = language.sentence(input_ids, attention_mask)
        return self.vision_projection(vision.mean(dim=1)) + self.text_projection(sentence)


class CrossAttention(nn.Module):
    """The sentence is the query, the vision tokens are keys and values."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        fusion = config.fusion
        self.text_projection = nn.Linear(config.language.embed_dim, fusion.embed_dim)
        self.attention = Attention(fusion.embed_dim, fusion.num_heads, context_dim=config.vision.embed_dim)

    def query(
        self, language: TinyLanguageModel, input_ids: Int[Tensor, "b t"], attention_mask: Bool[Tensor, "b t"]
    ) -> Float[Tensor, "b 1 d"]:
        """What the sentence asks for, one query per scene."""
        return self.text_projection(language.sentence(input_ids, attention_mask))[:, None]

    def forward(
        self,
        vision: Float[Tensor, "b n v"],
        language: TinyLanguageModel,
        input_ids: Int[Tensor, "b t"],
        attention_mask: Bool[Tensor, "b t"],
    ) -> Float[Tensor, "b d"]:
        """What the sentence finds among the vision tokens."""
        return self.attention(self.query(language, input_ids, attention_mask), context=vision)[:, 0]


def make_fusion(config: ModelConfig) -> nn.Module:
    """The fusion that `config.fusion.kind` names."""
    return {"cross-attention": CrossAttention, "pool-add": PoolAdd}[config.fusion.kind](config)
