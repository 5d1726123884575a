"""The way inward, and out again: ports, shells, neighbours, routes and sources."""

from __future__ import annotations

import secrets
from typing import Any

from lemonstand.probes.attacks.frames import Way
from lemonstand.redteam.attempts import move
from lemonstand.redteam.context import ISSUER_PORT, Ground, Seen, need

NEAR = [*range(1, 1025), 1080, 1194, 2049, 2222, 3128, 3268, 3269, 3306, 4190, 5000, 5432, 5601, 5666, 6379, 6443, 8000, 8080, 8081, 8443,
        8888, 9090, 9100, 9200, 10000, 11211, 11334, 24245, 27017, 50051]  # fmt: skip
"""Ports tried where not every one is."""
MANAGED = [22, 24, 25, 80, 111, 143, 389, 443, 587, 636, 8443, 24245]
DIALLED = [22, 24, 25, 53, 80, 123, 143, 389, 443, 587, 636, 993, 3128, 8443, 24245]
UNPRIVILEGED = {"frontend": "dovenull", "relay": "postfix"}
"""Who runs what clients of the Internet talk to on a host."""
SCAN_SECONDS = 200
KNOCK_SECONDS = 1.0
WATCH_SECONDS = 8.0
INNER = ("auths", "stores")


def _attacker(ground: Ground, position: str) -> str:
    return ground.name({"frontend": "frontends", "relay": "relays", "internet": "peers"}[position])


def _edge(ground: Ground) -> str:
    return ground.name("edges")


def _scan(ground: Ground, host: str, ways: list[Way]) -> dict[tuple[str, int], str]:
    return {(address, port): what for address, port, what in ground.ask(host, "scan", seconds=SCAN_SECONDS, ways=ways)}


def _unlisted(ground: Ground, host: str, found: dict[tuple[str, int], str]) -> list[str]:
    """What answers and no flow opens: neither to this host, nor to everybody outside."""
    peer = ground.name("peers")
    public = {(ground.owner(address), port) for source, address, port in ground.allowed if source == peer}
    found = {(address, port): what for (address, port), what in found.items() if (ground.owner(address), port) not in public}
    return [
        f"{address} port {port} ({what})" for (address, port), what in sorted(found.items()) if (host, address, port) not in ground.allowed
    ]


def _inner_ways(ground: Ground, host: str, leg: str, ports: list[int]) -> list[Way]:
    """To each address of the auth hosts and stores in their own zones, by way of the edge."""
    hop = ground.mac(_edge(ground), leg)
    return [
        ground.way(host, leg, hop, address, ports)
        for group, zone in zip(INNER, ("auth", "store"), strict=True)
        for inner in ground.site.group(group)
        for address in ground.addresses(inner.name, zone)
    ]


def _ports_inner(ground: Ground, position: str, open_port: int) -> Seen:
    """Every port of every inner host."""
    host = _attacker(ground, position)
    ways = _inner_ways(ground, host, "dmz", [])
    found = _scan(ground, host, ways)
    listed = [key for key in found if (host, *key) in ground.allowed]
    families = {":" in address for address, port in listed if port == open_port}
    need(families == {True, False}, f"port {open_port}, which a flow opens, answers by {len(families)} of two IP versions")
    taken = _unlisted(ground, host, found)
    got = "; ".join(taken[:4]) or f"65535 ports of {len(ways)} addresses: none answers but {len(listed)} that flows open"
    return Seen(bool(taken), got, f"port {open_port} answers in both IP versions")


@move("frontend-ports-inner")
def frontend_ports_inner(ground: Ground) -> Seen:
    """From the frontend."""
    return _ports_inner(ground, "frontend", ISSUER_PORT)


@move("relay-ports-inner")
def relay_ports_inner(ground: Ground) -> Seen:
    """From the relay."""
    return _ports_inner(ground, "relay", 24)


def _ports_beside(ground: Ground, position: str) -> Seen:
    """The edge on all its legs, and the other hosts of the DMZ."""
    host, edge = _attacker(ground, position), _edge(ground)
    hop = ground.mac(edge, "dmz")
    ways = []
    for zone in ground.site.hosts[edge].interfaces:
        ways += [ground.way(host, "dmz", hop, address, NEAR) for address in ground.addresses(edge, zone)]
    for group in ("frontends", "relays"):
        for other in ground.site.group(group):
            if other.name != host:
                ways += [
                    ground.way(host, "dmz", ground.mac(other.name, "dmz"), address, NEAR) for address in ground.addresses(other.name, "dmz")
                ]
    found = _scan(ground, host, ways)
    control = _scan(ground, host, _inner_ways(ground, host, "dmz", [ISSUER_PORT if position == "frontend" else 24]))
    need(control, "a scan of the same making finds no port that a flow opens")
    taken = _unlisted(ground, host, found)
    got = "; ".join(taken[:4]) or f"{len(NEAR)} ports of {len(ways)} addresses: silence"
    return Seen(bool(taken), got, f"{len(control)} ports that flows open are found in the same way")


