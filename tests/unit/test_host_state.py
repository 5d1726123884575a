"""What preflight says of a host, from what the host told: filters and units of others, CAs, connection, legs, room, clock, release."""

from __future__ import annotations

import copy
import datetime
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
Facts = dict[str, Any]


def _program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("host_state", ROOT / "playbooks/files/host_state.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module


state = _program()
NOW = datetime.datetime(2026, 11, 29, tzinfo=datetime.UTC).timestamp()
A, B = "a" * 64, "b" * 64
SOUND: Facts = {
    "page": False,
    "filters": {"nft": [], "texts": {}, "saved": {}, "unread": []},
    "units": {"nftables.service": {"Id": "nftables.service", "UnitFileState": "disabled", "ActiveState": "inactive"}},
    "nftables_conf": "",
    "placement": None,
    "idle": False,
    "own": [],
    "drop_ins": {},
    "release": {"ID": "debian", "VERSION_ID": "13", "PRETTY_NAME": "Debian GNU/Linux 13 (trixie)"},
    "programs": {"dovecot-core": ["1:2.4.1+dfsg1-6+deb13u2", True]},
    "systemd": True,
    "connection": ["198.51.100.254", "40000", "198.51.100.10", "22"],
    "login": ["root", True],
    "ra_devices": [],
    "addresses": {
        "lo": ["127.0.0.1", "::1"],
        "dmz0": ["192.0.2.10", "2001:db8:2::10", "fe80::1"],
        "mgmt0": ["198.51.100.10", "2001:db8:5::10"],
    },
    "ipv6": True,
    "listeners": [["::", 22, "sshd", 1, "ssh.service"]],
    "places": {"/": {"readonly": False, "mib": 5000, "inodes": None}},
    "time": NOW,
    "authorities": {"hosts": [A]},
    "certificates": {"public": "01" * 20, "store-client": "02" * 20},
}
ORDER: Facts = {
    "now": NOW,
    "ports": [22, 143, 587],
    "programs": {"dovecot-core": "2.4"},
    "management": [{"name": "management-ssh", "ports": [22], "ipv4": ["198.51.100.254"], "ipv6": []}],
    "legs": {
        "dmz": {"device": "dmz0", "ipv4": "192.0.2.10", "ipv6": "2001:db8:2::10"},
        "management": {"device": "mgmt0", "ipv4": "198.51.100.10", "ipv6": "2001:db8:5::10"},
    },
    "routes": False,
    "routers": [],
    "ssh": {"users": ["root"], "root": "prohibit-password"},
    "foreign_tables": [],
    "pki_dir": "/srv/pki",
    "authorities": {
        "hosts": {"fingerprints": [A], "key_ids": ["03" * 20]},
        "public": {"fingerprints": [B], "key_ids": ["01" * 20]},
        "store-clients": {"fingerprints": [B], "key_ids": ["02" * 20]},
    },
    "trusted": ["hosts"],
    "requests": {"public": "public", "store-client": "store-clients"},
    "new_authorities": False,
}


def judged(order: Facts | None = None, **facts: Any) -> str:
    """What is said of a sound host with some facts and wishes changed."""
    return "\n".join(state.judge({**copy.deepcopy(SOUND), **facts}, {**copy.deepcopy(ORDER), **(order or {})}))


def test_a_sound_host_is_left_alone() -> None:
    assert judged() == ""


def test_an_empty_host_is_left_alone() -> None:
    """A first deployment: no certificates, nothing of ours."""
    bare = {"authorities": {}, "certificates": {}, "units": {}, "connection": None, "addresses": None, "listeners": []}
    assert judged(**bare) == ""
    assert judged({"authorities": {}}, **bare) == "", "nor is anything missed before CAs were ever made"


# --- packet filters of others ---


def chain(name: str, hook: str | None = None, family: str = "ip", table: str = "filter", **others: Any) -> Facts:
    hooked = {"type": "filter", "hook": hook, "prio": 0, "policy": "accept"} if hook else {}
    return {"chain": {"family": family, "table": table, "name": name, "handle": 1, **hooked, **others}}


def rule(name: str, *expressions: Any, family: str = "ip", table: str = "filter", handle: int = 5) -> Facts:
    return {"rule": {"family": family, "table": table, "chain": name, "handle": handle, "expr": list(expressions)}}


def filters(*entries: Facts, **others: Any) -> Facts:
    return {"filters": {"nft": list(entries), "texts": {}, "saved": {}, "unread": [], **others}}


MATCH = {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 143}}
HARMFUL = {
    "a policy": filters(chain("FORWARD", "forward", policy="drop")),
    "a policy on input": filters(chain("INPUT", "input", policy="drop", family="inet", table="mine")),
    "a drop": filters(chain("input", "input"), rule("input", MATCH, {"drop": None})),
    "a reject": filters(chain("input", "input"), rule("input", MATCH, {"reject": {"type": "tcp reset"}})),
    "a queue": filters(chain("output", "output"), rule("output", {"queue": {"num": 0}})),
    "no conntrack": filters(chain("raw", "prerouting"), rule("raw", {"notrack": None})),
    "a drop two jumps away": filters(
        chain("input", "input"), chain("a"), chain("b"),
        rule("input", {"jump": {"target": "a"}}), rule("a", {"goto": {"target": "b"}}), rule("b", {"drop": None}),
    ),
    "a drop in a verdict map": filters(
        chain("input", "input"), rule("input", {"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": [["new", {"drop": None}]]}}}),
    ),
    "a jump by a named map": filters(
        chain("input", "input"), chain("shut"),
        {"map": {"family": "ip", "table": "filter", "name": "m", "elem": [[143, {"jump": {"target": "shut"}}]]}},
        rule("input", {"vmap": {"key": {}, "data": "@m"}}), rule("shut", {"drop": None}),
    ),
    "a target of iptables": filters(chain("INPUT", "input"), rule("INPUT", {"xt": {"type": "target", "name": "REJECT"}})),
    "masquerading": filters(chain("POSTROUTING", "postrouting", type="nat"), rule("POSTROUTING", {"masquerade": None})),
    "a redirect": filters(chain("PREROUTING", "prerouting", type="nat"), rule("PREROUTING", MATCH, {"redirect": {"port": 25}})),
    "dnat": filters(chain("PREROUTING", "prerouting", type="nat"), rule("PREROUTING", MATCH, {"dnat": {"addr": "192.0.2.99"}})),
    "a netdev chain": filters(chain("in", "ingress", family="netdev"), rule("in", {"drop": None}, family="netdev")),
    "legacy policy": filters(saved={"legacy-ip": "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\nCOMMIT\n"}),
    "legacy rule behind a jump": filters(
        saved={"legacy-ip6": "*filter\n:INPUT ACCEPT [0:0]\n:X - [0:0]\n-A INPUT -p tcp -j X\n-A X -j REJECT --reject-with icmp\nCOMMIT\n"}
    ),
    "legacy nat": filters(saved={"legacy-ip": "*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -o eth0 -j MASQUERADE\nCOMMIT\n"}),
    "what can't be read": filters(unread=["there are legacy iptables rules, and no iptables-legacy-save to read them with"]),
}  # fmt: skip
HARMLESS = {
    "nothing": filters(),
    "no nft yet": filters() | {"filters": {"nft": None, "texts": {}, "saved": {}, "unread": []}},
    "ours": filters(
        chain("input", "input", family="inet", table="lemonstand", policy="drop"),
        chain("towards", "input", family="inet", table="lemonstand_closed"),
        rule("towards", {"drop": None}, family="inet", table="lemonstand_closed"),
    ),
    "a chain that accepts": filters(chain("input", "input"), rule("input", MATCH, {"accept": None})),
    "counters and logs": filters(chain("input", "input"), rule("input", {"counter": {}}, {"log": {"prefix": "seen "}}, {"return": None})),
    "a dropping chain that nobody jumps to": filters(chain("input", "input"), chain("shut"), rule("shut", {"drop": None})),
    "a bridge's": filters(chain("forward", "forward", family="bridge", policy="drop")),
    "a dormant table": filters(
        {"table": {"family": "ip", "name": "filter", "flags": ["dormant"]}}, chain("input", "input", policy="drop"),
    ),
    "a word: drop": filters(chain("input", "input"), rule("input", {"match": {"left": {"meta": {"key": "mark"}}, "right": "drop"}})),
    "legacy that accepts": filters(saved={"legacy-ip": "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j ACCEPT\nCOMMIT\n"}),
}  # fmt: skip


