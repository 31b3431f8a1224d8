"""Answers to the exercises of chapter 11: right ones that must pass, wrong ones that must be refused, and why."""

from exercises.answers import Answers


def lora(
    freeze: str = "linear.requires_grad_(False)",
    a: str = "nn.Parameter(torch.randn(rank, linear.in_features) / 8)",
    b: str = "nn.Parameter(torch.zeros(linear.out_features, rank))",
    scale: str = "alpha / rank",
    forward: str = "self.linear(x) + self.scale * x @ self.A.T @ self.B.T",
) -> str:
    """Returns a layer that is right but for what is given."""
    return f"""
class LoRALayer(nn.Module):
    def __init__(self, linear, rank, alpha):
        super().__init__()
        {freeze}
        self.linear = linear
        self.A = {a}
        self.B = {b}
        self.scale = {scale}

    def forward(self, x):
        return {forward}
"""


ANSWERS = {
    "Exercise 1": Answers(
        right=[
            lora(),
            """
class LoRALayer(nn.Module):
    def __init__(self, linear, rank, alpha):
        super().__init__()
        for parameter in linear.parameters():
            parameter.requires_grad = False
        self.linear, self.rank, self.alpha = linear, rank, alpha
        self.A = nn.Parameter(0.02 * torch.randn(rank, linear.in_features))
        self.B = nn.Parameter(torch.zeros(linear.out_features, rank))

    def forward(self, x):
        weight = self.linear.weight + self.alpha / self.rank * self.B @ self.A
        return F.linear(x, weight, self.linear.bias)
""",
        ],
        wrong={
            "starts A with equal numbers": (
                """
class LoRALayer(nn.Module):
    def __init__(self, linear, rank, alpha):
        super().__init__()
        self.linear, self.scale = linear.requires_grad_(False), alpha / rank
        self.A = nn.Parameter(torch.full((rank, linear.in_features), 0.01))
        self.B = nn.Parameter(torch.zeros(linear.out_features, rank))

    def forward(self, x):
        return self.linear(x) + self.scale * (x @ self.A.T @ self.B.T)
""",
                "the rows of A must differ",
            ),
            "starts B with random values": (
                lora(b="nn.Parameter(torch.randn(linear.out_features, rank))"),
                "B should start",
            ),
            "starts both at zero": (
                lora(a="nn.Parameter(torch.zeros(rank, linear.in_features))"),
                "neither of them would ever get a gradient",
            ),
            "leaves out the scale": (lora(scale="1"), "the scale alpha / rank is missing"),
            "turns the scale round": (lora(scale="rank / alpha"), "yours is rank / alpha"),
            "does not divide by the rank": (lora(scale="alpha"), "divide alpha by the rank"),
            "does not freeze": (lora(freeze="pass"), "the linear layer should be frozen"),
            "freezes the weight alone": (
                lora(freeze="linear.weight.requires_grad_(False)"),
                "the linear layer should be frozen",
            ),
            "turns the shapes round": (
                lora(
                    a="nn.Parameter(torch.randn(linear.in_features, rank))",
                    b="nn.Parameter(torch.zeros(rank, linear.out_features))",
                    forward="self.linear(x) + self.scale * x @ self.A @ self.B",
                ),
                "A should be a parameter of shape (5, 24)",
            ),
            "forgets the linear layer": (
                lora(forward="self.scale * x @ self.A.T @ self.B.T"),
                "what the linear layer gives, W x + b",
            ),
            "forgets the bias": (
                lora(forward="x @ self.linear.weight.T + self.scale * x @ self.A.T @ self.B.T"),
                "what the linear layer gives, W x + b",
            ),
            "forgets the detour": (lora(forward="self.linear(x)"), "B A x is missing"),
            "rounds the scale": (lora(scale="alpha // rank"), "not alpha // rank"),
            "starts A with the unit matrix": (
                lora(a="nn.Parameter(torch.eye(rank, linear.in_features))"),
                "draw its values at random",
            ),
            "knows one alpha": (lora(scale="3 / rank"), "compute it from the two"),
            "knows one rank": (lora(scale="alpha / 5"), "compute it from the two"),
            "runs the frozen layer without autograd": (
                """
class LoRALayer(nn.Module):
    def __init__(self, linear, rank, alpha):
        super().__init__()
        self.linear = linear.requires_grad_(False)
        self.A = nn.Parameter(torch.randn(rank, linear.in_features) / 8)
        self.B = nn.Parameter(torch.zeros(linear.out_features, rank))
        self.scale = alpha / rank

    def forward(self, x):
        with torch.no_grad():
            frozen = self.linear(x)
        return frozen + self.scale * F.linear(F.linear(x, self.A), self.B)
""",
                "must go on to x both ways",
            ),
            "runs everything without autograd": (
                lora(forward="(self.linear(x) + self.scale * x @ self.A.T @ self.B.T).detach()"),
                "nothing could learn",
            ),
            "cuts the detour off from x": (
                lora(forward="self.linear(x) + self.scale * x.detach() @ self.A.T @ self.B.T"),
                "must go on to x both ways",
            ),
            "takes the data of A": (
                lora(forward="self.linear(x) + self.scale * x @ self.A.data.T @ self.B.T"),
                "A gets no gradient",
            ),
            "takes the data of B": (
                lora(forward="self.linear(x) + self.scale * x @ self.A.T @ self.B.data.T"),
                "B gets no gradient",
            ),
        },
    ),
    "Exercise 2": Answers(
        right=[
            """
def largest_rank(shapes, total, share):
    n = sum(map(sum, shapes))
    return math.floor(share * total / (n * (1 - share)) + 1e-9)
""",
            """
def largest_rank(shapes, total, share):
    best = 0
    for rank in range(1, 10_000):
        extra = sum(rank * a + rank * b for a, b in shapes)
        if extra / (total + extra) > share:
            break
        best = rank
    return float(best)
""",
        ],
        wrong={
            "counts a share of the base alone": (
                """
def largest_rank(shapes, total, share):
    return int(share * total // sum(a + b for a, b in shapes))
""",
                "base and adapter together are the whole",
            ),
            "returns at least one": (
                """
def largest_rank(shapes, total, share):
    n = sum(a + b for a, b in shapes)
    return max(1, math.floor(share * total / (n * (1 - share)) + 1e-9))
""",
                "the answer is 0",
            ),
            "counts the inputs alone": (
                """
def largest_rank(shapes, total, share):
    n = sum(a for a, b in shapes)
    return math.floor(share * total / (n * (1 - share)) + 1e-9)
""",
                "for each rank",
            ),
            "multiplies inputs and outputs": (
                """
def largest_rank(shapes, total, share):
    n = sum(a * b for a, b in shapes)
    return math.floor(share * total / (n * (1 - share)) + 1e-9)
""",
                "rank 1 fits",
            ),
            "takes the first rank that does not fit": (
                """
def largest_rank(shapes, total, share):
    n = sum(a + b for a, b in shapes)
    rank = 0
    while rank * n <= share * (total + rank * n):
        rank += 1
    return rank if rank > 1 else 0
""",
                "rank 2 would have 80 weights",
            ),
            "stays below the share": (
                """
def largest_rank(shapes, total, share):
    n = sum(a + b for a, b in shapes)
    rank = 0
    while (rank + 1) * n < share * (total + (rank + 1) * n):
        rank += 1
    return rank
""",
                "exactly half",
            ),
            "looks at the first layer alone": (
                """
def largest_rank(shapes, total, share):
    n = sum(shapes[0])
    return math.floor(share * total / (n * (1 - share)) + 1e-9)
""",
                "both layers together",
            ),
            "tries few ranks": (
                """
def largest_rank(shapes, total, share):
    n = sum(a + b for a, b in shapes)
    return max(r for r in range(65) if r * n <= share * (total + r * n))
""",
                "do you stop early",
            ),
        },
    ),
    "Exercise 3": Answers(
        right=[
            """
def my_merge(policy):
    for name, module in list(policy.named_modules()):
        if isinstance(module, MyLoRA):
            old = module.linear
            new = nn.Linear(old.in_features, old.out_features, bias=old.bias is not None)
            with torch.no_grad():
                new.weight.copy_(old.weight + module.scale * (module.B @ module.A))
                if old.bias is not None:
                    new.bias.copy_(old.bias)
            policy.set_submodule(name, new.to(old.weight.device))
    return policy
""",
            """
def my_merge(policy):
    def walk(parent):
        for name, child in list(parent.named_children()):
            if isinstance(child, MyLoRA):
                child.linear.weight.data += child.scale * child.B.data @ child.A.data
                setattr(parent, name, child.linear)
            else:
                walk(child)

    walk(policy)
    return policy
""",
        ],
        wrong={
            "leaves out the scale": (
                """
@torch.no_grad()
def my_merge(policy):
    for name, module in list(policy.named_modules()):
        if isinstance(module, MyLoRA):
            module.linear.weight += module.B @ module.A
            policy.set_submodule(name, module.linear)
    return policy
""",
                "the scale alpha / rank is missing",
            ),
            "merges and leaves the layers": (
                """
@torch.no_grad()
def my_merge(policy):
    for module in policy.modules():
        if isinstance(module, MyLoRA):
            module.linear.weight += module.scale * module.B @ module.A
    return policy
""",
                "MyLoRA layers are left",
            ),
            "throws the detour away": (
                """
def my_merge(policy):
    for name, module in list(policy.named_modules()):
        if isinstance(module, MyLoRA):
            policy.set_submodule(name, module.linear)
    return policy
""",
                "the detour is lost",
            ),
            "loses the bias": (
                """
@torch.no_grad()
def my_merge(policy):
    for name, module in list(policy.named_modules()):
        if isinstance(module, MyLoRA):
            plain = nn.Linear(module.linear.in_features, module.linear.out_features, bias=False)
            plain.weight.copy_(module.linear.weight + module.scale * module.B @ module.A)
            policy.set_submodule(name, plain)
    return policy
""",
                "the bias is lost",
            ),
            "returns nothing": (
                """
@torch.no_grad()
def my_merge(policy):
    for name, module in list(policy.named_modules()):
        if isinstance(module, MyLoRA):
            module.linear.weight += module.scale * module.B @ module.A
            policy.set_submodule(name, module.linear)
""",
                "and return the policy",
            ),
            "takes the same scale for every layer": (
                """
@torch.no_grad()
def my_merge(policy):
    for name, module in list(policy.named_modules()):
        if isinstance(module, MyLoRA):
            module.linear.weight += 2 * module.B @ module.A
            policy.set_submodule(name, module.linear)
    return policy
""",
                "with each layer's own scale",
            ),
            "merges a copy": (
                """
@torch.no_grad()
def my_merge(policy):
    policy = copy.deepcopy(policy)
    for name, module in list(policy.named_modules()):
        if isinstance(module, MyLoRA):
            module.linear.weight += module.scale * module.B @ module.A
            policy.set_submodule(name, module.linear)
    return policy
""",
                "in the policy that you were given",
            ),
            "subtracts the detour": (
                """
@torch.no_grad()
def my_merge(policy):
    for name, module in list(policy.named_modules()):
        if isinstance(module, MyLoRA):
            module.linear.weight -= module.scale * module.B @ module.A
            policy.set_submodule(name, module.linear)
    return policy
""",
                "is it scale * B @ A",
            ),
        },
    ),
    "Exercise 4": Answers(
        right=[
            """
def rank_needed(change, share=0.9):
    s = np.linalg.svd(change.numpy(), compute_uv=False)
    held = np.cumsum(s**2) / np.sum(s**2)
    return int(np.argmax(held >= share)) + 1
""",
            """
def rank_needed(change, share=0.9):
    energy = torch.linalg.eigvalsh(change.double() @ change.double().T).flip(0).clamp(min=0)
    held, rank = 0.0, 0
    while held < share * energy.sum():
        held += energy[rank]
        rank += 1
    return rank
""",
        ],
        wrong={
            "needs one more where the share is exact": (
                """
def rank_needed(change, share=0.9):
    energy = torch.linalg.svdvals(change) ** 2
    return int((energy.cumsum(0) / energy.sum() <= share).sum()) + 1
""",
                "at least half is wanted",
            ),
            "does not square": (
                """
def rank_needed(change, share=0.9):
    values = torch.linalg.svdvals(change)
    return int((values.cumsum(0) / values.sum() < share).sum()) + 1
""",
                "square the singular values",
            ),
            "counts one too few": (
                """
def rank_needed(change, share=0.9):
    energy = torch.linalg.svdvals(change).square()
    return int((energy.cumsum(0) / energy.sum() < share).sum())
""",
                "69 % needs one",
            ),
            "counts those that are not zero": (
                """
def rank_needed(change, share=0.9):
    return int(torch.linalg.matrix_rank(change))
""",
                "69 % needs one",
            ),
            "takes the smallest first": (
                """
def rank_needed(change, share=0.9):
    energy = torch.linalg.svdvals(change).square().flip(0)
    return int((energy.cumsum(0) / energy.sum() < share).sum()) + 1
""",
                "69 % needs one",
            ),
            "takes the diagonal": (
                """
def rank_needed(change, share=0.9):
    energy = change.diagonal().square().sort(descending=True).values
    return int((energy.cumsum(0) / energy.sum() < share).sum()) + 1
""",
                "take singular values",
            ),
            "ignores the share": (
                """
def rank_needed(change, share=0.9):
    energy = torch.linalg.svdvals(change).square()
    return int((energy.cumsum(0) / energy.sum() < 0.9).sum()) + 1
""",
                "does the share reach your code",
            ),
        },
    ),
}