@move("frontend-ports-beside")
def frontend_ports_beside(ground: Ground) -> Seen:
    """From the frontend."""
    return _ports_beside(ground, "frontend")


@move("relay-ports-beside")
def relay_ports_beside(ground: Ground) -> Seen:
    """From the relay."""
    return _ports_beside(ground, "relay")


def _management(ground: Ground, position: str) -> Seen:
    """By the management leg: the other hosts there, their other addresses, and the way on through them."""
    host = _attacker(ground, position)
    ways = []
    for other in ground.site.hosts.values():
        if other.name == host or "management" not in other.interfaces:
            continue
        hop = ground.mac(other.name, "management")
        for zone in other.interfaces:
            for address in ground.addresses(other.name, zone):
                ways.append(ground.way(host, "management", hop, address, MANAGED))
        # The other host as a router: to the credential host and the mailboxes by its management leg.
        for group, zone in zip(INNER, ("auth", "store"), strict=True):
            inner = ground.name(group)
            if inner != other.name:
                ways += [ground.way(host, "management", hop, address, MANAGED) for address in ground.addresses(inner, zone)]
    found = _scan(ground, host, ways)
    back = ground.ask(host, "listeners")
    need(any(each.split()[0].endswith(":22") for each in back), "no SSH server runs on such hosts, so its silence says nothing")
    taken = _unlisted(ground, host, found)
    got = "; ".join(taken[:4]) or f"{len(MANAGED)} ports by {len(ways)} ways: silence"
    return Seen(bool(taken), got, "SSH servers listen; the controller reaches each of them")


@move("frontend-management")
def frontend_management(ground: Ground) -> Seen:
    """From the frontend."""
    return _management(ground, "frontend")


@move("relay-management")
def relay_management(ground: Ground) -> Seen:
    """From the relay."""
    return _management(ground, "relay")


def _unprivileged(ground: Ground, position: str) -> Seen:
    """What the host's own filter lets a process without rights send."""
    host = _attacker(ground, position)
    targets: set[tuple[str, int]] = set()
    for other in ground.site.hosts.values():
        if other.name != host:
            targets |= {(address, port) for zone in other.interfaces for address in ground.addresses(other.name, zone) for port in DIALLED}
    allowed = {f"{address} {port}" for address, port in targets if (host, address, port) in ground.allowed}
    by_nature = {f"{address} {port}" for address, port in targets if port == 25 and position == "relay"}
    seen = ground.ask(host, "leaving", user=UNPRIVILEGED[position], targets=sorted(targets), seconds_each=KNOCK_SECONDS)
    need(allowed & set(seen["reached"]), "no port that a flow opens is reached")
    need(allowed & set(seen["left"]), "what leaves the host was not seen")
    taken = sorted(set(seen["left"]) - allowed - by_nature)
    got = (
        f"{len(taken)} of {len(targets)} leave the host: {'; '.join(taken[:3])}"
        if taken
        else f"{len(targets) - len(allowed)} targets, not a frame"
    )
    return Seen(bool(taken), got, f"{len(allowed & set(seen['reached']))} targets of flows are reached")


@move("frontend-output")
def frontend_output(ground: Ground) -> Seen:
    """From the frontend."""
    return _unprivileged(ground, "frontend")


@move("relay-output")
def relay_output(ground: Ground) -> Seen:
    """From the relay."""
    return _unprivileged(ground, "relay")


