"""Writes evidence: JSON that a schema holds to its form, JUnit for CI, each in one step."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema

from lemonstand.errors import LemonstandError
from lemonstand.evidence.model import Result

SCHEMA = Path(__file__).with_name("evidence.schema.json")


def check_form(evidence: Mapping[str, Any]) -> None:
    """Holds evidence against its schema.

    Raises:
        LemonstandError: it breaks it.
    """
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    fault = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(schema).iter_errors(evidence))
    if fault is not None:
        place = "/".join(str(step) for step in fault.absolute_path) or "the top"
        raise LemonstandError(f"evidence breaks its schema: {fault.message[:300]}", place, "report this as a fault of lemonstand")


def write_evidence(path: Path, evidence: Mapping[str, Any]) -> None:
    """Checks evidence and writes it, readable by its owner only, in one step.

    Raises:
        LemonstandError: it breaks its schema; nothing is written then.
    """
    check_form(evidence)
    write_text(path, json.dumps(evidence, indent=1, ensure_ascii=False) + "\n")


def write_junit(path: Path, name: str, results: Sequence[Result]) -> None:
    """Writes the results as JUnit XML: `failure` for fail, `error` for invalid, `skipped` for not measurable.

    Args:
        path: the file.
        name: of the suite.
        results: one test case each.
    """
    tally = {word: sum(result.outcome == word for result in results) for word in ("fail", "invalid", "not-measurable")}
    suite = ET.Element(
        "testsuite", name=name, tests=str(len(results)), failures=str(tally["fail"]), errors=str(tally["invalid"]),
        skipped=str(tally["not-measurable"]), time=f"{sum(result.seconds for result in results):.3f}",
    )  # fmt: skip
    for result in results:
        case = ET.SubElement(suite, "testcase", classname=result.topic, name=result.check.split("::")[-1], time=f"{result.seconds:.3f}")
        properties = ET.SubElement(case, "properties")
        for key, value in (("class", result.answer), ("controls", " ".join(result.controls)), ("host", result.host or "")):
            ET.SubElement(properties, "property", name=key, value=value)
        tag = {"fail": "failure", "invalid": "error", "not-measurable": "skipped"}.get(result.outcome)
        if tag:
            ET.SubElement(case, tag, message=_clean(result.message)).text = None if tag == "skipped" else _clean(result.message)
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    write_text(path, ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n")


def write_text(path: Path, text: str) -> None:
    """Puts a file in place in one step, mode 0600: whoever reads it sees the old one or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise


def _clean(text: str) -> str:
    """Without the control characters that XML 1.0 forbids."""
    return "".join(char for char in text if char in "\t\n\r" or char >= " ")
