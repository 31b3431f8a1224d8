"""Sections of the results page about what `tinyvla bench`, `tinyvla throughput` and the notebooks' tool measured."""

from __future__ import annotations

import recipe_search
from page import Results, grid, percent, place, prose, seconds_of, section_of, source, span

BENCHES = (
    *("bench_nano_cpu", "bench_minimal_cpu"),
    *("bench_nano_cuda", "bench_minimal_cuda", "bench_medium_cuda", "bench_smolvla_like_cuda"),
)
SPEED = ("bench_minimal_cuda", "epochs_minimal_cuda", "throughput_cuda", "search")


def bench_section(*files: Results) -> str:
    """Time until the target, of each preset."""
    rows = []
    for name, bench in zip(BENCHES, files, strict=True):
        step = span({key: 1000 * value for key, value in bench["seconds_per_step"].items()}, ".1f")
        where, steps = place(bench["machine"], name.split("_")[-1]), str(bench["runs"][0]["steps"])
        reached = f"{bench['reached']} of {len(bench['runs'])}"
        rows.append((f"`{bench['preset']}`", where, seconds_of(bench), steps, step, reached))
    about = """The number of steps is fixed beforehand (`tinyvla/measure/bench.py`). Warm: imports, data and preparing
        the step are not counted. Median (minimum-maximum) over the runs."""
    return section_of(
        "Time to 95 % direction accuracy",
        prose(about),
        grid("preset | on | seconds | steps | milliseconds a step | reached", rows),
        source(*files),
    )


def speed_section(bench: Results, epochs: Results, rates: Results, search: Results) -> str:
    """A cold start, many epochs, the step's share of the device's peak, and the search for a recipe."""
    cold = bench["cold"]
    about = f"""Cold: a fresh Python process ends with a trained `minimal` after {span(cold["total"], ".1f")} s. Of
        these, imports take {span(cold["import"], ".1f")} s, the data {span(cold["data"], ".1f")} s, preparing the
        step {span(cold["prepare"], ".1f")} s and training {span(cold["train"], ".2f")} s
        ({bench["machine"]["device"]})."""
    peak = f"""The step of each preset, in batches of 64. One large product of bfloat16 numbers reaches
        {rates["peak_flops_per_second"] / 1e12:.0f} TFLOP/s there; the share of peak (MFU) is held against that."""
    return section_of(
        "Where the time goes",
        prose(about),
        grid(
            "20 epochs of `minimal` | on | seconds of steps | L2 error | direction accuracy",
            epoch_rows(bench) + epoch_rows(epochs),
        ),
        prose(peak),
        grid(
            "preset | million parameters | milliseconds a step | scenes a second | share of peak | GPU memory, GB",
            (throughput_row(preset, row) for preset, row in rates["presets"].items()),
        ),
        recipe_search.section(search),
        source(bench, epochs, rates, search),
    )


def epoch_rows(run: Results) -> list[tuple[str, ...]]:
    """What 20 epochs take and reach, in each way that was tried."""
    rows: list[tuple[str, ...]] = []
    for row in run["epochs"]:
        how = f"batches of {row.get('batch_size', 64)}, {'compiled' if row['compile'] else 'recorded'}"
        accuracy, where = percent(row["direction_accuracy"], 1), place(run["machine"], "cuda")
        rows.append((how, where, f"{row['seconds']:.2f}", f"{row['l2_error']:.4f}", accuracy))
    return rows


def throughput_row(preset: str, row: Results) -> tuple[str, ...]:
    """A preset's step."""
    size, step = f"{row['parameters'] / 1e6:.1f}", f"{1000 * row['seconds_per_step']:.2f}"
    speed, memory = f"{row['scenes_per_second']:,.0f}", f"{row['peak_gpu_memory_gb']:.2f}"
    return f"`{preset}`", size, step, speed, percent(row["mfu"], 1), memory


def notebook_section(times: Results) -> str:
    """How long each notebook runs."""
    devices = [device for device in ("cpu", "cuda") if device in times]
    rows = []
    for name in sorted(times["cpu"]["devices"]):
        cells = (f"{times[d][name]:.0f}, {times[d]['devices'][name]}" if name in times[d] else "" for d in devices)
        rows.append((f"[{name}](../notebooks/{name}.ipynb)", *cells))
    heads = " | ".join({"cpu": "CPU", "cuda": "GPU"}[device] for device in devices)
    about = "Seconds to run from the first cell to the last."
    return section_of("Notebooks", about, grid(f"notebook | {heads}", rows), source(times))
