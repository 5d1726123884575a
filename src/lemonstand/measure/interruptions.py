"""Interruptions that sessions have to outlive: outages, loss, errors, narrow ways; and what the border remembers of connections."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

from lemonstand.measure.silence import LONG_ENOUGH, MAIL_PORTS
from lemonstand.measure.vantage import SPARE_SECONDS, Finding, Value, Vantage
from lemonstand.observations import Pool
from lemonstand.outcomes import Invalid, NotMeasurable

LOSS_PERCENT = 20
LOSS_STALL = 100
"""Seconds: what is lost six times is sent again after 63 s (RFC 6298), and one login in some hundred meets that."""
NARROW_MTU = 1280
"""The least an IPv6 link may have (RFC 8200 section 5)."""
LARGE = 300_000
UNACKED_SECONDS = 6
INJECTIONS = 3


def outage(vantage: Vantage, seconds: int) -> Finding:
    """No packet passes the border for a while, mail arrives meanwhile; then the push comes first, on the same connection."""
    border = vantage.border

    def cut() -> Any:
        return vantage.prober.start(
            border, "hold-back", seconds=seconds + SPARE_SECONDS, ports=[143], within=seconds, device=vantage.outward
        )

    return _interrupted(vantage, seconds, cut)


def link_down(vantage: Vantage, seconds: int) -> Finding:
    """The handset's own link is down for a while, as in a tunnel; its addresses stay. Labs only: a real vantage would be lost."""
    if not vantage.site.is_lab:
        raise NotMeasurable("the link of a real vantage carries the question too")
    towards = vantage.endpoints()["address"]

    def cut() -> Any:
        return vantage.prober.start(vantage.host, "link-down", seconds=seconds + SPARE_SECONDS, towards=towards, within=seconds)

    return _interrupted(vantage, seconds, cut)


def _interrupted(vantage: Vantage, seconds: int, cut: Callable[[], Any]) -> Finding:
    with vantage.in_both("push", "idling", within=3.0 * seconds, account=vantage.accounts[0]) as sessions:
        hold = cut()
        hold.wait("holding")
        # From a frontend: the handset may have no network right now.
        ident = _mail_from_inside(vantage)
        held = hold.result()
        released = time.monotonic()
        seen = {family: running.wait("result") for family, running in sessions.items()}
    vantage.tidy(ident)
    after = {family: {**event.values["data"], "after": event.at - released} for family, event in seen.items()}
    values = [Value("interrupted for", seconds, "s")]
    if "dropped" in held:
        values.append(Value("packets held back", held["dropped"]))
    for family, each in after.items():
        values += [
            Value(
                f"IPv{family}: push after the end of it",
                round(each["after"], 1) if each["arrived"] else "none",
                "s" if each["arrived"] else "",
            ),
            Value(f"IPv{family}: the client is answered on the same connection", each["answered"]),
        ]
    return Finding(values, {"held": held, "sessions": after})


def _mail_from_inside(vantage: Vantage) -> str:
    frontend = vantage.site.group("frontends")[0].name
    sent = vantage.prober.ask(
        frontend, "deliver", endpoint=vantage.near(4), account=vantage.accounts[1], recipient=vantage.accounts[0]["user"]
    )
    if sent["code"] != 250:
        raise Invalid(f"no message could be sent: {sent['code']} {sent['text']}")
    return str(sent["ident"])


