"""A checkpoint of TinyVLA as one of LeRobot's, and back. The weights are the same numbers in both."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lerobot.configs.policies import PreTrainedConfig
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.utils.constants import ACTION, OBS_STATE

from tinyvla.data.lerobot import camera_name
from tinyvla.fields import check, shown
from tinyvla.files import read_json
from tinyvla.model.checkpoint_files import CONFIG_FILE
from tinyvla.model.observation import IMAGE_KEY
from tinyvla.model.policy import TinyVLA

from .configuration_tinyvla import TinyVLAConfig
from .modeling_tinyvla import TinyVLAPolicy
from .processor_tinyvla import make_tinyvla_pre_post_processors

Sizes = Mapping[str, tuple[int, int]]
"""Height and width of a camera's images, by its key in LeRobot."""


def to_lerobot(
    checkpoint: str | Path,
    folder: str | Path,
    cameras: Sizes | None = None,
    execute: int | None = None,
    device: str = "cpu",
) -> Path:
    """Write a checkpoint of TinyVLA as one that LeRobot's commands take.

    Args:
        checkpoint: of `tinyvla train`, or its id on the hub.
        folder: where to write; must not exist.
        cameras: keys and sizes of the robot's cameras; by default `observation.images.NAME` at the policy's own size.
            The asynchronous server brings images to this size, so it should be the camera's.
        execute: actions of a chunk that are done before the policy looks again; half of the chunk by default.
        device: where LeRobot shall run it, unless told otherwise.

    Returns:
        The folder.

    Raises:
        InputError: there is no such checkpoint, the folder exists, or the cameras are not the policy's.
    """
    folder = Path(folder)
    check(not folder.exists(), f"{folder} exists; name a folder that does not")
    model = TinyVLA.from_pretrained(checkpoint)
    config, known = model.config, model.config.observation.cameras
    sizes = dict(cameras or {IMAGE_KEY + name: config.vision.size for name in known})
    ordered = {camera_name(key): (key, sizes[key]) for key in sizes}
    check(
        sorted(ordered) == sorted(known),
        f"the policy has the cameras {', '.join(known)}, and not {', '.join(ordered) or 'none'}",
    )
    channels, state_dim = config.vision.num_channels, config.observation.state_dim
    features = {ordered[name][0]: PolicyFeature(FeatureType.VISUAL, (channels, *ordered[name][1])) for name in known}
    features |= {OBS_STATE: PolicyFeature(FeatureType.STATE, (state_dim,))} if state_dim else {}
    horizon = config.head.horizon
    theirs = TinyVLAConfig(
        input_features=features,
        output_features={ACTION: PolicyFeature(FeatureType.ACTION, (config.head.action_dim,))},
        device=device,
        push_to_hub=False,
        head=config.head.kind,
        fusion=config.fusion.kind,
        chunk_size=horizon,
        n_action_steps=execute or max(1, horizon // 2),
        image_size=config.vision.size[0],
        normalization=config.head.normalization,
        model=config.to_dict(),
    )
    TinyVLAPolicy(theirs, model=model).save_pretrained(folder)
    for processor in make_tinyvla_pre_post_processors(theirs):
        processor.save_pretrained(folder)
    return folder


def from_lerobot(checkpoint: str | Path, folder: str | Path) -> Path:
    """Write the `pretrained_model` of a `lerobot-train` run as a checkpoint of TinyVLA.

    Args:
        checkpoint: a folder such as `outputs/train/NAME/checkpoints/last/pretrained_model`.
        folder: where to write; must not exist.

    Returns:
        The folder.

    Raises:
        InputError: the checkpoint is none of this policy's, or the folder exists.
    """
    folder = Path(folder)
    check(not folder.exists(), f"{folder} exists; name a folder that does not")
    config_file = Path(checkpoint) / CONFIG_FILE
    kind = read_json(config_file, f"{checkpoint} holds no {CONFIG_FILE}, so it is no checkpoint").get("type")
    check(kind == "tinyvla", f"{config_file} is of the type {shown(kind)}, and not a tinyvla that LeRobot has saved")
    config = PreTrainedConfig.from_pretrained(checkpoint)
    config.device = "cpu"
    TinyVLAPolicy.from_pretrained(checkpoint, config=config).model.save_pretrained(folder)
    return folder
