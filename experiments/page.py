"""Figures of the files under `results/` as Markdown: what the sections of the results page share."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
Results = dict[str, Any]


def load(name: str) -> Results:
    """A file under `results/`."""
    return json.loads((ROOT / "results" / f"{name}.json").read_text(encoding="utf-8"))


def section_of(title: str, *parts: str) -> str:
    """Paragraphs and tables under a title; an empty part is left out."""
    return "\n\n".join([f"## {title}", *(part for part in parts if part)]) + "\n"


def prose(text: str) -> str:
    """A paragraph, in lines of equal length. None begins with a per cent sign, which makes a comment of it in MyST."""
    glued = " ".join(text.split()).replace(" %", "\N{NO-BREAK SPACE}%")
    lines = textwrap.fill(glued, 118, break_long_words=False, break_on_hyphens=False)
    return lines.replace("\N{NO-BREAK SPACE}", " ")


def grid(heads: str, rows: Iterable[Iterable[str]]) -> str:
    """A table: its heads in one string, as in Markdown, and the cells of each row."""
    columns = heads.count("|") + 1
    return "\n".join([f"| {heads} |", "|---" * columns + "|", *(f"| {' | '.join(row)} |" for row in rows)])


def bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def listed(words: Iterable[str]) -> str:
    """For example "a, b and c"."""
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def span(values: dict[str, float], form: str) -> str:
    """Median (minimum-maximum)."""
    return f"{values['median']:{form}} ({values['min']:{form}}-{values['max']:{form}})"


def percent(value: float, digits: int = 0) -> str:
    return f"{100 * value:.{digits}f} %"


def points(value: float, digits: int = 0) -> str:
    """A difference of shares, with its sign."""
    return f"{100 * value:+.{digits}f}".replace("-", "−")


def share(row: dict[str, float]) -> str:
    """Minimum to maximum, in per cent."""
    low, high = (f"{100 * row[key]:.0f}" for key in ("min", "max"))
    return f"{low} %" if low == high else f"{low}-{high} %"


def within(middle: float, low: float, high: float) -> str:
    """A share and, in brackets, its interval or its range."""
    return f"{percent(middle, 1)} ({100 * low:.1f}-{100 * high:.1f} %)"


def bare(text: str) -> str:
    """Without the signs, for a column whose head has it."""
    return text.replace(" %", "")


def seconds_of(bench: Results) -> str:
    """With as many digits as short times need."""
    return span(bench["seconds"], ".1f" if bench["seconds"]["median"] >= 1 else ".3f")


def place(machine: Results, device: str) -> str:
    """The GPU without its maker and memory, which `source` names, or the number of cores."""
    if device == "cuda":
        return re.sub(r"^NVIDIA | \d+GB.*$", "", machine["device"])
    return f"{machine['cpu_threads']} CPU core{'' if machine['cpu_threads'] == 1 else 's'}"


def source(*files: Results) -> str:
    """The commands that make files anew, and where they ran; as a list, where there are several."""
    lines = []
    for results in files:
        machine = results.get("machine")
        on = f" on {machine['device']}, torch {machine['torch']}, Python {machine['python']}" if machine else ""
        commands = listed(f"`{command}`" for command in results["command"].split(" && "))
        lines.append(f"Made by {commands}{on}.")
    return bullets(lines) if len(lines) > 1 else lines[0]
