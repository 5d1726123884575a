"""The lab's arithmetic: addresses, names, refusals."""

from __future__ import annotations

import json
from ipaddress import ip_interface
from pathlib import Path

import pytest

import shipped_lab
from lemonstand.errors import InputErrors, LemonstandError
from lemonstand.lab.network import CARRIER_TIMERS, carrier_rules, port
from lemonstand.lab.plan import plan
from lemonstand.lab.topology import HANDSET_OCTETS, ZONES, Route, Topology, from_plain
from lemonstand.site import Site

INVENTORIES = ("lab",)


@pytest.mark.parametrize("name", INVENTORIES)
def test_every_address_lies_in_its_zone_and_is_given_once(name: str) -> None:
    lab = shipped_lab.topology(name)
    seen: set[str] = set()
    for machine in lab.machines:
        for leg in machine.legs:
            for text in leg.addresses:
                address = ip_interface(text)
                assert address.network == (lab.zone4(leg.zone) if address.version == 4 else lab.zone6(leg.zone))
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


@pytest.mark.parametrize("name", INVENTORIES)
def test_inner_hosts_have_no_default_route(name: str) -> None:
    inner = 0
    for machine in shipped_lab.topology(name).machines:
        zones = {leg.zone for leg in machine.legs}
        if zones in ({"auth", "management"}, {"store", "management"}):
            inner += 1
            assert {way.to for way in machine.routes} == {"10.99.2.0/24", "fd6c:656d:99:2::/64"}
    assert inner >= 2


def test_the_shipped_lab_is_what_it_was() -> None:
    """Routes of every kind of host, worked out of its inventory."""
    lab = shipped_lab.topology()
    ways = {machine.name: {(way.to, way.via) for way in machine.routes} for machine in lab.machines}
    assert ways["edge"] == {("default", "10.99.1.2"), ("default", "fd6c:656d:99:1::2")}
    assert ways["frontend"] == ways["relay"] == {("default", "10.99.2.1"), ("default", "fd6c:656d:99:2::1")}
    assert ways["store"] == {("10.99.2.0/24", "10.99.4.1"), ("fd6c:656d:99:2::/64", "fd6c:656d:99:4::1")}
    assert ways["peer"] == {("fd6c:656d:99:2::/64", "fd6c:656d:99:1::1"), ("fd6c:656d:99:6::/64", "fd6c:656d:99:1::2")}
    assert ways["handset"] == {("default", "10.99.6.1"), ("default", "fd6c:656d:99:6::1")}
    assert set(lab.carrier_routes) == {Route("fd6c:656d:99:2::/64", "fd6c:656d:99:1::1")}
    assert lab.handset_octets == tuple(HANDSET_OCTETS)
    assert from_plain(lab.name, lab.prefix, json.loads(json.dumps(lab.plain()))) == lab


@pytest.mark.parametrize("names", [("frontend", "relay"), ("a-very-long-host-name-one", "a-very-long-host-name-two"), ("edge-a", "edge-b")])
def test_ports_of_the_switch_have_names_a_device_may_have(names: tuple[str, str]) -> None:
    ports = {port(name, zone) for name in names for zone in ZONES}
    assert len(ports) == len(names) * len(ZONES)
    assert max(map(len, ports)) <= 15


def _said(site: Site, ways: dict[str, str] | None = None) -> list[str]:
    given = ways or shipped_lab.ways(site)
    with pytest.raises(InputErrors) as caught:
        plan("sample", "10.99", site, {"handset": "10.99.5.15", **given})
    return [problem.what for problem in caught.value.problems]


def _with_leg(site: Site, host: str, zone: str, **values: str) -> Site:
    before = site.hosts[host]
    leg = before.interfaces[zone].model_copy(update={family: ip_interface(text).ip for family, text in values.items()})
    settings = before.settings.model_copy(update={"interfaces": {**before.interfaces, zone: leg}})
    return site.model_copy(update={"hosts": {**site.hosts, host: before.model_copy(update={"settings": settings})}})


def test_what_no_lab_can_hold_is_named(tmp_path: Path) -> None:
    site = shipped_lab.site(tmp_path / "lab")
    assert _said(_with_leg(site, "store", "store", ipv4="192.0.2.10")) == ["192.0.2.10 of host store lies outside the lab's zone 'store'"]
    assert _said(_with_leg(site, "peer", "internet", ipv4="10.99.1.2")) == ["10.99.1.2 of host peer is the carrier's in a lab"]
    assert _said(_with_leg(site, "peer", "internet", ipv4="10.99.1.110")) == ["10.99.1.110 of host peer is the carrier's in a lab"]
    assert "the controller can't reach store at 10.99.5.99" in _said(
        site,
        {
            **{name: str(host.interfaces["management"].ipv4) for name, host in site.hosts.items() if name != "handset"},
            "store": "10.99.5.99",
        },
    )
    renamed = site.hosts["store"].model_copy(update={"name": "switch"})
    hosts = {("switch" if name == "store" else name): (renamed if name == "store" else host) for name, host in site.hosts.items()}
    assert _said(site.model_copy(update={"hosts": hosts})) == ["'switch' is the name of a part of every lab"]
    moved = site.settings.model_copy(update={"zones": {**site.settings.zones, "auth": site.settings.zones["store"]}})
    assert len(_said(site.model_copy(update={"settings": moved}))) == 2


def test_a_dmz_that_is_routed_is_known_to_the_internet(tmp_path: Path) -> None:
    site = shipped_lab.site(tmp_path / "lab")
    routed = site.model_copy(update={"settings": site.settings.model_copy(update={"public_ipv4": None})})
    ways = shipped_lab.ways(site)
    lab = plan("sample", "10.99", routed, {"handset": "10.99.5.15", **ways})
    assert Route("10.99.2.0/24", "10.99.1.1") in lab.carrier_routes
    assert Route("10.99.2.0/24", "10.99.1.1") in lab.machine("peer").routes


def test_an_unknown_host_is_named_with_those_there_are() -> None:
    with pytest.raises(LemonstandError) as caught:
        shipped_lab.topology().machine("stroe")
    assert "stroe" in caught.value.what
    assert "store" in caught.value.remedy


def test_the_carrier_keeps_what_rfc_5382_asks_for() -> None:
    lab = shipped_lab.topology()
    rules = carrier_rules(lab, CARRIER_TIMERS)
    assert CARRIER_TIMERS["established"] >= 7440
    assert min(CARRIER_TIMERS.values()) >= 240
    for octet in HANDSET_OCTETS:
        assert f"{lab.address4('carrier', octet)} : {lab.address4('internet', octet + 100)}" in rules


def test_zone_numbers_are_unique() -> None:
    assert len(set(ZONES.values())) == len(ZONES)
