"""The SSH key of a machine that stands in another one's place: taken once somebody says its fingerprint, never by trust."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import shlex
import subprocess
import tempfile
from pathlib import Path

from lemonstand.errors import InputError, LemonstandError
from lemonstand.remote.connections import Connection
from lemonstand.surroundings import environment

FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
SECONDS = 30
UNKNOWN = ("Host key verification failed", "REMOTE HOST IDENTIFICATION HAS CHANGED", "No ED25519 host key is known", "host key is known")
"""What ssh says of a machine whose key is not the one it knows."""
NOWHERE = ("none", "/dev/null")
"""What stands for no file in a setting of ssh's."""


def is_unknown(said: str) -> bool:
    """Whether ssh refused a machine because of its key, by what it wrote to standard error."""
    return any(words in said for words in UNKNOWN)


def remedy(host: str) -> str:
    """What to do about a machine whose key nobody knows."""
    return (
        f"on the console of {host}: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub; then: lemonstand rebuild {host} --host-key with that "
        "fingerprint. If it is not the fresh machine, somebody else answers at its address"
    )


def accept(host: str, way: Connection, fingerprint: str) -> bool:
    """Puts a machine's key in the place of the one ssh knows, if it has the fingerprint that was read on its console.

    Args:
        host: its name, for errors.
        way: how it is reached; no credential is shown on it.
        fingerprint: `SHA256:…`, as `ssh-keygen -l` prints it.

    Returns:
        Whether another key was known, or none.

    Raises:
        InputError: this is no fingerprint.
        LemonstandError: the machine gives no answer, or has another key; nothing was changed.
    """
    if not FINGERPRINT.fullmatch(fingerprint):
        raise InputError(f"'{fingerprint}' is no fingerprint of a key", "--host-key", "write it as ssh-keygen -l prints it: SHA256:…")
    line = _presented(host, way)
    name, kind, key, *_ = [*line.split(" "), "", ""]
    if _fingerprint(key) != fingerprint:
        raise LemonstandError(
            f"the machine that answers for {host} has another key ({kind}) than {fingerprint}",
            host,
            "it is not the machine whose console you read, or this is the fingerprint of another of its keys; nothing was sent to it. "
            + remedy(host),
        )
    settings = _settings(way)
    file = next((Path(each).expanduser() for each in settings["userknownhostsfile"].split() if each not in NOWHERE), None)
    if file is None:
        raise LemonstandError("ssh keeps the keys of machines in no file", "UserKnownHostsFile", "name one where hosts are reached from")
    if file.exists() and line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        return False
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if file.exists():
        subprocess.run(["ssh-keygen", "-R", name, "-f", str(file)], capture_output=True, check=False, env=environment())
    with file.open("a", encoding="utf-8") as stream:
        stream.write(line + "\n")
    return True


def _options(way: Connection, *first: str) -> list[str]:
    """A command of ssh's in which some options count before those by which the machine is reached."""
    return ["ssh", *(word for each in first for word in ("-o", each)), *shlex.split(way.ssh_arguments)]


def _presented(host: str, way: Connection) -> str:
    """The line that ssh would keep of the machine that answers now."""
    with tempfile.TemporaryDirectory(prefix="lemonstand-key-") as folder:
        file = Path(folder, "known")
        first = (
            f"UserKnownHostsFile={file}", "GlobalKnownHostsFile=/dev/null", "StrictHostKeyChecking=accept-new", "HashKnownHosts=no",
            "UpdateHostKeys=no", "CheckHostIP=no", "ControlMaster=no", "ControlPath=none", "PreferredAuthentications=none", "BatchMode=yes",
            "ForwardAgent=no", "LogLevel=ERROR",
        )  # fmt: skip
        try:
            done = subprocess.run(
                [*_options(way, *first), way.target, "true"], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=SECONDS,
                check=False, env=environment(),
            )  # fmt: skip
            said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        except subprocess.TimeoutExpired:
            said = f"no answer within {SECONDS} s"
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    if not lines:
        raise LemonstandError(f"no SSH server answers for {host}: {said[:200]}", host, "see that the machine is up at its address")
    return lines[0].strip()


def _fingerprint(key: str) -> str:
    try:
        digest = hashlib.sha256(base64.b64decode(key, validate=True)).digest()
    except (binascii.Error, ValueError):
        return ""
    return "SHA256:" + base64.b64encode(digest).decode("ascii").rstrip("=")


def _settings(way: Connection) -> dict[str, str]:
    """ssh's own settings for a machine, by name."""
    done = subprocess.run(
        [*_options(way), "-G", way.target], capture_output=True, text=True, check=False, timeout=SECONDS, env=environment()
    )
    found = dict(line.partition(" ")[::2] for line in done.stdout.splitlines())
    return {"userknownhostsfile": "", **found}
