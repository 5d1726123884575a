"""Every template of every role, for sites of several shapes, judged by the programs that read the result."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import secrets
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from lemonstand.lab import images, machine
from lemonstand.lab.starting import limits
from lemonstand.lab.topology import Topology
from sample_site import Tree, host, in_pairs, leg, sound_site, write_site

from .rendering import ROOT, render

JUDGE = Path(__file__).with_name("judge.sh")
Rendered = dict[str, dict[str, dict[str, str]]]
"""Texts by shape, host and path."""
PACKAGES = (
    "nftables dovecot-core dovecot-imapd dovecot-submissiond dovecot-lmtpd dovecot-sieve dovecot-auth-lua dovecot-managesieved "
    "slapd chrony nsd opendkim postfix postfix-pcre openssl gunicorn certbot pebble nginx"
)


def _profile(name: str) -> Callable[[Tree], object]:
    return lambda tree: tree["all"].update({"lemonstand_tls_profile": name})


def _large(tree: Tree) -> None:
    names = [f"user{number}@lemon.example" for number in range(200)]
    tree["all"]["lemonstand_users"] += [{"name": name, "aliases": [f"alias-{name}"], "store": "store"} for name in names]
    tree["all"]["lemonstand_user_passwords"].update(dict.fromkeys(names, "x"))
    tree["all"]["lemonstand_devices_per_user"] = 60


def _several(tree: Tree) -> None:
    children = tree["hosts"]["all"]["children"]
    children["stores"]["hosts"]["store2"] = host(22, store=leg("store0", "192.0.2.140", "2001:db8:4::11"))
    children["frontends"]["hosts"]["frontend2"] = host(20, dmz=leg("dmz0", "192.0.2.11", "2001:db8:2::11"))
    children["auths"]["hosts"]["auth2"] = host(21, auth=leg("auth0", "192.0.2.76", "2001:db8:3::11"))
    for number, user in enumerate(tree["all"]["lemonstand_users"]):
        user["store"] = "store" if number % 2 else "store2"
        user["aliases"] = ["all@lemon.example", f"own-{number}@lemon.example"]


def _no_edge(tree: Tree) -> None:
    del tree["hosts"]["all"]["children"]["edges"]
    del tree["all"]["lemonstand_public_ipv4"]


def _odd_names(tree: Tree) -> None:
    tree["all"]["lemonstand_users"][0]["aliases"] = ["a&b_c.d-e@lemon.example", "0@lemon.example", "o'x@lemon.example"]
    tree["all"]["lemonstand_mail_domains"] = ["lemon.example", "xn--zitrne-9za.example"]


def _single(other: str) -> Callable[[Tree], object]:
    """A site of one IP version.

    Args:
        other: the one it does without.
    """

    def change(tree: Tree) -> None:
        for zone in tree["all"]["lemonstand_zones"].values():
            del zone[other]
        for members in tree["hosts"]["all"]["children"].values():
            for one in members["hosts"].values():
                for interface in one["lemonstand_interfaces"].values():
                    del interface[other]
        if other == "ipv4":
            del tree["all"]["lemonstand_public_ipv4"]
            tree["all"] |= {
                "lemonstand_controllers": ["2001:db8:5::254"],
                "lemonstand_ntp_servers": ["2001:db8:9::123"],
                "lemonstand_dns_resolvers": ["2001:db8:9::53"],
            }

    return change


def _mixed(tree: Tree) -> None:
    """The DMZ has both IP versions, the zones inside have IPv6."""
    for zone, group, name in (("store", "stores", "store"), ("auth", "auths", "auth")):
        del tree["all"]["lemonstand_zones"][zone]["ipv4"]
        del tree["hosts"]["all"]["children"][group]["hosts"][name]["lemonstand_interfaces"][zone]["ipv4"]
        del tree["hosts"]["all"]["children"]["edges"]["hosts"]["edge"]["lemonstand_interfaces"][zone]["ipv4"]


def _timers(name: str, **others: object) -> Callable[[Tree], object]:
    return lambda tree: tree["all"].update({"lemonstand_timer_profile": name, **others})


def _acme(tree: Tree) -> None:
    tree["all"]["lemonstand_public_certificate"] = {"source": "acme", "directory": "https://acme.example/dir", "email": "ca@lemon.example"}
    tree["all"]["lemonstand_dns_resolvers"] = ["198.51.100.53"]


SHAPES: dict[str, Callable[[Tree], object]] = {
    "plain": lambda tree: None,
    "seed-strict": _profile("seed-strict"),
    "modern": _profile("modern"),
    "strict-timers": _timers("strict"),
    "large": _large,
    "several": _several,
    "no-edge": _no_edge,
    "odd-names": _odd_names,
    "ipv6-only": _single("ipv4"),
    "ipv4-only": _single("ipv6"),
    "mixed": _mixed,
    "managesieve": lambda tree: tree["all"].update(lemonstand_managesieve=True),
    "self-service": lambda tree: tree["all"].update(lemonstand_self_service=True),
    "nat-hostile": _timers("nat-hostile"),
    "dormant": _timers("dormant", lemonstand_middleboxes=[]),
    "acme": _acme,
    "in-pairs": in_pairs,
}


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    """Files by shape, host and path."""
    found = {}
    for name, change in SHAPES.items():
        tree = copy.deepcopy(sound_site())
        change(tree)
        found[name] = render(write_site(tmp_path_factory.mktemp(name), tree))
    found["example"] = render(ROOT / "inventories" / "example")
    with pytest.MonkeyPatch.context() as patch:
        lab = tmp_path_factory.mktemp("lab")
        (lab / "secrets").mkdir()
        users = yaml.safe_load((ROOT / "inventories/lab/group_vars/all/users.yml").read_text(encoding="utf-8"))["lemonstand_users"]
        (lab / "secrets" / "passwords.yml").write_text(yaml.safe_dump({user["name"]: "x" for user in users}), encoding="utf-8")
        patch.setenv("LEMONSTAND_LAB_DIR", str(lab))
        patch.setenv("LEMONSTAND_LAB_PREFIX", "10.83")
        found["lab"] = render(ROOT / "inventories" / "lab")
    return found


TOGETHER = ("/etc/dovecot/", "/etc/lemonstand/dkim/", "/etc/nsd/", "/etc/postfix/", "/etc/systemd/system/")
"""Directories whose files a program reads beside the one it is asked about."""


def unlike(rendered: Rendered) -> list[tuple[str, str, str]]:
    """Shape, host and path of every file, but one alone of those that are alike with all that is read beside them."""
    places: dict[tuple[str, str], tuple[str, str, str]] = {}
    for shape, hosts in rendered.items():
        for name, files in hosts.items():
            read = {folder: repr(sorted(each for each in files.items() if each[0].startswith(folder))) for folder in TOGETHER}
            for path, text in files.items():
                beside = next((read[folder] for folder in TOGETHER if path.startswith(folder)), text)
                places.setdefault((path, beside), (shape, name, path))
    return list(places.values())


def _podman(*words: str) -> subprocess.CompletedProcess[str]:
    runtime = ["--runtime", "runc"] if machine.cgroup_v1() else []
    return subprocess.run(["podman", *runtime, *words], capture_output=True, text=True, timeout=300, check=False)


def _programs(log: Path) -> str:
    """An image with the programs that judge, made once of a base image; `lemonstand lab forget` removes it."""
    machine.check_tools()
    base = images.prepare(lambda line: None, log)
    image = f"localhost/lemonstand-render:{hashlib.sha256(f'{base.image} {PACKAGES}'.encode()).hexdigest()[:16]}"
    if _podman("image", "exists", image).returncode == 0:
        return image
    script = (
        f"set -e; apt-get -q update >/dev/null; DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install {PACKAGES} "
        ">/tmp/apt.log 2>&1 || { tail -5 /tmp/apt.log; exit 9; }"
    )
    name = f"lemonstand-render-{secrets.token_hex(4)}"
    try:
        volume = ("--volume", f"{base.packages}:{images.PACKAGE_MOUNT}:ro")
        for words in (
            ("run", "--name", name, "--network", "none", *limits(), *volume, base.image, "sh", "-c", script),
            ("commit", "--quiet", name, image),
        ):
            done = _podman(*words)
            assert done.returncode == 0, done.stdout + done.stderr
    finally:
        _podman("rm", "--force", "--ignore", name)
    return image


@pytest.fixture(scope="session")
def complaints(rendered: Rendered, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """What the programs say, in a container with their packages from the cache and no network."""
    folder = tmp_path_factory.mktemp("render")
    folder.chmod(0o755)
    for shape, hosts in rendered.items():
        for name, files in hosts.items():
            for path, text in files.items():
                target = folder / shape / name / path[1:]
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text, encoding="utf-8")
    places = unlike(rendered)
    (folder / "places").write_text("".join(f"{shape}/{name} {path}\n" for shape, name, path in places), encoding="ascii")
    image = _programs(folder / "prepare.log")
    volumes = ("--volume", f"{JUDGE}:/judge.sh:ro", "--volume", f"{folder}:/render:ro")
    done = _podman("run", "--rm", "--network", "none", *limits(), "--cap-add", "NET_ADMIN", *volumes, image, "sh", "/judge.sh")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == f"judged {len(places)} files", "the judge has not seen all files"
    yield lines[:-1]


def test_every_text_goes_to_the_judge(rendered: Rendered) -> None:
    """What is left out is the same text; and the same text again where something beside it differs."""
    judged = {(path, rendered[shape][name][path]) for shape, name, path in unlike(rendered)}
    assert judged == {(path, text) for hosts in rendered.values() for files in hosts.values() for path, text in files.items()}
    alone, beside = {"/etc/postfix/main.cf": "x", "/etc/hosts": "y"}, {"/etc/postfix/main.cf": "x", "/etc/postfix/maps": "z"}
    assert [place[1:] for place in unlike({"case": {"one": alone, "two": alone, "three": beside}})] == [
        ("one", "/etc/postfix/main.cf"), ("one", "/etc/hosts"), ("three", "/etc/postfix/main.cf"), ("three", "/etc/postfix/maps"),
    ]  # fmt: skip


def test_the_programs_take_every_file(complaints: list[str]) -> None:
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize("shape", [*SHAPES, "example", "lab"])
def test_nothing_is_left_unrendered(rendered: Rendered, shape: str) -> None:
    hosts = rendered[shape]
    assert {"frontend", "store", "relay", "auth"} <= {name.rstrip("0123456789") for name in hosts}
    for name, files in hosts.items():
        for path, text in files.items():
            assert "{{" not in text and "{%" not in text, f"{name} {path}"
            assert "AnsibleUndefined" not in text and "Undefined" not in text, f"{name} {path}"


def test_ports_of_implicit_tls_follow_the_profile(rendered: Rendered) -> None:
    strict = rendered["seed-strict"]["frontend"]["/etc/dovecot/dovecot.conf"]
    assert "port = 993" not in strict and "port = 465" not in strict
    assert "port = 143" in strict and "port = 587" in strict
    both = rendered["plain"]["frontend"]["/etc/dovecot/dovecot.conf"]
    assert "port = 993" in both and "port = 465" in both


def test_an_acme_site_asks_for_its_name(rendered: Rendered) -> None:
    settings = rendered["acme"]["frontend"]["/etc/lemonstand/acme/certbot.ini"]
    assert "domains = mail.lemon.example" in settings and "server = https://acme.example/dir" in settings
    assert "email = ca@lemon.example" in settings and "register-unsafely" not in settings
    rules = rendered["acme"]["edge"]["/etc/lemonstand/nftables.nft"]
    assert (
        'comment "acme-challenge"' in rules and 'comment "acme-challenge"' not in rendered["plain"]["edge"]["/etc/lemonstand/nftables.nft"]
    )


def test_a_large_site_has_room(rendered: Rendered) -> None:
    """202 users with sixty devices: two sessions a device, and some."""
    text = rendered["large"]["frontend"]["/etc/dovecot/dovecot.conf"]
    limits = [int(line.split("=")[1]) for line in text.splitlines() if line.strip().startswith("process_limit")]
    assert max(limits) >= 24_000


def test_no_secret_is_in_a_file(rendered: Rendered) -> None:
    for hosts in rendered.values():
        for files in hosts.values():
            for path, text in files.items():
                assert "correct horse" not in text and "battery staple" not in text, path


def test_the_directorys_suffix_follows_nothing(rendered: Rendered) -> None:
    for shape, hosts in rendered.items():
        files = hosts["auth" if "auth" in hosts else "auth1"]
        assert 'suffix "o=lemonstand"' in files["/etc/ldap/lemonstand.conf"], shape
        assert '"directory_base_dn": "o=lemonstand"' in files["/etc/lemonstand/ticket/issuer.json"], shape


def test_relays_and_stores_have_no_list_of_users_that_an_apply_would_undo(rendered: Rendered) -> None:
    for shape, hosts in rendered.items():
        relay = hosts["relay" if "relay" in hosts else "relay1"]
        settings = json.loads(relay["/etc/lemonstand/relay-placement.json"])
        assert settings["domains"] and set(settings["members"]) and "users" not in settings, shape
        assert "texthash:/etc/postfix/recipients" not in relay["/etc/postfix/main.cf"], shape
        for table in ("relay_recipient_maps = hash:/var/lib/lemonstand/relay/recipients", "transport_maps = hash:"):
            assert table in relay["/etc/postfix/main.cf"], shape
        assert "smtpd_sender_login_maps=hash:/var/lib/lemonstand/relay/senders" in relay["/etc/postfix/master.cf"], shape
        for path in ("/etc/postfix/recipients", "/etc/postfix/senders", "/etc/postfix/aliases", "/etc/postfix/transport"):
            assert path not in relay, shape
        for name, files in hosts.items():
            if "/etc/lemonstand/served-users.json" in files:
                lists = json.loads(files["/etc/lemonstand/served-users.json"])
                assert (
                    lists["me"] == name and f"passwd_file_path = {lists['lists']}/users.%{{protocol}}" in files["/etc/dovecot/dovecot.conf"]
                )
                assert "/etc/dovecot/users" not in files, shape


def test_what_users_and_sieve_send_is_let_through(rendered: Rendered) -> None:
    """Read receipts, missing fields, blanks in MAIL and Sieve's mail; and one address of the relay at stores, whatever the shape."""
    for shape, hosts in rendered.items():
        for files in hosts.values():
            if "/etc/postfix/stores_headers" in files:
                master = files["/etc/postfix/master.cf"]
                assert "<>=REJECT" not in master and "reject_multi_recipient_bounce" in master, shape
                assert "content_filter=signing:[127.0.0.1]:10588" in master, shape
                assert master.count("smtpd_milters=unix:signer/dkim.sock") == 1, shape
                assert "always_add_missing_headers=yes" in master and "nested_header_checks=\n" in master, shape
            if "/etc/lemonstand/served-users.json" not in files:
                continue
            conf, names = files["/etc/dovecot/dovecot.conf"], files["/etc/hosts"]
            for line in (
                "submission_client_workarounds = whitespace-before-path mailbox-for-path",
                "sieve_redirect_envelope_from = recipient",
                "lmtp_user_concurrency_limit = unlimited",
                "submission_backend_capabilities = 8BITMIME CHUNKING DSN ENHANCEDSTATUSCODES PIPELINING SIZE",
            ):
                assert f"\n{line}\n" in conf, shape
            relay = re.search(r"^submission_relay_host = (\S+)$", conf, re.MULTILINE)
            assert relay is not None
            assert len(re.findall(rf"^\S+ {re.escape(relay[1])}( |$)", names, re.MULTILINE)) == 1, f"{shape}: {names}"


