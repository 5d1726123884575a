"""TLS as it is configured: every leg, its versions and suites, and the certificates and keys behind it."""

from __future__ import annotations

import datetime
import re

import pytest

from lemonstand.admin.health import least_days
from lemonstand.checks.conftest import FactsOf, Measure, Members
from lemonstand.outcomes import expect, invalid
from lemonstand.remote.certificates import all_in
from lemonstand.remote.facts import Facts
from lemonstand.site import Site
from lemonstand.site.shipped import filter_plugin

pytestmark = pytest.mark.answer("configuration")

CERTIFICATES = {
    "frontends": {"public": ("public", "server"), "store-client": ("inner", "client"), "issuer-client": ("inner", "client")},
    "auths": {"issuer": ("inner", "server")},
    "stores": {"mail-store": ("inner", "server"), "relay-client": ("inner", "client")},
    "relays": {"public": ("mx", "server"), "relay": ("inner", "server")},
}
"""Name of the file: (whose name it holds, its one use), as record 0001 has it."""
A_DAY = datetime.timedelta(days=1)
WEAK = re.compile(r"\b(RC4|3DES|DES|MD5|NULL|EXP|LOW|aNULL|CBC|SHA1)\b")


def _name(site: Site, host: str, whose: str) -> str:
    settings = site.settings
    return {"public": settings.public_name, "mx": settings.mx_name}.get(whose) or f"{host}.{settings.internal_domain}"


def _expected(site: Site, node: str) -> dict[str, tuple[str, str]]:
    return {name: entry for group in site.hosts[node].role_groups for name, entry in CERTIFICATES.get(group, {}).items()}


@pytest.mark.control("LEM-8-20")
def test_certificates_name_their_host(site: Site, facts_of: FactsOf, node: str, measure: Measure) -> None:
    """RFC 7817, RFC 6125: the DNS name in the subject alternative name, one use each, in date, for the key beside it."""
    facts = facts_of(node)
    wanted = _expected(site, node)
    if not wanted and "edges" in site.hosts[node].groups:
        expect(not facts.certificates(), "the edge holds certificates it has no use for", seen=list(facts.certificates()), expected="none")
        return
    found = facts.certificates()
    expect(set(wanted) <= set(found), "a certificate is missing", seen=sorted(found), expected=sorted(wanted))
    wrong = []
    for name, (whose, use) in wanted.items():
        certificate, dns = found[name], _name(site, node, whose)
        left = certificate.days_left(facts.data["now"])
        measure(f"{name} names", " ".join(certificate.names))
        measure(f"{name} ends in", round(left, 1), "d")
        if dns not in certificate.names:
            wrong.append(f"{name}: {dns} is not among {certificate.names}")
        own = site.settings.public_certificate.source == "private_ca" or whose != "public"
        # A public CA puts both uses into its certificates; ours are good for one.
        if certificate.uses != [use] if own else use not in certificate.uses:
            wrong.append(f"{name}: good for {certificate.uses}, not for {use} alone")
        if left <= 0:
            wrong.append(f"{name}: ended {-left:.1f} d ago")
        if facts.data["pki"].get(f"{name}.key", {}).get("public") != certificate.public_key:
            wrong.append(f"{name}: its key is not the one beside it")
    expect(
        not wrong,
        f"certificates on {node} are not what they should be",
        seen=wrong,
        expected="the host's name, one use, in date, its own key",
    )


@pytest.mark.control("OPS-31")
def test_certificates_are_renewed_long_before_their_end(site: Site, facts_of: FactsOf, node: str, measure: Measure) -> None:
    """Of each certificate at least 21 days are left, or 7/30 of a short life; of each CA a host trusts half a year, or a twentieth."""
    facts = facts_of(node)
    given = site.settings.public_certificate.source == "files"
    ending = []
    for file, entry in sorted(facts.data["pki"].items()):
        name = file.removesuffix(".crt")
        if name == file or (given and name == "public"):
            continue
        authority = name.startswith("ca-")
        found = all_in(name, entry["pem"])
        # Of several CAs in one file the last one to end counts: the other one is on its way out.
        certificate = max(found, key=lambda each: each.x509.not_valid_after_utc) if authority else found[0]
        left = certificate.days_left(facts.data["now"])
        least = least_days(certificate.life, authority=authority)
        measure(f"{name} ends in", round(left, 1), "d")
        if left < least:
            ending.append(f"{name}: {left:.2f} d, {least:.2f} at least")
    expect(
        not ending, f"certificates on {node} were not renewed in time", seen=ending, expected="renewed at a third of their life",
        remedy="`lemonstand certificates renew --due` says why; of a CA: `lemonstand certificates rotate`",
    )  # fmt: skip


