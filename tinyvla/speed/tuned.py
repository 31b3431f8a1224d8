"""The plain step's arithmetic, carried out otherwise: in bfloat16, on the rows in use, in parts, computed twice.

Notable:
- `StepOptions` says how; only rounding differs, and the tests hold the losses of both kinds of step against each other;
- the policy is changed for the time of a step and then put back (`tinyvla.speed.patching`).
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from tinyvla.data.batch import TensorSplit
from tinyvla.device import has_bfloat16_units
from tinyvla.learn.optimizer import make_optimizer
from tinyvla.learn.train import PlainStep
from tinyvla.model.heads.tokens import FastHead
from tinyvla.model.language import TinyLanguageModel
from tinyvla.model.policy import TinyVLA
from tinyvla.model.vision import TinyViT
from tinyvla.recipes import TrainConfig
from tinyvla.speed.embedding_rows import UsedRows, learned_embedding
from tinyvla.speed.known_sentences import KnownSentences, never_learns
from tinyvla.speed.memory import backward_in_parts, recomputed
from tinyvla.speed.patching import one_product, patched


@dataclass(frozen=True)
class StepOptions:
    """How a step is carried out. The arithmetic is the same; only rounding differs."""

    bfloat16: bool = False
    """Matrix products in bfloat16, under autocast."""
    one_product: bool = False
    """Project self-attention's queries, keys and values together. A recorded step always does."""
    used_rows: bool = False
    """Touch only the rows of the word embedding that the training split uses."""
    known_sentences: bool = False
    """Let a frozen language tower read each sentence of the training split once."""
    graph: bool = False
    """Record the step as a CUDA graph and replay it."""
    compile: bool = False
    """Fuse the recorded kernels with `torch.compile`; costs a good part of a minute before the first step."""

    @classmethod
    def for_device(cls, device: torch.device, compile: bool = False) -> StepOptions:
        """Returns what pays on a device."""
        is_cuda, rounds = device.type == "cuda", has_bfloat16_units(device)
        fused = compile and is_cuda
        return cls(rounds, rounds, used_rows=True, known_sentences=True, graph=is_cuda, compile=fused)

    def supported_by(self, policy: TinyVLA) -> StepOptions:
        """Returns these, less the recording of a policy that cannot be recorded."""
        return self if can_be_recorded(policy) else replace(self, graph=False, compile=False)

    def __str__(self) -> str:
        how = {"compile": "compiled", "graph": "recorded", "bfloat16": "bfloat16", "used_rows": "words in use"}
        return ", ".join(words for name, words in how.items() if getattr(self, name)) or "plain"


PLAIN = StepOptions()
"""Float32, kernel by kernel: the arithmetic of `PlainStep`."""


def can_be_recorded(policy: TinyVLA) -> bool:
    """Whether the work of a step has the same shapes whatever the batch holds, as a recording needs it.

    The head `fast` names actions with few tokens or many; what a pretrained tower does inside is not known.
    """
    towers_are_ours = isinstance(policy.vision, TinyViT) and isinstance(policy.language, TinyLanguageModel)
    return towers_are_ours and not isinstance(policy.head, FastHead)


class TunedStep(PlainStep):
    """A step of gradient descent as its options say.

    Args:
        policy, train, config: as for `PlainStep`; `config.accumulate` and `config.recompute` are followed, too.
        options: how it is carried out.
    """

    def __init__(self, policy: TinyVLA, train: TensorSplit, config: TrainConfig, options: StepOptions = PLAIN) -> None:
        super().__init__(policy, train, config, make_optimizer(policy, config, capturable=options.graph))
        self.options = options
        self.loss_of: nn.Module | None = None  # stands in for `policy.loss` where several processes train together
        embedding = learned_embedding(policy) if options.used_rows else None
        frozen = options.known_sentences and not options.graph and never_learns(policy)
        self.known = KnownSentences(policy.language, train.input_ids, train.attention_mask) if frozen else None
        self.rows = None if embedding is None else UsedRows(embedding, train.input_ids, self.optimizer)

    def __call__(self, index: Int64[Tensor, "b"]) -> Float[Tensor, ""]:
        """Learn from the scenes at an index; returns their loss before that."""
        with ExitStack() as changed:
            if self.rows is not None:
                changed.enter_context(self.rows.instead())
            if self.known is not None:
                changed.enter_context(patched(self.policy.language, "sentence", self.known.sentence))
            if self.options.one_product:
                changed.enter_context(one_product(self.policy))
            if self.config.recompute:
                changed.enter_context(recomputed(self.policy, self.options.bfloat16))
            return self._step(index)

    def _step(self, index: Int64[Tensor, "b"]) -> Float[Tensor, ""]:
        """What the plain step does."""
        self.optimizer.zero_grad()
        loss = backward_in_parts(
            self.loss_of or self.policy.loss,
            self.augment(self.train.take(index), self.generator),
            self.config.accumulate,
            self.generator,
            self.options.bfloat16,
        )
        nn.utils.clip_grad_norm_(self.policy.parameters(), self.config.grad_clip)
        self.optimizer.step()
        return loss
