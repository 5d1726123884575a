"""Sites as people have them are accepted, and a lab of each can be planned."""

from __future__ import annotations

import re
from functools import cache
from ipaddress import ip_address, ip_network
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

import shipped_lab
import topologies
from lemonstand.derived import expected_matrix
from lemonstand.lab import appliance
from lemonstand.lab.topology import Topology
from lemonstand.site import Site

NO_EDGE = "no edge but an appliance"


@cache
def _lab(kind: str) -> tuple[Site, Topology]:
    with TemporaryDirectory() as folder:
        inventory = topologies.write(kind, Path(folder) / "inventory")
        return shipped_lab.site(Path(folder) / "state", inventory), shipped_lab.planned(inventory)


@pytest.mark.parametrize("kind", topologies.TOPOLOGIES)
def test_every_topology_is_a_sound_site_and_a_lab(kind: str) -> None:
    site, lab = _lab(kind)
    apart = {machine.name for machine in lab.machines} - set(site.hosts)
    assert apart == {"repository"}, "the site knows an address of it alone"
    assert {machine.name for machine in lab.machines} >= set(site.hosts)
    assert bool(lab.appliance) == (not site.group("edges"))
    for machine in lab.machines:
        if machine.managed and machine.name != "edge":
            assert machine.routes, f"{machine.name} reaches nothing"


def test_one_ip_version_alone_is_one_alone() -> None:
    for kind, version in (("IPv4 only", 4), ("IPv6 only", 6)):
        _, lab = _lab(kind)
        managed = [item for item in lab.machines if item.managed]
        inner = [each for item in managed for leg in item.legs if leg.zone != "management" for each in leg.addresses]
        assert {ip_address(each.partition("/")[0]).version for each in inner} == {version}
        assert {ip_address(way.via).version for item in lab.machines if item.managed and item.name != "edge" for way in item.routes} == {
            version
        }


ACCEPTS = re.compile(r"meta nfproto ipv(?P<version>\d) (?P<source>\S+ saddr \{ [^}]* \}|iifname \S+) "
                     r"(?P<to>\S+ daddr \{ [^}]* \}|oifname \S+) "
                     r"(?P<protocol>tcp|udp) dport \{ (?P<ports>[^}]*) \} accept")  # fmt: skip


def _names(text: str, address: str) -> bool:
    """Whether a set of addresses and networks has an address."""
    words = [word for word in re.split(r"[{}, ]+", text) if re.match(r"[0-9a-f]*[:.]", word)]
    return any(ip_address(address) in ip_network(word) for word in words)


def _passes(rules: str, source: str, destination: str, protocol: str, port: int) -> bool:
    """Whether the appliance lets a connection through, read from its rules as text."""
    for found in ACCEPTS.finditer(rules):
        ends = (("saddr", found["source"], source), ("daddr", found["to"], destination))
        addressed = all(side not in text or _names(text, address) for side, text, address in ends)
        # What comes in by or leaves for the Internet is nobody's of the site.
        outside = all("internet0" not in text or ".1." in address or ":1::" in address for _, text, address in ends)
        version = str(ip_address(destination).version) == found["version"]
        if addressed and outside and version and protocol == found["protocol"] and str(port) in found["ports"].split(", "):
            return True
    return False


def test_the_appliance_lets_through_what_flows_allow_and_nothing_else() -> None:
    """Every way between two zones, as the expected matrix has it, which shares nothing with the appliance's rules."""
    site, lab = _lab(NO_EDGE)
    seen = {True: 0, False: 0}
    for cell, flow in expected_matrix(site).items():
        source = site.hosts.get(cell.source)
        zone = next((zone for zone, leg in site.hosts[cell.destination].interfaces.items() if cell.address in leg.addresses), None)
        home = next((zone for zone in (source.interfaces if source else ()) if zone != "management"), None)
        if source is None or home is None or zone in {None, "management", home}:
            continue
        mine = next((str(each) for each in source.interfaces[home].addresses if each.version == cell.address.version), None)
        if mine is None:
            continue
        passes = _passes(lab.appliance, mine, str(cell.address), cell.protocol, cell.port)
        assert passes == (flow is not None), (cell, flow)
        seen[passes] += 1
    assert seen[True] > 20
    assert seen[False] > 300


def test_the_appliance_translates_what_is_published_and_keeps_state_as_asked() -> None:
    site, lab = _lab(NO_EDGE)
    assert "ip daddr 10.99.1.1 tcp dport { 143 } dnat ip to 10.99.2.10" in lab.appliance
    assert f"established : {site.timers.floor('established')}" in lab.appliance
    assert appliance.rules(site, "10.99.1.1") == lab.appliance
