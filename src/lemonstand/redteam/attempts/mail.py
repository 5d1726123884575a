"""Other users' mail, from a broken-into frontend or relay."""

from __future__ import annotations

from typing import Any

from lemonstand.redteam.attempts import move
from lemonstand.redteam.context import Ground, Seen, need, told

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


def _marked(ground: Ground) -> dict[str, Any]:
    """Tickets with one wrong claim, signed with the true key, and the public keys."""
    auth = ground.name("auths")
    return dict(
        ground.once("marked", lambda: ground.ask(auth, "marked", user=ground.one["user"], store=ground.inward["store"], cases=SPOILT))
    )


def _present(ground: Ground, tried: dict[str, dict[str, str]], *, host: str = "", wait: float = 0) -> dict[str, Any]:
    """Shows tickets to the store, an own one among them, which must be taken."""
    own = {"user": ground.one["user"], "ticket": ground.ticket["ticket"]}
    seen = dict(ground.ask(host or ground.name("frontends"), "present", inward=ground.inward, tried={GRANTED: own, **tried}, wait=wait))
    control = seen.pop(GRANTED)
    need(control["status"] == "OK", f"the store refuses a good ticket: {control['text']}")
    return seen


def _judged(seen: dict[str, Any], control: str = "an own ticket is taken") -> Seen:
    taken = [case for case, answer in seen.items() if answer["status"] not in {"NO", "BAD", "CLOSED", "BYE"}]
    return Seen(bool(taken), told(seen, taken), control)


@move("frontend-without-ticket")
def without_ticket(ground: Ground) -> Seen:
    """Passwords, names and certificates at the store, no ticket."""
    seen = ground.ask(ground.name("frontends"), "without-ticket", inward=ground.inward, account=ground.one, other=ground.two)
    offered = seen.pop("mechanisms")
    _present(ground, {})
    extra = sorted(set(offered) - {"AUTH=OAUTHBEARER", "AUTH=XOAUTH2"})
    judged = _judged(seen)
    if extra:
        return Seen(True, f"the store offers {', '.join(extra)}; {judged.got}", judged.control)
    return judged


@move("frontend-expired-ticket")
def expired(ground: Ground) -> Seen:
    """A ticket that ended."""
    ticket = _marked(ground)["tickets"]["ended"]
    cases = {f"ended {AGO} s ago, {service}": {"user": ground.one["user"], "ticket": ticket, "service": service} for service in _SERVICES}
    return _judged(_present(ground, cases), "an own ticket in its time is taken")


_SERVICES = ("imap", "submission")


@move("frontend-misdirected-ticket")
def misdirected(ground: Ground) -> Seen:
    """Tickets the issuer's key signed for other purposes."""
    tickets = {case: ticket for case, ticket in _marked(ground)["tickets"].items() if case != "ended"}
    seen = _present(ground, {case: {"user": ground.one["user"], "ticket": ticket} for case, ticket in tickets.items()})
    right = seen.pop(RIGHT)
    need(right["status"] == "OK", f"a ticket made here that is right in all is refused: {right['text']}")
    return _judged(seen, "a ticket of the same making that is right in all is taken")


@move("frontend-foreign-ticket")
def foreign(ground: Ground) -> Seen:
    """One's own ticket with another user's name."""
    other, ticket = ground.two["user"], ground.ticket["ticket"]
    names = {"another's name": other, "in capitals": other.upper(), "both names": f"{ground.one['user']},{other}", "no name": ""}
    cases = {
        f"{case}, {service}": {"user": name, "ticket": ticket, "service": service} for case, name in names.items() for service in _SERVICES
    }
    return _judged(_present(ground, cases))


def _forged(ground: Ground) -> dict[str, str]:
    def make() -> Any:
        return ground.ask(
            ground.name("frontends"), "forge", ticket=ground.ticket["ticket"], other=ground.two["user"], public=_marked(ground)["public"]
        )

    return dict(ground.once("forged", make))


def _forgery(ground: Ground, *words: str) -> Seen:
    tickets = {case: ticket for case, ticket in _forged(ground).items() if any(word in case for word in words)}
    need(tickets, "nothing was forged")
    return _judged(_present(ground, {case: {"user": ground.two["user"], "ticket": ticket} for case, ticket in tickets.items()}))


@move("frontend-edited-ticket")
def edited(ground: Ground) -> Seen:
    """A good ticket with another subject in it."""
    return _forgery(ground, "edited", "signature cut off", "subject twice")


@move("frontend-resigned-ticket")
def signed_anew(ground: Ground) -> Seen:
    """A ticket signed with a key of one's own."""
    return _forgery(ground, "signed anew")


@move("frontend-unsigned-ticket")
def unsigned(ground: Ground) -> Seen:
    """`alg: none` and its spellings."""
    return _forgery(ground, "unsigned")


