"""What changed between two documents of evidence: answers, versions, states, values. Times and other volatile values don't count."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Change:
    """One difference.

    Args:
        kind: `control`, `check`, `value`, `version`, `host`, `waiver`, `inventory`, `lemonstand`.
        subject: what differs.
        old, new: as it was and as it is; empty: it was not there.
    """

    kind: str
    subject: str
    old: str
    new: str

    def __str__(self) -> str:
        """In one line."""
        return f"{self.kind:<10} {self.subject}: {self.old or 'nothing'} -> {self.new or 'nothing'}"


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """The differences between two documents of schema 2, the weightiest kind first."""
    return [
        *_controls(old, new),
        *_checks(old, new),
        *_waivers(old, new),
        *_whole(old, new),
        *hosts(old["hosts"], new["hosts"]),
        *_values(old, new),
    ]


def hosts(old: Mapping[str, Mapping[str, Any]], new: Mapping[str, Mapping[str, Any]]) -> Iterator[Change]:
    """Hosts that came or went, their systems, versions, what runs there, and their state."""
    for name in _both(old, new):
        if name not in old or name not in new:
            yield Change("host", name, "there" if name in old else "", "there" if name in new else "")
            continue
        one, other = old[name], new[name]
        for key in ("system", "kernel", "container"):
            if one.get(key, "") != other.get(key, ""):
                yield Change("host", f"{name} {key}", str(one.get(key, "")), str(other.get(key, "")))
        packages = list(_differing("version", f"{name} package", one.get("packages", {}), other.get("packages", {})))
        yield from packages
        yield from _differing("version", f"{name} runs", _running(one), _running(other))
        if one.get("state") != other.get("state") and not packages:
            yield Change("host", f"{name} state", one.get("state", "")[:12], other.get("state", "")[:12])


def _controls(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    def answers(document: Mapping[str, Any]) -> dict[str, str]:
        return {each["id"]: f"{each['status']} ({each['class']})" if each["class"] else each["status"] for each in document["controls"]}

    return _differing("control", "", answers(old), answers(new))


def _checks(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    def outcomes(document: Mapping[str, Any]) -> dict[str, str]:
        return {each["check"]: f"{each['outcome']} ({each['class']})" for each in document["results"]}

    return _differing("check", "", outcomes(old), outcomes(new))


def _waivers(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    def told(document: Mapping[str, Any]) -> dict[str, str]:
        return {each["id"]: each["ended"] or f"until {each['expires']}" for each in document["waivers"]}

    return _differing("waiver", "", told(old), told(new))


def _whole(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    if old["site"] != new["site"]:
        yield Change("site", "name", old["site"], new["site"])
    if old["inventory"] != new["inventory"]:
        yield Change("inventory", "files", old["inventory"][:12], new["inventory"][:12])
    if old["code"]["sha256"] != new["code"]["sha256"]:
        yield Change("lemonstand", "itself", code_told(old), code_told(new))


def _values(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    before = {each["check"]: each for each in old["results"]}
    for result in new["results"]:
        was = before.get(result["check"])
        if was is not None:
            yield from _differing("value", result["check"], _steady(was), _steady(result))


def _steady(result: Mapping[str, Any]) -> dict[str, str]:
    return {each["name"]: f"{each['value']} {each['unit']}".strip() for each in result["measured"] if not each["volatile"]}


def _running(host: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: entry["version"] or f"outdated: {', '.join(entry['outdated']) or 'unknown package'}"
        for name, entry in host.get("running", {}).items()
    }


def code_told(document: Mapping[str, Any]) -> str:
    """Which lemonstand a document is from: the commit where there is one."""
    code = document["code"]
    name = code["commit"][:12] if code["commit"] else f"{document['lemonstand']} {code['sha256'][:12]}"
    return f"{name} (modified)" if code["modified"] else name


def _differing(kind: str, prefix: str, old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[Change]:
    for name in _both(old, new):
        if old.get(name) != new.get(name):
            yield Change(kind, f"{prefix} {name}".strip(), old.get(name, ""), new.get(name, ""))


def _both(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys([*old, *new]))
