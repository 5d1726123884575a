"""A browser without a network, and what it asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import chromium
import pytest
from selenium.webdriver import Chrome

Asked = Callable[[], list[str]]


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """A browser with a profile of its own."""
    driver = chromium.start(tmp_path_factory.mktemp("profile"))
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture
def asked(browser: Chrome) -> Asked:
    """The addresses the browser asked for since it left its own first page."""
    browser.get("about:blank")
    browser.get_log("performance")

    def read() -> list[str]:
        messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
        return [each["params"]["request"]["url"] for each in messages if each["method"] == "Network.requestWillBeSent"]

    return read
