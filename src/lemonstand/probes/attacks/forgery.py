"""Tickets nobody should believe, and every other way to be let in without a ticket of one's own.

`marked` runs on an auth host: it signs with the true key what the issuer would never sign, so that one claim alone is wrong. The others run
on a frontend or a relay, as whoever is root there.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import secrets
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from lemonstand.probes.clients import tickets
from lemonstand.probes.clients.tickets import (
    InnerServices,
    _ask,
    _bearer,
    _inner,
    _store,
    _submission,
    _submission_session,
    compact,
    decode,
    encode,
    fresh_network,
)
from lemonstand.probes.protocols.imap import Imap
from lemonstand.probes.protocols.messages import message
from lemonstand.probes.protocols.smtp import Smtp
from lemonstand.probes.protocols.wire import Account, Wire

PUBLIC = tickets.ACTIVE.parent.parent / "public"
TRAVERSAL = "../../../../../../.."
PARALLEL = 6
LATER = 600
"""Seconds for which what is made here would be good: it must not be refused for its age."""


def marked(user: str, store: str, cases: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Signs tickets with the issuer's own key. Runs on an auth host.

    Args:
        store: the name of the user's store, which is the audience unless the issuer's settings name another.
        cases: by name, claims to put in place of the right ones; None leaves one out; numbers for `exp`, `nbf`, `iat` count from now.

    Returns:
        `tickets`: by case; `public`: the public keys in PEM, which are no secret.
    """
    settings = json.loads(tickets.SETTINGS.read_text(encoding="utf-8"))
    now = int(time.time())
    right: dict[str, Any] = {
        "iss": settings["issuer"], "sub": user, "aud": settings.get("audience", store), "scope": settings.get("scope", "mail"),
        "iat": -5, "nbf": -5, "exp": LATER, "jti": encode(str(now).encode()),
    }  # fmt: skip
    key = tickets.ACTIVE.resolve()
    made = {}
    for name, wrong in cases.items():
        claims = {claim: value for claim, value in {**right, **wrong}.items() if value is not None}
        for claim in {"iat", "nbf", "exp"} & set(claims):
            claims[claim] = now + int(claims[claim])
        made[name] = compact({"alg": "RS256", "typ": "JWT", "kid": key.stem}, claims, key)
    return {"tickets": made, "public": {path.stem: path.read_text(encoding="ascii") for path in sorted(PUBLIC.glob("*.pem"))}}


def obtain(inner_services: InnerServices, account: Account) -> dict[str, Any]:
    """Gets a ticket as a frontend does, with the account's password: `ticket`, and `lifetime` in seconds by its own word."""
    answer = _ask(inner_services, account["user"], account["password"])
    ticket = str(answer.pop("ticket", ""))
    return {**answer, "ticket": ticket, "lifetime": round(decode(ticket.split(".")[1])["exp"] - time.time()) if ticket else 0}


def present(inner_services: InnerServices, tried: dict[str, dict[str, str]], wait: float = 0) -> dict[str, Any]:
    """Shows tickets to the store, each on a connection of its own.

    Args:
        tried: by case `{user, ticket}`, and if they are not the usual ones `certificate` and `service` (`imap` or `submission`).
        wait: seconds to wait before.

    Returns:
        By case `{status, text}`; OK means that somebody was let in.
    """
    time.sleep(wait)

    def one(case: dict[str, str]) -> dict[str, Any]:
        show = _submission if case.get("service") == "submission" else _bearer
        answer = show(inner_services, case["user"], case["ticket"], case.get("certificate", "store-client"))
        answer.pop("capabilities", None)
        return answer

    with ThreadPoolExecutor(max_workers=PARALLEL) as pool:
        return dict(zip(tried, pool.map(one, tried.values()), strict=True))


