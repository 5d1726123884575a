"""The report in a browser: links lead somewhere, filters filter, a keyboard is enough, paper shows everything, no network is asked."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from lemonstand.evidence.report import render, state_of
from sample_report import CATALOGUE, sample_report

Asked = Callable[[], list[str]]
Open = Callable[..., str]
OVERLAPS = """
const boxes = Array.from(document.querySelectorAll('.picture svg text')).filter(each => each.textContent.trim()).map(each => {
  const box = each.getBBox();
  return {text: each.textContent, left: box.x, right: box.x + box.width, top: box.y, bottom: box.y + box.height};
});
const found = [];
for (const [at, one] of boxes.entries()) for (const two of boxes.slice(at + 1)) {
  const wide = Math.min(one.right, two.right) - Math.max(one.left, two.left);
  const high = Math.min(one.bottom, two.bottom) - Math.max(one.top, two.top);
  if (wide > 1 && high > 3) found.push(`${one.text} / ${two.text}`);
}
return found;
"""
OUTSIDE = """
return Array.from(document.querySelectorAll('.picture .box')).flatMap(group => {
  const end = each => each.getBBox().x + each.getBBox().width;
  const right = end(group.querySelector('rect'));
  return Array.from(group.querySelectorAll('text')).filter(text => end(text) > right).map(text => text.textContent);
});
"""


@pytest.fixture
def show(browser: Chrome, tmp_path: Path) -> Open:
    """Opens the report of the sample, or of other evidence, at a place of the page."""

    def go(evidence: dict[str, Any] | None = None, place: str = "") -> str:
        page = tmp_path / "report.html"
        page.write_text(render(evidence or sample_report(), CATALOGUE), encoding="utf-8")
        browser.get("about:blank")
        browser.get(page.as_uri() + place)
        return page.as_uri()

    return go


def _shown(browser: Chrome) -> list[str]:
    found: list[str] = browser.execute_script(
        "return Array.from(document.querySelectorAll('.control')).filter(c => !c.hidden).map(c => c.id)"
    )
    return found


def _pick(browser: Chrome, name: str, value: str) -> None:
    Select(browser.find_element(By.NAME, name)).select_by_value(value)


def test_it_asks_no_network_and_complains_of_nothing(browser: Chrome, show: Open, asked: Asked) -> None:
    address = show()
    browser.execute_script("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert [url for url in asked() if url != "about:blank"] == [address]
    assert browser.get_log("browser") == []


def test_what_it_forbids_is_forbidden(browser: Chrome, show: Open) -> None:
    """The page's own policy holds back what an escaped value would try."""
    show()
    browser.get_log("browser")
    browser.execute_script("const image = new Image(); image.src = 'http://192.0.2.1/x.png'; document.body.append(image)")
    browser.execute_script("const s = document.createElement('script'); s.textContent = 'window.broken = true'; document.body.append(s)")
    assert browser.execute_script("return window.broken === undefined")
    refused = [entry["message"] for entry in browser.get_log("browser") if "Content Security Policy" in entry["message"]]
    assert any("192.0.2.1" in message for message in refused)
    assert len(refused) == 2


def test_links_lead_to_something_that_is_shown(browser: Chrome, show: Open) -> None:
    show()
    lost = browser.execute_script("""
      return Array.from(document.querySelectorAll("a[href^='#']")).map(a => decodeURIComponent(a.getAttribute('href').slice(1)))
        .filter(id => !document.getElementById(id))""")
    assert lost == []
    assert not browser.find_elements(By.CSS_SELECTOR, "a:not([href^='#'])")


@pytest.mark.parametrize("place", ["LEM-4.2-01", "PRO-E2E-01", "mutant-break-something", "waiver-W1"])
def test_an_address_of_a_control_opens_it(browser: Chrome, show: Open, place: str) -> None:
    show(place=f"#{place}")
    target = browser.find_element(By.ID, place)
    assert browser.execute_script("return arguments[0].closest('details:not([open])') === null", target)
    assert browser.execute_script("const b = arguments[0].getBoundingClientRect(); return b.top >= 0 && b.top < innerHeight", target)


def test_a_link_shows_what_a_filter_hides(browser: Chrome, show: Open) -> None:
    show()
    _pick(browser, "status", "failed")
    assert "LEM-3-01" not in _shown(browser)
    browser.execute_script("location.hash = '#LEM-3-01'")
    browser.execute_async_script("setTimeout(arguments[0], 50)")
    assert "LEM-3-01" in _shown(browser)
    assert browser.find_element(By.ID, "LEM-3-01").get_attribute("open")


def test_filters_keep_what_they_say(browser: Chrome, show: Open) -> None:
    controls = sample_report()["controls"]
    show()
    assert _shown(browser) == [each["id"] for each in controls]
    _pick(browser, "status", "failed")
    assert _shown(browser) == [each["id"] for each in controls if each["status"] == "failed"]
    _pick(browser, "status", "")
    _pick(browser, "section", "4.2")
    _pick(browser, "level", "MUST")
    assert _shown(browser) == [each["id"] for each in controls if each["section"] == "4.2" and each["level"] == "MUST"]
    browser.find_element(By.CSS_SELECTOR, "button[type=reset]").click()
    browser.execute_async_script("setTimeout(arguments[0], 50)")
    _pick(browser, "kind", "scaled")
    assert _shown(browser) == [each["id"] for each in controls if "scaled" in each["classes"]]
    _pick(browser, "kind", "")
    _pick(browser, "host", "auth")
    results = {check["check"]: check["host"] for check in sample_report()["results"]}
    assert _shown(browser) == [each["id"] for each in controls if any(results.get(check) == "auth" for check in each["checks"])]
    assert browser.find_element(By.ID, "shown").text.startswith(f"{len(_shown(browser))} of {len(controls)}")


