"""What no flow may open: judged with place and remedy, the same by the data and by the matrix, whatever flow a site thinks of."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lemonstand.checks.test_invariants import PORTS, _at_the_published_address, _ways
from lemonstand.derived import CONTROLLER, Cell
from lemonstand.derived.change_request import change_request, render
from lemonstand.derived.flow_chart import document
from lemonstand.derived.matrix import _is_destination, _is_source, _targets, expected_matrix, never_allowed
from lemonstand.errors import InputErrors
from lemonstand.policy import load_flows, load_timers
from lemonstand.policy.controls import load_controls
from lemonstand.policy.flows import ENDPOINTS, GROUPS, Flow
from lemonstand.policy.invariants import load_invariants
from lemonstand.policy.waivers import load_waivers
from lemonstand.site import Site, build
from lemonstand.site.invariants import broken
from lemonstand.site.raw import RawSite
from lemonstand.site.reader import read
from lemonstand.site.rules import Draft, _addressing
from sample_site import leg, sound_site, write_site

PLAYBOOKS = Path(__file__).resolve().parents[2] / "playbooks"
FLOW = {"name": "extra", "from": "stores", "to": "internet", "protocol": "tcp", "ports": [443], "reason": "somebody asked for it"}


def _raw(folder: Path, change: dict[str, Any], per_host: dict[str, dict[str, Any]] | None = None) -> RawSite:
    tree = sound_site()
    outside = {"lemonstand_interfaces": {"internet": leg("eth0", "203.0.113.53", "2001:db8:9::53")}}
    tree["hosts"]["all"]["children"]["peers"] = {"hosts": {"peer": outside}}
    tree["all"] |= change
    for group in tree["hosts"]["all"]["children"].values():
        for name, values in group["hosts"].items():
            values.update((per_host or {}).get(name, {}))
    return RawSite.from_plain(read(write_site(folder, tree), PLAYBOOKS))


def _faults(folder: Path, per_host: dict[str, dict[str, Any]] | None = None, **change: Any) -> list[Any]:
    try:
        build(folder, _raw(folder, change, per_host), load_flows(), load_timers())
    except InputErrors as caught:
        return list(caught.problems)
    return []


BREAKS = {
    "store calls home": ({}, "INV-1"),
    "auth calls home past its directory": ({"from": "auths", "ports": [636]}, "INV-1"),
    "auth calls home": ({"from": "auth", "protocol": "udp", "ports": [53]}, "INV-1"),
    "a whole zone calls home": ({"from": "management"}, "INV-1"),
    "relay asks auth": ({"from": "relays", "to": "auths"}, "INV-2"),
    "the DMZ asks the zone of auth": ({"from": "dmz", "to": "auth"}, "INV-2"),
    "the Internet asks auth": ({"from": "internet", "to": "auths", "publish": True}, "INV-2"),
    "exporters on management": ({"from": "controllers", "to": "management", "ports": [9100]}, "INV-2"),
    "SSH by UDP": ({"from": "controllers", "to": "management", "protocol": "udp", "ports": [22]}, "INV-2"),
    "SSH past management": ({"from": "controllers", "to": "auths", "ports": [22]}, "INV-2"),
    "the Internet asks a store": ({"from": "internet", "to": "stores", "ports": [143], "publish": True}, "INV-3"),
    "the Internet asks the zone of stores": ({"from": "internet", "to": "store"}, "INV-3"),
    "frontend reaches management": ({"from": "frontends", "to": "management", "ports": [22]}, "INV-4"),
    "the DMZ reaches the controllers": ({"from": "dmz", "to": "controllers", "protocol": "udp", "ports": [514]}, "INV-4"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_flow_that_breaks_one_is_refused_with_its_place(name: str, tmp_path: Path) -> None:
    changed, invariant = BREAKS[name]
    (found,) = [each for each in _faults(tmp_path, lemonstand_flows_extra=[{**FLOW, **changed}]) if f"({invariant})" in each.what]
    assert found.what.startswith("flow 'extra' lets ")
    assert "site.yml:" in found.where
    assert "(lemonstand_flows_extra[0])" in found.where
    assert found.remedy.startswith("no waiver lifts that: ")


@pytest.mark.parametrize(
    "flow",
    [
        {"from": "relays"},
        {"from": "frontends", "to": "auths", "ports": [8444]},
        {"from": "frontends", "to": "stores", "ports": [993]},
        {"from": "controllers", "to": "management", "ports": [22]},
        {"from": "stores", "to": "edges", "protocol": "udp", "ports": [53]},
        {"from": "internet", "to": "relays", "ports": [2525], "publish": True},
    ],
)
def test_other_flows_are_a_sites_own_business(flow: dict[str, Any], tmp_path: Path) -> None:
    assert _faults(tmp_path, lemonstand_flows_extra=[{**FLOW, **flow}]) == []


def test_the_port_of_ssh_is_where_ansible_comes_in(tmp_path: Path) -> None:
    extra = [{**FLOW, "from": "controllers", "to": "management", "ports": [2222]}]
    assert [each for each in _faults(tmp_path / "a", lemonstand_flows_extra=extra) if "INV-2" in each.what]
    assert _faults(tmp_path / "b", {"auth": {"ansible_port": 2222}}, lemonstand_flows_extra=extra) == []


def test_a_list_that_leads_a_shipped_flow_astray_is_named(tmp_path: Path) -> None:
    """The relay's resolver is a machine on the management network."""
    (found,) = _faults(tmp_path, lemonstand_dns_resolvers=["198.51.100.53"])
    assert "INV-4" in found.what
    assert found.what.startswith("lemonstand_dns_resolvers makes flow 'dns-udp' let relays reach somebody by management")
    assert "site.yml:" in found.where


