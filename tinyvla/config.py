"""Every hyperparameter of TinyVLA, as frozen dataclasses, and the presets built from them.

Notable:
- one dataclass per component; a number that follows from others is a property, never a stored field;
- `__post_init__` refuses what cannot work and says what would;
- `PRESETS` names four sizes; `tinyvla info` counts their parameters.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

FUSION_KINDS = ("cross-attention", "prefix", "fusion-tokens", "gated", "concat", "pool-add")
ABLATION_KINDS = ("vision-only", "language-only")
"""These are no fusions. Each drops one input, to show what the other alone is worth."""
HEAD_KINDS = ("regression", "l1", "directions", "bins", "fast", "flow", "diffusion")
NORMALIZATIONS = ("none", "mean-std", "quantiles")
OPTIMIZERS = ("adamw", "muon")
DTYPES = ("float32", "bfloat16", "float16")


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)


def _check_positive(config: Any, *names: str) -> None:
    """Refuse values below one, naming the field."""
    for name in names:
        value = getattr(config, name)
        _check(value >= 1, f"{type(config).__name__}.{name} is {value}; it must be at least 1")


def _check_heads(config: Any) -> None:
    _check(
        config.embed_dim % config.num_heads == 0,
        f"{type(config).__name__}: embed_dim {config.embed_dim} is not divisible by num_heads "
        f"{config.num_heads}; choose num_heads among the divisors of {config.embed_dim}",
    )


@dataclass(frozen=True)
class VisionConfig:
    """Shape of the vision transformer (`tinyvla.model.vision.TinyViT`)."""

    image_size: int = 64
    """Side of the square input image, in pixels."""
    patch_size: int = 8
    """Side of a patch, in pixels."""
    num_channels: int = 3
    embed_dim: int = 192
    num_layers: int = 4
    num_heads: int = 3
    mlp_ratio: int = 4
    """Hidden width of a block's MLP, in multiples of `embed_dim`."""

    def __post_init__(self) -> None:
        _check_positive(
            self, "image_size", "patch_size", "num_channels", "embed_dim", "num_layers", "num_heads", "mlp_ratio"
        )
        _check(
            self.image_size % self.patch_size == 0,
            f"VisionConfig: image_size {self.image_size} is not divisible by patch_size {self.patch_size}",
        )
        _check(
            self.embed_dim % 4 == 0,
            f"VisionConfig: embed_dim {self.embed_dim} is not divisible by 4, which the 2-D sine-cosine positions need",
        )
        _check_heads(self)

    @property
    def grid_size(self) -> int:
        """Patches along one side."""
        return self.image_size // self.patch_size

    @property
    def num_tokens(self) -> int:
        """Patches plus the CLS token."""
        return self.grid_size**2 + 1


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
        _check_positive(self, "vocab_size", "max_length", "embed_dim", "num_layers", "num_heads", "mlp_ratio")
        _check(
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
    image_size: int = 64
    """Side of the policy's images, which a vision model scales to its own size."""
    num_channels: int = 3
    num_tokens: int = 1
    vocab_size: int = 1
    max_length: int = 32
    """Longest instruction, in a language model's own tokens."""

    def __post_init__(self) -> None:
        _check_positive(self, "embed_dim")
        _check(bool(self.source), "a pretrained part's source is empty; give an id on the hub or a folder")
        _check(self.dtype in DTYPES, f"unknown dtype {self.dtype!r}; choose from {', '.join(DTYPES)}")
        _check(self.frozen or self.dtype == "float32", f"{self.dtype} is for frozen weights; learning needs float32")


@dataclass(frozen=True)
class FusionConfig:
    """How vision tokens and the instruction become one feature (`tinyvla.model.fusion`)."""

    kind: str = "cross-attention"
    """One of `FUSION_KINDS` or `ABLATION_KINDS`."""
    embed_dim: int = 256
    num_heads: int = 4

    def __post_init__(self) -> None:
        _check_positive(self, "embed_dim", "num_heads")
        _check(
            self.kind in FUSION_KINDS + ABLATION_KINDS,
            f"unknown fusion {self.kind!r}; choose from {', '.join(FUSION_KINDS + ABLATION_KINDS)}",
        )
        _check_heads(self)


@dataclass(frozen=True)
class HeadConfig:
    """The action head (`tinyvla.model.heads`) and the actions that it makes."""

    action_dim: int = 2
    hidden_dim: int = 256
    kind: str = "regression"
    """One of `HEAD_KINDS`."""
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

    def __post_init__(self) -> None:
        _check_positive(self, "action_dim", "hidden_dim", "horizon", "num_steps")
        _check(self.kind in HEAD_KINDS, f"unknown head {self.kind!r}; choose from {', '.join(HEAD_KINDS)}")
        _check(self.num_directions in (4, 8), f"num_directions is {self.num_directions}; it must be 4 or 8")
        _check(self.fast_vocab_size >= 2, f"fast_vocab_size is {self.fast_vocab_size}; it must be at least 2")
        _check(self.fast_scale > 0, f"fast_scale is {self.fast_scale}; it must be positive")
        _check(self.num_bins >= 2, f"num_bins is {self.num_bins}; it must be at least 2")
        _check(
            self.normalization in NORMALIZATIONS,
            f"unknown normalization {self.normalization!r}; choose from {', '.join(NORMALIZATIONS)}",
        )
        _check(
            self.hidden_dim % 2 == 0 or self.kind not in ("flow", "diffusion"),
            f"HeadConfig.hidden_dim {self.hidden_dim} is odd; the noise level's sine-cosine needs an even width",
        )
        _check(
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
        _check(not unknown, f"config.json holds unknown keys {unknown}; a TinyVLA's keys are {sorted(_PARTS)}")
        try:
            return cls(**{name: _part(name, values.get(name, {})) for name in _PARTS})
        except TypeError as error:
            raise InputError(f"config.json does not describe a TinyVLA: {error}") from None


_PARTS: dict[str, Any] = {
    "vision": VisionConfig,
    "language": LanguageConfig,
    "fusion": FusionConfig,
    "head": HeadConfig,
}


def _part(name: str, values: dict[str, Any]) -> Any:
    is_pretrained = name in ("vision", "language") and "source" in values
    return (PretrainedConfig if is_pretrained else _PARTS[name])(**values)


@dataclass(frozen=True)
class DataConfig:
    """Sizes and seeds of the three BlockFind splits."""

    num_train: int = 8_000
    num_val: int = 1_000
    num_test: int = 1_000
    train_seed: int = 42
    val_seed: int = 43
    test_seed: int = 44

    def __post_init__(self) -> None:
        _check_positive(self, "num_train", "num_val", "num_test")
        seeds = {self.train_seed, self.val_seed, self.test_seed}
        _check(len(seeds) == 3, "train_seed, val_seed and test_seed must differ, or the splits share their scenes")
        _check(all(0 <= s < 2**32 for s in seeds), "data seeds must lie between 0 and 2**32 - 1")


@dataclass(frozen=True)
class TrainConfig:
    """How the policy is trained."""

    epochs: int = 20
    """Passes over the training split; 2 are enough for 95 %, 20 for 99 %."""
    batch_size: int = 64
    optimizer: str = "adamw"
    """One of `OPTIMIZERS`; "muon" needs fewer steps and wants about ten times the learning rate."""
    learning_rate: float = 3e-4
    weight_decay: float = 0.01
    """Applied to matrices; embeddings, biases and norms are left alone."""
    beta1: float = 0.9
    beta2: float = 0.99
    warmup_steps: int = 100
    """Steps in which the learning rate climbs from zero, at most a quarter of all steps."""
    decay_fraction: float = 0.5
    """Last share of the steps, in which the learning rate falls linearly to zero."""
    grad_clip: float = 1.0
    """Largest gradient norm; longer gradients are scaled down to it."""
    seed: int = 0
    """Decides the initial weights and the order of the scenes."""
    checkpoint_every: int = 5
    """Epochs between kept checkpoints (`epoch_005`, `epoch_010`, ...)."""
    accumulate: int = 1
    """Parts in which a batch is taken, their gradients added up: the same step with less memory."""
    recompute: bool = False
    """Keep each block's input alone and run the block again in the backward pass: less memory, more time."""

    def __post_init__(self) -> None:
        _check_positive(self, "epochs", "batch_size", "checkpoint_every", "accumulate")
        _check(
            self.accumulate <= self.batch_size,
            f"accumulate is {self.accumulate}, but a batch has {self.batch_size} scenes; it cannot have more parts",
        )
        _check(
            self.optimizer in OPTIMIZERS, f"unknown optimizer {self.optimizer!r}; choose from {', '.join(OPTIMIZERS)}"
        )
        _check(self.learning_rate > 0, f"learning_rate is {self.learning_rate}; it must be positive (try 3e-4)")
        _check(self.grad_clip > 0, f"grad_clip is {self.grad_clip}; it must be positive (try 1.0)")
        _check(self.weight_decay >= 0, f"weight_decay is {self.weight_decay}; it must not be negative")
        _check(self.warmup_steps >= 0, f"warmup_steps is {self.warmup_steps}; it must not be negative")
        _check(0 <= self.decay_fraction <= 1, f"decay_fraction is {self.decay_fraction}; it must lie in [0, 1]")
        _check(0 <= self.seed < 2**63, f"seed is {self.seed}; it must lie between 0 and 2**63 - 1")


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
    _check(preset in PRESETS, f"unknown preset {preset!r}; choose from {', '.join(PRESETS)}")
    config = PRESETS[preset]
    if fusion is not None:
        config = dataclasses.replace(config, fusion=dataclasses.replace(config.fusion, kind=fusion))
    if head is not None:
        config = dataclasses.replace(config, head=dataclasses.replace(config.head, kind=head))
    return config
