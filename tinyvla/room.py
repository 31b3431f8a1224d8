"""Room in the memory: whether something fits, asked before it is made, and an array for much of it at once."""

from __future__ import annotations

import math
import mmap
import os

import numpy as np
from jaxtyping import UInt8

from tinyvla.fields import check


def size_of(count: int | float) -> str:
    """A number of bytes in a unit that fits it: 3.2 GB, 40 KB."""
    power = int(min(math.log10(max(count, 1)), 9)) // 3
    return f"{count / 1000**power:,.{1 if power else 0}f} {('bytes', 'KB', 'MB', 'GB')[power]}"


def check_room(needed: int, what: str) -> None:
    """Refuse what this machine's memory cannot hold, where the system says how much there is.

    Args:
        needed: bytes.
        what: needs them, for the message.

    Raises:
        InputError: they are more than all of it.
    """
    there = memory()
    check(needed <= there, f"{what} needs {size_of(needed)} for its weights alone; there are {size_of(there)}")


def check_room_for(count: int, each: int, what: str) -> None:
    """Refuse more of something than there is memory for, where the system says how much is free.

    Args:
        count: how many are asked for.
        each: bytes that one of them needs at least.
        what: they are, for the message.

    Raises:
        InputError: they do not fit; the message says how many would.
    """
    there, needed = memory(free=True), count * each
    check(
        needed <= there,
        f"{count:,} {what} at once need about {size_of(needed)} of memory; {size_of(there)} are free, enough "
        f"for {there // each:,.0f} of them",
    )


def memory(free: bool = False) -> float:
    """Returns the bytes of this machine's memory, or what is free of them; infinity where the system does not say."""
    try:
        if free:  # Linux alone says it
            with open("/proc/meminfo", encoding="ascii") as file:
                numbers = dict(line.split(":", 1) for line in file)
            return 1024.0 * sum(int(numbers[name].split()[0]) for name in ("MemAvailable", "SwapFree"))
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, KeyError, ValueError, OSError):
        return float("inf")


def room_for_bytes(shape: tuple[int, ...]) -> UInt8[np.ndarray, "..."]:
    """Returns an array of zeros whose memory the system gives at once, where it can.

    Otherwise it gives a page of 4,096 bytes whenever one is written to for the first time, which can take as long as
    decoding a picture into it.
    """
    at_once = getattr(mmap, "MAP_POPULATE", 0)  # Linux
    if not (at_once and math.prod(shape)):
        return np.zeros(shape, np.uint8)
    memory = mmap.mmap(-1, math.prod(shape), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | at_once)
    return np.frombuffer(memory, np.uint8).reshape(shape)
