"""Frames made by hand: what a host's wires carry when whoever holds it cares neither for its packet filter nor for its addresses.

A packet socket lies below the host's own filter, so nothing has to be opened for these, and nothing has to be closed afterwards. Runs as
root. Everything is bounded: a frame is sent once or twice, a watch ends by itself.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import secrets
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypedDict

from lemonstand.probes.events import ENOUGH, emit
from lemonstand.probes.network.reach import reach_as

ALL_FRAMES = 0x0003
IPV4, ARP, IPV6 = 0x0800, 0x0806, 0x86DD
SYN, RST, SYN_ACK, ACK = 0x02, 0x04, 0x12, 0x10
BROADCAST = "ff:ff:ff:ff:ff:ff"
EVERY_PORT = range(1, 65536)
PAUSE_EVERY, PAUSE_SECONDS = 64, 0.002
"""A breath between bursts: a wire of the lab queues a thousand frames and drops the rest."""
LISTEN_SECONDS = 1.5
FORGED_PORT, EPHEMERAL_PORT = 30000, 32768
"""Frames made by hand come from ports below those the kernel gives out, so that the two can be told apart."""
OUTGOING = 4
"""What Linux calls a frame this host sends itself (PACKET_OUTGOING)."""


class Way(TypedDict):
    """How one address is knocked at.

    `device`: of this host; `source`: the address to name as ours; `target`: the address; `hop`: the MAC address of who is to pass it on;
    `ports`: those to try, or empty for all.
    """

    device: str
    source: str
    target: str
    hop: str
    ports: list[int]


def legs() -> dict[str, dict[str, Any]]:
    """This host's devices: `{device: {mac, addresses}}`."""
    told = json.loads(subprocess.run(["ip", "-j", "addr"], capture_output=True, text=True, check=True).stdout)
    return {
        link["ifname"]: {"mac": link.get("address", ""), "addresses": [info["local"] for info in link["addr_info"]]}
        for link in told
        if link["ifname"] != "lo"
    }


def scan(ways: list[Way]) -> list[list[str | int]]:
    """Sends one SYN to each port of each way and listens for whoever answers, ends at once what was begun.

    Returns:
        `[target, port, what]` for each answer; `what`: `open` or `refused`.
    """
    by_device: dict[str, list[Way]] = {}
    for way in ways:
        by_device.setdefault(way["device"], []).append(way)
    found: dict[tuple[str, int], str] = {}
    for device, mine in by_device.items():
        _scan_device(device, mine, found)
    return [[address, port, what] for (address, port), what in sorted(found.items())]


def _scan_device(device: str, ways: list[Way], found: dict[tuple[str, int], str]) -> None:
    own_port = 20000 + secrets.randbelow(10000)
    sequence = secrets.randbits(32)
    hops = {way["target"]: way for way in ways}
    with _wire(device) as wire:
        stop = threading.Event()

        def listen() -> None:
            while not stop.is_set():
                segment = _heard(wire)
                if segment is None or segment["to_port"] != own_port or segment["ack"] != (sequence + 1) & 0xFFFFFFFF:
                    continue
                key = (segment["source"], segment["from_port"])
                found[key] = "open" if segment["flags"] & SYN_ACK == SYN_ACK else "refused"
                if found[key] == "open" and segment["source"] in hops:
                    way = hops[segment["source"]]
                    wire.send(_tcp(wire, way, (own_port, segment["from_port"]), segment["ack"], RST))

        ear = threading.Thread(target=listen, daemon=True)
        ear.start()
        count = 0
        for way in ways:
            make = _syn_maker(wire, way, own_port, sequence)
            for port in way["ports"] or EVERY_PORT:
                with contextlib.suppress(BlockingIOError, OSError):
                    wire.send(make(port))
                count += 1
                if count % PAUSE_EVERY == 0:
                    time.sleep(PAUSE_SECONDS)
        time.sleep(LISTEN_SECONDS)
        stop.set()
        ear.join(2)


