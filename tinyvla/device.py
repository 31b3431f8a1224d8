"""The device that work is done on: choosing it, naming it, waiting for it."""

from __future__ import annotations

import os
import platform
from typing import Any

import torch

from tinyvla.errors import InputError


def choose_device(name: str | torch.device = "auto") -> torch.device:
    """The device of that name; `auto` is CUDA where there is one, else the CPU.

    Raises:
        InputError: the name is unknown or the device is not there.
    """
    name = str(name)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind = name.split(":")[0]
    if kind not in ("cpu", "cuda", "mps"):
        raise InputError(f"unknown device {name!r}; choose from auto, cpu, cuda, mps")
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {name!r} was asked for, but torch sees no CUDA GPU; use --device cpu")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise InputError(f"device {name!r} was asked for, but torch sees no Apple GPU; use --device cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from None


def has_bfloat16_units(device: torch.device) -> bool:
    """Whether matrix products in bfloat16 are faster there than in float32, not merely possible."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":  # torch has no public names for AMX and AVX-512's bfloat16 products yet
        known = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
        return any(getattr(torch.cpu, name, lambda: False)() for name in known)
    return False


def describe_device(device: torch.device) -> dict[str, Any]:
    """Hardware and versions that a figure depends on."""
    import tinyvla

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    return {
        "device": name,
        "cpu_threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "tinyvla": tinyvla.__version__,
    }


def cpu_name() -> str:
    """The processor's name, as well as the system tells it."""
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def take_turns(job: int) -> None:
    """Spread the jobs of a script over all GPUs: from here on, "cuda" means GPU number `job` modulo their count."""
    if torch.cuda.device_count() > 1:
        torch.cuda.set_device(job % torch.cuda.device_count())
