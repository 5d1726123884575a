"""Stores and their standbys: how they stand, and which of the two serves (record 0036)."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from lemonstand.admin.placement import Placement, Told
from lemonstand.errors import InputError, LemonstandError

SETTLE_SECONDS = 30
"""How long a promotion waits for what relays still hold for these users; what comes later finds its way by itself."""


@dataclass(frozen=True)
class Member:
    """One host of a store, as `store list` shows it.

    Args:
        does: `serves`, `keeps a copy`, `no answer`.
        age: seconds since the copy was in step; None where there is none or nobody can say.
        notes: what an operator should know.
    """

    store: str
    host: str
    does: str
    users: int
    generation: int | None
    age: float | None
    notes: str


class Stores:
    """Does what an operator wants done with stores.

    Args:
        placement: who is served where.
    """

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self._site = placement.site
        self._say = placement.say

    def list(self) -> list[Member]:
        """All hosts of all stores."""
        told = self._placement.read()
        rows = []
        for store, hosts in self._site.pairs.items():
            for host in hosts:
                try:
                    seen = self._placement.order(host, action="status")
                    rows.append(self._member(told, store, host, seen))
                except LemonstandError as fault:
                    rows.append(Member(store, host, "no answer", 0, None, None, fault.what))
        return rows

    @staticmethod
    def _member(told: Told, store: str, host: str, seen: dict[str, Any]) -> Member:
        status, generation = seen["status"], int(seen["placement"]["generation"])
        serves = told.active(store) == host
        notes = list(status.get("failed", {}).values())[:1]
        if generation < told.placement["generation"]:
            notes.append(f"was told generation {generation}, the newest is {told.placement['generation']}")
        if status.get("serves") and not serves:
            notes.append(f"takes itself for the one that serves; {told.active(store)} does")
        age = seen["now"] - status["in_step"] if serves and status.get("peer") and status.get("in_step") else None
        return Member(store, host, "serves" if serves else "keeps a copy", len(told.users(store)), generation, age, "; ".join(notes))

    def promote(self, host: str, *, now: bool = False) -> dict[str, Any]:
        """Lets the other host of a pair serve from now on.

        Args:
            host: the one that is to serve.
            now: do without the last changes of the one that serves, though it answers.

        Returns:
            `store`, `users`, `seconds`, `delivered` (messages that only relays had handed to the standby), `untold` (hosts to tell later).

        Raises:
            InputError: it is in no pair.
            LemonstandError: it can't be done; nothing was changed, or the command given again goes on.
        """
        began = time.monotonic()
        store = next((name for name, hosts in self._site.pairs.items() if host in hosts), None)
        if store is None or len(self._site.pairs[store]) < 2:
            raise InputError(f"'{host}' is in no pair", str(self._site.inventory), "name a host with lemonstand_standby_of, or its store")
        told = self._placement.read()
        if host in told.unasked:
            raise LemonstandError(f"{host} gives no answer: {told.unasked[host]}", host, "it is the one that would serve; see that it is up")
        before, users = told.active(store), told.users(store)
        placement = told.placement
        if before != host:
            placement = self._placement.next(told, active={store: host})
            self._step_down(told, store, before, host, placement, now=now)
            self._placement.order(host, action="take-over", placement=placement)
            self._say(f"{host} serves the {len(users)} users of {store}")
        where = self._placement.place(dict.fromkeys(users, host))
        self._say(f"{where}: tickets are for {host} now")
        relays = [each.name for each in self._site.group("relays")]
        untold = self._placement.hand_out(placement, [name for name in self._placement.told_hosts if name != host and name not in told.unasked])
        untold |= {name: LemonstandError(why, name, "") for name, why in told.unasked.items()}
        frontends = [each.name for each in self._site.group("frontends")]
        for other in self._site.pairs[store]:
            for leg in self._site.hosts[other].interfaces.values() if other != host else ():
                for address in leg.addresses:
                    self._placement.hosts.run_on(frontends, ["doveadm", "proxy", "kick", "-h", str(address), "*"], codes=(0, 68))
        self._say(f"relays deliver to {host}, and sessions begin anew")
        self._settle([relay for relay in relays if relay not in untold], users)
        delivered = self._placement.order(host, action="deliver-kept")["delivered"]
        self._say(f"{delivered} messages were on the standby's shelf alone, and are delivered")
        return {"store": store, "users": len(users), "seconds": time.monotonic() - began, "delivered": delivered, "untold": sorted(untold)}

    def _step_down(self, told: Told, store: str, before: str, host: str, placement: dict[str, Any], *, now: bool) -> None:
        """Has the one that serves end its sessions and hand over what it has, if it answers."""
        if before in told.unasked:
            status = self._placement.order(host, action="status")["status"]
            last = max(status.get("pushed", 0.0), 0.0)
            age = f"its last change came {time.time() - last:.0f} s ago" if last else "no change has come since its service began"
            self._say(f"{before} gives no answer; the copy on {host} is what counts now ({age})")
            return
        users, since = told.users(store), told.since(store)
        try:
            self._placement.order(before, action="hand-over", placement=placement, users=users, since=since, host="" if now else host)
            self._say(f"{before} serves nobody any more" + ("" if now else ", and has handed over all it had"))
        except LemonstandError as fault:
            if now:
                self._say(f"{before}: {fault.what}")
                return
            back = self._placement.next(Told(placement, {}, {}), active={store: before})
            self._placement.hand_out(back, [before])
            raise LemonstandError(
                f"{before} can't hand over what it has ({fault.what}); it goes on serving",
                before,
                f"mend the way between the two; or, without its last changes: lemonstand store promote {host} --now",
            ) from None

    def _settle(self, relays: list[str], users: list[str]) -> None:
        """Waits until relays hold nothing for these users that they tried to deliver before."""
        wanted, until = set(users), time.monotonic() + SETTLE_SECONDS
        while relays and time.monotonic() < until:
            self._placement.flush(relays)
            held = 0
            for answer in self._placement.hosts.run_on(relays, ["postqueue", "-j"]).values():
                lines = answer.splitlines() if isinstance(answer, str) else []
                held += sum(each["address"] in wanted for line in lines for each in json.loads(line)["recipients"])
            if not held:
                return
            time.sleep(2)