def spoofed(ways: list[Way], sequence: int) -> None:
    """Sends a SYN for each way's ports, twice, with a source that may be anybody's. Whoever watches knows it by its sequence number."""
    for way in ways:
        with _wire(way["device"]) as wire:
            for _ in range(2):
                for port in way["ports"]:
                    wire.send(_tcp(wire, way, (FORGED_PORT + sequence % 2000, port), sequence, SYN))
                time.sleep(0.05)


def watch(devices: list[str], sequence: int, within: float, enough: int) -> dict[str, list[str]]:
    """Says `watching`, then watches for some seconds for SYNs with a sequence number, and for the answers this host gives.

    Args:
        enough: answers after which it ends early.

    Returns:
        `arrived` and `answered`: `source target:port`, each once.
    """
    arrived: set[str] = set()
    answered: set[str] = set()

    def note(segment: dict[str, Any]) -> None:
        if segment["flags"] & SYN_ACK == SYN and segment["sequence"] == sequence and not segment["ours"]:
            arrived.add(f"{segment['source']} {segment['target']}:{segment['to_port']}")
        if segment["flags"] & SYN_ACK == SYN_ACK and segment["ack"] == (sequence + 1) & 0xFFFFFFFF and segment["ours"]:
            answered.add(f"{segment['target']} {segment['source']}:{segment['from_port']}")

    until = time.monotonic() + within
    ears = _listening(devices, note, lambda: time.monotonic() >= until or len(answered) >= enough)
    emit("watching")
    for ear in ears:
        ear.join(within + 2)
    return {"arrived": sorted(arrived), "answered": sorted(answered)}


def exits(device: str, hop: str, tried: list[dict[str, Any]], seconds: float = 2.0) -> dict[str, bool]:
    """Sends datagrams that could carry something out, and listens for answers.

    Args:
        hop: MAC address of the router.
        tried: each `{name, kind, source, target, port}`; kind: `dns`, `ntp` or `echo`.

    Returns:
        By name, whether an answer came.
    """
    token = secrets.randbits(16)
    answers: dict[str, bool] = {str(each["name"]): False for each in tried}
    with _wire(device) as wire:
        for _ in range(2):
            for each in tried:
                wire.send(_datagram(wire, hop, each, token))
        until = time.monotonic() + seconds
        while time.monotonic() < until and not all(answers.values()):
            packet = _packet(wire)
            if packet is None or packet["ours"]:
                continue
            for each in tried:
                if packet["source"] == each["target"] and _answers(packet, each, token):
                    answers[str(each["name"])] = True
    return answers


def neighbours(device: str, network: str, seconds: float = 2.0) -> dict[str, str]:
    """Asks for each address of a network of at most 256, by ARP: `{address: MAC}` of those that answer."""
    found: dict[str, str] = {}
    own = _own(device)
    with _wire(device, ARP) as wire:
        for host in list(ipaddress.ip_network(network).hosts())[:256]:
            wire.send(_arp(wire, BROADCAST, 1, own, ("00:00:00:00:00:00", str(host))))
            time.sleep(0.002)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            frame = _frame(wire)
            if frame is not None and frame[0] == ARP and frame[1][6:8] == b"\0\x02" and not frame[2]:
                found[socket.inet_ntoa(frame[1][14:18])] = _mac(frame[1][8:14])
    return found


def claim(device: str, victim: str, victim_mac: str, *, address: str, mac: str, times: int = 3) -> None:
    """Tells a neighbour that an address is at a MAC address: by ARP, or by a neighbour advertisement (RFC 826, RFC 4861).

    Args:
        victim: the address of who is told.
        address: the address that is claimed; its IP version decides how.
        mac: where it is said to be; empty: here.
    """
    with _wire(device) as wire:
        mine = mac or _mac(wire.getsockname()[4])
        for _ in range(times):
            if ":" in address:
                body = b"\x88\0\0\0" + b"\x20\0\0\0" + socket.inet_pton(socket.AF_INET6, address) + b"\x02\x01" + _raw(mine)
                wire.send(_icmp6(wire, victim_mac, address, victim, body))
            else:
                wire.send(_arp(wire, victim_mac, 2, address, (victim_mac, victim), mac=mine))
            time.sleep(0.4)