@pytest.mark.parametrize("name", HARMFUL)
def test_filters_of_others_that_stop_or_translate_are_named(name: str) -> None:
    said = judged({"routes": True}, **HARMFUL[name])
    assert said, name
    assert "packet filter" in said


@pytest.mark.parametrize("name", HARMLESS)
def test_filters_of_others_that_let_all_through_are_not(name: str) -> None:
    assert judged({"routes": True}, **HARMLESS[name]) == ""


def test_docker_on_an_edge() -> None:
    """Chain, table, hook, priority and policy are named, and what heals."""
    listing = filters(chain("FORWARD", "forward", policy="drop"), chain("DOCKER"), rule("FORWARD", {"jump": {"target": "DOCKER"}}))
    said = judged({"routes": True}, **listing)
    assert "table 'ip filter' of Docker: chain FORWARD (hook forward, priority 0) drops what it does not accept" in said
    assert "`nft delete table ip filter`" in said and "lemonstand_foreign_tables" in said
    assert judged({"routes": True, "foreign_tables": ["ip filter"]}, **listing) == ""
    assert judged({"routes": False}, **listing) == "", "a host that forwards nothing loses nothing"


def test_a_rule_is_shown_as_nft_writes_it() -> None:
    texts = {"ip filter 5": "tcp dport 143 drop"}
    said = judged(**filters(chain("input", "input"), rule("input", MATCH, {"drop": None}), texts=texts))
    assert "drops: tcp dport 143 drop" in said


