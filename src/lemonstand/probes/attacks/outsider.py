"""What a hostile client on the Internet may try without an account: names that are none, guesses, mail within mail, claims of trust."""

from __future__ import annotations

import base64
import secrets
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lemonstand.probes.protocols.imap import Imap, Literal
from lemonstand.probes.protocols.messages import message
from lemonstand.probes.protocols.smtp import Smtp
from lemonstand.probes.protocols.wire import Account, Endpoint, Wire, context

PARALLEL = 6
LONG = 1 << 16
"""Characters of a name or password that is too long for anything."""


def odd_names(endpoint: Endpoint, account: Account, other: str) -> dict[str, Any]:
    """Logs in under names that some part of the chain might read in another way, with the account's own password.

    A mailbox is laid into the account first: where a name is let in, it tells whose mailbox that is.

    Returns:
        By case `{status, text, own}`; `own name` is the one that must work; `own`: whether the mailbox is the account's.
    """
    user, secret = account["user"], account["password"]
    local, _, domain = user.partition("@")
    theirs = other.partition("@")[0]
    names = {
        "own name": user, "capitals": user.upper(), "spaces around it": f" {user} ", "extension": f"{local}+x@{domain}",
        "extension that is another": f"{local}+{theirs}@{domain}", "another with an extension": f"{theirs}+{local}@{domain}",
        "no domain": local, "another domain": f"{local}@elsewhere.invalid", "two domains": f"{user}@{domain}", "another's name": other,
        "full-width letters": "".join(chr(ord(c) + 0xFEE0) if c.isalpha() else c for c in theirs) + f"@{domain}",
        "a Cyrillic letter": f"{theirs.replace('o', chr(0x043E))}@{domain}", "a dotless i": f"{theirs}{chr(0x0131)}@{domain}",
        "broken UTF-8": "caf\udcff@" + domain, "LDAP pattern": f"{theirs[:2]}*@{domain}", "LDAP filter": f"*)(uid={theirs}",
        "LDAP name that goes on": f"{user},ou=people,o=lemonstand", "LDAP escape": f"{theirs}\\2a@{domain}",
        "SQL comment": f"{other}'--", "SQL always true": "' OR '1'='1", "shell": f"$(id)@{domain}", "format": f"%n%s%{{user}}@{domain}",
        "Dovecot variable": f"%{{owner_user}}@{domain}", "folder": f"../{theirs}@{domain}", "zero byte": f"{other}\0{user}",
        "line end": f"{user}\r\na1 LOGIN {other} x", "ticket within the name": f"{other}\x01auth=Bearer x\x01\x01",
        "comma": f"{other},{user}", "form within the name": f"{user}&username={other}", "64 KiB": "a" * LONG + f"@{domain}", "empty": "",
    }  # fmt: skip
    box = f"probe-{secrets.token_hex(6)}"
    owner = Imap.open(endpoint, account)
    owner.command("CREATE", box)

    def one(case: str, name: str, password: str) -> dict[str, Any]:
        try:
            session = Imap.open(endpoint)
            quoted = (Literal(name.encode("utf-8", "surrogateescape")), Literal(password.encode()))
            answer = session.command("LOGIN", *quoted, shown=f"LOGIN <{case}>")
            own = answer.ok and session.command(f"STATUS {box} (MESSAGES)").ok
            session.quit()
        except (OSError, ValueError) as fault:
            return {"status": "CLOSED", "text": f"{type(fault).__name__}: {fault}"[:120], "own": False}
        return {"status": answer.status, "text": answer.text[:120], "own": own}

    def by_sasl(case: str, name: str, password: str) -> dict[str, Any]:
        try:
            session = Smtp.open(endpoint)
            said = base64.b64encode(b"\0" + name.encode("utf-8", "surrogateescape") + b"\0" + password.encode()).decode()
            reply = session.command(f"AUTH PLAIN {said}", shown=f"AUTH PLAIN <{case}>")
            session.quit()
        except (OSError, ValueError) as fault:
            return {"status": "CLOSED", "text": f"{type(fault).__name__}: {fault}"[:120], "own": False}
        # Submission shows no mailbox: a name that is another spelling of one's own is judged by IMAP.
        return {"status": "OK" if reply.code == 235 else "NO", "text": f"{reply.code} {reply.text}"[:120], "own": None}

    jobs: dict[str, tuple[Any, str, str]] = {case: (one, name, secret) for case, name in names.items()}
    jobs["64 KiB of password"] = (one, user, "x" * LONG)
    jobs |= {f"{case}, 587": (by_sasl, names[case], secret) for case in ("zero byte", "LDAP pattern", "64 KiB", "empty", "two domains")}
    try:
        with ThreadPoolExecutor(max_workers=PARALLEL) as pool:
            found = {case: pool.submit(job, case, name, password) for case, (job, name, password) in jobs.items()}
            seen = {case: each.result() for case, each in found.items()}
    finally:
        owner.command("DELETE", box)
        owner.quit()
    seen["own name afterwards"] = one("own name", user, secret)
    return seen


