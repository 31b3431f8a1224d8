"""The tests of this folder need LeRobot, which asks for Python 3.12; CONTRIBUTING.md says how to run them."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set that `lerobot-record` wrote: three episodes of the arm, two cameras stored as video."""
    from with_lerobot import ARM, lerobot

    folder = tmp_path_factory.mktemp("recorded")
    lerobot(
        "lerobot-record",
        *ARM,
        f"--robot.calibration_dir={folder / 'calibration'}",
        "--teleop.type=pretend_hand",
        "--teleop.id=hand",
        f"--teleop.calibration_dir={folder / 'calibration'}",
        "--dataset.repo_id=local/wave",
        f"--dataset.root={folder / 'wave'}",
        "--dataset.single_task=wave the arm",
        "--dataset.num_episodes=3",
        "--dataset.episode_time_s=2",
        "--dataset.reset_time_s=0",
        "--dataset.fps=15",
        "--dataset.push_to_hub=false",
        "--play_sounds=false",
    )
    return folder / "wave"
