"""A verification from end to end, with checks made up for the purpose: marks, outcomes, evidence, summary and exit code."""

from __future__ import annotations

import json
import os
import re
import stat
import textwrap
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from lemonstand.errors import InputError, LemonstandError
from lemonstand.evidence import Selection, verify
from lemonstand.evidence.model import NO_CHECK
from lemonstand.evidence.write import check_form
from lemonstand.policy.controls import load_controls

HEAD = """
import pytest
from lemonstand.outcomes import Invalid, NotApplicable, NotMeasured, expect, invalid, not_measurable

pytestmark = pytest.mark.answer("configuration")
"""


def run(tmp_path: Path, body: str, selection: Selection | None = None, *, merge: bool = False) -> tuple[int, dict[str, Any]]:
    """Verifies nothing but the checks in `body`; returns the exit code and the evidence."""
    checks, site = tmp_path / "checks", tmp_path / "site"
    checks.mkdir(exist_ok=True)
    site.mkdir(exist_ok=True)
    (checks / "test_topic.py").write_text(HEAD + textwrap.dedent(body), encoding="utf-8")
    code = verify(site, tmp_path / "out", selection, merge=merge, checks=checks, plugins=("lemonstand.breaking.trials",))
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
    assert evidence["results"][0]["measured"] == [{"name": "latency", "value": 0.4, "unit": "s", "volatile": True}]
    found = control(evidence, "LEM-3-01")
    assert (found["status"], found["class"], found["classes"]) == ("proven", "live", ["live", "configuration"])
    assert found["checks"] == ["test_topic.py::test_one", "test_topic.py::test_two"]
    assert "imap-on-another-port" in found["mutants"]
    assert found["binds"] == ["edge", "frontend", "store"]
    assert control(evidence, "LEM-3-02")["class"] == "configuration"
    assert (control(evidence, "LEM-3-03")["status"], control(evidence, "LEM-3-03")["reason"]) == ("not-measured", NO_CHECK)
    assert len(evidence["controls"]) == len(load_controls().controls)
    dated = list((tmp_path / "out" / "history").iterdir())
    assert [json.loads(path.read_text(encoding="utf-8")) for path in dated] == [evidence]
    assert stat.S_IMODE((tmp_path / "out" / "evidence.json").stat().st_mode) == 0o600
    assert not list(tmp_path.rglob("__pycache__"))
    assert not list(tmp_path.rglob(".pytest_cache"))


WAYS: dict[int, list[tuple[str, str, str, str]]] = {
    1: [
        ("assert 1 == 2", "fail", "failed", "1 == 2"),
        ("pytest.fail('no greeting')", "fail", "failed", "no greeting"),
        ("expect(False, 'too small', seen=3, expected=8)", "fail", "failed", "too small"),
    ],
    2: [
        ("invalid('no capture')", "invalid", "invalid", "no capture"),
        ("raise KeyError('x')", "invalid", "invalid", "KeyError"),
        ("raise ConnectionError('gone')", "invalid", "invalid", "gone"),
        ("pytest.skip('later')", "invalid", "invalid", "must not skip"),
        ("pytest.xfail('known')", "invalid", "invalid", "must not skip"),
    ],
    0: [
        ("not_measurable('a container')", "not-measurable", "not-measurable", "a container"),
        ("raise NotMeasured('no host outside')", "not-measured", "not-measured", "no host outside"),
        ("raise NotApplicable('no edge')", "not-applicable", "not-measurable", "no edge"),
    ],
}
"""By the exit code that each brings alone: the check, its outcome, its control's status, a word of the message."""


