"""Other users' mail, from a broken-into frontend or relay."""

from __future__ import annotations

from typing import Any

from lemonstand.redteam.attempts import code_of
from lemonstand.redteam.context import LabUnderAttack, Seen, need, told

GRANTED = "own ticket"
PROMISED_SECONDS, SLACK_SECONDS = 60, 6
"""What a ticket's life is said to be (docs/decisions/0004), and what a clock 5 s behind adds to it."""
AGO = 10
FOREIGN = ("public", "issuer-client", "")
RIGHT = "right in all"
SPOILT: dict[str, dict[str, Any]] = {
    RIGHT: {},
    "ended": {"iat": -80, "nbf": -80, "exp": -AGO},
    "for another audience": {"aud": "elsewhere"},
    "from another issuer": {"iss": "https://elsewhere.invalid/"},
    "of another scope": {"scope": "profile"},
    "not valid yet": {"nbf": 600, "exp": 660},
    "for nobody": {"sub": None},
    "for an empty name": {"sub": ""},
    "for two": {"sub": ["probe-one@lemon.test", "probe-two@lemon.test"]},
}


def _marked(lab: LabUnderAttack) -> dict[str, Any]:
    """Tickets with one wrong claim, signed with the true key, and the public keys."""
    auth = lab.name("auths")
    return dict(lab.once("marked", lambda: lab.ask(auth, "marked", user=lab.one["user"], store=lab.inner_services["store"], cases=SPOILT)))


def _present(lab: LabUnderAttack, tried: dict[str, dict[str, str]], *, host: str = "", wait: float = 0) -> dict[str, Any]:
    """Shows tickets to the store, an own one among them, which must be taken."""
    own = {"user": lab.one["user"], "ticket": lab.ticket["ticket"]}
    seen = dict(
        lab.ask(host or lab.name("frontends"), "present", inner_services=lab.inner_services, tried={GRANTED: own, **tried}, wait=wait)
    )
    control = seen.pop(GRANTED)
    need(control["status"] == "OK", f"the store refuses a good ticket: {control['text']}")
    return seen


def _judged(seen: dict[str, Any], control: str = "an own ticket is taken") -> Seen:
    taken = [case for case, answer in seen.items() if answer["status"] not in {"NO", "BAD", "CLOSED", "BYE"}]
    return Seen(bool(taken), told(seen, taken), control)


@code_of("frontend-without-ticket")
def without_ticket(lab: LabUnderAttack) -> Seen:
    """Passwords, names and certificates at the store, no ticket."""
    seen = lab.ask(lab.name("frontends"), "without-ticket", inner_services=lab.inner_services, account=lab.one, other=lab.two)
    offered = seen.pop("mechanisms")
    _present(lab, {})
    extra = sorted(set(offered) - {"AUTH=OAUTHBEARER", "AUTH=XOAUTH2"})
    judged = _judged(seen)
    if extra:
        return Seen(True, f"the store offers {', '.join(extra)}; {judged.got}", judged.control)
    return judged


@code_of("frontend-expired-ticket")
def expired(lab: LabUnderAttack) -> Seen:
    """A ticket that ended."""
    ticket = _marked(lab)["tickets"]["ended"]
    cases = {f"ended {AGO} s ago, {service}": {"user": lab.one["user"], "ticket": ticket, "service": service} for service in _SERVICES}
    return _judged(_present(lab, cases), "an own ticket in its time is taken")


_SERVICES = ("imap", "submission")


@code_of("frontend-misdirected-ticket")
def misdirected(lab: LabUnderAttack) -> Seen:
    """Tickets the issuer's key signed for other purposes."""
    tickets = {case: ticket for case, ticket in _marked(lab)["tickets"].items() if case != "ended"}
    seen = _present(lab, {case: {"user": lab.one["user"], "ticket": ticket} for case, ticket in tickets.items()})
    right = seen.pop(RIGHT)
    need(right["status"] == "OK", f"a ticket made here that is right in all is refused: {right['text']}")
    return _judged(seen, "a ticket of the same making that is right in all is taken")


@code_of("frontend-foreign-ticket")
def foreign(lab: LabUnderAttack) -> Seen:
    """One's own ticket with another user's name."""
    other, ticket = lab.two["user"], lab.ticket["ticket"]
    names = {"another's name": other, "in capitals": other.upper(), "both names": f"{lab.one['user']},{other}", "no name": ""}
    cases = {
        f"{case}, {service}": {"user": name, "ticket": ticket, "service": service} for case, name in names.items() for service in _SERVICES
    }
    return _judged(_present(lab, cases))


def _forged(lab: LabUnderAttack) -> dict[str, str]:
    def make() -> Any:
        return lab.ask(lab.name("frontends"), "forge", ticket=lab.ticket["ticket"], other=lab.two["user"], public=_marked(lab)["public"])

    return dict(lab.once("forged", make))


def _forgery(lab: LabUnderAttack, *words: str) -> Seen:
    tickets = {case: ticket for case, ticket in _forged(lab).items() if any(word in case for word in words)}
    need(tickets, "nothing was forged")
    return _judged(_present(lab, {case: {"user": lab.two["user"], "ticket": ticket} for case, ticket in tickets.items()}))


@code_of("frontend-edited-ticket")
def edited(lab: LabUnderAttack) -> Seen:
    """A good ticket with another subject in it."""
    return _forgery(lab, "edited", "signature cut off", "subject twice")


