"""TCP, conntrack and ICMP on every host: the numbers that keep idle connections alive, as they are in force now."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import pytest

from lemonstand.checks.conftest import FactsOf, Measure
from lemonstand.outcomes import expect, not_measurable
from lemonstand.remote.facts import Facts
from lemonstand.remote.netfilter import Packet
from lemonstand.site import Site

pytestmark = pytest.mark.answer("configuration")

SYSCTL_OF_TIMEOUT = {"unack": "unacknowledged", "retrans": "max_retrans"}
ORPHAN_TRIES = 8
"""Times a closed connection's last data is sent again; 0 means 8 to Linux (Documentation/networking/ip-sysctl.rst)."""


def _timers(site: Site) -> dict[str, int]:
    return site.timers_in_force


def _breaks(site: Site, control: str, seen: dict[str, int]) -> Iterator[str]:
    """The relations of timers.yml for a control that do not hold with what a host shows."""
    relations = [relation for relation in site.timers.relations_of(site.settings.timer_profile) if relation.control == control]
    known = [relation for relation in relations if relation.left in seen]
    assert known, f"timers.yml has no relation for {control} with {', '.join(seen)}"
    for relation in known:
        if not relation.holds({**_timers(site), **seen}):
            yield f"{relation} ({relation.reason}): {relation.left} is {seen[relation.left]}"


def _check_relations(site: Site, facts: Facts, control: str, names: tuple[str, ...], measure: Measure) -> None:
    seen = {name: facts.sysctl(f"net.ipv4.{name}") for name in names}
    for name, value in seen.items():
        measure(name, value)
    broken = list(_breaks(site, control, seen))
    expect(not broken, f"kernel settings of {facts.name} break {control}", seen=seen, expected=broken)


@pytest.mark.control("LEM-4-04a")
@pytest.mark.supports("LEM-4.2-01")
def test_data_is_sent_again_long_enough(site: Site, facts_of: FactsOf, node: str, measure: Measure) -> None:
    """RFC 1122 4.2.3.5: R1 and R2 for data."""
    _check_relations(site, facts_of(node), "LEM-4-04a", ("tcp_retries1", "tcp_retries2"), measure)


@pytest.mark.control("LEM-4-04b")
def test_opening_goes_on_long_enough(site: Site, facts_of: FactsOf, node: str, measure: Measure) -> None:
    """RFC 1122 4.2.3.5: R2 for a SYN."""
    _check_relations(site, facts_of(node), "LEM-4-04b", ("tcp_syn_retries",), measure)


@pytest.mark.control("LEM-4-04c")
def test_keep_alive_survives_a_lost_probe(site: Site, facts_of: FactsOf, node: str, measure: Measure) -> None:
    """RFC 1122 4.2.3.6: two hours by default, and no end after one probe."""
    facts = facts_of(node)
    _check_relations(site, facts, "LEM-4-04c", ("tcp_keepalive_probes",), measure)
    _check_relations(site, facts, "LEM-4.2-03", ("tcp_keepalive_time",), measure)


@pytest.mark.control("LEM-4.2-03")
def test_keep_alive_probes_are_rare(site: Site, facts_of: FactsOf, node: str, measure: Measure) -> None:
    """The kernel's interval, and no socket unit with one of its own."""
    facts = facts_of(node)
    _check_relations(site, facts, "LEM-4.2-03", ("tcp_keepalive_time",), measure)
    floor = facts.sysctl("net.ipv4.tcp_keepalive_time")
    own = [
        f"{unit['Id']} {unit['KeepAliveTimeUSec']}"
        for unit in facts.data["socket_units"]
        if unit.get("KeepAlive") == "yes" and unit.get("KeepAliveTimeUSec", "0") not in {"0", "2h"}
    ]
    expect(not own, "a socket unit sets a keep-alive interval of its own", seen=own, expected=f"none, so that the kernel's {floor} s count")


