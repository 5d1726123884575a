"""The way inward, tried from the position of a frontend: what a mail store takes, and what it must not.

Runs on a frontend with the frontend's own certificates, and on an auth host to make a ticket that has ended or to look at refusals.
"""

from __future__ import annotations

import base64
import http.client
import importlib
import json
import os
import pwd
import secrets
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypedDict
from urllib.parse import urlencode

from lemonstand.probes.events import Refused
from lemonstand.probes.protocols.imap import Answer, Imap
from lemonstand.probes.protocols.smtp import Smtp
from lemonstand.probes.protocols.wire import Account, Wire, context

PKI = Path("/etc/lemonstand/pki")
SETTINGS = Path("/etc/lemonstand/ticket/issuer.json")
ACTIVE = Path("/etc/lemonstand/ticket/private/active.pem")
PROGRAMS, ISSUER = Path("/usr/local/lib/lemonstand"), "ticket-issuer"
"""Where an auth host keeps the issuer's program, and as whom it runs."""


TURN_SECONDS = 60
"""A question waits for its turn at the issuer (record 0023)."""


class InnerServices(TypedDict):
    """The two hosts a frontend talks to: names in their certificates and addresses; `client` is what it calls itself to the issuer."""

    issuer: str
    issuer_address: str
    store: str
    store_address: str
    client: str


GRANTS = ("client_credentials", "refresh_token", "password", "urn:ietf:params:oauth:grant-type:jwt-bearer",
          "urn:ietf:params:oauth:grant-type:token-exchange")  # fmt: skip
"""Ways of OAuth 2.0 to get a token for somebody who is not there."""


def fresh_network() -> str:
    """An address of a network that nobody was ever seen on (RFC 3849)."""
    return f"2001:db8:{secrets.token_hex(2)}:{secrets.token_hex(2)}::1"


