"""The recorded step: what the plain step does on a GPU, with the waiting taken out.

Notable:
- a GPU does the arithmetic of a small policy's step in a fraction of the time that Python needs to ask for its
  thousand kernels. A CUDA graph asks once: the step is recorded, then replayed;
- what is recorded must not depend on values: batches are cut out by an index that lies on the device, and instructions
  are encoded from a list of all that occur, where the plain step looks for the distinct ones in each batch;
- the plain loop remains the reference: the tests hold the losses of both against each other.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

from tinyvla.data.batch import TensorSplit
from tinyvla.learn import augment
from tinyvla.model.language import LanguageTower
from tinyvla.model.policy import TinyVLA
from tinyvla.recipes import TrainConfig
from tinyvla.speed.patching import all_patched, one_product, patched
from tinyvla.speed.tuned import StepOptions, TunedStep

WARMUP_STEPS = 3
"""Steps before a recording, in which libraries choose their kernels and the optimizer makes its state."""


class RecordedStep(TunedStep):
    """A step that is recorded as a CUDA graph when it is first taken; from then on the recording is replayed.

    A batch of another size than the configuration's, as the last one of an epoch may be, is taken unrecorded. A saved
    state must be loaded before the first step: a recording knows addresses only.

    Args:
        policy, train, config, options: as for `TunedStep`, on a CUDA device.
    """

    read_every = 25

    def __init__(self, policy: TinyVLA, train: TensorSplit, config: TrainConfig, options: StepOptions) -> None:
        super().__init__(policy, train, config, options)
        self.index = torch.zeros(config.batch_size, dtype=torch.long, device=train.device)
        # What lies at the addresses in a recording must stay alive: the split (`self.train`) and these.
        self.sentences = torch.cat([train.input_ids, train.attention_mask.long()], dim=1).unique(dim=0)
        self._recording: tuple[torch.cuda.CUDAGraph, Tensor] | None = None

    def __call__(self, index: Int64[Tensor, "b"]) -> Float[Tensor, ""]:
        """Learn from the scenes at an index; returns their loss before that, still on the device."""
        if len(index) != self.config.batch_size:
            return super().__call__(index)
        with torch.cuda.device(self.index.device):  # its streams, not those of the first GPU
            self._recording = self._recording or self._record()
            graph, loss = self._recording
            self.index.copy_(index)
            graph.replay()
            return loss.clone()

    def _record(self) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """Returns the recording and the place where it leaves the loss; the policy is as before."""
        graph, policy, seed = torch.cuda.CUDAGraph(), self.policy, self.generator.initial_seed()
        graph.register_generator_state(self.generator)
        compiled = compiled_towers(policy) if self.options.compile else nullcontext()
        with compiled, one_product(policy), encode_text_alongside(policy, self.sentences, torch.cuda.Stream()):
            warmup = torch.cuda.Stream()
            warmup.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(warmup), unchanged(policy, self.optimizer):
                for _ in range(WARMUP_STEPS):
                    super().__call__(self.index)
            torch.cuda.current_stream().wait_stream(warmup)
            self.optimizer.zero_grad()
            if self.known is not None:
                self.known.refresh()  # which looks at values, so it must not happen in the recording
            gc.collect()  # freeing an earlier recording's memory in the midst of this one would spoil it
            with torch.cuda.graph(graph, stream=torch.cuda.Stream()):
                loss = super().__call__(self.index)
        self.generator.manual_seed(seed)  # the warm-up drew noise; the first replay must draw what a plain step would
        return graph, loss


@contextmanager
def compiled_towers(policy: TinyVLA) -> Iterator[None]:
    """Fuse each tower's kernels. Outside, and for any other batch size, the towers stay as they are."""
    vision, language = policy.vision, policy.language
    changes = [(vision, "forward"), (language, "mean_state"), (language, "read"), (augment, "moved")]
    with all_patched([(owner, name, torch.compile(getattr(owner, name))) for owner, name in changes]):
        yield


def encode_known(
    language: LanguageTower, known: Int64[Tensor, "k n"], input_ids: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"]
) -> Float[Tensor, "b d"]:
    """Returns what `language.sentence` does, from a list of all sentences that occur.

    Which of them a batch holds depends on its values, and what is recorded must not: all are encoded every time.

    Args:
        known: ids and mask side by side, a row for each sentence.
    """
    rows = torch.cat([input_ids, mask.to(input_ids.dtype)], dim=1)
    ids, known_mask = known.chunk(2, dim=1)
    states = language.mean_state(ids, known_mask.bool())
    is_it = (rows[:, None] == known).all(dim=-1)  # (b, k)
    return is_it.to(states.dtype) @ states


@contextmanager
def encode_text_alongside(policy: TinyVLA, known: Int64[Tensor, "k n"], stream: torch.cuda.Stream) -> Iterator[None]:
    """Let the language model's kernels run beside the vision tower's, and encode each known sentence once.

    Both towers are small enough that their kernels are ruled by the time it takes to start one; side by side, the
    words cost next to nothing. Where more sentences occur than a batch has rows, each row is encoded instead. A policy
    that stayed so would answer with nothing to any other sentence.
    """
    started: list[torch.cuda.Event] = []

    def note_start(module: Any, args: Any) -> None:
        started[:] = [torch.cuda.current_stream().record_event()]

    def sentence(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        main = torch.cuda.current_stream()
        stream.wait_event(started[0])  # not for the vision tower, which was asked for before
        with torch.cuda.stream(stream):
            if len(known) > len(input_ids):
                states = policy.language.mean_state(input_ids, attention_mask)
            else:
                states = encode_known(policy.language, known, input_ids, attention_mask)
        main.wait_stream(stream)
        return states

    hook = policy.vision.register_forward_pre_hook(note_start)
    try:
        with patched(policy.language, "sentence", sentence):
            yield
    finally:
        hook.remove()


@torch.no_grad()
def restart(policy: TinyVLA, optimizer: torch.optim.Optimizer, fresh: TinyVLA) -> None:
    """Set weights to those of `fresh` and the optimizer to its beginning, in place, as recordings need it."""
    for parameter, value in zip(policy.parameters(), fresh.parameters(), strict=True):
        parameter.copy_(value)
    for state in optimizer.state.values():
        for value in state.values():
            value.zero_()


@contextmanager
def unchanged(policy: TinyVLA, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Undo, in place, what the steps inside did to weights and optimizer state. What is frozen is not written to."""
    learned = [p for p in policy.parameters() if p.requires_grad]
    weights = [p.detach().to("cpu", copy=True) for p in learned]  # not on the device: memory counts there
    states = {p: {k: v.to("cpu", copy=True) for k, v in s.items()} for p, s in optimizer.state.items()}
    yield
    with torch.no_grad():
        for parameter, value in zip(learned, weights, strict=True):
            parameter.copy_(value)
        for weight, state in optimizer.state.items():
            for name, now in state.items():
                now.copy_(states[weight][name]) if weight in states else now.zero_()