@pytest.mark.parametrize("wanted", WAYS)
def test_each_way_a_check_ends(tmp_path: Path, wanted: int) -> None:
    names = [each.id for each in load_controls().controls[: len(WAYS[wanted])]]
    bodies = [
        f"@pytest.mark.control('{name}')\ndef test_{at}():\n    {way[0]}\n"
        for at, (name, way) in enumerate(zip(names, WAYS[wanted], strict=True))
    ]
    code, evidence = run(tmp_path, "\n".join(bodies))
    assert code == wanted
    cases = {case.get("name"): case for case in ET.parse(tmp_path / "out" / "junit.xml").getroot().iter("testcase")}  # noqa: S314 - we wrote it
    for at, (name, result, (body, outcome, status, word)) in enumerate(zip(names, evidence["results"], WAYS[wanted], strict=True)):
        assert result["outcome"] == outcome, body
        assert word in result["message"], body
        assert control(evidence, name)["status"] == status, body
        tag = {"fail": "failure", "invalid": "error"}.get(outcome, "skipped")
        assert cases[f"test_{at}"].find(tag) is not None, body


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
    assert re.search(r"2 checks in \d s: 0 passed, 2 failed, 0 could not measure, 0 had nothing to measure here", said)
    assert f"{len(load_controls().controls)} controls: 0 proven, 2 failed" in said
    assert "2 failed" in said
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
    assert control(evidence, "LEM-3-01")["status"] == "proven"
    assert control(evidence, "LEM-3-02")["status"] != "proven"
    assert "interrupted: this is half a verification" in capfd.readouterr().out


TWO = """
@pytest.mark.control("LEM-3-01")
def test_one(): pass

@pytest.mark.control("LEM-7-01")
def test_two(): pass

@pytest.mark.control("LEM-4-04a")
def test_three(): pass
"""


@pytest.mark.parametrize(
    ("selection", "names"),
    [
        (Selection(controls=["LEM-7-*"]), ["test_two"]),
        (Selection(controls=["LEM-3-01"]), ["test_one"]),
        (Selection(controls=["LEM-4-04"]), ["test_three"]),  # it is made of LEM-4-04a and others
        (Selection(controls=["topic"]), ["test_one", "test_two", "test_three"]),
        (Selection(sections=["7"]), ["test_two"]),
        (Selection(sections=["3", "7"]), ["test_one", "test_two"]),
        (Selection(hosts=["border"]), ["test_two[border]"]),
        (Selection(keyword="two"), ["test_two"]),
    ],
)
def test_selection(tmp_path: Path, selection: Selection, names: list[str]) -> None:
    body = TWO if not selection.hosts else TWO.replace("def test_two()", "@pytest.mark.parametrize('edge', ['border'])\ndef test_two(edge)")
    code, evidence = run(tmp_path, body, selection)
    assert code == 0
    assert [result["check"].split("::")[1] for result in evidence["results"]] == names
    assert evidence["runs"][0]["selection"] == {
        "controls": list(selection.controls),
        "sections": list(selection.sections),
        "hosts": list(selection.hosts),
        "keyword": selection.keyword,
    }
    if names == ["test_two"]:
        left = control(evidence, "LEM-3-01")
        assert (left["status"], left["awaits"]) == ("not-measured", ["selection"])


@pytest.mark.parametrize(
    "selection", [Selection(["LEM-9-*"]), Selection(["LEM-8-01"]), Selection(sections=["12"]), Selection(keyword="four")], ids=str
)
def test_a_selection_of_nothing_is_an_error(tmp_path: Path, selection: Selection) -> None:
    with pytest.raises(InputError):
        run(tmp_path, TWO, selection)


def test_old_evidence_is_never_taken_for_new(tmp_path: Path) -> None:
    run(tmp_path, TWO)
    with pytest.raises(LemonstandError):
        run(tmp_path, "import nothing_of_this_name")


def test_options_of_the_user_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "-k nothing --maxfail=1")
    code, evidence = run(tmp_path, TWO)
    assert (code, len(evidence["results"])) == (0, 3)
    assert os.environ["PYTEST_ADDOPTS"]


