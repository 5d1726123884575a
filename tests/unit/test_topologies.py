"""Sites as people have them are accepted, and a lab of each can be planned."""

from __future__ import annotations

import json
import re
from functools import cache
from ipaddress import ip_address, ip_network
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest

import shipped_lab
import topologies
from lemonstand.derived import expected_matrix
from lemonstand.derived.change_request import change_request
from lemonstand.errors import InputErrors
from lemonstand.lab import appliance, seeds
from lemonstand.lab.topology import Route, Topology, from_plain
from lemonstand.site import Host, Site
from lemonstand.site.families import zone_at
from lemonstand.site.raw import RawSite
from lemonstand.site.shipped import filter_plugin

NO_EDGE = "no edge but an appliance"


@cache
def _lab(kind: str) -> tuple[Site, Topology, RawSite]:
    with TemporaryDirectory() as folder:
        return shipped_lab.read(topologies.write(kind, Path(folder) / "inventory"))


@pytest.mark.parametrize("kind", topologies.TOPOLOGIES)
def test_every_topology_is_a_sound_site_and_a_lab(kind: str) -> None:
    site, lab, _ = _lab(kind)
    apart = {machine.name for machine in lab.machines} - set(site.hosts)
    assert apart == {"repository", *(("bastion",) if "jump host" in kind else ())}, "the site knows an address of it alone"
    assert {machine.name for machine in lab.machines} >= set(site.hosts)
    assert bool(lab.appliance) == (not site.group("edges"))
    for machine in lab.machines:
        if machine.managed and machine.name != "edge":
            assert machine.routes, f"{machine.name} reaches nothing"


def test_one_ip_version_alone_is_one_alone() -> None:
    for kind, version in (("IPv4 only", 4), ("IPv6 only", 6)):
        _, lab, _ = _lab(kind)
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
    site, lab, _ = _lab(NO_EDGE)
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
    site, lab, _ = _lab(NO_EDGE)
    assert "ip daddr 10.99.1.1 tcp dport { 143 } dnat ip to 10.99.2.10" in lab.appliance
    assert f"established : {site.timers.floor('established')}" in lab.appliance
    assert appliance.rules(site, "10.99.1.1") == lab.appliance


# --- one card a host: everything by one leg, told apart by address ---

TWO_NETWORKS = "two networks in the DMZ"
CARDS = ("one card a host", "one card a host behind an appliance")
filters = filter_plugin("lemonstand")


class Packet(NamedTuple):
    """The first packet of a connection."""

    source: str
    to: str
    protocol: str
    port: int


class Walk:
    """A site's packet filters, walked rule by rule: a host's output, the edge, the other host's input. Shares nothing with the matrix."""

    def __init__(self, kind: str) -> None:
        self.site, _, raw = _lab(kind)
        self.groups = {group: list(names) for group, names in raw.groups.items()}
        self.hosts = {name: dict(host.values) for name, host in raw.hosts.items()}
        self.flows = [flow.model_dump(by_alias=True) for flow in self.site.active_flows]
        self.rules = {name: filters.host_rules(self.flows, name, self.groups, self.hosts) for name in self.site.hosts}
        edge = next(iter(self.site.group("edges")), None)
        self.edge = edge and filters.edge_rules(self.flows, edge.name, self.groups, self.hosts)
        self.legs = edge.interfaces if edge else {}

    def passes(self, source: Host | None, target: Host, packet: Packet) -> bool:
        """Whether a connection gets through, by the rules of all hosts on its way."""
        zone = next(zone for zone, leg in target.interfaces.items() if ip_address(packet.to) in leg.addresses)
        if source is not None and source.role_groups:
            device = source.interfaces[zone if zone in source.interfaces else str(source.way_in)].device
            if not any(_meets(rule, device, packet.to, packet) for rule in self.rules[source.name]["output"]):
                return False
        direct = zone in source.interfaces if source is not None else zone == "management"
        if not direct and self.edge and not self.across(self.side(source), zone, packet):
            return False
        return any(_meets(rule, target.interfaces[zone].device, packet.source, packet) for rule in self.rules[target.name]["input"])

    @staticmethod
    def side(source: Host | None) -> str:
        """The zone from which a connection of somebody's comes to the edge."""
        return "management" if source is None else next((z for z in source.interfaces if z != "management"), "internet")

    def across(self, entering: str, leaving: str, packet: Packet) -> bool:
        """Whether the edge lets a connection from one of its legs to another."""
        version = ip_address(packet.to).version
        ends = (("source", packet.source), ("target", packet.to))
        return any(
            self.legs[entering].device in rule["from_devices"]
            and self.legs[leaving].device in rule["to_devices"]
            and rule["protocol"] == packet.protocol
            and packet.port in rule["ports"]
            and all(rule[f"{side}{version}"] is None or _within(end, rule[f"{side}{version}"]) for side, end in ends)
            for rule in self.edge["forward"]
        )


