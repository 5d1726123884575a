"""The switch for emergencies: mail for clients is closed alone, stays closed, and opens again."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
from collections.abc import Iterator

import pytest

from lemonstand.checks.conftest import FactsOf, HostFactory, Measure
from lemonstand.checks.live import KNOCK_SECONDS, THROUGH
from lemonstand.measure import Vantage
from lemonstand.outcomes import expect, invalid
from lemonstand.probes.protocols.wire import Account
from lemonstand.remote.connections import Connection
from lemonstand.remote.endpoints import Endpoints, families_of
from lemonstand.site import Host, Site

PROGRAM = "/usr/local/lib/lemonstand/packet-filter"
SSH_SECONDS = 20
TALK_SECONDS = 25
EVERY = 1.0


@pytest.mark.answer("configuration")
@pytest.mark.supports("LEM-6.1-03", "LEM-3-03")
def test_the_service_is_open(site: Site, facts_of: FactsOf, frontends: list[str], edges: list[str], measure: Measure) -> None:
    """No edge and no frontend keeps clients out by the switch."""
    closed = {}
    for name in (*edges, *frontends):
        text = facts_of(name).data["texts"].get("/etc/lemonstand/closed.nft", "")
        if text:
            closed[name] = text.partition("\n")[0].lstrip("# ")
    measure("hosts looked at", len(edges) + len(frontends))
    expect(not closed, "the mail service is closed for clients", seen=closed, expected="open", remedy="`lemonstand service open` opens it")


class Switch:
    """Closes and opens as `lemonstand service` does: the same program, the same ports."""

    def __init__(self, site: Site, host: HostFactory) -> None:
        self._site, self._host = site, host
        self.ports = sorted({port for flow in site.active_flows if flow.is_for_clients for port in flow.ports})

    def close(self, *, cut: bool) -> None:
        """Closes."""
        for member in self._members():
            edge = "edges" in member.groups
            device = member.interfaces["internet"].device if edge else ""
            words = [PROGRAM, "close", "--ports", ",".join(map(str, self.ports)), "--device", device, "--reason", "a check of the switch"]
            self._run(member.name, shlex.join([*words, *(["--cut"] if cut else [])]))

    def boot(self) -> None:
        """Loads the rules of every host anew, as a boot does, after taking away what is in force."""
        for member in self._members():
            self._run(member.name, "nft delete table inet lemonstand_closed; systemctl restart lemonstand-nftables.service")

    def open(self) -> None:
        """Opens."""
        for member in self._members():
            self._run(member.name, f"{PROGRAM} open")

    def _members(self) -> tuple[Host, ...]:
        return (*self._site.group("edges"), *self._site.group("frontends"))

    def _run(self, name: str, command: str) -> None:
        done = self._host(name).run(command)
        if done.rc != 0:
            invalid(f"{name}: {command.split(maxsplit=1)[0]} failed: {done.stderr.strip()[:200]}")


@pytest.fixture
def switch(site: Site, host: HostFactory, facts_of: FactsOf) -> Iterator[Switch]:
    """Open before, open after."""
    made = Switch(site, host)
    for member in (*site.group("edges"), *site.group("frontends")):
        if "/etc/lemonstand/closed.nft" in facts_of(member.name).data["texts"]:
            invalid(f"the service is closed on {member.name}; `lemonstand service open` opens it")
    try:
        yield made
    finally:
        made.open()


def _new_shell(way: Connection) -> bool:
    """Whether a new SSH connection is let in."""
    command = ["ssh", "-o", "ControlPath=none", *shlex.split(way.ssh_arguments), way.target, "true"]
    with contextlib.suppress(subprocess.TimeoutExpired):
        return subprocess.run(command, capture_output=True, timeout=SSH_SECONDS, check=False, stdin=subprocess.DEVNULL).returncode == 0
    return False


@pytest.mark.answer("live")
@pytest.mark.disruptive
@pytest.mark.control("LEM-6.1-03")
def test_clients_are_shut_out_alone(
    site: Site,
    switch: Switch,
    vantage: Vantage,
    endpoints: Endpoints,
    exchangers: Endpoints,
    accounts: list[Account],
    connections: dict[str, Connection],
    measure: Measure,
) -> None:
    """Closed: no client gets in by either IP version, those who are in stay, the MX and SSH go on, also after a boot. Cut: nobody stays."""
    versions = families_of(site)
    targets = [(endpoints(version)["address"], port) for version in versions for port in switch.ports]
    others = [(exchangers(version)["address"], 25) for version in versions]

    def seen(dialled: list[tuple[str, int]]) -> dict[str, str]:
        found = vantage.ask("reach", targets=dialled, timeout=KNOCK_SECONDS * 2)
        return {f"{address} {port}": what for address, port, what in found}

    before = seen([*targets, *others])
    if set(before.values()) != {"open"}:
        invalid(f"not everything is open before: {before}")
    endpoint, account = endpoints(versions[-1]), accounts[0]
    with vantage.start("talk", seconds=4 * TALK_SECONDS, endpoint=endpoint, account=account, within=TALK_SECONDS, every=EVERY) as talk:
        talk.wait("talking")
        switch.close(cut=False)
        closed = seen(targets)
        switch.boot()
        after_boot = seen(targets)
        going = seen(others)
        shells = [name for name in (*_names(site, "edges"), *_names(site, "frontends")) if not _new_shell(connections[name])]
        stayed = talk.wait("result").values["data"]
    measure("ports closed", " ".join(map(str, switch.ports)))
    measure("answers in the session that was open", stayed["answered"])
    let_in = {**_through(closed), **{f"{name} after a boot": what for name, what in _through(after_boot).items()}}
    expect(not let_in, "clients get in although the service is closed", seen=let_in, expected="silence")
    expect(set(going.values()) == {"open"}, "closing mail for clients shuts the MX", seen=going, expected="open")
    expect(not shells, "closing mail for clients shuts SSH", seen=shells, expected="open")
    expect(not stayed["ended"], "closing ended a session that was open", seen=stayed, expected="it goes on")
    switch.open()
    with vantage.start("talk", seconds=4 * TALK_SECONDS, endpoint=endpoint, account=account, within=TALK_SECONDS / 3, every=EVERY) as talk:
        talk.wait("talking")
        switch.close(cut=True)
        gone = talk.wait("result").values["data"]
    measure("answers until the cut", gone["answered"])
    expect(gone["ended"] != "", "a session goes on although it was cut", seen=gone, expected="no answer any more")
    switch.open()
    again = seen([*targets, *others])
    expect(set(again.values()) == {"open"}, "opening does not open everything", seen=again, expected="open")


def _through(found: dict[str, str]) -> dict[str, str]:
    return {name: what for name, what in found.items() if what in THROUGH}


def _names(site: Site, group: str) -> list[str]:
    return [host.name for host in site.group(group)]
