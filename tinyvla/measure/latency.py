"""Latency: how long a policy takes to answer, which on a robot decides how often it may look.

Notable:
- two times: `predict` from a camera's bytes and a sentence to an action, and the bare forward pass on tensors that
  already lie on the device; the difference is what conversion and tokenizing cost;
- the median is what to expect; a robot's schedule must also survive the maximum;
- the first calls, which allocate and choose kernels, are not counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from tinyvla.data.dataset import BlockFind
from tinyvla.deploy.export import Exported
from tinyvla.device import synchronize
from tinyvla.errors import InputError
from tinyvla.model.policy import TinyVLA
from tinyvla.stats import spread

WARMUP = 3
"""Calls before the clock starts."""


@torch.no_grad()
def latency(
    policy: TinyVLA, split: BlockFind, batch: int = 1, repeats: int = 50, exported: Exported | None = None
) -> dict[str, Any]:
    """Milliseconds that a policy takes for a batch, as the spread over the repeats.

    Args:
        policy: in `eval()`, on the device to measure.
        split: scenes to act on, at least `batch`.
        batch: scenes in a call.
        repeats: calls that count.
        exported: also time this program, on the CPU; for ONNX, `run_bytes(export_bytes(policy, ".onnx"), ".onnx")`
            of `tinyvla.deploy.export`.

    Returns:
        "predict", uint8 `(b, 64, 64, 3)` and sentences to actions on the CPU; "forward", from tensors on the device;
        "exported" where there is one; each with min, median, max, mean and std. Beside them "batch" and "repeats".

    Raises:
        InputError: `batch` or `repeats` is below one, or the split is smaller than a batch.
    """
    if batch < 1 or repeats < 1:
        raise InputError(f"batch is {batch} and repeats is {repeats}; both must be at least 1")
    if len(split) < batch:
        raise InputError(f"the split has {len(split)} scenes, too few for a batch of {batch}")
    images = np.ascontiguousarray(split.images[:batch].transpose(0, 2, 3, 1))
    sentences = list(split.instructions[:batch])
    camera = policy.config.observation.cameras[0]
    seen = policy.prepare.split({camera: split.images[:batch]}, sentences, split.actions[:batch], policy.device)
    inputs = seen.take(slice(batch))
    result = {
        "batch": batch,
        "repeats": repeats,
        "predict": _milliseconds(lambda: policy.predict(images, sentences), policy.device, repeats),
        "forward": _milliseconds(lambda: policy(inputs), policy.device, repeats),
    }
    if exported is not None:
        on_cpu = inputs.to("cpu")
        result["exported"] = _milliseconds(lambda: exported(on_cpu), torch.device("cpu"), repeats)
    return result


def _milliseconds(call: Callable[[], Any], device: torch.device, repeats: int) -> dict[str, float]:
    times = []
    for _ in range(WARMUP + repeats):
        synchronize(device)
        started = time.perf_counter()
        call()
        synchronize(device)
        times.append(1e3 * (time.perf_counter() - started))
    return spread(times[WARMUP:])
