"""Stores: tickets and nothing else, IDLE lines at the right pace, room for every device, Sieve at delivery."""

from __future__ import annotations

import time

import pytest

from lemonstand.checks.conftest import FactsOf, Measure, Members
from lemonstand.checks.test_frontend_host import NETWORK_FILE_SYSTEMS, sessions_needed
from lemonstand.observations import Pool
from lemonstand.outcomes import expect, invalid, not_measurable
from lemonstand.policy import Relation
from lemonstand.remote.prober import Prober
from lemonstand.remote.settings import seconds, size
from lemonstand.site import Site

pytestmark = pytest.mark.answer("configuration")

TOKEN_MECHANISMS = {"oauthbearer", "xoauth2"}
UNTIL_DOVECOT_ADDS_A_LINE = 1024
"""Bytes Dovecot keeps of the relay's limit for the line it adds (src/submission/submission-backend-relay.c)."""

ANVIL_SECONDS, ANVIL_SHARE = 4.0, 0.5


def _pace(site: Site, facts_of: FactsOf, store: str, measure: Measure) -> dict[str, int]:
    """The site's timers with what this store says: its interval is asked by name, since doveconf -a hides it."""
    dovecot = facts_of(store).dovecot
    interval = seconds(dovecot.get("imap_idle_notify_interval", "imap"))
    measure("imap_idle_notify_interval", interval, "s")
    expect(interval > 0, "IDLE lines never come", seen=interval, expected="more than 0 s")
    return {**site.timers_in_force, "idle_notify": interval, "hibernate": seconds(dovecot.get("imap_hibernate_timeout", "imap"))}


def _not_dormant(relation: Relation) -> bool:
    return relation.control != DORMANT and {"idle_notify", "hibernate"} & {relation.left, relation.right} != set()


DORMANT = "LEM-5-02"
"""The control about needless wake-ups: the one a hostile path may force a site to give up."""


@pytest.mark.control("LEM-4.1-07", "LEM-4.2-04")
@pytest.mark.supports("LEM-7-07", "LEM-5-01", "LEM-5-04")
def test_idle_lines_come_in_time(site: Site, facts_of: FactsOf, store: str, measure: Measure) -> None:
    """Within the relations of timers.yml: before the autologout, or hibernated; before two hours; before a device on the path forgets."""
    timers = _pace(site, facts_of, store, measure)
    profile = site.settings.timer_profile
    measure("profile", profile)
    measure("imap_hibernate_timeout", timers["hibernate"], "s")
    relations = [relation for relation in site.timers.broken(profile, timers) if _not_dormant(relation)]
    broken = [f"{relation} ({relation.reason})" for relation in relations]
    for box in site.settings.middleboxes or ():
        for hop in site.timers.hops:
            if hop.right == "idle_notify" and set(box.between) <= set(hop.zones) and not hop.holds({**timers, hop.left: box.established}):
                broken.append(f"{box.name} between {box.hop}: {hop} ({hop.reason})")
    expect(not broken, "IDLE lines come too late", seen=f"every {timers['idle_notify']} s", expected=broken)


@pytest.mark.control("LEM-4.1-06", "LEM-5-02", "LEM-5-03")
def test_idle_lines_do_not_wake_without_need(site: Site, facts_of: FactsOf, store: str, measure: Measure) -> None:
    """As seldom as timers.yml asks; a profile that wakes more often on purpose is a deviation, never a pass."""
    timers = _pace(site, facts_of, store, measure)
    profile = site.settings.timer_profile
    relations = [relation for relation in site.timers.relations_of(profile) if relation.control == DORMANT]
    broken = [relation for relation in relations if not relation.holds(timers)]
    known = {str(relation): site.timers.deviation(profile, relation) for relation in broken}
    unexcused = [f"{relation} ({relation.reason})" for relation in broken if known[str(relation)] is None]
    expect(bool(relations) and not unexcused, "IDLE lines come too often", seen=f"every {timers['idle_notify']} s", expected=unexcused)
    for name, deviation in known.items():
        if deviation is not None:
            not_measurable(f"deviation of the timer profile '{profile}': not {name}: {deviation.reason}")


