"""Starts probes on hosts and hears what they tell: one agent a host, over one ssh session."""

from __future__ import annotations

import contextlib
import shlex
import threading
from collections.abc import Hashable, Mapping
from typing import Any, TypeVar

from lemonstand import observations
from lemonstand.remote.channel import Channel, Event, Running
from lemonstand.remote.connections import Connection
from lemonstand.remote.lasting import LastingChannel
from lemonstand.remote.shipment import BOOT, shipment

__all__ = ["PROBE_SECONDS", "Channel", "Event", "Prober", "Running", "results"]

PROBE_SECONDS = 120
"""After which a probe ends itself if nobody says otherwise: enough for the longest on a busy machine."""

K = TypeVar("K", bound=Hashable)


class Prober:
    """Starts probes on the hosts of an inventory.

    Args:
        connections: how to reach each host.
    """

    def __init__(self, connections: dict[str, Connection]) -> None:
        self.connections = connections
        self._channels: dict[tuple[str, bool], Channel] = {}
        self._locks = {name: threading.Lock() for name in connections}
        self._absences: dict[str, list[float]] = {}

    def __enter__(self) -> Prober:
        """Itself; the agents end with the block."""
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the agents on all hosts."""
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            channel.close()

    def start(self, host: str, probe: str, *, seconds: int = PROBE_SECONDS, lasting: bool = False, **args: Any) -> Running:
        """Starts one; see `lemonstand.probes.registry` for names.

        Args:
            host: inventory name.
            probe: its name.
            seconds: after which it ends itself.
            lasting: it goes on if the connection to the host is lost, and is come back to.
        """
        what = f"probe {probe} {observations.without_secrets(args)}"
        return self._channel(host, lasting=lasting).start(shipment(probe), args, seconds, what)

    def _channel(self, host: str, *, lasting: bool) -> Channel:
        way = self.connections[host]
        with self._locks[host]:
            channel = self._channels.get((host, lasting))
            if channel is None or not channel.works:  # the host was started again, say
                # What lasts has a connection of its own: it is not lost with a shared one, and does not wait for one that hangs.
                own = ["-o", "ControlPath=none"] if lasting else []
                command = ["ssh", *own, *shlex.split(way.ssh_arguments), way.target, way.as_root(["python3", "-c", BOOT])]
                if lasting:
                    channel = LastingChannel(host, command, way.given(), self._absences.setdefault(host, []))
                else:
                    channel = Channel(host, command, way.given())
                self._channels[host, lasting] = channel
            return channel

    def absences(self, host: str) -> list[float]:
        """How long the connection for probes that last was lost, seconds, each time."""
        return list(self._absences.get(host, []))

    def ask(self, host: str, probe: str, *, seconds: int = PROBE_SECONDS, **args: Any) -> Any:
        """Runs one and returns what it found.

        Raises:
            Invalid: it could not.
        """
        return self.start(host, probe, seconds=seconds, **args).result()


def results(running: Mapping[K, Running]) -> dict[K, Any]:
    """What probes found that were started side by side; if one fails, all are stopped.

    Raises:
        Invalid: one could not.
    """
    with contextlib.ExitStack() as stack:
        for each in running.values():
            stack.enter_context(each)
        return {key: each.result() for key, each in running.items()}
