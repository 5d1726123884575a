"""TLS on one hop: which versions and suites are taken, what is agreed, whose certificate is shown, what comes of text sent too early."""

from __future__ import annotations

import hashlib
import ssl
import warnings
from pathlib import Path
from typing import Any, TypedDict

from lemonstand.probes.protocols.imap import Imap
from lemonstand.probes.protocols.smtp import CLIENT, Smtp
from lemonstand.probes.protocols.wire import Endpoint, Wire, context

PKI = Path("/etc/lemonstand/pki")
VERSIONS = {
    "TLSv1": ssl.TLSVersion.TLSv1,
    "TLSv1.1": ssl.TLSVersion.TLSv1_1,
    "TLSv1.2": ssl.TLSVersion.TLSv1_2,
    "TLSv1.3": ssl.TLSVersion.TLSv1_3,
}
WEAK = {"CBC": "ECDHE+AES:!AESGCM:!AESCCM", "RSA key exchange": "kRSA+AES"}
"""Suites of TLS 1.2 a server should not agree to (RFC 9325, sections 4.1 and 4.2)."""
ANONYMOUS = {"no certificate": "aNULL:!eNULL"}
"""Suites in which a server shows no certificate: whoever is on the way may answer in its place."""

UNABLE = "can't offer"
IMPLICIT = {443, 465, 993, 8443}
"""Ports where TLS comes first of all (RFC 8314, RFC 9110); 443 is the page's for passwords, 8443 the issuer's."""


class TlsHop(TypedDict):
    """One way from a client to a server.

    Args:
        name: what the server's certificate must hold.
        address: what is dialled.
        port: TCP port: 143, 993 (IMAP), 587, 465 (submission), 25 (SMTP), 24 (LMTP), 443 and 8443
            (HTTPS of the page for passwords and of the issuer).
        ca: PEM of the CA the client trusts; empty: the system's.
        certificate: name of the client's own certificate in `/etc/lemonstand/pki` of the host that asks; empty: none.
    """

    name: str
    address: str
    port: int
    ca: str
    certificate: str


def hop_of(endpoint: Endpoint, port: int) -> TlsHop:
    """A hop from a mail client or a foreign mail host, who have no certificate of their own."""
    return TlsHop(name=endpoint["name"], address=endpoint["address"] or endpoint["name"], port=port, ca=endpoint["ca"], certificate="")


def begin(wire: Wire, port: int) -> None:
    """Says what comes before the handshake on a port."""
    if port in IMPLICIT:
        return
    if port == 143:
        Imap(wire).command("STARTTLS")
        return
    session = Smtp(wire)
    session.command(f"{'LHLO' if port == 24 else 'EHLO'} {CLIENT}")
    session.command("STARTTLS")


def _own(offered: ssl.SSLContext, certificate: str) -> ssl.SSLContext:
    if certificate:
        offered.load_cert_chain(PKI / f"{certificate}.crt", PKI / f"{certificate}.key")
    return offered


def seen(hop: TlsHop) -> dict[str, Any]:
    """What a careful client agrees on, and what the server shows to anybody.

    Returns:
        `version`, `cipher`, `names` of a verified session; `refused`: why it was not to be had; `sha256`: of the certificate the server
        shows, whether or not it is a good one.
    """
    found: dict[str, Any] = {"version": "", "cipher": "", "names": [], "refused": "", "sha256": ""}
    wire = Wire(hop["address"], hop["port"])
    try:
        begin(wire, hop["port"])
        wire.starttls(_own(context(hop["ca"]), hop["certificate"]), hop["name"])
        found |= wire.tls()
    except (ssl.SSLError, ConnectionError) as fault:
        found["refused"] = f"{type(fault).__name__}: {fault}"
    finally:
        wire.close()
    anything = ssl.create_default_context()
    anything.check_hostname = False
    anything.verify_mode = ssl.CERT_NONE
    wire = Wire(hop["address"], hop["port"])
    try:
        begin(wire, hop["port"])
        wire.starttls(_own(anything, hop["certificate"]), hop["name"])
        if isinstance(wire.socket, ssl.SSLSocket):
            found["sha256"] = hashlib.sha256(wire.socket.getpeercert(binary_form=True) or b"").hexdigest()
    finally:
        wire.close()
    return found


