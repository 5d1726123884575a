"""The questions, each a function of a `Vantage` and seconds that returns a `Finding`. `QUESTIONS` names them for the command line."""

from __future__ import annotations

import contextlib
import email
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lemonstand.measure.vantage import SPARE_SECONDS, Finding, Value, Vantage
from lemonstand.observations import Pool
from lemonstand.outcomes import Invalid, NotMeasurable
from lemonstand.probes.clients.sweep import BLIND, UNSURE
from lemonstand.remote.prober import results

MAIL_PORTS = [143, 587]
LOSS_PERCENT = 20
LOSS_STALL = 100
"""Seconds: what is lost six times is sent again after 63 s (RFC 6298), and one login in some hundred meets that."""
BUSY_EVERY = 5.0
NARROW_MTU = 1280
"""The least an IPv6 link may have (RFC 8200 section 5)."""
LARGE = 300_000
UNACKED_SECONDS = 6
INJECTIONS = 3
LONG_ENOUGH = 90.0
"""Seconds a probe stays that is sent away once it was looked at."""
READ_LATE = 90
"""How much a timer may have run down by the time `ss` is asked; it prints whole minutes."""
SETTLE_SECONDS = 40
"""After which a store has put a session that idles to sleep."""
CHANGES = ("delivery", "append", "flag", "expunge")
SWEPT, SWEEP_SECONDS = 12, 0.8
"""Sessions a kind of change meets, and the seconds over which they fall asleep."""
OPENING_SECONDS = 4
"""What a login among many may take on a busy machine."""
MISSED_SECONDS = 30.0
"""Who was not told until then is not told: a busy machine takes its time to wake them all, what is lost is lost for ever."""
STAGES = ("before TLS", "behind TLS", "after login")
BY_NATURE = {"STARTTLS", "AUTH", "LOGINDISABLED", "SASL-IR"}
"""Words that differ where the way of logging in does."""


@dataclass(frozen=True)
class Question:
    """A question as the command line knows it.

    Args:
        ask: takes a look and seconds.
        says: what is asked, in a line.
        seconds: how long it takes if nobody says otherwise; 0: as long as it takes.
        disturbs: whether other users of the site notice.
    """

    ask: Callable[[Vantage, int], Finding]
    says: str
    seconds: int = 0
    disturbs: bool = False


def parity(vantage: Vantage, _seconds: int) -> Finding:
    """Greeting, CAPABILITY and EHLO at each stage: outside, at the frontend's own door, at the store; and whether each word is true."""
    frontend = vantage.site.group("frontends")[0].name
    one = vantage.accounts[0]
    with Pool(max_workers=4) as pool:
        outside = {f: pool.submit(vantage.ask, "stages", door=vantage.doors(f), account=one) for f in vantage.families}
        behind = {f: pool.submit(vantage.prober.ask, frontend, "stages", door=vantage.near(f), account=one) for f in vantage.families}
        store = pool.submit(vantage.prober.ask, frontend, "store-stages", inward=vantage.inward, account=one)
        truth = {f: pool.submit(vantage.ask, "truth", door=vantage.doors(f), account=one) for f in vantage.families}
        seen = {
            "outside": {f: job.result() for f, job in outside.items()},
            "behind": {f: job.result() for f, job in behind.items()},
            "store": store.result(),
            "truth": {f: job.result() for f, job in truth.items()},
        }
    data: dict[str, Any] = {**seen, "on the way": [], "by the frontend": [], "lies": [], "hidden": []}
    for family in vantage.families:
        for service in ("imap", "submission"):
            here, there = seen["outside"][family][service], seen["behind"][family][service]
            data["on the way"] += [
                f"IPv{family} {service} {stage}: {here[stage]!r} outside, {there[stage]!r} at the frontend"
                for stage in here
                if _comparable(here[stage]) != _comparable(there[stage])
            ]
            own = seen["store"][service]["after login"]
            differ = sorted(word for word in set(own) ^ set(here["after login"]) if word.split()[0].split("=")[0] not in BY_NATURE)
            data["by the frontend"] += [f"IPv{family} {service}: {word}" for word in differ]
            for word, (announced, works, answer) in seen["truth"][family][service].items():
                if announced != works:
                    data["lies" if announced else "hidden"].append(f"IPv{family} {service} {word}: {answer}")
    words, tried = (next(iter(seen[key].values())) for key in ("outside", "truth"))
    values = [Value(f"{service} words {stage}", len(words[service][stage])) for service in ("imap", "submission") for stage in STAGES]
    values += [
        Value("words tried", sum(len(tried[service]) for service in tried)),
        Value("differences between outside and the frontend's own door", len(data["on the way"])),
        Value("differences between frontend and store", len(data["by the frontend"])),
        Value("announced and not working", ", ".join(data["lies"]) or "none"),
        Value("working and not announced", ", ".join(data["hidden"]) or "none"),
    ]
    return Finding(values, data)


