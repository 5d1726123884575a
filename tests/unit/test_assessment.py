"""What auditors are given: each control has one severity, mappings lead to ids that exist, every form says the same and all of it."""

from __future__ import annotations

import copy
import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from trestle.oscal.assessment_plan import Model as PlanModel
from trestle.oscal.assessment_results import Model as ResultsModel
from trestle.oscal.catalog import Model as CatalogModel
from trestle.oscal.profile import Model as ProfileModel

from lemonstand.cli import main
from lemonstand.errors import LemonstandError
from lemonstand.evidence.assessed import assess
from lemonstand.evidence.heimdall import heimdall
from lemonstand.evidence.model import CLASSES, HEADLINE, STATUSES, headline
from lemonstand.evidence.oscal import CATALOG, PLAN, PROFILE, RESULTS, documents
from lemonstand.evidence.report import verdict
from lemonstand.evidence.show import one_line
from lemonstand.evidence.summary import render_summary
from lemonstand.evidence.table import table
from lemonstand.policy.assessment import ASSESSMENT, Assessment, load_assessment
from lemonstand.policy.controls import load_controls
from lemonstand.policy.text import read_yaml
from sample_evidence import evidence, results
from sample_report import HOSTILE, sample_report

DIGEST = "d" * 64
MODELS = {CATALOG: CatalogModel, PROFILE: ProfileModel, PLAN: PlanModel, RESULTS: ResultsModel}


def test_each_control_has_one_severity() -> None:
    assessment = load_assessment()
    decided = Counter(name for rule in assessment.severity for name in rule.controls)
    assert set(decided) == set(load_controls().by_id())
    assert set(decided.values()) == {1}


def test_mappings_are_about_controls_and_ids_that_exist() -> None:
    assessment = load_assessment()
    assert set(assessment.mappings) <= set(load_controls().by_id())
    for key, framework in assessment.frameworks.items():
        for control in assessment.mappings:
            for name in assessment.mapped(control, key):
                assert re.fullmatch(framework.form, name)
                assert framework.ids[name]
    assert not assessment.mapped("LEM-4.1-06", "nist"), "what is about sleep has no counterpart there"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda data: data["mappings"]["LEM-8-06"]["nist"].append("SC-99"), "SC-99"),
        (lambda data: data["frameworks"]["iso"]["ids"].update({"A.8.23": "Web filtering"}), r"A\.8\.23"),
        (lambda data: data["frameworks"]["nist"].update({"form": "[a-z]+"}), "no ids such as"),
        (lambda data: data["mappings"].update({"LEM-8-06": {"pci": ["1.1"]}}), "pci|differ"),
        (lambda data: data["severity"][0].update({"controls": "LEM-3-05"}), "two severities: LEM-3-05"),
        (lambda data: data["severity"][0].update({"level": "severe"}), "level"),
    ],
)
def test_spoilt_data_is_refused(spoil: Any, words: str) -> None:
    data = copy.deepcopy(read_yaml(ASSESSMENT))
    spoil(data)
    with pytest.raises(ValidationError, match=words):
        Assessment.model_validate(data)


COUNTS = st.fixed_dictionaries({name: st.integers(0, 200) for name in STATUSES})


@given(tally=COUNTS, split=st.tuples(st.integers(0, 200), st.integers(0, 200)))
def test_the_headline_leaves_nothing_out(tally: dict[str, int], split: tuple[int, int]) -> None:
    """The numbers of a headline sum up to the number of controls, whatever came out."""
    proven = tally["proven"]
    live = min(split[0], proven)
    scaled = min(split[1], proven - live)
    count = {**tally, "controls": sum(tally.values()), **dict(zip(CLASSES, (live, scaled, proven - live - scaled), strict=True))}
    said = headline(count)
    first, _, rest = said.partition(" controls: ")
    outside = re.sub(r"\([^)]*\)", "", rest)
    assert int(first) == sum(map(int, re.findall(r"\d+", outside))) == count["controls"]
    inside = re.search(r"\(([^)]*)\)", rest)
    assert sum(map(int, re.findall(r"\d+", inside[1] if inside else "0"))) == proven


def test_every_form_has_the_headline() -> None:
    document = sample_report()
    said = headline(document["counts"])
    assert set(HEADLINE) == set(STATUSES)
    assert one_line(document).startswith(said)
    assert verdict(document) == said.replace("controls", "requirements", 1) + "."
    assert f"{said}." in render_summary(document, DIGEST)
    assert documents(document)[RESULTS]["assessment-results"]["results"][0]["description"] == f"{said}."


def test_the_summary_cuts_no_hash_and_has_a_place_to_sign() -> None:
    document = sample_report()
    text = render_summary(document, DIGEST)
    hashes = {DIGEST, document["inventory"], document["code"]["sha256"], document["code"]["commit"]}
    hashes |= {host["state"] for host in document["hosts"].values()}
    assert all(each in text for each in hashes)
    assert "…" not in re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)
    assert HOSTILE.split(" {{")[0] not in text
    for word in ("Jane Doe", "signature", "place, date", "proposed", "partner-mail", "INV-1", "accepted by somebody, 2026-11-25"):
        assert word in text
    for control in document["controls"]:
        assert control["id"] in text
    assert text.count("<script") == 0
    assert text == render_summary(document, DIGEST)
    assert "half a" not in text
    assert "Half finished" in render_summary(sample_report(complete=False), DIGEST)


