from __future__ import annotations

import numpy as np
import pytest

from tinyvla.stats import share_with_interval, spread, wilson_interval


def test_wilson_interval_of_textbook_values():
    assert wilson_interval(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert wilson_interval(1.0, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert wilson_interval(0.0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson_interval(0.0, 0) == (0.0, 1.0)
    assert share_with_interval(0.5, 100) == "50.0% [40.4%, 59.6%]"


def test_wilson_interval_covers_as_often_as_it_says():
    rng = np.random.RandomState(0)
    hits = rng.binomial(50, 0.9, size=2_000)
    covered = [low <= 0.9 <= high for low, high in (wilson_interval(h / 50, 50) for h in hits)]
    assert 0.93 < np.mean(covered) < 0.985


def test_spread():
    values = spread([3, 1, 2])
    assert values == {"min": 1.0, "median": 2.0, "max": 3.0, "mean": 2.0, "std": 1.0}
    assert spread([5])["std"] == 0.0
