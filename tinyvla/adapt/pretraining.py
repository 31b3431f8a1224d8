"""A pretraining of the course's own: images and captions, SigLIP's loss, and not one label.

Notable:
- captions say which colour is roughly where; nobody says where to go. That is what web data are to a robot;
- `photograph` gives the scenes what real images have and renderings lack: coloured light, grain, a busy ground. On the
  clean scenes there is nothing to pretrain for: a few hundred labels are enough;
- the loss asks of every image and every caption in a batch whether they belong together, each pair on its own
  (SigLIP, https://arxiv.org/abs/2303.15343);
- pooling and projection serve the comparison alone and are dropped; a policy takes the two towers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Generator, Tensor, nn

from tinyvla.config import ModelConfig
from tinyvla.data.dataset import BACKGROUND, COLORS, GRID_SIZE, BlockFind
from tinyvla.model.layers import MLP, Attention
from tinyvla.model.policy import TinyVLA
from tinyvla.model.tokenizer import Encoded, load_tokenizer, pad
from tinyvla.speed.precision import precision

ROWS = ("top", "middle", "bottom")
COLUMNS = ("left", "middle", "right")


def place(cell: int) -> str:
    """Where a cell is, in words: "at the top left", "in the middle", ..."""
    row, column = (index * 3 // GRID_SIZE for index in divmod(cell, GRID_SIZE))
    words = [word for word in (ROWS[row], COLUMNS[column]) if word != "middle"]
    return f"at the {' '.join(words)}" if words else "in the middle"


def captions(split: BlockFind, seed: int) -> list[str]:
    """A sentence per scene that names all its blocks, in any order: "red at the top left, blue in the middle"."""
    rng = np.random.RandomState(seed)
    lines = []
    for cells, colors in zip(split.cells, split.colors, strict=True):
        blocks = rng.permutation(np.flatnonzero(cells >= 0))
        lines.append(", ".join(f"{COLORS[colors[b]]} {place(int(cells[b]))}" for b in blocks))
    return lines


@dataclass(frozen=True)
class Camera:
    """How a scene is photographed; zeros leave it as it was painted."""

    light: float = 1.0
    """Largest logarithm by which a colour channel may be dimmed: each scene has light of its own colour."""
    ground: float = 50.0
    """How colourful the ground is, in steps of 256."""
    shade: float = 20.0
    """Standard deviation of a block's colour about its name's."""
    grain: float = 12.0
    """Standard deviation of each pixel."""


def photograph(
    images: UInt8[Tensor, "n 3 h w"], generator: Generator, camera: Camera | None = None
) -> UInt8[Tensor, "n 3 h w"]:
    """Rendered scenes as a camera might see them.

    The ground becomes a carpet of small squares, each block has its own shade, coloured light falls from one side, and
    the sensor adds grain.

    Args:
        images: of BlockFind, on the generator's device.
        generator: decides everything that is drawn; other photographs with every call.
    """
    camera = camera or Camera()
    n, _, height, width = images.shape

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(n, *shape, generator=generator, device=images.device)

    def normal(*shape: int) -> Tensor:
        return torch.randn(n, *shape, generator=generator, device=images.device)

    carpet = (height // 4, width // 4)
    ground = uniform(80.0, 245.0, 1, *carpet) + uniform(-camera.ground, camera.ground, 3, *carpet)
    shades = camera.shade * normal(3, height // 8, width // 8)
    painted = images + F.interpolate(shades, scale_factor=8)
    if camera.ground:
        background = torch.tensor(BACKGROUND, device=images.device)[:, None, None]
        is_ground = (images == background).all(dim=1, keepdim=True)
        painted = torch.where(is_ground, F.interpolate(ground, scale_factor=4), painted)
    y, x = (torch.linspace(-0.5, 0.5, side, device=images.device) for side in (height, width))
    slope = uniform(-camera.light / 2, camera.light / 2, 2, 1, 1, 1)
    dimmed = uniform(-camera.light, 0.0, 3, 1, 1) + slope[:, 0] * x + slope[:, 1] * y[:, None]
    seen = painted * dimmed.clamp(max=0).exp() + camera.grain * normal(3, height, width)
    return seen.round().clamp(0, 255).to(torch.uint8)


def sigmoid_loss(logits: Float[Tensor, "n n"]) -> Float[Tensor, ""]:
    """SigLIP's loss: image i and caption j belong together where i = j (https://arxiv.org/abs/2303.15343, section 3.2).

    Each pair is a yes-or-no question; the mean is over images, as there.
    """
    signs = 2 * torch.eye(len(logits), device=logits.device) - 1
    return -F.logsigmoid(signs * logits).sum() / len(logits)


class ImagePool(nn.Module):
    """One vector of an image's tokens: a learned query asks them, an MLP follows (SigLIP's MAP head).

    As in big_vision's `MAPHead`, https://github.com/google-research/big_vision/blob/main/big_vision/models/vit.py.
    """

    def __init__(self, embed_dim: int, num_heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, 1, embed_dim))
        self.attention = Attention(embed_dim, num_heads)
        self.norm = nn.LayerNorm(embed_dim)
        self.mlp = MLP(embed_dim, mlp_ratio)

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b d"]:
        """What the query finds."""
        found = self.attention(self.query.expand(len(tokens), -1, -1), context=tokens)
        return (found + self.mlp(self.norm(found)))[:, 0]


class ImageCaptionModel(nn.Module):
    """The two towers of a policy, and what it takes to compare an image with a caption.

    Args:
        config: of the policy that the towers are for; they start as that policy's.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        policy = TinyVLA(config)
        vision, language = policy.config.vision, policy.config.language
        self.vision, self.language = policy.vision, policy.language
        self.pool = ImagePool(vision.embed_dim, num_heads=4, mlp_ratio=2)
        self.projection = nn.Linear(language.embed_dim, vision.embed_dim)
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))  # SigLIP's initial values
        self.bias = nn.Parameter(torch.tensor(-10.0))

    def forward(
        self, images: Float[Tensor, "b c h w"], input_ids: Int64[Tensor, "n t"], attention_mask: Bool[Tensor, "n t"]
    ) -> Float[Tensor, "b n"]:
        """Logits: does the image, in rows, fit the caption, in columns?"""
        seen = F.normalize(self.pool(self.vision(images)).float(), dim=-1)
        read = F.normalize(self.projection(self.language.mean_state(input_ids, attention_mask)).float(), dim=-1)
        return self.log_scale.exp() * seen @ read.T + self.bias


