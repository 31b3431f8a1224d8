from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tinyvla.config import ModelConfig
from tinyvla.data.batch import TensorSplit
from tinyvla.data.dataset import BlockFind, directions
from tinyvla.learn.evaluate import (
    Metrics,
    ambiguity,
    constant_floor,
    evaluate,
    language_only_floor,
    predict_split,
    predict_told,
    swap_accuracy,
    vision_only_floor,
)
from tinyvla.model.heads.regression import RegressionHead
from tinyvla.model.policy import TinyVLA, new_policy
from tinyvla.model.tokenizer import encode, load_tokenizer


@pytest.fixture(scope="module")
def splits() -> tuple[BlockFind, BlockFind]:
    return BlockFind(500, 0), BlockFind(300, 1)


class Says(RegressionHead):
    """Passes a feature on: `Oracle`'s is the answer already."""

    def predict(self, features, generator=None):
        return features


class Oracle(TinyVLA):
    """Knows every scene's answer; a deaf one knows the images but not the words, and answers for the first target."""

    def __init__(self, config: ModelConfig, split: BlockFind, deaf: bool = False) -> None:
        super().__init__(config)
        self.deaf, self.looked = deaf, 0
        self.head = Says(self.config)
        self.answers: dict[tuple[bytes, str | None], np.ndarray] = {}
        for view in (split, split.retargeted(1), split.retargeted(2)):
            for image, words, action in zip(view.images, view.instructions, view.actions, strict=True):
                self.answers.setdefault(self._key(image, words.split()[2]), action)

    def _key(self, image: np.ndarray, color: str) -> tuple[bytes, str | None]:
        return image.tobytes(), None if self.deaf else color

    def see(self, batch):
        self.looked += len(batch)
        return super().see(batch)

    def features(self, batch, tokens=None):
        tokens = self.see(batch) if tokens is None else tokens
        pixels = (batch.image * 255).round().byte().numpy()
        colors = load_tokenizer().convert_ids_to_tokens(batch.input_ids[:, 3].tolist())
        keys = [self._key(image, color) for image, color in zip(pixels, colors, strict=True)]
        return torch.from_numpy(np.stack([self.answers.get(key, np.zeros(2, np.float32)) for key in keys]))


def unit(degrees: list[float]) -> torch.Tensor:
    radians = torch.deg2rad(torch.tensor(degrees))
    return torch.stack([radians.cos(), radians.sin()], dim=1)


def test_metrics_of_known_angles():
    metrics = Metrics.of(unit([0, 9, 11, 36, 38, 180]), unit([0] * 6))
    assert metrics.direction_accuracy == pytest.approx(4 / 6)
    assert metrics.within_10_degrees == pytest.approx(2 / 6)
    assert metrics.mean_angular_error == pytest.approx((0 + 9 + 11 + 36 + 38 + 180) / 6, abs=1e-3)
    assert metrics.num_samples == 6


def test_l2_is_the_mean_distance_and_direction_ignores_length():
    metrics = Metrics.of(0.5 * unit([0, 90]), unit([0, 90]))
    assert metrics.l2_error == pytest.approx(0.5)
    assert metrics.direction_accuracy == 1.0


def test_a_policy_that_answers_zero_has_l2_one_and_no_direction():
    metrics = Metrics.of(torch.zeros(4, 2), unit([0, 90, 180, 270]))
    assert metrics.l2_error == pytest.approx(1.0)
    assert metrics.direction_accuracy == 0.0


def test_the_swap_tells_listening_from_guessing(tiny_config, splits):
    _, test = splits
    accuracy, number = swap_accuracy(Oracle(tiny_config, test), test)
    assert accuracy == 1.0
    assert 150 < number < 300
    assert swap_accuracy(Oracle(tiny_config, test, deaf=True), test)[0] == 0.0


def test_floors_are_as_good_as_their_information_allows(splits):
    train, test = splits
    actions = torch.from_numpy(test.actions)
    chance = 2 * math.degrees(math.acos(0.8)) / 360
    for predicted in (constant_floor(train, test), language_only_floor(train, test)):
        assert Metrics.of(torch.from_numpy(predicted), actions).direction_accuracy == pytest.approx(chance, abs=0.09)
    vision = Metrics.of(torch.from_numpy(vision_only_floor(test)), actions)
    assert 0.35 < vision.direction_accuracy < 0.55
    assert vision.l2_error < 0.85


