"""Walks packets through a host's netfilter rules as `nft -j list ruleset` shows them: what would happen to this connection?

Reads the running rules only and shares no code with what wrote them. An expression it does not know is an error, never a guess.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any, Literal

Json = Any
FAMILIES = {4: ("ip", "inet"), 6: ("ip6", "inet")}
ICMP_NAMES = {
    "icmp": {3: "destination-unreachable", 5: "redirect", 8: "echo-request", 11: "time-exceeded", 12: "parameter-problem"},
    "icmpv6": {
        1: "destination-unreachable", 2: "packet-too-big", 3: "time-exceeded", 4: "parameter-problem", 128: "echo-request",
        133: "nd-router-solicit", 134: "nd-router-advert", 135: "nd-neighbor-solicit", 136: "nd-neighbor-advert", 137: "nd-redirect",
    },
}  # fmt: skip
TIMEOUT_DEFAULTS = {"close": 10, "close_wait": 60, "established": 432000, "fin_wait": 120, "last_ack": 30, "retrans": 300,
                    "syn_recv": 60, "syn_sent": 120, "time_wait": 120, "unack": 300}  # fmt: skip
"""Seconds: nftables' own values of a `ct timeout` policy (src/parser_bison.y, tcp states); `nft list` leaves out those that are equal."""
QUIET = {"counter", "log", "comment", "ct timeout", "ct helper", "mangle", "notrack", "meta"}
"""Statements that end nothing."""


# The same few hundred texts are asked for a hundred thousand times.
_address = cache(ipaddress.ip_address)
_network = cache(ipaddress.ip_network)


class UnreadableRule(Exception):
    """A rule holds an expression this reader doesn't know, so its effect can't be told."""


@dataclass(frozen=True)
class Packet:
    """The first packet of a connection, or an error about one.

    Args:
        source, destination: addresses of one family.
        protocol: tcp, udp, icmp or icmpv6.
        port: destination port; 0 for errors.
        device_in, device_out: network devices; empty if the hook has none.
        state: conntrack's view.
        icmp_type: number of the ICMP type.
        translated: it was subject to DNAT.
        source_route: the option or header by which its sender says which way it goes: lsrr or ssrr (IPv4), rt (IPv6).
    """

    source: str
    destination: str
    protocol: Literal["tcp", "udp", "icmp", "icmpv6"] = "tcp"
    port: int = 0
    device_in: str = ""
    device_out: str = ""
    state: Literal["new", "established", "related", "invalid", "untracked"] = "new"
    icmp_type: int = -1
    icmp_code: int = 0
    translated: bool = False
    source_route: Literal["", "lsrr", "ssrr", "rt"] = ""

    @cached_property
    def version(self) -> int:
        """4 or 6."""
        return _address(self.source).version


@dataclass(frozen=True)
class Verdict:
    """What a hook does with a packet.

    Args:
        accepted: whether it goes on.
        rule: comment of the deciding rule, else what decided.
        limits: rate limits, quotas or counts the packet had to pass on its way to an accept.
        target: the new destination address, if it was translated.
    """

    accepted: bool
    rule: str
    limits: tuple[str, ...] = ()
    target: str | None = None


@dataclass
class _Walk:
    limits: list[str] = field(default_factory=list)