def test_a_search_finds_words_and_says_when_there_are_none(browser: Chrome, show: Open) -> None:
    show()
    search = browser.find_element(By.NAME, "q")
    search.send_keys("registered port imap")
    assert "LEM-3-01" in _shown(browser)
    assert len(_shown(browser)) < 10
    search.send_keys(" nowhere-to-be-found")
    assert _shown(browser) == []
    assert browser.find_element(By.ID, "nothing").is_displayed()


def test_tiles_set_the_filter(browser: Chrome, show: Open) -> None:
    show()
    browser.find_element(By.CSS_SELECTOR, ".tiles a[data-set='status=invalid']").click()
    expected = [each["id"] for each in sample_report()["controls"] if state_of(each) == "invalid"]
    assert _shown(browser) == expected


def test_a_keyboard_is_enough(browser: Chrome, show: Open) -> None:
    show()
    keys = ActionChains(browser)
    keys.send_keys("/").perform()
    assert browser.execute_script("return document.activeElement.name") == "q"
    keys.send_keys("burl/").perform()
    assert browser.find_element(By.NAME, "q").get_property("value") == "burl/"
    keys.send_keys(Keys.ESCAPE).perform()
    assert browser.find_element(By.NAME, "q").get_property("value") == ""
    assert browser.execute_script("return document.activeElement === document.body")
    summary = browser.find_element(By.CSS_SELECTOR, "[id='LEM-3-01'] > summary")
    browser.execute_script("arguments[0].focus()", summary)
    keys.send_keys(Keys.ENTER).perform()
    assert browser.find_element(By.ID, "LEM-3-01").get_attribute("open")


def test_tab_goes_through_the_page_and_out_of_it(browser: Chrome, show: Open) -> None:
    """In the order of the page, nothing twice, the last control reached."""
    show()
    _pick(browser, "status", "failed")
    browser.execute_script("""
      window.walked = []; document.activeElement.blur(); scrollTo(0, 0);
      document.addEventListener('focusin', event => window.walked.push(event.target));""")
    browser.execute_script("getSelection().removeAllRanges(); document.querySelector('.skip').focus()")
    for _ in range(60):
        ActionChains(browser).send_keys(Keys.TAB * 6).perform()
        if browser.execute_script(
            "return walked.includes(Array.from(document.querySelectorAll('.control:not([hidden]) > summary')).at(-1))"
        ):
            break
    else:
        pytest.fail("Tab never reached the last control")
    assert browser.execute_script("""
      const last = walked.indexOf(Array.from(document.querySelectorAll('.control:not([hidden]) > summary')).at(-1));
      const way = walked.slice(0, last + 1);
      return new Set(way).size === way.length
        && way.every((each, at) => at === 0 || way[at - 1].compareDocumentPosition(each) & Node.DOCUMENT_POSITION_FOLLOWING)""")


def test_a_way_in_the_picture_lights_up(browser: Chrome, show: Open) -> None:
    show()
    browser.execute_script("document.querySelector(\".way[data-way='1']\").focus()")
    assert browser.execute_script("return Array.from(document.querySelectorAll('svg .way.lit')).map(each => each.dataset.way)") == ["1"]
    assert browser.execute_script("return document.querySelectorAll('tr.lit').length") > 0
    browser.execute_script("document.activeElement.blur()")
    assert browser.execute_script("return document.querySelectorAll('.lit').length") == 0


def test_no_word_in_the_picture_lies_on_another(browser: Chrome, show: Open) -> None:
    show()
    assert browser.execute_script(OVERLAPS) == []
    assert browser.execute_script(OUTSIDE) == []


def test_a_half_finished_run_is_told_before_anything_else(browser: Chrome, show: Open) -> None:
    show(sample_report(complete=False))
    banner = browser.find_element(By.CSS_SELECTOR, ".banner.bad")
    assert banner.rect["y"] + banner.rect["height"] < 450
    assert "Half finished" in banner.text


@pytest.mark.parametrize("width", [320, 390, 768])
def test_narrow_screens_scroll_one_way(browser: Chrome, show: Open, width: int) -> None:
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False})
    try:
        show()
        browser.execute_script("document.querySelectorAll('.control').forEach(each => each.open = true)")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_dark_is_dark(browser: Chrome, show: Open) -> None:
    show()
    grounds = []
    for scheme in ("light", "dark"):
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
        colour = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        grounds.append(sum(int(part) for part in re.findall(r"\d+", colour)[:3]))
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert grounds[0] > 700
    assert grounds[1] < 150


def test_paper_shows_what_is_folded(browser: Chrome, show: Open) -> None:
    show()
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert browser.execute_script("return document.querySelectorAll('details:not([open])').length") == 0
    browser.execute_script("dispatchEvent(new Event('afterprint'))")
    assert browser.execute_script("return document.querySelectorAll('.control[open]').length") == 0
    _pick(browser, "status", "failed")
    few = _pages(browser)
    _pick(browser, "status", "")
    assert _pages(browser) > few + 10


def _pages(browser: Chrome) -> int:
    # Asked of the browser itself: the driver's own order to print gives up after 10 s, which a busy machine needs.
    paper = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert paper.startswith(b"%PDF-")
    return len(re.findall(rb"/Type\s*/Page\b", paper))


def test_it_can_be_read_without_script(browser: Chrome, show: Open) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        show()
        control = browser.find_element(By.ID, "LEM-3-01")
        assert control.is_displayed()
        control.find_element(By.TAG_NAME, "summary").click()
        assert "asked for by" in control.text
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
