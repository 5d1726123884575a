"""`lemonstand report`: where the page goes, who may read it, what is said if there is nothing to report."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lemonstand import cli
from sample_report import sample_report
from sample_site import sound_site, write_site


def call(site: Path, *words: str) -> Result:
    """Runs the command."""
    return CliRunner().invoke(cli.main, ["report", "--site", str(site), *words])


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A sound site."""
    return write_site(tmp_path / "site", sound_site())


@pytest.fixture
def evidence(tmp_path: Path) -> Path:
    """Evidence of some run."""
    path = tmp_path / "run" / "evidence.json"
    path.parent.mkdir()
    path.write_text(json.dumps(sample_report()), encoding="utf-8")
    return path


def test_the_page_lies_beside_the_evidence(site: Path, evidence: Path) -> None:
    result = call(site, "--evidence", str(evidence))
    page = evidence.with_name("report.html")
    assert (result.exit_code, result.output) == (0, f"report: {page}\n")
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert [path.name for path in sorted(evidence.parent.iterdir())] == ["evidence.json", "report.html"]


def test_it_goes_where_it_is_wanted(site: Path, evidence: Path, tmp_path: Path) -> None:
    page = tmp_path / "new" / "audit.html"
    assert call(site, "--evidence", str(evidence), "--output", str(page)).exit_code == 0
    assert page.is_file()
    assert not evidence.with_name("report.html").exists()


def test_evidence_alone_is_enough(evidence: Path) -> None:
    """Whoever was handed the file has neither the inventory nor the hosts."""
    assert call(Path("/nowhere"), "--evidence", str(evidence)).exit_code == 0


def test_without_evidence_it_says_what_makes_some(site: Path) -> None:
    result = call(site)
    assert result.exit_code == 2
    assert "lemonstand verify" in result.output


@pytest.mark.parametrize("text", ["no json", "{}", json.dumps({**sample_report(), "schema": 1})])
def test_what_is_no_evidence_is_refused_and_leaves_the_old_page(site: Path, evidence: Path, text: str) -> None:
    evidence.with_name("report.html").write_text("old", encoding="utf-8")
    evidence.write_text(text, encoding="utf-8")
    result = call(site, "--evidence", str(evidence))
    assert result.exit_code != 0
    assert "remedy" in result.output
    assert evidence.with_name("report.html").read_text(encoding="utf-8") == "old"


@pytest.mark.parametrize("found", [True, False])
def test_a_browser_is_asked_for_only_if_wanted(site: Path, evidence: Path, monkeypatch: pytest.MonkeyPatch, found: bool) -> None:
    asked: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda address: asked.append(address) or found)
    call(site, "--evidence", str(evidence))
    assert asked == []
    result = call(site, "--evidence", str(evidence), "--open")
    assert asked == [evidence.with_name("report.html").as_uri()]
    assert ("no browser" in result.output) is not found
