"""The way inward, and out again: ports, shells, neighbours, routes and sources."""

from __future__ import annotations

import secrets
from typing import Any

from lemonstand.probes.attacks.frames import ELSEWHERE, Way
from lemonstand.redteam.attempts import code_of
from lemonstand.redteam.context import ISSUER_PORT, LabUnderAttack, Seen, need

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


def _attacker(lab: LabUnderAttack, position: str) -> str:
    return lab.name({"frontend": "frontends", "relay": "relays", "internet": "peers"}[position])


def _edge(lab: LabUnderAttack) -> str:
    return lab.name("edges")


def _scan(lab: LabUnderAttack, host: str, ways: list[Way]) -> dict[tuple[str, int], str]:
    return {(address, port): what for address, port, what in lab.ask(host, "scan", seconds=SCAN_SECONDS, ways=ways)}


def _unlisted(lab: LabUnderAttack, host: str, found: dict[tuple[str, int], str]) -> list[str]:
    """What answers and no flow opens: neither to this host, nor to everybody outside."""
    peer = lab.name("peers")
    public = {(lab.owner(address), port) for source, address, port in lab.allowed if source == peer}
    found = {(address, port): what for (address, port), what in found.items() if (lab.owner(address), port) not in public}
    return [
        f"{address} port {port} ({what})" for (address, port), what in sorted(found.items()) if (host, address, port) not in lab.allowed
    ]


def _inner_ways(lab: LabUnderAttack, host: str, leg: str, ports: list[int]) -> list[Way]:
    """To each address of the auth hosts and stores in their own zones, by way of the edge."""
    hop = lab.mac(_edge(lab), leg)
    return [
        lab.way(host, leg, hop, address, ports)
        for group, zone in zip(INNER, ("auth", "store"), strict=True)
        for inner in lab.site.group(group)
        for address in lab.addresses(inner.name, zone)
    ]


def _ports_inner(lab: LabUnderAttack, position: str, open_port: int) -> Seen:
    """Every port of every inner host."""
    host = _attacker(lab, position)
    ways = _inner_ways(lab, host, "dmz", [])
    found = _scan(lab, host, ways)
    listed = [key for key in found if (host, *key) in lab.allowed]
    families = {":" in address for address, port in listed if port == open_port}
    need(families == {True, False}, f"port {open_port}, which a flow opens, answers by {len(families)} of two IP versions")
    taken = _unlisted(lab, host, found)
    got = "; ".join(taken[:4]) or f"65535 ports of {len(ways)} addresses: none answers but {len(listed)} that flows open"
    return Seen(bool(taken), got, f"port {open_port} answers in both IP versions")


@code_of("frontend-ports-inner")
def frontend_ports_inner(lab: LabUnderAttack) -> Seen:
    """From the frontend."""
    return _ports_inner(lab, "frontend", ISSUER_PORT)


@code_of("relay-ports-inner")
def relay_ports_inner(lab: LabUnderAttack) -> Seen:
    """From the relay."""
    return _ports_inner(lab, "relay", 24)


def _ports_beside(lab: LabUnderAttack, position: str) -> Seen:
    """The edge on all its legs, and the other hosts of the DMZ."""
    host, edge = _attacker(lab, position), _edge(lab)
    hop = lab.mac(edge, "dmz")
    ways = []
    for zone in lab.site.hosts[edge].interfaces:
        ways += [lab.way(host, "dmz", hop, address, NEAR) for address in lab.addresses(edge, zone)]
    for group in ("frontends", "relays"):
        for other in lab.site.group(group):
            if other.name != host:
                ways += [lab.way(host, "dmz", lab.mac(other.name, "dmz"), address, NEAR) for address in lab.addresses(other.name, "dmz")]
    found = _scan(lab, host, ways)
    control = _scan(lab, host, _inner_ways(lab, host, "dmz", [ISSUER_PORT if position == "frontend" else 24]))
    need(control, "a scan of the same making finds no port that a flow opens")
    taken = _unlisted(lab, host, found)
    got = "; ".join(taken[:4]) or f"{len(NEAR)} ports of {len(ways)} addresses: silence"
    return Seen(bool(taken), got, f"{len(control)} ports that flows open are found in the same way")