def _exits(ground: Ground, position: str, kinds: tuple[str, ...]) -> Seen:
    """DNS and ICMP as ways out, below the host's own filter."""
    host, edge, peer = _attacker(ground, position), _edge(ground), ground.name("peers")
    tried = []
    for address in ground.addresses(peer, "internet"):
        own = ground.own(host, "dmz", address)
        tried += [
            {"name": f"{kind} {address}", "kind": kind, "source": own, "target": address, "port": 53 if kind == "dns" else 123}
            for kind in kinds
        ]
    near = ground.addresses(edge, "dmz")[0]
    control = {"name": "control", "kind": "echo", "source": ground.own(host, "dmz", near), "target": near, "port": 0}
    device = ground.site.hosts[host].interfaces["dmz"].device
    seen = ground.ask(host, "exits", device=device, hop=ground.mac(edge, "dmz"), tried=[*tried, control])
    need(seen.pop("control"), "the edge itself does not answer an echo either")
    taken = [name for name, answered in seen.items() if answered]
    return Seen(
        bool(taken),
        f"answers from outside: {', '.join(taken)}" if taken else f"no answer from outside to {len(tried)} tries",
        "the edge answers an echo",
    )


@move("frontend-dns-exit")
def frontend_dns(ground: Ground) -> Seen:
    """Names and time."""
    return _exits(ground, "frontend", ("dns", "ntp"))


@move("frontend-icmp-exit")
def frontend_icmp(ground: Ground) -> Seen:
    """Echo."""
    return _exits(ground, "frontend", ("echo",))


@move("relay-icmp-exit")
def relay_icmp(ground: Ground) -> Seen:
    """Echo and time; names are the relay's to ask."""
    return _exits(ground, "relay", ("echo", "ntp"))


@move("frontend-gateways")
def gateways(ground: Ground) -> Seen:
    """Strangers on the wires, and the machine that carries the lab."""
    host = ground.name("frontends")
    strangers, met = [], 0
    for zone in ground.site.hosts[host].interfaces:
        network = ground.site.settings.zones[zone].ipv4
        known = {
            address for other in ground.site.hosts.values() if zone in other.interfaces for address in ground.addresses(other.name, zone)
        }
        known |= {str(address) for address in ground.site.settings.controllers}
        device = ground.site.hosts[host].interfaces[zone].device
        seen = ground.ask(host, "neighbours", device=device, network=str(network))
        met += len(set(seen) & known)
        strangers += [f"{address} at {mac}" for address, mac in seen.items() if address not in known]
    need(met >= 2, f"only {met} known neighbours answer")
    hop = ground.mac(_edge(ground), "dmz")
    ways = [ground.way(host, "dmz", hop, address, [22, 53, 80, 111, 443, 2049, 8080]) for address in (*ground.machine, "169.254.169.254")]
    reached = [f"{address} port {port}" for address, port in _scan(ground, host, ways)]
    got = "; ".join([*strangers, *reached][:4]) or f"no stranger on the wires, {len(ways)} addresses of the machine are silent"
    return Seen(bool(strangers or reached), got, f"{met} known neighbours answer")


def _believes(ground: Ground, victim: str, zone: str, address: str, *, settle: bool = True) -> str:
    device = ground.site.hosts[victim].interfaces[zone].device
    if settle:
        ground.ask(victim, "touch-neighbour", address=address)
    return str(ground.ask(victim, "neighbour", address=address, device=device)["mac"])


def _claims(ground: Ground, zone: str, pairs: list[tuple[str, str]]) -> Seen:
    """Tells neighbours that others' addresses are here. `pairs`: who is told, and whose address it is."""
    host = ground.name("frontends")
    mine = ground.mac(host, zone)
    device = ground.site.hosts[host].interfaces[zone].device
    believed, control = [], 0
    for victim, owner in pairs:
        for index in range(2):
            addresses = ground.addresses(owner, zone) if owner in ground.site.hosts else [str(ground.site.settings.controllers[0])]
            if index >= len(addresses):
                continue
            address = addresses[index]
            true = _believes(ground, victim, zone, address)
            if not true:
                continue
            control += 1
            target = ground.own(victim, zone, address)
            try:
                ground.ask(host, "claim", device=device, victim=target, victim_mac=ground.mac(victim, zone), address=address, mac="")
                if _believes(ground, victim, zone, address, settle=False) == mine:
                    believed.append(f"{victim} takes {host} for {owner} ({address})")
            finally:
                ground.ask(victim, "forget-neighbour", address=address, device=ground.site.hosts[victim].interfaces[zone].device)
    need(control, "no victim knew its neighbours")
    return Seen(
        bool(believed),
        "; ".join(believed) or f"{control} claims, none believed",
        f"{control} neighbours were known by their own addresses before",
    )


@move("frontend-neighbours-dmz")
def neighbours_dmz(ground: Ground) -> Seen:
    """ARP and neighbour discovery in the DMZ."""
    edge, relay = _edge(ground), ground.name("relays")
    return _claims(ground, "dmz", [(relay, edge), (edge, relay)])


