"""What whoever is root on this host can carry away: names of users, hashes, keys, mail, cores."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lemonstand.probes.protocols.imap import Imap
from lemonstand.probes.protocols.wire import Wire

ROOTS = ("/etc", "/home", "/opt", "/root", "/run", "/srv", "/tmp", "/usr/local", "/var")  # noqa: S108 - read, not written
CACHES = (
    "/var/cache/apt",
    "/var/lib/apt",
    "/var/lib/dpkg",
    "/run/systemd",
    "/run/udev",
    "/usr/local/lib/python3",
    "/var/log/journal",
    "/run/log",
)
LARGEST = 64 << 20
HASH = re.compile(
    rb"\{(?:ARGON2(?:I|ID)?|SSHA(?:256|512)?|SHA512-CRYPT|BLF-CRYPT|CRYPT|PBKDF2|PLAIN)\}[$A-Za-z0-9+/=.,_-]{12,}|\$argon2id?\$v="
)
KEY = re.compile(rb"-----BEGIN (?:RSA |EC )?PRIVATE KEY-----")
TICKET = re.compile(rb"eyJ[A-Za-z0-9_-]{12,}\.eyJ[A-Za-z0-9_-]{24,}\.[A-Za-z0-9_-]{40,}")
MAIL = re.compile(r"/(?:cur|new)/\d+\.[^/]+$|/dovecot\.index|\.mdb$|\.ldif$")
CORES = ("/var/lib/systemd/coredump", "/var/crash", "/var/cores", "/run/dovecot", "/var/run/dovecot", "/var/spool/postfix")
CORE_WAIT_SECONDS = 3
QUESTIONS = 60
"""How often the process of one's own session is woken, so that it can be told from the others."""


def holdings(users: list[str]) -> dict[str, Any]:
    """Looks through the files of this host, its program packages left out.

    Args:
        users: login names; two in one file make it a list of users.

    Returns:
        `lists`: files that name two or more users; `hashes`, `tickets`, `mail`: files that hold such; `keys`: private keys as
        `{path: SHA-256 of the public half}`; `files`: how many were read; `seen`: whether a file with two users' names, planted for the
        purpose, was found.
    """
    names = [user.encode() for user in users]
    lists, hashes, held, mail = [], [], [], []
    keys: dict[str, str] = {}
    count, seen = 0, False
    planted = Path(f"/var/tmp/lemonstand-holdings-{os.getpid()}")  # noqa: S108 - planted to be found, private
    planted.touch(mode=0o600)
    try:
        planted.write_bytes(b"\n".join(names[:2]))
        for path in _files():
            if MAIL.search(str(path)):
                mail.append(str(path))
            try:
                data = path.read_bytes()
            except OSError:
                continue
            count += 1
            lower = data.lower()
            if sum(name in lower for name in names) > 1:
                if path == planted:
                    seen = True
                else:
                    lists.append(str(path))
            if HASH.search(data):
                hashes.append(str(path))
            if TICKET.search(data):
                held.append(str(path))
            if KEY.search(data):
                keys[str(path)] = _public_half(path)
    finally:
        planted.unlink(missing_ok=True)
    return {"lists": lists[:20], "hashes": hashes[:20], "tickets": held[:20], "mail": mail[:20], "keys": keys, "files": count, "seen": seen}


def _files() -> Iterator[Path]:
    for root in ROOTS:
        for folder, folders, names in os.walk(root):
            folders[:] = [name for name in folders if not f"{folder}/{name}".startswith(CACHES)]
            for name in names:
                path = Path(folder, name)
                try:
                    state = path.lstat()
                except OSError:
                    continue
                if stat.S_ISREG(state.st_mode) and state.st_size <= LARGEST:
                    yield path


def _public_half(path: Path) -> str:
    made = subprocess.run(
        ["openssl", "pkey", "-in", str(path), "-pubout", "-outform", "DER", "-passin", "pass:"], capture_output=True, check=False
    )
    return hashlib.sha256(made.stdout).hexdigest() if made.returncode == 0 else ""


