"""Sections of the results page on what `experiments/words.py` found: six words alone, and the whole study."""

from __future__ import annotations

from page import Results, grid, percent, points, prose, section_of, source

from tinyvla.data.sentences import KINDS

RESULTS, SIX_WORDS_RESULTS = ("words",), ("words_cpu",)


def mean(value: Results) -> str:
    """A mean over seeds and its 95 % interval, cut at 0 and 100, in per cent without signs; one seed as it is."""
    if value["interval"] is None:
        return f"{100 * value['mean']:.0f}"
    low, high = (100 * min(max(end, 0.0), 1.0) for end in value["interval"])
    return f"{100 * value['mean']:.0f} ({low:.0f}-{high:.0f})"


def kinds_table(words: Results) -> str:
    """Direction accuracy of each tower on each kind of sentence, beside the floors."""
    towers, floors = words["towers"], words["floors"]
    rows = []
    for kind in KINDS:
        own = (mean(tower["kinds"][kind]) for tower in towers.values())
        rows.append((kind, *own, *(f"{100 * floors[kind][name]:.0f}" for name in ("vision_only", "language_only"))))
    return grid(f"kind of sentence | {' | '.join(towers)} | no words | no image", rows)


def gap_table(differences: list[Results], worse: tuple[str, ...] = ("scratch", "untrained")) -> str:
    """Differences within a seed; bold where the interval leaves out zero."""
    gaps = [row for row in differences if row["worse"] in worse]
    rows = []
    for kind in gaps[0]["kinds"]:
        cells = []
        for gap in gaps:
            value = gap["kinds"][kind]
            low, high = value["interval"]
            text = f"{points(value['mean'])} ({points(low)} to {points(high)})"
            cells.append(f"**{text}**" if low * high > 0 else text)
        rows.append((kind, *cells))
    pairs = " | ".join(f"{gap['better']} − {gap['worse']}" for gap in gaps)
    return grid(f"kind of sentence | {pairs}", rows)


def pair_table(words: Results) -> str:
    """Pairs of sentences that differ in one word: both answers right."""
    towers = words["towers"]
    first = next(iter(towers.values()))["pairs"]
    rows = [
        (kind, word, *(mean(tower["pairs"][kind][word]) for tower in towers.values()))
        for kind, changes in first.items()
        for word in changes
    ]
    return grid(f"kind of sentence | word that differs | {' | '.join(towers)}", rows)


def demonstration_table(words: Results) -> str:
    """Fewer demonstrations."""
    asked = ("color", "new colors", "new verbs", "new templates", "negation", "new negations", "relation", "nearest")
    most = [{"tower": t, "num_train": words["num_train"], **tower} for t, tower in words["towers"].items()]
    order = list(words["towers"])
    rows = sorted([*words["demonstrations"], *most], key=lambda row: (row["num_train"], order.index(row["tower"])))
    cells = ((f"{row['num_train']:,}", row["tower"], *(mean(row["kinds"][kind]) for kind in asked)) for row in rows)
    return grid(f"demonstrations | tower | {' | '.join(asked)}", cells)


def names_table(words: Results) -> str:
    """Some of the new colour words in training, another one asked for."""
    rows = sorted(words["names"], key=lambda row: (row["names"], list(words["towers"]).index(row["tower"])))
    cells = ((str(row["names"]), row["tower"], mean(row["known"]), mean(row["new"])) for row in rows)
    return grid("new words for each colour | tower | words of training | a word that it lacks", cells)


def forgetting_table(words: Results) -> str:
    """Six words alone."""
    rows = []
    for row in words["six_words"]:
        name = row["tower"] if row["times"] == 1 else f"{row['tower']}, {row['times']} x the rate"
        alike = (
            f"{row[key]['mean']:.2f}" for key in ("cosine_with_before", "same_neighbour", "alike_before", "alike_after")
        )
        asked = (mean(row["kinds"][kind]) for kind in ("new verbs", "new colors"))
        rows.append((name, mean(row["six_words"]), *asked, *alike))
    heads = "tower | six words | new verbs | new colors | cosine with before | same neighbour | alike, before | after"
    return grid(heads, rows)


