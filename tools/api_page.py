"""Write the book's API page: every module of the package, folder by folder, in the order of the course.

python tools/api_page.py            # after a module was added, renamed or removed
python tools/api_page.py --check    # is the page what this would write?
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "book" / "api.md"
FOLDERS = ("data", "model", "learn", "act", "speed", "adapt", "deploy", "measure", "show", "course", "app")
HEAD = """# API reference

Everything public in the package, made from the docstrings, which give shapes, units and errors; `[source]` shows the
code. Each folder is a part of the course, and imports only from earlier parts.

"""


def opening(path: Path) -> str:
    """Returns the first line of a module's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.splitlines()[0] if text else ""


def section(path: Path, level: int) -> str:
    """Returns a module's heading and directive."""
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    return f"{'#' * level} `{name}`\n\n```{{eval-rst}}\n.. automodule:: {name}\n```\n"


def page() -> str:
    """Returns the whole page."""
    package = ROOT / "tinyvla"
    parts = [HEAD + "## What every part uses\n"]
    parts += [
        section(package / f"{name}.py", 3)
        for name in ("config", "recipes", "fields", "sizes", "files", "registry", "errors", "device", "stats")
    ]
    for folder in FOLDERS:
        parts.append(f"## `tinyvla.{folder}`\n\n{opening(package / folder / '__init__.py')}\n")
        modules = sorted((package / folder).rglob("*.py"), key=lambda p: (len(p.parts), str(p)))
        parts += [section(path, 3) for path in modules if is_documented(path)]
    return "\n".join(parts)


def is_documented(path: Path) -> bool:
    """Whether a module has a section of its own; the command line describes itself with `--help`."""
    return not path.stem.startswith(("__", "cli"))


def main(arguments: list[str]) -> int:
    """Returns the exit code."""
    if arguments == ["--check"]:
        return int(PAGE.read_text(encoding="utf-8") != page())
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
