"""Answers to the exercises of chapter 07: right ones that must pass, wrong ones that must be refused, and why."""

from exercises.answers import Answers

FLOW = """class Flow(Denoiser):
    def loss(self, features, actions, generator=None):
        features, actions, noise, time = self.draw_noise_and_times(features, actions, generator)
        point = (1 - time)[:, None] * noise + time[:, None] * actions
        return F.mse_loss(self.network(features, point, time), actions - noise)

    def predict(self, features, generator=None):
        x = torch.randn(len(features), self.dim, device=features.device, generator=generator)
        for step in range(self.num_steps):
            time = torch.full((len(x),), step / self.num_steps, device=x.device)
            x = x + self.network(features, x, time) / self.num_steps
        return x
"""

STATISTICS = """def masked_statistics(actions, mask):
    low, high = (torch.quantile(actions, q, dim=0) for q in (0.01, 0.99))
    scale = (high - low) / 2
    scale = torch.where(scale < 0.5e-6, 1.0, scale)
    mask = torch.tensor(mask)
    return torch.where(mask, (low + high) / 2, 0.0), torch.where(mask, scale, 1.0)
"""

MIXTURE = """def mixture_loss(means, log_weights, log_sigma, actions):
    distance = ((actions[:, None] - means) ** 2).sum(dim=-1)
    log_normal = -distance / (2 * torch.exp(2 * log_sigma))
    log_normal = log_normal - actions.shape[1] * (log_sigma + 0.5 * math.log(2 * math.pi))
    return -torch.logsumexp(log_weights + log_normal, dim=1).mean()


def draw_one(means, log_weights, generator):
    index = torch.multinomial(log_weights.exp(), 1, generator=generator)[:, 0]
    return means[torch.arange(len(means), device=means.device), index]
"""
INDEX = "torch.multinomial(log_weights.exp(), 1, generator=generator)[:, 0]"

