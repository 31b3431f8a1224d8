"""Answers to the exercises of chapter 10: right ones that must pass, wrong ones that must be refused, and why."""

from exercises.answers import Answers

ANSWERS = {
    "Exercise 1": Answers(
        right=[
            """
def my_sigmoid_loss(logits):
    n = len(logits)
    return F.binary_cross_entropy_with_logits(logits, torch.eye(n), reduction="sum") / n
""",
            """
def my_sigmoid_loss(logits):
    total = 0.0
    for i in range(len(logits)):
        for j in range(len(logits)):
            sign = 1 if i == j else -1
            total = total + F.softplus(-sign * logits[i, j])
    return total / len(logits)
""",
        ],
        wrong={
            "takes the mean over pairs": (
                """
def my_sigmoid_loss(logits):
    signs = 2 * torch.eye(len(logits)) - 1
    return -F.logsigmoid(signs * logits).mean()
""",
                "not by that of the pairs",
            ),
            "does not divide": (
                """
def my_sigmoid_loss(logits):
    signs = 2 * torch.eye(len(logits)) - 1
    return -F.logsigmoid(signs * logits).sum()
""",
                "Divide the sum by the number of images",
            ),
            "is CLIP's loss": (
                """
def my_sigmoid_loss(logits):
    right = torch.arange(len(logits))
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2
""",
                "CLIP's softmax",
            ),
            "asks the right pairs only": (
                """
def my_sigmoid_loss(logits):
    return -F.logsigmoid(logits.diagonal()).mean()
""",
                "the others are questions, too",
            ),
            "forgets the signs": (
                """
def my_sigmoid_loss(logits):
    return -F.logsigmoid(logits).sum() / len(logits)
""",
                "the sign s is -1 off the diagonal",
            ),
            "forgets the minus": (
                """
def my_sigmoid_loss(logits):
    signs = 2 * torch.eye(len(logits)) - 1
    return F.logsigmoid(signs * logits).sum() / len(logits)
""",
                "the minus sign is missing",
            ),
            "takes the logarithm of a rounded sigmoid": (
                """
def my_sigmoid_loss(logits):
    signs = 2 * torch.eye(len(logits)) - 1
    return -torch.sigmoid(signs * logits).log().sum() / len(logits)
""",
                "use F.logsigmoid",
            ),
            "takes the cross-entropy of a rounded sigmoid": (
                """
def my_sigmoid_loss(logits):
    n = len(logits)
    return F.binary_cross_entropy(torch.sigmoid(logits), torch.eye(n), reduction="sum") / n
""",
                "is rounded or cut off",
            ),
            "takes the logarithm in double precision": (
                """
def my_sigmoid_loss(logits):
    signs = 2 * torch.eye(len(logits)) - 1
    return -torch.sigmoid((signs * logits).double()).log().sum() / len(logits)
""",
                "is rounded or cut off",
            ),
            "knows three images only": (
                """
def my_sigmoid_loss(logits):
    signs = 2 * torch.eye(len(logits)) - 1
    return -F.logsigmoid(signs * logits).sum() / 3
""",
                "take their number from the logits",
            ),
            "returns a number": (
                """
def my_sigmoid_loss(logits):
    signs = 2 * torch.eye(len(logits)) - 1
    return float(-F.logsigmoid(signs * logits).sum() / len(logits))
""",
                "nothing could learn",
            ),
            "switches autograd off": (
                """
@torch.no_grad()
def my_sigmoid_loss(logits):
    signs = 2 * torch.eye(len(logits)) - 1
    return -F.logsigmoid(signs * logits).sum() / len(logits)
""",
                "nothing could learn",
            ),
        },
    ),
    "Exercise 2": Answers(
        right=[
            """
def false_negatives(lines):
    from collections import Counter

    counts = Counter(tuple(sorted(line.split(", "))) for line in lines)
    n = len(lines)
    return sum(k * (k - 1) for k in counts.values()) / (n * (n - 1))
""",
            """
def false_negatives(lines):
    sets = [set(line.split(", ")) for line in lines]
    pairs = same = 0
    for i in range(len(sets)):
        for j in range(i):
            pairs += 1
            same += sets[i] == sets[j]
    return same / pairs
""",
        ],
        wrong={
            "compares the given order and its reverse": (
                """
def false_negatives(lines):
    said = [line.split(", ") for line in lines]
    n = len(said)
    same = sum(said[i] == said[j] or said[i] == said[j][::-1] for i in range(n) for j in range(n) if i != j)
    return same / (n * (n - 1))
""",
                "three blocks have six orders",
            ),
            "compares the strings": (
                """
def false_negatives(lines):
    n = len(lines)
    return (sum(a == b for a in lines for b in lines) - n) / (n * (n - 1))
""",
                "order of the blocks does not matter",
            ),
            "counts a caption with itself": (
                """
def false_negatives(lines):
    said = [frozenset(line.split(", ")) for line in lines]
    return sum(a == b for a in said for b in said) / len(said) ** 2
""",
                "a caption and itself are no pair",
            ),
            "divides by all pairs": (
                """
def false_negatives(lines):
    said = [frozenset(line.split(", ")) for line in lines]
    return (sum(a == b for a in said for b in said) - len(said)) / len(said) ** 2
""",
                "6 pairs",
            ),
            "compares the words": (
                """
def false_negatives(lines):
    said = [frozenset(line.replace(",", "").split()) for line in lines]
    n = len(said)
    return (sum(a == b for a in said for b in said) - n) / (n * (n - 1))
""",
                "compare block by block",
            ),
            "compares the colours": (
                """
def false_negatives(lines):
    said = [frozenset(part.split()[0] for part in line.split(", ")) for line in lines]
    n = len(said)
    return (sum(a == b for a in said for b in said) - n) / (n * (n - 1))
""",
                "two different places say different things",
            ),
            "takes a part for the whole": (
                """
def false_negatives(lines):
    said = [frozenset(line.split(", ")) for line in lines]
    n = len(said)
    return (sum(a <= b for a in said for b in said) - n) / (n * (n - 1))
""",
                "you say 0.667",
            ),
            "compares neighbours": (
                """
def false_negatives(lines):
    said = [frozenset(line.split(", ")) for line in lines]
    n = len(said)
    return sum(said[i] == said[(i + 1) % n] for i in range(n)) / n
""",
                "not only neighbours",
            ),
            "leaves a space": (
                """
def false_negatives(lines):
    said = [frozenset(line.split(",")) for line in lines]
    n = len(said)
    return (sum(a == b for a in said for b in said) - n) / (n * (n - 1))
""",
                "a space that split leaves",
            ),
        },
    ),
    "Exercise 3": Answers(
        right=[
            """
def labels_needed(counts, accuracies, target):
    counts, accuracies = np.asarray(counts, float), np.asarray(accuracies, float)
    reached = np.flatnonzero(accuracies >= target)
    if not len(reached):
        return np.inf
    i = reached[0]
    if i == 0:
        return counts[0]
    return np.exp(np.interp(target, accuracies[i - 1 : i + 1], np.log(counts[i - 1 : i + 1])))
""",
            """
def labels_needed(counts, accuracies, target):
    points = list(zip(counts, accuracies))
    if points[0][1] >= target:
        return float(points[0][0])
    for (n0, a0), (n1, a1) in zip(points, points[1:]):
        if a1 >= target:
            return 10 ** (math.log10(n0) + (target - a0) / (a1 - a0) * (math.log10(n1) - math.log10(n0)))
    return float("inf")
""",
            """
def labels_needed(counts, accuracies, target):
    for i, accuracy in enumerate(accuracies):
        if accuracy >= target:
            j = max(i - 1, 0)
            return float(np.exp(np.interp(target, [accuracies[j], accuracy], np.log([counts[j], counts[i]]))))
    return math.inf
""",
        ],
        wrong={
            "a curve must begin above the target": (
                """
def labels_needed(counts, accuracies, target):
    if accuracies[0] > target:
        return counts[0]
    for i in range(1, len(counts)):
        before, at = accuracies[i - 1], accuracies[i]
        if before < target <= at:
            share = (target - before) / (at - before)
            return counts[i - 1] * (counts[i] / counts[i - 1]) ** share
    return math.inf
""",
                "begins exactly at the target",
            ),
            "takes the best so far": (
                """
def labels_needed(counts, accuracies, target):
    best = np.maximum.accumulate(accuracies)
    for i, accuracy in enumerate(best):
        if accuracy >= target:
            if i == 0:
                return counts[0]
            share = (target - best[i - 1]) / (accuracy - best[i - 1])
            return counts[i - 1] * (counts[i] / counts[i - 1]) ** share
    return math.inf
""",
                "interpolate from the point just before",
            ),
            "interpolates in the count": (
                """
def labels_needed(counts, accuracies, target):
    for i, accuracy in enumerate(accuracies):
        if accuracy >= target:
            if i == 0:
                return counts[0]
            share = (target - accuracies[i - 1]) / (accuracy - accuracies[i - 1])
            return counts[i - 1] + share * (counts[i] - counts[i - 1])
    return math.inf
""",
                "in the logarithm of the count",
            ),
            "does not interpolate": (
                """
def labels_needed(counts, accuracies, target):
    for count, accuracy in zip(counts, accuracies):
        if accuracy >= target:
            return count
    return math.inf
""",
                "between two points, interpolate",
            ),
            "wants more than the target": (
                """
def labels_needed(counts, accuracies, target):
    for i, accuracy in enumerate(accuracies):
        if accuracy > target:
            if i == 0:
                return counts[0]
            share = (target - accuracies[i - 1]) / (accuracy - accuracies[i - 1])
            return counts[i - 1] * (counts[i] / counts[i - 1]) ** share
    return math.inf
""",
                "exactly at the target",
            ),
            "returns the last count where it is never reached": (
                """
def labels_needed(counts, accuracies, target):
    for i, accuracy in enumerate(accuracies):
        if accuracy >= target:
            if i == 0:
                return counts[0]
            share = (target - accuracies[i - 1]) / (accuracy - accuracies[i - 1])
            return counts[i - 1] * (counts[i] / counts[i - 1]) ** share
    return counts[-1]
""",
                "needs math.inf",
            ),
            "forgets a curve that begins above": (
                """
def labels_needed(counts, accuracies, target):
    for i, accuracy in enumerate(accuracies):
        if accuracy >= target:
            share = (target - accuracies[i - 1]) / (accuracy - accuracies[i - 1])
            return counts[i - 1] * (counts[i] / counts[i - 1]) ** share
    return math.inf
""",
                "begins above the target",
            ),
            "takes the last crossing": (
                """
def labels_needed(counts, accuracies, target):
    if max(accuracies) < target:
        return math.inf
    if accuracies[0] >= target:
        return counts[0]
    if target in accuracies:
        return counts[accuracies.index(target)]
    found = math.inf
    for i in range(1, len(counts)):
        if accuracies[i - 1] < target <= accuracies[i]:
            share = (target - accuracies[i - 1]) / (accuracies[i] - accuracies[i - 1])
            found = counts[i - 1] * (counts[i] / counts[i - 1]) ** share
    return found
""",
                "take the first crossing",
            ),
        },
    ),
    "Exercise 4": Answers(
        right=[
            """
def thaw(policy, num_blocks):
    depth = len(policy.vision.blocks)
    for number, block in enumerate(policy.vision.blocks):
        if number >= depth - num_blocks:
            block.requires_grad_(True)
    policy.vision.norm.requires_grad_(True)
""",
            """
def thaw(policy, num_blocks):
    last = {f"blocks.{i}." for i in range(len(policy.vision.blocks) - num_blocks, len(policy.vision.blocks))}
    for name, parameter in policy.vision.named_parameters():
        if name.startswith("norm.") or any(name.startswith(start) for start in last):
            parameter.requires_grad = True
    return policy
""",
        ],
        wrong={
            "takes all blocks where none is asked for": (
                """
def thaw(policy, num_blocks):
    for part in (*list(policy.vision.blocks)[-num_blocks:], policy.vision.norm):
        part.requires_grad_(True)
""",
                "with 0 of 3 blocks",
            ),
            "takes the first blocks": (
                """
def thaw(policy, num_blocks):
    for part in (*list(policy.vision.blocks)[:num_blocks], policy.vision.norm):
        part.requires_grad_(True)
""",
                "with 1 of 3 blocks",
            ),
            "forgets the norm": (
                """
def thaw(policy, num_blocks):
    blocks = list(policy.vision.blocks)
    for part in blocks[len(blocks) - num_blocks :]:
        part.requires_grad_(True)
""",
                "The final norm should learn",
            ),
            "thaws the language model, too": (
                """
def thaw(policy, num_blocks):
    for tower in (policy.vision, policy.language):
        blocks = list(tower.blocks)
        for part in (*blocks[len(blocks) - num_blocks :], tower.norm):
            part.requires_grad_(True)
""",
                "the language model should stay frozen",
            ),
            "thaws the patch projection, too": (
                """
def thaw(policy, num_blocks):
    blocks = list(policy.vision.blocks)
    for part in (*blocks[len(blocks) - num_blocks :], policy.vision.norm, policy.vision.patch_projection):
        part.requires_grad_(True)
""",
                "nothing else should begin to learn",
            ),
            "thaws only the matrices": (
                """
def thaw(policy, num_blocks):
    blocks = list(policy.vision.blocks)
    for part in blocks[len(blocks) - num_blocks :]:
        for parameter in part.parameters():
            parameter.requires_grad_(parameter.ndim == 2)
    policy.vision.norm.requires_grad_(True)
""",
                "all weights of a thawed block should learn",
            ),
            "freezes the fusion": (
                """
def thaw(policy, num_blocks):
    policy.fusion.requires_grad_(False)
    blocks = list(policy.vision.blocks)
    for part in (*blocks[len(blocks) - num_blocks :], policy.vision.norm):
        part.requires_grad_(True)
""",
                "what learned before should go on",
            ),
        },
    ),
}
