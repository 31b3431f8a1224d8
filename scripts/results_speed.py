"""Sections of the results page about time, memory and size."""

from __future__ import annotations

from results_text import Results, grid, listed, load, percent, place, points, prose, seconds_of, section, source, span


def bench_section() -> str:
    on_gpu = [(preset, "cuda") for preset in ("nano", "minimal", "medium", "smolvla_like")]
    names = [("nano", "cpu"), ("minimal", "cpu"), *on_gpu]
    files = [load(f"bench_{preset}_{device}") for preset, device in names]
    rows = []
    for (preset, device), bench in zip(names, files, strict=True):
        step = span({key: 1000 * value for key, value in bench["seconds_per_step"].items()}, ".1f")
        where, steps = place(bench["machine"], device), str(bench["runs"][0]["steps"])
        reached = f"{bench['reached']} of {len(bench['runs'])}"
        rows.append((f"`{preset}`", where, seconds_of(bench), steps, step, reached))
    about = """The number of steps is fixed beforehand (`tinyvla/bench.py`). Warm: imports, data and preparing the
        step are not counted. Median (minimum-maximum) over the runs."""
    return section(
        "Time to 95 % direction accuracy",
        prose(about),
        grid("preset | on | seconds | steps | milliseconds a step | reached", rows),
        source(*files),
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
    size, step = f"{row['parameters'] / 1e6:.1f}", f"{1000 * row['seconds_per_step']:.2f}"
    speed, memory = f"{row['scenes_per_second']:,.0f}", f"{row['peak_gpu_memory_gb']:.2f}"
    return f"`{preset}`", size, step, speed, percent(row["mfu"], 1), memory


def budget_row(row: Results) -> tuple[str, ...]:
    change, reached = row["change"], f"{row['reached']} of {row['runs']}"
    rate, steps = f"{change['learning_rate']:g}", str(change["num_steps"])
    return change["optimizer"], rate, steps, reached, f"{row['lowest']:.2f}"


def speed_section() -> str:
    bench, search, rates = load("bench_minimal_cuda"), load("search"), load("throughput_cuda")
    epochs, cold = load("epochs_minimal_cuda"), bench["cold"]
    about = f"""Cold: a fresh Python process ends with a trained `minimal` after {span(cold["total"], ".1f")} s. Of
        these, imports take {span(cold["import"], ".1f")} s, the data {span(cold["data"], ".1f")} s, preparing the
        step {span(cold["prepare"], ".1f")} s and training {span(cold["train"], ".2f")} s
        ({bench["machine"]["device"]})."""
    peak = f"""The step of each preset, in batches of 64. One large product of bfloat16 numbers reaches
        {rates["peak_flops_per_second"] / 1e12:.0f} TFLOP/s there; the share of peak (MFU) is held against that."""
    return section(
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
        "Runs of ten that reach 95 %, by the number of steps fixed beforehand:",
        grid(
            "optimizer | learning rate | steps | reached | lowest accuracy",
            (budget_row(row) for row in search["rows"] if row["study"] == "budget"),
        ),
        source(bench, epochs, rates, search),
    )


def latency_section() -> str:
    files = {device: load(f"latency_{device}") for device in ("cpu", "cuda")}
    rows = []
    for device, latency in files.items():
        for preset, row in latency["presets"].items():
            cells = [row[n][what]["median"] for n, what in (("1", "predict"), ("256", "predict"), ("1", "forward"))]
            exported = f"{row['1']['exported']['median']:.1f}" if "exported" in row["1"] else ""
            rows.append((f"`{preset}`", place(latency["machine"], device), *(f"{ms:.1f}" for ms in cells), exported))
    about = """Milliseconds, median: `predict`, from camera bytes and a sentence to an action, for one scene and for
        256; and the bare forward pass of one scene. On the CPU also the exported ONNX program in ONNX Runtime."""
    return section(
        "How long an answer takes",
        prose(about),
        grid("preset | on | predict, 1 | predict, 256 | forward, 1 | ONNX, 1", rows),
        source(*files.values()),
    )


def step_milliseconds(results: Results, run: Results, way: str, preset: str) -> float:
    """Of the whole batch, which grows with the processes in weak scaling."""
    scenes = results["batches"][way] * (run["processes"] if way == "weak" else 1)
    return 1000 * scenes / run[way][preset]


def why_not_faster(results: Results) -> str:
    """What one GPU's own steps say about sharing a batch, as far as they say it."""
    alone, most, batches = results["runs"][0], results["runs"][-1], results["batches"]
    idle, slower = [], []
    for preset in most["weak"]:
        small, large = (step_milliseconds(results, alone, way, preset) for way in ("weak", "strong"))
        if large < 1.25 * small:
            idle.append(f"`{preset}` {large / small:.2f} times as long")
        if step_milliseconds(results, most, "strong", preset) > large:
            slower.append(f"`{preset}`")
    said = ""
    if idle:
        said = f"""On one GPU, {batches["strong"]} scenes take hardly longer than {batches["weak"]}
            ({listed(idle)}). Such a step is bound by launching its kernels, not by arithmetic. A GPU that gets
            fewer scenes is done no sooner, and averaging the gradients comes on top. """
    if slower:
        said += f"One batch shared by {most['processes']} GPUs takes *longer* than on one alone: {listed(slower)}."
    return prose(said)


def processes_section() -> str:
    results = load("processes")
    runs, batches, rows = results["runs"], results["batches"], []
    most = runs[-1]
    for preset in most["weak"]:
        for run in runs:
            cells = []
            for way in ("weak", "strong"):
                cells += [
                    f"{step_milliseconds(results, run, way, preset):.1f}",
                    percent(run["efficiency"][way][preset]),
                ]
            rows.append((f"`{preset}`", str(run["processes"]), *cells))
    training = most["training"]
    about = f"""Up to {most["processes"]} GPUs through `accelerate launch`. Weak scaling: every GPU has a batch of
        {batches["weak"]} of its own. Strong scaling: they share one of {batches["strong"]}. Scaling is scenes a
        second for each GPU, as a share of what one alone manages. Several processes take the plain step, not the
        recorded one."""
    check = f"""As a check, {most["processes"]} GPUs train `{training["preset"]}` for two epochs: in
        {training["seconds"]:.1f} s, to a direction accuracy of {percent(training["direction_accuracy"], 1)}."""
    return section(
        "Several GPUs",
        prose(about),
        grid("preset | GPUs | weak: ms a step | weak scaling | strong: ms a step | strong scaling", rows),
        why_not_faster(results),
        prose(check),
        source(results),
    )


def paper_row(preset: str, part: Results, peaks: Results) -> tuple[str, ...]:
    """A preset's step of 64 scenes in bfloat16: memory of the plain step, time of the recorded one."""
    plain, recorded = (
        next(r for r in part["rows"] if (r["variant"], r["batch_size"], r["graph"]) == ("bfloat16", 64, graph))
        for graph in (False, True)
    )
    paper = plain["paper"]
    bound = paper["flops"] / peaks["bfloat16_flops_per_second"] + paper["traffic"] / peaks["bytes_per_second"]
    sizes = (f"{number / 1e6:.1f}" for number in (paper["parameters"], part["parameters"]))
    memory = (f"{size / 1e9:.2f}" for size in (paper["memory"], plain["peak_bytes"]))
    times = (f"{1000 * seconds:.2f}" for seconds in (bound, recorded["seconds"]))
    return f"`{preset}`", *sizes, *memory, *times


def paper_section() -> str:
    scaling = load("scaling")
    rows = [row for preset in ("medium", "smolvla_like") for row in scaling["steps"][preset]["rows"]]
    off = [row["peak_bytes"] / row["paper"]["memory"] - 1 for row in rows]
    about = """A step of 64 scenes in bfloat16: what the formulas of `tinyvla.scaling` say, and what was counted or
        measured. The time on paper is a lower bound: arithmetic and the optimizer's traffic at the device's own
        peaks. Memory is that of the plain step, time that of the recorded one."""
    more = f"""Over all {len(off)} ways to take a step of `medium` and `smolvla_like` that were tried (float32, in
        parts, blocks run twice, recorded), the measured memory differs from the paper's by {points(min(off))} % to
        {points(max(off))} %."""
    heads = "preset | million parameters, on paper | counted | GB, on paper | measured | ms, at least | measured"
    return section(
        "Predicted and measured",
        prose(about),
        grid(heads, (paper_row(preset, part, scaling["peaks"]) for preset, part in scaling["steps"].items())),
        prose(more),
        source(scaling),
    )


def size_rows(files: dict[str, Results]) -> list[tuple[str, ...]]:
    """One row for each preset, rate and number of scenes; the first file's, where several have it."""
    presets = list(load("presets")["presets"])
    found: dict[tuple[int, float, int], tuple[str, ...]] = {}
    for device, results in files.items():
        for row in results["summary"]:
            seen, unseen = (f"{row[split]['l2_error']['median']:.3f}" for split in ("train", "test"))
            lowest = percent(row["test"]["direction_accuracy"]["min"], 1)
            counts = (f"{row['learning_rate']:g}", f"{row['num_scenes']:,}", str(row["seeds"]))
            cells = (f"`{row['preset']}`", *counts, seen, unseen, lowest, place(results["machine"], device))
            found.setdefault((presets.index(row["preset"]), row["learning_rate"], row["num_scenes"]), cells)
    return [found[key] for key in sorted(found)]


def size_section() -> str:
    files = {device: load(name) for device, name in (("cuda", "scaling_runs"), ("cpu", "scaling_runs_cpu"))}
    settings = files["cuda"]["settings"]
    about = f"""{settings["steps"]} steps of {settings["batch_size"]} scenes with AdamW, however many different
        scenes there are. L2 errors are medians over the seeds, {settings["seeds"]} unless the time that was set ran
        out; with one or two they rank no neighbours. Accuracy is the lowest of the seeds, on unseen scenes."""
    heads = "preset | learning rate | scenes | seeds | L2, training | L2, unseen | accuracy | on"
    return section(
        "Accuracy against size and data", prose(about), grid(heads, size_rows(files)), source(*files.values())
    )


def preset_section() -> str:
    presets = load("presets")
    counts = presets["presets"].values()
    rows = [(part, *(f"{row[part]:,}" for row in counts)) for part in next(iter(counts))]
    heads = " | ".join(f"`{name}`" for name in presets["presets"])
    return section("Parameters", grid(f"part | {heads}", rows), source(presets))


def notebook_section() -> str:
    times = load("notebook_times")
    devices = [device for device in ("cpu", "cuda") if device in times]
    rows = []
    for name in sorted(times["cpu"]["devices"]):
        cells = (f"{times[d][name]:.0f}, {times[d]['devices'][name]}" if name in times[d] else "" for d in devices)
        rows.append((f"[{name}](../notebooks/{name}.ipynb)", *cells))
    heads = " | ".join({"cpu": "CPU", "cuda": "GPU"}[device] for device in devices)
    about = "Seconds to run from the first cell to the last."
    return section("Notebooks", about, grid(f"notebook | {heads}", rows), source(times))
