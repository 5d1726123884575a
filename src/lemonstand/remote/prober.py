"""Starts probes on hosts over SSH and hears what they tell."""

from __future__ import annotations

import contextlib
import json
import queue
import shlex
import subprocess
import threading
import time
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, TypeVar, cast

from lemonstand import observations
from lemonstand.outcomes import Invalid, Unmet
from lemonstand.remote.connections import BECOME_REMEDY, REFUSAL, Connection
from lemonstand.remote.shipment import BOOT, shipment
from lemonstand.surroundings import environment

PROBE_SECONDS = 60
GRACE_SECONDS = 10
STOP_SECONDS = 2

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Event:
    """Something a probe told.

    Args:
        name: `result`, `error`, or the probe's own word.
        values: what it said.
        at: when it was heard here, seconds of a monotonic clock.
    """

    name: str
    values: dict[str, Any]
    at: float


class Running:
    """A probe at work on a host.

    Args:
        host: its inventory name.
        command: the ssh command that runs it.
        order: the line it is given: secrets travel there, never as arguments.
        seconds: after which it ends itself.
        what: how evidence names it: the probe and what it was told, without secrets.
    """

    def __init__(self, host: str, command: list[str], order: str, seconds: float, what: str = "a probe") -> None:
        self._host, self._what = host, what
        self._deadline = time.monotonic() + seconds + GRACE_SECONDS
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8", env=environment()
        )
        streams = (self._process.stdin, self._process.stdout, self._process.stderr)
        self._stdin, self._stdout, self._stderr = (cast(IO[str], each) for each in streams)
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._said: list[str] = []
        threading.Thread(target=self._listen, daemon=True).start()
        threading.Thread(target=self._hear_errors, daemon=True).start()
        with contextlib.suppress(BrokenPipeError):  # ssh's own words say why
            self._stdin.write(order + "\n")
            self._stdin.flush()

    def __enter__(self) -> Running:
        """Itself; the probe is stopped at the end of the block, however that ends."""
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait(self, name: str) -> Event:
        """Waits for an event; for any, if the name is empty.

        Raises:
            Invalid: the probe failed or ended without it.
            Unmet: a service refused what it must allow.
        """
        while True:
            try:
                event = self._events.get(timeout=max(0.01, self._deadline - time.monotonic()))
            except queue.Empty:
                self.stop()
                raise Invalid(f"the probe on {self._host} did not end in time") from None
            if event is None:
                said = " ".join(self._said[-3:]).strip() or f"exit status {self._process.wait()}"
                if REFUSAL in said:
                    why = said.partition(REFUSAL)[2]
                    raise Invalid(f"the probe on {self._host} could not become root: sudo said no: {why[:200]}; {BECOME_REMEDY}")
                raise Invalid(f"the probe on {self._host} ended without an answer: {said[:400]}")
            if event.name == "error":
                raise Invalid(f"the probe on {self._host} failed: {event.values['kind']}: {event.values['message']}")
            if event.name == "refused":
                raise Unmet("a service refuses what it must allow", event.values["message"], "leave", "see the service's journal")
            if name in {event.name, ""}:
                if event.name != "result":
                    observations.note("packets", self._host, f"{self._what}: {name}", event.values)
                return event

    def events(self) -> Iterator[Event]:
        """All it tells, as it tells it; the last one is its result.

        Raises:
            Invalid: the probe failed or ended without an answer.
            Unmet: a service refused what it must allow.
        """
        while True:
            event = self.wait("")
            yield event
            if event.name == "result":
                return

    def enough(self) -> None:
        """Tells the probe that the asker has seen what it wanted: one that only waits ends, and `result` has what it found."""
        with contextlib.suppress(OSError):
            self._stdin.write("enough\n")
            self._stdin.flush()

    def result(self) -> Any:
        """What it found."""
        with self:
            found = self.wait("result").values["data"]
        observations.note("packets", self._host, self._what, found)
        return found

    def stop(self) -> None:
        """Ends it: without anybody at its standard input it goes away by itself."""
        with contextlib.suppress(OSError):
            self._stdin.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def _listen(self) -> None:
        for line in self._stdout:
            try:
                values = json.loads(line)
                self._events.put(Event(str(values.pop("event")), values, time.monotonic()))
            except (ValueError, KeyError, AttributeError):
                self._said.append(line)
        self._process.wait()
        self._events.put(None)

    def _hear_errors(self) -> None:
        self._said.extend(self._stderr)


class Prober:
    """Starts probes on the hosts of an inventory.

    Args:
        connections: how to reach each host.
    """

    def __init__(self, connections: dict[str, Connection]) -> None:
        self._connections = connections

    def start(self, host: str, probe: str, *, seconds: int = PROBE_SECONDS, **args: Any) -> Running:
        """Starts one; see `lemonstand.probes.registry` for names.

        Args:
            host: inventory name.
            probe: its name.
            seconds: after which it ends itself.
        """
        way = self._connections[host]
        python = ["python3", "-c", BOOT]
        command = ["ssh", *shlex.split(way.ssh_arguments), way.target, way.as_root(python)]
        order = json.dumps({**shipment(probe), "args": args, "seconds": seconds})
        return Running(host, command, way.given(order), seconds, f"probe {probe} {observations.without_secrets(args)}")

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
