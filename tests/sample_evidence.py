"""Evidence made up for tests, in the form of the schema."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

from lemonstand.evidence.document import Session, document, stamp
from lemonstand.evidence.model import Measurement, Result
from lemonstand.evidence.write import check_form
from lemonstand.observations import Observation
from lemonstand.policy.controls import load_controls

STARTED = dt.datetime(2026, 11, 25, 9, 0, tzinfo=dt.UTC)
HOST = {
    "system": "Debian GNU/Linux 13 (trixie)",
    "kernel": "6.12.0",
    "container": "",
    "packages": {"dovecot-core": "1:2.4.1+dfsg1-6"},
    "running": {"dovecot": {"program": "/usr/sbin/dovecot", "package": "dovecot-core", "version": "1:2.4.1+dfsg1-6", "outdated": []}},
    "state": "a" * 64,
}


def results() -> list[Result]:
    """One of each outcome, and one of each kind of value."""
    when = stamp(STARTED + dt.timedelta(seconds=1))
    return [
        Result("test_x.py::test_live[IPv4]", "live", "pass", ("LEM-3-01", "LEM-3-02"), time=when, seconds=0.4,
               measured=[Measurement("delay", 0.41, "s", True), Measurement("TLS", "TLSv1.3")],
               asked=[Observation("packets", "handset", "probe imap-session {}", "* OK")]),
        Result("test_y.py::test_setting[store]", "configuration", "pass", ("LEM-4.1-06",), ("LEM-5-04",), host="store", time=when,
               measured=[Measurement("imap_idle_notify_interval", 1740, "s")],
               asked=[Observation("setting", "store", "doveconf x", "29 mins")]),
        Result("test_y.py::test_broken[store]", "configuration", "fail", ("LEM-7-01",), host="store", time=when, message="too early",
               seen="7200 s", expected="7440 s", remedy="raise it"),
        Result("test_z.py::test_kernel", "configuration", "not-measurable", ("LEM-7-12",), time=when, message="a container"),
        Result("test_z.py::test_outside", "live", "not-measured", ("LEM-5-05",), time=when, message="no host outside"),
        Result("test_z.py::test_lost", "live", "invalid", ("LEM-6-05",), time=when, message="the probe died"),
    ]  # fmt: skip


def evidence(made: list[Result] | None = None, **changes: Any) -> dict[str, Any]:
    """A document; `changes` replace its members, or a host's by `host`."""
    session = Session(
        kind="plain",
        selection={"controls": [], "sections": [], "hosts": [], "keyword": ""},
        inventory=str(Path(__file__).parent / "render"),
        started=STARTED,
        ended=STARTED + dt.timedelta(minutes=1),
        hosts={"store": {**HOST, **changes.pop("host", {})}},
    )
    found = document(load_controls(), session, results() if made is None else made, {"LEM-4-01": {"disruptive"}})
    found |= {"site": "sample", **changes}
    check_form(found)
    return found
