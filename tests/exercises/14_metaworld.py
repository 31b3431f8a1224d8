"""Answers to the exercises of chapter 14: right ones that must pass, wrong ones that must be refused, and why."""

from exercises.answers import Answers


def moved(rows: str = "i + up", columns: str = "j + left", hold: str = ".clamp(0, {size} - 1)", moves: str = "moves"):
    """Returns a function that moves pictures and is right but for what is given."""
    return f"""
def moved_by(images, moves):
    h, w = images.shape[2:]
    i, j = torch.arange(h), torch.arange(w)
    result = []
    for image, (up, left) in zip(images, {moves}):
        rows, columns = ({rows}){hold.format(size="h")}, ({columns}){hold.format(size="w")}
        result.append(image[:, rows][:, :, columns])
    return torch.stack(result)
"""


def waypoints(index: str = "first + np.asarray(steps)", last: str = "ends[episodes]", returned: str = "states[found]"):
    """Returns a function for future states that is right but for what is given."""
    return f"""
def future(states, episodes, steps):
    first = np.arange(len(states))[:, None]
    ends = np.append(np.flatnonzero(np.diff(episodes)), len(states) - 1)
    found = np.minimum({index}, ({last})[:, None])
    return {returned}
"""


def recognised(
    pictures: str = "pictures.astype(float)",
    fill: str = "np.fill_diagonal(apart, np.inf)",
    returned: str = "same.mean()",
    apart: str = "(gaps**2).mean(-1)",
    gaps: str = ".astype(float)",
):
    """Returns a function that recognises pictures and is right but for what is given."""
    return f"""
def share_recognised(pictures, labels):
    wide = ({pictures}).reshape(len(pictures), -1)
    gaps = (wide[:, None] - wide[None]){gaps}
    apart = {apart}
    {fill}
    same = labels[apart.argmin(1)] == labels
    return {returned}
"""


def step(
    noise: str = "noise * draw.standard_normal(4)",
    taken: str = "np.clip(disturbed, -1, 1)",
    returned: str = "state, meant",
    before: str = "",
):
    """Returns one step of a recording that is right but for what is given."""
    return f"""
def recorded_step(scene, noise, draw):
    {before}
    state = scene.state
    meant = scene.expert_action()
    disturbed = meant + {noise}
    scene.step({taken})
    return {returned}
"""