class Ruleset:
    """The rules of one host.

    Args:
        objects: the list under `nftables` of `nft -j list ruleset`.
    """

    def __init__(self, objects: Iterable[Mapping[str, Json]]) -> None:
        self.chains: dict[tuple[str, str, str], Json] = {}
        self.rules: dict[tuple[str, str, str], list[Json]] = {}
        self.timeouts: dict[tuple[str, str, str], Json] = {}
        self.sets: dict[tuple[str, str, str], Json] = {}
        self.flowtables: list[Json] = []
        self.tables: list[Json] = []
        self.helpers: list[Json] = []
        self._verdicts: dict[tuple[str, Packet], Verdict] = {}
        for entry in objects:
            kind, value = next(iter(entry.items()))
            key = (str(value.get("family")), str(value.get("table")), str(value.get("name")))
            if kind == "chain":
                self.chains[key] = value
            elif kind == "rule":
                self.rules.setdefault((key[0], key[1], str(value["chain"])), []).append(value)
            elif kind == "ct timeout":
                self.timeouts[key] = value
            elif kind in {"set", "map"}:
                self.sets[key] = value
            elif kind == "flowtable":
                self.flowtables.append(value)
            elif kind == "table":
                self.tables.append(value)
            elif kind == "ct helper":
                self.helpers.append(value)

    def every_rule(self) -> list[Json]:
        """All rules of all tables."""
        return [rule for rules in self.rules.values() for rule in rules]

    def base_chains(self, hook: str, version: int, kind: str = "filter") -> list[tuple[str, str, str]]:
        """The chains at a hook that see packets of an IP version, in the order they are asked."""
        found = [
            (int(chain["prio"]), key)
            for key, chain in self.chains.items()
            if chain.get("hook") == hook and chain.get("type") == kind and key[0] in FAMILIES[version]
        ]
        return [key for _, key in sorted(found)]

    def verdict(self, hook: str, packet: Packet) -> Verdict:
        """What all filter chains at a hook do with a packet: one drop ends it, an accept ends that chain only."""
        if (hook, packet) not in self._verdicts:
            self._verdicts[hook, packet] = self._verdict(hook, packet)
        return self._verdicts[hook, packet]

    def _verdict(self, hook: str, packet: Packet) -> Verdict:
        walk = _Walk()
        last = "no filter"
        for key in self.base_chains(hook, packet.version):
            word, rule, _ = self._chain(key, packet, walk)
            if word is None:
                word, rule = str(self.chains[key].get("policy", "accept")), f"policy of chain {key[2]}"
            if word in {"drop", "reject", "queue"}:
                return Verdict(False, rule, tuple(walk.limits))
            last = rule
        return Verdict(True, last, tuple(walk.limits))

    def translated(self, packet: Packet) -> tuple[Packet, str | None]:
        """The packet after DNAT in prerouting, and the comment of the rule that did it."""
        for key in self.base_chains("prerouting", packet.version, "nat"):
            word, rule, target = self._chain(key, packet, _Walk())
            if word == "dnat" and target:
                return replace(packet, destination=target, translated=True), rule
        return packet, None

    def tcp_timeouts(self) -> list[tuple[str, str, dict[str, int], Json]]:
        """Every way a TCP connection gets its timeouts from a rule: (family ip or ip6, object, seconds by state, rule)."""
        found = []
        for rule in self.every_rule():
            for expression in rule["expr"]:
                if "ct timeout" in expression:
                    value = self.timeouts.get((rule["family"], rule["table"], str(expression["ct timeout"])))
                    if value is None:
                        raise UnreadableRule(f"ct timeout {expression['ct timeout']} is set by a rule and does not exist")
                    if value["protocol"] == "tcp":
                        found.append((str(value["l3proto"]), str(value["name"]), {**TIMEOUT_DEFAULTS, **value["policy"]}, rule))
        return found

    def _chain(self, key: tuple[str, str, str], packet: Packet, walk: _Walk) -> tuple[str | None, str, str | None]:  # noqa: PLR0912 - a branch a statement
        """(verdict or None, name of what decided, DNAT target)."""
        for rule in self.rules.get(key, []):
            name = str(rule.get("comment") or f"rule {rule.get('handle')} of chain {key[2]}")
            limits: list[str] = []
            for expression in rule["expr"]:
                kind, value = next(iter(expression.items()))
                if kind == "match":
                    if not _matches(value, packet):
                        break
                elif kind in {"limit", "quota", "ct count"}:
                    limits.append(f"{kind} in {name}")
                elif kind in {"accept", "drop", "reject", "queue", "synproxy", "tproxy", "redirect"}:
                    walk.limits += limits
                    if limits and kind != "accept":
                        break  # drops what is over the limit at most; an accept behind it decides
                    return kind, name, None
                elif kind in {"jump", "goto"}:
                    word, inner, target = self._chain((key[0], key[1], str(value["target"])), packet, walk)
                    if word is not None or kind == "goto":
                        return word, inner, target
                elif kind == "return":
                    return None, name, None
                elif kind == "dnat":
                    return "dnat", name, _dnat_target(value, packet)
                elif kind in {"snat", "masquerade"}:
                    return kind, name, None
                elif kind not in QUIET:
                    raise UnreadableRule(f"{name}: statement {kind}")
        return None, "", None


def _dnat_target(value: Json, packet: Packet) -> str | None:
    if value.get("family") not in {None, "ip" if packet.version == 4 else "ip6"}:
        return None
    target = value.get("addr")
    if isinstance(target, str):
        return target
    if isinstance(target, dict) and "map" in target:  # spread over several hosts: any of them stands for all
        return str(target["map"]["data"]["set"][0][1])
    raise UnreadableRule(f"dnat to {target!r}")


