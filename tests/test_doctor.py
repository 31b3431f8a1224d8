from __future__ import annotations

from tinyvla.config import PRESETS
from tinyvla.doctor import run_doctor, step_flops


def test_doctor_takes_real_steps_and_estimates_every_preset(capsys):
    assert run_doctor("cpu")
    said = capsys.readouterr().out
    assert "20 of `minimal` on cpu" in said
    assert all(preset in said for preset in PRESETS)
    assert said.rstrip().endswith("ready")


def test_flops_grow_with_size_and_batch():
    flops = [step_flops(config, 64) for config in PRESETS.values()]
    assert flops == sorted(flops)
    # 6 operations per weight and token: 1.8 M weights, 64 x 65 tokens; attention adds a little.
    assert 1.0 < flops[1] / (6 * 1.78e6 * 64 * 65) < 1.2
