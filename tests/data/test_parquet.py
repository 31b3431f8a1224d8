"""Columns of Parquet files; `tests/test_bad_input.py` damages whole data sets."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tinyvla.data import parquet
from tinyvla.data.parquet import Pictures, read_tables, vectors, whole_numbers
from tinyvla.errors import InputError


def test_numbers_and_lists_of_them_become_rows():
    table = pa.table({"one": [1.0, 2.0], "two": [[1, 2], [3, 4]], "whole": [5, 6]})
    assert vectors(table, "one").tolist() == [[1], [2]]
    assert vectors(table, "two").tolist() == [[1, 2], [3, 4]]
    assert whole_numbers(table, "whole") == [5, 6]
    with pytest.raises(InputError, match="one is of the type double, 0 of them null; it must be whole numbers"):
        whole_numbers(table, "one")
    with pytest.raises(InputError, match=r"lacks the column three; it has \['one', 'two', 'whole'\]"):
        whole_numbers(table, "three")


def test_files_lie_one_below_the_other_and_must_agree(tmp_path):
    paths = [tmp_path / f"{name}.parquet" for name in "abc"]
    for path, values in zip(paths, ([1, 2], [3], ["x"]), strict=True):
        pq.write_table(pa.table({"n": values, "more": values}), path)
    assert read_tables(paths[:2], ["n"]).to_pydict() == {"n": [1, 2, 3]}
    with pytest.raises(InputError, match="have different columns"):
        read_tables(paths, ["n"])
    with pytest.raises(InputError, match="lacks the columns m; it has"):
        read_tables(paths[:1], ["m"])
    paths[0].write_bytes(paths[0].read_bytes()[:-20])
    with pytest.raises(InputError, match=r"a\.parquet is missing or damaged"):
        read_tables(paths[:1], ["n"])


def test_each_picture_is_decoded_once(monkeypatch):
    pictures = np.random.RandomState(0).randint(0, 255, (70, 6, 5, 3), np.uint8)
    cells = []
    for picture in pictures:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "PNG")
        cells.append({"bytes": buffer.getvalue()})
    frames, decode = [], parquet.decoded
    monkeypatch.setattr(
        parquet, "decoded", lambda cell, key, frame: (frames.append(frame), decode(cell, key, frame))[1]
    )
    found = Pictures("camera", len(cells))
    with ThreadPoolExecutor() as pool:
        for part in (cells[:0], cells[:1], cells[1:]):
            found.add(pa.chunked_array([pa.array(part, pa.struct([("bytes", pa.binary())]))]), pool)
    assert np.array_equal(found.values, pictures.transpose(0, 3, 1, 2))
    assert sorted(frames) == [*range(70)]
