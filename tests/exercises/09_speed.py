"""Answers to the exercises of chapter 9: right ones that must pass, wrong ones that must be refused, and why."""

from exercises.answers import Answers

ANSWERS = {
    "Exercise 1": Answers(
        right=[
            """
def median_time(call, wait, clock, warmup=2, repeats=5):
    for _ in range(warmup):
        call()
    times = []
    for _ in range(repeats):
        wait()
        start = clock()
        call()
        wait()
        times.append(clock() - start)
    times.sort()
    middle = repeats // 2
    return (times[middle] + times[~middle]) / 2
""",
            """
def median_time(call, wait, clock, warmup=2, repeats=5):
    def once():
        wait()
        begin = clock()
        call()
        wait()
        return clock() - begin

    times = torch.tensor([once() for _ in range(warmup + repeats)][warmup:], dtype=torch.double)
    return torch.quantile(times, 0.5)
""",
        ],
        wrong={
            "leaves out the slowest calls in place of the first": (
                """
def median_time(call, wait, clock, warmup=2, repeats=5):
    times = []
    for _ in range(warmup + repeats):
        wait()
        started = clock()
        call()
        wait()
        times.append(clock() - started)
    return statistics.median(sorted(times)[:repeats])
""",
                "a warm-up may be fast",
            ),
            "reads another clock": (
                """
def median_time(call, wait, clock, warmup=2, repeats=5):
    times = []
    for _ in range(warmup + repeats):
        wait()
        started = time.perf_counter()
        call()
        wait()
        times.append(time.perf_counter() - started)
    return statistics.median(times[warmup:])
""",
                "read the time from `clock`",
            ),
            "does not wait before it stops the clock": (
                """
def median_time(call, wait, clock, warmup=2, repeats=5):
    times = []
    for _ in range(warmup + repeats):
        wait()
        start = clock()
        call()
        times.append(clock() - start)
    return statistics.median(times[warmup:])
""",
                "It took no time at all",
            ),
            "does not wait before it starts the clock": (
                """
def median_time(call, wait, clock, warmup=2, repeats=5):
    times = []
    for _ in range(warmup + repeats):
        start = clock()
        call()
        wait()
        times.append(clock() - start)
    return statistics.median(times[warmup:])
""",
                "wait before you start the clock",
            ),
            "takes the mean": (
                """
def median_time(call, wait, clock, warmup=2, repeats=5):
    times = []
    for _ in range(warmup + repeats):
        wait()
        start = clock()
        call()
        wait()
        times.append(clock() - start)
    return statistics.mean(times[warmup:])
""",
                "take the median",
            ),
            "takes the shortest": (
                """
def median_time(call, wait, clock, warmup=2, repeats=5):
    times = []
    for _ in range(warmup + repeats):
        wait()
        start = clock()
        call()
        wait()
        times.append(clock() - start)
    return min(times[warmup:])
""",
                "the shortest",
            ),
            "warms up within the measured calls": (
                """
def median_time(call, wait, clock, warmup=2, repeats=5):
    times = []
    for _ in range(repeats):
        wait()
        start = clock()
        call()
        wait()
        times.append(clock() - start)
    return statistics.median(times)
""",
                "2 warm-up calls and 5 measured ones are 7",
            ),
            "times all calls together": (
                """
def median_time(call, wait, clock, warmup=2, repeats=5):
    for _ in range(warmup):
        call()
    wait()
    start = clock()
    for _ in range(repeats):
        call()
    wait()
    return clock() - start
""",
                "does each time hold one call",
            ),
        },
    ),
    "Exercise 2": Answers(
        right=[
            """
def orthogonalize_by_hand(matrix, steps=5):
    a, b, c = NEWTON_SCHULZ
    x = matrix / (matrix**2).sum().sqrt()
    for _ in range(steps):
        gram = torch.matmul(x, x.transpose(0, 1))
        x = (a * torch.eye(len(x)) + b * gram + c * gram.matrix_power(2)) @ x
    return x
""",
            """
def orthogonalize_by_hand(matrix, steps=5):
    u, s, v = torch.linalg.svd(matrix / torch.linalg.norm(matrix), full_matrices=False)
    for _ in range(steps):
        s = NEWTON_SCHULZ[0] * s + NEWTON_SCHULZ[1] * s**3 + NEWTON_SCHULZ[2] * s**5
    return u @ torch.diag(s) @ v
""",
        ],
        wrong={
            "does not divide by the norm": (
                """
def orthogonalize_by_hand(matrix, steps=5):
    a, b, c = NEWTON_SCHULZ
    x = matrix
    for _ in range(steps):
        square = x @ x.T
        x = a * x + b * square @ x + c * square @ square @ x
    return x
""",
                "divide by the norm",
            ),
            "divides by the largest singular value": (
                """
def orthogonalize_by_hand(matrix, steps=5):
    a, b, c = NEWTON_SCHULZ
    x = matrix / torch.linalg.matrix_norm(matrix, 2)
    for _ in range(steps):
        square = x @ x.T
        x = a * x + b * square @ x + c * square @ square @ x
    return x
""",
                "is the norm Frobenius's",
            ),
            "leaves out the last term": (
                """
def orthogonalize_by_hand(matrix, steps=5):
    a, b, _ = NEWTON_SCHULZ
    x = matrix / matrix.norm()
    for _ in range(steps):
        x = a * x + b * x @ x.T @ x
    return x
""",
                "are all three terms there",
            ),
            "takes a decomposition": (
                """
def orthogonalize_by_hand(matrix, steps=5):
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    return u @ v
""",
                "is it the polynomial",
            ),
            "takes the textbook's coefficients": (
                """
def orthogonalize_by_hand(matrix, steps=5):
    x = matrix / matrix.norm()
    for _ in range(steps):
        square = x @ x.T
        x = 15 / 8 * x - 10 / 8 * square @ x + 3 / 8 * square @ square @ x
    return x
""",
                "the coefficients of NEWTON_SCHULZ",
            ),
            "applies the terms one after the other": (
                """
def orthogonalize_by_hand(matrix, steps=5):
    a, b, c = NEWTON_SCHULZ
    x = matrix / matrix.norm()
    for _ in range(steps):
        x = a * x
        x = x + b * x @ x.T @ x
        x = x + c * x @ x.T @ x @ x.T @ x
    return x
""",
                "compute all three terms from the same X",
            ),
            "ignores the number of steps": (
                """
def orthogonalize_by_hand(matrix, steps=5):
    a, b, c = NEWTON_SCHULZ
    x = matrix / matrix.norm()
    for _ in range(5):
        square = x @ x.T
        x = a * x + b * square @ x + c * square @ square @ x
    return x
""",
                "one step differs",
            ),
            "changes the type": (
                """
def orthogonalize_by_hand(matrix, steps=5):
    a, b, c = NEWTON_SCHULZ
    x = matrix.double() / matrix.norm()
    for _ in range(steps):
        square = x @ x.T
        x = a * x + b * square @ x + c * square @ square @ x
    return x
""",
                "the type should stay torch.float32",
            ),
            "returns within the loop": (
                """
def orthogonalize_by_hand(matrix, steps=5):
    a, b, c = NEWTON_SCHULZ
    x = matrix / matrix.norm()
    for _ in range(steps):
        square = x @ x.T
        return a * x + b * square @ x + c * square @ square @ x
""",
                "five steps give what one gives",
            ),
            "changes the matrix": (
                """
def orthogonalize_by_hand(matrix, steps=5):
    a, b, c = NEWTON_SCHULZ
    x = matrix.div_(matrix.norm())
    for _ in range(steps):
        square = x @ x.T
        x = a * x + b * square @ x + c * square @ square @ x
    return x
""",
                "changes the matrix that it was given",
            ),
        },
    ),
    "Exercise 3": Answers(
        right=[
            """
def only_used_words(policy, split):
    used, renumbered = split.input_ids.unique(return_inverse=True)
    small = copy.deepcopy(policy)
    old = small.language.token_embedding
    small.language.token_embedding = nn.Embedding(len(used), old.embedding_dim)
    with torch.no_grad():
        small.language.token_embedding.weight.copy_(old.weight[used])
    return small, replace(split, input_ids=renumbered)
""",
            """
def only_used_words(policy, split):
    used = sorted(set(split.input_ids.flatten().tolist()))
    place = {number: row for row, number in enumerate(used)}
    ids = torch.tensor([[place[number] for number in row] for row in split.input_ids.tolist()])
    small = copy.deepcopy(policy)
    rows = small.language.token_embedding.weight.detach()[torch.tensor(used)].clone()
    small.language.token_embedding = nn.Embedding.from_pretrained(rows, freeze=False)
    return [small, replace(split, input_ids=ids)]
""",
        ],
        wrong={
            "changes the policy that it was given": (
                """
def only_used_words(policy, split):
    used = split.input_ids.unique()
    rows = policy.language.token_embedding.weight.detach()[used]
    policy.language.token_embedding = nn.Embedding.from_pretrained(rows, freeze=False)
    return policy, replace(split, input_ids=torch.searchsorted(used, split.input_ids))
""",
                "copy the policy, keep the old",
            ),
            "leaves the new embedding frozen": (
                """
def only_used_words(policy, split):
    used = split.input_ids.unique()
    small = copy.deepcopy(policy)
    small.language.token_embedding = nn.Embedding.from_pretrained(policy.language.token_embedding.weight.detach()[used])
    return small, replace(split, input_ids=torch.searchsorted(used, split.input_ids))
""",
                "the new embedding is frozen",
            ),
            "does not renumber": (
                """
def only_used_words(policy, split):
    used = split.input_ids.unique()
    small = copy.deepcopy(policy)
    rows = small.language.token_embedding.weight.detach()[used]
    small.language.token_embedding = nn.Embedding.from_pretrained(rows, freeze=False)
    return small, split
""",
                "renumber them",
            ),
            "takes new random rows": (
                """
def only_used_words(policy, split):
    used = split.input_ids.unique()
    small = copy.deepcopy(policy)
    small.language.token_embedding = nn.Embedding(len(used), policy.language.token_embedding.embedding_dim)
    return small, replace(split, input_ids=torch.searchsorted(used, split.input_ids))
""",
                "A token should keep its vector",
            ),
            "takes the first rows": (
                """
def only_used_words(policy, split):
    used = split.input_ids.unique()
    small = copy.deepcopy(policy)
    rows = small.language.token_embedding.weight.detach()[: len(used)]
    small.language.token_embedding = nn.Embedding.from_pretrained(rows, freeze=False)
    return small, replace(split, input_ids=torch.searchsorted(used, split.input_ids))
""",
                "A token should keep its vector",
            ),
            "takes the ids in the order of their first appearance": (
                """
def only_used_words(policy, split):
    used = torch.tensor(list(dict.fromkeys(split.input_ids.flatten().tolist())))
    place = {number: row for row, number in enumerate(used.tolist())}
    ids = torch.tensor([[place[number] for number in row] for row in split.input_ids.tolist()])
    small = copy.deepcopy(policy)
    rows = small.language.token_embedding.weight.detach()[used]
    small.language.token_embedding = nn.Embedding.from_pretrained(rows, freeze=False)
    return small, replace(split, input_ids=ids)
""",
                "in rising order of the ids",
            ),
            "keeps rows up to the largest id": (
                """
def only_used_words(policy, split):
    small = copy.deepcopy(policy)
    rows = small.language.token_embedding.weight.detach()[: split.input_ids.max() + 1]
    small.language.token_embedding = nn.Embedding.from_pretrained(rows, freeze=False)
    return small, split
""",
                "different ids occur",
            ),
            "a row too many": (
                """
def only_used_words(policy, split):
    used = split.input_ids.unique()
    small = copy.deepcopy(policy)
    rows = small.language.token_embedding.weight.detach()[torch.cat([used, used[-1:]])]
    small.language.token_embedding = nn.Embedding.from_pretrained(rows, freeze=False)
    return small, replace(split, input_ids=torch.searchsorted(used, split.input_ids))
""",
                "with a row for each, and no more",
            ),
            "puts the rows into a new policy": (
                """
def only_used_words(policy, split):
    used = split.input_ids.unique()
    small = new_policy(nano, seed=0)
    rows = policy.language.token_embedding.weight.detach()[used]
    small.language.token_embedding = nn.Embedding.from_pretrained(rows, freeze=False)
    return small, replace(split, input_ids=torch.searchsorted(used, split.input_ids))
""",
                "the policy that was given",
            ),
            "never trains the first row": (
                """
def only_used_words(policy, split):
    used = split.input_ids.unique()
    small = copy.deepcopy(policy)
    rows = small.language.token_embedding.weight.detach()[used]
    small.language.token_embedding = nn.Embedding.from_pretrained(rows, freeze=False, padding_idx=0)
    return small, replace(split, input_ids=torch.searchsorted(used, split.input_ids))
""",
                "does every row train",
            ),
            "leaves the padding out": (
                """
def only_used_words(policy, split):
    used = split.input_ids[split.attention_mask.bool()].unique()
    small = copy.deepcopy(policy)
    rows = small.language.token_embedding.weight.detach()[used]
    small.language.token_embedding = nn.Embedding.from_pretrained(rows, freeze=False)
    return small, replace(split, input_ids=torch.searchsorted(used, split.input_ids))
""",
                "the padding's id is one of them",
            ),
            "copies the policy but not its other weights": (
                """
def only_used_words(policy, split):
    used = split.input_ids.unique()
    small = copy.copy(policy)
    small._modules = dict(policy._modules)
    small.language = copy.copy(policy.language)
    small.language._modules = dict(policy.language._modules)
    rows = policy.language.token_embedding.weight.detach()[used]
    small.language.token_embedding = nn.Embedding.from_pretrained(rows, freeze=False)
    return small, replace(split, input_ids=torch.searchsorted(used, split.input_ids))
""",
                "share weights",
            ),
        },
    ),
    "Exercise 4": Answers(
        right=[
            """
@torch.no_grad()
def muon_step(weight, gradient, moment, learning_rate, momentum=0.95):
    moment.mul_(momentum).add_(gradient, alpha=1 - momentum)
    ahead = moment * momentum + gradient * (1 - momentum)
    if weight.shape[0] > weight.shape[1]:
        update = orthogonalize(ahead.mT).mT
    else:
        update = orthogonalize(ahead)
    weight -= 0.2 * max(weight.shape) ** 0.5 * learning_rate * update
""",
            """
def muon_step(weight, gradient, moment, learning_rate, momentum=0.95):
    moment += (1 - momentum) * (gradient - moment)
    ahead = torch.lerp(gradient, moment, momentum)
    rows, columns = weight.shape
    wide = ahead if rows <= columns else ahead.T
    flat = orthogonalize(wide)
    weight.add_(flat if rows <= columns else flat.T, alpha=-learning_rate * 0.2 * math.sqrt(max(rows, columns)))
""",
        ],
        wrong={
            "does not look ahead": (
                """
def muon_step(weight, gradient, moment, learning_rate, momentum=0.95):
    moment.lerp_(gradient, 1 - momentum)
    tall = weight.shape[0] > weight.shape[1]
    update = orthogonalize(moment.T if tall else moment)
    update = update.T if tall else update
    weight.sub_(learning_rate * 0.2 * math.sqrt(max(weight.shape)) * update)
""",
                "does it look ahead",
            ),
            "scales with the shorter side": (
                """
def muon_step(weight, gradient, moment, learning_rate, momentum=0.95):
    moment.lerp_(gradient, 1 - momentum)
    ahead = momentum * moment + (1 - momentum) * gradient
    tall = weight.shape[0] > weight.shape[1]
    update = orthogonalize(ahead.T if tall else ahead)
    update = update.T if tall else update
    weight.sub_(learning_rate * 0.2 * math.sqrt(min(weight.shape)) * update)
""",
                "the root of the longer side",
            ),
            "adds the update": (
                """
def muon_step(weight, gradient, moment, learning_rate, momentum=0.95):
    moment.lerp_(gradient, 1 - momentum)
    ahead = momentum * moment + (1 - momentum) * gradient
    tall = weight.shape[0] > weight.shape[1]
    update = orthogonalize(ahead.T if tall else ahead)
    update = update.T if tall else update
    weight.add_(learning_rate * 0.2 * math.sqrt(max(weight.shape)) * update)
""",
                "your step goes uphill",
            ),
            "brings a tall update back by a reshape": (
                """
def muon_step(weight, gradient, moment, learning_rate, momentum=0.95):
    moment.lerp_(gradient, 1 - momentum)
    ahead = momentum * moment + (1 - momentum) * gradient
    tall = weight.shape[0] > weight.shape[1]
    update = orthogonalize(ahead.T if tall else ahead)
    update = update.reshape(weight.shape)
    weight.sub_(learning_rate * 0.2 * math.sqrt(max(weight.shape)) * update)
""",
                "transpose the update back",
            ),
            "changes the gradient": (
                """
def muon_step(weight, gradient, moment, learning_rate, momentum=0.95):
    moment.lerp_(gradient, 1 - momentum)
    ahead = gradient.lerp_(moment, momentum)
    tall = weight.shape[0] > weight.shape[1]
    update = orthogonalize(ahead.T if tall else ahead)
    update = update.T if tall else update
    weight.sub_(learning_rate * 0.2 * math.sqrt(max(weight.shape)) * update)
""",
                "changes the gradient that it was given",
            ),
            "makes a new weight": (
                """
def muon_step(weight, gradient, moment, learning_rate, momentum=0.95):
    moment.lerp_(gradient, 1 - momentum)
    ahead = momentum * moment + (1 - momentum) * gradient
    tall = weight.shape[0] > weight.shape[1]
    update = orthogonalize(ahead.T if tall else ahead)
    update = update.T if tall else update
    weight = weight - learning_rate * 0.2 * math.sqrt(max(weight.shape)) * update
    return weight
""",
                "change weight in place",
            ),
            "makes a new moment": (
                """
def muon_step(weight, gradient, moment, learning_rate, momentum=0.95):
    moment = momentum * moment + (1 - momentum) * gradient
    ahead = momentum * moment + (1 - momentum) * gradient
    tall = weight.shape[0] > weight.shape[1]
    update = orthogonalize(ahead.T if tall else ahead)
    update = update.T if tall else update
    weight.sub_(learning_rate * 0.2 * math.sqrt(max(weight.shape)) * update)
""",
                "the moment has not moved",
            ),
            "adds the whole gradient to the moment": (
                """
def muon_step(weight, gradient, moment, learning_rate, momentum=0.95):
    moment.mul_(momentum).add_(gradient)
    ahead = momentum * moment + gradient
    tall = weight.shape[0] > weight.shape[1]
    update = orthogonalize(ahead.T if tall else ahead)
    update = update.T if tall else update
    weight.sub_(learning_rate * 0.2 * math.sqrt(max(weight.shape)) * update)
""",
                "the first moment is",
            ),
            "hard-codes the momentum": (
                """
def muon_step(weight, gradient, moment, learning_rate, momentum=0.95):
    moment.lerp_(gradient, 0.05)
    ahead = 0.95 * moment + 0.05 * gradient
    tall = weight.shape[0] > weight.shape[1]
    update = orthogonalize(ahead.T if tall else ahead)
    update = update.T if tall else update
    weight.sub_(learning_rate * 0.2 * math.sqrt(max(weight.shape)) * update)
""",
                "with momentum 0.6",
            ),
        },
    ),
}
