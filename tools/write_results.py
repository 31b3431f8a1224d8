"""Write the measured figures into README.md and book/results.md, from the files under `results/`.

python scripts/write_results.py           # rewrite
python scripts/write_results.py --check   # exit with 1 if README or book say anything else
"""

from __future__ import annotations

import sys

import results_learning as learning
import results_speed as speed
from results_text import ROOT, grid, load, percent, place, seconds_of, span

BEGIN, END = "<!-- results: begin, written by scripts/write_results.py -->", "<!-- results: end -->"
INTRO = """\
# Results

Every figure that this book states about its own policies comes from a file under `results/`. This page shows what is in
them; each section names the command that makes the file anew.

<!-- written by scripts/write_results.py -->
"""
SECTIONS = (
    speed.bench_section,
    speed.speed_section,
    speed.latency_section,
    speed.processes_section,
    learning.heads_section,
    learning.learning_section,
    learning.fusion_section,
    learning.closed_loop_section,
    learning.pretraining_section,
    learning.lora_section,
    learning.arm_section,
    speed.paper_section,
    speed.size_section,
    speed.preset_section,
    speed.notebook_section,
)


def table() -> str:
    """The README's."""
    results, rows = load("learning"), []
    for preset, device in (("nano", "cpu"), ("minimal", "cpu"), ("minimal", "cuda")):
        bench = load(f"bench_{preset}_{device}")
        where = place(bench["machine"], device) if device == "cpu" else bench["machine"]["device"]
        reached = f"{bench['reached']} of {len(bench['runs'])} runs"
        target = f"`{preset}`: training to 95 % direction accuracy"
        rows.append((target, f"{seconds_of(bench)} s, {reached}", where))
        if "reference" in bench:
            text = f"{span(bench['reference']['seconds'], '.0f')} s, {bench['speedup']:.0f} times as long"
            rows.append(("the same with a plain recipe (`tinyvla/measure/plain_recipe.py`)", text, where))
    where, full = results["machine"]["device"], results["full"]["minimal"]
    accuracy = percent(full["direction_accuracy"]["min"], 1)
    text = f"L2 error {span(full['l2_error'], '.4f')}, direction accuracy at least {accuracy}, {full['runs']} seeds"
    rows.append(("`minimal` after 20 epochs", text, where))
    reach = [row for name, row in results["reach"].items() if name.startswith(("nano", "minimal"))]
    reached, runs = (sum(row[key] for row in reach) for key in ("reached", "runs"))
    slowest = max(row["steps"]["max"] for row in reach)
    text = f"{reached} of {runs} runs reach 95 %, the slowest in {slowest:.0f} steps"
    rows.append(("`nano` and `minimal`, learning rates 1e-4 to 1e-3", text, where))
    note = "Median (minimum-maximum); the files under `results/` name the commands that made them."
    return "\n\n".join([grid("what | measured | on", rows), note])


def page() -> str:
    """The book's."""
    return "\n".join([INTRO, *(section() for section in SECTIONS)])


def main() -> None:
    """Rewrite or check."""
    readme, book = ROOT / "README.md", ROOT / "book" / "results.md"
    text = readme.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    fresh = {readme: f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}", book: page()}
    if "--check" in sys.argv:
        sys.exit(any(not path.exists() or path.read_text(encoding="utf-8") != new for path, new in fresh.items()))
    for path, new in fresh.items():
        path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
