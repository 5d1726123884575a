"""One thing on a host that is not as it should be, or that nobody asked for."""

from __future__ import annotations

from dataclasses import dataclass

KINDS: dict[str, str] = {
    "own-files": "what roles own is as apply would write it now",
    "packages": "files of packages are as the archive has them",
    "files": "no file that no package, role or installer brought",
    "units": "no unit that starts or stays by itself beside those asked for, and ours do",
    "accounts": "nobody can log in or become root whom the site does not name",
    "keys": "keys, certificates and trust are the site's own",
    "sockets": "nothing listens beside the services of the site",
    "filters": "no table, chain or program beside ours decides about packets",
    "routes": "packets take no way beside the site's",
    "kernel": "kernel settings in force are those of the roles and of Debian, for each interface",
    "mounts": "nothing is mounted over what packages and roles brought",
    "processes": "no process beside those of known units and packages",
    "copies": "no copy of a key, of mail or of the directory that others can read, no program with others' rights in data directories",
    "logs": "what happens is logged and kept",
    "clock": "the clock asks those it was told to ask",
}
"""What is looked at, and what has to hold: one check for each, on every host."""


@dataclass(frozen=True)
class Discrepancy:
    """Something on a host.

    Args:
        item: what it is: a path, a unit, an account; the name by which a site declares it (`lemonstand_expected`).
        seen: how it is.
        wanted: how it should be.
        remedy: what heals it: `lemonstand apply`, or commands to be run on the host as root.
    """

    item: str
    seen: str
    wanted: str
    remedy: str

    def __str__(self) -> str:
        """One line."""
        return f"{self.item}: {self.seen}"


APPLY = "lemonstand apply"
"""The remedy of what roles write: it heals these, and nothing else that is found here."""