@pytest.mark.parametrize(("part", "refused"), [("", True), ("a part of it", False)])
def test_no_waiver_lifts_one(part: str, refused: bool, tmp_path: Path) -> None:
    waiver = {
        "id": "SITE-W1", "title": "zones are not kept apart", "controls": ["LEM-8-06"], "reason": "it is a small site", "owner": "Jane Doe",
        "date": "2026-11-01", "expires": "2030-01-01", "part": part,
    }  # fmt: skip
    found = [each.what for each in _faults(tmp_path, lemonstand_waivers=[waiver])]
    assert bool(found) is refused
    assert all("waives LEM-8-06 as a whole" in what for what in found)


def test_the_shipped_data_keeps_its_own_rules() -> None:
    controls = load_controls().by_id()
    held = {name for each in load_invariants() for name in each.controls}
    assert held <= set(controls)
    assert not [waiver.id for waiver in load_waivers() if not waiver.part and held & set(waiver.controls)]
    assert len({each.id for each in load_invariants()}) == len(load_invariants()) == 4


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[Site, Draft]:
    """A sound site with a host outside, and what the judge has of it."""
    folder = tmp_path_factory.mktemp("site")
    raw = _raw(folder, {})
    site = build(folder, raw, load_flows(), load_timers())
    shared = site.settings.model_dump() | {"zones": site.settings.zones}
    hosts = {name: {"interfaces": host.interfaces, "dns_resolvers": host.settings.dns_resolvers, "ntp_servers": host.settings.ntp_servers}
             for name, host in site.hosts.items()}  # fmt: skip
    return site, Draft(raw, next(iter(raw.hosts.values())), shared, hosts, site.flows, site.timers)


FLOWS = st.builds(
    lambda source, target, protocol, ports, publish: Flow.model_validate(
        {"name": "extra", "from": source, "to": target, "protocol": protocol, "ports": ports, "publish": publish, "reason": "any"}
    ),
    st.sampled_from(ENDPOINTS),
    st.sampled_from(ENDPOINTS),
    st.sampled_from(["tcp", "udp"]),
    st.lists(st.sampled_from([22, 25, 53, 123, 143, 443, 8443, 9100]), min_size=1, max_size=3, unique=True),
    st.booleans(),
)


@given(flow=FLOWS)
@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_data_and_matrix_forbid_the_same(sample: tuple[Site, Draft], flow: Flow) -> None:
    """Where the matrix forbids a cell that a flow would open, the judge refuses it; the other way round where hosts stand for its ends."""
    site, draft = sample
    told = list(broken(flow, _addressing(draft, site.settings.zones)))
    opened = [(cell, zone) for cell, zone in _cells(site, flow) if _opens(site, flow, cell, zone)]
    forbidden = [cell for cell, zone in opened if never_allowed(site, cell, zone)]
    assert not forbidden or told, f"the matrix forbids {forbidden[0]}, and the judge lets the flow pass"
    # What begins or ends at machines that are in no inventory has no cells.
    concrete = {source.who for _, source, _ in told} | {target.who for _, _, target in told}
    apart = any(source.who != target.who for _, source, target in told)
    # Nor has a kind of host of which the sample has none.
    nobody = {"management", "resolvers", "ntp", *(group for group in GROUPS if not site.group(group))}
    if apart and not {"controllers", "somebody"} & concrete and not nobody & {flow.source, flow.destination}:
        assert forbidden, f"the judge refuses {told[0]}, and the matrix would expect it open"