@pytest.mark.control("OPS-32")
def test_hosts_trust_the_cas_in_force(site: Site, facts_of: FactsOf, node: str, measure: Measure) -> None:
    """For each purpose a host trusts the CA the controller signs with, and no other one but while a change of CAs goes on, for a day."""
    rotation = filter_plugin("authorities").rotation(site.settings.pki_dir)
    known = filter_plugin("authorities").authorities(site.settings.pki_dir)
    wrong = []
    for file, entry in sorted(facts_of(node).data["pki"].items()):
        name = file.removesuffix(".crt").removeprefix("ca-")
        if not file.startswith("ca-") or not file.endswith(".crt"):
            continue
        held = [each.sha256 for each in all_in(name, entry["pem"])]
        measure(f"CAs {name}", len(held))
        wanted = known.get(name, {}).get("fingerprints", [])
        if not set(held) <= set(wanted) or not held:
            wrong.append(f"{name}: {len([each for each in held if each not in wanted])} of {len(held)} are not the site's")
        elif wanted[0] not in held:
            wrong.append(f"{name}: not the CA that signs")
    expect(not wrong, f"{node} trusts other CAs than the site's", seen=wrong, expected="those that sign", remedy="lemonstand apply")
    begun = datetime.datetime.fromisoformat(rotation["begun"]) if rotation else None
    late = begun is not None and datetime.datetime.now(datetime.UTC) - begun > A_DAY
    expect(
        not late, "a change of CAs was begun and is not finished", seen=f"since {begun}", expected="done within a day",
        remedy="lemonstand certificates rotate",
    )  # fmt: skip


@pytest.mark.control("LEM-8-05")
def test_keys_are_private(facts_of: FactsOf, node: str, measure: Measure) -> None:
    """Private keys are root's, read by nobody else but at most one group; no key opens two doors."""
    pki = facts_of(node).data["pki"]
    keys = {name: entry for name, entry in pki.items() if name.endswith(".key")}
    measure("keys", len(keys))
    loose = [f"{name} {entry['mode']:o} owner {entry['uid']}" for name, entry in keys.items() if entry["uid"] != 0 or entry["mode"] & 0o137]
    expect(not loose, f"private keys on {node} can be read by others", seen=loose, expected="owner root, mode 0600 or 0640")
    halves = [entry["public"] for entry in keys.values()]
    expect(None not in halves, f"a private key on {node} can't be read", seen=sorted(keys), expected="keys openssl can read")
    expect(len(set(halves)) == len(halves), f"two certificates on {node} share a key", seen=sorted(keys), expected="a key each")


@pytest.mark.control("LEM-8-05", "LEM-8-20")
def test_certificates_fit_the_cas_that_trust_them(site: Site, facts_of: FactsOf, measure: Measure) -> None:
    """Across hosts: each client certificate is signed by the CA its server asks for, each inner server by the one its clients trust."""
    pairs = {
        ("frontends", "store-client", "stores", "store-clients"), ("frontends", "issuer-client", "auths", "issuer-clients"),
        ("stores", "relay-client", "relays", "relay-clients"), ("stores", "mail-store", "frontends", "hosts"),
        ("auths", "issuer", "frontends", "hosts"), ("relays", "relay", "stores", "hosts"), ("stores", "mail-store", "relays", "hosts"),
    }  # fmt: skip
    wrong, count = [], 0
    for owners, name, trusters, authority in sorted(pairs):
        for owner in site.group(owners):
            certificate = facts_of(owner.name).certificates().get(name)
            for truster in site.group(trusters):
                ca = facts_of(truster.name).authority(authority)
                count += 1
                if certificate is None or ca is None or not certificate.signed_by(ca):
                    wrong.append(f"{owner.name}'s {name} for {truster.name}'s CA {authority}")
    measure("pairs", count)
    expect(count > 0 and not wrong, "a certificate is not signed by the CA its peer trusts", seen=wrong, expected="all signed")