def advertise_router(device: str, times: int = 2) -> str:
    """Says to all on a wire that this host is their router for three seconds (RFC 4861 section 4.2). Returns the address it speaks from."""
    with _wire(device) as wire:
        mac = wire.getsockname()[4]
        source = _link_local(mac)
        body = b"\x86\0\0\0" + struct.pack("!BBHII", 64, 0, 3, 0, 0) + b"\x01\x01" + mac
        for _ in range(times):
            wire.send(_icmp6(wire, "33:33:00:00:00:01", source, "ff02::1", body))
            time.sleep(0.3)
    return source


def redirect(device: str, router: str, victim: str, victim_mac: str, *, target: str, ports: tuple[int, int], times: int = 3) -> None:
    """Says in the router's name that a target is better reached by way of this host (RFC 792, RFC 4861 section 8).

    Several times: Linux takes the first as an occasion to ask where this host is, and believes the next.

    Args:
        router: the address the victim knows its router by; by IPv6 one of the wire alone.
        ports: of a UDP datagram of the victim's to the target: IPv4 believes who quotes what was really sent.
    """
    with _wire(device) as wire:
        for _ in range(times):
            if ":" in target:
                mac = bytes(wire.getsockname()[4])
                ends = (socket.inet_pton(socket.AF_INET6, each) for each in (_link_local(mac), target))
                wire.send(_icmp6(wire, victim_mac, router, victim, b"\x89\0\0\0" + b"\0" * 4 + b"".join(ends) + b"\x02\x01" + mac))
            else:
                inner = _ipv4(victim, target, 17, struct.pack("!HHHH", *ports, 8 + len(_question(ports[0])), 0))
                told = b"\x05\x01\0\0" + socket.inet_aton(_own(device)) + inner
                body = told[:2] + struct.pack("!H", _checksum(told)) + told[4:]
                wire.send(_ether(wire, victim_mac, IPV4) + _ipv4(router, victim, 1, body))
            time.sleep(0.4)


ELSEWHERE = "2001:db8:5383::1"
"""An address of nobody's (RFC 3849), to which a victim has a route for as long as it is looked at."""


def live_flow(target: str, port: int, router: str, device: str, within: float) -> dict[str, Any]:
    """Asks a name server, says `open` with its own port, and keeps the flow; then says where its ways lead, before and after.

    A way by IPv6 to `ELSEWHERE`, by the router's address of the wire, stands for hosts that know their router as RFC 4861 has it: no other
    router can be replaced by a redirect. Taken away at the end, as is what was believed.

    Args:
        target: by IPv4.
        router: the router's IPv6 address of the wire.
        within: seconds until it looks again, unless it is told that it is enough.

    Returns:
        `answered`; `before` and `after`: the next hop by target.
    """
    far = f"{ELSEWHERE}/128"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flow:
        flow.connect((target, port))
        flow.settimeout(3)
        flow.send(_question(1))
        try:
            answered = bool(flow.recv(512))
        except OSError:
            answered = False
        subprocess.run(["ip", "-6", "route", "replace", far, "via", router, "dev", device], capture_output=True, check=True)
        try:
            before = {each: _next_hop(each) for each in (target, ELSEWHERE)}
            emit("open", port=flow.getsockname()[1])
            ENOUGH.wait(within)
            return {"answered": answered, "before": before, "after": {each: _next_hop(each) for each in before}}
        finally:
            subprocess.run(["ip", "-6", "route", "del", far], capture_output=True, check=False)
            subprocess.run(["ip", "route", "flush", "cache"], capture_output=True, check=False)


def _next_hop(address: str) -> str:
    told = json.loads(subprocess.run(["ip", "-j", "route", "get", address], capture_output=True, text=True, check=True).stdout)
    return str(told[0].get("gateway", "on the wire"))


