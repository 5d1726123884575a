"""What one flow more, or one less, changes: rules of hosts and of the edge, the matrix, the change request, the diagram."""

from __future__ import annotations

import importlib.util
import ipaddress
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lemonstand.derived import CONTROLLER, Cell, expected_matrix
from lemonstand.derived.change_request import change_request, render
from lemonstand.derived.flow_chart import document
from lemonstand.derived.matrix import UNLISTED, asked_ports
from lemonstand.policy import load_flows, load_timers
from lemonstand.policy.flows import several
from lemonstand.site import Site, build
from lemonstand.site.model import ROLE_GROUPS
from lemonstand.site.raw import RawSite
from lemonstand.site.reader import read
from sample_site import host, leg, sound_site, write_site

PLAYBOOKS = Path(__file__).resolve().parents[2] / "playbooks"
_spec = importlib.util.spec_from_file_location("lemonstand_filters", PLAYBOOKS / "filter_plugins" / "lemonstand.py")
assert _spec is not None and _spec.loader is not None
filters: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(filters)

FLOWS = yaml.safe_load((PLAYBOOKS / "flows.yml").read_text(encoding="utf-8"))["flows"]
REMOVABLE = tuple(flow.name for flow in load_flows().flows if flow.name != "management-ssh" and not flow.when.startswith("several_"))
EXTRA = {
    "name": "autoconfig", "from": "internet", "to": "frontends", "protocol": "tcp", "ports": [8008], "publish": True,
    "reason": "clients ask for their settings", "controls": ["LEM-3-09"],
}  # fmt: skip
Hosts = dict[str, dict[str, Any]]


class Place:
    """The sample site with a host outside: its model, and its hosts as the filters see them."""

    def __init__(self, folder: Path, **shared: Any) -> None:
        tree = sound_site()
        outside = {"lemonstand_interfaces": {"internet": leg("eth0", "203.0.113.53", "2001:db8:9::53")}}
        tree["hosts"]["all"]["children"]["peers"] = {"hosts": {"peer": outside}}
        # A second auth host, with which the flows between them are used.
        tree["hosts"]["all"]["children"]["auths"]["hosts"]["auth2"] = host(21, auth=leg("auth0", "192.0.2.76", "2001:db8:3::11"))
        acme = {"source": "acme", "directory": "https://acme.example/dir"}
        every = {"lemonstand_managesieve": True, "lemonstand_self_service": True, "lemonstand_public_certificate": acme}
        tree["all"] |= {**every, "lemonstand_ntp_servers": ["203.0.113.53"], **shared}
        write_site(folder, tree)
        self.site: Site = build(folder, RawSite.from_plain(read(folder, PLAYBOOKS)), load_flows(), load_timers())
        children = tree["hosts"]["all"]["children"]
        self.groups = {group: list(members["hosts"]) for group, members in children.items()}
        self.hosts: Hosts = {name: {**tree["all"], **host} for members in children.values() for name, host in members["hosts"].items()}

    def flows(self, without: str = "", more: Iterable[dict[str, Any]] = ()) -> list[dict[str, Any]]:
        """The active flows as the filters have them."""
        chosen = {
            "implicit_tls": True,
            "managesieve": True,
            "self_service": True,
            "acme": True,
            "backup": False,
            "smarthost": False,
            "no_smarthost": True,
        }
        chosen |= {"mirror": False, "mirror_dmz": False, "directory": False}
        conditions = {**chosen, **several(lambda group: self.groups.get(group, ()))}
        found: list[dict[str, Any]] = filters.active_flows(FLOWS, conditions, more, [without] if without else [])
        return found

    def passes(self, flows: list[dict[str, Any]], cell: Cell) -> bool:  # noqa: PLR0911 - one return for each filter on the way
        """Whether the rules made of some flows let a connection through: out of its host, past the edge, into the other host."""
        four, target = cell.address.version == 4, str(cell.address)
        devices = {zone: str(leg["device"]) for zone, leg in self.hosts["edge"]["lemonstand_interfaces"].items()}
        edge = filters.edge_rules(flows, "edge", self.groups, self.hosts)
        source_zone, source = self._stands(cell.source, four)
        if source_zone == "internet" and target == self.hosts["edge"]["lemonstand_public_ipv4"] and cell.destination != "edge":
            published = [a for rule in edge["publish"] if _fits(rule, cell) for a in rule["ipv4"]]
            own = [str(leg["ipv4"]) for leg in self.hosts[cell.destination]["lemonstand_interfaces"].values()]
            found = [address for address in published if address in own]
            if not found:
                return False
            target = found[0]
        target_zone = next(
            zone for zone, leg in self.hosts[cell.destination]["lemonstand_interfaces"].items() if target in {leg["ipv4"], leg["ipv6"]}
        )
        managed = target_zone == "management"
        if managed != (cell.source == CONTROLLER):
            return False  # the management zone's legs can't reach each other, and nothing else leads there
        if cell.source not in {CONTROLLER, "peer"}:
            own_rules = filters.host_rules(flows, cell.source, self.groups, self.hosts)["output"]
            if not any(_fits(rule, cell) and _among(target, rule["ipv4" if four else "ipv6"]) for rule in own_rules):
                return False
        edges_own = "edge" in {cell.source, cell.destination}
        if (
            not managed
            and source_zone != target_zone
            and not edges_own
            and not any(
                _fits(rule, cell)
                and devices[source_zone] in rule["from_devices"]
                and devices[target_zone] in rule["to_devices"]
                and _among(source, rule["source4" if four else "source6"])
                and _among(target, rule["target4" if four else "target6"])
                for rule in edge["forward"]
            )
        ):
            return False
        if source_zone == "internet" and four and target_zone != "internet" and target == str(cell.address):
            return False  # inner IPv4 addresses are not routed outside
        if cell.destination == "peer":
            return True
        heard = filters.host_rules(flows, cell.destination, self.groups, self.hosts)["input"]
        leg_of = self.hosts[cell.destination]["lemonstand_interfaces"][target_zone]
        return any(
            _fits(rule, cell) and _among(source, rule["ipv4" if four else "ipv6"]) and rule["device"] in {None, leg_of["device"]}
            for rule in heard
        )

    def _stands(self, name: str, four: bool) -> tuple[str, str]:
        if name == CONTROLLER:
            return "management", "198.51.100.254" if four else "2001:db8:5::254"
        for zone, leg_of in self.hosts[name]["lemonstand_interfaces"].items():
            if zone != "management":
                return zone, str(leg_of["ipv4" if four else "ipv6"])
        raise AssertionError(name)