def guessing(endpoints: list[Endpoint], victim: Account, guesses: int, source: str) -> dict[str, Any]:
    """Guesses a user's password from one address, side by side, then lets the user in from another.

    Args:
        endpoints: the guesser's, and the user's: another IP version is another network for certain.
        guesses: how many, at most 20.
        source: the address the guesser has; the user has this host's usual one.

    Returns:
        `answers`: of the guesses in the end, by count; `last`: one guess more; `owner`: what the right password brings from elsewhere.
    """

    def one(endpoint: Endpoint, password: str, come_from: str) -> str:
        wire = Wire.to(endpoint, 143, source=come_from)
        session = Imap(wire)
        session.command("STARTTLS")
        wire.starttls(context(endpoint["ca"]), endpoint["name"])
        answer = session.plain({"user": victim["user"], "password": password})
        session.quit()
        return f"{answer.status} {answer.code.partition(' ')[0]}".strip()

    with ThreadPoolExecutor(max_workers=PARALLEL) as pool:
        answers = list(pool.map(lambda _: one(endpoints[0], secrets.token_hex(8), source), range(min(guesses, 20))))
    last = one(endpoints[0], secrets.token_hex(8), source)
    return {
        "answers": {each: answers.count(each) for each in sorted(set(answers))},
        "last": last,
        "owner": one(endpoints[1], victim["password"], ""),
    }


def no_login(endpoint: Endpoint, name: str, ticket: str) -> dict[str, Any]:
    """Tries to be let in at the frontend without the password; all must be refused."""
    named = base64.b64encode(name.encode()).decode()
    bearer = base64.b64encode(f"n,a={name},\x01host={endpoint['name']}\x01port=143\x01auth=Bearer {ticket}\x01\x01".encode()).decode()
    xoauth = base64.b64encode(f"user={name}\x01auth=Bearer {ticket}\x01\x01".encode()).decode()
    cases = {
        "somebody's ticket (OAUTHBEARER)": f"AUTHENTICATE OAUTHBEARER {bearer}",
        "somebody's ticket (XOAUTH2)": f"AUTHENTICATE XOAUTH2 {xoauth}",
        "the ticket as password": f'LOGIN "{name}" "{ticket}"',
        "no password": f'LOGIN "{name}" ""',
        "nobody (ANONYMOUS)": f"AUTHENTICATE ANONYMOUS {named}",
        "no certificate (EXTERNAL)": f"AUTHENTICATE EXTERNAL {named}",
        "no login at all": "NOOP",
    }
    seen: dict[str, Any] = {}
    for case, line in cases.items():
        session = Imap.open(endpoint)
        tag = session.begin(line, shown=line.split(" ", 1)[0])
        said = session.response()
        while not said.startswith(tag.encode() + b" "):
            if said.startswith(b"+"):
                session.wire.send(b"*\r\n")
            said = session.response()
        inside = session.command("SELECT INBOX")
        seen[case] = {"status": "OK" if inside.ok else "NO", "text": f"{said.decode('utf-8', 'replace')[:80]}; SELECT: {inside.status}"}
        session.quit()
    return seen


