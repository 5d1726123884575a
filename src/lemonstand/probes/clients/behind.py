"""How an auth host's issuer asks a directory behind: the program that is on the host, led to false directories and to the true one."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import pwd
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lemonstand.probes.clients.tickets import ISSUER, PKI, PROGRAMS, SETTINGS

TAKEN = bytes.fromhex("300c02010161070a010004000400")
"""LDAP's BindResponse: success, to the first message (RFC 4511 section 4.2.2)."""
SECRET = "what-nobody-else-may-hear"  # noqa: S105 - of nobody; what is looked for is whether it is sent


def asked(login: str) -> dict[str, Any]:
    """Has the issuer's own program ask false directories, which take every password, and the true one. Runs on an auth host.

    Args:
        login: of a user whose password is judged there.

    Returns:
        `false`: by case, what came of it (`unavailable`, `taken`, `refused`), and how many octets the false one `heard`; `true`: what came
        of questions at which no password is said: `nobody` (for the connection alone), `empty`, `zero` (a password that begins with NUL);
        `silent`: the seconds until one that takes connections and says nothing was given up.
    """
    sys.path.insert(0, str(PROGRAMS))
    program: Any = importlib.import_module("ticket_behind")
    settings = program.Behind.from_mapping(json.loads(SETTINGS.read_text(encoding="utf-8"))["behind"])
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = Path(folder, "own.crt"), Path(folder, "own.key")
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-keyout", str(key), "-out",
             str(certificate), "-days", "1", "-subj", "/CN=false", "-addext", f"subjectAltName=DNS:{settings.name}"],
            capture_output=True, check=True,
        )  # fmt: skip
        contexts: dict[str, ssl.SSLContext | None] = {
            "its name, and a CA nobody knows": _server(certificate, key),
            "a certificate of this site": _server(PKI / "issuer.crt", PKI / "issuer.key"),
            "no TLS at all": None,
        }
    # Its keys are the issuer's to read; what is asked is asked as the issuer.
    issuer = pwd.getpwnam(ISSUER)
    os.setgroups([])
    os.setgid(issuer.pw_gid)
    os.setuid(issuer.pw_uid)

    def told(port: int | None, password: str, *, known: bool = True) -> str:
        chosen = settings if port is None else dataclasses.replace(settings, addresses=("127.0.0.1",), port=port)
        try:
            return "taken" if program.DirectoryBehind(chosen).takes(login, password, known=known) else "refused"
        except program.DirectoryUnavailable:
            return "unavailable"

    false = {}
    for case, context in contexts.items():
        with _listening(context) as (port, heard):
            false[case] = {"came": told(port, SECRET), "heard": len(heard)}
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        came = told(silent.getsockname()[1], SECRET)
        seconds = round(time.monotonic() - began, 1)
    true = {"nobody": told(None, SECRET, known=False), "empty": told(None, ""), "zero": told(None, "\0" + SECRET)}
    return {"false": false, "true": true, "silent": {"came": came, "seconds": seconds}}


def _server(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


@contextmanager
def _listening(context: ssl.SSLContext | None) -> Iterator[tuple[int, bytearray]]:
    """A directory on loopback that takes every password: its port, and what it heard after the handshake."""
    heard = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            # What is wrong with its certificate, the other side says by going away.
            with suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(5)
                    shown = context.wrap_socket(connection, server_side=True) if context else connection
                    if context is None:
                        shown.sendall(TAKEN)
                        said = shown.recv(4096)
                        # A ClientHello (RFC 8446 section 4.1.2) tells nothing; anything else is LDAP in the clear.
                        heard.extend(b"" if said[:1] == b"\x16" else said)
                        return
                    while said := shown.recv(4096):
                        heard.extend(said)
                        shown.sendall(TAKEN)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield int(listener.getsockname()[1]), heard
        thread.join(6)
