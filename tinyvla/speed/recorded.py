"""The fast step: what `train.train_step` does, with the waiting taken out.

Notable:
- a GPU does the arithmetic of a small policy's step in a fraction of the time that Python needs to ask for its
  thousand kernels. A CUDA graph asks once: the step is recorded, then replayed;
- what is recorded must not depend on values: batches are cut out by an index that lies on the device, and instructions
  are encoded from a list of all that occur, where the plain step looks for the distinct ones in each batch;
- matrix products run in bfloat16 where the device has units for it. Weights, norms and the loss stay in float32;
- the plain loop remains the reference: the tests hold the losses of both against each other.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.overrides import TorchFunctionMode

from tinyvla.data.batch import TensorSplit
from tinyvla.config import InputError
from tinyvla.model.language import TinyLanguageModel
from tinyvla.model.layers import Attention
from tinyvla.model.policy import TinyVLA

STEPS = ("plain", "fast", "compiled")
WARMUP_STEPS = 3
"""Steps before a recording, in which libraries choose their kernels and the optimizer makes its state."""


@dataclass(frozen=True)
class StepOptions:
    """How a step is carried out. The arithmetic is the same; only rounding differs."""

    bfloat16: bool = False
    """Matrix products in bfloat16, under autocast."""
    graph: bool = False
    """Record the step as a CUDA graph and replay it."""
    compile: bool = False
    """Fuse the recorded kernels with `torch.compile`; costs a good part of a minute before the first step."""

    @property
    def read_every(self) -> int:
        """Steps between two looks at the loss; each look waits for the device."""
        return 25 if self.graph else 1

    def that_work_with(self, policy: TinyVLA) -> StepOptions:
        """These, less the recording where the work of a head or of a pretrained tower cannot be recorded."""
        is_recordable = all(part.static_shapes for part in (policy.vision, policy.language, policy.head))
        return self if is_recordable else replace(self, graph=False, compile=False)

    @classmethod
    def named(cls, step: str, device: torch.device) -> StepOptions:
        """The options behind one of `STEPS`."""
        return PLAIN if step == "plain" else cls.for_device(device, compile=step == "compiled")

    @classmethod
    def for_device(cls, device: torch.device, compile: bool = False) -> StepOptions:
        """What pays on a device."""
        is_cuda = device.type == "cuda"
        return cls(bfloat16=has_bfloat16_units(device), graph=is_cuda, compile=compile and is_cuda)


PLAIN = StepOptions()
"""Float32, kernel by kernel: the step that the course teaches, on every device."""


def choose_step(device: torch.device, fast: bool, plain: bool, compile: bool) -> str:
    """Which of `STEPS` the user's flags ask for; without any, the fast one where it pays.

    Raises:
        InputError: the flags contradict each other, or the device has no faster step.
    """
    if plain and (fast or compile):
        raise InputError("--plain cannot be combined with --fast or --compile; choose one")
    pays = StepOptions.for_device(device) != PLAIN
    if fast and not pays:
        raise InputError(f"there is no faster step than the plain one on {device}; leave out --fast")
    if compile and device.type != "cuda":
        raise InputError(f"--compile needs a CUDA GPU, and the device is {device}; leave it out")
    return "compiled" if compile else "fast" if pays and not plain else "plain"


class _Float32Attention(TorchFunctionMode):
    """Attention itself in float32: on a CPU its bfloat16 backward takes longer than all the rest of the step."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        with torch.autocast("cpu", enabled=False):
            return func(*(x.float() for x in args), **kwargs)


@contextmanager
def precision(device: torch.device, options: StepOptions) -> Iterator[None]:
    """The forward pass's precision."""
    attention: AbstractContextManager[Any] = nullcontext()
    if options.bfloat16 and device.type == "cpu":
        attention = _Float32Attention()
    with attention, torch.autocast(device.type, torch.bfloat16, enabled=options.bfloat16):
        yield


