"""Answers to the exercises of chapter 00: right ones that must pass, wrong ones that must be refused, and why."""

from exercises.answers import Answers

ANSWERS = {
    "Exercise 1": Answers(
        right=[
            """
def angle_of(dx, dy):
    angle = np.degrees(np.arctan2(-dy, dx))
    return angle + 360 if angle < 0 else angle
""",
            """
import cmath

def angle_of(dx, dy):
    return torch.tensor(math.degrees(cmath.phase(complex(dx, -dy)))) % 360
""",
        ],
        wrong={
            "forgets that y points down": (
                "def angle_of(dx, dy):\n    return math.degrees(math.atan2(dy, dx)) % 360",
                "y runs down",
            ),
            "answers in radians": (
                "def angle_of(dx, dy):\n    return math.atan2(-dy, dx) % (2 * math.pi)",
                "these are radians",
            ),
            "leaves negative angles": (
                "def angle_of(dx, dy):\n    return math.degrees(math.atan2(-dy, dx))",
                "bring it into the range",
            ),
            "answers 360 instead of 0": (
                "def angle_of(dx, dy):\n    return 360 - math.degrees(math.atan2(dy, dx)) % 360",
                "bring it into the range",
            ),
            "is right on the axes alone": (
                "def angle_of(dx, dy):\n    return 90 * (1 - dx) if dy <= 0 else 270 + 90 * dx",
                "is 53.13 degrees",
            ),
            "forgets that down is not up": (
                "def angle_of(dx, dy):\n    return abs(math.degrees(math.atan2(-dy, dx)))",
                "the same for up and down",
            ),
            "forgets the quadrant": (
                "def angle_of(dx, dy):\n    return math.degrees(math.atan(-dy / (dx or 1e-12))) % 360",
                "(-1, 0) is 180 degrees",
            ),
            "counts on a length of one": (
                "def angle_of(dx, dy):\n"
                "    angle = math.degrees(math.acos(max(-1, min(1, dx))))\n"
                "    return angle if dy <= 0 else 360 - angle",
                "(1.2, -1.6) is 53.13 degrees",
            ),
            "divides by a length of at least one": (
                """
def angle_of(dx, dy):
    length = max(1, math.hypot(dx, dy))
    angle = math.degrees(math.acos(dx / length))
    return 360 - angle if dy > 0 else angle
""",
                "a short arrow",
            ),
        },
    ),
    "Exercise 2": Answers(
        right=[
            """
def find_block(image, color):
    red, green, blue = PALETTE[color]
    x = y = count = 0
    for row in range(64):
        for column in range(64):
            if image[0, row, column] == red and image[1, row, column] == green and image[2, row, column] == blue:
                x, y, count = x + column + 0.5, y + row + 0.5, count + 1
    dx, dy = x / count - 32, y / count - 32
    length = math.hypot(dx, dy)
    return dx / length, dy / length
""",
            """
def find_block(image, color):
    mask = (torch.tensor(image).permute(1, 2, 0) == torch.tensor(PALETTE[color])).all(dim=-1)
    place = mask.nonzero().float().mean(dim=0).flip(0) - 31.5
    return place / place.norm()
""",
        ],
        wrong={
            "takes a pixel that shares one of the colour's numbers": (
                """
def find_block(image, color):
    rgb = np.array(PALETTE[color])
    rows, columns = np.nonzero((image == rgb[:, None, None]).any(axis=0))
    offset = np.array([columns.mean() - 31.5, rows.mean() - 31.5])
    return offset / np.linalg.norm(offset)
""",
                "all three of its numbers",
            ),
            "compares the sum of the channels": (
                """
def find_block(image, color):
    rows, columns = np.nonzero(image.astype(int).sum(axis=0) == sum(PALETTE[color]))
    offset = np.array([columns.mean() - 31.5, rows.mean() - 31.5])
    return offset / np.linalg.norm(offset)
""",
                "the sum of all three",
            ),
            "compares the mean of the channels": (
                """
def find_block(image, color):
    rows, columns = np.nonzero(image.mean(axis=0) == np.mean(PALETTE[color]))
    offset = np.array([columns.mean() - 31.5, rows.mean() - 31.5])
    return offset / np.linalg.norm(offset)
""",
                "compare all three numbers",
            ),
            "compares red and green alone": (
                """
def find_block(image, color):
    red, green, _ = PALETTE[color]
    rows, columns = np.nonzero((image[0] == red) & (image[1] == green))
    offset = np.array([columns.mean() - 31.5, rows.mean() - 31.5])
    return offset / np.linalg.norm(offset)
""",
                "neither two channels",
            ),
            "compares green and blue alone": (
                """
def find_block(image, color):
    _, green, blue = PALETTE[color]
    rows, columns = np.nonzero((image[1] == green) & (image[2] == blue))
    offset = np.array([columns.mean() - 31.5, rows.mean() - 31.5])
    return offset / np.linalg.norm(offset)
""",
                "neither two channels",
            ),
            "takes the first pixel alone": (
                """
def find_block(image, color):
    rgb = np.array(PALETTE[color])
    rows, columns = np.nonzero((image == rgb[:, None, None]).all(axis=0))
    offset = np.array([columns[0] - 31.5, rows[0] - 31.5])
    return offset / np.linalg.norm(offset)
""",
                "first pixel; average",
            ),
            "looks at the red channel alone": (
                """
def find_block(image, color):
    rows, columns = np.nonzero(image[0] == PALETTE[color][0])
    offset = np.array([columns.mean() - 31.5, rows.mean() - 31.5])
    return offset / np.linalg.norm(offset)
""",
                "all three of its numbers",
            ),
            "exchanges x and y": (
                "def find_block(image, color):\n"
                "    rgb = np.array(PALETTE[color])\n"
                "    x, y = np.nonzero((image == rgb[:, None, None]).all(axis=0))\n"
                "    offset = np.array([x.mean() - 31.5, y.mean() - 31.5])\n"
                "    return offset / np.linalg.norm(offset)",
                "x and y are exchanged",
            ),
            "forgets the half pixel": (
                "def find_block(image, color):\n"
                "    rgb = np.array(PALETTE[color])\n"
                "    rows, columns = np.nonzero((image == rgb[:, None, None]).all(axis=0))\n"
                "    offset = np.array([columns.mean() - 32, rows.mean() - 32])\n"
                "    return offset / np.linalg.norm(offset)",
                "i + 0.5",
            ),
            "lets y run up": (
                "def find_block(image, color):\n"
                "    rgb = np.array(PALETTE[color])\n"
                "    rows, columns = np.nonzero((image == rgb[:, None, None]).all(axis=0))\n"
                "    offset = np.array([columns.mean() - 31.5, 31.5 - rows.mean()])\n"
                "    return offset / np.linalg.norm(offset)",
                "y runs down",
            ),
            "does not divide by the length": (
                "def find_block(image, color):\n"
                "    rgb = np.array(PALETTE[color])\n"
                "    rows, columns = np.nonzero((image == rgb[:, None, None]).all(axis=0))\n"
                "    return columns.mean() - 31.5, rows.mean() - 31.5",
                "the length should be 1",
            ),
            "takes the block's corner": (
                "def find_block(image, color):\n"
                "    rgb = np.array(PALETTE[color])\n"
                "    rows, columns = np.nonzero((image == rgb[:, None, None]).all(axis=0))\n"
                "    offset = np.array([columns.min() - 32, rows.min() - 32])\n"
                "    return offset / np.linalg.norm(offset)",
                "off by",
            ),
            "finds every block, whatever its colour": (
                "def find_block(image, color):\n"
                "    rows, columns = np.nonzero((image != 245).any(axis=0))\n"
                "    offset = np.array([columns.mean() - 31.5, rows.mean() - 31.5])\n"
                "    return offset / np.linalg.norm(offset)",
                "are these the pixels of that colour",
            ),
            "looks for red whatever it is asked": (
                "def find_block(image, color):\n"
                "    rows, columns = np.nonzero(image[0] == PALETTE['red'][0])\n"
                "    offset = np.array([columns.mean() - 31.5, rows.mean() - 31.5])\n"
                "    return offset / np.linalg.norm(offset)",
                "are these the pixels of that colour",
            ),
            "uses another palette": (
                "def find_block(image, color):\n"
                "    rgb = {'red': (255, 0, 0), 'green': (0, 255, 0), 'blue': (0, 0, 255)}.get(color, (0, 0, 0))\n"
                "    rows, columns = np.nonzero((image == np.array(rgb)[:, None, None]).all(axis=0))\n"
                "    offset = np.array([columns.mean() - 31.5, rows.mean() - 31.5])\n"
                "    return offset / np.linalg.norm(offset)",
                "did it find any pixel",
            ),
            "starts at the block": (
                "def find_block(image, color):\n"
                "    rgb = np.array(PALETTE[color])\n"
                "    rows, columns = np.nonzero((image == rgb[:, None, None]).all(axis=0))\n"
                "    offset = np.array([31.5 - columns.mean(), 31.5 - rows.mean()])\n"
                "    return offset / np.linalg.norm(offset)",
                "points away from the block",
            ),
        },
    ),
    "Exercise 3": Answers(
        right=[
            """
def share_followed(policy, image, arrows):
    sentences = [f"find the {color} block" for color in arrows]
    answers = torch.stack([policy.predict(image, sentence) for sentence in sentences]).double()
    wanted = torch.tensor(np.array(list(arrows.values()))).double()
    return (torch.nn.functional.cosine_similarity(answers, wanted) > 0.8).double().mean()
""",
            """
def share_followed(policy, image, arrows):
    count = 0
    for color in sorted(arrows):
        dx, dy = policy.predict(image, "find the " + color + " block").tolist()
        between = math.atan2(dy, dx) - math.atan2(arrows[color][1], arrows[color][0])
        count += math.cos(between) > 0.8
    return count / len(arrows)
""",
            """
def share_followed(policy, image, arrows):
    sentences = [f"find the {color} block" for color in arrows]
    answers = policy.predict(np.stack([image] * len(arrows)), sentences).double()
    wanted = torch.tensor(np.stack([*arrows.values()])).double()
    return ((answers * wanted).sum(dim=1) > 0.8 * answers.norm(dim=1)).double().mean().item()
""",
        ],
        wrong={
            "forgets that angles wrap around at 180": (
                """
def share_followed(policy, image, arrows):
    right = 0
    for color, arrow in arrows.items():
        answer = policy.predict(image, f"find the {color} block").numpy()
        angle = math.atan2(answer[1], answer[0]) - math.atan2(arrow[1], arrow[0])
        right += abs(angle) < math.acos(0.8)
    return right / len(arrows)
""",
                "do angles wrap at 180",
            ),
            "forgets to divide by the length": (
                "def share_followed(policy, image, arrows):\n"
                "    answers = [policy.predict(image, f'find the {c} block').numpy() @ arrows[c] for c in arrows]\n"
                "    return np.mean(np.array(answers) > 0.8)",
                "divides by both lengths) should score 1",
            ),
            "asks for the first block alone": (
                "def share_followed(policy, image, arrows):\n"
                "    first = next(iter(arrows))\n"
                "    answer = policy.predict(image, f'find the {first} block').numpy()\n"
                "    cosine = [answer @ arrow / np.linalg.norm(answer) for arrow in arrows.values()]\n"
                "    return np.mean(np.array(cosine) > 0.8)",
                "each of blue, orange, purple, red",
            ),
            "asks with the colour alone": (
                """
def share_followed(policy, image, arrows):
    right = []
    for color, arrow in arrows.items():
        answer = policy.predict(image, color).numpy()
        right.append(answer @ arrow > 0.8 * np.linalg.norm(answer))
    return np.mean(right)
""",
                "the sentence should be 'find the",
            ),
            "shows the policy another scene": (
                """
def share_followed(policy, image, arrows):
    right = []
    for color, arrow in arrows.items():
        answer = policy.predict(scenes.images[0], f"find the {color} block").numpy()
        right.append(answer @ arrow > 0.8 * np.linalg.norm(answer))
    return np.mean(right)
""",
                "the image that your function was given",
            ),
            "shows the policy nothing": (
                """
def share_followed(policy, image, arrows):
    right = []
    for color, arrow in arrows.items():
        answer = policy.predict(None, f"find the {color} block").numpy()
        right.append(answer @ arrow > 0.8 * np.linalg.norm(answer))
    return np.mean(right)
""",
                "the image that your function was given",
            ),
            "leaves the word block out": (
                "def share_followed(policy, image, arrows):\n"
                "    right = []\n"
                "    for color, arrow in arrows.items():\n"
                "        answer = policy.predict(image, f'find the {color}').numpy()\n"
                "        right.append(answer @ arrow > 0.8 * np.linalg.norm(answer))\n"
                "    return np.mean(right)",
                "each of blue, orange, purple, red",
            ),
            "compares every answer with the first arrow": (
                "def share_followed(policy, image, arrows):\n"
                "    right = []\n"
                "    for color in arrows:\n"
                "        answer = policy.predict(image, f'find the {color} block').numpy()\n"
                "        right.append(answer @ next(iter(arrows.values())) > 0.8 * np.linalg.norm(answer))\n"
                "    return np.mean(right)",
                "perfect policy should score 1, and yours says 0.25",
            ),
            "counts instead of taking the share": (
                "def share_followed(policy, image, arrows):\n"
                "    right = []\n"
                "    for color, arrow in arrows.items():\n"
                "        answer = policy.predict(image, f'find the {color} block').numpy()\n"
                "        right.append(answer @ arrow > 0.8 * np.linalg.norm(answer))\n"
                "    return sum(right)",
                "should score 1, and yours says 4",
            ),
            "takes the opposite direction for right": (
                "def share_followed(policy, image, arrows):\n"
                "    right = []\n"
                "    for color, arrow in arrows.items():\n"
                "        answer = policy.predict(image, f'find the {color} block').numpy()\n"
                "        right.append(abs(answer @ arrow) > 0.8 * np.linalg.norm(answer))\n"
                "    return np.mean(right)",
                "the opposite way should score 0",
            ),
            "asks only whether all are right": (
                "def share_followed(policy, image, arrows):\n"
                "    right = []\n"
                "    for color, arrow in arrows.items():\n"
                "        answer = policy.predict(image, f'find the {color} block').numpy()\n"
                "        right.append(answer @ arrow > 0.8 * np.linalg.norm(answer))\n"
                "    return all(right)",
                "should score 0.25, and yours says 0",
            ),
            "is too strict": (
                "def share_followed(policy, image, arrows):\n"
                "    right = []\n"
                "    for color, arrow in arrows.items():\n"
                "        answer = policy.predict(image, f'find the {color} block').numpy()\n"
                "        right.append(answer @ arrow > 0.98 * np.linalg.norm(answer))\n"
                "    return np.mean(right)",
                "35 degrees off should score 1",
            ),
            "allows forty degrees": (
                "def share_followed(policy, image, arrows):\n"
                "    right = []\n"
                "    for color, arrow in arrows.items():\n"
                "        answer = policy.predict(image, f'find the {color} block').numpy()\n"
                "        cosine = answer @ arrow / np.linalg.norm(answer)\n"
                "        right.append(math.degrees(math.acos(np.clip(cosine, -1, 1))) < 40)\n"
                "    return np.mean(right)",
                "38 degrees off should score 0",
            ),
            "compares the distance of the arrows' ends with 0.7": (
                "def share_followed(policy, image, arrows):\n"
                "    right = []\n"
                "    for color, arrow in arrows.items():\n"
                "        answer = policy.predict(image, f'find the {color} block').numpy()\n"
                "        right.append(np.linalg.norm(answer / np.linalg.norm(answer) - arrow) < 0.7)\n"
                "    return np.mean(right)",
                "38 degrees off should score 0",
            ),
            "divides by four, however many blocks there are": (
                "def share_followed(policy, image, arrows):\n"
                "    right = []\n"
                "    for color, arrow in arrows.items():\n"
                "        answer = policy.predict(image, f'find the {color} block').numpy()\n"
                "        right.append(answer @ arrow > 0.8 * np.linalg.norm(answer))\n"
                "    return sum(right) / 4",
                "of two should score 0.5",
            ),
        },
    ),
}
