"""What checks do to hosts, and undo again whatever happens."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from lemonstand.admin import Hosts, People
from lemonstand.checks.conftest import HostFactory
from lemonstand.outcomes import invalid
from lemonstand.site import Site


def do(host: HostFactory, name: str, command: str) -> str:
    """Runs a command on a host; what it printed. One that fails makes the check say nothing."""
    done = host(name).run(command)
    if done.rc != 0:
        invalid(f"{name}: {command}: {(done.stderr or done.stdout).strip()[:200]}")
    return str(done.stdout)


@contextlib.contextmanager
def undone(host: HostFactory, names: Iterable[str], away: str, back: str) -> Iterator[None]:
    """Something is done to each of these hosts within the block, and undone after it whatever happens."""
    names = list(names)
    try:
        for name in names:
            do(host, name, away)
        yield
    finally:
        for name in names:
            do(host, name, back)


@contextlib.contextmanager
def locked_out(site: Site, hosts: Hosts, user: str) -> Iterator[None]:
    """A user whom an operator has locked within the block, and unlocks after it whatever happens."""
    people = People(site, hosts, lambda _: None)
    try:
        people.lock(user, locked=True)
        yield
    finally:
        people.lock(user, locked=False)
