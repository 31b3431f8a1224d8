"""A policy's configuration for the arm."""

from __future__ import annotations

from dataclasses import replace

from tinyvla.act.arm.scene import CAMERAS
from tinyvla.act.arm.world import ACTION_DIM, STATE_DIM
from tinyvla.config import ModelConfig, ObservationConfig, model_config


def arm_config(
    preset: str = "nano", horizon: int = 8, image_size: int = 64, cameras: str = "stacked", with_state: bool = False
) -> ModelConfig:
    """Returns a preset with a flow head that makes chunks of seven-dimensional actions.

    Args:
        preset: one of `tinyvla.config.PRESETS`.
        horizon: actions in a chunk.
        image_size: of the world's pictures; see `tinyvla.act.arm.world.ArmConfig`.
        cameras: "stacked" for one camera, "separate" for two, as in the world's rules.
        with_state: give it the robot's own state, too.
    """
    config = model_config(preset, head="flow")
    head = replace(config.head, action_dim=ACTION_DIM, horizon=horizon, normalization="mean-std")
    observation = ObservationConfig(state_dim=STATE_DIM if with_state else 0)
    size: int | tuple[int, int] = image_size
    if cameras == "separate":
        observation, size = replace(observation, cameras=CAMERAS), (image_size // 2, image_size)
    return replace(config, head=head, vision=replace(config.vision, image_size=size), observation=observation)