def _within(address: str, words: list[str]) -> bool:
    return any(ip_address(address) in ip_network(word) for word in words if "-" not in word and (":" in word) == (":" in address))


def _meets(rule: dict[str, Any], device: str, other: str, packet: Packet) -> bool:
    known = rule[f"ipv{ip_address(other).version}"]
    inside = rule.get(f"inside{ip_address(other).version}") or []
    ends = [word.split("-") for word in inside if "-" in word]
    among = any(int(ip_address(first)) <= int(ip_address(other)) <= int(ip_address(last)) for first, last in ends)
    there = not among and not _within(other, inside) if known is None else _within(other, known)
    return rule["device"] in {None, device} and there and rule["protocol"] == packet.protocol and packet.port in rule["ports"]


@pytest.mark.parametrize("kind", CARDS)
def test_with_one_card_everybody_reaches_what_flows_say_and_nothing_else(kind: str) -> None:
    walk = Walk(kind)
    site = walk.site
    seen = {True: 0, False: 0}
    for cell, flow in expected_matrix(site).items():
        source, target = site.hosts.get(cell.source), site.hosts[cell.destination]
        zone = next((zone for zone, leg in target.interfaces.items() if cell.address in leg.addresses), None)
        # Who is outside meets IPv4 at the translated address; an edge answers at each of its addresses whoever comes by one of them.
        if zone is None or not target.role_groups or (source is not None and not source.role_groups) or "edges" in target.groups:
            continue
        if source is None and (zone != target.way_in or cell.address.version == 6):
            continue
        legs = source.interfaces if source else {}
        leg = legs.get(zone) or (legs[str(source.way_in)] if source else None)
        mine = [str(each) for each in (leg.addresses if leg else site.settings.controllers) if each.version == cell.address.version]
        passes = walk.passes(source, target, Packet(mine[0], str(cell.address), cell.protocol, cell.port))
        assert passes == (flow is not None), (cell, flow)
        seen[passes] += 1
    assert seen[True] > 15
    assert seen[False] > 500


def test_under_the_controllers_address_nobody_gets_across_the_edge() -> None:
    """A host of the DMZ that is broken into sends as the controller: the edge knows on which side that one stands."""
    walk = Walk("one card a host")
    controller = str(walk.site.settings.controllers[0])
    for group, zone in (("auths", "auth"), ("stores", "store")):
        target = str(walk.site.group(group)[0].interfaces[zone].ipv4)
        assert walk.across("management", zone, Packet(controller, target, "tcp", 22))
        for side in {"internet", "dmz", "auth", "store"} - {zone}:
            assert not walk.across(side, zone, Packet(controller, target, "tcp", 22))
        assert not walk.across("management", zone, Packet("10.99.5.40", target, "tcp", 22)), "not from any address of management"


