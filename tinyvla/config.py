"""The shape of a policy as frozen dataclasses, and the presets; how it is trained is in `tinyvla.recipes`.

Notable:
- one dataclass per component; a number that follows from others is a property, never a stored field;
- `__post_init__` refuses what cannot work and says what would;
- `PRESETS` names four sizes; `tinyvla info` counts their parameters.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from tinyvla.errors import InputError
from tinyvla.registry import FUSIONS, HEADS

NORMALIZATIONS = ("none", "mean-std", "quantiles")
DTYPES = ("float32", "bfloat16", "float16")
RESIZES = ("stretch", "pad")
STEMS = ("linear", "convolutional")


def check(condition: bool, message: str) -> None:
    """Refuse a configuration, with a message, unless a condition holds."""
    if not condition:
        raise InputError(message)


def check_positive(config: Any, *names: str) -> None:
    """Refuse values below one, naming the field."""
    for name in names:
        value = getattr(config, name)
        check(value >= 1, f"{type(config).__name__}.{name} is {value}; it must be at least 1")


def _height_and_width(image_size: int | tuple[int, int]) -> tuple[int, int]:
    return (image_size, image_size) if isinstance(image_size, int) else image_size


def _check_image_size(config: Any) -> None:
    """Refuse what is not one or two positive whole numbers."""
    size = config.image_size
    sides = size if isinstance(size, tuple) else (size, size)
    check(
        len(sides) == 2 and all(isinstance(side, int) and side >= 1 for side in sides),
        f"{type(config).__name__}.image_size is {size}; it must be pixels, at least 1: one number, or height and width",
    )


def _nearest(side: int, patch_size: int) -> str:
    """The sizes next to `side` that the patch divides, in words."""
    below, above = side // patch_size * patch_size, -(-side // patch_size) * patch_size
    return f"{below} or {above}" if below else f"{above}"


def _check_heads(config: Any) -> None:
    check(
        config.embed_dim % config.num_heads == 0,
        f"{type(config).__name__}: embed_dim {config.embed_dim} is not divisible by num_heads "
        f"{config.num_heads}; choose num_heads among the divisors of {config.embed_dim}",
    )


@dataclass(frozen=True)
class VisionConfig:
    """Shape of the vision transformer (`tinyvla.model.vision.TinyViT`)."""

    image_size: int | tuple[int, int] = 64
    """Height and width of the images at the model's door, in pixels; one number where they are equal."""
    patch_size: int = 8
    """Side of a patch, in pixels."""
    num_channels: int = 3
    embed_dim: int = 192
    num_layers: int = 4
    num_heads: int = 3
    mlp_ratio: int = 4
    """Hidden width of a block's MLP, in multiples of `embed_dim`."""
    stem: str = "linear"
    """How a patch becomes a token, one of `STEMS`: one linear layer, or a few convolutions, which see more detail."""

    def __post_init__(self) -> None:
        check_positive(self, "patch_size", "num_channels", "embed_dim", "num_layers", "num_heads", "mlp_ratio")
        _check_image_size(self)
        wrong = [side for side in self.size if side % self.patch_size]
        if wrong:
            divisors = [n for n in range(1, min(self.size) + 1) if all(side % n == 0 for side in self.size)]
            check(
                False,
                f"VisionConfig: image_size {self.image_size} is not divisible by patch_size {self.patch_size}; "
                f"{_nearest(wrong[0], self.patch_size)} would be, or a patch_size of {', '.join(map(str, divisors))}",
            )
        check(self.stem in STEMS, f"unknown stem {self.stem!r}; choose from {', '.join(STEMS)}")
        check(
            self.stem == "linear" or self.patch_size % 4 == 0,
            f"a convolutional stem halves its squares twice, so 4 must divide patch_size, which is {self.patch_size}",
        )
        check(
            self.embed_dim % 4 == 0,
            f"VisionConfig: embed_dim {self.embed_dim} is not divisible by 4, which the 2-D sine-cosine positions need",
        )
        _check_heads(self)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of an image, in pixels."""
        return _height_and_width(self.image_size)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        height, width = self.size
        return height // self.patch_size, width // self.patch_size

    @property
    def num_tokens(self) -> int:
        """Patches plus the CLS token."""
        rows, columns = self.grid
        return rows * columns + 1


@dataclass(frozen=True)
class LanguageConfig:
    """Shape of the causal language model (`tinyvla.model.language.TinyLanguageModel`)."""

    vocab_size: int = 30_522
    """Rows of the embedding, those of DistilBERT's vocabulary, so that ids and real checkpoints fit."""
    max_length: int = 32
    """Longest instruction, in tokens, [CLS] and [SEP] included."""
    embed_dim: int = 256
    num_layers: int = 4
    num_heads: int = 4
    mlp_ratio: int = 4

    def __post_init__(self) -> None:
        check_positive(self, "vocab_size", "max_length", "embed_dim", "num_layers", "num_heads", "mlp_ratio")
        check(
            self.embed_dim % 2 == 0,
            f"LanguageConfig: embed_dim {self.embed_dim} is odd; the sine-cosine positions need an even width",
        )
        _check_heads(self)


