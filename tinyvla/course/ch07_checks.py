"""Chapter 7 (action heads): its tools, the checks of its exercises, and the head that the last one completes.

Notable:
- `same_as_package` and `train` are for heads of any kind on a feature of 64 numbers;
- each check is a function of assertions, to be called inside `checking`; its messages name the likely mistake;
- networks are replaced by ones that say known things, so that every number can be worked out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn

from tinyvla.config import FusionConfig, HeadConfig, ModelConfig
from tinyvla.errors import InputError
from tinyvla.model.heads import Head, make_head
from tinyvla.model.normalize import Normalizer


def config_of(kind: str, **changes: Any) -> ModelConfig:
    """Returns a policy's configuration with this head on a feature of 64 numbers."""
    return ModelConfig(fusion=FusionConfig(embed_dim=64), head=HeadConfig(kind=kind, hidden_dim=128, **changes))


def same_as_package(kind: str, head_class: Callable[[ModelConfig], Any], **changes: Any) -> str:
    """Gives `head_class` the weights of the package's head of that kind, and compares losses and answers.

    Returns:
        A sentence that says so.

    Raises:
        AssertionError: losses or answers differ.
        RuntimeError: the weights have other names or shapes.
    """
    torch.manual_seed(0)
    theirs, mine = make_head(config_of(kind, **changes)), head_class(config_of(kind, **changes))
    mine.load_state_dict(theirs.state_dict())
    features, actions = torch.randn(5, 64), F.normalize(torch.randn(5, 2), dim=1)
    with torch.no_grad():
        for verb, inputs in (("loss", (features, actions)), ("predict", (features,))):
            said = [getattr(head, verb)(*inputs, Generator().manual_seed(1)) for head in (mine, theirs)]
            torch.testing.assert_close(*said)
    count = sum(p.numel() for p in mine.parameters())
    return f"{kind}: equals tinyvla.model.heads.{type(theirs).__name__}; {count:,} parameters"


