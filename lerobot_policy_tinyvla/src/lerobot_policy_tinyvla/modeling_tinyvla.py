"""`tinyvla.TinyVLA` behind the verbs that LeRobot calls: forward, select_action, predict_action_chunk, reset."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import ACTION, OBS_STATE
from safetensors import SafetensorError
from torch import Tensor

from tinyvla.data.batch import Batch
from tinyvla.errors import InputError
from tinyvla.fields import check
from tinyvla.model.observation import IMAGE_KEY, STATE_KEY, TASK_KEY
from tinyvla.model.policy import TinyVLA

from .configuration_tinyvla import TinyVLAConfig

NAMES = {"mean-std": ("mean", "std"), "quantiles": ("q01", "q99")}
"""The statistics of LeRobot's `meta/stats.json` that a kind of normalisation needs."""


class TinyVLAPolicy(PreTrainedPolicy):
    """A TinyVLA that LeRobot trains and runs.

    Args:
        config: with the data set's features.
        dataset_stats: of the data set that it will be trained on; not looked at for a checkpoint, which has its own.
        model: a policy that is loaded already.
        ignored: what LeRobot passes to all policies.

    Raises:
        InputError: TinyVLA cannot be made for these features, or the statistics lack what it needs.
    """

    config_class = TinyVLAConfig
    name = "tinyvla"

    def __init__(
        self,
        config: TinyVLAConfig,
        dataset_stats: Mapping[str, Mapping[str, Any]] | None = None,
        model: TinyVLA | None = None,
        **ignored: Any,
    ) -> None:
        super().__init__(config)
        is_new = model is None and config.model is None
        self.model = model or TinyVLA(config.tinyvla_config())
        if is_new and dataset_stats:
            take_statistics(self.model, dataset_stats)
        config.model = self.model.config.to_dict()
        self.reset()

    def reset(self) -> None:
        """Forget the plan; called when an episode begins."""
        self._plan: deque[Float[Tensor, "b a"]] = deque(maxlen=self.config.n_action_steps)

    def get_optim_params(self) -> Any:
        """Returns what learns; frozen towers do not."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def observed(self, batch: Mapping[str, Any]) -> Batch:
        """Returns what LeRobot's processors made, as the batch that TinyVLA makes of the same observation."""
        named = {IMAGE_KEY + camera: batch[key] for key, camera in self.config.cameras.items()}
        named |= {STATE_KEY: batch[OBS_STATE]} if self.model.state_encoder is not None else {}
        told = batch.get("task") or [""]
        told = [told] if isinstance(told, str) else told
        count = len(next(iter(named.values())))
        check(len(told) in (1, count), f"there are {count} observations and {len(told)} sentences")
        named[TASK_KEY] = [text or self.config.instruction for text in told] * (count // len(told))
        return self.model.prepare(named)[0].to(self.model.device)

    def forward(self, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, float]]:
        """Returns the training loss of a batch with chunks of actions; called by `lerobot-train`."""
        self.model.check_statistics()
        observed, actions = self.observed(batch), batch[ACTION]
        self.model.language.note_words(observed.input_ids)
        actions = actions[:, 0] if self.config.chunk_size == 1 and actions.ndim == 3 else actions
        seen = {"actions": actions, "action_is_pad": batch.get("action_is_pad")}
        loss = self.model.loss(Batch(**{**vars(observed), **seen}))
        return loss, {"head_loss": loss.item()}

    @torch.no_grad()
    def predict_action_chunk(self, batch: Mapping[str, Any], **ignored: Any) -> Float[Tensor, "b h a"]:
        """Returns a chunk of actions in the robot's own units. A head that draws, draws the same in each call."""
        self.model.check_statistics()
        self.eval()
        generator = torch.Generator(self.model.device).manual_seed(0)
        actions = self.model(self.observed(batch), generator)
        return actions if actions.ndim == 3 else actions[:, None]

    @torch.no_grad()
    def select_action(self, batch: Mapping[str, Any], **ignored: Any) -> Float[Tensor, "b a"]:
        """Returns the next action of each episode; the policy looks again after `n_action_steps` of them."""
        if not self._plan:
            self._plan.extend(self.predict_action_chunk(batch).transpose(0, 1)[: self.config.n_action_steps])
        return self._plan.popleft()

    def _save_pretrained(self, save_directory: Path, **options: Any) -> None:
        """Called by `save_pretrained`; TinyVLA's own configuration goes along, with its statistics' fingerprint."""
        self.config.model = self.model.config.to_dict()
        super()._save_pretrained(save_directory, **options)

    @classmethod
    def _load_as_safetensor(cls, model: Any, model_file: str, map_location: str, strict: bool) -> TinyVLAPolicy:
        """Called by `from_pretrained`; a checkpoint that does not fit is refused, and not loaded in part."""
        try:
            policy = super()._load_as_safetensor(model, model_file, map_location, strict=True)
        except (RuntimeError, SafetensorError, OSError) as error:
            raise InputError(
                f"{model_file} does not fit its config.json: {' '.join(str(error).split())[:200]}"
            ) from None
        policy.model.check_statistics()
        return policy


def take_statistics(model: TinyVLA, stats: Mapping[str, Mapping[str, Any]]) -> None:
    """Give a new policy the statistics of a data set, from LeRobot's `meta/stats.json`.

    Raises:
        InputError: they lack a number that the policy's normalisation needs.
    """
    config = model.config
    state_kind = config.observation.state_normalization if model.state_encoder is not None else "none"
    model.fit_statistics(_rows(stats, ACTION, config.head.normalization), _rows(stats, OBS_STATE, state_kind))


def _rows(stats: Mapping[str, Mapping[str, Any]], feature: str, kind: str) -> Float[Tensor, "n a"] | None:
    """Returns rows whose statistics are exactly the given ones, for `TinyVLA.fit_statistics`; None if it needs none.

    Of two rows one standard deviation below and above it, the mean is the middle. Of 101 rows in order, the second is
    the quantile of 1 %, and the last but one that of 99 %.
    """
    if kind == "none":
        return None
    found, (low, high) = stats.get(feature, {}), NAMES[kind]
    check(
        low in found and high in found,
        f"the data set's statistics of {feature} lack {low} and {high}, which {kind} needs; choose the other "
        "--policy.normalization, or add quantiles: python -m lerobot.scripts.augment_dataset_quantile_stats",
    )
    first, second = (torch.from_numpy(np.array(found[name], np.float64).reshape(-1)) for name in (low, high))
    if kind == "mean-std":
        return torch.stack([first - second, first + second])
    return torch.stack([first] * 51 + [second] * 50)
