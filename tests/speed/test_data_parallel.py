from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from tinyvla.data.batch import TensorSplit
from tinyvla.data.dataset import BlockFind
from tinyvla.learn.checkpoint import Progress
from tinyvla.model.policy import new_policy
from tinyvla.model.tokenizer import encode
from tinyvla.recipes import TrainConfig
from tinyvla.speed.data_parallel import OnlyReading, SharedStep, make_accelerator, share

pytest.importorskip("accelerate")


class Processes:
    """What `share` asks of an accelerator."""

    def __init__(self, num_processes: int, process_index: int) -> None:
        self.num_processes, self.process_index = num_processes, process_index


@pytest.mark.parametrize(("length", "count"), [(8, 2), (7, 2), (10, 4), (1, 3)])
def test_shares_are_equally_long_and_together_hold_every_scene(length, count):
    index = torch.arange(100, 100 + length)
    shares = [share(index, Processes(count, rank)) for rank in range(count)]
    assert len({len(s) for s in shares}) == 1
    assert set(torch.cat(shares).tolist()) == set(index.tolist())
    if length % count == 0:
        assert len(torch.cat(shares)) == length


def test_a_process_on_its_own_needs_no_accelerator(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert make_accelerator("cpu") is None


def test_all_processes_but_the_main_one_only_read(tiny_policy, tmp_path):
    run = OnlyReading(tmp_path)
    run.save_epoch(
        tiny_policy, torch.optim.AdamW(tiny_policy.parameters()), Progress(), [{"val_loss": 1, "epoch": 1}], 1
    )
    run.finish()
    assert list(tmp_path.iterdir()) == []
    assert run.records() == []


def test_shares_count_as_many_as_their_real_actions(tiny_config):
    class Two(Processes):
        device = torch.device("cpu")

        def prepare_model(self, model):
            return model

        def reduce(self, value, how):
            return {"mean": (value + other) / 2}[how] if other is not None else value

    split = TensorSplit.from_blockfind(BlockFind(8, 1), encode)
    pad = (torch.arange(8) % 2 == 1)[:, None] & torch.tensor([False, True])  # odd rows have one real action of two
    split = dataclasses.replace(split, actions=split.actions[:, None].repeat(1, 2, 1), action_is_pad=pad)
    config = dataclasses.replace(tiny_config, head=dataclasses.replace(tiny_config.head, horizon=2))
    step = SharedStep(new_policy(config, 0), split, TrainConfig(batch_size=8), Two(2, 1))
    other = torch.tensor(8.0)  # real actions of the process that takes the even rows
    assert step._weight(torch.arange(1, 8, 2)) == pytest.approx(4 / 6)
    other = None
    assert (
        SharedStep(
            new_policy(config, 0), dataclasses.replace(split, action_is_pad=None), TrainConfig(), Two(2, 1)
        )._weight(torch.arange(1, 8, 2))
        == 1.0
    )


def test_two_processes_train_like_one(tmp_path):
    options = (
        "--preset nano --step plain --recipe plain --epochs 1 --num-train 192 --num-val 32 --num-test 32 --device cpu"
    )

    def train(out, launcher):
        folders = ["--out", str(out), "--log-dir", str(tmp_path / "logs")]
        command = [sys.executable, *launcher.split(), "-m", "tinyvla", "train", *options.split(), *folders]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    one, two = tmp_path / "one", tmp_path / "two"
    train(one, "")
    # `accelerate launch` starts several processes on GPUs; on a CPU torch's own launcher does.
    output = train(two, "-m torch.distributed.run --nproc_per_node 2 --master_port 29517")
    assert "2 processes" in output
    assert output.count("best checkpoint") == 1  # the main process alone reports
    a, b = (load_file(folder / "best" / "model.safetensors") for folder in (one, two))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-5)
    records = [json.loads((folder / "metrics.jsonl").read_text()) for folder in (one, two)]
    assert records[0]["train_loss"] == pytest.approx(records[1]["train_loss"], rel=1e-4)
