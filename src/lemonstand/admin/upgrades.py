"""Updates of a site's hosts: what is pending where, and one member after the other brought to it, and back (docs/decisions/0048)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from lemonstand.admin.access import Hosts, Unreachable
from lemonstand.admin.answering import ANSWER_SECONDS, wait_until_it_answers
from lemonstand.admin.spread import WATCH, read_spread
from lemonstand.errors import InputError, LemonstandError
from lemonstand.site import Site

PROGRAM = "/usr/local/lib/lemonstand/host-updates"
"""Put on hosts by the role `updates`."""
ORDER = ("relays", "auths", "edges", "frontends", "stores")
"""Kinds in the order in which they are renewed. Frontends come before stores: what their old processes still hold ends with the stores'."""
LOOK_SECONDS, WORK_SECONDS = 400, 5400
SETTLE_SECONDS = 2
"""From `drained` to no new connection."""
DRAINED = "lemonstand upgrade"
"""The reason that says who drained a member, so that the same command given again ends it."""
REMEDY = "`lemonstand apply` puts the role `updates` on hosts"


@dataclass(frozen=True)
class Pending:
    """What a host has before it.

    Args:
        host: its name.
        mirror: whether one is named for it.
        packages: what would be installed: `{name: {old, new, since, by_itself}}`.
        replaced: units that run files which were replaced, and some of those.
        under_way: how far an upgrade is that was cut off; empty: there is none.
        fault: why the mirror could not be asked; empty: it could.
        broken: versions that were brought back once, by package.
        boot: what runs after a boot alone.
        looked, now: when the mirror was asked last, and the host's clock; Unix time, 0: never.
    """

    host: str
    mirror: bool
    packages: Mapping[str, Mapping[str, Any]]
    replaced: Mapping[str, Sequence[str]]
    under_way: str = ""
    fault: str = ""
    broken: Mapping[str, str] = field(default_factory=dict)
    boot: Sequence[str] = ()
    looked: float = 0.0
    now: float = 0.0

    @property
    def is_done(self) -> bool:
        """Whether nothing is to be done that an upgrade does."""
        return not self.packages and not self.replaced and not self.under_way

    def oldest_days(self) -> float:
        """For how many days an update has been waiting; 0 without one."""
        return max(((self.now - float(each["since"])) / 86400 for each in self.packages.values()), default=0.0)


def _pending(host: str, said: Mapping[str, Any]) -> Pending:
    return Pending(
        host, bool(said["mirror"]), said["pending"], said["replaced"], str(said["mark"].get("phase", "")), str(said["fault"]),
        said["broken"], said["boot"], float(said["looked"]), float(said["now"]),
    )  # fmt: skip


