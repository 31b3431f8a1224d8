"""Statistics of a data set's features, as `meta/stats.json` has them: exact, over all frames.

Notable:
- those of images are made from how often each of the 256 values occurs, so they need no image in memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, Num, UInt8

QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)

Histogram = Int64[np.ndarray, "3 256"]
Statistics = dict[str, list[Any]]


def histogram_of(frames: UInt8[np.ndarray, "t h w 3"]) -> Histogram:
    """Returns how often each value occurs in each channel."""
    return np.stack([np.bincount(frames[..., channel].ravel(), minlength=256) for channel in range(3)])


def feature_statistics(values: Num[np.ndarray, "n *shape"] | Bool[np.ndarray, "n"]) -> Statistics:
    """Returns minimum, maximum, mean, std and quantiles over the frames, as `stats.json` has them."""
    wide = values.reshape(len(values), -1)
    wide = wide.astype(np.float64) if wide.dtype == bool else wide
    found = {name: getattr(wide, name)(axis=0) for name in ("min", "max", "mean", "std")}
    found |= {_quantile_name(q): np.quantile(wide, q, axis=0) for q in QUANTILES}
    return {**{name: value.tolist() for name, value in found.items()}, "count": [len(values)]}


def image_statistics(histogram: Histogram, count: int) -> Statistics:
    """Returns the same for images in [0, 1], over frames and pixels, of shape `(3, 1, 1)`.

    Args:
        histogram: how often each value from 0 to 255 occurs in each channel.
        count: number of frames.
    """
    values, total = np.arange(256) / 255, histogram.sum(axis=1)
    there = histogram > 0
    mean = histogram @ values / total
    found = {"min": values[there.argmax(axis=1)], "max": values[255 - there[:, ::-1].argmax(axis=1)], "mean": mean}
    found["std"] = np.sqrt(np.maximum(histogram @ values**2 / total - mean**2, 0))
    found |= {_quantile_name(q): _quantiles(histogram, q) for q in QUANTILES}
    return {**{name: value.reshape(3, 1, 1).tolist() for name, value in found.items()}, "count": [count]}


def _quantile_name(quantile: float) -> str:
    return f"q{round(100 * quantile):02d}"


def _quantiles(histogram: Histogram, quantile: float) -> np.ndarray:
    """Of each channel, as `np.quantile` has them: between two neighbours in a straight line."""
    upto = histogram.cumsum(axis=1)
    place = quantile * (upto[:, -1] - 1)
    low, high = (np.array([np.searchsorted(row, k, "right") for row, k in zip(upto, at, strict=True)])
                 for at in (np.floor(place), np.ceil(place)))  # fmt: skip
    return (low + (high - low) * (place - np.floor(place))) / 255
