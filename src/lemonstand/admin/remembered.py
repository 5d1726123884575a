"""What an inventory said a moment ago, for commands that change one thing: Ansible takes seconds to read it again (record 0041).

It counts as long as no file of the inventory, no variable it may look up, nothing of lemonstand's own has changed since, and for a quarter
of an hour at the most, since a lookup may ask elsewhere. No password and no hash is kept with it; an inventory that is a program, or that
has a password for becoming root, is read anew each time.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lemonstand.paths import data_dir, state_dir
from lemonstand.remote.connections import SOCKETS, Connection, read_connections
from lemonstand.site import Site, load_site
from lemonstand.surroundings import environment
from lemonstand.survey import files

FRESH_SECONDS = 900
PROGRAMS = (".py", ".sh")


@dataclass(frozen=True)
class Remembered:
    """A site without its secrets, and how its hosts are reached."""

    site: Site
    connections: dict[str, Connection]
    """With `SOCKETS` in place of a directory."""


def site_of(inventory: Path, env: dict[str, str]) -> Remembered:
    """A site and its connections, as they were read last or read now.

    Args:
        inventory: its directory or hosts file.
        env: variables for its lookups.

    Raises:
        LemonstandError: it can't be read, or something is wrong with it.
    """
    path = state_dir() / "remembered" / f"{hashlib.sha256(str(inventory.absolute()).encode()).hexdigest()[:32]}.pickle"
    key = _key(inventory, env)
    found = _read(path, key)
    if found is None:
        with ThreadPoolExecutor(max_workers=1) as pool:  # each is a process of its own that waits for Ansible
            ways = pool.submit(read_connections, inventory, SOCKETS)
            site = load_site(inventory, env)
            connections = ways.result()
        found = Remembered(_without_secrets(site), connections)
        if key and not any(way.password for way in connections.values()):
            _write(path, key, found)
    return found


def _key(inventory: Path, env: dict[str, str]) -> str:
    """A hash over all that what is read depends on; empty where nobody can say."""
    words = [sys.version, *(f"{name}={value}" for name, value in sorted({**environment(inventory=inventory), **env}.items()))]
    own = data_dir("playbooks")
    for place in (inventory, own, Path(__file__).resolve().parents[1]):
        for path in files(place):
            if path.suffix == ".pyc" or not path.is_file():
                continue
            if place == inventory and (os.access(path, os.X_OK) or path.suffix in PROGRAMS):
                return ""
            state = path.stat()
            words.append(f"{path} {state.st_size} {state.st_mtime_ns} {state.st_ino}")
    return hashlib.sha256("\0".join(words).encode("utf-8", "surrogateescape")).hexdigest()


def _without_secrets(site: Site) -> Site:
    """The same site; the passwords and hashes that it seeds are left out."""
    users = tuple(user.model_copy(update={"password_hash": None}) for user in site.settings.users)
    hosts = {
        name: host.model_copy(update={"settings": host.settings.model_copy(update={"user_passwords": {}})})
        for name, host in site.hosts.items()
    }
    return site.model_copy(update={"settings": site.settings.model_copy(update={"users": users}), "hosts": hosts, "apart": {}})


def _read(path: Path, key: str) -> Remembered | None:
    with suppress(Exception):  # whatever is wrong with it: then the inventory is read
        state = path.stat()
        mine = state.st_uid == os.getuid() and not state.st_mode & 0o077
        if key and mine and 0 <= time.time() - state.st_mtime < FRESH_SECONDS:
            kept_key, found = pickle.loads(path.read_bytes())  # noqa: S301 - our own file, which nobody else can write
            if kept_key == key and isinstance(found, Remembered):
                return found
    return None


def _write(path: Path, key: str, found: Remembered) -> None:
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, exist_ok=True)
        new = path.with_suffix(f".{os.getpid()}")
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as stream:
            pickle.dump((key, found), stream)
        new.replace(path)
