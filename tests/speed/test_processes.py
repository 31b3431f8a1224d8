from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from tinyvla.speed.processes import make_accelerator, share

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


def test_two_processes_train_like_one(tmp_path):
    options = "--preset nano --plain --epochs 1 --num-train 192 --num-val 32 --num-test 32 --device cpu"

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
