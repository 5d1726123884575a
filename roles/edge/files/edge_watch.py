#!/usr/bin/python3
"""Watches what an edge leads to: new connections go to members that answer, and an edge that nobody answers says so.

    edge-watch run                     watch; a service of systemd
    edge-watch drain NAME [--reason TEXT]
                                       no new connections to this member; those it has stay
    edge-watch undrain NAME            new ones again
    edge-watch status                  who answers, who is drained, connections of each: JSON

Members are asked for their greetings, one question a second. What follows from the answers is the table `inet lemonstand_spread`, which
is replaced in one transaction whenever it changes. By IPv4 the public address is translated to those that answer. By IPv6 nothing is
translated: a packet for a member that does not answer is handed to another one, which takes it as its own (the role shared_addresses).
Which member a connection was given stands in connection tracking, so that it stays there whoever comes and goes.

Of a pair of edges, each also asks its neighbours for an echo. One that nobody answers has lost its networks and not the others theirs: it
gives the shared addresses up (/run/lemonstand/edge-alone, which keepalived reads). And while it holds them it asks whether somebody else
answers for them.
"""

import argparse
import asyncio
import contextlib
import ipaddress
import json
import os
import pathlib
import signal
import socket
import struct
import subprocess
import sys
import syslog
import threading
import time
import typing
from collections.abc import Iterable
from typing import Any

SETTINGS = pathlib.Path("/etc/lemonstand/edge-watch.json")
DRAINED = pathlib.Path("/etc/lemonstand/drained.json")
RUN = pathlib.Path("/run/lemonstand")
SEEN = RUN / "edge-watch.json"
ALONE = RUN / "edge-alone"
TABLE = "lemonstand_spread"
PAIR = "/usr/local/lib/lemonstand/edge-pair"
"""Of the role edge_pair; there is none where an edge is no part of a pair."""

EVERY = 1.0
"""Seconds from one question to a member to the next."""
PATIENCE, GREETING_PATIENCE = 1.0, 5.0
"""Seconds until a connection is there, which is the kernel's work; and until the greeting, for which a service needs a turn."""
SLACK = 0.5
"""Seconds by which an answer may be late here before it is this host that had no turn, so that nothing is said of the other one."""
FALL, RISE = 2, 3
"""Questions without an answer after which a member counts as gone, and answers after which it is back."""
ALONE_AFTER = 3
"""Seconds without any neighbour's echo after which an edge is alone: as long as the other one takes to take over."""
STOOD_STILL = 3.0
"""Seconds in which this program did nothing, after which the other edge may be at work: the machine stood still, or was moved."""
CLAIMS_EVERY = 3
"""Seconds from one question whether somebody else holds what this edge holds to the next."""
MARK = 0x4C00
"""The mark of a connection that was handed to member N is this and N; the table of routes to it has the same number."""
MARKS = 0xFF
"""Members that can be told apart."""