def test_texts_of_rules_are_found_by_table_and_handle() -> None:
    listing = "table ip filter { # handle 1\n\tchain input { # handle 2\n\t\ttype filter hook input priority 0;\n"
    listing += "\t\ttcp dport 143 drop # handle 5\n\t}\n}\n"
    assert state.rule_texts(listing) == {"ip filter 5": "tcp dport 143 drop"}


# --- units that load filters ---


def units(**states: str) -> Facts:
    known = {
        f"{name.replace('_', '-')}.service": {"UnitFileState": word.split()[0], "ActiveState": word.split()[1]}
        for name, word in states.items()
    }
    return {"units": {**SOUND["units"], **known}}


@pytest.mark.parametrize("unit", [name.removesuffix(".service") for name in state.FIREWALLS])
def test_other_firewall_managers_are_named(unit: str) -> None:
    for word in ("enabled inactive", "disabled active"):
        assert f"`systemctl disable --now {unit}.service`" in judged(**units(**{unit: word}))
    for word in ("disabled inactive", "masked inactive"):
        assert judged(**units(**{unit: word})) == ""


DEBIANS = (
    "#!/usr/sbin/nft -f\n\nflush ruleset\n\ntable inet filter {\n\tchain input {\n\t\ttype filter hook input priority filter;\n\t}\n}\n"
)


@pytest.mark.parametrize(
    "conf",
    [
        "table inet mine {\n  chain in {\n    type filter hook input priority 0; policy drop;\n  }\n}\n",
        'include "/etc/nftables.d/*"\n',
        "add rule ip a b drop\n",
    ],
)
def test_own_rules_of_debians_unit_are_not_masked_in_silence(conf: str) -> None:
    assert judged(**units(nftables="enabled inactive"), nftables_conf=DEBIANS) == ""
    assert "loads rules of your own" in judged(**units(nftables="enabled inactive"), nftables_conf=DEBIANS + conf)
    assert judged(**units(nftables="disabled inactive"), nftables_conf=DEBIANS + conf) == ""


