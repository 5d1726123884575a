"""Zones and ports: what the running rules allow, cell by cell, against what the flows say; and what listens."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from ipaddress import ip_address
from typing import Any

import pytest

from lemonstand.checks.conftest import FactsOf, Measure
from lemonstand.derived import CONTROLLER, Cell, expected_matrix
from lemonstand.outcomes import expect, invalid, not_measurable
from lemonstand.policy.controls import load_controls
from lemonstand.policy.kinds import MANAGEMENT
from lemonstand.remote.facts import Facts, Socket
from lemonstand.remote.netfilter import Packet, Verdict
from lemonstand.site import Host, Site

pytestmark = pytest.mark.answer("configuration")

FAR = {4: "198.18.77.7", 6: "2001:2:0:77::7"}
"""An address of nobody (RFC 2544, RFC 5180) that stands for any client on the Internet."""
CLIENT = "any client"
"""A source that is no host of the inventory: somebody on the Internet."""
MAIL_PORTS = (143, 587)
HTTP_PORTS = (80, 443, 8080)
EPHEMERAL = 32768
"""Ports from here on the kernel gives to who asks for none (net.ipv4.ip_local_port_range)."""
CONFIGURATION_PROTOCOLS = {674: "ACAP", 4190: "ManageSieve"}
# Asked for again and again, of the few addresses a site has.
_address = cache(ip_address)
TUNNELS = ("websock", "stunnel", "sslh", "haproxy", "nginx", "apache2", "socat")


@pytest.fixture(scope="module")
def matrix(site: Site) -> dict[Cell, str | None]:
    """Every question of reachability with the flow that allows it."""
    return expected_matrix(site)


def _outer(host: Host) -> bool:
    return not host.role_groups


def _zone_of(site: Site, host: Host, address: str) -> str | None:
    """The zone of an address, if it is one of the host's."""
    wanted = _address(address)
    return next((zone for zone, leg in host.interfaces.items() if wanted in leg.addresses), None)


def _owner(site: Site, address: str) -> Host | None:
    return next((host for host in site.hosts.values() if _zone_of(site, host, address)), None)


