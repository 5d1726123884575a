"""Two hundred sleeping sessions, and what may be done to the site meanwhile: certificates renewed, the whole site applied, CAs changed."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lemonstand.checks.conftest import Measure
from lemonstand.deploy import run_playbook
from lemonstand.measure import Vantage
from lemonstand.measure.crowd import woken
from lemonstand.outcomes import Unanswered, expect, invalid, not_measurable
from lemonstand.paths import data_dir
from lemonstand.probes.protocols.wire import Account
from lemonstand.remote.certificates import Certificate, all_in
from lemonstand.remote.endpoints import ARRIVAL_SECONDS, Endpoints, families_of
from lemonstand.remote.prober import Prober
from lemonstand.site import Site

pytestmark = [pytest.mark.answer("live"), pytest.mark.disruptive]

CROWD = 100
"""Sessions in each IP version."""
CROWD_SECONDS = 900
"""How long they wait for a message: all the work has to be done by then."""
TOLD_SECONDS = 60
"""How long they have to be told of a message that is there."""
PAUSE_SECONDS = 3.0
"""Between two messages of the user who is at work meanwhile: fewer in an hour than one may send."""


class Crowd:
    """Sessions that sleep while playbooks are run.

    Args:
        vantage: where they are, and how the site is met.
        endpoints: the ways in.
        runs: for the records of the playbooks.
        measure: is told what was seen.
    """

    def __init__(self, vantage: Vantage, endpoints: Endpoints, runs: Path, measure: Measure) -> None:
        self._vantage, self._runs, self._measure = vantage, runs, measure
        self._ways = [endpoints(family) for family in families_of(vantage.site)]
        self.found: dict[str, Any] = {}

    def through(self, playbooks: Mapping[str, Mapping[str, Any]]) -> None:
        """Has them sleep, runs playbooks (by name without ending, with variables) one after the other, and sends each a message then."""
        with self._vantage.start(
            "idle-crowd", seconds=2 * CROWD_SECONDS, endpoints=self._ways, accounts=self._vantage.accounts[:2], count=CROWD,
            within=CROWD_SECONDS,
        ) as crowd:  # fmt: skip
            self._measure("sessions", crowd.wait("idling").values["opened"])
            for name, extra in playbooks.items():
                path = data_dir("playbooks") / f"{name}.yml"
                done = run_playbook(self._vantage.site.inventory, [path], runs=self._runs, extra=dict(extra))
                if done.exit_code != 0:
                    invalid(f"{name}.yml failed: {[failure.message for failure in done.record.failures][:3] or done.message}")
                self._measure(f"{name}.yml", round(done.seconds), "s")
            self.found = woken(self._vantage, crowd, TOLD_SECONDS)
        self._measure("told of a message", self.found["pushed"])
        self._measure("answered afterwards", self.found["answered"])
        if self.found["refused"] or self.found["opened"] != CROWD * len(self._ways):
            invalid(f"only {self.found['opened']} sessions could be opened: {self.found['refused'][:3]}")

    def judge(self) -> None:
        """None of them was lost, each was told and heard."""
        found = self.found
        self._measure("dropped", len(found["ended"]))
        expect(not found["ended"], "sleeping sessions were lost", seen=found["ended"], expected="none")
        expect(found["pushed"] == found["opened"], "sessions were not told of a message", seen=found["pushed"], expected=found["opened"])
        expect(found["answered"] == found["opened"], "sessions were not heard any more", seen=found["answered"], expected=found["opened"])


@pytest.fixture
def crowd(vantage: Vantage, endpoints: Endpoints, tmp_path: Path, measure: Measure) -> Crowd:
    """Two hundred of them."""
    return Crowd(vantage, endpoints, tmp_path / "runs", measure)


def _on_hosts(prober: Prober, site: Site) -> dict[tuple[str, str], str]:
    """The certificates on all hosts, by host and file."""
    servers = [host.name for host in site.hosts.values() if host.role_groups]
    return {(name, file): pem for name in servers for file, pem in prober.ask(name, "certificates")["certificates"].items()}


@pytest.mark.control("LEM-4.1-11", "LEM-8-20")
@pytest.mark.supports("LEM-4.1-02", "LEM-4.1-10")
def test_no_sleeping_session_is_lost_by_renewal_or_apply(prober: Prober, site: Site, crowd: Crowd, measure: Measure) -> None:
    """All keys and certificates are made anew, then everything is applied; each session is told of a message afterwards, and heard."""
    before = _on_hosts(prober, site)
    crowd.through({"renew-certificates": {"certificates_new_keys": True}, "site": {}})
    own = {key: pem for key, pem in _on_hosts(prober, site).items() if not key[1].startswith("ca-")}
    kept = [
        f"{host}: {file}"
        for (host, file), pem in own.items()
        if (old := before.get((host, file))) is not None and Certificate(file, old).sha256 == Certificate(file, pem).sha256
    ]
    measure("certificates renewed", len(own) - len(kept))
    if kept:
        invalid(f"these certificates were not renewed: {kept}")
    crowd.judge()


@contextmanager
def _at_work(vantage: Vantage) -> Iterator[dict[str, Any]]:
    """A user who meanwhile logs in, sends, and another one who reads: over every inner leg. Yields what came of it: `done`, `failed`."""
    came: dict[str, Any] = {"done": 0, "failed": []}
    over = threading.Event()
    sender, reader = vantage.accounts[0], vantage.accounts[2]

    def work() -> None:
        while not over.wait(PAUSE_SECONDS):
            try:
                sent = vantage.ask("deliver", endpoint=vantage.endpoints(), account=sender, recipient=reader["user"])
                ident, within = sent["ident"], ARRIVAL_SECONDS
                read = vantage.ask("wait-for", endpoint=vantage.endpoints(), account=reader, ident=ident, within=within)
                fault = f"{sent['code']} {sent['text']}" if sent["code"] != 250 else "it did not come" if read["seconds"] is None else ""
            except Unanswered as problem:
                fault = str(problem)
            came["done"] += 1
            came["failed"] += [fault] if fault else []

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield came
    finally:
        over.set()
        worker.join()


@pytest.mark.control("LEM-4.1-11", "OPS-32")
def test_nobody_is_refused_while_cas_are_changed(
    lab_only: None, prober: Prober, site: Site, vantage: Vantage, crowd: Crowd, accounts: list[Account], measure: Measure
) -> None:
    """Every inner CA is changed: sleeping sessions live on, and whoever logs in, sends and reads meanwhile notices nothing."""
    if len(accounts) < 3:
        not_measurable("it takes three accounts: two that sleep, and one that reads meanwhile")
    before = _on_hosts(prober, site)
    with _at_work(vantage) as came:
        crowd.through({"rotate-authorities": {}})
    after = _on_hosts(prober, site)
    trusted = {key: {each.sha256 for each in all_in(key[1], pem)} for key, pem in after.items() if key[1].startswith("ca-")}
    old = [f"{host}: {file}" for (host, file), held in trusted.items() if held & {c.sha256 for c in all_in(file, before[host, file])}]
    measure("CAs changed on hosts", len(trusted))
    measure("messages sent and read meanwhile", came["done"])
    expect(not came["failed"], "somebody was refused meanwhile", seen=came["failed"][:5], expected=f"{came['done']} messages read")
    expect(bool(trusted) and not old, "hosts still trust a CA of before", seen=old, expected="new ones alone")
    if came["done"] < 10:
        invalid(f"only {came['done']} messages were tried meanwhile")
    crowd.judge()
