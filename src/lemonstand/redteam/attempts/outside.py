"""From the Internet without an account: logins that are none, names, guesses, open relays, mail within mail, claims of trust."""

from __future__ import annotations

import time
from typing import Any

from lemonstand.probes.clients.tls import hop_of
from lemonstand.redteam.attempts import code_of
from lemonstand.redteam.context import LabUnderAttack, Seen, need, told
from lemonstand.remote.endpoints import families_of

STRANGER, ELSEWHERE = "postmaster@peer.test", "somebody@peer.test"
"""Addresses of the lab's mail host outside."""
CLAIMED = "198.51.100.77"
GUESSES = 14
ARRIVAL_SECONDS = 20
LET_IN = {"OK", "PREAUTH"}


@code_of("internet-no-login")
def no_login(lab: LabUnderAttack) -> Seen:
    """In at the frontend without a password, somebody's ticket included."""
    vantage = lab.name("handsets")
    taken: list[str] = []
    seen: dict[str, Any] = {}
    for family in families_of(lab.site):
        endpoint = lab.endpoint(family)
        first = lab.ask(vantage, "greetings", endpoint=endpoint)
        taken += [f"{port} greets with PREAUTH" for port, line in first.items() if "PREAUTH" in line]
        answers = lab.ask(vantage, "no-login", endpoint=endpoint, name=lab.one["user"], ticket=lab.ticket["ticket"])
        seen |= {f"{case}, IPv{family}": answer for case, answer in answers.items()}
    taken += [case for case, answer in seen.items() if answer["status"] in LET_IN]
    need(_logs_in(lab), "the right password is refused as well")
    return Seen(
        bool(taken), told(seen, [case for case in taken if case in seen]) if taken else told(seen, []), "the right password is taken"
    )


def _logs_in(lab: LabUnderAttack) -> bool:
    seen = lab.ask(lab.name("handsets"), "logins", endpoint=lab.endpoint(4), accounts=[lab.one], count=1, parallel=1, stall=20)
    return not seen["failed"] and not seen["stalled"]


@code_of("internet-names")
def names(lab: LabUnderAttack) -> Seen:
    """Names that a part of the chain might read in another way."""
    seen = lab.ask(lab.name("handsets"), "odd-names", seconds=120, endpoint=lab.endpoint(4), account=lab.one, other=lab.two["user"])
    own, after = seen.pop("own name"), seen.pop("own name afterwards")
    need(own["status"] == "OK" and own["own"], f"the own name is refused: {own['text']}")
    taken = [case for case, answer in seen.items() if answer["status"] == "OK" and answer["own"] is not True]
    if after["status"] != "OK":
        return Seen(True, f"the service does not take the own name any more: {after['text']}", "it did before")
    same = [case for case, answer in seen.items() if answer["status"] == "OK" and answer["own"]]
    rest = f"; the own mailbox under {', '.join(same)}" if same else ""
    return Seen(bool(taken), told(seen, taken, of=len(seen) - len(same)) + rest, "the own name is taken, before and after")


@code_of("internet-guessing")
def guessing(lab: LabUnderAttack) -> Seen:
    """Guesses at a user's password; he himself comes from elsewhere."""
    vantage = lab.name("handsets")
    seen = lab.ask(
        vantage, "guess-users", seconds=120,
        endpoints=[lab.endpoint(4), lab.endpoint(6)], victim=lab.two, guesses=GUESSES, source=_second_address(lab, vantage),
    )  # fmt: skip
    need(seen["answers"], "no guess was answered")
    let_in = any(answer.startswith("OK") for answer in (*seen["answers"], seen["last"]))
    endless = "AUTHENTICATIONFAILED" in seen["last"]
    shut_out = not seen["owner"].startswith("OK")
    what = ["somebody is let in"] if let_in else []
    what += [f"guess {GUESSES + 1} is still tried: {seen['last']}"] if endless else []
    what += [f"the user himself is refused from elsewhere: {seen['owner']}"] if shut_out else []
    answers = ", ".join(f"{count} x {answer}" for answer, count in seen["answers"].items())
    return Seen(bool(what), "; ".join(what) or f"{answers}; then {seen['last']}", "the user logs in from another address meanwhile")


def _second_address(lab: LabUnderAttack, host: str) -> str:
    """A further address of the handset."""
    usual = {str(address) for leg in lab.site.hosts[host].interfaces.values() for address in leg.addresses}
    for name, leg in lab.legs(host).items():
        if name.startswith("radio"):
            more = [address for address in leg["addresses"] if ":" not in address and address not in usual]
            need(more, "the handset has one address only")
            return str(more[-1])
    need(False, "the handset has no radio leg")
    return ""


def _relay(lab: LabUnderAttack, family: int) -> Seen:
    """Mail for others, as a stranger, at the MX."""
    peer = lab.name("peers")
    seen = lab.ask(
        peer,
        "relay-attempts",
        endpoint=lab.endpoint(family, "relays"),
        port=25,
        own=STRANGER,
        elsewhere=ELSEWHERE,
        user=lab.two["user"],
    )
    user = seen.pop("for a user")
    need(user["code"] == 250, f"mail for a user is refused: {user['text']}")
    seen.pop("extension")  # what follows the plus sign is the user's own business
    taken = [case for case, answer in seen.items() if answer["code"] in range(200, 300)]
    return Seen(bool(taken), told(seen, taken), "mail for a user is taken")


