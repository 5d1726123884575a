"""What an inventory says, before anyone judges it: plain values, each with the file and line it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Place = tuple[str, ...]
"""Way to a value: variable, then keys and list positions, for instance ``("lemonstand_users", "2", "name")``."""


@dataclass(frozen=True)
class RawHost:
    """One host as the inventory has it.

    Args:
        groups: the groups it is in, `all` left out.
        values: its variables, templated.
        origins: `file:line` of each value, by the dotted way to it.
        faulty: variables that could not be templated, with the reason.
        shadowed: variables the playbooks set again after the site, with the place they do it at.
        connection: how Ansible gets to it: its `ansible_*` variables for that, as text.
    """

    name: str
    groups: tuple[str, ...]
    values: Mapping[str, Any]
    origins: Mapping[str, str]
    faulty: Mapping[str, str] = field(default_factory=dict)
    shadowed: Mapping[str, str] = field(default_factory=dict)
    connection: Mapping[str, str] = field(default_factory=dict)

    def origin(self, place: Place) -> str:
        """`file:line` of a value, or of the nearest value around it; empty if Ansible doesn't know."""
        for length in range(len(place), 0, -1):
            found = self.origins.get(".".join(place[:length]))
            if found:
                return found
        return ""


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
        """Takes back what `reader` printed as JSON."""
        hosts = {
            name: RawHost(
                name, tuple(host["groups"]), host["values"], host["origins"], host["faulty"], host["shadowed"], host.get("connection", {})
            )
            for name, host in data["hosts"].items()
        }
        groups = {name: tuple(members) for name, members in data["groups"].items()}
        problems = tuple((what, where, remedy) for what, where, remedy in data["problems"])
        return cls(data["folder"], hosts, groups, problems, tuple((path, kind) for path, kind in data["strays"]))
