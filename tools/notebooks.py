"""Execute, pair and check the notebooks. The `.py` (py:percent) is what you edit; the `.ipynb` is made from it.

python tools/notebooks.py run                  # all of them: execute, write the .ipynb, record the times
python tools/notebooks.py run 01_dataset       # one
python tools/notebooks.py pair                 # after editing text, tags or ends of checks: keeps the outputs
python tools/notebooks.py verify               # run nbval on each; record the times of this device
python tools/notebooks.py check                # pairs, outputs, setup cells, badges, times
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import subprocess
import sys
import time
from pathlib import Path

import jupytext
import nbformat

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "notebooks"
TIMES = ROOT / "results" / "notebook_times.json"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
IGNORED = "nbval-ignore-output"


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
    from nbclient import NotebookClient

    notebook = read_source(path)
    started = time.perf_counter()
    where = {"metadata": {"path": path.parent}}
    NotebookClient(notebook, timeout=1800, kernel_name="python3", store_widget_state=False, resources=where).execute()
    seconds = time.perf_counter() - started
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # timestamps
    notebook.metadata["language_info"] = {"name": "python"}
    notebook.metadata["tinyvla"] = {"outputs_sha256": outputs_digest(notebook)}
    nbformat.validate(notebook)
    nbformat.write(notebook, path.with_suffix(".ipynb"))
    return seconds


def verify(path: Path) -> float | None:
    """Run a notebook against its committed outputs; returns the seconds it took, None if it differs."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--nbval",
        "--nbval-current-env",
        "-p",
        "no:cacheprovider",
        "-n",
        "0",
    ]
    started = time.perf_counter()
    done = subprocess.run([*command, str(path.with_suffix(".ipynb"))], check=False)
    return None if done.returncode else time.perf_counter() - started


def says_the_same(cell: nbformat.NotebookNode, old: nbformat.NotebookNode) -> bool:
    """Whether a cell's stored output still holds: its code is the same, or it is a check that still begins as it did.

    A check of an exercise that nobody has solved ends at its first assertions, and what follows them never ran.
    """
    if cell.source == old.source:
        return True
    said = (
        "".join(output.get("text", "") for output in old.outputs)
        .partition("not yet. ")[2]
        .strip()
        .removesuffix(".")
        .lower()
    )
    if not said or "check" not in cell.metadata.get("tags", []):
        return False
    begin, _, _ = cell.source.lower().partition(said)
    return old.source.lower().startswith(begin + said)


def pair(path: Path) -> None:
    """Bring text and metadata of a .py into its .ipynb without executing; refuses if code differs that ran."""
    notebook, executed = read_source(path), nbformat.read(path.with_suffix(".ipynb"), as_version=4)
    code, ran = ([cell for cell in nb.cells if cell.cell_type == "code"] for nb in (notebook, executed))
    if len(code) != len(ran) or not all(says_the_same(cell, old) for cell, old in zip(code, ran, strict=True)):
        raise SystemExit(f"{path.stem}: code was edited, so it must run again: tools/notebooks.py run {path.stem}")
    for cell, old in zip(code, ran, strict=True):
        cell.outputs, cell.execution_count = old.outputs, old.execution_count
    notebook.metadata = executed.metadata
    nbformat.write(notebook, path.with_suffix(".ipynb"))


