"""The red team's catalogue, its outcomes, and the frames it makes, without a lab."""

from __future__ import annotations

import contextlib
import datetime as dt
import socket
import struct
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from lemonstand.errors import InputError, LemonstandError
from lemonstand.probes.attacks import frames, host_contents
from lemonstand.redteam import load_catalogue
from lemonstand.redteam.analysis import FORMATS, analyse, digest, render, unreviewed
from lemonstand.redteam.attack import Report, _made, choose, ended, upstream
from lemonstand.redteam.catalogue import Attempt, Catalogue
from lemonstand.redteam.context import CouldNotTry, LabUnderAttack, Seen
from lemonstand.site import Site, load_site
from sample_site import Tree, sound_site, write_site

CATALOGUE = load_catalogue()
REPLAY = CATALOGUE.by_id()["frontend-replayed-ticket"]
HELD = CATALOGUE.by_id()["frontend-expired-ticket"]


def _site(folder: Path, **changes: object) -> Site:
    tree: Tree = sound_site()
    tree["all"].update(changes)
    return load_site(write_site(folder, tree))


def _outcome(attempt: Attempt, move: Callable[[Any], Seen], *, version: str = "1:2.4.1-6") -> tuple[str, str]:
    class Fake(LabUnderAttack):
        def __init__(self) -> None:
            self._kept = {}

        def ask(self, host: str, probe: str, *, seconds: int = 60, **args: Any) -> Any:
            return version

        def name(self, group: str) -> str:
            return group

        def once(self, name: str, make: Callable[[], Any]) -> Any:
            return make()

    made = _made(attempt, move, Fake(), CATALOGUE)
    return made.outcome, made.got


def _raise(fault: Exception) -> Seen:
    raise fault


def test_what_is_refused_is_held() -> None:
    assert _outcome(HELD, lambda lab: Seen(False, "refused", "works")) == ("held", "refused")


def test_a_success_is_a_breach() -> None:
    assert _outcome(HELD, lambda lab: Seen(True, "in", "works")) == ("BREACH", "in")


def test_a_success_that_is_known_is_a_deviation() -> None:
    assert _outcome(REPLAY, lambda lab: Seen(True, "in", "works"))[0] == "known deviation"


@pytest.mark.parametrize("fault", [CouldNotTry("no lab"), LemonstandError("x", "y", "z"), KeyError("status")])
def test_what_could_not_be_tried_is_never_held(fault: Exception) -> None:
    assert _outcome(HELD, lambda lab: _raise(fault))[0] == "could not try"


def test_a_deviation_ends_with_the_package_that_has_no_need_of_it() -> None:
    attempt = CATALOGUE.by_id()["user-url-refused"]
    assert _outcome(attempt, lambda lab: Seen(True, "nothing", "works"))[0] == "known deviation"
    outcome, got = _outcome(attempt, lambda lab: Seen(True, "nothing", "works"), version="1:2.4.3-1~deb13u1")
    assert outcome == "BREACH"
    assert "2.4.3" in got


def test_a_deviation_ends_on_its_day() -> None:
    deviation = CATALOGUE.deviation("D-TICKET-1")
    assert deviation is not None
    day = deviation.waiver.expires
    assert ended(deviation, day - dt.timedelta(days=1), lambda group, package: "") == ""
    assert "expired" in ended(deviation, day, lambda group, package: "")


@pytest.mark.parametrize(
    ("version", "numbers"), [("1:2.4.1+dfsg1-6+deb13u7", (2, 4, 1)), ("2.4.10-1", (2, 4, 10)), ("3.10", (3, 10)), ("", ())]
)
def test_upstream_versions(version: str, numbers: tuple[int, ...]) -> None:
    assert upstream(version) == numbers


def test_a_run_with_nothing_tried_is_not_good() -> None:
    assert not Report("lab", dt.datetime.now(dt.UTC), (), 0.0).good


def test_a_selection_names_what_is_wrong() -> None:
    assert {attempt.position for attempt in choose(CATALOGUE, (), "relay")} == {"relay"}
    with pytest.raises(InputError, match="no attempt 'nothing'"):
        choose(CATALOGUE, ("nothing",), None)
    with pytest.raises(InputError, match="made from 'user'"):
        choose(CATALOGUE, ("relay-lmtp",), "user")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda plain: plain["attempts"].append(plain["attempts"][0]), "share an id"),
        (lambda plain: plain["attempts"][0].update(position="user"), "begin with its position"),
        (lambda plain: plain["attempts"][0].update(deviation="D-NONE-1"), "which is none"),
        (lambda plain: plain["deviations"].append({**plain["deviations"][0], "name": "D-NONE-1"}), "no attempt names"),
    ],
)
def test_a_catalogue_that_contradicts_itself_is_named(spoil: Callable[[Any], None], message: str, tmp_path: Path) -> None:
    plain = yaml.safe_load(yaml.safe_dump(CATALOGUE.model_dump(mode="json")))
    Catalogue.model_validate(plain)
    spoil(plain)
    path = tmp_path / "attempts.yml"
    path.write_text(yaml.safe_dump(plain), encoding="utf-8")
    with pytest.raises(LemonstandError, match=message):
        load_catalogue(path)