@code_of("frontend-ports-beside")
def frontend_ports_beside(lab: LabUnderAttack) -> Seen:
    """From the frontend."""
    return _ports_beside(lab, "frontend")


@code_of("relay-ports-beside")
def relay_ports_beside(lab: LabUnderAttack) -> Seen:
    """From the relay."""
    return _ports_beside(lab, "relay")


def _management(lab: LabUnderAttack, position: str) -> Seen:
    """By the management leg: the other hosts there, their other addresses, and the way on through them."""
    host = _attacker(lab, position)
    ways = []
    for other in lab.site.hosts.values():
        if other.name == host or "management" not in other.interfaces:
            continue
        hop = lab.mac(other.name, "management")
        for zone in other.interfaces:
            for address in lab.addresses(other.name, zone):
                ways.append(lab.way(host, "management", hop, address, MANAGED))
        # The other host as a router: to the credential host and the mailboxes by its management leg.
        for group, zone in zip(INNER, ("auth", "store"), strict=True):
            inner = lab.name(group)
            if inner != other.name:
                ways += [lab.way(host, "management", hop, address, MANAGED) for address in lab.addresses(inner, zone)]
    found = _scan(lab, host, ways)
    back = lab.ask(host, "listeners")
    need(any(each.split()[0].endswith(":22") for each in back), "no SSH server runs on such hosts, so its silence says nothing")
    taken = _unlisted(lab, host, found)
    got = "; ".join(taken[:4]) or f"{len(MANAGED)} ports by {len(ways)} ways: silence"
    return Seen(bool(taken), got, "SSH servers listen; the controller reaches each of them")


@code_of("frontend-management")
def frontend_management(lab: LabUnderAttack) -> Seen:
    """From the frontend."""
    return _management(lab, "frontend")


@code_of("relay-management")
def relay_management(lab: LabUnderAttack) -> Seen:
    """From the relay."""
    return _management(lab, "relay")


def _unprivileged(lab: LabUnderAttack, position: str) -> Seen:
    """What the host's own filter lets a process without rights send."""
    host = _attacker(lab, position)
    targets: set[tuple[str, int]] = set()
    for other in lab.site.hosts.values():
        if other.name != host:
            targets |= {(address, port) for zone in other.interfaces for address in lab.addresses(other.name, zone) for port in DIALLED}
    allowed = {f"{address} {port}" for address, port in targets if (host, address, port) in lab.allowed}
    by_nature = {f"{address} {port}" for address, port in targets if port == 25 and position == "relay"}
    seen = lab.ask(host, "leaving", user=UNPRIVILEGED[position], targets=sorted(targets), seconds_each=KNOCK_SECONDS)
    need(allowed & set(seen["reached"]), "no port that a flow opens is reached")
    need(allowed & set(seen["left"]), "what leaves the host was not seen")
    taken = sorted(set(seen["left"]) - allowed - by_nature)
    got = (
        f"{len(taken)} of {len(targets)} leave the host: {'; '.join(taken[:3])}"
        if taken
        else f"{len(targets) - len(allowed)} targets, not a frame"
    )
    return Seen(bool(taken), got, f"{len(allowed & set(seen['reached']))} targets of flows are reached")


@code_of("frontend-output")
def frontend_output(lab: LabUnderAttack) -> Seen:
    """From the frontend."""
    return _unprivileged(lab, "frontend")


@code_of("relay-output")
def relay_output(lab: LabUnderAttack) -> Seen:
    """From the relay."""
    return _unprivileged(lab, "relay")