def test_with_one_card_backups_cross_the_border_and_nothing_else_goes_to_management() -> None:
    walk = Walk("one card a host")
    store, relay = (str(walk.site.group(group)[0].interfaces[zone].ipv4) for group, zone in (("stores", "store"), ("relays", "dmz")))
    assert walk.across("store", "management", Packet(store, "10.99.5.40", "tcp", 8000))
    assert not walk.across("store", "management", Packet(store, "10.99.5.254", "tcp", 8000))
    assert not walk.across("dmz", "management", Packet(relay, "10.99.5.40", "tcp", 8000))
    assert not walk.across("store", "management", Packet(store, "10.99.5.40", "tcp", 22))


def test_an_appliance_is_asked_for_the_controllers_way_in() -> None:
    site, lab, _ = _lab("one card a host behind an appliance")
    rows = {opening.flow.name: opening for opening in change_request(site).openings}
    assert "10.99.5.254" in rows["management-ssh"].source
    assert "auth (10.99.3.10" in rows["management-ssh"].destination
    assert "back-up-stores" in rows
    assert _passes(lab.appliance, "10.99.5.254", "10.99.3.10", "tcp", 22)
    assert not _passes(lab.appliance, "10.99.2.10", "10.99.3.10", "tcp", 22)
    usual, _, _ = _lab(NO_EDGE)
    assert not {"management-ssh", "back-up-stores"} & {opening.flow.name for opening in change_request(usual).openings}


def test_a_lab_leads_the_controller_to_hosts_of_one_card() -> None:
    _, lab, _ = _lab("one card a host")
    assert Route("10.99.3.0/24", "10.99.5.1") in lab.controller_routes
    assert Route("10.99.4.0/24", "10.99.5.1") in lab.machine("repository").routes
    assert Route("10.99.5.0/24", "10.99.3.1") in lab.machine("auth").routes
    assert lab.machine("auth").management == "10.99.3.10"
    assert {leg.zone for leg in lab.machine("auth").legs} == {"auth"}
    assert not _lab(NO_EDGE)[1].controller_routes


# --- who comes in, and by which way ---


def test_a_lab_has_the_inventorys_account_and_its_jump_host() -> None:
    _, lab, _ = _lab("an administrator with sudo")
    assert {machine.account for machine in lab.machines} == {"ops"}
    assert {machine.name for machine in lab.machines if machine.asks} == {"edge", "store", "relay"}
    _, lab, _ = _lab("a jump host")
    bastion = lab.machine("bastion")
    assert (bastion.managed, bastion.open, bastion.by) == (False, True, "")
    assert {machine.by for machine in lab.machines if machine.name != "bastion"} == {"bastion"}
    assert from_plain(lab.name, lab.prefix, json.loads(json.dumps(lab.plain()))) == lab


def test_a_jump_host_that_is_no_machine_of_the_lab_is_named(tmp_path: Path) -> None:
    inventory = topologies.write("a jump host", tmp_path / "inventory")
    hosts = inventory / "hosts.yml"
    hosts.write_text(hosts.read_text(encoding="utf-8").partition("    jumphosts:")[0], encoding="utf-8")
    with pytest.raises(InputErrors) as caught:
        shipped_lab.planned(inventory)
    assert "reached by way of 10.99.5.30, which is no machine of the lab" in str(caught.value)


def test_the_controller_comes_by_the_jump_host_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, lab, _ = _lab("a jump host")
    monkeypatch.setattr(seeds, "control_directory", lambda name: tmp_path / "control")
    for part in ("ssh", "hosts", "secrets"):
        (tmp_path / part).mkdir()
    seeds.seed_lab(lab, tmp_path)
    config = (tmp_path / "ssh" / "config").read_text(encoding="ascii")
    assert "Host auth 10.99.5.11\n  HostName 10.99.5.11\n  User root\n  ProxyJump 10.99.5.30\n" in config
    assert "Host bastion 10.99.5.30\n  HostName 10.99.5.30\n  User root\nHost" in config
    assert (tmp_path / "hosts" / "auth" / "authorized_keys").read_text(encoding="ascii").startswith('from="10.99.5.30" ')
    assert (tmp_path / "hosts" / "bastion" / "authorized_keys").read_text(encoding="ascii").startswith('from="10.99.5.254" ')
    assert (tmp_path / "secrets" / "become").stat().st_mode & 0o777 == 0o600