def forge(ticket: str, other: str, public: dict[str, str]) -> dict[str, str]:
    """Makes tickets for somebody else out of a good one, without the issuer's key.

    Args:
        ticket: a good one of one's own.
        other: whose mailbox is wanted.
        public: the issuer's public keys, which a thief may well have.
    """
    head, body, signature = ticket.split(".")
    now = int(time.time())
    header, claims = decode(head), {**decode(body), "sub": other, "iat": now - 5, "nbf": now - 5, "exp": now + LATER}
    twice = json.dumps(decode(body))[:-1].encode() + b', "sub": ' + json.dumps(other).encode() + b"}"
    made = {
        "edited, signature kept": f"{head}.{encode(json.dumps(claims).encode())}.{signature}",
        **{f"unsigned, alg {name!r}": compact({**header, "alg": name}, claims, None) for name in ("none", "None", "nOnE", "")},
        "signature cut off": f"{head}.{encode(json.dumps(claims).encode())}.",
        "subject twice": f"{head}.{encode(twice)}.{signature}",
    }
    for kid, pem in public.items():
        der = base64.b64decode("".join(line for line in pem.splitlines() if "-" not in line))
        texts = {"PEM": pem.encode(), "PEM without its end": pem.strip().encode(), "DER": der, "key id": kid.encode()}
        for name, secret in texts.items():
            made[f"HS256 with the public key ({name})"] = _hs256({**header, "alg": "HS256"}, claims, secret)
        for name, trick in {
            "public key by way of another folder": f"../RS256/{kid}",
            "public key by its whole path": f"{TRAVERSAL}/etc/lemonstand/ticket-keys/default/RS256/{kid}",
        }.items():
            made[f"HS256, kid {name}"] = _hs256({**header, "alg": "HS256", "kid": trick}, claims, pem.encode())
        made["HS256, client named so that the path leads astray"] = _hs256(
            {**header, "alg": "HS256"}, {**claims, "azp": f"{TRAVERSAL}/etc/lemonstand/ticket-keys/default/RS256"}, pem.encode()
        )
    made["HS256, kid of an empty file"] = _hs256({**header, "alg": "HS256", "kid": f"{TRAVERSAL}/dev/null"}, claims, b"")
    made["HS256, no kid"] = _hs256({name: value for name, value in {**header, "alg": "HS256"}.items() if name != "kid"}, claims, b"")
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder, "own.pem")
        subprocess.run(["openssl", "genrsa", "-out", str(own), "2048"], capture_output=True, check=True)
        shown = subprocess.run(["openssl", "rsa", "-in", str(own), "-noout", "-modulus"], capture_output=True, text=True, check=True).stdout
        modulus = bytes.fromhex(shown.strip().partition("=")[2])
        public_half = {"kty": "RSA", "e": "AQAB", "n": encode(modulus), "kid": "own"}
        extras: dict[str, dict[str, Any]] = {
            "own key, the issuer's key id": {},
            "own key, no key id": {"kid": None},
            "own key, key id of a file the store reads": {"kid": f"{TRAVERSAL}/etc/lemonstand/pki/mail-store.crt"},
            "own key brought along (jwk)": {"jwk": public_half, "kid": "own"},
            "own key at an address of one's own (jku)": {"jku": "https://mail.lemon.test/keys.json", "kid": "own"},
            "own key, key id with a wildcard": {"kid": "*"},
        }
        for name, extra in extras.items():
            changed = {key: value for key, value in {**header, **extra}.items() if value is not None}
            made[f"signed anew: {name}"] = compact(changed, claims, own)
    return made


def _hs256(header: dict[str, Any], claims: dict[str, Any], secret: bytes) -> str:
    signed = f"{encode(json.dumps(header).encode())}.{encode(json.dumps(claims).encode())}"
    return f"{signed}.{encode(hmac.new(secret, signed.encode(), hashlib.sha256).digest())}"


