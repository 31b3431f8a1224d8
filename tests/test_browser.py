"""The playground in a real browser: JupyterLab, Chromium, a keyboard.

Needs chromium (or Google Chrome), chromedriver, and the Python packages selenium and jupyterlab; `CI=1` turns their
absence from a skip into a failure. The browser is given no name service, so anything fetched from outside would be
missing here.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import nbformat
import pytest
from browser import require, start_chromium

ROOT = Path(__file__).parent.parent
TOKEN = "only-for-this-test"
SETTINGS = {
    "apputils-extension/notification": {"checkForUpdates": False, "fetchNews": "false"},
    "notebook-extension/tracker": {"windowingMode": "none"},  # keep outputs in the page when they are out of sight
}
PREDICTED = """
    const svg = [...document.querySelectorAll('svg[role=img]')].find(s => s.querySelector('[data-role=block]'));
    const line = svg && svg.querySelector('[data-role=predicted]');
    return line && {label: svg.getAttribute('aria-label'), end: [+line.getAttribute('x2'), +line.getAttribute('y2')]};
"""
SECONDS_TO_RUN = 300  # a chapter may train first
ERRORS = ".jp-Dialog, .jupyter-widgets-error-widget, [data-mime-type='application/vnd.jupyter.error']"


def without_playground() -> nbformat.NotebookNode:
    """What is tested as long as no chapter has a playground."""
    source = """
from tinyvla import PRESETS
from tinyvla.learn.train import new_policy
from tinyvla.show.widgets import playground

policy = new_policy(PRESETS["nano"], 0)
policy.head.output.weight.data *= 100  # untrained arrows are too short to be seen
playground(policy)
"""
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source.strip())])


def notebooks_to_test() -> dict[str, nbformat.NotebookNode]:
    found = {}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        if any(cell.cell_type == "code" and "playground(" in cell.source for cell in notebook.cells):
            found[path.name] = notebook
    return found or {"playground.ipynb": without_playground()}


NOTEBOOKS = notebooks_to_test()


@pytest.fixture
def lab(tmp_path):
    """The address of a JupyterLab server that has settings, data and notebooks of its own."""
    require(importlib.util.find_spec("jupyterlab"), "jupyterlab: pip install jupyterlab")
    for name, values in SETTINGS.items():
        file = tmp_path / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values), encoding="utf-8")
    page = tmp_path / "config" / "labconfig" / "page_config.json"
    page.parent.mkdir(parents=True)
    page.write_text(json.dumps({"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}))
    (tmp_path / "root").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folders = {"CONFIG_DIR": "config", "DATA_DIR": "data", "RUNTIME_DIR": "runtime"}
    environment = {
        **os.environ,
        **{f"JUPYTER_{name}": str(tmp_path / folder) for name, folder in folders.items()},
        "JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(tmp_path / "workspaces"),
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "OMP_NUM_THREADS": "1",  # one scene at a time: on a busy machine a second thread only waits
    }
    command = [sys.executable, "-m", "jupyterlab", "--allow-root", "--no-browser", "--ip=127.0.0.1", f"--port={port}"]
    command += ["--ServerApp.port_retries=0", f"--ServerApp.root_dir={tmp_path / 'root'}"]
    command += [f"--IdentityProvider.token={TOKEN}", "--LabApp.extension_manager=readonly"]
    log = tmp_path / "server.log"
    with log.open("w") as out:
        server = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT)
        try:
            address = f"http://127.0.0.1:{port}"
            wait_until(lambda: answers(f"{address}/api/status?token={TOKEN}"), 40, lambda: log.read_text()[-2000:])
            yield address
        finally:
            server.terminate()
            try:
                server.wait(15)
            except subprocess.TimeoutExpired:
                server.kill()


@pytest.fixture
def browser(tmp_path):
    """Chromium without a window, a profile or a name service."""
    driver = start_chromium(tmp_path / "profile")
    yield driver
    driver.quit()


def answers(address: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        return opener.open(address, timeout=5).status == 200
    except (urllib.error.URLError, OSError):
        return False


def wait_until(check, seconds: float, describe=lambda: ""):
    """The first true value of `check`, which must come within the time."""
    end = time.monotonic() + seconds
    while not (value := check()):
        assert time.monotonic() < end, f"nothing after {seconds} s. {describe()}"
        time.sleep(0.2)
    return value


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_typing_another_instruction_turns_the_arrow(name, browser, lab, tmp_path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    notebook = NOTEBOOKS[name]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "root" / name)

    def find(css):
        return browser.find_elements(By.CSS_SELECTOR, css)

    def click(css):
        wait_until(lambda: find(css), 30, lambda: f"no {css} in {browser.title}")[0].click()

    def no_errors():
        assert [element.text for element in find(ERRORS)] == []

    def state():
        browser.save_screenshot(str(tmp_path / "failed.png"))
        return f"Screenshot: {tmp_path / 'failed.png'}"

    def kernel_is_ready():
        """Before it has a name, running a cell would open a dialog."""
        name, idle = find(".jp-Toolbar-kernelName"), find(".jp-Notebook-ExecutionIndicator[data-status=idle]")
        return name and idle and name[0].text.startswith("Python")

    def arrow():
        no_errors()
        return browser.execute_script(PREDICTED)

    browser.get(f"{lab}/lab/tree/{name}?token={TOKEN}")
    wait_until(kernel_is_ready, 60, state)
    browser.find_element(By.XPATH, "//div[@id='jp-MainMenu']//div[text()='Run']").click()
    click("li[data-command='runmenu:run-all']")
    before = wait_until(arrow, SECONDS_TO_RUN, state)

    color = next(
        c for c in re.findall(r"(\w+) block in row", before["label"]) if f"the {c} block;" not in before["label"]
    )
    box = find(".widget-text input")[0]
    box.send_keys(Keys.CONTROL, "a")
    box.send_keys(f"find the {color} block")

    def arrived():
        now = arrow()
        return now if now and f"Instruction: find the {color} block;" in now["label"] else None

    after = wait_until(arrived, 30, state)
    moved = max(abs(a - b) for a, b in zip(after["end"], before["end"], strict=True))
    browser.execute_script("document.querySelector('.widget-text').scrollIntoView({block: 'center'})")
    browser.save_screenshot(str(tmp_path / "playground.png"))
    assert moved > 0.1, f"the arrow's end stayed at {before['end']}"
    no_errors()
    errors = [
        e["message"] for e in browser.get_log("browser") if e["level"] == "SEVERE" and e["source"] == "javascript"
    ]
    assert errors == []
