"""A real site's inventory as a lab holds it: same hosts and settings, other addresses, none of its secrets."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lemonstand.errors import InputError
from lemonstand.lab.plan import plan
from lemonstand.lab.rehearsal import Addresses, write, zones_of
from lemonstand.lab.seeds import seed_passwords
from lemonstand.lab.topology import Topology
from lemonstand.policy import load_flows, load_timers
from lemonstand.site import Site, build, load_site, read_inventory
from lemonstand.survey import of_a_lab
from sample_site import Tree, sound_site, write_site

LAB = Topology("sample", "10.99")
ZONES = {
    "internet": (ip_network("203.0.113.0/24"), ip_network("2001:db8:1::/64")),
    "dmz": (ip_network("192.0.2.0/26"), ip_network("2001:db8:2::/64")),
    "management": (ip_network("198.51.100.0/24"),),
}


def _addresses(known: dict[str, str] | None = None) -> Addresses:
    return Addresses(LAB, ZONES, {} if known is None else known)


TEXTS = {
    "192.0.2.10": "10.99.2.10",
    "2001:db8:2::10": "fd6c:656d:99:2::10",
    "2001:db8:2::1f": "fd6c:656d:99:2::31",
    "inet:192.0.2.10:25": "inet:192.0.2.10:25",  # a colon before it: part of another word
    "[192.0.2.10]:25": "[10.99.2.10]:25",
    "host 192.0.2.10, 192.0.2.11": "host 10.99.2.10, 10.99.2.11",
    "192.0.2.0/26": "10.99.2.0/24",
    "2001:db8:2::/64": "fd6c:656d:99:2::/64",
    "203.0.113.53": "10.99.1.25",  # a server on the Internet is the peer
    "8.8.8.8": "10.99.1.25",
    "127.0.0.1": "127.0.0.1",
    "0.0.0.0/0": "0.0.0.0/0",
    "1.2.3": "1.2.3",
    "version 10.11.12.13.14": "version 10.11.12.13.14",
    "12:30": "12:30",
    "mail.example.org": "mail.example.org",
}


@pytest.mark.parametrize("text", TEXTS)
def test_addresses_in_texts(text: str) -> None:
    assert _addresses().text(text) == TEXTS[text]


def test_a_host_on_the_internet_keeps_its_own_address_and_the_carrier_s_are_nobody_s() -> None:
    addresses = _addresses()
    assert str(addresses.of(ip_address("203.0.113.1"), "internet")) == "10.99.1.1"
    taken = [str(addresses.of(ip_address(f"203.0.113.{octet}"), "internet")) for octet in (2, 25, 110)]
    assert not {"10.99.1.2", "10.99.1.25", "10.99.1.110"} & set(taken)
    assert len(set(taken)) == 3
    assert str(addresses.of(ip_address("198.51.100.254"), "management")) != "10.99.5.254"


@given(st.lists(st.integers(1, 200), unique=True, max_size=60), st.lists(st.integers(1, 200), unique=True, max_size=20))
def test_no_address_is_given_twice_and_what_was_given_stays(first: list[int], later: list[int]) -> None:
    known: dict[str, str] = {}
    given_first = {octet: str(_addresses(known).of(ip_address(f"198.51.100.{octet}"), "management")) for octet in first}
    everything = {octet: str(_addresses(known).of(ip_address(f"198.51.100.{octet}"), "management")) for octet in [*later, *first]}
    assert everything | given_first == everything
    assert len(set(everything.values())) == len(everything)


def test_a_zone_that_is_too_large_is_named() -> None:
    addresses = Addresses(LAB, {"dmz": (ip_network("172.16.0.0/16"),)}, {})
    with pytest.raises(InputError, match="more addresses than a lab's"):
        for number in range(300):
            addresses.of(ip_address("172.16.0.0") + number, "dmz")


def _rehearsed(tmp_path: Path, tree: Tree) -> tuple[Site, dict[str, Any], dict[str, str]]:
    real = write_site(tmp_path / "real", tree)
    raw = read_inventory(real)
    folder, known = tmp_path / "lab", dict[str, str]()
    (folder / "secrets").mkdir(parents=True)
    inventory = write(LAB, build(real, raw, load_flows(), load_timers()), raw, folder, known)
    env = {"LEMONSTAND_LAB_DIR": str(folder), "LEMONSTAND_LAB_PREFIX": LAB.prefix}
    assert of_a_lab(inventory)
    assert seed_passwords(read_inventory(inventory, env), folder)
    hosts = yaml.safe_load((inventory / "hosts.yml").read_text(encoding="utf-8"))
    return load_site(inventory, env), hosts, known


def test_a_sound_site_makes_a_sound_lab(tmp_path: Path) -> None:
    site, hosts, _ = _rehearsed(tmp_path, sound_site())
    ways = {name: host["ansible_host"] for group in hosts["all"]["children"].values() for name, host in group["hosts"].items()}
    lab = plan("sample", LAB.prefix, site, ways)
    assert {machine.name for machine in lab.machines} == {"edge", "frontend", "auth", "store", "relay", "peer", "handset"}
    assert site.settings.mail_domains == ("lemon.example",)
    assert len(site.settings.probe_users) == 2
    assert str(site.settings.public_ipv4) == str(site.hosts["edge"].interfaces["internet"].ipv4)
    assert [str(each) for each in site.hosts["relay"].settings.dns_resolvers] == ["10.99.1.25"]
    assert {record["type"] for record in hosts["all"]["children"]["peers"]["hosts"]["peer"]["lab_peer_zones"]["lemon.example"]} >= {
        "MX",
        "A",
    }


def test_no_secret_of_the_site_and_nothing_of_others_is_taken(tmp_path: Path) -> None:
    tree = sound_site()
    tree["all"] |= {"lemonstand_foreign_variables": ["archive_key"], "archive_key": "s3cret of others"}
    tree["all"]["lemonstand_users"][0]["password_hash"] = "{SSHA}c2VjcmV0IGhhc2ggb2YgdGhlIHNpdGU="
    del tree["all"]["lemonstand_user_passwords"]["alice@lemon.example"]
    _rehearsed(tmp_path, tree)
    text = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "lab" / "inventory").rglob("*.yml"))
    for secret in ("battery staple", "{SSHA}", "s3cret", "archive_key", "/nowhere/pki"):
        assert secret not in text, secret
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "lab" / "inventory").rglob("*.yml"))


def test_what_only_looks_like_a_template_stays_as_it_is(tmp_path: Path) -> None:
    tree = sound_site()
    tree["all"]["lemonstand_assessment"] = {"owner": "{% raw %}{{ nobody }}{% endraw %}"}
    site, _, _ = _rehearsed(tmp_path, tree)
    assert site.settings.assessment.owner == "{{ nobody }}"


def test_records_outside_the_mail_domains_have_a_zone() -> None:
    from lemonstand.derived.dns import Record  # noqa: PLC0415 - only here

    found = [Record("example.org", "MX", "10 mx.provider.net."), Record("mx.provider.net", "A", "10.99.1.1")]
    zones = zones_of(found, ("example.org",), {"ipv4": "10.99.1.25", "ipv6": "fd6c::25"})
    assert zones["provider.net"] == [{"name": "mx", "type": "A", "value": "10.99.1.1"}]
    assert zones["example.org"] == [{"name": "@", "type": "MX", "value": "10 mx.provider.net."}]
