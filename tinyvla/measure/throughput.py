"""How fast a training step is, how much of the device's peak that is, and what the rest of the time goes to.

Notable:
- model FLOP utilisation (MFU, https://arxiv.org/abs/2204.02311, appendix B) divides the arithmetic that the model needs
  by what the device could have done in the same time; peak is measured, with one large product, on the same device;
- the profile sorts the recorded step's kernels by what they are for. Two streams overlap, so the shares of the kernels'
  time can sum to more than the time in which the device was busy.
"""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from tinyvla.config import ModelConfig
from tinyvla.data.batch import TensorSplit
from tinyvla.device import describe_device, synchronize
from tinyvla.measure.bench import Recipe, Runner
from tinyvla.model.policy import TinyVLA, count_parameters
from tinyvla.recipes import TrainConfig
from tinyvla.speed.tuned import StepOptions

KINDS = {
    "attention": ("sdpa", "flash", "fmha", "attention"),
    "matrix products": ("gemm", "nvjet", "cutlass", "xmma", "splitk"),
    "optimizer and clipping": ("multi_tensor", "adam", "lpnorm"),
    "norms": ("layer_norm", "rms_norm", "gammabeta"),
    "sums": ("reduce", "triton_red", "triton_per"),
    "copies, casts and gathers": ("memcpy", "memset", "cat", "index", "gather", "copy_kernel"),
    "pointwise": ("elementwise", "triton_poi"),
}
"""Parts of kernels' names, in lower case; the first kind that fits counts."""


def step_flops(config: ModelConfig, batch_size: int) -> int:
    """Floating-point operations of one training step: forward, and twice as many backward.

    The language model runs once per distinct instruction, of which BlockFind has six.
    """
    with torch.device("meta"):
        policy = TinyVLA(config)
        vision = config.vision
        images = torch.empty(batch_size, vision.num_channels, *vision.size)
        sentences = torch.zeros(6, 6, dtype=torch.long)
        with FlopCounterMode(display=False) as counter:
            policy.vision(images)
            policy.language(sentences, torch.ones_like(sentences, dtype=torch.bool))
    return 3 * counter.get_total_flops()


def peak_flops(device: torch.device, dtype: torch.dtype = torch.bfloat16, size: int | None = None) -> float:
    """Operations per second of one large matrix product of random numbers, the median of a few."""
    size = size or (8192 if device.type == "cuda" else 2048)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    times = []
    for _ in range(8):
        synchronize(device)
        started = time.perf_counter()
        a @ b
        synchronize(device)
        times.append(time.perf_counter() - started)
    return 2 * size**3 / sorted(times[2:])[len(times[2:]) // 2]


def throughput(
    config: ModelConfig,
    train: TensorSplit,
    kind: str | StepOptions = "auto",
    batch_size: int = 64,
    num_steps: int = 50,
) -> dict[str, Any]:
    """Time, memory and utilisation of a preset's training step."""
    device = train.device
    before = 0
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    recipe = Recipe(num_steps, TrainConfig(batch_size=batch_size))
    runner = Runner(config, train, recipe, kind)
    seconds = min(runner.run(seed) for seed in range(2)) / num_steps
    flops = step_flops(config, batch_size)
    row = {
        "parameters": count_parameters(runner.policy),
        "batch_size": batch_size,
        "seconds_per_step": seconds,
        "scenes_per_second": batch_size / seconds,
        "flops_per_step": flops,
        "flops_per_second": flops / seconds,
    }
    if device.type != "cuda":
        return row
    row["peak_gpu_memory_gb"] = (torch.cuda.max_memory_allocated(device) - before + split_bytes(train)) / 1e9
    return row | {"profile": profile_step(runner)}


def split_bytes(split: TensorSplit) -> int:
    """Memory that a split takes."""
    tensors = [*(images[:] for images in split.images.values()), split.input_ids, split.attention_mask, split.actions]
    tensors += [tensor for tensor in (split.state, split.action_is_pad) if tensor is not None]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def profile_step(runner: Runner, num_steps: int = 5) -> dict[str, Any]:
    """Kernels of one step, their milliseconds by kind, and the share of time in which the device had work."""
    from torch.profiler import ProfilerActivity, profile

    size, device = runner.recipe.train.batch_size, runner.train.device
    index = torch.arange(size, device=device)
    runner.step(index)
    synchronize(device)
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(num_steps):
            runner.step(index)
        synchronize(device)
    kernels = [e for e in profiler.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    by_kind: dict[str, float] = defaultdict(float)
    for kernel in kernels:
        by_kind[kind_of(kernel.name)] += kernel.device_time_total / 1000 / num_steps
    spans = sorted((k.time_range.start, k.time_range.end) for k in kernels)
    busy, end = 0.0, spans[0][0]
    for start, stop in spans:
        busy += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return {
        "kernels": len(kernels) / num_steps,
        "milliseconds": dict(sorted(by_kind.items(), key=lambda item: -item[1])),
        "busy_share": busy / (end - spans[0][0]),
    }


def kind_of(kernel: str) -> str:
    """Which of `KINDS` a kernel belongs to, by its name; "other" if none."""
    name = kernel.lower()
    return next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), "other")


def report(
    configs: dict[str, ModelConfig], train: TensorSplit, batch_size: int, options: StepOptions
) -> dict[str, Any]:
    """`throughput` of several presets, with the device's peak and each one's share of it."""
    peak = peak_flops(train.device, torch.bfloat16 if options.bfloat16 else torch.float32)
    rows = {name: throughput(config, train, options, batch_size) for name, config in configs.items()}
    for row in rows.values():
        row["mfu"] = row["flops_per_second"] / peak
    return {"machine": describe_device(train.device), "peak_flops_per_second": peak, "presets": rows}


def table(result: dict[str, Any]) -> str:
    """What `report` returned, for the terminal."""
    head = f"{'':14}{'M params':>10}{'ms a step':>11}{'scenes/s':>11}{'MFU':>8}{'GPU GB':>9}"
    lines = [f"{result['machine']['device']}, {result['peak_flops_per_second'] / 1e12:.1f} TFLOP/s at best", head]
    for name, row in result["presets"].items():
        memory = f"{row['peak_gpu_memory_gb']:>9.2f}" if "peak_gpu_memory_gb" in row else f"{'-':>9}"
        lines.append(
            f"{name:14}{row['parameters'] / 1e6:>10.1f}{1000 * row['seconds_per_step']:>11.2f}"
            f"{row['scenes_per_second']:>11,.0f}{row['mfu']:>8.1%}{memory}"
        )
    for name, row in result["presets"].items():
        if profile := row.get("profile"):
            kinds = ", ".join(f"{kind} {ms:.2f}" for kind, ms in profile["milliseconds"].items())
            lines.append(f"{name}: {profile['kernels']:.0f} kernels, busy {profile['busy_share']:.0%}; ms: {kinds}")
    return "\n".join(lines)
