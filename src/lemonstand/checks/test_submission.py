"""Submission as a handset meets it: TLS, login, the sender's own address, and each EHLO keyword at work."""

from __future__ import annotations

import re
from typing import Any

import pytest

from lemonstand.checks.background import measurement
from lemonstand.checks.conftest import Measure
from lemonstand.measure import Vantage
from lemonstand.outcomes import expect
from lemonstand.remote.endpoints import ARRIVAL_SECONDS
from lemonstand.site import Site

pytestmark = pytest.mark.answer("live")

Session = dict[str, Any]
TAKEN_FOR_TRACE = 1024
"""Bytes Dovecot keeps of the limit for the line it adds."""
ENHANCED = re.compile(r"[245]\.\d{1,3}\.\d{1,3}\b")
TRANSPORT = {"STARTTLS", "AUTH"}
"""Keywords that change with TLS and login by their nature (RFC 3207, RFC 4954)."""


@measurement()
def session(vantage: Vantage, version: int) -> Session:
    """One session from the handset."""
    one, two = vantage.accounts[:2]
    limit = vantage.site.settings.message_size_limit
    return dict(vantage.ask("submission-session", endpoint=vantage.endpoints(version), account=one, stranger=two["user"], size_limit=limit))


@pytest.mark.control("LEM-3-02", "PRO-SUB-05", "PRO-SUB-11", "LEM-8-15")
@pytest.mark.supports("LEM-4-01", "LEM-8-14", "LEM-3-07")
def test_a_handset_logs_in_over_starttls(session: Session, family: int, site: Site, measure: Measure) -> None:
    """Port 587 answers, offers STARTTLS and no AUTH before it, offers AUTH behind it and takes the right password."""
    before, after = session["before_tls"], session["after_tls"]
    measure("TLS", f"{session['tls']['version']} {session['tls']['cipher']}", volatile=False)
    expect("STARTTLS" in before and "AUTH" not in before, "STARTTLS is not demanded", seen=before, expected="STARTTLS, no AUTH")
    expect("PLAIN" in after.get("AUTH", "").split(), "AUTH is not offered behind TLS", seen=after, expected="AUTH PLAIN")
    expect(
        site.settings.public_name in session["tls"]["names"],
        "the certificate is somebody else's",
        seen=session["tls"]["names"],
        expected=site.settings.public_name,
    )
    expect(session["wrong"]["code"] == 535, "a wrong password is not called one", seen=session["wrong"], expected=535)
    expect(session["right"]["code"] == 235, "the right password is refused", seen=session["right"], expected=235)


@pytest.mark.control("LEM-8-22", "LEM-8-24")
def test_nothing_goes_before_tls_and_login(session: Session, family: int) -> None:
    """AUTH and MAIL before TLS are answered by a demand for TLS, MAIL before AUTH by one for a login."""
    for step, word in (("auth_before_tls", "TLS"), ("mail_before_tls", "TLS"), ("mail_before_auth", "uthentication")):
        reply = session[step]
        expect(
            reply["code"] == 530 and word in reply["text"], f"{step} is not refused as it should be", seen=reply, expected=f"530, {word}"
        )


@pytest.mark.control("LEM-8-24")
def test_a_sender_is_the_users_own(session: Session, family: int, measure: Measure) -> None:
    """Another user's address is refused, the own one taken."""
    measure("another's", session["foreign_sender"]["text"])
    expect(session["own_sender"]["code"] == 250, "the own address is refused", seen=session["own_sender"], expected=250)
    expect(
        session["foreign_sender"]["code"] in {550, 553},
        "another user's address is taken as sender",
        seen=session["foreign_sender"],
        expected="550 or 553",
    )


@pytest.mark.control("LEM-6-06")
def test_ehlo_is_the_same_before_and_after_login(session: Session, family: int, measure: Measure) -> None:
    """Most clients ask once: what the frontend announces must be what the store does, keyword by keyword."""
    stages = {name: {key for key in session[name] if key not in TRANSPORT} for name in ("before_tls", "after_tls", "after_login")}
    measure("keywords", " ".join(sorted(stages["after_login"])), volatile=False)
    differ = sorted((stages["before_tls"] | stages["after_tls"]) ^ stages["after_login"])
    expect(bool(stages["after_login"]) and not differ, "EHLO changes with the login", seen=differ, expected="the same keywords")


@pytest.mark.control("PRO-SUB-01")
def test_commands_are_pipelined(session: Session, family: int) -> None:
    """Four commands in one segment get four replies (RFC 2920)."""
    expect("PIPELINING" in session["after_login"], "PIPELINING is not announced", seen=session["after_login"], expected="PIPELINING")
    expect(session["pipelined"] == [250] * 4, "pipelined commands fail", seen=session["pipelined"], expected=[250] * 4)


