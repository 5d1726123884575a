"""A small sound site, and the ways to spoil it that must be refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Tree = dict[str, Any]
"""`{"hosts": …, "all": …, "files": …}`: hosts.yml, group_vars/all/site.yml, further files by path."""


def leg(device: str, fourth: str, sixth: str) -> dict[str, str]:
    """An interface in the documentation networks (RFC 5737, RFC 3849)."""
    return {"device": device, "ipv4": fourth, "ipv6": sixth}


def host(number: int, **interfaces: dict[str, str]) -> Tree:
    """A host with a leg in the management zone and others."""
    management = leg("mgmt0", f"198.51.100.{number}", f"2001:db8:5::{number}")
    return {"ansible_host": f"198.51.100.{number}", "lemonstand_interfaces": {**interfaces, "management": management}}


def sound_site() -> Tree:
    """A site without a fault."""
    children = {
        "edges": {
            "edge": host(
                1,
                internet=leg("internet0", "203.0.113.1", "2001:db8:1::1"),
                dmz=leg("dmz0", "192.0.2.1", "2001:db8:2::1"),
                auth=leg("auth0", "192.0.2.65", "2001:db8:3::1"),
                store=leg("store0", "192.0.2.129", "2001:db8:4::1"),
            )
        },
        "frontends": {"frontend": host(10, dmz=leg("dmz0", "192.0.2.10", "2001:db8:2::10"))},
        "auths": {"auth": host(11, auth=leg("auth0", "192.0.2.75", "2001:db8:3::10"))},
        "stores": {"store": host(12, store=leg("store0", "192.0.2.139", "2001:db8:4::10"))},
        "relays": {"relay": host(13, dmz=leg("dmz0", "192.0.2.20", "2001:db8:2::20"))},
    }
    shared = {
        "lemonstand_site_name": "sample",
        "lemonstand_zones": {
            "dmz": {"ipv4": "192.0.2.0/26", "ipv6": "2001:db8:2::/64"},
            "auth": {"ipv4": "192.0.2.64/26", "ipv6": "2001:db8:3::/64"},
            "store": {"ipv4": "192.0.2.128/26", "ipv6": "2001:db8:4::/64"},
            "management": {"ipv4": "198.51.100.0/24", "ipv6": "2001:db8:5::/64"},
        },
        "lemonstand_mail_domains": ["lemon.example"],
        "lemonstand_public_name": "mail.lemon.example",
        "lemonstand_mx_name": "mx.lemon.example",
        "lemonstand_internal_domain": "site.lemon.example",
        "lemonstand_public_ipv4": "203.0.113.1",
        "lemonstand_controllers": ["198.51.100.254"],
        "lemonstand_ntp_servers": ["203.0.113.123"],
        "lemonstand_dns_resolvers": ["203.0.113.53"],
        "lemonstand_tls_profile": "both",
        "lemonstand_timer_profile": "rfc5383",
        "lemonstand_users": [
            {"name": "alice@lemon.example", "aliases": ["postmaster@lemon.example"]},
            {"name": "bob@lemon.example", "store": "store"},
        ],
        "lemonstand_user_passwords": {"alice@lemon.example": "correct horse", "bob@lemon.example": "battery staple"},
        "lemonstand_devices_per_user": 4,
        "lemonstand_message_size_limit": 52428800,
        "lemonstand_pki_dir": "/nowhere/pki",
        "lemonstand_public_certificate": {"source": "private_ca"},
    }
    hosts = {"all": {"children": {group: {"hosts": members} for group, members in children.items()}}}
    return copy.deepcopy({"hosts": hosts, "all": shared, "files": {}})


def _standby(tree: Tree, store: str, name: str = "standby1", number: int = 31) -> None:
    """One more host in stores, that keeps the mail of another."""
    standby = host(number, store=leg("store0", f"192.0.2.{129 + number}", f"2001:db8:4::{number}"))
    tree["hosts"]["all"]["children"]["stores"]["hosts"][name] = {**standby, "lemonstand_standby_of": store}


def in_pairs(tree: Tree) -> None:
    """Two edges that share addresses, two frontends, two relays."""
    children = tree["hosts"]["all"]["children"]
    for number, (name, fourth) in enumerate((("edge", 2), ("edge2", 3))):
        children["edges"]["hosts"][name] = host(
            (1, 2)[number],
            internet=leg("internet0", f"203.0.113.{fourth}", f"2001:db8:1::{fourth}"),
            dmz=leg("dmz0", f"192.0.2.{fourth}", f"2001:db8:2::{fourth}"),
            auth=leg("auth0", f"192.0.2.{64 + fourth}", f"2001:db8:3::{fourth}"),
            store=leg("store0", f"192.0.2.{128 + fourth}", f"2001:db8:4::{fourth}"),
        )
    children["frontends"]["hosts"]["frontend2"] = host(20, dmz=leg("dmz0", "192.0.2.11", "2001:db8:2::11"))
    children["relays"]["hosts"]["relay2"] = host(23, dmz=leg("dmz0", "192.0.2.21", "2001:db8:2::21"))
    tree["all"]["lemonstand_edge_addresses"] = {
        "internet": {"ipv4": "203.0.113.1", "ipv6": "2001:db8:1::1"},
        "dmz": {"ipv4": "192.0.2.1", "ipv6": "2001:db8:2::1"},
        "auth": {"ipv4": "192.0.2.65", "ipv6": "2001:db8:3::1"},
        "store": {"ipv4": "192.0.2.129", "ipv6": "2001:db8:4::1"},
    }


def write_site(folder: Path, tree: Tree) -> Path:
    """Writes a site's files; returns the inventory."""
    shared = folder / "group_vars" / "all"
    shared.mkdir(parents=True, exist_ok=True)
    (folder / "hosts.yml").write_text(yaml.safe_dump(tree["hosts"], sort_keys=False), encoding="utf-8")
    (shared / "site.yml").write_text(yaml.safe_dump(tree["all"], sort_keys=False), encoding="utf-8")
    for name, content in tree["files"].items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return folder


def member(tree: Tree, group: str, name: str) -> Tree:
    """A host's variables in a tree."""
    found: Tree = tree["hosts"]["all"]["children"][group]["hosts"][name]
    return found


@dataclass(frozen=True)
class Bad:
    """One way to spoil the sound site.

    Args:
        name: says it in a few words.
        spoil: changes the tree in place.
        what: must be part of the fault.
        where: must be part of its place.
        remedy: must be part of its remedy.
    """

    name: str
    spoil: Callable[[Tree], object]
    what: str
    where: str
    remedy: str


def _one_card(name: str, reached: str = "") -> Callable[[Tree], object]:
    """Takes a host's leg in management; it is reached by the other one, or where it should not be."""

    def spoil(tree: Tree) -> None:
        found = member(tree, f"{name}s", name)
        del found["lemonstand_interfaces"]["management"]
        found["ansible_host"] = reached or next(iter(found["lemonstand_interfaces"].values()))["ipv4"]

    return spoil


