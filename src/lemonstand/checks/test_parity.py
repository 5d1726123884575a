"""The same service on both sides of everything in between: every word at every stage, each word true, every octet unchanged."""

from __future__ import annotations

from typing import Any

import pytest

from lemonstand.checks.background import measurement
from lemonstand.checks.conftest import Measure
from lemonstand.measure import Finding, Vantage, announcements, contents, silence
from lemonstand.outcomes import expect, invalid, not_measurable
from lemonstand.probes.clients.delivery import EIGHT_BIT
from lemonstand.probes.clients.script import COMMANDS
from lemonstand.remote.endpoints import ELSEWHERE, timer
from lemonstand.site import Site

pytestmark = pytest.mark.answer("live")


@measurement()
def parity(vantage: Vantage) -> Finding:
    """Words at each stage and place, and whether they are true."""
    return announcements.parity(vantage, 0)


@measurement()
def transparency(vantage: Vantage) -> dict[int, dict[str, Any]]:
    """A long session at both ends, by IP version."""
    return dict(contents.transparency(vantage, 0).data["families"])


@measurement()
def timers(vantage: Vantage) -> Finding:
    """The kernels' keep-alive timers on each leg."""
    return silence.timers(vantage, 0)


@measurement()
def seven_bit(vantage: Vantage) -> dict[str, Any]:
    """What a host outside that knows no 8BITMIME got of a message of 8-bit text."""
    site = vantage.site
    hosts = site.group("peers")
    if not hosts:
        not_measurable("the inventory names no mail host outside the site (group 'peers')")
    sources = [str(a) for relay in site.group("relays") for a in relay.interfaces["dmz"].addresses]
    sources += [str(site.settings.public_ipv4)] if site.settings.public_ipv4 else []
    recipient = f"legacy@{ELSEWHERE.partition('@')[2]}"
    with vantage.prober.start(hosts[0].name, "old-host", sources=sources, recipient=recipient, within=40) as host:
        host.wait("listening")
        sent = vantage.ask("deliver", endpoint=vantage.endpoints(), account=vantage.accounts[0], recipient=recipient, how="eightbit")
        expect(sent["code"] == 250, "8-bit text is refused", seen=sent, expected=250)
        return dict(host.wait("result").values["data"])


@pytest.mark.control("LEM-6-08", "LEM-6-04", "LEM-3-06")
def test_every_word_is_the_same_outside(parity: Finding, measure: Measure) -> None:
    """Greeting, CAPABILITY and EHLO before TLS, behind it and after login: outside as at the frontend's own endpoint."""
    for value in parity.values:
        measure(value.name, value.value, value.unit)
    differ = parity.data["on the way"]
    expect(not differ, "something on the way changes what the services say", seen=differ, expected="the same words")


@pytest.mark.control("LEM-6-06")
def test_the_frontend_says_what_the_store_says(parity: Finding, measure: Measure) -> None:
    """After login, on both ports, in both IP versions: the words of the store, but for how one logs in."""
    differ = parity.data["by the frontend"]
    measure("differences", len(differ))
    expect(not differ, "the frontend adds or hides what the store says", seen=differ, expected="the same words")


@pytest.mark.control("LEM-6-06", "LEM-6-10")
def test_what_is_said_is_so(parity: Finding, measure: Measure) -> None:
    """A command for each word: what is announced works, what is not announced does not."""
    measure("words tried", sum(len(each) for service in parity.data["truth"].values() for each in service.values()))
    expect(not parity.data["lies"], "what is announced does not work", seen=parity.data["lies"], expected="all of it works")
    expect(not parity.data["hidden"], "what works is not announced", seen=parity.data["hidden"], expected="all of it announced")