@dataclass(frozen=True)
class PretrainedConfig:
    """A Hugging Face model in one of the two slots, from `source`: its id on the hub, or a folder."""

    source: str
    embed_dim: int
    frozen: bool = True
    """Frozen weights do not learn, and a checkpoint does not hold them: they are fetched from `source` again."""
    dtype: str = "float32"
    """One of `DTYPES`; for frozen weights, bfloat16 saves half of the memory."""
    revision: str = ""
    """Commit on the hub; the newest unless given."""
    fingerprint: str = ""
    """Of the weights that were loaded; others are refused."""
    image_size: int | tuple[int, int] = 64
    """Height and width of the policy's images, which a vision model scales to its own size."""
    num_channels: int = 3
    num_tokens: int = 1
    vocab_size: int = 1
    max_length: int = 32
    """Longest instruction, in a language model's own tokens."""

    def __post_init__(self) -> None:
        check_positive(self, "embed_dim")
        _check_image_size(self)
        check(bool(self.source), "a pretrained part's source is empty; give an id on the hub or a folder")
        check(self.dtype in DTYPES, f"unknown dtype {self.dtype!r}; choose from {', '.join(DTYPES)}")
        check(self.frozen or self.dtype == "float32", f"{self.dtype} is for frozen weights; learning needs float32")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the policy's images, in pixels."""
        return _height_and_width(self.image_size)


@dataclass(frozen=True)
class ObservationConfig:
    """What the policy is given beside the sentence (`tinyvla.model.observation`)."""

    cameras: tuple[str, ...] = ("camera",)
    """Names of the cameras, in order; a data set's key is `observation.images.` and the name."""
    state_dim: int = 0
    """Numbers in the robot's own state, such as joint angles; 0 leaves the state out."""
    resize: str = "stretch"
    """How an image of another size is brought to the policy's: one of `RESIZES`. "pad" keeps its proportions."""
    state_normalization: str = "mean-std"
    """One of `NORMALIZATIONS`."""
    statistics: str = ""
    """Fingerprint of the state's statistics; written by `TinyVLA.fit_statistics`."""

    def __post_init__(self) -> None:
        check(bool(self.cameras), "a policy needs at least one camera; name it in ObservationConfig.cameras")
        check(
            all(isinstance(name, str) and name for name in self.cameras),
            f"cameras are {list(self.cameras)}; each must be a name such as 'wrist'",
        )
        check(len(set(self.cameras)) == len(self.cameras), f"a camera is named twice in {', '.join(self.cameras)}")
        check(self.state_dim >= 0, f"state_dim is {self.state_dim}; it must not be negative")
        check(self.resize in RESIZES, f"unknown resize {self.resize!r}; choose from {', '.join(RESIZES)}")
        check(
            self.state_normalization in NORMALIZATIONS,
            f"unknown state_normalization {self.state_normalization!r}; choose from {', '.join(NORMALIZATIONS)}",
        )


@dataclass(frozen=True)
class FusionConfig:
    """How vision tokens and the instruction become one feature (`tinyvla.model.fusion`)."""

    kind: str = "cross-attention"
    """One of `tinyvla.registry.FUSIONS`."""
    embed_dim: int = 256
    num_heads: int = 4

    def __post_init__(self) -> None:
        check_positive(self, "embed_dim", "num_heads")
        FUSIONS.check(self.kind)
        _check_heads(self)


