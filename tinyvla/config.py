"""The shape of a policy as frozen dataclasses, and the presets; how it is trained is in `tinyvla.recipes`.

Notable:
- one dataclass per component; a number that follows from others is a property, never a stored field;
- a field's type and bounds stand in its annotation; `__post_init__` refuses what cannot work and says what would;
- `PRESETS` names four sizes; `tinyvla info` counts their parameters.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Any

from tinyvla.fields import MAX_SIDE, StepsAhead, Within, check, check_fields, checked, make, shown
from tinyvla.registry import FUSIONS, HEADS
from tinyvla.sizes import check_heads, check_image_size, height_and_width, nearest

NORMALIZATIONS = ("none", "mean-std", "quantiles")
DTYPES = ("float32", "bfloat16", "float16")
RESIZES = ("stretch", "pad")
STEMS = ("linear", "convolutional")
MAX_TOKENS = 4_096

Width = Annotated[int, Within(1, 8_192)]
Layers = Annotated[int, Within(1, 256)]
Heads = Annotated[int, Within(1, 1_024)]
Ratio = Annotated[int, Within(1, 64)]
Length = Annotated[int, Within(1, 4_096)]
Vocabulary = Annotated[int, Within(1, 2**20)]
Channels = Annotated[int, Within(1, 64)]


@dataclass(frozen=True)
class VisionConfig:
    """Shape of the vision transformer (`tinyvla.model.vision.TinyViT`)."""

    image_size: int | tuple[int, int] = 64
    """Height and width of the images at the model's door, in pixels; one number where they are equal."""
    patch_size: Annotated[int, Within(1, MAX_SIDE)] = 8
    """Side of a patch, in pixels."""
    num_channels: Channels = 3
    embed_dim: Width = 192
    num_layers: Layers = 4
    num_heads: Heads = 3
    mlp_ratio: Ratio = 4
    """Hidden width of a block's MLP, in multiples of `embed_dim`."""
    stem: str = "linear"
    """How a patch becomes a token, one of `STEMS`: one linear layer, or a few convolutions, which see more detail."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_image_size(self)
        wrong = [side for side in self.size if side % self.patch_size]
        if wrong:
            divisors = [n for n in range(1, min(self.size) + 1) if all(side % n == 0 for side in self.size)]
            check(
                False,
                f"VisionConfig: image_size {self.image_size} is not divisible by patch_size {self.patch_size}; "
                f"{nearest(wrong[0], self.patch_size)} would be, or a patch_size of {', '.join(map(str, divisors))}",
            )
        check(self.stem in STEMS, f"unknown stem {self.stem!r}; choose from {', '.join(STEMS)}")
        check(
            self.stem == "linear" or self.patch_size % 4 == 0,
            f"a convolutional stem halves its squares twice, so 4 must divide patch_size, which is {self.patch_size}",
        )
        check(
            self.num_tokens <= MAX_TOKENS + 1,
            f"VisionConfig: image_size {self.image_size} in patches of {self.patch_size} makes {self.num_tokens - 1} "
            f"patches; at most {MAX_TOKENS} are taken",
        )
        check(
            self.embed_dim % 4 == 0,
            f"VisionConfig: embed_dim {self.embed_dim} is not divisible by 4, which the 2-D sine-cosine positions need",
        )
        check_heads(self)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of an image, in pixels."""
        return height_and_width(self.image_size)

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

    vocab_size: Vocabulary = 30_522
    """Rows of the embedding, those of DistilBERT's vocabulary, so that ids and real checkpoints fit."""
    max_length: Length = 32
    """Longest instruction, in tokens, [CLS] and [SEP] included."""
    embed_dim: Width = 256
    num_layers: Layers = 4
    num_heads: Heads = 4
    mlp_ratio: Ratio = 4

    def __post_init__(self) -> None:
        check_fields(self)
        check(
            self.embed_dim % 2 == 0,
            f"LanguageConfig: embed_dim {self.embed_dim} is odd; the sine-cosine positions need an even width",
        )
        check_heads(self)


@dataclass(frozen=True)
class PretrainedConfig:
    """A Hugging Face model in one of the two slots, from `source`: its id on the hub, or a folder."""

    source: str
    embed_dim: Width
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
    num_channels: Channels = 3
    num_tokens: Annotated[int, Within(1, MAX_TOKENS + 1)] = 1
    vocab_size: Vocabulary = 1
    max_length: Length = 32
    """Longest instruction, in a language model's own tokens."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_image_size(self)
        check(bool(self.source), "a pretrained part's source is empty; give an id on the hub or a folder")
        check(self.dtype in DTYPES, f"unknown dtype {self.dtype!r}; choose from {', '.join(DTYPES)}")
        check(self.frozen or self.dtype == "float32", f"{self.dtype} is for frozen weights; learning needs float32")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the policy's images, in pixels."""
        return height_and_width(self.image_size)