@pytest.mark.control("LEM-8-11")
@pytest.mark.supports("LEM-8-12")
def test_takes_tickets_and_nothing_else(site: Site, facts_of: FactsOf, store: str, measure: Measure) -> None:
    """Token mechanisms only, checked with public keys here, for this audience, scope and issuer; no master, no other passdb."""
    settings = facts_of(store).dovecot
    mechanisms = set(settings.get("auth_mechanisms").split())
    measure("mechanisms", " ".join(sorted(mechanisms)))
    expect(
        bool(mechanisms) and mechanisms <= TOKEN_MECHANISMS,
        "the store takes passwords",
        seen=sorted(mechanisms),
        expected=sorted(TOKEN_MECHANISMS),
    )
    expect(not settings.sections("passdb"), "the store has a password database", seen=settings.sections("passdb"), expected="none")
    for name in ("auth_master_user_separator", "doveadm_password"):
        expect(settings.get(name) == "", f"{name} is set", seen="a value", expected="nothing")
    oauth = settings.section("oauth2")
    measure("validation", oauth.get("introspection_mode"))
    expect(
        oauth.get("introspection_mode") == "local", "tickets are not checked here", seen=oauth.get("introspection_mode"), expected="local"
    )
    issuers = [f"https://{host.name}.{site.settings.internal_domain}/" for host in site.group("auths")]
    believed = (oauth.get("issuers") or "").split()
    expect(bool(believed) and set(believed) <= set(issuers), "tickets of others are taken", seen=believed, expected=issuers)
    audience = f"{store}.{site.settings.internal_domain}"
    expect(
        (oauth.get("scope"), oauth.get("client_id")) == ("mail", audience),
        "scope or audience is not checked, or the audience is not this store alone",
        seen=(oauth.get("scope"), oauth.get("client_id")),
        expected=("mail", audience),
    )
    expect(
        settings.get("auth_cache_size") in {"0", "0 B"}, "logins are kept in a cache", seen=settings.get("auth_cache_size"), expected="0"
    )


@pytest.mark.control("LEM-4.1-02", "LEM-4.1-11")
@pytest.mark.supports("LEM-5-01", "LEM-7-08")
def test_nothing_ends_sessions_by_the_clock(facts_of: FactsOf, frontends: list[str], stores: list[str], measure: Measure) -> None:
    """A reload leaves clients alone, units have no end, and no timer or cron job restarts or kicks."""
    wrong = []
    for name in (*frontends, *stores):
        facts = facts_of(name)
        shutdown, longest = facts.dovecot.get("shutdown_clients"), facts.unit("dovecot")["RuntimeMaxUSec"]
        measure(f"{name} shutdown_clients", shutdown)
        measure(f"{name} RuntimeMaxUSec", longest)
        if shutdown != "no":
            wrong.append(f"{name}: shutdown_clients = {shutdown}")
        if longest != "infinity":
            wrong.append(f"{name}: RuntimeMaxUSec = {longest}")
        wrong += [f"{name}: {job} restarts or kicks" for job, commands in facts.data["scheduled"].items() if _ends_sessions(commands)]
    expect(not wrong, "sessions end without need", seen=wrong, expected="shutdown_clients = no, no runtime limit, no timed restarts")


@pytest.mark.answer("live")
@pytest.mark.supports("LEM-5-02")
def test_no_anvil_spins(prober: Prober, frontends: list[str], stores: list[str], measure: Measure) -> None:
    """The process that counts sessions rests between two of them: one that is told of dead ones without end takes a processor."""

    names = [*frontends, *stores]

    def used() -> dict[str, int]:
        with Pool(max_workers=len(names)) as pool:
            found = list(pool.map(lambda name: prober.ask(name, "processes", name="anvil")["processor"], names))
        return dict(zip(names, found, strict=True))

    before, began = used(), time.monotonic()
    time.sleep(ANVIL_SECONDS)
    after, passed = used(), time.monotonic() - began
    shares = {name: (after[name] - before[name]) / 1000 / passed for name in before}
    measure("busiest anvil", round(max(shares.values()), 2), "of a processor", volatile=True)
    spins = {name: f"{share:.0%}" for name, share in shares.items() if share > ANVIL_SHARE}
    expect(
        not spins,
        "anvil is at work without a pause",
        seen=spins,
        expected=f"less than {ANVIL_SHARE:.0%} of a processor",
        remedy=f"pkill -TERM -x anvil, on {', '.join(spins)}: Dovecot starts another one, and no session ends (docs/upstream.md)",
    )


