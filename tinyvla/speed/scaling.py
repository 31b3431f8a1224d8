"""What a training step costs, on paper: parameters, arithmetic, memory and the least time it can take.

Notable:
- every formula is short enough for the back of an envelope; `tinyvla.measure.throughput` and `tinyvla.speed.memory`
  measure the same quantities, and chapter 12 compares the two;
- a transformer block of width C has about 12 C^2 weights; a weight takes part in 6 operations for each token that
  passes (https://arxiv.org/abs/2001.08361, section 2.1);
- AdamW keeps four numbers a weight; a block keeps 18 numbers for each token and each unit of width. The count is that
  of https://arxiv.org/abs/2205.05198, section 4, without dropout, with QK-norm and with attention that does not store
  its weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from tinyvla.config import LanguageConfig, ModelConfig, VisionConfig
from tinyvla.errors import InputError

BLOCK_NUMBERS = 18
"""Numbers that a block keeps, per token and width: 16 inputs of its layers, and the residual stream at two places.

The block's input, normed, queries and keys raw, queries and keys normed, values, attended: 8. The stream after
attention, normed: 2. The MLP's hidden layer, four times as wide, before and after the non-linearity: 8.
"""
NUMBERS_PER_WEIGHT = 4
"""Weight, gradient and AdamW's two moments."""
OPTIMIZER_TRAFFIC = 10
"""Numbers per weight that clipping and AdamW read or write.

Clipping reads the gradient for its norm, reads and writes it to scale it: 3. AdamW reads all four numbers and writes
all but the gradient: 7.
"""


@dataclass(frozen=True)
class Budget:
    """A step's cost on paper; memory in bytes."""

    parameters: float
    flops: float
    """Floating-point operations of the whole batch."""
    weights: float
    gradients: float
    moments: float
    copies: float
    """Of the weights in bfloat16, which mixed precision makes anew in each step."""
    activations: float
    """What the backward pass needs from the forward pass."""
    traffic: float
    """Bytes that clipping and the optimizer move."""

    @property
    def memory(self) -> float:
        """Bytes, if all of it were there at once."""
        return self.weights + self.gradients + self.moments + self.copies + self.activations

    def seconds(self, flops_per_second: float, bytes_per_second: float) -> float:
        """The least time: arithmetic at a device's peak, then the optimizer's traffic at its bandwidth."""
        return self.flops / flops_per_second + self.traffic / bytes_per_second


def towers(config: ModelConfig) -> tuple[VisionConfig, LanguageConfig]:
    """The two towers, if they are the course's own.

    Raises:
        InputError: one is not.
    """
    vision, language = config.vision, config.language
    if not (isinstance(vision, VisionConfig) and isinstance(language, LanguageConfig)):
        raise InputError("the formulas are for towers trained from scratch; count a pretrained tower's weights instead")
    return vision, language


def block_weights(config: ModelConfig) -> tuple[int, int]:
    """Weights in the blocks of the vision tower and of the language model: 12 C^2 a block."""
    vision, language = ((4 + 2 * tower.mlp_ratio) * tower.num_layers * tower.embed_dim**2 for tower in towers(config))
    return vision, language


def budget(
    config: ModelConfig,
    batch_size: int = 64,
    bfloat16: bool = False,
    accumulate: int = 1,
    recompute: bool = False,
    language_tokens: int = 36,
) -> Budget:
    """The cost of a step of AdamW, by formulas that leave out whatever is small: fusion, head, norms, biases.

    Args:
        config: the policy's; late fusion, so the language model sees words alone.
        bfloat16: matrix products in bfloat16, weights in float32.
        accumulate: parts of the batch.
        recompute: blocks run again in the backward pass.
        language_tokens: in a part of a batch; six distinct instructions of six tokens in BlockFind.
    """
    vision, language = block_weights(config)
    seeing, reading = towers(config)
    parameters = float(vision + language + reading.vocab_size * reading.embed_dim)
    passes = 4 if recompute else 3  # forward, twice that backward, and forward again
    tokens = batch_size * seeing.num_tokens
    # Numbers in the residual stream of a part of the batch, once for each tower.
    streams = (seeing.embed_dim * tokens / accumulate, float(reading.embed_dim * language_tokens))
    # In mixed precision 16 of a block's numbers have two bytes; the stream, kept at two places, has four.
    block = 2 * (BLOCK_NUMBERS - 2) + 4 * 2 if bfloat16 else 4 * BLOCK_NUMBERS
    kept = [4 * tower.num_layers + block if recompute else tower.num_layers * block for tower in (seeing, reading)]
    return Budget(
        parameters=parameters,
        flops=2.0 * passes * (vision * tokens + language * language_tokens * accumulate),
        weights=4 * parameters,
        gradients=4 * parameters,
        moments=8 * parameters,
        copies=2.0 * (vision + language) if bfloat16 and not recompute else 0.0,
        activations=kept[0] * streams[0] + kept[1] * streams[1],
        traffic=4 * OPTIMIZER_TRAFFIC * parameters,
    )
