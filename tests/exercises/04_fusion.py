"""Answers to the exercises of chapter 04: right ones that must pass, wrong ones that must be refused, and why."""

from exercises.answers import Answers

ASKING = """
class AskingSentence(nn.Module):
    def __init__(self, config):
        super().__init__()
        fusion = config.fusion
        self.text_projection = nn.Linear(config.language.embed_dim, fusion.embed_dim)
        self.attention = Attention(fusion.embed_dim, fusion.num_heads, context_dim=config.vision.embed_dim)

    def forward(self, vision, language, input_ids, attention_mask):
        sentence = language.sentence(input_ids, attention_mask)
        query = self.text_projection(sentence)
        return self.attention(query[:, None], vision).squeeze(1)
"""

COUNT = """
def fusion_parameters(kind, v, t, d):
    attention = 4 * linear(d, d)
    mlp = linear(d, 4 * d) + linear(4 * d, d)
    block = attention + mlp + 4 * d
    if kind == "pool-add":
        return linear(v, d) + linear(t, d)
    if kind == "concat":
        return linear(v + t, d)
    if kind == "gated":
        return linear(v, d) + linear(t, d) + linear(t, d)
    if kind == "prefix":
        return linear(v, t) + linear(t, d)
    if kind == "cross-attention":
        return linear(t, d) + linear(d, d) + linear(v, d) + linear(v, d) + linear(d, d)
    return 4 * d + linear(v, d) + linear(t, d) + 2 * block
"""

FILM = """
def film_for(color):
    scale, shift = torch.full((12,), -1.0), torch.full((12,), -10.0)
    scale[color] = scale[6 + color] = 0.0
    return scale, shift
"""

MASK = "def block_mask(starts, is_real):\n    number = starts.cumsum(0)\n"

SCORED = """
class MyFusion(nn.Module):
    def __init__(self, config):
        super().__init__()
        width = config.fusion.embed_dim
        self.first = nn.Linear(config.language.embed_dim, width)
        self.look = Attention(width, config.fusion.num_heads, context_dim=config.vision.embed_dim)
        self.again = Attention(width, config.fusion.num_heads, context_dim=config.vision.embed_dim)

    def forward(self, vision, language, input_ids, attention_mask):
        question = self.first(language.sentence(input_ids, attention_mask))[:, None]
        found = question + self.look(question, context=vision)
        return self.again(found, context=vision)[:, 0]
"""

WORDS = """
class MyFusion(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.mine = nn.Linear(config.language.embed_dim, config.fusion.embed_dim)
        self.theirs = nn.Linear(config.vision.embed_dim, config.fusion.embed_dim)

    def forward(self, vision, language, input_ids, attention_mask):
        words = self.mine(language(input_ids, attention_mask))
        patches = self.theirs(vision)
        fit = (words @ patches.transpose(1, 2)).softmax(dim=-1) @ patches + words
        real = attention_mask[..., None]
        return (fit * real).sum(dim=1) / real.sum(dim=1)
"""

POOLED = """
class MyFusion(nn.Module):
    def __init__(self, config):
        super().__init__()
        v, t, width = config.vision.embed_dim, config.language.embed_dim, config.fusion.embed_dim
        self.see, self.hear, self.out = nn.Linear(v, width), nn.Linear(t, width), nn.Linear(width, width)

    def forward(self, vision, language, input_ids, attention_mask):
        sentence = language.sentence(input_ids, attention_mask)
        return self.out(self.see(vision.mean(dim=1)) + self.hear(sentence))
"""

MIXED = """
class MyFusion(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.mix = nn.Linear(config.vision.embed_dim + config.language.embed_dim, config.fusion.embed_dim)

    def forward(self, vision, language, input_ids, attention_mask):
        return self.mix(torch.cat([vision.mean(dim=1), language.sentence(input_ids, attention_mask)], dim=1))
"""

STARTS_AT_ZERO = """
class MyFusion(nn.Module):
    def __init__(self, config):
        super().__init__()
        width = config.fusion.embed_dim
        self.see = nn.Linear(config.vision.embed_dim, width)
        self.both = nn.Linear(config.language.embed_dim, 2 * width)
        nn.init.zeros_(self.both.weight), nn.init.zeros_(self.both.bias)

    def forward(self, vision, language, input_ids, attention_mask):
        scale, shift = self.both(language.sentence(input_ids, attention_mask))[:, None].chunk(2, dim=2)
        return F.gelu(self.see(vision) * (1 + scale) + shift).amax(dim=1)
"""