class Path:
    """One connection attempt through the rules of all hosts on its way: the source's output, an edge, the target's input.

    Args:
        alone: the one host whose rules count: the others let everything through, as if somebody had broken into them. Empty: all count.
        edge: the edge on the way, of several; empty: the first.
    """

    def __init__(self, site: Site, facts_of: FactsOf, alone: str = "", edge: str = "") -> None:
        self._alone = alone
        self._site = site
        self._facts_of = facts_of
        self._edge = site.hosts[edge] if edge else next(iter(site.group("edges")), None)

    def first_drop(self, cell: Cell) -> tuple[str | None, list[Verdict]]:  # noqa: PLR0911 - one for each place a packet may end
        """Where the first packet ends (`edge forward: rule`), or None if it arrives; and the verdicts on the way."""
        site, version = self._site, cell.address.version
        source = site.hosts.get(cell.source)
        target = site.hosts[cell.destination]
        zone = _zone_of(site, target, str(cell.address))
        source_address, leaving = self._leaving(cell, source, zone, version)
        packet = Packet(source_address, str(cell.address), cell.protocol, cell.port, device_out=leaving)
        seen: list[Verdict] = []
        if source is not None and source.role_groups:
            stop = self._ask(source.name, "output", packet, seen)
            if stop:
                return stop, seen
        direct = zone is not None and (self._beside(source, zone, cell) if source else cell.source == CONTROLLER and zone == "management")
        arriving = zone
        if not direct and self._edge is not None:
            stop, packet, through = self._cross(self._edge, packet, cell, source, seen)
            if stop:
                return stop, seen
            if through is None:
                return self._not_at(cell, packet), seen
            target, arriving = through
        meant = site.hosts[cell.destination]
        if zone is None and set(target.role_groups) & set(meant.role_groups):
            target = meant  # the published address stands for all of a kind: the edge leads each client to one of them
        if target.name != cell.destination:
            return f"it arrives at {target.name}", seen
        if not target.role_groups or arriving is None:
            return None, seen
        packet = replace(packet, device_in=target.interfaces[arriving].device, device_out="")
        for hook in ("prerouting", "input"):
            stop = self._ask(target.name, hook, packet, seen)
            if stop:
                return stop, seen
        return None, seen

    def _beside(self, source: Host, zone: str, cell: Cell) -> bool:
        """Whether a host has a leg in the network of an address, so that nobody is between."""
        networks = self._site.settings.zones.get(zone)
        leg = source.interfaces.get(zone)
        if leg is None or networks is None or _outer(source):
            return leg is not None
        return networks.network_of(cell.address) in {networks.network_of(address) for address in leg.addresses}

    def _not_at(self, cell: Cell, packet: Packet) -> str | None:
        """What ended on the edge, or left the site, is an arrival only if the question was about that."""
        owner = _owner(self._site, packet.destination)
        name = owner.name if owner is not None else "nobody"
        return None if name == cell.destination else f"it arrives at {name}"

    def _leaving(self, cell: Cell, source: Host | None, zone: str | None, version: int) -> tuple[str, str]:
        """(source address, device it leaves by)."""
        if cell.source == CONTROLLER:
            return next((str(each) for each in self._site.settings.controllers if each.version == version), FAR[version]), ""
        if source is None:
            return FAR[version], ""
        legs = {name: leg for name, leg in source.interfaces.items() if name != "management"} or source.interfaces
        leg = source.interfaces.get(zone or "") or next(iter(legs.values()), None)
        if leg is None:
            return FAR[version], ""
        address = leg.ipv4 if version == 4 else leg.ipv6
        return (str(address) if address else FAR[version]), leg.device

    def _cross(
        self, edge: Host, packet: Packet, cell: Cell, source: Host | None, seen: list[Verdict]
    ) -> tuple[str | None, Packet, tuple[Host, str] | None]:
        rules = self._facts(edge.name).rules
        entering = "internet"
        if cell.source == CONTROLLER:
            entering = "management"
        elif source is not None and source.role_groups:
            entering = next((zone for zone in source.interfaces if zone in edge.interfaces and zone != "management"), "internet")
        if entering not in edge.interfaces:
            invalid(f"{edge.name} has no leg in zone {entering}")
        packet = replace(packet, device_in=edge.interfaces[entering].device, device_out="")
        stop = self._ask(edge.name, "prerouting", packet, seen)
        if stop:
            return stop, packet, None
        packet, _ = rules.translated(packet)
        owner = _owner(self._site, packet.destination)
        if owner is not None and owner.name == edge.name:
            return self._ask(edge.name, "input", packet, seen), packet, None
        leaving = next(
            (
                name
                for name, zone in self._site.settings.zones.items()
                if zone.network_of(_address(packet.destination)) is not None and name in edge.interfaces
            ),
            "internet",
        )
        packet = replace(packet, device_out=edge.interfaces[leaving].device)
        stop = self._ask(edge.name, "forward", packet, seen)
        return stop, packet, (owner, leaving) if owner is not None else None

    def _facts(self, name: str) -> Facts:
        return self._facts_of(name)

    def _ask(self, host: str, hook: str, packet: Packet, seen: list[Verdict]) -> str | None:
        verdict = self._facts(host).rules.verdict(hook, packet)
        seen.append(verdict)
        return None if verdict.accepted or self._alone not in {"", host} else f"{host} {hook}: {verdict.rule}"


def _asked(site: Site, cell: Cell) -> bool:
    """Whether rules alone can answer a cell.

    Left out: the controller at other addresses than those it manages hosts by (the same hosts, and no route); IPv4 from outside to an
    inner address of a published host, which has no route and which a filter can't tell from its translated twin; what is published by
    somebody else's border; and what ends outside the site.
    """
    source = site.hosts.get(cell.source)
    if cell.source == CONTROLLER:
        known = any(address.version == cell.address.version for address in site.settings.controllers)
        ours = bool(site.hosts[cell.destination].role_groups)
        target = site.hosts[cell.destination]
        return known and ours and _zone_of(site, target, str(cell.address)) == target.way_in
    outside = source is not None and _outer(source)
    if _outer(site.hosts[cell.destination]) and outside:
        return False
    if outside and cell.address == site.settings.public_ipv4 and not site.group("edges"):
        return False  # whose rules lead on from there nobody can read
    inner = _zone_of(site, site.hosts[cell.destination], str(cell.address)) not in {None, "internet"}
    translated = cell.address.version == 4 and not site.settings.routed_ipv4
    return not (outside and translated and inner and cell.address != site.settings.public_ipv4)


