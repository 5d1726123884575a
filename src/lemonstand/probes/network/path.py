"""What happens to connections on the way: outages, loss, forgotten state, soft errors.

Runs as root on a border host and on hosts with services. Rules of a probe lie in a table of their own, `inet lemonstand_probe`, which goes
away with the probe, and by a timer of systemd if the probe can't take it away itself.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
import socket
import struct
import subprocess
import time
from pathlib import Path
from typing import Any

from lemonstand.probes.events import Refused, emit
from lemonstand.probes.network.segments import ETHER_ANY, TCP, parse
from lemonstand.probes.protocols.imap import Imap, Literal
from lemonstand.probes.protocols.messages import large
from lemonstand.probes.protocols.wire import Account, Door

TABLE = "lemonstand_probe"
SAFETY = "lemonstand-probe"
SAFETY_SECONDS = 30
"""After how long the timer of that name takes rules away that the probe could not."""
SOFT = {4: [(3, 0), (3, 1), (3, 5), (11, 0), (12, 0)], 6: [(1, 0), (1, 3), (3, 0), (4, 0)]}
"""ICMP (type, code) that end no connection: unreachable 0, 1, 5, time exceeded, parameter problem (RFC 1122 section 4.2.3.9)."""
COUNTERS = {
    4: (("snmp", "Icmp", "InDestUnreachs"), ("snmp", "Icmp", "InTimeExcds"), ("snmp", "Icmp", "InParmProbs")),
    6: (("snmp6", "", "Icmp6InDestUnreachs"), ("snmp6", "", "Icmp6InTimeExcds"), ("snmp6", "", "Icmp6InParmProblems")),
}
QUIET_SECONDS, QUIET_LIMIT = 0.3, 10.0
FETCH_EVERY = 0.5
LATE_SECONDS = 0.2
"""A client that reads late lets the server's data gather, and gathered data travels in packets as large as they may be."""
ICMP, ICMP6 = 1, 58


