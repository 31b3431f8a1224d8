from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

ROOT = Path(__file__).parent.parent
_spec = importlib.util.spec_from_file_location("set_repository", ROOT / "tools" / "set_repository.py")
script = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(script)


def test_all_addresses_agree():
    here = script.current_repository()
    for path in script.files():
        found = script.addresses(path.read_text(encoding="utf-8"))
        assert found <= {here}, f"{path.name} points at {found}; run: python tools/set_repository.py {here}"


def test_a_fork_is_pointed_at_everywhere(tmp_path):
    names = ["pyproject.toml", "README.md", "_config.yml", "notebooks/01_dataset.py", "notebooks/01_dataset.ipynb"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    old = script.current_repository(tmp_path)
    paths = [tmp_path / name for name in names]
    before = sum(path.read_text().count(f"/{old}") for path in paths)
    assert script.set_repository("ada/my-vla", tmp_path, paths) >= 3
    assert script.current_repository(tmp_path) == "ada/my-vla"
    assert "https://ada.github.io/my-vla/" in (tmp_path / "_config.yml").read_text()
    after = [path.read_text() for path in paths]
    assert sum(text.count("/ada/my-vla") for text in after) == before > 3
    assert all(script.addresses(text) <= {"ada/my-vla"} for text in after)
    assert "import tinyvla" in after[3], "the package keeps its name"


def test_files_of_tests_have_names_of_their_own():
    """pytest imports two files of one name as one, where their folders are no packages."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(set(names)) == sorted(names)
