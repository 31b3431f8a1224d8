"""The pipelines around the policy. TinyVLA scales, tokenizes and normalises itself, so little is left to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from lerobot.processor import (
    AddBatchDimensionProcessorStep,
    DeviceProcessorStep,
    NormalizerProcessorStep,
    ObservationProcessorStep,
    PolicyProcessorPipeline,
    ProcessorStepRegistry,
    RenameObservationsProcessorStep,
    UnnormalizerProcessorStep,
)
from lerobot.processor.converters import policy_action_to_transition, transition_to_policy_action
from lerobot.utils.constants import POLICY_POSTPROCESSOR_DEFAULT_NAME, POLICY_PREPROCESSOR_DEFAULT_NAME
from torch import Tensor

from tinyvla.config import ModelConfig
from tinyvla.model.observation import resized

from .configuration_tinyvla import TinyVLAConfig


@dataclass
@ProcessorStepRegistry.register(name="tinyvla_images")
class TinyVLAImagesStep(ObservationProcessorStep):
    """Scales images as TinyVLA does: as bytes, on the CPU, before they are sent to a GPU.

    Cameras give bytes; LeRobot has divided them by 255. Scaling them as bytes again is what TinyVLA does where it is
    given the camera's picture, so both roads give the same numbers.
    """

    height: int = 64
    width: int = 64
    resize: str = "stretch"

    def observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        """Called by LeRobot with a batch of observations."""
        return {key: self._scaled(value) if _is_image(key, value) else value for key, value in observation.items()}

    def _scaled(self, images: Tensor) -> Tensor:
        images = images.cpu()  # `lerobot-rollout` has moved them; bytes are scaled on the CPU alone
        pixels = images if images.dtype == torch.uint8 else (images * 255).round().clamp(0, 255).to(torch.uint8)
        return resized(pixels, (self.height, self.width), self.resize).float() / 255

    def get_config(self) -> dict[str, Any]:
        """Called by LeRobot; written into the checkpoint."""
        return {"height": self.height, "width": self.width, "resize": self.resize}

    def transform_features(self, features: Any) -> Any:
        """Called by LeRobot; the features describe the camera, not what is made of its images."""
        return features


def _is_image(key: str, value: Any) -> bool:
    return key.startswith("observation.image") and isinstance(value, Tensor) and value.ndim == 4


def make_tinyvla_pre_post_processors(
    config: TinyVLAConfig, dataset_stats: Mapping[str, Mapping[str, Any]] | None = None
) -> tuple[PolicyProcessorPipeline, PolicyProcessorPipeline]:
    """Returns the steps before and behind the policy; called by LeRobot, which finds it by its name.

    Args:
        config: the policy's.
        dataset_stats: not used. The steps that would normalise do nothing: LeRobot wants to find them by name.
    """
    model = ModelConfig.from_dict(config.model) if config.model else config.tinyvla_config()
    height, width = model.vision.size
    features = {**(config.input_features or {}), **(config.output_features or {})}
    before: list[Any] = [
        RenameObservationsProcessorStep(rename_map={}),
        AddBatchDimensionProcessorStep(),
        TinyVLAImagesStep(height, width, model.observation.resize),
        DeviceProcessorStep(device=config.device or "cpu"),
        NormalizerProcessorStep(features=features, norm_map=config.normalization_mapping, stats=None),
    ]
    behind: list[Any] = [
        UnnormalizerProcessorStep(
            features=config.output_features or {}, norm_map=config.normalization_mapping, stats=None
        ),
        DeviceProcessorStep(device="cpu"),
    ]
    return (
        PolicyProcessorPipeline(steps=before, name=POLICY_PREPROCESSOR_DEFAULT_NAME),
        PolicyProcessorPipeline(
            steps=behind,
            name=POLICY_POSTPROCESSOR_DEFAULT_NAME,
            to_transition=policy_action_to_transition,
            to_output=transition_to_policy_action,
        ),
    )