def _exits(lab: LabUnderAttack, position: str, kinds: tuple[str, ...]) -> Seen:
    """DNS and ICMP as ways out, below the host's own filter."""
    host, edge, peer = _attacker(lab, position), _edge(lab), lab.name("peers")
    tried = []
    for address in lab.addresses(peer, "internet"):
        own = lab.own(host, "dmz", address)
        tried += [
            {"name": f"{kind} {address}", "kind": kind, "source": own, "target": address, "port": 53 if kind == "dns" else 123}
            for kind in kinds
        ]
    near = lab.addresses(edge, "dmz")[0]
    control = {"name": "control", "kind": "echo", "source": lab.own(host, "dmz", near), "target": near, "port": 0}
    device = lab.site.hosts[host].interfaces["dmz"].device
    seen = lab.ask(host, "exits", device=device, hop=lab.mac(edge, "dmz"), tried=[*tried, control])
    need(seen.pop("control"), "the edge itself does not answer an echo either")
    taken = [name for name, answered in seen.items() if answered]
    return Seen(
        bool(taken),
        f"answers from outside: {', '.join(taken)}" if taken else f"no answer from outside to {len(tried)} tries",
        "the edge answers an echo",
    )


@code_of("frontend-dns-exit")
def frontend_dns(lab: LabUnderAttack) -> Seen:
    """Names and time."""
    return _exits(lab, "frontend", ("dns", "ntp"))


@code_of("frontend-icmp-exit")
def frontend_icmp(lab: LabUnderAttack) -> Seen:
    """Echo."""
    return _exits(lab, "frontend", ("echo",))


@code_of("relay-icmp-exit")
def relay_icmp(lab: LabUnderAttack) -> Seen:
    """Echo and time; names are the relay's to ask."""
    return _exits(lab, "relay", ("echo", "ntp"))


def _shared(lab: LabUnderAttack, zone: str) -> set[str]:
    """The addresses that the edges of a pair hold in turn."""
    found = lab.site.settings.edge_addresses.get(zone)
    return {str(address) for address in (found.ipv4, found.ipv6) if address} if found else set()


def _services(lab: LabUnderAttack) -> set[str]:
    """The addresses of what others run for the site."""
    services = (getattr(lab.site.settings.services, name) for name in type(lab.site.settings.services).model_fields)
    return {str(address) for service in services if service is not None for address in service.addresses}


@code_of("frontend-gateways")
def gateways(lab: LabUnderAttack) -> Seen:
    """Strangers on the wires, and the machine that carries the lab."""
    host = lab.name("frontends")
    strangers, met = [], 0
    for zone in lab.site.hosts[host].interfaces:
        network = lab.site.settings.zones[zone].ipv4
        known = {address for other in lab.site.hosts.values() if zone in other.interfaces for address in lab.addresses(other.name, zone)}
        known |= {str(address) for address in lab.site.settings.controllers} | _shared(lab, zone) | _services(lab)
        device = lab.site.hosts[host].interfaces[zone].device
        seen = lab.ask(host, "neighbours", device=device, network=str(network))
        met += len(set(seen) & known)
        strangers += [f"{address} at {mac}" for address, mac in seen.items() if address not in known]
    need(met >= 2, f"only {met} known neighbours answer")
    hop = lab.mac(_edge(lab), "dmz")
    ways = [lab.way(host, "dmz", hop, address, [22, 53, 80, 111, 443, 2049, 8080]) for address in (*lab.machine, "169.254.169.254")]
    reached = [f"{address} port {port}" for address, port in _scan(lab, host, ways)]
    got = "; ".join([*strangers, *reached][:4]) or f"no stranger on the wires, {len(ways)} addresses of the machine are silent"
    return Seen(bool(strangers or reached), got, f"{met} known neighbours answer")


def _believes(lab: LabUnderAttack, victim: str, zone: str, address: str, *, settle: bool = True) -> str:
    device = lab.site.hosts[victim].interfaces[zone].device
    if settle:
        lab.ask(victim, "touch-neighbour", address=address)
    return str(lab.ask(victim, "neighbour", address=address, device=device)["mac"])


