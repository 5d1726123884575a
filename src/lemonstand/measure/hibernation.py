"""Changes that come while sessions are put to sleep: who is told, and how soon."""

from __future__ import annotations

from typing import Any

from lemonstand.measure.vantage import SPARE_SECONDS, Finding, Value, Vantage
from lemonstand.outcomes import NotMeasurable
from lemonstand.probes.clients.sweep import BLIND, UNSURE

CHANGES = ("delivery", "append", "flag", "expunge")
SWEPT, SWEEP_SECONDS = 12, 0.8
"""Sessions a kind of change meets, and the seconds over which they fall asleep."""
OPENING_SECONDS = 4
"""What a login among many may take on a busy machine."""
MISSED_SECONDS = 30.0
"""Who was not told until then is not told: a busy machine takes its time to wake them all, what is lost is lost for ever."""


def falling_asleep(vantage: Vantage, _seconds: int = 0, kinds: tuple[str, ...] = CHANGES, sessions: int = 0) -> Finding:
    """Changes that come while sessions are put to sleep, one after the other: who is told, and how soon.

    Args:
        kinds: of `probes.sweep.KINDS`.
        sessions: how many have to meet a change at least; 0: one round of as many as there is room for.
    """
    asleep = vantage.site.timers_in_force["hibernate"]
    if not asleep:
        raise NotMeasurable("the site puts no session to sleep")
    # Half of what the store lets a user's devices behind one address have; two accounts share the kinds.
    each = max(2, min(SWEPT, 4 * vantage.site.settings.devices_per_user // len(kinds)))
    rounds = max(1, -(-sessions // (each * len(kinds))))
    data = _swept(vantage, kinds, each, rounds, asleep)
    # Somebody else's mail in INBOX wakes all of them together, a busy machine makes a change too late: then none was falling asleep.
    if again := tuple(kind for kind in kinds if data[kind]["crossed"] < each // 6):
        for kind, seen in _swept(vantage, again, each, 1, asleep).items():
            data[kind] = {name: data[kind][name] + more for name, more in seen.items()}  # what was missed stays missed
    values = []
    for kind, seen in data.items():
        told = [seconds for _, seconds in seen["sessions"] if seconds is not None]
        values.append(Value(f"{kind}: told", f"{len(told)} of {len(seen['sessions'])}, {seen['crossed']} of them while falling asleep"))
        if told:
            values.append(Value(f"{kind}: told after, at the latest", round(max(told), 2), "s"))
    return Finding(values, data)


def _swept(vantage: Vantage, kinds: tuple[str, ...], each: int, rounds: int, asleep: int) -> dict[str, Any]:
    data: dict[str, Any] = vantage.ask(
        "sweep",
        seconds=SPARE_SECONDS + OPENING_SECONDS * each * len(kinds) + rounds * (asleep + len(kinds) + int(MISSED_SECONDS) + 2),
        endpoints=[vantage.endpoints(family) for family in vantage.families],
        # Deliveries come to the INBOX that other questions use least: what wakes all at once meets nobody in falling asleep.
        accounts=[vantage.accounts[-1], vantage.accounts[0]],
        kinds=list(kinds),
        count=each,
        span=SWEEP_SECONDS,
        asleep=asleep,
        within=MISSED_SECONDS,
        rounds=rounds,
    )
    for kind, seen in data.items():
        told = [seconds for _, seconds in seen["sessions"] if seconds is not None]
        # A message is accepted before it is there: whoever was asleep then is told at once.
        late = min(told, default=0.0) if kind == "delivery" else 0.0
        late = min(late, UNSURE * SWEEP_SECONDS / 2)
        seen["crossed"] = sum(asleep - BLIND <= age + late <= asleep for age, _ in seen["sessions"])
    return data
