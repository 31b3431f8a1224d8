"""How fast the first page answers in Chromium, and what it loads. Writes `results/book_page.json`.

jupyter-book build . && python tools/book_speed.py

Notable:
- each run has a new browser with an empty cache, and a server on this machine;
- the first answer is timed from the click that wakes the policy to the moment its answer is drawn;
- then a block is dragged: 60 moves a second for three seconds, and each answer that was drawn is counted;
- these runs use WebAssembly. A last run uses WebGPU in software, which is slow, so only its megabytes are written.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch

from tinyvla.device import describe_device

ROOT = Path(__file__).resolve().parent.parent
BOOK, RESULTS = Path(os.environ.get("TINYVLA_BOOK", ROOT / "_build" / "html")), ROOT / "results" / "book_page.json"
RUNS = 5
TIMED = """
    const done = arguments[0], mount = document.querySelector('[data-live]'), started = performance.now();
    new MutationObserver(() => {
      if (mount.dataset.awake !== undefined) done((performance.now() - started) / 1000);
      else if (mount.querySelector('.tv-wake')?.disabled) done(null);
    }).observe(mount, {attributes: true, subtree: true});
    mount.querySelector('.tv-wake').click();
"""
DRAGGED = """
    const done = arguments[0], mount = document.querySelector('[data-live]'), seconds = 3;
    const block = mount.querySelector('.tv-block'), box = block.ownerSVGElement.getBoundingClientRect();
    const at = (kind, x, y) => block.dispatchEvent(new PointerEvent(kind, {
      bubbles: true, pointerId: 1, clientX: box.x + x * box.width, clientY: box.y + y * box.height}));
    block.setPointerCapture = () => {};
    const before = +mount.dataset.answers, started = performance.now();
    at('pointerdown', 0.5, 0.5);
    const timer = setInterval(() => {
      const t = (performance.now() - started) / 1000;
      if (t < seconds) return at('pointermove', 0.5 + 0.4 * Math.cos(3 * t), 0.5 + 0.4 * Math.sin(3 * t));
      clearInterval(timer);
      const answers = +mount.dataset.answers - before;
      at('pointerup', 0.5, 0.5);
      done(answers / t);
    }, 1000 / 60);
"""


class Counting(SimpleHTTPRequestHandler):
    """Serves the book and adds up what was asked for from the live parts."""

    bytes_of_live = 0

    def log_message(self, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Serve a file."""
        path = Path(self.translate_path(self.path))
        if "/live/" in self.path and path.is_file():
            Counting.bytes_of_live += path.stat().st_size
        super().do_GET()


def measure(address: str, flags: tuple[str, ...] = ()) -> dict[str, float]:
    """One run in a new browser."""
    from browser import start_chromium

    Counting.bytes_of_live = 0
    with tempfile.TemporaryDirectory() as profile:
        driver = start_chromium(Path(profile), flags=flags)
        driver.set_script_timeout(120)
        driver.get(f"{address}/index.html")
        before = Counting.bytes_of_live
        first, rate = (driver.execute_async_script(script) for script in (TIMED, DRAGGED))
        driver.quit()
    if first is None:
        raise SystemExit("the policy did not wake: npm install, then build the book again")
    return {"first_answer": first, "answers_per_second": rate, "before": before, "bytes": Counting.bytes_of_live}


def main() -> None:
    """Measure and write."""
    sys.path.append(str(ROOT / "tests"))
    from browser import SOFTWARE_GPU

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Counting, directory=str(BOOK)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    runs = []
    for _ in range(RUNS):
        runs.append(measure(f"http://127.0.0.1:{server.server_port}"))
        print(runs[-1], flush=True)
    with_webgpu = measure(f"http://127.0.0.1:{server.server_port}", SOFTWARE_GPU)["bytes"]
    if with_webgpu == runs[0]["bytes"]:
        raise SystemExit("this Chromium has no WebGPU in software")
    spread = {
        key: {"min": min(values), "median": statistics.median(values), "max": max(values)}
        for key in ("first_answer", "answers_per_second")
        for values in [[run[key] for run in runs]]
    }
    results = {
        "command": "python tools/book_speed.py",
        "machine": describe_device(torch.device("cpu")),
        "runs": RUNS,
        **spread,
        "bytes_before_a_touch": runs[0]["before"],
        "megabytes": runs[0]["bytes"] / 1e6,
        "megabytes_with_webgpu": with_webgpu / 1e6,
    }
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