def _claims(lab: LabUnderAttack, zone: str, pairs: list[tuple[str, str]]) -> Seen:
    """Tells neighbours that others' addresses are here. `pairs`: who is told, and whose address it is."""
    host = lab.name("frontends")
    mine = lab.mac(host, zone)
    device = lab.leg(host, zone).device
    believed, control = [], 0
    for victim, owner in pairs:
        for index in range(2):
            addresses = lab.addresses(owner, zone) if owner in lab.site.hosts else [str(lab.site.settings.controllers[0])]
            if index >= len(addresses):
                continue
            address = addresses[index]
            true = _believes(lab, victim, zone, address)
            if not true:
                continue
            control += 1
            target = lab.own(victim, zone, address)
            try:
                lab.ask(host, "claim", device=device, victim=target, victim_mac=lab.mac(victim, zone), address=address, mac="")
                if _believes(lab, victim, zone, address, settle=False) == mine:
                    believed.append(f"{victim} takes {host} for {owner} ({address})")
            finally:
                lab.ask(victim, "forget-neighbour", address=address, device=lab.site.hosts[victim].interfaces[zone].device)
    need(control, "no victim knew its neighbours")
    return Seen(
        bool(believed),
        "; ".join(believed) or f"{control} claims, none believed",
        f"{control} neighbours were known by their own addresses before",
    )


@code_of("frontend-neighbours-dmz")
def neighbours_dmz(lab: LabUnderAttack) -> Seen:
    """ARP and neighbour discovery in the DMZ."""
    edge, relay = _edge(lab), lab.name("relays")
    return _claims(lab, "dmz", [(relay, edge), (edge, relay)])


@code_of("frontend-neighbours-management")
def neighbours_management(lab: LabUnderAttack) -> Seen:
    """The same by the management leg, in the controller's name."""
    return _claims(lab, "management", [(lab.name(group), "controller") for group in ("auths", "stores", "relays")])


@code_of("frontend-redirects")
def redirects(lab: LabUnderAttack) -> Seen:
    """Redirects to the relay in its router's name, by IPv4 about a flow that lives."""
    host, relay, edge = lab.name("frontends"), lab.name("relays"), _edge(lab)
    mine, wire = lab.site.hosts[host].interfaces["dmz"].device, lab.site.hosts[relay].interfaces["dmz"].device
    target = next(each for each in lab.addresses(lab.name("peers"), "internet") if ":" not in each)
    edges = lab.legs(edge)[lab.site.hosts[edge].interfaces["dmz"].device]["addresses"]
    routers = {target: lab.own(edge, "dmz", target), ELSEWHERE: next(each for each in edges if each.startswith("fe80:"))}
    order = {"target": target, "port": 53, "router": routers[ELSEWHERE], "device": wire, "within": WATCH_SECONDS}
    with lab.prober.start(relay, "live-flow", **order) as flow:
        ports = (int(flow.wait("open").values["port"]), 53)
        for each, router in routers.items():
            victim, mac = lab.own(relay, "dmz", each), lab.mac(relay, "dmz")
            lab.ask(host, "redirect", device=mine, router=router, victim=victim, victim_mac=mac, target=each, ports=ports)
        flow.enough()
        seen = flow.result()
    need(seen["answered"], "the relay's own question to a name server is not answered: its flow does not live")
    need(seen["before"] == routers, f"the relay's ways do not lead by the edge: {seen['before']}")
    after = {each: seen["after"][each] for each in routers}
    moved = [f"{each} by {after[each]} in place of {router}" for each, router in routers.items() if after[each] != router]
    got = "; ".join(moved) or f"{len(routers)} ways lead where they did"
    return Seen(bool(moved), got, "its question was answered, by way of the edge")


@code_of("frontend-router-advertisements")
def router_advertisements(lab: LabUnderAttack) -> Seen:
    """Router advertisements to the other hosts of the DMZ."""
    host, relay, edge = lab.name("frontends"), lab.name("relays"), _edge(lab)
    legs = {name: lab.site.hosts[name].interfaces["dmz"].device for name in (host, relay, edge)}

    def routes(name: str) -> set[str]:
        near = lab.addresses(edge if name != edge else relay, "dmz")[0]
        return set(str(lab.ask(name, "neighbour", address=near, device=legs[name])["routes"]).splitlines())

    before = {name: routes(name) for name in (relay, edge)}
    need(any(line.startswith("default") for line in before[relay]), "the relay has no route that could be replaced")
    source = lab.ask(host, "advertise-router", device=legs[host])
    fresh = {name: sorted(routes(name) - before[name]) for name in before}
    taken = [f"{name}: {line.strip()}" for name, lines in fresh.items() for line in lines if source in line or " ra " in line]
    return Seen(bool(taken), "; ".join(taken) or "no route came of it", "the relay has a default route by the edge")


