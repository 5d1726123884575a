"""The report: evidence as one HTML page that stands alone (docs/decisions/0016). Pure: no clock, no host, no file but the template."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import jinja2

from lemonstand.derived.change_request import span
from lemonstand.derived.matrix import REACHABILITY, SILENT
from lemonstand.errors import LemonstandError
from lemonstand.evidence.assessed import assess
from lemonstand.evidence.chain import chain
from lemonstand.evidence.model import headline, proposed
from lemonstand.evidence.mutants import UNTRIED, came_of
from lemonstand.evidence.picture import Picture, draw
from lemonstand.evidence.plot import plots, tallies
from lemonstand.paths import data_dir
from lemonstand.policy.assessment import Assessment, load_assessment
from lemonstand.policy.controls import Control, Controls

Evidence = Mapping[str, Any]
Row = Mapping[str, Any]

SCHEMA = 2
TEMPLATE, STYLE, SCRIPT = "report.html.j2", "report.css", "report.js"
SECTIONS = {
    "3": "Ports",
    "4": "TCP connections",
    "4.1": "How long they live",
    "4.2": "While the network is gone",
    "5": "Dormancy",
    "6": "Firewalls",
    "6.1": "Getting through them",
    "7": "Address translators",
    "8": "Security",
    "profile": "The Lemonade profile",
}
"""What the sections of RFC 5383 are about."""


@dataclass(frozen=True)
class State:
    """How a control, or one class of proven controls, is called and marked.

    Args:
        key: `proven` statuses carry their class: `proven-live`.
        mark: stands for it where colour does; one letter wide.
        word: what it is called.
        means: in a sentence.
    """

    key: str
    mark: str
    word: str
    means: str


STATES = (
    State("failed", "✕", "failed", "a check saw that it does not hold"),
    State("invalid", "!", "could not measure", "a check could not ask its question"),
    State("proven-live", "●", "proven live", "seen over the wire, in real time"),
    State("proven-scaled", "◐", "proven scaled", "seen over the wire, with shortened timers"),
    State("proven-configuration", "◎", "proven by configuration", "read from the running hosts"),
    State("waived", "◇", "waived", "not met, and somebody answers for that until a day"),
    State("not-applicable", "∅", "not applicable", "it binds nothing here, and the reason is given"),
    State("not-measurable", "⊘", "not measurable here", "this place can't show it"),
    State("not-measured", "○", "not measured", "nobody has looked yet"),
)
OUTCOMES = {
    "pass": ("✓", "passed"),
    "fail": ("✕", "failed"),
    "invalid": ("!", "could not measure"),
    "not-measurable": ("⊘", "not measurable here"),
    "not-measured": ("○", "not measured"),
    "not-applicable": ("∅", "not applicable"),
}
WORST_FIRST = ("fail", "invalid", "not-measured", "not-measurable", "not-applicable", "pass")
AWAITS = {
    "disruptive": "lemonstand verify --disruptive",
    "soak": "make soak",
    "vantage": "a host outside and probe users in the inventory",
    "selection": "a run without selection",
}
HALF = "Half finished: the newest run was interrupted. What did not run is not measured, and nothing below says otherwise."
CONTAINED = "Hosts are containers that stand in for machines: what belongs to the machine below them is not measurable here."
NAMES = {
    name.lower(): name
    for name in [
        "TLS",
        "STARTTLS",
        "IMAP",
        "SMTP",
        "ICMP",
        "TCP",
        "HTTP",
        "DNS",
        "MX",
        "EHLO",
        "IPv4",
        "IPv6",
        "URL",
        "URLs",
        "BURL",
        "SSH",
        "NAT",
    ]
}
"""Words of checks' names that are written otherwise."""