def _trace(rules: str, header: str) -> str | None:
    """What Postfix makes of a header: a new one, None where it drops it, the same where no rule fits."""
    for line in rules.splitlines():
        found = re.fullmatch(r"/(.*)/ (REPLACE|IGNORE) ?(.*)", line)
        if found is None:
            continue
        pattern = found[1].replace("[:space:]", r"\s").replace("[:alnum:]", "A-Za-z0-9")
        if match := re.search(pattern, header, re.DOTALL | re.IGNORECASE):
            return None if found[2] == "IGNORE" else re.sub(r"\$(\d)", lambda number: match[int(number[1])] or "", found[3])
    return header


@pytest.mark.parametrize("client", ["198.51.100.7", "IPv6:2001:db8:ffff::7", "IPv6:2001:db8::1"])
@pytest.mark.parametrize("recipient", ["\n\tfor <bob@lemon.example>", ""])
@pytest.mark.parametrize("how", ["ESMTPS", "ESMTPSA", "UTF8SMTPS"])
def test_a_users_trace_pairs_no_name_with_his_address(rendered: Rendered, client: str, recipient: str, how: str) -> None:
    rules = rendered["lab"]["relay"]["/etc/postfix/stores_headers"]
    secured = '\n\t(using TLSv1.3 with cipher X (256/256 bits))\n\t(Client CN "store.site.lemon.test", Issuer "clients" (verified OK))'
    by = f"by mx.lemon.test (Postfix) with {how} id 4Abc{recipient}; Sun, 29 Nov 2026 10:00:00 +0000 (UTC)"
    given = f"Received: from mail.lemon.test (unknown [{client}]){secured}\n\t{by}"
    assert _trace(rules, given) == f"Received: from [{client}] ([{client}]) {by}"
    for store in ("10.83.4.10", "IPv6:fd6c:656d:83:4::10"):
        assert _trace(rules, given.replace(client, store)) == f"Received: {by}"


