"""The forms evidence is read in beside its own, by the name of the file they are kept under."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from lemonstand.evidence.heimdall import heimdall
from lemonstand.evidence.report import render
from lemonstand.evidence.summary import render_summary
from lemonstand.evidence.table import table
from lemonstand.policy.assessment import load_assessment
from lemonstand.policy.controls import load_controls

Form = Callable[[Mapping[str, Any], str], str]
"""Makes a text of evidence (schema 2) and the SHA-256 of the file it stands in."""


def pretty(document: object) -> str:
    """A document as JSON that people can read too."""
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


FORMS: dict[str, Form] = {
    "report.html": lambda evidence, _: render(evidence, load_controls()),
    "summary.html": render_summary,
    "controls.csv": lambda evidence, _: table(evidence, load_assessment()),
    "heimdall.json": lambda evidence, _: pretty(heimdall(evidence, load_assessment())),
}
