"""The evidence as a table for a spreadsheet: CSV (RFC 4180), one row a control."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

from lemonstand.evidence.assessed import Assessed, assess
from lemonstand.policy.assessment import Assessment

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What makes a spreadsheet take a text for something to carry out."""


def table(evidence: Mapping[str, Any], assessment: Assessment) -> str:
    """The table, with a line of names.

    Args:
        evidence: of schema 2.
        assessment: severities and mappings.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    rows = [_row(each, assessment) for each in assess(evidence, assessment)]
    writer.writerow(rows[0] if rows else ())
    writer.writerows([_safe(value) for value in row.values()] for row in rows)
    return text.getvalue()


def _row(each: Assessed, assessment: Assessment) -> dict[str, str]:
    control, (first, last) = each.control, each.seen
    return {
        "id": each.id,
        "title": control["statement"],
        "section": control["section"],
        "level": control["level"],
        "status": control["status"],
        "class": control["class"] or "",
        "severity": each.level,
        "severity_rule": each.severity.rule if each.severity else "",
        **{key: " ".join(each.mapped[key]) for key in assessment.frameworks},
        "sources": "; ".join(control["sources"]),
        "checks": " ".join(dict.fromkeys(control["checks"])),
        "runs": " ".join(each.runs),
        "first_seen": first,
        "last_seen": last,
        "deviations": "; ".join(map(str, each.deviations)),
        "reason": control["reason"],
    }


def _safe(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA) else text