@pytest.mark.parametrize(
    ("given", "dropped"),
    [
        ("Received: from mx.lemon.test ([10.83.2.20])\n\tby mail.lemon.test with LMTP\n\tid x; now", True),
        ("Received: from mx.lemon.test ([fd6c:656d:83:2::20])\n\tby mail.lemon.test with LMTP; now", True),
        ("Received: from a (b [IPv6:fd6c:656d:83:4::10]) by c with ESMTP; now", True),
        ("Received: from a (b [1.2.3.4]) by store.site.lemon.test with ESMTP; now", True),
        ("Received: from a (b [110.83.2.20]) by c with ESMTP; now", False),
        ("Received: from a (b [10.83.2.201]) by c with ESMTP; now", False),
        ("Received: from site.lemon.test.example (b [1.2.3.4]) by c with ESMTP; now", False),
        ("Received: from peer (peer [1.2.3.4])\n\t(using TLSv1.3)\n\tby mx.lemon.test (Postfix) with ESMTPS id 4; now", False),
        ("X-Note: from store.site.lemon.test 10.83.2.20 ", False),
    ],
)
def test_only_what_names_the_inside_is_dropped(rendered: Rendered, given: str, dropped: bool) -> None:
    assert _trace(rendered["lab"]["relay"]["/etc/postfix/stores_headers"], given) == (None if dropped else given)


