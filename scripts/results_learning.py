"""Sections of the results page about what policies learn."""

from __future__ import annotations

from results_text import Results, bare, grid, listed, load, percent, points, prose, section, share, source, span, within


def heads_section() -> str:
    heads, rows = load("heads"), []
    for name, row in heads["heads"].items():
        one, two, ways = (row.get(data) for data in ("one answer", "two answers", "trajectories"))
        cells = [
            share(one.get("class_accuracy", one["direction_accuracy"])) if one else "",
            share(two["near_one"]) if two else "",
            share(two["first_chosen"]) if two else "",
            share(ways["near_a_way"]) if ways else "",
            f"{one['milliseconds']['1']:.1f}" if one else "",
        ]
        rows.append((name, *cells))
    about = f"""`{heads["preset"]}`, {heads["seeds"]} seeds. One answer: direction accuracy. Two answers: the share
        of answers within 10 degrees of one of the two blocks, and how often the first one was chosen. Trajectories:
        the share near a demonstrated way. Milliseconds of one answer, for one scene; not shown for FAST, which answers
        with chunks and was measured on them."""
    more = load("heads_longer")
    longer, short = more["heads"]["fast"]["trajectories"], heads["heads"]["fast"]["trajectories"]["epochs"]
    near = share(longer["near_a_way"])
    note = f"""Four and eight directions are judged by whether they name the right one: the nearest of four may lie 45
        degrees off. FAST with {longer["epochs"]} epochs on trajectories instead of {short}, in all seeds: {near}."""
    return section(
        "Action heads",
        prose(about),
        grid("head | one answer | two answers | first chosen | trajectories | ms", rows),
        prose(note),
        source(heads, more),
    )


def learning_section() -> str:
    learning, reach = load("learning"), []
    for name, row in learning["reach"].items():
        preset, rate = name.split()
        reached = f"{row['reached']} of {row['runs']}"
        reach.append((f"`{preset}`", f"{float(rate):g}", reached, span(row["steps"], ".0f")))
    shares = ("direction_accuracy", "within_10_degrees", "swap_accuracy")
    full = [
        (f"`{preset}`", span(row["l2_error"], ".4f"), *(share(row[key]) for key in shares))
        for preset, row in learning["full"].items()
    ]
    return section(
        "Does it always learn?",
        "Training steps of 64 scenes until 95 % of the validation scenes are right.",
        grid("preset | learning rate | reached | steps", reach),
        "After 20 epochs, on the test split:",
        grid("preset | L2 error | direction accuracy | within 10 degrees | follows a swapped instruction", full),
        source(learning),
    )


def fusion_section() -> str:
    fusion = load("fusion")
    rows = [
        (kind, share(row["direction_accuracy"]), span(row["l2_error"], ".3f"), f"{row['parameters']:,}")
        for kind, row in sorted(fusion["kinds"].items(), key=lambda item: item[1]["l2_error"]["median"])
    ]
    about = f"""`{fusion["preset"]}`, {fusion["epochs"]} epochs, {fusion["seeds"]} seeds, {fusion["num_test"]} test
        scenes each. The kinds vision-only and language-only lack an input on purpose."""
    heads = "fusion | direction accuracy | L2 error | parameters"
    return section("Fusions", prose(about), grid(heads, rows), source(fusion))


POLICIES = {
    "expert": "the scripted expert",
    "random": "random actions",
    "stills": "trained on single pictures",
    "cloning": "cloning, few episodes",
    "dagger": "DAgger, from the same few episodes",
    "cloning_more": "cloning, as many states as DAgger",
}


def closed_loop_section() -> str:
    loop, rows = load("closed_loop"), []
    policies = loop["policies"]
    for key, name in POLICIES.items():
        row = policies[key]
        if "runs" in row:
            success, ratio = row["success"], row["path_ratio"]["median"]
            middle, low, high = success["median"], success["min"], success["max"]
        else:
            (low, high), middle, ratio = row["success_interval"], row["success"], row["path_ratio"]
        rows.append((name, within(middle, low, high), f"{ratio:.3f}"))
    about = f"""The camera must stop on the named block, in {loop["num_test"]} episodes that nobody was trained on.
        In brackets: for one policy its 95 % interval, for {loop["seeds"]} seeds the range of their successes. Path
        ratio: success times the expert's path over the longer one. Cloning and DAgger begin with the same
        {loop["dagger_settings"]["episodes"]} episodes of the expert; cloning takes at least as many training steps."""
    more = policies["cloning_more"]["success"]["median"] >= policies["dagger"]["success"]["median"]
    cure = "Given as many states of the expert's own, cloning does no worse than DAgger: more data is another cure."
    chapter = """[Chapter 8](../notebooks/08_closed_loop.ipynb) shows two more measurements of this task: how success
        follows the offline error from checkpoint to checkpoint, and what chunks do to it."""
    return section(
        "Closed loop",
        prose(about),
        grid("policy | success | path ratio", rows),
        cure if more else "",
        prose(chapter),
        source(loop, *(load(f"closed_loop_{name}") for name in ("checkpoints", "chunks", "chunks_longer"))),
    )


