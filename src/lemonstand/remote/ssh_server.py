"""What a host's SSH server says to who comes by a connection of his own: which ways in it names, and whether it passes him on."""

from __future__ import annotations

import re
import shlex
import subprocess

from lemonstand.observations import note
from lemonstand.outcomes import Invalid
from lemonstand.remote.connections import Connection
from lemonstand.surroundings import environment

SECONDS = 30
ALONE = ("-o", "ControlMaster=no", "-o", "ControlPath=none", "-o", "BatchMode=yes", "-o", "LogLevel=INFO")
"""Of two options of the same name ssh takes the first."""
PROHIBITED = "administratively prohibited"


def _ask(connection: Connection, *options: str) -> tuple[str, str]:
    words = ["ssh", *ALONE, *options, *shlex.split(connection.ssh_arguments), connection.target]
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False,
            env=environment(),
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Invalid(f"SSH does not answer within {SECONDS} s") from None
    return done.stdout, done.stderr


def ways_in(host: str, connection: Connection) -> set[str]:
    """The methods a server names to who has shown nothing yet (RFC 4252 section 5.1); `none` if it lets him in.

    Raises:
        Invalid: it can't be told.
    """
    out, errors = _ask(connection, "-o", "PubkeyAuthentication=no", "-o", "PreferredAuthentications=none", "-T")
    found = re.search(r"Permission denied \(([a-z0-9@.,-]+)\)", errors)
    note("command", host, "ssh -o PreferredAuthentications=none", errors.strip()[-200:])
    if found:
        return set(found.group(1).split(","))
    if not errors.strip() or out:
        return {"none"}
    raise Invalid(f"{host}: {errors.strip().splitlines()[-1][:200]}")


def passes_on(host: str, connection: Connection) -> bool:
    """Whether a server opens a connection in the name of who is logged in: to its own port, which certainly answers.

    Raises:
        Invalid: it can't be told.
    """
    out, errors = _ask(connection, "-W", "127.0.0.1:22")
    note("command", host, "ssh -W 127.0.0.1:22", (out or errors).strip()[-200:])
    if out.startswith("SSH-"):
        return True
    if PROHIBITED in errors:
        return False
    raise Invalid(f"{host}: {(errors.strip().splitlines() or ['no answer'])[-1][:200]}")
