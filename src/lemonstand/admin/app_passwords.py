"""App passwords of a running site: one a device, good for IMAP and submission, ended by itself (record 0046)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from lemonstand.admin.access import Hosts
from lemonstand.admin.sessions import end_sessions, marks_on
from lemonstand.admin.users import PROGRAM, Users, random_groups
from lemonstand.errors import InputError, LemonstandError
from lemonstand.policy.names import load_names
from lemonstand.site import Site
from lemonstand.site.fields import suggest

ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
"""32 letters and digits, none of which look alike, none of which need a second key on a telephone."""
ID_LETTERS = 4
GROUPS, GROUP_LETTERS = 4, 5
NO_ANSWER = '{"error": "no answer"}'
UNDER_WAY_SECONDS = 2.0
"""After which a login that was answered before it was revoked has become a session, which can be ended."""
STAMP = "%Y%m%d%H%M%S"
"""How a directory writes a time (RFC 4517 section 3.3.13), without fractions and zone: slapd's are UTC."""


@dataclass(frozen=True)
class AppPassword:
    """One app password.

    Args:
        user: whose.
        id: the characters it begins with.
        device: what for.
        made: when (UTC).
        used: when last (UTC); None: never. Written down once an hour at the most.
    """

    user: str
    id: str
    device: str
    made: datetime | None
    used: datetime | None


def generate_app_password() -> str:
    """Four characters that name it, then twenty that nobody guesses: 100 bits."""
    return random_groups(ALPHABET, ID_LETTERS, *(GROUP_LETTERS,) * GROUPS)


def session_mark(user: str, key: str) -> str:
    """What a frontend keeps with each session of an app password, as `ticket.lua` writes it."""
    return f"{key}/{user}"


class AppPasswords:
    """Makes, shows and revokes app passwords: in the directory, and for sessions at frontends.

    Args:
        site: the validated model.
        hosts: a way to its hosts.
        say: is told each step.
    """

    def __init__(self, site: Site, hosts: Hosts, say: Callable[[str], None]) -> None:
        self._site = site
        self._hosts = hosts
        self._say = say
        self._users = Users(site, hosts, say)

    def add(self, name: str, device: str) -> str:
        """Makes one; returns it. It is kept nowhere but as a hash."""
        text = generate_app_password()
        self._users.change({"action": "app-password", "name": load_names().canonical(name), "device": device.strip(), "password": text})
        return text

    def of(self, name: str = "") -> list[AppPassword]:
        """Those of a user, or everybody's. Each auth host is asked: what was used there, others don't know.

        Raises:
            LemonstandError: no auth host gives an answer, or there is no such user.
        """
        user = load_names().canonical(name) if name else ""
        order = json.dumps({"action": "app-passwords", "name": user}) + "\n"
        answers = self._hosts.run_on([host.name for host in self._site.group("auths")], PROGRAM, order, codes=(0, 1))
        found: dict[tuple[str, str], AppPassword] = {}
        faults: dict[str, str] = {}
        for host, answer in answers.items():
            said: dict[str, Any] = {"error": answer.what} if isinstance(answer, LemonstandError) else json.loads(answer or NO_ANSWER)
            if "error" in said:
                faults[host] = str(said["error"])
                continue
            for each in said["app_passwords"]:
                one = AppPassword(each["name"], each["id"], each["device"], _moment(each["made"]), _moment(each["used"]))
                there = found.get((one.user, one.id))
                used = max((each.used for each in (one, there) if each and each.used), default=None)
                found[one.user, one.id] = replace(one, used=used)
        if len(faults) == len(answers):
            host, fault = next(iter(faults.items()))
            raise LemonstandError(fault, host, "`lemonstand user list` shows who there is" if user else "see that one auth host is up")
        for host, fault in faults.items():
            self._say(f"{host} was not asked ({fault}): what was used there last is not shown")
        return sorted(found.values(), key=lambda each: (each.user, each.device.casefold()))

    def revoke(self, name: str, device: str) -> None:
        """Ends one, and its sessions; the user's others go on. Given again where it was cut off, it ends what is left.

        Raises:
            InputError: the user has none of that name or id; sessions by one that is gone already were ended.
            LemonstandError: it is revoked, and some frontends could not be told.
        """
        user = load_names().canonical(name)
        there = self.of(user)
        frontends = [host.name for host in self._site.group("frontends")]
        ids = [each.id for each in there if device.strip().casefold() == each.device.casefold() or device == each.id]
        if not ids:
            # The directory may have been told by a command that was cut off then.
            ended = end_sessions(self._hosts, frontends, marks=self._left_over(user, there, frontends)).ended
            names = [each.device for each in there]
            also = f"; sessions of one that is gone were ended: {ended}" if ended else ""
            remedy = suggest(device, names, f"lemonstand user app-password list {user}")
            raise InputError(f"{user} has no app password of '{device}'{also}", "DEVICE", remedy)
        self._users.change({"action": "revoke", "name": user, "ids": ids})
        marks = [session_mark(user, key) for key in ids]
        first = end_sessions(self._hosts, frontends, marks=marks)
        time.sleep(UNDER_WAY_SECONDS)
        then = end_sessions(self._hosts, frontends, marks=marks)
        self._say(f"{user}: {first.ended + then.ended} of its sessions ended")
        missed = then.untold | {host: f"{count} go on" for host, count in then.left.items()}
        if missed:
            host, why = next(iter(missed.items()))
            raise LemonstandError(
                f"it is revoked, and not all of its sessions on {', '.join(sorted(missed))} could be ended: {why}",
                host,
                f"see that it is up, then end all sessions of the user: lemonstand user lock {user}, and unlock",
            )

    def _left_over(self, user: str, there: list[AppPassword], frontends: list[str]) -> list[str]:
        """The marks of a user's sessions by app passwords that are gone."""
        seen = {mark for marks in marks_on(self._hosts, frontends)[0].values() for mark in marks if mark.partition("/")[2] == user}
        return sorted(seen - {session_mark(user, each.id) for each in there})


def _moment(text: str) -> datetime | None:
    """A time of the directory's."""
    return datetime.strptime(text[:14], STAMP).replace(tzinfo=UTC) if text else None
