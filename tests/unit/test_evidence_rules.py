"""The reader of netfilter rules, against rules as `nft -j list ruleset` 1.1 prints them, and what checks make of snapshots."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest

from lemonstand.derived.deviations import deviations
from lemonstand.evidence.plugin import MARKS
from lemonstand.outcomes import Invalid, NotMeasurable, Unmet
from lemonstand.policy import DEFAULT_PROFILE, load_timers
from lemonstand.remote.connections import connection
from lemonstand.remote.facts import Facts, Socket
from lemonstand.remote.netfilter import Packet, Ruleset, UnreadableRule
from lemonstand.remote.settings import Settings, seconds, size
from lemonstand.site import Site, load_site
from sample_site import sound_site, write_site

Json = Any
ACCEPT, DROP = {"accept": None}, {"drop": None}


def match(left: Json, right: Json, op: str = "==") -> Json:
    return {"match": {"op": op, "left": left, "right": right}}


def field(protocol: str, name: str) -> Json:
    return {"payload": {"protocol": protocol, "field": name}}


def meta(key: str) -> Json:
    return {"meta": {"key": key}}


FLAGS = {"&": [field("tcp", "flags"), {"|": ["syn", "ack"]}]}


def chain(name: str, hook: str = "", policy: str = "accept", *, kind: str = "filter", priority: int = 0, table: str = "lemonstand") -> Json:
    value: Json = {"family": "inet", "table": table, "name": name}
    return {"chain": value | ({"type": kind, "hook": hook, "prio": priority, "policy": policy} if hook else {})}


def rule(in_chain: str, *expressions: Json, comment: str = "", table: str = "lemonstand") -> Json:
    value: Json = {"family": "inet", "table": table, "chain": in_chain, "handle": 7, "expr": list(expressions)}
    return {"rule": value | ({"comment": comment} if comment else {})}


def timeout(name: str, family: str, **policy: int) -> Json:
    return {"ct timeout": {"family": "inet", "table": "lemonstand", "name": name, "protocol": "tcp", "l3proto": family, "policy": policy}}


def verdict(rules: list[Json], packet: Packet, hook: str = "input") -> tuple[bool, str]:
    found = Ruleset(rules).verdict(hook, packet)
    return found.accepted, found.rule


V4, V6 = ("198.51.100.7", "192.0.2.10"), ("2001:db8::7", "2001:db8:2::10")
IMAP = rule("input", match(meta("nfproto"), "ipv4"), match(field("tcp", "dport"), 143), ACCEPT, comment="imap")


def test_policy_decides_what_no_rule_names() -> None:
    rules = [chain("input", "input", "drop"), IMAP]
    assert verdict(rules, Packet(*V4, port=143)) == (True, "imap")
    assert verdict(rules, Packet(*V4, port=144)) == (False, "policy of chain input")
    assert verdict(rules, Packet(*V6, port=143)) == (False, "policy of chain input")
    assert verdict(rules, Packet(*V4, "udp", port=143)) == (False, "policy of chain input")


@pytest.mark.parametrize(
    ("right", "address", "holds"),
    [
        ("198.51.100.7", "198.51.100.7", True),
        ({"set": ["198.51.100.1", "198.51.100.7"]}, "198.51.100.7", True),
        ({"set": ["198.51.100.1"]}, "198.51.100.7", False),
        ({"prefix": {"addr": "198.51.100.0", "len": 24}}, "198.51.100.7", True),
        ({"prefix": {"addr": "198.51.100.0", "len": 30}}, "198.51.100.7", False),
        ({"range": ["198.51.100.2", "198.51.100.8"]}, "198.51.100.7", True),
        ({"set": [{"elem": {"val": "198.51.100.7"}}]}, "198.51.100.7", True),
    ],
)
def test_forms_of_addresses(right: Json, address: str, holds: bool) -> None:
    rules = [chain("input", "input", "drop"), rule("input", match(field("ip", "saddr"), right), ACCEPT)]
    assert verdict(rules, Packet(address, "192.0.2.1", port=1))[0] is holds


def test_ports_devices_states_and_flags() -> None:
    def accepts(expression: Json, packet: Packet) -> bool:
        return verdict([chain("input", "input", "drop"), rule("input", expression, ACCEPT)], packet)[0]

    assert accepts(match(field("tcp", "dport"), {"set": [{"range": [140, 150]}]}), Packet(*V4, port=143))
    assert accepts(match(meta("iifname"), {"set": ["dmz0", "auth0"]}), Packet(*V4, device_in="dmz0"))
    assert not accepts(match(meta("iifname"), "dmz0", "!="), Packet(*V4, device_in="dmz0"))
    assert accepts(match(meta("iifname"), "dm*"), Packet(*V4, device_in="dmz0"))
    assert accepts(match({"ct": {"key": "state"}}, ["established", "related"], "in"), Packet(*V4, state="related"))
    assert not accepts(match({"ct": {"key": "state"}}, ["established", "related"], "in"), Packet(*V4))
    assert accepts(match(FLAGS, "syn"), Packet(*V4))
    assert not accepts(match(FLAGS, "ack"), Packet(*V4))
    assert accepts(match(field("icmp", "type"), "destination-unreachable"), Packet(*V4, "icmp", icmp_type=3))
    assert not accepts(match(field("icmp", "type"), "destination-unreachable"), Packet(*V6, "icmpv6", icmp_type=1))


def test_jumps_return_and_other_tables_have_their_say() -> None:
    inner = [chain("errors"), rule("errors", match(field("icmp", "type"), "destination-unreachable"), ACCEPT, comment="errors")]
    rules = [chain("input", "input", "drop"), *inner, rule("input", {"jump": {"target": "errors"}}), IMAP]
    assert verdict(rules, Packet(*V4, "icmp", icmp_type=3)) == (True, "errors")
    assert verdict(rules, Packet(*V4, port=143)) == (True, "imap")
    foreign = [chain("late", "input", "accept", priority=10, table="other"), rule("late", DROP, comment="stop", table="other")]
    assert verdict([*rules, *foreign], Packet(*V4, port=143)) == (False, "stop")


@pytest.mark.parametrize(
    ("seen", "packet", "dropped"),
    [
        ({"ip option": {"name": "lsrr"}}, Packet(*V4, source_route="lsrr"), True),
        ({"ip option": {"name": "lsrr"}}, Packet(*V4, source_route="ssrr"), False),
        ({"ip option": {"name": "ssrr"}}, Packet(*V4), False),
        ({"exthdr": {"name": "rt"}}, Packet(*V6, source_route="rt"), True),
        ({"exthdr": {"name": "rt"}}, Packet(*V6), False),
    ],
)
def test_source_routes_are_options_and_headers(seen: Json, packet: Packet, dropped: bool) -> None:
    rules = [chain("early", "prerouting"), rule("early", match(seen, True), DROP)]
    assert verdict(rules, packet, "prerouting")[0] is not dropped


def test_limits_are_told() -> None:
    slow = rule("input", match(field("tcp", "dport"), 143), {"limit": {"rate": 1, "per": "minute"}}, ACCEPT, comment="slow")
    log = rule("input", {"limit": {"rate": 5, "per": "minute"}}, {"log": {"prefix": "x"}})
    found = Ruleset([chain("input", "input", "drop"), log, slow]).verdict("input", Packet(*V4, port=143))
    assert found.accepted
    assert found.limits == ("limit in slow",)


def test_translation() -> None:
    nat = [
        chain("publish", "prerouting", kind="nat", priority=-100),
        rule("publish", match(field("tcp", "dport"), 143), {"dnat": {"family": "ip", "addr": "192.0.2.10"}}, comment="imap"),
    ]
    packet, name = Ruleset(nat).translated(Packet("198.51.100.7", "203.0.113.1", port=143))
    assert (packet.destination, packet.translated, name) == ("192.0.2.10", True, "imap")
    assert Ruleset(nat).translated(Packet("198.51.100.7", "203.0.113.1", port=25))[1] is None


@pytest.mark.parametrize(
    "expression", [{"xt": None}, match({"socket": {"key": "mark"}}, 1), match(field("tcp", "dport"), "@ports"), match(meta("mark"), 1)]
)
def test_what_it_does_not_know_is_an_error(expression: Json) -> None:
    with pytest.raises(UnreadableRule):
        verdict([chain("input", "input"), rule("input", expression, ACCEPT)], Packet(*V4, port=143))


def test_timeouts_that_nft_leaves_out_are_its_defaults() -> None:
    rules = [chain("in", "prerouting"), timeout("t", "ip", unack=7440), rule("in", {"ct timeout": "t"})]
    ((family, name, values, _),) = Ruleset(rules).tcp_timeouts()
    assert (family, name, values["unack"], values["established"], values["close"]) == ("ip", "t", 7440, 432000, 10)


def test_numbers_with_units() -> None:
    assert [seconds(text) for text in ("1740 secs", "29 mins", "300s", "0")] == [1740, 1740, 300, 0]
    assert [size(text) for text in ("41942016 B", "40 M", "100")] == [41942016, 41943040, 100]
    for text in ("infinity", "", "3 fortnights"):
        with pytest.raises(Invalid):
            seconds(text)


def test_dovecot_settings() -> None:
    settings = Settings(
        "ssl = required\nssl_server_cert_file =\nssl_server {\n  cert_file = /a.crt\n}\n"
        "service imap-login {\n  inet_listener imap {\n    port = 143\n  }\n}\n"
        "passdb lua {\n  lua_file = /x\n}\n",
        {"protocol=imap/x": "1"},
    )
    assert settings.get("ssl_server_cert_file") == "/a.crt"
    assert settings.get("service imap-login/inet_listener imap/port") == "143"
    assert settings.sections("passdb") == ["lua"]
    assert settings.get("x", "imap") == "1"
    with pytest.raises(Invalid):
        settings.get("imap_idle_notify_interval")


ANY = "0.0.0.0"  # noqa: S104 - what ss shows, nothing listens


def test_sockets() -> None:
    assert Socket("tcp", "*", 1).hears(4) and Socket("tcp", "*", 1).hears(6)
    assert Socket("tcp", ANY, 1).hears(4) and not Socket("tcp", ANY, 1).hears(6)
    assert Socket("tcp", "127.0.0.1", 1).is_local and not Socket("tcp", "::1", 1).hears(6)


def test_connections_follow_the_inventory() -> None:
    plain = connection("store", {"ansible_host": "2001:db8::1", "ansible_user": "admin", "ansible_port": "2222"}, Path("/s"))
    assert plain.target == "ssh://admin@[2001:db8::1]:2222"
    assert plain.sudo
    lab = connection(
        "store", {"ansible_host": "10.0.0.1", "ansible_user": "root", "ansible_ssh_common_args": "-F '/a b/config'"}, Path("/s")
    )
    assert not lab.sudo
    assert lab.ssh_arguments.endswith("-F '/a b/config'")
    assert "ControlPath=/s/%C" in lab.ssh_arguments


# --- checks against made-up hosts: each sound state passes, each mutant is noticed ---


@pytest.fixture(scope="module", autouse=True)
def _marks(pytestconfig: pytest.Config) -> None:
    """Checks carry marks that this test run would refuse."""
    for mark, meaning in MARKS.items():
        pytestconfig.addinivalue_line("markers", f"{mark}: {meaning}")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return load_site(write_site(tmp_path_factory.mktemp("site"), sound_site()))


KERNEL = {
    "established": "established", "unack": "unacknowledged", "retrans": "max_retrans", "fin_wait": "fin_wait", "close_wait": "close_wait",
    "syn_sent": "syn_sent", "syn_recv": "syn_recv", "last_ack": "last_ack", "time_wait": "time_wait", "close": "close",
}  # fmt: skip


SOURCE_ROUTES = ({"ip option": {"name": "lsrr"}}, {"ip option": {"name": "ssrr"}}, {"exthdr": {"name": "rt"}})


def facts(**changes: Any) -> Facts:
    """A host that holds every rule of the network checks, changed."""
    timers = load_timers().profiles[DEFAULT_PROFILE]
    sysctl = {f"net.ipv4.{name}": value for name, value in timers.items() if name.startswith("tcp_")}
    sysctl |= {f"net.netfilter.nf_conntrack_tcp_timeout_{kernel}": timers[name] for name, kernel in KERNEL.items()}
    sysctl |= {
        "net.ipv4.tcp_mtu_probing": 1,
        "net.ipv4.ip_no_pmtu_disc": 0,
        "net.ipv4.tcp_orphan_retries": 0,
        "net.netfilter.nf_conntrack_tcp_loose": 1,
    }
    policy = {name: timers[name] for name in KERNEL}
    rules = [
        chain("timers", "prerouting"),
        *(
            entry
            for name, family in (("t4", "ip"), ("t6", "ip6"))
            for entry in (timeout(name, family, **policy), rule("timers", {"ct timeout": name}))
        ),
        chain("strangers", "prerouting", priority=-300),
        *(rule("strangers", match(option, True), DROP) for option in SOURCE_ROUTES),
        *(chain(hook, hook, "drop") for hook in ("input", "output", "forward")),
        *(
            rule(hook, match(field(protocol, "type"), {"set": kinds}), ACCEPT)
            for hook in ("input", "output", "forward")
            for protocol, kinds in (
                ("icmp", ["destination-unreachable", "time-exceeded", "parameter-problem"]),
                ("icmpv6", ["destination-unreachable", "packet-too-big", "time-exceeded", "parameter-problem"]),
            )
        ),
    ]
    shut = {
        "ipv4": ("accept_redirects", "send_redirects", "accept_source_route"),
        "ipv6": ("accept_redirects", "accept_source_route", "accept_ra"),
    }
    legs = ("all", "default", "dmz0")
    interfaces = {version: {device: {**dict.fromkeys(names, 0), "forwarding": 1} for device in legs} for version, names in shut.items()}
    for path, value in changes.pop("interfaces", {}).items():
        version, device, name = path.split("/")
        interfaces[version][device][name] = value
    data = {
        "interfaces": interfaces,
        "settings_of_boot": [[f"net/{version}/conf/*/{name}", "0"] for version, names in shut.items() for name in names],
        "virtualization": "none", "sysctl": sysctl | changes.pop("sysctl", {}), "nft": rules + changes.pop("rules", []), "socket_units": [],
        "sysctl_skipped": [], **changes,
    }  # fmt: skip
    return Facts("edge", data)


def ask(check: str, site: Site, host: Facts) -> None:
    module, name = check.split(".")
    function = getattr(importlib.import_module(f"lemonstand.checks.{module}"), name)
    known = {"site": site, "facts_of": lambda _: host, "measure": lambda *_: None}
    function(**{each: known.get(each, "edge") for each in inspect.signature(function).parameters})


RELATED = rule("input", match({"ct": {"key": "state"}}, ["related"], "in"), ACCEPT, comment="related")
TIMEOUT = "net.netfilter.nf_conntrack_tcp_timeout_"
KEPT = {"Id": "x.socket", "KeepAlive": "yes"}
OTHER = [timeout("x", "ip", established=9000), rule("timers", {"ct timeout": "x"})]
NETWORK_MUTANTS: list[tuple[str, dict[str, Any]]] = [
    ("test_network.test_data_is_sent_again_long_enough", {"sysctl": {"net.ipv4.tcp_retries2": 3}}),
    ("test_network.test_opening_goes_on_long_enough", {"sysctl": {"net.ipv4.tcp_syn_retries": 6}}),
    ("test_network.test_keep_alive_survives_a_lost_probe", {"sysctl": {"net.ipv4.tcp_keepalive_probes": 1}}),
    ("test_network.test_keep_alive_probes_are_rare", {"sysctl": {"net.ipv4.tcp_keepalive_time": 600}}),
    ("test_network.test_keep_alive_probes_are_rare", {"socket_units": [{**KEPT, "KeepAliveTimeUSec": "5min"}]}),
    ("test_network.test_handshakes_and_closes_are_patient", {"sysctl": {"net.ipv4.tcp_synack_retries": 1}}),
    ("test_network.test_idle_connections_are_remembered", {"sysctl": {TIMEOUT + "established": 7200}}),
    (
        "test_network.test_idle_connections_are_remembered",
        {"rules": [timeout("x", "ip", established=600), rule("timers", {"ct timeout": "x"})]},
    ),
    ("test_network.test_opening_and_closing_connections_are_remembered", {"sysctl": {TIMEOUT + "time_wait": 120}}),
    ("test_network.test_half_closed_connections_are_remembered", {"sysctl": {TIMEOUT + "close_wait": 60}}),
    ("test_network.test_unacknowledged_connections_are_remembered", {"sysctl": {TIMEOUT + "unacknowledged": 300}}),
    ("test_network.test_ipv6_has_the_same_timeouts", {"rules": OTHER}),
    (
        "test_network.test_no_port_has_timeouts_of_its_own",
        {"rules": [rule("timers", match(field("tcp", "dport"), 143), {"ct timeout": "t4"})]},
    ),
    ("test_network.test_forgotten_connections_are_learnt_again", {"sysctl": {"net.netfilter.nf_conntrack_tcp_loose": 0}}),
    ("test_network.test_forgotten_connections_are_learnt_again", {"rules": [rule("input", match(FLAGS, "syn"), ACCEPT)]}),
    (
        "test_network.test_icmp_errors_pass",
        {"rules": [chain("early", "input", priority=-5), rule("early", match(field("icmp", "type"), "time-exceeded"), DROP)]},
    ),
    ("test_network.test_path_mtu_feedback_passes", {"sysctl": {"net.ipv4.tcp_mtu_probing": 0}}),
    ("test_network.test_path_mtu_feedback_passes", {"rules": [chain("early", "forward", "drop", priority=-5)]}),
    (
        "test_strangers.test_interfaces_take_no_route_from_strangers",
        {"interfaces": {"ipv4/all/accept_redirects": 1, "ipv4/dmz0/accept_redirects": 1}},
    ),
    ("test_strangers.test_interfaces_take_no_route_from_strangers", {"interfaces": {"ipv6/default/accept_ra": 2}}),
    ("test_strangers.test_interfaces_take_no_route_from_strangers", {"interfaces": {"ipv4/dmz0/send_redirects": 1}}),
    ("test_strangers.test_a_boot_keeps_strangers_out", {"settings_of_boot": []}),
    ("test_strangers.test_filters_drop_what_would_move_routes", {"rules": [RELATED]}),
    ("test_network.test_no_rule_makes_resets", {"rules": [rule("input", {"reject": {"type": "tcp reset"}})]}),
    (
        "test_isolation.test_nobody_interferes_with_mail",
        {"rules": [rule("input", match(field("tcp", "dport"), 143), {"redirect": {"port": 1143}})]},
    ),
    ("test_isolation.test_no_fast_path_takes_connections_over", {"rules": [{"flowtable": {"family": "inet", "table": "x", "name": "ft"}}]}),
    ("test_isolation.test_every_opening_has_a_name_and_a_reason", {"rules": [rule("input", match(field("tcp", "dport"), 80), ACCEPT)]}),
]


@pytest.mark.parametrize(
    ("check", "change"), NETWORK_MUTANTS, ids=[f"{check}-{number}" for number, (check, _) in enumerate(NETWORK_MUTANTS)]
)
def test_a_network_check_notices_its_mutant(site: Site, check: str, change: dict[str, Any]) -> None:
    good = [rule("input", match(field("tcp", "dport"), 143), ACCEPT, comment="imap")]
    ask(check, site, facts(packages={}, rules=list(good)))
    with pytest.raises(Unmet):
        ask(check, site, facts(**{"packages": {}, **change, "rules": good + change.get("rules", [])}))


PACES = ("test_idle_lines_come_in_time", "test_idle_lines_do_not_wake_without_need")


def _dovecot(interval: str) -> Facts:
    special = {"protocol=imap/imap_idle_notify_interval": interval, "protocol=imap/imap_hibernate_timeout": "30 secs"}
    return facts(dovecot={"all": "ssl = required\n", "special": special})


@pytest.mark.parametrize(
    ("interval", "complaint"), [("29 mins", None), ("1740 secs", None), ("2 mins", PACES[1]), ("30 mins", PACES[0]), ("0", PACES[0])]
)
def test_the_pace_of_idle_lines(site: Site, interval: str, complaint: str | None) -> None:
    for check in PACES:
        if check == complaint:
            with pytest.raises(Unmet):
                ask(f"test_store_host.{check}", site, _dovecot(interval))
        elif interval != "0":
            ask(f"test_store_host.{check}", site, _dovecot(interval))


def test_a_deviation_of_the_profile_is_no_pass(tmp_path: Path) -> None:
    tree = sound_site()
    tree["all"]["lemonstand_timer_profile"] = "nat-hostile"
    site = load_site(write_site(tmp_path, tree))
    ask("test_store_host.test_idle_lines_come_in_time", site, _dovecot("4 mins"))
    with pytest.raises(NotMeasurable, match="deviation of the timer profile 'nat-hostile': not idle_notify >= 1500"):
        ask("test_store_host.test_idle_lines_do_not_wake_without_need", site, _dovecot("4 mins"))
    with pytest.raises(Unmet):
        ask("test_store_host.test_idle_lines_do_not_wake_without_need", site, _dovecot("1 mins"))
    assert [found.control for found in deviations(site)] == ["LEM-5-02"]


def test_silence_of_two_hours_needs_hibernation(tmp_path: Path) -> None:
    tree = sound_site()
    tree["all"] |= {"lemonstand_timer_profile": "dormant", "lemonstand_middleboxes": []}
    site = load_site(write_site(tmp_path, tree))
    ask("test_store_host.test_idle_lines_come_in_time", site, _dovecot("7140 secs"))
    awake = _dovecot("7140 secs")
    awake.data["dovecot"]["special"]["protocol=imap/imap_hibernate_timeout"] = "0"
    with pytest.raises(Unmet):
        ask("test_store_host.test_idle_lines_come_in_time", site, awake)


def test_what_can_not_be_read_is_invalid(site: Site) -> None:
    with pytest.raises(Invalid):
        ask("test_store_host.test_idle_lines_come_in_time", site, facts(dovecot=None))
    with pytest.raises(Invalid):
        ask("test_network.test_no_rule_makes_resets", site, Facts("edge", {"nft": None}))
