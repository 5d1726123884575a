"""Turns a real site's inventory into one that a lab can hold: the same hosts and settings, at the lab's addresses (docs/decisions/0033)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any

import yaml

from lemonstand.derived.dns import Record, records
from lemonstand.errors import InputError
from lemonstand.files import write_text
from lemonstand.lab import appliance
from lemonstand.lab.topology import CARRIER_OCTET, CARRIER_POOL_OFFSET, CONTROLLER_OCTET, Topology
from lemonstand.paths import data_dir
from lemonstand.policy.kinds import MANAGEMENT, OUTSIDE
from lemonstand.site import Site
from lemonstand.site.model import PREFIX
from lemonstand.site.raw import RawSite

Address = IPv4Address | IPv6Address
FOLDER = "inventory"
"""Below a lab's directory: what commands with `--lab` read."""
PEER_OCTET = 25
NOT_TAKEN = {"user_passwords", "foreign_variables"}
"""Secrets stay where they are; what others read means nothing here."""
PROBES = ("probe-one", "probe-two")
WORD = re.compile(r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*[0-9A-Fa-f:])(?:/\d{1,3})?(?![\w.:])")
"""An address or a network in a text."""


@dataclass
class Addresses:
    """Which address of the lab stands for which of the site.

    The last octet stays where it can. What is no host's and lies in no inner zone is the Internet's, and the lab's Internet is its peer.

    Args:
        lab: names and networks of the lab.
        zones: the site's networks by zone.
        known: what was given before, so that a lab's hosts stay where they are when the site grows.
        between: whether an appliance of the driver's stands between the zones.
        joined: the zones it stands in.
    """

    lab: Topology
    zones: Mapping[str, tuple[IPv4Network | IPv6Network, ...]]
    known: dict[str, str] = field(default_factory=dict)
    between: bool = False
    joined: tuple[str, ...] = appliance.SERVED

    def of(self, address: Address, zone: str | None = None) -> Address:
        """The lab's address for one of the site's.

        Args:
            address: an address of the site.
            zone: the zone a host of the site has it in.
        """
        text = str(address)
        if text in self.known:
            return ip_address(self.known[text])
        if zone is None:
            zone = next((name for name, networks in self.zones.items() if any(_within(address, network) for network in networks)), OUTSIDE)
            if zone == OUTSIDE:
                return self._at(zone, PEER_OCTET, address.version)
        wanted = (_last(address), *range(10, 250))
        free = (str(self._at(zone, octet, address.version)) for octet in wanted if not self._reserved(zone, octet))
        taken = set(self.known.values())
        found = next((each for each in free if each not in taken), None)
        if found is None:
            raise InputError(f"the zone '{zone}' has more addresses than a lab's (240)", text, "rehearse a part of the site")
        self.known[text] = found
        return ip_address(found)

    def _at(self, zone: str, octet: int, version: int) -> Address:
        return ip_address(self.lab.address4(zone, octet) if version == 4 else self.lab.address6(zone, octet))

    def _reserved(self, zone: str, octet: int) -> bool:
        """What parts of a lab have: the carrier, its pool of outer addresses, the peer, the controller, the appliance."""
        own = {OUTSIDE: {CARRIER_OCTET, PEER_OCTET, *range(CARRIER_POOL_OFFSET, 256)}, MANAGEMENT: {CONTROLLER_OCTET}}
        return octet in {0, 255} or octet in own.get(zone, set()) or (self.between and zone in self.joined and octet == appliance.OCTET)

    def text(self, words: str) -> str:
        """A text with the site's addresses and networks in it, as it reads in the lab."""
        return WORD.sub(lambda found: self._word(found.group()), words)

    def _word(self, word: str) -> str:
        try:
            if "/" not in word:
                address = ip_address(word)
                outside = address.is_loopback or address.is_unspecified or address.is_multicast or address.is_link_local
                return word if outside else str(self.of(address))
            network = ip_network(word)
        except ValueError:
            return word
        zone = next((name for name, networks in self.zones.items() if network in networks), None)
        if zone is None:
            return word
        return str(self.lab.zone4(zone) if network.version == 4 else self.lab.zone6(zone))

    def value(self, value: Any) -> Any:
        """A plain value, however deep, as it reads in the lab."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {key: self.value(item) for key, item in value.items()}
        return [self.value(item) for item in value] if isinstance(value, list) else value


def _last(address: Address) -> int:
    """The last octet of an address, which in IPv6 is written as in IPv4 (``::10`` for ``.10``), as administrators do."""
    if address.version == 4:
        return address.packed[-1]
    digits = address.exploded.rpartition(":")[2].lstrip("0")
    return int(digits) if digits.isdecimal() and int(digits) < 256 else address.packed[-1]


def _within(address: Address, network: IPv4Network | IPv6Network) -> bool:
    return address.version == network.version and address in network


def write(bare: Topology, site: Site, raw: RawSite, folder: Path, known: dict[str, str]) -> Path:
    """Writes the inventory by which a lab stands for a site.

    Args:
        bare: the lab's name and prefix.
        site: the real site.
        raw: its inventory's values.
        folder: the lab's directory.
        known: addresses given before; new ones are added.

    Returns:
        The inventory, which reads LEMONSTAND_LAB_DIR as every lab's does.
    """
    settings = site.settings
    zones = {name: zone.networks for name, zone in settings.zones.items()}
    addresses = Addresses(bare, zones, known, between=not site.group("edges"), joined=appliance.joined(site))
    if settings.public_ipv4 is not None and addresses.between:
        known[str(settings.public_ipv4)] = bare.address4(OUTSIDE, appliance.OCTET)
    for host in site.hosts.values():
        for zone, leg in host.interfaces.items():
            for address in leg.addresses:
                addresses.of(address, zone)
    if settings.public_ipv4 is not None:
        addresses.of(settings.public_ipv4, OUTSIDE)
    for zone, pair in settings.edge_addresses.items():
        for address in pair.addresses:
            addresses.of(address, zone)
    said = _shared(raw)
    ours = _of_the_lab(bare, site, said)
    shared = {name: addresses.value(value) for name, value in said.items() if name not in ours} | ours
    members: dict[str, dict[str, Any]] = {}
    for name, host_said in raw.hosts.items():
        if "handsets" in host_said.groups:
            continue
        values = addresses.value({key: value for key, value in _taken(host_said.values) if key not in shared})
        values["ansible_host"] = str(addresses.value(str(site.hosts[name].interfaces[str(site.hosts[name].way_in)].addresses[0])))
        members[name] = {"groups": site.hosts[name].role_groups, "values": values}
    children: dict[str, Any] = {}
    for name, member in members.items():
        for group in member["groups"]:
            children.setdefault(group, {"hosts": {}})["hosts"][name] = member["values"]
    children |= _world(addresses, site, set(members))
    target = folder / FOLDER
    note = f"# A rehearsal of {site.inventory}, made anew by each `lemonstand lab up`: change that inventory, not this one.\n---\n"
    write_text(target / "hosts.yml", note + _dump({"all": {"children": children}}))
    write_text(target / "group_vars" / "all" / "site.yml", note + _dump(shared))
    return target


def _taken(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What a rehearsal takes of a host's values: the site's own variables and those of roles."""
    foreign = set(values.get(PREFIX + "foreign_variables") or ())
    yield from ((name, value) for name, value in values.items() if name.removeprefix(PREFIX) not in NOT_TAKEN and name not in foreign)


