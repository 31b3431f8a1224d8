from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tinyvla

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "tinyvla").glob("*.py"))


def timed_import(code: str) -> float:
    script = f"import time, torch; t = time.perf_counter(); {code}; print(time.perf_counter() - t)"
    return float(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)


def test_import_costs_at_most_0_3_seconds_over_torch():
    assert min(timed_import("import tinyvla") for _ in range(3)) <= 0.3


def test_slow_libraries_are_imported_when_needed():
    script = (
        "import sys, tinyvla; from tinyvla import TinyVLA, BlockFind, PRESETS\n"
        "print([m for m in ('transformers', 'matplotlib', 'tensorboard', 'tyro') if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
        == "[]"
    )


def test_public_names_resolve():
    for name in tinyvla.__all__:
        assert getattr(tinyvla, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        tinyvla.nonsense  # noqa: B018


def test_every_module_has_a_test_module():
    untested = [
        m.name for m in MODULES if not m.name.startswith("__") and not (ROOT / "tests" / f"test_{m.name}").exists()
    ]
    assert untested == []


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.name)
def test_modules_are_short_and_do_not_print(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 340
    if path.stem not in ("cli", "cli_measure", "demo", "doctor", "exercises"):
        calls = [
            n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "print"
        ]
        assert not calls


def test_version_is_the_same_everywhere():
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(r'^version = "(.+)"$', pyproject, re.M).group(1) == tinyvla.__version__
