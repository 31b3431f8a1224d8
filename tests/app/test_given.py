from __future__ import annotations

import pytest

from tinyvla.app.given import given, note_options, refuse
from tinyvla.errors import InputError


def test_what_stands_on_the_command_line_is_given():
    note_options(["train", "--num-train", "5", "--val_seed=3", "--no-recompute", "--seed", "-1", "stray"])
    assert given("num_train", "val_seed", "recompute", "seed", "out", "stray") == [
        "num_train",
        "val_seed",
        "recompute",
        "seed",
    ]
    refuse(("out",), "not here")
    with pytest.raises(InputError, match=r"^--num-train, --seed: not here; leave them out$"):
        refuse(("num_train", "out", "seed"), "not here")
    note_options([])
    assert given("num_train") == []


@pytest.mark.parametrize("words", ["--seed 1 --seed 1", "--seed=1 --seed 2", "--resume --no-resume", "--a-b 1 --a_b 1"])
def test_an_option_that_is_given_twice_is_refused(words):
    with pytest.raises(InputError, match="is given twice"):
        note_options(words.split())
