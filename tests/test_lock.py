from __future__ import annotations

import os

import pytest
from filelock import FileLock

from tinyvla.errors import InputError
from tinyvla.lock import LOCK, held


def hold(folder, tidy=lambda dead: None):
    return held(FileLock(folder / LOCK), "a run", "choose another --out", tidy)


def test_a_lock_holds_the_number_of_its_process_and_goes_with_it(tmp_path):
    with hold(tmp_path):
        assert (tmp_path / LOCK).read_text() == str(os.getpid())
        with pytest.raises(InputError, match=f"is in use by process {os.getpid()}; wait until it ends, or choose"):
            hold(tmp_path).__enter__()
    assert not (tmp_path / LOCK).exists()


@pytest.mark.parametrize("left", ["", "123"])
def test_who_takes_it_hears_of_whoever_died(left, tmp_path):
    heard = []
    (tmp_path / LOCK).write_text(left)
    with hold(tmp_path, heard.append):
        assert heard == [left]


@pytest.mark.parametrize("text", ["precious", "123\n", "1" * 30])
def test_a_file_of_that_name_may_be_somebodys_own(text, tmp_path):
    (tmp_path / LOCK).write_text(text)
    with pytest.raises(InputError, match="was not written by a run; move it away, or choose another --out"):
        hold(tmp_path).__enter__()
    assert (tmp_path / LOCK).read_text() == text


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "mine").write_text("")
    (tmp_path / LOCK).symlink_to(tmp_path / "mine")
    with pytest.raises(InputError, match="was not written by a run"):
        hold(tmp_path).__enter__()
    assert (tmp_path / LOCK).is_symlink()