def ask_oddly(inner_services: InnerServices, account: Account, other: str) -> dict[str, Any]:
    """Asks the issuer for what it must not give, from a frontend with its right certificate unless the case says otherwise.

    Returns:
        By case `{status, body}`; `own password` is the one that must work.
    """
    form = {"grant_type": "password", "scope": "mail", "client_id": inner_services["client"], "username": other, "password": ""}
    right = {**form, "username": account["user"], "password": account["password"]}
    base, domain = "ou=people", inner_services["client"].partition(".")[2]
    cases: dict[str, tuple[str, str, dict[str, str] | None, str]] = {
        "own password": ("POST", "/token", right, "issuer-client"),
        "no password": ("POST", "/token", form, "issuer-client"),
        "a password of one zero byte": ("POST", "/token", {**form, "password": "\0"}, "issuer-client"),
        "own password for another name": ("POST", "/token", {**right, "username": other}, "issuer-client"),
        "two names": ("POST", "/token", {**right, "username": f"{account['user']},{other}"}, "issuer-client"),
        "a name that is a pattern": ("POST", "/token", {**right, "username": other[:3] + "*"}, "issuer-client"),
        "a name that goes on in the directory": ("POST", "/token", {**right, "username": f"{account['user']},{base}"}, "issuer-client"),
        "no user at all (client credentials)": ("POST", "/token", {**form, "grant_type": "client_credentials"}, "issuer-client"),
        "another's ticket for one's own (token exchange)": (
            "POST", "/token", {**form, "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange"}, "issuer-client",
        ),
        "a wider scope": ("POST", "/token", {**right, "scope": "mail admin"}, "issuer-client"),
        "in another frontend's name": ("POST", "/token", {**right, "client_id": f"frontend9.{domain}"}, "issuer-client"),
        "without a certificate": ("POST", "/token", right, ""),
        "with the certificate for stores": ("POST", "/token", right, "store-client"),
        "with the public certificate": ("POST", "/token", right, "public"),
        **{f"{verb} {path}": (verb, path, None, "issuer-client") for verb, path in (
            ("GET", "/token"), ("GET", "/"), ("GET", "/keys"), ("GET", "/metrics"), ("GET", "/users"), ("GET", "/console"),
            ("GET", "/.well-known/openid-configuration"), ("POST", "/introspect"), ("GET", "/static/../../etc/passwd"),
            ("GET", "//etc/lemonstand/ticket/private/active.pem"), ("TRACE", "/token"),
        )},
    }  # fmt: skip
    with ThreadPoolExecutor(max_workers=PARALLEL) as pool:
        return dict(zip(cases, pool.map(lambda case: _http(inner_services, *case), cases.values()), strict=True))


def ask_for_another(inner_services: InnerServices, account: Account, other: str) -> dict[str, Any]:
    """Asks the issuer for another user's ticket by what a directory might take for his name, or for a password though it is none.

    Returns:
        By case `{status, body, ticket}`; `own password` is the one that must work.
    """
    form = {"grant_type": "password", "scope": "mail", "client_id": inner_services["client"], "username": other}
    own = {"username": account["user"], "password": account["password"]}
    name, _, domain = other.partition("@")
    passwords = {"empty": "", "NUL": "\0", "NUL first": "\0" + account["password"], "a space": " ", "a byte order mark": "\ufeff"}
    names = {
        "a DN that ends early": f"{name},ou=people", "a second RDN": f"{name}+cn=x@{domain}", "an escaped comma": f"{name}\\,x@{domain}",
        "an octet in hexadecimal": f"{name}\\00@{domain}", "a filter that ends early": f"{name})(|(uid=*@{domain}",
        "a pattern": f"{name[:2]}*@{domain}", "NUL in the name": f"{name}\0x@{domain}", "a place of the template": f"{{local}}@{domain}",
    }  # fmt: skip
    cases = {"own password": {**form, **own}}
    cases |= {f"password: {case}": {**form, "password": password} for case, password in passwords.items()}
    cases |= {f"name: {case}": {**form, **own, "username": odd} for case, odd in names.items()}
    with ThreadPoolExecutor(max_workers=PARALLEL) as pool:
        asked = pool.map(lambda case: _http(inner_services, "POST", "/token", case, "issuer-client"), cases.values())
        return dict(zip(cases, asked, strict=True))