def test_the_analysis_names_no_address_and_changes_with_the_flows(tmp_path: Path) -> None:
    site = _site(tmp_path)
    text = render(analyse(site))
    addresses = [str(address) for host in site.hosts.values() for leg in host.interfaces.values() for address in leg.addresses]
    assert addresses
    assert not [address for address in addresses if f" {address}" in text]
    fewer = _site(tmp_path, lemonstand_flows_disabled=["implicit-tls"])
    assert digest(fewer) != digest(site)


def test_the_analysis_is_sound_html(tmp_path: Path) -> None:
    class Tags(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.open: list[str] = []

        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag != "meta":
                self.open.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert self.open.pop() == tag

    assert FORMATS == ("md", "html")
    tags = Tags()
    tags.feed(render(analyse(_site(tmp_path)), "html"))
    assert tags.open == []


def test_a_review_is_of_one_text(tmp_path: Path) -> None:
    site = _site(tmp_path)
    assert "nobody" in unreviewed(site)
    review = {"by": "the operator", "date": "2026-11-25", "analysis": digest(site)}
    assert unreviewed(_site(tmp_path, lemonstand_review=review)) == ""
    assert "changed since the operator" in unreviewed(_site(tmp_path, lemonstand_review={**review, "analysis": "0" * 64}))
    with pytest.raises(InputError, match="review"):
        _site(tmp_path, lemonstand_review={**review, "analysis": "yes"})


class Wire:
    """A packet socket that is none."""

    def getsockname(self) -> tuple[object, ...]:
        return ("dmz0", 3, 0, 1, bytes.fromhex("020000000001"))


@pytest.mark.parametrize(("source", "target"), [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")])
def test_every_syn_of_a_scan_has_the_right_checksum(source: str, target: str) -> None:
    way = frames.Way(device="dmz0", source=source, target=target, hop="02:00:00:00:00:02", ports=[])
    make = frames._syn_maker(Wire(), way, 23456, 0xDEADBEEF)  # type: ignore[arg-type]
    offset = 14 + (40 if ":" in target else 20)
    for port in (1, 25, 255, 256, 8443, 65535):
        segment = make(port)[offset:]
        assert struct.unpack_from("!HH", segment) == (23456, port)
        assert frames._checksum(frames._pseudo(source, target, 6, len(segment)) + segment) == 0


def test_claims_are_what_the_texts_ask_for() -> None:
    arp = frames._arp(Wire(), "02:00:00:00:00:02", 2, "10.0.0.1", ("02:00:00:00:00:02", "10.0.0.2"))  # type: ignore[arg-type]
    assert arp[12:14] == b"\x08\x06"
    assert arp[20:22] == b"\x00\x02"
    assert socket.inet_ntoa(arp[28:32]) == "10.0.0.1"
    assert socket.inet_ntoa(arp[38:42]) == "10.0.0.2"


def test_a_redirect_quotes_the_flow_and_says_where_to_go() -> None:
    frame = frames._ipv4("10.0.0.1", "10.0.0.2", 1, b"x" * 8, bytes([131, 7, 8, 10, 0, 0, 1, 0]))
    assert frame[0] == 0x47 and len(frame) == 36 and frames._checksum(frame[:28]) == 0
    sent: list[bytes] = []

    class Sending(Wire):
        def send(self, whole: bytes) -> None:
            sent.append(whole)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames, "_wire", lambda device: contextlib.nullcontext(Sending()))
        patch.setattr(frames, "_own", lambda device: "10.0.0.9")
        patch.setattr(frames.time, "sleep", lambda seconds: None)
        frames.redirect("dmz0", "10.0.0.1", "10.0.0.2", "02:00:00:00:00:02", target="192.0.2.1", ports=(4000, 53), times=1)
        frames.redirect("dmz0", "fe80::1", "fd00::2", "02:00:00:00:00:02", target="2001:db8::1", ports=(4000, 53), times=1)
    four, six = sent
    told = four[14 + 20 :]
    assert told[:2] == b"\x05\x01" and frames._checksum(told) == 0 and socket.inet_ntoa(told[4:8]) == "10.0.0.9"
    assert told[8 + 12 : 8 + 20] == socket.inet_aton("10.0.0.2") + socket.inet_aton("192.0.2.1")
    assert struct.unpack_from("!HH", told, 8 + 20) == (4000, 53)
    body = six[14 + 40 :]
    assert body[0] == 137 and six[14 + 7] == 255
    assert frames._checksum(frames._pseudo("fe80::1", "fd00::2", 58, len(body)) + body) == 0
    assert socket.inet_ntop(socket.AF_INET6, body[24:40]) == "2001:db8::1"


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        (host_contents.HASH, b"alice:{ARGON2ID}$argon2id$v=19$m=65536,t=2,p=1$c2FsdHNhbHQ$aGFzaA", True),
        (host_contents.HASH, b"userPassword: {SSHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", True),
        (host_contents.HASH, b"password_hash: {SCHEME}", False),
        (host_contents.TICKET, b"pass=eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbGljZUBsZW1vbi50ZXN0In0." + b"A" * 43, True),
        (host_contents.TICKET, b"eyJhbGciOiJSUzI1NiJ9", False),
        (host_contents.KEY, b"-----BEGIN EC PRIVATE KEY-----", True),
        (host_contents.KEY, b"-----BEGIN PUBLIC KEY-----", False),
    ],
)
def test_loot_is_known_when_it_is_seen(pattern: Any, text: bytes, found: bool) -> None:
    assert bool(pattern.search(text)) == found
