from __future__ import annotations

import dataclasses
import os
import signal

import pytest
import torch
from safetensors.torch import load_file

from tinyvla.config import PRESETS, model_config
from tinyvla.data.batch import TensorSplit
from tinyvla.data.dataset import BlockFind
from tinyvla.device import choose_device
from tinyvla.errors import InputError
from tinyvla.learn.callbacks import Callback, DivergedError, Interrupted, OnEpoch, StopOnInterrupt, TensorBoard
from tinyvla.learn.checkpoint import RunFolder, RunSettings
from tinyvla.learn.optimizer import learning_rate_at, make_optimizer
from tinyvla.learn.train import PlainStep, fit, train_step
from tinyvla.model.policy import new_policy
from tinyvla.model.tokenizer import encode
from tinyvla.recipes import DataConfig, TrainConfig

SHORT = TrainConfig(epochs=3, batch_size=16, checkpoint_every=2, learning_rate=1e-2)


@pytest.fixture(scope="module")
def data() -> tuple[TensorSplit, TensorSplit]:
    """Validated on the training scenes themselves, so that the validation loss is sure to fall."""
    split = TensorSplit.from_blockfind(BlockFind(64, 0), encode)
    return split, split


def start(path, config, train=SHORT) -> RunFolder:
    run = RunFolder(path)
    run.start(RunSettings(config, train, DataConfig()), {}, overwrite=False)
    return run


def test_learning_rate_climbs_holds_and_falls():
    rates = [learning_rate_at(step, 1_000, TrainConfig()) for step in range(1_000)]
    assert rates[0] == pytest.approx(3e-6)
    assert rates[99:501] == pytest.approx([3e-4] * 402)
    assert rates[750] == pytest.approx(1.5e-4)
    assert 0 < rates[-1] < 1e-6
    assert max(learning_rate_at(step, 40, TrainConfig()) for step in range(40)) == pytest.approx(3e-4)


def test_only_matrices_decay(tiny_config):
    policy = new_policy(tiny_config, 0)
    decayed, spared = (group["params"] for group in make_optimizer(policy, TrainConfig()).param_groups)
    assert all(p.ndim == 2 for p in decayed)
    assert any(p is policy.language.token_embedding.weight for p in spared)
    assert len(decayed) + len(spared) == len(list(policy.parameters()))


def test_one_batch_can_be_learned_by_heart(data):
    policy = new_policy(PRESETS["nano"], 0)
    optimizer = make_optimizer(policy, dataclasses.replace(TrainConfig(), learning_rate=1e-3))
    batch = data[0].take(slice(0, 16))
    losses = [train_step(policy, optimizer, batch, 1.0).item() for _ in range(100)]
    assert losses[0] > 0.4
    assert losses[-1] < 0.002


@pytest.mark.parametrize(
    ("optimizer", "rate", "losses"),
    [
        ("adamw", 3e-3, [0.500617, 0.589502, 0.546302, 0.511300, 0.497648, 0.486273]),
        ("muon", 1e-2, [0.500617, 0.508587, 0.511328, 0.507973, 0.498764, 0.498053]),
    ],
)
def test_the_first_losses_are_those_of_the_first_version(optimizer, rate, losses):
    """Of before a step was an object; whoever changes initial weights, data, loss or optimizer will see it here."""
    train = TensorSplit.from_blockfind(BlockFind(192, 42), encode)
    config = TrainConfig(optimizer=optimizer, learning_rate=rate)
    step = PlainStep(new_policy(PRESETS["nano"], 0), train, config)
    assert [step(index).item() for index in torch.arange(192).split(32)] == pytest.approx(losses, abs=3e-4)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_trains_a_step(preset, data):
    """At full width; the two large ones with their layers cut to one, which the text says."""
    config = model_config(preset)
    if preset in ("medium", "smolvla_like"):
        vision, language = (dataclasses.replace(c, num_layers=1) for c in (config.vision, config.language))
        config = dataclasses.replace(config, vision=vision, language=language)
    policy = new_policy(config, 0)
    optimizer = make_optimizer(policy, TrainConfig())
    batch = data[0].take(slice(0, 8))
    before = policy.head.output.weight.clone()
    assert train_step(policy, optimizer, batch, 1.0).isfinite()
    assert not torch.equal(policy.head.output.weight, before)


