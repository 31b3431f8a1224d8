from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tinyvla.errors import InputError
from tinyvla.learn.checkpoint import Progress, RunFolder, RunSettings
from tinyvla.learn.optimizer import make_optimizer
from tinyvla.model.policy import TinyVLA, new_policy
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


def test_a_pipe_in_the_place_of_a_state_does_not_block(run, tiny_config, tiny_policy):
    os.mkfifo(run.path / "resume.safetensors")
    with pytest.raises(InputError, match=r"resume.safetensors is no ordinary file"):
        run.check_state(tiny_config)
    with pytest.raises(InputError, match=r"resume.safetensors is no ordinary file"):
        run.load_state(tiny_policy, make_optimizer(tiny_policy, TrainConfig()))


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("part", ["optimizer.0.exp_avg", "exp_avg", "exp_avg_sq", "step", "momentum"])
def test_a_state_that_lacks_a_part_of_the_optimizer_is_damaged(run, tiny_config, kind, part):
    config = TrainConfig(optimizer=kind)
    policy = new_policy(tiny_config, 0)
    optimizer = make_optimizer(policy, config)
    for parameter in policy.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    run.save_state(policy, optimizer, Progress(step=1))
    other = new_policy(tiny_config, 1)
    assert run.load_state(other, make_optimizer(other, config)).step == 1
    path = run.path / "resume.safetensors"
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    kept = {
        name: v for name, v in tensors.items() if not (name.startswith("optimizer") and f".{name}".endswith(f".{part}"))
    }
    if len(kept) == len(tensors):
        assert (kind, part) == ("adamw", "momentum")
        return
    save_file(kept, path, metadata)
    with pytest.raises(InputError, match=r"resume.safetensors is damaged \(it lacks optimizer\.\d+\."):
        run.load_state(other, make_optimizer(other, config))


def test_numbers_that_are_infinite_in_float32_are_refused(run, tiny_config, tiny_policy, tmp_path):
    policy = new_policy(tiny_config, 0)
    policy.save_pretrained(tmp_path / "policy")
    weights = load_file(tmp_path / "policy/model.safetensors")
    weights["head.output.bias"] = torch.full_like(weights["head.output.bias"], 1e300, dtype=torch.float64)
    save_file(weights, tmp_path / "policy/model.safetensors")
    with pytest.raises(InputError, match=r"is damaged: head.output.bias holds NaN or infinite numbers"):
        TinyVLA.from_pretrained(tmp_path / "policy")
    run.save_state(policy, make_optimizer(policy, TrainConfig()), Progress(step=1))
    path = run.path / "resume.safetensors"
    save_file({f"model.{name}": value for name, value in weights.items()}, path, {"progress": '{"step": 1}'})
    with pytest.raises(InputError, match=r"is damaged .model.head.output.bias is not finite"):
        run.load_state(policy, make_optimizer(policy, TrainConfig()))