def _one_card_and(*, four: bool = False, **shared: Any) -> Callable[[Tree], object]:
    """The store has one card, by IPv4 alone if said, and other variables are as given."""

    def spoil(tree: Tree) -> None:
        _one_card("store")(tree)
        tree["all"] |= shared
        if four:
            del member(tree, "stores", "store")["lemonstand_interfaces"]["store"]["ipv6"]
            del tree["all"]["lemonstand_zones"]["store"]["ipv6"]

    return spoil


def _zone(name: str, **networks: Any) -> Callable[[Tree], object]:
    return lambda tree: tree["all"]["lemonstand_zones"][name].update(networks)


def _set(variable: str, value: Any) -> Callable[[Tree], object]:
    return lambda tree: tree["all"].__setitem__(variable, value)


def _own_address(tree: Tree, group: str) -> str:
    """An IPv4 address that a host has."""
    hosts = tree["hosts"]["all"]["children"][f"{group}s"]["hosts"]
    return str(hosts[group]["lemonstand_interfaces"][group]["ipv4"])


def _served_by_a_store(name: str, service: Tree) -> Callable[[Tree], object]:
    """A service at an address of the site's own store."""

    def spoil(tree: Tree) -> None:
        tree["all"]["lemonstand_services"] = {name: {**service, "addresses": [_own_address(tree, "store")]}}

    return spoil


def _unset(variable: str) -> Callable[[Tree], object]:
    return lambda tree: tree["all"].pop(variable)


def _leg(group: str, name: str, zone: str, **values: Any) -> Callable[[Tree], object]:
    return lambda tree: member(tree, group, name)["lemonstand_interfaces"].setdefault(zone, {}).update(values)


def _user(number: int, **values: Any) -> Callable[[Tree], object]:
    return lambda tree: tree["all"]["lemonstand_users"][number].update(values)


def _called(group: str, old: str, new: str) -> Callable[[Tree], object]:
    def rename(tree: Tree) -> None:
        members = tree["hosts"]["all"]["children"][group]["hosts"]
        members[new] = members.pop(old)
        for user in tree["all"]["lemonstand_users"]:
            if user.get("store") == old:
                user["store"] = new

    return rename


def _file(name: str, content: Any) -> Callable[[Tree], object]:
    return lambda tree: tree["files"].__setitem__(name, content)


SITE_YML = "group_vars/all/site.yml:"
MIRROR = {"name": "mirror.example.net", "addresses": ["203.0.113.80"]}
SMARTHOST = {"name": "smtp.example.net", "addresses": ["203.0.113.77"], "user": "site", "password_file": "/nowhere/password"}
DIRECTORY = {
    "name": "ldap.example.net", "addresses": ["10.99.0.5"], "ca": __file__, "bind_name": "uid={local},ou=people,dc=example,dc=net",
}  # fmt: skip
"""A directory behind; any file stands for its CA."""
FLOW = {"name": "extra", "from": "internet", "to": "frontends", "protocol": "tcp", "ports": [4190], "reason": "sieve"}

BOX = {"name": "balancer", "between": ["internet", "dmz"], "established": 6000}
WAIVER = {"reason": "the provider's ceiling", "owner": "network team", "date": "2020-01-01", "expires": "2999-01-01"}


def _boxes(*boxes: Tree, **others: Any) -> Callable[[Tree], object]:
    return lambda tree: tree["all"].update({"lemonstand_middleboxes": list(boxes), **others})


def _waived(**changes: Any) -> Callable[[Tree], object]:
    waiver = {"id": "SITE-1", "title": "an old modem", "controls": ["LEM-7-01"], **WAIVER, "date": "2026-11-01", "expires": "2027-04-01"}
    return lambda tree: tree["all"].update({"lemonstand_waivers": [{**waiver, **changes}]})


