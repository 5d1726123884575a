"""Credentials: the directory, the issuer, and what hosts keep of passwords and tickets."""

from __future__ import annotations

import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lemonstand.redteam.attempts import code_of
from lemonstand.redteam.attempts.mail import holdings
from lemonstand.redteam.context import ISSUER_PORT, LabUnderAttack, Seen, need, told

DIRECTORY_PORTS = (389, 636, 3268, 3269)
NO_CERTIFICATE = ("without a certificate", "with the certificate for stores", "with the public certificate")
TWINS_PORT = 636
"""Where auth hosts take changes from one another (flow `replicate-directory`)."""
LOOPBACK = ("127.", "[::1]", "::1")
ROUNDS = 4
GUESSES = 120


@code_of("frontend-directory", "relay-directory")
def directory(lab: LabUnderAttack) -> Seen:
    """The directory's ports from outside it; and one filter must not be all that keeps them shut."""
    auth = lab.name("auths")
    addresses = [address for zone in lab.site.hosts[auth].interfaces for address in lab.addresses(auth, zone)]
    frontend = lab.name("frontends")
    targets = [(address, port) for address in addresses for port in DIRECTORY_PORTS]
    control = (lab.inner_services["issuer_address"], ISSUER_PORT)
    answers = {(a, p): what for a, p, what in lab.ask(frontend, "reach", targets=[*targets, control], timeout=1.5)}
    need(answers[control] == "open", f"the issuer's port is {answers[control]}")
    reached = [f"{a}:{p}" for (a, p), what in answers.items() if what in {"open", "refused"} and (a, p) != control]
    heard = [each for each in lab.ask(auth, "listeners") if int(each.split()[0].rpartition(":")[2]) in DIRECTORY_PORTS]
    need(heard, "the directory listens nowhere")
    wide = [each for each in heard if not each.startswith(LOOPBACK)]
    if wide and not reached:
        wide = _open_to_strangers(lab, auth, wide)
    got = (
        f"reached {', '.join(reached)}"
        if reached
        else f"listens on {', '.join(wide)}: only packet filters keep it"
        if wide
        else "no port answers; twins alone are talked to"
        if len(lab.site.group("auths")) > 1
        else "no port answers"
    )
    return Seen(bool(reached or wide), got, "the issuer's port is open, the directory listens on loopback")


def _open_to_strangers(lab: LabUnderAttack, auth: str, wide: list[str]) -> list[str]:
    """Of what a directory listens on beyond loopback, all that is not for twins, or talks to a twin that shows no certificate."""
    twins = [host.name for host in lab.site.group("auths") if host.name != auth]
    ports = {each: int(each.split()[0].rpartition(":")[2]) for each in wide}
    asked = [each for each in wide if twins and ports[each] == TWINS_PORT]
    addresses = {each: each.split()[0].rpartition(":")[0].strip("[]") for each in asked}
    answers = lab.ask(twins[0], "nameless-directory", addresses=list(addresses.values()), port=TWINS_PORT) if asked else {}
    need("silent" not in answers.values(), f"{twins[:1]} reaches no directory of its twin: {answers}")
    return [each for each in wide if each not in asked or answers[addresses[each]] == "answered"]


def _odd(lab: LabUnderAttack) -> dict[str, Any]:
    def make() -> Any:
        return lab.ask(lab.name("frontends"), "ask-oddly", inner_services=lab.inner_services, account=lab.one, other=lab.two["user"])

    seen = dict(lab.once("odd questions", make))
    own = seen.pop("own password")
    need(own["ticket"], f"the issuer refuses the right password: {own}")
    return seen


@code_of("frontend-issuer-answers")
def issuer_answers(lab: LabUnderAttack) -> Seen:
    """Anything but a ticket for one's own name and password."""
    seen = {case: answer for case, answer in _odd(lab).items() if case not in NO_CERTIFICATE}
    taken = [case for case, answer in seen.items() if answer["ticket"] or answer["status"] in range(200, 300)]
    return Seen(bool(taken), told(seen, taken), "the own password brings a ticket")


