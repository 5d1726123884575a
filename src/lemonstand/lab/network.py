"""The lab's wires: a switch namespace with one bridge a zone, a namespace a host, a carrier, and the controller's leg.

The machine that carries the lab gets no address in any zone and none of its netfilter hooks sees a lab packet.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from lemonstand.lab.shell import run
from lemonstand.lab.topology import CONTROLLER_OCTET, MACHINES, ZONES, Leg, Topology, destination

HANDSET_OCTETS = range(10, 18)
CARRIER_POOL_OFFSET = 100
"""Handset address .10 appears on the Internet as .110: one outer address a handset address, so that servers can tell them apart."""


def exists(namespace: str) -> bool:
    """Whether a named network namespace is there."""
    return Path("/run/netns", namespace).exists()


def _batch(namespace: str | None, lines: list[str]) -> None:
    argv = ["ip", *(["-n", namespace] if namespace else []), "-batch", "-"]
    run(argv, stdin="\n".join(lines) + "\n")


def _addresses(topology: Topology, leg: Leg) -> list[str]:
    lines = []
    for octet in leg.octets:
        lines.append(f"addr add {topology.address4(leg.zone, octet)}/24 dev {leg.device}")
        # Without nodad an address would be unusable for two seconds after every start.
        lines.append(f"addr add {topology.address6(leg.zone, octet)}/64 dev {leg.device} nodad")
    lines.append(f"link set {leg.device} up")
    return lines


def _plug(topology: Topology, namespace: str, leg: Leg, port: str, *, isolated: bool) -> None:
    """Lays a cable from a zone's bridge to a namespace."""
    _batch(
        topology.switch,
        [
            f"link add {port} type veth peer name {leg.device} netns {namespace}",
            f"link set {port} master br-{leg.zone} up",
        ],
    )
    if isolated:
        # Legs of the management zone reach the controller and never each other.
        run(["bridge", "-n", topology.switch, "link", "set", "dev", port, "isolated", "on"])
    _batch(namespace, _addresses(topology, leg))


def _route(topology: Topology, namespace: str, via: dict[str, tuple[str, int]], via6: dict[str, tuple[str, int]]) -> None:
    """Sets a namespace's routes of both families."""
    for to, hop in via.items():
        run(["ip", "-4", "-n", namespace, "route", "add", destination(topology, to, 4), "via", topology.address4(*hop)])
    for to, hop in via6.items():
        run(["ip", "-6", "-n", namespace, "route", "add", destination(topology, to, 6), "via", topology.address6(*hop)])


def carrier_rules(topology: Topology, timers: dict[str, int]) -> str:
    """The carrier's rules: NAT44 one to one out of a pool, timers that hold (RFC 5382 REQ-5), no judgement on content.

    Args:
        topology: the lab.
        timers: seconds a TCP state lives, by nftables' names of states.
    """
    pairs = ", ".join(
        f"{topology.address4('carrier', octet)} : {topology.address4('internet', octet + CARRIER_POOL_OFFSET)}" for octet in HANDSET_OCTETS
    )
    policy = ", ".join(f"{state} : {seconds}" for state, seconds in timers.items())
    return f"""table inet carrier
delete table inet carrier
table inet carrier {{
  ct timeout tcp4 {{ protocol tcp; l3proto ip; policy = {{ {policy} }}; }}
  ct timeout tcp6 {{ protocol tcp; l3proto ip6; policy = {{ {policy} }}; }}
  map pool {{ type ipv4_addr : ipv4_addr; elements = {{ {pairs} }}; }}
  chain timers {{
    type filter hook prerouting priority -190; policy accept;
    meta nfproto ipv4 meta l4proto tcp ct timeout set "tcp4"
    meta nfproto ipv6 meta l4proto tcp ct timeout set "tcp6"
  }}
  chain forward {{
    type filter hook forward priority 0; policy drop;
    ct state established,related accept
    iifname "radio0" oifname "internet0" accept
    icmp type destination-unreachable accept
    icmpv6 type {{ destination-unreachable, packet-too-big, time-exceeded, parameter-problem }} accept
  }}
  chain postrouting {{
    type nat hook postrouting priority 100; policy accept;
    iifname "radio0" oifname "internet0" snat ip to ip saddr map @pool
  }}
}}
"""


