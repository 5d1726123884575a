"""The agent that outlives connections (`lemonstand.probes.lasting`), and the way back to it."""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
import threading
import time
from collections import deque
from typing import Any

from lemonstand.remote.channel import STOP_SECONDS, Channel

TRIES = 60
RETURN_SECONDS = 1800.0
"""One absence: how often and how long it is tried to come back. A machine asleep does not try, so its sleep is not counted."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds between two tries; each pause is twice the one before."""
SOUND_SECONDS = 60.0
"""A connection that held for so long is sound: the next pause is the first one again."""
GREET_SECONDS = 60.0
"""After which a connection without an answer of the holder is given up."""
BEAT_SECONDS = 15.0
"""How often the holder is told that somebody is there; see `SILENT_SECONDS` there."""
FAREWELLS = 3
CLOSE_SECONDS = 10.0
"""How often, and for how long, it is tried to tell the holder to end; it ends by itself when the time of its probes is over."""


def awake_or_not() -> float:
    """Seconds of a clock that goes on while this machine sleeps, where it has one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class LastingChannel(Channel):
    """A channel whose probes go on without a connection, and that comes back to them.

    Args:
        host: its inventory name.
        command: the ssh command.
        given: what becoming root reads of standard input before the agent does.
        absences: where it is noted how long a connection was lost, seconds.
    """

    LASTING = True

    def __init__(self, host: str, command: list[str], given: str, absences: list[float]) -> None:
        self._name = secrets.token_hex(16)
        self._orders: deque[tuple[int, str]] = deque()
        """Those not known to have arrived."""
        self._absences = absences
        self._turn = self._heard = 0
        self._met = self._there = self._gone = False
        self._closing = threading.Event()
        super().__init__(host, command, given)
        threading.Thread(target=self._beat, daemon=True).start()

    def close(self) -> None:
        """Ends the holder and all its probes; if it can't be reached, it ends by itself."""
        self._closing.set()
        self._farewell()
        self._listener.join(CLOSE_SECONDS)
        with contextlib.suppress(OSError):
            self._process.kill()

    def _open(self) -> None:
        self._said.clear()
        super()._open()
        # A holder that was there once and is not any more has taken its probes along: another one would know nothing of them.
        self._write(json.dumps({"name": self._name, "begin": not self._met}) + "\n")
        self._write(json.dumps({"heard": self._heard}) + "\n")

    def _order(self, said: dict[str, Any]) -> None:
        with self._lock:
            self._turn += 1
            text = json.dumps({**said, "turn": self._turn}) + "\n"
            self._orders.append((self._turn, text))
            if self._there:
                self._write(text)

    def _beat(self) -> None:
        while not self._over and not self._closing.wait(BEAT_SECONDS):
            self._acknowledge()

    def _acknowledge(self) -> None:
        with self._lock:
            if self._there:
                self._write(json.dumps({"heard": self._heard}) + "\n")

    def _listen(self) -> None:
        pause, farewells = FIRST_PAUSE, 0
        back = self._greeted()
        while back:
            since = time.monotonic()
            self._hear()
            farewells += self._closing.is_set()
            # The courier ends with 0 when the holder has heard the farewell and is gone.
            if self._gone or (farewells and (self._process.returncode == 0 or farewells == FAREWELLS)):
                break
            pause = FIRST_PAUSE if time.monotonic() - since >= SOUND_SECONDS else pause
            back, pause = self._come_back(pause)
        self._end()

    def _greeted(self) -> bool:
        """Waits for the holder's answer on a new connection; without one the connection is ended."""
        watch = threading.Timer(GREET_SECONDS, self._process.kill)
        watch.daemon = True
        watch.start()
        try:
            while not self._there and (line := self._stdout.readline()):
                self._take(line)
        finally:
            watch.cancel()
        if not self._there:
            self._part()
        return self._there

    def _hear(self) -> None:
        while line := self._stdout.readline():
            self._take(line)
        self._part()

    def _part(self) -> None:
        with self._lock:
            self._there = False
            with contextlib.suppress(OSError):
                self._stdin.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.join(STOP_SECONDS)
        self._stdout.close()

    def _come_back(self, pause: float) -> tuple[bool, float]:
        """Tries to; whether it did, and the next pause. When the channel is closed meanwhile, once more at once: to say so."""
        lost, since = awake_or_not(), time.monotonic()
        tries = 0
        while tries < TRIES and time.monotonic() - since < RETURN_SECONDS and not self._gone:
            self._closing.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            tries += 1
            last = self._closing.is_set()
            self._open()
            back = self._greeted()
            last = last or (back and self._closing.is_set())
            if back:
                self._absences.append(round(awake_or_not() - lost, 1))
                if last:
                    self._farewell()
                return True, pause
            if last:
                break
        if not self._gone:
            self._said.append(f"the connection was lost, and {tries} tries in {time.monotonic() - since:.0f} s to come back failed")
        return False, pause

    def _farewell(self) -> None:
        with self._lock:
            if self._there:
                self._write('{"end": true}\n')
                with contextlib.suppress(OSError):
                    self._stdin.close()

    def _take(self, line: str) -> None:
        if not line.endswith("\n"):
            return  # half of one: the holder has it still
        count, _, rest = line.partition(" ")
        words = rest.split()
        if count == "0" and words and words[0] in {"-", "@"}:
            self._answered(words)
        elif not (self._there and count.isdecimal()):  # what logins print, say
            self._said.append(line)
        elif int(count) == self._heard + 1:
            self._heard += 1
            super()._take(rest)
            self._acknowledge()

    def _answered(self, words: list[str]) -> None:
        if words[0] == "-":
            self._gone = True
            self._said.append("who kept it while the connection was lost is gone: the host was started again, or its time was over")
            return
        turn = int(words[1])
        with self._lock:
            while self._orders and self._orders[0][0] <= turn:
                self._orders.popleft()
            if not self._there:
                self._there = self._met = True
                for _, text in self._orders:
                    self._write(text)