def _ends_sessions(commands: str) -> bool:
    words = commands.replace(";", " ").split()
    ends = {"restart", "stop", "kick", "kill", "try-restart"} & set(words)
    return bool(ends) and any(word in commands for word in ("dovecot", "doveadm", "postfix", "imap"))


@pytest.mark.control("LEM-4.1-10")
@pytest.mark.supports("LEM-6-05")
def test_limits_leave_room_for_every_device(site: Site, facts_of: FactsOf, store: str, measure: Measure) -> None:
    """Sessions in all, and of one user from one address: a carrier's NAT puts all handsets of a user behind one."""
    facts = facts_of(store)
    imap, submission = sessions_needed(site, store)
    for service, needed in (("imap-login", imap), ("submission-login", submission), ("imap", imap), ("submission", submission)):
        section = facts.dovecot.section(f"service {service}")
        share = int(section.get("client_limit", "1")) if section.get("restart_request_count", "1") != "1" else 1
        room = int(section.get("process_limit", "0")) * share
        measure(f"{service} room", room, "sessions")
        expect(room >= needed, f"{service} has too little room", seen=room, expected=f"at least {needed}")
    mine = int(facts.dovecot.get("mail_max_userip_connections", "imap"))
    measure("sessions of a user from one address", mine)
    expect(
        mine == 0 or mine >= 2 * site.settings.devices_per_user,
        "a user's devices do not fit behind one address",
        seen=mine,
        expected=f"at least {2 * site.settings.devices_per_user}",
    )


@pytest.mark.control("LEM-4-03")
def test_services_may_use_tcp(site: Site, facts_of: FactsOf, node: str, measure: Measure) -> None:
    """The units that serve the mail path may open IPv4 and IPv6, and no address of the site is denied to them."""
    units = {
        "frontends": ["dovecot"],
        "stores": ["dovecot"],
        "relays": ["postfix"],
        "auths": ["ticket-issuer"],
    }
    facts = facts_of(node)
    wrong = []
    for group in site.hosts[node].role_groups:
        for name in units.get(group, []):
            unit = facts.unit(name)
            families = unit["RestrictAddressFamilies"]
            measure(f"{name} families", families or "any")
            refused = families.startswith("~") and ("AF_INET" in families)
            if families and not families.startswith("~") and not {"AF_INET", "AF_INET6"} <= set(families.split()):
                refused = True
            if refused or unit["IPAddressDeny"]:
                wrong.append(f"{name}: families '{families}', denied '{unit['IPAddressDeny']}'")
            if unit["ActiveState"] != "active":
                wrong.append(f"{name}: {unit['ActiveState']}")
    expect(not wrong, f"a service on {node} can't use TCP", seen=wrong, expected="AF_INET and AF_INET6, nothing denied, active")


@pytest.mark.control("PRO-SUB-12")
def test_burl_reads_local_mailboxes(facts_of: FactsOf, store: str, measure: Measure) -> None:
    """What BURL names is read from this host's own disk, by a local socket: it travels nowhere before the relay, which gets it by TLS."""
    facts = facts_of(store)
    remote = [f"{m['target']} ({m['type']})" for m in facts.data["mounts"] if m["type"] in NETWORK_FILE_SYSTEMS]
    measure("mail_driver", facts.dovecot.get("mail_driver"))
    expect(not remote, "mailboxes travel the network in clear", seen=remote, expected="a local file system")
    expect(
        facts.dovecot.get("mail_driver") not in {"imapc", "pop3c"},
        "mailboxes are fetched from elsewhere",
        seen=facts.dovecot.get("mail_driver"),
        expected="local storage",
    )
    inet = [key for key in facts.dovecot.section("service imap-urlauth") if key.startswith("inet_listener")]
    expect(not inet, "URLAUTH listens on the network", seen=inet, expected="a local socket")
    relay = facts.dovecot.get("submission_relay_ssl", "submission")
    expect(relay in {"starttls", "smtps"}, "what was fetched leaves in clear", seen=relay, expected="starttls")