def loss(vantage: Vantage, seconds: int) -> Finding:
    """A fifth of all packets is lost at the border while clients log in on both ports."""
    hold = vantage.prober.start(
        vantage.border,
        "hold-back",
        seconds=seconds + SPARE_SECONDS,
        ports=MAIL_PORTS,
        within=seconds,
        percent=LOSS_PERCENT,
        device=vantage.outward,
    )
    hold.wait("holding")

    def ask(job: tuple[int, str]) -> Any:
        return vantage.ask(
            "logins",
            seconds=200,
            endpoint=vantage.endpoints(job[0]),
            accounts=vantage.accounts,
            count=3,
            parallel=1,
            stall=LOSS_STALL,
            service=job[1],
        )

    jobs = [(family, service) for family in vantage.families for service in ("imap", "submission")]
    with Pool(max_workers=len(jobs)) as pool:
        found = list(pool.map(ask, jobs))
    dropped = hold.result()["dropped"]
    if dropped == 0:
        raise Invalid("no packet was lost")
    wrong = [fault for each in found for fault in (*each["failed"], *each["stalled"])]
    values = [
        Value("packets lost", dropped),
        Value("logins", sum(each["count"] for each in found)),
        Value("slowest", max(each["slowest"] for each in found), "s"),
        Value("failed or stalled", len(wrong)),
    ]
    return Finding(values, {"wrong": wrong})


def soft_errors(vantage: Vantage, _seconds: int) -> Finding:
    """ICMP errors that end no connection, quoted in window, to frontends and stores while sessions talk; kernels' counters prove them.

    If somebody spoke in the moment they were sent, they quoted an old number and nobody looked: then they are sent again.
    """
    for _ in range(INJECTIONS - 1):
        with contextlib.suppress(Invalid):
            return _soft_errors(vantage)
    return _soft_errors(vantage)


def _soft_errors(vantage: Vantage) -> Finding:
    hosts = [*vantage.site.group("frontends"), *vantage.site.group("stores")]
    legs = {
        host.name: [str(a) for zone in ("dmz", "store") if zone in host.interfaces for a in host.interfaces[zone].addresses]
        for host in hosts
    }
    before = {host.name: vantage.prober.ask(host.name, "counters") for host in hosts}
    with vantage.in_both("talk", "talking", within=20, account=vantage.accounts[0], every=2.0) as sessions:
        targets = [address for each in legs.values() for address in each]
        sent = vantage.prober.ask(vantage.border, "soft-errors", targets=targets, ports=[143], within=4)
        talked = {family: running.result() for family, running in sessions.items()}
    after = {host.name: vantage.prober.ask(host.name, "counters") for host in hosts}
    values: list[Value] = []
    met: set[str] = set()
    for host in hosts:
        grown = {name: after[host.name][name] - before[host.name][name] for name in after[host.name]}
        due = sum(sent["sent"].get(address, 0) for address in legs[host.name])
        if due == 0:
            continue  # of several, the sessions are at some
        met |= set(host.groups)
        values.append(Value(f"errors {host.name} was sent and looked at", due))
        if grown["OutOfWindowIcmps"] != 0 or sum(grown.values()) < due:
            raise Invalid(f"the kernel of {host.name} did not look at the errors: {grown}, {due} sent")
    if missed := {"frontends", "stores"} - met:
        raise Invalid(f"no connection of any of the {' and '.join(sorted(missed))} was seen: nothing was sent")
    values += [Value(f"IPv{family}: session ended by", each["ended"] or "nothing") for family, each in talked.items()]
    values += [Value(f"IPv{family}: commands answered meanwhile", each["answered"]) for family, each in talked.items()]
    return Finding(values, {"talked": talked})


def opening(vantage: Vantage, _seconds: int) -> Finding:
    """The frontend's first attempt to reach the store is answered by "host unreachable"; the client logs in all the same, or not."""
    addresses = [str(a) for store in vantage.site.group("stores") for a in store.interfaces["store"].addresses]
    hold = vantage.prober.start(vantage.border, "refuse-openings", targets=addresses, ports=[143], count=1, within=45)
    hold.wait("refusing")
    found = vantage.ask(
        "logins", endpoint=vantage.endpoints(), accounts=vantage.accounts[:1], count=1, parallel=1, stall=20, service="imap"
    )
    refused = hold.result()["refused"]
    if refused == 0:
        raise Invalid("no opening was refused: the frontend reaches the store by another way")
    wrong = [*found["failed"], *found["stalled"]]
    values = [Value("openings refused", refused), Value("login took", found["slowest"], "s"), Value("failed", ", ".join(wrong) or "none")]
    return Finding(values, {"wrong": wrong})