@pytest.mark.control("LEM-6-04")
@pytest.mark.supports("LEM-6-08", "LEM-3-06")
def test_every_octet_is_the_same(transparency: dict[int, dict[str, Any]], family: int, measure: Measure) -> None:
    """8-bit text, every octet but NUL, lines of 64 KiB and dots, stored and read back; each answer compared with the store's own."""
    each = transparency[family]
    measure("stored", each["octets"], "B")
    measure("answers compared", each["outside"]["octets"], "B")
    expect(each["sent"] == each["outside"]["got"], "a message comes back changed", seen=each["outside"]["got"], expected=each["sent"])
    expect(each["sent"] == each["inside"]["got"], "a message is kept changed", seen=each["inside"]["got"], expected=each["sent"])
    differ = [
        command.format(box="MAILBOX")
        for command, one, two in zip(COMMANDS, each["outside"]["answers"], each["inside"]["answers"], strict=True)
        if one != two
    ]
    expect(not differ, "answers differ from the store's own", seen=differ, expected="the same octets")


@pytest.mark.control("PRO-SUB-08")
@pytest.mark.supports("LEM-6-04", "PRO-SUB-10")
def test_chunks_carry_every_octet(transparency: dict[int, dict[str, Any]], family: int, measure: Measure) -> None:
    """A message of all octets but NUL, in chunks that cut lines and characters (RFC 3030), arrives as it was sent."""
    chunks = transparency[family]["chunks"]
    measure("chunks", chunks["chunks"])
    measure("octets", chunks["octets"], "B")
    expect(chunks["code"] == 250, "chunks are refused", seen=f"{chunks['code']} {chunks['text']}", expected=250)
    expect(chunks["sent"] == chunks["got"], "chunks arrive changed", seen=chunks["got"], expected=chunks["sent"])


@pytest.mark.control("PRO-SUB-10")
def test_eight_bit_text_is_made_seven_bit(seven_bit: dict[str, Any], measure: Measure) -> None:
    """A host outside that knows no 8BITMIME gets seven bits, which mean the same text (RFC 6152 section 3)."""
    got = seven_bit
    measure("octets above 127", got["eight_bit"])
    encodings = [line for line in got["header"].splitlines() if line.lower().startswith("content-transfer-encoding:")]
    measure("encoding", ", ".join(encodings))
    expect(got["eight_bit"] == 0, "a host that can't take it gets 8-bit text", seen=got["commands"], expected="seven bits")
    expect(contents.decoded(got) == EIGHT_BIT, "the text means something else", seen=got["body"], expected=EIGHT_BIT.decode())


@pytest.mark.control("LEM-4.2-07")
@pytest.mark.answer("scaled")
def test_keep_alive_is_answered(client_keepalive: dict[int, dict[str, Any]], family: int, measure: Measure) -> None:
    """The client's kernel asks every 2 s in place of two hours: each question is answered through everything in between."""
    each = client_keepalive[family]
    measure("asked", each["asked"])
    measure("answered", each["answered"])
    expect(each["answered"] >= each["asked"] > 0, "keep-alive of a client is not answered", seen=each, expected="an answer each")
    expect(each["answers_after"], "the session does not outlive its own keep-alive", seen=each, expected="NOOP answered")
    expect(each["theirs"] == 0, "the other side asks far too often", seen=each["theirs"], expected="nothing within seconds")


@pytest.mark.control("LEM-4.2-03")
@pytest.mark.supports("LEM-4.2-07", "LEM-5-04", "LEM-4-04c")
def test_no_leg_keeps_itself_alive_too_often(timers: Finding, site: Site, measure: Measure) -> None:
    """The kernels' timers on each leg (client to frontend, frontend to store, store to relay), at each end that is ours, as they run."""
    found = timers
    for value in found.values:
        measure(value.name, value.value, value.unit)
    legs = found.data["legs"]
    wanted = ("client to frontend", "frontend to store", "store's side of the frontend", "store to relay")
    missing = [leg for leg in wanted if not any(name.startswith(leg) for name in legs)]
    if missing:
        invalid(f"no connection was seen: {', '.join(missing)}; there is {', '.join(sorted(legs)) or 'none'}")
    floor = timer(site, "tcp_keepalive_time")
    wrong = {leg: [t for t in seen if t is not None and t < floor - silence.READ_LATE] for leg, seen in legs.items()}
    wrong = {leg: seen for leg, seen in wrong.items() if seen}
    expect(not wrong, "a leg is kept alive more often than every two hours", seen=wrong, expected=f"{floor} s, or no timer at all")