def test_the_schema_holds_the_form(tmp_path: Path) -> None:
    _, evidence = run(tmp_path, TWO)
    check_form(evidence)
    for spoil in (
        {"schema": 1},
        {"started": "yesterday"},
        {"results": [{**evidence["results"][0], "outcome": "skipped"}]},
        {"results": [{**evidence["results"][0], "outcome": "fail"}]},  # a failure without a message
        {"controls": [{**evidence["controls"][0], "checks": []}]},  # proven, and nothing answers it
        {"controls": [{**evidence["controls"][0], "status": "failed"}]},  # without a reason
        {"extra": 1},
    ):
        with pytest.raises(LemonstandError, match="breaks its schema"):
            check_form({**evidence, **spoil})


LATER = """
@pytest.mark.control("LEM-3-01")
def test_calm(): pass

@pytest.mark.disruptive
@pytest.mark.control("LEM-4-01")
@pytest.mark.answer("live")
def test_outage(): pass

@pytest.mark.soak
@pytest.mark.control("LEM-5-04")
@pytest.mark.answer("live")
def test_hours(): pass
"""


def test_what_waits_for_another_run_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, evidence = run(tmp_path, LATER)
    assert code == 0
    assert control(evidence, "LEM-4-01")["awaits"] == ["disruptive"]
    assert control(evidence, "LEM-5-04")["awaits"] == ["soak"]
    assert "2 awaiting `verify --disruptive` or `make soak`" in " ".join(capfd.readouterr().out.split())


def test_runs_are_put_together_while_the_state_is_the_same(tmp_path: Path) -> None:
    run(tmp_path, LATER, merge=True)
    run(tmp_path, LATER, Selection(disruptive=True, keyword="outage"), merge=True)
    code, evidence = run(tmp_path, LATER, Selection(soak=60, keyword="hours"), merge=True)
    assert code == 0
    assert [(each["kind"], each["results"]) for each in evidence["runs"]] == [("soak", 1), ("disruptive", 1), ("plain", 1)]
    assert [control(evidence, name)["class"] for name in ("LEM-3-01", "LEM-4-01", "LEM-5-04")] == ["configuration", "live", "scaled"]
    assert not evidence["dropped"]
    assert len(list((tmp_path / "out" / "history").iterdir())) == 3
    times = {result["check"]: result["time"] for result in evidence["results"]}
    _, again = run(tmp_path, LATER, Selection(keyword="calm"), merge=True)
    newer = {result["check"]: result["time"] for result in again["results"]}
    assert {check for check in times if times[check] != newer[check]} == {"test_topic.py::test_calm"}
    assert [each["kind"] for each in again["runs"]] == ["plain", "soak", "disruptive"]


def test_results_of_another_state_are_dropped_and_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, LATER, Selection(disruptive=True), merge=True)
    (tmp_path / "site" / "hosts.yml").write_text("all: {}", encoding="utf-8")
    _, evidence = run(tmp_path, LATER, merge=True)
    assert [result["check"] for result in evidence["results"]] == ["test_topic.py::test_calm"]
    (dropped,) = evidence["dropped"]
    assert (dropped["run"], dropped["results"], dropped["reason"]) == ("disruptive", 1, "the inventory changed")
    assert control(evidence, "LEM-4-01")["status"] == "not-measured"
    assert "dropped: 1 results of disruptive" in capfd.readouterr().out


def test_what_was_asked_is_kept(tmp_path: Path) -> None:
    _, evidence = run(
        tmp_path,
        """
        from lemonstand.observations import note

        @pytest.fixture(scope="module")
        def silent():
            return 1

        @pytest.fixture(scope="module")
        def shared(request):
            request.getfixturevalue("silent")  # asks nothing, and takes nothing away
            note("command", "store", "uptime", "up 3 days")
            return 3

        @pytest.mark.control("LEM-3-01")
        def test_one(shared):
            note("setting", "store", "sysctl net.ipv4.ip_forward", 0)

        @pytest.mark.control("LEM-3-02")
        def test_two(shared):
            note("packets", "handset", "probe reach", ["x" * 999])
        """,
    )
    first, second = (result["asked"] for result in evidence["results"])
    assert [each["what"] for each in first] == ["uptime", "sysctl net.ipv4.ip_forward"]
    assert [each["what"] for each in second] == ["uptime", "probe reach"]
    assert first[1] == {"how": "setting", "host": "store", "what": "sysctl net.ipv4.ip_forward", "answer": "0"}
    assert len(second[1]["answer"]) < 300


