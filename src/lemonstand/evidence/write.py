"""Writes evidence: JSON that a schema holds to its form, JUnit for CI, each in one step."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lemonstand.errors import LemonstandError
from lemonstand.evidence.model import topic
from lemonstand.files import write_text

__all__ = [
    "check_form", "clean", "hold_to", "read_evidence", "write_evidence", "write_junit", "write_plan", "write_suites", "write_text",
]  # fmt: skip
SCHEMA = Path(__file__).with_name("evidence.schema.json")


def check_form(evidence: Mapping[str, Any]) -> None:
    """Holds evidence against its schema.

    Raises:
        LemonstandError: it breaks it.
    """
    hold_to(SCHEMA, "evidence", evidence)


def hold_to(schema: Path, what: str, data: Mapping[str, Any]) -> None:
    """Holds a document of ours against the schema that ships for it.

    Args:
        schema: the file.
        what: what the document is called in the error.

    Raises:
        LemonstandError: it breaks it.
    """
    import jsonschema  # noqa: PLC0415 - slow to import, and most commands write no document

    validator = jsonschema.Draft202012Validator(json.loads(schema.read_text(encoding="utf-8")))
    fault = jsonschema.exceptions.best_match(validator.iter_errors(data))
    if fault is not None:
        place = "/".join(str(step) for step in fault.absolute_path) or "the top"
        raise LemonstandError(f"{what} breaks its schema: {fault.message[:300]}", place, "report this as a fault of lemonstand")


def write_evidence(path: Path, evidence: Mapping[str, Any]) -> str:
    """Checks evidence and writes it, readable by its owner only, in one step.

    Returns:
        The text that was written: checking and writing out take long, a second file of it need not.

    Raises:
        LemonstandError: it breaks its schema; nothing is written then.
    """
    check_form(evidence)
    text = json.dumps(evidence, indent=1, ensure_ascii=False) + "\n"
    write_text(path, text)
    return text


def read_evidence(path: Path) -> dict[str, Any] | None:
    """Evidence as it was written; None if there is none, or none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


JUNIT_TAGS = {"fail": "failure", "invalid": "error", "not-measurable": "skipped", "not-measured": "skipped", "not-applicable": "skipped"}


def write_junit(path: Path, evidence: Mapping[str, Any]) -> None:
    """Writes the results as JUnit XML: `failure` for fail, `error` for invalid, `skipped` for what was not measured, and why.

    Args:
        path: the file.
        evidence: the document.
    """
    results = evidence["results"]
    tally = {tag: sum(JUNIT_TAGS.get(result["outcome"]) == tag for result in results) for tag in ("failure", "error", "skipped")}
    suite = ET.Element(
        "testsuite", name=evidence["site"] or "lemonstand", tests=str(len(results)), failures=str(tally["failure"]),
        errors=str(tally["error"]), skipped=str(tally["skipped"]), time=f"{sum(result['seconds'] for result in results):.3f}",
        timestamp=evidence["started"],
    )  # fmt: skip
    for result in results:
        case = ET.SubElement(
            suite, "testcase", classname=topic(result["check"]), name=result["check"].split("::")[-1], time=f"{result['seconds']:.3f}"
        )
        properties = ET.SubElement(case, "properties")
        for key, value in (("class", result["class"]), ("controls", " ".join(result["controls"])), ("host", result["host"] or "")):
            ET.SubElement(properties, "property", name=key, value=value)
        tag = JUNIT_TAGS.get(result["outcome"])
        if tag:
            ET.SubElement(case, tag, message=clean(result["message"])).text = None if tag == "skipped" else clean(result["message"])
    write_suites(path, [suite])


def write_plan(path: Path, site: str, hosts: Sequence[str], changes: Sequence[tuple[str, str]], since: Sequence[str]) -> None:
    """Writes what `plan` found as JUnit XML: a case for each host, and one for what differs from the last evidence.

    Args:
        path: the file.
        site: its name.
        hosts: all of them.
        changes: host and task that would change something.
        since: what differs, a line each.
    """
    named = [*hosts, *dict.fromkeys(host for host, _ in changes if host not in hosts)]
    cases = {("apply", host): [task for at, task in changes if at == host] for host in named}
    cases["evidence", "as it was verified"] = list(since)
    failures = sum(bool(found) for found in cases.values())
    suite = ET.Element("testsuite", name=f"{site} plan", tests=str(len(cases)), failures=str(failures), errors="0", skipped="0")
    for (kind, name), found in cases.items():
        case = ET.SubElement(suite, "testcase", classname=kind, name=name)
        if found:
            ET.SubElement(case, "failure", message=clean(f"{len(found)} differences")).text = clean("\n".join(found))
    write_suites(path, [suite])


def write_suites(path: Path, suites: Sequence[ET.Element]) -> None:
    """Writes JUnit's root element around suites."""
    root = ET.Element("testsuites")
    root.extend(suites)
    ET.indent(root)
    write_text(path, ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n")


def clean(text: str) -> str:
    """Without the control characters that XML 1.0 forbids."""
    return "".join(char for char in text if char in "\t\n\r" or char >= " ")
