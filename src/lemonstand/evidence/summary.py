"""The summary: evidence on some sheets of paper that can be filed and signed. Pure, as the report is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from lemonstand.evidence.assessed import Assessed, assess
from lemonstand.evidence.model import HEADLINE, headline
from lemonstand.evidence.report import banners, check_schema, own_flows, page_of
from lemonstand.policy.assessment import LEVELS, Assessment, load_assessment

TEMPLATE, STYLE = "summary.html.j2", "summary.css"
SHORT = {"MUST NOT": "MUST N.", "SHOULD NOT": "SHOULD N.", "definition": "defin.", "permission": "permits"}
"""Levels that are too long for their column."""


def render_summary(evidence: Mapping[str, Any], digest: str, assessment: Assessment | None = None) -> str:
    """The summary of one evidence document, as HTML for paper (A4).

    Args:
        evidence: of schema 2, complete or not.
        digest: the SHA-256 of the file it was read from, whole.
        assessment: severities and mappings; default: those that ship.

    Raises:
        LemonstandError: the evidence is of another schema, or the template is not there.
    """
    check_schema(evidence)
    assessment = assessment or load_assessment()
    rows = assess(evidence, assessment)
    sections: dict[str, list[Assessed]] = {}
    for each in rows:
        sections.setdefault(str(each.control["section"]), []).append(each)
    return page_of(
        TEMPLATE,
        {"style": STYLE},
        evidence=evidence,
        digest=digest,
        headline=headline(evidence["counts"]),
        banners=banners(evidence),
        parties=evidence.get("assessment", {"owner": "", "assessor": "", "scope": ""}),
        words=HEADLINE,
        levels=[*LEVELS, *([""] if any(not each.level for each in rows) else [])],
        tally=Counter((each.level, each.control["status"]) for each in rows),
        sections=sections,
        unproven=[each for each in rows if each.control["status"] not in {"proven", "waived"}],
        own_flows=own_flows(evidence),
        assessment=assessment,
        short=SHORT,
    )