METHODS = ("scratch", "frozen", "fine-tuned", "random", "clean")


def accuracy_table(results: Results, methods: tuple[str, ...]) -> str:
    """Direction accuracy of each way, for each number of labels."""
    found = {(row["method"], row["num_labels"]): row["direction_accuracy"] for row in results["summary"]}
    rows = []
    for count in results["sizes"]:
        spreads = (found.get((method, count)) for method in methods)
        cells = (span({key: 100 * x for key, x in row.items()}, ".0f") if row else "" for row in spreads)
        rows.append((f"{count:,}", *cells))
    return grid(f"labels | {' | '.join(methods)}", rows)


def difference_table(files: tuple[Results, ...]) -> str:
    """Points within each seed, and the 95 % interval of their mean, for each camera; bold where it leaves out zero."""
    rows: dict[tuple[str, str, int], list[str]] = {}
    for results in files:
        for gap in results["differences"]:
            mean, low, high = (points(x, 1) for x in (gap["mean"], *gap["interval"]))
            key = (gap["better"], gap["worse"], gap["num_labels"])
            text = f"{mean} ({low} to {high})"
            ends = gap["interval"]
            rows.setdefault(key, []).append(f"**{text}**" if ends[0] * ends[1] > 0 else text)
    cells = ((f"{better} − {worse}", f"{count:,}", *row) for (better, worse, count), row in rows.items())
    return grid("difference | labels | first camera | second camera", cells)


def unfitted(results: Results) -> str:
    """How many runs from scratch have not learned the most labels that they were given."""
    most = max(results["sizes"])
    losses = [r["train_loss"] for r in results["rows"] if (r["method"], r["num_labels"]) == ("scratch", most)]
    return f"{sum(loss > 0.1 for loss in losses)} of {len(losses)}"


def pretraining_section() -> str:
    first, second = files = (load("pretraining"), load("pretraining_worse"))
    cost, most = first["pretraining"], max(first["sizes"])
    about = f"""`{first["preset"]}` on photographs of scenes, {first["seeds"]} seeds, {first["num_test"]:,} test
        scenes, {first["num_steps"]} steps of {first["batch_size"]} whatever the number of labels. For each seed two
        towers learn anew from {cost["num_pairs"]:,} captioned photographs ({cost["num_steps"]:,} steps of
        {cost["batch_size"]}). *Scratch*: the policy learns from labels alone. *Frozen*: the pretrained towers stay
        as they are. *Fine-tuned*: they learn on. *Random*: towers that nobody trained stay as they are. *Clean*:
        scratch, on plain renderings. Direction accuracy in per cent, median (minimum-maximum):"""
    camera = listed(f"{name} {first['camera'][name]:g} to {value:g}" for name, value in second["camera"].items())
    again = f"""The same protocol with worse photographs ({camera}). **This second camera was chosen after the first
        result had been seen.** So it is no independent test; it shows how far the answer depends on the pictures:"""
    gaps = """Differences in points within each seed, and the 95 % interval of their mean, in bold where it leaves
        out zero:"""
    steps = f"""With {most:,} labels, {unfitted(first)} runs from scratch (first camera) and {unfitted(second)}
        (second) have not fitted their own labels when their {first["num_steps"]} steps are over (training loss above
        0.1). More labels would not help those, and the differences there contain them."""
    return section(
        "Pretrained towers",
        prose(about),
        accuracy_table(first, METHODS),
        prose(again),
        accuracy_table(second, METHODS[:-1]),
        prose(gaps),
        difference_table(files),
        prose(steps),
        source(*files),
    )


def megabytes(gigabytes: float | None) -> str:
    if gigabytes is None:
        return ""
    return f"{1000 * gigabytes:,.0f}" if gigabytes > 0.01 else f"{1000 * gigabytes:.1f}"


