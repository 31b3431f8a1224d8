"""Augmentation: each time an observation is learned from, it looks a little different.

Notable:
- images are moved by a few pixels, so a policy cannot learn by heart where on the grid of patches an object lies;
- the robot's state gets a little noise, so a policy looks at the image, too;
- all of it is drawn from the step's own generator, so a resumed run draws the same.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, Int64
from torch import Generator, Tensor

from tinyvla.data.batch import Batch, TensorSplit
from tinyvla.fields import checked
from tinyvla.recipes import TrainConfig


class Augmentation:
    """Changes a batch at random, as the training's settings say.

    Args:
        config: its `shift` and `state_noise`.
        train: whose states' standard deviations the noise is measured in.
    """

    @checked
    def __init__(self, config: TrainConfig, train: TensorSplit) -> None:
        self.shift = config.shift
        has_noise = config.state_noise > 0 and train.state is not None
        self.noise = config.state_noise * train.state.std(dim=0) if has_noise and train.state is not None else None

    def __call__(self, batch: Batch, generator: Generator) -> Batch:
        """Returns the batch with its images moved and its states disturbed; actions and words stay."""
        images, state = batch.images, batch.state
        if self.shift:
            images = {name: self._moved(values, generator) for name, values in images.items()}
        if self.noise is not None and state is not None:
            state = state + self.noise * torch.randn(state.shape, generator=generator, device=state.device)
        return replace(batch, images=images, state=state)

    def _moved(self, images: Float[Tensor, "b c h w"], generator: Generator) -> Float[Tensor, "b c h w"]:
        size = (len(images), 2)
        moves = torch.randint(-self.shift, self.shift + 1, size, generator=generator, device=images.device)
        return moved(images, moves)


def moved(images: Float[Tensor, "b c h w"], moves: Int64[Tensor, "b 2"]) -> Float[Tensor, "b c h w"]:
    """Returns images of which each is moved up and to the left by its own number of pixels; the edge is repeated."""
    b, c, h, w = images.shape
    rows = (torch.arange(h, device=images.device) + moves[:, :1]).clamp(0, h - 1)  # (b, h)
    columns = (torch.arange(w, device=images.device) + moves[:, 1:]).clamp(0, w - 1)
    item = torch.arange(b, device=images.device)[:, None, None, None]
    channel = torch.arange(c, device=images.device)[None, :, None, None]
    return images[item, channel, rows[:, None, :, None], columns[:, None, None, :]]
