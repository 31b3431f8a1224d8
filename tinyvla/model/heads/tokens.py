"""Heads that name an action with tokens, one after the other, as a language model does: bins and FAST."""

from __future__ import annotations

import hashlib

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from tinyvla.config import ModelConfig
from tinyvla.errors import InputError
from tinyvla.model.heads.base import Head, Trunk, mean_of
from tinyvla.model.heads.fast_tokenizer import FastTokenizer
from tinyvla.model.layers import Block


class BinsHead(Head):
    """Each number is cut into bins and named in turn, each knowing those before it (RT-2, OpenVLA).

    RT-2 https://arxiv.org/abs/2307.15818, OpenVLA https://arxiv.org/abs/2406.09246. There the language model names the
    bins with its own tokens; here a small network does, and previous bins enter as a sum of embeddings.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        width, bins = config.head.hidden_dim, config.head.num_bins
        self.features_in = nn.Linear(config.fusion.embed_dim, width)
        self.trunk = Trunk(width)
        self.output = nn.Linear(width, bins)
        self.place = nn.Parameter(torch.randn(self.dim, width))  # which number is being named
        self.previous = nn.Embedding(self.dim * bins, width)  # a row for each bin of each number

    def bins(self, actions: Float[Tensor, "b n"]) -> Int[Tensor, "b n"]:
        """Numbers in [-1, 1] as bins; others go to the outermost."""
        return ((actions + 1) / 2 * self.config.num_bins).long().clamp(0, self.config.num_bins - 1)

    def centers(self, bins: Int[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """The middle of each bin."""
        return (bins + 0.5) / self.config.num_bins * 2 - 1

    def logits(self, features: Float[Tensor, "b d"], bins: Int[Tensor, "b k"]) -> Float[Tensor, "b m bins"]:
        """For the first `k + 1` numbers, at most all, given the first `k` bins."""
        count = min(bins.shape[1] + 1, self.dim)
        rows = bins + self.config.num_bins * torch.arange(bins.shape[1], device=bins.device)
        seen = F.pad(self.previous(rows).cumsum(dim=1), (0, 0, 1, 0))[:, :count]  # what came before each number
        return self.output(self.trunk(self.features_in(features)[:, None] + seen + self.place[:count]))

    def sample(self, features: Float[Tensor, "b d"], generator: Generator | None) -> Float[Tensor, "b n"]:
        """Bins drawn one after the other, as their middles."""
        bins = torch.empty(len(features), 0, dtype=torch.long, device=features.device)
        for _ in range(self.dim):
            likely = self.logits(features, bins)[:, -1].softmax(dim=-1)
            bins = torch.cat([bins, torch.multinomial(likely, 1, generator=generator)], dim=1)
        return self.centers(bins)

    def flat_loss(
        self,
        features: Float[Tensor, "b d"],
        actions: Float[Tensor, "b n"],
        generator: Generator | None,
        counts: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, ""]:
        """Cross-entropy of all numbers at once: in training the bins before each are known."""
        bins = self.bins(actions)
        logits = self.logits(features, bins[:, :-1]).flatten(0, 1)
        return mean_of(F.cross_entropy(logits, bins.flatten(), reduction="none").view_as(bins), counts)


class FastHead(Head):
    """Names a chunk's FAST tokens one after the other with a small causal transformer (pi0-FAST).

    The fused feature is the first position; then come the tokens; the last token is an end mark.
    """

    num_blocks = 2

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        head, width = config.head, config.head.hidden_dim
        self.tokenizer = FastTokenizer(*self.shape, scale=head.fast_scale)
        self.end = head.fast_vocab_size
        self.features_in = nn.Linear(config.fusion.embed_dim, width)
        self.embedding = nn.Embedding(head.fast_vocab_size + 1, width)
        self.places = nn.Parameter(torch.randn(self.dim + 1, width))
        self.blocks = nn.ModuleList(Block(width, config.fusion.num_heads, mlp_ratio=4) for _ in range(self.num_blocks))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, head.fast_vocab_size + 1)

    def fit(self, actions: Float[Tensor, "n *chunk"]) -> str:
        """Statistics, then the tokenizer."""
        if self.config.normalization != "none":
            self.normalizer.fit(actions)
        chunks = self.normalizer(actions.reshape(-1, *self.shape).to(self.places.device))
        self.tokenizer.fit(chunks.double().cpu().numpy(), self.config.fast_vocab_size)
        return self.fingerprint()

    def fingerprint(self) -> str:
        """That of the statistics and of the tokenizer."""
        statistics = "" if self.config.normalization == "none" else self.normalizer.fingerprint()
        return hashlib.sha256((statistics + self.tokenizer.to_json()).encode()).hexdigest()[:12]

    def check(self, fingerprint: str) -> None:
        """Refuse to train or act without a tokenizer, or with another data set's."""
        if not fingerprint or not self.tokenizer.vocab_size:
            raise InputError(
                "this policy has no action tokenizer; call policy.fit_statistics(actions) with the training actions"
            )
        if self.fingerprint() != fingerprint:
            raise InputError(
                f"the action tokenizer and statistics ({self.fingerprint()}) are not those that the policy was trained "
                f"with ({fingerprint}); its actions would come out wrong"
            )

    def get_extra_state(self) -> Tensor:
        """The tokenizer, so that it lies in the checkpoint: its JSON as bytes."""
        return torch.frombuffer(bytearray(self.tokenizer.to_json().encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Called by `load_state_dict`."""
        self.tokenizer.load_json(bytes(state.cpu().numpy()).decode(errors="replace"))

    def tokens(self, actions: Float[Tensor, "b n"]) -> tuple[Int[Tensor, "b t"], Bool[Tensor, "b t"]]:
        """Ids of normalised chunks, each ended and then padded with the end mark; and which of them count."""
        rows = self.tokenizer.encode(actions.unflatten(1, self.shape).double().cpu().numpy())
        longest = max(len(row) for row in rows) + 1
        ids = torch.full((len(rows), longest), self.end)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
        counts = torch.arange(longest) <= torch.tensor([[len(row)] for row in rows])
        return ids.to(actions.device), counts.to(actions.device)

    def logits(self, features: Float[Tensor, "b d"], ids: Int[Tensor, "b t"]) -> Float[Tensor, "b t1 v"]:
        """For each token and the one after the last, given those before it."""
        x = torch.cat([self.features_in(features)[:, None], self.embedding(ids)], dim=1)
        x = x + self.places[: x.shape[1]]
        causal = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
        for block in self.blocks:
            x = block(x, causal[None, None])
        return self.output(self.norm(x))

    def flat_loss(
        self,
        features: Float[Tensor, "b d"],
        actions: Float[Tensor, "b n"],
        generator: Generator | None,
        counts: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, ""]:
        """Returns the cross-entropy of the tokens and the end mark.

        Tokens describe a chunk as a whole, so its padding cannot be left out; it has been filled with the last action.
        """
        ids, counts = self.tokens(actions)
        return F.cross_entropy(self.logits(features, ids[:, :-1])[counts], ids[counts])

    def sample(self, features: Float[Tensor, "b d"], generator: Generator | None) -> Float[Tensor, "b n"]:
        """Tokens drawn one after the other, until all chunks have ended."""
        ids = torch.empty(len(features), 0, dtype=torch.long, device=features.device)
        ended = torch.zeros(len(features), dtype=torch.bool, device=features.device)
        while ids.shape[1] < self.dim and not ended.all():
            likely = self.logits(features, ids)[:, -1].softmax(dim=-1)
            drawn = torch.multinomial(likely, 1, generator=generator)[:, 0].where(~ended, self.end)
            ended |= drawn == self.end
            ids = torch.cat([ids, drawn[:, None]], dim=1)
        known = self.tokenizer.vocab_size  # training may have found fewer pairs than there is room for
        rows = [[token for token in row if token < known] for row in ids.tolist()]
        return torch.from_numpy(self.tokenizer.decode(rows)).to(features).flatten(1)