def lora_rows(preset: str, part: Results) -> list[tuple[str, ...]]:
    """The base, and what each way makes of it."""
    tasks = ("direction_accuracy", "old_direction_accuracy")
    rows = [(f"`{preset}`", "nothing yet", "", *(bare(share(part["base"][task])) for task in tasks), "", "")]
    names = {"full": "all weights", "frozen": "fusion and head"}
    for way, entry in part["ways"].items():
        name = names.get(way, way.replace("lora-", "LoRA, rank "))
        runs = entry["scenes"][str(part["middle"])]
        memory = (megabytes(entry[key]) for key in ("gradients_and_optimizer_gb", "peak_gb"))
        shares = (bare(text) for text in (percent(entry["share"], 2), *(share(runs[task]) for task in tasks)))
        rows.append((f"`{preset}`", name, *shares, *memory))
    return rows


def lora_section() -> str:
    presets = load("lora")["presets"]
    settings = "; ".join(
        f"`{preset}` with {part['seeds']} seeds, {part['steps']} steps and {part['middle']:,} scenes"
        for preset, part in presets.items()
    )
    about = f"""A trained policy learns a changed task, other colours in other words: {settings}. Each way has a
        learning rate of its own, chosen on validation scenes. Where fusion and head learn, the towers are frozen;
        `towers-nano` has towers of `transformers`' classes. Direction accuracy on the changed and on the old task,
        from the worst to the best seed. Gradients and optimizer state are counted, 12 bytes a trained weight; the
        peak of a step is measured, if on a GPU."""
    heads = "policy | trained | share, % | changed task, % | old task, % | gradients, optimizer, MB | peak, MB"
    rows = [row for preset, part in presets.items() for row in lora_rows(preset, part)]
    return section("LoRA", prose(about), grid(heads, rows), source(*presets.values()))


def follow_words(runs: list[Results]) -> str:
    """In how many trainings another name leads to another block, in both tasks."""
    return f"{sum(min(run['reach_swap'], run['pick_swap']) > 0.9 for run in runs)} of {len(runs)}"


def arm_section() -> str:
    arm, faster = load("arm"), load("arm_faster")
    main = arm["kinds"][0]
    preset, _, _, _, noise = main.split("/")

    def runs_of(results: Results, kind: str) -> list[Results]:
        return [run for run in results["runs"] if run["kind"] == kind]

    def fixed_row(name: str, said: Results) -> tuple[str, ...]:
        tasks = (said[task] for task in ("reach", "pick"))
        return name, *(bare(within(task["success"], *task["success_interval"])) for task in tasks), "", ""

    rows = [fixed_row("the expert", arm["expert"])]
    for kind in arm["kinds"]:
        _, fusion, _, _, other = kind.split("/")
        changes = ["without words"] * (fusion == "vision-only") + [f"expert's noise: {float(other):g}"] * (
            other != noise
        )
        spreads = (arm["spread"][kind][task] for task in ("reach", "pick"))
        cells = (span({key: 100 * x for key, x in row.items()}, ".1f") for row in spreads)
        followed = (follow_words(runs_of(results, kind)) for results in (arm, faster))
        rows.append((listed(changes) if changes else "the policy", *cells, *followed))
    rows.append(fixed_row("random actions", arm["random"]))
    rates = [results["learning_rates"]["muon"] for results in (arm, faster)]
    shown, undisturbed = (arm["demonstrations"][kind]["num_states"] for kind in (noise, "0.0"))
    about = f"""`{preset}` with a flow head, both tasks in one policy, trained {arm["seeds"]} times on
        {arm["episodes"]:,} demonstrations ({shown:,} states) of an expert whose actions are disturbed by noise of
        {noise}; the first training took {arm["policies"][main]["seconds"]:.0f} s. Below it, the same without the noise
        ({undisturbed:,} states) and the same without words. Success in {arm["num_test"]} episodes: for expert and
        random actions its 95 % interval, for trainings the median and the range. Follows names: in how many trainings
        the arm goes to another block when that one is named, in more than 90 % of the scenes that it solved, in both
        tasks. The last column is the same with a learning rate of {rates[1]:g} instead of {rates[0]:g}, measured
        first: one training of the policy failed there, so the rate was halved."""
    heads = f"who | reach, % | pick, % | follows names | at rate {rates[1]:g}"
    return section("The robot arm", prose(about), grid(heads, rows), source(arm, faster))