def source_routed(ways: list[Way]) -> dict[str, dict[str, bool]]:
    """Echo requests that say which way they came, beside one that does not (RFC 791, loose and strict source route at its end).

    Returns:
        By target, whether `plain`, `loose` and `strict` were answered.
    """
    kinds = {"plain": 0, "loose": 131, "strict": 137}
    found: dict[str, dict[str, bool]] = {}
    for way in ways:
        answered = dict.fromkeys(kinds, False)
        with _wire(way["device"]) as wire:
            tokens = {kind: secrets.randbits(16) for kind in kinds}
            for kind, number in kinds.items():
                echo = struct.pack("!BBHHH", 8, 0, 0, tokens[kind], 1) + b"lemonstand"
                echo = echo[:2] + struct.pack("!H", _checksum(echo)) + echo[4:]
                # Three octets, one address, the end of options; the pointer is past the last address: this is where it was to go.
                options = bytes([number, 7, 8]) + socket.inet_aton(way["source"]) + b"\0" if number else b""
                wire.send(_ether(wire, way["hop"], IPV4) + _ipv4(way["source"], way["target"], 1, echo, options))
            until = time.monotonic() + LISTEN_SECONDS
            while time.monotonic() < until and not all(answered.values()):
                packet = _packet(wire)
                if packet is None or packet["ours"] or packet["source"] != way["target"]:
                    continue
                for kind in kinds:
                    answered[kind] |= _answers(packet, {"kind": "echo"}, tokens[kind])
        found[way["target"]] = answered
    return found


def neighbour(address: str, device: str) -> dict[str, str]:
    """Where this host believes a neighbour to be, and its default routes: `{mac, routes}`."""
    told = json.loads(
        subprocess.run(["ip", "-j", "neigh", "show", address, "dev", device], capture_output=True, text=True, check=True).stdout or "[]"
    )
    routes = [subprocess.run(["ip", family, "route", "show"], capture_output=True, text=True, check=True).stdout for family in ("-4", "-6")]
    return {"mac": next((entry.get("lladdr", "") for entry in told), ""), "routes": "\n".join(routes)}


def forget_neighbour(address: str, device: str) -> None:
    """Drops what this host believes of a neighbour, and asks anew."""
    subprocess.run(["ip", "neigh", "del", address, "dev", device], capture_output=True, check=False)
    touch_neighbour(address)


def touch_neighbour(address: str) -> None:
    """Makes this host learn a neighbour, as any traffic with it would: one echo request."""
    six = ":" in address
    protocol = socket.getprotobyname("ipv6-icmp") if six else socket.IPPROTO_ICMP
    told = struct.pack("!BBHHH", 128 if six else 8, 0, 0, 1, 1)
    told = told if six else told[:2] + struct.pack("!H", _checksum(told)) + told[4:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_RAW, protocol) as raw:
        raw.sendto(told, (address, 0))
    time.sleep(0.5)


def leaving(user: str, targets: list[tuple[str, int]], seconds_each: float) -> dict[str, list[str]]:
    """Dials targets as a user without rights, and watches this host's wires for what leaves it.

    Returns:
        `left`: `address port` of the targets whose SYN was on a wire; `reached`: those that answered.
    """
    wanted = {(address, port) for address, port in targets}
    left: set[tuple[str, int]] = set()
    stop = threading.Event()

    def note(segment: dict[str, Any]) -> None:
        target = (segment["target"], segment["to_port"])
        if segment["ours"] and segment["from_port"] >= EPHEMERAL_PORT and segment["flags"] & SYN_ACK == SYN and target in wanted:
            left.add(target)

    ears = _listening(list(legs()), note, stop.is_set)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # the rights are given up in a process of its own: this one has to go on listening
        status = 1
        try:
            found = reach_as(user, targets, seconds_each)
            os.write(writing, json.dumps([each for each in found if each[2] == "open"]).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as stream:
        told = stream.read()
    _, status = os.waitpid(child, 0)
    stop.set()
    for ear in ears:
        ear.join(2)
    if status:
        raise OSError(f"nothing could be dialled as {user}")
    return {"left": sorted(f"{a} {p}" for a, p in left), "reached": sorted(f"{a} {p}" for a, p, _ in json.loads(told))}


@contextlib.contextmanager
def _wire(device: str, kind: int = ALL_FRAMES) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(kind)) as wire:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 23)
        wire.bind((device, kind))
        wire.settimeout(0.2)
        yield wire