def public_halves(folder: str) -> list[str]:
    """SHA-256 of each public key in PEM in a folder. Runs where tickets are signed: what nobody else may hold the other half of."""
    found = []
    for path in sorted(Path(folder).glob("*.pem")):
        made = subprocess.run(["openssl", "pkey", "-pubin", "-in", str(path), "-outform", "DER"], capture_output=True, check=False)
        if made.returncode == 0:
            found.append(hashlib.sha256(made.stdout).hexdigest())
    return found


def core_of_a_login(address: str) -> dict[str, Any]:
    """Opens a session before login, kills the process that serves it as a fault would, and looks for what it left.

    Runs on a frontend or store: nobody else's session is in that process as long as each has one of its own.

    Returns:
        `killed`: the name of the process; `cores`: new files that may be its memory; `said`: what the journal says of its end.
    """
    before = {str(path) for path in _core_files()}
    began = int(time.time())
    wire = Wire(address, 143)
    try:
        session = Imap(wire)
        idle = _switches("imap-login")
        for _ in range(QUESTIONS):
            session.command("NOOP")
        busy = {number: count - idle.get(number, 0) for number, count in _switches("imap-login").items()}
        number = max(busy, key=lambda each: busy[each], default=0)
        if busy.get(number, 0) < QUESTIONS // 2:
            return {"killed": "", "cores": [], "said": "the process that serves the session was not found"}
        os.kill(number, signal.SIGSEGV)
        time.sleep(CORE_WAIT_SECONDS)
    finally:
        wire.close()
    command = ["journalctl", "--no-pager", "-o", "cat", "--since", f"@{began}"]
    said = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False).stdout.splitlines()
    lines = [line for line in said if str(number) in line and "signal" in line]
    return {
        "killed": f"imap-login {number}" if lines else "",
        "cores": sorted({str(path) for path in _core_files()} - before),
        "said": " / ".join(lines)[:300] or "nobody noticed the death of a login process",
    }


def _core_files() -> list[Path]:
    return [
        path
        for place in CORES
        for path in Path(place).glob("**/core*" if "dovecot" in place or "postfix" in place else "*")
        if path.is_file()
    ] + [path for path in Path("/").glob("core*") if path.is_file()]


def _switches(name: str) -> dict[int, int]:
    """How often each process of a name went to sleep: which one serves a session shows without a look into it."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/status"):
        try:
            told = dict(line.split(":", 1) for line in path.read_text(encoding="utf-8").splitlines() if ":" in line)
        except OSError:
            continue
        if told.get("Name", "").strip() == name:
            found[int(path.parts[2])] = int(told["voluntary_ctxt_switches"])
    return found


def listeners() -> list[str]:
    """Where this host listens for TCP: `address:port name`."""
    shown = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout
    found = set()
    for line in shown.splitlines():
        name = re.search(r'users:\(\("([^"]+)"', line)
        found.add(f"{line.split()[3]} {name.group(1) if name else '?'}")
    return sorted(found)


def on_swap(names: list[str]) -> dict[str, int]:
    """How many kB of processes' memory lie on swap: `{name: kB}`, all processes of a name together; only those that run."""
    found: dict[str, int] = {}
    for path in Path("/proc").glob("[0-9]*/status"):
        try:
            told = dict(line.split(":", 1) for line in path.read_text(encoding="utf-8").splitlines() if ":" in line)
        except OSError:
            continue
        name = told.get("Name", "").strip()
        if name in names:
            found[name] = found.get(name, 0) + int(told.get("VmSwap", "0 kB").split()[0])
    return found


def package_version(name: str) -> str:
    """The version of an installed Debian package, empty if it is not there."""
    done = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", name], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def journal_lines(text: str, since: int) -> list[str]:
    """Lines of this host's journal with a text in them, at most twenty."""
    command = ["journalctl", "--no-pager", "-o", "cat", "--since", f"@{since}"]
    shown = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False).stdout
    return [line[:240] for line in shown.splitlines() if text in line][:20]
