"""A checkpoint's folder: where it is, and what its `config.json` says.

config.json          the policy's dimensions, cameras, preprocessing
model.safetensors    its weights and statistics
README.md            a card that people and the Hugging Face hub can read
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from huggingface_hub import ModelHubMixin, snapshot_download
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tinyvla.config import ModelConfig
from tinyvla.errors import InputError
from tinyvla.fields import check, shown
from tinyvla.files import as_path, check_folder, check_is_file, named, read_json

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
OPTIONAL = ("language.seen",)
"""What a checkpoint of before the record of words was kept has not."""

MODEL_CARD = """---
{{ card_data }}
---

# A TinyVLA policy

Looks at images, reads an instruction and answers with an action, or a chunk of actions. One that was trained on the
course's BlockFind looks at coloured blocks, reads "find the red block", and answers with the unit vector (dx, dy) from
the image's centre to that block (x right, y down).

```python
from tinyvla import TinyVLA

policy = TinyVLA.from_pretrained("this folder or its id on the hub")
action = policy.predict(image, "find the red block")
```

`config.json` holds its dimensions, the cameras and the state that it needs; `model.safetensors` its weights and the
statistics that normalise actions and states.
"""


def find_folder(folder_or_hub_id: str | Path, hub_options: dict[str, Any]) -> Path:
    """Returns the folder of a checkpoint, downloaded where a name on the hub is given.

    Raises:
        InputError: there is none.
    """
    if not isinstance(folder_or_hub_id, str | Path):
        raise InputError(f"a checkpoint is a folder, or owner/name on the hub, not {shown(folder_or_hub_id)}")
    hub_id = str(folder_or_hub_id)
    problem = f"no checkpoint folder {shown(hub_id)} here"
    try:
        if Path(hub_id).is_dir():
            return Path(hub_id)
        is_file = Path(hub_id).exists()
    except (OSError, ValueError):  # no name that a folder can have
        is_file = False
    check(not is_file, f"{hub_id} is a file; a checkpoint is a folder with {CONFIG_FILE} and {WEIGHTS_FILE}")
    # A run's DIR/best that is not here is never asked of the hub: a stranger may own that name there.
    if hub_id.count("/") != 1 or hub_id.startswith((".", "/", "~")) or hub_id.endswith("/best"):
        raise InputError(f"{problem}; train one with `tinyvla train --out DIR` and pass DIR/best")
    try:
        return Path(snapshot_download(hub_id, allow_patterns=["*.json", "*.safetensors", "*.md"], **hub_options))
    except Exception as error:  # the hub's client raises many kinds; each one means that there is no checkpoint
        raise InputError(f"{problem}, and the hub did not give one of that name ({type(error).__name__})") from None


def read_config(folder: Path) -> ModelConfig:
    """Returns the configuration of the checkpoint in a folder.

    Raises:
        InputError: the folder holds none, or one that does not describe a policy.
    """
    missing = f"{folder} holds no {CONFIG_FILE}, so it is no checkpoint; pass a folder such as DIR/best"
    values = read_json(folder / CONFIG_FILE, missing)
    is_run = {"model", "train", "data"} <= values.keys()
    check(not is_run, f"{folder} is the folder of a run, not of a checkpoint; pass {folder / 'best'}")
    with named(folder / CONFIG_FILE):
        return ModelConfig.from_dict(values)


class Checkpoint(
    ModelHubMixin,
    library_name="tinyvla",
    license="mit",
    tags=["robotics", "vision-language-action"],
    model_card_template=MODEL_CARD,
):
    """Writes a checkpoint beside its place and then moves it there: what fails leaves an older one as it was."""

    def save_pretrained(self, save_directory: str | Path, **hub_options: Any) -> str | None:
        """Write a checkpoint's folder, or its files into a folder; a `README.md` that is there stays as it is.

        Args:
            save_directory: where to.
            hub_options: passed to `huggingface_hub.ModelHubMixin.save_pretrained` (`push_to_hub`, `repo_id`, ...).

        Raises:
            InputError: no folder can be written there.
            OSError: the disk is full.
        """
        folder = as_path(save_directory, "save_directory")
        check_folder(folder, "save_directory")
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder) as temporary:
            done = super().save_pretrained(temporary, **{"repo_id": folder.name, **hub_options})
            for path in [path for path in Path(temporary).rglob("*") if path.is_file()]:
                place = folder / path.relative_to(temporary)
                place.parent.mkdir(parents=True, exist_ok=True)
                if place.name != "README.md" or not place.exists():
                    os.replace(path, place)
        return done


class Outlines(TorchFunctionMode):
    """Builds modules whose weights have shapes and no numbers: without memory, and without the time of drawing them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called for each function of torch."""
        options = kwargs or {}
        if func in (torch.empty, torch.zeros, torch.ones, torch.randn):
            return torch.empty(*args, dtype=options.get("dtype"), device="meta")
        if getattr(func, "__name__", "") == "normal_":  # on this device it takes a second to prepare
            return args[0] if args else options["tensor"]
        return func(*args, **options)


def check_header(file: Any, expected: Mapping[str, Tensor], problem: str, prefix: str = "") -> None:
    """Compare an open file's tensors with those that a policy has, without reading a number.

    Args:
        file: as `safetensors.safe_open` gives it.
        expected: tensors of the same names, shapes and kinds; their numbers do not matter.
        problem: how a message begins.
        prefix: of the names in the file.

    Raises:
        InputError: one is missing, or has another shape or kind.
    """
    names = set(file.keys())
    for name, tensor in expected.items():
        check(prefix + name in names or name in OPTIONAL, f"{problem}: it lacks {name}")
        if prefix + name in names and not name.endswith("_extra_state"):
            part = file.get_slice(prefix + name)
            shape, kind = tuple(part.get_shape()), part.get_dtype()
            check(shape == tensor.shape, f"{problem}: {name} is {shape} and not {tuple(tensor.shape)}")
            is_float = kind.startswith(("F", "BF"))
            check(is_float == tensor.is_floating_point(), f"{problem}: {name} holds numbers of the kind {kind}")


def read_weights(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors of a checkpoint, once the file's header is known to hold those that its policy has.

    Args:
        expected: tensors of the same names, shapes and kinds; their numbers do not matter. None are compared, if empty.

    Raises:
        InputError: the file is damaged, does not fit, or holds numbers that are not finite.
    """
    problem = f"{path} does not fit its {CONFIG_FILE}"
    check_is_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            check_header(file, expected, problem)
            names = set(file.keys())
            more = sorted(names - set(expected))
            check(not more or not expected, f"{problem}: it holds {shown(more)} beyond the policy's own")
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is missing, truncated or not a safetensors file ({error})") from None
    for name, tensor in tensors.items():
        kind = expected[name].dtype if name in expected else torch.float32
        check(is_finite(tensor, kind), f"{path} is damaged: {name} holds NaN or infinite numbers")
    return tensors


def is_finite(tensor: Tensor, kind: torch.dtype = torch.float32) -> bool:
    """Whether a tensor's numbers are finite, and stay so where they are kept as another kind: 1e300 does not."""
    return not tensor.is_floating_point() or bool(tensor.to(kind).isfinite().all())
