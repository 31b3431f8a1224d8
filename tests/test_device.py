from __future__ import annotations

import pytest
import torch

from tinyvla.device import (
    choose_device,
    cpu_name,
    describe_device,
    has_bfloat16_units,
    synchronize,
    take_turns,
)
from tinyvla.errors import InputError


def test_auto_is_cuda_where_there_is_one():
    assert choose_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "tpu:0", "", "cuda:99", "cpu:x"])
def test_devices_that_are_not_there_are_refused(name):
    with pytest.raises(InputError):
        choose_device(name)


def test_a_figure_says_what_it_was_measured_on():
    machine = describe_device(torch.device("cpu"))
    assert machine["device"] == cpu_name()
    assert machine["torch"] == torch.__version__
    assert machine["cpu_threads"] == torch.get_num_threads()


def test_a_cpu_needs_no_waiting_and_no_turns():
    synchronize(torch.device("cpu"))
    take_turns(3)
    assert isinstance(has_bfloat16_units(torch.device("cpu")), bool)


@pytest.mark.parametrize("unit", ["_is_amx_tile_supported", "_is_avx512_bf16_supported", None])
def test_a_cpu_has_bfloat16_units_if_it_has_one_kind_of_them(monkeypatch, unit):
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda has=name == unit: has, raising=False)
    assert has_bfloat16_units(torch.device("cpu")) is (unit is not None)