def test_older_evidence_is_told_without_what_it_does_not_say() -> None:
    document = sample_report()
    for name in ("deviations", "assessment"):
        del document[name]
    del document["policy"]["invariants"]
    for each in document["waivers"]:
        del each["accepted"]
    for each in document["policy"]["flows"]:
        del each["origin"]
    text = render_summary(document, DIGEST)
    assert "not told" in text
    assert "proposed" not in text.partition("<h2>Deviations")[2].partition("</table>")[0].replace("is proposed; it holds", "")
    assert table(document, load_assessment())
    assert heimdall(document, load_assessment())
    risks = documents(document)[RESULTS]["assessment-results"]["results"][0]["risks"]
    assert {risk["status"] for risk in risks} == {"deviation-approved"}


def test_the_table_has_a_row_for_each_control() -> None:
    document = sample_report()
    document["controls"][0]["reason"] = "=HYPERLINK(1)"
    rows = list(csv.DictReader(io.StringIO(table(document, load_assessment()))))
    assert [row["id"] for row in rows] == [control["id"] for control in document["controls"]]
    assert [row["status"] for row in rows] == [control["status"] for control in document["controls"]]
    assert {row["severity"] for row in rows} == {"critical", "high", "medium", "low"}
    assert rows[0]["reason"] == "'=HYPERLINK(1)", "no spreadsheet takes it for a formula"
    by_id = {row["id"]: row for row in rows}
    assert by_id["LEM-8-06"]["nist"].split() == ["AC-4", "SC-7", "SC-7(5)"]
    assert by_id["PRO-SUB-09"]["deviations"] == "PRO-W1 (proposed)"
    assert by_id["LEM-5-02"]["deviations"].startswith("TIMER-NAT-HOSTILE-IDLE-NOTIFY (accepted by ")
    looked = next(row for row in rows if row["checks"])
    assert looked["first_seen"] <= looked["last_seen"]
    assert looked["runs"] == "plain"


def test_first_and_last_seen_are_the_ends_of_what_looked() -> None:
    made = results()
    made[1].controls, made[1].time = ("LEM-3-01",), "2026-11-25T09:00:59.000Z"
    (row,) = [each for each in assess(evidence(made), load_assessment()) if each.id == "LEM-3-01"]
    assert row.seen == ("2026-11-25T09:00:01.000Z", "2026-11-25T09:00:59.000Z")


# Heimdall


def _as_heimdall(control: dict[str, Any]) -> str:
    """How Heimdall works out a control's status, from what HDF says of it."""
    words = {result["status"] for result in control["results"]}
    if "error" in words:
        return "Profile Error"
    if control.get("waiver_data", {}).get("skipped_due_to_waiver") or control["impact"] == 0:
        return "Not Applicable"
    return next((name for word, name in (("failed", "Failed"), ("passed", "Passed"), ("skipped", "Not Reviewed")) if word in words), "none")


MEANS = {
    "proven": "Passed", "failed": "Failed", "invalid": "Profile Error", "waived": "Not Applicable", "not-applicable": "Not Applicable",
    "not-measurable": "Not Reviewed", "not-measured": "Not Reviewed",
}  # fmt: skip


@pytest.mark.parametrize("document", [sample_report(), evidence()], ids=["report", "evidence"])
def test_heimdall_shows_what_the_evidence_says(document: dict[str, Any]) -> None:
    """A control that is not proven never shows as passed, though some of its checks passed."""
    made = heimdall(document, load_assessment())
    shown = {control["id"]: _as_heimdall(control) for control in made["profiles"][0]["controls"]}
    assert shown == {control["id"]: MEANS[control["status"]] for control in document["controls"]}


def test_a_part_that_passed_makes_no_control_pass() -> None:
    document = sample_report()
    control = next(each for each in document["controls"] if each["status"] == "not-measurable")
    passed = next(each for each in document["results"] if each["outcome"] == "pass")
    control["checks"].append(passed["check"])
    made = next(each for each in heimdall(document, load_assessment())["profiles"][0]["controls"] if each["id"] == control["id"])
    assert _as_heimdall(made) == "Not Reviewed"
    assert any(result["skip_message"].startswith("pass: ") for result in made["results"])


def test_a_document_that_breaks_the_form_is_refused() -> None:
    document = sample_report()
    document["code"]["sha256"] = "short"
    with pytest.raises(LemonstandError, match="Heimdall breaks its schema"):
        heimdall(document, load_assessment())


# OSCAL


