"""Frontends: a login proxy without mailboxes, users or secrets, built for the place it stands in."""

from __future__ import annotations

import re

import pytest

from lemonstand.checks.conftest import FactsOf, Measure
from lemonstand.outcomes import expect
from lemonstand.remote.facts import Facts
from lemonstand.site import Site

pytestmark = pytest.mark.answer("configuration")

NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "ceph", "fuse.glusterfs", "9p", "afs"}
SANDBOX = {
    "NoNewPrivileges": "yes", "RestrictNamespaces": "yes", "MemoryDenyWriteExecute": "yes", "ProtectHome": "yes",
}  # fmt: skip
FORBIDDEN_CAPABILITIES = {"cap_sys_admin", "cap_sys_ptrace", "cap_net_admin", "cap_sys_module", "cap_dac_read_search", "cap_net_raw"}


def sessions_needed(site: Site, store: str = "") -> tuple[int, int]:
    """(IMAP, submission): a device that lost its network comes back while its old session still waits; submission is short.

    Args:
        site: the site.
        store: of whose users; default: all of them, since each may come by any frontend.
    """
    users = [user for user in site.settings.users if not store or site.store_of(user) == store]
    devices = max(len(users), site.settings.room_for or 0) * site.settings.devices_per_user
    return 2 * devices, devices


@pytest.mark.control("LEM-8-10")
def test_no_mailbox(site: Site, facts_of: FactsOf, frontend: str, measure: Measure) -> None:
    """No storage is configured, mounted or lies about; no delivery agent; nobody can be logged in here."""
    facts = facts_of(frontend)
    settings = facts.dovecot
    for name in ("mail_driver", "mail_path", "mail_inbox_path"):
        measure(name, settings.get(name))
        expect(settings.get(name) == "", f"{name} is set on a frontend", seen=settings.get(name), expected="nothing")
    expect(not settings.sections("userdb"), "the frontend knows users", seen=settings.sections("userdb"), expected="no userdb")
    protocols = settings.get("protocols").split()
    offered = {"imap", "submission"} | ({"sieve"} if site.settings.managesieve else set())
    expect(set(protocols) <= offered, "a frontend offers more than its protocols", seen=protocols, expected=" ".join(sorted(offered)))
    mounts = [f"{m['target']} ({m['type']})" for m in facts.data["mounts"] if m["type"] in NETWORK_FILE_SYSTEMS]
    expect(not mounts, "a network file system is mounted", seen=mounts, expected="none")
    packages = sorted({"dovecot-lmtpd", "nfs-common", "cifs-utils", "postfix", "slapd"} & set(facts.data["packages"]))
    expect(not packages, "software of a mail store is installed", seen=packages, expected="none")
    measure("places with mail", len(facts.data["mailboxes"]))
    expect(not facts.data["mailboxes"], "mail lies on the frontend", seen=facts.data["mailboxes"], expected="none")
    lua = facts.text("/etc/dovecot/ticket.lua")
    successes = re.findall(r"PASSDB_RESULT_OK,\s*\{(.*?)\n\s*\}", lua, re.DOTALL)
    # Comments could hold the word, so only lines of code count.
    proxied = [bool(re.search(r'^\s*proxy\s*=\s*"yes"', body, re.MULTILINE)) for body in successes]
    expect(
        bool(successes) and all(proxied) and "proxy_maybe" not in lua,
        "a login may end here",
        seen=f"{sum(proxied)} of {len(successes)} answers proxy",
        expected="all",
    )


@pytest.mark.control("LEM-8-08")
def test_forwards_and_gets_yes_or_no(site: Site, facts_of: FactsOf, frontend: str, measure: Measure) -> None:
    """One passdb, the Lua one that asks the issuer; no cache; no database, no directory, no PAM."""
    facts = facts_of(frontend)
    settings = facts.dovecot
    passdbs = settings.sections("passdb")
    measure("passdbs", " ".join(passdbs))
    expect(passdbs == ["lua"], "a frontend checks passwords by another way", seen=passdbs, expected="lua")
    cache = settings.get("auth_cache_size")
    measure("auth_cache_size", cache)
    expect(cache in {"0", "0 B"}, "credentials are kept in a cache", seen=cache, expected="0")
    clients = sorted(
        name
        for name in facts.data["packages"]
        if name.startswith(
            ("libnss-ldap", "libpam-ldap", "sssd", "sqlite3", "mariadb", "postgresql", "dovecot-ldap", "dovecot-mysql", "dovecot-pgsql")
        )
    )
    expect(not clients, "software that reads user databases is installed", seen=clients, expected="none")
    # Whoever administers the host may be there under a name of his own.
    people = sorted(set(facts.data["accounts"]) - {facts.account, *site.hosts[frontend].settings.ssh_users})
    expect(not people, "there are accounts of people", seen=people, expected="none but administrators'")


