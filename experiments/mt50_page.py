"""The section of the results page on what `experiments/mt50.py` found, beside what others report."""

from __future__ import annotations

import mt50
from page import Results, grid, percent, prose, section_of, source

from tinyvla.act.metaworld.tasks import GROUPS

RESULTS = ("metaworld",)
OTHERS = (
    ("Diffusion Policy", "", (23.1, 10.7, 1.9, 6.1), 10.5, "smolvla"),
    ("TinyVLA by Wen et al. (not this course)", "", (77.6, 21.5, 11.4, 15.8), 31.6, "smolvla"),
    ("pi0", "3.5 B", (71.8, 48.2, 41.7, 30.0), 47.9, "smolvla"),
    ("pi0, from PaliGemma alone", "3.5 B", (80.4, 40.9, 36.7, 44.0), 50.5, "smolvla"),
    ("SmolVLA", "0.45 B", (82.5, 41.8, 45.0, 60.0), 57.3, "smolvla"),
    ("SmolVLA", "2.25 B", (87.14, 51.82, 70.0, 64.0), 68.2, "smolvla"),
    ("Evo-1", "0.77 B", (89.2, 76.8, 77.2, 79.2), 80.6, "evoone,evooneissue"),
    ("Evo-1, run by its users", "0.77 B", (90.0, 70.0, 76.7, 68.0), 76.2, "evooneissue"),
    ("LA4VLA", "1 B", (), 87.5, "fabrivla"),
    ("FabriVLA", "0.89 B", (95.0, 88.2, 86.7, 90.0), 90.0, "fabrivla"),
)
"""Reported by others: who, parameters, the four groups and their mean in per cent, and where it stands.

Read in transcriptions of SmolVLA's second table and in a summary of FabriVLA's paper, Evo-1's in the issue itself.
"""
BEGIN, END = "<!-- metaworld: begin -->", "<!-- metaworld: end -->"
"""Around what `book/compared.md` takes over."""


def by_group(shares: tuple[float, ...]) -> str:
    return " / ".join(f"{share:.1f}" for share in shares)


def beside_others(results: Results) -> str:
    """Returns the table of all, by their mean."""
    own = results["policies"]["main"]
    rows = [(mean, name, size, by_group(shares), f"{mean:.1f}", f"{{cite}}`{key}`") for name, size, shares, mean, key
            in OTHERS]  # fmt: skip
    shares = tuple(100 * own["groups"][group] for group in GROUPS)
    low, high = 100 * own["min"], 100 * own["max"]
    mean = f"**{100 * own['mean']:.1f}** ({low:.1f} to {high:.1f}, {own['seeds']} seeds)"
    ours = (100 * own["mean"], "**this course**", f"{own['parameters'] / 1e9:.3f} B", by_group(shares), mean, "")
    ordered = sorted([*rows, ours], key=lambda row: row[0])
    return grid("policy | parameters | easy / medium / hard / very hard | mean of the four | source",
                (row[1:] for row in ordered))  # fmt: skip


def section(results: Results) -> str:
    """Returns the results page's section: the policy beside others, its hardest tasks, and the variants."""
    own = results["policies"]["main"]
    runs = [run for run in results["runs"] if run["variant"] == "main" and run["steps"] == own["steps"]]
    about = f"""Meta-World's 50 tasks ([MT50](https://arxiv.org/abs/1910.10897)), success in per cent. Ours: a policy
        from scratch, {results["demos"]} demonstrations of each task, {own["steps"]:,} steps, {own["episodes"]} episodes
        for each seed, ten of each task. The others' figures are those that the sources report (SmolVLA's authors also
        trained Diffusion Policy, TinyVLA and pi0, and FabriVLA's quote LA4VLA). We read SmolVLA's and FabriVLA's in
        transcriptions of the papers:"""
    differences = f"""What differs from their protocols: our demonstrations are our own ({own["frames"]:,} frames, by
        the same scripted experts with other starts); pictures are {results["image_size"]} pixels wide and drawn without
        shadows and reflections; the policy learns from nothing but these demonstrations, and words only name the task,
        whereas the VLAs begin with pretrained vision and language; an episode has at most 500 steps, and 400 where
        Evo-1's users ran it; our policy looks again after every second action. More than half of its parameters are
        vectors of words that it never reads. The recipe was found by trying others on these tasks."""
    tasks = sorted(
        (sum(run["tasks"][name]["success"] * run["tasks"][name]["episodes"] for run in runs), name)
         for name in runs[0]["tasks"]
    )  # fmt: skip
    episodes = sum(run["tasks"]["reach"]["episodes"] for run in runs)
    hard = ", ".join(f"`{name}` {round(count)}" for count, name in tasks[:10])
    hardest = f"""The ten tasks with the fewest successes in {episodes} episodes, over the seeds: {hard}."""
    variants = [
        (
            name,
            mt50.VARIANTS[name].about,
            f"{row['steps']:,}",
            by_group(tuple(100 * row["groups"][group] for group in GROUPS)),
            f"{percent(row['mean'], 1)} ({100 * row['min']:.1f} to {100 * row['max']:.1f})",
            str(row["seeds"]),
            str(row["episodes"]),
        )
        for name, row in ((key.removesuffix(f"-{row['steps']}"), row) for key, row in results["policies"].items())
    ]
    heads = "variant | what differs | steps | easy / medium / hard / very hard | mean | seeds | episodes for each seed"
    return section_of(
        "Meta-World MT50",
        f"{BEGIN}\n\n{prose(about)}\n\n{beside_others(results)}\n\n{prose(differences)}\n\n{END}",
        prose(hardest),
        prose("Variants, each over its seeds:"),
        grid(heads, variants),
        source(results),
    )
