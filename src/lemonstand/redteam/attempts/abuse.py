"""From a valid account, and what a broken-into frontend may send with one: others' mailboxes, others' names, URLs."""

from __future__ import annotations

from typing import Any

from lemonstand.redteam.attempts import move
from lemonstand.redteam.attempts.outside import _submitted
from lemonstand.redteam.catalogue import load_catalogue
from lemonstand.redteam.context import Ground, Seen, need, told
from lemonstand.remote.endpoints import families_of

DIRECTORY = "/srv/mail"
SUBMITTED = {
    "user-url-forged": ("forged", "without token", "other host", "another mailbox"),
    "user-url-lifetime": ("expired", "longer life than granted", "after the key was reset"),
}


@move("user-mailboxes")
def mailboxes(ground: Ground) -> Seen:
    """Another user's mailbox, by every name it might have."""
    seen = ground.ask(
        ground.name("handsets"), "other-mailboxes", endpoint=ground.endpoint(4), account=ground.one, other=ground.two, directory=DIRECTORY
    )
    need(seen.pop("control"), "its owner does not read it either")
    taken = [case for case, answer in seen.items() if answer["taken"]]
    return Seen(bool(taken), told(seen, taken), "its owner reads it")


@move("user-as-other")
def as_other(ground: Ground) -> Seen:
    """One's own password, and another name beside it."""
    seen = ground.ask(ground.name("handsets"), "as-other", endpoint=ground.endpoint(4), account=ground.one, other=ground.two["user"])
    own = seen.pop("own")
    need(own["imap"] == "OK" and own["submission"] == 235, f"the own name is refused: {own['text']}")
    taken = [case for case, answer in seen.items() if answer["imap"] == "OK" or answer["submission"] == 235]
    return Seen(bool(taken), told(seen, taken), "the own name is taken by both services")


def _named(seen: dict[str, Any]) -> Seen:
    own = seen.pop("own")
    need(own["code"] == 250, f"the own sender is refused: {own['text']}")
    taken = [case for case, answer in seen.items() if answer["code"] in range(200, 300)]
    return Seen(bool(taken), told(seen, taken), "the own sender is taken")


@move("user-other-sender")
def other_sender(ground: Ground) -> Seen:
    """Mail in another's name on 587."""
    return _named(_submitted(ground))


@move("frontend-other-sender")
def frontend_other_sender(ground: Ground) -> Seen:
    """The same at the store, past the frontend's own service."""
    seen = ground.ask(
        ground.name("frontends"), "senders",
        inward=ground.inward, account=ground.one, other=ground.two["user"], ticket=ground.ticket["ticket"],
    )  # fmt: skip
    return _named(dict(seen))


def _urls(ground: Ground) -> dict[str, Any]:
    """What came of URLs, by case and IP version."""

    def make() -> Any:
        found = {}
        for family in families_of(ground.site):
            found[family] = ground.ask(
                ground.name("handsets"), "forward-abuse", seconds=120, endpoint=ground.endpoint(family), owner=ground.one, other=ground.two
            )
        return found

    found = ground.once("urls", make)
    for seen in found.values():
        own = seen["own, in time"]
        need(own["code"] == 250 and own.get("arrived") is not None, f"the own URL is refused: {own['text']}")
        need(seen["owner fetches it"]["got"], "the owner's own URL gives nothing")
    return {f"{case}, IPv{family}": answer for family, seen in found.items() for case, answer in seen.items()}


def _submitted_urls(ground: Ground, name: str) -> Seen:
    seen = {case: answer for case, answer in _urls(ground).items() if case.rpartition(", ")[0] in SUBMITTED[name]}
    taken = [case for case, answer in seen.items() if answer["code"] in range(200, 300)]
    return Seen(bool(taken), told(seen, taken), "the own URL is sent in its time")


@move("user-url-forged")
def url_forged(ground: Ground) -> Seen:
    """Guessed, altered and foreign URLs, by BURL."""
    return _submitted_urls(ground, "user-url-forged")


@move("user-url-lifetime")
def url_lifetime(ground: Ground) -> Seen:
    """URLs past their end, or past their key."""
    return _submitted_urls(ground, "user-url-lifetime")


@move("user-url-others")
def url_others(ground: Ground) -> Seen:
    """URLs made for somebody else."""
    seen = _urls(ground)
    fetched = {case: answer for case, answer in seen.items() if "fetches" in case and "owner" not in case}
    sent = {case: answer for case, answer in seen.items() if case.startswith(("other user submits", "meant for the other"))}
    taken = [case for case, answer in fetched.items() if answer["got"] is not None]
    taken += [case for case, answer in sent.items() if answer["code"] in range(200, 300)]
    return Seen(bool(taken), told({**fetched, **sent}, taken), "the owner fetches and sends his own")


@move("user-url-refused")
def url_refused(ground: Ground) -> Seen:
    """Whether the price of that protection is still due: it is, while the package has the defect."""
    deviation = load_catalogue().deviation("D-URLAUTH-1")
    need(deviation is not None and deviation.fixed is not None, "the deviation is not in the catalogue")
    assert deviation is not None and deviation.fixed is not None  # noqa: S101 - for the type checker
    store = ground.name(deviation.fixed.group)
    version = ground.ask(store, "package-version", name=deviation.fixed.package)
    need(version, f"{deviation.fixed.package} is not installed on {store}")
    return Seen(True, f"user+NAME is refused to the named user as well; {deviation.fixed.package} {version}", "the owner fetches his own")
