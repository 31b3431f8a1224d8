"""Answers to the exercises of chapter 12: right ones that must pass, wrong ones that must be refused, and why."""

from exercises.answers import Answers

NUMBERS = """

def numbers_at_once(num_blocks, size):
    return math.ceil(num_blocks / size) + 18 * min(size, num_blocks)
"""
SEGMENTS = """
def run_in_segments(blocks, x, size):
    for start in range(0, len(blocks), size):
        x = torch.utils.checkpoint.checkpoint(nn.Sequential(*blocks[start : start + size]), x, use_reentrant=False)
    return x
"""

ANSWERS = {
    "Exercise 1": Answers(
        right=[
            """
def second_run(block, x, output_gradient):
    weights = list(block.parameters())
    with torch.enable_grad():
        leaf = x.detach().clone().requires_grad_(True)
        score = (block(leaf) * output_gradient).sum()
        return torch.autograd.grad(score, [leaf, *weights])
""",
            """
def second_run(block, x, output_gradient):
    names = [name for name, _ in block.named_parameters()]

    def again(x, *weights):
        return torch.func.functional_call(block, dict(zip(names, weights)), (x,))

    with torch.enable_grad():
        _, backward = torch.func.vjp(again, x.detach(), *[p.detach() for p in block.parameters()])
        return list(backward(output_gradient))
""",
        ],
        wrong={
            "does not detach x": (
                """
def second_run(block, x, output_gradient):
    x.requires_grad_()
    with torch.enable_grad():
        output = block(x)
    return list(torch.autograd.grad(output, (x, *block.parameters()), output_gradient))
""",
                "detach it first",
            ),
            "leaves autograd switched off": (
                """
def second_run(block, x, output_gradient):
    x = x.detach().requires_grad_()
    return list(torch.autograd.grad(block(x), (x, *block.parameters()), output_gradient))
""",
                "under torch.enable_grad()",
            ),
            "asks for no gradient of x": (
                """
def second_run(block, x, output_gradient):
    with torch.enable_grad():
        return list(torch.autograd.grad(block(x), (x, *block.parameters()), output_gradient))
""",
                "Let x require a gradient",
            ),
            "ignores the gradient that arrives": (
                """
def second_run(block, x, output_gradient):
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        return list(torch.autograd.grad(block(x).sum(), (x, *block.parameters())))
""",
                "ignore output_gradient",
            ),
            "returns the gradient of x alone": (
                """
def second_run(block, x, output_gradient):
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        return list(torch.autograd.grad(block(x), [x], output_gradient))
""",
                "of x and of each weight",
            ),
            "returns the weights' gradients first": (
                """
def second_run(block, x, output_gradient):
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        return list(torch.autograd.grad(block(x), (*block.parameters(), x), output_gradient))
""",
                "the gradient of x comes first",
            ),
            "fills .grad": (
                """
def second_run(block, x, output_gradient):
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        block(x).backward(output_gradient)
    return [x.grad, *(p.grad for p in block.parameters())]
""",
                "use torch.autograd.grad",
            ),
            "empties .grad afterwards": (
                """
def second_run(block, x, output_gradient):
    block.zero_grad()
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        block(x).backward(output_gradient)
    found = [x.grad, *(p.grad for p in block.parameters())]
    block.zero_grad()
    return found
""",
                "what an earlier part left there",
            ),
            "hands the arriving gradient on": (
                """
def second_run(block, x, output_gradient):
    inner = x.detach().requires_grad_()
    with torch.enable_grad():
        found = torch.autograd.grad(block(inner), list(block.parameters()), output_gradient)
    return [output_gradient, *found]
""",
                "the gradient of x is wrong",
            ),
            "changes x and changes it back": (
                """
def second_run(block, x, output_gradient):
    x.requires_grad_()
    with torch.enable_grad():
        output = block(x)
    found = list(torch.autograd.grad(output, (x, *block.parameters()), output_gradient))
    x.requires_grad_(False)
    return found
""",
                "and change it back",
            ),
            "leaves autograd switched on": (
                """
def second_run(block, x, output_gradient):
    x = x.detach().requires_grad_()
    torch.set_grad_enabled(True)
    return list(torch.autograd.grad(block(x), (x, *block.parameters()), output_gradient))
""",
                "autograd is still on",
            ),
            "keeps the graph of the gradients": (
                """
def second_run(block, x, output_gradient):
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        output = block(x)
        return list(torch.autograd.grad(output, (x, *block.parameters()), output_gradient, create_graph=True))
""",
                "leave out create_graph",
            ),
        },
    ),
    "Exercise 2": Answers(
        right=[
            """
def largest_batch(config, gigabytes, **ways):
    fitting = [2**k for k in range(20) if budget(config, 2**k, **ways).memory <= 0.9 * gigabytes * 1e9]
    return max(fitting, default=0)
""",
            """
def largest_batch(config, gigabytes, **ways):
    def fits(size):
        return budget(config, size, **ways).memory <= gigabytes * 10**9 * 9 / 10

    if not fits(1):
        return 0
    size = 1
    while fits(size * 2):
        size = size * 2
    return size
""",
        ],
        wrong={
            "a tenth of what is needed to spare": (
                """
def largest_batch(config, gigabytes, **ways):
    best, size = 0, 1
    while 1.1 * budget(config, size, **ways).memory <= gigabytes * 1e9:
        best, size = size, 2 * size
    return best
""",
                "without a tenth to spare",
            ),
            "begins with a batch of two": (
                """
def largest_batch(config, gigabytes, **ways):
    best, size = 0, 2
    while budget(config, size, **ways).memory <= 0.9e9 * gigabytes:
        best, size = size, 2 * size
    return best
""",
                "begin with a batch of 1",
            ),
            "leaves no tenth to spare": (
                """
def largest_batch(config, gigabytes, **ways):
    size = 1
    while budget(config, size, **ways).memory <= 1e9 * gigabytes:
        size *= 2
    return size // 2
""",
                "without a tenth to spare",
            ),
            "returns the first that does not fit": (
                """
def largest_batch(config, gigabytes, **ways):
    if budget(config, 1, **ways).memory > 0.9e9 * gigabytes:
        return 0
    size = 1
    while budget(config, size, **ways).memory <= 0.9e9 * gigabytes:
        size *= 2
    return size
""",
                "without a tenth to spare",
            ),
            "does not hand the ways on": (
                """
def largest_batch(config, gigabytes, **ways):
    size = 1
    while budget(config, size).memory <= 0.9e9 * gigabytes:
        size *= 2
    return size // 2
""",
                "hand the ways on to budget",
            ),
            "returns 1 where nothing fits": (
                """
def largest_batch(config, gigabytes, **ways):
    size = 1
    while budget(config, 2 * size, **ways).memory <= 0.9e9 * gigabytes:
        size *= 2
    return size
""",
                "nothing fits, return 0",
            ),
            "tries every number": (
                """
def largest_batch(config, gigabytes, **ways):
    size = 0
    while budget(config, size + 1, **ways).memory <= 0.9e9 * gigabytes:
        size += 1
    return size
""",
                "is no power of two",
            ),
            "knows one preset": (
                """
def largest_batch(config, gigabytes, **ways):
    size = 1
    while budget(PRESETS["smolvla_like"], size, **ways).memory <= 0.9e9 * gigabytes:
        size *= 2
    return size // 2
""",
                "does config reach budget",
            ),
            "takes a GB for a GiB": (
                """
def largest_batch(config, gigabytes, **ways):
    size = 1
    while budget(config, size, **ways).memory <= 0.9 * 2**30 * gigabytes:
        size *= 2
    return size // 2
""",
                "without a tenth to spare",
            ),
        },
    ),
    "Exercise 3": Answers(
        right=[
            """
def run_in_segments(blocks, x, size):
    def runner(segment):
        def forward(x):
            for block in segment:
                x = block(x)
            return x

        return forward

    blocks = list(blocks)
    while blocks:
        segment, blocks = blocks[:size], blocks[size:]
        x = torch.utils.checkpoint.checkpoint(runner(segment), x, use_reentrant=False)
    return x


def numbers_at_once(num_blocks, size):
    segments = -(-num_blocks // size)
    return segments + 18 * (size if size < num_blocks else num_blocks)
""",
            """
class Segment(torch.autograd.Function):
    @staticmethod
    def forward(ctx, segment, x, *weights):
        ctx.segment = segment
        ctx.save_for_backward(x)
        return segment(x)

    @staticmethod
    def backward(ctx, gradient):
        x = ctx.saved_tensors[0].detach().requires_grad_()
        with torch.enable_grad():
            output = ctx.segment(x)
        return None, *torch.autograd.grad(output, (x, *ctx.segment.parameters()), gradient)


def run_in_segments(blocks, x, size):
    for start in range(0, len(blocks), size):
        segment = nn.Sequential(*blocks[start : start + size])
        x = Segment.apply(segment, x, *segment.parameters())
    return x

"""
            + NUMBERS,
        ],
        wrong={
            "sees the loop's last segment": (
                """
def run_in_segments(blocks, x, size):
    for start in range(0, len(blocks), size):
        segment = blocks[start : start + size]

        def forward(x):
            for block in segment:
                x = block(x)
            return x

        x = torch.utils.checkpoint.checkpoint(forward, x, use_reentrant=False)
    return x

"""
                + NUMBERS,
                "which blocks run again in the backward pass",
            ),
            "drops a shorter last segment": (
                """
def run_in_segments(blocks, x, size):
    for number in range(len(blocks) // size):
        segment = nn.Sequential(*blocks[number * size : (number + 1) * size])
        x = torch.utils.checkpoint.checkpoint(segment, x, use_reentrant=False)
    return x

"""
                + NUMBERS,
                "those of a shorter last segment too",
            ),
            "keeps everything": (
                """
def run_in_segments(blocks, x, size):
    for start in range(0, len(blocks), size):
        x = nn.Sequential(*blocks[start : start + size])(x)
    return x

"""
                + NUMBERS,
                "and nothing else",
            ),
            "takes the size for the number of segments": (
                """
def run_in_segments(blocks, x, size):
    each = math.ceil(len(blocks) / size)
    for start in range(0, len(blocks), each):
        segment = nn.Sequential(*blocks[start : start + each])
        x = torch.utils.checkpoint.checkpoint(segment, x, use_reentrant=False)
    return x

"""
                + NUMBERS,
                "segments of 1 should keep 4 inputs",
            ),
            "leaves the last segment out of it": (
                """
def run_in_segments(blocks, x, size):
    return torch.utils.checkpoint.checkpoint_sequential(
        nn.Sequential(*blocks), math.ceil(len(blocks) / size), x, use_reentrant=False
    )

"""
                + NUMBERS,
                "and nothing else",
            ),
            "counts segments rounded down": (
                SEGMENTS
                + """

def numbers_at_once(num_blocks, size):
    return num_blocks // size + 18 * min(size, num_blocks)
""",
                "7 blocks in threes",
            ),
            "counts all of every block": (
                SEGMENTS
                + """

def numbers_at_once(num_blocks, size):
    return math.ceil(num_blocks / size) + 18 * num_blocks
""",
                "30 blocks one by one",
            ),
            "counts blocks that are not there": (
                SEGMENTS
                + """

def numbers_at_once(num_blocks, size):
    return math.ceil(num_blocks / size) + 18 * size
""",
                "one segment of 4 blocks, not of 10",
            ),
            "evens the segments out": (
                SEGMENTS
                + """

def numbers_at_once(num_blocks, size):
    segments = math.ceil(num_blocks / size)
    return segments + 18 * math.ceil(num_blocks / segments)
""",
                "not two of 15",
            ),
        },
    ),
    "Exercise 4": Answers(
        right=[
            """
def fit_power_law(sizes, errors):
    import numpy as np

    slope, intercept = np.polyfit(np.log10(sizes), np.log10(errors), 1)
    return 10**intercept, -slope
""",
            """
def fit_power_law(sizes, errors):
    x, y = torch.tensor(sizes, dtype=torch.double).log(), torch.tensor(errors, dtype=torch.double).log()
    matrix = torch.stack([torch.ones_like(x), -x], dim=1)
    log_a, b = torch.linalg.lstsq(matrix, y[:, None]).solution.flatten()
    return [log_a.exp(), b]
""",
            """
def fit_power_law(sizes, errors):
    x, y = torch.tensor(sizes, dtype=torch.float32).log(), torch.tensor(errors, dtype=torch.float32).log()
    solution = torch.linalg.lstsq(torch.stack([torch.ones_like(x), x], dim=1), y[:, None]).solution
    return solution[0].exp().item(), -solution[1].item()
""",
        ],
        wrong={
            "keeps the slope's sign": (
                """
def fit_power_law(sizes, errors):
    slope, intercept = statistics.linear_regression([math.log(n) for n in sizes], [math.log(e) for e in errors])
    return math.exp(intercept), slope
""",
                "turn the slope's sign",
            ),
            "returns the logarithm of a": (
                """
def fit_power_law(sizes, errors):
    slope, intercept = statistics.linear_regression([math.log(n) for n in sizes], [math.log(e) for e in errors])
    return intercept, -slope
""",
                "the intercept is log a",
            ),
            "returns b first": (
                """
def fit_power_law(sizes, errors):
    slope, intercept = statistics.linear_regression([math.log(n) for n in sizes], [math.log(e) for e in errors])
    return -slope, math.exp(intercept)
""",
                "a first and b second",
            ),
            "takes the logarithm of the sizes alone": (
                """
def fit_power_law(sizes, errors):
    slope, intercept = statistics.linear_regression([math.log(n) for n in sizes], list(errors))
    return math.exp(intercept), -slope
""",
                "logarithms of sizes and of errors",
            ),
            "mixes the bases": (
                """
def fit_power_law(sizes, errors):
    slope, intercept = statistics.linear_regression([math.log10(n) for n in sizes], [math.log10(e) for e in errors])
    return math.exp(intercept), -slope
""",
                "exp of the same logarithm",
            ),
            "draws the line through the first point": (
                """
def fit_power_law(sizes, errors):
    slope, _ = statistics.linear_regression([math.log(n) for n in sizes], [math.log(e) for e in errors])
    return errors[0] * sizes[0] ** -slope, -slope
""",
                "exp of the fitted intercept",
            ),
            "looks at the ends alone": (
                """
def fit_power_law(sizes, errors):
    b = -(math.log(errors[-1]) - math.log(errors[0])) / (math.log(sizes[-1]) - math.log(sizes[0]))
    return errors[0] * sizes[0] ** b, b
""",
                "use all points",
            ),
            "fits the sizes to the errors": (
                """
def fit_power_law(sizes, errors):
    slope, intercept = statistics.linear_regression([math.log(e) for e in errors], [math.log(n) for n in sizes])
    return math.exp(-intercept / slope), -1 / slope
""",
                "log errors over the log sizes",
            ),
            "takes the mean of the slopes": (
                """
def fit_power_law(sizes, errors):
    x, y = [math.log(n) for n in sizes], [math.log(e) for e in errors]
    slopes = [(y[i + 1] - y[i]) / (x[i + 1] - x[i]) for i in range(len(x) - 1)]
    b = -sum(slopes) / len(slopes)
    return math.exp(sum(y) / len(y) + b * sum(x) / len(x)), b
""",
                "each with the same weight",
            ),
            "drops the sign": (
                """
def fit_power_law(sizes, errors):
    slope, intercept = statistics.linear_regression([math.log(n) for n in sizes], [math.log(e) for e in errors])
    return math.exp(intercept), abs(slope)
""",
                "do not drop it",
            ),
        },
    ),
}
