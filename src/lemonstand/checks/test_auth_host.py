"""Credential hosts: a directory for itself alone, and an issuer that says yes or no."""

from __future__ import annotations

import json
import re

import pytest

from lemonstand.checks.conftest import FactsOf, Measure
from lemonstand.outcomes import expect
from lemonstand.site import Site

pytestmark = pytest.mark.answer("configuration")

ABOUT_A_MINUTE = 90
"""Seconds a ticket may live: "about a minute", docs/words.md."""


@pytest.mark.control("LEM-8-07", "LEM-8-08")
def test_directory_serves_this_host_only(site: Site, facts_of: FactsOf, auth: str, measure: Measure) -> None:
    """slapd listens on loopback, a local socket and, by mutual TLS, for other auth hosts; its unit lets it talk to nobody else."""
    facts = facts_of(auth)
    twins = [host for host in site.group("auths") if host.name != auth]
    own = {str(address) for address in site.hosts[auth].interfaces["auth"].addresses} if twins else set()
    strange = [s for s in facts.sockets if s.port in {389, 636} and not s.is_local and (s.port, s.address) not in {(636, a) for a in own}]
    outside = [f"{s.address} {s.port}" for s in strange]
    inside = [s for s in facts.sockets if s.port == 389 and s.is_local]
    measure("listening on loopback", len(inside))
    expect(not outside, "the directory listens for others", seen=outside, expected="loopback only")
    expect(bool(inside), "the directory does not listen at all", seen="nothing", expected="loopback, port 389")
    unit = facts.unit("slapd")
    measure("IPAddressDeny", unit["IPAddressDeny"])
    expect(
        "0.0.0.0/0" in unit["IPAddressDeny"] and "::/0" in unit["IPAddressDeny"],
        "slapd may talk to others",
        seen=unit["IPAddressDeny"],
        expected="all denied",
    )
    allowed = set(unit["IPAddressAllow"].split())
    legs = [leg for host in twins for zone, leg in host.interfaces.items() if zone != "management"]
    theirs = {f"{address}/{address.max_prefixlen}" for leg in legs for address in leg.addresses}
    wanted = {"127.0.0.0/8", "::1/128", "127.0.0.1/8", *theirs}
    expect(allowed <= wanted, "slapd may talk to others", seen=sorted(allowed - wanted), expected="localhost, and other auth hosts")
    if twins:
        text = facts.text("/etc/ldap/lemonstand.conf")
        demands = re.search(r"^TLSVerifyClient\s+(demand|hard|true)$", text, re.MULTILINE)
        expect(demands is not None, "who has no certificate may ask the directory", seen="no TLSVerifyClient demand", expected="demand")
        ca = re.search(r"^TLSCACertificateFile\s+(\S+)$", text, re.MULTILINE)
        expect(
            ca is not None and ca.group(1).endswith("/ca-auth-peers.crt"),
            "others than auth hosts may be let in",
            seen=ca.group(1) if ca else "no CA",
            expected="the CA that signs for auth hosts alone",
        )
    expect(unit["User"] == "openldap", "slapd runs as somebody else", seen=unit["User"], expected="openldap")


