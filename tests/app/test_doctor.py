from __future__ import annotations

from tinyvla.app.doctor import run_doctor
from tinyvla.config import PRESETS


def test_doctor_takes_real_steps_and_estimates_every_preset(capsys):
    assert run_doctor("cpu")
    said = capsys.readouterr().out
    assert "20 of `minimal` on cpu" in said
    assert all(preset in said for preset in PRESETS)
    assert said.rstrip().endswith("ready")