def _comparable(said: str | list[str]) -> list[str]:
    """The words of a stage without those about logging in: Dovecot takes a connection from its own address for a safe one."""
    words = re.sub(r"[][]", " ", said).split() if isinstance(said, str) else said
    return [word for word in words if word.split()[0].split("=")[0] not in BY_NATURE - {"STARTTLS", "SASL-IR"}]


def transparency(vantage: Vantage, _seconds: int) -> Finding:
    """A long session word for word: what a client stores, and what it is told, compared with what the store keeps and says."""
    frontend = vantage.site.group("frontends")[0].name
    one = vantage.accounts[0]
    found: dict[int, dict[str, Any]] = {}
    for family in vantage.families:
        box = f"probe-{secrets.token_hex(6)}"
        door = vantage.doors(family)
        try:
            stored = vantage.ask("script-store", door=door, account=one, box=box)
            outside = vantage.ask("script-outside", door=door, account=one, box=box)
            inside = vantage.prober.ask(frontend, "script-inside", inward=vantage.inward, account=one, box=box)
        finally:
            vantage.ask("script-remove", door=door, account=one, box=box)
        chunks = vantage.ask("script-chunks", door=door, account=one)
        found[family] = {**stored, "outside": outside, "inside": inside, "chunks": chunks}
    values = []
    for family, each in found.items():
        values += [
            Value(f"IPv{family}: octets stored by APPEND", each["octets"], "B"),
            Value(f"IPv{family}: octets of answers compared", each["outside"]["octets"], "B"),
            Value(f"IPv{family}: answers that differ", _differing(each)),
            Value(f"IPv{family}: messages changed on the way in or out", _changed(each)),
            Value(f"IPv{family}: octets in {each['chunks']['chunks']} chunks (BDAT)", each["chunks"]["octets"], "B"),
            Value(f"IPv{family}: what came of them is the same", each["chunks"]["sent"] == each["chunks"]["got"]),
        ]
    return Finding(values, {"families": found})


def _differing(each: dict[str, Any]) -> int:
    return sum(one != two for one, two in zip(each["outside"]["answers"], each["inside"]["answers"], strict=True))


def _changed(each: dict[str, Any]) -> int:
    return sum(
        not (sent == out == kept) for sent, out, kept in zip(each["sent"], each["outside"]["got"], each["inside"]["got"], strict=False)
    ) + abs(len(each["sent"]) - len(each["outside"]["got"]))


def sleep(vantage: Vantage, seconds: int) -> Finding:
    """Sessions that idle while nothing happens: each segment of theirs, by cause; and a busy one beside each, of the same age."""
    within = float(seconds + SETTLE_SECONDS)
    one, two = vantage.accounts[:2]
    with (
        vantage.in_both("idle", "idling", within=within, account=one, settle=float(SETTLE_SECONDS), apart=True) as idle,
        vantage.in_both("talk", "talking", within=within, account=two, every=BUSY_EVERY) as busy,
    ):
        slept = {family: running.result() for family, running in idle.items()}
        talked = {family: running.result() for family, running in busy.items()}
    values = []
    for family, each in slept.items():
        hours = each["counted"] / 3600
        if not hours:
            raise Invalid("nothing was counted: mail arrived at once")
        values += [
            Value(f"IPv{family}: silent and watched for", each["counted"], "s"),
            *(Value(f"IPv{family}: segments, {cause}", count) for cause, count in sorted(each["segments"].items())),
            Value(f"IPv{family}: wake-ups", round(each["wake_ups"] / hours, 1), "an hour"),
            Value(f"IPv{family}: carried", round(each["octets"] / hours), "B an hour"),
            Value(f"IPv{family}: commands of the busy session answered", talked[family]["answered"]),
            Value(f"IPv{family}: busy session ended by", talked[family]["ended"] or "nothing"),
        ]
    return Finding(values, {"slept": slept, "talked": talked})


