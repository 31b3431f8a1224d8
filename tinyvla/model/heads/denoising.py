"""Heads that turn noise into an action, step by step: flow matching and diffusion."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn

from tinyvla.config import ModelConfig
from tinyvla.model.heads.base import Head, Trunk, mean_of
from tinyvla.model.layers import sincos_positions


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
        self.trunk = Trunk(width)
        self.output = nn.Linear(width, self.dim)

    def network(
        self, features: Float[Tensor, "b d"], noisy: Float[Tensor, "b n"], time: Float[Tensor, "b"]
    ) -> Float[Tensor, "b n"]:
        """What the network says about a noisy action; `time` lies in [0, 1]."""
        level = sincos_positions(1000 * time, self.time_in.in_features, max_period=10_000.0).to(noisy)
        return self.output(self.trunk(self.features_in(features) + self.action_in(noisy) + self.time_in(level)))

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

    def mean_square(
        self, answer: Float[Tensor, "m n"], target: Float[Tensor, "m n"], counts: Bool[Tensor, "b n"] | None
    ) -> Float[Tensor, ""]:
        """Returns the mean squared error over the numbers that count, `num_draws` of each."""
        counts = None if counts is None else counts.repeat_interleave(self.num_draws, dim=0)
        return mean_of(F.mse_loss(answer, target, reduction="none"), counts)


class FlowHead(DenoisingHead):
    """Flow matching: learn the direction from noise to action, then follow it (pi0, SmolVLA).

    Flow matching https://arxiv.org/abs/2210.02747, pi0 https://arxiv.org/abs/2410.24164. Time runs from 0, noise, to 1.
    """

    def flat_loss(
        self,
        features: Float[Tensor, "b d"],
        actions: Float[Tensor, "b n"],
        generator: Generator | None,
        counts: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean squared error of the direction, at random places of the straight way from noise to action."""
        features, actions, noise, time = self.repeated(features, actions, generator)
        on_the_way = (1 - time)[:, None] * noise + time[:, None] * actions
        return self.mean_square(self.network(features, on_the_way, time), actions - noise, counts)

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
        self,
        features: Float[Tensor, "b d"],
        actions: Float[Tensor, "b n"],
        generator: Generator | None,
        counts: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean squared error of the velocity, at random noise levels."""
        features, actions, noise, time = self.repeated(features, actions, generator)
        signal, sigma = self.schedule(time)
        noisy, velocity = signal * actions + sigma * noise, signal * noise - sigma * actions
        return self.mean_square(self.network(features, noisy, time), velocity, counts)

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
