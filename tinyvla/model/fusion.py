"""Fusion: vision tokens and an instruction become one feature vector per scene.

Notable:
- one signature for all: `(vision tokens, language model, input_ids, attention_mask) -> (b, d)`. A fusion gets the
  language model itself, not its output, because prefix fusion puts image tokens *into* it;
- in cross-attention the sentence is the query, and the patches are keys and values. There is no residual connection
  from the sentence to the output, so the policy has to use the image;
- `VisionOnly` and `LanguageOnly` are ablations: each ignores one input, to measure how far the other alone gets.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tinyvla.config import ModelConfig
from tinyvla.model.language import LanguageTower, causal_mask
from tinyvla.model.layers import Attention, Block
from tinyvla.registry import FUSIONS


class Fusion(nn.Module):
    """What every fusion is called with."""

    pools = False
    """True where it averages the vision tokens or uses none; a robot's state is then added to the fused feature."""

    def forward(
        self,
        vision: Float[Tensor, "b n v"],
        language: LanguageTower,
        input_ids: Int[Tensor, "b t"],
        attention_mask: Bool[Tensor, "b t"],
    ) -> Float[Tensor, "b d"]:
        """One feature per scene."""
        raise NotImplementedError


class PoolAdd(Fusion):
    """The average patch plus the sentence, each projected to the same width. Late fusion at its simplest."""

    pools = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.vision_projection = nn.Linear(config.vision.embed_dim, config.fusion.embed_dim)
        self.text_projection = nn.Linear(config.language.embed_dim, config.fusion.embed_dim)

    def forward(
        self,
        vision: Float[Tensor, "b n v"],
        language: LanguageTower,
        input_ids: Int[Tensor, "b t"],
        attention_mask: Bool[Tensor, "b t"],
    ) -> Float[Tensor, "b d"]:
        """Mean vision token plus sentence."""
        sentence = language.sentence(input_ids, attention_mask)
        return self.vision_projection(vision.mean(dim=1)) + self.text_projection(sentence)


class Concat(Fusion):
    """The average patch and the sentence side by side, mixed by one layer with a non-linearity."""

    pools = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.mix = nn.Linear(config.vision.embed_dim + config.language.embed_dim, config.fusion.embed_dim)

    def forward(
        self,
        vision: Float[Tensor, "b n v"],
        language: LanguageTower,
        input_ids: Int[Tensor, "b t"],
        attention_mask: Bool[Tensor, "b t"],
    ) -> Float[Tensor, "b d"]:
        """Mean vision token and sentence, mixed."""
        sentence = language.sentence(input_ids, attention_mask)
        return F.gelu(self.mix(torch.cat([vision.mean(dim=1), sentence], dim=1)))


class Gated(Fusion):
    """FiLM (https://arxiv.org/abs/1709.07871): the sentence scales and shifts every patch's features before pooling."""

    pools = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.vision_projection = nn.Linear(config.vision.embed_dim, config.fusion.embed_dim)
        self.scale = nn.Linear(config.language.embed_dim, config.fusion.embed_dim)
        self.shift = nn.Linear(config.language.embed_dim, config.fusion.embed_dim)

    def forward(
        self,
        vision: Float[Tensor, "b n v"],
        language: LanguageTower,
        input_ids: Int[Tensor, "b t"],
        attention_mask: Bool[Tensor, "b t"],
    ) -> Float[Tensor, "b d"]:
        """Mean of the patches, each modulated by the sentence."""
        sentence = language.sentence(input_ids, attention_mask)[:, None]
        modulated = self.vision_projection(vision) * (1 + self.scale(sentence)) + self.shift(sentence)
        return F.gelu(modulated).mean(dim=1)


class FusionTokens(Fusion):
    """A few learned tokens that attend to all patches and all words.

    There are two transformer blocks, so that these tokens can find out in the first which colour is asked for, and look
    for it in the second. In a small test one was not enough (chapter 4).
    """

    num_tokens = 4
    num_blocks = 2

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.fusion.embed_dim
        self.tokens = nn.Parameter(torch.randn(1, self.num_tokens, width))
        self.vision_projection = nn.Linear(config.vision.embed_dim, width)
        self.text_projection = nn.Linear(config.language.embed_dim, width)
        self.blocks = nn.ModuleList(Block(width, config.fusion.num_heads, mlp_ratio=4) for _ in range(self.num_blocks))

    def forward(
        self,
        vision: Float[Tensor, "b n v"],
        language: LanguageTower,
        input_ids: Int[Tensor, "b t"],
        attention_mask: Bool[Tensor, "b t"],
    ) -> Float[Tensor, "b d"]:
        """Mean of the learned tokens after they have looked at everything."""
        tokens = self.tokens.expand(vision.shape[0], -1, -1)
        words = self.text_projection(language(input_ids, attention_mask))
        joint = torch.cat([tokens, self.vision_projection(vision), words], dim=1)
        seen = F.pad(attention_mask, (joint.shape[1] - words.shape[1], 0), value=True)
        for block in self.blocks:
            joint = block(joint, seen[:, None, None, :])
        return joint[:, : self.num_tokens].mean(dim=1)