def command(*words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a program; never raises."""
    try:
        return subprocess.run(words, input=stdin, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired) as fault:
        return subprocess.CompletedProcess(words, 1, "", str(fault))


def chosen(members: list[dict[str, Any]], answering: set[str], drained: set[str]) -> list[dict[str, Any]]:
    """Who gets new connections: those that answer and are not drained; where there are none, all that are not drained, else all."""
    kept = [each for each in members if each["name"] not in drained]
    return [each for each in kept if each["name"] in answering] or kept or members


def braces(items: Iterable[object]) -> str:
    """A set as nft writes it."""
    return "{ " + ", ".join(map(str, items)) + " }"


def pick(key: str, values: list[str]) -> str:
    """An expression of nft that gives a source one of some values, the same one each time."""
    if len(values) == 1:
        return values[0]
    return f"jhash {key} saddr mod {len(values)} map {braces(f'{number} : {value}' for number, value in enumerate(values))}"


def table(settings: dict[str, Any], answering: set[str], drained: set[str]) -> str:
    """The table as nft reads it.

    Args:
        settings: what the role has written.
        answering: names of members that answer.
        drained: names of members that get no new connections.
    """
    device, public = settings["device"], settings["public"]
    publish, steer = [], []
    for service in settings["services"]:
        members = service["members"]
        living = chosen(members, answering, drained)
        ports = f"tcp dport {braces(service['ports'])}"
        targets = [each["ipv4"] for each in living if each["ipv4"]]
        if public and targets:
            publish.append(f'iifname "{device}" ip daddr {public} {ports} dnat ip to {pick("ip", targets)} comment "{service["name"]}"')
        hops = [f"{MARK + each['number']:#x}" for each in living if each["ipv6"]]
        if not service["moves"] or not hops:
            continue
        names = {each["name"] for each in living}
        steer += [
            f'iifname "{device}" ip6 daddr {each["ipv6"]} {ports} ct state new ct mark set {pick("ip6", hops)} comment "{each["name"]}"'
            for each in members
            if each["ipv6"] and each["name"] not in names
        ]
        own = braces(each["ipv6"] for each in members if each["ipv6"])
        marks = f"{MARK + 1:#x}-{MARK + MARKS:#x}"
        steer.append(f'iifname "{device}" ip6 daddr {own} ct mark {marks} meta mark set ct mark comment "{service["name"]}"')
    chains = [
        ("publish", "type nat hook prerouting priority -101; policy accept;", publish),
        # After connection tracking, before routes are asked.
        ("steer", "type filter hook prerouting priority -160; policy accept;", steer),
    ]
    lines = [f"table inet {TABLE}", f"delete table inet {TABLE}", f"table inet {TABLE} " + "{"]
    for name, head, rules in chains:
        if rules:
            lines += [f"  chain {name} " + "{", f"    {head}", *(f"    {rule}" for rule in rules), "  }"]
    return "\n".join([*lines, "}", ""])


def routes(settings: dict[str, Any]) -> list[tuple[int, str]]:
    """The marks of connections that are handed on by IPv6, and the member each leads to."""
    return [
        (MARK + each["number"], each["ipv6"])
        for service in settings["services"]
        if service["moves"]
        for each in service["members"]
        if each["ipv6"]
    ]


def lay_routes(settings: dict[str, Any]) -> None:
    """Puts the routes in place that marked packets take; repeated, it changes nothing."""
    wanted = routes(settings)
    listed = json.loads(command("ip", "-6", "-j", "rule", "show").stdout or "[]")
    there = {int(rule["fwmark"], 16) for rule in listed if "fwmark" in rule}
    for mark in there - {mark for mark, _ in wanted}:
        if MARK < mark <= MARK + MARKS:
            command("ip", "-6", "rule", "del", "fwmark", hex(mark))
            command("ip", "-6", "route", "flush", "table", str(mark))
    for mark, hop in wanted:
        done = command("ip", "-6", "route", "replace", "default", "via", hop, "dev", settings["towards"], "table", str(mark))
        if done.returncode:
            syslog.syslog(syslog.LOG_ERR, f"no route to {hop}: {done.stderr.strip()}")
        if mark not in there:
            command("ip", "-6", "rule", "add", "fwmark", hex(mark), "lookup", str(mark), "priority", str(mark))


class Member:
    """One host behind a service, and what it answered.

    Args:
        service: the service it is of.
        member: as the settings have it.
        own: this edge's addresses towards it, by `ipv4` and `ipv6`.
    """

    def __init__(self, service: dict[str, Any], member: dict[str, Any], own: dict[str, str]) -> None:
        self.name: str = member["name"]
        self.targets = [
            (own[version], member[version], port, greeting)
            for port, greeting in service["greetings"]
            for version in ("ipv4", "ipv6")
            if member[version] and own.get(version)
        ]
        self.answers = True
        self.since = time.time()
        self.why = ""
        self._turn = 0
        self._late = 0
        self._good = RISE
        self._bad = 0
        self._bad_of: dict[int, int] = {}

    async def ask(self) -> bool:
        """Asks once, for the next greeting in turn; whether its state has changed."""
        number = self._turn % len(self.targets)
        self._turn += 1
        own, address, port, greeting = self.targets[number]
        fault = await asked(own, address, port, greeting)
        self._late = self._late + 1 if fault is None else 0
        if fault is None:
            if self._late < FALL:
                return False
            fault = "no answer, as far as this busy host can tell"
        return self.heard(number, f"{address} port {port}: {fault}" if fault else "")

    def heard(self, number: int, fault: str) -> bool:
        """Counts one answer; whether its state has changed.

        Args:
            number: which of the targets was asked.
            fault: what was wrong with it; empty: nothing.
        """
        before = self.answers
        if fault:
            self._bad += 1
            self._bad_of[number] = self._bad_of.get(number, 0) + 1
            self._good = 0
            # The host is gone, or one of its services is.
            if max(self._bad, self._bad_of[number]) >= FALL:
                self.answers, self.why = False, fault
        else:
            self._bad = 0
            self._bad_of.pop(number, None)
            self._good += 1
            if not self._bad_of and self._good >= RISE:
                self.answers, self.why = True, ""
        if self.answers != before:
            self.since = time.time()
        return self.answers != before


async def asked(own: str, address: str, port: int, greeting: str) -> str | None:
    """What is wrong with the greeting of a service; empty if nothing is, None if this host was too busy to tell."""
    writer = None
    began, patience = time.monotonic(), PATIENCE
    try:
        async with asyncio.timeout(PATIENCE) as limit:
            reader, writer = await asyncio.open_connection(address, port, local_addr=(own, 0))
            patience += GREETING_PATIENCE
            limit.reschedule(asyncio.get_running_loop().time() + GREETING_PATIENCE)
            line = (await reader.readuntil(b"\n")).decode(errors="replace").strip()
    except TimeoutError:
        late = time.monotonic() - began > patience + SLACK
        return None if late else "no greeting" if writer else "no answer"
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as fault:
        return str(fault) or "no answer"
    finally:
        if writer is not None:
            writer.close()
    return "" if line.startswith(greeting) else f"it says '{line[:60]}'"


class Echo:
    """Asks neighbours for an echo, in one IP version (RFC 792, RFC 4443 section 4).

    Args:
        version: 4 or 6.
        neighbours: addresses.
    """

    KINDS: typing.ClassVar = {4: (socket.AF_INET, socket.IPPROTO_ICMP, 8, 0), 6: (socket.AF_INET6, socket.IPPROTO_ICMPV6, 128, 129)}
    """Family, protocol, and the types of request and answer."""
    HEAD = struct.Struct("!BBHHH")

    def __init__(self, version: int, neighbours: list[str]) -> None:
        family, protocol, self._request, self._answer = self.KINDS[version]
        self._socket = socket.socket(family, socket.SOCK_RAW, protocol)
        self._socket.setblocking(False)
        self._has_head = version == min(self.KINDS)
        self._neighbours = neighbours
        self._ident = os.getpid() & 0xFFFF
        self._number = 0

    def send(self) -> None:
        """One request to each."""
        self._number = (self._number + 1) & 0xFFFF
        packet = self.HEAD.pack(self._request, 0, 0, self._ident, self._number)
        if self._has_head:  # the kernel fills in the checksum of IPv6's alone
            packet = self.HEAD.pack(self._request, 0, checksum(packet), self._ident, self._number)
        for address in self._neighbours:
            with contextlib.suppress(OSError):
                self._socket.sendto(packet, (address, 0))

    def heard(self) -> set[str]:
        """Who has answered since the last call."""
        found: set[str] = set()
        while True:
            try:
                data, sender = self._socket.recvfrom(2048)
            except OSError:
                return found
            body = data[(data[0] & 15) * 4 :] if self._has_head else data
            if len(body) >= self.HEAD.size:
                kind, _, _, ident, _ = self.HEAD.unpack_from(body)
                if (kind, ident) == (self._answer, self._ident):
                    found.add(str(sender[0]))


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of an even number of octets."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


class Claims:
    """Asks whether somebody else answers for addresses this edge holds (RFC 5227 section 2.1.1: an ARP probe).

    Args:
        shared: `(device, IPv4 address)` of each.
    """

    PROTOCOL = 0x0806
    FRAME = struct.Struct("!6s6sH HHBBH 6s4s6s4s")
    REPLY = 2

    def __init__(self, shared: list[tuple[str, str]]) -> None:
        self._sockets = []
        for device, address in shared:
            with contextlib.suppress(OSError):
                raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(self.PROTOCOL))
                raw.bind((device, self.PROTOCOL))
                raw.setblocking(False)
                self._sockets.append((raw, device, socket.inet_aton(address)))

    def send(self) -> None:
        """One probe for each."""
        for raw, _, address in self._sockets:
            own = raw.getsockname()[4]
            with contextlib.suppress(OSError):
                raw.send(self.FRAME.pack(b"\xff" * 6, own, self.PROTOCOL, 1, 0x0800, 6, 4, 1, own, bytes(4), bytes(6), address))

    def heard(self) -> list[str]:
        """Who has answered for an address of ours since the last call."""
        found = set()
        for raw, device, address in self._sockets:
            own = raw.getsockname()[4]
            while True:
                try:
                    frame = raw.recv(2048)
                except OSError:
                    break
                if len(frame) >= self.FRAME.size:
                    *_, operation, card, sender, _, _ = self.FRAME.unpack_from(frame)
                    if operation == self.REPLY and sender == address and card != own:
                        found.add(f"{socket.inet_ntoa(address)} on {device} by {card.hex(':')}")
        return sorted(found)


def holds(address: str) -> bool:
    """Whether this host has an address."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def drained_now() -> dict[str, Any]:
    """Who is drained: {name: {since, reason}}."""
    try:
        found: dict[str, Any] = json.loads(DRAINED.read_text())
    except (OSError, ValueError):
        return {}
    return found


def put(path: pathlib.Path, text: str) -> None:
    """Writes a file, whole or not at all."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)


class Watch:
    """The service.

    Args:
        settings: what the role has written.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.members = [Member(service, each, settings["own"]) for service in settings["services"] for each in service["members"]]
        self.pair = settings["pair"]
        self._loaded = ""
        self._answered: dict[str, set[str]] = {}
        self._quiet = 0
        self._alone: float | None = None
        self._twin_silent: float | None = None
        self._conflict: dict[str, Any] | None = None
        self._written = ""

    def bring(self) -> None:
        """Loads the table if it is not what is loaded."""
        if not self.settings["services"]:
            return
        drained = drained_now()
        text = table(self.settings, self.answering(), set(drained))
        if text == self._loaded:
            return
        done = command("nft", "-f", "-", stdin=text)
        if done.returncode:
            syslog.syslog(syslog.LOG_ERR, f"nft refuses the table {TABLE}: {done.stderr.strip()}")
            return
        self._loaded = text
        gone = {each.name for each in self.members if not each.answers} | set(drained)
        for service in self.settings["services"]:
            for each in service["members"]:
                if each["name"] in gone and each["ipv4"]:
                    # Who is still knocking there is led to another one with the next packet.
                    command("conntrack", "-D", "-p", "tcp", "--state", "SYN_SENT", "--reply-src", each["ipv4"])

    def answering(self) -> set[str]:
        """Who answers; of a service where nobody does, who did last: that all are slow is likelier than that those are gone as well."""
        now = {each.name for each in self.members if each.answers}
        for service in self.settings["services"]:
            here = {each["name"] for each in service["members"]} & now
            self._answered[service["name"]] = here or self._answered.get(service["name"], set())
        return set().union(*self._answered.values())

    def tell(self) -> None:
        """Writes down what is so, for alarms and for `status`."""
        text = json.dumps(
            {
                "members": {each.name: {"answers": each.answers, "since": each.since, "why": each.why} for each in self.members},
                "drained": drained_now(),
                "alone": self._alone,
                "twin_silent": self._twin_silent,
                "conflict": self._conflict,
            }
        )
        if text != self._written:
            put(SEEN, text)
            self._written = text

    async def ask_member(self, member: Member) -> None:
        """One question; a change takes effect at once. Who may not be asked counts as answering."""
        if not member.targets:
            return
        if await member.ask():
            word = "answers again" if member.answers else f"does not answer ({member.why}): new connections go to others"
            syslog.syslog(syslog.LOG_NOTICE if member.answers else syslog.LOG_WARNING, f"{member.name} {word}")
            self.bring()
            self.tell()

    async def watch_member(self, member: Member) -> None:
        """Once a second, beside the others."""
        while True:
            begun = time.monotonic()
            await self.ask_member(member)
            await asyncio.sleep(max(0.1, EVERY - (time.monotonic() - begun)))

    async def watch_drained(self) -> None:
        """What is drained takes effect within a second."""
        while True:
            self.bring()
            self.tell()
            await asyncio.sleep(EVERY)

    async def watch_neighbours(self) -> None:
        """Of a pair: who is there, once a second."""
        neighbours = self.pair["neighbours"]
        by_version = {number: [each for each in neighbours if ipaddress.ip_address(each).version == number] for number in Echo.KINDS}
        echoes = [Echo(number, addresses) for number, addresses in by_version.items() if addresses]
        claims = Claims([(each["device"], each["address"]) for each in self.pair["shared"] if ":" not in each["address"]])
        turn, woken = 0, time.clock_gettime(time.CLOCK_BOOTTIME)
        while True:
            asks = turn % CLAIMS_EVERY == 0
            for each in echoes:
                each.send()
            if asks:
                claims.heard()
                claims.send()
            await asyncio.sleep(EVERY)
            before, woken = woken, time.clock_gettime(time.CLOCK_BOOTTIME)
            # What happened meanwhile this edge does not know: it takes its turn behind the other one, as if it had been alone.
            stood_still = woken - before > STOOD_STILL and holds(self.pair["shared"][0]["address"])
            heard = {address for each in echoes for address in each.heard()}
            self._quiet = ALONE_AFTER if stood_still else 0 if heard else self._quiet + 1
            self.judge_neighbours(heard)
            if asks:
                self.judge_claims(claims.heard())
            self.tell()
            turn += 1

    def judge_neighbours(self, heard: set[str]) -> None:
        """Says whether this edge is alone, and whether the other one is there.

        Args:
            heard: addresses that answered within the last second.
        """
        now = time.time()
        alone = self._quiet >= ALONE_AFTER
        if alone != (self._alone is not None):
            self._alone = now if alone else None
            put(ALONE, str(int(alone)))
            syslog.syslog(
                syslog.LOG_CRIT if alone else syslog.LOG_NOTICE,
                f"this edge {'has missed the others' if alone else 'is in touch with others'}",
            )
        if heard & set(self.pair["twin"]):
            self._twin_silent = None
        elif self._twin_silent is None:
            self._twin_silent = now

    def judge_claims(self, claimed: list[str]) -> None:
        """Names who holds what this edge holds.

        Args:
            claimed: sentences; empty: nobody.
        """
        here = holds(self.pair["shared"][0]["address"])
        if not claimed or not here:
            if self._conflict is not None and here:
                # The other one gave way: what it led meanwhile is this one's now. It takes a second.
                threading.Thread(target=command, args=(PAIR, "conflict")).start()
            self._conflict = None
        elif self._conflict is None:
            syslog.syslog(syslog.LOG_CRIT, "two edges are at work: somebody else answers for " + "; ".join(claimed))
            self._conflict = {"since": time.time(), "claims": claimed}

    async def run(self) -> None:
        """Until it is told to end."""
        tasks = []
        if self.settings["services"]:
            lay_routes(self.settings)
            self.bring()
            tasks += [asyncio.ensure_future(self.watch_member(each)) for each in self.members]
            tasks.append(asyncio.ensure_future(self.watch_drained()))
        if self.pair:
            put(ALONE, "0")
            tasks.append(asyncio.ensure_future(self.watch_neighbours()))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, lambda: [each.cancel() for each in tasks])
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks)


