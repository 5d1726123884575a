"""Stays on a host as long as somebody asks, and carries out each order in a process of its own.

Standard input brings one JSON object a line, standard output tells lines `NUMBER KIND AT TEXT`; `AT`: this host's monotonic clock, seconds.

| in | means |
|---|---|
| `{"start": NUMBER, "modules": {...}, "packages": [...], "order": {...}}` | carry out an order (`execute`); modules: not sent before |
| `{"enough": NUMBER}` | the asker has seen what it wanted |
| `{"stop": NUMBER}` | nobody wants the answer any more |

| kind | text |
|---|---|
| `+` | none: the order's process was begun |
| `>` | a line the order's process printed: an event |
| `!` | a line it wrote to standard error |
| `%` | this host's load over the last minute, and its CPUs |
| `=` | its exit status, as a shell has it; nothing follows |

A process is forked for each order, so that a probe which breaks, hangs or changes its user spoils no other. The agent imports what probes
need before it forks: that is most of what starting one would cost. When standard input ends, the agent ends, and with it all processes:
each ends itself when its own standard input does. Orders that outlive a connection are those of `lasting`, which is an agent as well.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import selectors
import signal
import sys
import time
from dataclasses import dataclass, field
from typing import Any, Protocol

STOP_SECONDS = 2.0
"""After which a process that is not wanted any more, and does not end, is killed."""
PIECE = 65536
WARM = ("email.message", "http.client", "socket", "ssl", "subprocess", "tempfile", "concurrent.futures")
"""Modules of the standard library that most probes import."""


class Sent(Protocol):
    """What `boot.Sent` is."""

    modules: dict[str, str]
    packages: set[str]


@dataclass
class Child:
    """A process at work on an order.

    Args:
        number: the order's.
        process: its id.
        ended: descriptor that can be read once it has ended.
        speak: the way to its standard input; -1 once closed.
        rest: by descriptor of its output, what has no end of line yet.
        kill_at: when it is killed; 0: not at all.
    """

    number: int
    process: int
    ended: int
    speak: int
    rest: dict[int, bytes] = field(default_factory=dict)
    kinds: dict[int, bytes] = field(default_factory=dict)
    kill_at: float = 0.0


class Agent:
    """The agent.

    Args:
        sent: finds the modules that were sent.
        data: what was read of standard input already.
    """

    def __init__(self, sent: Sent, data: bytes) -> None:
        self._sent, self._data = sent, data
        self._selector = selectors.DefaultSelector()
        self._children: dict[int, Child] = {}
        self._over = False

    def serve(self) -> None:
        """Works until standard input ends."""
        self._selector.register(0, selectors.EVENT_READ, self._read)
        self._orders()
        while not self._over:
            self._round()

    def _round(self) -> None:
        """Waits until there is something to do, and does it."""
        for key, _ in self._selector.select(self._patience()):
            if not isinstance(key.data, Child):
                key.data()
            elif key.fd == key.data.ended:
                self._finish(key.data)
            else:
                self._pass_on(key.data, key.fd)
        self._kill_late()

    def _read(self) -> None:
        more = os.read(0, PIECE)
        self._data += more
        self._over = not more
        self._orders()

    def _due(self) -> list[float]:
        """When there is something to do though nothing comes."""
        return [child.kill_at for child in self._children.values() if child.kill_at]

    def _patience(self) -> float | None:
        due = self._due()
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _kill_late(self) -> None:
        for child in self._children.values():
            if child.kill_at and child.kill_at <= time.monotonic():
                child.kill_at = 0.0
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.process, signal.SIGKILL)

    def _orders(self) -> None:
        *lines, self._data = self._data.split(b"\n")
        for line in lines:
            self._obey(json.loads(line))

    def _obey(self, said: dict[str, Any]) -> None:
        if "start" in said:
            self._sent.modules.update(said["modules"])
            self._sent.packages.update(said["packages"])
            self._start(int(said["start"]), said["order"])
        elif "enough" in said and (child := self._children.get(said["enough"])) and child.speak >= 0:
            with contextlib.suppress(OSError):
                os.write(child.speak, b"enough\n")
        elif "stop" in said and (child := self._children.get(said["stop"])):
            self._stop(child)

    def _stop(self, child: Child) -> None:
        self._hush(child)
        child.kill_at = child.kill_at or time.monotonic() + STOP_SECONDS

    def _start(self, number: int, order: dict[str, Any]) -> None:
        # What can't be imported is told by the order's own process, which tries again.
        with contextlib.suppress(Exception):
            importlib.import_module(f"lemonstand.probes.{order['function'].rpartition('.')[0]}")
        theirs, speak = os.pipe()
        heard, out = os.pipe()
        grumbled, errors = os.pipe()
        process = os.fork()
        if process == 0:
            _carry_out(order, theirs, out, errors)
        for each in (theirs, out, errors):
            os.close(each)
        child = Child(number, process, os.pidfd_open(process), speak, kinds={heard: b">", grumbled: b"!"})
        child.rest = dict.fromkeys(child.kinds, b"")
        self._children[number] = child
        for each in (*child.kinds, child.ended):
            self._selector.register(each, selectors.EVENT_READ, child)
        self._tell(number, b"+", b"")

    def _pass_on(self, child: Child, descriptor: int) -> bool:
        """Passes on what a process wrote; whether there may be more."""
        if descriptor not in child.kinds:
            return False
        piece = os.read(descriptor, PIECE)
        *lines, child.rest[descriptor] = (child.rest[descriptor] + piece).split(b"\n")
        if not piece and child.rest[descriptor]:
            lines.append(child.rest[descriptor])
        for line in lines:
            self._tell(child.number, child.kinds[descriptor], line)
        if not piece:
            self._selector.unregister(descriptor)
            os.close(descriptor)
            del child.kinds[descriptor]
        return bool(piece)

    def _finish(self, child: Child) -> None:
        _, status = os.waitpid(child.process, 0)
        for descriptor in list(child.kinds):
            os.set_blocking(descriptor, False)
            # Whom a probe started and left behind may hold the other end for ever: what is there now is all.
            with contextlib.suppress(BlockingIOError):
                while self._pass_on(child, descriptor):
                    pass
            if descriptor in child.kinds:
                self._selector.unregister(descriptor)
                os.close(descriptor)
        child.kinds.clear()
        self._selector.unregister(child.ended)
        os.close(child.ended)
        self._hush(child)
        del self._children[child.number]
        code = os.waitstatus_to_exitcode(status)
        self._tell(child.number, b"%", b"%.1f %d" % (os.getloadavg()[0], os.cpu_count() or 1))
        self._tell(child.number, b"=", str(code if code >= 0 else 128 - code).encode())

    def _hush(self, child: Child) -> None:
        if child.speak >= 0:
            os.close(child.speak)
            child.speak = -1

    def _tell(self, number: int, kind: bytes, line: bytes) -> None:
        data = b"%d %s %.3f %s\n" % (number, kind, time.monotonic(), line)
        while data:
            data = data[os.write(1, data) :]


def _carry_out(order: dict[str, Any], given: int, out: int, errors: int) -> None:
    """The forked process; it never returns."""
    code = 1
    try:
        for descriptor, place in ((given, 0), (out, 1), (errors, 2)):
            os.dup2(descriptor, place)
        # Nobody else's: whoever holds the way to another's standard input keeps that one from ending.
        os.closerange(3, os.sysconf("SC_OPEN_MAX") if os.sysconf("SC_OPEN_MAX") < PIECE else PIECE)
        importlib.import_module("lemonstand.probes.execute").main(order)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException as fault:
        sys.stderr.write(f"{type(fault).__name__}: {fault}\n")
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def warm() -> None:
    """Imports what most probes need."""
    for name in ("lemonstand.probes.execute", *WARM):
        importlib.import_module(name)


def main(sent: Sent, data: bytes) -> None:
    """Serves until nobody asks any more."""
    warm()
    Agent(sent, data).serve()
