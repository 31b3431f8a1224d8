"""A recorded step for policies whose language tower is a pretrained encoder, which `make_step` does not record.

Notable:
- a recording must not depend on values. An encoder of `transformers` looks at its mask to see whether it may leave it
  out; given the whole table of who sees whom, it does not look;
- the states of a frozen tower are looked up.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

from torch import Tensor

from tinyvla.data.batch import TensorSplit
from tinyvla.learn.train import PlainStep
from tinyvla.model.policy import TinyVLA
from tinyvla.model.pretrained import PretrainedLanguage
from tinyvla.recipes import TrainConfig
from tinyvla.speed.cuda_graph import RecordedStep
from tinyvla.speed.known_sentences import KnownSentences, never_learns
from tinyvla.speed.step import make_step
from tinyvla.speed.tuned import StepOptions


def recorded_step(policy: TinyVLA, split: TensorSplit, config: TrainConfig) -> PlainStep:
    """Returns a step that is recorded on a GPU; elsewhere the fastest that there is."""
    options = StepOptions.for_device(policy.device)
    if not options.graph:
        return make_step(policy, split, config, options)
    if isinstance(policy.language, PretrainedLanguage):
        read_without_looking(policy.language)
    step = RecordedStep(policy, split, config, options)
    if never_learns(policy):
        step.known = KnownSentences(policy.language, split.input_ids, split.attention_mask)
    return step


def read_without_looking(language: PretrainedLanguage) -> None:
    """Let an encoder be given the whole table of who sees whom, instead of a row of real tokens."""

    def forward(tower: Any, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        length = input_ids.shape[1]
        allowed = attention_mask[:, None, None, :].expand(-1, 1, length, length)
        return tower.read(tower.embed(input_ids), allowed)

    language.forward = MethodType(forward, language)  # type: ignore[method-assign]