def outputs_digest(notebook: nbformat.NotebookNode) -> str:
    """Fingerprint of all outputs, so that one that was edited, lost or stripped is noticed."""
    outputs = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    text = json.dumps(outputs, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def problems(folder: Path = FOLDER) -> list[str]:
    """All that is wrong with the notebooks of a folder, one line each."""
    found = []
    setups: dict[str, str] = {}
    for name in sorted({p.stem for p in folder.glob("*.py")} | {p.stem for p in folder.glob("*.ipynb")}):
        source, notebook = folder / f"{name}.py", folder / f"{name}.ipynb"
        if not (source.exists() and notebook.exists()):
            found.append(f"{name}: {'.py' if not source.exists() else '.ipynb'} is missing")
            continue
        executed = nbformat.read(notebook, as_version=4)
        found += [f"{name}: {line}" for line in _pair_problems(read_source(source), executed)]
        found += [f"{name}: {line}" for line in _output_problems(executed)]
        code = [cell.source for cell in executed.cells if cell.cell_type == "code"]
        setups[name] = code[0] if code else ""
    if len(set(setups.values())) > 1:
        common = max(set(setups.values()), key=list(setups.values()).count)
        found += [f"{n}: the setup cell differs from the others'" for n, s in setups.items() if s != common]
    return found


def _pair_problems(source: nbformat.NotebookNode, executed: nbformat.NotebookNode) -> list[str]:
    cells = [[(c.cell_type, c.source.strip(), dict(c.metadata)) for c in nb.cells] for nb in (source, executed)]
    return [] if cells[0] == cells[1] else ["the .py and the .ipynb differ; run: python tools/notebooks.py run"]


def _output_problems(notebook: nbformat.NotebookNode) -> list[str]:
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    found = []
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        found.append("not executed from top to bottom")
    if any(output.output_type == "error" for cell in code for output in cell.outputs):
        found.append("a cell ended with an error")
    if notebook.metadata.get("tinyvla", {}).get("outputs_sha256") != outputs_digest(notebook):
        found.append("an output was changed or removed after the execution")
    for cell in code:
        pictures = sum("image/png" in output.get("data", {}) for output in cell.outputs)
        described = cell.metadata.get("mystnb", {}).get("image", {}).get("alt")
        if pictures and not described:
            found.append(f"cell {cell.execution_count} shows a picture and has no alt text in its mystnb metadata")
    ignored = sum(IGNORED in cell.metadata.get("tags", []) for cell in code)
    if ignored > len(code) / 3:
        found.append(f"{ignored} of {len(code)} code cells are not compared; at most a third may be")
    return found


def record_time(name: str, seconds: float) -> None:
    """Note how long a notebook took on this kind of device."""
    import torch

    from tinyvla.device import cpu_name

    on_gpu = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if on_gpu else f"{torch.get_num_threads()} cores, {cpu_name()}"
    times = json.loads(TIMES.read_text(encoding="utf-8")) if TIMES.exists() else {}
    times["command"] = "python tools/notebooks.py run (CPU), verify (GPU)"
    measured = times.setdefault("cuda" if on_gpu else "cpu", {})
    measured[name] = round(seconds, 1)
    measured.setdefault("devices", {})[name] = device
    TIMES.write_text(json.dumps(times, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def running_time(name: str) -> str:
    """The words for a notebook's header: "about 2 minutes on two CPU cores, 30 seconds on a GPU"."""
    times = json.loads(TIMES.read_text(encoding="utf-8"))
    words = f"about {_in_words(times['cpu'][name])} on two CPU cores"
    if name in times.get("cuda", {}):
        words += f", {_in_words(times['cuda'][name])} on a GPU"
    return words


def _in_words(seconds: float) -> str:
    """Rounded up: to ten seconds, or to a minute."""
    if seconds <= 50:
        return f"{math.ceil(seconds / 10) * 10} seconds"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} minute{'s' if minutes > 1 else ''}"


def write_times() -> None:
    """Put the measured times into the headers of both forms."""
    measured = json.loads(TIMES.read_text(encoding="utf-8"))["cpu"]
    for path in (*FOLDER.glob("*.py"), *FOLDER.glob("*.ipynb")):
        if path.stem not in measured:
            continue
        text = path.read_text(encoding="utf-8")
        pattern = r"(\*\*Time:\*\* [^,\n]*, )(TIME_TO_RUN|about [^\n\"]*?)( to run)"
        path.write_text(re.sub(pattern, rf"\g<1>{running_time(path.stem)}\g<3>", text, count=1), encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Returns the exit code."""
    verb, names = (arguments[0] if arguments else ""), arguments[1:]
    if verb == "check":
        found = problems()
        print("\n".join(found) or "all notebooks are paired, executed and whole")
        return int(bool(found))
    if verb == "times":
        write_times()
        return 0
    if verb == "pair":
        for path in [FOLDER / f"{name}.py" for name in names] or sorted(FOLDER.glob("*.py")):
            pair(path)
        return 0
    if verb not in ("run", "verify"):
        print(__doc__)
        return 2
    failed = []
    for path in [FOLDER / f"{name}.py" for name in names] or sorted(FOLDER.glob("*.py")):
        print(f"{path.stem} ...", flush=True)
        seconds = run(path) if verb == "run" else verify(path)
        if seconds is None:
            failed.append(path.stem)
            continue
        record_time(path.stem, seconds)
        print(f"{path.stem}: {seconds:.0f} s", flush=True)
    write_times()
    print(f"differ from their committed outputs: {', '.join(failed)}" if failed else "done")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