def _differences(site: Site, facts_of: FactsOf, cells: dict[Cell, str | None]) -> tuple[list[str], int]:
    """What is wrong on the way by each of the edges, and how many questions were asked."""
    ways = [edge.name for edge in site.group("edges")] or [""]
    wrong = []
    asked = {cell: flow for cell, flow in cells.items() if _asked(site, cell)}
    for edge in ways:
        path = Path(site, facts_of, edge=edge)
        by = f" by {edge}" if len(ways) > 1 else ""
        itself = _met_anywhere(site, asked, edge) if edge else {}
        for cell, meant in asked.items():
            flow = meant or itself.get(cell)
            stop, _ = path.first_drop(cell)
            question = f"{cell.source} to {cell.destination} {cell.address} {cell.protocol} {cell.port}{by}"
            if flow is None and stop is None:
                wrong.append(f"{question}: open, no flow allows it")
            elif flow is not None and stop is not None:
                wrong.append(f"{question}: dropped at {stop}, flow {flow} allows it")
    return wrong, len(ways) * len(asked)


def _met_anywhere(site: Site, cells: dict[Cell, str | None], edge: str) -> dict[Cell, str]:
    """The further addresses at which an edge that is on the way is met by those whom flows let in (weak host model, RFC 1122 3.3.4.2).

    The other edge is none of that: whether it is met there the matrix says. Nor are addresses in management: no host's own rules know them.
    """

    def question(cell: Cell) -> tuple[str, str, int]:
        return cell.source, cell.protocol, cell.port

    to_edge = {cell: flow for cell, flow in cells.items() if cell.destination == edge and cell.source in site.hosts}
    let_in = {question(cell): flow for cell, flow in to_edge.items() if flow is not None}
    return {
        cell: let_in[question(cell)]
        for cell in to_edge
        if question(cell) in let_in
        and _zone_of(site, site.hosts[edge], str(cell.address)) not in {MANAGEMENT, *site.hosts[cell.source].interfaces}
    }


def _edge_is_ours(site: Site) -> None:
    """Ends a check whose hosts are in order if the border firewall, which counts as well, can't be read."""
    if not site.group("edges"):
        not_measurable("the border firewall is no host of the inventory, so its rules can't be read")


@pytest.mark.control("LEM-8-06")
@pytest.mark.supports("LEM-8-09", "LEM-8-07")
def test_rules_equal_the_flows(site: Site, facts_of: FactsOf, matrix: dict[Cell, str | None], measure: Measure) -> None:
    """Every question of the reachability matrix, walked through the running rules of all hosts on the way."""
    wrong, count = _differences(site, facts_of, matrix)
    measure("questions walked through the rules", count)
    expect(
        count > 0 and not wrong, f"{len(wrong)} of {count} answers differ from the flows", seen=wrong[:20], expected="what flows.yml says"
    )
    _edge_is_ours(site)


