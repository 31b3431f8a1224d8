"""Answers to the exercises of chapter 16: right ones that must pass, wrong ones that must be refused, and why."""

from exercises.answers import Answers

BESIDE = """
def beside(cells, colors, color, side):
    rows, columns = np.divmod(cells, 8)
    place = (columns, -columns, rows, -rows)[side]
    named = (colors == color) & (cells >= 0)
    if not named.any():
        return np.zeros(cells.shape, bool)
    return (cells >= 0) & (place < place[named][0])
"""
NEAREST = """
def nearest(states, known):
    middle = known.mean(dim=0)
    states, known = F.normalize(states - middle, dim=1), F.normalize(known - middle, dim=1)
    return (states @ known.T).argmax(dim=1)
"""
BOTH = """
def both_right(first, second, labels_first, labels_second):
    def cosine(a, b):
        return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)

    count = cosine(labels_first, labels_second) <= 0.28
    right = (cosine(first, labels_first) > 0.8) & (cosine(second, labels_second) > 0.8)
    return float(right[count].mean()) if count.any() else 0.0
"""
MENDED = """
words = [(name, color) for row, color in zip(NEW_NAMES, COLORS) for name in row]
fetch = [(f"please fetch the {name} cube", color) for name, color in words]
worst = np.argsort(accuracies(policies["MiniLM, frozen"], fetch, num_scenes=60))[:5]
BREAKING = [fetch[i] for i in worst]
frames = ["find the {} block", "the {} one", "touch the {} square", "grab the {} box", "go to the {} tile"]
MENDING = [(frame.format(words[i][0]), words[i][1]) for frame in frames for i in worst]
"""

