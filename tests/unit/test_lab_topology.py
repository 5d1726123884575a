"""The lab's arithmetic: addresses, names, refusals."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from lemonstand.errors import LemonstandError
from lemonstand.lab.network import CARRIER_TIMERS, HANDSET_OCTETS, carrier_rules
from lemonstand.lab.topology import MACHINES, ZONES, Topology


def test_every_address_lies_in_its_zone_and_is_given_once() -> None:
    lab = Topology("lab", "10.83")
    seen: set[str] = set()
    for machine in MACHINES:
        for leg in machine.legs:
            for octet in leg.octets:
                for text, network in (
                    (lab.address4(leg.zone, octet), lab.zone4(leg.zone)),
                    (lab.address6(leg.zone, octet), lab.zone6(leg.zone)),
                ):
                    assert ip_address(text) in network
                    assert text not in seen
                    seen.add(text)


def test_two_labs_share_no_address_and_no_name() -> None:
    one, two = Topology("lab", "10.83"), Topology("test", "10.84")
    assert not one.ipv4.overlaps(two.ipv4)
    assert not one.ipv6.overlaps(two.ipv6)
    assert not set(one.namespaces()) & set(two.namespaces())


@pytest.mark.parametrize("prefix", ["8.8", "192.0", "10", "10.83.1", "10.999", "127.0", "169.254", "ten.one"])
def test_a_prefix_that_is_not_private_is_refused(prefix: str) -> None:
    with pytest.raises(LemonstandError) as caught:
        Topology("lab", prefix)
    assert prefix in caught.value.what
    assert "10.84" in caught.value.remedy


@pytest.mark.parametrize("name", ["", "Lab", "a" * 13, "1lab", "la b", "lab/../x"])
def test_a_name_that_cannot_be_a_container_is_refused(name: str) -> None:
    with pytest.raises(LemonstandError):
        Topology(name, "10.83")


def test_inner_hosts_have_no_default_route() -> None:
    for machine in MACHINES:
        if machine.name in {"auth", "store"}:
            assert "default" not in machine.via
            assert "default" not in machine.ipv6_via


def test_an_unknown_host_is_named_with_those_there_are() -> None:
    with pytest.raises(LemonstandError) as caught:
        Topology().machine("stroe")
    assert "stroe" in caught.value.what
    assert "store" in caught.value.remedy


def test_the_carrier_keeps_what_rfc_5382_asks_for() -> None:
    rules = carrier_rules(Topology(), CARRIER_TIMERS)
    assert CARRIER_TIMERS["established"] >= 7440
    assert min(CARRIER_TIMERS.values()) >= 240
    for octet in HANDSET_OCTETS:
        assert f"{Topology().address4('carrier', octet)} : {Topology().address4('internet', octet + 100)}" in rules


def test_zone_numbers_are_unique() -> None:
    assert len(set(ZONES.values())) == len(ZONES)
