"""LeRobot's commands in this process, on a policy of the course's and an arm without hardware.

A test module that imports this is skipped, visibly, where LeRobot is not installed.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import install_import_hook

from tinyvla.config import PRESETS, ModelConfig, ObservationConfig
from tinyvla.model.policy import TinyVLA, new_policy

WHY = "LeRobot is not installed here; CONTRIBUTING.md says how to test the plugin"
pytest.importorskip("lerobot.policies", reason=WHY, exc_type=ImportError)
install_import_hook("lerobot_policy_tinyvla", "beartype.beartype")
pytest.importorskip("lerobot_policy_tinyvla", reason=WHY, exc_type=ImportError)
PRETEND = Path(__file__).parent / "pretend"
sys.path.insert(0, str(PRETEND))  # where LeRobot finds the arm, as an installed distribution
os.environ["PYTHONPATH"] = os.pathsep.join([str(PRETEND), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])

SIZES = {"front": (96, 128), "wrist": (64, 64)}
"""Height and width of the arm's cameras."""
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ARM = ("--robot.type=pretend", "--robot.id=arm")


def lerobot(command: str, *options: str) -> str:
    """Run `lerobot-NAME` as its console script does; returns what it printed and logged."""
    before, sys.argv = sys.argv, [command, *options]
    said = io.StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said):
            importlib.import_module(f"lerobot.scripts.{command.replace('-', '_')}").main()
    except Exception as error:
        error.add_note(said.getvalue()[-3000:])
        raise
    finally:
        sys.argv = before
    return said.getvalue()


def robot_config(head: str = "l1", horizon: int = 4, normalization: str = "quantiles") -> ModelConfig:
    """A small policy for the arm: two cameras, six joints, chunks of actions in degrees."""
    small = PRESETS["nano"]
    return replace(
        small,
        observation=ObservationConfig(("front", "wrist"), 6),
        head=replace(small.head, kind=head, horizon=horizon, action_dim=6, normalization=normalization),
    )


def save_policy(folder: Path, **config: object) -> TinyVLA:
    """A policy with random weights and statistics in degrees, kept in a folder; returns what was loaded from there."""
    policy = new_policy(robot_config(**config), seed=0)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():  # weights that begin at zero would let it answer without looking
        for parameter in policy.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=draw))
    degrees = 60 * torch.randn(200, 6, generator=draw)
    actions = degrees if policy.config.head.normalization != "none" else None
    policy.fit_statistics(actions, degrees)
    policy.language.note_words(policy.language.encode(["wave the arm"])[0])
    policy.save_pretrained(folder)
    return TinyVLA.from_pretrained(folder)


def observations(count: int) -> list[dict]:
    """What the arm's cameras and motors could give, with the keys of `TinyVLA.predict`."""
    draw = np.random.RandomState(0)
    return [
        {
            "observation.images.front": draw.randint(0, 256, (96, 128, 3)).astype(np.uint8),
            "observation.images.wrist": draw.randint(0, 256, (64, 64, 3)).astype(np.uint8),
            "observation.state": (60 * draw.randn(6)).astype(np.float32),
            "task": "wave the arm",
        }
        for _ in range(count)
    ]


def as_lerobot_gives(observation: dict) -> dict:
    """The same observation as LeRobot hands it to its processors: images (3, h, w), divided by 255."""
    given = dict(observation)
    for key in ("observation.images.front", "observation.images.wrist"):
        given[key] = torch.from_numpy(observation[key]).permute(2, 0, 1).float() / 255
    return {**given, "observation.state": torch.from_numpy(observation["observation.state"])}