@code_of("frontend-source-routes")
def source_routes(lab: LabUnderAttack) -> Seen:
    """Source-routed echoes to the other hosts of the DMZ."""
    host = lab.name("frontends")
    ways = [
        lab.way(host, "dmz", lab.mac(name, "dmz"), address, [])
        for name in (lab.name("relays"), _edge(lab))
        for address in lab.addresses(name, "dmz")
        if ":" not in address
    ]
    seen = lab.ask(host, "source-routed", ways=ways)
    need(seen and all(answered["plain"] for answered in seen.values()), "an echo without a source route is not answered either")
    taken = [f"{lab.owner(target)} answers a {kind} one" for target, said in seen.items() for kind in ("loose", "strict") if said[kind]]
    return Seen(bool(taken), "; ".join(taken) or f"no answer of {len(seen)} hosts", "echoes without one are answered")


def _spoof(lab: LabUnderAttack, host: str, watcher: str, ways: list[Way]) -> dict[str, Any]:
    enough = sum(len(way["ports"]) for way in ways)
    sequence = secrets.randbits(32)
    devices = [leg.device for leg in lab.site.hosts[watcher].interfaces.values()]
    with lab.prober.start(watcher, "watch-wires", devices=devices, sequence=sequence, within=WATCH_SECONDS, enough=enough) as watching:
        watching.wait("watching")
        lab.ask(host, "spoofed", ways=ways, sequence=sequence)
        return dict(watching.result())


def _as(way: Way, source: str) -> Way:
    return Way(device=way["device"], source=source, target=way["target"], hop=way["hop"], ports=way["ports"])


def _spoofed_neighbour(lab: LabUnderAttack, position: str, group: str, victims: tuple[tuple[str, str, list[int]], ...]) -> Seen:
    """In the name of another host of the DMZ, to what that host may reach."""
    host, posed, edge = _attacker(lab, position), lab.name(group), _edge(lab)
    answered, control = [], []
    for victim_group, zone, ports in victims:
        victim = lab.name(victim_group)
        ways = [
            _as(lab.way(host, "dmz", lab.mac(edge, "dmz"), address, ports), lab.own(posed, "dmz", address))
            for address in lab.addresses(victim, zone)
        ]
        answered += _spoof(lab, host, victim, ways)["answered"]
        own = lab.way(posed, "dmz", lab.mac(edge, "dmz"), lab.addresses(victim, zone)[0], ports)
        control += _spoof(lab, posed, victim, [own])["answered"]
    need(control, f"not even {posed} itself is answered")
    return Seen(
        bool(answered),
        f"answered, to the true owner: {'; '.join(answered[:3])}" if answered else "no answer",
        f"{posed} itself is answered",
    )


@code_of("frontend-as-relay")
def frontend_as_relay(lab: LabUnderAttack) -> Seen:
    """As the relay, to the store's LMTP."""
    return _spoofed_neighbour(lab, "frontend", "relays", (("stores", "store", [24]),))


@code_of("relay-as-frontend")
def relay_as_frontend(lab: LabUnderAttack) -> Seen:
    """As the frontend, to issuer and store."""
    return _spoofed_neighbour(lab, "relay", "frontends", (("auths", "auth", [ISSUER_PORT]), ("stores", "store", [143, 587])))


