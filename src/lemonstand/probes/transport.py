"""The start of TLS: which versions and suites are taken, and whether plain text sent too early comes to life behind it."""

from __future__ import annotations

import ssl
import warnings

from lemonstand.probes.imap import Imap
from lemonstand.probes.smtp import CLIENT, Smtp
from lemonstand.probes.wire import Door, Wire, context

VERSIONS = {
    "TLSv1": ssl.TLSVersion.TLSv1,
    "TLSv1.1": ssl.TLSVersion.TLSv1_1,
    "TLSv1.2": ssl.TLSVersion.TLSv1_2,
    "TLSv1.3": ssl.TLSVersion.TLSv1_3,
}
WEAK = {"CBC": "ECDHE+AES:!AESGCM:!AESCCM", "RSA key exchange": "kRSA+AES"}
"""Suites of TLS 1.2 a server should not agree to (RFC 9325, sections 4.1 and 4.2)."""

UNABLE = "can't offer"


def versions(door: Door, port: int) -> dict[str, str]:
    """What comes of each version, and of TLS 1.2 with weak suites alone.

    Returns:
        `agreed …`, `refused: …`, or `can't offer: …` if this host's OpenSSL has no such version.
    """
    found = {name: _try(door, port, version, "ALL:@SECLEVEL=0") for name, version in VERSIONS.items()}
    found |= {name: _try(door, port, ssl.TLSVersion.TLSv1_2, f"{suites}:@SECLEVEL=0") for name, suites in WEAK.items()}
    return found


def _try(door: Door, port: int, version: ssl.TLSVersion, ciphers: str) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            offered = ssl.create_default_context(cadata=door["ca"] or None)
            offered.set_ciphers(ciphers)
            offered.minimum_version = offered.maximum_version = version
    except (ssl.SSLError, ValueError) as fault:
        return f"{UNABLE}: {fault}"
    wire = Wire(door["address"] or door["name"], port)
    try:
        if port == 143:
            Imap(wire).command("STARTTLS")
        else:
            session = Smtp(wire)
            session.ehlo()
            session.command("STARTTLS")
        wire.starttls(offered, door["name"])
        seen = wire.tls()
    except (ssl.SSLError, ConnectionError) as fault:
        own = isinstance(fault, ssl.SSLError) and fault.reason in {"NO_PROTOCOLS_AVAILABLE", "NO_CIPHERS_AVAILABLE"}
        return f"{UNABLE if own else 'refused'}: {fault}"
    finally:
        wire.close()
    return f"agreed {seen['version']} {seen['cipher']}"


def injection(door: Door, port: int) -> dict[str, object]:
    """Sends a command in the same segment as STARTTLS and sees whether it is answered behind TLS (RFC 9051 section 11.1, CVE-2011-0411).

    Returns:
        `answers`: the lines that came after the handshake, up to the answer of a command sent there; `early`: whether one answers what
        was sent in the clear; `ended`: how the server ended the session instead, if it did.
    """
    wire = Wire(door["address"] or door["name"], port)
    if port == 143:
        session = Imap(wire)
        wire.send(b"early1 STARTTLS\r\nearly2 NOOP\r\n")
        while not session.response().startswith(b"early1 "):
            pass
        last = b"late "
    else:
        smtp = Smtp(wire)
        smtp.ehlo()
        wire.send(b"STARTTLS\r\nNOOP early\r\n")
        smtp.reply()
        last = b"250 "
    try:
        wire.starttls(context(door["ca"]), door["name"])
        wire.send(b"late NOOP\r\n" if port == 143 else f"EHLO {CLIENT}\r\nRSET\r\n".encode())
        answers = []
        ends = 0
        while ends < (1 if port == 143 else 2):
            line = wire.line(5)
            answers.append(line.decode("utf-8", "replace"))
            ends += line.startswith(last)
    except (ssl.SSLError, OSError) as fault:
        return {"answers": [], "ended": f"{type(fault).__name__}: {fault}", "early": False}
    finally:
        wire.close()
    if port == 143:
        early = any(line.startswith("early2") for line in answers)
    else:
        # The answer to EHLO comes first: several lines. That of NOOP would be a line of its own before it.
        early = answers[0].startswith("250 ") or sum(line.startswith("250 ") for line in answers) > 2
    return {"answers": answers[:20], "ended": "", "early": early}
