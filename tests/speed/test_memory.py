from __future__ import annotations

import copy
import dataclasses
import os
import pickle
import subprocess
import sys
from contextlib import contextmanager, nullcontext

import pytest
import torch
from policies import awakened
from safetensors.torch import load_file

from tinyvla.config import PRESETS
from tinyvla.data.batch import TensorSplit
from tinyvla.data.dataset import BlockFind
from tinyvla.errors import InputError
from tinyvla.learn.optimizer import set_learning_rate
from tinyvla.learn.train import fit
from tinyvla.model.layers import Block
from tinyvla.model.policy import new_policy
from tinyvla.model.tokenizer import encode
from tinyvla.recipes import TrainConfig
from tinyvla.registry import FUSION_KINDS, HEAD_KINDS
from tinyvla.speed.memory import SavedTensors, backward_in_parts, in_parts, recomputed, share_of_actions
from tinyvla.speed.step import make_step
from tinyvla.speed.tuned import StepOptions


@pytest.fixture(scope="module")
def split() -> TensorSplit:
    return TensorSplit.from_blockfind(BlockFind(64, 42), encode)


def gradient(policy, batch, parts=1, bfloat16=False):
    """Loss and gradient of one batch."""
    policy.zero_grad()
    loss = backward_in_parts(policy.loss, batch, parts, bfloat16=bfloat16)
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
    policy.loss(batch).backward()
    assert torch.equal(in_parts_of_one, torch.cat([p.grad.flatten() for p in policy.parameters()]))


def test_parts_are_even_and_no_more_than_scenes(split):
    batch = split.take(slice(0, 10))
    assert [len(part) for part in in_parts(batch, 4)] == [3, 3, 2, 2]
    assert [len(part) for part in in_parts(batch, 64)] == [1] * 10
    assert torch.equal(torch.cat([part.actions for part in in_parts(batch, 3)]), batch.actions)


@pytest.mark.parametrize("fusion", FUSION_KINDS)
@pytest.mark.parametrize("bfloat16", [False, True])
def test_recomputing_gives_the_same_gradient_and_keeps_less(tiny_config, split, fusion, bfloat16):
    fused = dataclasses.replace(tiny_config, fusion=dataclasses.replace(tiny_config.fusion, kind=fusion))
    policy = awakened(new_policy(fused, 0))
    batch, kept = split.take(slice(0, 20)), []
    gradients = []
    for context in (nullcontext(), recomputed(policy, bfloat16)):
        with context, SavedTensors(policy) as saved:
            gradients.append(gradient(policy, batch, bfloat16=bfloat16)[1])
        kept.append(saved.bytes)
    assert torch.equal(*gradients)
    assert kept[1] < 0.75 * kept[0]


@pytest.mark.parametrize("head", HEAD_KINDS)
def test_every_head_recomputes(tiny_config, split, head):
    policy = new_policy(small(tiny_config, kind=head), 0)
    if head == "fast":
        policy.fit_statistics(split.actions)
    seen = []
    for context in (nullcontext(), recomputed(policy)):
        policy.zero_grad()
        with context:
            loss = backward_in_parts(policy.loss, split.take(slice(0, 20)), 1, torch.Generator().manual_seed(3))
        seen.append((loss, policy.vision.cls_token.grad.clone()))
    assert torch.equal(seen[0][0], seen[1][0])
    assert torch.equal(seen[0][1], seen[1][1])


