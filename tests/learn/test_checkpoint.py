from __future__ import annotations

import pytest
import torch

from tinyvla.errors import InputError
from tinyvla.learn.checkpoint import Progress, RunFolder, RunSettings
from tinyvla.learn.optimizer import make_optimizer
from tinyvla.model.policy import new_policy
from tinyvla.recipes import DataConfig, TrainConfig


@pytest.fixture
def settings(tiny_config) -> RunSettings:
    return RunSettings(tiny_config, TrainConfig(epochs=2), DataConfig(num_train=64))


@pytest.fixture
def run(settings, tmp_path) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    run.start(settings, {"torch": "x"}, overwrite=False)
    return run


def test_settings_survive_a_round_trip(run, settings):
    assert run.settings() == settings


def test_a_folder_with_a_run_is_not_overwritten_unasked(run, settings, tiny_policy):
    run.save_checkpoint(tiny_policy, "best")
    before = (run.path / "config.json").read_bytes()
    with pytest.raises(InputError, match="holds a run already; go on with --resume"):
        run.start(settings, {}, overwrite=False)
    assert (run.path / "config.json").read_bytes() == before


def test_a_file_is_no_folder(settings, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        RunFolder(tmp_path / "file").start(settings, {}, overwrite=True)


def test_nothing_to_resume(tmp_path):
    with pytest.raises(InputError, match="holds no run to resume"):
        RunFolder(tmp_path).settings()


def test_state_survives_a_round_trip(run, tiny_config):
    policy = new_policy(tiny_config, 0)
    optimizer = make_optimizer(policy, TrainConfig())
    for parameter in policy.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    run.save_state(policy, optimizer, Progress(step=7, best_loss=0.5, loss_sum=1.25))
    other = new_policy(tiny_config, 1)
    other_optimizer = make_optimizer(other, TrainConfig())
    assert run.load_state(other, other_optimizer) == Progress(7, 0.5, 1.25)
    torch.testing.assert_close(other.state_dict(), policy.state_dict(), rtol=0, atol=0)
    mine, theirs = other_optimizer.state_dict()["state"], optimizer.state_dict()["state"]
    assert mine.keys() == theirs.keys()
    for index in theirs:
        torch.testing.assert_close(mine[index], theirs[index], rtol=0, atol=0)


def test_damaged_state_is_refused(run, tiny_policy):
    (run.path / "resume.safetensors").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="damaged"):
        run.load_state(tiny_policy, make_optimizer(tiny_policy, TrainConfig()))
