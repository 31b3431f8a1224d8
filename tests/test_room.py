from __future__ import annotations

import shlex

import numpy as np
import pytest

from tinyvla import room
from tinyvla.app import cli
from tinyvla.data.dataset import BlockFind
from tinyvla.data.sentences import SentenceFind
from tinyvla.errors import InputError
from tinyvla.model.policy import new_policy
from tinyvla.room import check_room, check_room_for, memory, room_for_bytes, size_of


def test_what_fills_the_memory_is_refused():
    check_room(10**6, "a small policy")
    with pytest.raises(InputError, match=r"a large policy needs 1,000,000.0 GB for its weights alone; there are \d+"):
        check_room(10**15, "a large policy")


@pytest.mark.parametrize(
    ("count", "says"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (40_960, "41.0 KB"),
        (2_500_000, "2.5 MB"),
        (38.7e9, "38.7 GB"),
        (float("inf"), "inf GB"),
    ],
)
def test_a_size_is_said_in_a_unit_that_fits(count, says):
    assert size_of(count) == says


@pytest.fixture
def small_machine(monkeypatch):
    monkeypatch.setattr(room, "memory", lambda free=False: 2e9)


def test_more_than_is_free_is_refused_with_what_would_fit(small_machine):
    check_room_for(2_000, 1_000_000, "things")
    with pytest.raises(InputError, match=r"2,001 things at once need about 2.0 GB .* enough for 2,000 of them"):
        check_room_for(2_001, 1_000_000, "things")


def test_too_many_scenes_and_images_are_refused_before_they_are_made(small_machine, tiny_config):
    many = 2**20
    for make in (BlockFind, SentenceFind):
        with pytest.raises(InputError, match=r"1,048,576 scenes at once need about 38.7 GB"):
            make(many, 0)
    images = np.broadcast_to(np.uint8(0), (many, 3, 64, 64))
    policy = new_policy(tiny_config, 0)
    with pytest.raises(InputError, match="1,048,576 images at once need"):
        policy.predict(images, "find the red block")
    with pytest.raises(InputError, match="1,048,576 images at once need"):
        policy.predict([images[0]] * many, "find the red block")


def test_the_command_line_refuses_them(small_machine, tiny_config, tmp_path, capsys):
    new_policy(tiny_config, 0).save_pretrained(tmp_path / "policy")
    evaluate = f"evaluate --checkpoint {tmp_path}/policy --num-samples 1048576"
    for command in (evaluate, f"{evaluate} --sentences", f"sample --index 1048575 --out {tmp_path}/a.png"):
        with pytest.raises(SystemExit) as stop:
            cli.main(shlex.split(command))
        assert stop.value.code == 2
        assert "enough for 54," in capsys.readouterr().err


def test_what_is_free_is_known_or_taken_as_endless(monkeypatch):
    assert 2**20 < memory(free=True) <= float("inf")
    monkeypatch.setattr("builtins.open", lambda *args, **options: (_ for _ in ()).throw(OSError()))
    assert memory(free=True) == float("inf")


@pytest.mark.parametrize("shape", [(3, 5, 7), (1_000, 3, 8, 8), (0, 3, 8, 8)])
def test_room_for_bytes_is_an_array_of_zeros_that_can_be_written(shape):
    array = room_for_bytes(shape)
    assert array.shape == shape
    assert array.dtype == np.uint8
    assert not array.any()
    array[:] = 7
    assert array.sum() == 7 * np.prod(shape)


def test_room_for_bytes_where_the_system_gives_pages_one_by_one(monkeypatch):
    monkeypatch.delattr(room.mmap, "MAP_POPULATE", raising=False)
    assert room_for_bytes((2, 3)).tolist() == [[0, 0, 0], [0, 0, 0]]
