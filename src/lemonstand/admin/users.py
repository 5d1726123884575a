"""Passwords of a running site's users, in the directory; what else there is to people stands in `people`."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable
from typing import Any

from lemonstand.admin.access import Hosts, Unreachable
from lemonstand.errors import InputError, LemonstandError
from lemonstand.policy.names import load_names
from lemonstand.site import Site
from lemonstand.site.seeds import prepared

PROGRAM = ("/usr/bin/python3", "/usr/local/lib/lemonstand/directory_users.py")
IN_STEP = "in step"
REPEATED = frozenset({"name", "password", "edition", "delete", "lock", "unlock", "ids"})
"""What an order may hold that is given on two hosts at a time: whichever of both stays, it says the same."""
NO_SLAPD = "slapd does not answer"
"""What the program on an auth host says of a twin that has all, and of a directory that is not there."""
ALPHABET = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
"""Without the letters and digits that look alike: somebody types it on a telephone."""


LEAST_PASSWORD = 12
"""Characters the directory asks for by default (`directory_password_length`)."""
ARGON2 = {"memory_kib": 19456, "iterations": 2, "parallelism": 1}
"""What a hash costs by default (`directory_argon2_*`)."""


def generate_password() -> str:
    """Twenty letters and digits, 116 bits, in groups of five."""
    return random_groups(ALPHABET, 5, 5, 5, 5)


def random_groups(alphabet: str, *letters: int) -> str:
    """Groups of random letters, so many each, with hyphens between."""
    return "-".join("".join(secrets.choice(alphabet) for _ in range(count)) for count in letters)


def checked_password(password: str) -> str:
    """A password in the form in which it is hashed and tried, if it could be one.

    Raises:
        InputError: it could not, and why.
    """
    try:
        text = prepared(password)
    except ValueError as problem:
        raise InputError(str(problem), "the password", "leave that out, or take another") from None
    if len(text) < LEAST_PASSWORD:
        what = f"the password has {len(text)} characters; the policy asks for {LEAST_PASSWORD}"
        raise InputError(what, "the password", "take a longer one")
    return text


def hash_password(password: str) -> str:
    """A hash for `password_hash`, as slapd here compares it: Argon2id (RFC 9106) over the prepared password.

    Raises:
        InputError: this can't be a password.
    """
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id  # noqa: PLC0415 - loads OpenSSL, for this alone

    text = checked_password(password)
    salt, cost = secrets.token_bytes(16), ARGON2
    made = Argon2id(salt=salt, length=32, iterations=cost["iterations"], lanes=cost["parallelism"], memory_cost=cost["memory_kib"])
    parts = [base64.b64encode(octets).decode("ascii").rstrip("=") for octets in (salt, made.derive(text.encode()))]
    return f"{{ARGON2}}$argon2id$v=19$m={cost['memory_kib']},t={cost['iterations']},p={cost['parallelism']}${parts[0]}${parts[1]}"


class Users:
    """Gives the directory orders, and sees to it that each auth host has them.

    Args:
        site: the validated model.
        hosts: a way to its hosts.
        say: is told each step.
    """

    def __init__(self, site: Site, hosts: Hosts, say: Callable[[str], None]) -> None:
        self._site = site
        self._hosts = hosts
        self._say = say

    def passwd(self, name: str, password: str) -> None:
        """Sets a password; open sessions stay.

        Raises:
            InputError: another directory judges this user's, so one that is set here would open nothing.
        """
        user = load_names().canonical(name)
        self.own_password(user)
        self.change({"action": "passwd", "name": user, "password": password})

    def own_password(self, user: str) -> None:
        """Refuses a password for a user whose is judged elsewhere (record 0049).

        Args:
            user: a name as it is kept.

        Raises:
            InputError: it is.
        """
        service = self._site.settings.services.directory
        if service is not None and service.judges(user):
            raise InputError(
                f"{user}'s password is judged by the directory {service.name}, which this site changes nothing in",
                f"{self._site.inventory} (lemonstand_services.directory)",
                f"have it changed there; for one device: lemonstand user app-password add {user} DEVICE",
            )

    def change(self, order: dict[str, Any]) -> None:
        """Has a change written. An auth host that is cut off from the one that took it is told by itself; which it can't be is said."""
        host, answer = self.order(order)
        several = len(self._site.group("auths")) > 1
        about = f"{order['name']}: " if "name" in order else ""
        if "name" in order:
            self._say(f"{about}{answer['done']}{f' (written on {host})' if several else ''}")
        elif several:
            self._say(f"written on {host}")
        domain = self._site.settings.internal_domain
        for twin, state in answer.get("twins", {}).items():
            name = twin.removesuffix(f".{domain}")
            if state == IN_STEP:
                continue
            if set(order) - {"action"} <= REPEATED and self._repeated(name, order):
                self._say(f"{about}{name} is out of step with {host} ({state}), so it was written on {name} as well")
            else:
                self._say(f"{about}{name} does not have it yet ({state}); it holds there as soon as {name} is in step")

    def _repeated(self, host: str, order: dict[str, Any]) -> bool:
        """Whether a change could be written on one more auth host."""
        try:
            answer: dict[str, Any] = json.loads(self._hosts.run(host, PROGRAM, json.dumps(order) + "\n", codes=(0, 1)) or "{}")
        except LemonstandError:
            return False
        return "done" in answer

    def order(self, order: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Carries out an order in the directory: on the first auth host that can be asked, which tells the others.

        Returns:
            The host, and what it answered.

        Raises:
            LemonstandError: it was refused, or no auth host can be asked.
        """
        lost: list[str] = []
        for host in (each.name for each in self._site.group("auths")):
            try:
                said = self._hosts.run(host, PROGRAM, json.dumps(order) + "\n", codes=(0, 1)) or '{"error": "no answer"}'
            except Unreachable as error:
                lost.append(f"{host}: {error.what}")
                continue
            answer: dict[str, Any] = json.loads(said)
            if "error" not in answer:
                return host, answer
            if answer["error"].startswith(NO_SLAPD):
                # Nothing was written there, and another one has the same accounts.
                lost.append(f"{host}: {answer['error']}")
                continue
            remedy = "lemonstand user add NAME" if "not in the directory" in answer["error"] else "mend that and try again"
            raise LemonstandError(str(answer["error"]), host, remedy)
        what = f"no directory can be asked: {'; '.join(lost)}"
        raise LemonstandError(what, "group 'auths'", "see that one auth host is up, then try again")
