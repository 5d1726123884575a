"""Puts results of earlier runs beside those of a new one, check by check, as long as they are about the same state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lemonstand.evidence.model import Measurement, Result
from lemonstand.observations import Observation


def earlier(previous: Mapping[str, Any] | None, now: Mapping[str, Any], new: Sequence[Result]) -> tuple[list[Result], list[dict[str, Any]]]:
    """What of an earlier document stands beside new results.

    Args:
        previous: the evidence as it was, or None.
        now: the new document: its `schema`, `site`, `inventory`, `code` and `hosts` are compared.
        new: the new results; a check that ran again replaces its earlier result.

    Returns:
        Results to keep, and what was dropped, in the schema's form.
    """
    if previous is None:
        return [], []
    again = {result.check for result in new}
    old = [entry for entry in previous.get("results", ()) if entry["check"] not in again]
    if not old:
        return [], []
    reason = differs(previous, now)
    if not reason:
        return [result_of(entry) for entry in old], []
    starts = {run["kind"]: run["started"] for run in reversed(previous.get("runs", ()))}
    kinds = dict.fromkeys(entry["run"] for entry in old) if "runs" in previous else {}
    dropped = [
        {"run": kind, "started": starts[kind], "results": sum(entry["run"] == kind for entry in old), "reason": reason} for kind in kinds
    ]
    return [], dropped


def differs(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Why two documents are not about the same state, in words; empty if they are."""
    if one.get("schema") != other["schema"]:
        return "it has another form"
    if one["site"] != other["site"]:
        return "it is about another site"
    if one["inventory"] != other["inventory"]:
        return "the inventory changed"
    if one["code"]["sha256"] != other["code"]["sha256"]:
        return "lemonstand itself changed"
    hosts = sorted({*one["hosts"], *other["hosts"]})
    changed = [name for name in hosts if one["hosts"].get(name, {}).get("state") != other["hosts"].get(name, {}).get("state")]
    return f"what is deployed changed on {', '.join(changed)}" if changed else ""


def result_of(entry: Mapping[str, Any]) -> Result:
    """A result as it was, from its JSON."""
    data = dict(entry)
    data["answer"] = data.pop("class")
    data["controls"], data["supports"] = tuple(data["controls"]), tuple(data["supports"])
    data["measured"] = [Measurement(**each) for each in data["measured"]]
    data["asked"] = [Observation(**each) for each in data["asked"]]
    return Result(**data)