class GraphedStep:
    """A training step recorded once as a CUDA graph; calling it replays the recording.

    Args:
        policy, optimizer: trained in place. The optimizer must be `capturable`, its learning rates tensors.
        train: where batches are cut from.
        batch_size: of every batch; the shapes in a recording are fixed.
        generator: for heads that draw noise; seed it before each call.
    """

    def __init__(
        self,
        policy: TinyVLA,
        optimizer: torch.optim.Optimizer,
        train: TensorSplit,
        batch_size: int,
        step: Callable[[Tensor], Tensor],
        generator: Generator,
        compile: bool = False,
    ) -> None:
        self.index = torch.zeros(batch_size, dtype=torch.long, device=train.images.device)
        with torch.cuda.device(train.images.device):  # its streams, not those of the first GPU
            self.graph, self.loss = self._record(policy, optimizer, train, step, generator, compile)

    def _record(
        self,
        policy: TinyVLA,
        optimizer: torch.optim.Optimizer,
        train: TensorSplit,
        step: Callable[[Tensor], Tensor],
        generator: Generator,
        compile: bool,
    ) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(generator)
        known = torch.cat([train.input_ids, train.attention_mask.long()], dim=1).unique(dim=0)
        self.reads = (train, known)  # a recording knows addresses only: what lies there must stay alive
        compiled = compiled_towers(policy) if compile else nullcontext()
        with compiled, one_product(policy), words_beside(policy, known, torch.cuda.Stream()):
            warmup = torch.cuda.Stream()
            warmup.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(warmup), unchanged(policy, optimizer):
                for _ in range(WARMUP_STEPS):
                    step(self.index)
            torch.cuda.current_stream().wait_stream(warmup)
            optimizer.zero_grad()
            gc.collect()  # freeing an earlier recording's memory in the midst of this one would spoil it
            with torch.cuda.graph(graph, stream=torch.cuda.Stream()):
                loss = step(self.index)
        return graph, loss

    def __call__(self, index: Tensor) -> Tensor:
        """Train on the scenes at `index`; returns the loss, still on the device."""
        with torch.cuda.device(self.index.device):
            self.index.copy_(index)
            self.graph.replay()
            return self.loss.clone()


@contextmanager
def one_product(policy: TinyVLA) -> Iterator[None]:
    """Let self-attention project in one product instead of three, where its layers are still plain ones."""
    layers = [module for module in policy.modules() if isinstance(module, Attention)]
    plain = [a for a in layers if all(type(linear) is nn.Linear for linear in (a.query, a.key, a.value))]
    for attention in plain:
        attention.in_one_product = True
    try:
        yield
    finally:
        for attention in plain:
            del attention.in_one_product


@contextmanager
def compiled_towers(policy: TinyVLA) -> Iterator[None]:
    """Fuse each tower's kernels. Outside, and for any other batch size, the towers stay as they are."""
    policy.vision.forward = torch.compile(policy.vision.forward)  # type: ignore[method-assign]
    policy.language.mean_state = torch.compile(policy.language.mean_state)  # type: ignore[method-assign]
    try:
        yield
    finally:
        del policy.vision.forward, policy.language.mean_state


@contextmanager
def words_beside(policy: TinyVLA, known: Tensor, stream: torch.cuda.Stream) -> Iterator[None]:
    """Let the language model's kernels run beside the vision tower's, and encode each known instruction once.

    Both towers are small enough that their kernels are ruled by the time it takes to start one; side by side, the
    words cost next to nothing.
    """
    language = policy.language
    started: list[torch.cuda.Event] = []

    def note_start(module: nn.Module, args: Any) -> None:
        started[:] = [torch.cuda.current_stream().record_event()]

    def sentence(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        main = torch.cuda.current_stream()
        stream.wait_event(started[0])  # not for the vision tower, which was asked for before
        with torch.cuda.stream(stream):
            states = TinyLanguageModel.sentence(language, input_ids, attention_mask)
        main.wait_stream(stream)
        return states

    hook = policy.vision.register_forward_pre_hook(note_start)
    language.known = known
    language.sentence = sentence  # type: ignore[method-assign]
    try:
        yield
    finally:  # a policy that kept them would answer with nothing to any other instruction
        hook.remove()
        language.known = None
        del language.sentence


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
    """Undo, in place, what the steps inside did to weights and optimizer state."""
    weights = [p.detach().to("cpu", copy=True) for p in policy.parameters()]  # not on the device: memory counts there
    states = {p: {k: v.to("cpu", copy=True) for k, v in s.items()} for p, s in optimizer.state.items()}
    yield
    with torch.no_grad():
        for parameter, value in zip(policy.parameters(), weights, strict=True):
            parameter.copy_(value)
        for weight, state in optimizer.state.items():
            for name, now in state.items():
                now.copy_(states[weight][name]) if weight in states else now.zero_()
