"""One measured figure as it is printed, from `results/*.json`: for the book's role `result` and the comments of claims.

A path is "file/key/key:FORMAT", for example ``bench_minimal_cpu/seconds/median:.1f``; of several rows it takes the one
that is described: ``scaling_runs/summary/preset=medium,learning_rate=0.001/seeds``. `*100` behind the last key
multiplies, for a share whose per cent sign stands elsewhere: ``heads/summary/kind=flow/median*100:.1f``.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"


@cache
def load(name: str, folder: Path = RESULTS) -> dict[str, Any]:
    """One results file."""
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def row_of(rows: list[Any], key: str) -> Any:
    """One row of a list: the only one that "name=value,name=value" describes, or the number N of a list of numbers.

    Raises:
        KeyError: no row fits, or several do; or rows are asked for by their place, which may change.
    """
    if "=" not in key:
        if isinstance(rows[int(key)], dict):
            raise KeyError(f"say which row by what it holds, as name=value, and not by its place {key}")
        return rows[int(key)]
    wanted = dict(pair.split("=", 1) for pair in key.split(","))
    found = [row for row in rows if all(str(row[name]) == value for name, value in wanted.items())]
    if len(found) != 1:
        raise KeyError(f"{len(found)} rows have {key}")
    return found[0]


def figure(text: str, folder: Path = RESULTS) -> str:
    """A figure as it is printed, from "file/key/key:FORMAT".

    A key of a list is what `row_of` takes. FORMAT is Python's, for example ".1f"; "%" puts a space before its sign; a
    trailing "M" divides by a million.

    Raises:
        KeyError: no such file, key or row.
    """
    path, _, form = text.strip().partition(":")
    path, times, factor = path.partition("*")
    name, *keys = path.split("/")
    if not (folder / f"{name}.json").exists():
        raise KeyError(f"no results/{name}.json")
    value: Any = load(name, folder)
    for key in keys:
        value = row_of(value, key) if isinstance(value, list) else value[key]
    if isinstance(value, dict | list):
        raise KeyError(f"{path} is no single figure")
    if times:
        value *= float(factor)
    if form.endswith("M"):
        return f"{value / 1e6:{form[:-1]}} million"
    return f"{value:{form}}".replace("%", " %")
