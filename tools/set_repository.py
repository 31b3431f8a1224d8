"""Point the whole course at a fork: badges, setup cells, book configuration, links.

    python tools/set_repository.py your-name/your-repository

The current name is read from pyproject.toml, and replaced wherever it stands as part of an address.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENDINGS = {".md", ".toml", ".yml", ".yaml", ".cff", ".py", ".ipynb", ".html"}


def current_repository(root: Path = ROOT) -> str:
    """The "owner/name" in pyproject.toml."""
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'^Repository = "https://github\.com/([^"]+)"$', text, re.M)
    if not found:
        raise SystemExit("pyproject.toml has no [project.urls] Repository")
    return found.group(1)


def addresses(text: str) -> set[str]:
    """Every "owner/name" that the text links to in this course's own addresses (badges, installs, repository links)."""
    pattern = r"(?:colab\.research\.google\.com/github|git\+https://github\.com|mybinder\.org/v2/gh)/([\w.-]+/[\w.-]+?)(?=[@/\"')\s])"
    pages = re.findall(r"(?:baseurl|ogp_site_url): https://([\w-]+)\.github\.io/([\w.-]+?)/", text)
    return {*re.findall(pattern, text), *("/".join(owner_and_name) for owner_and_name in pages)}


def files(root: Path = ROOT) -> list[Path]:
    """Tracked text files that may hold an address."""
    names = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True).stdout.split("\n")
    paths = [root / name for name in names if Path(name).suffix in ENDINGS]
    return [path for path in paths if path.is_file()]


def set_repository(new: str, root: Path, paths: list[Path]) -> int:
    """Replace the current owner/name in `paths`; returns how many files changed."""
    old = current_repository(root)
    pages = [f"{owner}.github.io/{name}" for owner, name in (old.split("/"), new.split("/"))]
    pattern = re.compile(rf"(?<=[/\"]){re.escape(old)}(?![\w-])")
    changed = 0
    for path in paths:
        text = path.read_text(encoding="utf-8")
        fresh = pattern.sub(new, text).replace(*pages)
        if fresh != text:
            path.write_text(fresh, encoding="utf-8")
            changed += 1
    return changed


def main() -> None:
    """Command line."""
    if len(sys.argv) != 2 or not re.fullmatch(r"[\w.-]+/[\w.-]+", sys.argv[1]):
        raise SystemExit(__doc__)
    print(f"{set_repository(sys.argv[1], ROOT, files())} files now point at {sys.argv[1]}")


if __name__ == "__main__":
    main()
