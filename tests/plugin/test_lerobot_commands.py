"""LeRobot's other commands run TinyVLA: `lerobot-eval` in a simulator, `lerobot-rollout` and the server on an arm."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from with_lerobot import ARM, DEVICE, PRETEND, lerobot, save_policy

from tinyvla.model.policy import TinyVLA

from lerobot_policy_tinyvla import to_lerobot  # isort: skip
from lerobot_robot_pretend import SIZES, Pretend, PretendConfig  # isort: skip

TASK = "wave the arm"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A policy for the arm: as TinyVLA keeps it, and as LeRobot takes it."""
    folder = tmp_path_factory.mktemp("policy")
    save_policy(folder / "mine", horizon=6)
    cameras = {f"observation.images.{name}": size for name, size in SIZES.items()}
    to_lerobot(folder / "mine", folder / "theirs", cameras, execute=6, device=DEVICE)
    return folder


@pytest.fixture
def plan(checkpoint, tmp_path):
    """What TinyVLA itself answers to the arm's first observation."""
    arm = Pretend(PretendConfig(id="arm", calibration_dir=tmp_path))
    seen, observation = arm.get_observation(), {"task": TASK}
    observation |= {f"observation.images.{name}": seen[name] for name in SIZES}
    observation["observation.state"] = np.array([seen[key] for key in arm.action_features], np.float32)
    return TinyVLA.from_pretrained(checkpoint / "mine").predict(observation).numpy()


def goals(log):
    return np.array([json.loads(line) for line in log.read_text().splitlines()])


def test_lerobot_rollout_moves_the_arm_as_the_policy_says(checkpoint, plan, tmp_path):
    pytest.importorskip("lerobot.rollout", reason="this LeRobot has no lerobot-rollout", exc_type=ImportError)
    lerobot(
        "lerobot-rollout",
        *ARM,
        f"--robot.calibration_dir={tmp_path}",
        f"--robot.log={tmp_path / 'goals'}",
        f"--policy.path={checkpoint / 'theirs'}",
        f"--task={TASK}",
        "--duration=5",
        "--fps=10",
        "--return_to_initial_position=false",
        "--play_sounds=false",
    )
    done = goals(tmp_path / "goals")
    assert len(done) >= len(plan)
    assert np.abs(done[: len(plan)] - plan).max() <= (1e-3 if DEVICE == "cpu" else 0.5)  # degrees


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_the_asynchronous_server_runs_the_policy_on_loopback(checkpoint, plan, tmp_path):
    pytest.importorskip("grpc", reason="the asynchronous server needs lerobot[async]")
    port, log = free_port(), tmp_path / "goals"
    paths = os.pathsep.join([str(PRETEND), os.environ.get("PYTHONPATH", "")])
    run = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": paths}, "stderr": subprocess.STDOUT}
    serve = [sys.executable, "-m", "lerobot_policy_tinyvla", "serve", "--host=127.0.0.1", f"--port={port}"]
    with (tmp_path / "server").open("w") as out, subprocess.Popen(serve, stdout=out, **run) as server:
        try:
            wait_until(lambda: "PolicyServer started" in (tmp_path / "server").read_text(), server)
            client = [
                sys.executable,
                "-m",
                "lerobot.async_inference.robot_client",
                f"--server_address=127.0.0.1:{port}",
            ]
            client += [*ARM, f"--robot.calibration_dir={tmp_path}", f"--robot.log={log}", "--policy_type=tinyvla"]
            client += [f"--pretrained_name_or_path={checkpoint / 'theirs'}", f"--policy_device={DEVICE}"]
            client += [f"--task={TASK}", "--actions_per_chunk=6", "--chunk_size_threshold=0", "--fps=5"]
            with (tmp_path / "client").open("w") as said, subprocess.Popen(client, stdout=said, **run) as robot:
                try:
                    wait_until(lambda: log.exists() and len(goals(log)) >= len(plan), robot)
                finally:
                    robot.terminate()
        finally:
            server.terminate()
    assert np.abs(goals(log)[: len(plan)] - plan).max() <= (1e-3 if DEVICE == "cpu" else 0.5), (
        tmp_path / "server"
    ).read_text()


def wait_until(condition, process, seconds=600):
    for _ in range(seconds * 5):
        if condition():
            return
        assert process.poll() is None, f"{process.args} ended with {process.returncode}"
        time.sleep(0.2)
    pytest.fail(f"{process.args} did nothing in {seconds} s")


def test_lerobot_eval_runs_a_checkpoint_on_pusht(tmp_path):
    pytest.importorskip("gym_pusht", reason="gym-pusht is not installed: pip install 'lerobot[pusht]'")
    from dataclasses import replace

    from tinyvla.config import PRESETS, ObservationConfig
    from tinyvla.model.policy import new_policy

    small = PRESETS["nano"]
    config = replace(
        small,
        observation=ObservationConfig(("image",), 2),
        head=replace(small.head, kind="l1", action_dim=2, horizon=4, normalization="mean-std"),
    )
    policy = new_policy(config, seed=0)
    places = 256 + 100 * torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    policy.fit_statistics(places, places)
    policy.save_pretrained(tmp_path / "mine")
    to_lerobot(tmp_path / "mine", tmp_path / "theirs", {"observation.image": (384, 384)}, device=DEVICE)
    lerobot(
        "lerobot-eval",
        f"--policy.path={tmp_path / 'theirs'}",
        "--policy.instruction=push the block onto its place",
        "--env.type=pusht",
        "--env.task=PushT-v0",
        "--env.episode_length=6",
        "--eval.n_episodes=2",
        "--eval.batch_size=2",
        "--eval.use_async_envs=false",
        f"--output_dir={tmp_path / 'eval'}",
    )
    judged = json.loads((tmp_path / "eval/eval_info.json").read_text())["overall"]
    assert judged["n_episodes"] == 2
    assert 0 <= judged["pc_success"] <= 100
    assert list(Path(tmp_path / "eval").rglob("*.mp4"))
