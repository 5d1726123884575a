"""SSH is for those who manage hosts: by key alone, for listed accounts, and it passes nobody on."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lemonstand.checks.background import Answers
from lemonstand.checks.conftest import FactsOf, Measure
from lemonstand.outcomes import expect
from lemonstand.remote.connections import Connection
from lemonstand.remote.ssh_server import passes_on, ways_in
from lemonstand.site import Site

Settings = dict[str, list[str]]
Question = Callable[[str, Connection], Any]

CLOSED = {
    "authenticationmethods": "publickey", "pubkeyauthentication": "yes", "passwordauthentication": "no",
    "kbdinteractiveauthentication": "no", "hostbasedauthentication": "no", "permitemptypasswords": "no", "strictmodes": "yes",
    "permituserenvironment": "no", "allowagentforwarding": "no", "allowstreamlocalforwarding": "no", "gatewayports": "no",
    "permittunnel": "no", "x11forwarding": "no", "permitlisten": "none",
}  # fmt: skip
ROOT = {"no", "without-password", "prohibit-password", "forced-commands-only"}
WEAK = re.compile(r"sha1|umac-64|md5|cbc|3des|arcfour|-96\b|none|group1-|ssh-dss|^ssh-rsa\b")
"""SHA-1, tags and blocks of 64 bits, modes that leak; BSI TR-02102-4 and RFC 9142."""
ALGORITHMS = ("kexalgorithms", "ciphers", "macs", "hostkeyalgorithms", "pubkeyacceptedalgorithms")
TRIES, SECONDS = 6, 60


def _faults(settings: Settings, allowed: set[str]) -> Iterator[str]:
    """What is open that should not be."""

    def one(name: str) -> str:
        return " ".join(settings.get(name, ["not said"]))

    yield from (f"{name} {one(name)}, not {wanted}" for name, wanted in CLOSED.items() if one(name) != wanted)
    if one("permitrootlogin") not in ROOT:
        yield f"permitrootlogin {one('permitrootlogin')}"
    if one("allowtcpforwarding") not in {"no", "local"} or one("permitopen") == "any":
        yield f"allowtcpforwarding {one('allowtcpforwarding')}, permitopen {one('permitopen')}"
    named = {word for value in settings.get("allowusers", []) for word in value.split()}
    if not named:
        yield "allowusers names nobody: every account with a key may log in; set ansible_user"
    elif named - allowed:
        yield f"allowusers names {', '.join(sorted(named - allowed))} beside {', '.join(sorted(allowed))}"
    if not 1 <= int(one("logingracetime")) <= SECONDS or not 1 <= int(one("maxauthtries")) <= TRIES:
        yield f"logingracetime {one('logingracetime')}, maxauthtries {one('maxauthtries')}"
    if one("loglevel") != "VERBOSE":
        yield f"loglevel {one('loglevel')}: nobody could tell whose key it was"


@pytest.mark.answer("configuration")
@pytest.mark.control("LEM-8-26")
@pytest.mark.supports("LEM-8-09")
def test_keys_are_the_only_way_in(site: Site, facts_of: FactsOf, node: str, measure: Measure) -> None:
    """What sshd makes of all its files, for everybody and for the account that manages the host."""
    facts = facts_of(node)
    allowed = {facts.account, *site.hosts[node].settings.ssh_users}
    wrong: list[str] = []
    for whose in ("everybody", "account's"):
        settings = facts.ssh_server(whose)
        wrong += [f"{fault} (for {'everybody' if whose == 'everybody' else facts.account})" for fault in _faults(settings, allowed)]
        measure(f"forwards, for {whose}", " ".join([*settings["allowtcpforwarding"], "to", *settings["permitopen"]]))
    expect(not wrong, "SSH lets in or on more than it should", seen=wrong, expected="keys alone, listed accounts, no forwarding")


@pytest.mark.answer("configuration")
@pytest.mark.control("LEM-8-26")
def test_ssh_agrees_on_nothing_weak(facts_of: FactsOf, node: str, measure: Measure) -> None:
    """Key exchange, ciphers, integrity and signatures that the server offers."""
    settings = facts_of(node).ssh_server("everybody")
    weak = []
    for name in ALGORITHMS:
        offered = ",".join(settings.get(name, [])).split(",")
        measure(name, len(offered))
        weak += [f"{name} {each}" for each in offered if WEAK.search(each)]
    expect(not weak, "SSH offers weak algorithms", seen=weak, expected="none with SHA-1, 64 bits or CBC")


@pytest.fixture(scope="module")
def comers(answers: Answers, connections: dict[str, Connection], nodes: list[str]) -> Callable[[str, Question], Any]:
    """Who comes to every host by connections of his own: all hosts are asked at once, and each check hears of its own."""
    asked: dict[tuple[str, Question], str] = {
        (node, question): f"ssh {node} {question.__name__}" for node in nodes for question in (ways_in, passes_on)
    }
    for (node, question), name in asked.items():
        answers.plan(name, functools.partial(question, node, connections[node]))
        answers.begin_alone(name)
    return lambda node, question: answers(asked[node, question], functools.partial(question, node, connections[node]))


@pytest.mark.answer("live")
@pytest.mark.control("LEM-8-26")
@pytest.mark.supports("LEM-8-09")
def test_the_server_that_runs_names_keys_alone(comers: Callable[[str, Question], Any], node: str, measure: Measure) -> None:
    """A connection of its own that shows no key is told by what it could log in; one that shows the key can't have itself passed on."""
    offered: set[str] = comers(node, ways_in)
    measure("ways in", " ".join(sorted(offered)))
    expect(offered == {"publickey"}, "SSH takes more than keys", seen=sorted(offered), expected="publickey")
    # The server's own loopback port certainly answers, so a refusal is the server's.
    onward: bool = comers(node, passes_on)
    measure("passes on to itself", onward)
    expect(not onward, "SSH passes on who is logged in", seen="its own port answers through it", expected="administratively prohibited")
