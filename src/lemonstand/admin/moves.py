"""Moves of a user from one store to another, while mail comes and the user is there (record 0036)."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lemonstand.admin.placement import Placement, Told
from lemonstand.errors import InputError, LemonstandError
from lemonstand.site.fields import suggest


def move(placement: Placement, name: str, to: str) -> dict[str, Any]:
    """Moves a user.

    Args:
        name: the login name.
        to: the store's name in the inventory.

    Returns:
        `messages`, `mailboxes`, `without` (seconds in which nobody served the user), `seconds`, `late` (messages that came in between).

    Raises:
        InputError: there is no such user or store.
        LemonstandError: it can't be done now; the user is where he was, or the command given again goes on.
    """
    began, told, site = time.monotonic(), placement.read(), placement.site
    user = name.lower()
    if to not in site.pairs:
        raise InputError(f"there is no store '{to}'", str(site.inventory), suggest(to, list(site.pairs), f"one of {', '.join(site.pairs)}"))
    if user not in told.placement["users"]:
        raise InputError(
            f"'{user}' is on no store", str(site.inventory), suggest(user, list(told.placement["users"]), "`lemonstand user list`")
        )
    store = told.placement["users"][user]
    source, target = told.active(store), told.active(to)
    if store == to:
        return _finish(placement, told, user, to, began)
    for host in (source, target):
        if host in told.unasked:
            raise LemonstandError(f"{host} gives no answer: {told.unasked[host]}", host, "a user is moved between stores that are up")
    after = placement.next(told, users={user: to})
    placement.order(target, action="expect", user=user, source=f"{source}:{after['generation']}")
    # Most of it while he goes on working; the rest when nobody can change it.
    placement.order(source, action="push", users=[user], host=target, since=0)
    stopped = time.monotonic()
    try:
        counts = placement.order(source, action="hand-over", placement=after, users=[user], host=target, since=0)
        placement.order(target, action="take-over", placement=after, counts=counts)
    except LemonstandError as fault:
        back = placement.next(Told(after, {}, {}), users={user: store})
        placement.hand_out(back, [source, target])
        raise LemonstandError(f"{user} stays on {store}: {fault.what}", source, "mend that, and give the command again") from None
    with ThreadPoolExecutor(max_workers=2) as pool:
        placed = pool.submit(placement.place, {user: target}, after["edition"])
        others = [host for host in placement.told_hosts if host not in (source, target) and host not in told.unasked]
        untold = placement.hand_out(after, others)
        placed.result()
    without = time.monotonic() - stopped
    relays = [host.name for host in site.group("relays") if host.name not in {**untold, **told.unasked}]
    placement.flush(relays)
    late = _clear(placement, Told(after, {}, told.unasked), user, store, to)
    return {
        **counts[user],
        "from": store,
        "without": without,
        "late": late,
        "seconds": time.monotonic() - began,
        "untold": sorted({**untold, **told.unasked}),
    }


def _clear(placement: Placement, told: Told, user: str, store: str, to: str) -> int:
    """Has the new store's standby take a copy, then removes what is left at the old store; messages that came late are brought along."""
    source, target = told.active(store), told.active(to)
    if len(placement.site.pairs[to]) > 1:
        placement.order(target, action="push", users=[user])
    late = int(placement.order(source, action="remove", user=user, host=target)["late"])
    for host in placement.site.pairs[store]:
        if host not in (source, *told.unasked):
            placement.order(host, action="remove", user=user)
    placement.order(target, action="expect", user=user)
    return late


def _finish(placement: Placement, told: Told, user: str, to: str, began: float) -> dict[str, Any]:
    """Tells everybody again where a user is: what a move that was cut off left to do."""
    target = told.active(to)
    placement.place({user: target}, told.placement["edition"])
    untold = placement.hand_out(told.placement, [host for host in placement.told_hosts if host not in told.unasked])
    placement.flush(host.name for host in placement.site.group("relays"))
    late = 0
    for store in placement.site.pairs:
        if store != to and told.active(store) not in told.unasked:
            late += _clear(placement, told, user, store, to)
    counts = placement.order(target, action="count", users=[user])[user]
    seconds = time.monotonic() - began
    return {**counts, "from": to, "without": 0.0, "late": late, "seconds": seconds, "untold": sorted({**untold, **told.unasked})}
