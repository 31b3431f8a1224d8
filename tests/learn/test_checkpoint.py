from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tinyvla.errors import InputError
from tinyvla.learn.checkpoint import Progress, RunFolder, RunSettings
from tinyvla.learn.optimizer import make_optimizer
from tinyvla.model.policy import new_policy
from tinyvla.recipes import DataConfig, TrainConfig
from tinyvla.registry import HEAD_KINDS


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


@pytest.mark.parametrize("head", HEAD_KINDS)
def test_the_header_of_a_state_is_compared_with_the_settings(run, settings, tiny_config, head):
    """Each kind of head passes with its own state, and is refused with a policy of another width."""
    config = replace(tiny_config, head=replace(tiny_config.head, kind=head, horizon=1 if head == "directions" else 4))
    policy = new_policy(config, 0)
    policy.fit_statistics(torch.rand(64, config.head.horizon, 2) if head == "fast" else None)
    run.check_state(config)  # nothing was saved yet
    run.save_state(policy, make_optimizer(policy, TrainConfig()), Progress(step=1))
    run.check_state(config)
    wider = replace(config, vision=replace(config.vision, embed_dim=32))
    with pytest.raises(InputError, match=r"resume.safetensors does not fit its config.json: .*\(1, 1, 16\) and not"):
        run.check_state(wider)


def test_a_policy_that_no_memory_holds_is_refused_before_it_is_built(run, tiny_config):
    vision = replace(tiny_config.vision, embed_dim=8_192, num_heads=64, num_layers=256)
    with pytest.raises(InputError, match="GB for its weights alone"):
        run.check_state(replace(tiny_config, vision=vision))
