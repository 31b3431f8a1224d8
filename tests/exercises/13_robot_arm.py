"""Answers to the exercises of chapter 13: right ones that must pass, wrong ones that must be refused, and why."""

from exercises.answers import Answers


def step(returned: str) -> str:
    """Returns a damped step that gives what is written."""
    return f"""
def damped_step(jacobian, error, damping):
    return {returned}
"""


def touch(
    end: str = "0.035",
    gripper: str = "-1.0",
    height: str = "np.clip({end} + 4 * (beside - 0.004), {end}, 0.09)",
    turn: str = "np.clip(state.tilts / STEP_RADIANS, -1, 1)",
    sideways: str = "way",
) -> str:
    """Returns an expert for the touch that is right but for what is given."""
    return f"""
def touch_expert(state):
    beside = np.linalg.norm(state.offsets[:, :2], axis=1)
    way = state.offsets.copy()
    way[:, 2] += {height.format(end=end)}
    way = {sideways}
    move = way / np.maximum(np.linalg.norm(way, axis=1, keepdims=True), STEP_METRES)
    turn = {turn}
    return np.concatenate([move, turn, np.full((len(way), 1), {gripper})], axis=1)
"""


ANSWERS = {
    "Exercise 1": Answers(
        right=[
            """
def damped_step(jacobian, error, damping):
    columns = jacobian.shape[1]
    return np.linalg.inv(jacobian.T @ jacobian + damping**2 * np.eye(columns)) @ jacobian.T @ error
""",
            """
def damped_step(jacobian, error, damping):
    columns = jacobian.shape[1]
    stacked = np.vstack([jacobian, damping * np.eye(columns)])
    wanted = np.concatenate([error, np.zeros(columns)])
    return list(np.linalg.lstsq(stacked, wanted, rcond=None)[0])
""",
        ],
        wrong={
            "does not square the damping": (
                step("jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + damping * np.eye(len(error)), error)"),
                "the damping goes in squared",
            ),
            "takes twice the penalty": (
                step(
                    "jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + 2 * damping**2 * np.eye(len(error)), error)"
                ),
                "differs from the formula's",
            ),
            "has no damping": (
                step("jacobian.T @ np.linalg.solve(jacobian @ jacobian.T, error)"),
                "there is no damping in it",
            ),
            "takes the transpose for the inverse": (step("jacobian.T @ error"), "the inverse is missing"),
            "goes away from the goal": (
                step("-jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + damping**2 * np.eye(len(error)), error)"),
                "the tip would move away",
            ),
            "knows one damping": (
                step("jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + 0.16 * np.eye(len(error)), error)"),
                "does `damping` reach your code",
            ),
            "damps every entry": (
                step("jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + damping**2, error)"),
                "differs from the formula's",
            ),
            "forgets the outer transpose": (
                step("np.linalg.solve(jacobian @ jacobian.T + damping**2 * np.eye(len(error)), error)"),
                "differs from the formula's",
            ),
        },
    ),
    "Exercise 2": Answers(
        right=[
            """
def tried_jacobian(angles):
    result = np.zeros((3, 6))
    for i in range(6):
        moved = np.array(angles, dtype=float)
        moved[i] += 1e-6
        result[:, i] = (place_at(moved) - place_at(angles)) / 1e-6
    return result
""",
            """
def tried_jacobian(angles):
    h = 1e-4
    steps = h * np.eye(6)
    return [
        [(place_at(angles + step)[row] - place_at(angles - step)[row]) / (2 * h) for step in steps] for row in range(3)
    ]
""",
        ],
        wrong={
            "has a row for each angle": (
                """
def tried_jacobian(angles):
    return np.stack([(place_at(angles + 1e-6 * one) - place_at(angles)) / 1e-6 for one in np.eye(6)])
""",
                "transpose it",
            ),
            "does not divide": (
                """
def tried_jacobian(angles):
    return np.stack([place_at(angles + 1e-6 * one) - place_at(angles) for one in np.eye(6)], axis=1)
""",
                "divide by the change",
            ),
            "divides two steps by one": (
                """
def tried_jacobian(angles):
    h = 1e-6
    return np.stack([(place_at(angles + h * one) - place_at(angles - h * one)) / h for one in np.eye(6)], axis=1)
""",
                "two steps apart",
            ),
            "takes large steps": (
                """
def tried_jacobian(angles):
    return np.stack([(place_at(angles + 0.1 * one) - place_at(angles)) / 0.1 for one in np.eye(6)], axis=1)
""",
                "is your step about 1e-6",
            ),
            "takes steps that rounding swallows": (
                """
def tried_jacobian(angles):
    return np.stack([(place_at(angles + 1e-13 * one) - place_at(angles)) / 1e-13 for one in np.eye(6)], axis=1)
""",
                "lost in rounding",
            ),
            "turns the difference round": (
                """
def tried_jacobian(angles):
    return np.stack([(place_at(angles) - place_at(angles + 1e-6 * one)) / 1e-6 for one in np.eye(6)], axis=1)
""",
                "new position minus old one",
            ),
            "changes the angles for good": (
                """
def tried_jacobian(angles):
    columns = []
    for i in range(6):
        before = place_at(angles)
        angles[i] += 1e-6
        columns.append((place_at(angles) - before) / 1e-6)
    return np.stack(columns, axis=1)
""",
                "changes the angles that it was given",
            ),
            "copies MuJoCo's": (
                """
def tried_jacobian(angles):
    return jacobian_at(angles)[:3]
""",
                "with `place_at` alone",
            ),
            "takes degrees": (
                """
def tried_jacobian(angles):
    h = 1e-6
    return np.stack(
        [(place_at(angles + h * one) - place_at(angles)) / np.degrees(h) for one in np.eye(6)], axis=1
    )
""",
                "in radians here",
            ),
        },
    ),
    "Exercise 3": Answers(
        right=[
            touch(end="0.033"),
            """
def touch_expert(state):
    actions = np.zeros((len(state.openings), 7))
    for i, (offset, tilt) in enumerate(zip(state.offsets, state.tilts)):
        beside = np.hypot(offset[0], offset[1])
        over = 0.036 if beside < 0.005 else 0.08
        way = offset + [0, 0, over]
        actions[i, :3] = way / max(np.linalg.norm(way), STEP_METRES)
        actions[i, 3:6] = np.clip(tilt / STEP_RADIANS, -1, 1)
        actions[i, 6] = -1
    return actions
""",
        ],
        wrong={
            "goes by a clock": (
                """
calls = [0]


def touch_expert(state):
    calls[0] += 1
    way = state.offsets.copy()
    way[:, 2] += 0.1 if calls[0] < 14 else 0.035
    if calls[0] < 5:
        way[:, :2] = 0
    move = way / np.maximum(np.linalg.norm(way, axis=1, keepdims=True), STEP_METRES)
    turn = np.clip(state.tilts / STEP_RADIANS, -1, 1)
    return np.concatenate([move, turn, np.full((len(way), 1), -1.0)], axis=1)
""",
                "without a clock",
            ),
            "leaves the fingers open": (touch(gripper="1.0"), "the fingers should be closed"),
            "stays above the block": (touch(end="0.07"), "stays up to"),
            "goes too far down": (touch(end="0.02"), "3 to 4 cm over the block's centre"),
            "does not turn the hand": (touch(turn="0 * state.tilts"), "the hand should be upright"),
            "stays where it is": (touch(sideways="0 * way"), "within 1 cm of the block's axis"),
            "goes straight to the block": (touch(height="{end}"), "no block should be pushed"),
            "opens the fingers on the way": (
                """
def touch_expert(state):
    beside = np.linalg.norm(state.offsets[:, :2], axis=1)
    way = state.offsets.copy()
    way[:, 2] += np.clip(0.035 + 4 * (beside - 0.004), 0.035, 0.09)
    move = way / np.maximum(np.linalg.norm(way, axis=1, keepdims=True), STEP_METRES)
    turn = np.clip(state.tilts / STEP_RADIANS, -1, 1)
    return np.concatenate([move, turn, np.where(beside < 0.02, -1.0, 1.0)[:, None]], axis=1)
""",
                "closed on the way",
            ),
            "takes the norm of the whole batch": (
                """
def touch_expert(state):
    beside = np.linalg.norm(state.offsets[:, :2], axis=1)
    way = state.offsets.copy()
    way[:, 2] += np.clip(0.035 + 4 * (beside - 0.004), 0.035, 0.09)
    move = way / max(np.linalg.norm(way), STEP_METRES)
    turn = np.clip(state.tilts / STEP_RADIANS, -1, 1)
    return np.concatenate([move, turn, np.full((len(way), 1), -1.0)], axis=1)
""",
                "axis=1",
            ),
            "lets the worst state decide the height": (
                touch(height="np.clip({end} + 4 * (beside.max() - 0.004), {end}, 0.09)"),
                "axis=1",
            ),
            "does not stop": (
                """
def touch_expert(state):
    beside = np.linalg.norm(state.offsets[:, :2], axis=1)
    way = state.offsets.copy()
    way[:, 2] += np.clip(0.035 + 4 * (beside - 0.004), 0.035, 0.09)
    way[np.linalg.norm(way, axis=1) < 0.004] = (0, 0, 0.004)
    move = way / np.maximum(np.linalg.norm(way, axis=1, keepdims=True), STEP_METRES)
    turn = np.clip(state.tilts / STEP_RADIANS, -1, 1)
    return np.concatenate([move, turn, np.full((len(way), 1), -1.0)], axis=1)
""",
                "stop there",
            ),
            "gives one action": (
                """
def touch_expert(state):
    return np.zeros(7)
""",
                "the shape should be (10, 7)",
            ),
        },
    ),
    "Exercise 4": Answers(
        right=[
            """
def follows(first, second):
    followed = [went == 1 for went, success in zip(second.outcome["went_to"], first.success) if success]
    return sum(followed) / len(followed)
""",
            """
def follows(first, second):
    solved = np.flatnonzero(first.success)
    return float(np.count_nonzero(second.outcome["went_to"][solved] == 1)) / len(solved)
""",
            """
def follows(first, second):
    s = first.success
    return (second.outcome["went_to"][s] == second.outcome["named"][s]).mean()
""",
        ],
        wrong={
            "counts all scenes": (
                """
def follows(first, second):
    return (second.outcome["went_to"] == 1).mean()
""",
                "only those count in which the first run was a success",
            ),
            "divides by all scenes": (
                """
def follows(first, second):
    return ((second.outcome["went_to"] == 1) & first.success).mean()
""",
                "divide by 5",
            ),
            "takes any other block": (
                """
def follows(first, second):
    return (second.outcome["went_to"][first.success] != 0).mean()
""",
                "count block 1 alone",
            ),
            "takes the second run's successes": (
                """
def follows(first, second):
    return (second.outcome["went_to"][second.success] == 1).mean()
""",
                "not those of the second",
            ),
            "looks at the first run": (
                """
def follows(first, second):
    return (first.outcome["went_to"][first.success] == 1).mean()
""",
                "the expert always follows",
            ),
            "takes success for following": (
                """
def follows(first, second):
    return second.success[first.success].mean()
""",
                "does not follow at all",
            ),
        },
    ),
}
