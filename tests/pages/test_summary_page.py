"""The summary on paper: some sheets with numbers, nothing cut, no network."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from selenium.webdriver import Chrome

from lemonstand.evidence.paper import browser as program
from lemonstand.evidence.paper import print_pdf
from lemonstand.evidence.summary import render_summary
from sample_report import sample_report

Asked = Callable[[], list[str]]
DIGEST = "d" * 64
WIDE = """
const edge = document.body.getBoundingClientRect().right;
const past = each => each.getBoundingClientRect().right > edge + 1;
return Array.from(document.querySelectorAll('code, td, th')).filter(past).map(each => each.textContent);
"""
CROSSED = """
const over = each => each.scrollWidth > each.clientWidth + 1;
return Array.from(document.querySelectorAll('.fixed td')).filter(over).map(each => each.textContent);
"""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """The summary of the sample, whose names try to break out of it."""
    path = tmp_path / "summary.html"
    path.write_text(render_summary(sample_report(), DIGEST), encoding="utf-8")
    return path


def test_it_is_about_eight_sheets(page: Path, tmp_path: Path) -> None:
    found = program()
    assert found, "scripts/setup --browser installs it"
    print_pdf(found, page, tmp_path / "summary.pdf")
    paper = (tmp_path / "summary.pdf").read_bytes()
    assert 6 <= len(re.findall(rb"/Type\s*/Page\b", paper)) <= 9
    sizes = {(round(float(wide)), round(float(high))) for wide, high in re.findall(rb"/MediaBox\s*\[0 0 ([\d.]+) ([\d.]+)\]", paper)}
    assert len(sizes) == 1
    ((wide, high),) = sizes
    assert abs(wide - 595) <= 1, "A4 is 210 by 297 mm, in points of 1/72 inch"
    assert abs(high - 842) <= 1
    assert (tmp_path / "summary.pdf").stat().st_mode & 0o777 == 0o600


def test_sheets_have_numbers(page: Path) -> None:
    style = page.read_text(encoding="utf-8")
    assert 'counter(page) " of " counter(pages)' in style


def test_nothing_is_cut_and_no_network_is_asked(browser: Chrome, page: Path, asked: Asked) -> None:
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": 688, "height": 972, "deviceScaleFactor": 1, "mobile": False})
    try:
        browser.get(page.as_uri())
        assert browser.execute_script(WIDE) == []
        assert browser.execute_script(CROSSED) == []
        assert DIGEST in browser.execute_script("return document.body.textContent")
        assert [url for url in asked() if url != "about:blank"] == [page.as_uri()]
        assert browser.get_log("browser") == []
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
