"""Keeps orders at work on a host though the connection of who gave them is lost, until he comes back or their time is over.

Two processes. The *holder* is an agent (`agent`) that stands apart from the session which began it. It listens on a socket in the abstract
namespace: that is no file, it ends with the process, and whoever is not the same user (root) is sent away by what the kernel says of him.
The *courier* is what ssh runs: it finds the holder by its name, begins it if it may, and passes on octets both ways.

What the holder tells is kept until it is known to have been heard; what it is told is counted: so both arrive once, in order, whatever
becomes of connections. After the line of the agent's modules comes `{"name": ..., "begin": ...}` for the courier. Then, beside the agent's:

| in | means |
|---|---|
| `{"heard": N}` | all up to line N has arrived; first on each connection, then again and again: silence means that nobody is there |
| `"turn": N` within an order | its place among all: one that has come already is not carried out again |
| `{"end": true}` | end all, and go |

| out | means |
|---|---|
| `N NUMBER KIND AT TEXT` | the agent's lines, counted from 1 |
| `0 @ TURN` | all orders up to this one have arrived |
| `0 -` | the courier's: there is no holder of that name, and it may begin none |

The holder ends when it is told to; and when nobody is there and it holds nothing any more, or all that it holds has outlived its `seconds`.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import struct
import sys
import time
from collections import deque
from typing import Any

from lemonstand.probes.agent import PIECE, Agent, Sent, warm

SILENT_SECONDS = 60.0
"""After which who says nothing is not there any more."""
FAREWELL_SECONDS = 5.0
"""How long a courier that is not wanted any more waits for the holder to end."""
MOST_KEPT = 32 * 1024 * 1024
"""Octets kept for who is away; an order that tells more is ended."""
CREDENTIALS = struct.Struct("3i")
GONE = 4
"""Exit status of a courier without a holder."""


class Holder(Agent):
    """The agent that outlives connections.

    Args:
        sent: finds the modules that were sent.
        listener: where couriers knock.
    """

    def __init__(self, sent: Sent, listener: socket.socket) -> None:
        super().__init__(sent, b"")
        self._listener = listener
        self._courier: socket.socket | None = None
        self._last_courier: socket.socket | None = None
        self._greeted = False
        self._kept: deque[tuple[int, bytes]] = deque()
        self._size = self._count = self._turn = 0
        self._out = b""
        self._last_word = time.monotonic()
        self._until = 0.0
        self._ending = False

    def serve(self) -> None:
        """Works until it is told to end, or nobody can want anything of it any more."""
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ, self._meet)
        while not self._over:
            self._round()
            now = time.monotonic()
            if self._courier is not None and now >= self._last_word + SILENT_SECONDS:
                self._part()
            if self._courier is None and not self._ending:
                # Begun, but never asked: that connection was lost at once, and another may come.
                asked = self._turn > 0 or now >= self._last_word + SILENT_SECONDS
                self._over = asked and not self._holds()
                if self._holds() and now >= self._until:
                    self._end()
            self._over = self._over or (self._ending and not self._children)

    def _holds(self) -> bool:
        return bool(self._children or self._kept)

    def _due(self) -> list[float]:
        due = super()._due()
        if not self._ending:
            due.append(self._until if self._courier is None and self._holds() else self._last_word + SILENT_SECONDS)
        return due

    def _meet(self) -> None:
        """Takes a courier that knocks, in place of one whose connection may be dead without anybody having said so."""
        try:
            courier, _ = self._listener.accept()
        except OSError:  # it is gone again
            return
        if not _same_user(courier):
            courier.close()
            return
        self._part()
        courier.setblocking(False)
        self._courier, self._last_word = courier, time.monotonic()
        self._greeted = False
        self._selector.register(courier, selectors.EVENT_READ, self._talk)

    def _part(self) -> None:
        """Lets the courier go. What it was given last counts as unheard, and what it brought of a line is nothing."""
        if self._courier is not None:
            self._selector.unregister(self._courier)
            self._courier.close()
        self._courier, self._out, self._data = None, b"", b""

    def _talk(self) -> None:
        courier = self._courier
        if courier is None:
            return
        try:
            more = courier.recv(PIECE)
        except BlockingIOError:
            more = None
        except OSError:
            more = b""
        if more == b"" and self._ending:
            self._selector.unregister(courier)  # it waits for our end
            self._courier, self._last_courier = None, courier
            return
        if more == b"":
            self._part()
            return
        if more:
            self._last_word = time.monotonic()
            self._data += more
            self._orders()
        self._flush()

    def _obey(self, said: dict[str, Any]) -> None:
        if "heard" in said:
            self._forget(int(said["heard"]))
            if not self._greeted:
                self._greeted = True
                self._say(b"0 @ %d\n" % self._turn)
                for _, line in self._kept:
                    self._say(line)
            return
        if "end" in said:
            self._end()
            return
        if said["turn"] > self._turn:
            self._turn = said["turn"]
            if "start" in said:
                self._until = max(self._until, time.monotonic() + float(said["order"]["seconds"]))
            super()._obey(said)
        self._say(b"0 @ %d\n" % self._turn)

    def _forget(self, heard: int) -> None:
        while self._kept and self._kept[0][0] <= heard:
            self._size -= len(self._kept.popleft()[1])

    def _tell(self, number: int, kind: bytes, line: bytes) -> None:
        if self._size > MOST_KEPT and kind in {b">", b"!"}:
            child = self._children.get(number)
            if child is None or child.kill_at:
                return
            self._stop(child)
            kind, line = b"!", b"told more than can be kept for who is away"
        self._count += 1
        text = b"%d %d %s %.3f %s\n" % (self._count, number, kind, time.monotonic(), line)
        self._kept.append((self._count, text))
        self._size += len(text)
        if self._courier is not None and self._greeted:
            self._say(text)

    def _say(self, line: bytes) -> None:
        self._out += line
        self._flush()

    def _flush(self) -> None:
        if self._courier is None:
            return
        try:
            self._out = self._out[self._courier.send(self._out) :] if self._out else b""
        except BlockingIOError:
            pass
        except OSError:  # whoever reads next finds that it is gone
            self._out = b""
        self._selector.modify(self._courier, selectors.EVENT_READ | (selectors.EVENT_WRITE if self._out else 0), self._talk)

    def _end(self) -> None:
        self._ending = True
        for child in self._children.values():
            self._stop(child)


def main(sent: Sent, data: bytes) -> None:
    """The courier; it ends when either side does."""
    while b"\n" not in data:
        more = os.read(0, PIECE)
        if not more:
            sys.exit(3)
        data += more
    line, _, rest = data.partition(b"\n")
    told = json.loads(line)
    holder = _reach(sent, f"\0lemonstand-{told['name']}", begin=told["begin"])
    if holder is None:
        os.write(1, b"0 -\n")
        sys.exit(GONE)
    _pass_on(holder, rest)


def _reach(sent: Sent, name: str, *, begin: bool) -> socket.socket | None:
    """A connection to the holder of that name; None if there is none."""
    found = _connected(name)
    if found is not None or not begin:
        return found
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(name)
        listener.listen()
    except OSError:  # one came first
        listener.close()
        return _connected(name)
    process = os.fork()
    if process == 0:
        _stand_apart(sent, listener)
    listener.close()
    os.waitpid(process, 0)
    return _connected(name)


def _connected(name: str) -> socket.socket | None:
    holder = socket.socket(socket.AF_UNIX)
    try:
        holder.connect(name)
    except OSError:
        holder.close()
        return None
    if _same_user(holder):
        return holder
    holder.close()
    return None


def _same_user(other: socket.socket) -> bool:
    _, user, _ = CREDENTIALS.unpack(other.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))
    return bool(user == os.geteuid())


def _stand_apart(sent: Sent, listener: socket.socket) -> None:
    """The holder, out of the session that began it; it never returns."""
    code = 1
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.setsid()
        if os.fork():
            os._exit(0)
        os.chdir("/")
        nowhere = os.open(os.devnull, os.O_RDWR)
        for place in (0, 1, 2):
            os.dup2(nowhere, place)
        os.close(nowhere)
        warm()
        Holder(sent, listener).serve()
        code = 0
    finally:
        os._exit(code)


def _pass_on(holder: socket.socket, first: bytes) -> None:
    with contextlib.suppress(OSError):
        holder.sendall(first)
        ready = selectors.DefaultSelector()
        ready.register(0, selectors.EVENT_READ)
        ready.register(holder, selectors.EVENT_READ)
        until: float | None = None
        while until is None or until > time.monotonic():
            for key, _ in ready.select(until and max(0.0, until - time.monotonic())):
                if key.fd == 0:
                    more = os.read(0, PIECE)
                    holder.sendall(more)
                    if not more:
                        ready.unregister(0)
                        holder.shutdown(socket.SHUT_WR)
                        until = time.monotonic() + FAREWELL_SECONDS
                else:
                    more = holder.recv(PIECE)
                    if not more:
                        return
                    while more:
                        more = more[os.write(1, more) :]
