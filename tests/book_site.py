"""The built book, served on this machine, and a browser to read it with; two files of tests share one build.

`TINYVLA_BOOK=FOLDER` takes a book that is built already, which saves the minute while a live part is being written.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from browser import require, start_chromium
from filelock import FileLock

ROOT = Path(__file__).parent.parent
SECONDS_TO_BUILD = 100  # about 30 on a fast core and 65 on a slow one


@pytest.fixture(scope="session")
def book(tmp_path_factory) -> Path:
    """The built site. Strict, and without network: whatever wanted it would meet a closed door."""
    if built := os.environ.get("TINYVLA_BOOK"):
        return Path(built)
    require(importlib.util.find_spec("jupyter_book"), 'jupyter-book 1.x: pip install -e ".[book]"')
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "book"
    with FileLock(folder.with_suffix(".lock")):  # whoever comes second finds it built
        if not (folder / "_build" / "html" / "index.html").exists():
            build(folder)
    return folder / "_build" / "html"


def build(folder: Path) -> None:
    """Build the book there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{free.getsockname()[1]}"
    environment = {**os.environ, "http_proxy": closed, "https_proxy": closed, "no_proxy": "", "OMP_NUM_THREADS": "1"}
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(ROOT), "--path-output", str(folder)]
    before = os.times()
    done = subprocess.run(
        [*command, "-W", "-n", "--keep-going"], env=environment, capture_output=True, text=True, check=False
    )
    after = os.times()  # processor time: a clock would also measure what else the machine does
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    complaints = [line for line in (done.stdout + done.stderr).splitlines() if re.search("WARNING|ERROR", line)]
    assert done.returncode == 0, "\n".join(complaints) or done.stderr[-3000:]
    assert (folder / "_build" / "html" / "index.html").exists(), (
        "jupyter-book said nothing and built nothing: is it 2.x?"
    )
    assert seconds < SECONDS_TO_BUILD, f"the build took {seconds:.0f} s of processor time"


@pytest.fixture(scope="session")
def site(book):
    """The address of the built book on this machine."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(book)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    driver = start_chromium(tmp_path_factory.mktemp("profile"), logs=("browser", "performance"))
    yield driver
    driver.quit()


def requested(driver) -> set[str]:
    """Addresses that the page has asked for since the last call."""
    messages = (json.loads(entry["message"])["message"] for entry in driver.get_log("performance"))
    return {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}


def show(driver, theme: str, width: int) -> None:
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    driver.execute_script(
        "for (const k of ['theme', 'mode']) document.documentElement.dataset[k] = arguments[0]", theme
    )