@pytest.mark.control("LEM-4-04g")
def test_handshakes_and_closes_are_patient(site: Site, facts_of: FactsOf, node: str, measure: Measure) -> None:
    """SYN/ACKs and the last data of closed sockets are sent again often enough for a fading radio link."""
    facts = facts_of(node)
    tries, orphans = facts.sysctl("net.ipv4.tcp_synack_retries"), facts.sysctl("net.ipv4.tcp_orphan_retries")
    measure("tcp_synack_retries", tries)
    measure("tcp_orphan_retries", orphans)
    wanted = _timers(site)["tcp_synack_retries"]
    expect(tries >= wanted, "SYN/ACKs are given up too early", seen=tries, expected=f"at least {wanted}")
    expect(
        orphans == 0 or orphans >= ORPHAN_TRIES,
        "closing is given up too early",
        seen=orphans,
        expected=f"0 (Linux: {ORPHAN_TRIES}) or more",
    )


def _tcp_timeouts(facts: Facts) -> dict[str, dict[str, int]]:
    """Seconds by state: those of the kernel, and of each timeout object a rule uses, by `family object`."""
    prefix = "net.netfilter.nf_conntrack_tcp_timeout_"
    states = ("established", "unack", "retrans", "fin_wait", "close_wait", "syn_sent", "syn_recv", "last_ack", "time_wait", "close")
    kernel = {state: facts.sysctl(prefix + SYSCTL_OF_TIMEOUT.get(state, state)) for state in states}
    return {"kernel": kernel, **{f"{family} {name}": values for family, name, values, _ in facts.rules.tcp_timeouts()}}


def _check_timeouts(site: Site, facts: Facts, controls: tuple[str, ...], states: tuple[str, ...], measure: Measure) -> None:
    broken = []
    for where, values in _tcp_timeouts(facts).items():
        seen = {state: values[state] for state in states}
        for state, value in seen.items():
            measure(f"{where} {state}", value, "s")
        # One set holds for a connection, the rule's or the kernel's; each has to be right by itself.
        broken += [f"{where}: {text}" for control in controls for text in _breaks(site, control, seen)]
    expect(not broken, f"{facts.name} forgets connections too early", seen=broken, expected="the relations of timers.yml hold everywhere")


@pytest.mark.control("LEM-7-01")
def test_idle_connections_are_remembered(site: Site, facts_of: FactsOf, node: str, measure: Measure) -> None:
    """RFC 5382 REQ-5: 2 h 4 min, in the kernel's table and in every timeout object in use."""
    _check_timeouts(site, facts_of(node), ("LEM-7-01",), ("established",), measure)


@pytest.mark.control("LEM-7-02", "LEM-7-10")
def test_opening_and_closing_connections_are_remembered(site: Site, facts_of: FactsOf, node: str, measure: Measure) -> None:
    """RFC 5382 REQ-5, RFC 7857 2.1 and 2.2: four minutes."""
    states = ("syn_sent", "syn_recv", "last_ack", "time_wait", "close")
    _check_timeouts(site, facts_of(node), ("LEM-7-02", "LEM-7-10"), states, measure)


@pytest.mark.control("LEM-7-03")
def test_half_closed_connections_are_remembered(site: Site, facts_of: FactsOf, node: str, measure: Measure) -> None:
    """RFC 5382 section 5: half-closed is still established."""
    _check_timeouts(site, facts_of(node), ("LEM-7-03",), ("fin_wait", "close_wait"), measure)


@pytest.mark.control("LEM-7-04", "LEM-4.2-02")
def test_unacknowledged_connections_are_remembered(site: Site, facts_of: FactsOf, node: str, measure: Measure) -> None:
    """Data on its way to a handset without network shortens nothing."""
    _check_timeouts(site, facts_of(node), ("LEM-7-04",), ("unack", "retrans"), measure)


