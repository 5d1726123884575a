"""Evidence in OSCAL (NIST, model 1.1.3): the catalogue, the profile that takes all of it, the plan, and the results of the assessment.

Every reference leads to something in these four documents; each is made from the evidence alone, and the mappings of this version.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from lemonstand.evidence.assessed import Assessed, assess
from lemonstand.evidence.model import headline, topic
from lemonstand.policy.assessment import Assessment, load_assessment

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
CATALOG, PROFILE, PLAN, RESULTS = "oscal-catalog.json", "oscal-profile.json", "oscal-assessment-plan.json", "oscal.json"
"""The files: they name each other, so they have to lie side by side."""


def documents(evidence: Mapping[str, Any], assessment: Assessment | None = None) -> dict[str, dict[str, Any]]:
    """All four by the name of their file.

    Args:
        evidence: schema 2.
        assessment: severities and mappings; default: those that ship.
    """
    rows = assess(evidence, assessment or load_assessment())
    return {
        CATALOG: catalog(evidence, rows),
        PROFILE: profile(evidence, rows),
        PLAN: plan(evidence, rows),
        RESULTS: assessment_results(evidence),
    }


def catalog(evidence: Mapping[str, Any], rows: Sequence[Assessed]) -> dict[str, Any]:
    """The controls the evidence is about, by section, each with a statement and an objective that findings are about."""
    names = _Names(evidence)
    sections: dict[str, list[Assessed]] = {}
    for each in rows:
        sections.setdefault(str(each.control["section"]), []).append(each)
    return {
        "catalog": {
            "uuid": names("catalog"),
            "metadata": _metadata(evidence, names, "Mobile mail: controls of RFC 5383 (BCP 143) and what it builds on"),
            "groups": [
                {"id": f"section-{name}", "title": f"Section {name}", "controls": [_control(each) for each in mine]}
                for name, mine in sections.items()
            ],
        }
    }


def _control(each: Assessed) -> dict[str, Any]:
    control, name = each.control, _token(each.id)
    mapped = [{"name": key, "ns": NAMESPACE, "value": other} for key, others in each.mapped.items() for other in others]
    return {
        "id": name,
        "title": control["statement"],
        "props": [
            {"name": "label", "value": each.id},
            *_props(level=control["level"], sources="; ".join(control["sources"]), **({"severity": each.level} if each.level else {})),
            *mapped,
        ],
        "parts": [
            {"id": f"{name}_smt", "name": "statement", "prose": control["statement"]},
            {"id": _objective(each.id), "name": "assessment-objective", "prose": f"Determine whether this holds: {control['statement']}"},
        ],
    }


def profile(evidence: Mapping[str, Any], rows: Sequence[Assessed]) -> dict[str, Any]:
    """The choice of controls: all of them."""
    names = _Names(evidence)
    return {
        "profile": {
            "uuid": names("profile"),
            "metadata": _metadata(evidence, names, f"All controls, for {evidence['site'] or 'a site'}"),
            "imports": [{"href": CATALOG, "include-controls": [{"with-ids": [_token(each.id) for each in rows]}]}],
            "merge": {"as-is": True},
        }
    }


def plan(evidence: Mapping[str, Any], rows: Sequence[Assessed]) -> dict[str, Any]:
    """What was set out to be assessed: each control, on each host, in these runs. The inventory stands in the place of a security plan."""
    names = _Names(evidence)
    runs = [
        {
            "uuid": names("task", run["kind"], run["started"]),
            "type": "action",
            "title": f"{run['kind']} run",
            "timing": {"within-date-range": {"start": run["started"], "end": run["ended"]}},
        }
        for run in evidence["runs"]
    ]
    return {
        "assessment-plan": {
            "uuid": names("plan"),
            "metadata": _metadata(evidence, names, f"Plan of the verification of {evidence['site'] or 'a site'}"),
            "import-ssp": {"href": f"#{names('inventory')}"},
            "reviewed-controls": _reviewed(rows),
            "assessment-subjects": [{"type": "inventory-item", "include-all": {}}],
            "assessment-assets": {
                "assessment-platforms": [
                    {
                        "uuid": names("platform"),
                        "title": f"lemonstand {evidence['lemonstand']}",
                        "props": _props(code=evidence["code"]["sha256"]),
                    }
                ]
            },
            "tasks": runs,
            "back-matter": {
                "resources": [
                    {
                        "uuid": names("inventory"),
                        "title": "The site's Ansible inventory",
                        "description": "What the system is; it stays with its owner and is known here by its hash.",
                        "props": _props(sha256=evidence["inventory"]),
                    },
                    {"uuid": names("profile-resource"), "title": "The controls", "rlinks": [{"href": PROFILE}, {"href": CATALOG}]},
                ]
            },
        }
    }


def _reviewed(rows: Sequence[Assessed]) -> dict[str, Any]:
    return {
        "control-selections": [{"include-controls": [{"control-id": _token(each.id)} for each in rows]}],
        "control-objective-selections": [{"include-objectives": [{"objective-id": _objective(each.id)} for each in rows]}],
    }


def _metadata(evidence: Mapping[str, Any], names: _Names, title: str) -> dict[str, Any]:
    """Title and times, and who the inventory says owns and assesses the site."""
    said = evidence.get("assessment", {})
    known = [(role, said[key]) for key, role in (("owner", "system-owner"), ("assessor", "assessor")) if said.get(key)]
    found: dict[str, Any] = {
        "title": title,
        "last-modified": evidence["ended"],
        "version": evidence["ended"],
        "oscal-version": OSCAL,
        "props": _props(
            lemonstand=evidence["lemonstand"], schema=str(evidence["schema"]), **({"scope": said["scope"]} if said.get("scope") else {})
        ),
    }
    if known:
        found["roles"] = [{"id": role, "title": role.replace("-", " ").capitalize()} for role, _ in known]
        found["parties"] = [{"uuid": names("party", role), "type": "organization", "name": _line(name)} for role, name in known]
        found["responsible-parties"] = [{"role-id": role, "party-uuids": [names("party", role)]} for role, _ in known]
    return found


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
    rows = assess(evidence, load_assessment())
    risks = [
        *(_risk(waiver, names) for waiver in evidence["waivers"] if not waiver["ended"]),
        *(_timed(each, names) for each in evidence.get("deviations", ())),
    ]
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
        "local-definitions": {
            "components": [_flow(flow, names) for flow in evidence["policy"]["flows"]],
            "inventory-items": [_item(name, host, names) for name, host in evidence["hosts"].items()],
        },
        "reviewed-controls": _reviewed(rows),
        "observations": observations,
        "findings": [_finding(each, evidence, names) for each in rows],
    }
    if risks:
        result["risks"] = risks
    result["local-definitions"] = {key: each for key, each in result["local-definitions"].items() if each}
    if not result["local-definitions"]:
        del result["local-definitions"]
    if not observations:
        del result["observations"]
    return {
        "assessment-results": {
            "uuid": names("document"),
            "metadata": _metadata(evidence, names, f"Mobile mail (RFC 5383): {evidence['site'] or 'a site'}"),
            "import-ap": {"href": PLAN},
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
    half = "" if evidence["complete"] else "The newest run was interrupted: this is half a verification. "
    return f"{half}{headline(evidence['counts'])}."


def _flow(flow: Mapping[str, Any], names: _Names) -> dict[str, Any]:
    """An allowed path; whose it is stands in a property."""
    ranges = [{"start": port, "end": port, "transport": flow["protocol"].upper()} for port in flow["ports"]]
    return {
        "uuid": names("flow", flow["name"]),
        "type": "interconnection",
        "title": flow["name"],
        "description": flow["reason"],
        "props": _props(**{"from": flow["from"], "to": flow["to"], **({"origin": flow["origin"]} if "origin" in flow else {})}),
        "status": {"state": "operational"},
        "protocols": [{"name": flow["name"], "port-ranges": ranges}],
    }


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


def _finding(each: Assessed, evidence: Mapping[str, Any], names: _Names) -> dict[str, Any]:
    control = each.control
    there = {result["check"] for result in evidence["results"]}
    status: dict[str, Any] = {
        "state": "satisfied" if control["status"] in SATISFIED else "not-satisfied",
        "reason": REASONS[control["status"]],
    }
    if control["reason"]:
        status["remarks"] = control["reason"][:LONGEST]
    target = {"type": "objective-id", "target-id": _objective(control["id"]), "status": status}
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
    if each.deviations:
        finding["related-risks"] = [{"risk-uuid": names("waiver", one.id)} for one in each.deviations]
    return finding


def _risk(waiver: Mapping[str, Any], names: _Names) -> dict[str, Any]:
    return {
        "uuid": names("waiver", waiver["id"]),
        "title": f"{waiver['id']}: {waiver['title']}",
        "description": waiver["part"] or f"Not met: {', '.join(waiver['controls'])}",
        "statement": waiver["reason"],
        "status": _approval(waiver),
        "deadline": f"{waiver['expires']}T00:00:00Z",
        "props": _props(owner=waiver["owner"], granted=waiver["date"], origin=waiver["origin"], **_accepted(waiver)),
    }


def _timed(deviation: Mapping[str, Any], names: _Names) -> dict[str, Any]:
    """What the timer profile does less."""
    return {
        "uuid": names("waiver", deviation["id"]),
        "title": f"{deviation['id']}: {deviation['control']}",
        "description": deviation["what"],
        "statement": deviation["reason"],
        "status": _approval(deviation),
        "props": _props(origin="timer profile", **_accepted(deviation)),
    }


def _approval(each: Mapping[str, Any]) -> str:
    """Proposed until the site's owner has accepted it; evidence of earlier versions does not say, and took it for approved."""
    return "deviation-requested" if each.get("accepted", "unknown") is None else "deviation-approved"


def _accepted(each: Mapping[str, Any]) -> dict[str, str]:
    word = each.get("accepted")
    return {"accepted-by": word["by"], "accepted-on": word["date"]} if word else {}


def _props(**values: str) -> list[dict[str, str]]:
    return [{"name": name, "ns": NAMESPACE, "value": _line(value)} for name, value in values.items()]


def _line(text: str) -> str:
    """OSCAL's strings have no white space at their ends and none but blanks inside."""
    return " ".join(str(text).split()) or "none"


def _token(control: str) -> str:
    return control.lower()


def _objective(control: str) -> str:
    """The id of what is found out about a control."""
    return f"{_token(control)}_obj"
