"""Action heads: a fused feature becomes an action, or a chunk of them.

Notable:
- every head answers two verbs, `loss(features, actions)` for training and `predict(features)` for acting, so the
  training loop never knows which head it trains;
- regression answers with one action, the mean of what was demonstrated. The others learn a distribution and draw from
  it, so that two right answers stay two;
- all randomness comes from a generator that the caller may give, so training and acting can be repeated exactly.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from tinyvla.config import InputError, ModelConfig
from tinyvla.layers import sincos_positions
from tinyvla.normalize import Normalizer


class Head(nn.Module):
    """What all heads share: actions in their own units outside, normalised and flat inside.

    A subclass has `flat_loss` and `sample`. Actions are `(b, action_dim)`, or `(b, horizon, action_dim)` where the
    horizon is longer than one.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config.head
        self.shape = (self.config.horizon, self.config.action_dim)
        self.dim = math.prod(self.shape)
        self.normalizer = Normalizer(config.head)

    def loss(
        self, features: Float[Tensor, "b d"], actions: Float[Tensor, "b *chunk"], generator: Generator | None = None
    ) -> Float[Tensor, ""]:
        """The training loss.

        Raises:
            InputError: the actions' shape is not the head's.
        """
        shape = self.shape[1:] if self.config.horizon == 1 else self.shape
        if actions.shape[1:] != shape:
            raise InputError(f"the actions are {tuple(actions.shape[1:])} each, and the policy's head makes {shape}")
        normalised = self.normalizer(actions.unflatten(0, (-1, 1)) if actions.ndim == 2 else actions)
        return self.flat_loss(features, normalised.flatten(1), generator)

    def predict(self, features: Float[Tensor, "b d"], generator: Generator | None = None) -> Float[Tensor, "b *chunk"]:
        """Actions in their own units."""
        actions = self.normalizer.inverse(self.sample(features, generator).unflatten(1, self.shape))
        return actions[:, 0] if self.config.horizon == 1 else actions

    def flat_loss(
        self, features: Float[Tensor, "b d"], actions: Float[Tensor, "b n"], generator: Generator | None
    ) -> Float[Tensor, ""]:
        """The loss for normalised, flattened actions."""
        raise NotImplementedError

    def sample(self, features: Float[Tensor, "b d"], generator: Generator | None) -> Float[Tensor, "b n"]:
        """Normalised, flattened actions."""
        raise NotImplementedError


