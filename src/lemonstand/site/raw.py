"""What an inventory says, before anyone judges it: plain values, each with the file and line it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PASSWORDS = ("ansible_password", "ansible_ssh_pass", "ansible_ssh_password")
"""Variables by which Ansible logs in by password; of these only that they are there is read."""
BECOME_PASSWORDS = ("ansible_become_password", "ansible_become_pass", "ansible_sudo_pass")
"""Where Ansible looks for sudo's password, first one first; likewise."""
Place = tuple[str, ...]
"""Way to a value: variable, then keys and list positions, for instance ``("lemonstand_users", "2", "name")``."""


@dataclass(frozen=True)
class RawHost:
    """One host as the inventory has it.

    Args:
        groups: the groups it is in, `all` left out.
        values: its variables, templated.
        origins: `file:line` of each value: {variable: {dotted way from there: place}}; the way to the variable itself is empty.
        faulty: variables that could not be templated, with the reason.
        shadowed: variables the playbooks set again after the site, with the place they do it at.
        connection: how Ansible gets to it: its `ansible_*` variables for that, as text.
        given: variables that were given on the command line, which are not in the site's folder.
    """

    name: str
    groups: tuple[str, ...]
    values: Mapping[str, Any]
    origins: Mapping[str, Mapping[str, str]]
    faulty: Mapping[str, str] = field(default_factory=dict)
    shadowed: Mapping[str, str] = field(default_factory=dict)
    connection: Mapping[str, str] = field(default_factory=dict)
    given: frozenset[str] = frozenset()

    def origin(self, place: Place) -> str:
        """`file:line` of a value, or of the nearest value around it; empty if Ansible doesn't know."""
        known = self.origins.get(place[0], {})
        ways = (".".join(place[1:length]) for length in range(len(place), 0, -1))
        return next((known[way] for way in ways if known.get(way)), "")


@dataclass(frozen=True)
class RawSite:
    """A whole inventory.

    Args:
        folder: the site's folder; variables from files in it are the site's own.
        hosts: every host by name.
        groups: the hosts of each group.
        problems: faults that kept values from being read, as (what, where, remedy).
        strays: files below `group_vars/` or `host_vars/` that name no group or host of this inventory.
    """

    folder: str
    hosts: Mapping[str, RawHost]
    groups: Mapping[str, tuple[str, ...]]
    problems: tuple[tuple[str, str, str], ...] = ()
    strays: tuple[tuple[str, str], ...] = ()

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> RawSite:
        """Takes what `reader` found."""
        hosts = {
            name: RawHost(
                name,
                tuple(host["groups"]),
                host["values"],
                host["origins"],
                host["faulty"],
                host["shadowed"],
                host.get("connection", {}),
                frozenset(host.get("given", ())),
            )
            for name, host in data["hosts"].items()
        }
        groups = {name: tuple(members) for name, members in data["groups"].items()}
        problems = tuple((what, where, remedy) for what, where, remedy in data["problems"])
        return cls(data["folder"], hosts, groups, problems, tuple((path, kind) for path, kind in data["strays"]))


SHARED = ("values", "origins")
"""What many hosts have in common, variable by variable."""


def packed(data: Mapping[str, Any]) -> dict[str, Any]:
    """Data of `reader` for a way through JSON: what hosts share is there once, and they name its number."""
    pool: list[Any] = []
    numbers: dict[int, int] = {}

    def number(value: Any) -> int:
        if id(value) not in numbers:
            numbers[id(value)] = len(pool)
            pool.append(value)
        return numbers[id(value)]

    hosts = {
        name: {**host, **{part: {variable: number(value) for variable, value in host[part].items()} for part in SHARED}}
        for name, host in data["hosts"].items()
    }
    return {**data, "hosts": hosts, "pool": pool}


def unpacked(data: Mapping[str, Any]) -> dict[str, Any]:
    """Takes back what `packed` made."""
    pool = data["pool"]
    hosts = {
        name: {**host, **{part: {variable: pool[number] for variable, number in host[part].items()} for part in SHARED}}
        for name, host in data["hosts"].items()
    }
    return {**data, "hosts": hosts}