def test_tables_and_series_are_kept(tmp_path: Path) -> None:
    _, evidence = run(
        tmp_path,
        """
        @pytest.mark.control("LEM-8-06")
        def test_one(table, series):
            table("cells", ["from", "to", "open"], [("handset", "store", False)])
            series("packets", [(0.0001, 60), (1740.2, 71)], "B")
        """,
    )
    (result,) = evidence["results"]
    assert result["tables"] == [{"name": "cells", "columns": ["from", "to", "open"], "rows": [["handset", "store", False]]}]
    assert result["series"] == [{"name": "packets", "unit": "B", "points": [[0.0, 60], [1740.2, 71]]}]


def test_no_secret_gets_in(tmp_path: Path) -> None:
    """Canaries of every form a secret has, in every place a check can write."""
    canaries = {
        "key": "-----BEGIN PRIVATE KEY-----\\nMIIcanary\\n-----END PRIVATE KEY-----",
        "ticket": "eyJhbGciOiJSUzI1NiJ9.eyJjYW5hcnkiOjF9.Y2FuYXJ5c2lnbmF0dXJl",
        "hash": "{ARGON2}$argon2id$v=19$m=65536,t=2,p=1$Y2FuYXJ5Y2FuYXJ5$Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5",
        "url": "imap://u@h/INBOX/;uid=1;urlauth=user+u:internal:0123456789abcdef0123456789abcdef",
        "plain": "AUTH PLAIN AGNhbmFyeQBjYW5hcnk=",
    }
    _, evidence = run(
        tmp_path,
        f"""
        CANARIES = {canaries!r}

        @pytest.mark.control("LEM-3-01")
        @pytest.mark.parametrize("kind", list(CANARIES))
        def test_one(kind, measure, table):
            from lemonstand.observations import note

            text = CANARIES[kind].replace("\\\\n", chr(10))
            measure("seen", text)
            measure(text, 1)
            note("command", "store", f"echo {{text}}", text)
            table("rows", ["text"], [[text]])
            expect(False, text, seen=text, expected=text, remedy=text)
        """,
    )
    assert len(evidence["results"]) == len(canaries)
    written = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "out").rglob("*") if path.is_file())
    for canary in ("MIIcanary", "Y2FuYXJ5", "0123456789abcdef0123", "AGNhbmFyeQBjYW5hcnk", "canarysignature"):
        assert canary not in written, canary
    assert "(hidden)" in written


def test_a_selection_answers_for_itself(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    body = """
        @pytest.mark.control("LEM-3-01")
        def test_good(): pass

        @pytest.mark.control("LEM-3-02")
        def test_bad(): assert False, "closed"
    """
    assert run(tmp_path, body, merge=True)[0] == 1
    capfd.readouterr()
    code, evidence = run(tmp_path, body, Selection(keyword="good"), merge=True)
    assert code == 0
    assert control(evidence, "LEM-3-02")["status"] == "failed", "it still stands in the evidence"
    assert "FAILED" not in capfd.readouterr().out


def test_what_varies_is_marked(tmp_path: Path) -> None:
    body = """
        @pytest.mark.control("LEM-3-01")
        @pytest.mark.answer("{kind}")
        def test_one(measure):
            measure("number", 7)
            measure("fraction", 0.5)
            measure("answer", True)
            measure("fixed", "TLSv1.3", volatile=False)
        """
    for kind, volatile in (("live", {"number", "fraction"}), ("configuration", {"fraction"})):
        _, evidence = run(tmp_path, body.format(kind=kind))
        assert {each["name"] for each in evidence["results"][0]["measured"] if each["volatile"]} == volatile
