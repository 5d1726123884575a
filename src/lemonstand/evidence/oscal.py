"""Evidence as OSCAL assessment results (NIST, model 1.1.3): what was assessed, what was seen, what it says about each control."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from lemonstand.evidence.model import topic

OSCAL = "1.1.3"
NAMES = uuid.UUID("7d0f6c1e-8e43-4a5e-9d5c-1c8f6f0d5383")
"""Root of the identifiers: the same evidence gives the same document."""
NAMESPACE = "https://lemonstand.invalid/ns/oscal"
SATISFIED = {"proven"}
REASONS = {
    "proven": "pass",
    "failed": "fail",
    "invalid": "error",
    "waived": "waived",
    "not-applicable": "not-applicable",
    "not-measurable": "not-measurable",
    "not-measured": "not-measured",
}
METHODS = {"live": "TEST", "scaled": "TEST", "configuration": "EXAMINE"}
LONGEST = 2000


def assessment_results(evidence: Mapping[str, Any]) -> dict[str, Any]:
    """The document.

    Args:
        evidence: schema 2.

    Returns:
        `{"assessment-results": …}`. A control is satisfied if it is proven; every other status is told in the finding's reason. Waived ones
        have a risk that names owner and end.
    """
    names = _Names(evidence)
    observations = [_observation(result, evidence, names) for result in evidence["results"]]
    risks = [_risk(waiver, evidence, names) for waiver in evidence["waivers"] if not waiver["ended"]]
    reviewed = [{"control-id": _token(each["id"])} for each in evidence["controls"]]
    result: dict[str, Any] = {
        "uuid": names("result"),
        "title": f"Verification of {evidence['site'] or 'a site'}",
        "description": _described(evidence),
        "start": evidence["runs"][-1]["started"],
        "end": evidence["ended"],
        "props": [
            *_props(
                complete=str(evidence["complete"]).lower(),
                inventory=evidence["inventory"],
                code=evidence["code"]["sha256"],
                **({"commit": evidence["code"]["commit"]} if evidence["code"]["commit"] else {}),
            )
        ],
        "local-definitions": {"inventory-items": [_item(name, host, names) for name, host in evidence["hosts"].items()]},
        "reviewed-controls": {"control-selections": [{"include-controls": reviewed}]},
        "observations": observations,
        "findings": [_finding(control, evidence, names) for control in evidence["controls"]],
    }
    if risks:
        result["risks"] = risks
    if not result["local-definitions"]["inventory-items"]:
        del result["local-definitions"]
    if not observations:
        del result["observations"]
    return {
        "assessment-results": {
            "uuid": names("document"),
            "metadata": {
                "title": f"Mobile mail (RFC 5383): {evidence['site'] or 'a site'}",
                "last-modified": evidence["ended"],
                "version": evidence["ended"],
                "oscal-version": OSCAL,
                "props": _props(lemonstand=evidence["lemonstand"], schema=str(evidence["schema"])),
            },
            "import-ap": {"href": "#", "remarks": "The plan is the catalogue of controls that ships with lemonstand."},
            "results": [result],
        }
    }


class _Names:
    """Identifiers that follow from the evidence."""

    def __init__(self, evidence: Mapping[str, Any]) -> None:
        self._root = uuid.uuid5(NAMES, f"{evidence['site']} {evidence['ended']} {evidence['code']['sha256']} {evidence['inventory']}")

    def __call__(self, *parts: str) -> str:
        # OSCAL wants versions 4 or 5.
        return str(uuid.uuid5(self._root, "/".join(parts)))


def _described(evidence: Mapping[str, Any]) -> str:
    count = evidence["counts"]
    half = "" if evidence["complete"] else "The newest run was interrupted: this is half a verification. "
    return f"{half}{count['proven']} of {count['controls']} controls proven, {count['failed']} failed, {count['waived']} waived."


def _item(name: str, host: Mapping[str, Any], names: _Names) -> dict[str, Any]:
    props = _props(
        **{key: host[key] for key in ("system", "kernel", "state") if host.get(key)},
        **({"groups": " ".join(host["groups"])} if host["groups"] else {}),
    )
    running = [
        {"name": "running-version", "ns": NAMESPACE, "value": f"{service} {entry['version'] or 'outdated'}"}
        for service, entry in host.get("running", {}).items()
    ]
    item: dict[str, Any] = {"uuid": names("host", name), "description": name}
    if props or running:
        item["props"] = [*props, *running]
    return item


def _observation(result: Mapping[str, Any], evidence: Mapping[str, Any], names: _Names) -> dict[str, Any]:
    method = METHODS[result["class"]]
    seen = [f"{each['name']}: {each['value']} {each['unit']}".strip() for each in result["measured"]]
    asked = [f"{each['host']}: {each['what']} -> {each['answer']}" for each in result["asked"][:8]]
    observation: dict[str, Any] = {
        "uuid": names("check", result["check"]),
        "title": result["check"],
        "description": result["message"] or "It holds.",
        "props": _props(outcome=result["outcome"], topic=topic(result["check"]), run=result["run"], **{"answer-class": result["class"]}),
        "methods": [method],
        "types": ["control-objective"],
        "collected": result["time"],
    }
    if result["host"] and result["host"] in evidence["hosts"]:
        observation["subjects"] = [{"subject-uuid": names("host", result["host"]), "type": "inventory-item"}]
    text = "\n".join([*seen, *asked])
    if text:
        observation["relevant-evidence"] = [{"description": text[:LONGEST]}]
    return observation


def _finding(control: Mapping[str, Any], evidence: Mapping[str, Any], names: _Names) -> dict[str, Any]:
    there = {result["check"] for result in evidence["results"]}
    status: dict[str, Any] = {
        "state": "satisfied" if control["status"] in SATISFIED else "not-satisfied",
        "reason": REASONS[control["status"]],
    }
    if control["reason"]:
        status["remarks"] = control["reason"][:LONGEST]
    target = {"type": "objective-id", "target-id": _token(control["id"]), "status": status}
    finding: dict[str, Any] = {
        "uuid": names("control", control["id"]),
        "title": f"{control['id']} ({control['level']})",
        "description": control["statement"],
        "props": _props(status=control["status"], **({"answer-class": control["class"]} if control["class"] else {})),
        "target": target,
    }
    related = [{"observation-uuid": names("check", check)} for check in dict.fromkeys(control["checks"]) if check in there]
    if related:
        finding["related-observations"] = related
    waivers = {each["id"] for each in evidence["waivers"] if not each["ended"]}
    if control["waiver"] in waivers:
        finding["related-risks"] = [{"risk-uuid": names("waiver", control["waiver"])}]
    return finding


def _risk(waiver: Mapping[str, Any], evidence: Mapping[str, Any], names: _Names) -> dict[str, Any]:
    return {
        "uuid": names("waiver", waiver["id"]),
        "title": f"{waiver['id']}: {waiver['title']}",
        "description": waiver["part"] or f"Not met: {', '.join(waiver['controls'])}",
        "statement": waiver["reason"],
        "status": "deviation-approved",
        "deadline": f"{waiver['expires']}T00:00:00Z",
        "props": _props(owner=waiver["owner"], granted=waiver["date"], origin=waiver["origin"]),
    }


def _props(**values: str) -> list[dict[str, str]]:
    return [{"name": name, "ns": NAMESPACE, "value": _line(value)} for name, value in values.items()]


def _line(text: str) -> str:
    """OSCAL's strings have no white space at their ends and none but blanks inside."""
    return " ".join(str(text).split()) or "none"


def _token(control: str) -> str:
    return control.lower()
