from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tinyvla.data.batch import TensorSplit
from tinyvla.config import HEAD_KINDS, PRESETS, HeadConfig, InputError, TrainConfig
from tinyvla.data.blockfind import BlockFind
from tinyvla.speed.recorded import (
    PLAIN,
    StepOptions,
    choose_step,
    compiled_towers,
    has_bfloat16_units,
    one_product,
    restart,
    unchanged,
    words_beside,
)
from tinyvla.learn.train import fit, make_optimizer, make_step, new_policy, set_learning_rate

CPU = torch.device("cpu")


def losses(config, options, device="cpu", steps=20, head=None, train=None, partial=False):
    """The losses of a few steps from the same beginning."""
    settings = TrainConfig(learning_rate=1e-3, batch_size=32)
    if head:
        config = dataclasses.replace(config, head=dataclasses.replace(config.head, kind=head))
    train = train or TensorSplit.from_blockfind(BlockFind(300, 42), device)
    policy = new_policy(config, 0, device)
    if head == "fast":
        policy.fit_statistics(train.actions)
    options = options.that_work_with(policy)
    optimizer = make_optimizer(policy, settings, capturable=options.graph)
    generator = torch.Generator(device)
    step = make_step(policy, optimizer, train, settings, generator, options)
    seen = []
    for number in range(steps):
        set_learning_rate(optimizer, 1e-3 * (number + 1) / steps)
        generator.manual_seed(number)
        index = torch.arange(number, number + (20 if partial and number % 3 == 2 else 32), device=device)
        seen.append(step(index).item())
    return torch.tensor(seen)


def test_plain_is_the_default_and_float32():
    assert StepOptions() == PLAIN
    assert StepOptions.named("plain", CPU) == PLAIN
    assert not any(dataclasses.asdict(PLAIN).values())


def test_bfloat16_on_the_cpu_gives_the_same_losses_up_to_rounding():
    config = PRESETS["nano"]
    plain, rounded = losses(config, PLAIN, steps=8), losses(config, StepOptions(bfloat16=True), steps=8)
    assert (plain - rounded).abs().max() < 0.02
    assert not torch.equal(plain, rounded)


@pytest.mark.parametrize("head", [kind for kind in HEAD_KINDS if kind != "fast"])
def test_every_head_has_about_the_same_loss_in_bfloat16(tiny_config, head):
    plain = losses(tiny_config, PLAIN, steps=3, head=head)
    rounded = losses(tiny_config, StepOptions(bfloat16=True), steps=3, head=head)
    torch.testing.assert_close(rounded, plain, rtol=0.02, atol=0.02)


def test_one_product_gives_the_same_and_passes_adapters_by(tiny_config):
    from conftest import awakened  # not above: a subprocess imports this file without conftest's checks

    policy = awakened(new_policy(tiny_config, 0))
    batch = TensorSplit.from_blockfind(BlockFind(8, 1)).take(slice(0, 8))
    called = []
    for name, module in policy.named_modules():
        if name.endswith(".query"):
            module.register_forward_hook(lambda module, inputs, output, name=name: called.append(name))
    adapted = policy.vision.blocks[0].attention
    adapted.key = torch.nn.Sequential(adapted.key)  # no plain layer any more, as with LoRA
    plain = policy(batch.images, batch.input_ids, batch.attention_mask)
    assert len(called) == 3  # each tower's and the fusion's
    called.clear()
    with one_product(policy):
        torch.testing.assert_close(policy(batch.images, batch.input_ids, batch.attention_mask), plain)
    assert sorted(called) == ["fusion.attention.query", "vision.blocks.0.attention.query"]
    assert not adapted.in_one_product


def raise_inside(context):
    with context:
        raise MemoryError


def test_an_error_while_recording_leaves_no_trace(tiny_config):
    policy = new_policy(tiny_config, 0)
    state = {name: dict(vars(module)) for name, module in policy.named_modules()}
    for context in (one_product(policy), compiled_towers(policy)):
        with pytest.raises(MemoryError):
            raise_inside(context)
    assert {name: dict(vars(module)) for name, module in policy.named_modules()} == state


