from __future__ import annotations

import pytest
import torch

from tinyvla.course import zoo
from tinyvla.errors import InputError
from tinyvla.recipes import DataConfig


@pytest.fixture
def small(monkeypatch, tmp_path):
    monkeypatch.setenv("TINYVLA_CACHE", str(tmp_path))
    monkeypatch.setattr(zoo, "DataConfig", lambda: DataConfig(num_train=64, num_val=32))
    trainings = []
    real = zoo.fit

    def fit(*args, **kwargs):
        trainings.append(1)
        return real(*args, **kwargs)

    monkeypatch.setattr(zoo, "fit", fit)
    return tmp_path, trainings


def get(**kwargs):
    return zoo.trained_policy(epochs=1, device="cpu", progress_bar=False, **kwargs)


def test_trained_once_then_loaded(small):
    _, trainings = small
    first, second = get(), get()
    assert len(trainings) == 1
    assert not second.training
    torch.testing.assert_close(first.state_dict(), second.state_dict(), rtol=0, atol=0)


def test_other_settings_are_trained_anew(small):
    folder, trainings = small
    get()
    get(seed=1)
    get(fusion="pool-add")
    assert len(trainings) == 3
    assert len([p for p in folder.iterdir() if p.is_dir()]) == 3


def test_a_damaged_cache_is_trained_anew(small):
    folder, trainings = small
    get()
    (next(p for p in folder.iterdir() if p.is_dir()) / "model.safetensors").write_bytes(b"half")
    get()
    assert len(trainings) == 2


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("TINYVLA_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert zoo.cache_folder() == tmp_path / "tinyvla"


def test_results_name_the_command_that_made_them():
    assert "experiments/" in zoo.load_results("learning")["command"]
    with pytest.raises(InputError, match=r"choose from .*fusion"):
        zoo.load_results("wishes")
    with pytest.raises(InputError, match=r"bench_nano_cpu.json lacks 'moon'; measure it .*: tinyvla bench"):
        zoo.load_results("bench_nano_cpu")["moon"]
