"""TinyVLA: image and instruction in, action out.

Notable:
- the whole model in one line: `head(fusion(vision(image), language, instruction))`;
- all initial scales stand in one place, `init_weights`, whose docstring is a table;
- a checkpoint is a folder that people and the Hugging Face hub can read: `config.json`, `model.safetensors` and a
  `README.md`. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelHubMixin, snapshot_download
from jaxtyping import Bool, Float, Float32, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor, nn

from tinyvla.config import InputError, ModelConfig
from tinyvla.model.fusion import make_fusion
from tinyvla.model.heads import make_head
from tinyvla.model.language import LanguageTower, TinyLanguageModel
from tinyvla.model.layers import Block
from tinyvla.model.pretrained import fixed_weights, make_language, make_vision, save_files
from tinyvla.model.vision import ImageLike, TinyViT, VisionTower, to_image_batch

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"

MODEL_CARD = """---
{{ card_data }}
---

# A TinyVLA policy

Looks at a 64 x 64 image of coloured blocks, reads "find the red block", answers with the unit vector (dx, dy) from
the image's centre to that block (x right, y down).

```python
from tinyvla import TinyVLA

policy = TinyVLA.from_pretrained("this folder or its id on the hub")
dx, dy = policy.predict(image, "find the red block")
```

`config.json` holds its dimensions, `model.safetensors` its weights.
"""


class TinyVLA(
    nn.Module,
    ModelHubMixin,
    library_name="tinyvla",
    license="mit",
    tags=["robotics", "vision-language-action"],
    model_card_template=MODEL_CARD,
):
    """A vision-language-action policy.

    Args:
        config: its dimensions; see `tinyvla.PRESETS`. Towers with a `source` are loaded from there.
        vision, language: towers that are loaded already.
    """

    def __init__(
        self,
        config: ModelConfig | None = None,
        vision: VisionTower | None = None,
        language: LanguageTower | None = None,
    ) -> None:
        super().__init__()
        config = config or ModelConfig()
        self.vision = vision or make_vision(config.vision)
        self.language = language or make_language(config.language)
        # A loaded tower knows its fingerprint. The second name is what save_pretrained writes.
        config = replace(config, vision=self.vision.config, language=self.language.config)
        self.config = self._hub_mixin_config = config
        self.fusion = make_fusion(config)
        self.head = make_head(config)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """Draw all initial weights but those of pretrained towers. These scales decide whether it learns at all.

        ===================  ==========================  ============================================================
        weights              initial value               why
        ===================  ==========================  ============================================================
        linear layers        normal, 0.5 / sqrt(inputs)  small weights: a step of Adam turns them
        biases               0
        towers' blocks: out  0                           a block starts as the identity; patches, words pass unmixed
        token embeddings     normal, 1                   the scale of the positions: words at 0.02 drown
        CLS                  normal, 1
        LayerNorm            1 and 0
        ===================  ==========================  ============================================================
        """
        towers = [tower for tower in (self.vision, self.language) if isinstance(tower, TinyViT | TinyLanguageModel)]
        for module in (module for part in (*towers, self.fusion, self.head) for module in part.modules()):
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.5 / math.sqrt(module.in_features))
                nn.init.zeros_(module.bias)
        for block in (module for tower in towers for module in tower.modules() if isinstance(module, Block)):
            nn.init.zeros_(block.attention.output.weight)
            nn.init.zeros_(block.mlp.output.weight)
        if isinstance(self.language, TinyLanguageModel):
            nn.init.normal_(self.language.token_embedding.weight)
        if isinstance(self.vision, TinyViT):
            nn.init.normal_(self.vision.cls_token)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.parameters()).device

    def features(
        self,
        images: Float[Tensor, "b c h w"],
        input_ids: Int[Tensor, "b t"],
        attention_mask: Bool[Tensor, "b t"],
    ) -> Float[Tensor, "b d"]:
        """The fused feature of float images in [0, 1] and tokenized instructions."""
        return self.fusion(self.vision(images), self.language, input_ids, attention_mask)

    def forward(
        self,
        images: Float[Tensor, "b c h w"],
        input_ids: Int[Tensor, "b t"],
        attention_mask: Bool[Tensor, "b t"],
        generator: Generator | None = None,
    ) -> Float[Tensor, "b *chunk"]:
        """Actions for float images in [0, 1] and tokenized instructions; a head that draws uses the generator."""
        return self.head.predict(self.features(images, input_ids, attention_mask), generator)

    def loss(
        self,
        images: Float[Tensor, "b c h w"],
        input_ids: Int[Tensor, "b t"],
        attention_mask: Bool[Tensor, "b t"],
        actions: Float[Tensor, "b *chunk"],
        generator: Generator | None = None,
    ) -> Float[Tensor, ""]:
        """The head's training loss."""
        return self.head.loss(self.features(images, input_ids, attention_mask), actions, generator)

    def fit_statistics(self, actions: Float[Tensor, "n *chunk"]) -> None:
        """Take what the head must know of the training actions, once, before training: statistics, a tokenizer.

        Raises:
            InputError: the head needs nothing, or the actions are not of its kind.
        """
        statistics = self.head.fit(actions)
        self.config = replace(self.config, head=replace(self.config.head, statistics=statistics))
        self._hub_mixin_config = self.config  # what save_pretrained writes

    @torch.no_grad()
    def predict(
        self,
        images: ImageLike | Sequence[ImageLike],
        instructions: str | Sequence[str],
        generator: Generator | None = None,
    ) -> Float32[Tensor, "*b a"]:
        """Act on one image or many.

        Args:
            images: a PIL image, an array or tensor of shape `(h, w, 3)` or `(3, h, w)`, uint8 or float in [0, 1]; or a
                list or a batch of them.
            instructions: one sentence, used for every image, or one per image.
            generator: on the policy's device, for heads that draw their answer.

        Returns:
            On the CPU: `(action_dim,)` for one image, `(b, action_dim)` for a list or a batch; with a horizon longer
            than one, `(horizon, action_dim)` or `(b, horizon, action_dim)`.

        Raises:
            InputError: an image or an instruction is not usable, or the policy lacks its action statistics; the message
                says what is wrong.
        """
        self.head.check(self.config.head.statistics)
        batch, is_single = to_image_batch(images, self.config.vision)
        texts = [instructions] * len(batch) if isinstance(instructions, str) else list(instructions)
        if len(texts) != len(batch):
            raise InputError(f"{len(batch)} images but {len(texts)} instructions; give one sentence, or one per image")
        input_ids, attention_mask = self.language.encode(texts)
        was_training = self.training
        self.eval()
        actions = self(batch.to(self.device), input_ids.to(self.device), attention_mask.to(self.device), generator)
        self.train(was_training)
        actions = actions.float().cpu()
        return actions[0] if is_single else actions

    def num_parameters(self) -> dict[str, int]:
        """Parameters of each component, and their total."""
        counts = {
            "vision": count_parameters(self.vision),
            "token embedding": count_parameters(self.language.token_embedding),
            "language blocks": count_parameters(self.language) - count_parameters(self.language.token_embedding),
            "fusion": count_parameters(self.fusion),
            "head": count_parameters(self.head),
        }
        return {**counts, "total": count_parameters(self)}

    def _save_pretrained(self, save_directory: Path) -> None:
        """Called by `save_pretrained`, which also writes `config.json` and `README.md`."""
        fetched = fixed_weights(self)
        weights = {name: tensor.contiguous() for name, tensor in self.state_dict().items() if name not in fetched}
        save_files(self, save_directory)
        save_file(weights, save_directory / WEIGHTS_FILE, metadata={"format": "pt"})

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, folder_or_hub_id: str | Path, device: str = "cpu", **hub_options: Any
    ) -> TinyVLA:
        """Load a checkpoint folder, or one from the Hugging Face hub, ready to act (`eval()`).

        Args:
            folder_or_hub_id: as written by `save_pretrained`, or "owner/name".
            device: where to put the weights.
            hub_options: passed to `huggingface_hub.snapshot_download` (`revision`, `token`, `cache_dir`, ...).

        Raises:
            InputError: there is no checkpoint, it is truncated, or it is not a TinyVLA's; or a frozen pretrained tower,
                which is fetched from its own source, is not there.
        """
        folder = _checkpoint_folder(folder_or_hub_id, hub_options)
        config = _read_config(folder)
        policy = cls(config, make_vision(config.vision, folder), make_language(config.language, folder))
        path = folder / WEIGHTS_FILE
        try:
            policy.load_state_dict({**fixed_weights(policy), **load_file(path)})
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path} is missing, truncated or not a safetensors file ({error})") from None
        except RuntimeError as error:
            first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
            raise InputError(f"{path} does not fit its {CONFIG_FILE}: {first[:200]}") from None
        policy.head.check(policy.config.head.statistics)
        return policy.to(device).eval()


