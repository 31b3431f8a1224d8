from __future__ import annotations

from types import SimpleNamespace

import pytest

from tinyvla.errors import InputError
from tinyvla.sizes import check_heads, check_image_size, height_and_width, nearest


def test_one_number_stands_for_both_sides():
    assert height_and_width(64) == (64, 64)
    assert height_and_width((96, 128)) == (96, 128)


@pytest.mark.parametrize("size", [0, -1, 64.0, True, "64", (64,), (64, 0), (1, 2, 3), 10**9])
def test_what_is_no_size_is_refused(size):
    with pytest.raises(InputError, match="it must be pixels, from 1 to 8192"):
        check_image_size(SimpleNamespace(image_size=size))


def test_the_nearest_sizes_are_named():
    assert nearest(50, 8) == "48 or 56"
    assert nearest(5, 8) == "8"


def test_heads_share_a_width():
    check_heads(SimpleNamespace(embed_dim=12, num_heads=4))
    with pytest.raises(InputError, match="embed_dim 12 is not divisible by num_heads 5"):
        check_heads(SimpleNamespace(embed_dim=12, num_heads=5))