ANSWERS = {
    "Exercise 1": Answers(
        right=[
            """
def beside(cells, colors, color, side):
    found = np.zeros(len(cells), dtype=bool)
    for i in range(len(cells)):
        for j in range(len(cells)):
            if cells[i] < 0 or cells[j] < 0 or colors[j] != color:
                continue
            (r, c), (r0, c0) = divmod(int(cells[i]), 8), divmod(int(cells[j]), 8)
            found[i] = [c < c0, c > c0, r < r0, r > r0][side]
    return found
""",
            """
def beside(cells, colors, color, side):
    slots = np.flatnonzero((colors == color) & (cells >= 0))
    if len(slots) == 0:
        return cells < -1
    column, row = cells % 8, cells // 8
    here = slots[0]
    tests = [column < column[here], column > column[here], row < row[here], row > row[here]]
    return tests[side] & (cells != -1)
""",
        ],
        wrong={
            "counts what is in the same column": (
                BESIDE.replace("place < place", "place <= place"),
                "not on a side of itself",
            ),
            "forgets the empty slots": (BESIDE.replace("(cells >= 0) & (place", "(place"), "holds no block"),
            "exchanges rows and columns": (
                BESIDE.replace("rows, columns = np", "columns, rows = np"),
                "left of means a smaller column",
            ),
            "exchanges above and below": (
                BESIDE.replace("(columns, -columns, rows, -rows)", "(columns, -columns, -rows, rows)"),
                "rows are counted from the top",
            ),
            "fits everything where the colour is missing": (
                BESIDE.replace("np.zeros(cells.shape, bool)", "cells >= 0"),
                "no block fits where the colour is missing",
            ),
            "gives numbers": (
                BESIDE.replace("(place < place[named][0])", "(place < place[named][0]) * 1"),
                "should be boolean",
            ),
            "compares cell numbers": (
                BESIDE.replace("(columns, -columns, rows, -rows)", "(cells, -cells, cells, -cells)"),
                "left of means a smaller column",
            ),
        },
    ),
    "Exercise 2": Answers(
        right=[
            """
def nearest(states, known):
    found = []
    for state in states:
        values = [F.cosine_similarity(state - known.mean(0), k - known.mean(0), dim=0) for k in known]
        found.append(int(torch.stack(values).argmax()))
    return found
""",
            """
def nearest(states, known):
    shift = known.mean(dim=0, keepdim=True)
    return F.cosine_similarity((states - shift)[:, None], (known - shift)[None], dim=-1).max(dim=1).indices
""",
        ],
        wrong={
            "leaves the mean in": (
                NEAREST.replace("known.mean(dim=0)", "0"),
                "take the mean of known away from both",
            ),
            "takes away the states' own mean": (
                NEAREST.replace("F.normalize(states - middle", "F.normalize(states - states.mean(dim=0)"),
                "not that of states",
            ),
            "does not scale": (
                "def nearest(states, known):\n    middle = known.mean(dim=0)\n"
                "    return ((states - middle) @ (known - middle).T).argmax(dim=1)",
                "scale the rows to length one",
            ),
            "takes away the mean of all together": (
                NEAREST.replace("known.mean(dim=0)", "torch.cat([states, known]).mean(dim=0)"),
                "the mean of known alone",
            ),
            "takes the least alike": (NEAREST.replace("argmax", "argmin"), "the largest cosine is wanted"),
            "gives the cosines": (NEAREST.replace("argmax(dim=1)", "max(dim=1).values"), "argmax gives them"),
            "asks the other way round": (
                NEAREST.replace("(states @ known.T)", "(known @ states.T)"),
                "one number for each",
            ),
        },
    ),
    "Exercise 3": Answers(
        right=[
            """
def both_right(first, second, labels_first, labels_second):
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    a, b, c, d = (unit(np.asarray(x, float)) for x in (first, second, labels_first, labels_second))
    apart = (c * d).sum(1) <= 0.28
    good = ((a * c).sum(1) > 0.8) & ((b * d).sum(1) > 0.8) & apart
    return good.sum() / max(apart.sum(), 1)
""",
            """
def both_right(first, second, labels_first, labels_second):
    hits = total = 0
    for a, b, c, d in zip(first, second, labels_first, labels_second):
        cosine = lambda x, y: float(np.dot(x, y) / np.linalg.norm(x) / np.linalg.norm(y))
        if cosine(c, d) <= 0.28:
            total += 1
            hits += cosine(a, c) > 0.8 and cosine(b, d) > 0.8
    return hits / total if total else 0.0
""",
        ],
        wrong={
            "multiplies the two shares": (
                """
def both_right(first, second, labels_first, labels_second):
    def cosine(a, b):
        return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)

    keep = cosine(labels_first, labels_second) <= 0.28
    if not keep.any():
        return 0.0
    return (cosine(first, labels_first) > 0.8)[keep].mean() * (cosine(second, labels_second) > 0.8)[keep].mean()
""",
                "combine them pair by pair",
            ),
            "counts on labels of length one": (
                """
def both_right(first, second, labels_first, labels_second):
    def cosine(a, b):
        return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)

    count = (labels_first * labels_second).sum(axis=1) <= 0.28
    right = (cosine(first, labels_first) > 0.8) & (cosine(second, labels_second) > 0.8)
    return float(right[count].mean()) if count.any() else 0.0
""",
                "labels may have any length",
            ),
            "one of two is enough": (
                BOTH.replace("> 0.8) & (cosine(second", "> 0.8) | (cosine(second"),
                "both must be right",
            ),
            "looks at the second alone": (
                BOTH.replace("(cosine(first, labels_first) > 0.8) & ", ""),
                "the first answer must be right, too",
            ),
            "takes the product for the cosine": (
                BOTH.replace(" / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)", ""),
                "lengths should not matter",
            ),
            "counts all pairs": (BOTH.replace("<= 0.28", "<= 2"), "make no pair"),
            "counts pairs of which one arrow is right": (
                BOTH.replace("<= 0.28", "<= 0.8"),
                "one arrow between them is right about both",
            ),
            "counts pairs at a right angle and more": (BOTH.replace("<= 0.28", "<= 0"), "78 degrees apart make a pair"),
            "is too kind to the second": (
                BOTH.replace("(cosine(second, labels_second) > 0.8)", "(cosine(second, labels_second) > 0.5)"),
                "for the second answer, too",
            ),
            "has no guard": (BOTH.replace(" if count.any() else 0.0", ""), "0 is to be returned"),
            "divides by all": (BOTH.replace("right[count].mean()", "(right & count).mean()"), "pairs that count, 2"),
            "is too strict": (BOTH.replace("> 0.8)", "> 0.9)"), "35 degrees off is right"),
        },
    ),
    "Exercise 4": Answers(
        right=[
            MENDED.replace("please fetch the {name} cube", "robot, move over to the {name} tile"),
            MENDED + "MENDING = [(f'{verb} the {words[i][0]} {noun}', words[i][1]) for i in worst"
            " for verb in ('find', 'see', 'take') for noun in ('block', 'tile', 'one')]",
        ],
        wrong={
            "four sentences": (MENDED + "BREAKING = BREAKING[:4]", "five different sentences"),
            "one sentence five times": (MENDED + "BREAKING = BREAKING[:1] * 5", "five different sentences"),
            "six, two of them equal": (MENDED + "BREAKING = BREAKING + BREAKING[:1]", "five different sentences"),
            "a word that means another colour": (
                MENDED + "BREAKING[0] = ('please fetch the azure cube', 'red')",
                "means blue in English",
            ),
            "sentences that it knows": (
                MENDED + "BREAKING[0] = ('find the red block', 'red')",
                "does not break the policy",
            ),
            "learns the five by heart": (MENDED + "MENDING = BREAKING", "learning it by heart does not count"),
            "by heart in capitals": (
                MENDED + "MENDING = [(s.upper(), c) for s, c in BREAKING]",
                "learning it by heart does not count",
            ),
            "by heart with a full stop": (
                MENDED + "MENDING = [(s + '.', c) for s, c in BREAKING]",
                "learning it by heart does not count",
            ),
            "no data": (MENDED + "MENDING = []", "what it is to learn from"),
            "too many": (MENDED + "MENDING = MENDING * 3", "at most 60"),
            "another colour": (MENDED + "BREAKING[0] = (BREAKING[0][0], 'plum')", "each colour should be one of"),
            "all of one colour": (MENDED + "BREAKING = [(s, 'blue') for s, _ in BREAKING]", "take at least two"),
            "data about other words": (
                MENDED + "MENDING = [('find the teal block', 'green'), ('touch the teal one', 'green')]",
                "use their new words in other sentences",
            ),
        },
    ),
}