@code_of("frontend-behind-the-issuer")
def behind_the_issuer(lab: LabUnderAttack) -> Seen:
    """What a directory would take for another's name, or for a password though it is none; and the way to one behind."""
    frontend, other = lab.name("frontends"), lab.two["user"]
    seen = dict(lab.ask(frontend, "ask-for-another", inner_services=lab.inner_services, account=lab.one, other=other))
    own = seen.pop("own password")
    need(own["ticket"], f"the issuer refuses the right password: {own}")
    taken = [case for case, answer in seen.items() if answer["ticket"] or answer["status"] in range(200, 300)]
    service = lab.site.settings.services.directory
    targets = [(str(address), service.port) for address in service.addresses] if service else []
    reached = [f"{a}:{p}" for a, p, what in lab.ask(frontend, "reach", targets=targets, timeout=1.5) if what == "open"] if targets else []
    got = told(seen, taken) + (f"; reached {', '.join(reached)}" if reached else "; no way to the directory behind" if targets else "")
    return Seen(bool(taken or reached), got, "the own password brings a ticket")


@code_of("frontend-own-passwords")
def own_passwords(lab: LabUnderAttack) -> Seen:
    """Another password for a user whose password is not known here."""
    frontend = lab.name("frontends")
    seen = dict(lab.ask(frontend, "change-for-another", inner_services=lab.inner_services, account=lab.one, other=lab.two["user"]))
    answered = seen.pop("a question that is answered")
    need(answered["status"] == (422 if lab.site.settings.self_service else 404), f"the issuer answers otherwise than it should: {answered}")
    taken = [case for case, answer in seen.items() if answer["status"] in range(200, 400)]
    return Seen(bool(taken), told(seen, taken), "a question with a password that is too short is answered so")


@code_of("frontend-issuer-certificate")
def issuer_certificate(lab: LabUnderAttack) -> Seen:
    """A question without the certificate for questions."""
    seen = {case: answer for case, answer in _odd(lab).items() if case in NO_CERTIFICATE}
    taken = [case for case, answer in seen.items() if answer["status"]]
    return Seen(bool(taken), told(seen, taken), "the same question with the right certificate brings a ticket")


@code_of("frontend-user-list")
def user_list(lab: LabUnderAttack) -> Seen:
    """Names, hashes and tickets in files of the frontend."""
    held = holdings(lab, lab.name("frontends"))
    found = [*(f"names in {path}" for path in held["lists"]), *(f"hashes in {path}" for path in held["hashes"])]
    found += [f"a ticket in {path}" for path in held["tickets"]]
    return Seen(bool(found), "; ".join(found[:4]) or f"nothing in {held['files']} files", "a planted file with two names is found")


@code_of("relay-hashes")
def relay_hashes(lab: LabUnderAttack) -> Seen:
    """Hashes, tickets and ticket keys in files of the relay."""
    held = holdings(lab, lab.name("relays"))
    found = [
        *(f"hashes in {path}" for path in held["hashes"]),
        *(f"a ticket in {path}" for path in held["tickets"]),
        *_ticket_keys(lab, held),
    ]
    return Seen(bool(found), "; ".join(found[:4]) or f"nothing in {held['files']} files", "a planted file with two names is found")


def _ticket_keys(lab: LabUnderAttack, held: dict[str, Any]) -> list[str]:
    auth = lab.name("auths")
    public = lab.once("ticket keys", lambda: lab.ask(auth, "public-halves", folder="/etc/lemonstand/ticket/public"))
    need(public, "the issuer has no public keys")
    return [f"a key that signs tickets in {path}" for path, half in held["keys"].items() if half in public]


@code_of("frontend-ticket-key")
def ticket_key(lab: LabUnderAttack) -> Seen:
    """The key that signs tickets, or any key that is not the frontend's own."""
    held = holdings(lab, lab.name("frontends"))
    need(any(half for half in held["keys"].values()), "the frontend's own keys were not found")
    found = _ticket_keys(lab, held)
    return Seen(bool(found), "; ".join(found) or f"{len(held['keys'])} keys, none signs tickets", "its own keys are found")


def _searched(lab: LabUnderAttack) -> dict[str, Any]:
    """Types a canary in good and bad logins, shows a ticket, then searches every host of the site for both."""
    began = time.time() - 1
    vantage = lab.name("handsets")
    made_up = {"user": lab.one["user"], "password": f"canary-{secrets.token_hex(12)}"}
    typed = lab.ask(
        vantage,
        "canary-type",
        seconds=120,
        endpoint=lab.endpoint(4),
        accounts=[lab.one, lab.one, lab.one, made_up],
        rounds=ROUNDS,
    )
    need("OK" in " ".join(typed["imap"]) and "235" in typed["submission"], f"no login worked: {typed}")
    ticket = lab.ticket["ticket"]
    lab.ask(lab.name("frontends"), "present", inner_services=lab.inner_services, tried={"own": {"user": lab.one["user"], "ticket": ticket}})
    hosts = [host.name for host in lab.site.hosts.values() if host.role_groups]
    secret = {"password": lab.one["password"], "wrong password": made_up["password"], "ticket": ticket.rpartition(".")[2][:64]}

    def search(host: str) -> Any:
        return lab.ask(host, "canary-search", seconds=240, needles=list(secret.values()), since=began)

    with ThreadPoolExecutor(max_workers=2) as pool:
        return {"names": list(secret), "hosts": dict(zip(hosts, pool.map(search, hosts), strict=True)), "typed": typed}


