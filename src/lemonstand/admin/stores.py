"""Stores and their standbys: how they stand, and which of the two serves (record 0036)."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from lemonstand.admin.placement import Placement, Told
from lemonstand.admin.sessions import end_sessions
from lemonstand.errors import InputError, LemonstandError

UNDER_WAY_SECONDS = 60
"""What a store took longer ago is no longer being delivered."""


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

    def members(self) -> list[Member]:
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
            raise LemonstandError(
                f"{host} gives no answer: {told.unasked[host]}", host, "it is the one that would serve; see that it is up"
            )
        before, users = told.active(store), told.users(store)
        placement, whole = told.placement, False
        if before != host:
            placement = self._placement.next(told, active={store: host})
            whole = self._step_down(told, store, before, host, placement, now=now)
            self._say(f"{host} serves the {len(users)} users of {store}")
        where = self._placement.place(dict.fromkeys(users, host))
        self._say(f"{where}: tickets are for {host} now")
        relays = [each.name for each in self._site.group("relays")]
        untold = self._placement.hand_out(
            placement, [name for name in self._placement.told_hosts if name != host and name not in told.unasked]
        )
        untold |= {name: LemonstandError(why, name, "") for name, why in told.unasked.items()}
        frontends = [each.name for each in self._site.group("frontends")]
        legs = (
            leg
            for other in self._site.pairs[store]
            if other != host
            for zone, leg in self._site.hosts[other].interfaces.items()
            if zone != "management"
        )
        end_sessions(self._placement.hosts, frontends, to=[str(address) for leg in legs for address in leg.addresses])
        self._say(f"relays deliver to {host}, and sessions begin anew")
        held = self._held([relay for relay in relays if relay not in untold])
        # What was handed over is there. Only what was being delivered in that moment can be on the shelf alone.
        oldest = {"oldest": time.monotonic() - began + UNDER_WAY_SECONDS} if whole else {}
        delivered = self._placement.order(host, action="deliver-kept", held=held, **oldest)["delivered"]
        self._say(f"{delivered} messages were on the standby's shelf alone, and are delivered")
        return {"store": store, "users": len(users), "seconds": time.monotonic() - began, "delivered": delivered, "untold": sorted(untold)}

    def _step_down(self, told: Told, store: str, before: str, host: str, placement: dict[str, Any], *, now: bool) -> bool:
        """Has the one that serves end its sessions and hand over what it has, if it answers; then the other begins.

        Returns:
            Whether it has handed over all of it.
        """
        if before in told.unasked:
            seen = self._placement.order(host, action="status")
            if seen["lacking"] and not now:
                raise LemonstandError(
                    f"{host} has no whole copy of {', '.join(seen['lacking'][:5])} ({len(seen['lacking'])} users)",
                    host,
                    f"see whether {before} comes back; or, without their mail: lemonstand store promote {host} --now",
                )
            status = seen["status"]
            last = max(status.get("pushed", 0.0), 0.0)
            age = f"its last change came {time.time() - last:.0f} s ago" if last else "no change has come since its service began"
            self._say(f"{before} gives no answer; the copy on {host} is what counts now ({age})")
            self._placement.order(host, action="take-over", placement=placement)
            return False
        users, since = told.users(store), told.since(store)
        try:
            counts = self._placement.order(
                before, action="hand-over", placement=placement, users=users, since=since, host="" if now else host
            )
            self._placement.order(host, action="take-over", placement=placement, **({} if now else {"counts": counts}))
            self._say(f"{before} serves nobody any more" + ("" if now else ", and has handed over all it had"))
            return not now
        except LemonstandError as fault:
            if now:
                self._say(f"{before}: {fault.what}")
                self._placement.order(host, action="take-over", placement=placement)
                return False
            back = self._placement.next(Told(placement, {}, {}), active={store: before})
            self._placement.hand_out(back, [before])
            raise LemonstandError(
                f"{before} can't hand over what it has ({fault.what}); it goes on serving",
                before,
                f"mend the way between the two; or, without its last changes: lemonstand store promote {host} --now",
            ) from None

    def _held(self, relays: list[str]) -> list[str]:
        """Lets relays try again what they hold; the queue names of it: they deliver that themselves."""
        answers = self._placement.hosts.run_on(relays, ["postqueue", "-j"])
        self._placement.flush(relays)
        lines = [line for answer in answers.values() if isinstance(answer, str) for line in answer.splitlines()]
        return [str(json.loads(line)["queue_id"]) for line in lines]