@pytest.mark.control("LEM-7-09")
def test_ipv6_has_the_same_timeouts(facts_of: FactsOf, node: str, measure: Measure) -> None:
    """RFC 6092 REC-35: whatever a rule gives IPv4, a rule gives IPv6 at the same hooks."""
    facts = facts_of(node)
    by_family: dict[str, set[tuple[str, tuple[tuple[str, int], ...]]]] = {"ip": set(), "ip6": set()}
    for family, _, values, rule in facts.rules.tcp_timeouts():
        by_family[family].add((str(rule["chain"]), tuple(sorted(values.items()))))
    established = [dict(values)["established"] for _, values in by_family["ip6"]]
    measure("IPv6 established", min(established, default=facts.sysctl("net.netfilter.nf_conntrack_tcp_timeout_established")), "s")
    expect(
        by_family["ip"] == by_family["ip6"],
        "the families differ in their timeouts",
        seen={family: sorted(chain for chain, _ in rules) for family, rules in by_family.items()},
        expected="the same chains with the same values",
    )


@pytest.mark.control("LEM-4.1-09")
def test_no_port_has_timeouts_of_its_own(facts_of: FactsOf, node: str, measure: Measure) -> None:
    """A rule that sets timeouts looks at the family and at TCP, never at ports or addresses."""
    rules = [rule for _, _, _, rule in facts_of(node).rules.tcp_timeouts()]
    measure("rules that set TCP timeouts", len(rules))
    special = [
        f"rule {rule['handle']} of chain {rule['chain']}"
        for rule in rules
        if any("payload" in expression.get("match", {}).get("left", {}) for expression in rule["expr"])
    ]
    expect(not special, "some connections have timeouts of their own", seen=special, expected="one set of timeouts for all TCP connections")


@pytest.mark.control("LEM-7-11")
def test_forgotten_connections_are_learnt_again(facts_of: FactsOf, node: str, measure: Measure) -> None:
    """conntrack picks up connections in the middle, and no accept rule for a service wants a SYN."""
    facts = facts_of(node)
    loose = facts.sysctl("net.netfilter.nf_conntrack_tcp_loose")
    measure("nf_conntrack_tcp_loose", loose)
    expect(loose == 1, "a connection met in the middle is invalid", seen=loose, expected=1)
    strict = [rule.get("comment", rule["handle"]) for rule in facts.rules.every_rule() if _accepts(rule) and _wants_syn(rule)]
    expect(not strict, "a rule accepts a connection's first packet only", seen=strict, expected="accept rules that look at no SYN")


def _accepts(rule: dict[str, Any]) -> bool:
    return any("accept" in expression for expression in rule["expr"])


def _wants_syn(rule: dict[str, Any]) -> bool:
    """Whether a rule's flags let a SYN pass and an ACK not."""
    for expression in rule["expr"]:
        match = expression.get("match", {})
        if "flags" in str(match.get("left")):
            right = str(match.get("right"))
            return "syn" in right and "ack" not in right
    return False


IcmpError = tuple[Literal["icmp", "icmpv6"], int, int, str]
"""Protocol, type, code, name."""
ERRORS: tuple[IcmpError, ...] = (
    ("icmp", 3, 0, "net unreachable"), ("icmp", 3, 1, "host unreachable"), ("icmp", 3, 5, "source route failed"),
    ("icmp", 3, 4, "fragmentation needed"), ("icmp", 11, 0, "time exceeded"), ("icmp", 12, 0, "parameter problem"),
    ("icmpv6", 1, 0, "no route"), ("icmpv6", 1, 3, "address unreachable"), ("icmpv6", 2, 0, "packet too big"),
    ("icmpv6", 3, 0, "time exceeded"), ("icmpv6", 4, 0, "parameter problem"),
)  # fmt: skip


STATES: tuple[Literal["related", "untracked"], ...] = ("related", "untracked")


def _blocked_errors(facts: Facts, kinds: tuple[IcmpError, ...], *, router: bool) -> list[str]:
    """The ICMP errors a hook drops, whether conntrack knows their connection or not."""
    hooks = ("input", "output", "prerouting", "postrouting") + (("forward",) if router else ())
    blocked = []
    for protocol, number, code, name in kinds:
        source, target = ("198.51.100.1", "198.51.100.2") if protocol == "icmp" else ("2001:db8::1", "2001:db8::2")
        for hook in hooks:
            for state in STATES:
                packet = Packet(
                    source, target, protocol, icmp_type=number, icmp_code=code, state=state, device_in="any0", device_out="any1"
                )
                verdict = facts.rules.verdict(hook, packet)
                if not verdict.accepted or verdict.limits:
                    blocked.append(f"{name} ({protocol} {number}/{code}, {state}) at {hook} by {', '.join(verdict.limits) or verdict.rule}")
    return blocked