def hold_back(ports: list[int], within: float, device: str, percent: int = 100) -> dict[str, Any]:
    """Drops forwarded TCP of some ports in both directions for a while; tells `holding` when it begins.

    Args:
        ports: of the servers.
        within: seconds.
        device: the interface towards the clients; what passes others is left alone.
        percent: of the packets.

    Returns:
        `dropped` packets, and `entries`: what conntrack says of these ports at the end of it, as `flows` has it.
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
        entries = flows(ports)
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


def closings(door: Door, account: Account, within: float) -> None:
    """Leaves connections in each state a silent one can be in; tells `there` when they are, then waits.

    One idles, one was closed by the server alone, one by both sides.

    Args:
        within: seconds they are left so.

    Raises:
        Refused: the server closes nothing after LOGOUT.
    """
    idle, half, closed = (Imap.open(door, account) for _ in range(3))
    if not (_left(half) and _left(closed)):
        raise Refused("the server does not close the connection after LOGOUT")
    closed.wire.close()
    time.sleep(0.5)
    emit("there")
    time.sleep(within)
    half.wire.close()
    idle.quit()


def _left(session: Imap) -> bool:
    """Says goodbye and reads up to the end; closes nothing. What is left unread would make the kernel reset the connection."""
    session.command("LOGOUT")
    session.wire.socket.settimeout(10)
    try:
        return session.wire.socket.recv(1) == b""
    except OSError:
        return False


def fetch_through(door: Door, account: Account, size: int, within: float) -> dict[str, Any]:
    """Stores a large message, tells `stored`, then fetches it again and again on the same connection.

    Args:
        size: octets.
        within: seconds it goes on.

    Returns:
        `fetched`: how often all of it came; `slowest`: seconds one took to read; `octets` of one; `ended`: what ended the session.
    """
    session = Imap.open(door, account)
    box = f"probe-{secrets.token_hex(6)}"
    session.command("CREATE", box)
    sample = large(account["user"], account["user"], size)
    session.command("APPEND", box, Literal(sample.data), shown="APPEND <message>")
    session.command("SELECT", box)
    emit("stored")
    until = time.monotonic() + within
    ended, fetched, slowest = "", 0, 0.0
    try:
        while time.monotonic() < until and not ended:
            tag = session.begin("FETCH 1 (BODY.PEEK[])")
            time.sleep(LATE_SECONDS)
            started = time.monotonic()
            answer = session.finish(tag)
            slowest = max(slowest, time.monotonic() - started)
            whole = answer.ok and max((len(line) for line in answer.untagged), default=0) >= len(sample.data)
            fetched += whole
            ended = "" if whole else f"{answer.status} {answer.text}"
            time.sleep(FETCH_EVERY)
    except OSError as fault:
        ended = f"{type(fault).__name__}: {fault}"
    session.wire.close()
    session = Imap.open(door, account)
    session.command("DELETE", box)
    session.quit()
    return {"fetched": fetched, "slowest": round(slowest, 2), "octets": len(sample.data), "ended": ended}


def flows(ports: list[int]) -> list[dict[str, Any]]:
    """Connections to some ports that conntrack of this host knows: `state`, seconds `left`, `source`, `target`, `port`, `family`."""
    found = []
    for family in ("ipv4", "ipv6"):
        for line in command("conntrack", "-L", "-f", family, "-p", "tcp", "-o", "extended", check=False).splitlines():
            words = re.search(r"tcp\s+6 (\d+) ([A-Z_0-9]+) src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+)", line)
            if words and int(words.group(6)) in ports:
                found.append(
                    {
                        "family": family, "left": int(words.group(1)), "state": words.group(2), "source": words.group(3),
                        "target": words.group(4), "sport": int(words.group(5)), "port": int(words.group(6)),
                    }
                )  # fmt: skip
    return found


def forget(ports: list[int]) -> int:
    """Drops what conntrack of this host knows of connections to some ports, as a restart of it would; how many there were."""
    known = flows(ports)
    for entry in known:
        command(
            "conntrack", "-D", "-f", entry["family"], "-p", "tcp", "--src", entry["source"], "--dst", entry["target"],
            "--sport", str(entry["sport"]), "--dport", str(entry["port"]), check=False,
        )  # fmt: skip
    left = {(entry["source"], entry["sport"]) for entry in flows(ports)}
    return sum((entry["source"], entry["sport"]) not in left for entry in known)


def talk(door: Door, account: Account, within: float, every: float) -> dict[str, Any]:
    """A session that says NOOP again and again; tells `talking` after the first answer.

    Returns:
        `answered`: how many; `ended`: what ended it, empty if nothing did; `longest`: seconds the longest answer took; `seconds`: how
        long it lasted.
    """
    session = Imap.open(door, account)
    session.wire.socket.settimeout(within)
    began = time.monotonic()
    until = began + within
    answered, longest, ended = 0, 0.0, ""
    while time.monotonic() < until and not ended:
        started = time.monotonic()
        try:
            answer = session.command("NOOP")
        except OSError as fault:
            ended = f"{type(fault).__name__}: {fault}"
            break
        if not answer.ok:
            ended = f"{answer.status} {answer.text}"
        answered += answer.ok
        longest = max(longest, time.monotonic() - started)
        if answered == 1:
            emit("talking")
        time.sleep(every)
    session.quit()
    return {"answered": answered, "ended": ended, "longest": round(longest, 3), "seconds": round(time.monotonic() - began, 1)}


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
    """Processes of a name on this host: how many, and the memory of all (PSS, octets).

    Args:
        name: as in `ps`, such as `imap-hibernate`.
    """
    count = memory = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "comm").read_text(encoding="ascii").strip() != name[:15]:
                continue
            found = re.search(r"^Pss:\s+(\d+) kB", (folder / "smaps_rollup").read_text(encoding="ascii"), re.MULTILINE)
        except OSError:
            continue
        count += 1
        memory += int(found.group(1)) * 1024 if found else 0
    return {"count": count, "memory": memory}


def soft_errors(targets: list[str], ports: list[int], within: float) -> dict[str, Any]:
    """Listens for connections between hosts of ours and others, then sends the hosts soft errors about them.

    An error counts only if it quotes a sequence number the host has sent and that lies in its window: on a connection that is silent right
    now, the next number. It is learnt from the other side's acknowledgements.

    Args:
        targets: addresses of the hosts that are to get errors.
        ports: TCP ports of the connections, at either end.
        within: seconds to listen first.

    Returns:
        `sent`: errors by target; `connections`: how many were seen.
    """
    wanted = {ipaddress.ip_address(address).packed for address in targets}
    next_of: dict[tuple[bytes, bytes, int, int], int] = {}
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETHER_ANY)) as wire:
        wire.settimeout(0.05)
        heard = time.monotonic()
        until = heard + within
        # The last words must have been said a moment ago: then the next number is what it was when it was learnt.
        while time.monotonic() < until or (time.monotonic() < until + QUIET_LIMIT and time.monotonic() - heard < QUIET_SECONDS):
            try:
                packet = wire.recv(65535)
            except TimeoutError:
                continue
            seen = parse(packet)
            if seen is None or not {seen.sport, seen.dport} & set(ports):
                continue
            heard = time.monotonic()
            # What the others acknowledge to a host of ours is the number it will use next.
            if seen.target in wanted and seen.flags & 0x10 and not seen.flags & 0x07:
                next_of[seen.target, seen.source, seen.dport, seen.sport] = seen.acknowledged
    sent: dict[str, int] = {}
    for (host, other, host_port, other_port), sequence in next_of.items():
        version = 4 if len(host) == 4 else 6
        address = str(ipaddress.ip_address(host))
        quoted = _quoted(host, other, host_port, other_port, sequence)
        for kind, code in SOFT[version]:
            _send_error(address, kind, code, quoted)
            sent[address] = sent.get(address, 0) + 1
            time.sleep(0.002)
    return {"sent": sent, "connections": len(next_of)}


def _quoted(host: bytes, other: bytes, host_port: int, other_port: int, sequence: int) -> bytes:
    """The start of a segment from a host of ours, as an error quotes it."""
    segment = struct.pack("!HHIIHHHH", host_port, other_port, sequence, 0, 0x5010, 1024, 0, 0)
    if len(host) == 16:
        return struct.pack("!IHBB", 0x60000000, len(segment), TCP, 60) + host + other + segment
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 1, 0x4000, 60, TCP, 0) + host + other
    return head[:10] + struct.pack("!H", _checksum(head)) + head[12:] + segment


def _send_error(address: str, kind: int, code: int, quoted: bytes) -> None:
    version = 6 if ":" in address else 4
    family, protocol = (socket.AF_INET6, ICMP6) if version == 6 else (socket.AF_INET, ICMP)
    message = struct.pack("!BBHI", kind, code, 0, 0) + quoted
    if version == 4:
        message = message[:2] + struct.pack("!H", _checksum(message)) + message[4:]
    with socket.socket(family, socket.SOCK_RAW, protocol) as out:
        out.sendto(message, (address, 0))


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


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


def command(*words: str, data: str | None = None, check: bool = True) -> str:
    """What a command of this host prints.

    Raises:
        RuntimeError: it failed, and `check` is set.
    """
    done = subprocess.run(words, input=data, capture_output=True, text=True, timeout=30, check=False)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(words[:3])}: {done.stderr.strip()[:300]}")
    return done.stdout