@move("frontend-neighbours-management")
def neighbours_management(ground: Ground) -> Seen:
    """The same by the management leg, in the controller's name."""
    return _claims(ground, "management", [(ground.name(group), "controller") for group in ("auths", "stores", "relays")])


@move("frontend-routes")
def routes(ground: Ground) -> Seen:
    """Router advertisements and redirects to the other hosts of the DMZ."""
    host, relay, edge = ground.name("frontends"), ground.name("relays"), _edge(ground)
    dmz = ground.site.hosts[relay].interfaces["dmz"]
    near = ground.addresses(edge, "dmz")[0]
    before = ground.ask(relay, "neighbour", address=near, device=dmz.device)["routes"]
    need("default" in before, "the relay has no route that could be replaced")
    mine = ground.site.hosts[host].interfaces["dmz"].device
    source = ground.ask(host, "advertise-router", device=mine)
    ground.ask(
        host, "redirect", device=mine, router=near, victim=ground.own(relay, "dmz", near), victim_mac=ground.mac(relay, "dmz"),
        target=ground.addresses(ground.name("peers"), "internet")[0],
    )  # fmt: skip
    after = ground.ask(relay, "neighbour", address=near, device=dmz.device)["routes"]
    changed = sorted(set(after.splitlines()) - set(before.splitlines()))
    taken = [line for line in changed if source in line or "proto ra" in line or "redirect" in line]
    return Seen(bool(taken), "; ".join(taken) or "no route changed", "the relay has a default route by the edge")


def _spoof(ground: Ground, host: str, watcher: str, ways: list[Way]) -> dict[str, Any]:
    enough = sum(len(way["ports"]) for way in ways)
    sequence = secrets.randbits(32)
    devices = [leg.device for leg in ground.site.hosts[watcher].interfaces.values()]
    with ground.prober.start(watcher, "watch-wires", devices=devices, sequence=sequence, within=WATCH_SECONDS, enough=enough) as watching:
        watching.wait("watching")
        ground.ask(host, "spoofed", ways=ways, sequence=sequence)
        return dict(watching.result())


def _as(way: Way, source: str) -> Way:
    return Way(device=way["device"], source=source, target=way["target"], hop=way["hop"], ports=way["ports"])


def _spoofed_neighbour(ground: Ground, position: str, group: str, victims: tuple[tuple[str, str, list[int]], ...]) -> Seen:
    """In the name of another host of the DMZ, to what that host may reach."""
    host, posed, edge = _attacker(ground, position), ground.name(group), _edge(ground)
    answered, control = [], []
    for victim_group, zone, ports in victims:
        victim = ground.name(victim_group)
        ways = [
            _as(ground.way(host, "dmz", ground.mac(edge, "dmz"), address, ports), ground.own(posed, "dmz", address))
            for address in ground.addresses(victim, zone)
        ]
        answered += _spoof(ground, host, victim, ways)["answered"]
        own = ground.way(posed, "dmz", ground.mac(edge, "dmz"), ground.addresses(victim, zone)[0], ports)
        control += _spoof(ground, posed, victim, [own])["answered"]
    need(control, f"not even {posed} itself is answered")
    return Seen(
        bool(answered),
        f"answered, to the true owner: {'; '.join(answered[:3])}" if answered else "no answer",
        f"{posed} itself is answered",
    )


@move("frontend-as-relay")
def frontend_as_relay(ground: Ground) -> Seen:
    """As the relay, to the store's LMTP."""
    return _spoofed_neighbour(ground, "frontend", "relays", (("stores", "store", [24]),))


@move("relay-as-frontend")
def relay_as_frontend(ground: Ground) -> Seen:
    """As the frontend, to issuer and store."""
    return _spoofed_neighbour(ground, "relay", "frontends", (("auths", "auth", [ISSUER_PORT]), ("stores", "store", [143, 587])))


