from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from tinyvla.data.batch import TensorSplit
from tinyvla.data.sentences import SentenceFind
from tinyvla.learn.evaluate import DIRECTION_COSINE, swap_accuracy
from tinyvla.learn.evaluate_sentences import APART_COSINE, evaluate_sentences, meaning_floor, pair_accuracy
from tinyvla.model.policy import TinyVLA
from tinyvla.model.tokenizer import encode


class Knowing(TinyVLA):
    """Knows the answers to some scenes and sentences; a deaf one answers for the first sentence about an image."""

    def __init__(self, config, *splits, deaf=False):
        super().__init__(config)
        self.deaf, self.answers = deaf, {}
        for split in splits:
            tensors = TensorSplit.from_blockfind(split, encode)
            for image, ids, action in zip(split.images, tensors.input_ids, tensors.actions, strict=True):
                self.answers.setdefault(self.key(image.tobytes(), ids), action)

    def key(self, image, ids):
        return image, None if self.deaf else tuple(int(i) for i in ids if i)

    def forward(self, batch, generator=None):
        images = (batch.image * 255).round().byte().numpy()
        keys = [self.key(image.tobytes(), ids) for image, ids in zip(images, batch.input_ids, strict=True)]
        return torch.stack([self.answers[key] for key in keys])


@pytest.fixture(scope="module")
def relations() -> SentenceFind:
    return SentenceFind(80, 4, ("relation", "negation"))


def test_pairs_of_one_who_knows_and_of_one_who_is_deaf(tiny_config, relations):
    other = relations.retargeted()
    knowing = pair_accuracy(Knowing(tiny_config, relations, other), relations)
    assert {word: share for word, (share, _) in knowing.items()} == dict.fromkeys(knowing, 1.0)
    assert set(knowing) == {"color", "side", "not"}
    assert all(count > 3 for _, count in knowing.values())
    deaf = pair_accuracy(Knowing(tiny_config, relations, other, deaf=True), relations)
    assert all(share == 0 for share, _ in deaf.values())


class HalfWay(Knowing):
    """Answers, whatever the sentence, half-way between the two right answers about an image."""

    def __init__(self, config, first, second):
        super().__init__(config, first, deaf=True)
        for image, one, other in zip(first.images, first.actions, second.actions, strict=True):
            self.answers[(image.tobytes(), None)] = torch.from_numpy(one + other)


def test_an_arrow_half_way_between_two_blocks_is_right_about_no_pair(tiny_config, relations):
    other = relations.retargeted()
    cosine = (relations.actions * other.actions).sum(axis=1)
    assert ((cosine > APART_COSINE) & (cosine < DIRECTION_COSINE)).any(), "there are pairs that it is right about"
    half_way = pair_accuracy(HalfWay(tiny_config, relations, other), relations)
    assert set(half_way) == {"color", "side", "not"}
    assert all(share == 0 for share, _ in half_way.values())


def test_the_instruction_swap_changes_one_word_of_a_sentence(tiny_config, relations):
    share, count = swap_accuracy(Knowing(tiny_config, relations, relations.retargeted()), relations)
    assert share == 1.0
    assert 20 < count <= 80


def test_words_alone_say_something_of_a_relation_and_nothing_of_a_color():
    train = SentenceFind(800, 1, ("color", "extreme"))
    test = SentenceFind(60, 2, ("extreme",))
    floor = meaning_floor(train, test)
    leftmost = [i for i, sentence in enumerate(test.sentences) if sentence.meaning.side == 0]
    assert (floor[leftmost, 0] < -0.5).all()
    assert np.linalg.norm(meaning_floor(train, SentenceFind(20, 3, ("color",))), axis=1).max() < 0.4


def test_a_meaning_that_training_lacks_gets_the_mean_of_its_side():
    train = SentenceFind(300, 1, ("relation",))
    test = SentenceFind(20, 2, ("new relations",))
    left = [i for i, sentence in enumerate(test.sentences) if sentence.meaning.side == 0]
    mean = np.mean([a for a, s in zip(train.actions, train.sentences, strict=True) if s.meaning.side == 0], axis=0)
    np.testing.assert_allclose(meaning_floor(train, test)[left], np.tile(mean, (len(left), 1)), atol=1e-6)


def test_a_report_has_a_row_for_each_kind(tiny_policy, monkeypatch):
    monkeypatch.setattr("tinyvla.learn.evaluate_sentences.FLOOR_SCENES", 200)
    report = evaluate_sentences(tiny_policy, ("color", "new relations"), num_scenes=30)
    told = json.loads(json.dumps(report.to_dict()))
    assert list(told) == ["color", "new relations"]
    assert told["color"]["num_samples"] == 30
    low, high = told["color"]["direction_accuracy_interval"]
    assert low <= told["color"]["direction_accuracy"] <= high
    assert set(told["new relations"]["pairs"]) <= {"side", "color"}
    assert 0 <= told["color"]["vision_only"] <= 1
    lines = report.table().splitlines()
    assert lines[2].startswith("color ")
    assert lines[3].startswith("new relations")
