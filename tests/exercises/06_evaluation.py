"""Answers to the exercises of chapter 06: right ones that must pass, wrong ones that must be refused, and why."""

from exercises.answers import Answers

SWAP = """def swap(act, split):
    swapped = split.retargeted()
    apart = (split.actions * swapped.actions).sum(axis=1) <= 0.8 - 1e-6
    scenes = BlockFind.from_blocks(swapped.cells[apart], swapped.colors[apart])
    predicted = torch.from_numpy(act(scenes))
    return four_metrics(predicted, torch.from_numpy(scenes.actions))[1], int(apart.sum())
"""

NEEDED = """def scenes_needed(share, half_width):
    n = 1
    while True:
        low, high = wilson_interval(share, n)
        if (high - low) / 2 <= half_width:
            return n
        n += 1
"""

WORST = """def worst_group(correct, groups, min_size=1):
    found = []
    for group in np.unique(groups):
        members = groups == group
        if members.sum() >= min_size:
            found.append((correct[members].mean(), int(group), int(members.sum())))
    share, group, number = min(found)
    return group, share, number
"""

DIAGNOSE = """def diagnose(act):
    split = BlockFind(300, seed=7)
    answers = np.asarray(act(split), dtype=np.float64)
    present, scene = split.cells >= 0, np.arange(len(split))
    distance = np.linalg.norm(cell_centers(split.cells) - 32, axis=-1)
    expected = {
        "listens": split.actions,
        "first": directions(split.cells[scene, np.where(present, split.cells, 99).argmin(axis=1)]),
        "nearest": directions(split.cells[scene, np.where(present, distance, 999).argmin(axis=1)]),
        "average": vision_only_floor(split),
    }
    for name, arrows in expected.items():
        degrees = angle_error(torch.from_numpy(arrows), torch.from_numpy(answers))
        if (degrees <= 10).double().mean() > 0.8:
            return name
    return "turned"
"""

