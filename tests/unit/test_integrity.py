"""What was read from a host against what explains it: a clean host has nothing, each thing beside it is named by the rule of its kind."""

# The rows of the two tables are read as tables.
# ruff: noqa: E501, S108

from __future__ import annotations

import copy
import dataclasses
import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from lemonstand.integrity.discrepancies import APPLY, KINDS
from lemonstand.integrity.judge import accounts, judge
from lemonstand.integrity.known import Known, common_databases, policy_after_a_crash
from lemonstand.policy.debian import load_debian, matches
from lemonstand.site import Site, load_site
from lemonstand.site.model import Expected

ROOT = Path(__file__).resolve().parents[2]
HASH = "a" * 64
KEY = "-----BEGIN PUBLIC KEY-----\nMCow\n-----END PUBLIC KEY-----"
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
OWN = "/etc/dovecot/dovecot.conf"
SYSCTL = "/etc/sysctl.d/60-lemonstand.conf"
HOST = "store1"
Reading = dict[str, Any]


def described(path: str, **more: Any) -> dict[str, Any]:
    return {"path": path, "owner": "root", "group": "root", "mode": "0644", "size": 9, "sha256": HASH, **more}


@pytest.fixture(scope="module")
def site() -> Site:
    return load_site(ROOT / "inventories" / "example")


@pytest.fixture
def known(site: Site) -> Known:
    entry = {"path": OWN, "state": "file", "owner": "root", "group": "root", "mode": "0644", "sha256": HASH}
    gone = {"path": "/usr/local/lib/lemonstand/old", "state": "absent", "owner": "root", "group": "root", "mode": "0644"}
    return Known(
        host=HOST, site=site, entries={each["path"]: each for each in (entry, gone)}, units=("dovecot.service",), accounts=("vmail",),
        texts={SYSCTL: "# ours\nnet.ipv4.tcp_keepalive_time = 7200\n", "/etc/chrony/chrony.conf": "server ntp.example.org iburst\n"},
        login="root", keys=frozenset({"SHA256:controller"}), tickets=frozenset({KEY}), authorities=(), databases={"bash=5": "d1"},
    )  # fmt: skip


def clean(site: Site) -> Reading:
    """A host as it should be."""
    (leg, *_) = site.hosts[HOST].interfaces.values()
    address = str(leg.addresses[0])
    return {
        "files": [described("/etc/passwd")], "kept": [described(OWN)], "altered": [], "missing": [], "templates": [], "loose": [], "archives": [],
        "databases": {"bash": "d1"}, "packages": {"bash": ["5", "install installed"]},
        "accounts": [
            {"name": "root", "uid": 0, "gid": 0, "home": "/root", "shell": "/bin/bash", "password": "locked"},
            {"name": "vmail", "uid": 999, "gid": 999, "home": "/srv/vmail", "shell": "/usr/sbin/nologin", "password": "locked"},
        ],
        "groups": {}, "pam": [],
        "keys": [{"user": "root", "path": "/root/.ssh/authorized_keys", "type": "ssh-ed25519", "fingerprint": "SHA256:controller", "tail": "AAAA", "options": ""}],
        "units": [
            {"Id": "dovecot.service", "ActiveState": "active", "FragmentPath": "/usr/lib/systemd/system/dovecot.service", "Transient": "no"},
            {"Id": "systemd-journald.service", "ActiveState": "active", "FragmentPath": "/usr/lib/systemd/system/x.service", "Transient": "no"},
        ],
        "environment": {}, "enabled": {"dovecot.service": "enabled", "default.target": "multi-user.target"},
        "sockets": [{"protocol": "tcp", "address": "*", "port": "143", "programs": ["/usr/sbin/dovecot"], "unit": "dovecot.service"}],
        "tables": [{"family": "inet", "name": "lemonstand"}], "traffic": [],
        "routes": {
            "rules": {"4": [{"priority": 0, "src": "all", "table": "local"}], "6": []},
            "routes": {"4": [{"dst": "10.0.0.0/24", "dev": "e0", "protocol": "kernel"}], "6": []},
            "links": [{"ifname": "e0", "flags": ["UP"], "linkinfo": {"info_kind": "veth"}}],
            "addresses": [{"ifname": "e0", "addr_info": [{"local": address, "scope": "global", "prefixlen": 24}]}],
            "neighbours": [], "xfrm": "Count: 0",
        },
        "sysctl": {"net.ipv4.tcp_keepalive_time": "7200", "net.ipv4.conf.e0.proxy_arp": "0", "net.ipv4.ip_forward": "0"}, "sysctl_skipped": [],
        "mounts": [{"target": "/", "root": "/", "type": "ext4", "source": "/dev/sda1", "options": "rw"}],
        "modules": {},
        "processes": [
            {"program": "/usr/sbin/dovecot", "package": "dovecot-core", "unit": "/system.slice/dovecot.service", "preload": "", "odd": [],
             "user": "root", "command": "dovecot -F", "orphan": False, "pid": 9},
        ],
        "trusted": [], "certificates": {}, "tickets": {"/etc/lemonstand/ticket-keys/default/RS256/k1": {"public": KEY}},
        "journal": {"settings": "[Journal]\nStorage=auto\n", "level": "info"},
        "time": "^,*,ntp.example.org,2,6,377,1,0,0,0\n", "container": "none", "suffix": "", "cpu": 1.0,
    }  # fmt: skip