def test_topology_is_what_the_lab_inventory_says(rendered: Rendered) -> None:
    rules = rendered["lab"]["edge"]["/etc/lemonstand/nftables.nft"]
    assert Topology("lab", "10.83").address4("dmz", 10) in rules


ADDRESSES = {"ipv6-only": re.compile(r"(?<![\w.:])\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?![\w.])"), "ipv4-only": re.compile(r"2001:db8:")}
LOCAL = re.compile(r"127\.\d+\.\d+\.\d+|0\.0\.0\.0")


@pytest.mark.parametrize("shape", sorted(ADDRESSES))
def test_a_site_of_one_ip_version_names_no_address_of_the_other(rendered: Rendered, shape: str) -> None:
    for name, files in rendered[shape].items():
        for path, text in files.items():
            assert [found for found in ADDRESSES[shape].findall(text) if not LOCAL.fullmatch(found)] == [], f"{name} {path}"


def test_ends_meet_in_the_ip_version_they_share(rendered: Rendered) -> None:
    for shape in ("ipv6-only", "mixed"):
        assert '"2001:db8:4::10"' in rendered[shape]["frontend"]["/etc/dovecot/ticket.lua"]
        assert "2001:db8:4::10" in rendered[shape]["relay"]["/etc/lemonstand/relay-placement.json"]
    assert "snat" not in rendered["ipv6-only"]["edge"]["/etc/lemonstand/nftables.nft"]


