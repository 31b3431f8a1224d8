from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from steps import losses, tensors

from tinyvla.config import PRESETS
from tinyvla.learn.callbacks import OnEpoch
from tinyvla.learn.checkpoint import RunFolder, RunSettings
from tinyvla.learn.train import PlainStep, fit
from tinyvla.model.policy import new_policy
from tinyvla.recipes import DataConfig, TrainConfig
from tinyvla.registry import HEAD_KINDS
from tinyvla.speed.cuda_graph import encode_known, encode_text_alongside, restart, unchanged
from tinyvla.speed.step import make_step
from tinyvla.speed.tuned import PLAIN, StepOptions

RECORDED = StepOptions(graph=True)
WITH_ROWS = StepOptions(graph=True, used_rows=True)


def test_known_sentences_are_encoded_as_any_other(tiny_policy):
    train, language = tensors(64), tiny_policy.language
    known = torch.cat([train.input_ids, train.attention_mask.long()], dim=1).unique(dim=0)
    batch = train.take(slice(0, 20))
    words = (batch.input_ids, batch.attention_mask)
    torch.testing.assert_close(encode_known(language, known, *words), language.sentence(*words))


def test_what_steps_did_can_be_undone(tiny_config):
    policy, settings = new_policy(tiny_config, 0), TrainConfig(batch_size=32)
    for options in (PLAIN, StepOptions(used_rows=True)):
        step = make_step(policy, tensors(64), settings, options)
        step(torch.arange(32))
        before = [p.detach().clone() for p in policy.parameters()]
        moments = [s["exp_avg"].clone() for s in step.optimizer.state.values()]
        with unchanged(policy, step.optimizer):
            step(torch.arange(32, 64))
            assert not all(torch.equal(a, b) for a, b in zip(before, policy.parameters(), strict=True))
        assert all(torch.equal(a, b) for a, b in zip(before, policy.parameters(), strict=True))
        assert all(torch.equal(a, s["exp_avg"]) for a, s in zip(moments, step.optimizer.state.values(), strict=True))


@pytest.mark.parametrize("options", [PLAIN, StepOptions(used_rows=True)])
def test_a_restart_is_as_good_as_a_new_beginning(tiny_config, options):
    train, settings = tensors(64), TrainConfig(batch_size=32)

    def two_losses(step):
        return [step(torch.arange(32)).item() for _ in range(2)]

    used, fresh = new_policy(tiny_config, 1), new_policy(tiny_config, 7)
    step = make_step(used, train, settings, options)
    two_losses(step)
    restart(used, step.optimizer, fresh)
    assert two_losses(step) == two_losses(make_step(fresh, train, settings, options))


@pytest.mark.gpu
def test_an_error_alongside_leaves_no_trace(tiny_config):
    policy = new_policy(tiny_config, 0, "cuda")
    known = torch.zeros(1, 2, dtype=torch.long, device="cuda")
    with pytest.raises(MemoryError), encode_text_alongside(policy, known, torch.cuda.Stream()):
        raise MemoryError
    assert "sentence" not in vars(policy.language)
    assert not policy.vision._forward_pre_hooks


@pytest.mark.gpu
@pytest.mark.parametrize("head", HEAD_KINDS)
@pytest.mark.parametrize("options", [RECORDED, WITH_ROWS], ids=["recorded", "with the rows in use"])
def test_a_recorded_step_gives_the_plain_losses(head, options):
    config = PRESETS["nano"]
    plain = losses(config, PLAIN, "cuda", head=head, partial=True)
    recorded = losses(config, options, "cuda", head=head, partial=True)
    torch.testing.assert_close(recorded, plain, rtol=2e-4, atol=2e-4)


@pytest.mark.gpu
def test_the_step_that_pays_gives_the_plain_losses_up_to_rounding():
    config = PRESETS["nano"]
    assert (losses(config, PLAIN, "cuda") - losses(config, "auto", "cuda")).abs().max() < 0.03


@pytest.mark.gpu
def test_muon_is_recorded_as_well():
    config, settings = PRESETS["nano"], {"optimizer": "muon", "learning_rate": 3e-3}
    plain, recorded = (losses(config, kind, "cuda", **settings) for kind in (PLAIN, WITH_ROWS))
    assert (plain - recorded).abs().max() < 0.03


@pytest.mark.gpu
def test_the_compiled_step_gives_the_plain_losses_up_to_rounding():
    # In a process of its own: here every shape is checked at run time, which the compiler cannot see through.
    code = (
        "from steps import losses; from tinyvla.config import PRESETS; config = PRESETS['nano'];"
        "print((losses(config, 'plain', 'cuda') - losses(config, 'compiled', 'cuda')).abs().max().item())"
    )
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here.parents[1]), str(here), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) < 0.03


@pytest.mark.gpu
def test_a_recording_leaves_the_policy_as_one_step_would():
    train, settings = tensors(300, device="cuda"), TrainConfig(batch_size=32)
    policies = [new_policy(PRESETS["nano"], 0, "cuda") for _ in range(2)]
    steps = [PlainStep(policies[0], train, settings), make_step(policies[1], train, settings, WITH_ROWS)]
    for step in steps:
        step(torch.arange(32, device="cuda"))
    for a, b in zip(*(p.parameters() for p in policies), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    assert "sentence" not in vars(policies[1].language)
    assert "forward" not in vars(policies[1].language.token_embedding)


@pytest.mark.gpu
@pytest.mark.parametrize("options", [RECORDED, WITH_ROWS])
def test_a_recorded_run_resumes(tmp_path, options):
    train, val = tensors(256, device="cuda"), tensors(64, 43, "cuda")
    settings = TrainConfig(epochs=2, batch_size=32)
    unbroken = new_policy(PRESETS["nano"], 0, "cuda")
    fit(unbroken, train, val, settings, make_step(unbroken, train, settings, options))

    class Stop(Exception): ...

    def stop(record):
        raise Stop

    run = RunFolder(tmp_path / "run")
    run.start(RunSettings(PRESETS["nano"], settings, DataConfig(), "auto"), {}, overwrite=False)
    first, resumed = (new_policy(PRESETS["nano"], seed, "cuda") for seed in (0, 99))
    with pytest.raises(Stop):
        fit(first, train, val, settings, make_step(first, train, settings, options), run, [OnEpoch(stop)])
    fit(resumed, train, val, settings, make_step(resumed, train, settings, options), run)
    for a, b in zip(unbroken.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs a second GPU")
def test_recordings_work_on_any_gpu():
    for device in ("cuda:0", "cuda:1"):  # one after the other in one process
        losses(PRESETS["nano"], WITH_ROWS, device)