@dataclass(frozen=True)
class HeadConfig:
    """The action head (`tinyvla.model.heads`) and the actions that it makes."""

    action_dim: int = 2
    hidden_dim: int = 256
    kind: str = "regression"
    """One of `tinyvla.registry.HEADS`."""
    horizon: int = 1
    """Actions in a chunk."""
    num_directions: int = 8
    """Of the kind `directions`; 4 (right, up, left, down) or 8."""
    num_bins: int = 256
    """Of the kind `bins`, between -1 and 1."""
    fast_vocab_size: int = 512
    """Of the kind `fast`; tokens that byte-pair encoding may make."""
    fast_scale: float = 20.0
    """Of the kind `fast`; frequencies are multiplied by it and rounded. Larger is finer and gives more tokens."""
    num_steps: int = 10
    """Of the kinds `flow` and `diffusion`; steps from noise to action."""
    normalization: str = "none"
    """One of `NORMALIZATIONS`; "none" expects actions in [-1, 1]."""
    statistics: str = ""
    """Fingerprint of the statistics, and of `fast`'s tokenizer; written by `TinyVLA.fit_statistics`."""
    waypoints: tuple[int, ...] = ()
    """Steps ahead at which the robot's own state is a further target in training; none if empty."""

    def __post_init__(self) -> None:
        check_positive(self, "action_dim", "hidden_dim", "horizon", "num_steps")
        HEADS.check(self.kind)
        check(self.num_directions in (4, 8), f"num_directions is {self.num_directions}; it must be 4 or 8")
        check(self.fast_vocab_size >= 2, f"fast_vocab_size is {self.fast_vocab_size}; it must be at least 2")
        check(self.fast_scale > 0, f"fast_scale is {self.fast_scale}; it must be positive")
        check(
            all(isinstance(step, int) and step >= 1 for step in self.waypoints),
            f"waypoints are {list(self.waypoints)}; each must be a number of steps ahead, at least 1",
        )
        check(self.num_bins >= 2, f"num_bins is {self.num_bins}; it must be at least 2")
        check(
            self.normalization in NORMALIZATIONS,
            f"unknown normalization {self.normalization!r}; choose from {', '.join(NORMALIZATIONS)}",
        )
        check(
            self.hidden_dim % 2 == 0 or self.kind not in ("flow", "diffusion"),
            f"HeadConfig.hidden_dim {self.hidden_dim} is odd; the noise level's sine-cosine needs an even width",
        )
        check(
            self.kind != "bins" or self.normalization != "mean-std",
            "bins need bounded actions: choose normalization quantiles or none",
        )


@dataclass(frozen=True)
class ModelConfig:
    """A whole `tinyvla.TinyVLA`."""

    vision: VisionConfig | PretrainedConfig = field(default_factory=VisionConfig)
    language: LanguageConfig | PretrainedConfig = field(default_factory=LanguageConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    observation: ObservationConfig = field(default_factory=ObservationConfig)

    def __post_init__(self) -> None:
        check(
            not self.head.waypoints or self.observation.state_dim > 0,
            "waypoints are future states of the robot, and this policy knows no state; set ObservationConfig.state_dim",
        )

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dictionaries, as written to `config.json`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """The inverse of `to_dict`.

        Raises:
            InputError: a key is unknown or a value is refused by its dataclass.
        """
        unknown = sorted(set(values) - set(_PARTS))
        check(not unknown, f"config.json holds unknown keys {unknown}; a TinyVLA's keys are {sorted(_PARTS)}")
        try:
            return cls(**{name: _part(name, values.get(name, {})) for name in _PARTS})
        except TypeError as error:
            raise InputError(f"config.json does not describe a TinyVLA: {error}") from None


_PARTS: dict[str, Any] = {
    "vision": VisionConfig,
    "language": LanguageConfig,
    "fusion": FusionConfig,
    "head": HeadConfig,
    "observation": ObservationConfig,
}


def _part(name: str, values: dict[str, Any]) -> Any:
    is_pretrained = name in ("vision", "language") and "source" in values
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return (PretrainedConfig if is_pretrained else _PARTS[name])(**values)


def _preset(vision: tuple[int, int, int], language: tuple[int, int, int], fusion_dim: int) -> ModelConfig:
    """Towers as (embed_dim, num_layers, num_heads); the fusion has the language model's heads."""
    return ModelConfig(
        VisionConfig(embed_dim=vision[0], num_layers=vision[1], num_heads=vision[2]),
        LanguageConfig(embed_dim=language[0], num_layers=language[1], num_heads=language[2]),
        FusionConfig(embed_dim=fusion_dim, num_heads=language[2]),
        HeadConfig(hidden_dim=fusion_dim),
    )


PRESETS: dict[str, ModelConfig] = {
    "nano": _preset(vision=(96, 2, 3), language=(128, 2, 4), fusion_dim=128),
    "minimal": _preset(vision=(192, 4, 3), language=(256, 4, 4), fusion_dim=256),
    "medium": _preset(vision=(512, 10, 8), language=(640, 10, 10), fusion_dim=640),
    # The vision tower is SmolVLA's (768 x 12) and so is the language width (960). SmolVLA uses 16 language layers and
    # spends about 100 M parameters on an action expert that TinyVLA does not have; here they are language layers.
    "smolvla_like": _preset(vision=(768, 12, 12), language=(960, 30, 15), fusion_dim=960),
}


def model_config(preset: str, fusion: str | None = None, head: str | None = None) -> ModelConfig:
    """The configuration of a preset, with another fusion or head if one is named.

    Raises:
        InputError: the preset, the fusion or the head is unknown; the message lists the known ones.
    """
    check(preset in PRESETS, f"unknown preset {preset!r}; choose from {', '.join(PRESETS)}")
    config = PRESETS[preset]
    if fusion is not None:
        config = dataclasses.replace(config, fusion=dataclasses.replace(config.fusion, kind=fusion))
    if head is not None:
        config = dataclasses.replace(config, head=dataclasses.replace(config.head, kind=head))
    return config
