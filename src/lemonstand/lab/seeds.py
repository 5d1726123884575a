"""Keys and passwords of a lab."""

from __future__ import annotations

import secrets
from pathlib import Path

import yaml

from lemonstand.errors import InputError
from lemonstand.files import write_text
from lemonstand.lab.shell import run
from lemonstand.lab.topology import CONTROLLER_OCTET, MACHINES, Topology
from lemonstand.paths import data_dir
from lemonstand.survey import read_text


def control_directory(name: str) -> Path:
    """Where SSH keeps its shared connections: a short path, since a socket's may not pass 108 bytes."""
    return Path("/run", f"lemonstand-{name}")


def seed_lab(topology: Topology, folder: Path) -> None:
    """Keys and passwords of this lab, made once and kept until it goes down; they never touch the work tree."""
    key = folder / "ssh" / "id_ed25519"
    if not key.exists():
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"lemonstand-{topology.name}", "-f", key])
    controller = topology.address4("management", CONTROLLER_OCTET)
    public = key.with_suffix(".pub").read_text(encoding="ascii")
    known, blocks = [], []
    for item in MACHINES:
        seed = folder / "hosts" / item.name
        seed.mkdir(mode=0o755, exist_ok=True)
        host_key = seed / "ssh_host_ed25519_key"
        if not host_key.exists():
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", item.name, "-f", host_key])
        (seed / "authorized_keys").write_text(f'from="{controller}" {public}', encoding="ascii")
        address = topology.management(item.name)
        known.append(f"{item.name},{address} {host_key.with_suffix('.pub').read_text(encoding='ascii').strip()}")
        blocks.append(f"Host {item.name} {address}\n  HostName {address}\n")
    (folder / "ssh" / "known_hosts").write_text("\n".join(known) + "\n", encoding="ascii")
    control_directory(topology.name).mkdir(mode=0o700, exist_ok=True)
    blocks.append(
        f"Host *\n  User root\n  IdentityFile {key}\n  IdentitiesOnly yes\n  BatchMode yes\n"
        f"  UserKnownHostsFile {folder}/ssh/known_hosts\n  StrictHostKeyChecking yes\n"
        f"  ProxyCommand ip netns exec {topology.controller} nc %h %p\n  ConnectTimeout 10\n"
        f"  ControlMaster auto\n  ControlPersist 300\n  ControlPath {control_directory(topology.name)}/%C\n"
        "  ServerAliveInterval 15\n  ServerAliveCountMax 8\n  LogLevel ERROR\n"
    )
    (folder / "ssh" / "config").write_text("".join(blocks), encoding="ascii")
    passwords = folder / "secrets" / "passwords.yml"
    known_passwords = read_passwords(passwords)
    before = dict(known_passwords)
    users, probes = _demo_users()
    for user in users:
        # What checks type as one of their users has letters with two spellings, and some that a step on the way might take for its own.
        odd = " Gr\u00f6\u00dfe 1\u00aa\u00b4 100%u" if user in probes[1:2] else ""
        known_passwords.setdefault(user, secrets.token_urlsafe(12) + odd)
    if known_passwords != before or not passwords.exists():
        write_text(passwords, yaml.safe_dump(known_passwords))


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


def _demo_users() -> tuple[list[str], list[str]]:
    """The users of the lab's inventory, and those that checks log in as."""
    users: list[str] = []
    probes: list[str] = []
    for path in sorted(data_dir("inventories").glob("lab/group_vars/all/*.yml")):
        data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        users += [user["name"] for user in data.get("lemonstand_users", [])]
        probes += data.get("lemonstand_probe_users", [])
    return users, probes