ANSWERS = {
    "Exercise 1": Answers(
        right=[
            ASKING,
            ASKING.replace(
                "return self.attention(query[:, None], vision).squeeze(1)",
                "return self.attention(x=query.unsqueeze(1), context=vision).mean(dim=1)",
            ),
            ASKING.replace("sentence = language.sentence(", "sentence = language.mean_state("),
        ],
        wrong={
            "adds the sentence": (
                ASKING.replace("return self", "return query + self"),
                "the sentence is added",
            ),
            "leaves out the CLS token": (ASKING.replace("vision).squeeze", "vision[:, 1:]).squeeze"), "the CLS token"),
            "averages over padding": (
                ASKING.replace(
                    "language.sentence(input_ids, attention_mask)", "language(input_ids, attention_mask).mean(1)"
                ),
                "averaged over padding",
            ),
            "keeps the row of queries": (ASKING.replace(".squeeze(1)", ""), "the shape should be (3, 32)"),
            "squeezes a batch of one, too": (ASKING.replace(".squeeze(1)", ".squeeze()"), "a batch of one scene"),
            "exchanges the roles": (
                ASKING.replace(
                    "self.attention(query[:, None], vision).squeeze(1)",
                    "self.attention(vision, query[:, None]).mean(1)",
                ),
                "the projected sentence asks",
            ),
            "asks without a row of queries": (
                ASKING.replace("query[:, None], vision).squeeze(1)", "query, vision)"),
                "the queries need the shape (batch, 1, width)",
            ),
            "forgets the text projection": (
                ASKING.replace("query = self.text_projection(sentence)", "query = sentence"),
                "the projected sentence asks",
            ),
            "asks with the last position": (
                ASKING.replace(
                    "language.sentence(input_ids, attention_mask)", "language(input_ids, attention_mask)[:, -1]"
                ),
                "the query is the sentence",
            ),
            "asks with every word and averages the answers": (
                ASKING.replace(
                    "language.sentence(input_ids, attention_mask)", "language(input_ids, attention_mask)"
                ).replace("query[:, None], vision).squeeze(1)", "query, vision).mean(1)"),
                "the query is the sentence",
            ),
        },
    ),
    "Exercise 2": Answers(
        right=[
            COUNT,
            "def fusion_parameters(kind, v, t, d):\n"
            "    own = {\n"
            "        'pool-add': d * (v + t + 2), 'concat': d * (v + t + 1), 'gated': d * (v + 2 * t + 3),\n"
            "        'prefix': t * (v + 1) + d * (t + 1),\n"
            "        'cross-attention': d * (t + 1) + 2 * d * (d + 1) + 2 * d * (v + 1),\n"
            "        'fusion-tokens': d * (v + t + 6) + 2 * (12 * d * d + 13 * d),\n"
            "    }\n"
            "    return float(own[kind])",
        ],
        wrong={
            "makes keys and values from the feature": (
                COUNT.replace(
                    "linear(v, d) + linear(v, d) + linear(d, d)", "linear(d, d) + linear(d, d) + linear(d, d)"
                ),
                "keys and values are made from vision tokens",
            ),
            "exchanges t and d in prefix": (
                COUNT.replace("linear(v, t) + linear(t, d)", "linear(v, d) + linear(d, t)"),
                "prefix with three different widths",
            ),
            "forgets the learned tokens": (COUNT.replace("return 4 * d + ", "return "), "4 learned tokens"),
            "forgets the LayerNorms": (COUNT.replace("mlp + 4 * d", "mlp"), "two LayerNorms"),
            "counts two biases in concat": (
                COUNT.replace("linear(v + t, d)", "linear(v, d) + linear(t, d)"),
                "with one bias",
            ),
            "forgets the shift": (COUNT.replace("+ linear(t, d) + linear(t, d)", "+ linear(t, d)"), "scale and shift"),
            "one block": (COUNT.replace("2 * block", "block"), "2 blocks"),
            "forgets the biases": (
                "def linear(inputs, outputs):\n    return inputs * outputs\n" + COUNT,
                "pool-add with three different widths",
            ),
        },
    ),
    "Exercise 3": Answers(
        right=[
            FILM,
            "def film_for(color):\n"
            "    scale = [0.0 if c in (color, color + 6) else -1.0 for c in range(12)]\n"
            "    shift = [-10 if c in (color, color + 6) else 0 for c in range(12)]\n"
            "    return scale, shift",
            "def film_for(color):\n"
            "    asked = np.arange(12) % 6 == color\n"
            "    return np.where(asked, 0.0, -1.0), np.full(12, -10.0)",
        ],
        wrong={
            "no gate: switches other colours off and shifts nothing": (
                FILM.replace("torch.full((12,), -10.0)", "torch.zeros(12)"),
                "patches without a block add to it",
            ),
            "no scale: all colours answer": (
                "def film_for(color):\n    return torch.zeros(12), torch.full((12,), -10.0)",
                "blocks of other colours add to it",
            ),
            "switches the asked colour off": (
                "def film_for(color):\n"
                "    scale, shift = torch.zeros(12), torch.full((12,), -10.0)\n"
                "    scale[color] = scale[6 + color] = -1.0\n"
                "    return scale, shift",
                "blocks of other colours add to it",
            ),
            "forgets g": (FILM.replace("scale[color] = scale[6 + color] = 0.0", "scale[color] = 0.0"), "its g -x"),
            "shifts by half as much": (FILM.replace("-10.0", "-5.0"), "the right patch should add x"),
            "shifts a little too little": (FILM.replace("-10.0", "-9.999"), "off by up to 0.001; the right patch"),
            "shifts too far": (FILM.replace("-10.0", "-20.0"), "adds nothing"),
            "six entries": (
                "def film_for(color):\n"
                "    scale = torch.full((6,), -1.0)\n    scale[color] = 0.0\n    return scale, torch.full((6,), -10.0)",
                "need 12 entries",
            ),
            "knows red alone": (
                "def film_for(color):\n"
                "    scale = torch.full((12,), -1.0)\n"
                "    scale[0] = scale[6] = 0.0\n    return scale, torch.full((12,), -10.0)",
                "blocks of other colours add to it",
            ),
        },
    ),
    "Exercise 4": Answers(
        right=[
            MASK + "    return (number[:, None] >= number[None, :]) & is_real",
            "def block_mask(starts, is_real):\n"
            "    n = len(starts)\n"
            "    block = [sum(starts[: i + 1].tolist()) for i in range(n)]\n"
            "    return [[block[j] <= block[i] and bool(is_real[j]) for j in range(n)] for i in range(n)]",
            "def block_mask(starts, is_real):\n"
            "    number = starts.numpy().cumsum()\n"
            "    return np.greater_equal.outer(number, number) & is_real.numpy()[None]",
        ],
        wrong={
            "never sees its own block": (
                MASK + "    return (number[None, :] < number[:, None]) & is_real[None, :]",
                "should see its own block",
            ),
            "sees its own block alone": (
                MASK + "    return (number[None, :] == number[:, None]) & is_real[None, :]",
                "should see earlier blocks",
            ),
            "exchanges rows and columns": (
                MASK + "    return (number[:, None] <= number[None, :]) & is_real[None, :]",
                "rows and columns are swapped",
            ),
            "forgets padding": (MASK + "    return number[None, :] <= number[:, None]", "padding may not be looked at"),
            "hides the rows of padding": (
                MASK + "    return (number[None, :] <= number[:, None]) & is_real[:, None]",
                "the rows of padding should stay",
            ),
            "hides rows and columns": (
                MASK + "    return (number[None, :] <= number[:, None]) & is_real[None, :] & is_real[:, None]",
                "the rows of padding should stay",
            ),
            "always causal": (
                "def block_mask(starts, is_real):\n"
                "    n = len(starts)\n    return torch.ones(n, n, dtype=torch.bool).tril() & is_real[None, :]",
                "tokens of one block see each other",
            ),
            "does not begin a block with padding": (
                "def block_mask(starts, is_real):\n"
                "    number = (starts & is_real).cumsum(0)\n"
                "    return (number[None, :] <= number[:, None]) & is_real[None, :]",
                "on padding, too",
            ),
            "everyone sees everyone": (
                "def block_mask(starts, is_real):\n    return is_real[None, :].expand(len(starts), -1)",
                "no token sees a later one",
            ),
        },
    ),
    "Exercise 5": Answers(
        right=[
            SCORED,
            WORDS,
            "class MyFusion(FusionTokens):\n    num_tokens = 2",
            STARTS_AT_ZERO,
        ],
        wrong={
            "inherits and changes nothing": ("class MyFusion(FusionTokens):\n    pass", "this is fusion-tokens again"),
            "inherits cross-attention": (
                "from tinyvla.model.fusion import CrossAttention\n\nclass MyFusion(CrossAttention):\n    pass",
                "this is cross-attention again",
            ),
            "pool-add under another name": (
                "class MyFusion(nn.Module):\n"
                "    def __init__(self, config):\n"
                "        super().__init__()\n"
                "        self.vision_projection = nn.Linear(config.vision.embed_dim, config.fusion.embed_dim)\n"
                "        self.text_projection = nn.Linear(config.language.embed_dim, config.fusion.embed_dim)\n\n"
                "    def forward(self, vision, language, input_ids, attention_mask):\n"
                "        sentence = language.sentence(input_ids, attention_mask)\n"
                "        return self.text_projection(sentence) + self.vision_projection(vision).mean(dim=1)",
                "this is pool-add again",
            ),
            "gated with its layers renamed and in another order": (
                "class MyFusion(nn.Module):\n"
                "    def __init__(self, config):\n"
                "        super().__init__()\n"
                "        words, width = config.language.embed_dim, config.fusion.embed_dim\n"
                "        self.plus, self.times = nn.Linear(words, width), nn.Linear(words, width)\n"
                "        self.see = nn.Linear(config.vision.embed_dim, width)\n\n"
                "    def forward(self, vision, language, input_ids, attention_mask):\n"
                "        sentence = language.sentence(input_ids, attention_mask)[:, None]\n"
                "        x = self.see(vision)\n"
                "        return F.gelu(x + x * self.times(sentence) + self.plus(sentence)).mean(dim=1)",
                "this is gated again",
            ),
            "the same width for all": (
                WORDS.replace("config.fusion.embed_dim", "config.language.embed_dim"),
                "with three different widths",
            ),
            "ignores the image": (
                WORDS.replace("return (fit * real)", "return (words * real)"),
                "does not depend on the image",
            ),
            "ignores the words": (
                WORDS.replace("return (fit * real).sum(dim=1) / real.sum(dim=1)", "return F.gelu(patches).mean(dim=1)"),
                "does not depend on the words",
            ),
            "averages over padding": (
                WORDS.replace("return (fit * real).sum(dim=1) / real.sum(dim=1)", "return fit.mean(dim=1)"),
                "changes when padding is added",
            ),
            "another width": (
                WORDS.replace("return (fit * real).sum(dim=1) / real.sum(dim=1)", "return fit.mean(dim=-1)"),
                "the shape should be",
            ),
            "mixes the scenes of a batch": (
                SCORED.replace("[:, 0]", "[:, 0] - found[:, 0].mean(dim=0)"),
                "depends on the other scenes",
            ),
            "detaches the image": (SCORED.replace("context=vision", "context=vision.detach()"), "vision tokens"),
            "detaches the words": (
                SCORED.replace(
                    "language.sentence(input_ids, attention_mask)",
                    "language.sentence(input_ids, attention_mask).detach()",
                ),
                "no gradient reaches the words",
            ),
            "one block of this chapter": ("class MyFusion(OneBlock):\n    pass", "this is OneBlock again"),
            "one block, in other words": (
                "class MyFusion(FusionTokens):\n    num_blocks = 1",
                "this is OneBlock again",
            ),
            "reads the words as this chapter does": ("class MyFusion(ReadTheWords):\n    pass", "ReadTheWords again"),
            "pools and adds, then a linear layer": (POOLED, "is averaged before the words arrive"),
            "pools and adds, twice as much": (POOLED.replace("self.out(", "2 * ("), "is averaged before"),
            "pools and adds, without a bias": (
                POOLED.replace("nn.Linear(v, width)", "nn.Linear(v, width, bias=False)").replace("self.out(", "("),
                "is averaged before",
            ),
            "pools and adds, then a ReLU": (POOLED.replace("self.out(", "F.relu("), "is averaged before"),
            "pools and adds with a single layer": (MIXED, "is averaged before"),
            "projects the tokens, then pools and adds": (
                POOLED.replace("self.see(vision.mean(dim=1))", "self.see(vision).mean(dim=1)"),
                "is averaged before",
            ),
        },
    ),
}