@code_of("internet-open-relay-ipv4")
def open_relay_4(lab: LabUnderAttack) -> Seen:
    """By IPv4."""
    return _relay(lab, 4)


@code_of("internet-open-relay-ipv6")
def open_relay_6(lab: LabUnderAttack) -> Seen:
    """By IPv6."""
    return _relay(lab, 6)


@code_of("internet-open-submission")
def open_submission(lab: LabUnderAttack) -> Seen:
    """Mail on 587 without a login, in both IP versions."""
    seen: dict[str, Any] = {}
    for family in families_of(lab.site):
        answers = lab.ask(
            lab.name("handsets"), "relay-attempts",
            endpoint=lab.endpoint(family), port=587, own=STRANGER, elsewhere=ELSEWHERE, user=lab.two["user"],
        )  # fmt: skip
        seen |= {f"{case}, IPv{family}": answer for case, answer in answers.items()}
    own = _submitted(lab)["own"]
    need(own["code"] == 250, f"a user who logged in is refused: {own['text']}")
    taken = [case for case, answer in seen.items() if answer["code"] in range(200, 300)]
    return Seen(bool(taken), told(seen, taken), "a user who logged in is taken")


def _submitted(lab: LabUnderAttack) -> dict[str, Any]:
    def make() -> Any:
        return lab.ask(lab.name("handsets"), "submitted-senders", endpoint=lab.endpoint(4), account=lab.one, other=lab.two["user"])

    return dict(lab.once("submitted senders", make))


@code_of("internet-injection")
def injection(lab: LabUnderAttack) -> Seen:
    """Commands in the same segment as STARTTLS, on each public port that has it."""
    seen, early = {}, []
    for group, ports, host in (("frontends", (143, 587), lab.name("handsets")), ("relays", (25,), lab.name("peers"))):
        for port in ports:
            for family in families_of(lab.site):
                answer = lab.ask(host, "injection", hop=hop_of(lab.endpoint(family, group), port))
                name = f"port {port}, IPv{family}"
                seen[name] = answer["ended"] or f"{len(answer['answers'])} answers, all to what came behind TLS"
                early += [name] if answer["early"] else []
                need(
                    lab.ask(host, "starttls", endpoint=lab.endpoint(family, group), port=port),
                    f"{name} does not go over to TLS at all",
                )
    return Seen(bool(early), told(seen, early), f"without them, {len(seen)} of {len(seen)} go over to TLS and answer")


def _smuggled(lab: LabUnderAttack, host: str, **args: Any) -> Seen:
    sent = lab.ask(host, "smuggle", seconds=120, **args)
    codes = sent["codes"]
    accepted = [case for case, code in codes.items() if code.startswith("250")]
    outer = [sent["outer"][case] for case in accepted]
    need(outer, f"none of the messages was accepted: {codes}")
    found = lab.ask(
        lab.name("handsets"), "arrived", seconds=90, endpoint=lab.endpoint(4), account=lab.two,
        idents=[*sent["outer"].values(), *sent["inner"].values()], expected=outer, within=ARRIVAL_SECONDS,
    )["found"]  # fmt: skip
    need(set(found) & set(outer), "none of the accepted messages arrived")
    through = [case for case, ident in sent["inner"].items() if ident in found]
    refused = {case: code for case, code in codes.items() if case not in accepted}
    got = (
        f"a second message came out of {', '.join(through)}"
        if through
        else f"{len(codes)} tries, {len(refused)} refused, the others are one message each"
    )
    return Seen(bool(through), got, f"{len(set(found) & set(outer))} messages around them arrived")


@code_of("internet-smuggling")
def smuggling(lab: LabUnderAttack) -> Seen:
    """A message within a message, at the MX."""
    return _smuggled(lab, lab.name("peers"), endpoint=lab.endpoint(4, "relays"), port=25, sender=STRANGER, recipient=lab.two["user"])


@code_of("user-smuggling")
def user_smuggling(lab: LabUnderAttack) -> Seen:
    """The same on 587, after a login, with another sender inside."""
    one = lab.one
    return _smuggled(
        lab,
        lab.name("handsets"),
        endpoint=lab.endpoint(4),
        port=587,
        sender=one["user"],
        recipient=lab.two["user"],
        account=one,
    )


@code_of("internet-trust")
def trust(lab: LabUnderAttack) -> Seen:
    """Another address, told by ID, XCLIENT and the PROXY protocol: who believes it?"""
    began = int(time.time()) - 1
    seen = lab.ask(lab.name("handsets"), "trust", endpoint=lab.endpoint(4), account=lab.one, claimed=CLAIMED)
    logged = seen["ID on IMAP"]["login"]
    need(logged == "OK", "the login behind the claim is refused, so no log would hold it")
    entered = [case for case, answer in seen.items() if case != "ID on IMAP" and answer["login"] == "OK"]
    believed = []
    for group in ("frontends", "auths", "stores"):
        host = lab.name(group)
        lines = lab.ask(host, "journal-lines", text=CLAIMED, since=began)
        believed += [
            f"{host}: {line}" for line in lines if f"rip={CLAIMED}" in line or f"client={CLAIMED}" in line or f"[{CLAIMED}]" in line
        ]
    lines = lab.ask(lab.name("frontends"), "journal-lines", text=lab.one["user"], since=began)
    need(lines, "the frontend logged nothing of the login")
    got = "; ".join([*entered, *believed][:3]) or told(seen, [])
    return Seen(bool(entered or believed), got, "the login is in the logs, with the true address")
