"""IMAP as a handset meets it: the start of a session, and every extension of the profile at work."""

from __future__ import annotations

from typing import Any

import pytest

from lemonstand.checks.background import measurement
from lemonstand.checks.conftest import Measure
from lemonstand.measure import Vantage
from lemonstand.outcomes import expect
from lemonstand.probes.clients.tickets import InnerServices
from lemonstand.site import Site

pytestmark = pytest.mark.answer("live")

Session = dict[str, Any]
EXTENSIONS = {
    "NAMESPACE": "PRO-IMAP-01",
    "CONDSTORE": "PRO-IMAP-02",
    "CATENATE": "PRO-IMAP-06",
    "UIDPLUS": "PRO-IMAP-07",
    "LITERAL+": "PRO-IMAP-08",
    "BINARY": "PRO-IMAP-11",
    "COMPRESS=DEFLATE": "PRO-IMAP-12",
    "CONTEXT=SEARCH": "PRO-IMAP-13",
    "ENABLE": "PRO-IMAP-16",
    "I18NLEVEL=1": "PRO-IMAP-18",
    "NOTIFY": "PRO-IMAP-19",
    "QRESYNC": "PRO-IMAP-20",
    "URL-PARTIAL": "PRO-IMAP-22",
    "URLAUTH": "PRO-IMAP-04",
}
"""Extensions of the Lemonade profile that one exercise shows, and the control each answers."""
ABSENT = {"CONTEXT=SORT": "PRO-IMAP-14", "CONVERT": "PRO-IMAP-15"}
"""What the profile asks for and Dovecot has not: it must not be announced."""
BEFORE_LOGIN = {"IMAP4rev1", "SASL-IR", "ENABLE", "IDLE", "LITERAL+", "ID"}
"""What clients may rely on before they log in (RFC 9051, RFC 4959)."""


@measurement()
def session(vantage: Vantage, version: int) -> Session:
    """One session from the handset."""
    return dict(vantage.ask("imap-session", endpoint=vantage.endpoints(version), account=vantage.accounts[0]))


@measurement()
def outside(vantage: Vantage, version: int) -> Session:
    """All extensions, exercised from the handset."""
    return dict(vantage.ask("features", endpoint=vantage.endpoints(version), account=vantage.accounts[0]))


@measurement()
def behind(vantage: Vantage, version: int) -> Session:
    """All extensions, exercised from the frontend itself, without edge and carrier."""
    frontend = vantage.site.group("frontends")[0].name
    return dict(vantage.prober.ask(frontend, "features", endpoint=vantage.near(version), account=vantage.accounts[0]))


@pytest.mark.control("LEM-3-01", "PRO-IMAP-03", "LEM-8-15")
@pytest.mark.supports("LEM-4-01", "LEM-8-14")
def test_a_handset_logs_in_over_starttls(session: Session, family: int, site: Site, measure: Measure) -> None:
    """Port 143 answers, offers STARTTLS, refuses a login before it, takes the right password behind it and keeps mail."""
    measure("TLS", f"{session['tls']['version']} {session['tls']['cipher']}", volatile=False)
    measure("login", session["right_seconds"], "s")
    expect(
        "STARTTLS" in session["before_tls"] and "LOGINDISABLED" in session["before_tls"],
        "STARTTLS is not demanded",
        seen=session["before_tls"],
        expected="STARTTLS and LOGINDISABLED",
    )
    expect(session["starttls"]["status"] == "OK", "STARTTLS fails", seen=session["starttls"], expected="OK")
    expect(
        site.settings.public_name in session["tls"]["names"],
        "the certificate is somebody else's",
        seen=session["tls"]["names"],
        expected=site.settings.public_name,
    )
    expect(session["right"]["status"] == "OK", "the right password is refused", seen=session["right"], expected="OK")
    box = session["mailbox"]
    done = all(box[step].startswith("OK") for step in ("CREATE", "APPEND", "SELECT", "SEARCH", "DELETE"))
    expect(done and box["found"] == "SEARCH 1", "a message can't be stored and found", seen=box, expected="1 message found")


@pytest.mark.control("LEM-8-22")
def test_before_tls_nothing_is_said_about_a_password(session: Session, family: int, measure: Measure) -> None:
    """LOGIN in the clear gets one answer, whoever is named, and it is about privacy (RFC 5530)."""
    known, unknown = session["login_before_tls"]
    measure("answer", known["text"])
    expect(
        known["status"] == "NO" and known["code"] == "PRIVACYREQUIRED" and known == unknown,
        "a login before TLS is answered in another way than by a demand for privacy",
        seen=[known, unknown],
        expected="NO [PRIVACYREQUIRED] for a known name and for an unknown one",
    )


@pytest.mark.supports("LEM-8-08", "LEM-8-11")
def test_a_wrong_password_is_called_wrong(session: Session, family: int, measure: Measure) -> None:
    """AUTHENTICATIONFAILED, not UNAVAILABLE: clients ask their user again on the first and try again on the second (RFC 5530)."""
    measure("answered after", session["wrong_seconds"], "s")
    expect(
        session["wrong"]["status"] == "NO" and session["wrong"]["code"] == "AUTHENTICATIONFAILED",
        "a wrong password is not called one",
        seen=session["wrong"],
        expected="NO [AUTHENTICATIONFAILED]",
    )


