from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tinyvla.course import ch07, ch07_checks
from tinyvla.course.zoo import load_results
from tinyvla.data.dataset import BlockFind, directions, trajectories, valid_trajectories
from tinyvla.errors import InputError
from tinyvla.model.heads import FlowHead, RegressionHead


@pytest.fixture(scope="module")
def scenes():
    return BlockFind.ambiguous(6, seed=1)


def test_drawings_of_scenes(scenes):
    right = torch.from_numpy(directions(scenes.cells[:, :2]))
    _, axes = ch07.show_scenes(scenes, right, [0, 3], torch.zeros(2, 6, 2))
    assert [ax.get_title() for ax in axes] == [scenes.instructions[0], scenes.instructions[3]]
    assert len(ch07.draw_heads()[1]) == 5
    _, axes = ch07.show_field(lambda features, points, times: -points, torch.zeros(64), right[0])
    ends = [np.abs(ax.lines[0].get_xydata()).max() for ax in axes]
    assert ends == sorted(ends, reverse=True)  # the field leads to the middle


def test_drawings_of_chunks():
    one = BlockFind(3, seed=1)
    ways = valid_trajectories(one, 16)
    assert len(ch07.draw_ways(one, ways, 1)[1]) == 2
    chunk = trajectories(one, 16, seed=0)
    _, axes = ch07.draw_chunks(one, ways, 1, {"flow": chunk[None], "regression": chunk[None]})
    assert [ax.get_title() for ax in axes] == ["flow, 1 answers", "regression, 1 answers"]
    assert len(ch07.draw_frequencies(chunk[0], chunk[0].round(), chunk[0])[1]) == 3


def test_tables_name_the_budget_of_each_row():
    heads = load_results("heads")["heads"]
    lines = ch07.table_of_answers(heads).splitlines()
    flow = next(line for line in lines if line.startswith("flow")).split()
    assert int(flow[1]) == 10
    assert [int(flow[2]), int(flow[5])] == [heads["flow"][data]["epochs"] for data in ("one answer", "two answers")]
    assert len({len(line) for line in lines}) == 1
    assert all(heads[name]["two answers"]["near_one"] == heads[name]["two answers"]["by_sampling_steps"][str(steps)]
               for name, steps in ch07.SAMPLING_STEPS.items())  # fmt: skip
    chunks = ch07.table_of_chunks(heads).splitlines()
    assert len(chunks) == 2 + sum("trajectories" in row for row in heads.values())
    assert ch07.spread({"median": 0.5, "min": 0.25, "max": 1.0}) == "50.0% (25.0% to 100.0%)"


def test_a_head_is_compared_with_the_package():
    def answering_more(config):
        head = RegressionHead(config)
        head.register_forward_hook(lambda *_: None)
        head.sample = lambda features, generator: RegressionHead.sample(head, features, generator) + 0.01
        return head

    assert "RegressionHead" in ch07_checks.same_as_package("regression", RegressionHead)
    with pytest.raises(AssertionError):
        ch07_checks.same_as_package("regression", answering_more)
    with pytest.raises(RuntimeError):
        ch07_checks.same_as_package("regression", FlowHead)


def test_what_an_error_says():
    def refuse():
        raise InputError("these are other statistics (0123456789ab); take the right ones")

    assert ch07_checks.says(refuse) == "these are other statistics"
    assert ch07_checks.says(list) == "no objection"


def test_training_lowers_the_loss():
    features, actions = torch.randn(200, 64), F.normalize(torch.randn(200, 2), dim=1)
    head = RegressionHead(ch07_checks.config_of("regression"))
    before = head.loss(features, actions).item()
    assert ch07_checks.train(head, features, actions, num_steps=60).loss(features, actions).item() < before


def test_a_mixture_acts_with_what_it_is_given():
    def draw(means, log_weights, generator):
        return means[:, 2]

    head = ch07_checks.MixtureHead(ch07_checks.config_of("regression"), lambda *_: torch.tensor(3.0), draw)
    features = torch.randn(5, 64)
    assert head.loss(features, torch.randn(5, 2)) == 3
    torch.testing.assert_close(head.predict(features), head.parts(features)[0][:, 2])
    torch.testing.assert_close(head.parts(features)[1].exp().sum(dim=1), torch.ones(5))