ANSWERS = {
    "Exercise 1": Answers(
        right=[
            SWAP,
            """def swap(act, split):
    new = split.retargeted()
    keep = [i for i in range(len(split)) if float(split.actions[i] @ new.actions[i]) < 0.799999]
    scenes = BlockFind.from_blocks(new.cells[keep], new.colors[keep])
    arrows = act(scenes)
    arrows = arrows / np.linalg.norm(arrows, axis=1, keepdims=True)
    return float(((arrows * scenes.actions).sum(axis=1) > 0.8).mean()), len(keep)
""",
            SWAP.replace(" <= 0.8 - 1e-6", " <= 0.8"),
            SWAP.replace(" <= 0.8 - 1e-6", " < 0.8"),
            """def swap(act, split):
    new = split.retargeted()
    arrows = np.asarray(act(new))  # about all scenes; those that do not count are left out afterwards
    apart = (split.actions.astype(float) * new.actions).sum(axis=1) <= 0.8
    right = (arrows * new.actions).sum(axis=1) > 0.8 * np.linalg.norm(arrows, axis=1)
    return right[apart].mean(), apart.sum()
""",
            """def swap(act, split):
    new = split.retargeted()
    before, after = act(split), act(new)  # the answers to the old words are not needed
    right, number = 0, 0
    for i in range(len(split)):
        if split.actions[i] @ new.actions[i] < 0.8:
            number += 1
            right += float(after[i] @ new.actions[i]) > 0.8 * np.linalg.norm(after[i])
    return right / number, number
""",
            """def swap(act, split):
    new = split.retargeted()
    keep = [i for i in reversed(range(len(split))) if split.actions[i] @ new.actions[i] <= 0.8 - 1e-6]
    scenes = [BlockFind.from_blocks(new.cells[[i]], new.colors[[i]]) for i in keep]
    right = []
    for scene in scenes:  # one at a time, the last one first
        x, y = act(scene)[0]
        right.append((x * scene.actions[0, 0] + y * scene.actions[0, 1]) / math.hypot(x, y) > 0.8)
    return np.mean(right), len(keep)
""",
        ],
        wrong={
            "counts all scenes": (SWAP.replace(" <= 0.8 - 1e-6", " <= 2"), "all scenes count"),
            "keeps the scenes with close arrows": (SWAP.replace(" <= 0.8 - 1e-6", " > 0.8 - 1e-6"), "leave them out"),
            "another bound": (SWAP.replace(" <= 0.8 - 1e-6", " <= 0.5"), "scenes count, yours are"),
            "a bound a little too low": (SWAP.replace(" <= 0.8 - 1e-6", " <= 0.75"), "scenes count, yours are"),
            "a bound a little too high": (SWAP.replace(" <= 0.8 - 1e-6", " <= 0.82"), "scenes count, yours are"),
            "asks about all scenes with the old words": (
                SWAP.replace("torch.from_numpy(act(scenes))", "torch.from_numpy(act(split))[apart]"),
                "heard the old words",
            ),
            "counts the wrong ones": (
                SWAP.replace("return four_metrics", "return 1 - four_metrics"),
                "always follows the words scores 100 %",
            ),
            "says yes when half of them follow": (
                SWAP.replace("return four_metrics(", "return round(four_metrics(").replace("))[1], int", "))[1]), int"),
                "divide by the number of scenes",
            ),
            "asks with the old words": (
                SWAP.replace(
                    "from_blocks(swapped.cells[apart], swapped.colors[apart])",
                    "from_blocks(split.cells[apart], split.colors[apart])",
                ),
                "heard the old words",
            ),
            "compares with the old arrows": (
                SWAP.replace("torch.from_numpy(scenes.actions)", "torch.from_numpy(split.actions[apart])"),
                "always follows the words scores 100 %",
            ),
            "returns the strict share": (SWAP.replace("))[1], int", "))[2], int"), "30 degrees off"),
            "divides by all scenes": (
                SWAP.replace("))[1], int(apart.sum())", "))[1] * apart.mean(), int(apart.sum())"),
                "always follows the words scores 100 %",
            ),
            "does not return": (SWAP.replace("    return four", "    four"), "write the body of swap"),
            "a dot product without the length of the answer": (
                """def swap(act, split):
    new = split.retargeted()
    keep = (split.actions * new.actions).sum(axis=1) < 0.8
    return float(((act(new) * new.actions).sum(axis=1)[keep] > 0.8).mean()), int(keep.sum())
""",
                "a cosine divides by the lengths",
            ),
            "a dot product of arrows that are at most of length 1": (
                """def swap(act, split):
    new = split.retargeted()
    keep = (split.actions * new.actions).sum(axis=1) < 0.8
    arrows = act(new)
    arrows = arrows / np.maximum(np.linalg.norm(arrows, axis=1, keepdims=True), 1)
    return float(((arrows * new.actions).sum(axis=1)[keep] > 0.8).mean()), int(keep.sum())
""",
                "with arrows of length 0.5",
            ),
            "a dot product of arrows that are at least of length 1": (
                """def swap(act, split):
    new = split.retargeted()
    keep = (split.actions * new.actions).sum(axis=1) < 0.8
    arrows = act(new)
    arrows = arrows / np.minimum(np.linalg.norm(arrows, axis=1, keepdims=True), 1)
    return float(((arrows * new.actions).sum(axis=1)[keep] > 0.8).mean()), int(keep.sum())
""",
                "with arrows of length 2",
            ),
            "only scenes that were right before": (
                """def swap(act, split):
    new = split.retargeted()
    keep = (split.actions * new.actions).sum(axis=1) < 0.8
    keep &= (act(split) * split.actions).sum(axis=1) > 0.8
    with np.errstate(invalid="ignore"):
        return np.divide(((act(new) * new.actions).sum(axis=1)[keep] > 0.8).sum(), keep.sum()), int(keep.sum())
""",
                "whether it was right before plays no part",
            ),
        },
    ),
    "Exercise 2": Answers(
        right=[
            NEEDED,
            """def scenes_needed(share, half_width):
    def half(n):
        low, high = wilson(share, n)
        return (high - low) / 2

    low, high = 0, 1_000_000
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if half(middle) <= half_width else (middle, high)
    return float(high)
""",
        ],
        wrong={
            "the naive interval": (
                """def scenes_needed(share, half_width):
    return max(math.ceil(1.96**2 * share * (1 - share) / half_width**2), 1)
""",
                "naive interval",
            ),
            "the whole width": (NEEDED.replace("(high - low) / 2", "(high - low)"), "fewer scenes would do"),
            "one too few": (NEEDED.replace("return n", "return n - 1"), "is wider than"),
            "only powers of two": (NEEDED.replace("n += 1", "n *= 2"), "fewer scenes would do"),
            "in steps of ten": (NEEDED.replace("n += 1", "n += 10"), "fewer scenes would do"),
            "from the lower end alone": (
                NEEDED.replace("(high - low) / 2", "share - low"),
                "fewer scenes would do",
            ),
            "not a whole number": (
                "def scenes_needed(share, half_width):\n    return 1.96**2 * share * (1 - share) / half_width**2\n",
                "must be whole",
            ),
        },
    ),
    "Exercise 3": Answers(
        right=[
            WORST,
            """def worst_group(correct, groups, min_size=1):
    sizes = {g: [bool(c) for c, h in zip(correct, groups) if h == g] for g in set(groups.tolist())}
    group = min((g for g in sizes if len(sizes[g]) >= min_size), key=lambda g: sum(sizes[g]) / len(sizes[g]))
    return [group, sum(sizes[group]) / len(sizes[group]), len(sizes[group])]
""",
        ],
        wrong={
            "the best group": (WORST.replace("= min(found)", "= max(found)"), "look for the lowest share"),
            "ignores the minimum size": (WORST.replace(">= min_size", ">= 1"), "is too small"),
            "larger than the minimum": (WORST.replace(">= min_size", "> min_size"), "the minimum itself"),
            "counts the wrong ones": (
                WORST.replace("correct[members].mean(), int", "1 - correct[members].mean(), int"),
                "lowest share",
            ),
            "most mistakes instead of the share": (
                WORST.replace(
                    "(correct[members].mean(), int(group), int(members.sum()))",
                    "(-(~correct[members]).sum() - members.sum() / 100, int(group), int(members.sum()))",
                ),
                "share of correct scenes",
            ),
            "the number of correct scenes": (
                WORST.replace("int(members.sum()))", "int(correct[members].sum()))"),
                "has 2 scenes",
            ),
            "the share of all scenes": (
                WORST.replace("correct[members].mean()", "correct[members].sum() / len(correct)"),
                "2 of 3 right",
            ),
            "the fewest correct scenes": (
                """def worst_group(correct, groups, min_size=1):
    found = []
    for group in np.unique(groups):
        members = groups == group
        if members.sum() >= min_size:
            found.append((correct[members].sum(), int(group), int(members.sum()), correct[members].mean()))
    _, group, number, share = min(found)
    return group, share, number
""",
                "compare shares, not numbers",
            ),
        },
    ),
    "Exercise 4": Answers(
        right=[
            DIAGNOSE,
            """def diagnose(act):
    split = BlockFind(500, seed=3)
    answers = torch.from_numpy(np.asarray(act(split)))
    scene = np.arange(len(split))
    cells = np.where(split.cells >= 0, split.cells, 99)
    far = np.where(split.cells >= 0, np.linalg.norm(cell_centers(split.cells) - 32, axis=-1), 999)
    rules = {
        "first": directions(split.cells[scene, cells.argmin(axis=1)]),
        "nearest": directions(split.cells[scene, far.argmin(axis=1)]),
        "average": vision_only_floor(split),
        "listens": split.actions,
    }
    errors = {name: angle_error(answers, torch.from_numpy(arrows)).median().item() for name, arrows in rules.items()}
    best = min(errors, key=errors.get)
    return best if errors[best] < 5 else "turned"
""",
            DIAGNOSE.replace("    for name, arrows", "    shares = {}\n    for name, arrows")
            .replace("if (degrees <= 10).double().mean() > 0.8:", "shares[name] = (degrees <= 10).double().mean()")
            .replace("            return name\n", "")
            .replace(
                'return "turned"',
                'best = max(shares, key=shares.get)\n    return best if shares[best] > 0.85 else "turned"',
            ),
        ],
        wrong={
            "always the same": (
                'def diagnose(act):\n    return "listens"\n',
                "that is 'turned' was taken for 'listens'",
            ),
            "direction accuracy alone": (
                """def diagnose(act):
    share = four_metrics(torch.from_numpy(act(test)), labels)[1]
    return "listens" if share > 0.9 else "average"
""",
                "that is 'turned' was taken for 'listens'",
            ),
            "takes the farthest for the nearest": (
                DIAGNOSE.replace(
                    "np.where(present, distance, 999).argmin(axis=1)",
                    "np.where(present, distance, -1).argmax(axis=1)",
                ),
                "that is 'nearest' was taken for",
            ),
            "takes absent blocks for the first": (
                DIAGNOSE.replace("np.where(present, split.cells, 99)", "split.cells"),
                "that is 'first' was taken for",
            ),
            "asks for exact equality": (DIAGNOSE.replace("degrees <= 10", "degrees <= 0.01"), "was taken for 'turned'"),
            "a word of its own": ('def diagnose(act):\n    return "deaf"\n', "must be one of"),
        },
    ),
}