@pytest.mark.control("PRO-IMAP-21", "PRO-IMAP-24")
def test_capabilities_are_told_without_asking(session: Session, family: int, measure: Measure) -> None:
    """In the greeting, and in the answer to a login whose first response came in the same line."""
    greeting, after = set(session["greeting_capabilities"]), set(session["login_capabilities"])
    measure("after login", " ".join(sorted(after)), volatile=False)
    expect(greeting >= BEFORE_LOGIN, "the greeting lacks capabilities", seen=sorted(greeting), expected=sorted(BEFORE_LOGIN))
    expect(
        bool(after) and after == set(session["after_login"]),
        "the login's answer tells other capabilities than CAPABILITY",
        seen=sorted(after ^ set(session["after_login"])) or "none at all",
        expected="the same",
    )
    expect("AUTH=PLAIN" in session["after_tls"], "PLAIN is not offered behind TLS", seen=session["after_tls"], expected="AUTH=PLAIN")


def _works(outside: Session, name: str, announced: str) -> None:
    works, seen = outside["features"][name]
    expect(announced in outside["capabilities"], f"{announced} is not announced", seen=outside["capabilities"], expected=announced)
    expect(works, f"{name} does not work", seen=seen, expected="what its RFC says")


@pytest.mark.parametrize(
    "extension", [pytest.param(name, marks=pytest.mark.control(control), id=name) for name, control in EXTENSIONS.items()]
)
@pytest.mark.supports("LEM-6-06")
def test_an_extension_is_announced_and_works(outside: Session, extension: str, family: int, measure: Measure) -> None:
    """Each is used once, in a mailbox of its own, through carrier, edge and frontend."""
    measure("seen", outside["features"][extension][1])
    _works(outside, extension, extension)


@pytest.mark.control("PRO-IMAP-17")
def test_search_and_sort_return_what_is_asked(outside: Session, family: int, measure: Measure) -> None:
    """ESEARCH, SORT and ESORT."""
    measure("seen", outside["features"]["ESEARCH"][1])
    for name in ("ESEARCH", "SORT", "ESORT"):
        _works(outside, "ESEARCH", name)


@pytest.mark.control("PRO-IMAP-10")
def test_forwarded_is_kept(outside: Session, family: int, measure: Measure) -> None:
    """$Forwarded: stored, copied, searched (RFC 5550 section 5.9)."""
    works, seen = outside["features"]["$Forwarded"]
    measure("seen", seen)
    expect(works, "$Forwarded is lost", seen=seen, expected="both copies found")


@pytest.mark.control("PRO-IMAP-23")
def test_submission_keywords_are_kept(outside: Session, family: int, measure: Measure) -> None:
    """$SubmitPending and $Submitted: stored, copied, searched (RFC 5550 section 5.10)."""
    for name in ("$SubmitPending", "$Submitted"):
        works, seen = outside["features"][name]
        measure(name, seen)
        expect(works, f"{name} is lost", seen=seen, expected="both copies found")


@pytest.mark.control("PRO-IMAP-09")
@pytest.mark.supports("LEM-5-05")
def test_idle_tells_at_once(outside: Session, family: int, measure: Measure) -> None:
    """A message that another session stores is told within 3 s."""
    measure("seen", outside["features"]["IDLE"][1])
    _works(outside, "IDLE", "IDLE")


@pytest.mark.parametrize(
    "extension", [pytest.param(name, marks=pytest.mark.supports(control), id=name) for name, control in ABSENT.items()]
)
def test_what_is_missing_is_not_announced(outside: Session, extension: str, family: int) -> None:
    """Nobody may rely on what Dovecot has not."""
    expect(extension not in outside["capabilities"], f"{extension} is announced", seen=outside["capabilities"], expected="not announced")


@pytest.mark.control("LEM-6-08")
def test_in_front_of_the_edge_is_as_behind_it(outside: Session, behind: Session, family: int, measure: Measure) -> None:
    """The same exercises from the frontend itself, without edge and carrier: the same capabilities, and what works there works in front."""
    measure("capabilities", len(outside["capabilities"]), volatile=False)
    differ = sorted(set(behind["capabilities"]) ^ set(outside["capabilities"]))
    expect(not differ, "capabilities differ on the two sides of the edge", seen=differ, expected="the same")
    broken = [
        f"{name}: {outside['features'][name][1]}"
        for name, (works, _) in behind["features"].items()
        if works and not outside["features"][name][0]
    ]
    expect(not broken, "what works behind the edge fails in front of it", seen=broken, expected="all the same")


@pytest.mark.supports("LEM-6-06")
def test_the_frontend_passes_on_what_the_store_announces(
    outside: Session, attempts: dict[str, Any], inner_services: InnerServices, family: int, measure: Measure
) -> None:
    """Capabilities after a login through the frontend are those of the store itself."""
    differ = sorted(set(attempts["capabilities"]) ^ set(outside["capabilities"]))
    measure("of the store", len(attempts["capabilities"]))
    expect(not differ, "the frontend adds or hides capabilities", seen=differ, expected="those of the store")