def _canary(lab: LabUnderAttack, wanted: tuple[str, ...]) -> Seen:
    searched = lab.once("canary", lambda: _searched(lab))
    numbers = {str(searched["names"].index(name)): name for name in wanted}
    found, remembered, files = [], [], 0
    for host, seen in searched["hosts"].items():
        need(
            {"disk", "journal", "environment", "argument"} <= set(seen["proved"]),
            f"the search on {host} found only {seen['proved']} of its own",
        )
        files += seen["searched"]["files"]
        for hit in seen["hits"]:
            found += [
                f"{numbers[form.partition(':')[0]]} on {host}: {hit['place']} {hit['where']}"
                for form in hit["forms"]
                if form.partition(":")[0] in numbers
            ]
        remembered += [
            f"{host} {hit['where']}" for hit in seen["memory"] if any(form.partition(":")[0] in numbers for form in hit["forms"])
        ]
    rest = f"; in memory of {', '.join(sorted(set(remembered))[:4])}" if remembered else ""
    got = (
        "; ".join(sorted(set(found))[:4])
        if found
        else f"nothing in {files} files, journals, arguments, environments of {len(searched['hosts'])} hosts"
    )
    return Seen(bool(found), got + rest, "planted words are found on each host, in each kind of place")


@code_of("frontend-canary-password")
def canary_password(lab: LabUnderAttack) -> Seen:
    """A password typed in good and bad logins, on any disk of the site."""
    return _canary(lab, ("password", "wrong password"))


@code_of("frontend-canary-ticket")
def canary_ticket(lab: LabUnderAttack) -> Seen:
    """A ticket that was shown to the store, on any disk of the site."""
    return _canary(lab, ("ticket",))


@code_of("frontend-core")
def core(lab: LabUnderAttack) -> Seen:
    """A login process that dies: does it leave its memory?"""
    frontend = lab.name("frontends")
    seen = lab.ask(frontend, "core", address="127.0.0.1")
    need(seen["killed"], seen["said"])
    return Seen(
        bool(seen["cores"]),
        ", ".join(seen["cores"]) or f"no core; {seen['said'][:120] or 'the journal is silent'}",
        f"{seen['killed']} was killed",
    )


SECRETIVE = ["imap-login", "submission-login", "auth", "lua", "slapd", "gunicorn", "python3", "imap", "submission"]


@code_of("frontend-swap")
def swap(lab: LabUnderAttack) -> Seen:
    """Memory of the processes that see passwords and tickets, on swap."""
    lying, running = [], 0
    for group in ("frontends", "auths", "stores"):
        host = lab.name(group)
        seen = lab.ask(host, "on-swap", names=SECRETIVE)
        running += len(seen)
        lying += [f"{name} on {host}: {size} kB" for name, size in seen.items() if size]
    need(running >= 3, "none of the processes was found")
    return Seen(bool(lying), "; ".join(lying[:4]) or "nothing on swap", f"{running} kinds of processes looked at")


@code_of("frontend-guessing")
def guessing(lab: LabUnderAttack) -> Seen:
    """Guesses at the issuer, each in another client's name."""
    name = f"nobody-{secrets.token_hex(4)}@{lab.one['user'].partition('@')[2]}"
    seen = lab.ask(
        lab.name("frontends"), "guess-with-addresses", seconds=120, inner_services=lab.inner_services, name=name, guesses=GUESSES
    )
    need("400" in seen or "429" in seen, f"no guess was answered: {seen}")
    own = lab.ask(lab.name("frontends"), "obtain", inner_services=lab.inner_services, account=lab.one)
    need(own["ticket"], "somebody else's password is refused meanwhile")
    ended = "429" in seen
    return Seen(
        not ended,
        f"{GUESSES} guesses: {', '.join(f'{count} x {status}' for status, count in seen.items())}",
        "another user logs in meanwhile",
    )
