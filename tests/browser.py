"""Chromium for the tests: without a window, a profile of its own, and no name service.

Anything a page fetches from outside is therefore missing here.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--window-size=1300,1000",
]
SOFTWARE_GPU = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")
"""Flags for a WebGPU in software; without them, Chromium without a window has no adapter."""


def require(present: object, what: str) -> None:
    """Skip where something is missing; in CI, where it must be there, fail."""
    if not present:
        message = f"the browser test needs {what}"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)


def start_chromium(profile: Path, logs: tuple[str, ...] = ("browser",), flags: tuple[str, ...] = ()):
    """A selenium driver."""
    require(importlib.util.find_spec("selenium"), "selenium: pip install selenium")
    from selenium import webdriver

    binary = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    driver_binary = shutil.which("chromedriver")
    require(binary and driver_binary, "a browser: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    options.set_capability("goog:loggingPrefs", dict.fromkeys(logs, "ALL"))
    for flag in (*FLAGS, *flags, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options, webdriver.ChromeService(driver_binary))
    driver.set_page_load_timeout(60)
    driver.set_script_timeout(120)  # axe takes long on a long page and a busy machine
    return driver
