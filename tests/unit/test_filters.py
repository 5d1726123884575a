"""Flows and timers as data, and the filters that turn them into rules."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError

from lemonstand.policy.flows import several as several_of

PLAYBOOKS = Path(__file__).resolve().parents[2] / "playbooks"
_spec = importlib.util.spec_from_file_location("lemonstand_filters", PLAYBOOKS / "filter_plugins" / "lemonstand.py")
assert _spec is not None and _spec.loader is not None
filters: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(filters)

FLOWS = yaml.safe_load((PLAYBOOKS / "flows.yml").read_text(encoding="utf-8"))["flows"]

ZONES = {zone: {"ipv4": f"10.1.{n}.0/24", "ipv6": f"fd01:{n}::/64"} for n, zone in enumerate(("dmz", "auth", "store", "management"), 2)}


def _host(**legs: int) -> dict[str, Any]:
    numbers = {"internet": 1, "dmz": 2, "auth": 3, "store": 4, "management": 5}
    return {
        "lemonstand_zones": ZONES,
        "lemonstand_controllers": ["10.1.5.254"],
        "lemonstand_dns_resolvers": ["10.1.1.25"],
        "lemonstand_ntp_servers": ["10.1.1.25"],
        "lemonstand_interfaces": {
            zone: {"device": f"{zone}0", "ipv4": f"10.1.{numbers[zone]}.{octet}", "ipv6": f"fd01:{numbers[zone]}::{octet}"}
            for zone, octet in legs.items()
        },
    }


HOSTS = {
    "edge": _host(internet=1, dmz=1, auth=1, store=1, management=1),
    "frontend": _host(dmz=10, management=10),
    "auth": _host(auth=10, management=11),
    "store": _host(store=10, management=12),
    "relay": _host(dmz=20, management=13),
}
GROUPS = {"edges": ["edge"], "frontends": ["frontend"], "auths": ["auth"], "stores": ["store"], "relays": ["relay"]}
OFF = ("implicit_tls", "managesieve", "self_service", "acme", "backup", "smarthost", "mirror", "mirror_dmz", "directory")
NOTHING = {**dict.fromkeys(OFF, False), "no_smarthost": True, **several_of(lambda _: ["the only one"])}
"""Conditions of a site with one host of each kind, and nothing more than it must have."""


def _active(profile: str = "both", *, managesieve: bool = False, acme: bool = False, several: bool = False) -> list[dict[str, Any]]:
    active: list[dict[str, Any]] = filters.active_flows(
        FLOWS,
        {**NOTHING, "implicit_tls": profile != "seed-strict", "managesieve": managesieve, "acme": acme, "several_auths": several},
        [],
        [],
    )
    return active


def test_the_host_that_answers_holds_each_source_to_its_share() -> None:
    shares = {rule["name"]: rule["per_source"] for name in HOSTS for rule in filters.host_rules(_active(), name, GROUPS, HOSTS)["input"]}
    assert {name: share for name, share in shares.items() if share is not None} == {"ask-issuer": 512}
    assert all("per_source" not in rule for rule in filters.host_rules(_active(), "frontend", GROUPS, HOSTS)["output"])


def test_acme_opens_what_it_needs_and_nothing_else_does() -> None:
    def rules(*, acme: bool) -> tuple[set[int], set[int]]:
        found = filters.host_rules(_active(acme=acme), "frontend", GROUPS, HOSTS)
        return _ports(found["input"]), _ports(found["output"])

    without, with_acme = rules(acme=False), rules(acme=True)
    assert with_acme[0] - without[0] == {80}
    assert with_acme[1] - without[1] == {443, 53}
    published = filters.edge_rules(_active(acme=True), "edge", GROUPS, HOSTS)["publish"]
    assert [each["ipv4"] for each in published if each["ports"] == [80]] == [["10.1.2.10"]]


def _ports(rules: list[dict[str, Any]]) -> set[int]:
    return {port for rule in rules for port in rule["ports"]}


def test_each_host_hears_only_its_own_flows() -> None:
    expected = {
        "frontend": {22, 143, 587, 993, 465},
        "auth": {22, 8443},
        "store": {22, 143, 587, 24},
        "relay": {22, 25, 587},
        "edge": {22, 123},
    }
    for name, ports in expected.items():
        assert _ports(filters.host_rules(_active(), name, GROUPS, HOSTS)["input"]) == ports


def test_only_the_frontend_may_ask_the_issuer() -> None:
    rules = filters.host_rules(_active(), "auth", GROUPS, HOSTS)["input"]
    issuer = next(rule for rule in rules if rule["ports"] == [8443])
    assert issuer["ipv4"] == ["10.1.2.10"]
    assert issuer["ipv6"] == ["fd01:2::10"]


def test_ssh_is_heard_on_the_management_device_from_the_controller_only() -> None:
    for name in HOSTS:
        ssh = [rule for rule in filters.host_rules(_active(), name, GROUPS, HOSTS)["input"] if 22 in rule["ports"]]
        assert [(rule["device"], rule["ipv4"]) for rule in ssh] == [("management0", ["10.1.5.254"])]


def test_inner_hosts_may_open_nothing_towards_the_internet() -> None:
    for name in ("auth", "store"):
        for rule in filters.host_rules(_active(), name, GROUPS, HOSTS)["output"]:
            assert rule["ipv4"] is not None
            assert rule["ipv6"] is not None


def test_the_edge_passes_nothing_from_the_internet_to_inner_zones() -> None:
    forward = filters.edge_rules(_active(), "edge", GROUPS, HOSTS)["forward"]
    inward = [rule for rule in forward if rule["from_devices"] == ["internet0"]]
    assert inward
    assert {device for rule in inward for device in rule["to_devices"]} == {"dmz0"}
    assert _ports(inward) == {143, 587, 993, 465, 25}


def test_what_is_published_is_what_the_internet_may_reach() -> None:
    rules = filters.edge_rules(_active(), "edge", GROUPS, HOSTS)
    assert _ports(rules["publish"]) == _ports([rule for rule in rules["forward"] if rule["from_devices"] == ["internet0"]])


@pytest.mark.parametrize(
    ("networks", "ranges"),
    [
        (["10.80.2.0/24", "10.80.3.0/24", "10.80.4.0/24"], ["10.80.2.0-10.80.4.255"]),
        (["10.80.3.0/24", "10.80.2.0/24"], ["10.80.2.0/23"]),
        (["192.0.2.128/26", "203.0.113.0/24", "192.0.2.0/25"], ["192.0.2.0-192.0.2.191", "203.0.113.0/24"]),
        (["2001:db8:2::/64", "10.80.2.0/24"], ["10.80.2.0/24", "2001:db8:2::/64"]),
        (["10.80.1.3", "10.80.1.4", "10.80.1.9", "2001:db8::3"], ["10.80.1.3-10.80.1.4", "10.80.1.9", "2001:db8::3"]),
        ([], []),
    ],
)
def test_networks_that_touch_are_one_range(networks: list[str], ranges: list[str]) -> None:
    """As nft lists them: a table that is saved and loaded again is the same one (a rollback, a snapshot)."""
    assert filters._ranges(networks) == ranges


def test_the_internet_is_no_zone_of_the_site() -> None:
    """What may come from anywhere or go anywhere does so outside the site: one relay is no way to the other."""
    rules = filters.host_rules(_active(), "relay", GROUPS, HOSTS)
    zones = HOSTS["relay"]["lemonstand_zones"]
    inside = filters._ranges(nets["ipv4"] for zone, nets in zones.items() if zone != "internet")
    open_ones = [rule for side in rules.values() for rule in side if rule["ipv4"] is None]
    assert {rule["name"] for rule in open_ones} == {"inbound-mail", "outbound-mail"}
    assert all(rule["inside4"] == inside for rule in open_ones)
    assert not any(rule["inside4"] or rule["inside6"] for side in rules.values() for rule in side if rule["ipv4"] is not None)


def test_seed_strict_closes_the_implicit_tls_ports() -> None:
    assert _ports(filters.host_rules(_active("seed-strict"), "frontend", GROUPS, HOSTS)["input"]) == {22, 143, 587}


@pytest.mark.parametrize(
    ("extra", "disabled", "words"),
    [
        ([{"name": "x", "from": "frontend", "to": "stores", "protocol": "tcp", "ports": [1], "reason": "r"}], [], ["'x'", "frontends"]),
        (
            [{"name": "x", "from": "dmz", "to": "stores", "protocol": "tcp", "ports": [1], "reason": "r", "when": "never"}],
            [],
            ["'x'", "always"],
        ),
        ([], ["imapp"], ["imapp", "imap"]),
    ],
)
def test_a_bad_flow_is_refused_with_its_name_and_a_remedy(extra: list[dict[str, Any]], disabled: list[str], words: list[str]) -> None:
    with pytest.raises(AnsibleFilterError) as caught:
        filters.active_flows(FLOWS, {**NOTHING, "implicit_tls": True}, extra, disabled)
    for word in words:
        assert word in str(caught.value)


PAIRED: dict[str, Any] = {"b1": {}, "a1": {}, "a2": {"lemonstand_standby_of": "a1"}}


def test_a_store_and_its_standby_are_one_by_the_stores_name() -> None:
    assert filters.pairs(["a2", "b1", "a1"], PAIRED) == {"b1": ["b1"], "a1": ["a1", "a2"]}


def test_users_have_the_place_the_inventory_names_or_the_first_store() -> None:
    users = json.dumps([{"name": "Alice@x.test"}, {"name": "bob@x.test", "store": "b1"}])
    assert filters.places(users, ["a1", "b1"]) == {"alice@x.test": "a1", "bob@x.test": "b1"}


def test_aliases_of_all_are_those_of_each_store_together() -> None:
    users = json.dumps(
        [
            {"name": "alice@x.test", "store": "a1", "aliases": ["a@x.test", "all@x.test"]},
            {"name": "bob@x.test", "store": "b1", "aliases": ["all@x.test", "B@x.test"]},
        ]
    )
    assert filters.aliases_of_all(users) == {"a@x.test": "alice@x.test", "b@x.test": "bob@x.test"}


ALL_TURNS = [
    ({}, [["edge", "frontend", "auth", "store", "relay"], []]),
    ({"auths": ["a1", "a2"]}, [["edge", "frontend", "a1", "store", "relay"], ["a2"]]),
    ({"frontends": ["f1", "f2", "f3", "f4", "f5"]}, [["edge", "f1", "f2", "auth", "store", "relay"], ["f3", "f4", "f5"]]),
    ({"stores": ["s1", "s2", "back1", "back2"]}, [["edge", "frontend", "auth", "back1", "back2", "relay"], ["s1", "s2"]]),
]


@pytest.mark.parametrize(("several", "wanted"), ALL_TURNS)
def test_of_several_some_go_first_and_standbys_before_their_stores(several: dict[str, list[str]], wanted: list[list[str]]) -> None:
    groups = {**GROUPS, **several}
    variables = {name: {"lemonstand_standby_of": f"s{name[-1]}"} if "back" in name else {} for names in groups.values() for name in names}
    assert filters.turns(groups, variables) == wanted
    assert sorted(name for turn in wanted for name in turn) == sorted(variables)


def test_who_is_not_at_work_goes_first() -> None:
    """On the first day all of them do: an empty directory waits for its twins."""
    groups = {**GROUPS, "auths": ["a1", "a2"], "stores": ["s1", "back1"]}

    def turns(*idle: str) -> list[list[str]]:
        said = {name: {"__host_state": {"answer": {"idle": name in idle}}} for names in groups.values() for name in names}
        said["back1"]["lemonstand_standby_of"] = "s1"  # type: ignore[assignment]
        found: list[list[str]] = filters.turns(groups, said)
        return found

    assert turns()[1] == ["a2", "s1"]
    assert turns("a2", "s1")[1] == ["a1", "back1"]
    assert turns("a1", "a2", "s1", "back1")[1] == []


@pytest.mark.parametrize(
    ("seen", "wanted"),
    [
        ({}, []),  # not in this run, or lost before its turn
        ({"__turn_came": True}, ["a1"]),
        ({"__turn_came": True, "__turn_answers": {"rc": 1}}, ["a1"]),
        ({"__turn_came": True, "__turn_answers": {"unreachable": True}}, ["a1"]),
        ({"__turn_came": True, "__turn_answers": {"rc": 0}}, []),
    ],
)
def test_who_goes_second_looks_at_those_of_his_kind_alone(seen: dict[str, Any], wanted: list[str]) -> None:
    groups = {**GROUPS, "auths": ["a1", "a2"], "relays": ["r1", "r2"]}
    variables: dict[str, dict[str, Any]] = {name: {} for names in groups.values() for name in names} | {"a1": seen}
    in_turn = filters.turns(groups, variables)
    assert filters.unanswered(groups, variables, "a2", in_turn) == wanted
    assert filters.unanswered(groups, variables, "r2", in_turn) == []
    assert filters.unanswered(groups, variables, "a1", in_turn) == []


def _backed_up(address: str) -> dict[str, Any]:
    return {name: {**host, "lemonstand_services": {"backup": {"addresses": [address], "port": 8123}}} for name, host in HOSTS.items()}


def test_backups_go_to_the_address_and_port_that_are_named_and_nowhere_else() -> None:
    hosts = _backed_up("10.1.5.99")
    active = filters.active_flows(FLOWS, {**NOTHING, "backup": True}, [], [], hosts["store"]["lemonstand_services"])
    for name, others in {"store": "back-up-stores", "auth": "back-up-auths"}.items():
        (rule,) = (each for each in filters.host_rules(active, name, GROUPS, hosts)["output"] if each["name"] == others)
        assert (rule["ports"], rule["ipv4"], rule["ipv6"]) == ([8123], ["10.1.5.99"], [])
    for name in ("frontend", "relay", "edge"):
        assert not [each for each in filters.host_rules(active, name, GROUPS, hosts)["output"] if "back-up" in each["name"]]
    assert not [each for each in _active() if "back-up" in each["name"]], "nothing is open where no repository is named"


def test_an_edge_passes_backups_on_between_zones_and_never_to_management() -> None:
    for address, passed in (("10.1.5.99", []), ("10.1.4.99", ["back-up-auths"])):
        hosts = _backed_up(address)
        active = filters.active_flows(FLOWS, {**NOTHING, "backup": True}, [], [], hosts["store"]["lemonstand_services"])
        rules = filters.edge_rules(active, "edge", GROUPS, hosts)["forward"]
        assert [each["name"] for each in rules if "back-up" in each["name"]] == passed


def test_with_a_smarthost_relays_send_to_it_alone() -> None:
    service = {"addresses": ["203.0.113.77", "2001:db8:77::1"], "port": 465}
    hosts = {name: {**host, "lemonstand_services": {"smarthost": service}} for name, host in HOSTS.items()}
    active = filters.active_flows(
        FLOWS, {**NOTHING, "smarthost": True, "no_smarthost": False}, [], [], hosts["relay"]["lemonstand_services"]
    )
    out = {each["name"]: each for each in filters.host_rules(active, "relay", GROUPS, hosts)["output"]}
    assert "outbound-mail" not in out
    rule = out["hand-to-smarthost"]
    assert (rule["ports"], rule["ipv4"], rule["ipv6"]) == ([465], ["203.0.113.77"], ["2001:db8:77::1"])
    forward = {each["name"]: each for each in filters.edge_rules(active, "edge", GROUPS, hosts)["forward"]}
    assert "outbound-mail" not in forward
    assert forward["hand-to-smarthost"]["target4"] == ["203.0.113.77"]
    for name in ("frontend", "auth", "store"):
        assert "hand-to-smarthost" not in {each["name"] for each in filters.host_rules(active, name, GROUPS, hosts)["output"]}
    assert "hand-to-smarthost" not in {each["name"] for each in _active()}


def test_auth_hosts_alone_reach_the_directory_behind() -> None:
    service = {"addresses": ["10.20.0.5", "fd00:20::5"], "port": 3269}
    hosts = {name: {**host, "lemonstand_services": {"directory": service}} for name, host in HOSTS.items()}
    active = filters.active_flows(FLOWS, {**NOTHING, "directory": True}, [], [], hosts["auth"]["lemonstand_services"])
    rule = {each["name"]: each for each in filters.host_rules(active, "auth", GROUPS, hosts)["output"]}["ask-directory"]
    assert (rule["ports"], rule["ipv4"], rule["ipv6"]) == ([3269], ["10.20.0.5"], ["fd00:20::5"])
    forward = {each["name"]: each for each in filters.edge_rules(active, "edge", GROUPS, hosts)["forward"]}["ask-directory"]
    assert (forward["target4"], forward["from_devices"]) == (["10.20.0.5"], ["auth0"])
    for name in ("frontend", "store", "relay"):
        assert "ask-directory" not in {each["name"] for each in filters.host_rules(active, name, GROUPS, hosts)["output"]}
    assert "ask-directory" not in {each["name"] for each in _active()}


def test_whose_password_a_directory_behind_judges_settings_alone_say() -> None:
    users = '[{"name": "Alice@a.example"}, {"name": "bob@b.example"}, {"name": "probe@a.example"}]'
    assert filters.judged_behind(users, {}) == []
    assert filters.judged_behind(users, {"own_passwords": ["Probe@a.example"]}) == ["alice@a.example", "bob@b.example"]
    assert filters.judged_behind(users, {"domains": ["a.example"], "own_passwords": ["probe@a.example"]}) == ["alice@a.example"]


def test_a_password_becomes_a_line_that_htpasswd_makes() -> None:
    assert filters.htpasswd("example") == "{SHA}w0mcJylzCn+AfvuGdqkty2+KP48="


def test_packages_come_from_the_mirror_of_each_side_and_no_edge_joins_the_two() -> None:
    services = {"mirror": {"addresses": ["10.1.5.40"]}, "mirror_dmz": {"addresses": ["203.0.113.80"], "port": 8080}}
    hosts = {name: {**host, "lemonstand_services": services} for name, host in HOSTS.items()}
    active = filters.active_flows(FLOWS, {**NOTHING, "mirror": True, "mirror_dmz": True}, [], [], services)
    for name, expected in (("store", ["10.1.5.40"]), ("auth", ["10.1.5.40"]), ("edge", ["10.1.5.40"]), ("relay", ["203.0.113.80"])):
        rules = [each for each in filters.host_rules(active, name, GROUPS, hosts)["output"] if each["name"].startswith("packages-")]
        assert [each["ipv4"] for each in rules] == [expected]
        assert rules[0]["ports"] == ([8080] if name == "relay" else [80])
    forward = {each["name"]: each["target4"] for each in filters.edge_rules(active, "edge", GROUPS, hosts)["forward"]}
    passed = {name: target for name, target in forward.items() if name.startswith("packages-")}
    assert passed == {"packages-frontends": ["203.0.113.80"], "packages-relays": ["203.0.113.80"]}
    assert not [each for each in _active() if each["name"].startswith("packages-")], "nothing is open where no mirror is named"
