"""Write the measured figures into README.md and book/results.md, from the files under `results/`.

python tools/write_results.py           # rewrite
python tools/write_results.py --check   # exit with 1 if README or book say anything else
"""

# ruff: noqa: E402 - the experiments, which write their own sections, are scripts in a folder beside this one
from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "experiments")]

import arm
import closed_loop
import count_presets
import first_command
import fusions
import heads
import latency
import learning
import lora
import metaworld_pictures
import mt50_page
import positions
import pretraining
import processes
import reading
import results_of_bench as bench
import scaling
import words_page
from page import grid, load, percent, place, prose, seconds_of, section_of, source, span

BEGIN, END = "<!-- results: begin, written by tools/write_results.py -->", "<!-- results: end -->"
INTRO = """\
# Results

Every figure that this book states about its own policies comes from a file under `results/`. This page shows what is in
them; each section names the command that makes the file anew.

<!-- written by tools/write_results.py -->
"""


def live_section(policies: dict[str, Any], page: dict[str, Any], films: dict[str, Any]) -> str:
    """Returns the section on the policies that run in the pages."""
    parts = [
        (name, part) for name, part in policies["parts"].items() if "bytes" in part and "direction_accuracy" in part
    ]
    rows = [(name, f"{part['bytes'] / 1e6:.2f} MB", percent(part["direction_accuracy"], 1)) for name, part in parts]
    about = f"""What the book's pages run, as its file is read back into PyTorch. The first page loads
        {page["megabytes"]:.1f} MB when it is touched, and nothing before."""
    table = grid("policy | file | direction accuracy", rows)
    shown = {name: percent(judged["success"], 0) for name, judged in films["judged"].items()}
    episodes = films["judged"]["reach, trained"]["episodes"]
    arm = f"""The films of the arm in chapter 13 show successes of a policy after {films["steps"]:,} steps of training,
        and failures after {films["early_steps"]:,}. Over {episodes} test episodes of each task, one training each,
        the first reaches the named block in {shown["reach, trained"]} and picks it up in {shown["pick, trained"]},
        the second in {shown["reach, early"]} and {shown["pick, early"]}."""
    return section_of("Policies in the pages", prose(about), table, prose(arm), source(policies, page, films))


SECTIONS: tuple[tuple[Callable[..., str], tuple[str, ...]], ...] = (
    (first_command.section, first_command.RESULTS),
    (bench.bench_section, bench.BENCHES),
    (bench.speed_section, bench.SPEED),
    *(
        (experiment.section, experiment.RESULTS)
        for experiment in (latency, processes, heads, learning, fusions, positions)
    ),
    *(
        (experiment.section, experiment.RESULTS)
        for experiment in (closed_loop, pretraining, lora, arm, mt50_page, metaworld_pictures, reading, scaling)
    ),
    (scaling.section_of_runs, scaling.RUN_RESULTS),
    (words_page.section, words_page.RESULTS),
    (words_page.six_words_section, words_page.SIX_WORDS_RESULTS),
    (count_presets.section, count_presets.RESULTS),
    (bench.notebook_section, ("notebook_times",)),
    (live_section, ("book_policies", "book_page", "book_films")),
)
"""Functions that write a section, and the files under `results/` that they read."""


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
    return "\n".join([INTRO, *(section(*map(load, names)) for section, names in SECTIONS)])


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