@pytest.mark.control("LEM-8-08")
def test_directory_tells_no_secret(site: Site, facts_of: FactsOf, auth: str, measure: Measure) -> None:
    """Passwords may be tried, and read or compared by other auth hosts alone; nobody lists users; no administrator's exists."""
    text = facts_of(auth).text("/etc/ldap/lemonstand.conf")
    code = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    rules = re.findall(r"^access to (.+)\n((?:[ \t]+by .*\n?)+)", code, re.MULTILINE)
    measure("access rules", len(rules))
    domain = site.settings.internal_domain
    twins = {f'by dn.exact="cn={f"{host.name}.{domain}"[:64]}" read' for host in site.group("auths") if host.name != auth}
    by_what = {what: [line.strip() for line in who.strip().splitlines() if line.strip() not in twins] for what, who in rules}
    expect(
        by_what.get("attrs=userPassword") == ["by anonymous auth", "by * none"],
        "passwords can be read",
        seen=by_what.get("attrs=userPassword"),
        expected="by anonymous auth, by * none",
    )
    # A user writes his own where the site lets him (OPS-15), and reads none.
    own = [what for what in by_what if what.startswith('dn.regex="^uid=[^,]+,ou=people,') and what.endswith('$" attrs=userPassword')]
    if site.settings.self_service:
        granted = [by_what[what] for what in own]
        wanted = ["by self =w", "by anonymous auth", "by * none"]
        expect(granted == [wanted], "a user's own password can be read", seen=granted, expected=wanted)
    first = [*(own if site.settings.self_service else []), "attrs=userPassword"]
    expect(
        [what for what, _ in rules[: len(first)]] == first,
        "another rule comes before that of passwords",
        seen=[what for what, _ in rules[: len(first)]],
        expected=first,
    )
    expect(by_what.get("*") == ["by * none"], "what no rule names can be read", seen=by_what.get("*"), expected="by * none")
    wide = [
        f"{what} {line}"
        for what, lines in by_what.items()
        for line in lines
        if re.match(r"by (\*|users|anonymous|dn\.exact=\S+) (read|write|search|compare|manage)", line)
    ]
    expect(not wide, "anybody may read or search", seen=wide, expected="nobody")
    expect("rootpw" not in code, "an administrator has a password", seen="rootpw", expected="none")
    expect(
        re.search(r"^disallow .*bind_anon", code, re.MULTILINE) is not None,
        "anonymous binds are allowed",
        seen="no 'disallow bind_anon'",
        expected="disallow bind_anon",
    )
    expect(
        re.search(r"^password-hash \{ARGON2\}", code, re.MULTILINE) is not None,
        "new passwords get a fast hash",
        seen="no {ARGON2}",
        expected="{ARGON2}",
    )


@pytest.mark.control("LEM-8-08")
def test_directory_is_the_one_that_was_made(facts_of: FactsOf, auth: str, measure: Measure) -> None:
    """slapd and the issuer use the suffix the directory was made with: under another, first passwords would count again, no lock would."""
    facts = facts_of(auth)
    record = facts.data["directory"]
    expect(bool(record), "this host does not remember its directory", seen=record, expected="a record of suffix and names")
    measure("accounts there ever were", record["names"])
    expect(
        record["owner"] == "root" and not record["mode"] & 0o077,
        "others can read who has an account",
        seen=f"{record['mode']:o} {record['owner']}",
        expected="root, mode 0600",
    )
    slapd = re.findall(r'^suffix\s+"?([^"\n]+?)"?\s*$', facts.text("/etc/ldap/lemonstand.conf"), re.MULTILINE)
    issuer = json.loads(facts.text("/etc/lemonstand/ticket/issuer.json"))["directory_base_dn"]
    measure("suffix", record["suffix"])
    expect(
        slapd == [record["suffix"]] and issuer == record["suffix"],
        "another directory is asked than the one that was made",
        seen={"slapd": slapd, "issuer": issuer},
        expected=record["suffix"],
    )


@pytest.mark.control("LEM-8-08", "LEM-6-05")
def test_no_frontend_takes_the_part_of_others(site: Site, facts_of: FactsOf, auth: str, measure: Measure) -> None:
    """The packet filter lets each frontend's address have so many connections to the issuer, before the rule that lets it in."""
    flow = next(flow for flow in site.active_flows if flow.destination == "auths" and flow.per_source)
    wanted = {
        str(a) for host in site.group("frontends") for zone, leg in host.interfaces.items() if zone != "management" for a in leg.addresses
    }
    bounded: dict[str, int] = {}
    for rule in facts_of(auth).rules.every_rule():
        counts = [each["ct count"] for each in rule["expr"] if "ct count" in each]
        drops = any("drop" in each for each in rule["expr"])
        sources = [
            each["match"]["right"]
            for each in rule["expr"]
            if each.get("match", {}).get("left", {}).get("payload", {}).get("field") == "saddr"
        ]
        if counts and drops and counts[0].get("inv") and rule["chain"] == "input":
            bounded |= {str(source): int(counts[0]["val"]) for source in sources}
    measure("addresses with a share", len(bounded))
    missing = sorted(wanted - set(bounded))
    expect(bool(wanted) and not missing, "a frontend may take all connections", seen=missing, expected="a share for each address")
    other = {source: most for source, most in bounded.items() if most != flow.per_source}
    expect(not other, "the share is another than flows.yml has", seen=other, expected=flow.per_source)