def _spoofed_inner(lab: LabUnderAttack, position: str, leg: str) -> Seen:
    """In the name of inner hosts, of the controller and of the edge, through the edge."""
    host, edge = _attacker(lab, position), _edge(lab)
    auth, store = lab.name("auths"), lab.name("stores")
    hop = lab.mac(edge, leg)
    answered, arrived = [], []
    for victim, zone in ((auth, "auth"), (store, "store")):
        other = (store, "store") if victim == auth else (auth, "auth")
        ways = []
        for address in lab.addresses(victim, zone):
            loopback = "::1" if ":" in address else "127.0.0.1"
            sources = [lab.own(*other, address), lab.own(edge, zone, address), lab.own(victim, zone, address), loopback]
            sources += [str(each) for each in lab.site.settings.controllers if (":" in str(each)) == (":" in address)]
            sources.append(
                lab.own(lab.name("frontends"), "dmz", address)
                if position == "internet"
                else lab.own(lab.name("peers"), "internet", address)
            )
            way = Way(
                device=lab.site.hosts[host].interfaces[leg].device,
                source="",
                target=address,
                hop=hop,
                ports=[22, 24, 143, 587, ISSUER_PORT],
            )
            ways += [_as(way, source) for source in sources]
        seen = _spoof(lab, host, victim, ways)
        answered += [f"{victim}: {each}" for each in seen["answered"]]
        arrived += [f"{victim}: {each}" for each in seen["arrived"]]
    posed = lab.name("frontends")
    own = lab.way(posed, "dmz", lab.mac(edge, "dmz"), lab.addresses(store, "store")[0], [143])
    need(_spoof(lab, posed, store, [own])["answered"], "a SYN of the same making in a true name is not answered")
    rest = f"; {len(arrived)} came as far as the host" if arrived else ""
    got = f"answered: {'; '.join(answered[:3])}" if answered else f"no answer{rest or ', none passed the edge'}"
    return Seen(bool(answered), got, "a SYN of the same making in a true name is answered")


@code_of("frontend-as-inner")
def frontend_as_inner(lab: LabUnderAttack) -> Seen:
    """From the DMZ."""
    return _spoofed_inner(lab, "frontend", "dmz")


@code_of("internet-as-inner")
def internet_as_inner(lab: LabUnderAttack) -> Seen:
    """From the Internet."""
    return _spoofed_inner(lab, "internet", "internet")


@code_of("frontend-as-controller")
def as_controller(lab: LabUnderAttack) -> Seen:
    """By the management leg, in the controller's name, to the SSH servers of the others."""
    host = lab.name("frontends")
    answered, arrived, asked = [], [], 0
    for group in ("auths", "stores", "relays"):
        victim = lab.name(group)
        for address in lab.addresses(victim, "management"):
            for source in lab.site.settings.controllers:
                if (":" in str(source)) == (":" in address):
                    way = lab.way(host, "management", lab.mac(victim, "management"), address, [22])
                    seen = _spoof(lab, host, victim, [_as(way, str(source))])
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


@code_of("internet-ports")
def internet_ports(lab: LabUnderAttack) -> Seen:
    """Every public port, and inner addresses by way of the edge."""
    peer, edge = lab.name("peers"), _edge(lab)
    hop = lab.mac(edge, "internet")
    ways = []
    if lab.site.settings.public_ipv4 is not None:
        ways.append(lab.way(peer, "internet", hop, str(lab.site.settings.public_ipv4), []))
    for group in ("frontends", "relays"):
        host = lab.name(group)
        ways += [lab.way(peer, "internet", hop, each, [] if ":" in each else NEAR) for each in lab.addresses(host, "dmz")]
    for group, zone in (*zip(INNER, ("auth", "store"), strict=True), ("auths", "management"), ("stores", "management")):
        if zone in lab.site.hosts[lab.name(group)].interfaces:
            ways += [lab.way(peer, "internet", hop, each, NEAR) for each in lab.addresses(lab.name(group), zone)]
    for zone in lab.site.hosts[edge].interfaces:
        known = {way["target"] for way in ways}
        ways += [lab.way(peer, "internet", hop, each, NEAR) for each in lab.addresses(edge, zone) if each not in known]
    found = _scan(lab, peer, ways)
    listed = {key for key in found if (peer, *key) in lab.allowed}
    need({":" in address for address, port in listed if port == 143} == {True, False}, "143 does not answer in both IP versions")
    taken = _unlisted(lab, peer, found)
    got = "; ".join(taken[:4]) or f"{len(ways)} addresses: none answers but {len(listed)} ports that flows open"
    return Seen(bool(taken), got, "143 answers in both IP versions")
