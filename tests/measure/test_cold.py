from __future__ import annotations

import torch

from tinyvla.measure import cold
from tinyvla.recipes import Recipe, TrainConfig


def test_a_fresh_process_says_where_its_time_went(monkeypatch):
    result = cold.bench_cold("nano", torch.device("cpu"), runs=1)
    assert set(result) == {"total", "import", "data", "prepare", "train"}
    parts = sum(result[name]["median"] for name in ("import", "data", "prepare", "train"))
    assert 0 < parts <= result["total"]["median"]


def test_parts_are_measured_one_after_the_other(monkeypatch, tiny_config):
    monkeypatch.setitem(cold.RECIPES, "nano", Recipe(2, TrainConfig(batch_size=32)))
    monkeypatch.setattr(cold, "model_config", lambda preset: tiny_config)
    parts = cold.cold_run("nano", torch.device("cpu"), started=cold.time.time() - 5)
    assert 5 <= parts["import"] < 6
    assert parts["data"] > 0
    assert parts["train"] > 0