def _shared(raw: RawSite) -> dict[str, Any]:
    """The variables that say the same on every host."""
    hosts = [dict(_taken(host.values)) for host in raw.hosts.values()]
    first = hosts[0]
    return {name: value for name, value in first.items() if all(name in host and host[name] == value for host in hosts[1:])}


def _of_the_lab(bare: Topology, site: Site, shared: Mapping[str, Any]) -> dict[str, Any]:
    """What is a lab's and not the site's: how hosts are reached, what a container may not do, certificates and passwords of its own."""
    container = yaml.safe_load((data_dir("inventories") / "lab" / "group_vars" / "all" / "containers.yml").read_text(encoding="utf-8"))
    users = [{key: value for key, value in user.items() if key != "password_hash"} for user in shared.get(f"{PREFIX}users") or ()]
    probes = list(site.settings.probe_users)
    if len(probes) < len(PROBES):
        probes = [f"{name}@{site.settings.mail_domains[0]}" for name in PROBES]
        users += [{"name": name} for name in probes if name not in {user["name"] for user in users}]
    zones = {
        zone: {"ipv4": str(bare.zone4(zone)), "ipv6": str(bare.zone6(zone))}
        for zone in {**dict.fromkeys(site.settings.zones), OUTSIDE: None}
    }
    for name, zone in site.settings.zones.items():
        zones[name] = {family: text for family, text in zones[name].items() if getattr(zone, family) is not None}
    return {
        **container,
        f"{PREFIX}expected": [*(shared.get(f"{PREFIX}expected") or ()), *container[f"{PREFIX}expected"]],
        "lab_dir": Raw("{{ lookup('ansible.builtin.env', 'LEMONSTAND_LAB_DIR') }}"),
        f"{PREFIX}foreign_variables": ["lab_dir"],
        "ansible_user": "root",
        "ansible_python_interpreter": "/usr/bin/python3",
        "ansible_ssh_common_args": Raw("-F {{ lab_dir }}/ssh/config"),
        f"{PREFIX}zones": zones,
        f"{PREFIX}controllers": [bare.address4(MANAGEMENT, CONTROLLER_OCTET)],
        f"{PREFIX}pki_dir": Raw("{{ lab_dir }}/pki"),
        f"{PREFIX}public_certificate": {"source": "private_ca"},
        # What others run for the site is not there to be rehearsed with.
        f"{PREFIX}services": {},
        f"{PREFIX}users": users,
        f"{PREFIX}probe_users": probes,
        f"{PREFIX}user_passwords": Raw("{{ lookup('ansible.builtin.file', lab_dir ~ '/secrets/passwords.yml') | from_yaml }}"),
    }