@move("frontend-confused-ticket")
def confused(ground: Ground) -> Seen:
    """HS256 with the public key as its secret, and key ids that lead elsewhere."""
    return _forgery(ground, "HS256")


@move("frontend-ticket-other-certificate")
def other_certificate(ground: Ground) -> Seen:
    """A good ticket without the frontend's certificate for stores."""
    ticket = {"user": ground.one["user"], "ticket": ground.ticket["ticket"]}
    names = {"": "no certificate", "public": "the public certificate", "issuer-client": "the certificate for the issuer"}
    cases = {f"{names[each]}, {service}": {**ticket, "certificate": each, "service": service} for each in FOREIGN for service in _SERVICES}
    return _judged(_present(ground, cases))


@move("frontend-replayed-ticket")
def replayed(ground: Ground) -> Seen:
    """A ticket that was used, once more within its minute."""
    answer = ground.ask(ground.name("frontends"), "obtain", inward=ground.inward, account=ground.one)
    need(answer["ticket"], f"the issuer gave no ticket: {answer}")
    case = {"user": ground.one["user"], "ticket": answer["ticket"]}
    first = ground.ask(ground.name("frontends"), "present", inward=ground.inward, tried={"first": case})
    need(first["first"]["status"] == "OK", f"the store refuses a good ticket: {first}")
    again = ground.ask(ground.name("frontends"), "present", inward=ground.inward, tried={"again": case})["again"]
    taken = again["status"] == "OK"
    return Seen(
        taken, f"{'taken again' if taken else 'refused'}; it ends {answer['lifetime']} s after it was made", "the first use is taken"
    )


@move("frontend-stolen-ticket")
def stolen(ground: Ground) -> Seen:
    """A ticket kept for later."""
    answer = ground.ask(ground.name("frontends"), "obtain", inward=ground.inward, account=ground.one)
    need(answer["ticket"], f"the issuer gave no ticket: {answer}")
    case = {"user": ground.one["user"], "ticket": answer["ticket"]}
    control = "the same ticket is taken while it lives"
    first = ground.ask(ground.name("frontends"), "present", inward=ground.inward, tried={"now": case})["now"]
    need(first["status"] == "OK", f"the store refuses a good ticket: {first['text']}")
    if answer["lifetime"] > PROMISED_SECONDS + SLACK_SECONDS:
        return Seen(True, f"a ticket that is good for {answer['lifetime']} s", control)
    wait = answer["lifetime"] + SLACK_SECONDS + 1
    later = ground.ask(ground.name("frontends"), "present", seconds=120, inward=ground.inward, tried={"later": case}, wait=wait)["later"]
    return Seen(later["status"] == "OK", f"{wait} s later: {later['status']} {later['text']}"[:160], control)


@move("frontend-mail-files")
def files(ground: Ground) -> Seen:
    """Mail in files of the frontend."""
    held = holdings(ground, ground.name("frontends"))
    return Seen(bool(held["mail"]), "; ".join(held["mail"][:4]) or f"no mail in {held['files']} files", "a planted file is found")


def holdings(ground: Ground, host: str) -> dict[str, Any]:
    """What a host's files hold; see `loot.holdings`."""
    users = [user.name for user in ground.site.settings.users]
    held = dict(ground.once(f"holdings of {host}", lambda: ground.ask(host, "holdings", seconds=120, users=users)))
    need(held["seen"], f"a file planted on {host} was not found")
    return held


@move("relay-at-the-store")
def relay_at_the_store(ground: Ground) -> Seen:
    """A good ticket and every certificate of the relay, at the store and at the issuer."""
    relay = ground.name("relays")
    case = {"user": ground.one["user"], "ticket": ground.ticket["ticket"]}
    certificates = ("", "relay", "public")
    tried = {f"{name or 'no'} certificate": {**case, "certificate": name} for name in certificates}
    seen = dict(ground.ask(relay, "present", inward=ground.inward, tried=tried))
    _present(ground, {})
    reached = ground.ask(relay, "reach", targets=[(ground.inward["store_address"], 24)], timeout=3)
    need(reached[0][2] == "open", "the relay does not reach the store by LMTP either")
    return _judged(seen, "LMTP is reached from there, and the same ticket is taken from the frontend")


@move("relay-lmtp")
def lmtp(ground: Ground) -> Seen:
    """What LMTP gives besides taking mail."""
    seen = ground.ask(ground.name("relays"), "lmtp-tricks", inward=ground.inward, own=ground.one["user"])
    offered = seen.pop("offered")
    own = seen.pop("RCPT own")
    need(own["status"] == "OK", f"LMTP refuses a user: {own['text']}")
    taken = [case for case, answer in seen.items() if answer["status"] == "OK"]
    return Seen(bool(taken), told(seen, taken), f"a user is taken; offered: {', '.join(offered[1:])[:80]}")