def _dovecot_versions(facts: Facts) -> list[str]:
    settings = facts.dovecot
    wrong = []
    if settings.get("ssl_min_protocol") not in {"TLSv1.2", "TLSv1.3"}:
        wrong.append(f"{facts.name}: ssl_min_protocol = {settings.get('ssl_min_protocol')}")
    ciphers = settings.get("ssl_cipher_list")
    # Only what forward secrecy and AEAD begin with counts; a leading "ALL" or "HIGH" brings the rest in.
    if (
        not ciphers
        or any(not word.startswith(("ECDHE+", "ECDHE-", "!", "DHE+AESGCM", "-")) for word in ciphers.split(":"))
        or WEAK.search(ciphers)
    ):
        wrong.append(f"{facts.name}: ssl_cipher_list = {ciphers}")
    if "compression" in settings.get("ssl_options").replace("no_compression", ""):
        wrong.append(f"{facts.name}: ssl_options = {settings.get('ssl_options')}")
    return wrong


@pytest.mark.control("LEM-8-19")
def test_old_tls_is_off(site: Site, facts_of: FactsOf, members: Members, measure: Measure) -> None:
    """RFC 8996, RFC 9325: 1.2 and 1.3, AEAD with forward secrecy, no compression, on servers and clients of every leg."""
    frontends, stores, relays, auths = members["frontends"], members["stores"], members["relays"], members["auths"]
    wrong = [fault for name in (*frontends, *stores) for fault in _dovecot_versions(facts_of(name))]
    for name in relays:
        settings = facts_of(name).postfix
        for side in ("smtpd", "smtp", "lmtp"):
            for kind in ("tls_protocols", "tls_mandatory_protocols"):
                if settings[f"{side}_{kind}"] not in {">=TLSv1.2", ">=TLSv1.3"}:
                    wrong.append(f"{name}: {side}_{kind} = {settings[f'{side}_{kind}']}")
        if "NO_COMPRESSION" not in settings["tls_ssl_options"]:
            wrong.append(f"{name}: tls_ssl_options = {settings['tls_ssl_options']}")
    for name in auths:
        if not re.search(
            r"minimum_version\s*=\s*ssl\.TLSVersion\.TLSv1_[23]\b", facts_of(name).text("/etc/lemonstand/ticket/gunicorn.conf.py")
        ):
            wrong.append(f"{name}: the issuer sets no lowest version")
    measure("hosts", len({*frontends, *stores, *relays, *auths}))
    expect(not wrong, "old TLS is taken, or nothing forbids it", seen=wrong, expected="TLS 1.2 and 1.3 with AEAD suites")


@pytest.mark.control("LEM-8-14")
def test_every_leg_has_tls(site: Site, facts_of: FactsOf, members: Members, measure: Measure) -> None:
    """The list of all legs: clients, frontend to issuer, frontend to store, store to relay, relay to store, Internet to relay."""
    to_others = ("may", "dane") if site.settings.services.smarthost is None else ("secure",)
    frontends, stores, relays, auths = members["frontends"], members["stores"], members["relays"], members["auths"]
    legs: dict[str, str] = {}
    bad = []

    def leg(name: str, seen: str, *allowed: str) -> None:
        legs[name] = seen
        if seen not in allowed:
            bad.append(f"{name}: {seen}")

    for name in (*frontends, *stores):
        leg(f"{name} for clients", facts_of(name).dovecot.get("ssl"), "required")
    for name in frontends:
        lua = facts_of(name).text("/etc/dovecot/ticket.lua")
        leg(f"{name} to stores", "starttls" if re.search(r'starttls\s*=\s*"yes"', lua) else "plain", "starttls")
        listed = re.search(r"^local ISSUERS = \{\n(.*?)^\}", lua, re.MULTILINE | re.DOTALL)
        schemes = set(re.findall(r'"([a-z]+)://', listed.group(1))) if listed else set()
        leg(f"{name} to issuers", " and ".join(sorted(schemes)) or "unknown", "https")
    for name in stores:
        leg(f"{name} to relay", facts_of(name).dovecot.get("submission_relay_ssl"), "starttls", "smtps")
        leg(f"{name} to relay, sieve", facts_of(name).dovecot.get("submission_ssl"), "starttls", "smtps")
    for name in relays:
        leg(f"{name} from the Internet", facts_of(name).postfix_service("smtp/inet")["smtpd_tls_security_level"], "may")
        leg(f"{name} to the Internet", facts_of(name).postfix["smtp_tls_security_level"], *to_others)
        leg(f"{name} from stores", facts_of(name).postfix_service("submission/inet")["smtpd_tls_security_level"], "encrypt")
        leg(f"{name} to stores", facts_of(name).postfix["lmtp_tls_security_level"], "secure")
    for name in auths:
        found = re.search(r"^certfile\s*=\s*\S+", facts_of(name).text("/etc/lemonstand/ticket/gunicorn.conf.py"), re.MULTILINE)
        leg(f"{name} for frontends", "https" if found else "plain", "https")
    for name, seen in legs.items():
        measure(name, seen)
    expect(bool(legs) and not bad, "a leg has no TLS", seen=bad, expected="TLS on every leg")


