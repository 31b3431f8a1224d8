"""An embedding of which a step touches only the rows in use.

Notable:
- BlockFind uses 11 of the vocabulary's 30,522 words. The other rows get no gradient and no weight decay, so AdamW
  leaves them as they are; yet the gradient, its clipping and the optimizer pass over every number of them;
- here the rows in use are a small parameter of their own, which stands in for the embedding while a step runs. The
  weights are the same, and what is saved has the same shape, so a run may be resumed by any kind of step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from tinyvla.model.language import TinyLanguageModel
from tinyvla.model.policy import TinyVLA
from tinyvla.speed.patching import patched


def learned_embedding(policy: TinyVLA) -> nn.Embedding | None:
    """Returns the word embedding if it is the course's own, learns, and carries no adapter."""
    if not isinstance(policy.language, TinyLanguageModel):
        return None
    embedding = policy.language.token_embedding
    return embedding if type(embedding) is nn.Embedding and embedding.weight.requires_grad else None


class UsedRows:
    """The rows of an embedding that a training split uses, and their place in the optimizer.

    Args:
        embedding: on its device; its weight is in the optimizer, in a group without weight decay.
        input_ids: all that will occur. Others are refused by the look-up.
        optimizer: before its first step. From here on it holds the rows in place of the weight.
    """

    def __init__(
        self, embedding: nn.Embedding, input_ids: Int[Tensor, "n t"], optimizer: torch.optim.Optimizer
    ) -> None:
        self.embedding = embedding
        self.used = input_ids.unique()
        self.place = torch.full((embedding.num_embeddings,), -1, device=self.used.device)
        self.place[self.used] = torch.arange(len(self.used), device=self.used.device)
        self.rows = nn.Parameter(embedding.weight.detach()[self.used])
        for group in optimizer.param_groups:
            group["params"] = [self.rows if p is embedding.weight else p for p in group["params"]]
        optimizer.register_state_dict_post_hook(self._for_saving)
        optimizer.register_load_state_dict_pre_hook(self._from_saved)

    def look_up(self, input_ids: Int[Tensor, "*b t"]) -> Float[Tensor, "*b t d"]:
        """Returns what the embedding would."""
        return F.embedding(self.place[input_ids], self.rows)

    @contextmanager
    def instead(self) -> Iterator[None]:
        """Let the rows stand in for the embedding, and write them back into its weight at the end."""
        weight = self.embedding.weight
        with torch.no_grad():
            self.rows.copy_(weight[self.used])
        self.embedding.weight = self.rows
        try:
            with patched(self.embedding, "forward", self.look_up):
                yield
        finally:
            self.embedding.weight = weight
            with torch.no_grad():
                weight.index_copy_(0, self.used, self.rows)

    def _for_saving(self, optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
        """Returns the state with a row for every word, as the plain step's optimizer has it."""

        def whole(value: Tensor) -> Tensor:
            return value.new_zeros(len(self.place), value.shape[1]).index_copy_(0, self.used, value)

        return self._with_state(optimizer, saved, whole)

    def _from_saved(self, optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
        """Returns the state with the rows in use alone."""
        return self._with_state(optimizer, saved, lambda value: value[self.used.to(value.device)])

    def _with_state(
        self, optimizer: torch.optim.Optimizer, saved: dict[str, Any], change: Callable[[Tensor], Tensor]
    ) -> dict[str, Any]:
        """Returns a state dictionary with a function applied to the rows' moments."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        number = next(number for number, p in enumerate(parameters) if p is self.rows)
        if number not in saved["state"]:
            return saved
        moments = {name: change(v) if v.ndim == 2 else v for name, v in saved["state"][number].items()}
        return {**saved, "state": {**saved["state"], number: moments}}