def render(evidence: Evidence, catalogue: Controls | None = None, assessment: Assessment | None = None) -> str:
    """The report of one evidence document.

    Args:
        evidence: of schema 2, complete or not.
        catalogue: adds what enforces each control, where it still says the same of the control.
        assessment: severities and mappings; default: those that ship.

    Raises:
        LemonstandError: the evidence is of another schema, or the template is not there.
    """
    check_schema(evidence)
    return page_of(TEMPLATE, {"style": STYLE, "script": SCRIPT}, page=page(evidence, catalogue, assessment or load_assessment()))


def check_schema(evidence: Evidence) -> None:
    """Refuses evidence that would be misread.

    Raises:
        LemonstandError: it is of another schema.
    """
    if evidence.get("schema") != SCHEMA:
        raise LemonstandError(
            f"the report reads evidence of schema {SCHEMA}, this is {evidence.get('schema')!r}",
            "schema",
            "run `lemonstand verify` again with this version of lemonstand",
        )


def page_of(template: str, parts: Mapping[str, str], **values: object) -> str:
    """A page that stands alone, from a template that ships.

    Args:
        template: its name.
        parts: files that stand in it as they are, by the name the template has for them; their digests follow by NAME_digest.
        values: what it is about, escaped.

    Raises:
        LemonstandError: the template is not there.
    """
    folder = data_dir("templates")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"span": span, "value": value, "sentence": sentence, "slug": slug, "moment": moment, "took": took}
    try:
        found = environment.get_template(template)
        texts = {name: (folder / file).read_text(encoding="utf-8").strip() for name, file in parts.items()}
    except (OSError, jinja2.TemplateNotFound) as error:
        raise LemonstandError(f"there is no template {error}", str(folder), "restore it from the release") from None
    return found.render(**values, **texts, **{f"{name}_digest": _digest(text) for name, text in texts.items()})


def page(evidence: Evidence, catalogue: Controls | None, assessment: Assessment) -> dict[str, Any]:
    """All that the template shows, worked out from the evidence."""
    states = {control["id"]: state_of(control) for control in evidence["controls"]}
    picture = draw(evidence)
    grid = reachability(evidence)
    return {
        "evidence": evidence,
        "states": {state.key: state for state in STATES},
        "state_of": states,
        "counts": Counter(states.values()),
        "verdict": verdict(evidence),
        "banners": banners(evidence),
        "sections": _sections(evidence, states, lambda control: str(control["section"])),
        "section_names": SECTIONS,
        "levels": _levels(evidence, states),
        "picture": picture,
        "way_states": {way.number: way_state(way.flows, grid) for way in picture.ways},
        "picture_text": _picture_text(picture),
        "grid": grid,
        "matrix_names": (REACHABILITY, SILENT),
        "chain": chain(evidence),
        "plots": plots(evidence),
        "tallies": tallies(evidence),
        "versions": _versions(evidence),
        "groups": _groups(evidence),
        "known": _known(evidence, catalogue),
        "mutants": _mutants(evidence),
        "outcomes": OUTCOMES,
        "awaits": AWAITS,
        "assessed": {each.id: each for each in assess(evidence, assessment)},
        "frameworks": assessment.frameworks,
        "own_flows": own_flows(evidence),
        "hosts_of": _hosts_of(evidence),
        "host_names": list(evidence["hosts"]),
        "seconds": seconds(evidence["started"], evidence["ended"]),
    }


def state_of(control: Row) -> str:
    """The key of a control's state: its status, with the best class if it is proven."""
    return f"proven-{control['class']}" if control["status"] == "proven" else str(control["status"])


def verdict(evidence: Evidence) -> str:
    """The whole in one sentence, with every requirement in its sum."""
    return f"{headline(evidence['counts']).replace('controls', 'requirements', 1)}."