def change_for_another(inner_services: InnerServices, account: Account, other: str) -> dict[str, Any]:
    """Asks the issuer for another password of another user, by what this host has: its certificate, and a password of somebody else.

    Returns:
        By case `{status, body, ticket}`; `a question that is answered` is the one that shows that there is such a way.
    """
    new = secrets.token_urlsafe(18)
    form = {"username": other, "password": account["password"], "new_password": new, "again": new}
    named = {"X-Frontend": inner_services["client"], "X-Client-IP": "192.0.2.1"}
    others = {**named, "X-Frontend": f"other.{inner_services['client'].partition('.')[2]}"}
    cases: dict[str, tuple[dict[str, str], str, dict[str, str]]] = {
        "a question that is answered": ({**form, "new_password": "x", "again": "x"}, "issuer-client", named),
        "somebody else's password": (form, "issuer-client", named),
        "no password": ({**form, "password": ""}, "issuer-client", named),
        "a name that ends a DN": ({**form, "username": f"{other},ou=people"}, "issuer-client", named),
        "two names": ({**form, "username": f"{account['user']}+uid={other}"}, "issuer-client", named),
        "in another frontend's name": ({**form, "username": account["user"]}, "issuer-client", others),
        "in nobody's name": ({**form, "username": account["user"]}, "issuer-client", {}),
        "with the certificate for stores": ({**form, "username": account["user"]}, "store-client", named),
    }
    return {
        case: _http(inner_services, "POST", "/own-password", asked, certificate, headers=headers)
        for case, (asked, certificate, headers) in cases.items()
    }


def _http(
    inner_services: InnerServices,
    verb: str,
    path: str,
    form: dict[str, str] | None,
    certificate: str,
    *,
    headers: dict[str, str] | None = None,
) -> dict[str, Any]:
    try:
        wire = Wire(inner_services["issuer_address"], 8443)
    except OSError as fault:
        return {"status": 0, "body": f"{type(fault).__name__}: {fault}", "ticket": False}
    try:
        wire.starttls(_inner(certificate), inner_services["issuer"])
        connection = http.client.HTTPConnection(inner_services["issuer"], 8443)
        connection.sock = wire.socket
        written = {"Content-Type": "application/x-www-form-urlencoded"} if form else {}
        connection.request(verb, path, urlencode(form) if form else None, {**written, **(headers or {})})
        answer = connection.getresponse()
        body = answer.read(4096).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as fault:
        return {"status": 0, "body": f"{type(fault).__name__}: {fault}"[:200], "ticket": False}
    finally:
        wire.close()
    given = "access_token" in body
    return {"status": answer.status, "body": "a ticket" if given else body[:120], "ticket": given}


def without_ticket(inner_services: InnerServices, account: Account, other: Account, certificate: str = "store-client") -> dict[str, Any]:
    """Tries each way into the store that needs no ticket, by both services.

    Returns:
        By case `{status, text}`; `mechanisms`: what the store offers.
    """
    name, secret = other["user"], other["password"]
    plain = base64.b64encode(f"\0{name}\0{secret}".encode()).decode()
    master = base64.b64encode(f"{name}\0{account['user']}\0{account['password']}".encode()).decode()
    named = base64.b64encode(name.encode()).decode()
    cases = {
        "the right password by LOGIN": f'LOGIN "{name}" "{secret}"',
        "the right password by PLAIN": f"AUTHENTICATE PLAIN {plain}",
        "own password for somebody else (PLAIN with a second name)": f"AUTHENTICATE PLAIN {master}",
        "as master of all (LOGIN name*master)": f'LOGIN "{name}*{account["user"]}" "{account["password"]}"',
        "the certificate alone (EXTERNAL)": f"AUTHENTICATE EXTERNAL {named}",
        "nobody (ANONYMOUS)": f"AUTHENTICATE ANONYMOUS {named}",
        "a mechanism of the proxy's own (DOVECOT-TOKEN)": f"AUTHENTICATE DOVECOT-TOKEN {named}",
        "an empty bearer": f"AUTHENTICATE OAUTHBEARER {base64.b64encode(f'n,a={name},'.encode() + bytes((1, 1))).decode()}",
        "a name in ID (x-forward-user)": f'ID ("x-originating-ip" "192.0.2.9" "x-forward-user" "{name}" "x-forward-master_user" "{name}")',
    }
    seen: dict[str, Any] = {"mechanisms": []}
    for case, line in cases.items():
        try:
            session = _store(inner_services, certificate)
            if not seen["mechanisms"]:
                seen["mechanisms"] = [word for word in session.capabilities() if word.startswith("AUTH=")]
            answer = _ended(session, line)
            inside = session.command("SELECT INBOX")
            seen[case] = {"status": "OK" if inside.ok else "NO", "text": f"{answer}; SELECT: {inside.status} {inside.text}"[:200]}
            session.quit()
        except OSError as fault:
            seen[case] = {"status": "CLOSED", "text": f"{type(fault).__name__}: {fault}"[:200]}
    seen |= _submission_without(inner_services, account, other, certificate)
    return seen