@pytest.mark.parametrize("word", ["disabled inactive", "enabled active", "static inactive"])
def test_debians_unit_is_masked_on_a_host_that_is_done(word: str) -> None:
    assert judged({"settled": True}, **units(nftables="masked inactive")) == ""
    assert "nftables.service is not masked" in judged({"settled": True}, **units(nftables=word))


# --- CAs ---


def test_a_vanished_directory_is_named() -> None:
    said = judged({"authorities": {}})
    assert "trusts the CA 'hosts'" in said and "there is none in /srv/pki" in said and "restore it from its backup" in said
    assert "'public' was signed by the CA 'public', and there is none" in said
    assert judged({"authorities": {}, "new_authorities": True}) == ""


def test_another_sites_directory_is_named() -> None:
    both = {name: {part: ["d" * 64, *each] for part, each in known.items()} for name, known in ORDER["authorities"].items()}
    assert judged({"authorities": both}) == "", "the old one still counts while CAs are changed"
    assert judged(authorities={"hosts": ["e" * 64, A]}) == "", "and a host may know both"
    others = {name: {"fingerprints": ["c" * 64], "key_ids": ["09" * 20]} for name in ORDER["authorities"]}
    said = judged({"authorities": others})
    assert "trusts another CA 'hosts'" in said and "another site's directory?" in said
    assert "was signed by another CA 'store-clients'" in said
    assert judged({"authorities": others, "new_authorities": True}) == ""


@pytest.mark.parametrize("name", ["hosts", "public", "store-clients"])
def test_one_missing_ca_is_named(name: str) -> None:
    known = {each: value for each, value in ORDER["authorities"].items() if each != name}
    assert f"CA '{name}'" in judged({"authorities": known})


def test_a_rebuilt_host_and_a_ca_nobody_knows_yet_are_sound() -> None:
    assert judged(authorities={}, certificates={}) == ""
    assert judged({"trusted": ["hosts", "new-ca"], "requests": {"public": "public", "other": "new-ca"}}) == ""


# --- the connection ---


@pytest.mark.parametrize(
    ("connection", "word"),
    [
        (["198.51.100.254", "1", "198.51.100.10", "2222"], "no flow lets the controllers in on 2222"),
        (["198.51.100.254", "1", "198.51.100.10", "22022"], "no flow lets the controllers in on 22022"),
        (["203.0.113.7", "1", "198.51.100.10", "22"], "the controller comes from 203.0.113.7"),
        (["2001:db8::7", "1", "2001:db8:5::10", "22"], "the controller comes from 2001:db8::7"),
        (["198.51.100.254", "1", "192.0.2.10", "22"], "the controller comes in at 192.0.2.10"),
        (["::ffff:203.0.113.7", "1", "::ffff:198.51.100.10", "22"], "the controller comes from 203.0.113.7"),
        (["fe80::9%mgmt0", "1", "2001:db8:5::10", "22"], "the controller comes from fe80::9"),
    ],
)
def test_a_connection_that_the_rules_would_end_is_named(connection: list[str], word: str) -> None:
    said = judged(connection=connection)
    assert word in said
    assert any(remedy in said for remedy in ("lemonstand_flows_extra", "lemonstand_controllers", "ansible_host"))


@pytest.mark.parametrize(
    ("connection", "rules"),
    [
        (["198.51.100.254", "1", "198.51.100.10", "2222"], [{"ports": [22, 2222], "ipv4": ["198.51.100.254"], "ipv6": []}]),
        (["198.51.100.7", "1", "198.51.100.10", "22"], [{"ports": [22], "ipv4": ["198.51.100.0/24"], "ipv6": None}]),
        (["::ffff:198.51.100.254", "1", "::ffff:198.51.100.10", "22"], None),
        (None, [{"ports": [22], "ipv4": [], "ipv6": []}]),
        (["198.51.100.9", "1", "198.51.100.10", "2222"], [{"ports": [22], "ipv4": [], "ipv6": []}, {"ports": [2222], "ipv4": None}]),
    ],
)  # fmt: skip
def test_a_connection_that_stays_possible_is_sound(connection: list[str] | None, rules: list[Facts] | None) -> None:
    assert judged({"management": rules or ORDER["management"]}, connection=connection) == ""


