"""A checkpoint's folder: where it is, and what its `config.json` says.

config.json          the policy's dimensions, cameras, preprocessing
model.safetensors    its weights and statistics
README.md            a card that people and the Hugging Face hub can read
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download

from tinyvla.config import ModelConfig
from tinyvla.errors import InputError

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"

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
    folder = Path(folder_or_hub_id)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise InputError(f"{folder} is a file; a checkpoint is a folder with {CONFIG_FILE} and {WEIGHTS_FILE}")
    hub_id = str(folder_or_hub_id)
    problem = f"no checkpoint folder {hub_id!r} here"
    if hub_id.count("/") != 1 or hub_id.startswith((".", "/", "~")):
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
    path = folder / CONFIG_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise InputError(
            f"{folder} holds no {CONFIG_FILE}, so it is no checkpoint; pass a folder such as DIR/best"
        ) from None
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}); the checkpoint is damaged") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} does not describe a TinyVLA: it holds a {type(values).__name__}, not an object")
    return ModelConfig.from_dict(values)