def _ended(session: Imap, line: str) -> str:
    """Sends a command that may ask back: whoever asks gets nothing."""
    tag = session.begin(line, shown=line.split(" ", 1)[0])
    while True:
        said = session.response()
        if said.startswith(b"+"):
            session.wire.send(b"*\r\n")
        if said.startswith(tag.encode() + b" "):
            return said[len(tag) + 1 :].decode("utf-8", "replace")[:120]


def _submission_without(inner_services: InnerServices, account: Account, other: Account, certificate: str) -> dict[str, Any]:
    name = other["user"]
    cases = {
        "submission: no login at all": [],
        "submission: the right password": ["AUTH PLAIN " + base64.b64encode(f"\0{name}\0{other['password']}".encode()).decode()],
        "submission: the certificate alone": ["AUTH EXTERNAL " + base64.b64encode(name.encode()).decode()],
        "submission: a login told by XCLIENT": [f"XCLIENT LOGIN={name} ADDR=192.0.2.9 PROTO=ESMTP", "EHLO again.invalid"],
        "submission: a login told by XFORWARD": [f"XFORWARD LOGIN={name} ADDR=192.0.2.9"],
    }
    seen: dict[str, Any] = {}
    for case, lines in cases.items():
        try:
            session = _submission_session(inner_services, certificate)
            said = [session.command(line, shown=line.split(" ", 1)[0]) for line in lines]
            if said and said[-1].code == 334:
                session.command("*")
            reply = session.envelope(name, [account["user"]])
            texts = " / ".join(f"{each.code} {each.text}"[:60] for each in [*said, reply])
            seen[case] = {"status": "OK" if reply.ok else "NO", "text": texts[:240]}
            session.quit()
        except OSError as fault:
            seen[case] = {"status": "CLOSED", "text": f"{type(fault).__name__}: {fault}"[:200]}
    return seen


def senders(inner_services: InnerServices, account: Account, other: str, ticket: str) -> dict[str, Any]:
    """With a ticket of one's own at the store's submission server: whose name may mail be sent in? `own` must work."""
    session = _submission_session(inner_services, "store-client")
    reply = session.command("AUTH OAUTHBEARER")
    if reply.code == 334:
        name = account["user"].replace("=", "=3D").replace(",", "=2C")
        said = f"n,a={name},\x01host={inner_services['store']}\x01port=587\x01auth=Bearer {ticket}\x01\x01"
        reply = session.command(base64.b64encode(said.encode()).decode(), shown="<ticket>")
    if reply.code != 235:
        return {"own": {"code": reply.code, "text": reply.text[:200]}}
    session.ehlo()
    seen = named_senders(session, account["user"], other)
    session.quit()
    return seen


