"""TinyVLA: a vision-language-action policy small enough to read, and a course that builds it.

Names are imported when first used, so `import tinyvla` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from tinyvla.config import PRESETS as PRESETS
    from tinyvla.config import ModelConfig as ModelConfig
    from tinyvla.data.dataset import BlockFind as BlockFind
    from tinyvla.errors import InputError as InputError
    from tinyvla.model.policy import TinyVLA as TinyVLA
    from tinyvla.recipes import DataConfig as DataConfig
    from tinyvla.recipes import TrainConfig as TrainConfig
    from tinyvla.registry import register as register

_HOMES = {
    "PRESETS": "config",
    "DataConfig": "recipes",
    "InputError": "errors",
    "ModelConfig": "config",
    "TrainConfig": "recipes",
    "BlockFind": "data.dataset",
    "TinyVLA": "model.policy",
    "register": "registry",
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tinyvla' has no attribute {name!r}")
    return getattr(importlib.import_module(f"tinyvla.{_HOMES[name]}"), name)