def test_managesieve_is_there_where_it_is_wanted(rendered: Rendered) -> None:
    for name in ("frontend", "store"):
        assert "port = 4190" in rendered["managesieve"][name]["/etc/dovecot/dovecot.conf"]
        assert "sieve-login" not in rendered["plain"][name]["/etc/dovecot/dovecot.conf"]
    assert "4190" in rendered["managesieve"]["edge"]["/etc/lemonstand/nftables.nft"]
    assert "4190" not in rendered["plain"]["edge"]["/etc/lemonstand/nftables.nft"]


@pytest.mark.parametrize(("shape", "seconds"), [("plain", 1740), ("nat-hostile", 240), ("dormant", 7140)])
def test_idle_lines_come_as_the_profile_says(rendered: Rendered, shape: str, seconds: int) -> None:
    text = rendered[shape]["store"]["/etc/dovecot/dovecot.conf"]
    assert f"imap_idle_notify_interval = {seconds} secs" in text
    assert "imap_hibernate_timeout = 30 secs" in text


@pytest.mark.parametrize("shape", ["plain", "nat-hostile", "dormant", "large", "several"])
def test_who_falls_asleep_in_a_change_is_told_to_who_wakes_him(rendered: Rendered, shape: str) -> None:
    """Dovecot's event, the socket it is said to, and a window of half the hibernation timeout: as much would never let sleep."""
    files = rendered[shape]["store"]
    dovecot, unit = files["/etc/dovecot/dovecot.conf"], files["/etc/systemd/system/mailbox-nudge.service"]
    (path,) = re.findall(r"^ListenStream=(.*)$", files["/etc/systemd/system/mailbox-nudge.socket"], re.MULTILINE)
    assert f"unix_path = {path}\n" in dovecot
    assert "filter = event=imap_client_hibernated" in dovecot
    assert "--window 15.0 " in unit
    (mail,) = re.findall(r"^ReadWritePaths=(.*)$", unit, re.MULTILINE)
    assert f"--mail {mail} " in unit
    assert json.loads(files["/etc/lemonstand/served-users.json"])["directory"] == mail, "who wakes sleepers looks elsewhere"
    assert files["/usr/local/lib/lemonstand/mailbox_nudge.py"] == (ROOT / "roles" / "mail_store" / "files" / "mailbox_nudge.py").read_text()