def test_a_clean_host_has_nothing(site: Site, known: Known) -> None:
    assert not {kind: found for kind, found in judge(clean(site), known)[0].items() if found}


@pytest.mark.parametrize(("container", "found"), [("none", 1), ("podman", 0)])
def test_what_is_the_machines_is_no_containers_fault(site: Site, known: Known, container: str, found: int) -> None:
    known.texts[SYSCTL] += "net.netfilter.nf_conntrack_buckets = 65536\n"
    reading = clean(site)
    reading["container"] = container
    reading["sysctl"]["net.netfilter.nf_conntrack_buckets"] = "262144"
    assert len(judge(reading, known)[0]["kernel"]) == found


def spoil(path: str, value: Any) -> Callable[[Reading], None]:
    """A change to a reading: `a.b` sets, `a.b+` adds to a list."""

    def change(reading: Reading) -> None:
        *way, last = path.rstrip("+").split("/")
        at = reading
        for word in way:
            at = at[int(word) if isinstance(at, list) else word]
        if path.endswith("+"):
            at[last].append(value)
        else:
            at[int(last) if isinstance(at, list) else last] = value

    return change


UNIT = {"Id": "x.service", "ActiveState": "active", "FragmentPath": "/run/systemd/transient/x.service", "Transient": "yes"}
WANTS = "/etc/systemd/system/multi-user.target.wants/x.service"
SPOILINGS: dict[str, tuple[str, Callable[[Reading], None]]] = {
    "text": ("own-files", spoil("kept/0", described(OWN, sha256="b" * 64))),
    "mode": ("own-files", spoil("kept/0", described(OWN, mode="0666"))),
    "owner": ("own-files", spoil("kept/0", described(OWN, owner="nobody"))),
    "gone": ("own-files", spoil("kept", [])),
    "a link": ("own-files", spoil("kept/0", described(OWN, link="/tmp/x"))),
    "an old one is back": ("own-files", spoil("files+", described("/usr/local/lib/lemonstand/old"))),
    "content of a package": ("packages", spoil("altered+", described("/bin/x", package="x", what="content"))),
    "settings of a package": ("packages", spoil("altered+", described("/etc/x", package="x", what="conffile"))),
    "mode of a package's file": ("packages", spoil("altered+", described("/bin/x", package="x", what="owner or mode"))),
    "missing": ("packages", spoil("missing+", "/usr/bin/x")),
    "hashes": ("packages", spoil("databases/bash", "d2")),
    "hold": ("packages", spoil("packages/bash", ["5", "hold installed"])),
    "half installed": ("packages", spoil("packages/bash", ["5", "install half-configured"])),
    "unsigned": ("packages", spoil("archives+", "/etc/apt/sources.list: deb [trusted=yes] http://x")),
    "unknown file": ("files", spoil("files+", described("/etc/cron.d/x"))),
    "unknown setuid": ("files", spoil("files+", described("/usr/bin/x", mode="4755", package="x"))),
    "capabilities": ("files", spoil("files+", described("/usr/bin/x", mode="0755", package="x", capabilities="AQ=="))),
    "open shadow": ("files", spoil("files+", described("/etc/shadow", mode="0644"))),
    "environment": ("files", spoil("files+", described("/etc/environment", size=3))),
    "another profile": ("files", lambda r: (r["templates"].append(described("/usr/share/base-files/profile")), r["files"].append(described("/etc/profile", sha256="b" * 64)))[0]),
    "place for all": ("files", spoil("files+", described("/usr/local/sbin", mode="0777", state="directory"))),
    "another policy": ("files", spoil("files+", described("/etc/systemd/system/x.service.d/lemonstand-restart.conf"))),
    "enabled": ("units", spoil("files+", described(WANTS, link="../x.service", target="/etc/systemd/system/x.service", target_package="", recorded=False))),
    "masked": ("units", spoil("files+", described("/etc/systemd/system/x.timer", link="/dev/null", target="/dev/null", target_package=""))),
    "by hand": ("units", spoil("units+", UNIT)),
    "stopped": ("units", lambda r: r["units"].pop(0)),
    "failed": ("units", spoil("units/0/ActiveState", "failed")),
    "not at boot": ("units", spoil("enabled/dovecot.service", "disabled")),
    "for every service": ("units", spoil("environment/LD_PRELOAD", "/tmp/x.so")),
    "rescue": ("units", spoil("enabled/default.target", "rescue.target")),
    "account": ("accounts", spoil("accounts+", {"name": "x", "uid": 1001, "gid": 1, "home": "/", "shell": "/bin/sh", "password": "locked"})),
    "shell": ("accounts", spoil("accounts/1/shell", "/bin/bash")),
    "password": ("accounts", spoil("accounts/0/password", "set")),
    "no password": ("accounts", spoil("accounts/1/password", "none")),
    "group": ("accounts", spoil("groups/shadow", ["vmail"])),
    "key": ("accounts", spoil("keys/0/fingerprint", "SHA256:other")),
    "pam": ("accounts", spoil("pam+", "/etc/pam.d/common-auth: auth sufficient pam_permit.so")),
    "ticket key": ("keys", spoil("tickets/k", {"public": "other"})),
    "private ticket key": ("keys", spoil("tickets/~etc~lemonstand~ticket-keys~p", {"private": KEY})),
    "no certificate": ("keys", spoil("certificates", {"/etc/lemonstand/pki/x.crt": "nothing"})),
    "another CA": ("keys", spoil("certificates", {"/etc/lemonstand/pki/ca-hosts.crt": CERTIFICATE})),
    "authority": ("keys", spoil("trusted+", "f" * 64)),
    "socket": ("sockets", spoil("sockets+", {"protocol": "tcp", "address": "127.0.0.1", "port": "9", "programs": [], "unit": "x.service"})),
    "raw socket": ("sockets", spoil("sockets+", {"protocol": "raw", "address": "*", "port": "1", "programs": [], "unit": "dovecot.service"})),
    "table": ("filters", spoil("tables+", {"family": "ip", "name": "x"})),
    "traffic": ("filters", spoil("traffic+", "qdisc clsact ffff: dev e0 parent ffff:fff1")),
    "route": ("routes", spoil("routes/routes/4+", {"dst": "198.51.100.0/24", "gateway": "10.0.0.9", "dev": "e0"})),
    "black hole": ("routes", spoil("routes/routes/4+", {"dst": "198.51.100.0/24", "type": "blackhole"})),
    "rule": ("routes", spoil("routes/rules/4+", {"priority": 5, "src": "all", "table": "9"})),
    "tunnel": ("routes", spoil("routes/links+", {"ifname": "t0", "flags": ["UP"], "linkinfo": {"info_kind": "gre"}})),
    "promiscuous": ("routes", spoil("routes/links/0/flags", ["UP", "PROMISC"])),
    "address": ("routes", spoil("routes/addresses/0/addr_info+", {"local": "192.0.2.9", "scope": "global", "prefixlen": 32})),
    "neighbour": ("routes", spoil("routes/neighbours+", {"dst": "10.0.0.7", "lladdr": "02::", "dev": "e0"})),
    "IPsec": ("routes", spoil("routes/xfrm", "Count: 2")),
    "a setting of ours": ("kernel", spoil("sysctl/net.ipv4.tcp_keepalive_time", "60")),
    "one interface": ("kernel", spoil("sysctl/net.ipv4.conf.e0.proxy_arp", "1")),
    "forwarding": ("kernel", spoil("sysctl/net.ipv4.ip_forward", "1")),
    "module": ("kernel", spoil("modules/x", "(OE)")),
    "mount": ("mounts", spoil("mounts+", {"target": "/etc/dovecot", "root": "/x", "type": "ext4", "source": "/dev/sda1", "options": "rw"})),
    "a network of its own": ("mounts", spoil("mounts+", {"target": "/run/netns/x", "root": "net:[4]", "type": "nsfs", "source": "nsfs", "options": "rw"})),
    "network file system": ("mounts", spoil("mounts+", {"target": "/srv", "root": "/", "type": "nfs4", "source": "x:/", "options": "rw"})),
    "program": ("processes", spoil("processes/0/package", "")),
    "preload": ("processes", spoil("processes/0/preload", "LD_PRELOAD=/tmp/x.so")),
    "library": ("processes", spoil("processes/0/odd", ["/tmp/x.so"])),
    "left behind": ("processes", spoil("processes/0/orphan", True)),
    "copy": ("copies", spoil("loose+", described("/tmp/x", why="a private key"))),
    "silence": ("logs", spoil("journal/settings", "Storage=none\n")),
    "silenced unit": ("logs", spoil("units/0/LogLevelMax", "0")),
    "systemd's level": ("logs", spoil("journal/level", "emerg")),
    "another clock": ("clock", spoil("time", "^,*,ntp.example.org,2,6,377,1,0,0,0\n^,-,evil.example,2,6,377,1,0,0,0\n")),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILINGS)
