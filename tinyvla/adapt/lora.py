"""LoRA: change a trained policy by training two thin matrices beside each of its frozen ones, through `peft`.

    add_lora(policy, rank=8)               # in place: everything frozen but the new matrices
    fit(policy, train, val, settings)      # as always
    save_adapter(policy, "adapter")        # a few megabytes, in peft's own format
    load_adapter(base, "adapter")          # on the same base only
    merge(policy)                          # one plain policy again, as fast as before

Notable:
- a layer's output becomes `W x + (alpha / rank) B A x` (https://arxiv.org/abs/2106.09685, section 4.1). `B` starts at
  zero, so a policy with a fresh adapter still answers exactly as its base;
- the policy stays a `TinyVLA`: `peft` replaces layers inside it, so `fit`, `predict` and `evaluate` work unchanged;
- an adapter means nothing on another base, so its file holds the base's fingerprint, and a wrong one is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from tinyvla.config import PretrainedConfig
from tinyvla.errors import InputError
from tinyvla.fields import Seed, Within, check, check_number, checked, shown
from tinyvla.files import as_path, check_is_file, read_json, save_tensors, write_atomically
from tinyvla.model.checkpoint_files import is_finite
from tinyvla.model.policy import TinyVLA

if TYPE_CHECKING:  # peft takes seconds to import; only those who use an adapter pay for it
    from peft import LoraConfig

TARGETS: dict[str, tuple[str, ...]] = {
    "attention": (
        *("attention.query", "attention.key", "attention.value", "attention.output", "attention.output.dense"),
        *("q_proj", "k_proj", "v_proj", "o_proj", "out_proj", "self_attn.dense"),  # SigLIP, Llama, Phi
        *("q_lin", "k_lin", "v_lin", "out_lin"),  # DistilBERT
    ),
    "mlp": (
        *("mlp.hidden", "mlp.output"),
        *("fc1", "fc2", "gate_proj", "up_proj", "down_proj", "lin1", "lin2"),
    ),
    "inputs": ("patch_projection", "text_projection", "vision_projection"),
    "embedding": ("token_embedding", "embed_tokens", "word_embeddings"),
    "head": ("head.hidden", "head.output"),
}
"""Groups of layers that can carry an adapter, by the ends of their names here and in transformers."""

RANKS = Within(1, 4_096)
ADAPTER_FILE = "adapter_model.safetensors"
PREFIX = "base_model.model."
"""What `peft` puts before every name in its files."""


@checked
def add_lora(
    policy: TinyVLA,
    rank: int = 8,
    alpha: float | int | None = None,
    targets: Sequence[str] = ("attention", "inputs"),
    seed: Seed = 0,
) -> TinyVLA:
    """Freeze a policy and put a trainable adapter beside each target layer, in place.

    Args:
        policy: trained, without an adapter.
        rank: of `B A`; the adapter has `rank * (inputs + outputs)` weights a layer.
        alpha: `B A x` is multiplied by `alpha / rank`; `2 * rank` by default.
        targets: groups of `TARGETS`, or ends of layers' names.
        seed: of `A`'s initial weights.

    Returns:
        The same policy, whose answers have not changed yet.

    Raises:
        InputError: `peft` is missing, the rank is no positive number, no layer fits a target, or there is an adapter.
    """
    rank = check_number("rank", rank, RANKS)
    _refuse_second(policy)
    config = _config(rank, 2 * rank if alpha is None else alpha, target_layers(policy, targets))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _inject(policy, config)


def target_layers(policy: nn.Module, targets: Sequence[str]) -> list[str]:
    """Names of the linear and embedding layers that the targets mean.

    Raises:
        InputError: one of them means no layer of this policy.
    """
    layers = _layers(policy)
    chosen: set[str] = set()
    if isinstance(targets, str) or not targets:
        raise InputError(f"targets are {targets!r}; give a list of {', '.join(TARGETS)}, or of ends of layers' names")
    for target in targets:
        ends = TARGETS.get(target, (target,)) if isinstance(target, str) and target else ()
        found = {name for name in layers if any(f".{name}".endswith(f".{end}") for end in ends)}
        if not found:
            raise InputError(
                f"no layer of this policy fits the target {target!r}; choose from {', '.join(TARGETS)}, or give the "
                f"end of a layer's name, such as {layers[0] if layers else 'blocks.0.mlp.hidden'!r}"
            )
        chosen |= found
    return sorted(chosen)


def has_adapter(policy: TinyVLA) -> bool:
    """Whether `peft` has put an adapter into the policy."""
    return bool(getattr(policy, "peft_config", None))


@checked
def trainable_parameters(policy: TinyVLA) -> tuple[int, int]:
    """How many parameters are trained, and how many there are, the adapter's included."""
    parameters = list(policy.parameters())
    return sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters)