@pytest.mark.control("LEM-8-06")
@pytest.mark.supports("LEM-8-07", "LEM-8-09", "LEM-6.1-02")
@pytest.mark.parametrize("group", ["edges", "frontends", "auths", "stores", "relays"])
def test_each_filter_holds_alone(site: Site, facts_of: FactsOf, matrix: dict[Cell, str | None], group: str, measure: Measure) -> None:
    """The edge keeps zones apart whatever hosts' own rules say; each host is closed whatever the edge and the others' rules say."""
    # What the Internet may reach, a neighbour's address is part of: a host's own filter can't tell the two apart, and need not.
    public = {port for flow in site.active_flows if flow.source == "internet" and flow.destination == group for port in flow.ports}
    if not site.group(group):
        _edge_is_ours(site)
    wrong, count = [], 0
    for filtering in site.group(group):
        path = Path(site, facts_of, filtering.name, filtering.name if group == "edges" else "")
        itself = _met_anywhere(site, matrix, filtering.name) if group == "edges" else {}
        for cell, meant in matrix.items():
            flow = meant or itself.get(cell)
            source = site.hosts.get(cell.source)
            zone = _zone_of(site, site.hosts[cell.destination], str(cell.address))
            between = zone is not None and not (source is not None and zone in source.interfaces) and zone != "management"
            concerned = between if group == "edges" else cell.destination == filtering.name
            own_public = group != "edges" and cell.port in public and zone != "management"
            if flow is not None or not concerned or own_public or not _asked(site, cell):
                continue
            count += 1
            if path.first_drop(cell)[0] is None:
                wrong.append(
                    f"{filtering.name} alone lets {cell.source} reach {cell.destination} {cell.address} {cell.protocol} {cell.port}"
                )
    measure("questions", count)
    expect(count > 0 and not wrong, "a filter relies on others", seen=wrong[:20], expected="each drops what no flow allows")


@pytest.mark.control("LEM-8-09")
def test_a_host_opens_nothing_but_its_flows(site: Site, facts_of: FactsOf, node: str, measure: Measure) -> None:
    """As root on a host, a thief gets nowhere but where flows lead: shells, mail, web and file shares inside and outside are shut."""
    facts = facts_of(node)
    ports = (22, 25, 53, 80, 389, 443, 445, 2049, 3306, 3389, 5432, 8080)
    allowed = {
        port
        for flow in site.active_flows
        for port in flow.ports
        if flow.protocol == "tcp" and (flow.source in site.hosts[node].groups or flow.source in site.hosts[node].interfaces)
    }
    open_ways = []
    targets = [(FAR[4], ""), (FAR[6], "")] + [
        (str(address), zone)
        for host in site.hosts.values()
        for zone, leg in host.interfaces.items()
        for address in leg.addresses
        if host.name != node
    ]
    for address, zone in targets:
        version = ip_address(address).version
        own = site.hosts[node].interfaces
        leg = own.get(zone) or next(leg for name, leg in own.items() if name != "management" or len(own) == 1)
        source = leg.ipv4 if version == 4 else leg.ipv6
        for port in ports:
            packet = Packet(str(source or FAR[version]), address, port=port, device_out=leg.device)
            if port not in allowed and facts.rules.verdict("output", packet).accepted:
                open_ways.append(f"{address} {port}")
    measure("ways tried in the rules", len(targets) * len(ports))
    expect(not open_ways, f"{node} may open connections no flow asks for", seen=open_ways[:20], expected="all dropped")
    if "edges" not in site.hosts[node].groups:
        policies = {
            chain["name"]: chain.get("policy") for chain in facts.rules.chains.values() if chain.get("hook") in {"input", "forward"}
        }
        expect(
            {"input", "forward"} <= set(policies) and all(policies[name] == "drop" for name in ("input", "forward")),
            "a chain lets pass what no rule names", seen=policies, expected="policy drop on input and forward",
        )  # fmt: skip


@pytest.mark.control("LEM-8-07")
def test_credentials_are_out_of_reach(site: Site, facts_of: FactsOf, auth: str, measure: Measure) -> None:
    """No translation leads to the credential host, and nobody but a frontend gets through its rules, on any port that listens."""
    facts = facts_of(auth)
    own = {str(address) for leg in site.hosts[auth].interfaces.values() for address in leg.addresses}
    doors = [
        f"{edge.name}: {rule.get('comment', rule['handle'])}"
        for edge in site.group("edges")
        for rule in facts_of(edge.name).rules.every_rule()
        if any(address in str(expression["dnat"]) for expression in rule["expr"] if "dnat" in expression for address in own)
    ]
    expect(not doors, "the edge translates to the credential host", seen=doors, expected="no rule does")
    ports = sorted({socket.port for socket in facts.sockets if socket.protocol == "tcp" and not socket.is_local})
    measure("ports that listen", " ".join(map(str, ports)))
    zone = next(zone for zone in site.hosts[auth].interfaces if zone != "management")
    leg = site.hosts[auth].interfaces[zone]
    expect(bool(ports), "nothing listens on the credential host", seen=ports, expected="the issuer's port")
    reached = [
        f"{source} {port}"
        for port in ports
        for source, target in ((FAR[4], leg.ipv4), (FAR[6], leg.ipv6))
        if target is not None and facts.rules.verdict("input", Packet(source, str(target), port=port, device_in=leg.device)).accepted
    ]
    expect(not reached, "a client of the Internet gets through the credential host's rules", seen=reached, expected="all dropped")


