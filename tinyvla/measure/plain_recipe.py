"""The plain recipe: the same task and sizes, written as one would at first. `tinyvla bench --reference` times it.

Notable:
- PyTorch's own modules, their own initial weights, float32; a `DataLoader` that tokenizes and pads each batch; AdamW
  with its default betas at 3e-4, a hundred steps of warm-up, gradients clipped at 1;
- what would keep it from learning at all is left out: its positions are sine-cosine features and its token embeddings
  start at PyTorch's standard deviation of 1. With learned positions at 0.02 `nano` needs ten times as many steps as
  with those at 1.0 (chapter 2);
- whatever separates TinyVLA's step and recipe from this one is taught in chapter 9, change by change.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tinyvla.config import ModelConfig, VisionConfig
from tinyvla.data.batch import TensorSplit
from tinyvla.data.dataset import BlockFind, Sample
from tinyvla.learn.evaluate import Metrics
from tinyvla.model.layers import sincos_positions
from tinyvla.model.tokenizer import encode
from tinyvla.model.vision import grid_positions
from tinyvla.recipes import TrainConfig


class ReferencePolicy(nn.Module):
    """Two `nn.TransformerEncoder` towers, `nn.MultiheadAttention` from the sentence to the patches, an MLP."""

    text_positions: Tensor
    patch_positions: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        vision, language, width = config.vision, config.language, config.fusion.embed_dim
        assert isinstance(vision, VisionConfig), "the plain recipe has no pretrained towers"
        self.patches = nn.Conv2d(vision.num_channels, vision.embed_dim, vision.patch_size, vision.patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, vision.embed_dim))
        self.register_buffer("patch_positions", grid_positions(vision.grid, vision.embed_dim))
        self.tokens = nn.Embedding(language.vocab_size, language.embed_dim)
        positions = sincos_positions(torch.arange(language.max_length).float(), language.embed_dim, 10_000.0)
        self.register_buffer("text_positions", positions)
        self.towers = nn.ModuleList(_tower(part) for part in (vision, language))
        self.vision_in = nn.Linear(vision.embed_dim, width)
        self.text_in = nn.Linear(language.embed_dim, width)
        self.attention = nn.MultiheadAttention(width, config.fusion.num_heads, batch_first=True)
        self.head = nn.Sequential(
            nn.Linear(width, config.head.hidden_dim), nn.GELU(), nn.Linear(config.head.hidden_dim, 2)
        )

    def forward(
        self, images: Float[Tensor, "b c h w"], input_ids: Int[Tensor, "b t"], attention_mask: Bool[Tensor, "b t"]
    ) -> Float[Tensor, "b 2"]:
        """Actions for float images in [0, 1] and padded instructions."""
        patches = self.patches(images).flatten(2).mT + self.patch_positions
        seen = self.towers[0](torch.cat([self.cls_token.expand(len(images), -1, -1), patches], dim=1))
        length = input_ids.shape[1]
        causal = nn.Transformer.generate_square_subsequent_mask(length, device=images.device) < 0
        words = self.tokens(input_ids) + self.text_positions[:length]
        words = self.towers[1](words, mask=causal, src_key_padding_mask=~attention_mask)
        sentence = (words * attention_mask[..., None]).sum(dim=1) / attention_mask.sum(dim=1, keepdim=True)
        query, context = self.text_in(sentence)[:, None], self.vision_in(seen)
        attended, _ = self.attention(query, context, context, need_weights=False)
        return self.head((query + attended)[:, 0])


def _tower(part: Any) -> nn.TransformerEncoder:
    width = part.embed_dim
    layer = nn.TransformerEncoderLayer(
        width, part.num_heads, part.mlp_ratio * width, 0.0, "gelu", batch_first=True, norm_first=True
    )
    return nn.TransformerEncoder(layer, part.num_layers, nn.LayerNorm(width), enable_nested_tensor=False)


def reference_to_target(
    model_config: ModelConfig,
    split: BlockFind,
    val: TensorSplit,
    seed: int,
    target: float,
    max_steps: int = 2_500,
    check_every: int = 25,
) -> dict[str, Any]:
    """Train until validation reaches the target; the clock stops while it is looked at.

    Stopping at the target favours the reference: TinyVLA's own runs have a number of steps fixed beforehand.
    """
    device = val.device
    torch.manual_seed(seed)
    policy = ReferencePolicy(model_config).to(device)
    config = TrainConfig()
    optimizer = torch.optim.AdamW(policy.parameters(), lr=3e-4, weight_decay=0.01)
    warmup = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / config.warmup_steps))
    batches = _forever(split, model_config.language.max_length, config.batch_size)
    seconds, accuracy = 0.0, 0.0
    for step in range(1, max_steps + 1):
        started = time.perf_counter()
        images, input_ids, attention_mask, actions = (x.to(device) for x in next(batches))
        loss = F.mse_loss(policy(images, input_ids, attention_mask), actions)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(policy.parameters(), config.grad_clip)
        optimizer.step()
        warmup.step()
        loss.item()
        seconds += time.perf_counter() - started
        if step % check_every == 0:
            accuracy = _accuracy(policy, val)
            if accuracy >= target:
                break
    return {
        "seed": seed,
        "reached": accuracy >= target,
        "steps": step,
        "seconds": seconds,
        "seconds_per_step": seconds / step,
        "direction_accuracy": accuracy,
    }


def _forever(split: BlockFind, max_length: int, batch_size: int) -> Iterator[tuple[Tensor, ...]]:
    """Shuffled batches, epoch after epoch, tokenized and padded to the longest allowed length."""

    def collate(samples: list[Sample]) -> tuple[Tensor, ...]:
        ids, mask = encode([s.instruction for s in samples], max_length)
        space = (0, max_length - ids.shape[1])
        images = torch.stack([torch.from_numpy(s.image).float() / 255 for s in samples])
        actions = torch.stack([torch.from_numpy(s.action) for s in samples])
        return images, F.pad(ids, space), F.pad(mask, space), actions

    loader: DataLoader[Sample] = DataLoader(split, batch_size, shuffle=True, collate_fn=collate)  # type: ignore[arg-type]
    while True:
        yield from loader


@torch.no_grad()
def _accuracy(policy: ReferencePolicy, val: TensorSplit) -> float:
    policy.eval()
    predicted = [policy(b.image, b.input_ids, b.attention_mask) for b in val.in_order()]
    policy.train()
    return Metrics.of(torch.cat(predicted).cpu(), val.actions.cpu()).direction_accuracy
