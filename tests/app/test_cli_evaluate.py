"""The verb `evaluate` itself: what does not go together. What it reports is tested with what makes the reports."""

from __future__ import annotations

import pytest

from tinyvla.app.cli_evaluate import evaluate
from tinyvla.app.given import note_options
from tinyvla.errors import InputError


@pytest.fixture
def given():
    yield note_options
    note_options([])


@pytest.mark.parametrize("option", ["--sentences", "--no-sentences", "--num-samples"])
def test_scenes_and_recordings_do_not_go_together(option, given):
    given([option])
    with pytest.raises(InputError, match=r"for BlockFind's scenes, and --dataset is of recordings; leave it out"):
        evaluate(dataset="recordings")


@pytest.mark.parametrize("option", ["--val-episodes", "--states", "--leave-out"])
def test_options_of_recordings_need_recordings(option, given):
    given([option])
    with pytest.raises(InputError, match=rf"^{option}: for recordings \(name them with --dataset\)"):
        evaluate()