@pytest.mark.control("LEM-8-04")
def test_a_frontend_can_not_send_spam_or_read_mail(site: Site, facts_of: FactsOf, frontend: str, measure: Measure) -> None:
    """From the frontend no way leads to port 25 anywhere, nor to any port of a store but the two it proxies to."""
    facts = facts_of(frontend)
    zone = next(zone for zone in site.hosts[frontend].interfaces if zone != "management")
    leg = site.hosts[frontend].interfaces[zone]
    proxied = {port for flow in site.active_flows if flow.source == "frontends" and flow.destination == "stores" for port in flow.ports}
    tries = {
        **{f"{address} 25": (address, 25) for address in (*FAR.values(), *_addresses(site, "relays"), *_addresses(site, "stores"))},
        **{
            f"{address} {port}": (address, port)
            for address in _addresses(site, "stores")
            for port in (22, 24, 111, 445, 993, 2049, 4190, 24245)
        },
    }
    # Where the host has no address of an IP version, a thief would have to make one up.
    source = {4: str(leg.ipv4 or "192.0.2.1"), 6: str(leg.ipv6 or "2001:db8::1")}
    open_ways = [
        name
        for name, (address, port) in tries.items()
        if port not in proxied
        and facts.rules.verdict("output", Packet(source[ip_address(address).version], address, port=port, device_out=leg.device)).accepted
    ]
    measure("ways tried in the rules", len(tries))
    expect(not open_ways, f"{frontend} may open what a thief would want", seen=open_ways, expected="all dropped")


def _addresses(site: Site, group: str) -> list[str]:
    return [str(a) for host in site.group(group) for zone, leg in host.interfaces.items() if zone != "management" for a in leg.addresses]


@pytest.mark.control("LEM-3-04", "LEM-6-02", "LEM-6-05")
def test_clients_pass_every_hop(site: Site, facts_of: FactsOf, frontend: str, measure: Measure) -> None:
    """A client's packet to 143 and 587 passes the edge and the frontend in both families, with no rate or count in its way."""
    path = Path(site, facts_of)
    leg = next(leg for zone, leg in site.hosts[frontend].interfaces.items() if zone != "management")
    there = site.met_at(site.hosts[frontend], 4) if site.group("edges") else leg.ipv4
    addresses = [address for address in (there, leg.ipv6) if address is not None]
    stopped, limited = [], []
    for address in addresses:
        for port in MAIL_PORTS:
            stop, verdicts = path.first_drop(Cell(CLIENT, frontend, address, "tcp", port))
            if stop:
                stopped.append(f"{address} {port} at {stop}")
            limited += [f"{address} {port}: {limit}" for verdict in verdicts for limit in verdict.limits]
    measure("packets walked", len(addresses) * len(MAIL_PORTS))
    measure("IP versions", " ".join(str(address.version) for address in addresses))
    expect(not stopped, "a client's packet is dropped", seen=stopped, expected="accepted on every hop")
    expect(not limited, "clients are let in by number only", seen=limited, expected="no limit on the way")
    _edge_is_ours(site)