@pytest.mark.control("LEM-4.2-06")
@pytest.mark.supports("LEM-4-04d", "LEM-4.2-05")
def test_icmp_errors_pass(site: Site, facts_of: FactsOf, node: str, measure: Measure) -> None:
    """Walks every soft error through the rules, as an error about a known connection and about an unknown one."""
    blocked = _blocked_errors(facts_of(node), ERRORS, router="edges" in site.hosts[node].groups)
    measure("kinds of errors walked through the rules", len(ERRORS))
    expect(not blocked, "errors about live connections are dropped", seen=blocked, expected="all accepted, unlimited")


@pytest.mark.control("LEM-4-04e", "LEM-6-09")
def test_path_mtu_feedback_passes(site: Site, facts_of: FactsOf, node: str, measure: Measure) -> None:
    """Packet-too-big passes every hook, the kernel obeys it, and probes on if it never comes."""
    facts = facts_of(node)
    kinds = tuple(error for error in ERRORS if error[3] in {"fragmentation needed", "packet too big"})
    blocked = _blocked_errors(facts, kinds, router="edges" in site.hosts[node].groups)
    expect(not blocked, "packet-too-big messages are dropped", seen=blocked, expected="all accepted, unlimited")
    probing, ignored = facts.sysctl("net.ipv4.tcp_mtu_probing"), facts.sysctl("net.ipv4.ip_no_pmtu_disc")
    measure("tcp_mtu_probing", probing)
    measure("ip_no_pmtu_disc", ignored)
    expect(probing >= 1, "the kernel does not probe for black holes", seen=probing, expected="1 or 2")
    expect(ignored == 0, "the kernel does not do path MTU discovery", seen=ignored, expected=0)


@pytest.mark.control("LEM-4.2-08")
def test_no_rule_makes_resets(facts_of: FactsOf, node: str, measure: Measure) -> None:
    """A reject that meets anything but a SYN ends connections this host merely forgot."""
    rules = facts_of(node).rules.every_rule()
    rejects = [rule for rule in rules if any("reject" in expression for expression in rule["expr"])]
    loud = [str(rule.get("comment") or f"rule {rule['handle']} of chain {rule['chain']}") for rule in rejects if not _wants_syn(rule)]
    measure("rules", len(rules))
    measure("rules that reject", len(rejects))
    expect(not loud, "a rule answers packets of unknown connections", seen=loud, expected="no reject without a match on SYN alone")


@pytest.mark.control("LEM-7-12")
def test_table_of_connections_is_large_enough(site: Site, facts_of: FactsOf, node: str, measure: Measure) -> None:
    """Two sessions a device, IMAP and submission, on both sides of the frontend, and as much again for the rest; short chains."""
    facts = facts_of(node)
    devices = site.settings.room * site.settings.devices_per_user
    needed = 2 * (2 * 2 * devices) + 1024
    if "net.netfilter.nf_conntrack_max" in facts.data["sysctl_skipped"] or facts.in_container:
        not_measurable(f"nf_conntrack_max belongs to the machine below {node}, which is a container")
    limit, buckets = facts.sysctl("net.netfilter.nf_conntrack_max"), facts.sysctl("net.netfilter.nf_conntrack_buckets")
    measure("nf_conntrack_max", limit)
    measure("nf_conntrack_buckets", buckets)
    expect(limit >= needed, "the table of connections is too small", seen=limit, expected=f"at least {needed} for {devices} devices")
    expect(
        limit <= CHAIN * buckets,
        "a look into the table takes too long",
        seen=f"{buckets} buckets",
        expected=f"one for {CHAIN} entries at most",
    )


CHAIN = 4
"""Entries a bucket of the table may hold when it is full: Linux's own ratio (Documentation/networking/nf_conntrack-sysctl.rst)."""