@pytest.mark.control("LEM-8-05")
def test_every_inner_leg_is_verified(site: Site, facts_of: FactsOf, members: Members, measure: Measure) -> None:
    """Who connects checks the certificate, who listens demands one, names are matched, and nothing writes sessions to disk."""
    frontends, stores, relays, auths = members["frontends"], members["stores"], members["relays"], members["auths"]
    wrong, count = [], 0

    def want(where: str, seen: str, expected: str) -> None:
        nonlocal count
        count += 1
        if seen != expected:
            wrong.append(f"{where} = {seen or 'nothing'}, not {expected}")

    for name in (*frontends, *stores):
        settings = facts_of(name).dovecot
        want(f"{name}: ssl_client_require_valid_cert", settings.get("ssl_client_require_valid_cert"), "yes")
        want(f"{name}: ssl_client_ca_file", settings.get("ssl_client_ca_file"), "/etc/lemonstand/pki/ca-hosts.crt")
        for raw in ("rawlog_dir", "login_proxy_rawlog_dir", "submission_relay_rawlog_dir"):
            want(f"{name}: {raw}", settings.get(raw), "")
    for name in frontends:
        lua = facts_of(name).text("/etc/dovecot/ticket.lua")
        if "any-cert" in lua:
            wrong.append(f"{name}: ticket.lua takes any certificate")
        # The name is what the certificate is compared with; with an address there it would be worth nothing.
        stores_known = re.findall(r'\["([^"]+)"\]\s*=', lua)
        want(
            f"{name}: stores in ticket.lua",
            " ".join(sorted(stores_known)),
            " ".join(sorted(f"{s}.{site.settings.internal_domain}" for s in stores)),
        )
        inner = facts_of(name).dovecot.section("passdb lua")
        want(f"{name}: the passdb's ssl_client/ca_file", inner.get("ssl_client/ca_file", ""), "/etc/lemonstand/pki/ca-hosts.crt")
    for name in stores:
        settings = facts_of(name).dovecot
        want(f"{name}: ssl_server_request_client_cert", settings.get("ssl_server_request_client_cert"), "yes")
        want(f"{name}: auth_ssl_require_client_cert", settings.get("auth_ssl_require_client_cert"), "yes")
        want(f"{name}: ssl_server_ca_file", settings.get("ssl_server_ca_file"), "/etc/lemonstand/pki/ca-store-clients.crt")
        want(f"{name}: submission_relay_ssl_verify", settings.get("submission_relay_ssl_verify"), "yes")
    for name in relays:
        service = facts_of(name).postfix_service("submission/inet")
        want(f"{name}: smtpd_tls_req_ccert on 587", service["smtpd_tls_req_ccert"], "yes")
        want(f"{name}: smtpd_tls_CAfile on 587", service["smtpd_tls_CAfile"], "/etc/lemonstand/pki/ca-relay-clients.crt")
        want(f"{name}: smtpd_tls_CApath on 587", service["smtpd_tls_CApath"], "")
        want(f"{name}: tls_append_default_CA", service["tls_append_default_CA"], "no")
        rows = [
            line.split() for line in facts_of(name).text("/etc/postfix/lmtp_tls").splitlines() if line.strip() and not line.startswith("#")
        ]
        loose = [row[0] for row in rows if row[1] != "secure" or not any(word.startswith("match=") for word in row)]
        want(f"{name}: stores in lmtp_tls without a name", " ".join(loose), "")
    for name in auths:
        text = facts_of(name).text("/etc/lemonstand/ticket/gunicorn.conf.py")
        found = re.search(r"^cert_reqs\s*=\s*ssl\.(\w+)", text, re.MULTILINE)
        want(f"{name}: cert_reqs", found.group(1) if found else "", "CERT_REQUIRED")
    measure("settings compared", count)
    expect(not wrong, "an inner leg trusts too much", seen=wrong, expected="certificates demanded and verified")