# --- legs, kernel, room, clock, release, ports ---


@pytest.mark.parametrize(
    ("facts", "ssh", "word"),
    [
        ({"login": ["alice", True]}, {"users": ["root"], "root": "no"}, "Ansible came in as alice"),
        ({"login": ["root", True]}, {"users": ["root"], "root": "no"}, "will not let root in"),
        ({"login": ["alice", False]}, {"users": [], "root": "no"}, "there is none for alice"),
        ({"ra_devices": ["dmz0"]}, ORDER["ssh"], "add 'dmz' to lemonstand_accept_ra"),
        ({"ra_devices": ["eth7"]}, ORDER["ssh"], "on eth7, which will be heard no more: give it"),
    ],
)
def test_who_and_what_would_be_lost_is_named(facts: Facts, ssh: Facts, word: str) -> None:
    assert word in judged({**ORDER, "ssh": ssh}, **facts)


@pytest.mark.parametrize(
    ("facts", "order"),
    [
        ({"login": None}, {}),
        ({"login": ["alice", True]}, {"ssh": {"users": ["root", "alice"], "root": "no"}}),
        ({"login": ["alice", True]}, {"ssh": {"users": [], "root": "no"}}),
        ({"ra_devices": ["dmz0"]}, {"routers": ["dmz0"]}),
    ],
)
def test_who_and_what_stays_is_sound(facts: Facts, order: Facts) -> None:
    assert judged({**ORDER, **order}, **facts) == ""


def test_a_kernel_without_ipv6_is_named_if_it_is_to_have_any() -> None:
    said = judged(ipv6=False)
    assert "the kernel has no IPv6" in said and "ipv6.disable=1" in said and "lemonstand_zones" in said
    legs = {zone: {"device": leg["device"], "ipv4": leg["ipv4"]} for zone, leg in ORDER["legs"].items()}
    assert judged({"legs": legs}, ipv6=False) == ""


@pytest.mark.parametrize(
    ("addresses", "word"),
    [
        ({"eth0": []}, "there is no device dmz0"),
        ({"dmz0": ["192.0.2.11", "2001:db8:2::10"], "mgmt0": SOUND["addresses"]["mgmt0"]}, "192.0.2.10 is not on dmz0"),
        ({"dmz0": ["192.0.2.10"], "mgmt0": SOUND["addresses"]["mgmt0"]}, "2001:db8:2::10 is not on dmz0"),
    ],
)
def test_legs_that_are_not_there_are_named(addresses: dict[str, list[str]], word: str) -> None:
    assert word in judged(addresses=addresses)


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        ({"listeners": [["::", 143, "nginx", 7, "nginx.service"]]}, "`systemctl disable --now nginx.service`"),
        ({"listeners": [["127.0.0.1", 587, "exim4", 7, "exim4.service"]]}, "port 587 is taken by exim4"),
        ({"listeners": [["::", 143, "docker-proxy", 7, ""]]}, "port 143 is taken by docker-proxy (process 7): stop that"),
        ({"places": {"/etc": {"readonly": True, "mib": 1, "inodes": None}}}, "/etc is read-only"),
        ({"places": {"/var": {"readonly": False, "mib": 3, "inodes": None}}}, "/var has 3 MiB left"),
        ({"places": {"/": {"readonly": False, "mib": 3000, "inodes": 12}}}, "room for 12 more files"),
        ({"time": NOW - 3600}, "3600 s behind the controller's"),
        ({"time": NOW + 86400}, "86400 s ahead of the controller's"),
        ({"release": {"ID": "debian", "VERSION_ID": "12", "PRETTY_NAME": "Debian GNU/Linux 12 (bookworm)"}}, "runs Debian GNU/Linux 12"),
        ({"release": {"ID": "ubuntu", "VERSION_ID": "24.04", "PRETTY_NAME": "Ubuntu 24.04"}}, "runs Ubuntu 24.04"),
        ({"programs": {"dovecot-core": ["1:2.3.19.1+dfsg1-2.1", True]}}, "this host has dovecot-core 1:2.3.19.1+dfsg1-2.1"),
        (
            {"programs": {"dovecot-core": ["1:2.40-1", False]}},
            "would get dovecot-core 1:2.40-1: the roles are written for",
        ),
        ({"systemd": False}, "systemd is not running"),
    ],
)
def test_other_states_are_named(facts: Facts, word: str) -> None:
    assert word in judged(**facts)