def encode(data: bytes) -> str:
    """Base64 for URLs without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def decode(text: str) -> dict[str, Any]:
    """A part of a JWT."""
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return found


def compact(header: dict[str, Any], claims: dict[str, Any], key: Path | None) -> str:
    """A JWT, signed RS256 by a key file, or with an empty signature."""
    signed = f"{encode(json.dumps(header).encode())}.{encode(json.dumps(claims).encode())}"
    if key is None:
        return signed + "."
    made = subprocess.run(["openssl", "dgst", "-sha256", "-sign", str(key)], input=signed.encode(), capture_output=True, check=True)
    return f"{signed}.{encode(made.stdout)}"


def spoilt(user: str, ago: int, store: str) -> dict[str, str]:
    """Tickets of the issuer's own making with one wrong claim each: `expired` (ended `ago` seconds ago), `another store`, and more.

    Runs on the auth host.
    """
    settings = json.loads(SETTINGS.read_text(encoding="utf-8"))
    now = int(time.time())
    claims = {
        "iss": settings["issuer"], "sub": user, "aud": store, "scope": settings.get("scope", "mail"),
        "iat": now - ago - 60, "nbf": now - ago - 60, "exp": now + 60, "jti": encode(str(now).encode()),
    }  # fmt: skip
    key = ACTIVE.resolve()
    wrong: dict[str, dict[str, Any]] = {
        "expired": {"exp": now - ago},
        "not yet good": {"nbf": now + 600, "exp": now + 660},
        "another store": {"aud": "another-" + store},
        "another scope": {"scope": "calendar"},
        "another issuer": {"iss": "https://elsewhere.invalid/"},
        "no subject": {"sub": ""},
    }
    return {name: compact({"alg": "RS256", "typ": "JWT", "kid": key.stem}, {**claims, **claim}, key) for name, claim in wrong.items()}


def attempts(inner_services: InnerServices, account: Account, other: Account, spoilt: dict[str, str]) -> dict[str, Any]:
    """Gets a ticket, then tries each way into the store, every one on a connection of its own.

    Args:
        account: whose ticket it is.
        other: somebody else, who must not be opened with it.
        spoilt: by case, tickets of the account that the issuer signed and the store must refuse all the same.

    Returns:
        `issuer`: what it answered (`right`, `wrong`, `without a certificate`); `store`: by case `{status, text}` on IMAP;
        `submission`: the same on 587; `capabilities`: of the store after a login that worked.
    """
    answers = {
        "right": _ask(inner_services, account["user"], account["password"]),
        "wrong": _ask(inner_services, account["user"], "no" + account["password"]),
        "unknown": _ask(inner_services, "nobody-at-all@" + account["user"].partition("@")[2], account["password"]),
        "without a certificate": _ask(inner_services, account["user"], account["password"], certificate=""),
        "with the certificate for stores": _ask(inner_services, account["user"], account["password"], certificate="store-client"),
    }
    # What a frontend is by itself, without anybody's password: a certificate, and what it may dare to ask with it.
    answers |= {f"by itself: {grant}": _ask(inner_services, account["user"], "", grant=grant) for grant in GRANTS}
    ticket = str(answers["right"].pop("ticket", ""))
    if not ticket:
        raise Refused(f"the issuer gave no ticket: {answers['right']}")
    header, claims, signature = ticket.split(".")
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder, "own.pem")
        subprocess.run(["openssl", "genrsa", "-out", str(own), "2048"], capture_output=True, check=True)
        theirs = {**decode(claims), "sub": other["user"]}
        names = {
            "own ticket": (account["user"], ticket),
            "ticket of another user": (other["user"], ticket),
            "no name": ("", ticket),
            **{case: (account["user"], token) for case, token in spoilt.items()},
            "forged with a key of one's own": (account["user"], compact(decode(header), decode(claims), own)),
            "edited": (other["user"], f"{header}.{encode(json.dumps(theirs).encode())}.{signature}"),
            "unsigned": (other["user"], compact({**decode(header), "alg": "none"}, theirs, None)),
            "garbage": (account["user"], "not.a.ticket"),
            "empty": (account["user"], ""),
        }
    jobs: dict[str, Any] = {case: (_bearer, inner_services, name, token) for case, (name, token) in names.items()}
    name, password = account["user"], account["password"]
    by_login = f'LOGIN "{name}" "{password}"'
    by_certificate = f"AUTHENTICATE EXTERNAL {base64.b64encode(name.encode()).decode()}"
    jobs["password by LOGIN"] = (_without_ticket, inner_services, lambda session: session.command(by_login, shown="LOGIN <account>"))
    jobs["password by PLAIN"] = (_without_ticket, inner_services, lambda session: session.plain(account))
    jobs["certificate alone"] = (_without_ticket, inner_services, lambda session: session.command(by_certificate))
    jobs["user of a master by PLAIN"] = (
        _without_ticket,
        inner_services,
        lambda session: session.command(f"AUTHENTICATE PLAIN {_in_place_of(name)}"),
    )
    jobs["anonymous"] = (_without_ticket, inner_services, lambda session: session.command("AUTHENTICATE ANONYMOUS dGVzdA=="))
    jobs["own ticket without a certificate"] = (_bearer, inner_services, account["user"], ticket, "")
    jobs["own ticket with the certificate for the issuer"] = (_bearer, inner_services, account["user"], ticket, "issuer-client")
    jobs["a ticket before TLS"] = (_before_tls, inner_services, account["user"], names["forged with a key of one's own"][1])
    submission: dict[str, Any] = {
        "own ticket": (_submission, inner_services, account["user"], ticket),
        "ticket of another user": (_submission, inner_services, other["user"], ticket),
        **{case: (_submission, inner_services, account["user"], token) for case, token in spoilt.items()},
        "password by PLAIN": (_submission_plain, inner_services, account),
        "own ticket without a certificate": (_submission, inner_services, account["user"], ticket, ""),
    }
    with ThreadPoolExecutor(max_workers=8) as pool:
        imap = {case: pool.submit(*job) for case, job in jobs.items()}
        smtp = {case: pool.submit(*job) for case, job in submission.items()}
        store = {case: job.result() for case, job in imap.items()}
        capabilities = store["own ticket"].pop("capabilities", [])
        return {
            "issuer": answers,
            "store": store,
            "submission": {case: job.result() for case, job in smtp.items()},
            "capabilities": capabilities,
        }


def way_in(inner_services: InnerServices, account: Account) -> dict[str, dict[str, Any]]:
    """One login as a frontend makes it: a ticket from this issuer, shown to this store. Runs on the frontend.

    Returns:
        `issuer`: status of HTTP; `imap` and `submission`: what the store answered to the ticket; without a ticket nothing.
    """
    answer = _ask(inner_services, account["user"], account["password"])
    ticket = str(answer.pop("ticket", ""))
    if not ticket:
        return {"issuer": answer}
    imap = _bearer(inner_services, account["user"], ticket)
    imap.pop("capabilities", None)
    return {"issuer": answer, "imap": imap, "submission": _submission(inner_services, account["user"], ticket)}


def _in_place_of(user: str) -> str:
    """The first response of PLAIN by which a frontend that were a master would become a user (RFC 4616 section 2)."""
    return base64.b64encode(f"{user}\0frontend\0frontend".encode()).decode()


def guess(inner_services: InnerServices, name: str, account: Account, wave: int, more: int = 20) -> dict[str, Any]:
    """Guesses a name's password, then goes on one by one until it is not tried any more, and asks for the account. Runs on a frontend.

    Args:
        name: a login name nobody has.
        account: must not suffer.
        wave: guesses side by side; an overloaded issuer answers some of them "later", which is no refusal.
        more: guesses after it, at most.

    Returns:
        `wave`: the statuses; `next`: the status of the last one more; `account`: that of the account with its right password.
    """
    with ThreadPoolExecutor(max_workers=wave) as pool:
        first = list(pool.map(lambda number: _ask(inner_services, name, f"guess {number}")["status"], range(wave)))
    after = 0
    for _ in range(more):
        after = _ask(inner_services, name, "one more guess")["status"]
        if after == 429:
            break
    return {"wave": first, "next": after, "account": _ask(inner_services, account["user"], account["password"])["status"]}


def crowd(inner_services: InnerServices, account: Account, count: int) -> dict[str, Any]:
    """Asks for that many tickets at once, each for a client in another place, so that no two questions are the same. Runs on a frontend.

    Returns:
        `statuses` by number of answers, `seconds` of all, `median` and `slowest` in seconds.
    """

    def one(number: int) -> tuple[int, float]:
        started = time.monotonic()
        answer = _ask(inner_services, account["user"], account["password"], client=f"198.51.100.{number % 250 + 1}")
        return answer["status"], time.monotonic() - started

    began = time.monotonic()
    with ThreadPoolExecutor(max_workers=count) as pool:
        answers = list(pool.map(one, range(count)))
    took = sorted(seconds for _, seconds in answers)
    statuses = [status for status, _ in answers]
    return {
        "statuses": {str(status): statuses.count(status) for status in sorted(set(statuses))},
        "seconds": round(time.monotonic() - began, 2),
        "median": round(took[len(took) // 2], 2),
        "slowest": round(took[-1], 2),
    }


def ticket_logins(inner_services: InnerServices, account: Account, count: int) -> dict[str, float]:
    """Gets a ticket and logs in at the store with it, again and again; median seconds of each. Runs on a frontend.

    Returns:
        `ticket`: asking the issuer, TLS included; `login`: connection, STARTTLS, login and one question at the store.
    """
    tickets, logins = [], []
    for _ in range(count):
        started = time.monotonic()
        answer = _ask(inner_services, account["user"], account["password"])
        tickets.append(time.monotonic() - started)
        if "ticket" not in answer:
            raise Refused(f"the issuer gave no ticket: {answer}")
        started = time.monotonic()
        session = _store(inner_services, "store-client")
        said = _oauthbearer(session, inner_services["store"], account["user"], str(answer["ticket"]))
        if not said.ok or not session.command("STATUS INBOX (MESSAGES)").ok:
            raise Refused(f"the store refused a ticket: {said.status} {said.text}")
        logins.append(time.monotonic() - started)
        session.quit()
    return {"ticket": statistics.median(tickets), "login": statistics.median(logins)}


def refusal_times(inner_services: InnerServices, account: Account, count: int) -> dict[str, float]:
    """Median seconds until a wrong password and a name nobody has are refused, asked in turn. Runs on a frontend.

    The right password in between keeps the account's name open; a new name each time keeps unknown ones open.
    """
    seen: dict[str, list[float]] = {"wrong": [], "unknown": []}
    domain = account["user"].partition("@")[2]
    for number in range(count):
        cases = {
            "wrong": (account["user"], "no" + account["password"]),
            "unknown": (f"nobody-{secrets.token_hex(6)}@{domain}", account["password"]),
        }
        for case, (name, password) in cases.items():
            # Names nobody has are counted by network: each comes from another.
            answer = _ask(inner_services, name, password, client=fresh_network() if case == "unknown" else "")
            if answer["status"] != 400:
                raise Refused(f"no refusal: {answer['status']} {answer['error']}")
            seen[case].append(float(answer["seconds"]))
        if number % 4 == 3:
            _ask(inner_services, account["user"], account["password"])
    return {case: statistics.median(each) for case, each in seen.items()}


def refusal_hashes(known: str) -> dict[str, list[str]]:
    """Whom the directory is asked for, with a password, until a wrong password, one that nobody can set, and a name nobody has are refused.

    Runs on the auth host, as the issuer: its own program and its own rights. slapd hashes a password for an entry that is there and not for
    one that is not.

    Args:
        known: a login name that exists.

    Returns:
        by case (`wrong`, `odd`, `unknown`) the distinguished names, in order.
    """
    sys.path.insert(0, str(PROGRAMS))
    program: Any = importlib.import_module("ticket_issuer")
    settings = json.loads(SETTINGS.read_text(encoding="utf-8"))
    url, local, base = (settings[f"directory_{name}"] for name in ("url", "socket", "base_dn"))
    asked: list[str] = []

    class Noting(program.LdapDirectory):  # type: ignore[misc]
        def _connection(self, where: str, **options: Any) -> Any:
            if where == url:
                asked.append(options["user"])
            return super()._connection(where, **options)

    issuer = pwd.getpwnam(ISSUER)
    os.setgroups([])
    os.setgid(issuer.pw_gid)
    os.setuid(issuer.pw_uid)
    directory = Noting(url, local, base, timeout=10)
    found = {}
    cases = {
        "wrong": (known, ""),
        "odd": (known, "\u05d0-\u0661-\ufe0f"),
        "unknown": (f"nobody-{secrets.token_hex(6)}@{known.partition('@')[2]}", ""),
    }
    for case, (name, more) in cases.items():
        asked.clear()
        if directory.check(name, secrets.token_urlsafe(24) + more) is not None:
            raise RuntimeError(f"a password made up by chance is right for {name}")
        found[case] = list(asked)
    return found


def imap_by_ticket(inner_services: InnerServices, account: Account) -> Imap:
    """A session on the store itself, opened as a frontend does.

    Raises:
        Refused: the issuer or the store refused.
    """
    session = _store(inner_services, "store-client")
    answer = _oauthbearer(session, inner_services["store"], account["user"], _ticket(inner_services, account))
    if not answer.ok:
        raise Refused(f"the store refuses a ticket: {answer.status} {answer.text}")
    return session


def submission_by_ticket(inner_services: InnerServices, account: Account) -> Smtp:
    """The same on 587; after EHLO.

    Raises:
        Refused: the issuer or the store refused.
    """
    session = _submission_session(inner_services, "store-client")
    session.command("AUTH OAUTHBEARER")
    reply = session.command(_response(inner_services["store"], 587, account["user"], _ticket(inner_services, account)), shown="<ticket>")
    if reply.code != 235:
        raise Refused(f"the store refuses a ticket: {reply.code} {reply.text}")
    session.ehlo()
    return session


def _ticket(inner_services: InnerServices, account: Account) -> str:
    answer = _ask(inner_services, account["user"], account["password"])
    if "ticket" not in answer:
        raise Refused(f"the issuer gave no ticket: {answer}")
    return str(answer["ticket"])


def _ask(
    inner_services: InnerServices,
    user: str,
    password: str,
    *,
    certificate: str = "issuer-client",
    grant: str = "password",
    client: str = "",
) -> dict[str, Any]:
    try:
        wire = Wire(inner_services["issuer_address"], 8443)
    except OSError as fault:
        return {"status": 0, "error": f"{type(fault).__name__}: {fault}"}
    try:
        wire.starttls(_inner(certificate), inner_services["issuer"])
        wire.socket.settimeout(TURN_SECONDS)
        connection = http.client.HTTPConnection(inner_services["issuer"], 8443)
        connection.sock = wire.socket
        form = {"grant_type": grant, "scope": "mail", "client_id": inner_services["client"], "username": user, "password": password}
        form |= {"assertion": "e30.e30.", "subject_token": "e30.e30.", "refresh_token": "x"} if grant != "password" else {}
        started = time.monotonic()
        headers = {"Content-Type": "application/x-www-form-urlencoded"} | ({"X-Client-IP": client} if client else {})
        connection.request("POST", "/token", urlencode(form), headers)
        answer = connection.getresponse()
        body = answer.read()
    except OSError as fault:
        return {"status": 0, "error": f"{type(fault).__name__}: {fault}"}
    finally:
        wire.close()
    shown: dict[str, Any] = {"status": answer.status, "seconds": round(time.monotonic() - started, 3)}
    try:
        found = json.loads(body)
    except ValueError:
        return {**shown, "error": body[:200].decode("utf-8", "replace")}
    if "access_token" in found:
        return {**shown, "ticket": found["access_token"], "keys": sorted(found)}
    return {**shown, "error": str(found.get("error", "")), "keys": sorted(found)}


def _inner(certificate: str) -> ssl.SSLContext:
    """What this frontend uses inside: the CA of hosts, and one of its client certificates (empty: none)."""
    files = (f"{PKI}/{certificate}.crt", f"{PKI}/{certificate}.key") if certificate else ("", "")
    return context((PKI / "ca-hosts.crt").read_text(encoding="ascii"), *files)


def _store(inner_services: InnerServices, certificate: str) -> Imap:
    session = Imap(Wire(inner_services["store_address"], 143))
    session.command("STARTTLS")
    session.wire.starttls(_inner(certificate), inner_services["store"])
    return session


def _bearer(inner_services: InnerServices, user: str, ticket: str, certificate: str = "store-client") -> dict[str, Any]:
    try:
        session = _store(inner_services, certificate)
        answer = _oauthbearer(session, inner_services["store"], user, ticket)
        shown: dict[str, Any] = answer.plain()
        if answer.ok:
            shown["capabilities"] = session.capabilities()
        session.quit()
    except OSError as fault:
        return {"status": "CLOSED", "text": f"{type(fault).__name__}: {fault}"}
    return shown


def _response(host: str, port: int, user: str, ticket: str) -> str:
    """The first response of OAUTHBEARER (RFC 7628 section 3.1)."""
    name = user.replace("=", "=3D").replace(",", "=2C")
    return base64.b64encode(f"n,a={name},\x01host={host}\x01port={port}\x01auth=Bearer {ticket}\x01\x01".encode()).decode()


def _oauthbearer(session: Imap, host: str, user: str, ticket: str) -> Answer:
    tag = session.begin(f"AUTHENTICATE OAUTHBEARER {_response(host, 143, user, ticket)}", shown="AUTHENTICATE OAUTHBEARER <ticket>")
    first = session.response()
    if first.startswith(b"+"):
        session.wire.send(b"AQ==\r\n")  # the client's word for "I have read why not" (RFC 7628 section 3.2.3)
        return session.finish(tag)
    while not first.startswith(tag.encode() + b" "):
        first = session.response()
    _, status, *text = first.decode("utf-8", "replace").split(" ", 2)
    return Answer(status.upper(), text[0] if text else "")


READ = "READ"
"""What becomes of a ticket in the clear whose signature was looked at: it was taken in, whatever was said to it."""
PRIVACY = "[PRIVACYREQUIRED]"


def _before_tls(inner_services: InnerServices, user: str, forged: str) -> dict[str, Any]:
    """A ticket in the clear. It is good for nothing: everybody on the wire can read it. So only the reason of the refusal counts."""
    session = Imap(Wire(inner_services["store_address"], 143))
    answer = _oauthbearer(session, inner_services["store"], user, forged)
    session.quit()
    shown = dict(answer.plain())
    return shown if PRIVACY in str(shown["text"]) else {**shown, "status": READ}


def _without_ticket(inner_services: InnerServices, login: Callable[[Imap], Answer]) -> dict[str, Any]:
    session = _store(inner_services, "store-client")
    answer = login(session)
    session.quit()
    return dict(answer.plain())


def _submission_session(inner_services: InnerServices, certificate: str) -> Smtp:
    session = Smtp(Wire(inner_services["store_address"], 587))
    session.ehlo()
    session.command("STARTTLS")
    session.wire.starttls(_inner(certificate), inner_services["store"])
    session.ehlo()
    return session


def _submission(inner_services: InnerServices, user: str, ticket: str, certificate: str = "store-client") -> dict[str, Any]:
    try:
        session = _submission_session(inner_services, certificate)
        reply = session.command("AUTH OAUTHBEARER")  # the ticket is longer than a line of SMTP may be
        if reply.code == 334:
            reply = session.command(_response(inner_services["store"], 587, user, ticket), shown="<ticket>")
        if reply.code == 334:
            reply = session.command("AQ==")
        session.quit()
    except OSError as fault:
        return {"status": "CLOSED", "text": f"{type(fault).__name__}: {fault}"}
    return {"status": "OK" if reply.code == 235 else "NO", "text": f"{reply.code} {reply.text}"[:300]}


def _submission_plain(inner_services: InnerServices, account: Account) -> dict[str, Any]:
    session = _submission_session(inner_services, "store-client")
    reply = session.plain(account)
    session.quit()
    return {"status": "OK" if reply.code == 235 else "NO", "text": f"{reply.code} {reply.text}"[:300]}
