"""Keys and certificates on one host: make keys, ask for signatures, put certificates in place.

Runs on the host from standard input (`python3 -`) with nothing but the standard library and the `openssl` command, and leaves
nothing of itself there. `prepare` makes the keys that are missing and hands back a signing request for each; `install` writes
what the controller signed. A key that was made here is never printed.
"""

import base64
import grp
import hashlib
import json
import os
import pwd
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

PKI = Path("/etc/lemonstand/pki")
NEXT = ".next"
"""Ends the name of a key whose certificate is still being signed."""


class HostError(Exception):
    """Something an operator has to mend; the text says what and where."""


def openssl(*arguments: str, data: str | None = None) -> str:
    """Run openssl and return what it printed; its complaint becomes the error's text."""
    done = subprocess.run(["openssl", *arguments], input=data, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise HostError(f"openssl {arguments[0]} failed: {done.stderr.strip()}")
    return done.stdout


def group_id(name: str | None) -> int:
    """Return the number of a group; root's for none."""
    if not name:
        return 0
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise HostError(f"group {name} does not exist on this host; make it before its key is made, or drop `group`") from None


def key_mode(group: str | None) -> int:
    """Return the mode of a private key: root alone, or root and one group."""
    return 0o640 if group else 0o600


def write(path: Path, text: str, mode: int, gid: int = 0) -> None:
    """Put a file in place in one step, with its final owner and mode from the first byte on."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "w", encoding="ascii") as stream:
            os.fchown(stream.fileno(), 0, gid)
            os.fchmod(stream.fileno(), mode)
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read(path: Path) -> str | None:
    """Return a file's text, or None if there is none."""
    try:
        return path.read_text(encoding="ascii")
    except FileNotFoundError:
        return None


def settle(path: Path, mode: int, group: str | None, check: bool, changed: list[str]) -> None:
    """Give an existing file its owner, group and mode."""
    state = path.stat()
    try:
        gid = group_id(group)
    except HostError:
        if not check:
            raise
        changed.append(f"group of {path}")
        return
    if (state.st_uid, state.st_gid, state.st_mode & 0o7777) != (0, gid, mode):
        changed.append(f"owner or mode of {path}")
        if not check:
            os.chown(path, 0, gid)
            path.chmod(mode)


def new_key() -> str:
    """Make a private key."""
    return openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")


def mark(path: Path, wanted: bool, check: bool, changed: list[str]) -> None:
    """Say beside a certificate whether something on this host renews it; its renewal runs only while this file is there."""
    if path.exists() != wanted:
        changed.append(str(path))
        if not check and wanted:
            write(path, "", 0o644)
        elif not check:
            path.unlink()


def take_next_key(name: str, certificate: str) -> None:
    """Put a new key in the place of the old one once its certificate is here; throw away one that none was signed for."""
    path = PKI / f"{name}.key{NEXT}"
    text = read(path)
    if text is not None and belongs_together(certificate, text):
        path.replace(PKI / f"{name}.key")
    elif text is not None:
        path.unlink()


def prepare(order: dict[str, Any]) -> dict[str, Any]:
    """Make missing keys; return each request's certificate as it is now and a signing request for its key."""
    check: bool = order["check"]
    changed: list[str] = []
    answer: dict[str, dict[str, str | None]] = {}
    if order.get("only_due"):
        return {"changed": [], "requests": {request["name"]: as_it_is(request["name"]) for request in order["requests"]}, "held": {}}
    if not PKI.is_dir():
        changed.append(f"directory {PKI}")
        if not check:
            PKI.mkdir(mode=0o755, parents=True)
            PKI.parent.chmod(0o755)
            PKI.chmod(0o755)
    for request in order["requests"]:
        name, group = request["name"], request.get("group")
        key, certificate = PKI / f"{name}.key", PKI / f"{name}.crt"
        here = name in order["renewed_on_host"]
        mark(PKI / f"{name}.renewed-here", here, check, changed)
        if not key.exists():
            changed.append(f"key {key}")
            if not check:
                write(key, new_key(), key_mode(group), group_id(group))
        else:
            settle(key, key_mode(group), group, check, changed)
        csr = None
        if order["new_keys"] and not here and key.exists():
            changed.append(f"new key {key}")
            if not check:
                # Beside the one in use until its certificate is there: a run that dies in between breaks nothing.
                key = Path(f"{key}{NEXT}")
                write(key, new_key(), key_mode(group), group_id(group))
        if key.exists():
            # The subject is decoration: the controller takes every name from the play (RFC 5280 4.2.1.6: identity is the SAN).
            csr = openssl("req", "-new", "-key", str(key), "-subj", f"/CN={name}")
        answer[name] = {"csr": csr, "certificate": read(certificate)}
    return {"changed": changed, "requests": answer, "held": held(order.get("given", []))}


def as_it_is(name: str) -> dict[str, str | None]:
    """The certificate that is here, and a signing request for its key; nothing is made."""
    key = PKI / f"{name}.key"
    csr = openssl("req", "-new", "-key", str(key), "-subj", f"/CN={name}") if key.exists() else None
    return {"csr": csr, "certificate": read(PKI / f"{name}.crt")}


def held(given: list[str]) -> dict[str, list[str | None]]:
    """What is in place: {file name: [SHA-256, owner, group, mode]}, so that a host that needs nothing is asked once.

    Args:
        given: names of what an operator supplies. Of a key that was made here not even a digest goes anywhere.
    """
    found: dict[str, list[str | None]] = {}
    for path in sorted(PKI.iterdir()) if PKI.is_dir() else []:
        state = path.stat()
        told = path.suffix == ".crt" or (path.suffix == ".key" and path.stem in given)
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if told else None
        owner, group = name_of(pwd.getpwuid, state.st_uid), name_of(grp.getgrgid, state.st_gid)
        found[path.name] = [digest, owner, group, f"{state.st_mode & 0o7777:04o}"]
    return found


def name_of(look_up: Callable[[int], Any], number: int) -> str:
    """The name of a user or a group, or its number where it has none."""
    try:
        return str(look_up(number)[0])
    except KeyError:
        return str(number)


def belongs_together(certificate: str, key: str) -> bool:
    """Tell whether an operator's certificate is the one for an operator's key."""
    return openssl("x509", "-noout", "-pubkey", data=certificate) == openssl("pkey", "-pubout", data=key)


def install(order: dict[str, Any]) -> dict[str, Any]:
    """Write certificates, CA certificates and what the operator supplied, where they differ."""
    check: bool = order["check"]
    changed: list[str] = []
    groups = {request["name"]: request.get("group") for request in order["requests"]}
    wanted: list[tuple[Path, str, int, str | None]] = []
    for name, pem in order["certificates"].items():
        if not check:
            take_next_key(name, pem)
        wanted.append((PKI / f"{name}.crt", pem, 0o644, None))
    for name, pem in order["cas"].items():
        wanted.append((PKI / f"ca-{name}.crt", pem, 0o644, None))
    for name, pair in json.loads(order["files_json"]).items():
        certificate, key = pair["certificate"].rstrip() + "\n", pair["key"].rstrip() + "\n"
        if not check and not belongs_together(certificate, key):
            raise HostError(f"certificate and key given for {name} do not belong together; see certificates_files.{name}")
        # The key first: a reload between the two writes then fails loudly instead of serving a certificate without its key.
        wanted.append((PKI / f"{name}.key", key, key_mode(groups.get(name)), groups.get(name)))
        wanted.append((PKI / f"{name}.crt", certificate, 0o644, None))
    for path, text, mode, group in wanted:
        if read(path) != text:
            changed.append(str(path))
            if not check:
                write(path, text, mode, group_id(group))
        else:
            settle(path, mode, group, check, changed)
    return {"changed": changed}


def main(order: dict[str, Any]) -> int:
    """Do one order and print the answer as JSON."""
    os.umask(0o077)
    try:
        answer = prepare(order) if order["mode"] == "prepare" else install(order)
    except FileNotFoundError as problem:
        # A check run comes before the first install: openssl may not be here yet.
        if not (order["check"] and problem.filename == "openssl"):
            raise
        answer = {"changed": ["everything: openssl is not installed yet"], "requests": {}}
    except HostError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    print(json.dumps(answer))
    return 0


def main_encoded(order: str) -> int:
    """Entry point of the role, which appends a call with the order as base64 of JSON to this text."""
    return main(json.loads(base64.b64decode(order)))
