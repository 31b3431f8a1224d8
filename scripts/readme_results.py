"""Write the table of measured figures into README.md, from the files under `results/`.

python scripts/readme_results.py           # rewrite
python scripts/readme_results.py --check   # exit with 1 if the README says anything else
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- results: begin, written by scripts/readme_results.py -->", "<!-- results: end -->"


def load(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "results" / f"{name}.json").read_text(encoding="utf-8"))


def span(values: dict[str, float], form: str) -> str:
    return f"{values['median']:{form}} ({values['min']:{form}}-{values['max']:{form}})"


def table() -> str:
    learning = load("learning")
    lines = ["| what | measured | on |", "|---|---|---|"]
    for preset, device in (("minimal", "cpu"), ("nano", "cpu"), ("minimal", "cuda")):
        bench = load(f"bench_{preset}_{device}")
        machine = bench["machine"]
        where = f"{machine['cpu_threads']} CPU cores" if device == "cpu" else machine["device"]
        seconds, runs = span(bench["seconds"], ".1f"), len(bench["runs"])
        lines.append(f"| `{preset}` trained to 95 % direction accuracy | {seconds} s, {runs} seeds | {where} |")
    full = learning["full"]["minimal"]
    accuracy = f"{full['direction_accuracy']['min']:.1%}".replace("%", " %")
    text = f"L2 error {span(full['l2_error'], '.4f')}, direction accuracy at least {accuracy}, {full['runs']} seeds"
    lines.append(f"| `minimal` after 20 epochs | {text} | {learning['machine']['device']} |")
    reach = {name: row for name, row in learning["reach"].items() if name.startswith(("nano", "minimal"))}
    reached, runs = (sum(row[key] for row in reach.values()) for key in ("reached", "runs"))
    slowest = max(row["steps"]["max"] for row in reach.values())
    text = f"{reached} of {runs} runs reach 95 %, the slowest in {slowest:.0f} steps"
    lines.append(f"| `nano` and `minimal`, learning rates 1e-4 to 1e-3 | {text} | {learning['machine']['device']} |")
    return "\n".join(
        [*lines, "", "Median (minimum-maximum); the files under `results/` name the commands that made them."]
    )


def main() -> None:
    """Rewrite or check."""
    path = ROOT / "README.md"
    text = path.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    fresh = f"{before}{BEGIN}\n{table()}\n{END}{after}"
    if "--check" in sys.argv:
        sys.exit(fresh != text)
    path.write_text(fresh, encoding="utf-8")


if __name__ == "__main__":
    main()
