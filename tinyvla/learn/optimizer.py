"""The optimizer, AdamW or Muon with weight decay on matrices alone; a learning rate that climbs, holds and falls."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tinyvla.device import has_bfloat16_units
from tinyvla.fields import check, checked
from tinyvla.learn.muon import Muon
from tinyvla.model.pretrained import PretrainedLanguage, PretrainedVision
from tinyvla.recipes import TrainConfig


def learning_rate_at(step: int, total_steps: int, config: TrainConfig) -> float:
    """The learning rate of a step: linear warm-up, constant, linear decay to zero."""
    warmup = min(config.warmup_steps, total_steps // 4)
    decay = config.decay_fraction * total_steps
    climb = (step + 1) / warmup if step < warmup else 1.0
    fall = (total_steps - step) / decay if total_steps - step < decay else 1.0
    return config.learning_rate * min(climb, fall)


@checked
def make_optimizer(policy: nn.Module, config: TrainConfig, capturable: bool = False) -> torch.optim.AdamW:
    """The optimizer of all that is not frozen; it decays matrices and leaves embeddings, biases and norms alone.

    Args:
        policy: on its device already.
        config: names the optimizer and its settings.
        capturable: keep the learning rate on the device, for steps that are recorded.
    """
    embeddings = {id(m.weight) for m in policy.modules() if isinstance(m, nn.Embedding)}
    fetched = pretrained_weights(policy) if config.pretrained_rate < 1 else set()
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = defaultdict(list)
    for parameter in policy.parameters():
        if parameter.requires_grad:
            decays = parameter.ndim == 2 and id(parameter) not in embeddings
            groups[decays, id(parameter) in fetched].append(parameter)
    device = next(policy.parameters()).device
    rate = torch.tensor(config.learning_rate, device=device) if capturable else config.learning_rate
    options: dict[str, Any] = {
        "lr": rate,
        "betas": (config.beta1, config.beta2),
        "weight_decay": config.weight_decay,
        "fused": True,
        "capturable": capturable,
    }
    others: list[dict[str, Any]] = [{"params": groups[False, False], "weight_decay": 0.0}]
    for decays in (True, False):
        if found := groups[decays, True]:
            slow = torch.tensor(config.learning_rate, device=device) if capturable else config.learning_rate
            decay = config.weight_decay if decays else 0.0
            others.append({"params": found, "weight_decay": decay, "lr": slow, "share": config.pretrained_rate})
    if config.optimizer == "muon":
        dtype = torch.bfloat16 if has_bfloat16_units(device) else torch.float32
        how: dict[str, Any] = {"momentum": config.momentum, "iterations": config.newton_schulz, "dtype": dtype}
        return Muon(groups[True, False], others, **how, **options)
    return torch.optim.AdamW([{"params": groups[True, False]}, *others], **options)


def pretrained_weights(policy: nn.Module) -> set[int]:
    """Returns the ids of the weights in towers that came from elsewhere."""
    towers = (m for m in policy.modules() if isinstance(m, PretrainedVision | PretrainedLanguage))
    return {id(parameter) for tower in towers for parameter in tower.parameters()}


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """For all weights, or that share of it which their group has; in place where the rate lies on a device."""
    for group in optimizer.param_groups:
        own = rate * group.get("share", 1.0)
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(own)
        else:
            group["lr"] = own


def saved_state(
    tensors: Mapping[str, Tensor], policy: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[int, dict[str, Tensor]]:
    """Returns an optimizer's tensors by the number of their weight: its steps, and moments of the weight's shape.

    Args:
        tensors: with names such as `optimizer.0.exp_avg`; others are left out.
        policy: whose weights they shall fit.
        optimizer: whose state they shall be.

    Raises:
        InputError: a tensor fits no weight, or a weight lacks one of its tensors.
    """
    owned = [(id(weight), group) for group in optimizer.param_groups for weight in group["params"]]
    shapes = {id(weight): weight.shape for weight in policy.parameters()}
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if found := re.fullmatch(r"optimizer\.(\d{1,9})\.(\w+)", name):
            index = int(found[1])
            check(index < len(owned), f"{name} fits no weight")
            # What stands in for a weight, such as the rows in use of an embedding, is saved as the weight would be.
            fitting = [shapes[key]] if (key := owned[index][0]) in shapes else shapes.values()
            fits = value.numel() == 1 if found[2] == "step" else value.shape in fitting
            check(fits, f"{name} fits no weight")
            # Step counts live on the CPU, except where a fused optimizer wants them beside the weights.
            state.setdefault(index, {})[found[2]] = value
    for index, found_there in state.items():
        moments = ("momentum",) if owned[index][1].get("muon") else ("exp_avg", "exp_avg_sq")
        for part in ("step", *moments):
            check(part in found_there, f"it lacks optimizer.{index}.{part}")
    return state
