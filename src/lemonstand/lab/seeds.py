"""Keys and passwords of a lab."""

from __future__ import annotations

import secrets
from pathlib import Path

import yaml

from lemonstand.errors import InputError
from lemonstand.files import write_text
from lemonstand.lab.shell import run
from lemonstand.lab.topology import CONTROLLER_OCTET, ROOT, Topology
from lemonstand.paths import lab_dir
from lemonstand.site.raw import RawSite
from lemonstand.survey import read_text

HOST_KEY = "ssh_host_ed25519_key"
BECOME = "become"
"""The file below `secrets` with the password of accounts that are not root."""


def control_directory(name: str) -> Path:
    """Where SSH keeps its shared connections: a short path, since a socket's may not pass 108 bytes."""
    return Path("/run", f"lemonstand-{name}")


def seed_lab(topology: Topology, folder: Path) -> None:
    """Keys of this lab, made once and kept until it goes down; they never touch the work tree."""
    key = folder / "ssh" / "id_ed25519"
    if not key.exists():
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"lemonstand-{topology.name}", "-f", key])
    own = topology.address4("management", CONTROLLER_OCTET)
    public = key.with_suffix(".pub").read_text(encoding="ascii")
    seed_secrets(folder)
    known, blocks = [], []
    for item in topology.machines:
        seed = folder / "hosts" / item.name
        seed.mkdir(mode=0o755, exist_ok=True)
        host_key = seed / HOST_KEY
        if not host_key.exists():
            fresh_host_key(seed, item.name)
        comes_from = topology.management(item.by) if item.by else own
        (seed / "authorized_keys").write_text(f'from="{comes_from}" {public}', encoding="ascii")
        address = topology.management(item.name)
        known.append(f"{item.name},{address} {host_key.with_suffix('.pub').read_text(encoding='ascii').strip()}")
        jump = f"  ProxyJump {topology.management(item.by)}\n" if item.by else ""
        blocks.append(f"Host {item.name} {address}\n  HostName {address}\n  User {item.account}\n{jump}")
    (folder / "ssh" / "known_hosts").write_text("\n".join(known) + "\n", encoding="ascii")
    control_directory(topology.name).mkdir(mode=0o700, exist_ok=True)
    blocks.append(
        f"Host *\n  User {ROOT}\n  IdentityFile {key}\n  IdentitiesOnly yes\n  BatchMode yes\n"
        f"  UserKnownHostsFile {folder}/ssh/known_hosts\n  StrictHostKeyChecking yes\n"
        f"  ProxyCommand ip netns exec {topology.controller} nc %h %p\n  ConnectTimeout 10\n"
        f"  ControlMaster auto\n  ControlPersist 300\n  ControlPath {control_directory(topology.name)}/%C\n"
        "  ServerAliveInterval 15\n  ServerAliveCountMax 8\n  LogLevel ERROR\n"
    )
    (folder / "ssh" / "config").write_text("".join(blocks), encoding="ascii")


def seed_secrets(folder: Path) -> None:
    """What a lab's inventory may read from files, made once: what relays log in with at the peer and what searches in a directory behind,
    and what sudo asks for on hosts.
    """
    for name in ("smarthost", "directory", BECOME):
        path = folder / "secrets" / name
        if not path.exists():
            write_text(path, secrets.token_urlsafe(18) + "\n")


def become_password(name: str) -> str:
    """What sudo asks for on a lab's hosts whose inventory gives a password for it."""
    return (lab_dir(name) / "secrets" / BECOME).read_text(encoding="ascii").strip()


def fresh_host_key(seed: Path, host: str) -> str:
    """Makes a host's SSH key, in the place of the one it had.

    Args:
        seed: the directory that its container sees.
        host: its name.

    Returns:
        The key's fingerprint (`SHA256:…`).
    """
    key = seed / HOST_KEY
    for old in (key, key.with_suffix(".pub")):
        old.unlink(missing_ok=True)
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", host, "-f", key])
    return run(["ssh-keygen", "-l", "-E", "sha256", "-f", key.with_suffix(".pub")]).stdout.split()[1]


def seed_passwords(raw: RawSite, folder: Path) -> bool:
    """Makes passwords for the inventory's users who have none; returns whether there were any.

    Args:
        raw: the inventory.
        folder: the lab's directory.

    Raises:
        InputError: those that are there can't be read.
    """
    passwords = folder / "secrets" / "passwords.yml"
    known = read_passwords(passwords)
    before = dict(known)
    users, probes = _users(raw)
    for user in users:
        # What checks type as one of their users has letters with two spellings, and some that a step on the way might take for its own.
        odd = " Gr\u00f6\u00dfe 1\u00aa\u00b4 100%u" if user in probes[1:2] else ""
        known.setdefault(user, secrets.token_urlsafe(12) + odd)
    if known == before and passwords.exists():
        return False
    write_text(passwords, yaml.safe_dump(known))
    return True


def read_passwords(path: Path) -> dict[str, str]:
    """The passwords a lab has; none yet is none.

    Raises:
        InputError: they can't be read.
    """
    if not path.exists():
        return {}
    try:
        found = yaml.safe_load(read_text(path))
    except (yaml.YAMLError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(item, str) for pair in found.items() for item in pair):
        raise InputError(
            "the lab's passwords can't be read: this is no list of them, or cut off",
            str(path),
            "write NAME: PASSWORD lines; or remove the file: new ones are made, and `lemonstand user passwd` sets them",
        )
    return found


def _users(raw: RawSite) -> tuple[list[str], list[str]]:
    """The users of an inventory that nobody has judged yet, and those that checks log in as."""
    values = next((host.values for host in raw.hosts.values()), {})
    users, probes = values.get("lemonstand_users"), values.get("lemonstand_probe_users")
    names = [user.get("name") for user in users if isinstance(user, dict)] if isinstance(users, list) else []
    return [name for name in names if isinstance(name, str)], [name for name in probes or () if isinstance(name, str)]
