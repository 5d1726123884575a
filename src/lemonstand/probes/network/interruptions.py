"""What happens to connections on the way: outages, loss, narrow ways, refused openings.

Runs as root on a border host or on the host whose link is meant. Rules of a probe lie in a table of their own, `inet lemonstand_probe`,
which goes away with the probe, and by a timer of systemd if the probe can't take it away itself.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from lemonstand.probes.events import emit
from lemonstand.probes.hosts.commands import command
from lemonstand.probes.network.connection_tracking import tracked

TABLE = "lemonstand_probe"
SAFETY = "lemonstand-probe"
SAFETY_SECONDS = 30
"""After how long the timer of that name takes rules away that the probe could not."""


def hold_back(ports: list[int], within: float, device: str, percent: int = 100) -> dict[str, Any]:
    """Drops forwarded TCP of some ports in both directions for a while; tells `holding` when it begins.

    Args:
        ports: of the servers.
        within: seconds.
        device: the interface towards the clients; what passes others is left alone.
        percent: of the packets.

    Returns:
        `dropped` packets, and `entries`: what conntrack says of these ports at the end of it, as `tracked` has it.
    """
    chance = f"numgen random mod 100 < {percent} " if percent < 100 else ""
    listed = ", ".join(map(str, ports))
    rules = f"""table inet {TABLE} {{
      counter dropped {{ }}
      chain hold {{
        type filter hook forward priority -300; policy accept;
        iifname "{device}" tcp dport {{ {listed} }} {chance}counter name dropped drop
        oifname "{device}" tcp sport {{ {listed} }} {chance}counter name dropped drop
      }}
    }}"""
    away()
    safety(int(within) + SAFETY_SECONDS, "nft", "delete", "table", "inet", TABLE)
    command("nft", "-f", "-", data=rules)
    try:
        emit("holding")
        time.sleep(within)
        found = re.search(r"packets (\d+)", command("nft", "list", "counter", "inet", TABLE, "dropped"))
        entries = tracked(ports)
    finally:
        away()
    return {"dropped": int(found.group(1)) if found else 0, "entries": entries}


def link_down(towards: str, within: float) -> dict[str, Any]:
    """Takes a link of this host down for a while, as a phone in a tunnel; tells `holding` when it is.

    Addresses stay; routes that the kernel forgets are put back.

    Args:
        towards: an address; the link is the one that leads there.
        within: seconds.

    Returns:
        `device`; `down`: whether the kernel called it down meanwhile; `up`: whether it is up again.
    """
    found = re.search(r" dev (\S+)", command("ip", "route", "get", towards))
    if found is None:
        raise RuntimeError(f"no link leads to {towards}")
    device = found.group(1)
    routes = [line for family in ("-4", "-6") for line in _routes(family, device)]
    addresses = re.findall(r"inet6 (\S+) scope global", command("ip", "-6", "address", "show", "dev", device))
    back = [f"ip link set {device} up", *(f"ip -6 address replace {address} dev {device} nodad" for address in addresses), *routes]
    script = "\n".join(f"{line} || true" for line in back)
    kept = Path(f"/proc/sys/net/ipv6/conf/{device}/keep_addr_on_down")
    before = kept.read_text(encoding="ascii")
    safety(int(within) + SAFETY_SECONDS, "sh", "-c", script)
    try:
        kept.write_text("1", encoding="ascii")
        command("ip", "link", "set", device, "down")
        emit("holding")
        time.sleep(within)
        down = not _is_up(device)
    finally:
        command("sh", "-c", script)
        kept.write_text(before, encoding="ascii")
        command("systemctl", "stop", f"{SAFETY}.timer", check=False)
    return {"device": device, "down": down, "up": _is_up(device)}


def narrow(device: str, mtu: int, within: float) -> dict[str, Any]:
    """Makes a link of this host narrower for a while, as a tunnel on the way would; tells `narrow` when it is.

    Args:
        device: the interface towards the clients.
        mtu: octets, 1280 at least (RFC 8200).
        within: seconds.

    Returns:
        `before` and `during`: the MTU.
    """
    path = Path(f"/sys/class/net/{device}/mtu")
    before = path.read_text(encoding="ascii").strip()
    safety(int(within) + SAFETY_SECONDS, "ip", "link", "set", device, "mtu", before)
    try:
        command("ip", "link", "set", device, "mtu", str(mtu))
        during = path.read_text(encoding="ascii").strip()
        emit("narrow")
        time.sleep(within)
    finally:
        command("ip", "link", "set", device, "mtu", before)
        command("systemctl", "stop", f"{SAFETY}.timer", check=False)
    return {"before": int(before), "during": int(during)}


def forget_widths() -> None:
    """Lets this host forget what it learnt of narrow ways, which it remembers for ten minutes: only then does it hear of one again."""
    for version in ("-4", "-6"):
        command("ip", version, "route", "flush", "cache")


def refuse_openings(targets: list[str], ports: list[int], count: int, within: float) -> dict[str, Any]:
    """Answers the first forwarded SYNs to some hosts with "host unreachable"; tells `refusing` when it begins, ends when it has.

    Args:
        targets: addresses of servers.
        ports: theirs.
        count: how many SYNs.
        within: seconds it waits for them.

    Returns:
        `refused`: how many were.
    """
    listed = ", ".join(map(str, ports))
    rules = [
        f"{'ip6' if ':' in address else 'ip'} daddr {address} tcp dport {{ {listed} }} tcp flags & (syn | ack) == syn "
        f"numgen inc mod 1000000 < {count} counter name refused reject with icmpx type host-unreachable"
        for address in targets
    ]
    text = "\n".join(rules)
    away()
    safety(int(within) + SAFETY_SECONDS, "nft", "delete", "table", "inet", TABLE)
    command(
        "nft",
        "-f",
        "-",
        data=f"""table inet {TABLE} {{
      counter refused {{ }}
      chain refuse {{
        type filter hook forward priority -300; policy accept;
        {text}
      }}
    }}""",
    )
    try:
        emit("refusing")
        until = time.monotonic() + within
        refused = 0
        while refused < count and time.monotonic() < until:
            time.sleep(0.2)
            found = re.search(r"packets (\d+)", command("nft", "list", "counter", "inet", TABLE, "refused"))
            refused = int(found.group(1)) if found else 0
    finally:
        away()
    return {"refused": refused}


def _is_up(device: str) -> bool:
    return bool(int(Path(f"/sys/class/net/{device}/flags").read_text(encoding="ascii"), 16) & 1)


def _routes(family: str, device: str) -> list[str]:
    """Commands that bring back a device's routes; those the kernel makes by itself are left out."""
    lines = command("ip", family, "route", "show", "dev", device).splitlines()
    return [f"ip {family} route replace {line.strip()} dev {device}" for line in lines if line.strip() and "proto kernel" not in line]


def safety(seconds: int, *words: str) -> None:
    """A timer of systemd that undoes what the probe could not, by one command."""
    command("systemctl", "stop", f"{SAFETY}.timer", check=False)
    # A former one that found nothing to undo has failed, and would be in the way of the next.
    command("systemctl", "reset-failed", f"{SAFETY}.service", check=False)
    command("systemd-run", "--quiet", "--collect", f"--unit={SAFETY}", f"--on-active={seconds}", "--timer-property=AccuracySec=1s", *words)


def away() -> None:
    """Takes the rules of a probe away, and the timer that would."""
    command("systemctl", "stop", f"{SAFETY}.timer", check=False)
    command("nft", "delete", "table", "inet", TABLE, check=False)