def _values(data: Any, name: str) -> Iterator[Any]:
    """All values under a key, at any depth."""
    if isinstance(data, dict):
        for key, value in data.items():
            if key == name:
                yield value
            yield from _values(value, name)
    elif isinstance(data, list):
        for each in data:
            yield from _values(each, name)


def _unresolved(made: dict[str, dict[str, Any]]) -> list[str]:
    """References that lead nowhere."""
    catalog = made[CATALOG]["catalog"]
    controls = [control for group in catalog["groups"] for control in group["controls"]]
    ids = {control["id"] for control in controls}
    objectives = {part["id"] for control in controls for part in control["parts"] if part["name"] == "assessment-objective"}
    lost = []
    for file, document in made.items():
        uuids = set(_values(document, "uuid"))
        roles = {role["id"] for each in _values(document, "roles") for role in each}
        for key in ("observation-uuid", "risk-uuid", "subject-uuid", "component-uuid"):
            lost += [f"{file} {key} {each}" for each in _values(document, key) if each not in uuids]
        lost += [f"{file} party {each}" for listed in _values(document, "party-uuids") for each in listed if each not in uuids]
        lost += [f"{file} role {each}" for each in _values(document, "role-id") if each not in roles]
        lost += [f"{file} control {each}" for each in _values(document, "control-id") if each not in ids]
        lost += [f"{file} control {each}" for listed in _values(document, "with-ids") for each in listed if each not in ids]
        lost += [
            f"{file} objective {each}" for key in ("objective-id", "target-id") for each in _values(document, key) if each not in objectives
        ]
        lost += [
            f"{file} href {each}"
            for each in _values(document, "href")
            if (each[1:] not in uuids if each.startswith("#") else each not in made)
        ]
    return lost


@pytest.mark.parametrize("document", [sample_report(), evidence(), evidence([], hosts={}, waivers=[])], ids=["report", "evidence", "empty"])
def test_every_reference_of_oscal_resolves(document: dict[str, Any]) -> None:
    made = documents(document)
    assert list(made) == [CATALOG, PROFILE, PLAN, RESULTS]
    for name, model in MODELS.items():
        model.parse_obj(made[name])
    assert _unresolved(made) == []
    for one in made.values():
        every = list(_values(one, "uuid"))
        assert len(every) == len(set(every)), "no identifier is given twice"
    assert made == documents(copy.deepcopy(document))


@pytest.mark.parametrize("key", ["observations", "risks", "local-definitions"])
def test_a_reference_that_leads_nowhere_is_found(key: str) -> None:
    made = documents(sample_report())
    del made[RESULTS]["assessment-results"]["results"][0][key]
    assert _unresolved(made)


def test_oscal_says_whose_word_a_deviation_is() -> None:
    made = documents(sample_report())
    (result,) = made[RESULTS]["assessment-results"]["results"]
    status = {risk["title"].partition(":")[0]: risk["status"] for risk in result["risks"]}
    assert status == {"W1": "deviation-approved", "PRO-W1": "deviation-requested", "TIMER-NAT-HOSTILE-IDLE-NOTIFY": "deviation-approved"}
    own = [
        each["title"]
        for each in result["local-definitions"]["components"]
        if {"name": "origin", "value": "site"}.items()
        <= {k: v for prop in each["props"] if prop["name"] == "origin" for k, v in prop.items()}.items()
    ]
    assert own == ["partner-mail"]
    assert made[PLAN]["assessment-plan"]["metadata"]["parties"][0]["name"] == "Jane Doe"


# the commands


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Evidence of some run."""
    path = tmp_path / "run" / "evidence.json"
    path.parent.mkdir()
    path.write_text(json.dumps(sample_report()), encoding="utf-8")
    return path


def test_each_form_has_its_file(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lemonstand.evidence.paper.BROWSERS", ())
    for word, name in (("--summary", "summary.html"), ("--csv", "controls.csv"), ("--heimdall", "heimdall.json")):
        done = CliRunner().invoke(main, ["report", "--evidence", str(source), word])
        assert done.exit_code == 0, done.output
        assert str(source.with_name(name)) in done.output
        assert source.with_name(name).stat().st_mode & 0o777 == 0o600
        assert ("no Chromium was found" in done.output) is (word == "--summary")


def test_a_browser_that_prints_nothing_is_named(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "chromium"
    program.write_text("#!/bin/sh\necho no display >&2\nexit 1\n", encoding="ascii")
    program.chmod(0o755)
    monkeypatch.setattr("lemonstand.evidence.paper.BROWSERS", (str(program),))
    done = CliRunner().invoke(main, ["report", "--evidence", str(source), "--summary"])
    assert done.exit_code != 0
    assert "printed nothing: no display" in done.output
    assert source.with_name("summary.html").is_file()
    assert not source.with_name("summary.pdf").exists()


def test_oscal_goes_into_a_folder_whole(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "oscal"
    done = CliRunner().invoke(main, ["evidence", "oscal", "--site", str(tmp_path), str(source), "--folder", str(folder)])
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in folder.iterdir()) == sorted(MODELS)
    made = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in folder.iterdir()}
    assert _unresolved(made) == []