def narrow(vantage: Vantage, _seconds: int) -> Finding:
    """The way outside becomes narrower while a session is open: errors tell the frontend, and a large message still comes through."""
    # By the address several frontends share, a session comes to any of them.
    frontends = [host.name for host in vantage.site.group("frontends")]
    names = {4: "InDestUnreachs", 6: "Icmp6InPktTooBigs"}
    for frontend in frontends:
        vantage.prober.ask(frontend, "forget-widths")
    with vantage.in_both("fetch-through", "stored", within=25, account=vantage.accounts[0], size=LARGE) as sessions:
        before = [vantage.prober.ask(frontend, "counters") for frontend in frontends]
        hold = vantage.prober.start(vantage.border, "narrow", device=vantage.outward, mtu=NARROW_MTU, within=15)
        hold.wait("narrow")
        fetched = {family: running.result() for family, running in sessions.items()}
        after = [vantage.prober.ask(frontend, "counters") for frontend in frontends]
        widths = hold.result()
    if widths["during"] >= widths["before"]:
        raise Invalid(f"the way did not become narrower: {widths}")
    errors = {family: sum(two[name] - one[name] for one, two in zip(before, after, strict=True)) for family, name in names.items()}
    values = [Value("octets a packet, before", widths["before"], "B"), Value("octets a packet, then", widths["during"], "B")]
    for family, each in fetched.items():
        values += [
            Value(f"IPv{family}: errors frontends got", errors[family]),
            Value(f"IPv{family}: messages of {each['octets']} B fetched", each["fetched"]),
            Value(f"IPv{family}: slowest", each["slowest"], "s"),
            Value(f"IPv{family}: session ended by", each["ended"] or "nothing"),
        ]
    return Finding(values, {"errors": errors, "fetched": fetched})


def memory(vantage: Vantage, _seconds: int) -> Finding:
    """What the border's conntrack means to remember of connections in each state, as it counts them down, in both IP versions."""
    border = vantage.border
    found: dict[str, dict[str, int]] = {}
    with vantage.in_both("closings", "there", within=LONG_ENOUGH, account=vantage.accounts[0]):
        entries = vantage.prober.ask(border, "tracked-connections", ports=[143])
    for version in vantage.families:
        found[f"IPv{version}"] = {
            state: _longest(entries, version, name)
            for state, name in (("established", "ESTABLISHED"), ("half-closed", "CLOSE_WAIT"), ("time-wait", "TIME_WAIT"))
        }
    before = {(entry["source"], entry["sport"]) for entry in vantage.prober.ask(border, "tracked-connections", ports=[143])}
    with vantage.in_both("talk", "talking", within=LONG_ENOUGH, account=vantage.accounts[0], every=0.5) as talking:
        held = vantage.prober.ask(
            border, "hold-back", ports=[143], within=UNACKED_SECONDS, device=vantage.outward, seconds=UNACKED_SECONDS + SPARE_SECONDS
        )
        for running in talking.values():
            running.stop()
    if held["dropped"] == 0:
        raise Invalid("nothing was held back: unacknowledged data could not be seen")
    for version in vantage.families:
        there = [e for e in held["entries"] if (e["family"], e["state"]) == (f"ipv{version}", "ESTABLISHED")]
        mine = [e["left"] for e in there if (e["source"], e["sport"]) not in before]
        if not mine:
            raise Invalid(f"the border shows no IPv{version} connection")
        found[f"IPv{version}"]["unacknowledged"] = min(mine)
    values = [Value(f"{family}, {state}", seconds, "s") for family, states in found.items() for state, seconds in states.items()]
    return Finding(values, {"left": found})


def _longest(entries: list[dict[str, Any]], version: int, state: str) -> int:
    """Of the youngest connection in a state: older ones have been counting down."""
    left = [entry["left"] for entry in entries if entry["family"] == f"ipv{version}" and entry["state"] == state]
    if not left:
        raise Invalid(f"the border shows no IPv{version} connection in the state {state}")
    return int(max(left))
