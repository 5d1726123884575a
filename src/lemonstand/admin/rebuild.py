"""A lost host: where what it had comes from, and what is done about it beside the runs of Ansible (docs/decisions/0045)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lemonstand.admin import holdings
from lemonstand.admin.access import PYTHON, Hosts, program
from lemonstand.admin.answering import ANSWER_SECONDS, wait_until_it_answers
from lemonstand.admin.backups import Backups
from lemonstand.admin.keys import list_keys
from lemonstand.admin.people import Change, People
from lemonstand.admin.placement import Placement, heard, newest, serving, told_hosts
from lemonstand.admin.stores import Stores
from lemonstand.admin.users import PROGRAM as DIRECTORY
from lemonstand.errors import InputError, LemonstandError
from lemonstand.policy.kinds import load_kinds
from lemonstand.site import Site

COPY_SECONDS = 6 * 3600
"""For a standby to be given all mail of its store."""
LOOK_SECONDS = 5
CLOSE = ("edges", "frontends")
CLOSED = "/etc/lemonstand/closed.nft"
"""Groups whose hosts close the service for clients, and what says so on them (role nftables)."""
TWIN, PAIR, BACKUP, NOTHING = "twin", "pair", "backup", "nothing"
LOST = {
    "auths": "all passwords and locks: those of the inventory count",
    "stores": "all its mail",
    "edges": "the connections it knew; whom `lemonstand service drain` kept connections from, unless the other edge knows it",
    "frontends": "the sessions that went through it",
    "relays": "what was in its queue: mail that was on its way and no copy of which is elsewhere",
}
"""What nobody else has of a kind of host."""
FOLLOW = {"auths": ("auths", "stores"), "stores": ("auths", "stores", "relays"), "relays": ("stores", "relays", "auths")}
"""Who is part of the run: whoever takes a key of the new host, gives it one, or knows who there is."""


@dataclass(frozen=True)
class Source:
    """Where what a host had comes from.

    Args:
        kind: `twin`, `pair`, `backup`, `nothing`.
        host: of a twin or pair, the one that has it.
        promote: the standby has to begin to serve first.
    """

    kind: str
    host: str = ""
    promote: bool = False


@dataclass(frozen=True)
class Found:
    """What a machine holds.

    Args:
        holds: things of a site, as an operator knows them; none: it is fresh.
        mark: of a rebuild that is under way.
    """

    holds: tuple[str, ...]
    mark: dict[str, Any] | None


class Rebuild:
    """Does what is to be done about one lost host.

    Args:
        site: the validated model.
        hosts: a way to its hosts.
        host: the lost one.
        say: is told each step.

    Raises:
        InputError: the site has no such host.
    """

    def __init__(self, site: Site, hosts: Hosts, host: str, say: Callable[[str], None]) -> None:
        known = [each.name for each in site.hosts.values() if set(each.groups) & set(load_kinds().kinds)]
        if host not in known:
            raise InputError(f"'{host}' is no host that can be rebuilt", str(site.inventory), f"one of {', '.join(known)}")
        self.kind = next(group for group in load_kinds().kinds if group in site.hosts[host].groups)
        self._site, self._hosts, self.name, self._say = site, hosts, host, say

    # --- the machine ---

    def look(self) -> Found:
        """What the machine holds.

        Raises:
            LemonstandError: it can't be asked.
        """
        return self._order({"action": "look"})

    def mark(self, mark: dict[str, Any]) -> None:
        """Says on the machine how far it is."""
        self._order({"action": "mark", "mark": mark})

    def done(self) -> None:
        """Takes that away."""
        self._order({"action": "done"})

    def _order(self, order: dict[str, Any]) -> Found:
        text = Path(holdings.__file__).read_text(encoding="utf-8")
        said: dict[str, Any] = json.loads(self._hosts.run(self.name, PYTHON, program(text, order)).splitlines()[-1])
        return Found(tuple(said["holds"]), said["mark"])

    # --- where from ---

    def source(self) -> Source:
        """Where what the host had comes from, by who answers now."""
        if self.kind == "auths":
            for twin in (each.name for each in self._site.group("auths") if each.name != self.name):
                if self._has_people(twin):
                    return Source(TWIN, twin)
        if self.kind == "stores":
            pair = next(hosts for hosts in self._site.pairs.values() if self.name in hosts)
            told, _ = heard(self._hosts, [name for name in told_hosts(self._site) if name != self.name], "show")
            for other in pair:
                if other != self.name and other in told:
                    return Source(PAIR, other, promote=serving(newest(told), pair[0]) == self.name)
        if self.kind in ("auths", "stores"):
            return Source(BACKUP if self._site.settings.services.backup else NOTHING)
        return Source(NOTHING)

    def _has_people(self, host: str) -> bool:
        try:
            answer = json.loads(self._hosts.run(host, DIRECTORY, '{"action": "list"}\n', codes=(0, 1)) or "{}")
        except LemonstandError:
            return False
        return bool(answer.get("users"))

    @property
    def runs_on(self) -> list[str]:
        """The hosts of the runs: the lost one, and those that have to know it or that it has to know."""
        wanted = set(FOLLOW.get(self.kind, ()))
        others = [each.name for each in self._site.hosts.values() if wanted & set(each.groups) and each.name != self.name]
        return [self.name, *others]

    @property
    def prepared_on(self) -> list[str]:
        """The hosts of the run before something is brought back: stores are given ticket keys, and told who there is. A key that a new
        issuer makes then is nobody's to know: the one that comes back counts."""
        return [self.name] if self.kind == "auths" else self.runs_on

    def plan(self, source: Source, at: str) -> list[str]:
        """What is going to be done, a line a step."""
        which = f"its backup {at}" if at else "its newest backup"
        where = self._site.settings.services.backup.name if self._site.settings.services.backup else ""
        with_it = ", ".join(self.runs_on[1:])
        steps = {
            TWIN: [f"apply {self.name}: {source.host} fills its directory and tells it of refusals; passwords and locks are as there"],
            PAIR: [
                *([f"promote {source.host}: it serves the users of {self.name} from then on"] if source.promote else []),
                f"apply {self.name}; {source.host} fills it, and it keeps the copy",
            ],
            BACKUP: [
                f"install and configure {self.name}, and begin no service",
                f"bring back {which} from {where}: "
                + ("directory, ticket keys, refusals" if self.kind == "auths" else "all mailboxes, with UIDs, flags, scripts"),
                f"apply {self.name}",
            ],
            NOTHING: [
                f"apply {self.name}"
                + (": nothing is brought back" if self.kind in ("auths", "stores") else ": its keys come from this controller")
            ],
        }[source.kind]
        if source.kind == BACKUP and self.kind == "auths":
            steps.append("bring the directory to what stores and relays were told since: who there is, addresses, quotas, locks")
        steps = [*steps, *([f"in the same run, since they have to know: {with_it}"] if with_it else [])]
        return [*steps, "tell stores and relays who there is", f"see that {self.name} answers"]

    def snapshot(self, at: str) -> dict[str, Any]:
        """The backup that counts: the newest, or the one that is named.

        Raises:
            LemonstandError: there is none.
        """
        kept = Backups(self._site, self._hosts).order(self.name, action="list")["snapshots"]
        chosen = [each for each in kept if at in ("", each["id"])]
        if not chosen:
            there = f"; there are {', '.join(each['id'] for each in kept)}" if kept else ""
            raise LemonstandError(
                f"the repository has no backup {at or 'at all'} of {self.name}{there}",
                self.name,
                "name another with --at" if kept else "with --empty the host begins with nothing, and what it had is lost",
            )
        newest: dict[str, Any] = chosen[-1]
        return newest

    def bring_back(self, snapshot: str) -> dict[str, Any]:
        """Has the host bring back a backup, whole."""
        return Backups(self._site, self._hosts).order(self.name, action="whole", snapshot=snapshot)

    def promote(self, other: str) -> None:
        """Has the other host of a pair serve."""
        done = Stores(Placement(self._site, self._hosts, self._say)).promote(other)
        self._say(f"{other} serves {done['users']} users of {done['store']} after {done['seconds']:.1f} s")

    # --- afterwards ---

    def closed(self) -> dict[str, Any] | None:
        """With which words the service is closed for clients at others, if this host is of those that close it; None: it is open."""
        if self.kind not in CLOSE:
            return None
        others = [each.name for group in CLOSE for each in self._site.group(group) if each.name != self.name]
        for answer in self._hosts.run_on(others, ["sh", "-c", f"test ! -e {CLOSED} || head -n 1 {CLOSED}"]).values():
            if isinstance(answer, str) and answer.startswith("# {"):
                found: dict[str, Any] = json.loads(answer.lstrip("# "))
                return found
        return None

    def await_copy(self, other: str) -> None:
        """Waits until a store's other host has given it all it has.

        Raises:
            LemonstandError: it does not come to that.
        """
        placement = Placement(self._site, self._hosts, self._say)
        until, said = time.monotonic() + COPY_SECONDS, -1
        while time.monotonic() < until:
            lacking = list(placement.order(self.name, action="status")["lacking"])
            if not lacking:
                self._say(f"{self.name} keeps a whole copy of what {other} has")
                return
            if len(lacking) != said:
                said = len(lacking)
                self._say(f"{other} copies: {said} users to go")
            time.sleep(LOOK_SECONDS)
        raise LemonstandError(
            f"{self.name} has no whole copy after {COPY_SECONDS / 3600:.0f} h", other, "`lemonstand store list`; journalctl -u mail-standby"
        )

    def people(self, *, recover: bool) -> list[str]:
        """Tells stores and relays who there is; returns what an operator should know.

        Args:
            recover: the directory came from a backup, and stores and relays were told more since.

        Raises:
            LemonstandError: it could not be brought to that: they must not be told an older one.
        """
        people, notes = People(self._site, self._hosts, self._say), []
        if recover:
            notes += self._recovered(people.recover())
        try:
            lacked = people.push()
        except LemonstandError as fault:
            return [*notes, f"{fault.what}; {fault.remedy}"]
        if lacked:
            self._say(f"told who there is: {', '.join(lacked)}")
        return notes

    @staticmethod
    def _recovered(changes: list[Change] | None) -> list[str]:
        if changes is None:
            return ["no store and no relay could say what became of people after the backup: what it says of them counts"]
        added = [each["name"] for change in changes for each in change.add]
        others = sum(change.count for change in changes) - len(added)
        return [
            *(
                [f"changes made after the backup that are in the directory again (names, addresses, quotas, locks): {others}"]
                if others
                else []
            ),
            *([f"added after the backup, and without a password now: {', '.join(added)} (lemonstand user passwd NAME)"] if added else []),
        ]

    def flush(self) -> None:
        """Lets relays deliver what waited for the store."""
        Placement(self._site, self._hosts, self._say).flush([each.name for each in self._site.group("relays")])

    def answers(self) -> None:
        """Sees that the host is at work: its units, its doors, and of an auth host that stores take its tickets.

        Raises:
            LemonstandError: it is not.
        """
        wait_until_it_answers(self._hosts, self._site.hosts[self.name], self.kind, within=3 * ANSWER_SECONDS)
        if self.kind == "auths":
            self._keys_taken()

    def _keys_taken(self) -> None:
        taken = {
            store for key in list_keys(self._site, self._hosts) if key.issuer == self.name and key.state == "signs" for store in key.stores
        }
        lacking = [each.name for each in self._site.group("stores") if each.name not in taken]
        if lacking:
            raise LemonstandError(
                f"{', '.join(lacking)} does not take the tickets of {self.name}", lacking[0], f"lemonstand apply --limit {lacking[0]}"
            )

    def lost(self, source: Source, made: str) -> list[str]:
        """What did not come back, and who can't have it back.

        Args:
            source: where the rest came from.
            made: when the backup was made (RFC 3339).
        """
        if source.kind == BACKUP:
            when = f"{datetime.fromisoformat(made).astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
            since = {
                "auths": f"passwords that were set after {when} are as they were then; app passwords revoked since are good again",
                "stores": f"mail that came after {when} and was delivered, and what clients changed since",
            }
            return [since[self.kind]]
        if source.kind == NOTHING:
            return [LOST[self.kind]]
        return ["what clients changed in the last seconds before the loss"] if source.promote else []
