from __future__ import annotations

import pytest
import torch

from tinyvla.errors import InputError
from tinyvla.model import normalize
from tinyvla.model.normalize import Normalizer

ACTIONS = torch.randn(500, 4, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.02, 3.0, 400.0]) + 5


@pytest.mark.parametrize("kind", ["mean-std", "quantiles"])
def test_there_and_back_is_exact_to_the_last_bit_of_float32(kind):
    normalizer = Normalizer(kind, 3)
    normalizer.fit(ACTIONS)
    back = normalizer.inverse(normalizer(ACTIONS.double()))
    assert torch.equal(back.float(), ACTIONS)
    torch.testing.assert_close(normalizer.inverse(normalizer(ACTIONS)), ACTIONS, rtol=1e-5, atol=1e-5)


def test_mean_and_standard_deviation():
    normalizer = Normalizer("mean-std", 3)
    normalizer.fit(ACTIONS)
    normalised = normalizer(ACTIONS).flatten(0, 1)
    torch.testing.assert_close(normalised.mean(dim=0), torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(normalised.std(dim=0, correction=0), torch.ones(3), atol=1e-3, rtol=0)


def test_quantiles_bring_98_percent_into_bounds_whatever_the_outliers():
    normalizer = Normalizer("quantiles", 3)
    wild = ACTIONS.clone()
    wild[0, 0] = 1e6
    normalizer.fit(wild)
    inside = (normalizer(wild).abs() <= 1).double().mean(dim=(0, 1))
    assert (inside - 0.98).abs().max() < 0.005


def test_more_numbers_than_torch_takes(monkeypatch):
    few, many = Normalizer("quantiles", 3), Normalizer("quantiles", 3)
    few.fit(ACTIONS)
    monkeypatch.setattr(normalize, "MOST_FOR_TORCH", 10)
    many.fit(ACTIONS)
    torch.testing.assert_close(many.offset, few.offset)
    torch.testing.assert_close(many.scale, few.scale)
    with pytest.raises(RuntimeError, match="too large"):
        torch.zeros(2**24 + 1).quantile(0.5)


def test_a_dimension_that_does_not_move_is_not_stretched():
    normalizer = Normalizer("quantiles", 3)
    still = ACTIONS.clone()
    still[..., 1] = 7.0
    normalizer.fit(still)
    assert (normalizer(still)[..., 1] == 0).all()
    assert (normalizer.inverse(normalizer(still))[..., 1] == 7).all()


def test_none_leaves_actions_alone():
    normalizer = Normalizer("none", 3)
    assert torch.equal(normalizer(ACTIONS), ACTIONS)
    assert normalizer.state_dict() == {}
    with pytest.raises(InputError, match="does not normalise"):
        normalizer.fit(ACTIONS)


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (torch.randn(10, 7), "7 dimensions, the policy has 3"),
        (torch.full((10, 3), torch.nan), "hold nan in frame 0, dimension 0"),
        (torch.zeros(0, 3), "no actions"),
    ],
)
def test_useless_statistics_are_refused(actions, message):
    with pytest.raises(InputError, match=message):
        Normalizer("quantiles", 3).fit(actions)
