"""What a host's kernel tells: counters, keep-alive timers, processes."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from lemonstand.probes.hosts.commands import command

COUNTERS = {
    4: (("snmp", "Icmp", "InDestUnreachs"), ("snmp", "Icmp", "InTimeExcds"), ("snmp", "Icmp", "InParmProbs")),
    6: (("snmp6", "", "Icmp6InDestUnreachs"), ("snmp6", "", "Icmp6InTimeExcds"), ("snmp6", "", "Icmp6InParmProblems")),
}


def counters() -> dict[str, int]:
    """What this host's kernel says of ICMP errors it got, and of those it did not look at (`OutOfWindowIcmps`)."""
    netstat, snmp = _table("netstat"), _table("snmp")
    plain = dict(line.split() for line in Path("/proc/net/snmp6").read_text(encoding="ascii").splitlines())
    found = {"OutOfWindowIcmps": netstat["TcpExt"]["OutOfWindowIcmps"], "Icmp6InPktTooBigs": int(plain["Icmp6InPktTooBigs"])}
    found |= {name: snmp["Icmp"][name] for _, group, name in COUNTERS[4]}
    return found | {name: int(plain[name]) for _, _, name in COUNTERS[6]}


def keepalives(ports: list[int]) -> list[dict[str, Any]]:
    """Established connections of this host with one of the ports at either end, and the timer of each.

    Returns:
        `local`, `peer`, and `timer`: seconds to the next keep-alive, None if there is none.
    """
    condition = " or ".join(f"sport = :{port} or dport = :{port}" for port in ports)
    found = []
    for line in command("ss", "-tnoH", "state", "established", f"( {condition} )").splitlines():
        words = line.split()
        timer = re.search(r"timer:\(keepalive,([^,]+),", line)
        found.append({"local": words[2], "peer": words[3], "timer": _span(timer.group(1)) if timer else None})
    return found


def processes(name: str) -> dict[str, int]:
    """Processes of a name on this host: how many, the memory of all (PSS, octets), their processor time (milliseconds) and wake-ups.

    Args:
        name: as in `ps`, such as `imap-hibernate`.

    Returns:
        `count`, `memory`, `processor`, `wake_ups` (times one of them went on after it had waited, proc_pid_status(5)).
    """
    count = memory = ticks = woken = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "comm").read_text(encoding="ascii").strip() != name[:15]:
                continue
            found = re.search(r"^Pss:\s+(\d+) kB", (folder / "smaps_rollup").read_text(encoding="ascii"), re.MULTILINE)
            waits = re.search(r"^voluntary_ctxt_switches:\s+(\d+)", (folder / "status").read_text(encoding="utf-8"), re.MULTILINE)
            user, system = (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[11:13]
        except OSError:
            continue
        count += 1
        memory += int(found.group(1)) * 1024 if found else 0
        ticks += int(user) + int(system)
        woken += int(waits.group(1)) if waits else 0
    return {"count": count, "memory": memory, "processor": ticks * 1000 // os.sysconf("SC_CLK_TCK"), "wake_ups": woken}


def _table(name: str) -> dict[str, dict[str, int]]:
    lines = Path("/proc/net", name).read_text(encoding="ascii").splitlines()
    found: dict[str, dict[str, int]] = {}
    for head, values in zip(lines[::2], lines[1::2], strict=True):
        group, _, names = head.partition(":")
        found[group] = dict(zip(names.split(), map(int, values.partition(":")[2].split()), strict=True))
    return found


def _span(text: str) -> float:
    """Seconds of a timer as `ss` prints it: `119min`, `1hour5min`, `12sec`, `300ms`."""
    units = {"hour": 3600, "min": 60, "sec": 1, "ms": 0.001}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)(hour|min|sec|ms)", text))
