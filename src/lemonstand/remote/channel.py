"""Probes at work on a host, and what is heard of them."""

from __future__ import annotations

import contextlib
import itertools
import json
import queue
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, cast

from lemonstand import observations
from lemonstand.outcomes import Invalid, Unmet
from lemonstand.remote.connections import BECOME_REMEDY, REFUSAL
from lemonstand.remote.shipment import agent_shipment
from lemonstand.surroundings import environment

GRACE_SECONDS = 10
STOP_SECONDS = 2


@dataclass(frozen=True)
class Event:
    """Something a probe told.

    Args:
        name: `result`, `error`, or the probe's own word.
        values: what it said.
        at: when it was heard here, seconds of a monotonic clock.
        there: when the agent heard it, seconds of its host's monotonic clock: no later if the connection was lost meanwhile.
    """

    name: str
    values: dict[str, Any]
    at: float
    there: float


class Channel:
    """The agent on one host (`lemonstand.probes.agent`), over one ssh session, and the probes it runs for us side by side.

    Args:
        host: its inventory name.
        command: the ssh command that runs it.
        given: what becoming root reads of standard input before the agent does.
    """

    LASTING = False
    """Which agent it is: one that outlives the connection, or not."""

    def __init__(self, host: str, command: list[str], given: str = "") -> None:
        self.host = host
        self._command, self._given = command, given
        self._lock = threading.RLock()
        self._running: dict[int, Running] = {}
        self._numbers = itertools.count(1)
        self._said: list[str] = []
        self._over = False
        self._own = agent_shipment(lasting=self.LASTING)
        self._sent = set(self._own["modules"])
        self._open()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _open(self) -> None:
        """Starts ssh, and the agent by it."""
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8",
            env=environment(),
        )  # fmt: skip
        streams = (self._process.stdin, self._process.stdout, self._process.stderr)
        self._stdin, self._stdout, self._stderr = (cast(IO[str], each) for each in streams)
        self._errors = threading.Thread(target=self._said.extend, args=(self._stderr,), daemon=True)
        self._errors.start()
        self._write(self._given + json.dumps(self._own) + "\n")

    @property
    def works(self) -> bool:
        """Whether it can be asked."""
        return not self._over

    def start(self, shipment: Mapping[str, Any], args: Mapping[str, Any], seconds: float, what: str = "a probe") -> Running:
        """Starts a probe.

        Args:
            shipment: what it needs (`remote.shipment`).
            args: of its function; secrets travel here, never as arguments of a program.
            seconds: after which it ends itself.
            what: how evidence names it: the probe and what it was told, without secrets.
        """
        running = Running(self, next(self._numbers), seconds, what)
        with self._lock:
            lacking = {name: text for name, text in shipment["modules"].items() if name not in self._sent}
            self._sent |= set(lacking)
            self._running[running.number] = running
            over = self._over
            # Within the lock: an order that relies on modules another one brings must not overtake it.
            order = {"function": shipment["function"], "args": args, "seconds": seconds}
            self._order({"start": running.number, "modules": lacking, "packages": shipment["packages"], "order": order})
        if over:
            self._end()
        return running

    def enough(self, number: int) -> None:
        """Tells a probe that the asker has seen what it wanted."""
        self._order({"enough": number})

    def stop(self, number: int) -> None:
        """Tells the agent that nobody wants a probe's answer any more."""
        self._order({"stop": number})

    def close(self) -> None:
        """Ends the agent, and all its probes."""
        with contextlib.suppress(OSError):
            self._stdin.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def _order(self, said: dict[str, Any]) -> None:
        self._write(json.dumps(said) + "\n")

    def _write(self, text: str) -> None:
        # ssh's own words say why it is gone.
        with self._lock, contextlib.suppress(OSError, ValueError):
            self._stdin.write(text)
            self._stdin.flush()

    def _listen(self) -> None:
        for line in self._stdout:
            self._take(line)
        self._process.wait()
        self._errors.join(STOP_SECONDS)
        self._end()

    def _take(self, line: str) -> None:
        """Takes a line of the agent."""
        number, _, rest = line.partition(" ")
        kind, _, rest = rest.partition(" ")
        at, _, text = rest.partition(" ")
        running = self._running.get(int(number)) if number.isdecimal() else None
        there = _seconds(at)
        if running is None or there is None:
            self._said.append(line)
            return
        running.hear(kind, text.rstrip("\n"), there)
        if kind == "=":
            with self._lock:
                del self._running[running.number]

    def _end(self) -> None:
        with self._lock:
            self._over = True
            left, self._running = list(self._running.values()), {}
        for running in left:
            for line in self._said or [f"exit status {self._process.returncode}"]:
                running.hear("!", line)
            running.hear("=", "")


def _seconds(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


class Running:
    """A probe at work on a host.

    Args:
        channel: the host's agent.
        number: the agent's for it.
        seconds: after which it ends itself.
        what: how evidence names it.

    Attributes:
        began: when it did, by its host's monotonic clock; known once it told anything.
    """

    def __init__(self, channel: Channel, number: int, seconds: float, what: str) -> None:
        self.number, self.began = number, 0.0
        self._channel, self._host, self._what = channel, channel.host, what
        self._deadline = time.monotonic() + seconds + GRACE_SECONDS
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._said: list[str] = []
        self._ended = threading.Event()

    def hear(self, kind: str, text: str, there: float = 0.0) -> None:
        """Takes a line of the agent about it; see there."""
        if kind == "+":
            self.began = there
            return
        if kind == "=":
            if text:
                self._said = self._said or [f"exit status {text}"]
            self._ended.set()
            self._events.put(None)
            return
        if kind == "%":
            load, cpus = text.split()
            observations.strained(self._host, float(load), int(cpus))
            return
        if kind == ">":
            with contextlib.suppress(ValueError, KeyError, AttributeError):
                values = json.loads(text)
                self._events.put(Event(str(values.pop("event")), values, time.monotonic(), there))
                return
        self._said.append(text)

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
                said = " ".join(line.strip() for line in self._said[-3:])
                if REFUSAL in said:
                    why = said.partition(REFUSAL)[2]
                    raise Invalid(f"the probe on {self._host} could not become root: sudo said no: {why[:200]}; {BECOME_REMEDY}")
                raise Invalid(f"the probe on {self._host} ended without an answer: {said[:400]}")
            if event.name == "error":
                raise Invalid(f"the probe on {self._host} failed: {event.values['kind']}: {event.values['message']}")
            if event.name == "refused":
                raise Unmet(
                    f"a service refuses what it must allow, asked by the probe {self._what.split()[1]}",
                    event.values["message"],
                    "leave",
                    "see the service's journal",
                )
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
        self._channel.enough(self.number)

    def result(self) -> Any:
        """What it found."""
        with self:
            found = self.wait("result").values["data"]
        observations.note("packets", self._host, self._what, found)
        return found

    def stop(self) -> None:
        """Ends it, if it has not ended, and waits for that: without anybody at its standard input it goes away by itself."""
        if not self._ended.is_set():
            self._channel.stop(self.number)
            self._ended.wait(STOP_SECONDS + 1)