@pytest.mark.control("PRO-SUB-13")
def test_no_super_user(facts_of: FactsOf, frontends: list[str], stores: list[str], measure: Measure) -> None:
    """No master user, no submit user, no stream user, no relay master: only the user's own ticket opens a mailbox."""
    names = ("auth_master_user_separator", "imap_urlauth_submit_user", "imap_urlauth_stream_user", "submission_relay_master_user")
    found = [f"{host}: {name}" for host in (*frontends, *stores) for name in names if facts_of(host).dovecot.get(name)]
    masters = [
        f"{host}: {kind}"
        for host in (*frontends, *stores)
        for kind in facts_of(host).dovecot.values
        if kind.endswith("/master") and facts_of(host).dovecot.values[kind] == "yes"
    ]
    measure("settings looked at", len(names) * len((*frontends, *stores)))
    expect(not found and not masters, "somebody may act for every user", seen=[*found, *masters], expected="nobody")


@pytest.mark.supports("PRO-SUB-03", "PRO-E2E-03")
def test_size_is_one_number(site: Site, facts_of: FactsOf, members: Members, measure: Measure) -> None:
    """Frontends and stores announce what the relay takes, less the line Dovecot adds."""
    frontends, stores, relays = members["frontends"], members["stores"], members["relays"]
    limit = site.settings.message_size_limit
    seen = {name: size(facts_of(name).dovecot.get("submission_max_mail_size", "submission")) for name in (*frontends, *stores)}
    relay = {name: int(facts_of(name).postfix["message_size_limit"]) for name in relays}
    for name, value in {**seen, **relay}.items():
        measure(f"{name} limit", value, "B")
    wrong = [f"{name}: {value}" for name, value in seen.items() if value != limit - UNTIL_DOVECOT_ADDS_A_LINE]
    wrong += [f"{name}: {value}" for name, value in relay.items() if value != limit]
    expect(
        not wrong,
        "hosts disagree about the largest message",
        seen=wrong,
        expected=f"{limit} B, on Dovecot {UNTIL_DOVECOT_ADDS_A_LINE} B less",
    )


@pytest.mark.control("PRO-MDA-01")
def test_sieve_knows_the_profile(facts_of: FactsOf, store: str, measure: Measure) -> None:
    """A script that needs every extension compiles on the host, and LMTP runs Sieve."""
    facts = facts_of(store)
    found = facts.data["sieve"]
    if found is None:
        invalid(f"{store}: there is no sievec")
    measure("compiles", bool(found["ok"]))
    expect(found["ok"], "Sieve lacks an extension", seen=found["said"], expected="a script with all of them compiles")
    plugins = facts.dovecot.section("protocol lmtp/mail_plugins")
    flat = facts.dovecot.special.get("protocol=lmtp/mail_plugins", "")
    # A line each with its value or, before 2.4, a bare list.
    listed = [line.removesuffix(" = yes") for line in flat.splitlines()] if "=" in flat else flat.split()
    expect(plugins.get("sieve") == "yes" or "sieve" in listed, "LMTP does not run Sieve", seen=plugins or flat, expected="sieve")


@pytest.mark.supports("PRO-IMAP-09", "LEM-5-05")
def test_inotify_has_room(site: Site, facts_of: FactsOf, store: str, measure: Measure) -> None:
    """Without inotify instances left IDLE falls back to asking every half minute. The value in force counts, whoever set it."""
    facts = facts_of(store)
    imap, _ = sessions_needed(site, store)
    instances, watches = facts.sysctl("fs.inotify.max_user_instances"), facts.sysctl("fs.inotify.max_user_watches")
    measure("fs.inotify.max_user_instances", instances)
    measure("fs.inotify.max_user_watches", watches)
    expect(instances >= imap, "too few inotify instances", seen=instances, expected=f"at least {imap}")
    expect(watches >= 4 * imap, "too few inotify watches", seen=watches, expected=f"at least {4 * imap}")
