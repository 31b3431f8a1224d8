"""Execute and pair the notebooks. The `.py` (py:percent) is what you edit; the `.ipynb` is made from it, with outputs.

python scripts/notebooks.py run                  # all of them: execute, write the .ipynb, record the times
python scripts/notebooks.py run 01_dataset       # one
python scripts/notebooks.py check                # do the pairs agree?
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import jupytext
import nbformat
import torch
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "notebooks"
TIMES = ROOT / "results" / "notebook_times.json"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def read_source(path: Path) -> nbformat.NotebookNode:
    """The notebook that a .py file describes, with the same metadata and cell ids on every machine."""
    notebook = jupytext.read(path)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:03d}"
    notebook.metadata = nbformat.from_dict(
        {"jupytext": {"formats": "ipynb,py:percent"}, "kernelspec": KERNEL, "language_info": {"name": "python"}}
    )
    return notebook


def run(path: Path) -> float:
    """Execute a .py and write its .ipynb; returns the seconds it took."""
    notebook = read_source(path)
    started = time.perf_counter()
    where = {"metadata": {"path": FOLDER}}
    client = NotebookClient(notebook, timeout=1800, kernel_name="python3", store_widget_state=False, resources=where)
    client.execute()
    seconds = time.perf_counter() - started
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # timestamps
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.validate(notebook)
    nbformat.write(notebook, path.with_suffix(".ipynb"))
    return seconds


def differences() -> list[str]:
    """What is unpaired, or says different things in its two forms."""
    names = {p.stem for p in FOLDER.glob("*.py")} | {p.stem for p in FOLDER.glob("*.ipynb")}
    found = []
    for name in sorted(names):
        source, notebook = FOLDER / f"{name}.py", FOLDER / f"{name}.ipynb"
        if not (source.exists() and notebook.exists()):
            found.append(f"{name}: {'.py' if not source.exists() else '.ipynb'} is missing")
            continue
        forms = (read_source(source), nbformat.read(notebook, as_version=4))
        cells = [[(c.cell_type, c.source.strip(), c.metadata.get("tags", [])) for c in nb.cells] for nb in forms]
        if cells[0] != cells[1]:
            found.append(f"{name}: the two forms differ; run: python scripts/notebooks.py run {name}")
    return found


def record_time(name: str, seconds: float) -> None:
    """Note how long a notebook took on this kind of device."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU cores"
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    times = json.loads(TIMES.read_text(encoding="utf-8")) if TIMES.exists() else {}
    times["command"] = "python scripts/notebooks.py run"
    times.setdefault(kind, {"device": device})[name] = round(seconds, 1)
    TIMES.write_text(json.dumps(times, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Returns the exit code."""
    verb, names = (arguments[0] if arguments else ""), arguments[1:]
    if verb == "check":
        found = differences()
        print("\n".join(found) or "all pairs agree")
        return int(bool(found))
    if verb != "run":
        print(__doc__)
        return 2
    paths = [FOLDER / f"{name}.py" for name in names] or sorted(FOLDER.glob("*.py"))
    for path in paths:
        print(f"{path.stem} ...", flush=True)
        seconds = run(path)
        record_time(path.stem, seconds)
        print(f"{path.stem}: {seconds:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
