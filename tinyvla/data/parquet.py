"""Columns of Parquet files as arrays: whatever is damaged, missing or of another kind is refused in words."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from tinyvla.errors import InputError
from tinyvla.fields import MAX_SIDE, check, shown
from tinyvla.files import check_is_file, check_is_no_pointer
from tinyvla.room import room_for_bytes

try:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
except ImportError:
    raise InputError(
        "tinyvla.data.lerobot needs pyarrow, which is not installed; install it with: pip install 'tinyvla[lerobot]'"
    ) from None

PICTURES_AT_A_TIME = 64
"""Pictures that a thread decodes in one go."""


def read_tables(paths: list[Path], columns: list[str]) -> pa.Table:
    """The named columns of Parquet files, one below the other.

    Raises:
        InputError: a file is missing, damaged or empty, lacks a column, or differs from the others.
    """
    tables = []
    for path in paths:
        check_is_file(path)
        if path.is_file():
            check_is_no_pointer(path)
        try:
            there = pq.read_schema(path).names
            table = pq.read_table(path, columns=[name for name in columns if name in there] or None)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise InputError(f"{path} is missing or damaged ({' '.join(str(error).split())[:200]})") from None
        lacking = [name for name in columns if name not in there]
        check(not lacking, f"{path} lacks the columns {', '.join(lacking)}; it has {shown(there)}")
        tables.append(table.select(columns) if columns else table)
    return joined(tables, paths)


def joined(tables: list[pa.Table], paths: list[Path]) -> pa.Table:
    """Tables that were read from files, one below the other.

    Raises:
        InputError: they differ in their columns, or hold no rows.
    """
    try:
        table = pa.concat_tables(tables)
    except (pa.ArrowException, ValueError) as error:
        raise InputError(f"the files beside {paths[0]} have different columns ({str(error)[:200]})") from None
    check(len(table) > 0, f"{paths[0]} holds no rows")
    return table


def num_rows(path: Path) -> int:
    """Rows of a file, without reading them.

    Raises:
        InputError: it is missing or damaged.
    """
    check_is_file(path)
    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path} is missing or damaged ({' '.join(str(error).split())[:200]})") from None


def whole_numbers(table: pa.Table, key: str) -> list[int]:
    """A column of whole numbers.

    Raises:
        InputError: it is missing, or holds others.
    """
    check(key in table.column_names, f"the table lacks the column {key}; it has {shown(table.column_names)}")
    column = table.column(key)
    fits = pa.types.is_integer(column.type) and not column.null_count
    check(fits, f"{key} is of the type {column.type}, {column.null_count} of them null; it must be whole numbers")
    return column.to_pylist()


def vectors(table: pa.Table, key: str) -> Float32[np.ndarray, "n d"]:
    """Numbers, or lists of them, as rows.

    Raises:
        InputError: they are no numbers, or the lists differ in length.
    """
    column = table.column(key)
    kind = column.type.value_type if hasattr(column.type, "value_type") else column.type
    is_numbers = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    try:
        with np.errstate(over="ignore"):  # infinite numbers are refused in words
            rows = _numbers_of(column) if is_numbers else np.empty(0)
    except (TypeError, ValueError):
        rows = np.empty(0)
    check(len(rows) > 0 and rows.ndim <= 2, f"{key} is {column.type}; each row must hold equally many numbers")
    return rows[:, None] if rows.ndim == 1 else rows


def _numbers_of(column: pa.ChunkedArray) -> Float32[np.ndarray, "..."]:
    """Numbers or lists of them as an array; lists that are equally long need not become Python's on the way."""
    array = column.combine_chunks()
    is_list = hasattr(array.type, "value_type")
    flat = array.flatten() if is_list else array
    width = len(flat) // len(array) if len(array) else 0
    if array.null_count or flat.null_count or not (pa.types.is_integer(flat.type) or pa.types.is_floating(flat.type)):
        return np.array(column.to_pylist(), np.float32)
    is_even = not is_list or bool(pc.all(pc.equal(pc.list_value_length(array), width)).as_py())
    if not is_even or not width:
        return np.array(column.to_pylist(), np.float32)
    values = flat.to_numpy(zero_copy_only=False).astype(np.float32)
    return values.reshape(len(array), width) if is_list else values


def picture_rows(path: Path, key: str) -> list[tuple[int, int]]:
    """The numbers of a file's row groups and of the rows in them.

    Raises:
        InputError: the file is missing or damaged, or lacks the column of pictures.
    """
    check_is_file(path)
    try:
        facts = pq.read_metadata(path)
        names = pq.read_schema(path).names
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path} is missing or damaged ({' '.join(str(error).split())[:200]})") from None
    check(key in names, f"{path} lacks the columns {key}; it has {shown(names)}")
    return [(group, facts.row_group(group).num_rows) for group in range(facts.num_row_groups)]


class Pictures:
    """One camera's pictures, decoded one file after another into one array.

    Args:
        key: the column.
        count: of all pictures.
    """

    def __init__(self, key: str, count: int) -> None:
        self.key, self.count, self.done = key, count, 0
        self.values: UInt8[np.ndarray, "n 3 h w"] = np.zeros((0, 3, 1, 1), np.uint8)

    def add(self, column: pa.ChunkedArray, pool: Executor) -> None:
        """Decode a file's pictures behind the others.

        Raises:
            InputError: one is missing or damaged, or they differ in size.
        """
        first = 0
        if not self.done and len(column):
            image = self._decoded(column[0], 0)
            self.values = room_for_bytes((self.count, *image.shape))
            self.values[0], first = image, 1
        starts = range(first, len(column), PICTURES_AT_A_TIME)
        list(pool.map(lambda start: self._fill(column.slice(start, PICTURES_AT_A_TIME), self.done + start), starts))
        self.done += len(column)

    def _fill(self, column: pa.ChunkedArray, first: int) -> None:
        for frame, value in enumerate(column, first):
            image = self._decoded(value, frame)
            check(image.shape == self.values.shape[1:], f"{self.key} holds images of different sizes")
            self.values[frame] = image

    def _decoded(self, value: pa.Scalar, frame: int) -> UInt8[np.ndarray, "3 h w"]:
        return decoded(value.as_py(), self.key, frame).transpose(2, 0, 1)

    @staticmethod
    def of_group(path: Path, key: str, group: int, first: int) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        """Yields the pictures of one row group, read when the first one is asked for.

        Args:
            first: number of its first frame, for messages.

        Raises:
            InputError: one is missing or damaged.
        """
        check_is_file(path)
        try:
            column = pq.ParquetFile(path).read_row_group(group, [key]).column(key)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise InputError(f"{path} is missing or damaged ({' '.join(str(error).split())[:200]})") from None
        for number, value in enumerate(column, start=first):
            yield decoded(value.as_py(), key, number)


def decoded(cell: Any, key: str, frame: int) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the picture in a cell of a table.

    Raises:
        InputError: there is none, or it is damaged.
    """
    if not isinstance(cell, dict) or not isinstance(cell.get("bytes"), bytes) or not cell["bytes"]:
        raise InputError(
            f"{key} has no image in frame {frame}: it is empty, or names a file; embed the images themselves"
        )
    try:
        with Image.open(io.BytesIO(cell["bytes"]), formats=("PNG", "JPEG")) as image:
            check(max(image.size) <= MAX_SIDE, f"{image.size} pixels are more than {MAX_SIDE} a side")
            return np.array(image if image.mode == "RGB" else image.convert("RGB"))
    except Exception as error:  # Pillow raises many kinds
        raise InputError(f"the image in frame {frame} of {key} is damaged ({error})") from None