ANSWERS = {
    "Exercise 1": Answers(
        right=[
            moved(),
            """
def moved_by(images, moves):
    reach = int(moves.abs().max())
    padded = F.pad(images, (reach,) * 4, mode="replicate")
    h, w = images.shape[2:]
    corners = moves + reach
    return torch.stack([p[:, a : a + h, b : b + w] for p, (a, b) in zip(padded, corners.tolist())])
""",
        ],
        wrong={
            "lets pixels come in from the other side": (moved(hold=" % {size}"), "repeat the edge instead"),
            "moves down and to the right": (moved("i - up", "j - left"), "the sign is wrong"),
            "swaps rows and columns": (moved("i + left", "j + up"), "rows come first"),
            "moves all images alike": (moved(moves="moves[:1].expand(len(images), 2)"), "all images make the first"),
            "fills with black": (
                """
def moved_by(images, moves):
    h, w = images.shape[2:]
    padded = F.pad(images, (9,) * 4)
    return torch.stack([p[:, 9 + a : 9 + a + h, 9 + b : 9 + b + w] for p, (a, b) in zip(padded, moves.tolist())])
""",
                "what comes in must repeat the edge",
            ),
        },
    ),
    "Exercise 2": Answers(
        right=[
            waypoints(),
            """
def future(states, episodes, steps):
    result = np.empty((len(states), len(steps), states.shape[1]))
    for i, episode in enumerate(episodes):
        last = np.flatnonzero(episodes == episode)[-1]
        for p, step in enumerate(steps):
            result[i, p] = states[min(i + step, last)]
    return result
""",
        ],
        wrong={
            "runs into the next episode": (waypoints(last="np.full(len(states), len(states) - 1)"), "the next episode"),
            "counts from the next frame": (waypoints(index="first + np.asarray(steps) - 1"), "one step too early"),
            "stops one frame early": (waypoints(last="ends[episodes] - 1"), "last frame is left out"),
            "returns differences": (waypoints(returned="states[found] - states[:, None]"), "not differences"),
            "puts waypoints first": (waypoints(returned="states[found].transpose(1, 0, 2)"), "15 frames, 2 waypoints"),
        },
    ),
    "Exercise 3": Answers(
        right=[
            recognised(),
            """
def share_recognised(pictures, labels):
    right = 0
    for i in range(len(pictures)):
        others = [j for j in range(len(pictures)) if j != i]
        gaps = [np.square(pictures[j].astype(int) - pictures[i].astype(int)).sum() for j in others]
        right += labels[others[int(np.argmin(gaps))]] == labels[i]
    return right / len(pictures)
""",
        ],
        wrong={
            "takes the second nearest, itself included": (
                """
def share_recognised(pictures, labels):
    wide = pictures.reshape(len(pictures), -1).astype(float)
    apart = ((wide[:, None] - wide[None]) ** 2).mean(-1)
    return (labels[np.argsort(apart, 1)[:, 1]] == labels).mean()
""",
                "leave out only the picture itself",
            ),
            "lets a picture find itself": (recognised(fill="pass"), "finds itself"),
            "subtracts uint8": (recognised(pictures="pictures"), "wraps around"),
            "returns per cent": (recognised(returned="100 * same.mean()"), "between 0 and 1"),
            "returns a count": (recognised(returned="same.sum()"), "not which share"),
            "takes the least similar picture": (recognised(fill="apart = -apart"), "least similar"),
            "compares mean brightness": (recognised(apart="np.abs(gaps.mean(-1))"), "not mean brightness"),
            "takes the mean before the square": (recognised(apart="gaps.mean(-1) ** 2"), "first square, then the mean"),
            "compares the first pixel": (recognised(apart="(gaps[..., :3] ** 2).mean(-1)"), "of forty random pictures"),
            "turns the pictures into int16": (recognised(pictures="pictures.astype(np.int16)", gaps=""), "in int16"),
            "turns the pictures into int8": (recognised(pictures="pictures.astype(np.int8)"), "wraps around"),
            "subtracts and squares uint8": (recognised(pictures="pictures", gaps=""), "wraps around"),
            "takes the highest correlation": (
                recognised(apart="-np.corrcoef(wide)"),
                "of six grey pictures the share is",
            ),
            "takes the largest difference": (recognised(apart="np.abs(gaps).max(-1)"), "not the largest difference"),
            "compares with earlier pictures": (
                recognised(fill="apart[np.triu_indices(len(apart))] = np.inf"),
                "those before it and those after it",
            ),
            "compares with later pictures": (
                recognised(fill="apart[np.tril_indices(len(apart))] = np.inf"),
                "those before it and those after it",
            ),
            "does not square": (recognised(apart="np.abs(gaps).mean(-1)"), "square each difference"),
            "leaves out all equal pictures": (recognised(fill="apart[apart == 0] = np.inf"), "not all that are equal"),
        },
    ),
    "Exercise 4": Answers(
        right=[
            step(),
            step(noise="draw.normal(0, noise, size=4)", taken="np.minimum(np.maximum(disturbed, -1), 1)"),
        ],
        wrong={
            "asks the expert after the step": (
                """
def recorded_step(scene, noise, draw):
    state = scene.state
    scene.step(np.clip(scene.expert_action() + draw.normal(0, noise, 4), -1, 1))
    return state, scene.expert_action()
""",
                "ask the expert before the step",
            ),
            "records what was done": (step(returned="state, np.clip(disturbed, -1, 1)"), "without the noise"),
            "does not hold the action": (step(taken="disturbed"), "within [-1, 1]"),
            "takes the clean action": (step(taken="meant"), "not disturbed"),
            "returns the state after the step": (step(returned="scene.state, meant"), "after the step"),
            "disturbs all numbers alike": (step(noise="noise * draw.standard_normal()"), "its own noise"),
            "draws the same noise each time": (step(before="draw = np.random.RandomState(0)"), "drawn anew"),
            "takes its own noise": (step(noise="np.random.normal(0, noise, 4)"), "take the noise from draw"),
            "leaves the gripper alone": (
                step(noise="noise * np.append(draw.standard_normal(3), 0)"),
                "the gripper's number gets noise, too",
            ),
            "draws uniform noise": (
                step(noise="noise * 3**0.5 * draw.uniform(-1, 1, 4)"),
                "the noise is normal",
            ),
            "shrinks the whole action": (step(taken="disturbed / max(1, np.abs(disturbed).max())"), "clip each number"),
            "draws again until all is within": (
                """
def recorded_step(scene, noise, draw):
    state, meant = scene.state, scene.expert_action()
    taken = meant + noise * draw.standard_normal(4)
    while noise and np.abs(taken).max() > 1:
        taken = meant + noise * draw.standard_normal(4)
    scene.step(taken)
    return state, meant
""",
                "do not draw the noise again",
            ),
            "takes two steps": (step(before="scene.step(scene.expert_action())"), "takes one step"),
        },
    ),
}
