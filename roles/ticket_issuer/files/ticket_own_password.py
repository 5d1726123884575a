"""A user's own password, changed by who knows it: what a new one must be, and what is answered (docs/decisions/0050).

Whoever asks shows the old password, which costs and counts what a login costs and counts: there is no cheaper way to try one. The directory
takes the change from the user himself; the issuer has no right to anybody's password.
"""

# ruff: noqa: PLC0415 - packages of the host

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl

from ticket_behind import APP_PASSWORD, DirectoryUnavailable
from ticket_issuer import LONGEST_PASSWORD, NOT_A_NAME, Directory, alarm, normalise_login, prepare
from ticket_turns import Busy

if TYPE_CHECKING:
    from flask import Flask
    from ticket_issuer import Settings, Tries

SERVICE = "own-password"
"""What this way is called in the issuer's journal."""
WINDOW_SECONDS = 3600


class Unfit(Exception):
    """This can't be somebody's new password."""


class Outcome(NamedTuple):
    """What came of a question.

    Args:
        verdict: `changed`, or an error as the token endpoint has it.
        status: HTTP status (RFC 9110).
        login: the user, as it was asked for.
        limit: the count that is closed.
        reason: what was wrong beside that.
    """

    verdict: str
    status: int
    login: str = ""
    limit: str | None = None
    reason: str | None = None


def typed(body: bytes) -> dict[str, str]:
    """Return the fields of a form (application/x-www-form-urlencoded).

    Flask's own reading leaves octets that are no UTF-8 as `%FF`, so that a password would be another one than was typed.

    Raises:
        ValueError: it is none.
    """
    return dict(parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=16))


def fitting(password: str, login: str, least: int) -> str:
    """Return a new password in the form its hash is made of (RFC 8265 section 4.2).

    Args:
        least: characters it must have.

    Raises:
        Unfit: it is none a user may have, by the rules that operators are held to (`directory_users.py`, a role of its own; a test
            holds the two to one another).
    """
    from precis_i18n import get_profile

    if len(password) > LONGEST_PASSWORD:
        raise Unfit("too long")
    try:
        text: str = get_profile("OpaqueString").enforce(password)
    except UnicodeEncodeError as problem:
        raise Unfit("characters no password can have") from problem
    if "\ufffd" in text:
        raise Unfit("U+FFFD, which stands for octets that were no UTF-8")
    if len(text) < least:
        raise Unfit("too short")
    if APP_PASSWORD.fullmatch(text):
        raise Unfit("the form of an app password")
    if login.partition("@")[0] in text.lower() and len(text) < 2 * least:
        raise Unfit("holds the user's name")
    return text


class OwnPasswords:
    """Changes a user's own password, once it was shown.

    Args:
        settings: the issuer's.
        users: the directory.
        tries: where each old password is tried, in its turn and within the limits.
        clock: monotonic seconds.
    """

    def __init__(self, settings: "Settings", users: Directory, tries: "Tries", clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._users = users
        self._tries = tries
        self._clock = clock
        self._one = threading.Lock()
        self._changed: dict[str, deque[float]] = {}

    def change(self, form: Mapping[str, str], address: str, frontend: str) -> Outcome:
        """Answer one question.

        Args:
            form: `username`, `password`, `new_password` and `again`, the new one once more.
            address: where the user's browser is.
            frontend: who hands it over.
        """
        login, old, new = (
            normalise_login(form.get("username", ""), self._settings.login_pattern),
            form.get("password", ""),
            form.get("new_password", ""),
        )
        try:
            if new != form.get("again", ""):
                raise Unfit("not twice the same")
            new = fitting(new, login or NOT_A_NAME, self._settings.password_length)
            if new == prepare(old):
                raise Unfit("the old one")
        except Unfit as problem:
            # Nothing was asked of the directory, so nothing is counted: what is said here holds of any name.
            return Outcome("unfit", 422, login or "", reason=str(problem))
        if login is None or not old or len(old) > LONGEST_PASSWORD:
            limit = self._tries.nameless(address, frontend)
            return Outcome("slow_down", 429, limit=limit) if limit else Outcome("invalid_grant", 403)
        if self._users.elsewhere(login, old) or self._judged_behind(login):
            return Outcome("elsewhere", 409, login, reason="a directory elsewhere judges it")
        return self._of(login, prepare(old), new, address, frontend)

    def _judged_behind(self, login: str) -> bool:
        behind = self._settings.behind
        return behind is not None and behind.judges(login)

    def _of(self, login: str, old: str, new: str, address: str, frontend: str) -> Outcome:
        limit = self._tries.put_off(login, address, frontend)
        if limit:
            return Outcome("slow_down", 429, login, limit)
        try:
            # Nobody is told that it waits: browsers do that by themselves.
            limit, person = self._tries.of(login, old, address, frontend, lambda: None)
            if limit:
                return Outcome("slow_down", 429, login, limit)
            if person is None or person.device:
                return Outcome("invalid_grant", 403, login, reason="an app password changes nothing" if person else None)
            return self._replaced(login, old, new, address, frontend)
        except (DirectoryUnavailable, Busy) as problem:
            return Outcome("temporarily_unavailable", 503, login, reason=str(problem))

    def _replaced(self, login: str, old: str, new: str, address: str, frontend: str) -> Outcome:
        # Two hashes of this one, beside those of logins: one change at a time is no load.
        with self._one:
            if not self._room(frontend):
                alarm("self-service", login, frontend, address)
                return Outcome("slow_down", 429, login, "self-service")
            if not self._users.replace(login, old, new):
                return Outcome("invalid_grant", 403, login)
            self._changed[frontend].append(self._clock())
        return Outcome("changed", 303, login)

    def _room(self, frontend: str) -> bool:
        """Tell whether a frontend may have one more changed: one that was broken into learns passwords, and shuts few owners out."""
        changed, now = self._changed.setdefault(frontend, deque()), self._clock()
        while changed and now - changed[0] > WINDOW_SECONDS:
            changed.popleft()
        return len(changed) < self._settings.self_service_per_hour


def offer(app: "Flask", own: OwnPasswords, who_asks: Callable[[str | None], str | None], told: Callable[[float, str, int], None]) -> None:
    """Add the place where passwords are changed.

    Args:
        who_asks: the frontend that asks, by its certificate and the name it gives itself.
        told: writes the line about an answer, and holds a refusal back for as long as they all take.
    """
    from flask import g, request

    def own_password() -> tuple[dict[str, str], int, dict[str, str]]:
        """Change one password. What is changed is answered as RFC 9110 section 15.4.4 has it: the browser goes on to another page."""
        started = time.monotonic()
        g.service = SERVICE
        frontend = who_asks(request.headers.get("X-Frontend"))
        if frontend is None:
            told(started, "invalid_client", 401)
            return {"error": "invalid_client"}, 401, {}
        try:
            outcome = own.change(typed(request.get_data()), request.headers.get("X-Client-IP", ""), frontend)
        except ValueError:
            outcome = Outcome("unfit", 422, reason="no form, or octets that are no UTF-8")
        g.limit = outcome.limit
        if outcome.verdict == "changed" or not outcome.login:
            g.login = outcome.login or NOT_A_NAME
        else:
            g.asked_for = outcome.login
        if outcome.reason:
            g.reason = outcome.reason
        told(started, outcome.verdict, outcome.status)
        return ({}, 303, {"Location": "changed"}) if outcome.verdict == "changed" else ({"error": outcome.verdict}, outcome.status, {})

    app.add_url_rule("/own-password", view_func=own_password, methods=["POST"])