@pytest.mark.supports("LEM-8-12", "LEM-8-13", "LEM-8-08")
def test_holds_nothing_worth_stealing(site: Site, facts_of: FactsOf, frontend: str, measure: Measure) -> None:
    """Of secrets only its own three identities: no signing key, no password, no hash, no key to another host, no doveadm over the net."""
    facts = facts_of(frontend)
    own = {f"/etc/lemonstand/pki/{name}.key" for name in ("public", "store-client", "issuer-client")}
    # The ACME client's account, good for names whose port 80 is this host, and what it was given for them.
    client = "/var/lib/lemonstand-acme/" if site.settings.public_certificate.source == "acme" else "/nowhere/"
    secrets = {path: entry["forms"] for path, entry in facts.data["secrets"].items() if not path.startswith(client)}
    found = {path: forms for path, forms in secrets.items() if path not in own}
    measure("files with secrets", len(facts.data["secrets"]))
    expect(not found, "secrets lie on the frontend", seen=found, expected="its own keys only")
    settings = facts.dovecot
    for name in ("doveadm_password", "auth_master_user_separator", "submission_relay_master_user", "imap_urlauth_submit_user"):
        expect(settings.get(name) == "", f"{name} is set", seen="a value", expected="nothing")
    expect(settings.get("doveadm_port") == "0", "doveadm listens", seen=settings.get("doveadm_port"), expected="0")
    identities = {entry["public"] for name, entry in facts.data["pki"].items() if name in {"store-client.key", "issuer-client.key"}}
    expect(len(identities) == 2, "one identity opens the store and the issuer", seen=len(identities), expected="two keys")


@pytest.mark.control("LEM-8-03")
def test_built_for_the_edge(facts_of: FactsOf, frontend: str, measure: Measure) -> None:
    """Login processes: chroot, a user of their own, one session each or a limit; the unit: no new rights, no rights over the machine."""
    facts = facts_of(frontend)
    unit, settings = facts.unit("dovecot"), facts.dovecot
    wrong = [f"{key} = {unit[key]}" for key, value in SANDBOX.items() if unit[key] != value]
    capabilities = set(unit["CapabilityBoundingSet"].split())
    wrong += [f"may use {name}" for name in sorted(capabilities & FORBIDDEN_CAPABILITIES)]
    measure("capabilities", len(capabilities))
    expect(bool(capabilities) and not wrong, "the unit gives more than a proxy needs", seen=wrong, expected=SANDBOX)
    for service in ("imap-login", "submission-login"):
        section = settings.section(f"service {service}")
        limit = section.get("process_limit", "")
        measure(f"{service} process_limit", limit)
        # doveconf shows what differs from the default; login services have chroot "login" and the login user by default.
        expect(section.get("chroot", "login") == "login", f"{service} has no chroot", seen=section.get("chroot"), expected="login")
        expect(
            section.get("user", "$SET:default_login_user") == "$SET:default_login_user",
            f"{service} runs as somebody else",
            seen=section.get("user"),
            expected="the login user",
        )
        expect(limit.isdigit(), f"{service} has no limit", seen=limit, expected="a number")
    greeting = settings.get("login_greeting")
    expect(
        "ovecot" not in greeting and not re.search(r"\d+\.\d+", greeting),
        "the greeting tells product or version",
        seen=greeting,
        expected="neither",
    )


@pytest.mark.control("LEM-4.1-10")
@pytest.mark.supports("LEM-8-03", "LEM-6-05")
def test_limits_leave_room_for_every_device(site: Site, facts_of: FactsOf, frontend: str, measure: Measure) -> None:
    """Each limit is about load and large enough for all devices at once; the unit's limits come after Dovecot's."""
    facts = facts_of(frontend)
    _check_room(site, facts, measure)


def _check_room(site: Site, facts: Facts, measure: Measure) -> None:
    imap, submission = sessions_needed(site)
    for service, needed in (("imap-login", imap), ("submission-login", submission)):
        section = facts.dovecot.section(f"service {service}")
        share = int(section.get("client_limit", "1")) if section.get("restart_request_count") != "1" else 1
        room = int(section.get("process_limit", "0")) * share
        measure(f"{service} room", room, "sessions")
        expect(room >= needed, f"{service} has too little room", seen=room, expected=f"at least {needed}")
    unit = facts.unit("dovecot")
    files = unit["LimitNOFILE"]
    measure("LimitNOFILE", files)
    expect(
        files == "infinity" or int(files) >= 4 * imap,
        "the unit's limit of descriptors comes first",
        seen=files,
        expected=f"at least {4 * imap}",
    )
    expect(
        unit["TasksMax"] == "infinity" or int(unit["TasksMax"]) >= imap + submission,
        "the unit's limit of tasks comes first",
        seen=unit["TasksMax"],
        expected="infinity",
    )


@pytest.mark.supports("LEM-6-06", "PRO-SUB-01", "PRO-SUB-02", "PRO-SUB-04", "PRO-SUB-06", "PRO-SUB-08", "PRO-SUB-09", "PRO-SUB-10")
def test_announces_what_the_store_can(facts_of: FactsOf, frontend: str, measure: Measure) -> None:
    """EHLO before login carries the extensions of the profile and not the one nobody behind has; IMAP's list is left alone."""
    settings = facts_of(frontend).dovecot
    announced = set(settings.get("submission_backend_capabilities").split())
    measure("submission_backend_capabilities", " ".join(sorted(announced)))
    wanted = {"8BITMIME", "BURL", "CHUNKING", "DSN", "ENHANCEDSTATUSCODES", "PIPELINING", "SIZE"}
    expect(wanted <= announced, "the frontend hides extensions", seen=sorted(announced), expected=sorted(wanted))
    expect("BINARYMIME" not in announced, "the frontend announces what the relay can't take", seen="BINARYMIME", expected="not announced")
    own = settings.section("service imap-login/imap_capability")
    expect(settings.get("imap_capability") == "" and not own, "the frontend has an IMAP list of its own", seen=own, expected="none")