def test_training_with_both_is_the_same_training(tiny_config, split):
    losses = []
    for settings in ({}, {"accumulate": 3, "recompute": True}):
        policy = new_policy(tiny_config, 0)
        config = TrainConfig(epochs=2, batch_size=24, learning_rate=1e-3, **settings)  # the last batch is smaller
        step = make_step(policy, split, config, "plain")
        losses.append([r["train_loss"] for r in fit(policy, split, split, config, step)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_the_largest_preset_with_its_layers_cut_takes_such_a_step(split):
    config = PRESETS["smolvla_like"]
    vision, language = (dataclasses.replace(c, num_layers=1) for c in (config.vision, config.language))
    policy = new_policy(dataclasses.replace(config, vision=vision, language=language), 0)
    settings = TrainConfig(accumulate=2, recompute=True)
    before = policy.head.output.weight.clone()
    assert make_step(policy, split, settings, "plain")(torch.arange(8)).isfinite()
    assert not torch.equal(policy.head.output.weight, before)


def test_recomputing_leaves_no_trace_so_the_policy_can_be_copied_and_pickled(tiny_policy):
    with recomputed(tiny_policy):
        assert all("forward" in vars(m) for m in tiny_policy.modules() if isinstance(m, Block))
    for policy in (tiny_policy, copy.deepcopy(tiny_policy)):
        assert not any("forward" in vars(m) for m in policy.modules())
    assert pickle.loads(pickle.dumps(tiny_policy.vision.blocks))


def test_a_policy_that_acts_does_not_recompute(tiny_policy, split, monkeypatch):
    monkeypatch.setattr("tinyvla.speed.memory.checkpoint", None)
    with recomputed(tiny_policy):
        tiny_policy.predict(split.images["camera"][:2], "find the red block")


def padded(split, lengths):
    """The split with chunks of three actions, of which these many are real."""
    pad = torch.arange(3) >= torch.tensor(lengths)[:, None]
    return dataclasses.replace(split, actions=split.actions[:, None].repeat(1, 3, 1), action_is_pad=pad)


@pytest.mark.parametrize("head", ["regression", "bins"])
def test_parts_count_with_their_share_of_real_actions(tiny_config, split, head):
    policy = awakened(new_policy(small(tiny_config, kind=head, horizon=3), 0))
    batch = padded(split, [3] * 16 + [1] * 47 + [2]).take(slice(4, 28))  # the parts' real actions: 3 n, then n
    assert share_of_actions(batch[:12], batch) == pytest.approx(36 / 48)
    loss, whole = gradient(policy, batch)
    again, added = gradient(policy, batch, 2)
    assert loss.item() == pytest.approx(again.item(), rel=1e-5)
    torch.testing.assert_close(added, whole, rtol=1e-4, atol=1e-6)


def test_a_part_may_hold_no_real_action(tiny_config, split):
    policy = awakened(new_policy(small(tiny_config, horizon=3), 0))
    batch = padded(split, [2] * 10 + [0] * 54).take(slice(0, 20))
    _, whole = gradient(policy, batch)
    _, added = gradient(policy, batch, 2)
    torch.testing.assert_close(added, whole, rtol=1e-4, atol=1e-6)


def test_gradients_are_averaged_over_processes_once(tiny_config, split):
    policy, calls = new_policy(tiny_config, 0), []

    class Spread:
        """Stands in for a module that averages gradients in each backward pass, unless told not to."""

        def __call__(self, *batch):
            calls.append("average" if not calls or calls[-1] != "alone" else "forward")
            return policy.loss(*batch)

        @contextmanager
        def no_sync(self):
            calls.append("alone")
            yield

    backward_in_parts(Spread(), split.take(slice(0, 9)), 3)
    assert calls == ["alone", "forward", "alone", "forward", "average"]


def test_what_does_not_go_together_is_refused(tiny_config, split):
    with pytest.raises(InputError, match="cannot have more parts"):
        TrainConfig(batch_size=8, accumulate=9)
    with pytest.raises(InputError, match="accumulate is 0; it must be a whole number from 1"):
        TrainConfig(accumulate=0)
    with pytest.raises(InputError, match="leave out --accumulate"):
        make_step(new_policy(small(tiny_config, kind="fast"), 0), split, TrainConfig(accumulate=2))
    with pytest.raises(InputError, match="leave out --recompute"):
        make_step(new_policy(tiny_config, 0), split, TrainConfig(recompute=True), StepOptions(compile=True))


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
    train = TensorSplit.from_blockfind(BlockFind(300, 42), encode, "cuda")
    seen = []
    for options in (StepOptions(), StepOptions(graph=True)):
        config = TrainConfig(learning_rate=1e-3, batch_size=32, **settings)
        step = make_step(new_policy(tiny_config, 0, "cuda"), train, config, options)
        losses = []
        for number in range(10):
            set_learning_rate(step.optimizer, 1e-3 * (number + 1) / 10)
            losses.append(step(torch.arange(number, number + 32, device="cuda")).item())
        seen.append(torch.tensor(losses))
    torch.testing.assert_close(*seen, rtol=1e-3, atol=1e-3)


def test_two_processes_in_parts_train_like_one(tmp_path):
    pytest.importorskip("accelerate")
    options = (
        "--preset nano --step plain --recipe plain --epochs 1 --num-train 192 --num-val 32 --num-test 32 --device cpu"
    )
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
