"""The pieces of probes that packets are made of and read with."""

from __future__ import annotations

import ipaddress
import struct

import pytest

from lemonstand.probes.hosts import kernel
from lemonstand.probes.network import icmp_errors
from lemonstand.probes.network.segments import parse

HOST4, OTHER4 = (ipaddress.ip_address(text).packed for text in ("192.0.2.10", "198.51.100.7"))
HOST6, OTHER6 = (ipaddress.ip_address(text).packed for text in ("2001:db8::10", "2001:db8:9::7"))


@pytest.mark.parametrize(("host", "other"), [(HOST4, OTHER4), (HOST6, OTHER6)], ids=["IPv4", "IPv6"])
def test_what_an_error_quotes_is_a_segment_of_the_host(host: bytes, other: bytes) -> None:
    quoted = icmp_errors._quoted(host, other, 143, 50000, 0x01020304)
    parsed = parse(quoted)
    assert parsed is not None
    assert (parsed.source, parsed.target, parsed.sport, parsed.dport) == (host, other, 143, 50000)
    assert (parsed.sequence, parsed.length, parsed.size) == (0x01020304, 0, len(quoted))
    start = 20 if len(host) == 4 else 40
    assert struct.unpack_from("!I", quoted, start + 4)[0] == 0x01020304


def test_the_header_of_what_is_quoted_sums_up() -> None:
    assert icmp_errors._checksum(icmp_errors._quoted(HOST4, OTHER4, 143, 50000, 7)[:20]) == 0


def test_checksum_of_rfc_1071() -> None:
    assert icmp_errors._checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0x220D
    assert icmp_errors._checksum(b"\x01") == 0xFEFF, "an odd octet counts as the higher half"


@pytest.mark.parametrize("packet", [b"", b"\x45" + b"\0" * 30, b"\x60" + b"\0" * 50, b"\x45" + b"\0" * 8 + b"\x06" + b"\0" * 12])
def test_other_packets_are_left_alone(packet: bytes) -> None:
    assert parse(packet) is None


@pytest.mark.parametrize(("text", "seconds"), [("119min", 7140), ("1hour59min", 7140), ("12sec", 12), ("300ms", 0.3), ("1.5sec", 1.5)])
def test_timers_as_ss_prints_them(text: str, seconds: float) -> None:
    assert kernel._span(text) == pytest.approx(seconds)
