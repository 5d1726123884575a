"""The threat analysis of a site: assets, attackers, their paths, what stops each, what is left. From flows, hosts and attempts.

It names hosts and zones, no addresses and no dates, so that it changes when the site does and not otherwise: a review (`lemonstand_review`)
holds for one text, by its SHA-256.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lemonstand.derived.documents import written
from lemonstand.policy.flows import GROUPS, Flow
from lemonstand.redteam.catalogue import GOALS, POSITIONS, Attempt, Catalogue, Deviation, Position, Yield, load_catalogue

if TYPE_CHECKING:
    from lemonstand.site.model import Host, Site

FORMATS = ("md", "html")
ATTACKERS: dict[Position, str] = {
    "frontend": "root on a frontend: whoever broke the host that everybody may talk to",
    "relay": "root on a relay: whoever broke the host that takes mail from everybody",
    "internet": "a client of the Internet without an account, by IPv4 and IPv6",
    "user": "a curious or angry user with a valid account",
}
OUTSIDE = "internet"
POSITION_GROUPS: dict[Position, str] = {"frontend": "frontends", "relay": "relays", "internet": OUTSIDE, "user": OUTSIDE}
ASSETS: tuple[tuple[str, str, str], ...] = (
    ("stores", "all mail of their users, Sieve scripts, keys of URLs", "read, changed, lost"),
    ("auths", "password hashes, the keys that sign tickets", "taken away and broken at leisure; tickets for anybody"),
    (
        "frontends",
        "the sessions and passwords of users who log in now; the certificate clients believe",
        "read while it lasts; clients led astray",
    ),
    (
        "relays",
        "mail on its way, a queue, addresses of all users, the site's good name as a sender and the key that signs for it",
        "read on its way; spam and forgery, with the key from anywhere until it is changed",
    ),
    ("edges", "the rules between zones", "all zones open to each other"),
    ("controllers", "SSH keys of all hosts, the private CAs, the keys that sign mail, first passwords", "everything"),
)
OF_SEVERAL = {
    "auths": "; each of them has all hashes and a key whose tickets every store takes, and what is written on one is on all: "
    "who breaks into one has what all of them have"
}
"""What several hosts of a kind add to what is at stake, by group."""
"""Where something worth attacking lies: group, what, what happens to it."""


@dataclass(frozen=True)
class Path:
    """A flow as an attacker sees it.

    Args:
        flow: the flow.
        to: the hosts at its end.
        then: what he finds there.
    """

    flow: Flow
    to: str
    then: str


@dataclass(frozen=True)
class Standpoint:
    """What one attacker has before him.

    Args:
        ways: the flows that lead out from where he stands.
        attempts: what the red team tries there, by goal.
        yields: what he has anyway.
    """

    position: Position
    who: str
    hosts: str
    ways: tuple[Path, ...]
    attempts: tuple[tuple[str, tuple[Attempt, ...]], ...]
    yields: tuple[Yield, ...]


@dataclass(frozen=True)
class Analysis:
    """All that the template shows."""

    site: str
    domains: str
    assets: tuple[tuple[str, str, str], ...]
    standpoints: tuple[Standpoint, ...]
    deviations: tuple[Deviation, ...]
    added: tuple[Flow, ...]
    removed: tuple[str, ...]
    mirrors: tuple[str, ...]
    attempts: int


def analyse(site: Site, catalogue: Catalogue | None = None) -> Analysis:
    """The analysis of a site.

    Args:
        site: a valid site.
        catalogue: another one than the shipped.
    """
    known = catalogue or load_catalogue()
    return Analysis(
        site=site.settings.site_name,
        domains=", ".join(site.settings.mail_domains),
        assets=(
            *((_names(site.group(group)) or group, what + _of_several(site, group), harm) for group, what, harm in ASSETS),
            *_copies(site),
            *_backups(site),
            *_passwords_behind(site),
        ),
        standpoints=tuple(_standpoint(site, position, known) for position in POSITIONS),
        deviations=known.deviations,
        added=site.settings.flows_extra,
        mirrors=_mirrors(site),
        removed=site.settings.flows_disabled,
        attempts=len(known.attempts),
    )


def _copies(site: Site) -> tuple[tuple[str, str, str], ...]:
    """What a store and its standby add: two hosts with the same mail, and a way from one to the other (record 0036)."""
    paired = {hosts[0]: hosts[1] for hosts in site.pairs.values() if len(hosts) > 1}
    if not paired:
        return ()
    return (
        (
            ", ".join(paired.values()),
            f"a copy of all mail of {', '.join(paired)}, and what relays handed over lately",
            "read, as on the store; the copy lost. It changes nothing on the store, and no ticket is for it until promoted",
        ),
        (
            ", ".join(paired),
            "the way to its standby's copy",
            "what a broken store changes or removes is so there within a minute: a standby is no backup. No other store's copy",
        ),
    )


def _backups(site: Site) -> tuple[tuple[str, str, str], ...]:
    """What a repository of backups adds: who breaks into it, and what a host that was broken into can do there (record 0039)."""
    service = site.settings.services.backup
    if service is None:
        return ()
    senders = _names((*site.group("stores"), *site.group("auths")))
    return (
        (
            service.name,
            f"backups of {senders}, encrypted with keys it never sees",
            "lost or held back, which the age of backups shows; how much and how often, not what. It reaches no host of the site",
        ),
        (
            senders,
            "the key and the way to the host's own backups",
            "read: whoever breaks into the host has what is on it, and by the key what was on it before. More may be written; "
            "nothing that is there can be removed or changed, and no other host's can be read",
        ),
        (
            "controllers",
            "the keys of all backups, for the day their hosts are gone",
            "with the repository itself: all mail and the directory, as far back as backups go",
        ),
    )


def _passwords_behind(site: Site) -> tuple[tuple[str, str, str], ...]:
    """What a directory behind adds: passwords that open more than mail, and accounts that guesses could lock (record 0049)."""
    service = site.settings.services.directory
    if service is None:
        return ()
    return (
        (
            _names((*site.group("frontends"), *site.group("auths"))),
            f"passwords that {service.name} judges, as they are typed",
            "whoever breaks into one of these hosts reads them while users log in, and they open whatever else that directory opens: "
            "app passwords are for mail alone, and never go there",
        ),
        (
            _names(site.group("auths")),
            f"the way to {service.name}, and a certificate for it",
            "passwords tried there past the issuer's limits, until accounts are locked; no password, no hash and no list of names",
        ),
    )


def render(analysis: Analysis, form: str = "md") -> str:
    """The analysis as a document.

    Args:
        form: `md` or `html`; HTML is one file without anything outside it.

    Raises:
        LemonstandError: the template is not there.
    """
    return written("threat-analysis", form, analysis=analysis)


def digest(site: Site) -> str:
    """The SHA-256 of the analysis of a site as it is now: what a review names."""
    return hashlib.sha256(render(analyse(site)).encode()).hexdigest()


def unreviewed(site: Site) -> str:
    """Why the decision to open the service is not on record for the site as it is; empty if it is (LEM-8-01)."""
    review = site.settings.review
    if review is None:
        return "nobody has put a review of the threat analysis on record (lemonstand_review)"
    if review.analysis != digest(site):
        return f"the threat analysis has changed since {review.by} reviewed it on {review.date} (lemonstand_review)"
    return ""


def _standpoint(site: Site, position: Position, known: Catalogue) -> Standpoint:
    group = POSITION_GROUPS[position]
    mine = [attempt for attempt in known.attempts if attempt.position == position]
    zones = {zone for host in site.group(group) for zone in host.interfaces} if group in GROUPS else {OUTSIDE}
    sources = {group} | {zone for zone in zones if zone != "management"}
    return Standpoint(
        position=position,
        who=ATTACKERS[position],
        hosts=_names(site.group(group)) if group in GROUPS else "anywhere outside the site",
        ways=tuple(Path(flow, _ends(site, flow), _then(flow)) for flow in site.active_flows if flow.source in sources),
        attempts=tuple(
            (title, tuple(each for each in mine if each.goal == goal))
            for goal, title in GOALS.items()
            if any(each.goal == goal for each in mine)
        ),
        yields=tuple(each for each in known.yields if each.position == position),
    )


THEN = {
    ("frontends", 143): "a login that is passed on with a ticket, or refused",
    ("frontends", 587): "a login that is passed on with a ticket, or refused",
    ("frontends", 993): "the same, TLS from the first byte",
    ("frontends", 4190): "a login that is passed on with a ticket, or refused",
    ("frontends", 443): "a form, and another password for who shows the one he has; or refused, as a login is",
    ("stores", 4190): "one user's filters, to who shows a certificate for this and that user's ticket",
    ("relays", 25): "a server that takes mail for users and relays for nobody",
    ("auths", 8443): "yes or no, and a ticket of a minute or a new password, to who shows a certificate for this and a user's own password",
    ("auths", 636): "all accounts with their hashes, to who shows the certificate of another auth host",
    ("auths", 8444): "counts of refusals, taken from who shows the certificate of another auth host",
    ("stores", 143): "one user's mailbox, to who shows a certificate for this and that user's ticket",
    ("stores", 587): "mail in one user's name, to who shows a certificate for this and that user's ticket",
    ("stores", 24): "mail taken for users, over TLS; nothing is read",
    ("stores", 24245): "a copy of a mailbox, taken from the store that serves its user and from no other; nothing is read",
    ("relays", 587): "mail in users' names, to who shows a store's certificate",
    ("internet", 25): "any mail host: also a way out for what is collected",
    ("resolvers", 53): "names: also a narrow way out for what is collected",
    ("edges", 123): "the time",
    ("ntp", 123): "the time",
    ("directory", 0): "yes or no about a name and its password, to who shows an auth host's certificate; nothing about the names it has",
    ("smarthost", 0): "somebody who hands on mail in the site's name, to who shows the password; nothing of it comes back",
    ("mirror", 0): "signed packages; the mirror can withhold or delay what is new, and learns what a host has",
    ("mirror_dmz", 0): "signed packages; a narrow way out for what is collected, to that mirror alone",
    ("backup", 0): "room for encrypted backups in the host's own name; nothing that is there goes, and no other host's is shown",
}
"""What is at the end of a flow, by its end and first port."""


def _then(flow: Flow) -> str:
    # A service listens where the site says.
    return THEN.get((flow.destination, 0)) or THEN.get(
        (flow.destination, flow.ports[0]), "what listens there; no attempt of the red team is about it"
    )


def _mirrors(site: Site) -> tuple[str, ...]:
    services = site.settings.services
    return tuple(
        f"{each.name} ({', '.join(str(address) for address in each.addresses)}, port {each.port}, for {whom})"
        for each, whom in ((services.mirror, "edges, auth hosts and stores"), (services.mirror_dmz, "the DMZ"))
        if each is not None
    )


def _ends(site: Site, flow: Flow) -> str:
    return _names(site.group(flow.destination)) if flow.destination in GROUPS else flow.destination


def _of_several(site: Site, group: str) -> str:
    return OF_SEVERAL.get(group, "") if len(site.group(group)) > 1 else ""


def _names(hosts: tuple[Host, ...]) -> str:
    return ", ".join(host.name for host in hosts)
