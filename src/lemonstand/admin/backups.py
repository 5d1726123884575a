"""Backups of a running site's hosts, and what is brought back of them (record 0039)."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from lemonstand.admin.access import Hosts
from lemonstand.errors import InputError, LemonstandError
from lemonstand.files import write_text
from lemonstand.policy.names import load_names
from lemonstand.site import Site
from lemonstand.site.shipped import filter_plugin

PROGRAM = ("/usr/bin/python3", "-I", "-B", "/usr/local/lib/lemonstand/backup.py", "order")
SECONDS = 6 * 3600
"""For a backup or a restore, as the unit has it."""
KEY_OCTETS = 32
"""Random ones in a key."""
KEYS = "backup-keys"
"""Directory beside the CAs with a key and a password a host (playbooks/group_vars/all.yml)."""
GROUPS = ("stores", "auths")
"""Hosts that have something nobody else has."""


@dataclass(frozen=True)
class Kept:
    """How a host's backups stand.

    Args:
        made: of the last backup `at` (Unix time), `seconds`, `snapshot`, `bytes`, `files`, `added`, and `users` or `entries`; empty: none.
        proven: of the last proof that one comes back `at`, `what`, `seconds`; empty: none.
        fault: why the last try failed; empty: it did not. `remedy`: what to do then.
        oldest: seconds of age from which on it is an alarm.
        now: the host's clock.
        timer: what systemd says of it.
        underway: a backup is being made.
        snapshots: those in the repository, the oldest first: `id`, `time`, `bytes`, `files`, `added`.
    """

    host: str
    made: dict[str, Any]
    proven: dict[str, Any]
    fault: str
    remedy: str
    oldest: float
    now: float
    timer: str
    underway: bool
    snapshots: tuple[dict[str, Any], ...] = ()

    def age(self, part: dict[str, Any]) -> float | None:
        """Seconds since a backup or a proof; None where there was none."""
        return self.now - float(part["at"]) if part else None


class Backups:
    """Does what an operator wants done with backups.

    Args:
        site: the site.
        hosts: the way to its hosts.
    """

    def __init__(self, site: Site, hosts: Hosts) -> None:
        self.site = site
        self.hosts = hosts

    @property
    def names(self) -> list[str]:
        """The hosts that are backed up.

        Raises:
            InputError: the site names no repository.
        """
        if self.site.settings.services.backup is None:
            raise InputError(
                "nothing of this site is backed up: it names no repository",
                f"{self.site.inventory} (lemonstand_services)",
                "name one: {backup: {name: …, addresses: […]}}; docs/operate.md, Backups",
            )
        return [host.name for group in GROUPS for host in self.site.group(group)]

    def chosen(self, names: Sequence[str]) -> list[str]:
        """Some of them, or all.

        Raises:
            InputError: one is not backed up.
        """
        known = self.names
        for name in names:
            if name not in known:
                raise InputError(f"'{name}' is not backed up", str(self.site.inventory), f"hosts that are: {', '.join(known)}")
        return list(names) or known

    def key(self, host: str) -> str:
        """The key a host's backups are encrypted with, as the controller keeps it.

        Raises:
            LemonstandError: it is not there.
        """
        path = self.site.settings.pki_dir / KEYS / f"{host}.key"
        try:
            return path.read_text(encoding="ascii").strip()
        except OSError as fault:
            raise LemonstandError(
                f"the key of {host}'s backups is not kept: {fault.strerror}",
                str(path),
                f"while {host} lives it has it: copy /etc/lemonstand/backup/key from there, mode 0600",
            ) from None

    def rotate_key(self, host: str) -> list[str]:
        """Gives a host another key for its backups, which opens all of them. The old one does too, until the repository's owner removes it.

        Cut off, it is finished by being done again: the new key lies beside the old one until the host uses it.

        Returns:
            Ids of the other keys that open the repository, for its owner.

        Raises:
            LemonstandError: it can't be done, and why; the key in use opens the backups.
        """
        path = self.site.settings.pki_dir / KEYS / f"{host}.key"
        old, following = self.key(host), path.with_suffix(".key-next")
        new = following.read_text(encoding="ascii").strip() if following.exists() else ""
        if not new:
            new = secrets.token_urlsafe(KEY_OCTETS)
            write_text(following, f"{new}\n")
        if not self.order(host, action="opens", key=old)["opens"] and not self.order(host, action="opens", key=new)["opens"]:
            raise LemonstandError(
                f"the controller's key does not open the backups of {host}",
                str(path),
                f"find the one they were made with first: {host} has it in /etc/lemonstand/backup/key",
            )
        others: list[str] = self.order(host, action="rekey", key=new)["others"]
        # Backups that the repository's owner restored from elsewhere open with it.
        write_text(path.with_suffix(".key-before"), f"{old}\n")
        following.replace(path)
        return others

    def order(self, host: str, **order: Any) -> dict[str, Any]:
        """Has a host carry out one order.

        Raises:
            LemonstandError: it can't, and why.
        """
        answer = self.hosts.run(host, PROGRAM, json.dumps(order) + "\n", seconds=SECONDS)
        try:
            found: dict[str, Any] = json.loads(answer.splitlines()[-1])
        except (IndexError, ValueError):
            raise LemonstandError("no answer that can be read", host, f"`lemonstand apply --limit {host}` mends the host") from None
        if "error" in found:
            raise LemonstandError(str(found["error"]), host, str(found.get("remedy") or "journalctl -u lemonstand-backup"))
        return found

    def kept(self, host: str, *, listed: bool = False) -> Kept:
        """How a host's backups stand; with `listed` those in the repository too, which takes a second."""
        seen = self.order(host, action="list" if listed else "status")
        return Kept(
            host=host,
            made=seen.get("made", {}),
            proven=seen.get("proven", {}),
            fault=seen.get("fault", {}).get("what", ""),
            remedy=seen.get("fault", {}).get("remedy") or "journalctl -u lemonstand-backup",
            oldest=seen["oldest"],
            now=seen["now"],
            timer=seen["timer"],
            underway=seen["underway"],
            snapshots=tuple(seen.get("snapshots", ())),
        )

    def store_of(self, user: str) -> str:
        """The host that serves a user: asked of all stores and standbys, since commands move users and no inventory.

        Raises:
            LemonstandError: none does.
        """
        if load_names().address_fault(user.lower()) is not None:
            raise InputError(f"'{user}' is no login name", "NAME", "give the whole address, such as alice@example.org")
        answers = self.hosts.run_on([host.name for host in self.site.group("stores")], ["doveadm", "user", "-f", "home", user.lower()])
        serving = [name for name, answer in answers.items() if isinstance(answer, str)]
        if not serving:
            lost = [str(name) for name, answer in answers.items() if isinstance(answer, LemonstandError) and "no answer" in answer.what]
            away = f"; {', '.join(lost)} could not be asked" if lost else ""
            raise LemonstandError(f"no store serves {user}{away}", "stores", "`lemonstand user list` shows the users")
        return serving[0]

    def accounts(self) -> list[str]:
        """Lines for the repository's file of users (htpasswd): who may send backups, each into a part of its own.

        Raises:
            LemonstandError: a host has no password yet.
        """
        lines = []
        for host in self.names:
            path = self.site.settings.pki_dir / KEYS / f"{host}.password"
            try:
                password = path.read_text(encoding="ascii").strip()
            except OSError:
                raise LemonstandError(f"{host} has no password for the repository yet", str(path), "`lemonstand apply` makes it") from None
            lines.append(f"{host}:{filter_plugin('lemonstand').htpasswd(password)}")
        return lines


def moment(at: float) -> str:
    """A time as people read it, UTC."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M}"
