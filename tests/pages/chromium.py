"""Starts Debian's Chromium for tests and pictures: no window, no profile of a user, nothing that calls home."""

from __future__ import annotations

import os
from pathlib import Path

from selenium.webdriver import Chrome
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

BROWSER, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
SWITCHES = (
    "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking", "disable-component-update",
    "disable-sync", "disable-dev-shm-usage", "hide-scrollbars", "window-size=1280,900",
)  # fmt: skip


def start(profile: Path) -> Chrome:
    """A browser that writes down what it asks any network for. Who starts it calls `quit`.

    Args:
        profile: an empty directory of its own.
    """
    for program in (BROWSER, DRIVER):
        assert program.exists(), f"{program} is missing: scripts/setup --browser installs it"
    os.environ["SE_OFFLINE"] = "true"  # selenium looks for no driver elsewhere
    options = Options()
    options.binary_location = str(BROWSER)
    for switch in (*SWITCHES, f"user-data-dir={profile}"):
        options.add_argument(f"--{switch}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options=options, service=Service(str(DRIVER)))
    # A page without a window has the focus all the same.
    driver.execute_cdp_cmd("Emulation.setFocusEmulationEnabled", {"enabled": True})
    return driver