@pytest.mark.control("PRO-SUB-03")
def test_size_is_one_number(session: Session, site: Site, family: int, measure: Measure) -> None:
    """SIZE before login, after it and in force (RFC 1870)."""
    wanted = str(site.settings.message_size_limit - TAKEN_FOR_TRACE)
    seen = [session[stage].get("SIZE") for stage in ("before_tls", "after_tls", "after_login")]
    measure("SIZE", seen[0], volatile=False)
    expect(seen == [wanted] * 3, "SIZE changes on the way", seen=seen, expected=wanted)
    expect(session["too_large"]["code"] == 552, "a message above the limit is taken", seen=session["too_large"], expected=552)


@pytest.mark.control("PRO-SUB-04")
def test_replies_have_enhanced_codes(session: Session, family: int) -> None:
    """X.Y.Z in front of the text of successes and refusals (RFC 2034)."""
    steps = ("own_sender", "foreign_sender", "too_large", "binarymime", "nobody", "right", "wrong", "mail_before_auth")
    lacking = [f"{step}: {session[step]['text'][:60]}" for step in steps if not ENHANCED.match(session[step]["text"])]
    expect("ENHANCEDSTATUSCODES" in session["after_login"], "they are not announced", seen=session["after_login"], expected="announced")
    expect(not lacking, "replies lack their enhanced code", seen=lacking, expected="X.Y.Z in each")


@pytest.mark.control("LEM-6-10")
@pytest.mark.supports("PRO-SUB-09")
def test_what_is_not_announced_is_refused(session: Session, family: int) -> None:
    """BINARYMIME stands for it: no keyword, no parameter. What is announced (8BITMIME, DSN, BURL) is taken."""
    announced = set(session["after_login"]) | set(session["before_tls"])
    expect("BINARYMIME" not in announced, "BINARYMIME is announced", seen=sorted(announced), expected="not announced")
    expect(session["binarymime"]["code"] in {501, 504, 555}, "BINARYMIME is taken", seen=session["binarymime"], expected="501, 504 or 555")
    for step in ("eightbit", "dsn"):
        expect(session[step]["code"] == 250, f"{step} is announced and refused", seen=session[step], expected=250)
    known = session["burl_imap"]["code"] not in {500, 502}
    expect(known == ("BURL" in announced), "BURL is announced and unknown, or the other way round", seen=session["burl_imap"], expected=503)


def _arrived(vantage: Vantage, version: int, how: str) -> Session:
    """A message from one account to the other: what was answered, and what came."""
    one, two = vantage.accounts[:2]
    endpoint = vantage.endpoints(version)
    sent = vantage.ask("deliver", endpoint=endpoint, account=one, recipient=two["user"], how=how)
    expect(sent["code"] == 250, f"a message ({how}) is refused", seen=sent, expected=250)
    got = vantage.ask("wait-for", endpoint=endpoint, account=two, ident=sent["ident"], within=ARRIVAL_SECONDS)
    expect(
        got["seconds"] is not None, f"a message ({how}) does not arrive", seen="nothing", expected=f"within {ARRIVAL_SECONDS} s", late=True
    )
    return dict(got)


@measurement()
def chunks(vantage: Vantage, version: int) -> Session:
    """A message in three chunks."""
    return _arrived(vantage, version, "chunks")


@measurement()
def eightbit(vantage: Vantage, version: int) -> Session:
    """A message of 8-bit text."""
    return _arrived(vantage, version, "eightbit")


@measurement()
def reported(vantage: Vantage, version: int) -> Session:
    """A message that asks for a report: what was answered, and the report."""
    one, two = vantage.accounts[:2]
    endpoint = vantage.endpoints(version)
    sent = vantage.ask("deliver", endpoint=endpoint, account=one, recipient=two["user"], report=True)
    expect(sent["code"] == 250, "a message with DSN is refused", seen=sent, expected=250)
    report = vantage.ask("wait-for", endpoint=endpoint, account=one, ident=sent["ident"], within=ARRIVAL_SECONDS, report=True)
    vantage.ask("wait-for", endpoint=endpoint, account=two, ident=sent["ident"], within=ARRIVAL_SECONDS)
    return dict(report)


@pytest.mark.control("PRO-SUB-08")
def test_chunks_arrive(chunks: Session, family: int, measure: Measure) -> None:
    """Three chunks become one message in another user's mailbox (RFC 3030). With BURL: see forwarding."""
    measure("arrived after", chunks["seconds"], "s")


@pytest.mark.supports("PRO-SUB-10")
def test_eight_bit_text_arrives(eightbit: Session, family: int, measure: Measure) -> None:
    """8-bit text in, 8-bit text out (RFC 6152)."""
    measure("bits", eightbit["bits"], volatile=False)
    expect(eightbit["bits"] == 8, "8-bit text was changed", seen=eightbit["bits"], expected=8)


@pytest.mark.control("PRO-SUB-02")
def test_a_report_of_success_comes(reported: Session, family: int, measure: Measure) -> None:
    """NOTIFY=SUCCESS brings a report about the message (RFC 3461)."""
    expect(reported["seconds"] is not None, "no report comes", seen="nothing", expected=f"one within {ARRIVAL_SECONDS} s", late=True)
    expect(
        "report-type=delivery-status" in reported["header"], "it is no report", seen=reported["header"][:400], expected="multipart/report"
    )
    measure("report after", reported["seconds"], "s")
