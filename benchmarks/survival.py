"""What the silence of each host in turn costs: sleeping sessions, seconds without logins, messages lost and doubled, time to heal. A table.

Run on a lab of pairs that is up and deployed: `python benchmarks/survival.py --lab NAME [--hosts edge1,store1] [--pace 4] [--apply]`.
Users sleep in IDLE, twenty clients write numbered messages (APPEND, submission, and mail to the MX from outside), four users log in again
and again; the host neither hears nor says anything at all its legs but management's. Of a store that falls silent the standby is promoted;
once the store is back and in step it serves again. With `--apply` a whole apply runs meanwhile. Two accounts write more than anybody does,
so relays are first told that this is usual, and told otherwise in the end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from bench import lemonstand, site_of, table_of
from rich.console import Console

from lemonstand import admin
from lemonstand import lab as labs
from lemonstand.admin.placement import Placement
from lemonstand.admin.stores import Stores
from lemonstand.errors import LemonstandError
from lemonstand.measure import Vantage, failover, open_vantage
from lemonstand.outcomes import Unanswered
from lemonstand.probes.protocols.wire import Account, Endpoint
from lemonstand.remote.endpoints import PEER_SENDER, ca_of_exchangers, public_endpoints
from lemonstand.remote.prober import Running, results

WRITERS = {"append": 8, "submit": 6, "mx": 6, "login": 4}
PACE_SECONDS = 4.0
"""From one message of a writer to its next: each costs a standby a process, and all hosts share one machine."""
LEAD_SECONDS = 5
"""How long everybody is at work before the host falls silent."""
AWAY_SECONDS = 30
NOTICED_SECONDS = 10
"""How soon an operator promotes the standby of a store that is silent, and sleeping users get mail."""
LONGEST = 900
HEAL_SECONDS = 300
SETTLE_SECONDS = 30
"""How long messages that were accepted are looked for once no relay has any: it tries again what a store did not take, after minutes."""
IN_STEP_SECONDS = 60.0
LIMITS = ("usual_recipients_per_hour", "user_messages_per_hour", "user_recipients_per_hour", "submission_messages_per_minute")
USUAL = ("-e", json.dumps({f"mail_relay_{name}": 1_000_000 for name in LIMITS}))
TROUBLES = frozenset({"twin", "silent", "two-edges", "alone", "no-twin", "failed", "not-running"})
"""Alarms that go on as long as something is wrong."""


@dataclass
class Cost:
    """What one loss cost."""

    host: str
    opened: int = 0
    answered: int = 0
    ended: list[str] = field(default_factory=list)
    promoted: float | None = None
    healed: float | None = None
    trouble: str = ""
    apply: str = ""
    written: dict[str, dict[str, Any]] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)

    @property
    def sent_again(self) -> set[str]:
        """Messages that clients sent again since nobody had acknowledged them."""
        return {name for each in self.written.values() for name in each["unsure"]}


class Trial:
    """Loses hosts of a lab, one after the other.

    Args:
        lab: its name.
        vantage: of its site.
        sessions: that sleep meanwhile.
        pace: seconds from one message of a writer to its next.
    """

    def __init__(self, lab: str, vantage: Vantage, sessions: int, pace: float) -> None:
        self._lab, self._vantage, self._sessions, self._pace = lab, vantage, sessions, pace
        self._site = vantage.site
        asleep = vantage.site.settings.probe_users
        # Who sleeps is told of mail for INBOX; so others get what is written: one user of each store.
        homes: dict[str, Account] = {}
        for user in vantage.site.settings.users:
            if user.name not in asleep:
                account = Account(user=user.name, password=vantage.site.password_of(user.name) or "")
                homes.setdefault(vantage.home(account), account)
        self._users = list(homes.values())

    def lose(self, host: str, *, apply: bool) -> Cost:
        """Has one host fall silent, and counts."""
        cost = Cost(host)
        vantage, tag = self._vantage, f"survival-{os.getpid()}-{host}"
        with admin.Hosts(self._site.inventory) as hosts:
            stores = Stores(Placement(self._site, hosts, lambda _: None))
            if trouble := self._trouble(hosts, stores):
                raise LemonstandError(f"something is wrong before {host} is lost: {trouble}", self._lab, "see `lemonstand alarms`")
            partner = self._partner(stores, host)
            legs = self._site.hosts[host].interfaces
            devices = [leg.device for zone, leg in legs.items() if zone != "management"]
            with self._asleep(cost) as crowd, self._at_work(tag, cost):
                time.sleep(LEAD_SECONDS)
                away = vantage.prober.start(host, "silent", seconds=LONGEST, devices=devices, within=LONGEST / 2)
                with away:
                    away.wait("holding")
                    began = time.monotonic()
                    run = self._apply() if apply else None
                    try:
                        time.sleep(NOTICED_SECONDS)
                        if partner:
                            cost.promoted = stores.promote(partner, now=True)["seconds"]
                        loss = failover.Loss(host)
                        failover.wake(vantage, crowd, loss)
                        cost.answered, cost.ended = loss.answered, loss.ended
                        time.sleep(max(0.0, began + AWAY_SECONDS - time.monotonic()))
                    finally:
                        # Whatever came of it: the next host is not lost while this one is away.
                        away.enough()
                        away.result()
                back = time.monotonic()
                while (trouble := self._trouble(hosts, stores)) and time.monotonic() - back < HEAL_SECONDS:
                    time.sleep(1)
                cost.trouble = trouble
                cost.healed = None if trouble else time.monotonic() - back
                if run is not None:
                    cost.apply = f"exit {run.wait(LONGEST)}"
            if partner:
                stores.promote(host)
            self._count(tag, cost)
        return cost

    @contextlib.contextmanager
    def _asleep(self, cost: Cost) -> Iterator[Running]:
        ways = failover.doors(self._vantage)
        with self._vantage.start(
            "idle-crowd", seconds=LONGEST, endpoints=ways, accounts=self._vantage.accounts[:2], count=self._sessions // len(ways),
            within=LONGEST,
        ) as crowd:  # fmt: skip
            cost.opened = int(crowd.wait("idling").values["opened"])
            yield crowd

    @contextlib.contextmanager
    def _at_work(self, tag: str, cost: Cost) -> Iterator[None]:
        """Writers and users at work within the block; what came of them is in `cost` after it."""
        vantage, users = self._vantage, [account["user"] for account in self._users]
        doors = failover.doors(vantage)
        exchangers = [endpoint for _, endpoint in public_endpoints(self._site, ca_of_exchangers(self._site), "relays")]
        common: dict[str, Any] = {"seconds": LONGEST, "tag": tag, "within": LONGEST, "pace": self._pace}
        with contextlib.ExitStack() as stack:
            running: dict[str, Running] = {}
            for kind, count in WRITERS.items():
                outside = kind == "mx"
                endpoints: list[Endpoint] = exchangers if outside else doors
                running[kind] = stack.enter_context(
                    vantage.prober.start(
                        vantage.outsider if outside else vantage.host, "writers", kind=kind, endpoints=endpoints, count=count,
                        # A submission crosses to the other store.
                        recipients=users[::-1] if kind == "submit" else users, sender=PEER_SENDER if outside else "",
                        accounts=[] if outside else self._users, **common,
                    )
                )  # fmt: skip
            for each in running.values():
                each.wait("writing")
            yield
            for each in running.values():
                each.enough()
            cost.written = results(running)

    def _partner(self, stores: Stores, host: str) -> str:
        """The standby of a host that serves users; empty for any other host."""
        rows = {each.host: each for each in stores.members()}
        if host not in rows or rows[host].does != "serves":
            return ""
        return next(each.host for each in rows.values() if each.store == rows[host].store and each.host != host)

    def _queued(self) -> int:
        """How many messages relays have still."""
        return sum(int(labs.run_on(self._lab, relay.name, "postqueue -j | wc -l")) for relay in self._site.group("relays"))

    def _apply(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "lemonstand", "apply", "--lab", self._lab, *USUAL]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def _trouble(self, hosts: admin.Hosts, stores: Stores) -> str:
        """What is still wrong; empty: nothing."""
        told = admin.read_alarms(self._site, hosts, "1m")
        wrong = [f"{each.host}: {each.kind} {each.details}" for each in told.found if each.kind in TROUBLES]
        wrong += [f"{host}: {why}" for host, why in told.unasked]
        for each in stores.members():
            if each.does == "no answer" or each.notes or (each.does == "serves" and (each.age is None or each.age > IN_STEP_SECONDS)):
                wrong.append(f"{each.host}: {each.does}, copy {each.age} s old, {each.notes}")
        return "; ".join(wrong)[:300]

    def _count(self, tag: str, cost: Cost) -> None:
        """Looks for every message that was accepted, and takes all of them away."""
        wanted = {name for kind, each in cost.written.items() if kind != "login" for name in each["accepted"]}
        end = time.monotonic() + LONGEST
        until = time.monotonic() + SETTLE_SECONDS
        while True:
            if self._queued():
                until = min(end, time.monotonic() + SETTLE_SECONDS)
            found: Counter[str] = Counter()
            for account in self._users:
                sought = f"mailbox '*' header message-id {tag}"
                text = labs.run_on(
                    self._lab, self._vantage.home(account), f"doveadm -f tab fetch -u {account['user']} hdr.message-id {sought}"
                )
                found.update(word.strip("<>") for word in text.split() if word.startswith("<"))
            if not wanted - set(found) or time.monotonic() > until:
                break
            time.sleep(3)
        cost.lost = sorted(wanted - set(found))
        cost.doubled = sorted(name for name, count in found.items() if count > 1)
        for account in self._users:
            labs.run_on(self._lab, self._vantage.home(account), f"doveadm expunge -u {account['user']} mailbox '*' header message-id {tag}")


@contextlib.contextmanager
def writers_let_through(lab: str) -> Iterator[None]:
    """No relay slows the writers within the block."""
    lemonstand("apply", "--lab", lab, "--limit", "relays", *USUAL)
    try:
        yield
    finally:
        lemonstand("apply", "--lab", lab, "--limit", "relays")


HEADINGS = (
    "silent", "asleep", "dropped", "longest login", "APPEND, 587, MX", "accepted", "lost", "doubled (sent again)", "promoted", "healed",
)  # fmt: skip


def row(cost: Cost) -> list[str]:
    """A row of the table."""
    longest = {kind: f"{each['longest']:.1f} s" for kind, each in cost.written.items()}
    accepted = sum(len(each["accepted"]) for kind, each in cost.written.items() if kind != "login")
    again = sum(name in cost.sent_again for name in cost.doubled)
    return [
        f"{cost.host}{f', apply: {cost.apply}' if cost.apply else ''}",
        str(cost.opened),
        str(cost.opened - cost.answered),
        longest["login"],
        ", ".join(longest[kind] for kind in ("append", "submit", "mx")),
        str(accepted),
        str(len(cost.lost)),
        f"{len(cost.doubled)} ({again})",
        "-" if cost.promoted is None else f"{cost.promoted:.0f} s",
        f"{cost.healed:.0f} s" if cost.healed is not None else f"not: {cost.trouble}",
    ]


def main() -> int:
    """Prints the table; 1 if something could not be measured."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--lab", required=True)
    parser.add_argument("--hosts", default="", help="names, with commas; default: each host of the site")
    parser.add_argument("--sessions", type=int, default=200)
    parser.add_argument("--pace", type=float, default=PACE_SECONDS, help="seconds from one message of a writer to its next")
    parser.add_argument("--apply", action="store_true", help="a whole apply runs while the host is silent")
    given = parser.parse_args()
    site = site_of(given.lab)
    names = given.hosts.split(",") if given.hosts else [host.name for host in site.hosts.values() if host.role_groups]
    table = table_of(f"{given.sessions} sleeping sessions, 20 writers", HEADINGS)
    code = 0
    with writers_let_through(given.lab), open_vantage(site) as vantage:
        trial = Trial(given.lab, vantage, given.sessions, given.pace)
        for name in names:
            try:
                cost = trial.lose(name, apply=given.apply)
            except (Unanswered, LemonstandError) as fault:
                table.add_row(name, str(fault)[:120])
                print(f"{name}: {fault}", flush=True)
                code = 1
                continue
            cells = row(cost)
            table.add_row(*cells)
            print(", ".join(f"{heading} {cell}" for heading, cell in zip(HEADINGS, cells, strict=True)), flush=True)
            for kind, each in cost.written.items():
                print(f"    {kind}: {each['failed']} tries failed {each['faults'][:2]}", flush=True)
            print(f"    ended: {cost.ended[:3]}; lost: {cost.lost[:5]}; doubled: {cost.doubled[:5]}", flush=True)
    Console(width=220, highlight=False).print(table)
    return code


if __name__ == "__main__":
    sys.exit(main())
