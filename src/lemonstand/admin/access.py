"""Runs a program on hosts of an inventory over the management zone; what it must know goes through its standard input."""

from __future__ import annotations

import base64
import contextlib
import json
import shlex
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread
from typing import IO, cast

from lemonstand.errors import LemonstandError
from lemonstand.remote.connections import BECOME_REMEDY, Connection, read_connections, sockets_directory
from lemonstand.remote.host_keys import is_unknown
from lemonstand.remote.host_keys import remedy as remedy_for
from lemonstand.surroundings import environment

ANSWER_SECONDS = 60
LOST = 255
"""ssh's exit status where it did not get to the host."""
PYTHON = ("/usr/bin/python3", "-I", "-B", "-")
"""What runs a program that comes over standard input."""


def program(text: str, order: Mapping[str, object], entry: str = "main_encoded") -> str:
    """A program as `PYTHON` takes it, with a call of one of its functions that take an order as JSON in base64."""
    packed = base64.b64encode(json.dumps(dict(order)).encode()).decode("ascii")
    return f'{text}\nraise SystemExit({entry}("{packed}"))\n'


def heard(words: Sequence[str], given: str, silence: float) -> subprocess.CompletedProcess[str]:
    """Runs a command for as long as it says something.

    Args:
        given: its standard input.
        silence: seconds without a word after which it is ended.

    Raises:
        subprocess.TimeoutExpired: it said nothing for so long.
    """
    said: dict[str, list[str]] = {"out": [], "err": []}
    last = time.monotonic()

    def listen(stream: IO[str], to: list[str]) -> None:
        nonlocal last
        for line in stream:
            last = time.monotonic()
            to.append(line)

    pipe = subprocess.PIPE
    with subprocess.Popen(list(words), stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment()) as process:
        given_to, *heard_from = cast("list[IO[str]]", [process.stdin, process.stdout, process.stderr])
        listeners = [Thread(target=listen, args=each) for each in zip(heard_from, said.values(), strict=True)]
        for each in listeners:
            each.start()
        with contextlib.suppress(BrokenPipeError), given_to as stream:
            stream.write(given)
        while process.poll() is None:
            if time.monotonic() - last > silence:
                process.kill()
                raise subprocess.TimeoutExpired(list(words), silence)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(min(1.0, silence))
        for each in listeners:
            each.join()
    return subprocess.CompletedProcess(list(words), process.returncode, "".join(said["out"]), "".join(said["err"]))


class Unreachable(LemonstandError):
    """There is no way to a host: nothing was run there."""


class Hosts:
    """The hosts of an inventory. Use it as a context: connections are kept for its time.

    Args:
        inventory: the site's directory or hosts file.
        ways: its connections, if they are known already (`SOCKETS` in place of a directory).
    """

    def __init__(self, inventory: Path, ways: Mapping[str, Connection] | None = None) -> None:
        self._inventory = inventory
        self._ways = ways
        self._used: set[str] = set()
        self._sockets = sockets_directory()
        self._connections: dict[str, Connection] = {}

    def __enter__(self) -> Hosts:
        """Itself, ready to run programs."""
        try:
            known = self._ways
            self._connections = (
                read_connections(self._inventory, self._sockets)
                if known is None
                else {name: way.at(self._sockets) for name, way in known.items()}
            )
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for way in (self._connections[host] for host in self._used):
            close = ["ssh", *shlex.split(way.ssh_arguments), "-O", "exit", way.target]
            subprocess.run(close, capture_output=True, check=False)
        shutil.rmtree(self._sockets, ignore_errors=True)

    def way(self, host: str) -> Connection:
        """How a host is reached."""
        return self._connections[host]

    def run(
        self,
        host: str,
        command: Sequence[str],
        given: str = "",
        *,
        codes: tuple[int, ...] = (0,),
        seconds: float = ANSWER_SECONDS,
        breathes: bool = False,
    ) -> str:
        """Runs a command as root and returns what it printed.

        Args:
            host: inventory name.
            command: its words; no secrets, they are visible to everybody there.
            given: its standard input.
            codes: exit statuses that are no error.
            seconds: within which it has to end.
            breathes: its work grows with mail or people, and it prints an empty line now and then while it is at it: `seconds` are the
                longest it may say nothing.

        Raises:
            LemonstandError: the host can't be reached, or the command failed.
        """
        way = self._connections[host]
        self._used.add(host)
        words = ["ssh", *shlex.split(way.ssh_arguments), way.target, way.as_root(command)]
        try:
            if breathes:
                done = heard(words, way.given(given), seconds)
            else:
                done = subprocess.run(
                    words, input=way.given(given), capture_output=True, text=True, timeout=seconds, check=False, env=environment()
                )
        except subprocess.TimeoutExpired:
            raise LemonstandError(f"{host} gave no answer within {seconds} s", host, "see whether it is up, then try again") from None
        refusal = way.refusal(done.returncode, done.stderr)
        if refusal:
            raise LemonstandError(f"{host} can't be asked as root: {refusal}", host, BECOME_REMEDY)
        if done.returncode not in codes:
            said = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            if done.returncode == LOST and is_unknown(done.stderr):
                raise Unreachable(f"the machine that answers for {host} has an SSH key that is not the one known", host, remedy_for(host))
            remedy = (
                f"see if `ansible {host} -m ping` works" if done.returncode == LOST else f"`lemonstand apply --limit {host}` mends the host"
            )
            kind = Unreachable if done.returncode == LOST else LemonstandError
            raise kind(f"{command[0]} failed: {said[:300]}", host, remedy)
        return done.stdout

    def run_on(
        self, hosts: Sequence[str], command: Sequence[str], given: str = "", *, codes: tuple[int, ...] = (0,)
    ) -> dict[str, str | LemonstandError]:
        """Runs a command on several hosts at once; an error is returned in its place, so that one host's trouble stops no other."""

        def one(host: str) -> str | LemonstandError:
            try:
                return self.run(host, command, given, codes=codes)
            except LemonstandError as error:
                return error

        with ThreadPoolExecutor(max_workers=max(1, min(16, len(hosts)))) as pool:
            return dict(zip(hosts, pool.map(one, hosts), strict=True))
