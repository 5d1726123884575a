"""Sessions in which nothing is said: what they carry, how long servers wait, who keeps them alive, how soon they are told of a change."""

from __future__ import annotations

import time

from lemonstand.measure.vantage import Finding, Value, Vantage
from lemonstand.observations import Pool
from lemonstand.outcomes import Invalid
from lemonstand.remote.prober import results

MAIL_PORTS = [143, 587]
BUSY_EVERY = 5.0
LONG_ENOUGH = 90.0
"""Seconds a probe stays that is sent away once it was looked at."""
READ_LATE = 90
"""How much a timer may have run down by the time `ss` is asked; it prints whole minutes."""
SETTLE_SECONDS = 40
"""After which a store has put a session that idles to sleep."""


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
                endpoint=vantage.endpoints(family),
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
        family: vantage.ask("keep-alive", endpoint=vantage.endpoints(family), account=vantage.accounts[0], within=13)
        for family in vantage.families
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
        store = vantage.home(vantage.accounts[0])
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