@pytest.mark.parametrize("kind", ["cross-attention", "pool-add"])
def test_training_learns_more_than_a_deaf_policy_could(kind):
    """4,000 scenes, two epochs: cross-attention must be far above the 0.45 of any policy that ignores the words;
    pool-add is slower, but must have left the 0.2 of chance."""
    splits = [TensorSplit.from_blockfind(BlockFind(n, seed), encode) for n, seed in ((4_000, 42), (300, 43))]
    config = dataclasses.replace(TrainConfig(), epochs=2, learning_rate=1e-3)
    records = fit(new_policy(model_config("nano", kind), 0), *splits, config)
    least = {"cross-attention": 0.97, "pool-add": 0.28}[kind]
    assert records[-1]["direction_accuracy"] > least
    assert records[-1]["val_loss"] < records[0]["val_loss"]


def test_records_say_what_happened(tiny_config, data):
    seen = []
    records = fit(new_policy(tiny_config, 0), *data, SHORT, callbacks=[OnEpoch(seen.append)])
    assert seen == records
    assert [r["epoch"] for r in records] == [1, 2, 3]
    assert [r["step"] for r in records] == [4, 8, 12]
    assert {"train_loss", "val_loss", "l2_error", "direction_accuracy", "within_10_degrees"} <= set(records[0])


class OnStep(Callback):
    def __init__(self, function):
        self.function = function

    def on_step(self, step, loss, learning_rate):
        self.function(loss)


def test_an_epoch_may_be_a_part(tiny_config, data):
    config = dataclasses.replace(SHORT, epochs=1.5)  # of four batches each
    records = fit(new_policy(tiny_config, 0), *data, config)
    assert [(r["epoch"], r["step"]) for r in records] == [(1, 4), (1.5, 6)]
    constant = dataclasses.replace(config, warmup_steps=0, decay_fraction=0.0)
    losses: list[float] = []
    seen = OnStep(losses.append)
    part = fit(new_policy(tiny_config, 0), *data, constant, callbacks=[seen])
    whole = fit(new_policy(tiny_config, 0), *data, dataclasses.replace(constant, epochs=2))
    assert part[0] == whole[0]
    assert part[1]["train_loss"] == pytest.approx(sum(losses[4:]) / 2)


def test_saving_memory_needs_another_step(tiny_config, data):
    for settings in ({"accumulate": 2}, {"recompute": True}):
        with pytest.raises(InputError, match=r"tinyvla\.speed\.step\.make_step"):
            fit(new_policy(tiny_config, 0), *data, dataclasses.replace(SHORT, **settings))


def test_training_notes_the_words_that_it_sees(tiny_config, data):
    policy = new_policy(tiny_config, 0)
    fit(policy, *data, dataclasses.replace(SHORT, epochs=1))
    assert policy.language.unseen_words("find the spoon") == ["spoon"]


