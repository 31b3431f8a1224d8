"""The Python code on the book's pages runs, from the first block of a page to the last; on few scenes, to be quick."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from tinyvla.course import zoo
from tinyvla.model.policy import TinyVLA

ROOT = Path(__file__).parent.parent
FENCE = re.compile(r"(?ms)^( *)```python\n(.*?)^\1```")


def blocks_of(path: Path) -> list[str]:
    return [textwrap.dedent(code) for _, code in FENCE.findall(path.read_text(encoding="utf-8"))]


def on_few_scenes(block: str) -> str:
    return re.sub(r"BlockFind\(\d+_000", "BlockFind(128", block)


def is_script(block: str) -> bool:
    """Whether it is a file of its own, with a command line."""
    return block.startswith('"""') and "sys.argv" in block


PAGES = [path for path in sorted((ROOT / "book").glob("*.md")) if blocks_of(path)]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_the_code_of_a_page_runs(path: Path, tiny_policy: TinyVLA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    tiny_policy.save_pretrained(tmp_path / "checkpoints" / "best")  # what `tinyvla train` leaves
    monkeypatch.setattr(zoo, "trained_policy", lambda: tiny_policy)  # a page asks its reader for a policy of any kind
    names: dict[str, object] = {"__name__": "page"}
    for number, block in enumerate(blocks_of(path)):
        code = compile(on_few_scenes(block), f"{path.name}, block {number}", "exec")
        if not is_script(block):
            exec(code, names)


def test_pages_with_code_are_found():
    assert {"architecture", "debugging", "own_data", "scaling", "to_a_robot"} <= {path.stem for path in PAGES}
