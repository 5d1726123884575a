"""Evidence in the Heimdall Data Format (MITRE HDF, the form of `inspec exec --reporter json`), which Heimdall opens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lemonstand.evidence.assessed import Assessed, assess
from lemonstand.evidence.report import sentence
from lemonstand.evidence.write import hold_to
from lemonstand.policy.assessment import Assessment

SCHEMA = Path(__file__).with_name("hdf.schema.json")
"""What of HDF's own schema is used here, and stricter where Heimdall computes with a value."""
IMPACT = {"critical": 0.9, "high": 0.7, "medium": 0.5, "low": 0.3, "": 0.5}
"""Heimdall takes 0.9 and more for critical, 0.7 for high, 0.4 for medium, 0.1 for low, and 0 for not applicable."""
STATUS = {"pass": "passed", "fail": "failed", "invalid": "error"}
DECIDES = {"proven": "passed", "failed": "failed", "invalid": "error"}
"""What Heimdall has to see of a control in this status; of all others it has to see nothing but what was skipped."""


def heimdall(evidence: Mapping[str, Any], assessment: Assessment) -> dict[str, Any]:
    """The document.

    Heimdall works a control's status out of its results: an error weighs most, then a failure, then one that passed. What would make it
    say more than the evidence does is told as skipped, with what came of it in the message.

    Args:
        evidence: of schema 2.
        assessment: severities and mappings.

    Raises:
        LemonstandError: it breaks the form; that is a fault of lemonstand.
    """
    rows = assess(evidence, assessment)
    waivers = {each["id"]: each for each in evidence["waivers"] if not each["ended"]}
    controls = [_control(each, evidence, assessment, waivers) for each in rows]
    sections = dict.fromkeys(str(each.control["section"]) for each in rows)
    tally = {word: sum(_seen(each) == word for each in controls) for word in ("passed", "failed", "skipped")}
    document = {
        "platform": {"name": "lemonstand", "release": evidence["lemonstand"], "target_id": evidence["site"] or "a site"},
        "version": evidence["lemonstand"],
        "statistics": {
            "duration": round(sum(result["seconds"] for result in evidence["results"]), 3),
            "controls": {word: {"total": count} for word, count in tally.items()},
        },
        "profiles": [
            {
                "name": "lemonstand-rfc5383",
                "version": evidence["lemonstand"],
                "title": f"Mobile mail (RFC 5383): {evidence['site'] or 'a site'}",
                "summary": "" if evidence["complete"] else "The newest run was interrupted: this is half a verification.",
                "sha256": evidence["code"]["sha256"],
                "supports": [{"platform-family": "debian"}],
                "attributes": [{"name": "inventory", "options": {"value": evidence["inventory"]}}],
                "groups": [
                    {"id": f"section {name}", "title": name, "controls": [each.id for each in rows if each.control["section"] == name]}
                    for name in sections
                ],
                "controls": controls,
                "status": "loaded",
            }
        ],
    }
    hold_to(SCHEMA, "the document for Heimdall", document)
    return document


def _control(
    each: Assessed, evidence: Mapping[str, Any], assessment: Assessment, waivers: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    control = each.control
    waiver = waivers.get(control["waiver"] or "") if control["status"] == "waived" else None
    results = [_result(result, control["status"]) for result in each.results]
    if not any(result["status"] == DECIDES.get(control["status"], "skipped") for result in results):
        # One that is made of others, or failed by a waiver that has ended, or that nothing looked at.
        results.append(_own(control, evidence))
    found: dict[str, Any] = {
        "id": each.id,
        "title": control["statement"],
        "desc": f"{control['statement']} ({control['level']}; {'; '.join(control['sources'])})",
        "descriptions": [{"label": "rationale", "data": each.severity.rule}] if each.severity else [],
        "impact": 0.0 if control["status"] == "not-applicable" else IMPACT[each.level],
        "refs": [{"ref": source} for source in control["sources"]],
        "tags": {
            **{key: list(each.mapped[key]) for key in assessment.frameworks},
            "severity": each.level or None,
            "status": control["status"],
            "answer_class": control["class"],
            "section": control["section"],
            "level": control["level"],
            "deviations": [str(one) for one in each.deviations],
        },
        "code": "",
        "source_location": {},
        "results": results,
    }
    if waiver is not None:
        found["waiver_data"] = {
            "justification": f"{waiver['id']}: {waiver['reason']} (owner: {waiver['owner']})",
            "expiration_date": waiver["expires"],
            "run": True,
            "skipped_due_to_waiver": True,
            "message": "; ".join(str(one) for one in each.deviations),
        }
    return found


def _result(result: Mapping[str, Any], status: str) -> dict[str, Any]:
    """What one check saw, told so that it can't outweigh the control's own status."""
    word = STATUS.get(result["outcome"], "skipped")
    lets = {"proven": {"passed"}, "failed": {"passed", "failed"}, "invalid": {"passed", "failed", "error"}}
    kept = word if word in lets.get(status, set()) else "skipped"
    where = f" on {result['host']}" if result["host"] else ""
    found = {
        "status": kept,
        "code_desc": f"{sentence(result['check'])}{where} ({result['class']}; {result['check']})",
        "run_time": result["seconds"],
        "start_time": result["time"],
    }
    if kept == "skipped":
        said = result["message"] or "it answers a part, and does not prove the control"
        found["skip_message"] = f"{result['outcome']}: {said}"
    elif result["message"]:
        found["message"] = result["message"]
    return found


def _own(control: Mapping[str, Any], evidence: Mapping[str, Any]) -> dict[str, Any]:
    """The control's own status as a result."""
    word = DECIDES.get(control["status"], "skipped")
    parts = f"made of {', '.join(control['made_of'])}" if control["made_of"] else "the control as a whole"
    said = control["reason"] or control["status"]
    key = "skip_message" if word == "skipped" else "message"
    return {"status": word, "code_desc": parts, "run_time": 0.0, "start_time": evidence["ended"], key: said}


def _seen(control: Mapping[str, Any]) -> str:
    """What the statistics count a control as."""
    words = {result["status"] for result in control["results"]}
    return next((word for word in ("failed", "passed") if word in words and "error" not in words), "skipped")
