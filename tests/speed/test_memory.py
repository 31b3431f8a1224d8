from __future__ import annotations

import copy
import dataclasses
import os
import pickle
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch
from conftest import awakened
from safetensors.torch import load_file

from tinyvla.data.batch import TensorSplit
from tinyvla.config import FUSION_KINDS, HEAD_KINDS, PRESETS, InputError, TrainConfig
from tinyvla.data.blockfind import BlockFind
from tinyvla.model.layers import Block
from tinyvla.speed.memory import SavedTensors, backward_in_parts, in_parts, recompute_blocks, save_memory
from tinyvla.speed.recorded import PLAIN, StepOptions
from tinyvla.learn.train import fit, make_optimizer, make_step, new_policy, set_learning_rate, train_step


@pytest.fixture(scope="module")
def split() -> TensorSplit:
    return TensorSplit.from_blockfind(BlockFind(64, 42))


def gradient(policy, batch, parts=1, options=PLAIN):
    """Loss and gradient of one batch."""
    policy.zero_grad()
    loss = backward_in_parts(policy.loss, batch, parts, options=options)
    return loss, torch.cat([p.grad.flatten() for p in policy.parameters()])


def small(tiny_config, **head):
    return dataclasses.replace(tiny_config, head=dataclasses.replace(tiny_config.head, **head))


@pytest.mark.parametrize("parts", [2, 3, 7, 20, 64])
@pytest.mark.parametrize("head", ["regression", "directions", "bins"])
def test_parts_give_the_gradient_of_the_whole(tiny_config, split, head, parts):
    policy = awakened(new_policy(small(tiny_config, kind=head), 0))
    batch = split.take(slice(0, 20))
    loss, whole = gradient(policy, batch)
    again, added = gradient(policy, batch, parts)
    assert loss.item() == pytest.approx(again.item(), rel=1e-5)
    torch.testing.assert_close(added, whole, rtol=1e-4, atol=1e-6)


def test_one_part_is_the_plain_step_bit_for_bit(tiny_config, split):
    policy = awakened(new_policy(tiny_config, 0))
    batch = split.take(slice(0, 20))
    _, in_parts_of_one = gradient(policy, batch)
    policy.zero_grad()
    policy.loss(batch.images, batch.input_ids, batch.attention_mask, batch.actions).backward()
    assert torch.equal(in_parts_of_one, torch.cat([p.grad.flatten() for p in policy.parameters()]))


def test_parts_are_even_and_no_more_than_scenes(split):
    batch = split.take(slice(0, 10))
    assert [len(part.images) for part in in_parts(batch, 4)] == [3, 3, 2, 2]
    assert [len(part.images) for part in in_parts(batch, 64)] == [1] * 10
    assert torch.equal(torch.cat([part.actions for part in in_parts(batch, 3)]), batch.actions)


@pytest.mark.parametrize("fusion", FUSION_KINDS)
@pytest.mark.parametrize("bfloat16", [False, True])
def test_recomputing_gives_the_same_gradient_and_keeps_less(tiny_config, split, fusion, bfloat16):
    fused = dataclasses.replace(tiny_config, fusion=dataclasses.replace(tiny_config.fusion, kind=fusion))
    policy, options = awakened(new_policy(fused, 0)), StepOptions(bfloat16=bfloat16)
    batch, kept = split.take(slice(0, 20)), []
    gradients = []
    for recompute in (False, True):
        recompute_blocks(policy, recompute, options)
        with SavedTensors(policy) as saved:
            gradients.append(gradient(policy, batch, options=options)[1])
        kept.append(saved.bytes)
    assert torch.equal(*gradients)
    assert kept[1] < 0.75 * kept[0]


@pytest.mark.parametrize("head", HEAD_KINDS)
def test_every_head_recomputes(tiny_config, split, head):
    policy = new_policy(small(tiny_config, kind=head), 0)
    if head == "fast":
        policy.fit_statistics(split.actions)
    seen = []
    for recompute in (False, True):
        recompute_blocks(policy, recompute)
        policy.zero_grad()
        loss = backward_in_parts(policy.loss, split.take(slice(0, 20)), 1, torch.Generator().manual_seed(3))
        seen.append((loss, policy.vision.cls_token.grad.clone()))
    assert torch.equal(seen[0][0], seen[1][0])
    assert torch.equal(seen[0][1], seen[1][1])