def _listening(devices: list[str], note: Callable[[dict[str, Any]], None], over: Callable[[], bool]) -> list[threading.Thread]:
    """Listens on some devices, each in a thread, until it is `over`; returns once all of them hear.

    Args:
        note: told each TCP segment.
    """
    ready = threading.Semaphore(0)

    def listen(device: str) -> None:
        with _wire(device) as wire:
            ready.release()
            while not over():
                segment = _heard(wire)
                if segment is not None:
                    note(segment)

    ears = [threading.Thread(target=listen, args=(device,), daemon=True) for device in devices]
    for ear in ears:
        ear.start()
    for _ in ears:
        ready.acquire(timeout=5)
    return ears


def _mac(raw: bytes) -> str:
    return raw.hex(":")


def _raw(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def _own(device: str) -> str:
    return str(next(address for address in legs()[device]["addresses"] if ":" not in address))


def _link_local(mac: bytes) -> str:
    middle = bytes([mac[0] ^ 2]) + mac[1:3] + b"\xff\xfe" + mac[3:]
    return socket.inet_ntop(socket.AF_INET6, b"\xfe\x80" + b"\0" * 6 + middle)


def _ether(wire: socket.socket, to: str, kind: int) -> bytes:
    return _raw(to) + bytes(wire.getsockname()[4]) + struct.pack("!H", kind)


def _checksum(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(~total & 0xFFFF)


def _ipv4(source: str, target: str, protocol: int, body: bytes, options: bytes = b"") -> bytes:
    words = 5 + len(options) // 4
    head = struct.pack("!BBHHHBBH", 0x40 | words, 0, 4 * words + len(body), 0, 0x4000, 64, protocol, 0)
    head += socket.inet_aton(source) + socket.inet_aton(target) + options
    return head[:10] + struct.pack("!H", _checksum(head)) + head[12:] + body


def _ipv6(source: str, target: str, protocol: int, body: bytes, hops: int = 64) -> bytes:
    ends = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, target)
    return struct.pack("!IHBB", 6 << 28, len(body), protocol, hops) + ends + body


def _pseudo(source: str, target: str, protocol: int, length: int) -> bytes:
    if ":" in target:
        ends = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, target)
        return ends + struct.pack("!II", length, protocol)
    return socket.inet_aton(source) + socket.inet_aton(target) + struct.pack("!BBH", 0, protocol, length)


def _ip(wire: socket.socket, hop: str, ends: tuple[str, str], protocol: int, body: bytes) -> bytes:
    source, target = ends
    if ":" in target:
        return _ether(wire, hop, IPV6) + _ipv6(source, target, protocol, body)
    return _ether(wire, hop, IPV4) + _ipv4(source, target, protocol, body)


def _tcp(wire: socket.socket, way: Way, ports: tuple[int, int], sequence: int, flags: int) -> bytes:
    body = struct.pack("!HHIIBBHHH", *ports, sequence, 0, 0x50, flags, 16384, 0, 0)
    total = _checksum(_pseudo(way["source"], way["target"], 6, len(body)) + body)
    whole = body[:16] + struct.pack("!H", total) + body[18:]
    return _ip(wire, way["hop"], (way["source"], way["target"]), 6, whole)


def _syn_maker(wire: socket.socket, way: Way, own_port: int, sequence: int) -> Any:
    """A function from port to frame; the checksum is worked out from that of port 0, since a million of these are sent."""
    frame = bytearray(_tcp(wire, way, (own_port, 0), sequence, SYN))
    at = 14 + (40 if ":" in way["target"] else 20)
    base = ~struct.unpack_from("!H", frame, at + 16)[0] & 0xFFFF

    def make(port: int) -> bytes:
        total = base + port
        total = (total & 0xFFFF) + (total >> 16)
        struct.pack_into("!H", frame, at + 2, port)
        struct.pack_into("!H", frame, at + 16, ~total & 0xFFFF)
        return bytes(frame)

    return make


def _icmp6(wire: socket.socket, hop: str, source: str, target: str, told: bytes) -> bytes:
    total = _checksum(_pseudo(source, target, 58, len(told)) + told)
    return _ether(wire, hop, IPV6) + _ipv6(source, target, 58, told[:2] + struct.pack("!H", total) + told[4:], 255)