def _spoofed_inner(ground: Ground, position: str, leg: str) -> Seen:
    """In the name of inner hosts, of the controller and of the edge, through the edge."""
    host, edge = _attacker(ground, position), _edge(ground)
    auth, store = ground.name("auths"), ground.name("stores")
    hop = ground.mac(edge, leg)
    answered, arrived = [], []
    for victim, zone in ((auth, "auth"), (store, "store")):
        other = (store, "store") if victim == auth else (auth, "auth")
        ways = []
        for address in ground.addresses(victim, zone):
            loopback = "::1" if ":" in address else "127.0.0.1"
            sources = [ground.own(*other, address), ground.own(edge, zone, address), ground.own(victim, zone, address), loopback]
            sources += [str(each) for each in ground.site.settings.controllers if (":" in str(each)) == (":" in address)]
            sources.append(
                ground.own(ground.name("frontends"), "dmz", address)
                if position == "internet"
                else ground.own(ground.name("peers"), "internet", address)
            )
            way = Way(
                device=ground.site.hosts[host].interfaces[leg].device,
                source="",
                target=address,
                hop=hop,
                ports=[22, 24, 143, 587, ISSUER_PORT],
            )
            ways += [_as(way, source) for source in sources]
        seen = _spoof(ground, host, victim, ways)
        answered += [f"{victim}: {each}" for each in seen["answered"]]
        arrived += [f"{victim}: {each}" for each in seen["arrived"]]
    posed = ground.name("frontends")
    own = ground.way(posed, "dmz", ground.mac(edge, "dmz"), ground.addresses(store, "store")[0], [143])
    need(_spoof(ground, posed, store, [own])["answered"], "a SYN of the same making in a true name is not answered")
    rest = f"; {len(arrived)} came as far as the host" if arrived else ""
    got = f"answered: {'; '.join(answered[:3])}" if answered else f"no answer{rest or ', none passed the edge'}"
    return Seen(bool(answered), got, "a SYN of the same making in a true name is answered")


@move("frontend-as-inner")
def frontend_as_inner(ground: Ground) -> Seen:
    """From the DMZ."""
    return _spoofed_inner(ground, "frontend", "dmz")


@move("internet-as-inner")
def internet_as_inner(ground: Ground) -> Seen:
    """From the Internet."""
    return _spoofed_inner(ground, "internet", "internet")


@move("frontend-as-controller")
def as_controller(ground: Ground) -> Seen:
    """By the management leg, in the controller's name, to the SSH servers of the others."""
    host = ground.name("frontends")
    answered, arrived, asked = [], [], 0
    for group in ("auths", "stores", "relays"):
        victim = ground.name(group)
        for address in ground.addresses(victim, "management"):
            for source in ground.site.settings.controllers:
                if (":" in str(source)) == (":" in address):
                    way = ground.way(host, "management", ground.mac(victim, "management"), address, [22])
                    seen = _spoof(ground, host, victim, [_as(way, str(source))])
                    answered += seen["answered"]
                    arrived += seen["arrived"]
                    asked += 1
    need(asked, "no controller to pose as")
    got = (
        f"answered: {'; '.join(answered)}"
        if answered
        else f"{asked} hosts: no answer, {'none' if not arrived else str(len(arrived))} arrived"
    )
    return Seen(bool(answered), got, "the controller itself reaches each of them, or nothing of this would have run")


@move("internet-ports")
def internet_ports(ground: Ground) -> Seen:
    """Every public port, and inner addresses by way of the edge."""
    peer, edge = ground.name("peers"), _edge(ground)
    hop = ground.mac(edge, "internet")
    ways = []
    if ground.site.settings.public_ipv4 is not None:
        ways.append(ground.way(peer, "internet", hop, str(ground.site.settings.public_ipv4), []))
    for group in ("frontends", "relays"):
        host = ground.name(group)
        ways += [ground.way(peer, "internet", hop, each, [] if ":" in each else NEAR) for each in ground.addresses(host, "dmz")]
    for group, zone in (*zip(INNER, ("auth", "store"), strict=True), ("auths", "management"), ("stores", "management")):
        ways += [ground.way(peer, "internet", hop, each, NEAR) for each in ground.addresses(ground.name(group), zone)]
    for zone in ground.site.hosts[edge].interfaces:
        known = {way["target"] for way in ways}
        ways += [ground.way(peer, "internet", hop, each, NEAR) for each in ground.addresses(edge, zone) if each not in known]
    found = _scan(ground, peer, ways)
    listed = {key for key in found if (peer, *key) in ground.allowed}
    need({":" in address for address, port in listed if port == 143} == {True, False}, "143 does not answer in both IP versions")
    taken = _unlisted(ground, peer, found)
    got = "; ".join(taken[:4]) or f"{len(ways)} addresses: none answers but {len(listed)} ports that flows open"
    return Seen(bool(taken), got, "143 answers in both IP versions")
