"""A frozen language tower reads each training sentence once, and its answers are looked up from then on.

Notable:
- nothing changes but time: the states of a frozen tower are the same in every step. MiniLM's are most of a small
  policy's work;
- which sentence a row is, is found by a number computed from its ids, so nothing has to wait for the device.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

from tinyvla.model.language import LanguageTower
from tinyvla.model.policy import TinyVLA


def never_learns(policy: TinyVLA) -> bool:
    """Whether no weight of the language tower learns, those of an adapter included."""
    return not any(parameter.requires_grad for parameter in policy.language.parameters())


class KnownSentences:
    """The mean states of all sentences of a split, by their ids.

    Args:
        language: frozen, on its device.
        input_ids, attention_mask: all that will be asked for; a sentence may occur several times.
    """

    def __init__(
        self, language: LanguageTower, input_ids: Int64[Tensor, "n t"], attention_mask: Bool[Tensor, "n t"]
    ) -> None:
        self.language, self.words = language, (input_ids, attention_mask)
        generator = torch.Generator().manual_seed(0)
        width = 2 * input_ids.shape[1]
        self.factors = torch.randint(2**62, (width,), generator=generator).to(input_ids.device)
        self.versions: list[int] = []

    def key(self, input_ids: Int[Tensor, "b t"], attention_mask: Bool[Tensor, "b t"]) -> Int64[Tensor, "b"]:
        """Returns a number for each sentence; int64 wraps around, so two are hardly ever the same."""
        return (torch.cat([input_ids, attention_mask.to(input_ids.dtype)], dim=1) * self.factors).sum(dim=1)

    def refresh(self) -> None:
        """Read the sentences if that is due: the first time, and after other weights were loaded."""
        versions = [parameter._version for parameter in self.language.parameters()]
        if versions != self.versions:
            self.read()
            self.versions = versions

    @torch.no_grad()
    def read(self, batch_size: int = 256) -> None:
        """Let the tower read each different sentence."""
        keys, rows = self.key(*self.words).unique(return_inverse=True)
        first = torch.empty_like(keys).scatter_(0, rows, torch.arange(len(rows), device=rows.device))
        parts = [[tensor[index] for tensor in self.words] for index in first.split(batch_size)]
        with torch.autocast(keys.device.type, enabled=False):  # once, so as exactly as it can
            self.states = torch.cat([self.language.mean_state(*part) for part in parts])
        self.keys = keys

    def sentence(self, input_ids: Int[Tensor, "b t"], attention_mask: Bool[Tensor, "b t"]) -> Float[Tensor, "b d"]:
        """Returns what `language.sentence` does, for sentences of the split."""
        self.refresh()
        return self.states[torch.searchsorted(self.keys, self.key(input_ids, attention_mask))]