@pytest.mark.control("LEM-8-15")
@pytest.mark.supports("LEM-8-22", "PRO-SUB-05", "PRO-IMAP-03")
def test_tls_is_demanded_before_passwords(facts_of: FactsOf, frontends: list[str], stores: list[str], measure: Measure) -> None:
    """ssl=required and no cleartext authentication; no network is exempt on frontends, only frontends on stores."""
    wrong = []
    for name in (*frontends, *stores):
        settings = facts_of(name).dovecot
        for key, value in (("ssl", "required"), ("auth_allow_cleartext", "no")):
            measure(f"{name} {key}", settings.get(key))
            if settings.get(key) != value:
                wrong.append(f"{name}: {key} = {settings.get(key)}")
    for name in frontends:
        trusted = facts_of(name).dovecot.get("login_trusted_networks")
        if trusted:
            wrong.append(f"{name}: login_trusted_networks = {trusted}")
    expect(not wrong, "a password may be sent before TLS", seen=wrong, expected="ssl = required, auth_allow_cleartext = no")


@pytest.mark.control("LEM-8-16")
def test_ports_fit_the_tls_profile(site: Site, facts_of: FactsOf, frontend: str, measure: Measure) -> None:
    """143 and 587 in every profile; 993 and 465 beside them where the profile has implicit TLS, and only there."""
    listening = {s.port for s in facts_of(frontend).sockets if s.protocol == "tcp" and not s.is_local}
    profile = site.settings.tls_profile
    implicit = set() if profile == "seed-strict" else {993, 465}
    measure("profile", profile)
    measure("ports", " ".join(str(port) for port in sorted(listening & {143, 587, 993, 465})))
    expect({143, 587} <= listening, "a registered port is closed", seen=sorted(listening), expected="143 and 587")
    expect(
        listening & {993, 465} == implicit,
        "the ports with implicit TLS do not fit the profile",
        seen=sorted(listening & {993, 465}),
        expected=sorted(implicit),
    )


@pytest.mark.supports("LEM-8-21", "PRO-IMAP-05")
def test_versions_without_known_holes(facts_of: FactsOf, frontends: list[str], stores: list[str], measure: Measure) -> None:
    """Dovecot from 2.3.15 on drops what came before STARTTLS (CVE-2021-33515); before 2.4.3 URLs across users must be off."""
    floor, wrong = (2, 3, 15), []
    for name in (*frontends, *stores):
        facts = facts_of(name)
        found = re.match(r"(\d+)\.(\d+)\.(\d+)", facts.data["dovecot"]["version"] if facts.data["dovecot"] else "")
        if not found:
            invalid(f"{name}: dovecot does not tell its version")
        version = tuple(int(part) for part in found.groups())
        measure(f"{name} dovecot", facts.data["dovecot"]["version"])
        if version < floor:
            wrong.append(f"{name}: {found.group()} keeps what came before STARTTLS")
        if name in stores and version < (2, 4, 3):
            worker = facts.dovecot.get("imap_urlauth_host", "imap-urlauth-worker")
            own = facts.dovecot.get("imap_urlauth_host", "imap")
            gate = facts.unit("urlauth-own")
            listener = facts.dovecot.section("service imap-urlauth-worker/unix_listener imap-urlauth-worker").get("mode", "")
            guarded = gate["ActiveState"] == "active" and "--across-users" not in gate["ExecStart"] and listener.strip("0") == ""
            measure(f"{name} gate of URLs", "in front" if guarded else "open")
            if worker in {own, "*"} and not guarded:
                wrong.append(f"{name}: {found.group()} gives URLs for one user to any other")
    expect(not wrong, "a version has a known hole", seen=wrong, expected="versions or settings that close it")