@dataclass(frozen=True)
class ObservationConfig:
    """What the policy is given beside the sentence (`tinyvla.model.observation`)."""

    cameras: tuple[str, ...] = ("camera",)
    """Names of the cameras, in order; a data set's key is `observation.images.` and the name."""
    state_dim: Annotated[int, Within(0, 4_096)] = 0
    """Numbers in the robot's own state, such as joint angles; 0 leaves the state out."""
    resize: str = "stretch"
    """How an image of another size is brought to the policy's: one of `RESIZES`. "pad" keeps its proportions."""
    state_normalization: str = "mean-std"
    """One of `NORMALIZATIONS`."""
    statistics: str = ""
    """Fingerprint of the state's statistics; written by `TinyVLA.fit_statistics`."""

    def __post_init__(self) -> None:
        check_fields(self)
        check(bool(self.cameras), "a policy needs at least one camera; name it in ObservationConfig.cameras")
        check(all(self.cameras), f"cameras are {shown(self.cameras)}; they must be a tuple of names such as 'wrist'")
        check(len(self.cameras) <= 64, f"there are {len(self.cameras)} cameras; at most 64 are taken")
        check(len(set(self.cameras)) == len(self.cameras), f"a camera is named twice in {', '.join(self.cameras)}")
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
    embed_dim: Width = 256
    num_heads: Heads = 4

    def __post_init__(self) -> None:
        check_fields(self)
        FUSIONS.check(self.kind)
        check_heads(self)


@dataclass(frozen=True)
class HeadConfig:
    """The action head (`tinyvla.model.heads`) and the actions that it makes."""

    action_dim: Annotated[int, Within(1, 1_024)] = 2
    hidden_dim: Width = 256
    kind: str = "regression"
    """One of `tinyvla.registry.HEADS`."""
    horizon: Annotated[int, Within(1, 1_024)] = 1
    """Actions in a chunk."""
    num_directions: Annotated[int, Within(4, 8)] = 8
    """Of the kind `directions`; 4 (right, up, left, down) or 8."""
    num_bins: Annotated[int, Within(2, 2**16)] = 256
    """Of the kind `bins`, between -1 and 1."""
    fast_vocab_size: Annotated[int, Within(2, 2**16)] = 512
    """Of the kind `fast`; tokens that byte-pair encoding may make."""
    fast_scale: Annotated[float, Within(0, 1e6, above=True)] = 20.0
    """Of the kind `fast`; frequencies are multiplied by it and rounded. Larger is finer and gives more tokens."""
    num_steps: Annotated[int, Within(1, 10_000)] = 10
    """Of the kinds `flow` and `diffusion`; steps from noise to action."""
    normalization: str = "none"
    """One of `NORMALIZATIONS`; "none" expects actions in [-1, 1]."""
    statistics: str = ""
    """Fingerprint of the statistics, and of `fast`'s tokenizer; written by `TinyVLA.fit_statistics`."""
    waypoints: tuple[StepsAhead, ...] = ()
    """Steps ahead at which the robot's own state is a further target in training; none if empty."""

    def __post_init__(self) -> None:
        check_fields(self)
        HEADS.check(self.kind)
        check(self.num_directions in (4, 8), f"num_directions is {self.num_directions}; it must be 4 or 8")
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
        check_fields(self)
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
            InputError: a key is unknown or missing, or a value is refused by its dataclass.
        """
        is_object = isinstance(values, dict)
        parts = {name: _part(name, part) for name, part in values.items()} if is_object else values
        return make(cls, parts, "config.json")


_PARTS: dict[str, Any] = {
    "vision": VisionConfig,
    "language": LanguageConfig,
    "fusion": FusionConfig,
    "head": HeadConfig,
    "observation": ObservationConfig,
}


def _part(name: str, values: Any) -> Any:
    """Returns the dataclass of a part; what is no part is left for `make` to refuse."""
    is_pretrained = name in ("vision", "language") and isinstance(values, dict) and "source" in values
    kind = PretrainedConfig if is_pretrained else _PARTS.get(name)
    return values if kind is None else make(kind, values, f"{name} in config.json")


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


@checked
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