def new_policy(config: ModelConfig, seed: int, device: torch.device | str = "cpu") -> TinyVLA:
    """A policy with initial weights decided by `seed`, the same on every device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TinyVLA(config).to(device)


def count_parameters(module: nn.Module) -> int:
    """Number of trainable and frozen parameters of a module."""
    return sum(p.numel() for p in module.parameters())


def _checkpoint_folder(folder_or_hub_id: str | Path, hub_options: dict[str, Any]) -> Path:
    folder = Path(folder_or_hub_id)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise InputError(f"{folder} is a file; a checkpoint is a folder with {CONFIG_FILE} and {WEIGHTS_FILE}")
    hub_id = str(folder_or_hub_id)
    problem = f"no checkpoint folder {hub_id!r} here"
    if hub_id.count("/") != 1 or hub_id.startswith((".", "/", "~")):
        raise InputError(f"{problem}; train one with `tinyvla train --out DIR` and pass DIR/best")
    try:
        return Path(snapshot_download(hub_id, allow_patterns=["*.json", "*.safetensors", "*.md"], **hub_options))
    except Exception as error:  # the hub's client raises many kinds; each one means that there is no checkpoint
        raise InputError(f"{problem}, and the hub did not give one of that name ({type(error).__name__})") from None


def _read_config(folder: Path) -> ModelConfig:
    path = folder / CONFIG_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise InputError(
            f"{folder} holds no {CONFIG_FILE}, so it is no checkpoint; pass a folder such as DIR/best"
        ) from None
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}); the checkpoint is damaged") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} does not describe a TinyVLA: it holds a {type(values).__name__}, not an object")
    return ModelConfig.from_dict(values)