def wait(vantage: Vantage, seconds: int) -> Finding:
    """Submission sessions that say nothing, before and after the login and in a message: how long the server waits for the next command."""
    with Pool(max_workers=6) as pool:
        jobs = {
            (family, stage): pool.submit(
                vantage.ask,
                "silence",
                seconds=seconds + 60,
                door=vantage.doors(family),
                account=vantage.accounts[0],
                within=seconds,
                port=587,
                stage=stage,
            )
            for family in vantage.families
            for stage in ("mail", "login", "tls")
        }
        found = {key: job.result() for key, job in jobs.items()}
    words = {"mail": "in a message", "login": "logged in", "tls": "before login"}
    values = [Value(f"IPv{f}, {words[stage]}: silent for", each["held"], "s") for (f, stage), each in found.items()]
    values += [Value(f"IPv{f}, {words[stage]}: ended by", each["ended"] or "nothing") for (f, stage), each in found.items()]
    return Finding(values, {f"{stage} IPv{family}": each for (family, stage), each in found.items()})


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
    towards = vantage.doors()["address"]

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
    sent = vantage.prober.ask(frontend, "deliver", door=vantage.near(4), account=vantage.accounts[1], recipient=vantage.accounts[0]["user"])
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
            door=vantage.doors(job[0]),
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
    values = []
    for host in hosts:
        grown = {name: after[host.name][name] - before[host.name][name] for name in after[host.name]}
        due = sum(sent["sent"].get(address, 0) for address in legs[host.name])
        values.append(Value(f"errors {host.name} was sent and looked at", due))
        if due == 0:
            raise Invalid(f"no connection of {host.name} was seen: nothing was sent")
        if grown["OutOfWindowIcmps"] != 0 or sum(grown.values()) < due:
            raise Invalid(f"the kernel of {host.name} did not look at the errors: {grown}, {due} sent")
    values += [Value(f"IPv{family}: session ended by", each["ended"] or "nothing") for family, each in talked.items()]
    values += [Value(f"IPv{family}: commands answered meanwhile", each["answered"]) for family, each in talked.items()]
    return Finding(values, {"talked": talked})


def opening(vantage: Vantage, _seconds: int) -> Finding:
    """The frontend's first attempt to reach the store is answered by "host unreachable"; the client logs in all the same, or not."""
    addresses = [str(a) for store in vantage.site.group("stores") for a in store.interfaces["store"].addresses]
    hold = vantage.prober.start(vantage.border, "refuse-openings", targets=addresses, ports=[143], count=1, within=45)
    hold.wait("refusing")
    found = vantage.ask("logins", door=vantage.doors(), accounts=vantage.accounts[:1], count=1, parallel=1, stall=20, service="imap")
    refused = hold.result()["refused"]
    if refused == 0:
        raise Invalid("no opening was refused: the frontend reaches the store by another way")
    wrong = [*found["failed"], *found["stalled"]]
    values = [Value("openings refused", refused), Value("login took", found["slowest"], "s"), Value("failed", ", ".join(wrong) or "none")]
    return Finding(values, {"wrong": wrong})