def trust(endpoint: Endpoint, account: Account, claimed: str) -> dict[str, Any]:
    """Claims to be a proxy: another address in ID, XCLIENT, XFORWARD and the PROXY protocol. What the logs say of it, others look up.

    Returns:
        By case, what was answered; `session`: what to look for in the logs beside the claimed address.
    """
    seen: dict[str, Any] = {}
    imap = Imap.open(endpoint)
    told = imap.command(f'ID ("x-originating-ip" "{claimed}" "x-originating-port" "4711" "x-connected-ip" "{claimed}" "x-proxy-ttl" "3")')
    logged = imap.plain(account)
    seen["ID on IMAP"] = {"status": told.status, "text": told.text[:100], "login": logged.status}
    imap.quit()
    smtp = Smtp.open(endpoint)
    reply = smtp.command(f"XCLIENT ADDR={claimed} PORT=4711 LOGIN={account['user']}")
    after = smtp.command(f"MAIL FROM:<{account['user']}>")
    seen["XCLIENT on 587"] = {
        "status": str(reply.code),
        "text": f"{reply.text[:80]}; MAIL: {after.code}",
        "login": "OK" if after.ok else "NO",
    }
    smtp.quit()
    wire = Wire.to(endpoint, 143)
    wire.send(f"PROXY TCP4 {claimed} {claimed} 4711 143\r\n".encode())
    lines = []
    try:
        for _ in range(3):
            lines.append(wire.line(3).decode("utf-8", "replace"))
    except OSError as fault:
        lines.append(f"{type(fault).__name__}")
    wire.close()
    seen["PROXY protocol on 143"] = {"status": "", "text": " / ".join(lines)[:160], "login": "NO"}
    return seen


def relay_attempts(endpoint: Endpoint, port: int, own: str, elsewhere: str, user: str) -> dict[str, Any]:
    """Asks a host to carry mail on to others, as a stranger.

    Args:
        own: a sender outside the site.
        elsewhere: whom the site has nothing to do with.
        user: one of the site's; mail for him on 25 is the one that must be taken.
    """
    session = Smtp.open(endpoint, port=port)
    local, _, far = elsewhere.partition("@")
    domain = user.partition("@")[2]
    cases = {
        "for a user": (own, user), "for others": (own, elsewhere), "as a user": (user, elsewhere), "as a bounce": ("", elsewhere),
        "percent": (own, f"{local}%{far}@{domain}"), "bang": (own, f"{far}!{local}@{domain}"), "route": (own, f"@{domain}:{elsewhere}"),
        "quoted": (own, f'"{elsewhere}"@{domain}'), "two at": (own, f"{elsewhere}@{domain}"),
        "address literal": (own, f"{local}@[{endpoint['address']}]"), "to the name of the host": (own, f"{local}@{endpoint['name']}"),
        "extension": (own, f"{user.partition('@')[0]}+{local}={far}@{domain}"),
    }  # fmt: skip
    seen = {}
    for case, (sender, recipient) in cases.items():
        seen[case] = session.envelope(sender, [recipient]).plain()
        session.command("RSET")
    told = session.command(f"XCLIENT LOGIN={user} ADDR=127.0.0.1")
    session.ehlo()
    seen["as somebody trusted (XCLIENT)"] = session.envelope(user, [elsewhere]).plain() | {"xclient": told.code}
    session.quit()
    return seen


ENDS = {"LF.LF": b"\n.\n", "CRLF.LF": b"\r\n.\n", "LF.CRLF": b"\n.\r\n", "CR.CR": b"\r.\r", "CRLF.CR": b"\r\n.\r", "LF.CR": b"\n.\r"}
"""What some server might take for the end of a message, and the next not."""


