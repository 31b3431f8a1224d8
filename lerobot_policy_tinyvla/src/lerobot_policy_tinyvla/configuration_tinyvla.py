"""What `--policy.type=tinyvla` can be told, and how it becomes TinyVLA's own configuration."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from lerobot.configs.policies import PreTrainedConfig
from lerobot.configs.types import NormalizationMode
from lerobot.optim.optimizers import AdamWConfig
from lerobot.optim.schedulers import CosineDecayWithWarmupSchedulerConfig

from tinyvla.config import ModelConfig, ObservationConfig, model_config
from tinyvla.data.lerobot import camera_name
from tinyvla.fields import Within, check, check_number
from tinyvla.recipes import RecordingConfig

FIXED = {
    "head": ("head", "kind"),
    "fusion": ("fusion", "kind"),
    "chunk_size": ("head", "horizon"),
    "normalization": ("head", "normalization"),
}
"""Options that a trained policy has decided, and where its own configuration says so."""


@PreTrainedConfig.register_subclass("tinyvla")
@dataclass
class TinyVLAConfig(PreTrainedConfig):
    """A TinyVLA as LeRobot configures policies. Cameras, state and actions follow from the data set's features.

    Raises:
        InputError: a value is refused by TinyVLA, or contradicts the checkpoint that is loaded.
    """

    preset: str = "minimal"
    """Whose towers: one of `tinyvla.PRESETS`."""
    head: str = "l1"
    """One of `tinyvla.registry.HEADS`, but for `fast`, which needs all actions before training."""
    fusion: str = "prefix"
    """One of `tinyvla.registry.FUSIONS`."""
    image_size: int = 192
    """Height and width to which images are scaled, in pixels; a multiple of 32."""
    chunk_size: int = 16
    """Actions in a chunk."""
    n_action_steps: int = 8
    """Actions of a chunk that are done before the policy looks again."""
    normalization: str = "mean-std"
    """Of actions and state: `mean-std`, or `quantiles`, which LeRobot up to 0.6.1 averages over episodes."""
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: dict.fromkeys(("VISUAL", "STATE", "ACTION"), NormalizationMode.IDENTITY)
    )
    """LeRobot normalises nothing here: TinyVLA does, with statistics that lie among its weights."""

    optimizer_lr: float = 3e-4
    optimizer_betas: tuple[float, float] = (0.9, 0.95)
    optimizer_weight_decay: float = 0.05
    optimizer_grad_clip_norm: float = 1.0
    scheduler_warmup_steps: int = 300
    scheduler_decay_steps: int = 30_000
    scheduler_decay_lr: float = 1e-5

    instruction: str = ""
    """What the policy is told where LeRobot has no sentence, as in an environment without a task's name."""
    action_feature_names: list[str] | None = None
    """Names of the numbers of an action, in order; LeRobot writes them, and matches them to the robot's motors."""
    model: dict[str, Any] | None = None
    """TinyVLA's own configuration; written when the policy is made, and read when a checkpoint is loaded."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.n_obs_steps == 1, f"n_obs_steps is {self.n_obs_steps}; TinyVLA looks at one moment")
        check_number("n_action_steps", self.n_action_steps, Within(1, self.chunk_size))
        for option, (part, name) in FIXED.items():
            mine = getattr(self, option)
            decided = self.model[part][name] if self.model else mine
            check(mine == decided, f"policy.{option} is {mine!r}, but the checkpoint was made with {decided!r}")

    def validate_features(self) -> None:
        """Refuse features that TinyVLA cannot look at or answer with.

        Raises:
            InputError: there is no image, no action, or two cameras have one name.
        """
        check(bool(self.image_features), "TinyVLA needs at least one camera, and the data set has none")
        check(self.action_feature is not None, "the data set has no feature named action")
        names = list(self.cameras.values())
        check(len(set(names)) == len(names), f"two cameras have one name: {', '.join(self.image_features)}")

    @property
    def cameras(self) -> dict[str, str]:
        """The camera's name in TinyVLA behind each key of LeRobot's."""
        return {key: camera_name(key) for key in self.image_features}

    def tinyvla_config(self) -> ModelConfig:
        """Returns TinyVLA's own configuration: the checkpoint's, or a new one for the data set's features."""
        self.validate_features()
        if self.model:
            return ModelConfig.from_dict(self.model)
        check(
            self.head != "fast", "the head fast makes its tokens from all actions; train with `tinyvla train`, convert"
        )
        sizes = RecordingConfig(self.image_size, self.chunk_size)
        config, state = model_config(self.preset, self.fusion, self.head), self.robot_state_feature
        assert self.action_feature is not None  # validate_features has refused it
        head: dict[str, Any] = {"action_dim": self.action_feature.shape[0], "horizon": self.chunk_size}
        look: dict[str, Any] = {"image_size": sizes.image_size, "patch_size": sizes.patch_size, "stem": sizes.stem}
        return dataclasses.replace(
            config,
            vision=dataclasses.replace(config.vision, **look),
            head=dataclasses.replace(config.head, normalization=self.normalization, **head),
            observation=ObservationConfig(
                tuple(self.cameras.values()), state.shape[0] if state else 0, state_normalization=self.normalization
            ),
        )

    def get_optimizer_preset(self) -> AdamWConfig:
        """Called by LeRobot where `--optimizer` says nothing else."""
        return AdamWConfig(
            lr=self.optimizer_lr,
            betas=self.optimizer_betas,
            weight_decay=self.optimizer_weight_decay,
            grad_clip_norm=self.optimizer_grad_clip_norm,
        )

    def get_scheduler_preset(self) -> CosineDecayWithWarmupSchedulerConfig:
        """Called by LeRobot; a shorter training gets a proportionally shorter schedule."""
        return CosineDecayWithWarmupSchedulerConfig(
            peak_lr=self.optimizer_lr,
            decay_lr=self.scheduler_decay_lr,
            num_warmup_steps=self.scheduler_warmup_steps,
            num_decay_steps=self.scheduler_decay_steps,
        )

    @property
    def observation_delta_indices(self) -> None:
        """Called by LeRobot: no earlier or later observations."""
        return None

    @property
    def action_delta_indices(self) -> list[int]:
        """Called by LeRobot: the actions of a chunk, the first of which belongs to the observation."""
        return list(range(self.chunk_size))

    @property
    def reward_delta_indices(self) -> None:
        """Called by LeRobot: no rewards."""
        return None
