"""Evidence made up for tests of the report: every status, every class, and values that try to break out of the page."""

from __future__ import annotations

import copy
import functools
from collections import Counter
from typing import Any

from lemonstand.policy import load_flows, load_timers
from lemonstand.policy.controls import load_controls
from lemonstand.policy.timers import DEFAULT_PROFILE

HOSTILE = """</script><script>alert(1)</script> "quoted" 'twice' & <img src=x onerror=alert(2)> {{ 7 * 7 }} ]]> --> é"""
TIME = "2026-11-25T09:15:58.011Z"
END = "2026-11-25T09:16:57.641Z"
STATES = (
    ("proven", "live"), ("proven", "configuration"), ("proven", "scaled"), ("not-measured", None), ("waived", None),
    ("not-applicable", None), ("not-measurable", None), ("failed", None), ("invalid", None),
)  # fmt: skip
"""What controls of the sample are, in turn; most are proven."""
OUTCOMES = {"proven": "pass", "failed": "fail", "waived": "fail"}
ZONES = {
    "internet": ["203.0.113.0/24", "2001:db8:1::/64"],
    "dmz": ["192.0.2.0/26", "2001:db8:2::/64"],
    "auth": ["192.0.2.64/26", "2001:db8:3::/64"],
    "store": ["192.0.2.128/26", "2001:db8:4::/64"],
    "management": ["198.51.100.0/24", "2001:db8:5::/64"],
}
HOSTS: dict[str, tuple[str, dict[str, list[str]]]] = {
    "edge": ("edges", {"internet": ["203.0.113.1", "2001:db8:1::1"], "dmz": ["192.0.2.1", "2001:db8:2::1"]}),
    "frontend": ("frontends", {"dmz": ["192.0.2.10", "2001:db8:2::10"]}),
    "auth": ("auths", {"auth": ["192.0.2.75", "2001:db8:3::10"]}),
    "store": ("stores", {"store": ["192.0.2.139", "2001:db8:4::10"]}),
    "relay": ("relays", {"dmz": ["192.0.2.20", "2001:db8:2::20"]}),
    "vantage": ("handsets", {}),
}
SILENT = {
    "name": "reachability: silent",
    "columns": ["from", "to", "ways"],
    "rows": [["vantage", "store", 22], ["vantage", "frontend", 18]],
}
COLUMNS = ["from", "to", "address", "protocol", "port", "flow", "seen"]


CATALOGUE = load_controls()


def sample_report(*, complete: bool = True) -> dict[str, Any]:
    """Evidence of a small site, in the form of schema 2."""
    return copy.deepcopy(_made(complete))


