"""A verification from end to end, with checks made up for the purpose: marks, outcomes, evidence, summary and exit code."""

from __future__ import annotations

import json
import os
import stat
import textwrap
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from lemonstand.errors import InputError, LemonstandError
from lemonstand.evidence import verify
from lemonstand.evidence.write import check_form

HEAD = """
import pytest
from lemonstand.checks import Invalid, expect, invalid, not_measurable

pytestmark = pytest.mark.answer("configuration")
"""


def run(tmp_path: Path, body: str, select: list[str] | None = None, keyword: str | None = None) -> tuple[int, dict[str, Any]]:
    """Verifies nothing but the checks in `body`; returns the exit code and the evidence."""
    checks = tmp_path / "checks"
    checks.mkdir(exist_ok=True)
    (checks / "test_topic.py").write_text(HEAD + textwrap.dedent(body), encoding="utf-8")
    code = verify(tmp_path, tmp_path / "out", select, keyword, checks=checks)
    return code, json.loads((tmp_path / "out" / "evidence.json").read_text(encoding="utf-8"))


def control(evidence: dict[str, Any], name: str) -> dict[str, Any]:
    return next(entry for entry in evidence["controls"] if entry["id"] == name)


def test_passes_leave_evidence(tmp_path: Path) -> None:
    code, evidence = run(
        tmp_path,
        """
        @pytest.mark.control("LEM-3-01", "LEM-3-02")
        def test_one(measure):
            measure("latency", 0.4, "s")

        @pytest.mark.control("LEM-3-01")
        @pytest.mark.answer("live")
        def test_two():
            pass
        """,
    )
    assert code == 0
    assert evidence["complete"] is True
    assert [result["outcome"] for result in evidence["results"]] == ["pass", "pass"]
    assert evidence["results"][0]["measured"] == [{"name": "latency", "value": 0.4, "unit": "s"}]
    assert control(evidence, "LEM-3-01") | {"statement": ""} == {
        "id": "LEM-3-01", "section": "3", "level": "MUST", "statement": "", "status": "pass", "class": "live",
        "classes": ["live", "configuration"], "checks": ["test_topic.py::test_one", "test_topic.py::test_two"],
    }  # fmt: skip
    assert control(evidence, "LEM-3-02")["class"] == "configuration"
    assert control(evidence, "LEM-3-03")["status"] == "unanswered"
    assert len(evidence["controls"]) == 138
    dated = list((tmp_path / "out" / "history").iterdir())
    assert [json.loads(path.read_text(encoding="utf-8")) for path in dated] == [evidence]
    assert stat.S_IMODE((tmp_path / "out" / "evidence.json").stat().st_mode) == 0o600
    assert not list(tmp_path.rglob("__pycache__"))
    assert not list(tmp_path.rglob(".pytest_cache"))


@pytest.mark.parametrize(
    ("body", "outcome", "word"),
    [
        ("assert 1 == 2", "fail", "1 == 2"),
        ("pytest.fail('no greeting')", "fail", "no greeting"),
        ("expect(False, 'too small', seen=3, expected=8)", "fail", "too small"),
        ("invalid('no capture')", "invalid", "no capture"),
        ("not_measurable('a container')", "not-measurable", "a container"),
        ("raise KeyError('x')", "invalid", "KeyError"),
        ("raise ConnectionError('gone')", "invalid", "gone"),
        ("pytest.skip('later')", "invalid", "must not skip"),
        ("pytest.xfail('known')", "invalid", "must not skip"),
    ],
)
def test_each_way_a_check_ends(tmp_path: Path, body: str, outcome: str, word: str) -> None:
    code, evidence = run(tmp_path, f"@pytest.mark.control('LEM-3-01')\ndef test_one():\n    {body}\n")
    (result,) = evidence["results"]
    assert result["outcome"] == outcome
    assert word in result["message"]
    assert control(evidence, "LEM-3-01")["status"] == outcome
    assert code == (0 if outcome == "not-measurable" else 1)
    case = ET.parse(tmp_path / "out" / "junit.xml").getroot().find(".//testcase")  # noqa: S314 - we wrote it
    tag = {"fail": "failure", "invalid": "error", "not-measurable": "skipped"}[outcome]
    assert case is not None and case.find(tag) is not None


def test_a_fixture_that_breaks_is_no_failure_of_the_site(tmp_path: Path) -> None:
    code, evidence = run(
        tmp_path,
        """
        @pytest.fixture
        def before():
            assert False, "the probe did not start"

        @pytest.fixture
        def after():
            yield
            raise OSError("the probe did not stop")

        @pytest.mark.control("LEM-3-01")
        def test_before(before):
            pass

        @pytest.mark.control("LEM-3-02")
        def test_after(after):
            pass

        @pytest.mark.control("LEM-3-03")
        def test_fails_and_breaks_after(after):
            assert False, "closed"
        """,
    )
    assert code == 1
    assert [result["outcome"] for result in evidence["results"]] == ["invalid", "invalid", "fail"]
    assert "closed" in evidence["results"][2]["message"]