@code_of("frontend-resigned-ticket")
def signed_anew(lab: LabUnderAttack) -> Seen:
    """A ticket signed with a key of one's own."""
    return _forgery(lab, "signed anew")


@code_of("frontend-unsigned-ticket")
def unsigned(lab: LabUnderAttack) -> Seen:
    """`alg: none` and its spellings."""
    return _forgery(lab, "unsigned")


@code_of("frontend-confused-ticket")
def confused(lab: LabUnderAttack) -> Seen:
    """HS256 with the public key as its secret, and key ids that lead elsewhere."""
    return _forgery(lab, "HS256")


@code_of("frontend-ticket-other-certificate")
def other_certificate(lab: LabUnderAttack) -> Seen:
    """A good ticket without the frontend's certificate for stores."""
    ticket = {"user": lab.one["user"], "ticket": lab.ticket["ticket"]}
    names = {"": "no certificate", "public": "the public certificate", "issuer-client": "the certificate for the issuer"}
    cases = {f"{names[each]}, {service}": {**ticket, "certificate": each, "service": service} for each in FOREIGN for service in _SERVICES}
    return _judged(_present(lab, cases))


@code_of("frontend-replayed-ticket")
def replayed(lab: LabUnderAttack) -> Seen:
    """A ticket that was used, once more within its minute."""
    answer = lab.ask(lab.name("frontends"), "obtain", inner_services=lab.inner_services, account=lab.one)
    need(answer["ticket"], f"the issuer gave no ticket: {answer}")
    case = {"user": lab.one["user"], "ticket": answer["ticket"]}
    first = lab.ask(lab.name("frontends"), "present", inner_services=lab.inner_services, tried={"first": case})
    need(first["first"]["status"] == "OK", f"the store refuses a good ticket: {first}")
    again = lab.ask(lab.name("frontends"), "present", inner_services=lab.inner_services, tried={"again": case})["again"]
    taken = again["status"] == "OK"
    return Seen(
        taken, f"{'taken again' if taken else 'refused'}; it ends {answer['lifetime']} s after it was made", "the first use is taken"
    )


@code_of("frontend-stolen-ticket")
def stolen(lab: LabUnderAttack) -> Seen:
    """A ticket kept for later."""
    answer = lab.ask(lab.name("frontends"), "obtain", inner_services=lab.inner_services, account=lab.one)
    need(answer["ticket"], f"the issuer gave no ticket: {answer}")
    case = {"user": lab.one["user"], "ticket": answer["ticket"]}
    control = "the same ticket is taken while it lives"
    first = lab.ask(lab.name("frontends"), "present", inner_services=lab.inner_services, tried={"now": case})["now"]
    need(first["status"] == "OK", f"the store refuses a good ticket: {first['text']}")
    if answer["lifetime"] > PROMISED_SECONDS + SLACK_SECONDS:
        return Seen(True, f"a ticket that is good for {answer['lifetime']} s", control)
    wait = answer["lifetime"] + SLACK_SECONDS + 1
    later = lab.ask(lab.name("frontends"), "present", seconds=120, inner_services=lab.inner_services, tried={"later": case}, wait=wait)[
        "later"
    ]
    return Seen(later["status"] == "OK", f"{wait} s later: {later['status']} {later['text']}"[:160], control)


@code_of("frontend-mail-files")
def files(lab: LabUnderAttack) -> Seen:
    """Mail in files of the frontend."""
    held = holdings(lab, lab.name("frontends"))
    return Seen(bool(held["mail"]), "; ".join(held["mail"][:4]) or f"no mail in {held['files']} files", "a planted file is found")


def holdings(lab: LabUnderAttack, host: str) -> dict[str, Any]:
    """What a host's files hold; see `host_contents.holdings`."""
    users = [user.name for user in lab.site.settings.users]
    held = dict(lab.once(f"holdings of {host}", lambda: lab.ask(host, "holdings", seconds=120, users=users)))
    need(held["seen"], f"a file planted on {host} was not found")
    return held


@code_of("relay-at-the-store")
def relay_at_the_store(lab: LabUnderAttack) -> Seen:
    """A good ticket and every certificate of the relay, at the store and at the issuer."""
    relay = lab.name("relays")
    case = {"user": lab.one["user"], "ticket": lab.ticket["ticket"]}
    certificates = ("", "relay", "public")
    tried = {f"{name or 'no'} certificate": {**case, "certificate": name} for name in certificates}
    seen = dict(lab.ask(relay, "present", inner_services=lab.inner_services, tried=tried))
    _present(lab, {})
    reached = lab.ask(relay, "reach", targets=[(lab.inner_services["store_address"], 24)], timeout=3)
    need(reached[0][2] == "open", "the relay does not reach the store by LMTP either")
    return _judged(seen, "LMTP is reached from there, and the same ticket is taken from the frontend")


@code_of("relay-lmtp")
def lmtp(lab: LabUnderAttack) -> Seen:
    """What LMTP gives besides taking mail."""
    seen = lab.ask(lab.name("relays"), "lmtp-tricks", inner_services=lab.inner_services, own=lab.one["user"])
    offered = seen.pop("offered")
    own = seen.pop("RCPT own")
    need(own["status"] == "OK", f"LMTP refuses a user: {own['text']}")
    taken = [case for case, answer in seen.items() if answer["status"] == "OK"]
    return Seen(bool(taken), told(seen, taken), f"a user is taken; offered: {', '.join(offered[1:])[:80]}")