def vision_table(words: Results) -> str:
    """Other vision towers, beside the course's own with the same language tower."""
    asked = ("color", "extreme", "relation", "nearest", "negation")
    own = {"vision": "the preset's own, learning", **words["towers"]["frozen"]}
    rows = ((row["vision"], *(mean(row["kinds"][kind]) for kind in asked)) for row in (own, *words["vision"]))
    return grid(f"vision tower | {' | '.join(asked)}", rows)


def six_words_section(study: Results) -> str:
    """Policies that learned "find the {color} block" alone."""
    kinds = study["six_words"][0]["kinds"]
    rows = (
        (row["tower"], mean(row["six_words"]), *(mean(row["kinds"][kind]) for kind in kinds))
        for row in study["six_words"]
    )
    about = f"""Policies learn "find the {{color}} block" alone: `{study["preset"]}`, {study["num_train"]:,} scenes,
        {study["short_steps"]} steps of {study["batch_size"]}, {kinds["color"]["seeds"]} seeds, {study["num_test"]} test
        scenes of each kind of sentence (`tinyvla.data.sentences`). The language tower is the preset's own (*scratch*),
        MiniLM (`{study["weights"]["model"]}`), frozen, or one of MiniLM's shape with random weights, frozen (*random*).
        Direction accuracy in per cent, mean over the seeds (95 % t-interval):"""
    gaps = """Differences in points within a seed, and the 95 % t-interval of their mean, in bold where it leaves out
        zero; none is corrected for the number of rows:"""
    return section_of(
        "Six words",
        prose(about),
        grid(f"tower | the six sentences | {' | '.join(kinds)}", rows),
        prose(gaps),
        gap_table(study["six_words_differences"], ("scratch", "random")),
        source(study),
    )


def seeds_of(rows: list[Results]) -> str:
    """How many seeds rows have, in words."""
    counts = {row["kinds"]["color"]["seeds"] for row in rows}
    many = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    return "one seed, which settles nothing" if counts == {1} else f"{many} seeds"


def section(words: Results) -> str:
    fewer, of_vision = (seeds_of(words[study]) for study in ("demonstrations", "vision"))
    count = words["towers"]["scratch"]["kinds"]["color"]["seeds"]
    about = f"""Policies learn sentences with structure (`tinyvla.data.sentences`): `{words["preset"]}`,
        {words["fusion"]}, {words["num_train"]:,} demonstrations of five kinds, {words["steps"]:,} steps of
        {words["batch_size"]}, {count} seeds, {words["num_test"]} test scenes a kind. Six language towers:
        *scratch*, the preset's own; *random*, MiniLM's shape with random weights, frozen; *untrained*, the
        same, learning; *frozen*, *lora* and *learned*, MiniLM (`{words["weights"]["model"]}`, its
        {words["weights"]["files"]}). Direction accuracy in per cent, mean over the seeds (95 % t-interval),
        beside the best that can be had without words and without the image:"""
    gaps = """Differences in points within a seed, and the 95 % t-interval of their mean, in bold where it leaves
        out zero; none is corrected for the number of rows:"""
    pairs = """Pairs of sentences about one image that differ in one word and name different blocks: both answers
        right, in per cent:"""
    fewer_text = f"""Fewer demonstrations, the same number of steps ({fewer}):"""
    names = f"""Colours alone, {words["short_steps"]} steps: some of the four new words of each colour are in the
        training, and another one, which never is, is asked for:"""
    forgetting = f"""Trained on the six words of "find the {{color}} block" alone, {words["short_steps"]} steps. *Cosine
        with before*: how far 33 sentences with other words moved in the tower; *same neighbour*: the share
        whose most similar sentence is the same as before; *alike*: the mean cosine between two of them:"""
    vision = f"""EfficientNet-Lite0 (ImageNet; the first eleven blocks, frozen) as the vision tower, with MiniLM
        frozen; and the same with random weights ({of_vision}):"""
    best = max(words["vision"], key=lambda row: row["kinds"]["color"]["mean"])["kinds"]["color"]["mean"]
    close = f"The better of the two reaches {percent(best)} on colours."
    return section_of(
        "Words",
        prose(about),
        kinds_table(words),
        prose(gaps),
        gap_table(words["differences"]),
        prose(pairs),
        pair_table(words),
        prose(fewer_text),
        demonstration_table(words),
        prose(names),
        names_table(words),
        prose(forgetting),
        forgetting_table(words),
        prose(vision),
        vision_table(words),
        prose(close),
        source(words),
    )