def _fits(rule: dict[str, Any], cell: Cell) -> bool:
    return bool(rule["protocol"] == cell.protocol and cell.port in rule["ports"])


def _among(address: str, listed: list[str] | None) -> bool:
    """Whether a rule's list holds an address; None holds any."""
    return listed is None or any(ipaddress.ip_address(address) in ipaddress.ip_network(entry) for entry in listed)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def matrix(place: Place) -> dict[Cell, str | None]:
    """Without the controller's IPv6 cells (its address is an IPv4 one) and the closed ones from the edge, which has a leg in each zone."""
    return {
        cell: flow
        for cell, flow in expected_matrix(place.site).items()
        if not (cell.source == CONTROLLER and cell.address.version == 6) and not (cell.source == "edge" and flow is None)
    }


def test_rules_and_matrix_agree_cell_by_cell(place: Place, matrix: dict[Cell, str | None]) -> None:
    flows = place.flows()
    assert [cell for cell, flow in matrix.items() if place.passes(flows, cell) is not (flow is not None)] == []


@pytest.mark.parametrize("name", REMOVABLE)
def test_without_a_flow_exactly_its_cells_fail(place: Place, matrix: dict[Cell, str | None], name: str) -> None:
    """Deployed without it and verified with it: the cells that fail are those that carry its name."""
    flows = place.flows(without=name)
    failing = {cell for cell, flow in matrix.items() if flow is not None and not place.passes(flows, cell)}
    assert failing == {cell for cell, flow in matrix.items() if flow == name}
    # A store asks itself over its loopback device, which no cell of two hosts shows; the site need not have a host of every kind, and
    # has no flow whose condition does not hold (several stores).
    active = next((each for each in place.site.active_flows if each.name == name), None)
    absent = active is None or any(group in ROLE_GROUPS and not place.site.group(group) for group in (active.source, active.destination))
    assert failing or absent or name == "submission-to-imap"


def test_one_flow_more_changes_everything_that_follows_from_flows(place: Place, tmp_path: Path) -> None:
    changed = Place(tmp_path, lemonstand_flows_extra=[EXTRA])
    flows = changed.flows(more=[EXTRA])
    heard = filters.host_rules(flows, "frontend", changed.groups, changed.hosts)["input"]
    assert [rule["name"] for rule in heard if 8008 in rule["ports"]] == ["autoconfig"]
    edge = filters.edge_rules(flows, "edge", changed.groups, changed.hosts)
    assert [rule["name"] for rule in edge["forward"] if 8008 in rule["ports"]] == ["autoconfig"]
    assert [rule["name"] for rule in edge["publish"] if 8008 in rule["ports"]] == ["autoconfig"]
    assert 8008 in filters.service_ports(flows), "closing the service closes it too"
    before, after = expected_matrix(place.site), expected_matrix(changed.site)
    new = {(cell.source, cell.destination) for cell, flow in after.items() if flow == "autoconfig"}
    assert new == {("peer", "frontend")}
    assert {cell: flow for cell, flow in after.items() if flow not in {None, "autoconfig"}} == {c: f for c, f in before.items() if f}
    assert "(autoconfig)" in render(change_request(changed.site), "md")
    assert "autoconfig tcp 8008" in document(changed.site.active_flows)


def test_ports_of_no_flow_are_asked_too(place: Place) -> None:
    named = {(flow.protocol, port) for flow in place.site.flows.flows for port in flow.ports}
    assert not named & set(UNLISTED)
    assert set(asked_ports(place.site)) == named | set(UNLISTED)
    cells = expected_matrix(place.site)
    assert not [cell for cell, flow in cells.items() if flow is not None and (cell.protocol, cell.port) in UNLISTED]