def test_what_is_beside_it_is_named_by_its_kind(name: str, site: Site, known: Known) -> None:
    kind, change = SPOILINGS[name]
    reading = copy.deepcopy(clean(site))
    if name.endswith("ticket key"):
        path = "/etc/lemonstand/ticket-keys/default/RS256/other"
        reading["files"].append(described(path, mode="0600"))
        reading["tickets"][path] = {"public": "other"} if name[0] == "t" else {"private": KEY}
    else:
        change(reading)
    found = {each: rows for each, rows in judge(reading, known)[0].items() if rows}
    assert set(found) <= {kind, "sockets", "processes"}, found
    assert found[kind]
    for each in found[kind]:
        assert each.remedy and each.seen and each.wanted and each.item
        assert (each.remedy == APPLY) <= (kind in {"own-files", "units", "kernel"}), "apply heals what roles own, and nothing else"


def test_a_site_declares_all_kinds_but_what_roles_own() -> None:
    assert set(get_args(Expected.model_fields["kind"].annotation)) == set(KINDS) - {"own-files"}


def test_every_kind_is_spoilt() -> None:
    assert {kind for kind, _ in SPOILINGS.values()} == set(KINDS)


def test_nothing_hides_another(site: Site, known: Known) -> None:
    reading = copy.deepcopy(clean(site))
    several = [name for name in SPOILINGS if SPOILINGS[name][0] in {"files", "filters", "mounts", "packages"} and name not in {"hold"}]
    for name in several:
        SPOILINGS[name][1](reading)
    assert sum(map(len, judge(reading, known)[0].values())) >= len(several)