class Upgrade:
    """Looks at hosts and renews them.

    Args:
        site: the validated model.
        hosts: a way to its hosts.
        names: those that are meant; none: all of the site.
        say: is told each step.

    Raises:
        InputError: the site has no such host, or names no mirror.
    """

    def __init__(self, site: Site, hosts: Hosts, names: Sequence[str], say: Callable[[str], None]) -> None:
        self._site, self._hosts, self._say = site, hosts, say
        known = [host.name for group in ORDER for host in self._in_turn(group)]
        for name in names:
            if name not in known:
                raise InputError(f"'{name}' is no host of this site that is upgraded", str(site.inventory), f"one of {', '.join(known)}")
        wanted = [name for name in known if name in names or not names]
        self.names = [name for name in wanted if site.settings.services.mirror_of(site.hosts[name].groups) is not None]
        if not self.names:
            raise InputError(
                "no mirror is named: no host reaches one",
                str(site.inventory),
                "lemonstand_services: {mirror: {name, addresses}, mirror_dmz: {name, addresses}}, then `lemonstand apply`",
            )
        self.without = [name for name in wanted if name not in self.names]

    def _in_turn(self, group: str) -> list[Any]:
        """The hosts of a kind, those first that nobody is at."""
        return sorted(self._site.group(group), key=lambda host: host.settings.standby_of is None)

    # --- looking ---

    def look(self) -> tuple[dict[str, Pending], dict[str, LemonstandError]]:
        """Has all hosts ask their mirror: what each has before it, and those that could not say."""

        def one(name: str) -> Pending | LemonstandError:
            try:
                return _pending(name, self._order(name, "refresh"))
            except LemonstandError as fault:
                return fault

        with ThreadPoolExecutor(max_workers=8) as pool:
            found = dict(zip(self.names, pool.map(one, self.names), strict=True))
        return (
            {name: each for name, each in found.items() if isinstance(each, Pending)},
            {name: each for name, each in found.items() if isinstance(each, LemonstandError)},
        )

    def _order(self, host: str, *words: str) -> dict[str, Any]:
        """Has a host do one thing.

        Raises:
            LemonstandError: it can't, and why.
        """
        seconds = LOOK_SECONDS if words[0] in ("status", "refresh") else WORK_SECONDS
        try:
            answer = self._hosts.run(host, [PROGRAM, *words], codes=(0, 1), seconds=seconds)
            found: dict[str, Any] = json.loads(answer.splitlines()[-1])
        except Unreachable:
            raise
        except (IndexError, ValueError):
            raise LemonstandError("no answer that can be read", host, REMEDY) from None
        if "error" in found:
            raise LemonstandError(str(found["error"]), host, str(found["remedy"]))
        return found

    # --- doing ---

    def carry_out(self, pending: Mapping[str, Pending]) -> list[str]:
        """Renews hosts, one after the other.

        Returns:
            Those that were renewed.

        Raises:
            LemonstandError: a host did not answer afterwards: it has the versions it had, and those after it were left alone.
        """
        done: list[str] = []
        # What frontends' old processes hold ends when their stores are renewed: then no session ends twice.
        stores = any("dovecot-core" in pending[name].packages for name in self._named("stores") if name in pending)
        for name in self.names:
            if name not in pending or pending[name].is_done:
                continue
            kind = self._kind(name)
            self._say(f"{name}: {', '.join(_told(pending[name]))}")
            try:
                with_another = self._drain(name, kind)
                self._renew(name, pending[name], keep_sessions=kind == "frontends" and stores)
            except LemonstandError as fault:
                left = [other for other in self.names if other not in [*done, name] and other in pending and not pending[other].is_done]
                told = f"; left alone: {', '.join(left)}" if left else ""
                raise LemonstandError(f"{fault.what}{told}", name, fault.remedy) from None
            if with_another:
                self._undrain(name)
            done.append(name)
        for name in self._named("frontends"):
            if name in done:
                self._end_old_sessions(name)
        return done

    def _named(self, group: str) -> list[str]:
        return [host.name for host in self._site.group(group) if host.name in self.names]

    def _kind(self, name: str) -> str:
        return next(group for group in ORDER if group in self._site.hosts[name].groups)

    def _renew(self, name: str, before: Pending, *, keep_sessions: bool) -> None:
        if before.under_way == "rollback":
            self._order(name, "rollback")
            self._answers(name)
            self._say(f"{name}: brought back, as was begun")
            return
        try:
            self._order(name, "install")
            self._say(f"{name}: installed")
            self._order(name, "restart", *(["--keep-sessions"] if keep_sessions else []))
            self._answers(name)
        except Unreachable:
            raise
        except LemonstandError as fault:
            self._bring_back(name, fault)
        self._order(name, "keep")
        self._say(f"{name}: answers")

    def _bring_back(self, name: str, fault: LemonstandError) -> None:
        self._say(f"{name}: {fault.what}")
        if not self._order(name, "status")["mark"]:
            raise fault  # nothing was changed yet
        self._order(name, "rollback")
        self._answers(name)
        raise LemonstandError(f"{fault.what}; {name} has the versions it had before, and answers", name, fault.remedy)

    def _answers(self, name: str) -> None:
        """Waits until a member is at work.

        Raises:
            LemonstandError: it is not within a minute, and what is missing.
        """
        try:
            wait_until_it_answers(self._hosts, self._site.hosts[name], self._kind(name), within=2 * ANSWER_SECONDS)
        except Unreachable:
            raise
        except LemonstandError as fault:
            missing = fault.what.partition(" failed: ")[2] or fault.what
            raise LemonstandError(f"{name} does not answer: {missing}", name, "journalctl -p err -b") from None

    def _end_old_sessions(self, name: str) -> None:
        """Ends what is left of old processes, with stores that had nothing to renew."""
        if self._order(name, "status")["replaced"]:
            self._order(name, "restart")
            self._answers(name)
            self._say(f"{name}: sessions with what was there before have ended")

    # --- draining ---

    def _drain(self, name: str, kind: str) -> bool:
        """Keeps new connections from a member beside which there is another; whether it is to get them again."""
        edges = [host.name for host in self._site.group("edges")]
        if kind not in ("frontends", "relays") or not edges or len(self._site.group(kind)) < 2:
            return False
        members = read_spread(self._site, self._hosts).members
        if any(each.host == name and each.gets == "drained" and DRAINED not in each.about for each in members):
            return False  # an operator did, for his own reason
        beside = {host.name for host in self._site.group(kind)} - {name}
        if not any(each.host in beside and each.gets == "yes" for each in members):
            raise LemonstandError(f"{name} is the only one of its kind that gets connections", name, "see `lemonstand service status`")
        self._on_edges(edges, "drain", name, "--reason", DRAINED)
        time.sleep(SETTLE_SECONDS)
        return True

    def _undrain(self, name: str) -> None:
        self._on_edges([host.name for host in self._site.group("edges")], "undrain", name)

    def _on_edges(self, edges: Sequence[str], *words: str) -> None:
        for edge, answer in self._hosts.run_on(edges, [WATCH, *words]).items():
            if isinstance(answer, LemonstandError) and len(edges) == 1:
                raise answer
            if isinstance(answer, LemonstandError):
                self._say(f"{edge} could not be told: {answer.what}")


def _told(pending: Pending) -> list[str]:
    """What is before a host, shortly."""
    words = [f"{name} {each['new']}" for name, each in list(pending.packages.items())[:6]]
    more = len(pending.packages) - len(words)
    return [
        *words,
        *([f"{more} more"] if more else []),
        *([f"{', '.join(pending.replaced)} to be restarted"] if pending.replaced and not words else []),
        *([f"goes on ({pending.under_way})"] if pending.under_way else []),
    ]
