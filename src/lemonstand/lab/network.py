"""The lab's wires: a switch namespace with one bridge a zone, a namespace a host, a carrier, and the controller's leg.

The machine that carries the lab gets no address in any zone and none of its netfilter hooks sees a lab packet.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from zlib import crc32

from lemonstand.lab import appliance
from lemonstand.lab.shell import run
from lemonstand.lab.topology import APPLIANCE, CARRIER_OCTET, CARRIER_POOL_OFFSET, CONTROLLER_OCTET, ZONES, Leg, Machine, Route, Topology


def exists(namespace: str) -> bool:
    """Whether a named network namespace is there."""
    return Path("/run/netns", namespace).exists()


def _batch(namespace: str | None, lines: list[str]) -> None:
    argv = ["ip", *(["-n", namespace] if namespace else []), "-batch", "-"]
    run(argv, stdin="\n".join(lines) + "\n")


def _addresses(leg: Leg) -> list[str]:
    # Without nodad an IPv6 address would be unusable for two seconds after every start.
    lines = [f"addr add {address} dev {leg.device}{' nodad' if ':' in address else ''}" for address in leg.addresses]
    return [*lines, f"link set {leg.device} up"]


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
    _batch(namespace, _addresses(leg))


def _route(namespace: str, routes: tuple[Route, ...]) -> None:
    """Sets a namespace's routes of both families."""
    for way in routes:
        run(["ip", way.family, "-n", namespace, "route", "add", way.to, "via", way.via])


def carrier_rules(topology: Topology, timers: dict[str, int]) -> str:
    """The carrier's rules: NAT44 one to one out of a pool, timers that hold (RFC 5382 REQ-5), no judgement on content.

    Args:
        topology: the lab.
        timers: seconds a TCP state lives, by nftables' names of states.
    """
    pairs = ", ".join(
        f"{topology.address4('carrier', octet)} : {topology.address4('internet', octet + CARRIER_POOL_OFFSET)}"
        for octet in topology.handset_octets
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


FORWARDING = ("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
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
    for namespace in (topology.switch, topology.carrier, topology.controller):
        _namespace(namespace, NO_ROUTERS)
    _batch(topology.switch, [line for zone in ZONES for line in (f"link add br-{zone} type bridge", f"link set br-{zone} up")])
    for machine in topology.machines:
        add(topology, machine)

    _plug(topology, topology.carrier, Leg("internet", "internet0", ()), "carrier-1", isolated=False)
    _plug(topology, topology.carrier, Leg("carrier", "radio0", topology.both("carrier", 1)), "carrier-6", isolated=False)
    run(["ip", "netns", "exec", topology.carrier, "sysctl", "-qw", *FORWARDING])
    carry(topology)

    if topology.appliance:
        _stand_between(topology)

    controller = Leg("management", "mgmt0", topology.both("management", CONTROLLER_OCTET))
    _plug(topology, topology.controller, controller, "ctl-5", isolated=False)
    _route(topology.controller, topology.controller_routes)


def _stand_between(topology: Topology) -> None:
    """Makes the appliance of a site without an edge: a router in every zone, with its rules; in management where hosts are behind it."""
    namespace = topology.container(APPLIANCE)
    _namespace(namespace, NO_ROUTERS)
    for zone in (*appliance.SERVED, *(("management",) if topology.controller_routes else ())):
        leg = Leg(zone, appliance.device(zone), topology.both(zone, appliance.OCTET))
        _plug(topology, namespace, leg, f"appl-{ZONES[zone]}", isolated=False)
    hops = (topology.address4("internet", CARRIER_OCTET), topology.address6("internet", CARRIER_OCTET))
    _route(namespace, tuple(Route("default", hop) for hop in hops))
    run(["ip", "netns", "exec", namespace, "sysctl", "-qw", *FORWARDING])
    run(["ip", "netns", "exec", namespace, "nft", "-f", "-"], stdin=topology.appliance)


def _namespace(name: str, settings: tuple[str, ...]) -> None:
    run(["ip", "netns", "add", name])
    run(["ip", "netns", "exec", name, "sysctl", "-qw", *settings])
    _batch(name, ["link set lo up"])


def add(topology: Topology, machine: Machine) -> None:
    """Lays the wires of one host."""
    namespace = topology.container(machine.name)
    _namespace(namespace, KERNELS_OWN if machine.managed else NO_ROUTERS)
    for leg in machine.legs:
        _plug(topology, namespace, leg, port(machine.name, leg.zone), isolated=leg.zone == "management" and not machine.open)
    _route(namespace, machine.routes)


def port(machine: str, zone: str) -> str:
    """The name of the switch's port to a host: a host's own may be longer than a device's (15 characters)."""
    return f"{crc32(machine.encode()):08x}-{ZONES[zone]}"


def carry(topology: Topology) -> None:
    """Gives the carrier the addresses, routes and rules for the handsets there are. Safe to repeat."""
    pool = (CARRIER_OCTET, *(octet + CARRIER_POOL_OFFSET for octet in topology.handset_octets))
    addresses = tuple(address for octet in pool for address in topology.both("internet", octet))
    _batch(topology.carrier, [line.replace("addr add", "addr replace") for line in _addresses(Leg("internet", "internet0", addresses))])
    for way in topology.carrier_routes:
        run(["ip", way.family, "-n", topology.carrier, "route", "replace", way.to, "via", way.via])
    run(["ip", "netns", "exec", topology.carrier, "nft", "-f", "-"], stdin=carrier_rules(topology, CARRIER_TIMERS))


def end_processes(namespace: str, word: str = "") -> None:
    """Ends all that runs in a namespace, connections of SSH through it among them.

    Args:
        namespace: its name.
        word: only what has this argument, such as the address a connection leads to.
    """
    for process in run(["ip", "netns", "pids", namespace], check=False).stdout.split():
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            if not word or word.encode() in Path("/proc", process, "cmdline").read_bytes().split(b"\0"):
                os.kill(int(process), signal.SIGKILL)


def remove(topology: Topology) -> None:
    """Removes every namespace of the lab; cables and bridges go with them. Safe to repeat.

    What still runs in one is ended first. A connection out of the controller's would outlive its wires, and the next lab of this name
    would be reached through it: never, and without an error.
    """
    folder = Path("/run/netns")
    ours = {path.name for path in folder.glob(topology.container("*"))} if folder.is_dir() else set()
    for namespace in sorted(ours | set(topology.namespaces())):
        take(namespace)


def take(namespace: str) -> None:
    """Removes one namespace, if it is there."""
    if exists(namespace):
        end_processes(namespace)
        run(["ip", "netns", "delete", namespace])


def cut(topology: Topology, machine: Machine) -> None:
    """Takes the wires of one host away, and its namespace with all that was set in it. Safe to repeat."""
    for leg in machine.legs:
        # By themselves cables go with the namespace, but only some time after it.
        run(["ip", "-n", topology.switch, "link", "delete", port(machine.name, leg.zone)], check=False)
    take(topology.container(machine.name))


def forget_neighbours(topology: Topology) -> None:
    """Lets nobody go on with the link address a host had before."""
    for namespace in topology.namespaces():
        if exists(namespace):
            run(["ip", "-n", namespace, "neigh", "flush", "all"], check=False)