# --- two networks in one zone ---


def test_a_host_has_the_gateway_of_its_own_network() -> None:
    site, lab, _ = _lab(TWO_NETWORKS)
    assert lab.machine("relay").routes[0] == Route("default", "10.99.2.129")
    assert lab.machine("frontend").routes[0] == Route("default", "10.99.2.1")
    assert "10.99.2.129/25" in next(leg for leg in lab.machine("edge").legs if leg.zone == "dmz").addresses
    known = {way.to for way in lab.machine("store").routes}
    assert {"10.99.2.0/25", "10.99.2.128/25", "fd6c:656d:99:2::/65", "fd6c:656d:99:2:8000::/65"} <= known
    assert zone_at(ip_address("10.99.2.140"), site.settings.zones) == "dmz"


def test_rules_mean_both_networks_of_a_zone() -> None:
    walk = Walk(TWO_NETWORKS)
    clocks = next(rule for rule in walk.rules["edge"]["input"] if rule["name"] == "time-dmz")
    assert {"10.99.2.0/25", "10.99.2.128/25"} <= set(clocks["ipv4"])
    store = str(walk.site.hosts["store"].interfaces["store"].ipv4)
    assert walk.across("dmz", "store", Packet("10.99.2.140", store, "tcp", 24))
    assert not walk.across("dmz", "dmz", Packet("10.99.2.10", "10.99.2.140", "tcp", 25)), "what stands in one zone is no flow for that"
    assert not any(_meets(rule, "dmz0", "10.99.2.140", Packet("", "", "tcp", 143)) for rule in walk.rules["frontend"]["input"])


def test_within_a_zone_a_flow_turns_round_at_the_edge() -> None:
    """Stores in two networks: what they have to tell each other goes in and out by one leg."""
    walk = Walk(TWO_NETWORKS)
    zones = {**walk.hosts["edge"]["lemonstand_zones"], "store": {"ipv4": "10.99.4.0/25", "more": ["10.99.4.128/25"]}}
    beside = {"lemonstand_interfaces": {"store": {"device": "store0", "ipv4": "10.99.4.140"}}, "lemonstand_zones": zones}
    hosts = {name: {**values, "lemonstand_zones": zones} for name, values in walk.hosts.items()} | {"store2": beside}
    groups = {**walk.groups, "stores": ["store", "store2"]}
    walk.edge = filters.edge_rules(walk.flows, "edge", groups, hosts)
    assert walk.across("store", "store", Packet("10.99.4.140", "10.99.4.10", "tcp", 143))
    assert not walk.across("store", "store", Packet("10.99.4.140", "10.99.4.10", "tcp", 24))


# --- a routed DMZ ---


@pytest.mark.parametrize("kind", ["a routed DMZ", "one card a host behind an appliance"])
def test_where_nothing_is_translated_the_internet_meets_hosts_at_their_own_addresses(kind: str) -> None:
    site, _, _ = _lab(kind)
    matrix = expected_matrix(site)
    met = {(cell.destination, str(cell.address)): flow for cell, flow in matrix.items() if cell.source == "peer" and flow}
    assert {("frontend", "10.99.2.10"), ("frontend", "fd6c:656d:99:2::10"), ("relay", "10.99.2.20")} <= set(met)
    assert not {host for host, _ in met} & {"auth", "store"}
    translated, _, _ = _lab(NO_EDGE)
    assert not [
        cell for cell, flow in expected_matrix(translated).items() if flow and cell.source == "peer" and str(cell.address) == "10.99.2.10"
    ]