def counted(settings: dict[str, Any]) -> dict[str, int]:
    """Established connections of each member, as connection tracking has them."""
    found = {each["name"]: 0 for service in settings["services"] for each in service["members"]}
    lines = [
        line
        for family in ("ipv4", "ipv6")
        for line in command("conntrack", "-L", "-f", family, "-p", "tcp", "--state", "ESTABLISHED").stdout.splitlines()
    ]
    for service in settings["services"]:
        by_address = {each[version]: each["name"] for each in service["members"] for version in ("ipv4", "ipv6") if each[version]}
        by_mark = {MARK + each["number"]: each["name"] for each in service["members"]}
        for line in lines:
            # Of each direction: src, dst, sport, dport.
            pairs = [word.partition("=")[::2] for word in line.split() if "=" in word]
            sources, ports = [value for key, value in pairs if key == "src"], [value for key, value in pairs if key == "dport"]
            # What the edge itself asks is no client's.
            if not ports or int(ports[0]) not in service["ports"] or sources[0] in settings["own"].values():
                continue
            name = by_mark.get(int(dict(pairs).get("mark", "0"))) or by_address.get(sources[-1])
            if name:
                found[name] += 1
    return found


def drain(name: str, reason: str, settings: dict[str, Any], *, off: bool) -> None:
    """Notes who gets no new connections; the service sees it within a second."""
    services = [service for service in settings["services"] if any(each["name"] == name for each in service["members"])]
    if not services:
        known = ", ".join(each["name"] for service in settings["services"] for each in service["members"])
        sys.exit(f"{name} shares no service with another host, so it can't be drained; hosts that do: {known or 'none'}")
    now = drained_now()
    if off and name in now:
        del now[name]
        put(DRAINED, json.dumps(now))
        print(f"changed: {name} gets new connections")
    elif not off and name not in now:
        others = {each["name"] for service in services for each in service["members"]} - {name} - set(now)
        seen = json.loads(SEEN.read_text())["members"] if SEEN.exists() else {}
        if not any(seen.get(other, {"answers": True})["answers"] for other in others):
            sys.exit(f"nobody else answers: without {name} there would be no service")
        put(DRAINED, json.dumps({**now, name: {"since": time.time(), "reason": " ".join(reason.split())}}))
        print(f"changed: {name} gets no new connections")


def main() -> None:
    """Does one verb."""
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["run", "drain", "undrain", "status"])
    parser.add_argument("name", nargs="?", default="")
    parser.add_argument("--reason", default="")
    given = parser.parse_args()
    settings = json.loads(SETTINGS.read_text())
    RUN.mkdir(exist_ok=True)
    syslog.openlog("edge-watch", facility=syslog.LOG_DAEMON)
    if given.verb == "run":
        asyncio.run(Watch(settings).run())
    elif given.verb == "status":
        seen = json.loads(SEEN.read_text()) if SEEN.exists() else {}
        print(json.dumps({**seen, "drained": drained_now(), "connections": counted(settings)}))
    else:
        drain(given.name, given.reason, settings, off=given.verb == "undrain")


if __name__ == "__main__":
    main()