class RegressionHead(Head):
    """Two-layer MLP, trained with the mean squared error or, as kind "l1", the mean absolute error.

    Bounded to [-1, 1] by tanh, unless actions are normalised by mean and standard deviation, which has no bounds.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.hidden = nn.Linear(config.fusion.embed_dim, config.head.hidden_dim)
        self.output = nn.Linear(config.head.hidden_dim, self.dim)

    def sample(self, features: Float[Tensor, "b d"], generator: Generator | None) -> Float[Tensor, "b n"]:
        """One answer; nothing is drawn."""
        answer = self.output(F.gelu(self.hidden(features)))
        return answer if self.config.normalization == "mean-std" else answer.tanh()

    def flat_loss(
        self, features: Float[Tensor, "b d"], actions: Float[Tensor, "b n"], generator: Generator | None
    ) -> Float[Tensor, ""]:
        """Mean over scenes and components."""
        error = F.l1_loss if self.config.kind == "l1" else F.mse_loss
        return error(self.sample(features, generator), actions)


class DirectionsHead(Head):
    """Names one of a few directions: right, then counter-clockwise; trained with the cross-entropy.

    With four: right, up, left, down. The label is the direction that is nearest to the action; between two that are
    equally near, the first.
    """

    directions: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        if self.shape != (1, 2) or config.head.normalization != "none":
            raise InputError("a directions head names the direction of one 2-D action, and needs no normalisation")
        self.hidden = nn.Linear(config.fusion.embed_dim, config.head.hidden_dim)
        self.output = nn.Linear(config.head.hidden_dim, config.head.num_directions)
        angles = 2 * torch.pi * torch.arange(config.head.num_directions) / config.head.num_directions
        self.register_buffer("directions", torch.stack([angles.cos(), -angles.sin()], dim=1), persistent=False)

    def classes(self, actions: Float[Tensor, "b 2"]) -> Int[Tensor, "b"]:
        """The index of the nearest direction."""
        cosine = actions @ self.directions.T
        # Rounding must not decide between two that are equally near: take the first within a hair of the best.
        return (cosine > cosine.max(dim=1, keepdim=True).values - 1e-4).to(torch.uint8).argmax(dim=1)

    def logits(self, features: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        """One for each direction."""
        return self.output(F.gelu(self.hidden(features)))

    def sample(self, features: Float[Tensor, "b d"], generator: Generator | None) -> Float[Tensor, "b n"]:
        """The unit vector of the likeliest direction."""
        return self.directions[self.logits(features).argmax(dim=1)]

    def flat_loss(
        self, features: Float[Tensor, "b d"], actions: Float[Tensor, "b n"], generator: Generator | None
    ) -> Float[Tensor, ""]:
        """Cross-entropy."""
        return F.cross_entropy(self.logits(features), self.classes(actions))


class BinsHead(Head):
    """Each number is cut into bins and named in turn, each knowing those before it (RT-2, OpenVLA).

    RT-2 https://arxiv.org/abs/2307.15818, OpenVLA https://arxiv.org/abs/2406.09246. There the language model names the
    bins with its own tokens; here a small network does, and previous bins enter as a sum of embeddings.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        width, bins = config.head.hidden_dim, config.head.num_bins
        self.features_in = nn.Linear(config.fusion.embed_dim, width)
        self.hidden = nn.Linear(width, width)
        self.output = nn.Linear(width, bins)
        self.place = nn.Parameter(torch.randn(self.dim, width))  # which number is being named
        self.previous = nn.Embedding(self.dim * bins, width)  # a row for each bin of each number

    def bins(self, actions: Float[Tensor, "b n"]) -> Int[Tensor, "b n"]:
        """Numbers in [-1, 1] as bins; others go to the outermost."""
        return ((actions + 1) / 2 * self.config.num_bins).long().clamp(0, self.config.num_bins - 1)

    def centers(self, bins: Int[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """The middle of each bin."""
        return (bins + 0.5) / self.config.num_bins * 2 - 1

    def logits(self, features: Float[Tensor, "b d"], bins: Int[Tensor, "b k"]) -> Float[Tensor, "b m bins"]:
        """For the first `k + 1` numbers, at most all, given the first `k` bins."""
        count = min(bins.shape[1] + 1, self.dim)
        rows = bins + self.config.num_bins * torch.arange(bins.shape[1], device=bins.device)
        seen = F.pad(self.previous(rows).cumsum(dim=1), (0, 0, 1, 0))[:, :count]  # what came before each number
        x = F.gelu(self.features_in(features)[:, None] + seen + self.place[:count])
        return self.output(x + F.gelu(self.hidden(x)))

    def sample(self, features: Float[Tensor, "b d"], generator: Generator | None) -> Float[Tensor, "b n"]:
        """Bins drawn one after the other, as their middles."""
        bins = torch.empty(len(features), 0, dtype=torch.long, device=features.device)
        for _ in range(self.dim):
            likely = self.logits(features, bins)[:, -1].softmax(dim=-1)
            bins = torch.cat([bins, torch.multinomial(likely, 1, generator=generator)], dim=1)
        return self.centers(bins)

    def flat_loss(
        self, features: Float[Tensor, "b d"], actions: Float[Tensor, "b n"], generator: Generator | None
    ) -> Float[Tensor, ""]:
        """Cross-entropy of all numbers at once: in training the bins before each are known."""
        bins = self.bins(actions)
        return F.cross_entropy(self.logits(features, bins[:, :-1]).flatten(0, 1), bins.flatten())


class DenoisingHead(Head):
    """What flow matching and diffusion share: a network that looks at a feature, a noisy action and the noise level."""

    num_draws = 8
    """Noisy versions of each action in a batch: the feature is costly, the head is not."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        width = config.head.hidden_dim
        self.features_in = nn.Linear(config.fusion.embed_dim, width)
        self.action_in = nn.Linear(self.dim, width)
        self.time_in = nn.Linear(width, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.output = nn.Linear(width, self.dim)

    def network(
        self, features: Float[Tensor, "b d"], noisy: Float[Tensor, "b n"], time: Float[Tensor, "b"]
    ) -> Float[Tensor, "b n"]:
        """What the network says about a noisy action; `time` lies in [0, 1]."""
        level = sincos_positions(1000 * time, self.time_in.in_features, max_period=10_000.0).to(noisy)
        x = self.features_in(features) + self.action_in(noisy) + self.time_in(level)
        for layer in self.hidden:
            x = x + layer(F.gelu(x))
        return self.output(F.gelu(x))

    def draw(self, shape: tuple[int, ...], like: Tensor, generator: Generator | None) -> Tensor:
        """Normal noise."""
        return torch.randn(shape, device=like.device, dtype=like.dtype, generator=generator)

    def repeated(
        self, features: Float[Tensor, "b d"], actions: Float[Tensor, "b n"], generator: Generator | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features, actions, noise and times, `num_draws` of each, the times spread evenly over a batch."""
        features, actions = (x.repeat_interleave(self.num_draws, dim=0) for x in (features, actions))
        count = len(actions)
        offset = torch.rand(count, device=actions.device, dtype=actions.dtype, generator=generator)
        order = torch.randperm(count, device=actions.device, generator=generator)
        return features, actions, self.draw(actions.shape, actions, generator), (order + offset) / count


class FlowHead(DenoisingHead):
    """Flow matching: learn the direction from noise to action, then follow it (pi0, SmolVLA).

    Flow matching https://arxiv.org/abs/2210.02747, pi0 https://arxiv.org/abs/2410.24164. Time runs from 0, noise, to 1.
    """

    def flat_loss(
        self, features: Float[Tensor, "b d"], actions: Float[Tensor, "b n"], generator: Generator | None
    ) -> Float[Tensor, ""]:
        """Mean squared error of the direction, at random places of the straight way from noise to action."""
        features, actions, noise, time = self.repeated(features, actions, generator)
        on_the_way = (1 - time)[:, None] * noise + time[:, None] * actions
        return F.mse_loss(self.network(features, on_the_way, time), actions - noise)

    def sample(self, features: Float[Tensor, "b d"], generator: Generator | None) -> Float[Tensor, "b n"]:
        """Euler steps from noise."""
        x = self.draw((len(features), self.dim), features, generator)
        for step in range(self.config.num_steps):
            time = torch.full((len(x),), step / self.config.num_steps, device=x.device, dtype=x.dtype)
            x = x + self.network(features, x, time) / self.config.num_steps
        return x


class DiffusionHead(DenoisingHead):
    """Diffusion: learn to separate action from noise, then remove the noise step by step (Diffusion Policy, Octo).

    Diffusion Policy https://arxiv.org/abs/2303.04137, Octo https://arxiv.org/abs/2405.12213. The schedule is the
    cosine of https://arxiv.org/abs/2102.09672 without its clipping, so that at time 1 nothing of the action is left
    (https://arxiv.org/abs/2305.08891 shows what goes wrong otherwise); the network therefore predicts the "velocity"
    (https://arxiv.org/abs/2202.00512), which is defined there, as the noise is not.
    """

    @staticmethod
    def schedule(time: Float[Tensor, "b"]) -> tuple[Float[Tensor, "b 1"], Float[Tensor, "b 1"]]:
        """How much action and how much noise there is; the squares sum to one."""
        angle = torch.pi / 2 * time[:, None]
        return angle.cos(), angle.sin()

    def flat_loss(
        self, features: Float[Tensor, "b d"], actions: Float[Tensor, "b n"], generator: Generator | None
    ) -> Float[Tensor, ""]:
        """Mean squared error of the velocity, at random noise levels."""
        features, actions, noise, time = self.repeated(features, actions, generator)
        signal, sigma = self.schedule(time)
        return F.mse_loss(
            self.network(features, signal * actions + sigma * noise, time), signal * noise - sigma * actions
        )

    def sample(self, features: Float[Tensor, "b d"], generator: Generator | None) -> Float[Tensor, "b n"]:
        """From pure noise: estimate the action, put back a little less noise, repeat (DDPM's ancestral sampling)."""
        x = self.draw((len(features), self.dim), features, generator)
        times = torch.linspace(1, 0, self.config.num_steps + 1, device=x.device, dtype=x.dtype)
        for now, following in pairwise(times):
            (signal, sigma), (next_signal, next_sigma) = (self.schedule(t.expand(len(x))) for t in (now, following))
            velocity = self.network(features, x, now.expand(len(x)))
            action, noise = signal * x - sigma * velocity, sigma * x + signal * velocity
            # The share of the remaining noise that is new; with none the path would be deterministic (DDIM).
            kept = (next_sigma * signal / (sigma * next_signal).clamp(min=1e-8)).clamp(max=1.0)
            fresh = self.draw(x.shape, x, generator)
            x = next_signal * action + next_sigma * (kept * noise + (1 - kept**2).sqrt() * fresh)
        return x


HEADS: dict[str, type[Head]] = {
    "regression": RegressionHead,
    "l1": RegressionHead,
    "directions": DirectionsHead,
    "bins": BinsHead,
    "flow": FlowHead,
    "diffusion": DiffusionHead,
}


def make_head(config: ModelConfig) -> Head:
    """The head that a configuration names."""
    return HEADS[config.head.kind](config)