@contextmanager
@checked
def adapter_off(policy: TinyVLA) -> Iterator[None]:
    """Let the base answer, as if it had no adapter.

    Raises:
        InputError: there is no adapter.
    """
    layers = _adapter_layers(policy)
    for _, layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for _, layer in layers:
            layer.enable_adapters(True)


@checked
def save_adapter(policy: TinyVLA, folder: str | Path) -> None:
    """Write the adapter alone, in the format of `peft`: `adapter_config.json` and `adapter_model.safetensors`.

    Raises:
        InputError: there is no adapter.
        OSError: the folder cannot be written.
    """
    _adapter_layers(policy)
    folder = as_path(folder, "the folder")
    folder.mkdir(parents=True, exist_ok=True)
    config: LoraConfig = policy.peft_config["default"]  # type: ignore[index, assignment]
    weights = _peft().get_peft_model_state_dict(policy, save_embedding_layers=False)
    tensors = {f"{PREFIX}{name}": value.detach().cpu().contiguous() for name, value in weights.items()}
    metadata = {"format": "pt", "base": base_fingerprint(policy)}
    write_atomically(folder / ADAPTER_FILE, lambda path: save_tensors(tensors, path, metadata))
    config.save_pretrained(str(folder))


def _layers(policy: nn.Module) -> list[str]:
    """Names of the layers that can carry a part of an adapter."""
    return [name for name, layer in policy.named_modules() if isinstance(layer, nn.Linear | nn.Embedding)]


def _config(rank: Any, alpha: Any, layers: list[str]) -> LoraConfig:
    """An adapter's shape, as `peft` has it."""
    rank = check_number("rank", rank, RANKS)
    alpha = check_number("alpha", alpha, Within(0, 1e6, above=True), whole=False)
    return _peft().LoraConfig(r=rank, lora_alpha=alpha, target_modules=layers)


@checked
def load_adapter(base: TinyVLA, folder: str | Path) -> TinyVLA:
    """Put a saved adapter into the base that it was trained on, in place, ready to act (`eval()`).

    Args:
        base: the very weights that the adapter was trained on, without an adapter.
        folder: as written by `save_adapter`.

    Raises:
        InputError: there is no adapter in the folder, it is damaged, or it was trained on another base.
    """
    _refuse_second(base)
    config, weights = _read_adapter(as_path(folder, "the folder"), base)
    _inject(base, config)
    _peft().set_peft_model_state_dict(base, weights)
    return base.eval()


@checked
def merge(policy: TinyVLA) -> TinyVLA:
    """Add the adapter to the weights, in place, and leave a plain policy: same answers, nothing extra to compute.

    The answers agree but for rounding, below 1e-4 for float32 weights. A pretrained tower that had a part of the
    adapter is no longer the one on the hub, so from now on checkpoints hold its weights.

    Raises:
        InputError: there is no adapter.
    """
    layers = _adapter_layers(policy)
    for name, layer in layers:
        layer.merge(safe_merge=True)
        policy.set_submodule(name, layer.get_base_layer())
    del policy.peft_config
    policy.__dict__.pop("save_pretrained", None)
    for slot in ("vision", "language"):
        if any(name.startswith(f"{slot}.") for name, _ in layers):
            _own(policy, slot)
        getattr(policy, slot).requires_grad_(not getattr(getattr(policy, slot).config, "frozen", False))
    policy.fusion.requires_grad_(True)
    policy.head.requires_grad_(True)
    return policy