def test_what_a_site_declares_is_told_apart_until_it_ends(site: Site, known: Known) -> None:
    reading = clean(site)
    reading["files"] += [described("/etc/cron.d/backup"), described("/etc/cron.d/other")]
    today = dt.datetime.now(dt.UTC).date()

    def with_end(days: int, **more: Any) -> Known:
        until = Expected(
            kind="files", item="/etc/cron.d/back*", reason="the site's backup", owner="Jane Doe", date=today - dt.timedelta(days=9),
            expires=today + dt.timedelta(days=days), **more,
        )  # fmt: skip
        known.site = site.model_copy(update={"settings": site.settings.model_copy(update={"expected": (until,)})})
        return known

    assert [each.item for each in judge(reading, with_end(1))[0]["files"]] == ["/etc/cron.d/other"]
    assert judge(reading, with_end(1))[1] == ["files /etc/cron.d/backup"]
    assert len(judge(reading, with_end(0))[0]["files"]) == 2, "it has ended"
    assert len(judge(reading, with_end(1, hosts=("edge*",)))[0]["files"]) == 2, "it is about other hosts"


@pytest.mark.parametrize("item", ["*", "/*", "??", ""])
def test_nobody_declares_everything(item: str) -> None:
    with pytest.raises(ValidationError):
        Expected(kind="files", item=item, reason="because", owner="Jane Doe", date=dt.date(2026, 1, 1), expires=dt.date(2027, 1, 1))


def test_hashes_that_differ_between_two_hosts_are_known_by_most() -> None:
    def host(digest: str) -> Reading:
        return {"databases": {"bash": digest}, "packages": {"bash": ["5", "install installed"]}}

    assert common_databases([host("a"), host("a"), host("b")]) == {"bash=5": "a"}
    assert common_databases([host("a"), host("b")]) == {}


def test_patterns_with_braces() -> None:
    assert matches("/etc/b.x", "/etc/{a,b}.{x,y}") and not matches("/etc/c.x", "/etc/{a,b}.{x,y}")
    assert matches("/etc/a", "/etc/?", "/none")


def test_the_shipped_data_is_read() -> None:
    assert load_debian().made("/etc/shadow") and not load_debian().made("/etc/cron.d/x")
    assert len(policy_after_a_crash()) == 64


def test_the_account_that_sudo_asks_has_a_password(site: Site, known: Known) -> None:
    """Whom Ansible comes as may have one where sudo asks for it: it opens nothing by SSH. Nobody else may."""
    reading = clean(site)
    reading["accounts"].append({"name": "ops", "uid": 1000, "gid": 1000, "home": "/home/ops", "shell": "/bin/bash", "password": "set"})
    reading["keys"].append({**reading["keys"][0], "user": "ops"})

    def said(**more: Any) -> list[str]:
        return [each.seen for each in accounts(reading, dataclasses.replace(known, login="ops", **more))]

    assert said() == ["has a password"]
    assert not said(asked=True)
    reading["accounts"][0]["password"] = "set"
    assert said(asked=True) == ["has a password"], "root's is none that sudo asks for"