def narrow(vantage: Vantage, _seconds: int) -> Finding:
    """The way outside becomes narrower while a session is open: errors tell the frontend, and a large message still comes through."""
    frontend = vantage.site.group("frontends")[0].name
    names = {4: "InDestUnreachs", 6: "Icmp6InPktTooBigs"}
    vantage.prober.ask(frontend, "forget-widths")
    with vantage.in_both("fetch-through", "stored", within=25, account=vantage.accounts[0], size=LARGE) as sessions:
        before = vantage.prober.ask(frontend, "counters")
        hold = vantage.prober.start(vantage.border, "narrow", device=vantage.outward, mtu=NARROW_MTU, within=15)
        hold.wait("narrow")
        fetched = {family: running.result() for family, running in sessions.items()}
        after = vantage.prober.ask(frontend, "counters")
        widths = hold.result()
    if widths["during"] >= widths["before"]:
        raise Invalid(f"the way did not become narrower: {widths}")
    errors = {family: after[name] - before[name] for family, name in names.items()}
    values = [Value("octets a packet, before", widths["before"], "B"), Value("octets a packet, then", widths["during"], "B")]
    for family, each in fetched.items():
        values += [
            Value(f"IPv{family}: errors the frontend got", errors[family]),
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
        entries = vantage.prober.ask(border, "flows", ports=[143])
    for version in vantage.families:
        found[f"IPv{version}"] = {
            state: _longest(entries, version, name)
            for state, name in (("established", "ESTABLISHED"), ("half-closed", "CLOSE_WAIT"), ("time-wait", "TIME_WAIT"))
        }
    before = {(entry["source"], entry["sport"]) for entry in vantage.prober.ask(border, "flows", ports=[143])}
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


def timers(vantage: Vantage, _seconds: int) -> Finding:
    """The kernels' keep-alive timers on each leg: client to frontend, frontend to store, store to relay."""
    legs: dict[str, list[float | None]] = {}
    account = vantage.accounts[0]
    before = _kept_alive(vantage)  # what is older counts down already, and may be anybody's
    with (
        vantage.in_both("push", "idling", within=LONG_ENOUGH, account=account),
        vantage.in_both("silence", "silent", within=LONG_ENOUGH, account=account, port=587, stage="mail"),
    ):
        for (group, local, peer), timer in _kept_alive(vantage).items():
            if (group, local, peer) not in before:
                legs.setdefault(f"{_leg(vantage, group, local, peer)}, port {_port(local, peer)}", []).append(timer)
    values = []
    for leg, seen in sorted(legs.items()):
        on = [timer for timer in seen if timer is not None]
        values.append(Value(leg, f"{min(on):.0f} to {max(on):.0f}" if on else "off", "s" if on else ""))
        values.append(Value(f"{leg}: connections", len(seen)))
    return Finding(values, {"legs": legs})


def _address(text: str) -> str:
    return text.rpartition(":")[0].strip("[]").removeprefix("::ffff:").partition("%")[0]


def _port(local: str, peer: str) -> int:
    near, far = (int(end.rpartition(":")[2]) for end in (local, peer))
    return near if near in MAIL_PORTS else far


def _kept_alive(vantage: Vantage) -> dict[tuple[str, str, str], float | None]:
    """The mail connections of frontends, stores and relays: group, this end and the other, to the kernel's timer."""
    ports = {"frontends": MAIL_PORTS, "stores": MAIL_PORTS, "relays": [587]}
    hosts = [(group, host.name) for group in ports for host in vantage.site.group(group)]
    asked = {(group, name): vantage.prober.start(name, "keepalives", ports=ports[group]) for group, name in hosts}
    return {(group, each["local"], each["peer"]): each["timer"] for (group, _), entries in results(asked).items() for each in entries}


def _leg(vantage: Vantage, group: str, local: str, peer: str) -> str:
    def are(end: str, others: str, zone: str) -> bool:
        return _address(end) in {str(address) for host in vantage.site.group(others) for address in host.interfaces[zone].addresses}

    if group == "frontends":
        return "frontend to store" if are(peer, "stores", "store") else "client to frontend" if are(local, "frontends", "dmz") else "other"
    if group == "stores":
        return "store to relay" if are(peer, "relays", "dmz") else "store's side of the frontend"
    return "relay's side of the store"


def answers(vantage: Vantage, _seconds: int) -> Finding:
    """Whether a TCP keep-alive segment of the handset is answered through everything in between, and how often the other side asks."""
    found = {
        family: vantage.ask("keep-alive", door=vantage.doors(family), account=vantage.accounts[0], within=13) for family in vantage.families
    }
    values = []
    for family, each in found.items():
        if each["asked"] == 0:
            raise Invalid("this handset's kernel asked nothing")
        values += [
            Value(f"IPv{family}: keep-alive segments sent", each["asked"]),
            Value(f"IPv{family}: answered", each["answered"]),
            Value(f"IPv{family}: keep-alive segments of the other side", each["theirs"]),
        ]
    return Finding(values, {"families": found})


def push(vantage: Vantage, _seconds: int) -> Finding:
    """How soon a session that the store has put to sleep is told of new mail: from its acceptance to EXISTS."""
    within = float(SETTLE_SECONDS + 60)
    with vantage.in_both("idle", "settled", within=within, account=vantage.accounts[0], settle=float(SETTLE_SECONDS)) as sessions:
        store = vantage.site.group("stores")[0].name
        awake = vantage.prober.ask(store, "processes", name="imap")["count"]
        holders = vantage.prober.ask(store, "processes", name="imap-hibernate")["count"]
        ident = vantage.mail()
        accepted = time.monotonic()
        told = {family: running.wait("exists").at - accepted for family, running in sessions.items()}
        results = {family: running.wait("result").values["data"] for family, running in sessions.items()}
    vantage.tidy(ident)
    values = [Value(f"IPv{family}: told after", round(max(0.0, seconds), 2), "s") for family, seconds in told.items()]
    values += [Value("processes of sessions that are awake on the store", awake), Value("processes that hold sleeping ones", holders)]
    return Finding(values, {"told": told, "results": results, "awake": awake, "holders": holders})


def falling_asleep(vantage: Vantage, _seconds: int = 0, kinds: tuple[str, ...] = CHANGES, sessions: int = 0) -> Finding:
    """Changes that come while sessions are put to sleep, one after the other: who is told, and how soon.

    Args:
        kinds: of `probes.sweep.KINDS`.
        sessions: how many have to meet a change at least; 0: one round of as many as there is room for.
    """
    asleep = vantage.site.timers_in_force["hibernate"]
    if not asleep:
        raise NotMeasurable("the site puts no session to sleep")
    # Half of what the store lets a user's devices behind one address have; two accounts share the kinds.
    each = max(2, min(SWEPT, 4 * vantage.site.settings.devices_per_user // len(kinds)))
    rounds = max(1, -(-sessions // (each * len(kinds))))
    data = _swept(vantage, kinds, each, rounds, asleep)
    # Somebody else's mail in INBOX wakes all of them together, a busy machine makes a change too late: then none was falling asleep.
    if again := tuple(kind for kind in kinds if data[kind]["crossed"] < each // 4):
        for kind, seen in _swept(vantage, again, each, 1, asleep).items():
            data[kind] = {name: data[kind][name] + more for name, more in seen.items()}  # what was missed stays missed
    values = []
    for kind, seen in data.items():
        told = [seconds for _, seconds in seen["sessions"] if seconds is not None]
        values.append(Value(f"{kind}: told", f"{len(told)} of {len(seen['sessions'])}, {seen['crossed']} of them while falling asleep"))
        if told:
            values.append(Value(f"{kind}: told after, at the latest", round(max(told), 2), "s"))
    return Finding(values, data)


def _swept(vantage: Vantage, kinds: tuple[str, ...], each: int, rounds: int, asleep: int) -> dict[str, Any]:
    data: dict[str, Any] = vantage.ask(
        "sweep",
        seconds=SPARE_SECONDS + OPENING_SECONDS * each * len(kinds) + rounds * (asleep + len(kinds) + int(MISSED_SECONDS) + 2),
        doors=[vantage.doors(family) for family in vantage.families],
        # Deliveries come to the INBOX that other questions use least: what wakes all at once meets nobody in falling asleep.
        accounts=[vantage.accounts[-1], vantage.accounts[0]],
        kinds=list(kinds),
        count=each,
        span=SWEEP_SECONDS,
        asleep=asleep,
        within=MISSED_SECONDS,
        rounds=rounds,
    )
    for kind, seen in data.items():
        told = [seconds for _, seconds in seen["sessions"] if seconds is not None]
        # A message is accepted before it is there: whoever was asleep then is told at once.
        late = min(told, default=0.0) if kind == "delivery" else 0.0
        late = min(late, UNSURE * SWEEP_SECONDS / 2)
        seen["crossed"] = sum(asleep - BLIND <= age + late <= asleep for age, _ in seen["sessions"])
    return data


def decoded(message: dict[str, Any]) -> bytes:
    """What the body of a message means, its transfer encoding undone.

    Args:
        message: `header` and `body`, as the probe `old-host` has them.
    """
    whole = email.message_from_bytes((message["header"] + "\r\n\r\n" + message["body"]).encode("latin-1"))
    return bytes(whole.get_payload(decode=True) or b"")


QUESTIONS: dict[str, Question] = {
    "parity": Question(parity, "what is announced: outside, at the frontend, at the store; and whether it is true"),
    "transparency": Question(transparency, "a long session, octet by octet, at both ends"),
    "sleep": Question(sleep, "what wakes a session that idles, by cause, and a busy one beside it", 300),
    "wait": Question(wait, "how long submission waits for the next command", 310),
    "push": Question(push, "how soon a hibernated session is told of new mail"),
    "falling-asleep": Question(falling_asleep, "changes that come in the moment in which sessions are put to sleep: who is told, how soon"),
    "timers": Question(timers, "TCP keep-alive timers on each leg"),
    "answers": Question(answers, "whether TCP keep-alive of the client is answered"),
    "conntrack": Question(memory, "what the border remembers of connections in each state (holds packets back for 6 s)", disturbs=True),
    "outage": Question(outage, "no packet passes the border; push first, then the client, on the same connection", 120, disturbs=True),
    "link-down": Question(link_down, "the same with the handset's link down (labs)", 60, disturbs=True),
    "loss": Question(loss, f"{LOSS_PERCENT} % of all packets lost while clients log in", 30, disturbs=True),
    "soft-errors": Question(soft_errors, "ICMP errors in window end no session", disturbs=True),
    "opening": Question(opening, "a soft error while the frontend opens its connection to the store", disturbs=True),
    "narrow": Question(narrow, "the path MTU drops while a session is open", disturbs=True),
}