def train(
    head: Any,
    features: Float[Tensor, "n d"],
    actions: Float[Tensor, "n *chunk"],
    num_steps: int,
    learning_rate: float = 2e-3,
    batch_size: int = 128,
) -> Any:
    """Trains a head with AdamW on random batches, and returns it, ready to act.

    The learning rate climbs over 50 steps, holds, and falls to zero over the last half.
    """
    device = features.device
    head.to(device).train()
    optimizer = torch.optim.AdamW(head.parameters(), lr=learning_rate, betas=(0.9, 0.99))
    generator = Generator(device).manual_seed(0)
    for step in range(num_steps):
        optimizer.param_groups[0]["lr"] = learning_rate * min(1, (step + 1) / 50, 2 * (1 - step / num_steps))
        index = torch.randint(len(features), (batch_size,), device=device, generator=generator)
        loss = head.loss(features[index], actions[index], generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return head.eval()


def says(action: Callable[[], Any]) -> str:
    """Returns the first part of the error that an action ends with, without fingerprints."""
    try:
        action()
    except InputError as error:
        return re.sub(r" \([0-9a-f]{12}\)", "", str(error)).split(";")[0]
    return "no objection"


def check_flow(mine: Any) -> None:
    """Refuses a flow head whose loss or whose steps are wrong.

    Args:
        mine: a head with 4 sampling steps on a feature of 64 numbers. Its network is replaced.
    """
    asked: list[tuple[Tensor, Tensor]] = []

    def say_half(features: Tensor, point: Tensor, time: Tensor) -> Tensor:
        asked.append((point.detach().clone(), torch.as_tensor(time).detach().clone()))
        return torch.full_like(point, 0.5)

    mine.network = say_half
    features, wanted = torch.randn(5, 64), torch.randn(5, 2)
    _, a, noise, time = mine.draw_noise_and_times(features, wanted, Generator().manual_seed(3))
    answer = mine.loss(features, wanted, Generator().manual_seed(3))
    assert answer is not None, "write the body of loss first"
    assert asked, "loss must ask self.network for the velocities"
    (point, said_time), t = asked[0], time[:, None]
    assert point.shape == a.shape, f"loss should ask about {len(a)} points, {tuple(a.shape)}, not {tuple(point.shape)}"
    assert not torch.allclose(point, t * noise + (1 - t) * a), (
        "your line runs from the action to the noise; at time 0 the point should be the noise, at time 1 the action"
    )
    assert torch.allclose(point, (1 - t) * noise + t * a), "the point at time t is (1 - t) * noise + t * action"
    assert not torch.allclose(said_time.flatten(), 1 - time), (
        "in loss, the time that you tell the network runs backwards: it is 0 at the noise and 1 at the action"
    )
    assert torch.equal(said_time.flatten(), time), "tell the network the time of each point, between 0 and 1"
    assert answer.ndim == 0, f"the loss is one number; yours has the shape {tuple(answer.shape)}"
    right_loss = ((0.5 - (a - noise)) ** 2).mean()
    likely = {
        "the velocity has the wrong sign: it leads from the noise to the action": ((0.5 - (noise - a)) ** 2).mean(),
        "the network should say the velocity, action minus noise, and not the action": ((0.5 - a) ** 2).mean(),
        "take the squared error, not the absolute one": (0.5 - (a - noise)).abs().mean(),
        "take the mean over all numbers, as F.mse_loss does, not a sum": len(a) * 2 * right_loss,
        "take the mean over all numbers, as F.mse_loss does, also over x and y": 2 * right_loss,
    }
    for message, value in likely.items():
        assert not torch.allclose(answer, value), message
    assert torch.allclose(answer, right_loss), f"here the loss should be {right_loss:.4f}, yours is {answer.item():.4f}"
    asked.clear()
    arrived = mine.predict(features, Generator().manual_seed(3))
    assert arrived is not None, "write the body of predict, and return where the points arrive"
    start = torch.randn(5, 2, generator=Generator().manual_seed(3))
    assert len(asked) == 4, f"num_steps is 4, so ask the network 4 times; you ask {len(asked)} times"
    times = [said.flatten()[0].item() for _, said in asked]
    wanted_times = "the four steps start at times 0, 0.25, 0.5 and 0.75"
    likely_times: dict[str, list[float]] = {
        "time stands still: each step has its own time": [times[0]] * 4,
        "time runs backwards: it should go from 0, the noise, to 1, the action": sorted(times, reverse=True),
        "off by one: these are the times at the ends of the steps, and the first step is at time 0": [
            0.25,
            0.5,
            0.75,
            1.0,
        ],
        "the last step starts at 0.75 and only ends at time 1": [0, 1 / 3, 2 / 3, 1],
        "the times are counted in steps: divide the step by num_steps": [0, 1, 2, 3],
    }
    for message, value in likely_times.items():
        assert not np.allclose(times, value), f"{message}; {wanted_times}, yours at {np.round(times, 2).tolist()}"
    assert np.allclose(times, [0, 0.25, 0.5, 0.75]), (
        f"each step uses the velocity at its start; {wanted_times}, yours at {np.round(times, 2).tolist()}"
    )
    assert torch.allclose(asked[0][0], start), "begin at the noise x"
    assert not torch.allclose(arrived, start + 2), "a step lasts 1 / num_steps: divide the velocity by num_steps"
    assert not torch.allclose(arrived, start - 0.5), "add the velocity, do not subtract it"
    assert torch.allclose(asked[1][0], start + 0.125), "ask again at the point where the first step has ended"
    assert torch.allclose(arrived, start + 0.5), "with a velocity of 0.5 everywhere, each point moves by 0.5 in all"


def check_statistics(masked_statistics: Callable[[Tensor, list[bool]], Any]) -> None:
    """Refuses a function whose offsets and scales of an arm with two grippers are wrong.

    Of the arm's dimensions two move plainly, one moves by millionths, one trembles by billionths, and one stands still.
    Then one moves by hardly more than a millionth.
    """
    robot = torch.randn(5_000, 7, dtype=torch.float64, generator=Generator().manual_seed(0))
    deviation = torch.tensor([0.02, 3.0, 2e-6, 1e-9, 0.0, 1.0, 1.0], dtype=torch.float64)
    robot = robot * deviation + torch.tensor([0.5, 0.0, 0.0, 7.0, 7.0, 0.0, 0.0], dtype=torch.float64)
    robot[:, 5] = (robot[:, 5] > 2.5).double()  # a gripper that is nearly always 0
    robot[:, 6] = (robot[:, 6] > 0).double()  # another, half of the time 1
    answer = masked_statistics(robot, [True, True, True, True, True, False, False])
    assert answer is not None, "write the body of masked_statistics first"
    offset, scale = (torch.as_tensor(np.asarray(part), dtype=torch.float64) for part in answer)
    assert offset.shape == scale.shape == (7,), "there should be one offset and one scale for each of 7 dimensions"
    assert (scale != 0).all(), "a scale of zero would divide by zero: what about the joint that does not move?"
    normalised = (robot - offset) / scale
    assert torch.equal(normalised[:, 5:], robot[:, 5:]), (
        "the grippers must come out unchanged: offset 0 and scale 1 where the mask is false"
    )
    assert (normalised[:, 4] == 0).all(), "a dimension that does not move becomes 0: subtract its offset all the same"
    assert scale[4] == 1, f"a dimension that does not move is not stretched: scale 1, yours is {scale[4]:.2g}"
    assert scale[3] == 1, (
        "a dimension that trembles by 1e-9 is not stretched either: its quantiles differ, but by less than 1e-6"
    )
    assert normalised[:, 3].abs().max() < 1e-6, (
        "a dimension that only trembles is shifted all the same: subtract its offset"
    )
    assert scale[2] != 1, (
        "a dimension whose quantiles are 9e-6 apart does move, so it should be normalised: your threshold is too coarse"
    )
    inside = (normalised[:, :3].abs() <= 1).double().mean()
    assert abs(inside - 0.98) < 0.005, (
        f"98 % of a normalised dimension lie in [-1, 1], here {inside:.1%} do: use half the distance from the 1 % to "
        "the 99 % quantile"
    )
    theirs = Normalizer("quantiles", 3)
    theirs.fit(robot[:, :3])
    assert torch.allclose(normalised[:, :3], theirs(robot[:, None, :3])[:, 0].double(), atol=1e-5), (
        "the 1 % quantile should become -1 and the 99 % quantile 1: the offset is the middle of the two"
    )
    span = torch.linspace(0, 1.5e-6, 1_001, dtype=torch.float64)[:, None]  # 1.47e-6 between its quantiles
    small = torch.as_tensor(np.asarray(masked_statistics(span, [True])[1]), dtype=torch.float64)
    assert (small != 1).all(), (
        "a dimension whose quantiles are 1.5e-6 apart should be normalised: compare "
        "their distance with 1e-6, not half of it"
    )


class MixtureHead(Head):
    """Four answers, a weight for each, and one deviation.

    Args:
        config: of the policy.
        loss: the negative log-likelihood, from means `(n, 4, dim)`, log-weights `(n, 4)`, log-deviation, and actions.
        draw: one answer for each row, from means, log-weights and a generator.
    """

    num_answers = 4

    def __init__(self, config: ModelConfig, loss: Callable[..., Tensor], draw: Callable[..., Tensor]) -> None:
        super().__init__(config)
        width = config.head.hidden_dim
        layers = (nn.Linear(config.fusion.embed_dim, width), nn.GELU(), nn.Linear(width, width), nn.GELU())
        self.hidden, self.output = nn.Sequential(*layers), nn.Linear(width, self.num_answers * (self.dim + 1))
        self.log_sigma = nn.Parameter(torch.zeros(()))
        self.loss_of, self.draw = loss, draw

    def parts(self, features: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "n 4 dim"], Float[Tensor, "n 4"]]:
        """Returns means and log-weights."""
        numbers = self.output(self.hidden(features)).unflatten(1, (self.num_answers, -1))
        return numbers[..., :-1], numbers[..., -1].log_softmax(dim=1)

    def flat_loss(
        self,
        features: Float[Tensor, "b d"],
        actions: Float[Tensor, "b n"],
        generator: Generator | None,
        counts: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean of the negative log-likelihood; padded actions are not supported."""
        return self.loss_of(*self.parts(features), self.log_sigma, actions)

    def sample(self, features: Float[Tensor, "b d"], generator: Generator | None) -> Float[Tensor, "b n"]:
        """One answer for each feature, drawn."""
        return self.draw(*self.parts(features), generator)


def differs(draw_one: Callable[..., Any], inputs: tuple[Tensor, Tensor]) -> bool:
    """Whether some of 20 generators give other answers."""
    drawn = [draw_one(*inputs, Generator().manual_seed(seed)) for seed in range(20)]
    return any(not torch.equal(answer, drawn[0]) for answer in drawn)


def check_mixture(mixture_loss: Callable[..., Any], draw_one: Callable[..., Any]) -> None:
    """Refuses a loss that is not the negative log-likelihood, and a draw that does not follow the weights."""
    rng = Generator().manual_seed(0)
    means, actions = torch.randn(6, 4, 3, generator=rng), torch.randn(6, 3, generator=rng)
    log_weights, log_sigma = torch.randn(6, 4, generator=rng).log_softmax(dim=1), torch.tensor(-0.7)
    loss = mixture_loss(means, log_weights, log_sigma, actions)
    assert loss is not None, "write the body of mixture_loss first"
    normals = torch.distributions.Independent(torch.distributions.Normal(means, log_sigma.exp()), 1)
    each = normals.log_prob(actions[:, None])  # (6, 4)
    right = -(each + log_weights).logsumexp(dim=1).mean()
    assert loss.ndim == 0, f"the loss is one number, the mean over the batch; yours has the shape {tuple(loss.shape)}"
    likely = {
        "the sign is wrong: the loss is *minus* the log-likelihood": -right,
        "take the mean over the batch, not the sum": 6 * right,
        "add up the four likelihoods; yours takes the largest alone": -(each + log_weights).max(dim=1).values.mean(),
        "yours takes all four answers as equally likely: add each log-weight": -(
            each.logsumexp(dim=1) - np.log(4)
        ).mean(),
        "the four weights are missing": -each.logsumexp(dim=1).mean(),
        "each row has weights of its own; yours takes the first row's for all": -(each + log_weights[:1])
        .logsumexp(dim=1)
        .mean(),
    }
    for message, value in likely.items():
        assert not torch.allclose(loss, value, atol=1e-4), message
    assert torch.allclose(loss, right, atol=1e-4), (
        f"the loss should be {right:.4f}, yours is {loss.item():.4f}: check sigma and the constant, once per dimension"
    )
    far = mixture_loss(means, log_weights, log_sigma, actions + 40)
    assert torch.isfinite(far), (
        "with an action far from all four, your loss is infinite: the likelihoods are too small for 32 bits, so "
        "add them with torch.logsumexp"
    )
    far_right = -(normals.log_prob(actions[:, None] + 40) + log_weights).logsumexp(dim=1).mean()
    assert torch.allclose(far, far_right, rtol=1e-3), (
        f"with actions far from all four, the loss should be {far_right:.0f}, yours is {far.item():.0f}"
    )
    half, weights = 4_000, torch.tensor([[0.1, 0.5, 0.05, 0.35], [0.4, 0.05, 0.45, 0.1]])  # of the rows' two halves
    known = torch.tensor([[0.0, 1], [1, 0], [0, -1], [-1, 0]])
    known = torch.stack([known, 2 * known])
    inputs = (known.repeat_interleave(half, dim=0), weights.log().repeat_interleave(half, dim=0))
    drawn = draw_one(*inputs, Generator().manual_seed(0))
    assert drawn is not None, "write the body of draw_one"
    assert drawn.shape == (2 * half, 2), f"one answer for each row: ({2 * half}, 2) here, yours is {tuple(drawn.shape)}"
    distance = (drawn[:, None] - inputs[0]).norm(dim=2).view(2, half, 4)
    assert (distance.min(dim=2).values < 1e-5).all(), (
        "each answer should be one of the four means of its own row, without noise and without averaging"
    )
    shares = (distance < 1e-5).double().mean(dim=1)  # (2, 4)
    assert not ((shares.max(dim=1).values == 1).all() and differs(draw_one, inputs)), (
        "all rows take the same index; draw an index for each row"
    )
    assert shares.max() < 0.99, "it answers the same each time, with the likeliest mean; draw one of the four"
    assert not (shares - weights[:1]).abs().max() < 0.04, (
        "each row has weights of its own; yours draws all rows by the first row's"
    )
    for wanted, came in zip(weights, shares, strict=True):
        assert (came - wanted).abs().max() < 0.04, (
            f"the four should be drawn by their weights {wanted.numpy().round(2).tolist()}, yours come in "
            f"{came.numpy().round(2).tolist()}"
        )
    again = draw_one(*inputs, Generator().manual_seed(0))
    assert torch.equal(drawn, again), "the same generator should give the same answers: pass it to torch.multinomial"