class CrossAttention(Fusion):
    """The sentence is the query, the vision tokens are keys and values."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        fusion = config.fusion
        self.text_projection = nn.Linear(config.language.embed_dim, fusion.embed_dim)
        self.attention = Attention(fusion.embed_dim, fusion.num_heads, context_dim=config.vision.embed_dim)

    def query(
        self, language: LanguageTower, input_ids: Int[Tensor, "b t"], attention_mask: Bool[Tensor, "b t"]
    ) -> Float[Tensor, "b 1 d"]:
        """What the sentence asks for, one query per scene."""
        return self.text_projection(language.sentence(input_ids, attention_mask))[:, None]

    def forward(
        self,
        vision: Float[Tensor, "b n v"],
        language: LanguageTower,
        input_ids: Int[Tensor, "b t"],
        attention_mask: Bool[Tensor, "b t"],
    ) -> Float[Tensor, "b d"]:
        """What the sentence finds among the vision tokens."""
        return self.attention(self.query(language, input_ids, attention_mask), context=vision)[:, 0]


class Prefix(Fusion):
    """Image tokens in front of the words, through the language model itself: the way of OpenVLA and pi0.

    Image tokens see each other; words see the image and the words before them
    (https://arxiv.org/abs/2406.09246, https://arxiv.org/abs/2410.24164).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.vision_projection = nn.Linear(config.vision.embed_dim, config.language.embed_dim)
        self.output_projection = nn.Linear(config.language.embed_dim, config.fusion.embed_dim)

    def forward(
        self,
        vision: Float[Tensor, "b n v"],
        language: LanguageTower,
        input_ids: Int[Tensor, "b t"],
        attention_mask: Bool[Tensor, "b t"],
    ) -> Float[Tensor, "b d"]:
        """Mean state of the words after the language model has read image and instruction."""
        prefix = self.vision_projection(vision)
        x = torch.cat([prefix, language.embed(input_ids)], dim=1)
        states = language.read(x, prefix_mask(prefix.shape[1], attention_mask), skip=prefix.shape[1])
        words = states * attention_mask[..., None]
        return self.output_projection(words.sum(dim=1) / attention_mask.sum(dim=1, keepdim=True))


def prefix_mask(num_prefix: int, attention_mask: Bool[Tensor, "b t"]) -> Bool[Tensor, "b 1 n n"]:
    """True where a token may look: everyone at the prefix, words also at themselves and at earlier words."""
    words = causal_mask(attention_mask)
    allowed = F.pad(words, (num_prefix, 0, num_prefix, 0))
    allowed[..., :num_prefix] = True
    return allowed


class VisionOnly(Fusion):
    """The same cross-attention with a learned query that no word has touched."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        fusion = config.fusion
        self.query = nn.Parameter(torch.randn(1, 1, fusion.embed_dim))
        self.attention = Attention(fusion.embed_dim, fusion.num_heads, context_dim=config.vision.embed_dim)

    def forward(
        self,
        vision: Float[Tensor, "b n v"],
        language: LanguageTower,
        input_ids: Int[Tensor, "b t"],
        attention_mask: Bool[Tensor, "b t"],
    ) -> Float[Tensor, "b d"]:
        """What a fixed question finds among the vision tokens."""
        return self.attention(self.query.expand(vision.shape[0], -1, -1), context=vision)[:, 0]


class LanguageOnly(Fusion):
    """The sentence, projected. The image is not used."""

    pools = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.text_projection = nn.Linear(config.language.embed_dim, config.fusion.embed_dim)

    def forward(
        self,
        vision: Float[Tensor, "b n v"],
        language: LanguageTower,
        input_ids: Int[Tensor, "b t"],
        attention_mask: Bool[Tensor, "b t"],
    ) -> Float[Tensor, "b d"]:
        """The projected sentence."""
        return self.text_projection(language.sentence(input_ids, attention_mask))


def make_fusion(config: ModelConfig) -> Fusion:
    """Returns the fusion that `config.fusion.kind` names."""
    return FUSIONS[config.fusion.kind](config)