@pytest.mark.gpu
def test_an_error_beside_leaves_no_instructions_behind(tiny_config):
    policy = new_policy(tiny_config, 0, "cuda")
    with pytest.raises(MemoryError):
        raise_inside(words_beside(policy, torch.zeros(1, 2, device="cuda"), torch.cuda.Stream()))
    assert policy.language.known is None
    assert "sentence" not in vars(policy.language)
    assert not policy.vision._forward_pre_hooks


def test_labels_are_not_rounded(tiny_config):
    config = dataclasses.replace(tiny_config, head=HeadConfig(hidden_dim=16, kind="directions"))
    head, actions = new_policy(config, 0).head, torch.from_numpy(BlockFind(200, 1).actions)
    plain = head.classes(actions)
    assert len(plain.unique()) == 8
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(head.classes(actions), plain)


def test_bfloat16_leaves_weights_and_gradients_in_float32(tiny_config):
    train = TensorSplit.from_blockfind(BlockFind(32, 42))
    policy = new_policy(tiny_config, 0)
    optimizer = make_optimizer(policy, TrainConfig())
    step = make_step(policy, optimizer, train, TrainConfig(), torch.Generator(), StepOptions(bfloat16=True))
    step(torch.arange(32))
    assert {p.dtype for p in policy.parameters()} == {p.grad.dtype for p in policy.parameters()} == {torch.float32}


def test_fit_takes_the_fast_step_with_the_same_result_up_to_rounding(tiny_config):
    splits = [TensorSplit.from_blockfind(BlockFind(n, s)) for n, s in ((256, 42), (64, 43))]
    settings = TrainConfig(epochs=2, batch_size=32, learning_rate=1e-3)
    results = [
        fit(new_policy(tiny_config, 0), *splits, settings, progress_bar=False, options=options)[-1]
        for options in (PLAIN, StepOptions(bfloat16=True))
    ]
    assert results[0]["train_loss"] == pytest.approx(results[1]["train_loss"], abs=0.02)


def test_what_steps_did_can_be_undone(tiny_config):
    train = TensorSplit.from_blockfind(BlockFind(64, 42))
    policy, settings = new_policy(tiny_config, 0), TrainConfig(batch_size=32)
    optimizer = make_optimizer(policy, settings)
    step = make_step(policy, optimizer, train, settings, torch.Generator())
    step(torch.arange(32))
    before = [p.detach().clone() for p in policy.parameters()]
    moments = [s["exp_avg"].clone() for s in optimizer.state.values()]
    with unchanged(policy, optimizer):
        step(torch.arange(32, 64))
        assert not all(torch.equal(a, b) for a, b in zip(before, policy.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before, policy.parameters(), strict=True))
    assert all(torch.equal(a, s["exp_avg"]) for a, s in zip(moments, optimizer.state.values(), strict=True))


def test_a_restart_is_as_good_as_a_new_beginning(tiny_config):
    train = TensorSplit.from_blockfind(BlockFind(64, 42))
    settings = TrainConfig(batch_size=32)

    def two_losses(policy, optimizer):
        step = make_step(policy, optimizer, train, settings, torch.Generator())
        return [step(torch.arange(32)).item() for _ in range(2)]

    used, fresh = new_policy(tiny_config, 1), new_policy(tiny_config, 7)
    optimizer = make_optimizer(used, settings)
    two_losses(used, optimizer)
    restart(used, optimizer, fresh)
    assert two_losses(used, optimizer) == two_losses(fresh, make_optimizer(fresh, settings))


def test_flags_choose_the_step():
    pays = has_bfloat16_units(CPU)
    assert choose_step(CPU, fast=False, plain=True, compile=False) == "plain"
    assert choose_step(CPU, fast=False, plain=False, compile=False) == ("fast" if pays else "plain")
    with pytest.raises(InputError, match="cannot be combined"):
        choose_step(CPU, fast=True, plain=True, compile=False)
    with pytest.raises(InputError, match="CUDA"):
        choose_step(CPU, fast=False, plain=False, compile=True)


