"""Write what `tinyvla info --json` counts to `results/presets.json`, for the book.

python scripts/count_presets.py
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from tinyvla.config import PRESETS
from tinyvla.model.policy import TinyVLA

OUT = Path(__file__).resolve().parent.parent / "results" / "presets.json"


def main() -> None:
    """Count and write."""
    with torch.device("meta"):  # shapes without memory
        presets = {name: TinyVLA(config).num_parameters() for name, config in PRESETS.items()}
    results = {"command": "python scripts/count_presets.py", "presets": presets}
    OUT.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