def _cells(site: Site, flow: Flow) -> list[tuple[Cell, str | None]]:
    return [
        (Cell(source, destination, address, flow.protocol, port), zone)
        for source in (CONTROLLER, *site.hosts)
        for destination, zone, address in _targets(site, source)
        for port in flow.ports
    ]


def _opens(site: Site, flow: Flow, cell: Cell, zone: str | None) -> bool:
    if zone is None:
        return flow.publish and flow.source == "internet" and flow.destination in site.hosts[cell.destination].groups
    return _is_source(site, flow, cell.source) and _is_destination(site, flow, cell, zone)


def test_the_matrix_expects_no_forbidden_way_open(sample: tuple[Site, Draft]) -> None:
    """Even of a site that nobody has judged: the flow is in force, and the matrix still says that it is shut."""
    site, _ = sample
    flow = Flow.model_validate({**FLOW, "from": "internet", "to": "stores", "ports": [143], "publish": True})
    bent = site.model_copy(update={"settings": site.settings.model_copy(update={"flows_extra": (flow,)})})
    assert "extra" in {each.name for each in bent.active_flows}
    assert "extra" not in expected_matrix(bent).values()


def test_a_sites_own_flows_are_marked(tmp_path: Path) -> None:
    own = {**FLOW, "name": "partner-mail", "from": "relays", "ports": [2525]}
    site = build(tmp_path, _raw(tmp_path, {"lemonstand_flows_extra": [own]}), load_flows(), load_timers())
    assert site.own_flows == {"partner-mail"}
    chart = document(site.active_flows, own=site.own_flows)
    assert [line.split(" | ")[0] for line in chart.splitlines() if "of this site" in line] == ["| partner-mail (of this site)"]
    for form in ("md", "html"):
        lines = [line for line in render(change_request(site), form).splitlines() if "of this site" in line and "partner-mail" in line]
        assert len(lines) == 1
    assert ip_address("203.0.113.53") in {cell.address for cell, flow in expected_matrix(site).items() if flow == "partner-mail"}


def test_what_is_tried_live_owes_nothing_to_flows(sample: tuple[Site, Draft]) -> None:
    """The same knocks whatever flows there are, and each invariant has hosts that knock."""
    site, _ = sample
    extra = Flow.model_validate({**FLOW, "from": "internet", "to": "stores", "ports": [143]})
    names = tuple(flow.name for flow in site.flows.flows)
    bent = site.model_copy(update={"settings": site.settings.model_copy(update={"flows_extra": (extra,), "flows_disabled": names})})
    for invariant in load_invariants():
        ways = _ways(site, invariant, PORTS)
        assert ways
        assert ways == _ways(bent, invariant, PORTS)
    sources = {each.id: {source for source, _, _ in _ways(site, each, PORTS)} for each in load_invariants()}
    assert sources == {
        "INV-1": {"auth", "store"}, "INV-2": {"edge", "store", "relay", "peer"}, "INV-3": {"peer"}, "INV-4": {"frontend", "relay"},
    }  # fmt: skip
    assert {address for _, address, _ in _at_the_published_address(site, PORTS)} == {"203.0.113.1"}


def test_each_way_that_is_tried_is_one_the_matrix_forbids(sample: tuple[Site, Draft]) -> None:
    site, _ = sample
    zones = {
        address: (name, zone) for name, host in site.hosts.items() for zone, leg in host.interfaces.items() for address in leg.addresses
    }
    for invariant in load_invariants():
        for source, text, port in _ways(site, invariant, PORTS):
            address = ip_address(text)
            if address in site.settings.controllers:
                continue
            name, zone = zones[address]
            assert never_allowed(site, Cell(source, name, address, "tcp", port), zone), f"{invariant.id}: {source} to {text} {port}"