def named_senders(session: Smtp, own: str, other: str) -> dict[str, Any]:
    """MAIL with senders that are not one's own, written in every way that might pass. `own` must work."""
    local, _, domain = other.partition("@")
    cases = {
        "own": own, "another user": other, "another user in capitals": other.upper(), "another user in quotes": f'"{local}"@{domain}',
        "another user with an extension": f"{local}+x@{domain}", "another user by a route": f"@{domain}:{other}",
        "the postmaster": f"postmaster@{domain}", "somebody elsewhere": "somebody@peer.test",
        "own name at a domain below": own.replace("@", "@sub."), "two addresses": f"{own}> <{other}",
    }  # fmt: skip
    seen = {}
    for case, sender in cases.items():
        seen[case] = session.envelope(sender, [own]).plain()
        session.command("RSET")
    # A user's own receipts have the null sender, and one recipient (RFC 8098 section 3); more is a crowd that learns no name.
    reply = session.envelope("", [own, other])
    seen["nobody (the sender of bounces), to several"] = (session.data(message(own, other).data) if reply.ok else reply).plain()
    session.command("RSET")
    for case, parameter in {"another user in AUTH=": f"AUTH={other}", "a login told by XCLIENT": ""}.items():
        if parameter:
            seen[case] = session.envelope(other, [own], parameter).plain()
            session.command("RSET")
        else:
            told = session.command(f"XCLIENT LOGIN={other}")
            after = session.envelope(other, [own])
            seen[case] = {"code": after.code, "text": f"XCLIENT: {told.code}; {after.text}"[:200]}
            session.command("RSET")
    return seen


def lmtp_tricks(inner_services: InnerServices, own: str) -> dict[str, Any]:
    """From a relay: what LMTP gives besides taking mail. `RCPT own` must work; no message is sent."""
    session = Smtp(Wire(inner_services["store_address"], 24))
    session.command("LHLO relay.invalid")
    session.command("STARTTLS")
    session.wire.starttls(_inner(""), inner_services["store"])
    offered = session.command("LHLO relay.invalid")
    seen: dict[str, Any] = {"offered": list(offered.lines)}
    domain = own.partition("@")[2]
    lines = {
        "a mailbox read by VRFY": f"VRFY {own}", "a list read by EXPN": "EXPN all", "a login by AUTH": "AUTH PLAIN AGEAYQ==",
        "a URL fetched by BURL": "BURL imap://x@y/INBOX LAST",
    }  # fmt: skip
    for case, line in lines.items():
        reply = session.command(line)
        seen[case] = {"status": "OK" if reply.ok and reply.code != 252 else "NO", "text": f"{reply.code} {reply.text}"[:160]}
    for case, recipient in {
        "RCPT own": own,
        "a folder outside the mailboxes": f"../../../../tmp/x@{domain}",
        "a program": f"|id@{domain}",
        "a file": f"/etc/passwd@{domain}",
        "root": "root",
    }.items():
        session.command("RSET")
        reply = session.envelope("", [recipient])
        seen[case] = {"status": "OK" if reply.ok else "NO", "text": f"{reply.code} {reply.text}"[:160]}
    session.quit()
    return seen


def guess_with_addresses(inner_services: InnerServices, name: str, guesses: int) -> dict[str, int]:
    """Guesses at the issuer as a broken-into frontend can: another client's address with every guess. How often each status came."""

    def one(number: int) -> int:
        form = {
            "grant_type": "password",
            "scope": "mail",
            "client_id": inner_services["client"],
            "username": name,
            "password": f"guess {number}",
        }
        wire = Wire(inner_services["issuer_address"], 8443)
        try:
            wire.starttls(_inner("issuer-client"), inner_services["issuer"])
            connection = http.client.HTTPConnection(inner_services["issuer"], 8443)
            connection.sock = wire.socket
            told = {"Content-Type": "application/x-www-form-urlencoded", "X-Client-IP": f"198.51.100.{number % 250 + 1}"}
            connection.request("POST", "/token", urlencode(form), told)
            return connection.getresponse().status
        finally:
            wire.close()

    with ThreadPoolExecutor(max_workers=16) as pool:
        statuses = list(pool.map(one, range(min(guesses, 200))))
    return {str(status): statuses.count(status) for status in sorted(set(statuses))}


def roaming(inner_services: InnerServices, accounts: list[Account]) -> list[dict[str, Any]]:
    """Asks for users who are on networks they were never seen on, with their own passwords: `{user, status, seconds}` of each."""
    found = []
    for account in accounts:
        answer = _ask(inner_services, account["user"], account["password"], client=fresh_network())
        found.append({"user": account["user"], "status": answer["status"], "seconds": answer.get("seconds")})
    return found
