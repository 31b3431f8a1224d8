"""Answers to the exercises of chapter 02: right ones that must pass, wrong ones that must be refused, and why."""

from exercises.answers import Answers

ANSWERS = {
    "Exercise 1": Answers(
        right=[
            """
def cut_patches(images, patch_size):
    rows, columns = images.shape[2] // patch_size, images.shape[3] // patch_size
    patches = []
    for row in range(rows):
        for column in range(columns):
            y, x = row * patch_size, column * patch_size
            patches.append(images[:, :, y : y + patch_size, x : x + patch_size].flatten(1))
    return torch.stack(patches, dim=1)
""",
            """
def cut_patches(images, patch_size):
    windows = images.unfold(2, patch_size, patch_size).unfold(3, patch_size, patch_size)
    return windows.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
""",
            """
def cut_patches(images, patch_size):
    return F.unfold(images, patch_size, stride=patch_size).transpose(1, 2)
""",
        ],
        wrong={
            "reshapes alone": (
                "def cut_patches(images, patch_size):\n"
                "    count = images.shape[2] * images.shape[3] // patch_size**2\n"
                "    return images.reshape(len(images), count, -1)",
                "a bare reshape",
            ),
            "goes column by column": (
                "def cut_patches(images, patch_size):\n"
                "    b, c, h, w = images.shape\n"
                "    p = patch_size\n"
                "    split = images.reshape(b, c, h // p, p, w // p, p)\n"
                "    return split.permute(0, 4, 2, 1, 3, 5).reshape(b, -1, c * p * p)",
                "column by column",
            ),
            "puts the channel last": (
                "def cut_patches(images, patch_size):\n"
                "    b, c, h, w = images.shape\n"
                "    p = patch_size\n"
                "    split = images.reshape(b, c, h // p, p, w // p, p)\n"
                "    return split.permute(0, 2, 4, 3, 5, 1).reshape(b, -1, c * p * p)",
                "the channel comes first",
            ),
            "exchanges x and y inside a patch": (
                "def cut_patches(images, patch_size):\n"
                "    b, c, h, w = images.shape\n"
                "    p = patch_size\n"
                "    split = images.reshape(b, c, h // p, p, w // p, p)\n"
                "    return split.permute(0, 2, 4, 1, 5, 3).reshape(b, -1, c * p * p)",
                "and y are exchanged inside",
            ),
            "splits an axis the wrong way round": (
                "def cut_patches(images, patch_size):\n"
                "    b, c, h, w = images.shape\n"
                "    p = patch_size\n"
                "    split = images.reshape(b, c, p, h // p, p, w // p)\n"
                "    return split.permute(0, 3, 5, 1, 2, 4).reshape(b, -1, c * p * p)",
                "some in the wrong place",
            ),
            "counts on a square image": (
                "def cut_patches(images, patch_size):\n"
                "    b, c, h, w = images.shape\n"
                "    p, n = patch_size, h // patch_size\n"
                "    split = images.reshape(b, c, n, p, n, p)\n"
                "    return split.permute(0, 2, 4, 1, 3, 5).reshape(b, n * n, c * p * p)",
                "Your code raised",
            ),
            "writes 8 into the code": (
                "def cut_patches(images, patch_size):\n"
                "    b, c, h, w = images.shape\n"
                "    split = images.reshape(b, c, h // 8, 8, w // 8, 8)\n"
                "    return split.permute(0, 2, 4, 1, 3, 5).reshape(b, -1, c * 64)",
                "Your code raised",
            ),
            "keeps the grid's two axes": (
                "def cut_patches(images, patch_size):\n"
                "    b, c, h, w = images.shape\n"
                "    p = patch_size\n"
                "    return images.reshape(b, c, h // p, p, w // p, p).permute(0, 2, 4, 1, 3, 5).flatten(3)",
                "the shape should be",
            ),
            "repeats one patch": (
                "def cut_patches(images, patch_size):\n"
                "    p = patch_size\n"
                "    count = images.shape[2] * images.shape[3] // p**2\n"
                "    return images[:, :, :p, :p].flatten(1)[:, None].repeat(1, count, 1)",
                "lost or doubled",
            ),
        },
    ),
    "Exercise 2": Answers(
        right=[
            """
def attention(query, key, value, allowed=None):
    logits = torch.einsum("bhqd,bhkd->bhqk", query, key) * query.shape[-1] ** -0.5
    if allowed is not None:
        logits = torch.where(allowed, logits, torch.tensor(float("-inf")))
    weights = (logits - logits.amax(dim=-1, keepdim=True)).exp()
    return torch.einsum("bhqk,bhkd->bhqd", weights / weights.sum(dim=-1, keepdim=True), value)
""",
            """
def attention(query, key, value, allowed=None):
    weights = torch.softmax(query @ key.mT / key.size(-1) ** 0.5, dim=-1)
    if allowed is not None:
        weights = weights * allowed
        weights = weights / weights.sum(dim=-1, keepdim=True)
    return weights @ value
""",
        ],
        wrong={
            "scales the queries in place": (
                """
def attention(query, key, value, allowed=None):
    query /= math.sqrt(query.shape[-1])
    logits = query @ key.mT
    if allowed is not None:
        logits = logits.masked_fill(~allowed, -torch.inf)
    return logits.softmax(-1) @ value
""",
                "do not scale them in place",
            ),
            "fills with -10,000": (
                """
def attention(query, key, value, allowed=None):
    logits = query @ key.mT / math.sqrt(query.shape[-1])
    if allowed is not None:
        logits = logits.masked_fill(~allowed, -1e4)
    return logits.softmax(-1) @ value
""",
                "not with a number that seems small enough",
            ),
            "fills with minus a thousand": (
                """
def attention(query, key, value, allowed=None):
    logits = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    if allowed is not None:
        logits = logits.masked_fill(~allowed, -1e3)
    return logits.softmax(dim=-1) @ value
""",
                "not with a number that seems small enough",
            ),
            "does not subtract the largest logit": (
                """
def attention(query, key, value, allowed=None):
    weights = (query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])).exp()
    if allowed is not None:
        weights = weights * allowed
    return weights / weights.sum(dim=-1, keepdim=True) @ value
""",
                "subtract the largest before exp",
            ),
            "calls PyTorch's own": (
                "def attention(query, key, value, allowed=None):\n"
                "    return F.scaled_dot_product_attention(query, key, value, attn_mask=allowed)",
                "write the formula yourself",
            ),
            "multiplies infinity by zero": (
                """
def attention(query, key, value, allowed=None):
    logits = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    if allowed is not None:
        logits = logits * allowed + (~allowed) * -torch.inf
    return logits.softmax(dim=-1) @ value
""",
                "your answer has NaN in it",
            ),
            "fills with minus a hundred": (
                """
def attention(query, key, value, allowed=None):
    logits = query @ key.mT / query.shape[-1] ** 0.5
    if allowed is not None:
        logits = logits.masked_fill(~allowed, -100)
    return logits.softmax(-1) @ value
""",
                "fill with minus infinity",
            ),
            "forgets to divide": (
                "def attention(query, key, value, allowed=None):\n"
                "    logits = query @ key.transpose(-2, -1)\n"
                "    if allowed is not None:\n"
                "        logits = logits.masked_fill(~allowed, -torch.inf)\n"
                "    return logits.softmax(dim=-1) @ value",
                "divide the products by the square root",
            ),
            "divides by d": (
                "def attention(query, key, value, allowed=None):\n"
                "    logits = query @ key.transpose(-2, -1) / query.shape[-1]\n"
                "    if allowed is not None:\n"
                "        logits = logits.masked_fill(~allowed, -torch.inf)\n"
                "    return logits.softmax(dim=-1) @ value",
                "not by d",
            ),
            "divides by the width of all heads": (
                "def attention(query, key, value, allowed=None):\n"
                "    logits = query @ key.transpose(-2, -1) / math.sqrt(query.shape[1] * query.shape[-1])\n"
                "    if allowed is not None:\n"
                "        logits = logits.masked_fill(~allowed, -torch.inf)\n"
                "    return logits.softmax(dim=-1) @ value",
                "the width of one head",
            ),
            "divides by a number that fits d = 16 alone": (
                "def attention(query, key, value, allowed=None):\n"
                "    logits = query @ key.transpose(-2, -1) / 4\n"
                "    if allowed is not None:\n"
                "        logits = logits.masked_fill(~allowed, -torch.inf)\n"
                "    return logits.softmax(dim=-1) @ value",
                "with d = 9",
            ),
            "fills with a number that is not small enough": (
                "def attention(query, key, value, allowed=None):\n"
                "    logits = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])\n"
                "    if allowed is not None:\n"
                "        logits = logits.masked_fill(~allowed, -20)\n"
                "    return logits.softmax(dim=-1) @ value",
                "fill with minus infinity",
            ),
            "takes the softmax over the queries": (
                "def attention(query, key, value, allowed=None):\n"
                "    logits = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])\n"
                "    if allowed is not None:\n"
                "        logits = logits.masked_fill(~allowed, -torch.inf)\n"
                "    return logits.softmax(dim=-2) @ value",
                "runs over the keys",
            ),
            "forgets the softmax": (
                "def attention(query, key, value, allowed=None):\n"
                "    return query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1]) @ value",
                "softmax is missing",
            ),
            "ignores the mask": (
                "def attention(query, key, value, allowed=None):\n"
                "    logits = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])\n"
                "    return logits.softmax(dim=-1) @ value",
                "the mask is not used",
            ),
            "turns the mask around": (
                "def attention(query, key, value, allowed=None):\n"
                "    logits = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])\n"
                "    if allowed is not None:\n"
                "        logits = logits.masked_fill(allowed, -torch.inf)\n"
                "    return logits.softmax(dim=-1) @ value",
                "yours is turned around",
            ),
            "masks after the softmax": (
                "def attention(query, key, value, allowed=None):\n"
                "    weights = (query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])).softmax(dim=-1)\n"
                "    return (weights if allowed is None else weights * allowed) @ value",
                "no longer sum to one",
            ),
            "fills with zero": (
                "def attention(query, key, value, allowed=None):\n"
                "    logits = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])\n"
                "    if allowed is not None:\n"
                "        logits = logits.masked_fill(~allowed, 0)\n"
                "    return logits.softmax(dim=-1) @ value",
                "a logit of 0 still gets weight",
            ),
            "returns the weights as well": (
                "def attention(query, key, value, allowed=None):\n"
                "    weights = (query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])).softmax(dim=-1)\n"
                "    return weights @ value, weights",
                "not a tuple",
            ),
            "takes one mask for all scenes": (
                "def attention(query, key, value, allowed=None):\n"
                "    logits = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])\n"
                "    if allowed is not None:\n"
                "        logits = logits.masked_fill(~allowed.view(-1, 5, 7)[0], -torch.inf)\n"
                "    return logits.softmax(dim=-1) @ value",
                "a batch axis of its own",
            ),
        },
    ),
    "Exercise 3": Answers(
        right=[
            """
def rectangle_positions(rows, columns, dim):
    cells = []
    for row in range(rows):
        for column in range(columns):
            place = torch.tensor([column - (columns - 1) / 2, row - (rows - 1) / 2])
            cells.append(sincos_positions(place, dim // 2).flatten())
    return torch.stack(cells)
""",
            """
def rectangle_positions(rows, columns, dim):
    y = torch.linspace(-(rows - 1) / 2, (rows - 1) / 2, rows)
    x = torch.linspace(-(columns - 1) / 2, (columns - 1) / 2, columns)
    across = sincos_positions(x, dim // 2).repeat(rows, 1)
    down = sincos_positions(y, dim // 2).repeat_interleave(columns, dim=0)
    return torch.cat([across, down], dim=1)
""",
        ],
        wrong={
            "cuts a part out of a square grid": (
                """
def rectangle_positions(rows, columns, dim):
    size = max(rows, columns)
    square = grid_positions(size, dim).view(size, size, dim)
    top, left = (size - rows) // 2, (size - columns) // 2
    return square[top : top + rows, left : left + columns].flatten(0, 1)
""",
                "4 rows, 5 columns: the origin of y",
            ),
            "measures y from the middle of the columns": (
                "def rectangle_positions(rows, columns, dim):\n"
                "    y_axis = torch.arange(rows) - (columns - 1) / 2\n"
                "    x_axis = torch.arange(columns) - (columns - 1) / 2\n"
                "    y, x = torch.meshgrid(y_axis, x_axis, indexing='ij')\n"
                "    parts = [sincos_positions(c.flatten(), dim // 2) for c in (x, y)]\n"
                "    return torch.cat(parts, dim=1)",
                "the middle of the rows",
            ),
            "measures x from the middle of the rows": (
                "def rectangle_positions(rows, columns, dim):\n"
                "    y_axis = torch.arange(rows) - (rows - 1) / 2\n"
                "    x_axis = torch.arange(columns) - (rows - 1) / 2\n"
                "    y, x = torch.meshgrid(y_axis, x_axis, indexing='ij')\n"
                "    parts = [sincos_positions(c.flatten(), dim // 2) for c in (x, y)]\n"
                "    return torch.cat(parts, dim=1)",
                "the middle of the columns",
            ),
            "exchanges x and y": (
                "def rectangle_positions(rows, columns, dim):\n"
                "    y_axis = torch.arange(rows) - (rows - 1) / 2\n"
                "    x_axis = torch.arange(columns) - (columns - 1) / 2\n"
                "    y, x = torch.meshgrid(y_axis, x_axis, indexing='ij')\n"
                "    parts = [sincos_positions(c.flatten(), dim // 2) for c in (y, x)]\n"
                "    return torch.cat(parts, dim=1)",
                "the first half of the features is for x",
            ),
            "numbers the cells column by column": (
                "def rectangle_positions(rows, columns, dim):\n"
                "    y_axis = torch.arange(rows) - (rows - 1) / 2\n"
                "    x_axis = torch.arange(columns) - (columns - 1) / 2\n"
                "    y, x = torch.meshgrid(y_axis, x_axis, indexing='xy')\n"
                "    parts = [sincos_positions(c.flatten(), dim // 2) for c in (x, y)]\n"
                "    return torch.cat(parts, dim=1)",
                "numbered row by row",
            ),
            "counts from the corner": (
                "def rectangle_positions(rows, columns, dim):\n"
                "    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing='ij')\n"
                "    parts = [sincos_positions(c.flatten(), dim // 2) for c in (x, y)]\n"
                "    return torch.cat(parts, dim=1)",
                "lies in a corner",
            ),
            "is half a cell off": (
                "def rectangle_positions(rows, columns, dim):\n"
                "    y_axis, x_axis = torch.arange(rows) - rows / 2, torch.arange(columns) - columns / 2\n"
                "    y, x = torch.meshgrid(y_axis, x_axis, indexing='ij')\n"
                "    parts = [sincos_positions(c.flatten(), dim // 2) for c in (x, y)]\n"
                "    return torch.cat(parts, dim=1)",
                "half a cell off",
            ),
            "makes a square of it": (
                "def rectangle_positions(rows, columns, dim):\n    return grid_positions(rows, dim)",
                "the shape should be (24, 32)",
            ),
            "gives each coordinate all features": (
                "def rectangle_positions(rows, columns, dim):\n"
                "    y_axis = torch.arange(rows) - (rows - 1) / 2\n"
                "    x_axis = torch.arange(columns) - (columns - 1) / 2\n"
                "    y, x = torch.meshgrid(y_axis, x_axis, indexing='ij')\n"
                "    return torch.cat([sincos_positions(c.flatten(), dim) for c in (x, y)], dim=1)",
                "yours is (24, 64)",
            ),
        },
    ),
    "Exercise 4": Answers(
        right=[
            """
def local_mask(grid_size, radius):
    count = grid_size**2
    mask = torch.zeros(count + 1, count + 1, dtype=torch.bool)
    mask[0] = mask[:, 0] = True
    for one in range(count):
        for other in range(count):
            rows = abs(one // grid_size - other // grid_size)
            columns = abs(one % grid_size - other % grid_size)
            mask[one + 1, other + 1] = rows <= radius and columns <= radius
    return mask
""",
            """
def local_mask(grid_size, radius):
    axis = torch.arange(grid_size)
    near = (axis[:, None] - axis).abs() <= radius
    return F.pad(torch.kron(near.int(), near.int()), (1, 0, 1, 0), value=1).bool()
""",
        ],
        wrong={
            "takes a disc for a square": (
                """
def local_mask(grid_size, radius):
    number = torch.arange(grid_size**2)
    places = torch.stack([number // grid_size, number % grid_size], dim=1).double()
    return F.pad(torch.cdist(places, places) <= radius * 2**0.5 + 1e-9, (1, 0, 1, 0), value=True)
""",
                "0 rows and 4 columns from patch",
            ),
            "writes 8 into the code": (
                "def local_mask(grid_size, radius):\n"
                "    number = torch.arange(64)\n"
                "    row, column = number // 8, number % 8\n"
                "    near = (row[:, None] - row).abs().maximum((column[:, None] - column).abs()) <= radius\n"
                "    return F.pad(near, (1, 0, 1, 0), value=True)",
                "the shape should be (26, 26)",
            ),
            "divides by 8 whatever the grid": (
                "def local_mask(grid_size, radius):\n"
                "    number = torch.arange(grid_size**2)\n"
                "    row, column = number // 8, number % 8\n"
                "    near = (row[:, None] - row).abs().maximum((column[:, None] - column).abs()) <= radius\n"
                "    return F.pad(near, (1, 0, 1, 0), value=True)",
                "rid of 5, radius 2",
            ),
            "writes the radius into the code": (
                "def local_mask(grid_size, radius):\n"
                "    number = torch.arange(grid_size**2)\n"
                "    row, column = number // grid_size, number % grid_size\n"
                "    near = (row[:, None] - row).abs().maximum((column[:, None] - column).abs()) <= 1\n"
                "    return F.pad(near, (1, 0, 1, 0), value=True)",
                "and should be seen",
            ),
            "compares the numbers of the patches": (
                "def local_mask(grid_size, radius):\n"
                "    number = torch.arange(grid_size**2)\n"
                "    apart = (number[:, None] - number).abs()\n"
                "    near = torch.zeros_like(apart, dtype=torch.bool)\n"
                "    for rows in range(-radius, radius + 1):\n"
                "        near |= (apart - abs(rows) * grid_size).abs() <= radius\n"
                "    return F.pad(near, (1, 0, 1, 0), value=True)",
                "and should not be seen",
            ),
            "counts steps instead of rows and columns": (
                "def local_mask(grid_size, radius):\n"
                "    number = torch.arange(grid_size**2)\n"
                "    row, column = number // grid_size, number % grid_size\n"
                "    near = (row[:, None] - row).abs() + (column[:, None] - column).abs() <= radius\n"
                "    return F.pad(near, (1, 0, 1, 0), value=True)",
                "is 1 rows and 1 columns from",
            ),
            "leaves the radius out": (
                "def local_mask(grid_size, radius):\n"
                "    number = torch.arange(grid_size**2)\n"
                "    row, column = number // grid_size, number % grid_size\n"
                "    near = (row[:, None] - row).abs().maximum((column[:, None] - column).abs()) < radius\n"
                "    return F.pad(near, (1, 0, 1, 0), value=True)",
                "and should be seen",
            ),
            "forgets CLS": (
                "def local_mask(grid_size, radius):\n"
                "    number = torch.arange(grid_size**2)\n"
                "    row, column = number // grid_size, number % grid_size\n"
                "    return (row[:, None] - row).abs().maximum((column[:, None] - column).abs()) <= radius",
                "is CLS in it",
            ),
            "hides CLS from the patches": (
                "def local_mask(grid_size, radius):\n"
                "    number = torch.arange(grid_size**2)\n"
                "    row, column = number // grid_size, number % grid_size\n"
                "    near = (row[:, None] - row).abs().maximum((column[:, None] - column).abs()) <= radius\n"
                "    mask = F.pad(near, (1, 0, 1, 0), value=False)\n"
                "    mask[0] = True\n"
                "    return mask",
                "column 0 must be True",
            ),
            "puts CLS last": (
                "def local_mask(grid_size, radius):\n"
                "    number = torch.arange(grid_size**2)\n"
                "    row, column = number // grid_size, number % grid_size\n"
                "    near = (row[:, None] - row).abs().maximum((column[:, None] - column).abs()) <= radius\n"
                "    return F.pad(near, (0, 1, 0, 1), value=True)",
                "row 0 must be True",
            ),
            "returns numbers": (
                "def local_mask(grid_size, radius):\n"
                "    number = torch.arange(grid_size**2)\n"
                "    row, column = number // grid_size, number % grid_size\n"
                "    near = (row[:, None] - row).abs().maximum((column[:, None] - column).abs()) <= radius\n"
                "    return F.pad(near, (1, 0, 1, 0), value=True).float()",
                "mask is bool",
            ),
        },
    ),
    "Exercise 5": Answers(
        right=[
            """
def vit_cost(config):
    d, r, p = config.embed_dim, config.mlp_ratio, config.patch_size
    c, t = config.num_channels, (config.image_size // p) ** 2 + 1
    linears = 4 * [(d, d)] + [(d, r * d), (r * d, d)]
    block = sum(a * b + b for a, b in linears) + 2 * 2 * d
    parameters = (c * p * p + 1) * d + d + config.num_layers * block + 2 * d
    work = sum(t * a * b for a, b in linears) + 2 * t * t * d
    return [parameters, (t - 1) * c * p * p * d + config.num_layers * work]
""",
            """
def vit_cost(config):
    width, hidden, tokens = config.embed_dim, config.mlp_ratio * config.embed_dim, config.num_tokens
    patch = 1.0 * config.num_channels * config.patch_size**2
    parameters = patch * width + 4 * width
    work = patch * width * (tokens - 1)
    for _ in range(config.num_layers):
        parameters += 4 * width * (width + 1) + (width + 1) * hidden + (hidden + 1) * width + 4 * width
        work += 4 * tokens * width**2 + 2 * tokens * width * hidden + 2 * tokens**2 * width
    return parameters, work
""",
        ],
        wrong={
            "counts on three channels": (
                """
def vit_cost(config):
    d, r, t = config.embed_dim, config.mlp_ratio, config.num_tokens
    p = 3 * config.patch_size**2
    block = 4 * (d * d + d) + 2 * r * d * d + r * d + d + 4 * d
    work = (4 + 2 * r) * t * d * d + 2 * t * t * d
    return p * d + 4 * d + config.num_layers * block, (t - 1) * p * d + config.num_layers * work
""",
                "use num_channels",
            ),
            "counts on 64 x 64 pixels": (
                """
def vit_cost(config):
    d, r, t = config.embed_dim, config.mlp_ratio, (64 // config.patch_size) ** 2 + 1
    p = config.num_channels * config.patch_size**2
    block = 4 * (d * d + d) + 2 * r * d * d + r * d + d + 4 * d
    work = (4 + 2 * r) * t * d * d + 2 * t * t * d
    return p * d + 4 * d + config.num_layers * block, (t - 1) * p * d + config.num_layers * work
""",
                "use image_size",
            ),
            "builds the model and counts": (
                """
def vit_cost(config):
    d, r, t = config.embed_dim, config.mlp_ratio, config.num_tokens
    work = (4 + 2 * r) * t * d * d + 2 * t * t * d
    patch = config.num_channels * config.patch_size**2
    return count_parameters(TinyViT(config)), (t - 1) * patch * d + config.num_layers * work
""",
                "the configuration alone",
            ),
            "counts the positions": (
                "def vit_cost(config):\n"
                "    d, r, t = config.embed_dim, config.mlp_ratio, config.num_tokens\n"
                "    p = 3 * config.patch_size**2\n"
                "    block = 4 * (d * d + d) + 2 * r * d * d + r * d + d + 4 * d\n"
                "    work = (4 + 2 * r) * t * d * d + 2 * t * t * d\n"
                "    parameters = p * d + d + d + (t - 1) * d + config.num_layers * block + 2 * d\n"
                "    return parameters, (t - 1) * p * d + config.num_layers * work",
                "the positions are a buffer",
            ),
            "forgets the biases": (
                "def vit_cost(config):\n"
                "    d, r, t = config.embed_dim, config.mlp_ratio, config.num_tokens\n"
                "    p = 3 * config.patch_size**2\n"
                "    block = 4 * d * d + 2 * r * d * d + 4 * d\n"
                "    work = (4 + 2 * r) * t * d * d + 2 * t * t * d\n"
                "    return p * d + d + config.num_layers * block + 2 * d, (t - 1) * p * d + config.num_layers * work",
                "do the linear layers have biases",
            ),
            "forgets the bias of the MLP's first layer": (
                "def vit_cost(config):\n"
                "    d, r, t = config.embed_dim, config.mlp_ratio, config.num_tokens\n"
                "    p = 3 * config.patch_size**2\n"
                "    block = 4 * (d * d + d) + 2 * r * d * d + d + 4 * d\n"
                "    work = (4 + 2 * r) * t * d * d + 2 * t * t * d\n"
                "    return p * d + 4 * d + config.num_layers * block, (t - 1) * p * d + config.num_layers * work",
                "first layer has a bias",
            ),
            "forgets CLS among the parameters": (
                "def vit_cost(config):\n"
                "    d, r, t = config.embed_dim, config.mlp_ratio, config.num_tokens\n"
                "    p = 3 * config.patch_size**2\n"
                "    block = 4 * (d * d + d) + 2 * r * d * d + r * d + d + 4 * d\n"
                "    work = (4 + 2 * r) * t * d * d + 2 * t * t * d\n"
                "    return p * d + d + config.num_layers * block + 2 * d, (t - 1) * p * d + config.num_layers * work",
                "one vector of the width is missing",
            ),
            "forgets the last LayerNorm": (
                "def vit_cost(config):\n"
                "    d, r, t = config.embed_dim, config.mlp_ratio, config.num_tokens\n"
                "    p = 3 * config.patch_size**2\n"
                "    block = 4 * (d * d + d) + 2 * r * d * d + r * d + d + 4 * d\n"
                "    work = (4 + 2 * r) * t * d * d + 2 * t * t * d\n"
                "    return p * d + d + d + config.num_layers * block, (t - 1) * p * d + config.num_layers * work",
                "the last LayerNorm",
            ),
            "takes an MLP ratio of 4": (
                "def vit_cost(config):\n"
                "    d, r, t = config.embed_dim, 4, config.num_tokens\n"
                "    p = 3 * config.patch_size**2\n"
                "    block = 4 * (d * d + d) + 2 * r * d * d + r * d + d + 4 * d\n"
                "    work = (4 + 2 * r) * t * d * d + 2 * t * t * d\n"
                "    return p * d + 4 * d + config.num_layers * block, (t - 1) * p * d + config.num_layers * work",
                "use mlp_ratio",
            ),
            "counts a multiply-add twice": (
                "def vit_cost(config):\n"
                "    d, r, t = config.embed_dim, config.mlp_ratio, config.num_tokens\n"
                "    p = 3 * config.patch_size**2\n"
                "    block = 4 * (d * d + d) + 2 * r * d * d + r * d + d + 4 * d\n"
                "    work = 2 * (t - 1) * p * d + 2 * config.num_layers * ((4 + 2 * r) * t * d * d + 2 * t * t * d)\n"
                "    return p * d + 4 * d + config.num_layers * block, work",
                "a multiply-add counts once here",
            ),
            "runs the projection on CLS": (
                "def vit_cost(config):\n"
                "    d, r, t = config.embed_dim, config.mlp_ratio, config.num_tokens\n"
                "    p = 3 * config.patch_size**2\n"
                "    block = 4 * (d * d + d) + 2 * r * d * d + r * d + d + 4 * d\n"
                "    work = (4 + 2 * r) * t * d * d + 2 * t * t * d\n"
                "    return p * d + 4 * d + config.num_layers * block, t * p * d + config.num_layers * work",
                "runs on the patches, without CLS",
            ),
            "forgets that CLS is a token": (
                "def vit_cost(config):\n"
                "    d, r, t = config.embed_dim, config.mlp_ratio, config.num_tokens - 1\n"
                "    p = 3 * config.patch_size**2\n"
                "    block = 4 * (d * d + d) + 2 * r * d * d + r * d + d + 4 * d\n"
                "    work = (4 + 2 * r) * t * d * d + 2 * t * t * d\n"
                "    return p * d + 4 * d + config.num_layers * block, t * p * d + config.num_layers * work",
                "CLS is a token, too",
            ),
            "forgets attention's own products": (
                "def vit_cost(config):\n"
                "    d, r, t = config.embed_dim, config.mlp_ratio, config.num_tokens\n"
                "    p = 3 * config.patch_size**2\n"
                "    block = 4 * (d * d + d) + 2 * r * d * d + r * d + d + 4 * d\n"
                "    work = (4 + 2 * r) * t * d * d\n"
                "    return p * d + 4 * d + config.num_layers * block, (t - 1) * p * d + config.num_layers * work",
                "own two products are missing",
            ),
            "multiplies by the heads": (
                "def vit_cost(config):\n"
                "    d, r, t = config.embed_dim, config.mlp_ratio, config.num_tokens\n"
                "    p = 3 * config.patch_size**2\n"
                "    block = 4 * (d * d + d) + 2 * r * d * d + r * d + d + 4 * d\n"
                "    work = (4 + 2 * r) * t * d * d + 2 * config.num_heads * t * t * d\n"
                "    return p * d + 4 * d + config.num_layers * block, (t - 1) * p * d + config.num_layers * work",
                "the width of the heads together is D",
            ),
        },
    ),
}
