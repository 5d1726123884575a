"""From a valid account, and what a broken-into frontend may send with one: others' mailboxes, others' names, URLs."""

from __future__ import annotations

from typing import Any

from lemonstand.redteam.attempts import code_of
from lemonstand.redteam.attempts.outside import _submitted
from lemonstand.redteam.catalogue import load_catalogue
from lemonstand.redteam.context import LabUnderAttack, Seen, need, told
from lemonstand.remote.endpoints import families_of

DIRECTORY = "/srv/mail"
SUBMITTED = {
    "user-url-forged": ("forged", "without token", "other host", "another mailbox"),
    "user-url-lifetime": ("expired", "longer life than granted", "after the key was reset"),
}


@code_of("user-mailboxes")
def mailboxes(lab: LabUnderAttack) -> Seen:
    """Another user's mailbox, by every name it might have."""
    seen = lab.ask(lab.name("handsets"), "other-mailboxes", endpoint=lab.endpoint(4), account=lab.one, other=lab.two, directory=DIRECTORY)
    need(seen.pop("control"), "its owner does not read it either")
    taken = [case for case, answer in seen.items() if answer["taken"]]
    return Seen(bool(taken), told(seen, taken), "its owner reads it")


@code_of("user-as-other")
def as_other(lab: LabUnderAttack) -> Seen:
    """One's own password, and another name beside it."""
    seen = lab.ask(lab.name("handsets"), "as-other", endpoint=lab.endpoint(4), account=lab.one, other=lab.two["user"])
    own = seen.pop("own")
    need(own["imap"] == "OK" and own["submission"] == 235, f"the own name is refused: {own['text']}")
    taken = [case for case, answer in seen.items() if answer["imap"] == "OK" or answer["submission"] == 235]
    return Seen(bool(taken), told(seen, taken), "the own name is taken by both services")


def _named(seen: dict[str, Any]) -> Seen:
    own = seen.pop("own")
    need(own["code"] == 250, f"the own sender is refused: {own['text']}")
    taken = [case for case, answer in seen.items() if answer["code"] in range(200, 300)]
    return Seen(bool(taken), told(seen, taken), "the own sender is taken")


@code_of("user-other-sender")
def other_sender(lab: LabUnderAttack) -> Seen:
    """Mail in another's name on 587."""
    return _named(_submitted(lab))


@code_of("frontend-other-sender")
def frontend_other_sender(lab: LabUnderAttack) -> Seen:
    """The same at the store, past the frontend's own service."""
    seen = lab.ask(
        lab.name("frontends"), "senders",
        inner_services=lab.inner_services, account=lab.one, other=lab.two["user"], ticket=lab.ticket["ticket"],
    )  # fmt: skip
    return _named(dict(seen))


def _urls(lab: LabUnderAttack) -> dict[str, Any]:
    """What came of URLs, by case and IP version."""

    def make() -> Any:
        found = {}
        for family in families_of(lab.site):
            found[family] = lab.ask(
                lab.name("handsets"), "forward-abuse", seconds=120, endpoint=lab.endpoint(family), owner=lab.one, other=lab.two
            )
        return found

    found = lab.once("urls", make)
    for seen in found.values():
        own = seen["own, in time"]
        need(own["code"] == 250 and own.get("arrived") is not None, f"the own URL is refused: {own['text']}")
        need(seen["owner fetches it"]["got"], "the owner's own URL gives nothing")
    return {f"{case}, IPv{family}": answer for family, seen in found.items() for case, answer in seen.items()}


def _submitted_urls(lab: LabUnderAttack, name: str) -> Seen:
    seen = {case: answer for case, answer in _urls(lab).items() if case.rpartition(", ")[0] in SUBMITTED[name]}
    taken = [case for case, answer in seen.items() if answer["code"] in range(200, 300)]
    return Seen(bool(taken), told(seen, taken), "the own URL is sent in its time")


@code_of("user-url-forged")
def url_forged(lab: LabUnderAttack) -> Seen:
    """Guessed, altered and foreign URLs, by BURL."""
    return _submitted_urls(lab, "user-url-forged")


@code_of("user-url-lifetime")
def url_lifetime(lab: LabUnderAttack) -> Seen:
    """URLs past their end, or past their key."""
    return _submitted_urls(lab, "user-url-lifetime")


@code_of("user-url-others")
def url_others(lab: LabUnderAttack) -> Seen:
    """URLs made for somebody else."""
    seen = _urls(lab)
    fetched = {case: answer for case, answer in seen.items() if "fetches" in case and "owner" not in case}
    sent = {case: answer for case, answer in seen.items() if case.startswith(("other user submits", "meant for the other"))}
    taken = [case for case, answer in fetched.items() if answer["got"] is not None]
    taken += [case for case, answer in sent.items() if answer["code"] in range(200, 300)]
    return Seen(bool(taken), told({**fetched, **sent}, taken), "the owner fetches and sends his own")


@code_of("user-url-refused")
def url_refused(lab: LabUnderAttack) -> Seen:
    """Whether the price of that protection is still due: it is, while the package has the defect."""
    deviation = load_catalogue().deviation("D-URLAUTH-1")
    need(deviation is not None and deviation.fixed is not None, "the deviation is not in the catalogue")
    assert deviation is not None and deviation.fixed is not None  # noqa: S101 - for the type checker
    store = lab.name(deviation.fixed.group)
    version = lab.ask(store, "package-version", name=deviation.fixed.package)
    need(version, f"{deviation.fixed.package} is not installed on {store}")
    return Seen(True, f"user+NAME is refused to the named user as well; {deviation.fixed.package} {version}", "the owner fetches his own")