def banners(evidence: Evidence) -> list[tuple[str, str]]:
    """What a reader must know before he reads on: (bad, warn or note; sentence)."""
    found: list[tuple[str, str]] = []
    newest = evidence["runs"][0]
    if not evidence["complete"]:
        found.append(("bad", HALF))
    picked = newest["selection"]
    words = [*picked["controls"], *(f"section {each}" for each in picked["sections"]), *picked["hosts"]]
    words += [picked["keyword"]] if picked["keyword"] else []
    if words:
        found.append(("warn", f"A selection: the newest run looked at {', '.join(words)} only."))
    for each in evidence["dropped"]:
        which = f"the {each['run']} run of {moment(each['started'])}"
        found.append(("warn", f"{each['results']} results of {which} were left out: {each['reason']}."))
    for waiver in evidence["waivers"]:
        if waiver["ended"]:
            found.append(("bad", f"The waiver {waiver['id']} holds no longer: {waiver['ended']}."))
    waiting = proposed(evidence)
    if waiting:
        found.append(("note", f"Proposed, and not accepted by the site's owner: {', '.join(waiting)}."))
    if evidence["code"]["modified"]:
        found.append(("note", "The work tree that verified had changes that are in no commit."))
    contained = [name for name, host in evidence["hosts"].items() if host.get("container")]
    if contained:
        found.append(("note", CONTAINED))
    return found


def reachability(evidence: Evidence) -> dict[str, Any] | None:
    """The matrix as it was dialled: sources by destinations, a chip for each port that is allowed or answers. None if nobody dialled."""
    rows, silent = _rows(evidence, REACHABILITY), _rows(evidence, SILENT)
    if not rows and not silent:
        return None
    order = list(evidence["hosts"])
    own = {flow["name"] for flow in own_flows(evidence)}
    ends = {
        name: sorted({str(row[name]) for row in (*silent, *rows)}, key=lambda end: order.index(end) if end in order else len(order))
        for name in ("from", "to")
    }
    quiet = {(str(row["from"]), str(row["to"])): int(row["ways"]) for row in silent}
    cells = {
        (source, destination): {
            "silent": quiet.get((source, destination), 0),
            "chips": _chips([row for row in rows if (row["from"], row["to"]) == (source, destination)], own),
        }
        for source in ends["from"]
        for destination in ends["to"]
    }
    flows: dict[str, list[str]] = {}
    for row in rows:
        if row["flow"]:
            flows.setdefault(str(row["flow"]), []).append(_way_state(row))
    tally = Counter(_way_state(row) for row in rows)
    return {
        "sources": ends["from"],
        "destinations": ends["to"],
        "cells": cells,
        "rows": rows,
        "flows": flows,
        "answered": tally["open"] + tally["leak"],
        "silent": sum(quiet.values()) + tally["closed"],
        "unseen": tally["unseen"],
        "wrong": tally["leak"] + tally["closed"],
    }


def _chips(rows: Sequence[Row], own: Set[str]) -> list[dict[str, Any]]:
    """One chip for each port that is allowed or answers, with the IP versions it stands for."""
    found: dict[tuple[str, int, str], dict[str, Any]] = {}
    for row in rows:
        state = _way_state(row)
        version = 6 if ":" in str(row["address"]) else 4
        chip = found.setdefault((str(row["protocol"]), int(row["port"]), state), {"versions": set(), "flows": set(), "addresses": []})
        chip["versions"].add(version)
        chip["flows"].add(str(row["flow"] or "no flow"))
        chip["addresses"].append(str(row["address"]))
    return [
        {
            "port": port,
            "protocol": protocol,
            "state": state,
            "versions": sorted(chip["versions"]),
            "flows": ", ".join(sorted(chip["flows"])),
            "own": bool(chip["flows"] & own),
            "addresses": ", ".join(dict.fromkeys(chip["addresses"])),
        }
        for (protocol, port, state), chip in sorted(found.items())
    ]


def _way_state(row: Row) -> str:
    """What a way is: open, closed (allowed, and no answer), leak (answers, and is not allowed), unseen (not dialled)."""
    if not row["seen"]:
        return "unseen"
    if row["flow"]:
        return "open" if row["seen"] == "open" else "closed"
    return "leak"