def test_scalars_are_logged(tiny_config, data, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        fit(new_policy(tiny_config, 0), *data, SHORT, callbacks=[TensorBoard(writer)])
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {"train/loss", "train/learning_rate", "val/loss", "val/direction_accuracy"} <= tags


def test_a_run_leaves_its_checkpoints_and_nothing_else(tiny_config, data, tmp_path):
    run = start(tmp_path / "run", tiny_config)
    fit(new_policy(tiny_config, 0), *data, SHORT, run=run)
    assert {p.name for p in run.path.iterdir()} == {"config.json", "metrics.jsonl", "best", "epoch_002"}
    assert len(run.records()) == 3


def test_the_best_checkpoint_is_the_one_with_the_lowest_validation_loss(tiny_config, data, tmp_path):
    config = dataclasses.replace(SHORT, epochs=6, checkpoint_every=1, learning_rate=3e-2, warmup_steps=0)
    run = start(tmp_path / "run", tiny_config, config)
    records = fit(new_policy(tiny_config, 0), *data, config, run=run)
    best = min(records, key=lambda r: r["val_loss"])
    kept = run.path / f"epoch_{best['epoch']:03d}" / "model.safetensors"
    assert (run.best / "model.safetensors").read_bytes() == kept.read_bytes()


def test_a_diverged_loss_stops_with_advice_and_saves_nothing(tiny_config, data, tmp_path):
    run = start(tmp_path / "run", tiny_config)
    policy = new_policy(tiny_config, 0)
    with torch.no_grad():
        policy.head.output.weight.fill_(torch.nan)
    with pytest.raises(DivergedError, match=r"diverged.*lower --learning-rate"):
        fit(policy, *data, SHORT, run=run)
    assert {p.name for p in run.path.iterdir()} == {"config.json"}


def weights_after(path) -> dict[str, torch.Tensor]:
    return load_file(path / "epoch_002" / "model.safetensors") | {
        f"best.{k}": v for k, v in load_file(path / "best" / "model.safetensors").items()
    }


@pytest.fixture(scope="module")
def unbroken(tiny_config, data, tmp_path_factory):
    path = tmp_path_factory.mktemp("unbroken") / "run"
    config = dataclasses.replace(SHORT, epochs=2)
    records = fit(new_policy(tiny_config, 0), *data, config, run=start(path, tiny_config, config))
    return weights_after(path), records


def test_ctrl_c_saves_and_resume_ends_bit_for_bit_the_same(tiny_config, data, tmp_path, unbroken):
    config = dataclasses.replace(SHORT, epochs=2)
    run = start(tmp_path / "run", tiny_config, config)

    original = signal.getsignal(signal.SIGINT)
    policy = new_policy(tiny_config, 0)
    calls = []
    forward = policy.vision.forward

    def press(images):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return forward(images)

    policy.vision.forward = press
    with pytest.raises(Interrupted, match="step 3 of 8"):
        fit(policy, *data, config, run=run, callbacks=[StopOnInterrupt()])
    assert signal.getsignal(signal.SIGINT) is original
    records = fit(new_policy(tiny_config, 99), *data, config, run=run)
    torch.testing.assert_close(weights_after(run.path), unbroken[0], rtol=0, atol=0)
    assert records == unbroken[1]


class StopsAt(Callback):
    """Asks for the end after a step."""

    def __init__(self, step):
        self.step = step

    def on_step(self, step, loss, learning_rate):
        self.stop = step == self.step


@pytest.mark.parametrize("at", [1, 4, 5])
def test_stopped_at_any_step_it_resumes_with_every_record(tiny_config, data, tmp_path, unbroken, at):
    """Also at an epoch's last step, where the validation must not be lost."""
    config = dataclasses.replace(SHORT, epochs=2)
    run = start(tmp_path / "run", tiny_config, config)
    with pytest.raises(Interrupted, match=f"step {at} of 8"):
        fit(new_policy(tiny_config, 0), *data, config, run=run, callbacks=[StopsAt(at)])
    records = fit(new_policy(tiny_config, 99), *data, config, run=run)
    assert records == run.records() == unbroken[1]
    torch.testing.assert_close(weights_after(run.path), unbroken[0], rtol=0, atol=0)


def test_asked_for_the_end_at_the_last_step_it_just_ends(tiny_config, data, tmp_path):
    run = start(tmp_path / "run", tiny_config)
    assert len(fit(new_policy(tiny_config, 0), *data, SHORT, run=run, callbacks=[StopsAt(12)])) == 3
    assert run.is_complete(run.settings())


@pytest.mark.parametrize(
    ("name", "says"),
    [("tpu", "unknown device 'tpu'; choose from auto, cpu, cuda, mps"), ("cpu:x", "cannot be used")],
)
def test_unknown_devices_are_refused(name, says):
    with pytest.raises(InputError) as caught:
        choose_device(name)
    assert says in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU")
def test_cuda_without_cuda_is_refused():
    with pytest.raises(InputError, match="torch sees no CUDA GPU; use --device cpu"):
        choose_device("cuda")


@pytest.mark.gpu
def test_minimal_learns_on_a_gpu():
    splits = [TensorSplit.from_blockfind(BlockFind(n, seed), encode, "cuda") for n, seed in ((8_000, 42), (1_000, 43))]
    policy = new_policy(PRESETS["minimal"], 0, "cuda")
    records = fit(policy, *splits, dataclasses.replace(TrainConfig(), epochs=2))
    assert records[-1]["direction_accuracy"] > 0.95