@pytest.mark.control("LEM-3-08", "LEM-4-02", "LEM-6-03")
def test_submission_reaches_imap(site: Site, facts_of: FactsOf, store: str, measure: Measure) -> None:
    """From the submission host a packet to 143 of every store passes, and IMAP listens there."""
    facts = facts_of(store)
    own = site.hosts[store].interfaces["store"]
    stopped = []
    for other in site.group("stores"):
        leg = other.interfaces["store"]
        for source, target in ((own.ipv4, leg.ipv4), (own.ipv6, leg.ipv6)):
            if source is None or target is None:
                continue
            # A packet to oneself goes by loopback whatever its address.
            device, device_in = ("lo", "lo") if other.name == store else (own.device, leg.device)
            packet = Packet(str(source), str(target), port=143, device_out=device)
            if not facts.rules.verdict("output", packet).accepted:
                stopped.append(f"{target} at {store} output")
            arriving = replace(packet, device_in=device_in, device_out="")
            if not facts_of(other.name).rules.verdict("input", arriving).accepted:
                stopped.append(f"{target} at {other.name} input")
            if not any(each.port == 143 and each.protocol == "tcp" and each.hears(target.version) for each in facts_of(other.name).sockets):
                stopped.append(f"{target}: nothing listens on 143")
    measure("stores", len(site.group("stores")))
    expect(not stopped, "submission does not reach IMAP", seen=stopped, expected="accepted, and answered, on every store")


def _only_sends(socket: Socket) -> bool:
    """Whether a socket is there to send from: conntrackd never connects the one it sends by, and reads nothing from it."""
    return socket.protocol == "udp" and socket.program == "conntrackd" and socket.port >= EPHEMERAL


@pytest.mark.control("LEM-6-01")
def test_listeners_equal_the_flows(site: Site, facts_of: FactsOf, node: str, measure: Measure) -> None:
    """What listens for others is exactly what flows lead to: nothing more, nothing less, in both families."""
    facts, host = facts_of(node), site.hosts[node]
    expected: dict[tuple[str, int], set[int]] = {}
    for flow in site.active_flows:
        if (
            flow.destination in host.groups
            or flow.destination == "management"
            or (flow.destination in host.interfaces and "edges" not in host.groups)
        ):
            managed = flow.destination == "management"
            legs = [leg for zone, leg in host.interfaces.items() if (zone == "management") == managed] or list(host.interfaces.values())
            for port in flow.ports:
                versions = {address.version for leg in legs for address in leg.addresses}
                # Two edges tell each other of connections in one IP version.
                expected.setdefault((flow.protocol, port), set()).update({min(versions)} if flow.by else versions)
    found = {(socket.protocol, socket.port) for socket in facts.sockets if not socket.is_local and not _only_sends(socket)}
    measure("listening", " ".join(f"{protocol}/{port}" for protocol, port in sorted(found)))
    extra, missing = found - set(expected), set(expected) - found
    expect(not extra, f"{node} listens where no flow leads", seen=[f"{p} {n}" for p, n in sorted(extra)], expected="flows' ports only")
    expect(
        not missing, f"nothing listens on {node} where a flow leads", seen=[f"{p} {n}" for p, n in sorted(missing)], expected="a listener"
    )
    deaf = [
        f"{protocol} {port} by IPv{version}"
        for (protocol, port), versions in expected.items()
        for version in sorted(versions)
        if not any((s.protocol, s.port) == (protocol, port) and s.hears(version) for s in facts.sockets)
    ]
    expect(not deaf, f"{node} answers in one address family only", seen=deaf, expected="both families where the host has both")


@pytest.mark.control("LEM-3-09")
def test_configuration_protocols_are_whole(site: Site, facts_of: FactsOf, frontend: str, measure: Measure) -> None:
    """ACAP and ManageSieve: they listen on a frontend if and only if a flow leads clients there. None at all is right, too."""
    listening = {socket.port for socket in facts_of(frontend).sockets if socket.protocol == "tcp" and not socket.is_local}
    offered = listening & set(CONFIGURATION_PROTOCOLS)
    led = {port for flow in site.active_flows if flow.destination == "frontends" for port in flow.ports} & set(CONFIGURATION_PROTOCOLS)
    measure("offered", " ".join(CONFIGURATION_PROTOCOLS[port] for port in sorted(offered)) or "none")
    expect(offered == led, "a configuration protocol is offered by half", seen=sorted(offered), expected=sorted(led))