def _arp(wire: socket.socket, to: str, kind: int, sender: str, target: tuple[str, str], *, mac: str = "") -> bytes:
    """`target`: MAC address and address."""
    own = _raw(mac) if mac else bytes(wire.getsockname()[4])
    body = struct.pack("!HHBBH", 1, IPV4, 6, 4, kind) + own + socket.inet_aton(sender) + _raw(target[0]) + socket.inet_aton(target[1])
    return _ether(wire, to, ARP) + body


def _datagram(wire: socket.socket, hop: str, each: dict[str, Any], token: int) -> bytes:
    source, target = str(each["source"]), str(each["target"])
    if each["kind"] == "echo":
        if ":" in target:
            return _icmp6_routed(wire, hop, source, target, struct.pack("!BBHHH", 128, 0, 0, token, 1) + b"lemonstand")
        told = struct.pack("!BBHHH", 8, 0, 0, token, 1) + b"lemonstand"
        return _ip(wire, hop, (source, target), 1, told[:2] + struct.pack("!H", _checksum(told)) + told[4:])
    question = _question(token) if each["kind"] == "dns" else b"\x23" + b"\0" * 39 + struct.pack("!II", token, token)
    udp = struct.pack("!HHHH", 20000 + token % 10000, int(each["port"]), 8 + len(question), 0) + question
    total = _checksum(_pseudo(source, target, 17, len(udp)) + udp) or 0xFFFF
    return _ip(wire, hop, (source, target), 17, udp[:6] + struct.pack("!H", total) + udp[8:])


def _question(token: int) -> bytes:
    return struct.pack("!HHHHHH", token, 0x0100, 1, 0, 0, 0) + b"\4peer\4test\0" + struct.pack("!HH", 1, 1)


def _icmp6_routed(wire: socket.socket, hop: str, source: str, target: str, told: bytes) -> bytes:
    total = _checksum(_pseudo(source, target, 58, len(told)) + told)
    return _ip(wire, hop, (source, target), 58, told[:2] + struct.pack("!H", total) + told[4:])


def _answers(packet: dict[str, Any], each: dict[str, Any], token: int) -> bool:
    body = packet["body"]
    if each["kind"] == "echo":
        return bool(packet["protocol"] in {1, 58}) and body[:1] in {b"\0", b"\x81"} and struct.unpack_from("!H", body, 4)[0] == token
    return bool(packet["protocol"] == 17) and struct.unpack_from("!HH", body)[1] == 20000 + token % 10000


def _frame(wire: socket.socket) -> tuple[int, bytes, bool] | None:
    try:
        data, where = wire.recvfrom(65536)
    except TimeoutError:
        return None
    return (struct.unpack_from("!H", data, 12)[0], data[14:], where[2] == OUTGOING) if len(data) > 14 else None


def _packet(wire: socket.socket) -> dict[str, Any] | None:
    frame = _frame(wire)
    if frame is None:
        return None
    kind, data, ours = frame
    if kind == IPV4 and len(data) >= 20:
        head = (data[0] & 15) * 4
        source, target = socket.inet_ntoa(data[12:16]), socket.inet_ntoa(data[16:20])
        return {"source": source, "target": target, "protocol": data[9], "body": data[head:], "ours": ours}
    if kind == IPV6 and len(data) >= 40:
        source, target = socket.inet_ntop(socket.AF_INET6, data[8:24]), socket.inet_ntop(socket.AF_INET6, data[24:40])
        return {"source": source, "target": target, "protocol": data[6], "body": data[40:], "ours": ours}
    return None


def _heard(wire: socket.socket) -> dict[str, Any] | None:
    packet = _packet(wire)
    if packet is None or packet["protocol"] != 6 or len(packet["body"]) < 20:
        return None
    from_port, to_port, sequence, ack, _, flags = struct.unpack_from("!HHIIBB", packet["body"])
    return {**packet, "from_port": from_port, "to_port": to_port, "sequence": sequence, "ack": ack, "flags": flags}