def test_shuffled_instructions_ruin_a_policy_that_listens_and_an_image_is_looked_at_once(tiny_config, splits):
    train, test = splits
    oracle = Oracle(tiny_config, test)
    report = evaluate(oracle, test, train)
    assert report.policy.direction_accuracy == report.swap_accuracy == 1.0
    assert report.floors["shuffled instruction"].direction_accuracy < 0.6
    assert oracle.looked == len(test)


@pytest.mark.parametrize("head", ["regression", "flow"])
def test_several_sets_of_sentences_give_what_each_gives_alone(tiny_config, splits, head):
    """Also a head that draws: each set draws as if it were alone."""
    policy = new_policy(replace(tiny_config, head=replace(tiny_config.head, kind=head)), 0).eval()
    views = [splits[1], splits[1].retargeted()]
    told = [TensorSplit.from_blockfind(view, encode) for view in views]
    together = predict_told(policy, told[0], [(each.input_ids, each.attention_mask) for each in told])
    for found, each in zip(together, told, strict=True):
        torch.testing.assert_close(found, predict_split(policy, each))
    report = evaluate(policy, views[0], splits[0])
    assert (report.swap_accuracy, report.num_swaps) == pytest.approx(swap_accuracy(policy, views[0]))


def test_language_only_floor_survives_a_colour_that_training_never_showed(splits):
    _, test = splits
    one = BlockFind(1, 5)
    assert np.isfinite(language_only_floor(one, test)).all()


def test_report_has_all_that_was_promised(tiny_config, splits):
    train, test = splits
    report = evaluate(new_policy(tiny_config, 0), test, train)
    values = json.loads(json.dumps(report.to_dict()))
    assert {"l2_error", "direction_accuracy", "within_10_degrees", "swap_accuracy", "num_samples"} <= set(values)
    assert values["num_samples"] == 300
    assert set(values["floors"]) == {"constant action", "language only", "vision only", "shuffled instruction"}
    table = report.table()
    assert all(name in table for name in ("this policy", *values["floors"], "instruction swap", "Wilson"))
    assert max(map(len, table.splitlines())) <= 100


def test_predicting_a_split_leaves_the_training_mode_as_it_was(tiny_policy, splits):
    tiny_policy.train()
    predicted = predict_split(tiny_policy, TensorSplit.from_blockfind(splits[1], encode))
    assert predicted.shape == (300, 2)
    assert tiny_policy.training


@pytest.mark.parametrize(
    ("policy_takes", "near_one", "first_chosen", "used_both"),
    [("first", 1.0, 1.0, 0.0), ("either", 1.0, 0.5, 0.95), ("mean", 0.0, None, 0.0)],
)
def test_ambiguity_tells_choosing_from_averaging(
    tiny_policy, monkeypatch, policy_takes, near_one, first_chosen, used_both
):
    split = BlockFind.ambiguous(240, seed=0)
    answers = directions(np.sort(split.cells[:, :2], axis=1))
    answers = torch.from_numpy(answers[(answers[:, 0] * answers[:, 1]).sum(axis=1) < math.cos(math.radians(20))])

    def predict(features, generator):
        if policy_takes == "mean":
            return answers.mean(dim=1) + torch.tensor([0.0, 1e-3])
        pick = torch.zeros(len(answers)) if policy_takes == "first" else torch.rand(len(answers), generator=generator)
        return answers[torch.arange(len(answers)), (pick > 0.5).long()]

    monkeypatch.setattr(tiny_policy, "features", lambda batch: torch.zeros(len(batch), 1))
    monkeypatch.setattr(tiny_policy.head, "predict", predict)
    result = ambiguity(tiny_policy, split, num_draws=50)
    assert result.num_scenes == len(answers)
    assert result.near_one == pytest.approx(near_one, abs=0.12)
    if first_chosen is not None:
        assert result.first_chosen == pytest.approx(first_chosen, abs=0.03)
    assert result.used_both == pytest.approx(used_both, abs=0.06)