@pytest.mark.control("LEM-3-06", "LEM-6-04", "LEM-6-07")
def test_nobody_interferes_with_mail(facts_of: FactsOf, node: str, measure: Measure) -> None:
    """No redirection to a local process, no TPROXY, no queue, no change of packets, no conntrack helper, on any host."""
    facts = facts_of(node)
    suspicious = []
    for rule in facts.rules.every_rule():
        name = str(rule.get("comment") or f"rule {rule['handle']} of chain {rule['chain']}")
        for expression in rule["expr"]:
            kind = next(iter(expression))
            if kind in {"redirect", "tproxy", "queue", "synproxy", "ct helper", "notrack"} or (
                kind == "mangle" and "payload" in str(expression)
            ):
                suspicious.append(f"{name}: {kind}")
    measure("rules", len(facts.rules.every_rule()))
    expect(not suspicious, "a rule changes or takes over what it should pass", seen=suspicious, expected="accept, drop and DNAT only")
    expect(not facts.rules.helpers, "a conntrack helper is defined", seen=[str(h["name"]) for h in facts.rules.helpers], expected="none")
    helper = facts.data["sysctl"].get("net.netfilter.nf_conntrack_helper", 0)  # gone in Linux 6: always off
    expect(helper == 0, "conntrack assigns helpers by itself", seen=helper, expected=0)


@pytest.mark.control("LEM-7-05")
def test_no_fast_path_takes_connections_over(facts_of: FactsOf, edge: str, measure: Measure) -> None:
    """Flow tables forget by their own clock (30 s by default), and proxies on the edge would too."""
    facts = facts_of(edge)
    tables = [str(table["name"]) for table in facts.rules.flowtables]
    proxies = sorted(name for name in facts.data["packages"] if name.startswith(TUNNELS))
    measure("flow tables", len(tables))
    expect(not tables, "connections are handed to a flow table", seen=tables, expected="none")
    expect(not proxies, "a proxy is installed on the edge", seen=proxies, expected="none")


PAGE_PACKAGES = {"nginx", "nginx-common"}
"""What serves the page for passwords; that it has nothing else to serve is test_own_passwords' to say."""
PAGE_TRANSLATIONS = ("self-service", "frontends")
"""The rules that lead to it: its flow's, and where there are several frontends the one for whoever had a living one before."""


@pytest.mark.control("LEM-6.1-01", "LEM-8-02")
def test_mail_does_not_hide_in_http(site: Site, facts_of: FactsOf, node: str, measure: Measure) -> None:
    """Nothing listens on HTTP's ports, no translation starts or ends there, no tunnel software is installed.

    Where users change their passwords on a page (record 0050) a frontend's 443 is HTTP itself, and nginx's alone.
    """
    facts = facts_of(node)
    page = site.settings.self_service
    served = page and "frontends" in site.hosts[node].groups
    heard = {(s.port, s.program) for s in facts.sockets if s.protocol == "tcp" and s.port in HTTP_PORTS and not s.is_local}
    listening = sorted(heard - ({(443, "nginx")} if served else set()))
    expect(not listening, f"{node} listens on ports of HTTP", seen=listening, expected="none")
    translated = [
        str(rule.get("comment", rule["handle"]))
        for rule in facts.rules.every_rule()
        if any("dnat" in e or "redirect" in e for e in rule["expr"])
        and _ports(rule) & set(HTTP_PORTS) - ({443} if page and rule.get("comment") in PAGE_TRANSLATIONS else set())
    ]
    tunnels = sorted(name for name in facts.data["packages"] if name.startswith(TUNNELS) and not (served and name in PAGE_PACKAGES))
    measure("packages looked at", len(facts.data["packages"]))
    expect(not translated, "a translation leads from HTTP's ports", seen=translated, expected="none")
    expect(
        not tunnels,
        "software that tunnels is installed",
        seen=tunnels,
        expected="none",
        remedy=f"apt-get purge {' '.join(tunnels)}, on {node}: nothing of the site needs it",
    )
    publish = [
        f"{rule.get('comment')}: to port {e['dnat']['port']}"
        for rule in facts.rules.every_rule()
        for e in rule["expr"]
        if "dnat" in e and "port" in e["dnat"]
    ]
    expect(not publish, "a translation changes the port", seen=publish, expected="every service on its own port")


