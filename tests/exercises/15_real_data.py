"""Answers to the exercises of chapter 15: right ones that must pass, wrong ones that must be refused, and why."""

from exercises.answers import Answers


def still(
    frames: str = "frames.astype(int)",
    alike: str = "np.abs(frames[i] - frames[i - 1]).max() <= threshold",
    same: str = "episodes[i] == episodes[i - 1]",
    returned: str = "longest",
) -> str:
    """Returns a count of still frames that is right but for what is given."""
    return f"""
def longest_still(frames, episodes, threshold):
    frames = {frames}
    longest = np.zeros(episodes[-1] + 1, int)
    run = 0
    for i in range(1, len(frames)):
        alike = {alike}
        run = run + 1 if alike and {same} else 0
        longest[episodes[i]] = max(longest[episodes[i]], run)
    return {returned}
"""


def scale(offset: str = "(low + high) / 2", scale: str = "(high - low) / 2", guard: str = "scale > 0") -> str:
    """Returns a normaliser that is right but for what is given."""
    return f"""
def fit_scale(values):
    low, high = np.quantile(values, [0.01, 0.99], axis=0)
    offset, scale = {offset}, {scale}
    return offset, np.where({guard}, scale, 1.0)
"""


def last(condition: str = "episodes[t - 1] == episodes[t] == episodes[there]", ahead: str = "range(horizon)") -> str:
    """Returns an error of the last action that is right but for what is given."""
    return f"""
def last_action_error(actions, episodes, horizon):
    off = []
    for t in range(1, len(actions)):
        for ahead in {ahead}:
            there = t + ahead
            if there < len(actions) and {condition}:
                off.append(np.abs(actions[there] - actions[t - 1]))
    return np.mean(off, axis=0)
"""


ROWS = """
def longest_still(frames, episodes, threshold):
    found = []
    for episode in range(episodes[-1] + 1):
        mine = frames[episodes == episode].astype(int)
        alike = [np.abs(b - a).max() <= threshold for a, b in zip(mine, mine[1:])]
        rows = [len(part) for part in "".join("1" if each else "0" for each in alike).split("0") if part]
        found.append({taken} if rows else 0)
    return np.array(found)
"""
"""Takes one of the rows of still frames of each episode."""

