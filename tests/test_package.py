from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import tinyvla

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "tinyvla"
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))
ORDER = ("data", "model", "learn", "act", "speed", "adapt", "deploy", "measure", "show", "course", "app")
"""The folders as the course comes to them; what lies beside them (configuration, errors, device) comes first."""
PRINTING = (
    "__main__",
    "cli",
    "cli_measure",
    "cli_metaworld",
    "cli_recordings",
    "cli_train",
    "demo",
    "doctor",
    "exercises",
)


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def folder_of(module: str) -> str:
    """The folder of a module's dotted name; empty for what lies at the top."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ORDER else ""


def imports_of(path: Path) -> list[tuple[str, bool]]:
    """Modules of this package that a file imports, and whether at run time or for the type checker alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and getattr(block.test, "id", "") == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tinyvla":
            found.append((node.module, id(node) not in typing_only))
    return found


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


def test_every_module_is_tested():
    """Each has a test file of its own name in the folder of its own, or a test there that imports it."""
    untested = []
    for path in MODULES:
        if path.stem.startswith("__"):
            continue
        tests = list((ROOT / "tests" / folder_of(dotted(path))).glob("test_*.py"))
        own = any(test.stem in (f"test_{path.stem}", f"test_{path.parent.name}") for test in tests)
        if not own and not any(dotted(path) in test.read_text(encoding="utf-8") for test in tests):
            untested.append(dotted(path))
    assert untested == []


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_are_short_and_do_not_print(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 340
    if path.stem not in PRINTING:
        calls = [
            n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "print"
        ]
        assert not calls


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_imports_only_what_stands_before_it_in_the_course(path):
    mine = folder_of(dotted(path))
    allowed = {"", *ORDER[: ORDER.index(mine) + 1]} if mine else {""}
    if path.name in ("__main__.py", "registry.py") or dotted(path) == "tinyvla":
        return  # the entry point, and names that are resolved when they are first used
    late = [module for module, at_run_time in imports_of(path) if at_run_time and folder_of(module) not in allowed]
    assert late == []


def test_no_module_imports_itself_by_a_detour():
    graph = {dotted(path): [m for m, at_run_time in imports_of(path) if at_run_time] for path in MODULES}
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join((*way, module))
        if module in done or module not in graph or module == "tinyvla":
            return
        for other in graph[module]:
            visit(other, (*way, module))
        done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("folder", ORDER)
def test_each_folder_begins_with_its_chapters(folder):
    text = (PACKAGE / folder / "__init__.py").read_text(encoding="utf-8")
    assert re.match(r'"""(Chapters? \d|All chapters:)', text)


def test_what_is_taught_knows_nothing_of_speed():
    """Recording, recomputation and instructions known beforehand belong to other steps."""
    taught = [PACKAGE / "model" / f"{name}.py" for name in ("layers", "vision", "language")]
    for path in (*taught, *(PACKAGE / "model" / "heads").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"recorded step|recompute|static_shapes|one_product|self\.known|CUDA graph", text), path
    loop = (PACKAGE / "learn" / "train.py").read_text(encoding="utf-8")
    assert len(loop.splitlines()) <= 150
    assert not re.search(r"import .*(speed|memory|distribut|process)|from tinyvla\.speed", loop)


def test_version_is_the_same_everywhere():
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(r'^version = "(.+)"$', pyproject, re.M).group(1) == tinyvla.__version__


def test_every_module_of_the_wheel_can_be_imported(tmp_path):
    """Built as a user's pip builds it, and imported from the wheel alone."""
    source = tmp_path / "source"  # a copy: setuptools leaves a build folder, whose files would come into later wheels
    source.mkdir()
    for name in ("tinyvla", "results"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(tmp_path)]
    done = subprocess.run([*build, str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    ours = [str(path.relative_to(ROOT)) for path in MODULES]
    assert set(ours) <= set(names)
    assert "tinyvla/results/presets.json" in names
    assert any(name.startswith("tinyvla/model/vocab") for name in names)
    assert not [name for name in names if name.startswith(("tests", "experiments", "tools"))]
    modules = [dotted(path) for path in MODULES if path.name != "__main__.py"]
    optional = "import importlib, sys; sys.path.insert(0, sys.argv[1])\n"
    code = optional + f"for name in {modules!r}: importlib.import_module(name)\nimport tinyvla; print(tinyvla.__file__)"
    run = [sys.executable, "-c", code, str(wheel)]
    ran = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ran.returncode == 0, ran.stderr
    assert str(wheel) in ran.stdout
