"""Keeping users out: what an attacker can take from others by asking much, or by asking half."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lemonstand.redteam.attempts import code_of
from lemonstand.redteam.context import LabUnderAttack, Seen, need

CONNECTIONS, LOGINS, CROWD_SECONDS = 60, 240, 300
"""So many logins, however long a machine takes for them."""
NETWORK_LIMIT = 100
"""Names a network may be refused in an hour (record 0030)."""
UNDER_WAY = CONNECTIONS + 10
"""What was asked before the limit was reached, and what is let through now and then."""
HELD, HELD_SECONDS = 600, 25.0
"""More than the issuer has threads for one frontend; each step of a connection has 10 s."""
LEAST_HELD = 16
LONGEST_LOGIN = 15.0


@code_of("internet-shut-out")
def shut_out(lab: LabUnderAttack) -> Seen:
    """Invented names from one address; users elsewhere must not notice."""
    frontend, accounts = lab.name("frontends"), [lab.one, lab.two]

    def roaming() -> list[dict[str, Any]]:
        return list(lab.ask(frontend, "roaming", seconds=150, inner_services=lab.inner_services, accounts=accounts))

    need(all(each["status"] == 200 for each in roaming()), "users on new networks are refused before anything was tried")
    meanwhile = []
    with ThreadPoolExecutor(max_workers=1) as pool:
        crowd = pool.submit(
            lab.ask, lab.name("peers"), "crowd-names", seconds=CROWD_SECONDS + 90, endpoint=lab.endpoint(4),
            domain=lab.one["user"].partition("@")[2], connections=CONNECTIONS, logins=LOGINS, within=CROWD_SECONDS,
        )  # fmt: skip
        while not crowd.done():
            meanwhile += roaming()
        answers = crowd.result()
    meanwhile += roaming()
    guessed = answers.get("NO AUTHENTICATIONFAILED", 0)
    heard = sum(answers.values()) - answers.get("CLOSED", 0)
    need(heard >= NETWORK_LIMIT, f"the crowd was hardly heard: {answers}")
    refused = [f"{each['user']}: {each['status']}" for each in meanwhile if each["status"] != 200]
    what = (
        [f"{len(refused)} of {len(meanwhile)} logins of users on new networks refused: {', '.join(sorted(set(refused)))}"]
        if refused
        else []
    )
    what += [f"{guessed} of {sum(answers.values())} invented names tried from one address"] if guessed > NETWORK_LIMIT + UNDER_WAY else []
    slowest = max(each["seconds"] or 0 for each in meanwhile)
    got = ", ".join(f"{count} x {answer}" for answer, count in answers.items())
    return Seen(bool(what), "; ".join(what) or f"{got}; {len(meanwhile)} logins elsewhere, {slowest} s at most", "they got in before")


@code_of("frontend-half-open")
def half_open(lab: LabUnderAttack) -> Seen:
    """Connections that stop half-way from one address; another address must not notice, and they must end."""
    auth, frontend = lab.name("auths"), lab.name("frontends")
    addresses = lab.addresses(auth, "auth")
    need(len(addresses) > 1, "the issuer has one address only: nobody can be asked for beside the attacker's")
    usual = lab.inner_services["issuer_address"]
    other = next(each for each in addresses if (":" in each) != (":" in usual))
    there = {**lab.inner_services, "issuer_address": other}
    before = lab.ask(frontend, "roaming", inner_services=there, accounts=[lab.one])
    need(before[0]["status"] == 200, f"the issuer does not answer at {other}: {before}")
    seen = lab.ask(
        frontend, "slow-questions", seconds=240,
        inner_services=lab.inner_services, account=lab.one, count=HELD, within=HELD_SECONDS, other=other,
    )  # fmt: skip
    beside = lab.ask(frontend, "reset-beside", seconds=180, inner_services=lab.inner_services, account=lab.one, rounds=3, count=20)
    need(seen["held"] >= LEAST_HELD, f"hardly any connection was held: {seen}")
    stopped = [each for each in seen["asked"] if each["status"] != 200 or each["seconds"] > LONGEST_LOGIN]
    what = [f"{len(stopped)} of {len(seen['asked'])} logins from another address fail: {stopped[0]}"] if stopped else []
    lost = [each for each in beside if each["status"] != 200]
    what += [f"{len(lost)} of {len(beside)} logins end with connections that are reset beside them: {lost[0]}"] if lost else []
    what += [f"still open after {HELD_SECONDS:.0f} s: {seen['left']}"] if seen["left"] else []
    ended = ", ".join(f"{kind} {seconds} s" for kind, seconds in seen["longest"].items())
    return Seen(bool(what), "; ".join(what) or f"{seen['held']} held, ended after {ended} at most; logins beside them work", "asked before")
