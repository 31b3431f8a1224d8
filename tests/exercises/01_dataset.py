"""Answers to the exercises of chapter 01: right ones that must pass, wrong ones that must be refused, and why."""

from exercises.answers import Answers

ANSWERS = {
    "Exercise 1": Answers(
        right=[
            """
def label_of(cells):
    cells = np.asarray(cells)
    x, y = cells % 8 * 8 + 4 - 32, cells // 8 * 8 + 4 - 32
    length = np.sqrt(x**2 + y**2)
    return np.stack([x / length, y / length], axis=-1).astype(np.float32)
""",
            """
def label_of(cells):
    cells = torch.as_tensor(cells)
    offset = torch.stack([cells % GRID_SIZE, cells // GRID_SIZE], dim=-1).double() - 3.5
    return torch.nn.functional.normalize(offset, dim=-1)
""",
        ],
        wrong={
            "forgets the half": (
                "def label_of(cells):\n"
                "    rows, columns = np.divmod(cells, GRID_SIZE)\n"
                "    offset = np.stack([columns, rows], axis=-1) * CELL_SIZE - IMAGE_SIZE / 2\n"
                "    length = np.linalg.norm(offset, axis=-1, keepdims=True)\n"
                "    return offset / np.where(length == 0, 1, length)",
                "half a cell further",
            ),
            "takes the far corner of each cell": (
                """
def label_of(cells):
    rows, columns = np.divmod(cells, GRID_SIZE)
    offset = (np.stack([columns, rows], axis=-1) + 1) * CELL_SIZE - IMAGE_SIZE / 2
    with np.errstate(invalid="ignore"):
        return offset / np.linalg.norm(offset, axis=-1, keepdims=True)
""",
                "cell 27: your answer is [nan nan]; did you divide by 0",
            ),
            "divides by the sum": (
                """
def label_of(cells):
    rows, columns = np.divmod(cells, GRID_SIZE)
    offset = np.stack([columns - 3.5, rows - 3.5], axis=-1)
    with np.errstate(divide="ignore"):
        return offset / offset.sum(axis=-1, keepdims=True)
""",
                "did you divide by 0",
            ),
            "exchanges rows and columns": (
                "def label_of(cells):\n"
                "    rows, columns = np.divmod(cells, GRID_SIZE)\n"
                "    offset = (np.stack([rows, columns], axis=-1) + 0.5) * CELL_SIZE - IMAGE_SIZE / 2\n"
                "    return offset / np.linalg.norm(offset, axis=-1, keepdims=True)",
                "and y are exchanged",
            ),
            "lets y run up": (
                "def label_of(cells):\n"
                "    rows, columns = np.divmod(cells, GRID_SIZE)\n"
                "    offset = np.stack([columns - 3.5, 3.5 - rows], axis=-1)\n"
                "    return offset / np.linalg.norm(offset, axis=-1, keepdims=True)",
                "runs down in an image",
            ),
            "points to the centre": (
                "def label_of(cells):\n"
                "    rows, columns = np.divmod(cells, GRID_SIZE)\n"
                "    offset = np.stack([3.5 - columns, 3.5 - rows], axis=-1)\n"
                "    return offset / np.linalg.norm(offset, axis=-1, keepdims=True)",
                "from the blocks to the centre",
            ),
            "does not divide by the length": (
                "def label_of(cells):\n"
                "    rows, columns = np.divmod(cells, GRID_SIZE)\n"
                "    return np.stack([columns - 3.5, rows - 3.5], axis=-1) / 4",
                "the length should be 1",
            ),
            "divides by the length of all cells together": (
                "def label_of(cells):\n"
                "    rows, columns = np.divmod(cells, GRID_SIZE)\n"
                "    offset = np.stack([columns - 3.5, rows - 3.5], axis=-1)\n"
                "    return offset / np.linalg.norm(offset)",
                "the length should be 1",
            ),
            "takes 31.5 for the image's centre": (
                "def label_of(cells):\n"
                "    rows, columns = np.divmod(cells, GRID_SIZE)\n"
                "    offset = (np.stack([columns, rows], axis=-1) + 0.5) * CELL_SIZE - 31.5\n"
                "    return offset / np.linalg.norm(offset, axis=-1, keepdims=True)",
                "centre is at (32, 32)",
            ),
            "takes one row of cells alone": (
                "def label_of(cells):\n"
                "    cells = np.atleast_1d(cells).reshape(-1)\n"
                "    rows, columns = np.divmod(cells, GRID_SIZE)\n"
                "    offset = np.stack([columns - 3.5, rows - 3.5], axis=-1)\n"
                "    return offset / np.linalg.norm(offset, axis=-1, keepdims=True)",
                "should give the shape (2,)",
            ),
            "stacks the coordinates in front": (
                "def label_of(cells):\n"
                "    rows, columns = np.divmod(cells, GRID_SIZE)\n"
                "    offset = np.stack([columns - 3.5, rows - 3.5])\n"
                "    return offset / np.linalg.norm(offset, axis=0)",
                "yours is (2, 64)",
            ),
        },
    ),
    "Exercise 2": Answers(
        right=[
            """
def aims_at_centre(image, color, action, tolerance=1.0):
    y, x = np.nonzero((image == np.array(PALETTE[color])[:, None, None]).all(axis=0))
    if math.hypot(*action) == 0:
        return False
    between = math.atan2(y.mean() - 31.5, x.mean() - 31.5) - math.atan2(action[1], action[0])
    return abs((math.degrees(between) + 180) % 360 - 180) <= tolerance
""",
            """
def aims_at_centre(image, color, action, tolerance=1.0):
    target, action = pixel_offsets(image, color).mean(axis=0), np.asarray(action, dtype=float)
    length = np.linalg.norm(target) * np.linalg.norm(action)
    return length > 0 and np.degrees(np.arccos(np.clip(target @ action / length, -1, 1))) <= tolerance + 1e-5
""",
        ],
        wrong={
            "takes an arrow along an axis for none": (
                """
def aims_at_centre(image, color, action, tolerance=1.0):
    target = pixel_offsets(image, color).mean(axis=0)
    if not np.all(action):
        return False
    cross = target[0] * action[1] - target[1] * action[0]
    return bool(np.degrees(np.arctan2(abs(cross), target @ action)) <= tolerance)
""",
                "an arrow along an axis has a direction, too",
            ),
            "takes a short arrow for none": (
                """
def aims_at_centre(image, color, action, tolerance=1.0):
    target = pixel_offsets(image, color).mean(axis=0)
    if np.linalg.norm(action) < 0.1:
        return False
    cross = target[0] * action[1] - target[1] * action[0]
    return bool(np.degrees(np.arctan2(abs(cross), target @ action)) <= tolerance)
""",
                "any length will do",
            ),
            "knows no angle above 90 degrees": (
                """
def aims_at_centre(image, color, action, tolerance=1.0):
    target = pixel_offsets(image, color).mean(axis=0)
    cross, dot = target[0] * action[1] - target[1] * action[0], target @ action
    return bool(dot > 0 and np.degrees(np.arctan(abs(cross) / dot)) <= tolerance)
""",
                "within a tolerance of 120",
            ),
            "compares differences of x and y with the angle": (
                """
def aims_at_centre(image, color, action, tolerance=1.0):
    if not np.any(action):
        return False
    target = pixel_offsets(image, color).mean(axis=0)
    difference = target / np.linalg.norm(target) - action / np.linalg.norm(action)
    return bool(np.abs(difference).max() <= np.radians(tolerance))
""",
                "is that an angle?",
            ),
            "takes the opposite direction for right": (
                "def aims_at_centre(image, color, action, tolerance=1.0):\n"
                "    target = pixel_offsets(image, color).mean(axis=0)\n"
                "    cross = abs(target[0] * action[1] - target[1] * action[0])\n"
                "    return bool(np.any(action)) and np.degrees(np.arctan2(cross, abs(target @ action))) <= tolerance",
                "the opposite of the correct arrow",
            ),
            "forgets that an angle has two sides": (
                "def aims_at_centre(image, color, action, tolerance=1.0):\n"
                "    target = pixel_offsets(image, color).mean(axis=0)\n"
                "    cross = target[0] * action[1] - target[1] * action[0]\n"
                "    return bool(np.any(action)) and np.degrees(np.arctan2(cross, target @ action)) <= tolerance",
                "off by -1.5 degrees",
            ),
            "takes the sine for the angle": (
                """
def aims_at_centre(image, color, action, tolerance=1.0):
    target = pixel_offsets(image, color).mean(axis=0)
    if not np.any(action) or target @ action <= 0:
        return False
    cross = target[0] * action[1] - target[1] * action[0]
    return np.degrees(abs(cross) / np.linalg.norm(target) / np.linalg.norm(action)) <= tolerance
""",
                "not its sine",
            ),
            "takes the tangent for the angle": (
                """
def aims_at_centre(image, color, action, tolerance=1.0):
    target = pixel_offsets(image, color).mean(axis=0)
    if not np.any(action) or target @ action <= 0:
        return False
    cross = target[0] * action[1] - target[1] * action[0]
    return np.degrees(abs(cross) / (target @ action)) <= tolerance
""",
                "its tangent",
            ),
            "takes the chord for the angle": (
                """
def aims_at_centre(image, color, action, tolerance=1.0):
    target = pixel_offsets(image, color).mean(axis=0)
    if not np.any(action):
        return False
    tips = action / np.linalg.norm(action) - target / np.linalg.norm(target)
    return np.linalg.norm(tips) <= np.radians(tolerance)
""",
                "the distance of the arrows' tips",
            ),
            "does not let angles wrap around": (
                "def aims_at_centre(image, color, action, tolerance=1.0):\n"
                "    x, y = pixel_offsets(image, color).mean(axis=0)\n"
                "    between = np.degrees(np.arctan2(y, x) - np.arctan2(action[1], action[0]))\n"
                "    return bool(np.any(action)) and abs(between) <= tolerance",
                "wrap around at 180",
            ),
            "compares radians with degrees": (
                "def aims_at_centre(image, color, action, tolerance=1.0):\n"
                "    target = pixel_offsets(image, color).mean(axis=0)\n"
                "    cross = target[0] * action[1] - target[1] * action[0]\n"
                "    return bool(np.any(action)) and np.arctan2(abs(cross), target @ action) <= tolerance",
                "it accepts an arrow that is off by",
            ),
            "ignores the tolerance": (
                "def aims_at_centre(image, color, action, tolerance=1.0):\n"
                "    target = pixel_offsets(image, color).mean(axis=0)\n"
                "    cross = target[0] * action[1] - target[1] * action[0]\n"
                "    return bool(np.any(action)) and np.degrees(np.arctan2(abs(cross), target @ action)) <= 1.0",
                "with a tolerance of 3",
            ),
            "accepts an action without a direction": (
                "def aims_at_centre(image, color, action, tolerance=1.0):\n"
                "    target = pixel_offsets(image, color).mean(axis=0)\n"
                "    cross = target[0] * action[1] - target[1] * action[0]\n"
                "    return np.degrees(np.arctan2(abs(cross), target @ action)) <= tolerance",
                "accepts (0, 0)",
            ),
            "counts on a length of one": (
                "def aims_at_centre(image, color, action, tolerance=1.0):\n"
                "    target = pixel_offsets(image, color).mean(axis=0)\n"
                "    return target @ action / np.linalg.norm(target) >= np.cos(np.radians(tolerance)) - 1e-6",
                "an arrow of length 0.2",
            ),
            "looks at the pixels of all blocks": (
                "def aims_at_centre(image, color, action, tolerance=1.0):\n"
                "    y, x = np.nonzero((image != 245).any(axis=0))\n"
                "    target = np.array([x.mean() - 31.5, y.mean() - 31.5])\n"
                "    cross = target[0] * action[1] - target[1] * action[0]\n"
                "    return bool(np.any(action)) and np.degrees(np.arctan2(abs(cross), target @ action)) <= tolerance",
                "only at the pixels of the named one",
            ),
            "is satisfied with touching the block": (
                "def aims_at_centre(image, color, action, tolerance=1.0):\n    return ray_hits(image, color, action)",
                "it accepts an arrow that is off by",
            ),
        },
    ),
    "Exercise 3": Answers(
        right=[
            """
def random_block_floor(split, seed):
    rng = np.random.default_rng(seed)
    arrows = []
    for cells in split.cells:
        cell = rng.choice(cells[cells >= 0])
        x, y = cell % 8 - 3.5, cell // 8 - 3.5
        arrows.append([x / math.hypot(x, y), y / math.hypot(x, y)])
    return np.array(arrows)
""",
            """
def random_block_floor(split, seed):
    generator = torch.Generator().manual_seed(seed)
    weights = torch.from_numpy(split.cells >= 0).double()
    slot = torch.multinomial(weights, 1, generator=generator).numpy()
    return directions(np.take_along_axis(split.cells, slot, axis=1)[:, 0])
""",
        ],
        wrong={
            "draws slots that are not there": (
                "def random_block_floor(split, seed):\n"
                "    slot = np.random.RandomState(seed).randint(4, size=len(split))\n"
                "    return directions(split.cells[np.arange(len(split)), slot])",
                "a block that is not there",
            ),
            "never draws the fourth block": (
                "def random_block_floor(split, seed):\n"
                "    slot = np.random.RandomState(seed).randint(3, size=len(split))\n"
                "    return directions(split.cells[np.arange(len(split)), slot])",
                "scenes with 4 blocks",
            ),
            "always takes the target": (
                "def random_block_floor(split, seed):\n    return split.actions",
                "scenes with 3 blocks",
            ),
            "never takes the target": (
                "def random_block_floor(split, seed):\n"
                "    counts = (split.cells >= 0).sum(axis=1)\n"
                "    slot = 1 + (np.random.RandomState(seed).random_sample(len(split)) * (counts - 1)).astype(int)\n"
                "    return directions(split.cells[np.arange(len(split)), slot])",
                "scenes with 3 blocks",
            ),
            "ignores the seed": (
                "def random_block_floor(split, seed):\n"
                "    counts = (split.cells >= 0).sum(axis=1)\n"
                "    slot = (np.random.RandomState(0).random_sample(len(split)) * counts).astype(int)\n"
                "    return directions(split.cells[np.arange(len(split)), slot])",
                "seed should choose other blocks",
            ),
            "draws without a seed": (
                "def random_block_floor(split, seed):\n"
                "    counts = (split.cells >= 0).sum(axis=1)\n"
                "    slot = (np.random.random_sample(len(split)) * counts).astype(int)\n"
                "    return directions(split.cells[np.arange(len(split)), slot])",
                "seed should choose the same blocks",
            ),
            "draws a random direction": (
                "def random_block_floor(split, seed):\n"
                "    angle = np.random.RandomState(seed).random_sample(len(split)) * 2 * math.pi\n"
                "    return np.stack([np.cos(angle), np.sin(angle)], axis=1)",
                "the arrow points to no block",
            ),
            "averages instead of choosing": (
                "def random_block_floor(split, seed):\n    return vision_only_floor(split)",
                "the arrow points to no block",
            ),
            "takes turns from scene to scene": (
                """
def random_block_floor(split, seed):
    counts = (split.cells >= 0).sum(axis=1)
    slot = (np.arange(len(split)) + seed) % counts
    return directions(split.cells[np.arange(len(split)), slot])
""",
                "a rule chooses, not a random number",
            ),
            "lets the target's cell choose": (
                """
def random_block_floor(split, seed):
    counts = (split.cells >= 0).sum(axis=1)
    slot = (split.cells[:, 0] + seed) % counts
    return directions(split.cells[np.arange(len(split)), slot])
""",
                "a rule chooses, not a random number",
            ),
            "takes turns instead of drawing": (
                "def random_block_floor(split, seed):\n"
                "    counts = (split.cells >= 0).sum(axis=1)\n"
                "    slot = (np.arange(len(split)) // 10 + seed) % counts\n"
                "    return directions(split.cells[np.arange(len(split)), slot])",
                "draw for each scene",
            ),
        },
    ),
    "Exercise 4": Answers(
        right=[
            """
def nearest_task(split):
    instructions, actions, clear = [], [], []
    for cells, colors in zip(split.cells.tolist(), split.colors.tolist()):
        instructions.append("find the block nearest to the " + COLORS[colors[0]] + " block")
        places = [divmod(cell, 8) for cell in cells if cell >= 0]
        far = sorted((math.dist(places[0], place), place) for place in places[1:])
        row, column = far[0][1]
        x, y = column - 3.5, row - 3.5
        actions.append((x / math.hypot(x, y), y / math.hypot(x, y)))
        clear.append(far[1][0] - far[0][0] > 1e-9)
    return instructions, actions, clear
""",
            """
def nearest_task(split):
    centers = cell_centers(split.cells)
    distance = np.square(centers[:, 1:] - centers[:, :1]).sum(axis=2)
    distance = np.where(split.cells[:, 1:] < 0, np.inf, distance)
    target = split.cells[np.arange(len(split)), 1 + distance.argmin(axis=1)]
    clear = (distance == distance.min(axis=1, keepdims=True)).sum(axis=1) == 1
    return [f"find the block nearest to the {COLORS[c]} block" for c in split.colors[:, 0]], directions(target), clear
""",
        ],
        wrong={
            "changes the split": (
                """
def nearest_task(split):
    cells = split.cells
    cells[cells < 0] = 10_000
    rows, columns = np.divmod(cells, 8)
    distance = (rows[:, 1:] - rows[:, :1]) ** 2 + (columns[:, 1:] - columns[:, :1]) ** 2
    target, least = 1 + distance.argmin(1), np.sort(distance, 1)
    sentences = [f"find the block nearest to the {COLORS[k]} block" for k in split.colors[:, 0]]
    return sentences, directions(cells[np.arange(len(cells)), target]), least[:, 0] < least[:, 1]
""",
                "work on a copy",
            ),
            "writes red into every sentence": (
                "def nearest_task(split):\n"
                "    rows, columns = np.divmod(split.cells, 8)\n"
                "    distance = (rows[:, 1:] - rows[:, :1]) ** 2 + (columns[:, 1:] - columns[:, :1]) ** 2\n"
                "    distance[split.cells[:, 1:] < 0] = 10_000\n"
                "    smallest, target = np.sort(distance, axis=1), 1 + distance.argmin(axis=1)\n"
                "    actions = directions(split.cells[np.arange(len(split)), target])\n"
                "    sentences = ['find the block nearest to the red block'] * len(split)\n"
                "    return sentences, actions, smallest[:, 0] < smallest[:, 1]",
                "and slot 0 is yellow",
            ),
            "names the target instead of the start": (
                "def nearest_task(split):\n"
                "    rows, columns = np.divmod(split.cells, 8)\n"
                "    distance = (rows[:, 1:] - rows[:, :1]) ** 2 + (columns[:, 1:] - columns[:, :1]) ** 2\n"
                "    distance[split.cells[:, 1:] < 0] = 10_000\n"
                "    smallest, target = np.sort(distance, axis=1), 1 + distance.argmin(axis=1)\n"
                "    chosen = np.arange(len(split)), target\n"
                "    sentences = [f'find the block nearest to the {COLORS[c]} block' for c in split.colors[chosen]]\n"
                "    return sentences, directions(split.cells[chosen]), smallest[:, 0] < smallest[:, 1]",
                "and slot 0 is red",
            ),
            "counts steps along the grid": (
                "def nearest_task(split):\n"
                "    rows, columns = np.divmod(split.cells, 8)\n"
                "    distance = abs(rows[:, 1:] - rows[:, :1]) + abs(columns[:, 1:] - columns[:, :1])\n"
                "    distance[split.cells[:, 1:] < 0] = 10_000\n"
                "    smallest, target = np.sort(distance, axis=1), 1 + distance.argmin(axis=1)\n"
                "    actions = directions(split.cells[np.arange(len(split)), target])\n"
                "    sentences = [f'find the block nearest to the {COLORS[c]} block' for c in split.colors[:, 0]]\n"
                "    return sentences, actions, smallest[:, 0] < smallest[:, 1]",
                "in a straight line 19 is nearer",
            ),
            "points to the named block": (
                "def nearest_task(split):\n"
                "    rows, columns = np.divmod(split.cells, 8)\n"
                "    distance = (rows[:, 1:] - rows[:, :1]) ** 2 + (columns[:, 1:] - columns[:, :1]) ** 2\n"
                "    distance[split.cells[:, 1:] < 0] = 10_000\n"
                "    smallest = np.sort(distance, axis=1)\n"
                "    sentences = [f'find the block nearest to the {COLORS[c]} block' for c in split.colors[:, 0]]\n"
                "    return sentences, split.actions, smallest[:, 0] < smallest[:, 1]",
                "it points to the named block",
            ),
            "forgets that a block may be missing": (
                "def nearest_task(split):\n"
                "    rows, columns = np.divmod(split.cells, 8)\n"
                "    distance = (rows[:, 1:] - rows[:, :1]) ** 2 + (columns[:, 1:] - columns[:, :1]) ** 2\n"
                "    smallest, target = np.sort(distance, axis=1), 1 + distance.argmin(axis=1)\n"
                "    actions = directions(split.cells[np.arange(len(split)), target])\n"
                "    sentences = [f'find the block nearest to the {COLORS[c]} block' for c in split.colors[:, 0]]\n"
                "    return sentences, actions, smallest[:, 0] < smallest[:, 1]",
                "a cell of -1 is no block",
            ),
            "looks at the first three blocks alone": (
                "def nearest_task(split):\n"
                "    rows, columns = np.divmod(split.cells[:, :3], 8)\n"
                "    distance = (rows[:, 1:] - rows[:, :1]) ** 2 + (columns[:, 1:] - columns[:, :1]) ** 2\n"
                "    smallest, target = np.sort(distance, axis=1), 1 + distance.argmin(axis=1)\n"
                "    actions = directions(split.cells[np.arange(len(split)), target])\n"
                "    sentences = [f'find the block nearest to the {COLORS[c]} block' for c in split.colors[:, 0]]\n"
                "    return sentences, actions, smallest[:, 0] < smallest[:, 1]",
                "slot 3 is a block, too",
            ),
            "says that every scene is clear": (
                "def nearest_task(split):\n"
                "    rows, columns = np.divmod(split.cells, 8)\n"
                "    distance = (rows[:, 1:] - rows[:, :1]) ** 2 + (columns[:, 1:] - columns[:, :1]) ** 2\n"
                "    distance[split.cells[:, 1:] < 0] = 10_000\n"
                "    actions = directions(split.cells[np.arange(len(split)), 1 + distance.argmin(axis=1)])\n"
                "    sentences = [f'find the block nearest to the {COLORS[c]} block' for c in split.colors[:, 0]]\n"
                "    return sentences, actions, np.ones(len(split), dtype=bool)",
                "8 and 10 tie for 9",
            ),
            "starts the arrow at the named block": (
                "def nearest_task(split):\n"
                "    rows, columns = np.divmod(split.cells, 8)\n"
                "    distance = (rows[:, 1:] - rows[:, :1]) ** 2 + (columns[:, 1:] - columns[:, :1]) ** 2\n"
                "    distance[split.cells[:, 1:] < 0] = 10_000\n"
                "    smallest, target = np.sort(distance, axis=1), 1 + distance.argmin(axis=1)\n"
                "    centers = cell_centers(split.cells)\n"
                "    way = centers[np.arange(len(split)), target] - centers[:, 0]\n"
                "    sentences = [f'find the block nearest to the {COLORS[c]} block' for c in split.colors[:, 0]]\n"
                "    actions = way / np.linalg.norm(way, axis=1, keepdims=True)\n"
                "    return sentences, actions, smallest[:, 0] < smallest[:, 1]",
                "from the image's centre to cell 1",
            ),
            "compares the numbers of the cells": (
                "def nearest_task(split):\n"
                "    distance = abs(split.cells[:, 1:] - split.cells[:, :1])\n"
                "    distance[split.cells[:, 1:] < 0] = 10_000\n"
                "    smallest, target = np.sort(distance, axis=1), 1 + distance.argmin(axis=1)\n"
                "    actions = directions(split.cells[np.arange(len(split)), target])\n"
                "    sentences = [f'find the block nearest to the {COLORS[c]} block' for c in split.colors[:, 0]]\n"
                "    return sentences, actions, smallest[:, 0] < smallest[:, 1]",
                "in a straight line 19 is nearer",
            ),
        },
    ),
}