def test_tables_of_connections_grow_with_the_site(rendered: Rendered) -> None:
    """202 users with sixty devices: eight entries each and a thousand are 97,984, and the next power of two is 131,072."""
    for name in ("edge", "frontend", "store"):
        assert "nf_conntrack_max = 131072" in rendered["large"][name]["/etc/sysctl.d/60-lemonstand.conf"]
        assert "nf_conntrack_max = 65536" in rendered["plain"][name]["/etc/sysctl.d/60-lemonstand.conf"]


LISTENERS = {
    "frontend": ("/etc/dovecot/dovecot.conf", r"^listen = (.*)$"),
    "store": ("/etc/dovecot/dovecot.conf", r"^listen = (.*)$"),
    "relay": ("/etc/postfix/main.cf", r"^inet_protocols = (.*)$"),
    "auth": ("/etc/lemonstand/ticket/gunicorn.conf.py", r"^bind = (.*)$"),
}
EXPECTED = {
    "ipv4-only": {"frontend": "*", "store": "*", "relay": "ipv4", "auth": '["0.0.0.0:8443"]'},
    "ipv6-only": {"frontend": "::", "store": "::", "relay": "all", "auth": '["[::]:8443"]'},
    "plain": {"frontend": "*, ::", "store": "*, ::", "relay": "all", "auth": '["[::]:8443"]'},
    "mixed": {"frontend": "*, ::", "store": "::", "relay": "all", "auth": '["[::]:8443"]'},
}


