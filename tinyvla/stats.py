"""Small statistics: intervals for shares, and the spread of repeated measurements."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Annotated

from tinyvla.fields import Within, check, checked


@checked
def wilson_interval(
    share: Annotated[float, Within(0, 1)], n: Annotated[int, Within(0, 10**15)], z: float = 1.96
) -> tuple[float, float]:
    """95 % confidence interval of a share seen in `n` trials (Wilson 1927, https://doi.org/10.2307/2276774).

    Unlike share +- 1.96 standard errors, it stays inside [0, 1] and keeps a width at 0 % and 100 %.
    """
    if n == 0:
        return 0.0, 1.0
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def share_with_interval(share: float, n: int) -> str:
    """For example "97.0% [95.7%, 97.9%]"."""
    low, high = wilson_interval(share, n)
    return f"{share:.1%} [{low:.1%}, {high:.1%}]"


@checked
def spread(values: Sequence[int | float]) -> dict[str, float]:
    """Minimum, median, maximum, mean and standard deviation."""
    check(bool(values), "there are no values; a spread needs at least one")
    values = [float(value) for value in values]
    return {
        "min": min(values),
        "median": statistics.median(values),
        "max": max(values),
        "mean": statistics.fmean(values),
        "std": statistics.stdev(values) if len(values) > 1 else 0.0,
    }
