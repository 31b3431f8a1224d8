"""TinyVLA: images, a state and an instruction in, actions out.

Notable:
- the whole model in one line: `head(fusion(vision(image), language, instruction))`;
- several cameras share the vision tower, and each adds a learned mark to its tokens; a robot's state becomes one more
  token, or joins the feature where a fusion pools;
- all initial scales stand in one place, `init_weights`, whose docstring is a table;
- a checkpoint is a folder that people and the Hugging Face hub can read: `config.json`, `model.safetensors` and a
  `README.md`. Nothing is ever unpickled.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
from jaxtyping import Float, Float32
from torch import Generator, Tensor, nn

from tinyvla.config import ModelConfig
from tinyvla.data.batch import Batch, TensorSplit
from tinyvla.device import choose_device
from tinyvla.errors import InputError
from tinyvla.fields import Within, checked, shown
from tinyvla.files import save_tensors
from tinyvla.model.checkpoint_files import WEIGHTS_FILE, Checkpoint, Outlines, find_folder, read_config, read_weights
from tinyvla.model.fusion import make_fusion
from tinyvla.model.heads import make_head
from tinyvla.model.language import LanguageTower, TinyLanguageModel
from tinyvla.model.layers import Block
from tinyvla.model.observation import IMAGE_KEY, TASK_KEY, ImageLike, Observation, Preprocessor, StateEncoder
from tinyvla.model.pretrained import fixed_weights, make_language, make_vision, outlines, save_files
from tinyvla.model.vision import TinyViT, VisionTower
from tinyvla.model.waypoints import Waypoints


class UnseenWordWarning(UserWarning):
    """A policy was told words that no training sentence held; its answer to them may mean nothing."""


class TinyVLA(nn.Module, Checkpoint):
    """A vision-language-action policy.

    Args:
        config: its dimensions; see `tinyvla.PRESETS`. Towers with a `source` are loaded from there.
        vision, language: towers that are loaded already.
    """

    @checked
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
        width, cameras = config.vision.embed_dim, config.observation.cameras
        self.camera_marks = nn.Parameter(torch.zeros(len(cameras), width)) if len(cameras) > 1 else None
        self.pools = getattr(self.fusion, "pools", False)  # a fusion of a notebook cell need not say so
        state_width = config.fusion.embed_dim if self.pools else width
        self.state_encoder = StateEncoder(config, state_width) if config.observation.state_dim else None
        self.waypoints = Waypoints(config) if config.head.waypoints else None
        self.prepare = Preprocessor(config, self.language.encode)
        self._warned: set[str] = set()
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """Draw all initial weights but those of pretrained towers. These scales decide whether it learns at all.

        ===================  ==========================  ============================================================
        weights              initial value               why
        ===================  ==========================  ============================================================
        linear, convolution  normal, 0.5 / sqrt(inputs)  small weights: a step of Adam turns them
        biases               0
        towers' blocks: out  0                           a block starts as the identity; patches, words pass unmixed
        token embeddings     normal, 1                   the scale of the positions: words at 0.02 drown
        CLS, camera marks    normal, 1
        LayerNorm            1 and 0
        ===================  ==========================  ============================================================
        """
        towers = [tower for tower in (self.vision, self.language) if isinstance(tower, TinyViT | TinyLanguageModel)]
        parts = [part for part in (self.fusion, self.head, self.state_encoder, self.waypoints) if part is not None]
        for module in (module for part in (*towers, *parts) for module in part.modules()):
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.normal_(module.weight, std=0.5 / math.sqrt(module.weight[0].numel()))
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]  # each has one
        for block in (module for tower in towers for module in tower.modules() if isinstance(module, Block)):
            nn.init.zeros_(block.attention.output.weight)
            nn.init.zeros_(block.mlp.output.weight)
        if isinstance(self.language, TinyLanguageModel):
            nn.init.normal_(self.language.token_embedding.weight)
        if isinstance(self.vision, TinyViT):
            nn.init.normal_(self.vision.cls_token)
        if self.camera_marks is not None:
            nn.init.normal_(self.camera_marks)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.parameters()).device

    def see(self, batch: Batch) -> Float[Tensor, "b n v"]:
        """Returns the vision tokens of all cameras, one after the other, each with its camera's mark."""
        cameras = self.config.observation.cameras
        if self.camera_marks is None:
            return self.vision(batch.images[cameras[0]])
        tokens = self.vision(torch.cat([batch.images[name] for name in cameras])).unflatten(0, (len(cameras), -1))
        return torch.cat(list(tokens + self.camera_marks[:, None, None]), dim=1)

    def features(self, batch: Batch, tokens: Float[Tensor, "b n v"] | None = None) -> Float[Tensor, "b d"]:
        """Returns the fused feature of each observation; vision tokens that are known already are not made again."""
        tokens, words = self.see(batch) if tokens is None else tokens, (batch.input_ids, batch.attention_mask)
        if self.state_encoder is None:
            return self.fusion(tokens, self.language, *words)
        state = self.state_encoder(batch.state)
        if self.pools:
            return self.fusion(tokens, self.language, *words) + state
        return self.fusion(torch.cat([tokens, state[:, None]], dim=1), self.language, *words)

    def forward(self, batch: Batch, generator: Generator | None = None) -> Float[Tensor, "b *chunk"]:
        """Returns actions in their own units; a head that draws uses the generator."""
        return self.head.predict(self.features(batch), generator)

    def loss(self, batch: Batch, generator: Generator | None = None) -> Float[Tensor, ""]:
        """Returns the training loss: the head's, without actions after an episode's end, and that of the waypoints."""
        features = self.features(batch)
        loss = self.head.loss(features, batch.actions, generator, batch.action_is_pad)
        if self.waypoints is None or self.state_encoder is None:
            return loss
        return loss + self.waypoints.loss(features, batch.future, self.state_encoder.normalizer)

    @checked
    def fit_statistics(
        self, actions: Float[Tensor, "n *chunk"] | None = None, state: Float[Tensor, "n s"] | None = None
    ) -> None:
        """Take from the training data what must be known before training: statistics, a tokenizer of actions.

        Args:
            actions: for a head that normalises, or that names actions by tokens.
            state: for a policy that is given the robot's state.

        Raises:
            InputError: the policy needs nothing of the kind, or the numbers do not fit it.
        """
        head, observation = self.config.head, self.config.observation
        if actions is not None:
            head = replace(head, statistics=self.head.fit(actions))
        if state is not None:
            if self.state_encoder is None:
                raise InputError("this policy has no use for a state; set ObservationConfig.state_dim")
            observation = replace(observation, statistics=self.state_encoder.normalizer.fit(state))
        self.config = replace(self.config, head=head, observation=observation)
        self._hub_mixin_config = self.config  # what save_pretrained writes

    @checked
    def prepare_for(self, train: TensorSplit) -> None:
        """Take from a training split whatever the policy must know before it can learn, as far as it needs any.

        That is the statistics that normalise actions and states, and the tokenizer of actions of a `fast` head.

        Args:
            train: what it will be trained on.
        """
        head, observation = self.config.head, self.config.observation
        knows_actions = head.normalization == "none" and head.kind != "fast"
        knows_states = self.state_encoder is None or observation.state_normalization == "none"
        self.fit_statistics(None if knows_actions else train.actions, None if knows_states else train.state)

    def check_statistics(self) -> None:
        """Refuse to train or act with statistics that are missing or another data set's.

        Raises:
            InputError: they are; the message says what to do.
        """
        self.head.check(self.config.head.statistics)
        if self.state_encoder is not None:
            self.state_encoder.normalizer.check(self.config.observation.statistics)

    @torch.no_grad()
    def predict(
        self,
        observation: ImageLike | Sequence[ImageLike] | Observation,
        instructions: str | Sequence[str] | None = None,
        generator: Generator | None = None,
    ) -> Float32[Tensor, "*b a"]:
        """Act on one observation or many.

        Args:
            observation: for a policy with one camera and no state, an image: a PIL image, an array or tensor of shape
                `(h, w, 3)` or `(3, h, w)`, uint8 or float in [0, 1]; or a list or a batch of them. For any policy, a
                dict with LeRobot's keys: `observation.images.NAME` for each camera, `observation.state`, `task`. Images
                of any size are scaled to the policy's.
            instructions: one sentence, used for every image, or one per image; a dict holds its own.
            generator: on the policy's device, for heads that draw their answer.

        Returns:
            On the CPU: `(action_dim,)` for one observation, `(b, action_dim)` for many; with a horizon longer than one,
            `(horizon, action_dim)` or `(b, horizon, action_dim)`.

        Raises:
            InputError: an image, a state or an instruction is not usable, or the policy lacks its statistics; the
                message says what is wrong.
        """
        self.check_statistics()
        fits = generator is None or (isinstance(generator, Generator) and generator.device.type == self.device.type)
        if not fits:
            raise InputError(f"generator is {shown(generator)}; it must be a torch.Generator on {self.device}")
        named = self._as_dict(observation, instructions)
        batch, is_single = self.prepare(named)
        self._warn_of_unseen_words(named[TASK_KEY])
        was_training = self.training
        self.eval()
        actions = self(batch.to(self.device), generator)
        self.train(was_training)
        actions = actions.float().cpu()
        return actions[0] if is_single else actions

    def _as_dict(self, observation: Any, instructions: str | Sequence[str] | None) -> Observation:
        """An image and a sentence under the keys that a dict would have."""
        if not isinstance(observation, Mapping):
            cameras = self.config.observation.cameras
            if len(cameras) > 1:
                raise InputError(
                    f"this policy has the cameras {', '.join(cameras)}; give a dict with {IMAGE_KEY}NAME for each, and "
                    f"{TASK_KEY}"
                )
            observation = {IMAGE_KEY + cameras[0]: observation}
        if instructions is not None:
            observation = {**observation, TASK_KEY: instructions}
        elif TASK_KEY not in observation:
            raise InputError('there is no instruction; give a sentence such as "find the red block"')
        return observation

    def _warn_of_unseen_words(self, instructions: str | Sequence[str]) -> None:
        """Say so, once for each sentence."""
        for text in {instructions} if isinstance(instructions, str) else set(instructions):
            if text in self._warned:
                continue
            self._warned.add(text)
            if unseen := self.language.unseen_words(text):
                message = f"never seen in training: {', '.join(map(repr, unseen))}; the answer may mean nothing"
                warnings.warn(message, UnseenWordWarning, stacklevel=4)

    def num_parameters(self) -> dict[str, int]:
        """Parameters of each component, and their total."""
        counts = {
            "vision": count_parameters(self.vision),
            "token embedding": count_parameters(self.language.token_embedding),
            "language blocks": count_parameters(self.language) - count_parameters(self.language.token_embedding),
            "fusion": count_parameters(self.fusion),
            "head": count_parameters(self.head),
        }
        extra = {"state": self.state_encoder, "waypoints": self.waypoints}
        counts |= {name: count_parameters(part) for name, part in extra.items() if part is not None}
        if self.camera_marks is not None:
            counts["camera marks"] = self.camera_marks.numel()
        return {**counts, "total": count_parameters(self)}

    def _save_pretrained(self, save_directory: Path) -> None:
        """Called by `save_pretrained`, which also writes `config.json` and `README.md`."""
        fetched = fixed_weights(self)
        weights = {name: tensor.contiguous() for name, tensor in self.state_dict().items() if name not in fetched}
        save_files(self, save_directory)
        save_tensors(weights, save_directory / WEIGHTS_FILE, {"format": "pt"})

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, folder_or_hub_id: str | Path, device: str | torch.device = "cpu", **hub_options: Any
    ) -> TinyVLA:
        """Load a checkpoint folder, or one from the Hugging Face hub, ready to act (`eval()`).

        Args:
            folder_or_hub_id: as written by `save_pretrained`, or "owner/name".
            device: where to put the weights.
            hub_options: passed to `huggingface_hub.snapshot_download` (`revision`, `token`, `cache_dir`, ...).

        Raises:
            InputError: there is no checkpoint, it is damaged, or it is not a TinyVLA's; the device is unknown; or a
                frozen pretrained tower, which is fetched from its own source, is not there.
        """
        where = choose_device(device)
        folder = find_folder(folder_or_hub_id, hub_options)
        config = read_config(folder)
        weights = read_weights(folder / WEIGHTS_FILE, cls.outline(config, folder))
        policy = cls(config, make_vision(config.vision, folder), make_language(config.language, folder))
        try:
            policy.load_state_dict({**fixed_weights(policy), **weights})
        except RuntimeError as error:
            first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
            raise InputError(f"{folder / WEIGHTS_FILE} does not fit its config.json: {first[:200]}") from None
        policy.check_statistics()
        return policy.to(where).eval()

    @classmethod
    def outline(cls, config: ModelConfig, folder: Path) -> dict[str, Tensor]:
        """Returns tensors as a checkpoint's must be, without memory: sizes are compared before anything is built.

        Args:
            config: of the policy; none are returned for one with a part that cannot be built without numbers.
            folder: where the files of pretrained towers lie.
        """
        try:
            with Outlines():
                policy = cls(config, *outlines(config, folder))
        except (NotImplementedError, RuntimeError):  # a part of a notebook cell that needs numbers to be built
            return {}
        fixed = fixed_weights(policy)
        return {name: tensor for name, tensor in policy.state_dict().items() if name not in fixed}


@checked
def new_policy(
    config: ModelConfig, seed: Annotated[int, Within(0, 2**63 - 1)], device: torch.device | str = "cpu"
) -> TinyVLA:
    """A policy with initial weights decided by `seed`, the same on every device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TinyVLA(config).to(choose_device(device))


def count_parameters(module: nn.Module) -> int:
    """Number of trainable and frozen parameters of a module."""
    return sum(p.numel() for p in module.parameters())