@pytest.mark.parametrize("shape", EXPECTED)
def test_listeners_follow_the_ip_versions_of_a_hosts_legs(rendered: Rendered, shape: str) -> None:
    """A kernel without IPv6 refuses the whole service where one listener asks for it."""
    for name, (path, form) in LISTENERS.items():
        assert re.findall(form, rendered[shape][name][path], re.MULTILINE) == [EXPECTED[shape][name]], name
    services = re.findall(r"^SLAPD_SERVICES=.*$", rendered[shape]["auth"]["/etc/default/slapd"], re.MULTILINE)[0]
    assert ("[::1]" in services) == (shape != "ipv4-only")
    networks = re.findall(r"^mynetworks = (.*)$", rendered[shape]["relay"]["/etc/postfix/main.cf"], re.MULTILINE)[0]
    assert ("[::1]" in networks) == (shape != "ipv4-only")


def test_both_edges_of_a_pair_have_the_same_rules(rendered: Rendered) -> None:
    """Word for word: what one lets through, translates and remembers, the other one does too."""
    one, other = rendered["in-pairs"]["edge"], rendered["in-pairs"]["edge2"]
    for path in ("/etc/lemonstand/nftables.nft", "/etc/sysctl.d/60-lemonstand.conf"):
        assert one[path] == other[path], path
    assert "meta l4proto vrrp accept" in one["/etc/lemonstand/nftables.nft"]
    assert "nopreempt" in one["/etc/keepalived/keepalived.conf"]
    assert "CommitTimeout 7500\n" in one["/etc/conntrackd/conntrackd.conf"]


def test_one_of_each_has_nothing_of_pairs(rendered: Rendered) -> None:
    paths = " ".join(path for files in rendered["plain"].values() for path in files)
    assert not [word for word in ("keepalived", "conntrackd", "edge-watch", "edge-pair", "shared-addresses") if word in paths]
    assert "vrrp" not in rendered["plain"]["edge"]["/etc/lemonstand/nftables.nft"]
    assert "ip saddr !=" not in rendered["plain"]["edge"]["/etc/lemonstand/nftables.nft"]


@pytest.mark.parametrize("to", ["\n\tfor <alice@lemon.example>; ", ";\n\t"], ids=["one", "several"])
def test_the_hop_through_the_signer_says_its_queue_name_alone(rendered: Rendered, to: str) -> None:
    """By it a standby that serves knows what the relay is about to deliver itself: without it a message came twice."""
    lines = rendered["plain"]["relay"]["/etc/postfix/signing_headers"].splitlines()
    rule = next(line for line in lines if line.startswith("/"))
    pattern, _, becomes = rule[1:].partition("/ REPLACE ")
    relay = becomes.split()[2]
    header = (
        f"Received: from {relay} (unknown [127.0.0.1])\n\tby {relay} (Postfix) with ESMTP id 4jf2Bn17wzzcmrw{to}Tue, 01 Dec 2026 13:45:09"
    )
    found = re.fullmatch(pattern.strip("^$"), header, re.DOTALL)
    assert found is not None
    assert becomes == f"Received: by {relay} (Postfix) id $1; $2"
    assert found.groups() == ("4jf2Bn17wzzcmrw", "Tue, 01 Dec 2026 13:45:09")