def smuggle(endpoint: Endpoint, port: int, sender: str, recipient: str, account: Account | None = None) -> dict[str, Any]:
    """Sends messages that hold a second one behind something like an end, by DATA and by BDAT.

    Returns:
        `outer`, `inner`: Message-IDs by case; only the outer ones may arrive as messages. `codes`: what the server said.
    """
    outer: dict[str, str] = {}
    inner: dict[str, str] = {}
    codes: dict[str, str] = {}
    for case, end in ENDS.items():
        for way in ("DATA", "BDAT"):
            session = Smtp.open(endpoint, account, port=port)
            first, second = message(sender, recipient), message(sender, recipient)
            commands = f"MAIL FROM:<{sender}>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n".encode()
            body = first.data + b"before" + end + commands + second.data
            name = f"{way} {case}"
            outer[name], inner[name] = first.ident, second.ident
            try:
                reply = session.envelope(sender, [recipient])
                if reply.ok and way == "DATA":
                    reply = session.command("DATA")
                    if reply.code == 354:
                        session.wire.send(body + b"\r\n.\r\n", shown="<a message in a message>")
                        reply = session.reply()
                elif reply.ok:
                    reply = session.chunk(body, last=True)
                codes[name] = f"{reply.code} {reply.text}"[:100]
                session.quit()
            except (OSError, ValueError) as fault:
                codes[name] = f"{type(fault).__name__}: {fault}"[:100]
    return {"outer": outer, "inner": inner, "codes": codes}


def arrived(endpoint: Endpoint, account: Account, idents: list[str], expected: list[str], within: float) -> dict[str, list[str]]:
    """Waits for messages and says which came; removes them.

    Args:
        idents: all that may have come.
        expected: those to wait for, at most `within` seconds.
    """
    session = Imap.open(endpoint, account)
    session.command("SELECT INBOX")
    until = time.monotonic() + within
    found: set[str] = set()
    try:
        while time.monotonic() < until:
            for name in set(idents) - found:
                if _numbers(session, name):
                    found.add(name)
            if set(expected) <= found:
                break
            time.sleep(0.3)
            session.command("NOOP")
        for name in found:
            for number in _numbers(session, name):
                session.command(f"UID STORE {number} +FLAGS.SILENT (\\Deleted)")
                session.command(f"UID EXPUNGE {number}")
    finally:
        session.quit()
    return {"found": sorted(found)}


def _numbers(session: Imap, ident: str) -> list[str]:
    lines = session.command(f'UID SEARCH HEADER Message-ID "{ident}"').lines("SEARCH")
    return lines[0].split()[1:] if lines else []


def greetings(endpoint: Endpoint) -> dict[str, str]:
    """What each port says first; before TLS nobody is logged in."""
    seen = {}
    for port in (143, 587):
        try:
            with socket.create_connection((endpoint["address"], port), 5) as raw:
                seen[str(port)] = raw.recv(512).decode("utf-8", "replace").strip()
        except OSError as fault:
            seen[str(port)] = f"{type(fault).__name__}: {fault}"
    return seen


def starttls(endpoint: Endpoint, port: int) -> bool:
    """Whether a port goes over to TLS and answers a command there."""
    if port == 143:
        imap = Imap.open(endpoint)
        good = imap.command("NOOP").ok
        imap.quit()
        return good
    smtp = Smtp.open(endpoint, port=port)
    good = smtp.command("NOOP").ok
    smtp.quit()
    return good


def crowd(endpoint: Endpoint, domain: str, connections: int, logins: int, within: float) -> dict[str, int]:
    """Logs in under names nobody has, on many connections from one address, until so many are answered. How often each answer came."""
    until = time.monotonic() + within
    answers: list[str] = []

    def over() -> bool:
        return len(answers) - answers.count("CLOSED") >= logins or time.monotonic() > until

    def one(_: int) -> None:
        while not over():
            try:
                session = Imap.open(endpoint)
                for _ in range(4):
                    if over():
                        break
                    answer = session.plain({"user": f"nobody-{secrets.token_hex(6)}@{domain}", "password": secrets.token_hex(8)})
                    answers.append(f"{answer.status} {answer.code.partition(' ')[0]}".strip())
                session.quit()
            except OSError:
                answers.append("CLOSED")
                time.sleep(0.5)

    with ThreadPoolExecutor(max_workers=connections) as pool:
        list(pool.map(one, range(connections)))
    return {each: answers.count(each) for each in sorted(set(answers))}
