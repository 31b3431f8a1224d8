"""An arm without hardware, and a hand that steers it: LeRobot's own commands record, train and run on them in tests.

The arm has an SO-101's six motors, in degrees, and a gripper from 0 to 100; each tick it goes half of the way to its
goal. Two cameras of different sizes show where its first two joints are. Every goal is written to a file.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lerobot.robots import Robot, RobotConfig
from lerobot.teleoperators import Teleoperator, TeleoperatorConfig

MOTORS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
KEYS = tuple(f"{motor}.pos" for motor in MOTORS)
SIZES = {"front": (96, 128), "wrist": (64, 64)}


class NoHardware:
    """What robot and teleoperator share."""

    is_connected = False
    is_calibrated = True

    def connect(self, calibrate=True):
        self.is_connected = True

    def disconnect(self):
        self.is_connected = False

    def calibrate(self):
        pass

    def configure(self):
        pass


@RobotConfig.register_subclass("pretend")
@dataclass(kw_only=True)
class PretendConfig(RobotConfig):
    log: str = ""


class Pretend(NoHardware, Robot):
    config_class, name = PretendConfig, "pretend"

    def __init__(self, config):
        super().__init__(config)
        self.cameras = {}
        self.config, self.joints = config, np.array([0.0, -30, 60, 20, 0, 50])

    @property
    def observation_features(self):
        return {**dict.fromkeys(KEYS, float), **{name: (*size, 3) for name, size in SIZES.items()}}

    @property
    def action_features(self):
        return dict.fromkeys(KEYS, float)

    def get_observation(self):
        return {**dict(zip(KEYS, map(float, self.joints), strict=True)), **{name: self._see(name) for name in SIZES}}

    def send_action(self, action):
        goal = np.array([action[key] for key in KEYS], float)
        self.joints = self.joints + (goal - self.joints) / 2
        if self.config.log:
            with Path(self.config.log).open("a") as file:
                file.write(json.dumps(goal.tolist()) + "\n")
        return action

    def _see(self, camera):
        height, width = SIZES[camera]
        rows, columns = np.mgrid[:height, :width]
        x, y = width * (0.5 + self.joints[0] / 180), height * (0.5 + self.joints[1] / 180)
        near = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 50)
        return (255 * np.stack([near, np.full_like(near, 0.2), columns / width], axis=-1)).astype(np.uint8)


@TeleoperatorConfig.register_subclass("pretend_hand")
@dataclass(kw_only=True)
class PretendHandConfig(TeleoperatorConfig):
    pass


class PretendHand(NoHardware, Teleoperator):
    config_class, name = PretendHandConfig, "pretend_hand"

    def __init__(self, config):
        super().__init__(config)
        self.tick = 0

    @property
    def action_features(self):
        return dict.fromkeys(KEYS, float)

    @property
    def feedback_features(self):
        return {}

    def get_action(self):
        self.tick += 1
        swing = math.sin(self.tick / 7)
        return dict(zip(KEYS, (60 * swing, 40 * swing - 20, 60.0, 20.0, 30 * swing, 50 + 50 * swing), strict=True))

    def send_feedback(self, feedback):
        pass
