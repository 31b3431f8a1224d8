"""Which kind of step: the plain one, the one that pays on this device, or that one with its kernels fused.

    step = make_step(policy, train, config)           # what pays here
    fit(policy, train, val, config, step=step)

Notable:
- all kinds are called in the same way and give the same losses but for rounding; `fit` does not know which it has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tinyvla.data.batch import TensorSplit
from tinyvla.errors import InputError
from tinyvla.fields import checked
from tinyvla.learn.train import PlainStep
from tinyvla.model.policy import TinyVLA
from tinyvla.recipes import TrainConfig
from tinyvla.speed.cuda_graph import RecordedStep
from tinyvla.speed.data_parallel import SharedStep
from tinyvla.speed.tuned import PLAIN, StepOptions, TunedStep

if TYPE_CHECKING:
    from accelerate import Accelerator

KINDS = ("auto", "plain", "compiled")


def step_options(kind: str, device: torch.device) -> StepOptions:
    """Returns how a step of one of `KINDS` is carried out on a device.

    Raises:
        InputError: the kind is unknown, or the device cannot do it.
    """
    if kind not in KINDS:
        raise InputError(f"unknown step {kind!r}; choose from {', '.join(KINDS)}")
    if kind == "compiled" and device.type != "cuda":
        raise InputError(f"the compiled step needs a CUDA GPU, and the device is {device}; leave it to --step auto")
    return PLAIN if kind == "plain" else StepOptions.for_device(device, compile=kind == "compiled")


@checked
def make_step(
    policy: TinyVLA,
    train: TensorSplit,
    config: TrainConfig,
    kind: str | StepOptions = "auto",
    accelerator: Accelerator | None = None,
) -> PlainStep:
    """Returns the step that a policy is to be trained with.

    Args:
        train: where batches are cut from, on the policy's device.
        kind: one of `KINDS`, or the options themselves. A policy that cannot be recorded is not.
        accelerator: of several processes that train together.

    Raises:
        InputError: the kind, the configuration and the policy do not go together.
    """
    options = kind if isinstance(kind, StepOptions) else step_options(kind, train.device)
    options = options.supported_by(policy)
    _check(policy, config, options)
    if accelerator is not None:
        return SharedStep(policy, train, config, accelerator, options)
    if options.graph and not train.is_stored:  # what is recorded cannot read a file
        return RecordedStep(policy, train, config, options)
    is_plain = options == PLAIN and config.accumulate == 1 and not config.recompute
    return PlainStep(policy, train, config) if is_plain else TunedStep(policy, train, config, options)


def _check(policy: TinyVLA, config: TrainConfig, options: StepOptions) -> None:
    if config.accumulate > 1 and policy.config.head.kind == "fast":
        raise InputError(
            "the head `fast` averages its loss over tokens, and parts of a batch have different numbers of them, so "
            "their gradients do not add up to the batch's; leave out --accumulate"
        )
    if config.recompute and options.compile:
        raise InputError(
            "the compiler decides by itself what to compute twice; leave out --recompute or --step compiled"
        )
