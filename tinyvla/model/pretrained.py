"""Pretrained towers: a vision or a language model from the Hugging Face hub in one of TinyVLA's two slots.

Notable:
- a tower is the plain `transformers` model, under `.model`, and as much around it as the slot needs: pixels scaled as
  the model was trained to see them, sentences cut by its own tokenizer;
- frozen weights are not kept in a checkpoint. It names their source, the commit there and a fingerprint, and they are
  fetched from there again; so a policy on top of Phi-2 weighs megabytes. Weights that learn are kept as always;
- a source's files are read by `tinyvla.model.hub`, and no code that comes with them is run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tinyvla.config import LanguageConfig, ModelConfig, PretrainedConfig, VisionConfig, model_config
from tinyvla.errors import InputError
from tinyvla.fields import check
from tinyvla.model.hub import NO_CODE, explained, files_of, read_model_config, read_processing, read_tokenizer, side_of
from tinyvla.model.language import LanguageTower, TinyLanguageModel
from tinyvla.model.tokenizer import EXAMPLE, Encoded, check_text, pad
from tinyvla.model.vision import TinyViT, VisionTower

SLOTS = ("vision", "language")


class PretrainedVision(VisionTower):
    """A Hugging Face vision model: SigLIP, DINOv2, CLIP or ViT. `forward` gives its last layer's tokens.

    SigLIP's are patches alone; the others put CLS in front. The centre crop of some image processors is left out: it
    suits photographs, whose subject is in the middle, and would cut off the outer blocks of a scene.

    Args:
        config: with the fingerprint filled in.
        model: of `transformers`.
        processing: what the model's `preprocessor_config.json` says.
    """

    config: PretrainedConfig
    model: Any
    mean: Tensor
    std: Tensor

    def __init__(self, config: PretrainedConfig, model: Any, processing: dict[str, Any]) -> None:
        super().__init__()
        self.config, self.model, self.processing = config, model, processing
        self.size = side_of(processing, model.config.image_size)
        for name in ("mean", "std"):
            values = processing.get(f"image_{name}", [0.5])
            fits = len(values) in (1, config.num_channels)
            check(fits, f"image_{name} of {config.source} is {values}; its images have {config.num_channels} channels")
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)
        _freeze_if_told(self)

    def prepare(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c s s"]:
        """Float images in [0, 1] as the model was trained to see them: size, mean and spread are its own."""
        smooth = {2: "bilinear", 3: "bicubic"}.get(self.processing.get("resample", 3), "bicubic")  # PIL's numbers
        images = F.interpolate(images, size=(self.size, self.size), mode=smooth, antialias=True).clamp(0, 1)
        return (images - self.mean) / self.std

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b t d"]:
        """Encode float images in [0, 1]; `t` is `config.num_tokens`."""
        pixels = self.prepare(images).to(getattr(torch, self.config.dtype))
        return self.model(pixel_values=pixels).last_hidden_state.float()

    def train(self, mode: bool = True) -> PretrainedVision:
        """Training mode, unless nothing in it learns."""
        return super().train(mode and any(p.requires_grad for p in self.parameters()))


class PretrainedLanguage(LanguageTower):
    """A Hugging Face language model, causal (Phi-2, SmolLM2) or encoder (DistilBERT), with its own tokenizer.

    Args:
        config: with the fingerprint filled in.
        model: of `transformers`, without a head for the next word.
        tokenizer: of `transformers`.
    """

    config: PretrainedConfig
    model: Any

    def __init__(self, config: PretrainedConfig, model: Any, tokenizer: Any) -> None:
        super().__init__()
        self.config, self.model, self.tokenizer = config, model, tokenizer
        if hasattr(model.config, "use_cache"):
            model.config.use_cache = False  # for writing text word by word
        _freeze_if_told(self)

    @property
    def token_embedding(self) -> nn.Module:  # type: ignore[override]
        """The model's own."""
        return self.model.get_input_embeddings()

    def encode(self, instructions: Sequence[str]) -> Encoded:
        """Ids and mask by the model's own tokenizer, padded on the right.

        Raises:
            InputError: an instruction is not text, empty or too long, or the tokenizer lacks a token for a part of it.
        """
        for text in instructions:
            check_text(text)
            check(bool(text.strip()), f"the instruction is empty: {text[:60]!r}; {EXAMPLE}")
        rows = [self.tokenizer(text)["input_ids"] for text in instructions]
        for text, row in zip(instructions, rows, strict=True):
            if self.tokenizer.unk_token_id is not None and self.tokenizer.unk_token_id in row:
                raise InputError(f"the tokenizer of {self.config.source} has no token for a part of {text[:60]!r}")
        return pad(instructions, rows, self.config.max_length)

    def embed(self, input_ids: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """Token embeddings; the model adds positions itself."""
        return self.token_embedding(input_ids).float()

    def read(
        self, x: Float[Tensor, "b n d"], allowed: Bool[Tensor, "b 1 n n"], skip: int = 0
    ) -> Float[Tensor, "b t d"]:
        """States of embedded tokens but for the first `skip`, through the whole model."""
        dtype = getattr(torch, self.config.dtype)
        mask = torch.zeros(allowed.shape, dtype=dtype, device=x.device).masked_fill(~allowed, torch.finfo(dtype).min)
        return self.model(inputs_embeds=x.to(dtype), attention_mask=mask).last_hidden_state[:, skip:].float()

    def forward(self, input_ids: Int[Tensor, "b t"], attention_mask: Bool[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """Encode token ids; a causal model's tokens see earlier ones, an encoder's see all."""
        return self.model(input_ids=input_ids, attention_mask=attention_mask.long()).last_hidden_state.float()

    def train(self, mode: bool = True) -> PretrainedLanguage:
        """Training mode, unless nothing in it learns."""
        return super().train(mode and any(p.requires_grad for p in self.parameters()))


def pretrained_config(
    vision: str | None = "google/siglip-base-patch16-224",
    language: str | None = "HuggingFaceTB/SmolLM2-135M",
    preset: str = "minimal",
    fusion: str | None = None,
    head: str | None = None,
    frozen: bool = True,
    dtype: str = "float32",
) -> ModelConfig:
    """The configuration of a policy with pretrained towers; what is not named, fusion and head are the preset's.

    Args:
        vision, language: ids on the hub, or folders. `facebook/dinov2-small`, `microsoft/phi-2` and
            `distilbert-base-uncased` fit as well.
        frozen: whether both stay as they are while projection, fusion and head learn; set `frozen` of one of the
            parts with `dataclasses.replace` to mix.

    Raises:
        InputError: a model cannot be found or does not fit; the message says what would help.
    """
    config = model_config(preset, fusion, head)
    options: dict[str, Any] = {"frozen": frozen, "dtype": dtype}
    if vision:
        found = read_model_config("vision", vision)
        processing = read_processing(vision)
        num_tokens = (side_of(processing, found.image_size) // found.patch_size) ** 2
        num_tokens += not found.model_type.startswith("siglip")  # CLS
        shape = {"embed_dim": found.hidden_size, "num_tokens": num_tokens, "num_channels": found.num_channels}
        config = replace(config, vision=PretrainedConfig(source=vision, **shape, **options))
    if language:
        found = read_model_config("language", language)
        shape = {"embed_dim": found.hidden_size, "vocab_size": found.vocab_size}
        config = replace(config, language=PretrainedConfig(source=language, **shape, **options))
    return config


def make_vision(config: VisionConfig | PretrainedConfig, checkpoint: Path | None = None) -> VisionTower:
    """The vision tower that a configuration describes, pretrained weights loaded.

    Args:
        checkpoint: a policy's folder. Weights that learn are in there; here they get no values.

    Raises:
        InputError: a pretrained model cannot be loaded, or is not the one that was loaded before.
    """
    if isinstance(config, VisionConfig):
        return TinyViT(config)
    folder = None if checkpoint is None else checkpoint / "vision"
    model, revision = _load_model("vision", config, folder)
    source = config.source if folder is None else str(folder)
    processing = read_processing(source, revision if folder is None else "")
    return PretrainedVision(_stamped(config, model, revision, folder), model, processing)


def make_language(config: LanguageConfig | PretrainedConfig, checkpoint: Path | None = None) -> LanguageTower:
    """The language model that a configuration describes, as `make_vision`."""
    if isinstance(config, LanguageConfig):
        return TinyLanguageModel(config)
    folder = None if checkpoint is None else checkpoint / "language"
    model, revision = _load_model("language", config, folder)
    tokenizer = read_tokenizer(config.source, revision) if folder is None else read_tokenizer(str(folder))
    return PretrainedLanguage(_stamped(config, model, revision, folder), model, tokenizer)


def outlines(config: ModelConfig, checkpoint: Path) -> tuple[VisionTower, LanguageTower]:
    """Returns towers with shapes and no numbers, to compare a checkpoint with; frozen pretrained ones are not in it."""
    vision: Any = VisionTower() if _is_frozen(config.vision) else make_vision(config.vision, checkpoint)
    language: Any = LanguageTower() if _is_frozen(config.language) else make_language(config.language, checkpoint)
    vision.config, language.config = config.vision, config.language
    return vision, language


def _is_frozen(config: Any) -> bool:
    return isinstance(config, PretrainedConfig) and config.frozen


def fixed_weights(policy: nn.Module) -> dict[str, Tensor]:
    """Weights that a checkpoint does not hold because they are fetched again: those of frozen pretrained towers."""
    fixed: dict[str, Tensor] = {}
    for slot in SLOTS:
        tower = getattr(policy, slot)
        if _is_frozen(tower.config):
            learned = {name for name, parameter in tower.named_parameters() if parameter.requires_grad}  # adapters
            fixed |= {f"{slot}.{name}": x for name, x in tower.state_dict().items() if name not in learned}
    return fixed


def save_files(policy: nn.Module, folder: Path) -> None:
    """Write what a pretrained tower needs beside its weights into `folder/vision` and `folder/language`."""
    vision, language = policy.vision, policy.language
    if isinstance(vision, PretrainedVision):
        vision.model.config.save_pretrained(folder / "vision")
        _write_json(folder / "vision" / "preprocessor_config.json", vision.processing)
    if isinstance(language, PretrainedLanguage):
        language.model.config.save_pretrained(folder / "language")
        language.tokenizer.save_pretrained(folder / "language")


def fingerprint(model: nn.Module) -> str:
    """A short name for a model's weights, from the first and last few of each."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        ends = tensor.flatten()[:: max(1, tensor.numel() - 1)]
        digest.update(f"{name} {tuple(tensor.shape)}".encode() + ends.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


def _stamped(config: PretrainedConfig, model: Any, revision: str, folder: Path | None) -> PretrainedConfig:
    """The configuration with the loaded weights' commit and fingerprint, once they are known to be the right ones."""
    if folder is not None and not config.frozen:  # the weights come from the checkpoint, later
        return config
    found, width = fingerprint(model), model.config.hidden_size
    if width != config.embed_dim:
        raise InputError(f"{config.source} is {width} wide, not {config.embed_dim}; use tinyvla.pretrained_config")
    if config.fingerprint not in ("", found):
        raise InputError(
            f"the weights of {config.source} are not those that the policy was trained with (fingerprint {found}, not "
            f"{config.fingerprint}); bring back the old ones, or train the policy anew"
        )
    return replace(config, fingerprint=found, revision=revision)


def _load_model(slot: str, config: PretrainedConfig, folder: Path | None) -> tuple[Any, str]:
    """The model, and the commit that it was loaded from; without its weights where a checkpoint has them."""
    from transformers import AutoModel

    with explained(config.source), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # for layers that the files do not hold
        if folder is not None and not config.frozen:
            model, revision = AutoModel.from_config(read_model_config(slot, str(folder)), **NO_CODE), config.revision
        else:
            found = read_model_config(slot, config.source, config.revision)
            revision = getattr(found, "_commit_hash", None) or config.revision
            options: dict[str, Any] = {"revision": revision or None, "use_safetensors": True, **NO_CODE}
            model = AutoModel.from_pretrained(files_of(config.source), config=found, **options)
    return model.to(getattr(torch, config.dtype)).eval(), revision


def _freeze_if_told(tower: PretrainedVision | PretrainedLanguage) -> None:
    if tower.config.frozen:
        tower.requires_grad_(False)
    tower.train()


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