@dataclass(frozen=True)
class PretrainConfig:
    """How the towers are pretrained."""

    num_pairs: int = 50_000
    """Scenes with a caption; each is photographed anew whenever it is drawn."""
    num_steps: int = 3_000
    batch_size: int = 256
    learning_rate: float = 1e-3
    seed: int = 0


def pretrain(
    model: ImageCaptionModel,
    config: PretrainConfig,
    camera: Camera | None = None,
    bfloat16: bool = False,
    on_step: Callable[[int, float], None] | None = None,
) -> float:
    """Train towers on captioned photographs, in place, on the model's device; returns the last losses' mean.

    Args:
        bfloat16: take matrix products in bfloat16, where the device has units for it.
        on_step: called every 100 steps with the step and the mean loss since the last call.
    """
    device = model.bias.device
    scenes, (ids, mask) = captioned(config.num_pairs, 7_000_000 + config.seed, device)
    generator = torch.Generator(device).manual_seed(config.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, betas=(0.9, 0.99), fused=True)
    warmup = max(1, config.num_steps // 20)
    total, recent = torch.zeros((), device=device), math.nan
    model.train()
    for step in range(config.num_steps):
        # Linear climb, then a cosine to zero.
        decay = 0.5 * (1 + math.cos(math.pi * step / config.num_steps))
        optimizer.param_groups[0]["lr"] = config.learning_rate * min(1.0, (step + 1) / warmup) * decay
        index = torch.randint(config.num_pairs, (config.batch_size,), generator=generator, device=device)
        images = photograph(scenes[index], generator, camera).float() / 255
        with precision(device, bfloat16):
            loss = sigmoid_loss(model(images, ids[index], mask[index]))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        total += loss.detach()
        if (step + 1) % 100 == 0 or step + 1 == config.num_steps:
            recent = total.item() / (step % 100 + 1)
            total.zero_()
            if on_step:
                on_step(step + 1, recent)
    model.eval()
    return recent


def captioned(num_pairs: int, seed: int, device: torch.device | str = "cpu") -> tuple[Tensor, Encoded]:
    """Scenes, uint8 `(n, 3, 64, 64)`, and their captions' ids and mask."""
    split = BlockFind(num_pairs, seed)
    lines = captions(split, seed)
    ids, mask = pad(lines, load_tokenizer()(lines)["input_ids"], max_length=32)
    return torch.from_numpy(split.images).to(device), (ids.to(device), mask.to(device))


@torch.no_grad()
def matching_accuracy(
    model: ImageCaptionModel, images: UInt8[Tensor, "n 3 h w"], ids: Int64[Tensor, "n t"], mask: Bool[Tensor, "n t"]
) -> float:
    """Share of images for which their own caption fits best among all of the batch."""
    logits = model(images.float() / 255, ids, mask)
    return (logits.argmax(dim=1) == torch.arange(len(logits), device=logits.device)).double().mean().item()


@torch.no_grad()
def take_towers(policy: TinyVLA, pretrained: ImageCaptionModel, frozen: bool = True) -> TinyVLA:
    """Copy pretrained towers' weights into a policy of the same configuration; frozen, or as a start. Returns it."""
    for mine, theirs in ((policy.vision, pretrained.vision), (policy.language, pretrained.language)):
        for parameter, value in zip(mine.parameters(), theirs.parameters(), strict=True):
            parameter.copy_(value)
        mine.requires_grad_(not frozen)
    return policy