@functools.cache
def _made(complete: bool) -> dict[str, Any]:
    catalogue = CATALOGUE.controls
    results = []
    controls = []
    for number, control in enumerate(catalogue):
        status, kind = STATES[number // 3 % len(STATES)] if number % 3 == 0 else STATES[number % 2]
        check = f"test_sample.py::test_{control.id.lower().replace('-', '_').replace('.', '_')}[IPv4]"
        if status not in {"not-measured", "not-applicable"}:
            results.append(result(check, control.id, kind or "live", OUTCOMES.get(status, status), number))
        controls.append(
            {
                "id": control.id,
                "section": control.section,
                "level": control.level,
                "statement": control.statement,
                "sources": list(control.sources),
                "differs": ["RFC 8314 prefers TLS from the first byte"] if number == 1 else [],
                "binds": ["frontends"],
                "status": status,
                "class": kind,
                "classes": [kind] if kind else [],
                "reason": "" if status == "proven" else f"why it is {status}",
                "awaits": ["disruptive"] if status == "not-measured" else [],
                "waiver": "W1" if status == "waived" else None,
                "checks": [check] if status not in {"not-measured", "not-applicable"} else [],
                "mutants": ["break-something"] if number == 0 else [],
                "made_of": list(control.made_of),
            }
        )
    return {
        "schema": 2,
        "site": "sample",
        "lemonstand": "0.1.0",
        "code": {"commit": "0123456789abcdef" + "0" * 24, "modified": False, "sha256": "a" * 64},
        "inventory": "b" * 64,
        "started": TIME,
        "ended": END,
        "complete": complete,
        "runs": [
            {
                "kind": "plain", "started": TIME, "ended": END, "complete": complete, "results": len(results),
                "selection": {"controls": [], "sections": [], "hosts": [], "keyword": ""},
            }
        ],
        "dropped": [],
        "hosts": {name: host(*said) for name, said in HOSTS.items()},
        "policy": policy(),
        "results": results,
        "controls": controls,
        "waivers": [
            {
                "id": "W1", "title": HOSTILE, "part": "", "reason": HOSTILE,
                "controls": [each["id"] for each in controls if each["waiver"]],
                "owner": "somebody", "date": "2026-11-25", "expires": "2027-11-25", "origin": "site", "ended": "", "superfluous": False,
                "accepted": {"by": "somebody", "date": "2026-11-25"},
            },
            {
                "id": "PRO-W1", "title": "BINARYMIME", "part": "a part", "reason": "nobody has it", "controls": ["PRO-SUB-09"],
                "owner": "lemonstand", "date": "2026-11-25", "expires": "2027-11-25", "origin": "lemonstand", "ended": "",
                "superfluous": False, "accepted": None,
            },
        ],
        "deviations": [
            {
                "id": "TIMER-NAT-HOSTILE-IDLE-NOTIFY", "control": "LEM-5-02", "what": HOSTILE, "reason": HOSTILE,
                "accepted": {"by": HOSTILE, "date": "2026-11-26"},
            }
        ],
        "assessment": {"owner": "Jane Doe", "assessor": "", "scope": ""},
        "mutants": [
            {
                "name": "break-something",
                "host": "edge",
                "placebo": False,
                "controls": [catalogue[0].id],
                "checks": ["test_lem_3_01"],
                "tried": {
                    "lab": "mutants",
                    "at": "2026-01-01T00:00:00Z",
                    "verdict": "noticed",
                    "noticed": ["test_lem_3_01"],
                    "others": [],
                    "missed": [],
                    "same_code": False,
                },
            }
        ],
        "counts": counts(controls),
    }  # fmt: skip


def result(check: str, control: str, kind: str, outcome: str, number: int) -> dict[str, Any]:
    """What one check saw; every value tries to break out of the page."""
    found: dict[str, Any] = {
        "check": check, "class": kind, "outcome": outcome, "controls": [control], "supports": [], "host": list(HOSTS)[number % 5],
        "run": "plain", "time": TIME, "seconds": 0.25,
        "asked": [{"how": "command", "host": "edge", "what": f"echo {HOSTILE}", "answer": HOSTILE}],
        "measured": [
            {"name": HOSTILE, "value": HOSTILE, "unit": "", "volatile": False},
            {"name": "kernel established", "value": 432000, "unit": "s", "volatile": False},
        ],
        "message": "" if outcome == "pass" else HOSTILE, "seen": HOSTILE, "expected": HOSTILE, "remedy": HOSTILE,
    }  # fmt: skip
    if number == 0:
        found["tables"] = [
            {"name": "reachability", "columns": COLUMNS, "rows": matrix()},
            SILENT,
            {"name": HOSTILE, "columns": [HOSTILE], "rows": [[HOSTILE]]},
        ]
        found["series"] = [{"name": HOSTILE, "unit": "B", "points": [[0.0, 52.0], [1740.0, 72.0]]}]
    return found


def matrix() -> list[list[Any]]:
    """Cells: one open, one closed, one that leaks, one read from rules."""
    return [
        ["vantage", "frontend", "203.0.113.1", "tcp", 143, "imap", "open"],
        ["vantage", "frontend", "2001:db8:2::10", "tcp", 143, "imap", "open"],
        ["vantage", "frontend", "203.0.113.1", "tcp", 587, "submission", "silent"],
        ["vantage", "auth", "192.0.2.75", "tcp", 8443, "", "open"],
        ["frontend", "edge", "192.0.2.1", "udp", 123, "time-dmz", ""],
    ]


def host(group: str, zones: dict[str, list[str]]) -> dict[str, Any]:
    """What is told of a host."""
    return {
        "groups": [group],
        "zones": zones,
        "system": "Debian GNU/Linux 13 (trixie)",
        "kernel": "6.12.0",
        "container": "",
        "packages": {"dovecot-core": "1:2.4.1"},
        "running": {"dovecot": {"program": "/usr/sbin/dovecot", "package": "dovecot-core", "version": "1:2.4.1", "outdated": []}},
        "state": "c" * 64,
    }


def policy() -> dict[str, Any]:
    """The shipped flows and timers."""
    timers = load_timers()
    relations = [relation.model_dump(exclude={"profile"}) for relation in timers.relations if relation.profile in {None, DEFAULT_PROFILE}]
    return {
        "profile": {"tls": "both", "timers": DEFAULT_PROFILE},
        "zones": copy.deepcopy(ZONES),
        "flows": [
            {
                "name": flow.name, "from": flow.source, "to": flow.destination, "protocol": flow.protocol, "ports": list(flow.ports),
                "published": flow.publish, "reason": flow.reason, "controls": list(flow.controls), "origin": "lemonstand",
            }
            for flow in load_flows().flows
        ]
        + [
            {
                "name": "partner-mail", "from": "relays", "to": "internet", "protocol": "tcp", "ports": [2525], "published": False,
                "reason": "a partner takes mail on this port alone", "controls": [], "origin": "site",
            }
        ],
        "invariants": [{"id": "INV-1", "title": "stores never reach the Internet", "why": "mail would leave"}],
        "timers": dict(timers.profiles[DEFAULT_PROFILE]),
        "relations": relations,
        "middleboxes": [],
    }  # fmt: skip


def counts(controls: list[dict[str, Any]]) -> dict[str, int]:
    """Controls by status and class."""
    statuses = Counter(each["status"] for each in controls)
    classes = Counter(each["class"] for each in controls)
    names = ("proven", "failed", "invalid", "waived", "not-applicable", "not-measurable", "not-measured")
    return {
        "controls": len(controls),
        **{name: statuses[name] for name in names},
        **{name: classes[name] for name in ("live", "scaled", "configuration")},
    }