ANSWERS = {
    "Exercise 1": Answers(
        right=[
            FLOW,
            """class Flow(Denoiser):
    def loss(self, features, actions, generator=None):
        features, actions, noise, time = self.draw_noise_and_times(features, actions, generator)
        point = torch.lerp(noise, actions, time.unsqueeze(1))
        return ((self.network(features, point, time) - (actions - noise)) ** 2).mean()

    def predict(self, features, generator=None):
        x = torch.randn(len(features), self.dim, device=features.device, generator=generator)
        step = 1 / self.num_steps
        for t in torch.linspace(0, 1, self.num_steps + 1, device=x.device)[:-1]:
            x = x + step * self.network(features, x, t.expand(len(x)))
        return x
""",
        ],
        wrong={
            "the line runs the other way": (
                FLOW.replace(
                    "(1 - time)[:, None] * noise + time[:, None] * actions",
                    "time[:, None] * noise + (1 - time)[:, None] * actions",
                ),
                "runs from the action to the noise",
            ),
            "the velocity points backwards": (
                FLOW.replace("time), actions - noise)", "time), noise - actions)"),
                "wrong sign",
            ),
            "says the action": (FLOW.replace("time), actions - noise)", "time), actions)"), "not the action"),
            "absolute error": (FLOW.replace("F.mse_loss", "F.l1_loss"), "squared error"),
            "a sum": (FLOW.replace("actions - noise)", 'actions - noise, reduction="sum")'), "not a sum"),
            "one time for the whole batch": (
                FLOW.replace("        point =", "        time = time[:1].expand(len(time))\n        point ="),
                "the point at time t is",
            ),
            "a step of full length": (FLOW.replace("x, time) / self.num_steps", "x, time)"), "1 / num_steps"),
            "time runs backwards": (
                FLOW.replace("step / self.num_steps,", "1 - step / self.num_steps,"),
                "time runs backwards",
            ),
            "time runs backwards in the loss": (
                FLOW.replace("self.network(features, point, time)", "self.network(features, point, 1 - time)"),
                "in loss, the time that you tell the network runs backwards",
            ),
            "time stands still": (FLOW.replace("step / self.num_steps,", "0.0,"), "time stands still"),
            "time is counted in steps": (
                FLOW.replace("step / self.num_steps,", "float(step),"),
                "divide the step by num_steps",
            ),
            "the last step begins at the end": (
                FLOW.replace("step / self.num_steps,", "step / (self.num_steps - 1),"),
                "the last step starts at 0.75",
            ),
            "the velocity at the end of the step": (
                FLOW.replace("step / self.num_steps,", "(step + 1) / self.num_steps,"),
                "off by one",
            ),
            "the velocity in the middle of the step": (
                FLOW.replace("step / self.num_steps,", "(step + 0.5) / self.num_steps,"),
                "the velocity at its start",
            ),
            "goes against the field": (FLOW.replace("x = x + self", "x = x - self"), "do not subtract"),
            "a single step": (FLOW.replace("range(self.num_steps)", "range(1)"), "ask the network 4 times"),
            "predict is not written": (
                FLOW.replace("        return x\n", "        return None\n"),
                "write the body of predict",
            ),
        },
    ),
    "Exercise 2": Answers(
        right=[
            STATISTICS,
            """def masked_statistics(actions, mask):
    low, high = np.quantile(actions.numpy(), [0.01, 0.99], axis=0)
    offset, scale = [], []
    for a, b, is_normalised in zip(low, high, mask):
        offset.append((a + b) / 2 if is_normalised else 0.0)
        scale.append((b - a) / 2 if is_normalised and b - a > 1e-6 else 1.0)
    return offset, scale
""",
        ],
        wrong={
            "no mask": (
                STATISTICS.replace("mask = torch.tensor(mask)", "mask = torch.ones(len(mask), dtype=torch.bool)"),
                "grippers must come out unchanged",
            ),
            "the mask the wrong way round": (
                STATISTICS.replace("torch.tensor(mask)", "~torch.tensor(mask)"),
                "grippers must come out unchanged",
            ),
            "divides by zero": (STATISTICS.replace("scale < 0.5e-6", "scale < -1"), "divide by zero"),
            "stretches the joint that does not move": (
                STATISTICS.replace("torch.where(scale < 0.5e-6, 1.0, scale)", "scale.clamp(min=1e-6)"),
                "not stretched",
            ),
            "compares the quantiles exactly": (
                STATISTICS.replace("scale < 0.5e-6", "high == low"),
                "trembles by 1e-9",
            ),
            "half the distance against the threshold": (
                STATISTICS.replace("scale < 0.5e-6", "scale < 1e-6"),
                "their distance with 1e-6",
            ),
            "a coarse threshold": (STATISTICS.replace("scale < 0.5e-6", "scale < 1e-3"), "threshold is too coarse"),
            "a somewhat coarse threshold": (
                STATISTICS.replace("scale < 0.5e-6", "high - low < 1e-5"),
                "threshold is too coarse",
            ),
            "does not shift what trembles": (
                STATISTICS.replace(
                    "torch.where(mask, (low + high) / 2, 0.0)",
                    "torch.where(mask & ((high - low > 1e-6) | (high == low)), (low + high) / 2, 0.0)",
                ),
                "only trembles is shifted",
            ),
            "does not shift it": (
                STATISTICS.replace(
                    "torch.where(mask, (low + high) / 2, 0.0)",
                    "torch.where(mask & (high > low), (low + high) / 2, 0.0)",
                ),
                "becomes 0",
            ),
            "mean and deviation": (
                STATISTICS.replace(
                    "(0.01, 0.99))",
                    "(0.01, 0.99))\n    low, high = (actions.mean(dim=0) + k * actions.std(dim=0) for k in (-1, 1))",
                ),
                "quantile",
            ),
            "smallest and largest": (
                STATISTICS.replace("(0.01, 0.99)", "(0.0, 1.0)"),
                "98 % of a normalised dimension",
            ),
            "the whole distance": (STATISTICS.replace("(high - low) / 2\n", "high - low\n"), "half the distance"),
            "shifts by the median": (
                STATISTICS.replace("torch.where(mask, (low + high) / 2, 0.0)", "torch.where(mask, low, 0.0)"),
                "98 % of a normalised dimension",
            ),
        },
    ),
    "Exercise 3": Answers(
        right=[
            MIXTURE,
            """def mixture_loss(means, log_weights, log_sigma, actions):
    normals = torch.distributions.Normal(means, log_sigma.exp())
    each = normals.log_prob(actions[:, None]).sum(dim=-1)
    peak = (each + log_weights).max(dim=1, keepdim=True).values
    return -((each + log_weights - peak).exp().sum(dim=1).log() + peak[:, 0]).mean()


def draw_one(means, log_weights, generator):
    edges = log_weights.exp().cumsum(dim=1)
    coin = torch.rand(len(means), 1, generator=generator, device=means.device)
    index = (coin > edges).sum(dim=1).clamp(max=means.shape[1] - 1)
    return torch.gather(means, 1, index[:, None, None].expand(-1, 1, means.shape[2]))[:, 0]
""",
        ],
        wrong={
            "the likeliest": (MIXTURE.replace(INDEX, "log_weights.argmax(dim=1)"), "answers the same each time"),
            "the likelihoods themselves": (
                MIXTURE.replace(
                    "torch.logsumexp(log_weights + log_normal, dim=1)",
                    "(log_weights + log_normal).exp().sum(dim=1).log()",
                ),
                "far from all four, your loss is infinite",
            ),
            "one index for all rows": (
                MIXTURE.replace(INDEX, "torch.multinomial(log_weights[0].exp(), 1, generator=generator)[0]").replace(
                    "return means[torch.arange(len(means), device=means.device), index]", "return means[:, index]"
                ),
                "draw an index for each row",
            ),
            "evenly": (
                MIXTURE.replace(INDEX, "torch.randint(4, (len(means),), generator=generator, device=means.device)"),
                "drawn by their weights",
            ),
            "all rows by the first row's weights": (
                MIXTURE.replace(
                    INDEX, "torch.multinomial(log_weights[0].exp(), len(means), replacement=True, generator=generator)"
                ),
                "draws all rows by the first row's",
            ),
            "from the means of the first row": (
                MIXTURE.replace(
                    "return means[torch.arange(len(means), device=means.device), index]", "return means[0, index]"
                ),
                "of its own row",
            ),
            "a loss with the first row's weights": (
                MIXTURE.replace("logsumexp(log_weights + ", "logsumexp(log_weights[:1] + "),
                "takes the first row's for all",
            ),
            "without the generator": (MIXTURE.replace("1, generator=generator)", "1)"), "pass it to torch.multinomial"),
            "the mean of the four": (
                MIXTURE.replace(
                    "return means[torch.arange(len(means), device=means.device), index]",
                    "return (log_weights.exp()[..., None] * means).sum(dim=1)",
                ),
                "without averaging",
            ),
            "with noise": (
                MIXTURE.replace("device), index]", "device), index] + 0.01"),
                "without noise",
            ),
            "the sign": (
                MIXTURE.replace("return -torch.logsumexp", "return torch.logsumexp"),
                "*minus* the log-likelihood",
            ),
            "a sum over the batch": (MIXTURE.replace("dim=1).mean()", "dim=1).sum()"), "not the sum"),
            "the best of the four": (
                MIXTURE.replace(
                    "torch.logsumexp(log_weights + log_normal, dim=1)", "(log_weights + log_normal).max(dim=1).values"
                ),
                "takes the largest alone",
            ),
            "no weights": (MIXTURE.replace("log_weights + log_normal", "log_normal"), "weights are missing"),
            "the constant once": (MIXTURE.replace("actions.shape[1] * (log_sigma", "(log_sigma"), "once per dimension"),
            "sigma is not squared": (
                MIXTURE.replace("torch.exp(2 * log_sigma)", "torch.exp(log_sigma)"),
                "check sigma",
            ),
        },
    ),
}