@pytest.mark.parametrize(
    "facts",
    [
        {"listeners": [["::", 143, "nginx", 7, "nginx.service"]], "page": True},
        {"listeners": [["::", 8080, "nginx", 7, "nginx.service"], ["::", 143, "dovecot", 8, "dovecot.service"]]},
        {"places": {"/": {"readonly": False, "mib": 100, "inodes": 1000}}},
        {"time": NOW - 200},
        {"programs": {}},
        {"programs": {"dovecot-core": ["1:2.4.3-1", False]}},
        {"release": {"ID": "debian", "VERSION_ID": "", "PRETTY_NAME": "Debian GNU/Linux forky/sid"}},
    ],
)
def test_states_that_hinder_nothing_are_not(facts: Facts) -> None:
    assert judged(**facts) == ""


def test_it_looks_and_answers_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """On the machine that runs the tests: whatever it is, the answer is JSON and the exit status fits."""
    code = state.main(json.dumps({"only": "filters"}))
    out = capsys.readouterr()
    faults = json.loads(out.out)["faults"]
    assert code == (1 if faults else 0)
    assert out.err.splitlines() == faults


def test_looking_reads_everything_a_judge_asks_for() -> None:
    facts = state.look({})
    assert set(facts) == set(SOUND)
    state.judge(facts, ORDER)


@pytest.mark.parametrize(
    ("units", "said", "idle"),
    [
        ([], {}, True),
        (["a.service"], {"systemctl": "active\n", "ss": "LISTEN 0 9 *:143 *:*\nLISTEN 0 9 [::]:22 [::]:*\n"}, False),
        (["a.service", "b.service"], {"systemctl": "active\n\nfailed\n", "ss": "LISTEN 0 9 *:143 *:*\n"}, True),
        (["a.service"], {"systemctl": "active\n", "ss": "LISTEN 0 9 *:22 *:*\n"}, True),
        (["a.service"], {}, False),  # busy, and nobody can say
    ],
)
def test_who_is_not_at_work_is_idle(
    units: list[str], said: dict[str, str], idle: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in units:
        (tmp_path / f"{name}.json").touch()
    monkeypatch.setattr(state, "run", lambda program, *_: said.get(program))
    assert state.is_idle([143], said.get("ss", ""), str(tmp_path)) is idle


@pytest.mark.parametrize(("store", "said", "refused"), [("store1", None, False), ("store2", None, True), ("store2", "store2", False)])
def test_an_inventory_that_moves_somebody_is_refused_with_the_command(store: str, said: str | None, refused: bool) -> None:
    """What it said when the host last heard of it is no news; a user without a place yet is none either."""
    told = {"users": {"alice@x.test": "store1"}, "said": {"alice@x.test": said} if said else {}}
    order = {"places": {"alice@x.test": store, "new@x.test": "store2"}}
    faults = list(state.judge_places({"placement": told}, order))
    assert [f"lemonstand user move alice@x.test --to {store}" in fault for fault in faults] == ([True] if refused else [])
    assert list(state.judge_places({"placement": None}, order)) == []
    assert len(list(state.judge_places({"placement": "cut off"}, order))) == 1
