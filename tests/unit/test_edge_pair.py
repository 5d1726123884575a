"""Two edges, several frontends: rules and settings that follow from a site, and the programs that run by them."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lemonstand.derived.matrix import Cell, expected_matrix
from lemonstand.integrity.judge import filters, routes
from lemonstand.integrity.known import FIRST_MARK, Known
from lemonstand.policy import load_flows, load_timers
from lemonstand.policy.flows import Flow, several
from lemonstand.site import Site, build
from lemonstand.site.raw import RawSite
from lemonstand.site.reader import read
from lemonstand.site.shipped import filter_plugin
from sample_site import in_pairs, sound_site, write_site

ROOT = Path(__file__).resolve().parents[2]
FILTERS: Any = filter_plugin("lemonstand")


def _module(name: str, path: str) -> ModuleType:
    spec = importlib.util.spec_from_loader(name, SourceFileLoader(name, str(ROOT / path)))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class Pairs:
    """A site in pairs: its model, and its hosts as the filters see them."""

    def __init__(self, folder: Path) -> None:
        tree = sound_site()
        in_pairs(tree)
        write_site(folder, tree)
        self.site: Site = build(folder, RawSite.from_plain(read(folder, ROOT / "playbooks")), load_flows(), load_timers())
        children = tree["hosts"]["all"]["children"]
        self.groups = {group: list(members["hosts"]) for group, members in children.items()}
        self.hosts = {name: {**tree["all"], **host} for members in children.values() for name, host in members["hosts"].items()}
        chosen = {
            "implicit_tls": True,
            "managesieve": False,
            "self_service": False,
            "acme": False,
            "backup": False,
            "smarthost": False,
            "no_smarthost": True,
        }
        chosen |= {"mirror": False, "mirror_dmz": False, "directory": False}
        conditions = {**chosen, **several(lambda group: self.groups.get(group, []))}
        raw = [flow.model_dump(by_alias=True, mode="json") for flow in load_flows().flows]
        self.flows = FILTERS.active_flows(raw, conditions, [], [])


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    """The sample site in pairs."""
    return Pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program that watches, with its files elsewhere."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    module = _module("edge_watch", "roles/edge/files/edge_watch.py")
    for name in ("SETTINGS", "DRAINED", "SEEN", "ALONE"):
        monkeypatch.setattr(module, name, tmp_path / name.lower())
    return module


def settings(pairs: Pairs) -> dict[str, Any]:
    """What the role would write for the first edge."""
    pair = FILTERS.pair_of_edges("edge", pairs.groups, pairs.hosts)
    return {
        "device": "internet0", "public": "203.0.113.1", "towards": "dmz0", "own": {"ipv4": "192.0.2.2", "ipv6": "2001:db8:2::2"},
        "services": FILTERS.spread_services(pairs.flows, pairs.groups, pairs.hosts),
        "pair": {"neighbours": pair["neighbours"], "twin": pair["twin"], "shared": pair["shared"]},
    }  # fmt: skip


def test_both_edges_let_through_and_translate_the_same(pairs: Pairs) -> None:
    for rules in (FILTERS.host_rules, FILTERS.edge_rules):
        assert rules(pairs.flows, "edge", pairs.groups, pairs.hosts) == rules(pairs.flows, "edge2", pairs.groups, pairs.hosts)


def test_the_other_edge_is_no_part_of_the_internet(pairs: Pairs) -> None:
    """What hosts may send anywhere outside, either edge leads past the addresses both have on that side, and to no place else."""
    forward = FILTERS.edge_rules(pairs.flows, "edge", pairs.groups, pairs.hosts)["forward"]
    outward = [rule for rule in forward if rule["target4"] is None]
    assert {rule["name"] for rule in outward} == {"outbound-mail"}
    assert all(rule["inside4"] == ["203.0.113.2/31"] and rule["inside6"] == ["2001:db8:1::2/127"] for rule in outward)
    assert not any(rule["inside4"] or rule["inside6"] for rule in forward if rule not in outward)
    one = {**pairs.groups, "edges": ["edge"]}
    alone = FILTERS.edge_rules(pairs.flows, "edge", one, pairs.hosts)["forward"]
    assert not any(rule["inside4"] or rule["inside6"] for rule in alone)


def test_edges_hear_each_other_where_no_host_of_the_dmz_can_speak(pairs: Pairs) -> None:
    rules = FILTERS.host_rules(pairs.flows, "edge", pairs.groups, pairs.hosts)
    for side in ("input", "output"):
        own = [rule for rule in rules[side] if rule["name"] in {"edge-election", "edge-states"}]
        assert {(rule["name"], rule["device"]) for rule in own} == {
            (name, device) for name in ("edge-election", "edge-states") for device in ("auth0", "store0")
        }
        for rule in own:
            assert set(rule["ipv4"]) == ({"192.0.2.66", "192.0.2.67"} if rule["device"] == "auth0" else {"192.0.2.130", "192.0.2.131"})


def test_hosts_ask_for_the_time_at_the_address_edges_share(pairs: Pairs) -> None:
    rules = FILTERS.host_rules(pairs.flows, "frontend", pairs.groups, pairs.hosts)["output"]
    time = next(rule for rule in rules if rule["name"] == "time-dmz")
    assert {"192.0.2.1", "192.0.2.2", "192.0.2.3"} <= set(time["ipv4"])


def test_the_matrix_has_states_pass_by_inner_zones_alone(pairs: Pairs) -> None:
    matrix = expected_matrix(pairs.site)
    allowed = {str(cell.address) for cell, flow in matrix.items() if flow == "edge-states" and cell.destination == "edge2"}
    assert allowed == {"192.0.2.67", "2001:db8:3::3", "192.0.2.131", "2001:db8:4::3"}
    asked = [cell for cell in matrix if cell.port == 3780]
    assert any(isinstance(cell, Cell) and matrix[cell] is None for cell in asked)


def test_one_edge_has_nothing_of_it() -> None:
    alone = {"edges": ["edge"], "frontends": ["frontend"], "relays": ["relay"], "auths": ["auth"], "stores": ["store"]}
    assert not any(several(lambda group: alone[group]).values())
    assert several(lambda group: {**alone, "edges": [], "frontends": ["a", "b"]}[group])["several_frontends"] is False


@pytest.mark.parametrize(
    ("changes", "word"),
    [({"protocol": "vrrp", "ports": [112]}, "VRRP has no ports"), ({"ports": []}, "it has no ports"), ({"by": ["lan"]}, "lan")],
)
def test_a_flow_fits_its_protocol(changes: dict[str, Any], word: str) -> None:
    flow = {"name": "x", "from": "edges", "to": "edges", "protocol": "udp", "ports": [1], "reason": "r", **changes}
    with pytest.raises(ValueError, match=word):
        Flow.model_validate(flow)


def test_new_connections_are_spread_over_those_that_answer(pairs: Pairs, watch: ModuleType) -> None:
    given = settings(pairs)
    everybody = {"frontend", "frontend2", "relay", "relay2"}
    whole = watch.table(given, everybody, set())
    assert "jhash ip saddr mod 2 map { 0 : 192.0.2.10, 1 : 192.0.2.11 }" in whole
    assert "ct mark set" not in whole.replace("meta mark set ct mark", "")
    less = watch.table(given, everybody - {"frontend"}, set())
    assert "tcp dport { 143, 465, 587, 993 } dnat ip to 192.0.2.11 " in less
    assert "ip6 daddr 2001:db8:2::10 tcp dport { 143, 465, 587, 993 } ct state new ct mark set 0x4c02" in less
    # Relays have names of their own: who sends by IPv6 tries the next one.
    assert "2001:db8:2::20" not in watch.table(given, everybody - {"relay"}, set())


def test_a_drained_member_gets_nothing_new_and_the_last_one_everything(pairs: Pairs, watch: ModuleType) -> None:
    given = settings(pairs)
    drained = watch.table(given, {"frontend", "frontend2"}, {"frontend2"})
    assert "dnat ip to 192.0.2.10 " in drained and "ct mark set 0x4c01" in drained
    # Where nobody answers, those that are not drained are tried all the same.
    assert "dnat ip to 192.0.2.10 " in watch.table(given, set(), {"frontend2"})
    assert "map { 0 : 192.0.2.10, 1 : 192.0.2.11 }" in watch.table(given, set(), {"frontend", "frontend2"})


def test_who_is_slow_is_there_and_who_says_nothing_is_not(watch: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "PATIENCE", 0.3)
    monkeypatch.setattr(watch, "GREETING_PATIENCE", 1.5)

    async def ask(pause: float, words: bytes) -> str | None:
        async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(pause)
            writer.write(words)
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            found: str | None = await watch.asked("127.0.0.1", "127.0.0.1", port, "* OK")
        return found

    assert asyncio.run(ask(0.6, b"* OK ready\r\n")) == ""
    assert asyncio.run(ask(0.0, b"* BYE not now\r\n")) == "it says '* BYE not now'"
    assert asyncio.run(ask(0.0, b"")) == "0 bytes read on a total of undefined expected bytes"
    assert "failed" in str(asyncio.run(watch.asked("127.0.0.1", "127.0.0.1", 1, "* OK")))


def test_a_busy_edge_doubts_itself_once(pairs: Pairs, watch: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    service = settings(pairs)["services"][0]
    member = watch.Member(service, service["members"][0], {"ipv4": "192.0.2.2", "ipv6": ""})

    async def late(*_: object) -> str | None:
        return None

    monkeypatch.setattr(watch, "asked", late)
    changes = [asyncio.run(member.ask()) for _ in range(3)]
    assert changes == [False, False, True]
    assert not member.answers


def test_where_nobody_answers_those_stay_who_did_last(pairs: Pairs, watch: ModuleType) -> None:
    seen = watch.Watch(settings(pairs))
    one, two = seen.members[:2]
    one.answers = False
    assert "frontend" not in seen.answering() and "frontend2" in seen.answering()
    two.answers = False
    assert "frontend" not in seen.answering() and "frontend2" in seen.answering()
    one.answers = True
    assert "frontend" in seen.answering() and "frontend2" not in seen.answering()


def test_marks_are_those_that_integrity_knows(watch: ModuleType) -> None:
    assert watch.MARK == FIRST_MARK


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([(0, "x")], True),
        ([(0, "x"), (1, "x")], False),
        # One service of a host that otherwise answers.
        ([(0, "x"), (1, ""), (0, "x")], False),
        ([(0, "x"), (1, "x"), (0, ""), (1, "")], False),
        ([(0, "x"), (1, "x"), (0, ""), (1, ""), (0, "")], True),
    ],
)
def test_two_answers_that_fail_in_turn_are_enough(pairs: Pairs, watch: ModuleType, answers: list[tuple[int, str]], expected: bool) -> None:
    service = settings(pairs)["services"][0]
    member = watch.Member(service, service["members"][0], {"ipv4": "192.0.2.2", "ipv6": ""})
    assert [target[2] for target in member.targets] == [143, 587]
    for number, fault in answers:
        member.heard(number, fault)
    assert member.answers is expected


def test_the_last_one_that_answers_is_not_drained(pairs: Pairs, watch: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    given = settings(pairs)
    watch.drain("frontend", "an  upgrade", given, off=False)
    watch.drain("frontend", "an upgrade", given, off=False)
    assert capsys.readouterr().out == "changed: frontend gets no new connections\n"
    assert json.loads(watch.DRAINED.read_text())["frontend"]["reason"] == "an upgrade"
    with pytest.raises(SystemExit, match="nobody else answers"):
        watch.drain("frontend2", "", given, off=False)
    with pytest.raises(SystemExit, match="hosts that do: frontend, frontend2, relay, relay2"):
        watch.drain("store", "", given, off=False)
    watch.drain("frontend", "", given, off=True)
    assert json.loads(watch.DRAINED.read_text()) == {}


def test_an_edge_that_nobody_answers_says_so_and_the_other_one_does_not(pairs: Pairs, watch: ModuleType) -> None:
    seen = watch.Watch(settings(pairs))
    seen._quiet = watch.ALONE_AFTER - 1
    seen.judge_neighbours(set())
    assert not watch.ALONE.exists()
    seen._quiet = watch.ALONE_AFTER
    seen.judge_neighbours(set())
    assert watch.ALONE.read_text() == "1"
    seen._quiet = 0
    seen.judge_neighbours({"192.0.2.10"})
    assert watch.ALONE.read_text() == "0"
    seen.tell()
    assert json.loads(watch.SEEN.read_text())["twin_silent"] is not None
    seen.judge_neighbours({"192.0.2.67"})
    seen.tell()
    assert json.loads(watch.SEEN.read_text())["twin_silent"] is None


def test_who_else_holds_a_shared_address_is_named_while_this_one_does(
    pairs: Pairs, watch: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = watch.Watch(settings(pairs))
    monkeypatch.setattr(watch, "holds", lambda address: True)
    seen.judge_claims(["192.0.2.1 on dmz0 by 02:00:00:00:00:01"])
    seen.tell()
    assert json.loads(watch.SEEN.read_text())["conflict"]["claims"] == ["192.0.2.1 on dmz0 by 02:00:00:00:00:01"]
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(watch, "command", lambda *words: asked.append(words))
    seen.judge_claims([])
    assert asked == [(watch.PAIR, "conflict")]
    # One that gives way itself learns nothing from the other one now.
    seen.judge_claims(["192.0.2.1 on dmz0 by 02:00:00:00:00:01"])
    monkeypatch.setattr(watch, "holds", lambda address: False)
    seen.judge_claims(["192.0.2.1 on dmz0 by 02:00:00:00:00:01"])
    seen.tell()
    assert json.loads(watch.SEEN.read_text())["conflict"] is None
    assert len(asked) == 1


def test_connections_are_counted_where_they_were_led(pairs: Pairs, watch: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def line(client: str, target: str, port: int, server: str, mark: int = 0) -> str:
        there, back = f"src={client} dst={target} sport=1 dport={port}", f"src={server} dst={client} sport={port} dport=1"
        return f"tcp 6 7000 ESTABLISHED {there} {back} [ASSURED] mark={mark}"

    four = [
        line("198.51.100.7", "203.0.113.1", 143, "192.0.2.10"),
        line("192.0.2.2", "192.0.2.10", 143, "192.0.2.10"),
        line("192.0.2.10", "192.0.2.75", 8443, "192.0.2.75"),
    ]
    six = [line("2001:db8:f::7", "2001:db8:2::10", 993, "2001:db8:2::10", mark) for mark in (0, 19458)]

    def listed(*words: str) -> Any:
        return type("Done", (), {"stdout": "\n".join(six if "ipv6" in words else four)})

    monkeypatch.setattr(watch, "command", listed)
    assert watch.counted(settings(pairs)) == {"frontend": 2, "frontend2": 1, "relay": 0, "relay2": 0}


def test_the_checksum_is_the_internets(watch: ModuleType) -> None:
    # RFC 1071 section 3.
    assert watch.checksum(bytes.fromhex("0001f203f4f5f6f7")) == ~0xDDF2 & 0xFFFF


def _known(pairs: Pairs, host: str) -> Known:
    nothing: dict[str, Any] = {"entries": {}, "units": (), "accounts": (), "texts": {}, "login": "root", "keys": frozenset()}
    return Known(host, pairs.site, **nothing, tickets=frozenset(), authorities=(), databases={})


def _reading(**routes_found: Any) -> dict[str, Any]:
    kernels = [{"priority": number, "src": "all", "table": name} for number, name in ((0, "local"), (32766, "main"))]
    nothing = {"rules": {"4": kernels, "6": kernels}, "routes": {}, "links": [], "addresses": [], "neighbours": [], "xfrm": ""}
    return {"routes": {**nothing, **routes_found}, "tables": [], "traffic": []}


def test_integrity_knows_how_connections_are_handed_on(pairs: Pairs) -> None:
    handing = {"priority": 19458, "src": "all", "fwmark": "0x4c02", "table": "19458"}
    way = {"dst": "default", "gateway": "2001:db8:2::11", "dev": "dmz0", "table": "19458", "protocol": "boot"}
    found = _reading(rules={"6": [handing]}, routes={"6": [way]})
    assert list(routes(found, _known(pairs, "edge2"))) == []
    # The same at a frontend is somebody else's, and so is another way at an edge.
    assert [each.item for each in routes(found, _known(pairs, "frontend"))] == ["rule 19458 IPv6", "route default"]
    other = _reading(rules={"6": [{**handing, "table": "19457"}]})
    assert [each.item for each in routes(other, _known(pairs, "edge"))] == ["rule 19458 IPv6"]


@pytest.mark.parametrize(
    ("host", "address", "known"),
    [
        ("edge", "192.0.2.1", True), ("edge2", "2001:db8:4::1", True), ("edge", "192.0.2.9", False),
        ("frontend", "2001:db8:2::11", True), ("frontend", "192.0.2.1", False), ("relay", "2001:db8:2::21", False),
    ],
)  # fmt: skip
def test_integrity_knows_whose_addresses_a_host_may_have(pairs: Pairs, host: str, address: str, known: bool) -> None:
    link = {"ifname": "dmz0", "addr_info": [{"local": address, "scope": "global", "prefixlen": 128}]}
    assert bool(list(routes(_reading(addresses=[link]), _known(pairs, host)))) is not known


def test_integrity_knows_the_table_of_an_edge_alone(pairs: Pairs) -> None:
    found = {**_reading(), "tables": [{"family": "inet", "name": "lemonstand_spread"}]}
    assert list(filters(found, _known(pairs, "edge"))) == []
    assert [each.item for each in filters(found, _known(pairs, "relay"))] == ["inet lemonstand_spread"]
