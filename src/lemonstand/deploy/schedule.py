"""Has systemd give a command of ours by itself, on the controller (docs/decisions/0044)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lemonstand.errors import InputError, LemonstandError
from lemonstand.files import write_text

MACHINES = Path("/etc/systemd/system")
SECONDS = 3600
"""A run that takes longer is ended; what it began is finished by the next."""


@dataclass(frozen=True)
class Schedule:
    """A timer with its service.

    Args:
        name: of both units, without their endings.
        user: whether they are the user's, and not the machine's.
    """

    name: str
    user: bool

    @property
    def folder(self) -> Path:
        """Where the units lie (systemd.unit(5))."""
        if not self.user:
            return MACHINES
        own = os.environ.get("XDG_CONFIG_HOME", "")
        return (Path(own) if own.startswith("/") else Path.home() / ".config") / "systemd" / "user"

    @property
    def service(self) -> Path:
        """The unit that gives the command."""
        return self.folder / f"{self.name}.service"

    @property
    def timer(self) -> Path:
        """The unit that says when."""
        return self.folder / f"{self.name}.timer"

    @property
    def manager(self) -> list[str]:
        """`systemctl` for the manager that has these units."""
        return ["systemctl", *(["--user"] if self.user else [])]

    def is_there(self) -> bool:
        """Whether it was set up, and not taken away."""
        return self.timer.exists()

    def state(self) -> str:
        """What systemd says of the timer: `active` if it will run."""
        done = subprocess.run([*self.manager, "is-active", self.timer.name], capture_output=True, text=True, check=False)
        return done.stdout.strip() or "unknown"

    def calendar(self) -> str:
        """When it runs, as systemd has it."""
        found = re.search(r"^OnCalendar=(.*)$", self.timer.read_text(encoding="utf-8"), re.MULTILINE)
        return found.group(1) if found else "?"

    def set_up(self, words: Sequence[str], calendar: str, environment: Mapping[str, str], about: str) -> None:
        """Writes both units, gives the command once as systemd will, and begins only if that went well.

        Args:
            words: the command. No secrets: everybody can read a unit.
            calendar: when (systemd.time(7)): `daily`, `*-*-* 03:30`.
            environment: variables of the command; no secrets.
            about: what it does, in a few words.

        Raises:
            InputError: systemd isn't there, or does not understand the calendar.
            LemonstandError: the command failed; the units are gone again.
        """
        if (
            shutil.which("systemctl") is None
            or subprocess.run([*self.manager, "show-environment"], capture_output=True, check=False).returncode
        ):
            raise InputError(
                f"systemd does not answer as the manager of {'this user' if self.user else 'this machine'}", " ".join(self.manager),
                "schedule the command by what this machine has; it is: " + " ".join(words),
            )  # fmt: skip
        known = subprocess.run(["systemd-analyze", "calendar", calendar], capture_output=True, text=True, check=False)
        if known.returncode:
            raise InputError(f"'{calendar}' is no time that systemd understands", "--calendar", "write it as in systemd.time(7): daily")
        before = {path: path.read_bytes() for path in (self.service, self.timer) if path.exists()}
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.service, service_text(words, environment, about))
        self.service.chmod(0o644)
        self._call("daemon-reload")
        done = subprocess.run([*self.manager, "start", self.service.name], capture_output=True, text=True, check=False)
        if done.returncode:
            said = self._journal()
            self.service.unlink()
            for path, data in before.items():
                path.write_bytes(data)
            self._call("daemon-reload")
            raise LemonstandError(
                f"as systemd runs it the command fails, so nothing was scheduled: {said or done.stderr.strip()}", self.service.name,
                "what it needs has to be there without a terminal and without your shell: files for passwords, a key for SSH",
            )  # fmt: skip
        write_text(self.timer, timer_text(calendar, about))
        self.timer.chmod(0o644)
        self._call("daemon-reload")
        self._call("enable", "--quiet", self.timer.name)
        self._call("restart", self.timer.name)

    def take_away(self) -> None:
        """Removes both units; a run that is going on ends by itself.

        Raises:
            LemonstandError: systemd refuses.
        """
        self._call("disable", "--quiet", "--now", self.timer.name)
        self.timer.unlink(missing_ok=True)
        self.service.unlink(missing_ok=True)
        self._call("daemon-reload")

    def _call(self, *words: str) -> None:
        done = subprocess.run([*self.manager, *words], capture_output=True, text=True, check=False)
        if done.returncode:
            raise LemonstandError(
                done.stderr.strip() or f"exit status {done.returncode}", " ".join([*self.manager, *words]), "see what it says"
            )

    def _journal(self) -> str:
        """The last lines the service printed, if this user may read them."""
        kind = "--user-unit" if self.user else "--unit"
        words = ["journalctl", "--quiet", "--no-pager", "--output=cat", "--lines=15", kind, self.service.name]
        try:
            return subprocess.run(words, capture_output=True, text=True, check=False, timeout=30).stdout.strip()
        except (OSError, subprocess.TimeoutExpired):
            return ""


def quoted(word: str) -> str:
    """A word of a unit, with nothing in it that systemd would read as its own (systemd.service(5), systemd.unit(5))."""
    for own, written in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%"), ("\n", "\\n")):
        word = word.replace(own, written)
    return f'"{word}"'


def service_text(words: Sequence[str], environment: Mapping[str, str], about: str) -> str:
    """The unit that gives the command once."""
    lines = [
        "# Written by lemonstand; `lemonstand certificates unschedule` removes it.",
        "[Unit]",
        f"Description={about}",
        "Wants=network-online.target",
        "After=network-online.target",
        "",
        "[Service]",
        "Type=oneshot",
        f"WorkingDirectory={str(Path.cwd()).replace('%', '%%')}",
        *(f"Environment={quoted(f'{name}={value}')}" for name, value in sorted(environment.items())),
        "ExecStart=" + " ".join(quoted(word).replace("$", "$$") for word in words),
        f"TimeoutStartSec={SECONDS}",
    ]
    return "\n".join(lines) + "\n"


def timer_text(calendar: str, about: str) -> str:
    """The unit that says when."""
    lines = [
        "# Written by lemonstand; `lemonstand certificates unschedule` removes it.",
        "[Unit]",
        f"Description={about}",
        "",
        "[Timer]",
        f"OnCalendar={calendar}",
        "AccuracySec=10s",
        "# A machine that was off at the time does it when it is back.",
        "Persistent=true",
        "",
        "[Install]",
        "WantedBy=timers.target",
    ]
    return "\n".join(lines) + "\n"
