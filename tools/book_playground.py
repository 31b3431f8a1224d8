"""Write what a trained policy answers to a few scenes, for the playground on the book's first page.

python tools/book_playground.py
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tinyvla.course.zoo import trained_policy
from tinyvla.data.dataset import COLORS, PALETTE, BlockFind, instruction_for
from tinyvla.show.widgets import attention_map

OUT = Path(__file__).resolve().parent.parent / "book" / "_static" / "playground_data.js"
SCENES = 8


def main() -> None:
    """Train or load the policy of the notebooks, ask it for every colour in every scene, write the answers."""
    policy = trained_policy()
    split = BlockFind(SCENES, seed=44)
    scenes = []
    for index in range(SCENES):
        present = split.cells[index] >= 0
        blocks = zip(split.cells[index][present], split.colors[index][present], strict=True)
        answers = []
        for color in COLORS:
            action = policy.predict(split.images[index], instruction_for(color)).tolist()
            attention = np.asarray(attention_map(policy, split.images[index], instruction_for(color))).flatten()
            answers.append(
                {"action": [round(x, 3) for x in action], "attention": [round(float(a), 3) for a in attention]}
            )
        scenes.append({"blocks": [[int(cell), int(color)] for cell, color in blocks], "answers": answers})
    data = {"command": "python tools/book_playground.py", "palette": PALETTE, "scenes": scenes}
    OUT.write_text(f"window.TINYVLA = {json.dumps(data, separators=(',', ':'))};\n", encoding="utf-8")
    print(f"{OUT.name}: {OUT.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