@checked
def base_fingerprint(policy: TinyVLA) -> str:
    """SHA-256 of the base's weights, under their own names; an adapter does not count."""
    digest = hashlib.sha256()
    for name, tensor in sorted(policy.state_dict().items()):
        if "lora_" in name or name == "language.seen":  # which words training held is a record, not a weight
            continue
        digest.update(name.replace(".base_layer.", ".").encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _own(policy: TinyVLA, slot: str) -> None:
    """Note that a tower's weights are the policy's own, not those of its source."""
    tower: Any = getattr(policy, slot)
    if isinstance(tower.config, PretrainedConfig):
        tower.config = replace(tower.config, frozen=False)
        policy.config = policy._hub_mixin_config = replace(policy.config, **{slot: tower.config})


def _inject(policy: TinyVLA, config: LoraConfig) -> TinyVLA:
    """Let `peft` replace the target layers; all else is frozen."""
    _peft().inject_adapter_in_model(config, policy)

    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise InputError("this policy has an adapter: write it with save_adapter, or merge it first")

    policy.save_pretrained = refuse  # type: ignore[method-assign]
    return policy


def _refuse_second(policy: TinyVLA) -> None:
    if has_adapter(policy):
        raise InputError("this policy has an adapter already; merge it, or load the base again")


def _adapter_layers(policy: TinyVLA) -> list[tuple[str, Any]]:
    """Names and layers that carry a part of the adapter."""
    if not has_adapter(policy):
        raise InputError("this policy has no adapter; add one with add_lora, or load one with load_adapter")
    tuner = _peft().tuners.tuners_utils.BaseTunerLayer
    return [(name, layer) for name, layer in policy.named_modules() if isinstance(layer, tuner)]


def _read_adapter(folder: Path, base: TinyVLA) -> tuple[LoraConfig, dict[str, torch.Tensor]]:
    """Configuration and weights of an adapter for this base.

    The configuration is made of the three settings that `add_lora` knows. All others must be as `peft` has them by
    default: some of them name modules to import.
    """
    said = read_json(folder / "adapter_config.json", f"{folder} holds no adapter; write one with save_adapter")
    check_is_file(folder / ADAPTER_FILE)
    try:
        with safe_open(folder / ADAPTER_FILE, framework="pt") as file:
            weights = {name.removeprefix(PREFIX): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            trained_on = (file.metadata() or {}).get("base", "unknown")
    except (SafetensorError, OSError) as error:
        raise InputError(f"the adapter in {folder} is damaged ({error})") from None
    if (own := base_fingerprint(base)) != trained_on:
        raise InputError(
            f"the adapter in {folder} was trained on a base with fingerprint {trained_on[:12]}, and this policy's is "
            f"{own[:12]}: on other weights it means nothing. Load the checkpoint that add_lora was called on"
        )
    layers = said.get("target_modules")
    ends = {f".{end}" for end in layers} if isinstance(layers, list) else set()  # peft keeps the ends of long lists
    meant = {end: [name for name in _layers(base) if f".{name}".endswith(end)] for end in ends}
    fits = bool(meant) and all(meant.values())
    check(fits, f"target_modules in {folder}/adapter_config.json are {shown(layers)}; they must be layers of the base")
    config = _config(
        said.get("r"), said.get("lora_alpha"), sorted({name for names in meant.values() for name in names})
    )
    usual = json.loads(json.dumps(config.to_dict(), default=str))
    free = ("base_model_name_or_path", "inference_mode", "peft_version", "revision", "target_modules")
    other = [key for key, value in said.items() if key not in free and value != usual.get(key)]
    check(not other, f"the adapter in {folder} is of another kind: {shown(other)} are not as add_lora has them")
    _check_weights(weights, config, base, folder)
    return config, weights


def _check_weights(weights: dict[str, torch.Tensor], config: LoraConfig, base: TinyVLA, folder: Path) -> None:
    """Refuse weights that are not those of an adapter of this shape on this base."""
    expected: dict[str, tuple[int, ...]] = {}
    for name in config.target_modules or ():
        layer: Any = base.get_submodule(name)
        ends = ("lora_A.weight", "lora_B.weight")
        if isinstance(layer, nn.Embedding):
            ends, sides = ("lora_embedding_A", "lora_embedding_B"), (layer.num_embeddings, layer.embedding_dim)
        else:
            sides = (layer.in_features, layer.out_features)
        expected |= {f"{name}.{ends[0]}": (config.r, sides[0]), f"{name}.{ends[1]}": (sides[1], config.r)}
    wrong = sorted(set(expected) ^ set(weights))
    check(not wrong, f"{folder} does not hold the weights that its adapter_config.json describes: {shown(wrong)}")
    for name, value in weights.items():
        fits = value.is_floating_point() and tuple(value.shape) == expected[name]
        check(fits, f"the adapter in {folder} is damaged: {name} is {tuple(value.shape)} and not {expected[name]}")
        check(is_finite(value), f"the adapter in {folder} is damaged: {name} holds NaN or infinite numbers")


def _peft() -> Any:
    try:
        import peft
        import peft.tuners.tuners_utils
    except ImportError:
        raise InputError('adapters need peft: pip install "tinyvla[lora]"') from None
    return peft
