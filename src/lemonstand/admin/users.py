"""Users of a running site: passwords and locks in the directory, live sessions on the stores."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lemonstand.admin.access import Hosts, Unreachable
from lemonstand.errors import InputError, LemonstandError
from lemonstand.site import Site
from lemonstand.site.fields import suggest
from lemonstand.site.seeds import prepared

PROGRAM = ("/usr/bin/python3", "/usr/local/lib/lemonstand/directory_users.py")
TICKET_SECONDS = 65
"""How long a ticket of before may still open a session: a minute, and five seconds for a store whose clock is behind."""
IN_STEP = "in step"
REPEATED = frozenset({"passwd", "lock", "unlock"})
"""Changes that may be made on two hosts at a time: whichever of both stays, it says the same."""
NO_SLAPD = "slapd does not answer"
"""What the program on an auth host says of a twin that has all, and of a directory that is not there."""
NOBODY = 68
"""What `doveadm kick` says if the user has no session (EX_NOHOST)."""
ALPHABET = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
"""Without the letters and digits that look alike: somebody types it on a telephone."""


LEAST_PASSWORD = 12
"""Characters the directory asks for by default (`directory_password_length`)."""
ARGON2 = {"memory_kib": 19456, "iterations": 2, "parallelism": 1}
"""What a hash costs by default (`directory_argon2_*`)."""


@dataclass(frozen=True)
class Account:
    """A user as inventory and directory know him.

    Args:
        state: `active`, `locked`, `no password`; `not in the directory`; `not in the inventory`.
        password_set: the day, YYYYMMDD; empty if unknown.
    """

    name: str
    store: str
    state: str
    password_set: str = ""


def generate_password() -> str:
    """Twenty letters and digits, 116 bits, in groups of five."""
    return "-".join("".join(secrets.choice(ALPHABET) for _ in range(5)) for _ in range(4))


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
    """Does what an operator wants done to users.

    Args:
        site: the validated model.
        hosts: a way to its hosts.
        say: is told each step.
    """

    def __init__(self, site: Site, hosts: Hosts, say: Callable[[str], None]) -> None:
        self._site = site
        self._hosts = hosts
        self._say = say

    def known(self, name: str) -> str:
        """The user's name as the inventory has it.

        Raises:
            InputError: it has none of this name.
        """
        names = [user.name for user in self._site.settings.users]
        wanted = name.lower()
        if wanted in names:
            return wanted
        raise InputError(
            f"'{name}' is not in lemonstand_users, from which mailboxes and addresses are made",
            str(self._site.inventory),
            suggest(
                wanted, names, f"add `- name: {wanted}` to lemonstand_users, run `lemonstand apply`, then `lemonstand user add {wanted}`"
            ),
        )

    def list(self) -> list[Account]:
        """Everybody in the inventory or in the directory."""
        found = {each["name"]: each for each in self._order({"action": "list"})[1]["users"]}
        listed = {user.name: self._store(user.name) for user in self._site.settings.users}
        rows = []
        for name, store in listed.items():
            entry = found.get(name)
            state = entry["state"] if entry else "not in the directory"
            rows.append(Account(name, store, state, entry["password_set"] if entry else ""))
        rows += [
            Account(name, each["store"], "not in the inventory", each["password_set"]) for name, each in found.items() if name not in listed
        ]
        return rows

    def add(self, name: str, password: str) -> None:
        """Gives a user of the inventory an entry with a password."""
        user = next(each for each in self._site.settings.users if each.name == self.known(name))
        order = {"action": "add", "name": user.name, "store": self._store(user.name), "aliases": list(user.aliases), "password": password}
        self._change(order)

    def passwd(self, name: str, password: str) -> None:
        """Sets a password; open sessions stay."""
        wanted = self.known(name)
        self._change({"action": "passwd", "name": wanted, "password": password})

    def lock(self, name: str) -> None:
        """Refuses new tickets, then ends live sessions. What a ticket of before may still open is ended by `end_sessions` later."""
        self._change({"action": "lock", "name": name}, ": no new session")
        self.end_sessions(name)

    def unlock(self, name: str) -> None:
        """Lets the password count again."""
        self._change({"action": "unlock", "name": name})

    def delete(self, name: str) -> None:
        """Removes a user whom the inventory no longer names, and ends his sessions.

        Raises:
            InputError: the inventory still names him: the next apply would bring him back.
        """
        if name in {user.name for user in self._site.settings.users}:
            raise InputError(
                f"'{name}' is in lemonstand_users: the next apply would add the account again",
                str(self._site.inventory),
                f"remove it there first; to keep the user out meanwhile: lemonstand user lock {name}",
            )
        self._change({"action": "delete", "name": name}, "; mail stays where it is")
        self.end_sessions(name)

    def end_sessions(self, name: str) -> None:
        """Ends every live session of a user on every store.

        Raises:
            LemonstandError: a store could not be told: sessions there may live on.
        """
        stores = [host.name for host in self._site.group("stores")]
        answers = self._hosts.run_on(stores, ["doveadm", "kick", name], codes=(0, NOBODY))
        failed = {host: answer for host, answer in answers.items() if isinstance(answer, LemonstandError)}
        if failed:
            host, why = next(iter(failed.items()))
            raise LemonstandError(
                f"sessions of {name} may live on at {', '.join(failed)}: {why}",
                host,
                f"new ones are refused; repeat the command, or on the host: doveadm kick {name}",
            )
        self._say(f"{name}: live sessions ended at {', '.join(stores)}")

    def _store(self, name: str) -> str:
        user = next(each for each in self._site.settings.users if each.name == name)
        return f"{self._site.store_of(user)}.{self._site.settings.internal_domain}"

    def _change(self, order: dict[str, Any], meaning: str = "") -> None:
        """Has a change written, and says on which host. One that is cut off from it is told by itself; which it can't be is said."""
        host, answer = self._order(order)
        several = len(self._site.group("auths")) > 1
        self._say(f"{order['name']}: {answer['done']}{f' (written on {host})' if several else ''}{meaning}")
        domain = self._site.settings.internal_domain
        for twin, state in answer.get("twins", {}).items():
            name = twin.removesuffix(f".{domain}")
            if state == IN_STEP:
                continue
            if order["action"] in REPEATED and self._repeated(name, order):
                self._say(f"{order['name']}: {name} is out of step with {host} ({state}), so it was written on {name} as well")
            else:
                self._say(f"{order['name']}: {name} does not have it yet ({state}); it holds there as soon as {name} is in step")

    def _repeated(self, host: str, order: dict[str, Any]) -> bool:
        """Whether a change could be written on one more auth host."""
        try:
            answer: dict[str, Any] = json.loads(self._hosts.run(host, PROGRAM, json.dumps(order) + "\n", codes=(0, 1)) or "{}")
        except LemonstandError:
            return False
        return "done" in answer

    def _order(self, order: dict[str, Any]) -> tuple[str, dict[str, Any]]:
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
