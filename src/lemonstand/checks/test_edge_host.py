"""The edge: a filter and a translator, and nothing that looks into connections or counts their age."""

from __future__ import annotations

import re

import pytest

from lemonstand.checks.conftest import FactsOf, Measure
from lemonstand.outcomes import expect
from lemonstand.site import Site

pytestmark = pytest.mark.answer("configuration")

FORGETS = re.compile(r"conntrack\s+(-F|--flush|-D|--delete)|nft\s+flush\s+ruleset|systemctl\s+(re)?start\s+\S*(nftables|network)")


@pytest.mark.control("LEM-4.1-03")
@pytest.mark.supports("LEM-4.1-11")
def test_nothing_on_the_edge_counts_age(site: Site, facts_of: FactsOf, edge: str, measure: Measure) -> None:
    """No timed job forgets connections, no process on the edge ends or carries them, the filter's unit has no end."""
    facts = facts_of(edge)
    jobs = [name for name, commands in facts.data["scheduled"].items() if FORGETS.search(commands)]
    measure("timed jobs looked at", len(facts.data["scheduled"]))
    expect(not jobs, "a timed job forgets connections", seen=jobs, expected="none")
    carried = sorted({s.port for s in facts.sockets if s.protocol == "tcp" and not s.is_local} & {25, 143, 465, 587, 993})
    expect(not carried, "a process on the edge carries mail connections", seen=carried, expected="none: they are forwarded")
    longest = facts.unit("lemonstand-nftables")["RuntimeMaxUSec"]
    expect(longest == "infinity", "the filter goes away by itself", seen=longest, expected="infinity")


@pytest.mark.supports("LEM-7-06", "LEM-3-06")
def test_translation_is_plain(site: Site, facts_of: FactsOf, edge: str, measure: Measure) -> None:
    """DNAT by address alone, no random ports, clients' addresses kept, IPv6 never translated."""
    facts = facts_of(edge)
    wrong, count = [], 0
    for rule in facts.rules.every_rule():
        for expression in rule["expr"]:
            kind = next(iter(expression))
            if kind in {"dnat", "snat", "masquerade", "redirect"}:
                count += 1
                value = expression[kind] or {}
                name = str(rule.get("comment") or f"rule {rule['handle']} of chain {rule['chain']}")
                flags = value.get("flags") or []
                if flags:
                    wrong.append(f"{name}: flags {flags}")
                if value.get("family") == "ip6":
                    wrong.append(f"{name}: translates IPv6")
                if kind in {"snat", "masquerade"} and "dnat" not in str(rule["expr"]):
                    wrong.append(f"{name}: hides the client's address")
    measure("translations", count)
    published = any(flow.publish for flow in site.active_flows) and site.settings.public_ipv4 is not None
    expect(count > 0 or not published, "nothing is published", seen=count, expected="the flows that say so")
    expect(not wrong, "a translation does more than it should", seen=wrong, expected="plain DNAT, sources kept, IPv4 only")


@pytest.mark.supports("LEM-7-01", "LEM-7-09")
def test_settings_survive_a_boot(facts_of: FactsOf, edge: str, measure: Measure) -> None:
    """net.netfilter.* vanish at boot unless conntrack is loaded before; the filter's unit starts with the host."""
    facts = facts_of(edge)
    modules = facts.text("/etc/modules-load.d/lemonstand.conf").split()
    expect("nf_conntrack" in modules, "conntrack is loaded too late", seen=modules, expected="nf_conntrack")
    state = facts.unit("lemonstand-nftables")
    measure("unit", state["UnitFileState"])
    expect(state["UnitFileState"] == "enabled", "the filter does not start with the host", seen=state["UnitFileState"], expected="enabled")
    file = dict(line.split(" = ", 1) for line in facts.text("/etc/sysctl.d/60-lemonstand.conf").splitlines() if " = " in line)
    differ = [
        f"{name}: file {value}, kernel {facts.sysctl(name)}"
        for name, value in file.items()
        if name in facts.data["sysctl"] and name not in facts.data["sysctl_skipped"] and int(value) != facts.sysctl(name)
    ]
    expect(not differ, "a boot would bring other settings", seen=differ, expected="the file says what the kernel has")