@pytest.mark.control("LEM-8-11")
def test_tickets_are_short_and_narrow(site: Site, facts_of: FactsOf, auth: str, measure: Measure) -> None:
    """What the issuer puts into tickets, and for whom it makes them."""
    order = json.loads(facts_of(auth).text("/etc/lemonstand/ticket/issuer.json"))
    life = int(order["lifetime_seconds"])
    measure("life of a ticket", life, "s")
    expect(0 < life <= ABOUT_A_MINUTE, "tickets live too long", seen=f"{life} s", expected=f"at most {ABOUT_A_MINUTE} s")
    frontends = sorted(f"{host.name}.{site.settings.internal_domain}" for host in site.group("frontends"))
    expect(sorted(order["frontends"]) == frontends, "others than frontends get tickets", seen=order["frontends"], expected=frontends)
    expect(order["scope"] == "mail", "tickets are good for more than mail", seen=order["scope"], expected="mail")
    expect(
        re.match(r"ldapi?://(127\.|\[::1\]|localhost|%2F|/)", order["directory_url"]) is not None,
        "the issuer asks a directory elsewhere",
        seen=order["directory_url"],
        expected="loopback",
    )


@pytest.mark.control("LEM-8-11")
@pytest.mark.supports("LEM-8-12")
def test_signing_key_stays_here(facts_of: FactsOf, auth: str, stores: list[str], frontends: list[str], measure: Measure) -> None:
    """Private ticket keys are on the credential host, for root and the issuer alone; stores have the public halves, frontends none."""
    keys = facts_of(auth).data["ticket_keys"]
    private = {path: entry for path, entry in keys.items() if entry["kind"] == "private"}
    measure("private keys", len(private))
    expect(bool(private), "there is no signing key", seen=sorted(keys), expected="one at least")
    loose = [
        f"{path} {entry['mode']:o} {entry['owner']}"
        for path, entry in private.items()
        if entry["mode"] & 0o077 or entry["owner"] not in {"root", "ticket-issuer"}
    ]
    expect(not loose, "others can read a signing key", seen=loose, expected="root and ticket-issuer, mode 0600 or 0400")
    astray = [
        f"{name}: {path}"
        for name in (*stores, *frontends)
        for path, entry in facts_of(name).data["ticket_keys"].items()
        if entry["kind"] == "private"
    ]
    expect(not astray, "a signing key lies elsewhere", seen=astray, expected="nowhere")
    missing = [name for name in stores if not any(entry["kind"] == "public" for entry in facts_of(name).data["ticket_keys"].values())]
    expect(not missing, "a store has no key to check tickets with", seen=missing, expected="the public keys")


@pytest.mark.control("LEM-8-08")
def test_issuer_runs_without_rights(facts_of: FactsOf, auth: str, measure: Measure) -> None:
    """The one process clients' words reach on this host has no capability and a user of its own."""
    facts = facts_of(auth)
    unit = facts.unit("ticket-issuer")
    measure("capabilities", unit["CapabilityBoundingSet"] or "none")
    expect(unit["ActiveState"] == "active", "the issuer does not run", seen=unit["ActiveState"], expected="active")
    expect(unit["User"] == "ticket-issuer", "the issuer runs as somebody else", seen=unit["User"], expected="ticket-issuer")
    expect(
        unit["CapabilityBoundingSet"] == "" and unit["NoNewPrivileges"] == "yes",
        "the issuer has rights",
        seen=unit["CapabilityBoundingSet"],
        expected="none",
    )