def seen_all(hops: list[TlsHop]) -> list[dict[str, Any]]:
    """`seen` of several hops from this host; a hop where nobody answers says so in `refused`."""
    return [_kindly(hop) for hop in hops]


def _kindly(hop: TlsHop) -> dict[str, Any]:
    try:
        return seen(hop)
    except OSError as fault:
        return {"version": "", "cipher": "", "names": [], "refused": f"{type(fault).__name__}: {fault}", "sha256": ""}


def versions(hop: TlsHop) -> dict[str, str]:
    """What comes of each version, and of TLS 1.2 with weak suites alone.

    Returns:
        `agreed …`, `refused: …`, or `can't offer: …` if this host's OpenSSL has no such version.
    """
    found = {name: _try(hop, version, "ALL:@SECLEVEL=0") for name, version in VERSIONS.items()}
    found |= {name: _try(hop, ssl.TLSVersion.TLSv1_2, f"{suites}:@SECLEVEL=0") for name, suites in {**WEAK, **ANONYMOUS}.items()}
    return found


def _try(hop: TlsHop, version: ssl.TLSVersion, ciphers: str) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            offered = _own(ssl.create_default_context(cadata=hop["ca"] or None), hop["certificate"])
            if "aNULL" in ciphers:
                # there is no certificate to look at
                offered.check_hostname, offered.verify_mode = False, ssl.CERT_NONE
            offered.set_ciphers(ciphers)
            offered.minimum_version = offered.maximum_version = version
    except (ssl.SSLError, ValueError) as fault:
        return f"{UNABLE}: {fault}"
    wire = Wire(hop["address"], hop["port"])
    try:
        begin(wire, hop["port"])
        wire.starttls(offered, hop["name"])
        agreed = wire.tls()
    except (ssl.SSLError, ConnectionError) as fault:
        own = isinstance(fault, ssl.SSLError) and fault.reason in {"NO_PROTOCOLS_AVAILABLE", "NO_CIPHERS_AVAILABLE"}
        return f"{UNABLE if own else 'refused'}: {fault}"
    finally:
        wire.close()
    return f"agreed {agreed['version']} {agreed['cipher']}"


def session_tickets(hop: TlsHop) -> dict[str, bool]:
    """Whether a server gives a ticket to take the session up again with, by version (RFC 5077, RFC 8446 4.6.1)."""
    return {name: _ticket(hop, VERSIONS[name]) for name in ("TLSv1.2", "TLSv1.3")}


def _ticket(hop: TlsHop, version: ssl.TLSVersion) -> bool:
    offered = _own(context(hop["ca"]), hop["certificate"])
    offered.minimum_version = offered.maximum_version = version
    wire = Wire(hop["address"], hop["port"])
    try:
        begin(wire, hop["port"])
        wire.starttls(offered, hop["name"])
        # 1.3 sends tickets behind the handshake, before the first thing it says.
        wire.send(b"t NOOP\r\n" if hop["port"] in {143, 993} else b"NOOP\r\n")
        wire.line()
        session = wire.socket.session if isinstance(wire.socket, ssl.SSLSocket) else None
        return session is not None and session.has_ticket
    finally:
        wire.close()


def injection(hop: TlsHop) -> dict[str, object]:
    """Sends a command in the same segment as STARTTLS and sees whether it is answered behind TLS (RFC 9051 section 11.1, CVE-2011-0411).

    Returns:
        `answers`: the lines that came after the handshake, up to the answer of a command sent there; `early`: whether one answers what
        was sent in the clear; `ended`: how the server ended the session instead, if it did.
    """
    port, hello = hop["port"], "LHLO" if hop["port"] == 24 else "EHLO"
    wire = Wire(hop["address"], port)
    try:
        if port == 143:
            session = Imap(wire)
            wire.send(b"early1 STARTTLS\r\nearly2 NOOP\r\n")
            while not session.response().startswith(b"early1 "):
                pass
            last = b"late "
        else:
            smtp = Smtp(wire)
            smtp.command(f"{hello} {CLIENT}")
            wire.send(b"STARTTLS\r\nNOOP early\r\n")
            smtp.reply()
            last = b"250 "
        wire.starttls(_own(context(hop["ca"]), hop["certificate"]), hop["name"])
        wire.send(b"late NOOP\r\n" if port == 143 else f"{hello} {CLIENT}\r\nRSET\r\n".encode())
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