CARRIER_TIMERS = {
    "established": 7440,
    "unack": 7440,
    "retrans": 7440,
    "fin_wait": 7440,
    "close_wait": 7440,
    "syn_sent": 240,
    "syn_recv": 240,
    "last_ack": 240,
    "time_wait": 240,
    "close": 240,
}
"""Seconds. A carrier that does just what RFC 5382 REQ-5 asks: 2 h 4 min established, 4 min transitory."""


NO_ROUTERS = ("net.ipv6.conf.all.accept_ra=0", "net.ipv6.conf.default.accept_ra=0")
"""What stands for the rest of the world has the routes it is given, whoever advertises himself."""
KERNELS_OWN = tuple(
    f"net.{name}"
    for place in ("all", "default")
    for name in (
        f"ipv4.conf.{place}.accept_redirects=1", f"ipv4.conf.{place}.send_redirects=1", f"ipv6.conf.{place}.accept_redirects=1",
        f"ipv6.conf.{place}.accept_ra=1", f"ipv4.conf.{place}.accept_source_route={int(place == 'default')}",
    )
)  # fmt: skip
"""Hosts that roles manage begin as open as a kernel begins. By IPv4 they would have what this machine has, and a lab would prove that."""


def build(topology: Topology) -> None:
    """Makes all namespaces, bridges, cables, addresses and routes. Nothing of the lab may exist yet (see `remove`)."""
    managed = {topology.container(machine.name) for machine in MACHINES if machine.managed}
    for namespace in topology.namespaces():
        run(["ip", "netns", "add", namespace])
        run(["ip", "netns", "exec", namespace, "sysctl", "-qw", *(KERNELS_OWN if namespace in managed else NO_ROUTERS)])
        _batch(namespace, ["link set lo up"])
    _batch(topology.switch, [line for zone in ZONES for line in (f"link add br-{zone} type bridge", f"link set br-{zone} up")])

    for machine in MACHINES:
        namespace = topology.container(machine.name)
        for leg in machine.legs:
            _plug(topology, namespace, leg, f"{machine.name[:8]}-{ZONES[leg.zone]}", isolated=leg.zone == "management")
        _route(topology, namespace, machine.via, machine.ipv6_via)

    pool = tuple(octet + CARRIER_POOL_OFFSET for octet in HANDSET_OCTETS)
    _plug(topology, topology.carrier, Leg("internet", "internet0", (2, *pool)), "carrier-1", isolated=False)
    _plug(topology, topology.carrier, Leg("carrier", "radio0", (1,)), "carrier-6", isolated=False)
    _route(topology, topology.carrier, {}, {"dmz": ("internet", 1)})
    run(
        ["ip", "netns", "exec", topology.carrier, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"],
    )
    run(["ip", "netns", "exec", topology.carrier, "nft", "-f", "-"], stdin=carrier_rules(topology, CARRIER_TIMERS))

    _plug(topology, topology.controller, Leg("management", "mgmt0", (CONTROLLER_OCTET,)), "ctl-5", isolated=False)


def end_processes(namespace: str) -> None:
    """Ends all that runs in a namespace, connections of SSH through it among them."""
    for process in run(["ip", "netns", "pids", namespace], check=False).stdout.split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(process), signal.SIGKILL)


def remove(topology: Topology) -> None:
    """Removes every namespace of the lab; cables and bridges go with them. Safe to repeat.

    What still runs in one is ended first. A connection out of the controller's would outlive its wires, and the next lab of this name
    would be reached through it: never, and without an error.
    """
    for namespace in topology.namespaces():
        if exists(namespace):
            end_processes(namespace)
            run(["ip", "netns", "delete", namespace])