def test_where_nothing_is_faster_fast_is_refused(monkeypatch):
    monkeypatch.setattr("tinyvla.speed.recorded.has_bfloat16_units", lambda device: False)
    assert choose_step(CPU, fast=False, plain=False, compile=False) == "plain"
    with pytest.raises(InputError, match="no faster step"):
        choose_step(CPU, fast=True, plain=False, compile=False)


def test_a_head_that_cannot_be_recorded_is_not(tiny_config):
    wanted = StepOptions(bfloat16=True, graph=True, compile=True)
    for kind in HEAD_KINDS:
        policy = new_policy(dataclasses.replace(tiny_config, head=HeadConfig(hidden_dim=16, kind=kind)), 0)
        assert wanted.that_work_with(policy).graph == (kind != "fast")


@pytest.mark.gpu
@pytest.mark.parametrize("head", HEAD_KINDS)
def test_a_recorded_step_gives_the_plain_losses(head):
    config = PRESETS["nano"]
    plain = losses(config, PLAIN, "cuda", head=head, partial=True)
    recorded = losses(config, StepOptions(graph=True), "cuda", head=head, partial=True)
    torch.testing.assert_close(recorded, plain, rtol=2e-4, atol=2e-4)


@pytest.mark.gpu
def test_the_fast_step_gives_the_plain_losses_up_to_rounding():
    config = PRESETS["nano"]
    fast = StepOptions.for_device(torch.device("cuda"))
    assert (losses(config, PLAIN, "cuda") - losses(config, fast, "cuda")).abs().max() < 0.03


@pytest.mark.gpu
def test_the_compiled_step_gives_the_plain_losses_up_to_rounding():
    # In a process of its own: here every shape is checked at run time, which the compiler cannot see through.
    code = (
        "import torch; from test_speed import *; config = PRESETS['nano'];"
        "compiled = StepOptions.for_device(torch.device('cuda'), compile=True);"
        "print((losses(config, PLAIN, 'cuda') - losses(config, compiled, 'cuda')).abs().max().item())"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) < 0.03


@pytest.mark.gpu
def test_a_recording_leaves_the_policy_as_it_was():
    train = TensorSplit.from_blockfind(BlockFind(300, 42), "cuda")
    policy, settings = new_policy(PRESETS["nano"], 0, "cuda"), TrainConfig(batch_size=32)
    before = [p.detach().clone() for p in policy.parameters()]
    optimizer = make_optimizer(policy, settings, capturable=True)
    make_step(policy, optimizer, train, settings, torch.Generator("cuda"), StepOptions(graph=True))
    assert all(torch.equal(a, b) for a, b in zip(before, policy.parameters(), strict=True))
    assert policy.language.known is None
    assert "sentence" not in vars(policy.language)


@pytest.mark.gpu
def test_a_recorded_run_resumes(tmp_path):
    from tinyvla.learn.checkpoint import RunFolder, RunSettings
    from tinyvla.config import DataConfig

    splits = [TensorSplit.from_blockfind(BlockFind(n, s), "cuda") for n, s in ((256, 42), (64, 43))]
    settings = TrainConfig(epochs=2, batch_size=32)
    options = StepOptions(graph=True)
    unbroken = new_policy(PRESETS["nano"], 0, "cuda")
    fit(unbroken, *splits, settings, progress_bar=False, options=options)

    class Stop(Exception): ...

    def stop(record):
        raise Stop

    run = RunFolder(tmp_path / "run")
    run.start(RunSettings(PRESETS["nano"], settings, DataConfig(), "fast"), {}, overwrite=False)
    with pytest.raises(Stop):
        fit(new_policy(PRESETS["nano"], 0, "cuda"), *splits, settings, run, None, stop, False, options)
    resumed = new_policy(PRESETS["nano"], 99, "cuda")
    fit(resumed, *splits, settings, run, progress_bar=False, options=options)
    for a, b in zip(unbroken.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs a second GPU")
def test_recordings_work_on_any_gpu():
    for device in ("cuda:0", "cuda:1"):  # one after the other in one process
        losses(PRESETS["nano"], StepOptions(graph=True), device)