def _matches(match: Json, packet: Packet) -> bool:  # noqa: PLR0911 - a return for each kind of match
    left, right = match["left"], match["right"]
    negated: bool = match["op"] == "!="
    if match["op"] not in {"==", "!=", "in"}:
        raise UnreadableRule(f"operator {match['op']}")
    kind, value = next(iter(left.items()))
    if kind == "meta":
        known = {
            "iifname": packet.device_in, "iif": packet.device_in, "oifname": packet.device_out, "oif": packet.device_out,
            "nfproto": f"ipv{packet.version}", "l4proto": {"icmpv6": "ipv6-icmp"}.get(packet.protocol, packet.protocol),
        }  # fmt: skip
        if value["key"] not in known:
            raise UnreadableRule(f"meta {value['key']}")
        return _holds(known[value["key"]], right) != negated
    if kind == "payload":
        seen = _payload(value, packet)
        return False if seen is None else _holds(seen, right) != negated
    if kind in {"ip option", "exthdr"} and "field" not in value:
        # Whether it is there.
        return bool((right is (packet.source_route == value["name"])) != negated)
    if kind == "ct":
        if value["key"] == "state":
            return _holds(packet.state, right) != negated
        if value["key"] == "status":
            return _holds("dnat" if packet.translated else "none", right) != negated
        if value["key"] == "mark":  # of a new connection
            return _holds(0, right) != negated
        raise UnreadableRule(f"ct {value['key']}")
    if kind == "fib":  # sources here are real ones: there is a way back to them
        return bool((right is True) != negated)
    if kind == "&" and _is_flags(value[0]):
        # A new connection's first packet carries SYN alone, all others ACK.
        flags = {"syn"} if packet.state == "new" else {"ack"}
        mask = set(value[1]["|"]) if isinstance(value[1], dict) else {value[1]} if isinstance(value[1], str) else set(value[1])
        wanted = set(right["|"]) if isinstance(right, dict) else {right} if isinstance(right, str) else set(right)
        return packet.protocol == "tcp" and ((flags & mask == wanted) != negated)
    raise UnreadableRule(f"match on {kind}")


def _is_flags(value: Json) -> bool:
    return bool(value.get("payload", {}).get("field") == "flags") if isinstance(value, dict) else False


def _payload(value: Json, packet: Packet) -> str | int | None:
    """The field of the packet; None if it has no such header."""
    protocol, name = value.get("protocol"), value.get("field")
    ports = {"dport": packet.port, "sport": 50000}
    if protocol in {"ip", "ip6"}:
        if protocol != ("ip" if packet.version == 4 else "ip6"):
            return None
        known: dict[str, str | int] = {
            "saddr": packet.source,
            "daddr": packet.destination,
            "protocol": packet.protocol,
            "nexthdr": packet.protocol,
        }
    elif protocol in {"tcp", "udp", "th"}:
        if packet.protocol not in {"tcp", "udp"} or protocol not in {packet.protocol, "th"}:
            return None
        known = dict(ports)
        if name == "flags":
            known["flags"] = "syn" if packet.state == "new" else "ack"
    elif protocol in {"icmp", "icmpv6"}:
        if packet.protocol != protocol:
            return None
        known = {"type": ICMP_NAMES[protocol].get(packet.icmp_type, packet.icmp_type), "code": packet.icmp_code}
    else:
        raise UnreadableRule(f"payload of {protocol}")
    if name not in known:
        raise UnreadableRule(f"{protocol} {name}")
    return known[name]


def _holds(seen: str | int, right: Json) -> bool:  # noqa: PLR0911 - a return for each form of a right side
    """Whether a value is the right side, or in it."""
    if isinstance(right, list):
        return any(_holds(seen, item) for item in right)
    if isinstance(right, dict):
        if "set" in right:
            return any(_holds(seen, item) for item in right["set"])
        if "prefix" in right:
            return _address(str(seen)) in _network(f"{right['prefix']['addr']}/{right['prefix']['len']}")
        if "range" in right:
            low, high = right["range"]
            if isinstance(seen, int):
                return int(low) <= seen <= int(high)
            return int(_address(low)) <= int(_address(str(seen))) <= int(_address(high))
        if "elem" in right:
            return _holds(seen, right["elem"]["val"])
        raise UnreadableRule(f"right side {next(iter(right))}")
    if isinstance(right, str) and right.startswith("@"):
        raise UnreadableRule(f"named set {right}")
    if isinstance(right, str) and right.endswith("*") and isinstance(seen, str):
        return seen.startswith(right[:-1])
    return bool(seen == right) or (isinstance(right, str) and str(seen) == right)