ANSWERS = {
    "Exercise 1": Answers(
        right=[
            """
def longest_still(frames, episodes, threshold):
    change = np.abs(frames[1:].astype(np.int16) - frames[:-1]).reshape(len(frames) - 1, -1).max(axis=1)
    alike = np.concatenate([[False], (change <= threshold) & (np.diff(episodes) == 0)])
    counts = []
    for episode in range(episodes.max() + 1):
        text = "".join("1" if each else "0" for each in alike[episodes == episode])
        counts.append(max(map(len, text.split("0"))))
    return np.array(counts)
""",
            """
def longest_still(frames, episodes, threshold):
    longest = [0] * (int(episodes[-1]) + 1)
    for episode in range(len(longest)):
        mine, run = frames[episodes == episode].astype(float), 0
        for one, other in zip(mine, mine[1:]):
            run = run + 1 if (abs(one - other) <= threshold).all() else 0
            longest[episode] = max(longest[episode], run)
    return longest
""",
        ],
        wrong={
            "counts on over the end of an episode": (
                """
def longest_still(frames, episodes, threshold):
    frames, run = frames.astype(int), 0
    longest = np.zeros(episodes[-1] + 1, int)
    for i in range(1, len(frames)):
        if episodes[i] != episodes[i - 1]:
            continue
        run = run + 1 if np.abs(frames[i] - frames[i - 1]).max() <= threshold else 0
        longest[episodes[i]] = max(longest[episodes[i]], run)
    return longest
""",
                "begin to count anew",
            ),
            "compares grey pictures": (
                """
def longest_still(frames, episodes, threshold):
    frames, run = frames.astype(float).mean(1), 0
    longest = np.zeros(episodes[-1] + 1, int)
    for i in range(1, len(frames)):
        alike = np.abs(frames[i] - frames[i - 1]).max() <= threshold
        run = run + 1 if alike and episodes[i] == episodes[i - 1] else 0
        longest[episodes[i]] = max(longest[episodes[i]], run)
    return longest
""",
                "not the mean of the three",
            ),
            "turns bytes into int8": (
                """
def longest_still(frames, episodes, threshold):
    frames, run = frames.astype(np.int8), 0
    longest = np.zeros(episodes[-1] + 1, int)
    for i in range(1, len(frames)):
        alike = np.abs(frames[i] - frames[i - 1]).max() <= threshold
        run = run + 1 if alike and episodes[i] == episodes[i - 1] else 0
        longest[episodes[i]] = max(longest[episodes[i]], run)
    return longest
""",
                "int8 is too small",
            ),
            "compares over the border of episodes": (still(same="True"), "the first frame of an episode has none"),
            "counts the first of a row": (still(returned="longest + (longest > 0)"), "the first of a row does not"),
            "asks for the very same picture": (
                still(alike="(frames[i] == frames[i - 1]).all()"),
                "a video never gives back the very same picture",
            ),
            "takes the mean difference": (
                still(alike="np.abs(frames[i] - frames[i - 1]).mean() <= threshold"),
                "one pixel that changed a lot is a change",
            ),
            "subtracts bytes": (still(frames="frames.copy()"), "bytes wrap around"),
            "compares with the episode's first frame": (
                still(
                    alike="np.abs(frames[i] - frames[np.flatnonzero(episodes == episodes[i])[0]]).max() <= threshold"
                ),
                "not with the first",
            ),
            "counts all still frames of an episode": (ROWS.format(taken="sum(rows)"), "not all still frames"),
            "takes the last row": (ROWS.format(taken="rows[-1]"), "the largest of an episode's rows is wanted"),
            "takes the first row": (ROWS.format(taken="rows[0]"), "the largest of an episode's rows is wanted"),
            "leaves out a difference equal to the threshold": (
                still(alike="np.abs(frames[i] - frames[i - 1]).max() < threshold"),
                "equal to the threshold",
            ),
            "takes a threshold of its own": (
                still(alike="np.abs(frames[i] - frames[i - 1]).max() <= 4"),
                "take the threshold that is given",
            ),
            "adds the differences": (
                still(alike="np.abs(frames[i] - frames[i - 1]).sum() <= threshold"),
                "not a sum or a length",
            ),
            "adds the differences of the colours": (
                still(alike="np.abs(frames[i] - frames[i - 1]).sum(0).max() <= threshold"),
                "not a sum or a length",
            ),
            "takes the length of the difference": (
                still(alike="np.linalg.norm((frames[i] - frames[i - 1]).ravel()) <= threshold"),
                "not a sum or a length",
            ),
            "stores a row only where it ends": (
                """
def longest_still(frames, episodes, threshold):
    frames, run = frames.astype(int), 0
    longest = np.zeros(episodes[-1] + 1, int)
    for i in range(1, len(frames)):
        if episodes[i] == episodes[i - 1] and np.abs(frames[i] - frames[i - 1]).max() <= threshold:
            run += 1
        else:
            longest[episodes[i - 1]] = max(longest[episodes[i - 1]], run)
            run = 0
    return longest
""",
                "a row that lasts until the last frame counts",
            ),
        },
    ),
    "Exercise 2": Answers(
        right=[
            """
def fit_scale(values):
    ends = np.percentile(values, [1, 99], axis=0)
    half = np.ptp(ends, axis=0) / 2
    half[half == 0] = 1
    return ends.mean(axis=0), half
""",
            """
def fit_scale(values):
    pairs = [np.quantile(column, [0.01, 0.99]) for column in values.T]
    return [sum(p) / 2 for p in pairs], [(p[1] - p[0]) / 2 or 1.0 for p in pairs]
""",
        ],
        wrong={
            "a scale of at least one": (
                """
def fit_scale(values):
    low, high = np.quantile(values, [0.01, 0.99], axis=0)
    return (low + high) / 2, np.maximum((high - low) / 2, 1.0)
""",
                "a small scale, too",
            ),
            "an offset of zero for a column that never changes": (
                """
def fit_scale(values):
    low, high = np.quantile(values, [0.01, 0.99], axis=0)
    changes = high > low
    return np.where(changes, (low + high) / 2, 0.0), np.where(changes, (high - low) / 2, 1.0)
""",
                "should become 0",
            ),
            "takes minimum and maximum": (
                """
def fit_scale(values):
    low, high = values.min(axis=0), values.max(axis=0)
    scale = (high - low) / 2
    return (low + high) / 2, np.where(scale > 0, scale, 1.0)
""",
                "one strange frame would decide them",
            ),
            "divides by zero": (scale(guard="scale > -1"), "give it the scale 1"),
            "takes the whole distance": (scale(scale="high - low"), "half of their distance"),
            "takes the mean as the offset": (scale(offset="values.mean(axis=0)"), "the offset is the middle"),
            "takes the median as the offset": (scale(offset="np.median(values, axis=0)"), "or the median"),
            "asks whether the column changes": (
                scale(guard="values.std(axis=0) > 0"),
                "changes in 1 frame of 1000",
            ),
            "asks for the range": (
                scale(guard="values.max(axis=0) > values.min(axis=0)"),
                "changes in 1 frame of 1000",
            ),
            "a scale of one for small ones": (scale(guard="scale > 0.1"), "a small scale, too"),
            "takes the standard deviation": (
                """
def fit_scale(values):
    scale = values.std(axis=0)
    return values.mean(axis=0), np.where(scale > 0, scale, 1.0)
""",
                "the quantiles are asked for",
            ),
            "takes one scale for all": (
                """
def fit_scale(values):
    low, high = np.quantile(values, [0.01, 0.99])
    return (low + high) / 2, (high - low) / 2
""",
                "one number for each of 4 columns",
            ),
        },
    ),
    "Exercise 3": Answers(
        right=[
            """
def last_action_error(actions, episodes, horizon):
    total, count = np.zeros(actions.shape[1]), 0
    for episode in np.unique(episodes):
        mine = actions[episodes == episode]
        for t in range(1, len(mine)):
            off = np.abs(mine[t : t + horizon] - mine[t - 1])
            total, count = total + off.sum(axis=0), count + len(off)
    return total / count
""",
            """
def last_action_error(actions, episodes, horizon):
    parts = []
    for ahead in range(horizon):
        same = episodes[: len(episodes) - 1 - ahead] == episodes[1 + ahead :]
        parts.append(np.abs(actions[1 + ahead :] - actions[: len(actions) - 1 - ahead])[same])
    return np.concatenate(parts).mean(axis=0)
""",
        ],
        wrong={
            "repeats this frame's action": (
                last().replace("actions[t - 1])", "actions[t])"),
                "repeat the last one",
            ),
            "runs into the next episode": (
                last("episodes[t - 1] == episodes[t]"),
                "what lies after the end does not count",
            ),
            "gives the first frame another episode's action": (
                last("episodes[t] == episodes[there]"),
                "has no last action",
            ),
            "looks one action ahead": (last(ahead="range(1)"), "the first action of each chunk alone"),
            "takes the mean of means": (
                """
def last_action_error(actions, episodes, horizon):
    means = []
    for ahead in range(horizon):
        off = [
            np.abs(actions[t + ahead] - actions[t - 1])
            for t in range(1, len(actions) - ahead)
            if episodes[t - 1] == episodes[t + ahead]
        ]
        means.append(np.mean(off, axis=0))
    return np.mean(means, axis=0)
""",
                "a mean for each step ahead: take it once",
            ),
            "takes the mean of the frames' means": (
                """
def last_action_error(actions, episodes, horizon):
    means = []
    for t in range(1, len(actions)):
        if episodes[t] == episodes[t - 1]:
            same = episodes[t : t + horizon] == episodes[t]
            means.append(np.abs(actions[t : t + horizon][same] - actions[t - 1]).mean(axis=0))
    return np.mean(means, axis=0)
""",
                "a mean for each frame: take it once",
            ),
            "takes the mean of the episodes' means": (
                """
def last_action_error(actions, episodes, horizon):
    means = []
    for episode in np.unique(episodes):
        mine = actions[episodes == episode]
        off = [np.abs(mine[t : t + horizon] - mine[t - 1]) for t in range(1, len(mine))]
        means.append(np.concatenate(off).mean(axis=0))
    return np.mean(means, axis=0)
""",
                "a mean for each episode: take it once",
            ),
            "divides by all actions of the chunks": (
                """
def last_action_error(actions, episodes, horizon):
    total, frames = np.zeros(actions.shape[1]), 0
    for t in range(1, len(actions)):
        if episodes[t] == episodes[t - 1]:
            same = episodes[t : t + horizon] == episodes[t]
            total += np.abs(actions[t : t + horizon][same] - actions[t - 1]).sum(axis=0)
            frames += 1
    return total / (frames * horizon)
""",
                "divide by the number of actions that were compared",
            ),
            "takes the median": (last().replace("np.mean", "np.median"), "the mean is asked for"),
            "squares the errors": (
                last().replace("np.abs(actions[there] - actions[t - 1])", "(actions[there] - actions[t - 1]) ** 2"),
                "the absolute ones are asked for",
            ),
            "takes the root of the mean square": (
                last()
                .replace("np.abs(actions[there] - actions[t - 1])", "(actions[there] - actions[t - 1]) ** 2")
                .replace("np.mean(off, axis=0)", "np.sqrt(np.mean(off, axis=0))"),
                "the absolute ones are asked for",
            ),
        },
    ),
    "Exercise 4": Answers(
        right=[
            """
def plan(counts, new):
    given = np.zeros_like(counts)
    for _ in range(new):
        given.flat[np.argmin(counts + given)] += 1
    return given
""",
            """
def plan(counts, new):
    level = max(l for l in range(counts.max() + new + 1) if np.clip(l - counts, 0, None).sum() <= new)
    given = np.clip(level - counts, 0, None)
    order = np.argsort((counts + given).ravel(), kind="stable")
    left = new - given.sum()
    given.flat[order[:left]] += 1
    return given
""",
        ],
        wrong={
            "spreads them evenly": (
                """
def plan(counts, new):
    given = np.full(counts.shape, new // counts.size)
    given.flat[: new % counts.size] += 1
    return given
""",
                "fill the emptiest first",
            ),
            "gives what is left to the fullest cell": (
                """
def plan(counts, new):
    level = max(l for l in range(counts.max() + new + 1) if np.clip(l - counts, 0, None).sum() <= new)
    given = np.clip(level - counts, 0, None)
    given.flat[(counts + given).argmax()] += new - given.sum()
    return given
""",
                "what is left goes to the emptiest cells",
            ),
            "gives all to the emptiest cell": (
                """
def plan(counts, new):
    given = np.zeros_like(counts)
    given.flat[counts.argmin()] = new
    return given
""",
                "fill the emptiest first",
            ),
            "takes from full cells": (
                """
def plan(counts, new):
    even = (counts.sum() + new) // counts.size
    given = even - counts
    given.flat[0] += new - given.sum()
    return given
""",
                "no cell may be negative",
            ),
            "plans halves": (
                """
def plan(counts, new):
    lack = counts.max() - counts + 1
    return new * lack / lack.sum()
""",
                "episodes are whole",
            ),
            "returns the totals": (
                """
def plan(counts, new):
    total = counts.copy()
    for _ in range(new):
        total[np.unravel_index(total.argmin(), total.shape)] += 1
    return total
""",
                "were to be planned",
            ),
        },
    ),
}