def way_state(flows: Iterable[Row], grid: Mapping[str, Any] | None) -> tuple[str, str]:
    """What was seen of a way in the picture: a state and words."""
    states = [state for flow in flows for state in (grid["flows"].get(flow["name"], []) if grid else [])]
    if "closed" in states:
        return "closed", f"{states.count('closed')} of {len(states)} did not answer"
    if "open" in states:
        return "open", f"{states.count('open')} dialled, all answered" if set(states) == {"open"} else f"{states.count('open')} answered"
    return "unseen", "not dialled: read from the rules" if any(flow["protocol"] == "udp" for flow in flows) else "not dialled"


VERDICTS = {
    "noticed": ("✓", "noticed", "pass"),
    "quiet": ("✓", "nothing broken, nobody said so", "pass"),
    "missed": ("✕", "missed", "fail"),
    "not mended": ("✕", "not mended", "fail"),
    "not asked": ("!", "could not be tried", "invalid"),
    UNTRIED: ("○", "not tried", "not-measured"),
}
"""What came of a mutant: mark, words, and the outcome whose colour it has."""


def _mutants(evidence: Evidence) -> dict[str, dict[str, Any]]:
    """Of each mutant its verdict, and in words where and when it was made."""
    found = {}
    for mutant in evidence["mutants"]:
        word, tried = came_of(mutant), mutant.get("tried")
        mark, words, tone = VERDICTS["quiet" if word == "noticed" and mutant.get("placebo") else word]
        found[mutant["name"]] = {"mark": mark, "words": words, "tone": tone, "where": "", "others": []}
        if tried:
            age = "" if tried["same_code"] else ", by an earlier state of lemonstand"
            found[mutant["name"]] |= {"where": f"in lab {tried['lab']}, {tried['at'][:10]}{age}", "others": tried["others"]}
    return found


def _sections(evidence: Evidence, states: Mapping[str, str], key: Callable[[Row], str]) -> list[dict[str, Any]]:
    found: dict[str, list[Row]] = {}
    for control in evidence["controls"]:
        found.setdefault(key(control), []).append(control)
    return [{"name": name, "controls": rows, "counts": Counter(states[row["id"]] for row in rows)} for name, rows in found.items()]


def _levels(evidence: Evidence, states: Mapping[str, str]) -> list[dict[str, Any]]:
    order = ["MUST", "MUST NOT", "REQUIRED", "SHOULD", "SHOULD NOT", "MAY", "permission", "prose", "definition", "derived"]
    rows = _sections(evidence, states, lambda control: str(control["level"]))
    return sorted(rows, key=lambda row: order.index(row["name"]) if row["name"] in order else len(order))


def own_flows(evidence: Evidence) -> list[Mapping[str, Any]]:
    """The flows that the site itself adds."""
    return [flow for flow in evidence["policy"]["flows"] if flow.get("origin") == "site"]


def _groups(evidence: Evidence) -> dict[str, list[dict[str, Any]]]:
    """The checks of each control: the results of one function together, by control."""
    by_check: dict[str, list[Row]] = {}
    for result in evidence["results"]:
        by_check.setdefault(result["check"], []).append(result)
    found: dict[str, list[dict[str, Any]]] = {}
    home: dict[str, str] = {}
    for control in evidence["controls"]:
        groups: dict[str, dict[str, Any]] = {}
        for check in control["checks"]:
            name = check.partition("[")[0]
            group = groups.setdefault(name, {"name": name, "results": [], "asked": [], "elsewhere": []})
            for result in by_check.get(check, []):
                group["results"].append(result)
                # What was asked is told once, where the check is met first.
                first = home.setdefault(check, control["id"])
                if first == control["id"]:
                    group["asked"] += result["asked"]
                elif result["asked"] and first not in group["elsewhere"]:
                    group["elsewhere"].append(first)
        for group in groups.values():
            group["answers"] = any(control["id"] in result["controls"] for result in group["results"])
            group["classes"] = list(dict.fromkeys(result["class"] for result in group["results"]))
            outcomes = {result["outcome"] for result in group["results"]}
            group["outcome"] = next((word for word in WORST_FIRST if word in outcomes), "not-measured")
        found[control["id"]] = list(groups.values())
    return found


