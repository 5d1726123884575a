"""The expected reachability of the sample site, against a table written by hand from RFC 5383's picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lemonstand.derived import CONTROLLER, Cell, allowed_between, expected_matrix
from lemonstand.policy import load_flows, load_timers
from lemonstand.site import Site, build
from lemonstand.site.raw import RawSite
from lemonstand.site.reader import read
from sample_site import leg, sound_site, write_site

PLAYBOOKS = Path(__file__).resolve().parents[2] / "playbooks"
PUBLIC = "203.0.113.1"


def site_with(tmp_path: Path, **shared: Any) -> Site:
    """The sample site with a host outside, and other variables."""
    tree = sound_site()
    outside = {"lemonstand_interfaces": {"internet": leg("eth0", "203.0.113.53", "2001:db8:9::53")}}
    tree["hosts"]["all"]["children"]["peers"] = {"hosts": {"peer": outside}}
    tree["all"] |= shared
    folder = write_site(tmp_path, tree)
    return build(folder, RawSite.from_plain(read(folder, PLAYBOOKS)), load_flows(), load_timers())


@pytest.fixture
def matrix(tmp_path: Path) -> dict[Cell, str | None]:
    """The matrix of the sample site."""
    return expected_matrix(site_with(tmp_path))


def ports(matrix: dict[Cell, str | None], source: str, destination: str) -> set[str]:
    """The allowed ports of a pair, such as `tcp/143`."""
    return {f"{protocol}/{port}" for _, protocol, port in allowed_between(matrix, source, destination)}


TABLE = {
    ("peer", "frontend"): {"tcp/143", "tcp/587", "tcp/993", "tcp/465"},
    ("peer", "relay"): {"tcp/25"},
    ("frontend", "auth"): {"tcp/8443"},
    ("frontend", "store"): {"tcp/143", "tcp/587"},
    ("store", "relay"): {"tcp/587"},
    ("relay", "store"): {"tcp/24"},
    ("relay", "peer"): {"tcp/25", "tcp/53", "udp/53"},
    ("frontend", "edge"): {"udp/123"},
    ("relay", "edge"): {"udp/123"},
    ("auth", "edge"): {"udp/123"},
    ("store", "edge"): {"udp/123"},
    **{(CONTROLLER, host): {"tcp/22"} for host in ("edge", "frontend", "auth", "store", "relay")},
}


def test_the_whole_table(matrix: dict[Cell, str | None]) -> None:
    hosts = ("edge", "frontend", "auth", "store", "relay", "peer")
    pairs = {(source, destination) for source in (CONTROLLER, *hosts) for destination in hosts if source != destination}
    found = {pair: ports(matrix, *pair) for pair in pairs}
    assert {pair: allowed for pair, allowed in found.items() if allowed} == TABLE


def test_every_cell_of_the_table_is_asked(matrix: dict[Cell, str | None]) -> None:
    asked = {(cell.source, cell.destination) for cell in matrix}
    assert {("auth", "store"), ("store", "auth"), ("frontend", "relay"), ("peer", "store"), ("peer", "edge")} <= asked
    assert len([flow for flow in matrix.values() if flow is None]) > 1000


def test_outside_reaches_the_frontend_where_its_family_says(matrix: dict[Cell, str | None]) -> None:
    addresses = {address for address, _, _ in allowed_between(matrix, "peer", "frontend")}
    assert addresses == {PUBLIC, "2001:db8:2::10"}, "IPv4 is translated, IPv6 is not"


def test_management_addresses_open_to_the_controller_only(matrix: dict[Cell, str | None]) -> None:
    allowed = {cell.source for cell, flow in matrix.items() if flow and str(cell.address).startswith("198.51.100.")}
    assert allowed == {CONTROLLER}


def test_seed_strict_has_no_implicit_tls(tmp_path: Path) -> None:
    strict = expected_matrix(site_with(tmp_path, lemonstand_tls_profile="seed-strict"))
    assert ports(strict, "peer", "frontend") == {"tcp/143", "tcp/587"}
    assert any(cell.port == 993 for cell in strict), "what is closed is still asked"


def test_disabled_and_extra_flows_count(tmp_path: Path) -> None:
    extra = {
        "name": "sieve",
        "from": "internet",
        "to": "frontends",
        "protocol": "tcp",
        "ports": [4190],
        "reason": "filters",
        "publish": True,
    }
    changed = expected_matrix(site_with(tmp_path, lemonstand_flows_disabled=["submission"], lemonstand_flows_extra=[extra]))
    assert ports(changed, "peer", "frontend") == {"tcp/143", "tcp/4190", "tcp/993", "tcp/465"}
