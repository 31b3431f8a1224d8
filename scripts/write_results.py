"""Write the measured figures into README.md and book/results.md, from the files under `results/`.

python scripts/write_results.py           # rewrite
python scripts/write_results.py --check   # exit with 1 if README or book say anything else
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- results: begin, written by scripts/write_results.py -->", "<!-- results: end -->"


def load(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "results" / f"{name}.json").read_text(encoding="utf-8"))


def seconds_of(bench: dict[str, Any]) -> str:
    """With as many digits as short times need."""
    return span(bench["seconds"], ".1f" if bench["seconds"]["median"] >= 1 else ".3f")


def span(values: dict[str, float], form: str) -> str:
    return f"{values['median']:{form}} ({values['min']:{form}}-{values['max']:{form}})"


def table() -> str:
    learning = load("learning")
    lines = ["| what | measured | on |", "|---|---|---|"]
    for preset, device in (("nano", "cpu"), ("minimal", "cpu"), ("minimal", "cuda")):
        bench = load(f"bench_{preset}_{device}")
        machine = bench["machine"]
        where = f"{machine['cpu_threads']} CPU cores" if device == "cpu" else machine["device"]
        reached = f"{bench['reached']} of {len(bench['runs'])} runs"
        lines.append(
            f"| `{preset}`: training to 95 % direction accuracy | {seconds_of(bench)} s, {reached} | {where} |"
        )
        if "reference" in bench:
            text = f"{span(bench['reference']['seconds'], '.0f')} s, {bench['speedup']:.0f} times as long"
            lines.append(f"| the same with a plain recipe (`tinyvla/reference.py`) | {text} | {where} |")
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


def share(row: dict[str, float]) -> str:
    low, high = (f"{100 * row[key]:.0f}" for key in ("min", "max"))
    return f"{low} %" if low == high else f"{low}-{high} %"


def source(results: dict[str, Any]) -> str:
    machine = results.get("machine")
    on = f" on {machine['device']}, torch {machine['torch']}, Python {machine['python']}" if machine else ""
    return f"Made by `{results['command']}`{on}."


def bench_section() -> list[str]:
    lines = [
        "## Time to 95 % direction accuracy",
        "",
        "The number of steps is fixed beforehand (`tinyvla/bench.py`). Warm: imports, data and preparing the step are",
        "not counted. Median (minimum-maximum) over the runs.",
        "",
        "| preset | on | seconds | steps | milliseconds a step | reached |",
        "|---|---|---|---|---|---|",
    ]
    sources = []
    on_gpu = [(preset, "cuda") for preset in ("nano", "minimal", "medium", "smolvla_like")]
    for preset, device in [("nano", "cpu"), ("minimal", "cpu"), *on_gpu]:
        bench = load(f"bench_{preset}_{device}")
        where = f"{bench['machine']['cpu_threads']} CPU cores" if device == "cpu" else bench["machine"]["device"]
        step = {key: 1000 * value for key, value in bench["seconds_per_step"].items()}
        lines.append(
            f"| `{preset}` | {where} | {seconds_of(bench)} | {bench['runs'][0]['steps']} "
            f"| {span(step, '.1f')} | {bench['reached']} of {len(bench['runs'])} |"
        )
        sources.append(source(bench))
    return [*lines, "", *sources]


def speed_section() -> list[str]:
    bench, search, rates = load("bench_minimal_cuda"), load("search"), load("throughput_cuda")
    epochs, cold = load("epochs_minimal_cuda"), bench["cold"]
    lines = [
        "## Where the time goes",
        "",
        f"Cold: a fresh Python process ends with a trained `minimal` after {span(cold['total'], '.1f')} s. Of these,",
        f"imports take {span(cold['import'], '.1f')} s, the data {span(cold['data'], '.1f')} s, preparing the step",
        f"{span(cold['prepare'], '.1f')} s and training {span(cold['train'], '.2f')} s ({bench['machine']['device']}).",
        "",
        "| 20 epochs of `minimal` | on | seconds of steps | L2 error | direction accuracy |",
        "|---|---|---|---|---|",
    ]
    for run, row in ((result, row) for result in (bench, epochs) for row in result["epochs"]):
        how = f"batches of {row.get('batch_size', 64)}, {'compiled' if row['compile'] else 'recorded'}"
        accuracy = f"{100 * row['direction_accuracy']:.1f} %"
        where = run["machine"]["device"]
        lines.append(f"| {how} | {where} | {row['seconds']:.2f} | {row['l2_error']:.4f} | {accuracy} |")
    lines += [
        "",
        "The step of each preset, in batches of 64. One large product of bfloat16 numbers reaches",
        f"{rates['peak_flops_per_second'] / 1e12:.0f} TFLOP/s there; the share of peak (MFU) is held against that.",
        "",
        "| preset | million parameters | milliseconds a step | scenes a second | share of peak | GPU memory, GB |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in rates["presets"].items():
        lines.append(
            f"| `{name}` | {row['parameters'] / 1e6:.1f} | {1000 * row['seconds_per_step']:.2f} "
            f"| {row['scenes_per_second']:,.0f} | {100 * row['mfu']:.1f} % | {row['peak_gpu_memory_gb']:.2f} |"
        )
    lines += ["", "Runs of ten that reach 95 %, by the number of steps fixed beforehand:", ""]
    lines += ["| optimizer | learning rate | steps | reached | lowest accuracy |", "|---|---|---|---|---|"]
    for row in (row for row in search["rows"] if row["study"] == "budget"):
        change = row["change"]
        lines.append(
            f"| {change['optimizer']} | {change['learning_rate']:g} | {change['num_steps']} "
            f"| {row['reached']} of {row['runs']} | {row['lowest']:.2f} |"
        )
    return [*lines, "", source(bench), source(epochs), source(rates), source(search)]


def latency_section() -> list[str]:
    lines = [
        "## How long an answer takes",
        "",
        "Milliseconds, median: `predict`, from camera bytes and a sentence to an action, for one scene and for 256;",
        "and the bare forward pass of one scene. On the CPU also the exported ONNX program in ONNX Runtime.",
        "",
        "| preset | on | predict, 1 | predict, 256 | forward, 1 | ONNX, 1 |",
        "|---|---|---|---|---|---|",
    ]
    sources = []
    for device in ("cpu", "cuda"):
        latency = load(f"latency_{device}")
        machine = latency["machine"]
        where = f"{machine['cpu_threads']} CPU cores" if device == "cpu" else machine["device"]
        for preset, rows in latency["presets"].items():
            cells = [(rows[n][what]["median"]) for n, what in (("1", "predict"), ("256", "predict"), ("1", "forward"))]
            exported = f"{rows['1']['exported']['median']:.1f}" if "exported" in rows["1"] else ""
            lines.append(f"| `{preset}` | {where} | {' | '.join(f'{ms:.1f}' for ms in cells)} | {exported} |")
        sources.append(source(latency))
    return [*lines, "", *sources]


def heads_section() -> list[str]:
    heads = load("heads")
    lines = [
        "## Action heads",
        "",
        f"`{heads['preset']}`, {heads['seeds']} seeds. One answer: direction accuracy. Two answers: the share of",
        "answers within 10 degrees of one of the two blocks, and how often the first one was chosen. Trajectories: the",
        "share near a demonstrated way. Milliseconds of one answer, for one scene.",
        "",
        "| head | one answer | two answers | first chosen | trajectories | ms |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in heads["heads"].items():
        one, two, ways = (row.get(data) for data in ("one answer", "two answers", "trajectories"))
        cells = [
            share(one.get("class_accuracy", one["direction_accuracy"])) if one else "",
            share(two["near_one"]) if two else "",
            share(two["first_chosen"]) if two else "",
            share(ways["near_a_way"]) if ways else "",
            f"{(one or ways)['milliseconds']['1']:.1f}",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    note = "Four and eight directions are judged by whether they name the right one: the nearest of four may lie 45 "
    return [*lines, "", note + "degrees off.", "", source(heads)]


def learning_section() -> list[str]:
    learning = load("learning")
    lines = [
        "## Does it always learn?",
        "",
        "Training steps of 64 scenes until 95 % of the validation scenes are right.",
        "",
        "| preset | learning rate | reached | steps |",
        "|---|---|---|---|",
    ]
    for name, row in learning["reach"].items():
        preset, rate = name.split()
        reached = f"{row['reached']} of {row['runs']}"
        lines.append(f"| `{preset}` | {float(rate):g} | {reached} | {span(row['steps'], '.0f')} |")
    lines += [
        "",
        "After 20 epochs, on the test split:",
        "",
        "| preset | L2 error | direction accuracy | within 10 degrees | follows a swapped instruction |",
        "|---|---|---|---|---|",
    ]
    for preset, row in learning["full"].items():
        shares = (share(row[key]) for key in ("direction_accuracy", "within_10_degrees", "swap_accuracy"))
        lines.append(f"| `{preset}` | {span(row['l2_error'], '.4f')} | {' | '.join(shares)} |")
    return [*lines, "", source(learning)]


def fusion_section() -> list[str]:
    fusion = load("fusion")
    lines = [
        "## Fusions",
        "",
        f"`{fusion['preset']}`, {fusion['epochs']} epochs, {fusion['seeds']} seeds, {fusion['num_test']} test scenes "
        "each. The kinds vision-only and language-only lack an input on purpose.",
        "",
        "| fusion | direction accuracy | L2 error | parameters |",
        "|---|---|---|---|",
    ]
    for kind, row in sorted(fusion["kinds"].items(), key=lambda item: item[1]["l2_error"]["median"]):
        accuracy = share(row["direction_accuracy"])
        lines.append(f"| {kind} | {accuracy} | {span(row['l2_error'], '.3f')} | {row['parameters']:,} |")
    return [*lines, "", source(fusion)]


def closed_loop_section() -> list[str]:
    loop = load("closed_loop")
    names = {
        "expert": "the scripted expert",
        "random": "random actions",
        "stills": "trained on single pictures",
        "cloning": "cloning, few episodes",
        "dagger": "DAgger, from the same few episodes",
        "cloning_more": "cloning, as many states as DAgger",
    }
    lines = [
        "## Closed loop",
        "",
        f"The camera must stop on the named block, in {loop['num_test']} episodes that nobody was trained on.",
        f"In brackets: for one policy its 95 % interval, for {loop['seeds']} seeds the range of their successes.",
        "Path ratio: success",
        "times the expert's path over the longer one. Cloning and DAgger begin with the same",
        f"{loop['dagger_settings']['episodes']} episodes of the expert; cloning takes at least as many training steps.",
        "",
        "| policy | success | path ratio |",
        "|---|---|---|",
    ]
    for key, name in names.items():
        row = loop["policies"][key]
        if "runs" in row:
            success, ratio = row["success"], row["path_ratio"]
            low, high, middle, ratio = success["min"], success["max"], success["median"], ratio["median"]
        else:
            (low, high), middle, ratio = row["success_interval"], row["success"], row["path_ratio"]
        lines.append(f"| {name} | {100 * middle:.1f} % ({100 * low:.1f}-{100 * high:.1f} %) | {ratio:.3f} |")
    if loop["policies"]["cloning_more"]["success"]["median"] >= loop["policies"]["dagger"]["success"]["median"]:
        lines += [
            "",
            "Given as many states of the expert's own, cloning does no worse than DAgger: more data is another cure.",
        ]
    return [*lines, "", source(loop)]


def preset_section() -> list[str]:
    presets = load("presets")
    parts = list(next(iter(presets["presets"].values())))
    lines = ["## Parameters", "", f"| preset | {' | '.join(parts)} |", "|---" * (len(parts) + 1) + "|"]
    lines += [f"| `{name}` | {' | '.join(f'{row[p]:,}' for p in parts)} |" for name, row in presets["presets"].items()]
    return [*lines, "", source(presets)]


def notebook_section() -> list[str]:
    times = load("notebook_times")
    devices = [device for device in ("cpu", "cuda") if device in times]
    heads = " | ".join(times[device]["device"] for device in devices)
    lines = ["## Notebooks", "", "Seconds to run from the first cell to the last.", ""]
    lines += [f"| notebook | {heads} |", "|---" * (len(devices) + 1) + "|"]
    for name in sorted(set(times["cpu"]) - {"device"}):
        cells = (f"{times[d][name]:.0f}" if name in times[d] else "" for d in devices)
        lines.append(f"| [{name}](../notebooks/{name}.ipynb) | {' | '.join(cells)} |")
    return [*lines, "", source(times)]


def page() -> str:
    intro = [
        "# Results",
        "",
        "Every figure that this book states about its own policies comes from a file under `results/`. This page shows",
        "them all; each section names the command that makes the file anew.",
        "",
        "<!-- written by scripts/write_results.py -->",
        "",
    ]
    sections = (
        bench_section(),
        speed_section(),
        latency_section(),
        heads_section(),
        learning_section(),
        fusion_section(),
        closed_loop_section(),
        preset_section(),
        notebook_section(),
    )
    return "\n".join([*intro, *(line for section in sections for line in [*section, ""])]).rstrip() + "\n"


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