def test_training_with_both_is_the_same_training(tiny_config, split):
    losses = []
    for settings in ({}, {"accumulate": 3, "recompute": True}):
        policy = new_policy(tiny_config, 0)
        config = TrainConfig(epochs=2, batch_size=24, learning_rate=1e-3, **settings)  # the last batch is smaller
        losses.append([r["train_loss"] for r in fit(policy, split, split, config, progress_bar=False)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_the_largest_preset_with_its_layers_cut_takes_such_a_step(split):
    config = PRESETS["smolvla_like"]
    vision, language = (dataclasses.replace(c, num_layers=1) for c in (config.vision, config.language))
    policy = new_policy(dataclasses.replace(config, vision=vision, language=language), 0)
    settings = TrainConfig(accumulate=2, recompute=True)
    save_memory(policy, settings)
    before = policy.head.output.weight.clone()
    batch = split.take(slice(0, 8))
    assert train_step(policy, make_optimizer(policy, settings), batch, 1.0, accumulate=2).isfinite()
    assert not torch.equal(policy.head.output.weight, before)


def test_recomputing_can_be_switched_off_copied_and_pickled(tiny_policy):
    recompute_blocks(tiny_policy)
    for copied in (copy.deepcopy(tiny_policy), pickle.loads(pickle.dumps(tiny_policy.vision.blocks))):
        assert all(m.recompute for m in copied.modules() if isinstance(m, Block))
    recompute_blocks(tiny_policy, False)
    assert not any(m.recompute for m in tiny_policy.modules() if isinstance(m, Block))


def test_a_policy_that_acts_does_not_recompute(tiny_policy, split, monkeypatch):
    recompute_blocks(tiny_policy)
    monkeypatch.setattr("tinyvla.model.layers.checkpoint", None)
    tiny_policy.predict(split.images[:2], "find the red block")


def test_gradients_are_averaged_over_processes_once(tiny_config, split):
    policy, said = new_policy(tiny_config, 0), []

    class Spread:
        """Stands in for a module that averages gradients in each backward pass, unless told not to."""

        def __call__(self, *batch):
            said.append("average" if not said or said[-1] != "alone" else "forward")
            return policy.loss(*batch)

        @contextmanager
        def no_sync(self):
            said.append("alone")
            yield

    backward_in_parts(Spread(), split.take(slice(0, 9)), 3)
    assert said == ["alone", "forward", "alone", "forward", "average"]


def test_what_does_not_go_together_is_refused(tiny_config):
    with pytest.raises(InputError, match="cannot have more parts"):
        TrainConfig(batch_size=8, accumulate=9)
    with pytest.raises(InputError, match="at least 1"):
        TrainConfig(accumulate=0)
    with pytest.raises(InputError, match="leave out --accumulate"):
        save_memory(new_policy(small(tiny_config, kind="fast"), 0), TrainConfig(accumulate=2))
    with pytest.raises(InputError, match="leave out --recompute"):
        save_memory(new_policy(tiny_config, 0), TrainConfig(recompute=True), StepOptions(compile=True))


def test_saved_tensors_counts_shared_memory_once():
    layer = torch.nn.Linear(10, 10)
    x = torch.randn(7, 10, requires_grad=True)
    with SavedTensors(layer) as saved:
        (layer(x).relu() * 2).sum()
    assert saved.bytes == 2 * 7 * 10 * 4  # the layer's input and relu's output; the weights are not counted
    with SavedTensors(layer) as saved:
        x * x
    assert saved.bytes == 7 * 10 * 4


@pytest.mark.gpu
@pytest.mark.parametrize("settings", [{"accumulate": 4}, {"recompute": True}, {"accumulate": 3, "recompute": True}])
def test_recorded_steps_do_the_same(tiny_config, settings):
    train = TensorSplit.from_blockfind(BlockFind(300, 42), "cuda")
    seen = []
    for options in (StepOptions(), StepOptions(graph=True)):
        config = TrainConfig(learning_rate=1e-3, batch_size=32, **settings)
        policy = new_policy(tiny_config, 0, "cuda")
        optimizer = make_optimizer(policy, config, capturable=options.graph)
        step = make_step(policy, optimizer, train, config, torch.Generator("cuda"), options)
        losses = []
        for number in range(10):
            set_learning_rate(optimizer, 1e-3 * (number + 1) / 10)
            losses.append(step(torch.arange(number, number + 32, device="cuda")).item())
        seen.append(torch.tensor(losses))
    torch.testing.assert_close(*seen, rtol=1e-3, atol=1e-3)


def test_two_processes_in_parts_train_like_one(tmp_path):
    pytest.importorskip("accelerate")
    options = "--preset nano --plain --epochs 1 --num-train 192 --num-val 32 --num-test 32 --device cpu"
    # `accelerate launch` starts several processes on GPUs; on a CPU torch's own launcher does.
    two = "-m torch.distributed.run --nproc_per_node 2 --master_port 29523"
    for launcher, more, name in (("", "", "one"), (two, "--accumulate 3 --recompute", "two")):
        folders = f"--out {tmp_path / name} --log-dir {tmp_path / 'logs'}"
        command = [sys.executable, *f"{launcher} -m tinyvla train {options} {more} {folders}".split()]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
    one, other = (load_file(tmp_path / name / "best" / "model.safetensors") for name in ("one", "two"))
    for name, weight in one.items():
        torch.testing.assert_close(other[name], weight, rtol=1e-4, atol=1e-5)