def _world(addresses: Addresses, site: Site, names: set[str]) -> dict[str, Any]:
    """The peer and the handset: the rest of the world, which a real site does not have in its inventory."""
    lab = addresses.lab
    free = (octet for octet in range(14, 250) if lab.address4(MANAGEMENT, octet) not in addresses.known.values())

    def management() -> str:
        return lab.address4(MANAGEMENT, next(free))

    peer = next(name for name in ("peer", "lab-peer", "lab-peer-of-site") if name not in names)
    reached = management()
    leg = {"device": "internet0", "ipv4": lab.address4(OUTSIDE, PEER_OCTET), "ipv6": lab.address6(OUTSIDE, PEER_OCTET)}
    world = {
        "peers": {
            "hosts": {
                peer: {
                    "ansible_host": reached,
                    f"{PREFIX}interfaces": {"internet": leg, MANAGEMENT: {"device": "mgmt0", "ipv4": reached}},
                    "lab_peer_zones": zones_of(
                        [_moved(record, addresses.text) for record in records(site)], site.settings.mail_domains, leg
                    ),
                }
            }
        }
    }
    vantages = [host.name for host in site.group("handsets")] or ["handset"]
    world["handsets"] = {"hosts": {name: {"ansible_host": management()} for name in vantages}}
    return world


def _moved(record: Record, text: Callable[[str], str]) -> Record:
    return Record(record.name, record.kind, text(record.value) if record.kind in {"A", "AAAA"} else f"{record.value}.")


def zones_of(found: list[Record], domains: tuple[str, ...], leg: Mapping[str, str]) -> dict[str, list[dict[str, str]]]:
    """Records as zones of the peer's name server, with those of the peer itself.

    Args:
        found: a site's records.
        domains: its mail domains; a name outside them is in the zone above it.
        leg: the peer's addresses on the Internet.
    """
    zones: dict[str, list[dict[str, str]]] = {domain: [] for domain in domains}
    for record in found:
        if record.kind == "TXT":
            continue  # follows from the lab's own addresses and keys (playbooks/group_vars/peers.yml)
        zone = next((domain for domain in sorted(zones, key=len, reverse=True) if f".{record.name}".endswith(f".{domain}")), None)
        zone = zone or record.name.partition(".")[2]
        name = record.name.removesuffix(zone).rstrip(".") or "@"
        zones.setdefault(zone, []).append({"name": name, "type": record.kind, "value": record.value})
    own = [{"name": name, "type": kind, "value": leg[part]} for name in ("mx", "acme") for kind, part in (("A", "ipv4"), ("AAAA", "ipv6"))]
    return {**zones, "peer.test": [{"name": "@", "type": "MX", "value": "10 mx.peer.test."}, *own]}


class Raw(str):
    """A text with a template in it that Ansible is to work out."""


class _Dumper(yaml.SafeDumper):
    """Marks texts that only look like templates: they were worked out once, and mean what they say."""

    def ignore_aliases(self, data: Any) -> bool:
        """No anchors: each value is read where it stands."""
        del data
        return True


def _text(dumper: yaml.SafeDumper, data: str) -> yaml.Node:
    tag = "!unsafe" if any(brace in data for brace in ("{{", "{%", "{#")) else "tag:yaml.org,2002:str"
    return dumper.represent_scalar(tag, data, style='"' if tag == "!unsafe" else None)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(Raw, lambda dumper, data: dumper.represent_scalar("tag:yaml.org,2002:str", str(data), style='"'))


def _dump(data: Any) -> str:
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=150)
