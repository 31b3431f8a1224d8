"""The verb `evaluate` itself: what does not go together. What it reports is tested with what makes the reports."""

from __future__ import annotations

import pytest

from tinyvla.app.cli_evaluate import evaluate
from tinyvla.errors import InputError


def test_sentences_and_recordings_do_not_go_together():
    with pytest.raises(InputError, match="--dataset about recordings; give one of them"):
        evaluate(dataset="recordings", sentences=True)


def test_options_of_recordings_need_recordings():
    with pytest.raises(InputError, match="name them with --dataset"):
        evaluate(leave_out=(1,))
