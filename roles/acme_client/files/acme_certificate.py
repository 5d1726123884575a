#!/usr/bin/python3
"""Takes over a certificate the ACME client got, and tells the services that use it.

    acme-certificate ensure [--check]     get one unless the one in force is the client's own
    acme-certificate renew [--check]      get a new one now
    acme-certificate adopt                what lemonstand-acme.service runs as root after the client

The client runs as a user of its own and is not believed: what it left is taken over only if the key belongs to the certificate, all names
are in it, and it is in date. Every action is a line `changed: ...`. Settings: /etc/lemonstand/acme/settings.json.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

SETTINGS = pathlib.Path("/etc/lemonstand/acme/settings.json")
CLIENT = "lemonstand-acme.service"
CONVERGE = "/usr/local/lib/lemonstand/converge-service"
OPTIONS = pathlib.Path("/run/lemonstand-acme.env")


class Fault(Exception):
    """Something an operator has to know; the text says what and where."""


def run(*command: str, data: str | None = None) -> str:
    """What a command printed.

    Raises:
        Fault: it failed.
    """
    done = subprocess.run(command, input=data, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Fault("{}: {}".format(" ".join(command[:2]), done.stderr.strip()))
    return done.stdout


def read(path: str) -> str:
    """A file's text, empty if there is none."""
    try:
        return pathlib.Path(path).read_text(encoding="ascii")
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except UnicodeDecodeError:
        raise Fault(f"{path} is no PEM file") from None


def write(name: str, text: str, mode: int) -> None:
    """In one step, with its mode from the first byte on."""
    path = pathlib.Path(name)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    with os.fdopen(handle, "w", encoding="ascii") as stream:
        os.fchmod(handle, mode)
        stream.write(text)
        stream.flush()
        os.fsync(handle)
    pathlib.Path(temporary).replace(path)


def got(settings: dict[str, Any]) -> tuple[str, str]:
    """The client's certificate with its chain, and the key; empty texts if it has none.

    Raises:
        Fault: they are not what was asked for.
    """
    chain, key = (read(settings["live"] + "/" + name) for name in ("fullchain.pem", "privkey.pem"))
    if not chain or not key:
        return "", ""
    if run("openssl", "x509", "-noout", "-pubkey", data=chain) != run("openssl", "pkey", "-pubout", data=key):
        raise Fault("the ACME client's key does not belong to its certificate; {}".format(settings["live"]))
    for name in settings["names"]:
        # In words alone: whether a name that does not fit is a failure differs between releases of OpenSSL.
        words = ["openssl", "x509", "-noout", "-checkhost", name]
        if "does match" not in subprocess.run(words, input=chain, capture_output=True, text=True, check=False).stdout:
            raise Fault("the ACME client's certificate is not for {}; {}".format(name, settings["live"]))
    run("openssl", "x509", "-noout", "-checkend", "0", data=chain)
    return chain, key


def adopt(settings: dict[str, Any]) -> None:
    """Puts what the client got where services read it, and has them read it.

    Raises:
        Fault: there is nothing to take over, or a service does not read it; the others do.
    """
    chain, key = got(settings)
    if not chain:
        raise Fault("the ACME client left no certificate in {}".format(settings["live"]))
    if read(settings["certificate"]) != chain or read(settings["key"]) != key:
        # The key first: a reload between the two writes then fails loudly instead of serving a certificate without its key.
        write(settings["key"], key, 0o600)
        write(settings["certificate"], chain, 0o644)
        print("changed: {}".format(settings["certificate"]))
    faults = []
    for unit in settings["units"]:
        # Also where the files were right already: a run that died may have written them and told nobody.
        try:
            sys.stdout.write(run(CONVERGE, unit, "--renewed", settings["key"], settings["certificate"]))
        except Fault as fault:
            faults.append(str(fault))
    if faults:
        raise Fault("; ".join(faults))


def start(options: str = "") -> None:
    """Runs the client.

    Raises:
        Fault: no certificate came of it.
    """
    try:
        if options:
            OPTIONS.write_text(f"LEMONSTAND_ACME_OPTIONS={options}\n")
        subprocess.run(["systemctl", "daemon-reload"], check=True)
        done = subprocess.run(["systemctl", "start", CLIENT], capture_output=True, text=True, check=False)
    finally:
        OPTIONS.unlink(missing_ok=True)
    if done.returncode:
        words = ["journalctl", "--no-pager", "-o", "cat", "-n", "30", "-u", CLIENT]
        raise Fault("no certificate was got by ACME\n" + subprocess.run(words, capture_output=True, text=True, check=False).stdout)


def main() -> int:
    """Does one action; returns the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=["ensure", "renew", "adopt"])
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    settings = json.loads(SETTINGS.read_text())
    os.umask(0o077)
    try:
        if given.action == "adopt":
            adopt(settings)
            return 0
        before = read(settings["certificate"])
        if given.action == "ensure":
            try:
                mine = got(settings)[0]
            except Fault:
                mine = ""  # other names, or it ended: a new one is asked for
            if mine and mine == before:
                return 0
        if given.check:
            print("changed: would get a certificate by ACME")
            return 0
        start("--force-renewal" if given.action == "renew" else "")
        if read(settings["certificate"]) != before:
            print("changed: {}".format(settings["certificate"]))
        elif given.action == "renew":
            raise Fault(f"the certificate is still the old one; see journalctl -u {CLIENT}")
    except Fault as fault:
        print(fault, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