BAD_SITES: tuple[Bad, ...] = (
    Bad(
        "a standby of nobody",
        lambda t: _standby(t, "store9"),
        "standby1 is to be the standby of 'store9', which is no other store",
        "hosts.yml",
        "did you mean",
    ),
    Bad(
        "a standby of a standby",
        lambda t: (_standby(t, "store"), _standby(t, "standby1", "standby2", 32)),
        "standby2 is to be the standby of standby1, which is a standby itself",
        "hosts.yml",
        "has no lemonstand_standby_of itself",
    ),
    Bad(
        "two standbys of a store",
        lambda t: (_standby(t, "store"), _standby(t, "store", "standby2", 32)),
        "store has two standbys, standby1 and standby2",
        "hosts.yml",
        "keep one",
    ),
    Bad(
        "a frontend as standby",
        lambda t: t["hosts"]["all"]["children"]["frontends"]["hosts"]["frontend"].update(lemonstand_standby_of="store"),
        "frontend is no store, so it can't be a standby",
        "hosts.yml",
        "group 'stores'",
    ),
    Bad(
        "a user on a standby",
        lambda t: (_standby(t, "store"), t["all"]["lemonstand_users"][1].update(store="standby1")),
        "bob@lemon.example: standby1 is a standby",
        SITE_YML,
        "name the store it stands by for: store",
    ),
    # names of variables
    Bad(
        "unknown key",
        _set("lemonstand_user", []),
        "unknown variable 'lemonstand_user'",
        SITE_YML,
        "did you mean 'lemonstand_users'?",
    ),
    Bad("foreign variable", _set("my_thing", 1), "foreign variable 'my_thing'", SITE_YML, "lemonstand_foreign_variables"),
    Bad(
        "forgotten prefix", _set("mail_domains", []), "foreign variable 'mail_domains'", SITE_YML, "did you mean 'lemonstand_mail_domains'?"
    ),
    Bad(
        "unknown role variable",
        _set("certificates_pki_dri", "/x"),
        "no variable 'certificates_pki_dri'",
        SITE_YML,
        "did you mean 'certificates_pki_dir'?",
    ),
    Bad(
        "misnamed file",
        _file("group_vars/store.yml", {"lemonstand_clock_is_ours": False}),
        "there is no group 'store'",
        "group_vars/store.yml",
        "'stores'",
    ),
    Bad("misnamed host file", _file("host_vars/stroe/x.yml", {}), "there is no host 'stroe'", "host_vars/stroe", "'store'"),
    Bad(
        "shadowed by the playbooks",
        _set("certificates_pki_dir", "/nowhere"),
        "'certificates_pki_dir' has no effect: the playbooks set it after the site",
        SITE_YML,
        "host_vars/",
    ),
    Bad(
        "differs between hosts",
        _file("host_vars/store.yml", {"lemonstand_tls_profile": "modern"}),
        "lemonstand_tls_profile on store differs",
        "host_vars/store.yml:1",
        "group_vars/all",
    ),
    Bad(
        "a port no flow admits",
        _file("host_vars/store.yml", {"ansible_port": 2222}),
        "no flow lets the controllers in on 2222",
        "host_vars/store.yml:1",
        "lemonstand_flows_extra",
    ),
    Bad(
        "a table of others without its family",
        _set("lemonstand_foreign_tables", ["f2b-table"]),
        "lemonstand_foreign_tables[0]",
        SITE_YML,
        "[inet f2b-table]",
    ),
    Bad(
        "a password Jinja would eat",
        lambda tree: tree["all"]["lemonstand_user_passwords"].update({"bob@lemon.example": "50%{% off} 2026 ok"}),
        "lemonstand_user_passwords.bob@lemon.example is a secret with braces",
        SITE_YML,
        "!unsafe",
    ),
    # values
    Bad(
        "missing variable",
        _unset("lemonstand_mx_name"),
        "lemonstand_mx_name is not set",
        "",
        "set it: the name in the MX record",
    ),
    Bad("text for a list", _set("lemonstand_mail_domains", "lemon.example"), "lemonstand_mail_domains: ", SITE_YML, "the domains"),
    Bad("no domains", _set("lemonstand_mail_domains", []), "lemonstand_mail_domains: ", SITE_YML, "the domains"),
    Bad(
        "bad name",
        _set("lemonstand_public_name", "Mail_1"),
        "lemonstand_public_name: 'Mail_1' is no host name",
        SITE_YML,
        "handsets connect",
    ),
    Bad("names alike", _set("lemonstand_mx_name", "mail.lemon.example"), "both mail.lemon.example", SITE_YML, "name of its own"),
    Bad(
        "TLS profile",
        _set("lemonstand_tls_profile", "sloppy"),
        "lemonstand_tls_profile: ",
        SITE_YML,
        "both, seed-strict, modern",
    ),
    Bad(
        "a word DMARC does not have",
        _set("lemonstand_dmarc_policy", "strict"),
        "lemonstand_dmarc_policy: ",
        SITE_YML,
        "neither SPF nor DKIM shows to be theirs",
    ),
    Bad(
        "timer profile",
        _set("lemonstand_timer_profile", "rfc5338"),
        "no timer profile 'rfc5338'",
        SITE_YML,
        "did you mean 'rfc5383'?",
    ),
    Bad(
        "bad network", _set("lemonstand_zones", {"dmz": {"ipv4": "192.0.2.1/24"}}), "lemonstand_zones.dmz.ipv4: ", SITE_YML, "the networks"
    ),
    Bad(
        "zone key",
        lambda t: t["all"]["lemonstand_zones"]["dmz"].update(ipv5="x"),
        "lemonstand_zones.dmz.ipv5: no such key",
        SITE_YML,
        "give",
    ),
    Bad(
        "zone missing",
        lambda t: t["all"]["lemonstand_zones"].pop("auth"),
        "the zone 'auth' has no network",
        SITE_YML,
        "add 'auth'",
    ),
    Bad(
        "zones overlap",
        lambda t: t["all"]["lemonstand_zones"]["dmz"].update(ipv4="192.0.2.0/25"),
        "'auth' and 'dmz' overlap",
        SITE_YML,
        "of its own",
    ),
    Bad("size as text", _set("lemonstand_message_size_limit", "many"), "lemonstand_message_size_limit: ", SITE_YML, "bytes"),
    Bad("size too small", _set("lemonstand_message_size_limit", 1000), "lemonstand_message_size_limit: ", SITE_YML, "bytes"),
    Bad("no devices", _set("lemonstand_devices_per_user", 0), "lemonstand_devices_per_user: ", SITE_YML, "devices one user"),
    Bad("controller", _set("lemonstand_controllers", ["everywhere"]), "lemonstand_controllers[0]: ", SITE_YML, "may open SSH"),
    Bad(
        "certificate source",
        _set("lemonstand_public_certificate", {"source": "magic"}),
        "lemonstand_public_certificate: ",
        SITE_YML,
        "private_ca",
    ),
    Bad(
        "certificate file",
        _set("lemonstand_public_certificate", {"source": "files", "certificate": "/nowhere/a.pem", "key": "/nowhere/a.key"}),
        "/nowhere/a.key is not there",
        SITE_YML,
        "put the PEM file there",
    ),
    Bad(
        "ACME without TLS",
        _set("lemonstand_public_certificate", {"source": "acme", "directory": "http://acme.example/dir"}),
        "lemonstand_public_certificate",
        SITE_YML,
        "private_ca",
    ),
    Bad(
        "ACME without a resolver",
        lambda t: t["all"].update(
            lemonstand_public_certificate={"source": "acme", "directory": "https://acme.example/dir"}, lemonstand_dns_resolvers=[]
        ),
        "frontend has no resolver to find the ACME server with",
        "",
        "lemonstand_dns_resolvers",
    ),
    Bad("relative PKI", _set("lemonstand_pki_dir", "pki"), "lemonstand_pki_dir 'pki' is relative", SITE_YML, "absolute"),
    Bad(
        "undefined",
        _set("lemonstand_mx_name", "mx.{{ nothing_here }}"),
        "'nothing_here' is undefined",
        SITE_YML,
        "define what the template needs",
    ),
    # hosts and addresses
    Bad(
        "no frontend",
        lambda t: t["hosts"]["all"]["children"].pop("frontends"),
        "the group 'frontends' has no host",
        "hosts.yml",
        "add a host",
    ),
    Bad("no auth", lambda t: t["hosts"]["all"]["children"].pop("auths"), "the group 'auths' has no host", "hosts.yml", "add a host"),
    Bad(
        "no store",
        lambda t: t["hosts"]["all"]["children"].pop("stores"),
        "the group 'stores' has no host",
        "hosts.yml",
        "add a host",
    ),
    Bad(
        "no relay",
        lambda t: t["hosts"]["all"]["children"].pop("relays"),
        "the group 'relays' has no host",
        "hosts.yml",
        "add a host",
    ),
    Bad(
        "two roles",
        lambda t: t["hosts"]["all"]["children"]["auths"]["hosts"].update(store={}),
        "host store is in auths and stores",
        "hosts.yml (host store)",
        "its own host",
    ),
    Bad(
        "misspelt group",
        lambda t: t["hosts"]["all"]["children"].update(
            frontend_s={"hosts": {"other": host(40, dmz=leg("dmz0", "192.0.2.40", "2001:db8:2::40"))}}
        ),
        "host other has no role",
        "(host other)",
        "did you mean 'frontends'?",
    ),
    Bad(
        "two zones",
        _leg("frontends", "frontend", "store", **leg("store0", "192.0.2.140", "2001:db8:4::40")),
        "host frontend stands in dmz and store",
        "hosts.yml:",
        "only edges join zones",
    ),
    Bad(
        "wrong zone",
        _leg("stores", "store", "store", ipv4="192.0.2.75"),
        "192.0.2.75 of host store is outside zone 'store'",
        "hosts.yml:",
        "",
    ),
    Bad(
        "wrong zone, IPv6",
        _leg("auths", "auth", "auth", ipv6="2001:db8:4::9"),
        "2001:db8:4::9 of host auth is outside",
        "hosts.yml:",
        "",
    ),
    Bad(
        "unknown zone",
        _leg("stores", "store", "sotre", device="x0", ipv4="192.0.2.200"),
        "unknown zone 'sotre'",
        "hosts.yml:",
        "did you mean 'store'?",
    ),
    Bad(
        "address twice",
        _leg("relays", "relay", "dmz", ipv4="192.0.2.10"),
        "192.0.2.10 is given to frontend and to relay",
        "hosts.yml:",
        "",
    ),
    Bad("device twice", _leg("relays", "relay", "dmz", device="mgmt0"), "host relay has two legs on mgmt0", "hosts.yml:", "one device"),
    Bad(
        "one card, reached elsewhere",
        _one_card("store", "198.51.100.12"),
        "198.51.100.12 lies in 'management', where store has no",
        "",
        "add the leg",
    ),
    Bad("network apart", _zone("dmz", more=["198.18.0.0/26"]), "edge edge has no address in 198.18.0.0/26", "hosts.yml:", "`more`"),
    Bad("network twice", _zone("dmz", more=["192.0.2.32/27"]), "192.0.2.32/27 overlaps another network", SITE_YML, ""),
    Bad("network of another zone", _zone("dmz", more=["192.0.2.96/27"]), "the zones 'auth' and 'dmz' overlap", SITE_YML, ""),
    Bad("network of no version", _zone("dmz", ipv6=None, more=["2001:db8:9::/64"]), "the zone has no ipv6", SITE_YML, ""),
    Bad(
        "two edges, two networks",
        lambda t: (in_pairs(t), _zone("dmz", more=["198.18.0.0/26"])(t)),
        "two edges share one",
        SITE_YML,
        "one larger",
    ),
    Bad(
        "further address",
        _leg("relays", "relay", "dmz", more=["192.0.2.30"]),
        "host relay has further addresses",
        "hosts.yml:",
        "leave it one",
    ),
    Bad(
        "one card, a controller outside",
        _one_card_and(lemonstand_controllers=["203.0.113.7"]),
        "the controller 203.0.113.7 is elsewhere",
        "",
        "give store a",
    ),
    Bad(
        "one card, no common version",
        _one_card_and(lemonstand_controllers=["2001:db8:5::254"], four=True),
        "no controller has an IP version of",
        "",
        "add",
    ),
    Bad(
        "one card behind two edges",
        lambda t: (in_pairs(t), _one_card("store")(t)),
        "which of the two is at work",
        "hosts.yml:",
        "give store a leg",
    ),
    Bad(
        "no address",
        lambda t: member(t, "relays", "relay")["lemonstand_interfaces"].update(dmz={"device": "dmz0"}),
        "neither an IPv4",
        "hosts.yml:",
        "",
    ),
    Bad("address no address", _leg("relays", "relay", "dmz", ipv4="192.0.2.300"), "lemonstand_interfaces.dmz.ipv4: ", "hosts.yml:", ""),
    Bad(
        "interface key",
        _leg("relays", "relay", "dmz", divice="x"),
        "lemonstand_interfaces.dmz.divice: no such key",
        "hosts.yml:",
        "did you mean 'device'?",
    ),
    Bad(
        "no interfaces",
        lambda t: member(t, "auths", "auth").pop("lemonstand_interfaces"),
        "host auth has no leg in auth",
        "",
        "add it to lemonstand_interfaces",
    ),
    Bad(
        "public address",
        _set("lemonstand_public_ipv4", "203.0.113.9"),
        "no edge has lemonstand_public_ipv4 203.0.113.9",
        SITE_YML,
        "edge's own address",
    ),
    Bad(
        "a third edge",
        lambda t: (
            in_pairs(t),
            t["hosts"]["all"]["children"]["edges"]["hosts"].update(edge3=host(3, dmz=leg("dmz0", "192.0.2.4", "2001:db8:2::4"))),
        ),
        "there are 3 edge hosts",
        "hosts.yml",
        "remove edge3",
    ),
    Bad(
        "two edges that share nothing",
        lambda t: (in_pairs(t), t["all"].pop("lemonstand_edge_addresses")),
        "the edges share no ipv4 address in 'internet'",
        "lemonstand_edge_addresses",
        "add internet: {ipv4: …}",
    ),
    Bad(
        "two edges that share too little",
        lambda t: (in_pairs(t), t["all"]["lemonstand_edge_addresses"]["auth"].pop("ipv6")),
        "the edges share no ipv6 address in 'auth'",
        SITE_YML,
        "add auth: {ipv6: …}",
    ),
    Bad(
        "one edge that shares",
        _set("lemonstand_edge_addresses", {"dmz": {"ipv4": "192.0.2.1"}}),
        "is for two edges that share them",
        SITE_YML,
        "add the second edge",
    ),
    Bad(
        "a shared address of a host",
        lambda t: (in_pairs(t), t["all"]["lemonstand_edge_addresses"]["dmz"].update(ipv4="192.0.2.10")),
        "192.0.2.10, which the edges share, is frontend's own",
        SITE_YML,
        "an address that no host has",
    ),
    Bad(
        "a shared address of another zone",
        lambda t: (in_pairs(t), t["all"]["lemonstand_edge_addresses"]["dmz"].update(ipv4="192.0.2.70")),
        "192.0.2.70 is outside zone 'dmz'",
        SITE_YML,
        "an address of the zone",
    ),
    Bad(
        "shared in management",
        lambda t: (in_pairs(t), t["all"]["lemonstand_edge_addresses"].update(management={"ipv4": "198.51.100.200"})),
        "the edges share 198.51.100.200 in 'management'",
        SITE_YML,
        "take 'management' away",
    ),
    Bad(
        "a public address of one edge of two",
        lambda t: (in_pairs(t), t["all"].update(lemonstand_public_ipv4="203.0.113.2")),
        "is not what the edges share in 'internet' (203.0.113.1)",
        SITE_YML,
        "the same address here",
    ),
    # users
    Bad("user address", _user(0, name="alice"), "lemonstand_users[0].name: 'alice' is no mail address", SITE_YML, "name"),
    Bad(
        "a tag in a login name",
        _user(1, name="first+last@lemon.example"),
        "lemonstand_users[1].name: 'first+last@lemon.example' is no mail address here: '+' begins a tag",
        SITE_YML,
        "name",
    ),
    Bad(
        "a tag in an alias",
        _user(1, aliases=["b+c@lemon.example"]),
        "lemonstand_users[1].aliases[0]: 'b+c@lemon.example' is no mail address here: '+' begins a tag",
        SITE_YML,
        "aliases",
    ),
    Bad(
        "a slash in a login name",
        _user(1, name="b/ob@lemon.example"),
        "would leave the mailbox's directory",
        SITE_YML,
        "name",
    ),
    Bad(
        "upper case in a login name",
        _user(1, name="Bob@lemon.example"),
        "write it in lower case: bob@lemon.example",
        SITE_YML,
        "name",
    ),
    Bad(
        "a login name beyond ASCII",
        _user(1, name="bób@lemon.example"),
        "this site offers no SMTPUTF8",
        SITE_YML,
        "name",
    ),
    Bad(
        "a mail domain beyond ASCII",
        _set("lemonstand_mail_domains", ["lemon.example", "lémon.example"]),
        "write its A-label",
        SITE_YML,
        "the domains",
    ),
    Bad(
        "a mail domain twice",
        _set("lemonstand_mail_domains", ["lemon.example", "lemon.example"]),
        "the mail domain lemon.example is there twice",
        SITE_YML,
        "keep one",
    ),
    Bad(
        "the relay's name as a mail domain",
        _set("lemonstand_mail_domains", ["lemon.example", "mx.lemon.example"]),
        "is lemonstand_mx_name too",
        SITE_YML,
        "another name",
    ),
    Bad(
        "a host no host may be called",
        _called("stores", "store", "mail_store1"),
        "host mail_store1: it can't be a host name",
        "hosts.yml (host mail_store1)",
        "mail-store1",
    ),
    Bad(
        "a host in upper case",
        _called("relays", "relay", "Relay"),
        "host Relay: it can't be a host name",
        "hosts.yml (host Relay)",
        "rename the host, to relay",
    ),
    Bad(
        "a host called by its address",
        _called("auths", "auth", "192.0.2.75"),
        "host 192.0.2.75: it is read as an address",
        "hosts.yml (host 192.0.2.75)",
        "ansible_host",
    ),
    Bad(
        "a host with the relay's public name",
        _called("relays", "relay", "mx.lemon.example"),
        "is lemonstand_mx_name too",
        "hosts.yml (host mx.lemon.example)",
        "name of its own",
    ),
    Bad(
        "a host called like a group",
        _called("frontends", "frontend", "relays"),
        "host relays is called like a group",
        "hosts.yml (host relays)",
        "call it something else",
    ),
    Bad(
        "a host called like a group of the site's own",
        lambda t: t["hosts"]["all"]["children"].update(munich={"hosts": {"munich": {}}}),
        "host munich is called like a group",
        "hosts.yml (host munich)",
        "munich1",
    ),
    Bad("user key", _user(0, alias=[]), "lemonstand_users[0].alias: no such key", SITE_YML, "did you mean 'aliases'?"),
    Bad(
        "user without name",
        lambda t: t["all"]["lemonstand_users"].append({"store": "store"}),
        "lemonstand_users[2]: 'name' is missing",
        SITE_YML,
        "add",
    ),
    Bad(
        "user twice",
        _user(1, name="alice@lemon.example"),
        "alice@lemon.example is taken twice",
        SITE_YML,
        "keep one",
    ),
    Bad(
        "alias collides",
        _user(1, aliases=["alice@lemon.example"]),
        "alice@lemon.example is taken twice",
        SITE_YML,
        "keep one",
    ),
    Bad(
        "domain",
        _user(1, name="bob@lemno.example"),
        "bob@lemno.example is in no mail domain",
        SITE_YML,
        "did you mean 'lemon.example'?",
    ),
    Bad(
        "alias domain",
        _user(1, aliases=["b@else.example"]),
        "b@else.example is in no mail domain",
        SITE_YML,
        "lemonstand_mail_domains",
    ),
    Bad("store", _user(1, store="stroe"), "there is no store 'stroe'", SITE_YML, "did you mean 'store'?"),
    Bad(
        "no password",
        lambda t: t["all"]["lemonstand_user_passwords"].pop("bob@lemon.example"),
        "bob@lemon.example has neither a password nor a hash",
        SITE_YML,
        "lemonstand_user_passwords",
    ),
    Bad(
        "password for nobody",
        lambda t: t["all"]["lemonstand_user_passwords"].update({"blob@lemon.example": "x"}),
        "a password for 'blob@lemon.example', who is no user",
        SITE_YML,
        "did you mean 'bob@lemon.example'?",
    ),
    Bad(
        "number as password",
        lambda t: t["all"]["lemonstand_user_passwords"].update({"bob@lemon.example": 7}),
        "user_passwords.bob@",
        SITE_YML,
        "vault",
    ),
    Bad(
        "one probe user",
        _set("lemonstand_probe_users", ["bob@lemon.example"]),
        "names one user only",
        SITE_YML,
        "name two",
    ),
    *(
        Bad(
            f"hash that {name}",
            lambda t, given=given: t["all"]["lemonstand_users"][1].update({"password_hash": given}),  # type: ignore[misc]
            what,
            "lemonstand_users[1].password_hash",
            "lemonstand user hash",
        )
        for name, given, what in (
            ("slapd does not know", "{PBKDF2}100$abc$def", "can't compare hashes of the scheme {PBKDF2}"),
            ("is cut off", "{SHA512-CRYPT}$6$...", "no hash of that kind, or is cut off"),
            ("is none", "correct-horse-battery", "this is no hash"),
            ("is plain text", "{PLAIN}correct horse", "can't compare hashes of the scheme {PLAIN}"),
            ("is no base64", "{SSHA}correct horse!", "no base64"),
            ("is too short", "{SSHA}c2FtcGxl", "6 octets"),
        )
    ),
    *(
        Bad(
            f"password with {name}",
            lambda t, typed=typed: t["all"]["lemonstand_user_passwords"].update({"bob@lemon.example": typed}),  # type: ignore[misc]
            f"lemonstand_user_passwords of bob@lemon.example: the password holds {what}",
            "lemonstand_user_passwords",
            "another first password",
        )
        for name, typed, what in (
            ("a variation selector", "correct \u2764\ufe0f horse battery", "U+FE0F VARIATION SELECTOR-16"),
            ("a joiner", "family \U0001f468\u200d\U0001f469 horse", "U+200D ZERO WIDTH JOINER"),
            ("a soft hyphen", "correct\u00adhorse battery", "U+00AD SOFT HYPHEN"),
            ("a tabulator", "correct\thorse battery", "a control character"),
        )
    ),
    Bad(
        "two directories of one number",
        lambda t: t["hosts"]["all"]["children"]["auths"]["hosts"].update(
            auth74=host(21, auth=leg("auth0", "192.0.2.76", "2001:db8:3::11")),
            auth77=host(22, auth=leg("auth0", "192.0.2.77", "2001:db8:3::12")),
        ),
        "auth74 and auth77 would have the same number (311)",
        "hosts.yml (group 'auths')",
        "call auth77 something else",
    ),
    Bad(
        "probe user who is none",
        _set("lemonstand_probe_users", ["alice@lemon.example", "blob@lemon.example"]),
        "the probe user 'blob@lemon.example' is no user",
        SITE_YML,
        "did you mean 'bob@lemon.example'?",
    ),
    Bad(
        "probe user with a hash",
        lambda t: (
            t["all"]["lemonstand_user_passwords"].pop("bob@lemon.example"),
            t["all"]["lemonstand_users"][1].update({"password_hash": "{SSHA}NHqZKoTHLmiSaXSyHEhpbtmBpJdzYWx0"}),
            t["all"].update({"lemonstand_probe_users": ["alice@lemon.example", "bob@lemon.example"]}),
        ),
        "the probe user bob@lemon.example has no password",
        SITE_YML,
        "vault",
    ),
    # flows
    Bad(
        "disabled flow",
        _set("lemonstand_flows_disabled", ["inbound-mial"]),
        "no flow 'inbound-mial'",
        SITE_YML,
        "did you mean 'inbound-mail'?",
    ),
    Bad(
        "extra flow's end",
        _set("lemonstand_flows_extra", [{**FLOW, "to": "frontend"}]),
        "unknown endpoint 'frontend'",
        SITE_YML,
        "'frontends'?",
    ),
    Bad(
        "extra flow's port",
        _set("lemonstand_flows_extra", [{**FLOW, "ports": [70000]}]),
        "lemonstand_flows_extra[0].ports[0]: ",
        SITE_YML,
        "flows",
    ),
    Bad(
        "extra flow known",
        _set("lemonstand_flows_extra", [{**FLOW, "name": "inbound-mail"}]),
        "a flow 'inbound-mail' already",
        SITE_YML,
        "another name",
    ),
    Bad(
        "extra flow's zone",
        _set("lemonstand_flows_extra", [{**FLOW, "from": "dmzz"}]),
        "flow 'extra': unknown endpoint 'dmzz'",
        SITE_YML,
        "did you mean 'dmz'?",
    ),
    Bad(
        "extra flow that lets a store out",
        _set("lemonstand_flows_extra", [{**FLOW, "from": "stores", "to": "internet"}]),
        "flow 'extra' lets stores reach internet, and stores and auth hosts never reach the Internet (INV-1)",
        SITE_YML,
        "no waiver lifts that",
    ),
    Bad(
        "extra flow that opens the auth host's management",
        _set("lemonstand_flows_extra", [{**FLOW, "from": "controllers", "to": "management", "ports": [9100]}]),
        "flow 'extra' lets controllers by management reach auths by management, and nothing but frontends and its twins reaches",
        SITE_YML,
        "ask it by SSH from the controller",
    ),
    Bad(
        "resolver on the management network",
        _set("lemonstand_dns_resolvers", ["198.51.100.53"]),
        "lemonstand_dns_resolvers makes flow 'dns-udp' let relays reach somebody by management, and no host of the DMZ reaches management",
        SITE_YML,
        "Name an address that lies elsewhere",
    ),
    Bad(
        "backups to the Internet",
        _set("lemonstand_services", {"backup": {"name": "backup.example.net", "addresses": ["203.0.113.200"]}}),
        "lemonstand_services makes flow 'back-up-stores' let stores reach internet, and stores and auth hosts never reach the Internet",
        SITE_YML,
        "Name an address that lies elsewhere",
    ),
    Bad(
        "backups to a host of the site",
        _served_by_a_store("backup", {"name": "backup.example.net"}),
        "backups would go to store (",
        SITE_YML,
        "name an address of a machine that is no host of this inventory",
    ),
    Bad(
        "backups to nobody who could be believed",
        _set("lemonstand_services", {"backup": {"name": "backup.example.net", "addresses": ["198.51.100.53"], "ca": "/nowhere/ca.pem"}}),
        "/nowhere/ca.pem is not there",
        SITE_YML,
        "put the PEM file there",
    ),
    Bad(
        "a smarthost that is a host of the site",
        _served_by_a_store("smarthost", SMARTHOST),
        "mail to others would go to store (",
        SITE_YML,
        "name an address of whoever hands mail on for you",
    ),
    Bad(
        "a smarthost whose password nobody has",
        _set("lemonstand_services", {"smarthost": SMARTHOST}),
        "/nowhere/password is not there",
        SITE_YML,
        "put the password there, in one line, mode 0600",
    ),
    Bad(
        "a smarthost that nobody knows",
        _set("lemonstand_services", {"smarthost": {**SMARTHOST, "ca": "/nowhere/ca.pem"}}),
        "/nowhere/ca.pem is not there",
        SITE_YML,
        "put the PEM file there",
    ),
    Bad(
        "a smarthost with the password in the inventory",
        _set("lemonstand_services", {"smarthost": {**SMARTHOST, "password": "geheim"}}),
        "password",
        SITE_YML,
        "",
    ),
    *(
        Bad(f"a directory behind {what}", _set("lemonstand_services", {"directory": {**DIRECTORY, **change}}), said, SITE_YML, remedy)
        for what, change, said, remedy in (
            ("across the Internet", {"addresses": ["203.0.113.5"]}, "judged at 203.0.113.5, across the Internet", "name a private address"),
            ("that nobody knows", {"ca": "/nowhere/ca.pem"}, "/nowhere/ca.pem is not there", "put the PEM file there"),
            ("that is asked by no name", {"bind_name": None}, "neither bind_name nor search", "give one of them"),
            ("that is asked by one name for all", {"bind_name": "cn=mail,dc=x"}, "is the same for every user", "use {login}"),
            ("with a place nobody fills", {"bind_name": "uid={user},dc=x"}, "says {user}", "use {login}"),
            ("for a domain of somebody else's", {"domains": ["other.example"]}, "other.example is in no mail domain", "one of"),
            ("with a user of somebody else's", {"own_passwords": ["a@other.example"]}, "is no login name of this site", "a whole address"),
            ("that locks at once", {"locks_after": 1}, "locks_after", ""),
            ("with the password in the inventory", {"password": "geheim"}, "password", ""),
            (
                "that is searched by whose password nobody has",
                {
                    "bind_name": None,
                    "search": {"base": "dc=x", "filter": "(uid={login})", "bind_name": "cn=s", "password_file": "/nowhere/p"},
                },
                "/nowhere/p is not there",
                "put the password there, in one line, mode 0600",
            ),
        )
    ),
    Bad(
        "a directory behind that is a host of the site",
        _served_by_a_store("directory", DIRECTORY),
        "passwords would be judged by store (",
        SITE_YML,
        "name an address of the organisation's own directory",
    ),
    Bad(
        "a directory behind that takes two users for one",
        lambda tree: (
            tree["all"]["lemonstand_mail_domains"].append("second.example"),
            tree["all"].__setitem__("lemonstand_services", {"directory": DIRECTORY}),
        ),
        "the one could log in as the other",
        SITE_YML,
        "use {login}",
    ),
    Bad(
        "packages for stores from the Internet",
        _set("lemonstand_services", {"mirror": MIRROR}),
        "lemonstand_services makes flow 'packages-auths' let auths reach internet, and stores and auth hosts never reach the Internet",
        SITE_YML,
        "Name an address that lies elsewhere",
    ),
    Bad(
        "packages for the DMZ from management",
        lambda tree: tree["all"].__setitem__("lemonstand_services", {"mirror_dmz": {**MIRROR, "addresses": ["198.51.100.53"]}}),
        "lemonstand_services makes flow 'packages-frontends' let frontends reach",
        SITE_YML,
        "Name an address that lies elsewhere",
    ),
    Bad(
        "packages from a host of the site",
        _served_by_a_store("mirror_dmz", MIRROR),
        "packages would come from store (",
        SITE_YML,
        "name an address of a mirror that is no host of this inventory",
    ),
    Bad(
        "packages that nobody knows the key of",
        _set("lemonstand_services", {"mirror_dmz": {**MIRROR, "key": "/nowhere/mirror.asc"}}),
        "/nowhere/mirror.asc is not there",
        SITE_YML,
        "put the signing key there",
    ),
    Bad(
        "packages signed by something that is no key",
        _set("lemonstand_services", {"mirror_dmz": {**MIRROR, "key": "/etc/hostname"}}),
        "/etc/hostname is no public key in ASCII armor",
        SITE_YML,
        "gpg --armor --export",
    ),
    Bad(
        "a mirror whose certificate nobody could judge",
        _set("lemonstand_services", {"mirror_dmz": {**MIRROR, "ca": "/nowhere/ca.pem"}}),
        "/nowhere/ca.pem is not there",
        SITE_YML,
        "put the PEM file there",
    ),
    Bad(
        "a flat repository with components",
        _set("lemonstand_services", {"mirror_dmz": {**MIRROR, "sources": [{"path": "/", "suites": ["./"]}]}}),
        "has no components (components: [])",
        SITE_YML,
        "",
    ),
    Bad(
        "a suite that is more than a word",
        _set("lemonstand_services", {"mirror_dmz": {**MIRROR, "sources": [{"path": "/debian", "suites": ["trixie\nTrusted: yes"]}]}}),
        "is no name of a suite or component",
        SITE_YML,
        "",
    ),
    Bad(
        "updates that may wait for no day",
        _set("lemonstand_update_days", 0),
        "lemonstand_update_days",
        SITE_YML,
        "",
    ),
    Bad(
        "waiver of what holds an invariant",
        _waived(controls=["LEM-8-07"]),
        "waives LEM-8-07 as a whole, and nothing but frontends and its twins reaches an auth host",
        SITE_YML,
        "Name the part that is not met",
    ),
    Bad(
        "accepted what nobody proposed",
        _set("lemonstand_accepts", [{"id": "PRO-W11", "by": "Jane Doe", "date": "2026-11-30"}]),
        "there is no deviation 'PRO-W11' to accept",
        SITE_YML,
        "did you mean 'PRO-W1'?",
    ),
    Bad(
        "accepted in days to come",
        _set("lemonstand_accepts", [{"id": "PRO-W1", "by": "Jane Doe", "date": "2999-01-01"}]),
        "'PRO-W1' is accepted on 2999-01-01, which is in the future",
        SITE_YML,
        "give the day it was done",
    ),
    Bad(
        "accepted twice",
        _set("lemonstand_accepts", [{"id": "PRO-W1", "by": "Jane Doe", "date": "2026-11-30"}] * 2),
        "the deviation 'PRO-W1' is accepted twice",
        SITE_YML,
        "leave the one that holds",
    ),
    Bad(
        "controllers locked out",
        _set("lemonstand_flows_disabled", ["management-ssh"]),
        "no flow lets the controllers in",
        SITE_YML,
        "leave the flow 'management-ssh'",
    ),
    # IP versions
    Bad(
        "one family in a zone of two",
        lambda t: member(t, "relays", "relay")["lemonstand_interfaces"]["dmz"].pop("ipv6"),
        "host relay has no IPv6 address in zone 'dmz'",
        "hosts.yml:",
        "give it an address of 2001:db8:2::/64",
    ),
    Bad(
        "no public address",
        _unset("lemonstand_public_ipv4"),
        "nobody outside can reach it by IPv4",
        SITE_YML,
        "set lemonstand_public_ipv4",
    ),
    Bad(
        "an address that is translated, and nothing is",
        _set("lemonstand_routed_ipv4", True),
        "lemonstand_routed_ipv4 says that nothing is translated, and lemonstand_public_ipv4 203.0.113.1 is what is translated",
        SITE_YML,
        "keep the address if the border translates it",
    ),
    Bad(
        "public address without IPv4 behind it",
        lambda t: (
            t["all"]["lemonstand_zones"]["dmz"].pop("ipv4"),
            [
                member(t, *of)["lemonstand_interfaces"]["dmz"].pop("ipv4")
                for of in (("frontends", "frontend"), ("relays", "relay"), ("edges", "edge"))
            ],
        ),
        "lemonstand_public_ipv4 203.0.113.1 leads nowhere",
        SITE_YML,
        "give the zone an IPv4 network",
    ),
    Bad(
        "no common family",
        lambda t: (
            t["all"]["lemonstand_zones"]["store"].pop("ipv4"),
            t["all"]["lemonstand_zones"]["dmz"].pop("ipv6"),
            [member(t, *of)["lemonstand_interfaces"]["store"].pop("ipv4") for of in (("stores", "store"), ("edges", "edge"))],
            [
                member(t, *of)["lemonstand_interfaces"]["dmz"].pop("ipv6")
                for of in (("frontends", "frontend"), ("relays", "relay"), ("edges", "edge"))
            ],
        ),
        "flow 'proxy-imap': frontends and stores share no IP version",
        SITE_YML,
        "same IP version",
    ),
    # timers
    Bad(
        "three hours of silence",
        _set("lemonstand_timers", {"idle_notify": 10800}),
        "timer profile 'rfc5383': idle_notify = 10800 must be < imap_autologout = 1800",
        "(lemonstand_timers.idle_notify) and playbooks/timers.yml (profiles.rfc5383.imap_autologout)",
        "speaks before the server would end it",
    ),
    Bad(
        "three hours on one store",
        _file("host_vars/store.yml", {"mail_store_idle_notify_interval": 10800}),
        "idle_notify = 10800 must be < 7200",
        "host_vars/store.yml:1 (mail_store_idle_notify_interval) and playbooks/timers.yml (relations: idle_notify < 7200)",
        "never silent for two hours",
    ),
    Bad(
        "unknown timer",
        _set("lemonstand_timers", {"idle_notfiy": 1700}),
        "there is no timer 'idle_notfiy'",
        SITE_YML,
        "did you mean 'idle_notify'?",
    ),
    Bad(
        "a hostile network's pace out of its range",
        lambda t: t["all"].update(lemonstand_timer_profile="nat-hostile", lemonstand_timers={"idle_notify": 60}),
        "timer profile 'nat-hostile': idle_notify = 60 must be >= 240",
        "(lemonstand_timers.idle_notify)",
        "every four minutes",
    ),
    Bad(
        "dormant without a word on the path",
        _set("lemonstand_timer_profile", "dormant"),
        "timer profile 'dormant' needs a word about the devices on the path",
        SITE_YML,
        "lemonstand_middleboxes",
    ),
    Bad(
        "dormant without hibernation",
        lambda t: t["all"].update(lemonstand_timer_profile="dormant", lemonstand_middleboxes=[], lemonstand_timers={"hibernate": 0}),
        "timer profile 'dormant': hibernate = 0 must be >= 1",
        "(lemonstand_timers.hibernate)",
        "hibernated sessions",
    ),
    # devices of others on the path
    Bad(
        "a balancer's ceiling",
        _boxes(BOX),
        "middlebox 'balancer' between internet and dmz: established = 6000 must be >= 7440",
        "(lemonstand_middleboxes[0].established) and playbooks/timers.yml (hops: established >= 7440)",
        "add a waiver",
    ),
    Bad(
        "a balancer that forgets sleepers",
        _boxes({**BOX, "established": 350, "waiver": WAIVER}),
        "established = 350 must be > idle_notify = 1740",
        "(lemonstand_middleboxes[0].established) and playbooks/timers.yml (profiles.rfc5383.idle_notify)",
        "lower idle_notify",
    ),
    Bad(
        "a waiver that ended",
        _boxes({**BOX, "waiver": {**WAIVER, "expires": "2020-06-01"}}),
        "the waiver of middlebox 'balancer' ended on 2020-06-01",
        "(lemonstand_middleboxes[0].waiver.expires)",
        "ask network team",
    ),
    Bad(
        "a waiver of nothing",
        _boxes({**BOX, "established": 7440, "waiver": WAIVER}),
        "waives nothing",
        SITE_YML,
        "remove it",
    ),
    Bad(
        "a waiver nobody answers for",
        _boxes({**BOX, "waiver": {key: value for key, value in WAIVER.items() if key != "owner"}}),
        "lemonstand_middleboxes[0].waiver: 'owner' is missing",
        SITE_YML,
        "add 'owner'",
    ),
    Bad(
        "a middlebox nowhere",
        _boxes({**BOX, "established": 7440, "between": ["internet", "dmzz"]}),
        "lemonstand_middleboxes[0].between[1]: ",
        SITE_YML,
        "balancers and appliances",
    ),
    Bad(
        "a waiver of no control",
        _waived(controls=["LEM-7-99"]),
        "waiver 'SITE-1' is about 'LEM-7-99', which is no control",
        SITE_YML,
        "did you mean 'LEM-7-0",
    ),
    Bad("a waiver's id taken", _waived(id="PRO-W1"), "there is a waiver 'PRO-W1' already", SITE_YML, "an id of its own"),
    Bad("a waiver without an owner", _waived(owner=""), "lemonstand_waivers[0].owner: ", SITE_YML, "owner"),
    Bad(
        "a waiver without an end",
        _waived(expires="some day"),
        "lemonstand_waivers[0].expires: ",
        SITE_YML,
        "expires",
    ),
    Bad("a waiver that never held", _waived(expires="2026-01-01"), "it expires on 2026-01-01, which is not after", SITE_YML, ""),
    Bad(
        "a middlebox that forgets openings",
        _boxes({**BOX, "established": 7440, "transitory": 30}),
        "transitory = 30 must be >= 240",
        "(lemonstand_middleboxes[0].transitory)",
        "add a waiver",
    ),
    Bad(
        "a setting that a control depends on",
        lambda tree: tree["all"].update(lemonstand_postfix_extra={"smtpd_relay_restrictions": "permit"}),
        "'smtpd_relay_restrictions' of postfix on relays is not the site's to choose: LEM-3-05, LEM-8-21, LEM-8-24 depend on it",
        "(lemonstand_postfix_extra.smtpd_relay_restrictions)",
        "leave it out",
    ),
    Bad(
        "a setting that a role sets",
        lambda tree: tree["all"].update(lemonstand_dovecot_extra={"stores": {"vsz_limit": "1 G"}}),
        "'vsz_limit' of dovecot on stores is not the site's to choose: roles/mail_store/templates/etc/dovecot/dovecot.conf.j2 sets it",
        "(lemonstand_dovecot_extra.stores.vsz_limit)",
        "leave it out",
    ),
    Bad(
        "a setting in two lines",
        lambda tree: tree["all"].update(lemonstand_postfix_extra={"smtp_connect_timeout": "3s\nsmtpd_tls_security_level = none"}),
        "lemonstand_postfix_extra.smtp_connect_timeout",
        SITE_YML,
        "",
    ),
    Bad(
        "a text with a setting that a control depends on",
        lambda tree: tree["all"].update(lemonstand_drop_ins={"stores": {"dovecot": "protocol imap {\n  ssl = no\n}\n"}}),
        "line 2 of the text for dovecot on stores: 'ssl' is not the site's to choose: LEM-8-14, LEM-8-19 depend on it",
        "(lemonstand_drop_ins.stores.dovecot)",
        "leave it out",
    ),
    Bad(
        "a text that gives a service rights",
        lambda tree: tree["all"].update(lemonstand_drop_ins={"auths": {"slapd.service": "[Service]\nUser=root\n"}}),
        "line 2 of the text for slapd.service on auths: 'User' is not the site's to choose: LEM-8-09, INT-03 depend on it",
        "(lemonstand_drop_ins.auths.slapd.service)",
        "leave it out",
    ),
    Bad(
        "a text for a program that is elsewhere",
        lambda tree: tree["all"].update(lemonstand_drop_ins={"relays": {"dovecot": "imap_max_line_length = 128 k\n"}}),
        "relays have no 'dovecot' to which a site may add",
        "(lemonstand_drop_ins.relays.dovecot)",
        "postfix.service",
    ),
    Bad(
        "a text that is none",
        lambda tree: tree["all"].update(lemonstand_drop_ins={"stores": {"dovecot.service": {"CPUWeight": 50}}}),
        "lemonstand_drop_ins.stores.dovecot.service",
        SITE_YML,
        "",
    ),
    Bad(
        "a filter that is elsewhere",
        lambda tree: tree["all"].update(lemonstand_relay_milters=["inet:192.0.2.99:8891"]),
        "lemonstand_relay_milters[0]: ",
        SITE_YML,
        "mail filters",
    ),
)