def _ports(rule: dict[str, Any]) -> set[int]:
    """The destination ports a rule names."""
    found: set[int] = set()
    for expression in rule["expr"]:
        match = expression.get("match", {})
        if match.get("left", {}).get("payload", {}).get("field") == "dport":
            right = match["right"]
            values = right["set"] if isinstance(right, dict) and "set" in right else [right]
            for value in values:
                low, high = value["range"] if isinstance(value, dict) and "range" in value else (value, value)
                found |= set(range(int(low), int(high) + 1))
    return found


def _accepting(facts: Facts) -> list[tuple[str, set[int]]]:
    """(comment, destination ports) of the rules that accept new connections to ports."""
    return [
        (str(rule.get("comment", "")), _ports(rule))
        for rule in facts.rules.every_rule()
        if any("accept" in e for e in rule["expr"]) and _ports(rule)
    ]


@pytest.mark.control("LEM-6.1-02", "LEM-8-18")
def test_every_opening_has_a_name_and_a_reason(site: Site, facts_of: FactsOf, node: str, measure: Measure) -> None:
    """Each accept rule carries the name of an active flow, which opens those ports, says why, and names controls that exist."""
    known = load_controls().by_id()
    flows = {flow.name: flow for flow in site.active_flows}
    wrong = []
    rules = _accepting(facts_of(node))
    for comment, ports in rules:
        flow = flows.get(comment)
        if flow is None:
            wrong.append(f"ports {sorted(ports)}: '{comment}' is no flow of this site")
        elif not ports <= set(flow.ports):
            wrong.append(f"{comment}: opens {sorted(ports - set(flow.ports))} besides")
        elif not flow.reason.strip() or any(name not in known for name in flow.controls):
            wrong.append(f"{comment}: no reason, or controls that don't exist")
    measure("accept rules", len(rules))
    expect(bool(rules) and not wrong, "an opening was decided by nobody", seen=wrong, expected="the name of a flow on each accept rule")


@pytest.mark.control("LEM-6.1-03")
def test_mail_can_be_closed_alone(site: Site, facts_of: FactsOf, node: str, measure: Measure) -> None:
    """No rule opens ports of mail clients together with others, so closing either leaves the other as it is."""
    clients = {port for flow in site.active_flows if flow.destination == "frontends" and flow.source == "internet" for port in flow.ports}
    rules = _accepting(facts_of(node))
    mixed = [f"{comment}: {sorted(ports)}" for comment, ports in rules if ports & clients and ports - clients]
    measure("accept rules", len(rules))
    expect(bool(rules) and not mixed, "one rule opens mail and something else", seen=mixed, expected="rules of their own")


@pytest.mark.control("LEM-3-01")
def test_imap_listens_where_it_should(facts_of: FactsOf, frontends: list[str], stores: list[str], measure: Measure) -> None:
    """143, both families, on frontends and stores, held by Dovecot's login service."""
    _check_port(facts_of, [*frontends, *stores], 143, "service imap-login/inet_listener imap/port", measure)


@pytest.mark.control("LEM-3-02")
@pytest.mark.supports("LEM-3-07")
def test_submission_listens_where_it_should(facts_of: FactsOf, frontends: list[str], stores: list[str], measure: Measure) -> None:
    """587, both families, on frontends and stores, held by Dovecot's login service."""
    _check_port(facts_of, [*frontends, *stores], 587, "service submission-login/inet_listener submission/port", measure)


def _check_port(facts_of: FactsOf, names: list[str], port: int, setting: str, measure: Measure) -> None:
    missing = []
    for name in names:
        facts = facts_of(name)
        configured = facts.dovecot.get(setting)
        if configured != str(port):
            missing.append(f"{name}: {setting} is {configured}")
        missing += [
            f"{name}: not by IPv{version}"
            for version in (4, 6)
            if not any(s.protocol == "tcp" and s.port == port and s.hears(version) for s in facts.sockets)
        ]
    measure("hosts", " ".join(names))
    expect(
        bool(names) and not missing, f"port {port} is not served", seen=missing, expected=f"{port} in both families on {', '.join(names)}"
    )