def _hosts_of(evidence: Evidence) -> dict[str, list[str]]:
    """The hosts each control was looked at on."""
    by_check: dict[str, set[str]] = {}
    for result in evidence["results"]:
        names = {result["host"]} if result["host"] else {asked["host"] for asked in result["asked"]}
        by_check.setdefault(result["check"], set()).update(name for name in names if name)
    return {
        control["id"]: sorted({host for check in control["checks"] for host in by_check.get(check, ())}) for control in evidence["controls"]
    }


def _versions(evidence: Evidence) -> list[tuple[str, str, list[str]]]:
    """Installed packages: (name, version, hosts that have it)."""
    found: dict[tuple[str, str], list[str]] = {}
    for host, said in evidence["hosts"].items():
        for package, version in said.get("packages", {}).items():
            found.setdefault((package, version), []).append(host)
    return [(package, version, hosts) for (package, version), hosts in sorted(found.items())]


def _known(evidence: Evidence, catalogue: Controls | None) -> dict[str, Control]:
    """Controls of the catalogue that say what the evidence says of them."""
    by_id = catalogue.by_id() if catalogue else {}
    return {
        control["id"]: by_id[control["id"]]
        for control in evidence["controls"]
        if control["id"] in by_id and by_id[control["id"]].statement == control["statement"]
    }


def _rows(evidence: Evidence, name: str) -> list[dict[str, Any]]:
    """The rows of all tables of a name, by their columns."""
    tables = [table for result in evidence["results"] for table in result.get("tables", []) if table["name"] == name]
    return [dict(zip(table["columns"], row, strict=True)) for table in tables for row in table["rows"]]


def _picture_text(picture: Picture) -> str:
    return " ".join(f"{way.source} to {way.destination}: {way.ports} ({way.names})." for way in picture.ways)


def value(number: object, unit: str = "") -> str:
    """A measured value as people read it: `7200 s` with the span it is, thousands apart, yes and no for truth."""
    if isinstance(number, bool):
        return "yes" if number else "no"
    if number is None:
        return "none"
    if number == "":
        return "empty"
    if isinstance(number, int | float):
        text = f"{number:,}".replace(",", " ") if isinstance(number, int) or abs(number) >= 1000 else f"{number:.4g}"
        if unit == "s" and isinstance(number, int) and number >= 60:
            return f"{text} s ({span(number)})"
        return f"{text} {unit}".strip()
    return f"{number} {unit}".strip()


def sentence(check: str) -> str:
    """A check's name as a sentence: `test_a_wrong_password_is_called_wrong` is `a wrong password is called wrong`."""
    name = check.rpartition("::")[2].partition("[")[0].removeprefix("test_").replace("_", " ")
    return " ".join(NAMES.get(word, word) for word in name.split())


def slug(text: str) -> str:
    """Something that can stand in an id."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-")


def moment(time: str) -> str:
    """A time of the evidence as people write it: `2026-11-25 09:15 UTC`."""
    return f"{time[:10]} {time[11:16]} UTC"


def took(number: float) -> str:
    """A duration: `0.3 s`, `1 min 20 s`."""
    return f"{number:.2g} s" if number < 10 else span(round(number))


def seconds(started: str, ended: str) -> float:
    """Seconds between two times of the evidence."""
    return (dt.datetime.fromisoformat(ended) - dt.datetime.fromisoformat(started)).total_seconds()


def _digest(text: str) -> str:
    """What a content security policy names a text by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
