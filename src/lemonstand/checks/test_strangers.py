"""Routes are the operator's: no host takes one from a redirect, a router advertisement or a source-routed packet; edges alone forward."""

from __future__ import annotations

import pytest

from lemonstand.checks.conftest import FactsOf, Measure
from lemonstand.outcomes import expect, not_measurable
from lemonstand.remote.facts import Facts
from lemonstand.remote.interfaces import Interfaces
from lemonstand.remote.netfilter import Packet
from lemonstand.site import Site

pytestmark = pytest.mark.answer("configuration")

FOUR, SIX = ("198.51.100.1", "198.51.100.2"), ("2001:db8::1", "2001:db8::2")
ROUTERS = {"router solicitation": 133, "router advertisement": 134}


def _listens_to(site: Site, node: str) -> set[str]:
    """The devices on which a host takes its IPv6 route from routers."""
    legs = site.hosts[node].interfaces
    return {legs[zone].device for zone in site.hosts[node].settings.accept_ra}


def _wrong(interfaces: Interfaces, routers: set[str], *, forwards: bool) -> list[str]:
    wrong = []
    for version, device in interfaces.devices():
        for name, is_open in interfaces.open(version, device).items():
            wanted = name == "accept_ra" and device in routers
            if is_open != wanted:
                state, whose = ("is closed" if wanted else "is open"), "those to come" if device == "default" else device
                wrong.append(f"{version} {name} {state} on {whose}")
        if interfaces.forwards(version, device) and not forwards:
            wrong.append(f"{version} forwarding is on for {'those to come' if device == 'default' else device}")
    return wrong


@pytest.mark.control("LEM-8-25")
@pytest.mark.supports("LEM-8-09")
def test_interfaces_take_no_route_from_strangers(site: Site, facts_of: FactsOf, node: str, measure: Measure) -> None:
    """What the settings of `all` and of each interface come to in the kernel, in both IP versions, and for interfaces that appear later."""
    interfaces = facts_of(node).interfaces
    measure("interfaces", len({device for _, device in interfaces.devices()}))
    wrong = _wrong(interfaces, _listens_to(site, node), forwards="edges" in site.hosts[node].groups)
    expect(not wrong, f"strangers have a say in the routes of {node}", seen=wrong, expected="all closed, but for lemonstand_accept_ra")


@pytest.mark.control("LEM-8-25")
@pytest.mark.supports("LEM-8-09")
def test_a_boot_keeps_strangers_out(site: Site, facts_of: FactsOf, node: str, measure: Measure) -> None:
    """The same, as systemd-sysctl sets it at the next boot from all files of this host, and udev for each interface that appears."""
    facts = facts_of(node)
    interfaces = facts.interfaces_after_boot
    measure("interfaces", len({device for _, device in interfaces.devices()}))
    wrong = _wrong(interfaces, _listens_to(site, node), forwards="edges" in site.hosts[node].groups)
    expect(not wrong, f"after a boot strangers have a say in the routes of {node}", seen=wrong, expected="all closed, as they are now")


def _let_in(facts: Facts, packets: dict[str, Packet], *, router: bool) -> list[str]:
    """Which packets pass all hooks on their way into a host, or through it."""
    rules = facts.rules
    return [
        f"{name} at {hook}"
        for name, packet in packets.items()
        for hook in ("input", "forward")
        if (hook == "input" or router) and rules.verdict("prerouting", packet).accepted and rules.verdict(hook, packet).accepted
    ]


@pytest.mark.control("LEM-8-25")
def test_filters_drop_what_would_move_routes(site: Site, facts_of: FactsOf, node: str, measure: Measure) -> None:
    """Redirects that quote a live connection, source routes within one, and routers where none may speak, walked through the rules."""
    legs = [leg.device for leg in site.hosts[node].interfaces.values()]
    routers = _listens_to(site, node)
    let_in, heard, count = [], [], 0
    for device in legs:
        packets = {
            "redirect": Packet(*FOUR, "icmp", icmp_type=5, icmp_code=1, state="related", device_in=device),
            "IPv6 redirect": Packet(*SIX, "icmpv6", icmp_type=137, icmp_code=0, state="related", device_in=device),
            "loose source route": Packet(*FOUR, port=143, state="established", device_in=device, source_route="lsrr"),
            "strict source route": Packet(*FOUR, port=143, state="established", device_in=device, source_route="ssrr"),
            "routing header": Packet(*SIX, port=143, state="established", device_in=device, source_route="rt"),
        }
        announced = {
            name: Packet(*SIX, "icmpv6", icmp_type=number, icmp_code=0, state="untracked", device_in=device)
            for name, number in ROUTERS.items()
        }
        packets |= {} if device in routers else announced
        count += len(packets)
        let_in += [f"{each} from {device}" for each in _let_in(facts_of(node), packets, router="edges" in site.hosts[node].groups)]
        if device in routers and len(_let_in(facts_of(node), announced, router=False)) < len(announced):
            heard.append(device)
    measure("packets walked through the rules", count)
    expect(not let_in, "what moves routes gets past the packet filter", seen=let_in, expected="all dropped")
    expect(not heard, "routers are not heard where they should be", seen=heard, expected="lemonstand_accept_ra")


HARDENED = {
    "kernel.dmesg_restrict": (1,), "kernel.kptr_restrict": (1, 2), "kernel.unprivileged_bpf_disabled": (1, 2),
    "kernel.yama.ptrace_scope": (1, 2, 3), "dev.tty.ldisc_autoload": (0,), "fs.protected_fifos": (1, 2), "fs.protected_hardlinks": (1,),
    "fs.protected_regular": (1, 2), "fs.protected_symlinks": (1,), "fs.suid_dumpable": (0,),
}  # fmt: skip
"""Kernel settings that take tools from whoever has broken into a service, with the values that do."""


@pytest.mark.supports("LEM-8-09")
def test_the_kernel_helps_no_intruder(facts_of: FactsOf, node: str, measure: Measure) -> None:
    """Addresses, logs and memory of others, links and pipes in shared directories, core dumps of privileged programs."""
    facts = facts_of(node)
    if facts.in_container:
        not_measurable(f"these settings belong to the machine below {node}, which is a container")
    known = {name: facts.sysctl(name) for name in HARDENED if name in facts.data["sysctl"]}
    measure("settings", len(known))
    wrong = {name: value for name, value in known.items() if value not in HARDENED[name]}
    expect(not wrong, "the kernel helps an intruder", seen=wrong, expected={name: HARDENED[name] for name in wrong})