def test_the_summary_says_what_was_seen_and_what_to_do(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(
        tmp_path,
        """
        @pytest.mark.control("LEM-7-01")
        @pytest.mark.parametrize("edge", ["border"])
        def test_timeout(edge):
            expect(False, "forgets too early", seen="3600 s", expected="established >= 7440", remedy="raise it")

        @pytest.mark.control("LEM-7-03")
        def test_other():
            assert 60 >= 7440
        """,
    )
    said = " ".join(capfd.readouterr().out.split())
    assert "FAILED test_topic.py::test_timeout[border] on border" in said
    assert "LEM-7-01 MUST An idle established connection" in said
    assert "seen: 3600 s expected: established >= 7440 why: forgets too early remedy: raise it" in said
    assert "lemonstand apply sets it; it comes from timer:fin_wait" in said
    assert "2 checks in 0 s: 0 passed, 2 failed, 0 invalid, 0 not measurable here; 0 of 138 controls hold" in said
    assert f"evidence: {tmp_path / 'out' / 'evidence.json'}" in said


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ("@pytest.mark.control('LEM-9-99')\ndef test_one(): pass", "there is no control 'LEM-9-99'"),
        ("def test_one(): pass", "mark it with control()"),
        ("@pytest.mark.control('LEM-3-01')\n@pytest.mark.answer('sure')\ndef test_one(): pass", "mark it with answer()"),
    ],
)
def test_checks_without_their_marks_are_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str], body: str, word: str) -> None:
    with pytest.raises(LemonstandError, match="refused"):
        run(tmp_path, body)
    assert word in capfd.readouterr().err
    assert not (tmp_path / "out" / "evidence.json").exists()


def test_a_module_that_can_not_be_read_is_no_pass(tmp_path: Path) -> None:
    with pytest.raises(LemonstandError, match="without evidence"):
        run(tmp_path, "import nothing_of_this_name")


def test_an_interrupted_run_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, evidence = run(
        tmp_path,
        """
        @pytest.mark.control("LEM-3-01")
        def test_one():
            pass

        @pytest.mark.control("LEM-3-02")
        def test_two():
            raise KeyboardInterrupt
        """,
    )
    assert code == 130
    assert evidence["complete"] is False
    assert control(evidence, "LEM-3-01")["status"] == "pass"
    assert control(evidence, "LEM-3-02")["status"] != "pass"
    assert "interrupted" in capfd.readouterr().out


TWO = """
@pytest.mark.control("LEM-3-01")
def test_one(): pass

@pytest.mark.control("LEM-7-01")
def test_two(): pass
"""


@pytest.mark.parametrize(
    ("select", "keyword", "names"),
    [
        (["LEM-7-*"], None, ["test_two"]),
        (["LEM-3-01"], None, ["test_one"]),
        (["topic"], None, ["test_one", "test_two"]),
        (None, "two", ["test_two"]),
    ],
)
def test_selection(tmp_path: Path, select: list[str] | None, keyword: str | None, names: list[str]) -> None:
    code, evidence = run(tmp_path, TWO, select, keyword)
    assert code == 0
    assert [result["check"].split("::")[1] for result in evidence["results"]] == names
    assert evidence["selection"] == {"controls": select or [], "keyword": keyword or ""}


@pytest.mark.parametrize(("select", "keyword"), [(["LEM-9-*"], None), (["LEM-8-01"], None), (None, "three")])
def test_a_selection_of_nothing_is_an_error(tmp_path: Path, select: list[str] | None, keyword: str | None) -> None:
    with pytest.raises(InputError):
        run(tmp_path, TWO, select, keyword)


def test_old_evidence_is_never_taken_for_new(tmp_path: Path) -> None:
    run(tmp_path, TWO)
    with pytest.raises(LemonstandError):
        run(tmp_path, "import nothing_of_this_name")


def test_options_of_the_user_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "-k nothing --maxfail=1")
    code, evidence = run(tmp_path, TWO)
    assert (code, len(evidence["results"])) == (0, 2)
    assert os.environ["PYTEST_ADDOPTS"]


def test_the_schema_holds_the_form(tmp_path: Path) -> None:
    _, evidence = run(tmp_path, TWO)
    check_form(evidence)
    for spoil in (
        {"schema": 2},
        {"started": "yesterday"},
        {"results": [{**evidence["results"][0], "outcome": "skipped"}]},
        {"results": [{**evidence["results"][0], "outcome": "fail"}]},  # a failure without a message
        {"controls": [{**evidence["controls"][0], "checks": []}]},  # a pass that nothing answers
        {"extra": 1},
    ):
        with pytest.raises(LemonstandError, match="breaks its schema"):
            check_form({**evidence, **spoil})
