"""The rules between variables of a site. Each rule is a small function that returns the faults it finds and nothing else."""

from __future__ import annotations

import datetime as dt
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Any

from lemonstand.errors import InputError
from lemonstand.policy import Flows, Timers
from lemonstand.policy.controls import load_controls
from lemonstand.policy.drop_ins import DOVECOT, load_drop_ins
from lemonstand.policy.flows import ENDPOINTS, several
from lemonstand.policy.invariants import SSH, load_invariants
from lemonstand.policy.kinds import MANAGEMENT, OUTSIDE, load_kinds
from lemonstand.policy.names import load_names
from lemonstand.policy.own_settings import load_own_settings
from lemonstand.policy.timers import deviation_id
from lemonstand.policy.waivers import load_waivers
from lemonstand.site.families import families_of, zone_at
from lemonstand.site.fields import place_of, suggest
from lemonstand.site.invariants import Addressing, End, broken
from lemonstand.site.model import (
    OUTER_GROUPS,
    PREFIX,
    ROLE_GROUPS,
    AcmeCertificate,
    FileCertificate,
    Interface,
    Middlebox,
    Service,
    Services,
    User,
    Zone,
)
from lemonstand.site.raw import PASSWORDS, RawHost, RawSite
from lemonstand.site.seeds import hash_fault, password_fault
from lemonstand.site.shipped import filter_plugin

KINDS = load_kinds()
SERVICES = f"{PREFIX}services"
PRIVATE = tuple(map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")))
"""Networks that nobody outside an organisation has a route to (RFC 1918, RFC 4193)."""


@dataclass(frozen=True)
class Draft:
    """What is sound so far: the site-wide values, and the values of each host.

    Args:
        raw: the inventory, for origins.
        shared: the site-wide variables as one host would see them.
        settings: sound fields of `SiteSettings`.
        hosts: sound fields of `HostSettings` by host.
    """

    raw: RawSite
    shared: RawHost
    settings: dict[str, Any]
    hosts: dict[str, dict[str, Any]]
    flows: Flows
    timers: Timers

    def members(self, group: str) -> tuple[str, ...]:
        """The hosts of a group."""
        return self.raw.groups.get(group, ())

    def at(self, name: str, *path: str | int, host: str | None = None) -> str:
        """Where a variable of the site stands (`name` without its prefix)."""
        return place_of(self.raw.hosts[host] if host else self.shared, PREFIX + name, *path)

    def of_one_leg(self) -> list[str]:
        """The site's hosts that have a leg, and none in management."""
        legs = {host: values.get("interfaces", {}) for host, values in self.hosts.items()}
        ours = [host for host in legs if set(self.raw.hosts[host].groups) & set(ROLE_GROUPS)]
        return [host for host in ours if legs[host] and MANAGEMENT not in legs[host]]

    def legs(self) -> Iterator[tuple[str, str, Interface]]:
        """Every sound leg: host, zone, interface."""
        for host, values in self.hosts.items():
            for zone, interface in values.get("interfaces", {}).items():
                yield host, zone, interface


Rule = Callable[[Draft], Iterator[InputError]]


def groups_are_filled(draft: Draft) -> Iterator[InputError]:
    """Every store has a frontend, an auth and a relay."""
    for group, kind in KINDS.kinds.items():
        if kind.needed and not draft.members(group):
            yield InputError(
                f"the group '{group}' has no host",
                f"{draft.raw.folder}/hosts.yml",
                f"add a host to '{group}': a site needs one of each kind",
            )


def no_group_has_too_many(draft: Draft) -> Iterator[InputError]:
    """No group has more hosts than its kind works with."""
    for group, kind in KINDS.kinds.items():
        hosts = draft.members(group)
        if kind.most is not None and len(hosts) > kind.most:
            yield InputError(
                f"there are {len(hosts)} {kind.one} hosts ({', '.join(hosts)}){f', {kind.because}' if kind.because else ''}",
                f"{draft.raw.folder}/hosts.yml (group '{group}')",
                f"leave {'the one' if kind.most == 1 else str(kind.most)} with the accounts in '{group}' and remove "
                f"{' and '.join(hosts[kind.most :])}, or whichever is new",
            )


def directories_are_told_apart(draft: Draft) -> Iterator[InputError]:
    """No two auth hosts have the number by which their directories tell whose change is whose; it follows from the name."""
    seen: dict[int, str] = {}
    for name in draft.members("auths"):
        number = filter_plugin("lemonstand").server_id(name)
        if number in seen:
            yield InputError(
                f"{seen[number]} and {name} would have the same number ({number}) among the directories, which is made from the name",
                f"{draft.raw.folder}/hosts.yml (group 'auths')",
                f"call {name} something else",
            )
        seen[number] = name


def one_role_a_host(draft: Draft) -> Iterator[InputError]:
    """No host has two roles: mailboxes, credentials and the DMZ would share a machine."""
    for name, host in draft.raw.hosts.items():
        roles = [group for group in ROLE_GROUPS if group in host.groups]
        if len(roles) > 1:
            yield InputError(
                f"host {name} is in {' and '.join(roles)}", f"{draft.raw.folder}/hosts.yml (host {name})", "give each its own host"
            )
        if not roles and not any(group in host.groups for group in OUTER_GROUPS):
            known = ", ".join((*ROLE_GROUPS, *OUTER_GROUPS))
            remedy = suggest(host.groups[0] if host.groups else "", (*ROLE_GROUPS, *OUTER_GROUPS), f"put it into one of {known}")
            yield InputError(f"host {name} has no role", f"{draft.raw.folder}/hosts.yml (host {name})", remedy)


def hosts_have_names(draft: Draft) -> Iterator[InputError]:
    """Each host's name makes an inner name that stands in certificates, tickets and host files, and that nothing else has."""
    internal = draft.settings.get("internal_domain")
    names = load_names()
    members = {name: f"{name}.{internal}" for group in ROLE_GROUPS for name in draft.members(group)}
    public = {draft.settings.get(key): f"{PREFIX}{key}" for key in ("public_name", "mx_name")}
    for name, inner in members.items():
        where = f"{draft.raw.folder}/hosts.yml (host {name})"
        fault = names.host_fault(name, internal or "")
        if fault:
            what, _, remedy = fault.partition("; ")
            yield InputError(f"host {name}: {what}", where, remedy)
            continue
        taken = next((public[text] for text in (name, inner) if text in public), None)
        taken = taken or next((f"the inner name of host {other}" for other, text in members.items() if text == name), None)
        if taken is not None and internal is not None:
            yield InputError(f"host {name}: its name or its inner name {inner} is {taken} too", where, "give the host a name of its own")


def no_host_is_called_like_a_group(draft: Draft) -> Iterator[InputError]:
    """Where a host and a group have one name, Ansible takes the group: what is meant for that host happens to all of the group."""
    groups = {*ROLE_GROUPS, *OUTER_GROUPS, *draft.raw.groups}
    for name in draft.raw.hosts:
        if name in groups:
            yield InputError(
                f"host {name} is called like a group: Ansible would take the group wherever the host is named",
                f"{draft.raw.folder}/hosts.yml (host {name})",
                f"call it something else, {name}1 for instance",
            )


def domains_are_sound(draft: Draft) -> Iterator[InputError]:
    """Each mail domain is there once, and none is the relay's own name, whose mail the relay keeps for itself."""
    domains = draft.settings.get("mail_domains") or ()
    for number, domain in enumerate(domains):
        if domain in domains[:number]:
            yield InputError(f"the mail domain {domain} is there twice", draft.at("mail_domains", number), "keep one of the two")
        if domain == draft.settings.get("mx_name"):
            yield InputError(
                f"the mail domain {domain} is {PREFIX}mx_name too, so the relay would take its users for unknown ones",
                draft.at("mail_domains", number),
                "give the relay another name",
            )


def zones_are_declared(draft: Draft) -> Iterator[InputError]:
    """The inner zones exist, and no two zones overlap."""
    zones: dict[str, Zone] | None = draft.settings.get("zones")
    if zones is None:
        return
    for zone in KINDS.inner_zones:
        if zone not in zones:
            yield InputError(f"the zone '{zone}' has no network", draft.at("zones"), f"add '{zone}' with its ipv4 or ipv6 network")
    names = sorted(zones)
    for position, first in enumerate(names):
        for second in names[position + 1 :]:
            one, other = zones[first], zones[second]
            if any(mine.version == theirs.version and mine.overlaps(theirs) for mine in one.networks for theirs in other.networks):
                yield InputError(
                    f"the zones '{first}' and '{second}' overlap", draft.at("zones", second), "give each zone networks of its own"
                )


def hosts_stand_at_home(draft: Draft) -> Iterator[InputError]:
    """Each host has a leg in the zone of its kind (an edge in all of them). With that one alone it is managed by it as well."""
    for host, values in draft.hosts.items():
        for group in draft.raw.hosts[host].groups:
            kind = KINDS.kinds.get(group)
            home = () if kind is None else kind.zones if kind.joins_zones else tuple(zone for zone in kind.zones if zone != MANAGEMENT)
            missing = [zone for zone in home if zone not in values.get("interfaces", home)]
            if missing:
                yield InputError(
                    f"host {host} has no leg in {' and '.join(missing)}",
                    draft.at("interfaces", host=host),
                    f"add it to {PREFIX}interfaces: {{{missing[0]}: {{device, ipv4, ipv6}}}}",
                )


def hosts_of_one_leg_are_reached(draft: Draft) -> Iterator[InputError]:
    """Who has no leg in management is reached from there: by the one edge, or somebody else's border, from controllers that are in it."""
    one_legged = draft.of_one_leg()
    zones: Mapping[str, Zone] = draft.settings.get("zones") or {}
    if not one_legged or MANAGEMENT not in zones:
        return
    remedy = f"give {one_legged[0]} a leg in '{MANAGEMENT}'"
    if len(draft.members("edges")) > 1:
        yield InputError(
            f"{' and '.join(one_legged)} would be managed by way of the edges, and the controllers can't know which of the two is at work",
            draft.at("interfaces", host=one_legged[0]),
            f"{remedy}, and each other one that has none",
        )
    controllers = draft.settings.get("controllers") or ()
    for number, address in enumerate(controllers):
        if zone_at(address, zones) != MANAGEMENT:
            yield InputError(
                f"{one_legged[0]} has no leg in '{MANAGEMENT}' and is managed from there alone, and the controller {address} is elsewhere",
                draft.at("controllers", number),
                f"name a controller or a jump host of that network, or {remedy}",
            )
    for host in one_legged:
        versions = {address.version for leg in draft.hosts[host]["interfaces"].values() for address in leg.addresses}
        if controllers and not versions & {address.version for address in controllers}:
            yield InputError(
                f"no controller has an IP version of {host}'s leg: none of them could reach it",
                draft.at("interfaces", host=host),
                f"add the controller's other address to {PREFIX}controllers, or {remedy}",
            )


def hosts_stay_in_one_zone(draft: Draft) -> Iterator[InputError]:
    """Only kinds that join zones stand in several (management apart): any other such host is a way around the edge."""
    joining = {group for group, kind in KINDS.kinds.items() if kind.joins_zones}
    for name, values in draft.hosts.items():
        zones = [zone for zone in values.get("interfaces", {}) if zone != MANAGEMENT]
        if len(zones) > 1 and not joining & set(draft.raw.hosts[name].groups):
            yield InputError(
                f"host {name} stands in {' and '.join(sorted(zones))}, which flows keep apart",
                draft.at("interfaces", host=name),
                f"leave it in one zone (beside management); only {' and '.join(sorted(joining))} join zones",
            )


def addresses_lie_in_their_zone(draft: Draft) -> Iterator[InputError]:
    """Each leg's addresses belong to its zone's networks, and its zone is declared."""
    zones: dict[str, Zone] | None = draft.settings.get("zones")
    if zones is None:
        return
    for host, zone, interface in draft.legs():
        where = draft.at("interfaces", zone, host=host)
        outer = any(group in draft.raw.hosts[host].groups for group in OUTER_GROUPS)
        if zone not in zones:
            if zone != OUTSIDE and not outer:
                yield InputError(
                    f"host {host} has a leg in the unknown zone '{zone}'", where, suggest(zone, zones, f"use one of {', '.join(zones)}")
                )
            continue
        joins = any(KINDS.kinds[group].joins_zones for group in draft.raw.hosts[host].groups if group in KINDS.kinds)
        if interface.more and not joins:
            yield InputError(
                f"host {host} has further addresses in zone '{zone}', and only hosts that join networks have those",
                draft.at("interfaces", zone, "more", host=host),
                "leave it one of each IP version",
            )
        for address in interface.addresses:
            if zones[zone].network_of(address) is None:
                family = f"ipv{address.version}"
                networks = ", ".join(str(each) for each in zones[zone].networks if each.version == address.version)
                key = family if address == getattr(interface, family) else "more"
                yield InputError(
                    f"{address} of host {host} is outside zone '{zone}' ({networks or 'which has no ' + family})",
                    draft.at("interfaces", zone, key, host=host),
                    f"give an address of the zone, or correct {PREFIX}zones",
                )


def networks_are_joined(draft: Draft) -> Iterator[InputError]:
    """An edge has an address in each network of a zone: the hosts there have no other way out."""
    zones: Mapping[str, Zone] = draft.settings.get("zones") or {}
    if len(draft.members("edges")) > 1:
        for zone in (zone for zone in zones if zones[zone].more):
            yield InputError(
                f"the zone '{zone}' has further networks, and two edges share one address of each IP version in a zone",
                draft.at("zones", zone, "more"),
                "give the zone one larger network, or leave it one edge",
            )
        return
    for host in draft.members("edges"):
        legs = draft.hosts.get(host, {}).get("interfaces", {})
        for zone in (zone for zone in legs if zone in zones):
            for network in zones[zone].more:
                if not any(address in network for address in legs[zone].addresses):
                    yield InputError(
                        f"edge {host} has no address in {network}, a network of zone '{zone}': hosts there could reach no other zone",
                        draft.at("interfaces", zone, host=host),
                        "add its address there to `more`",
                    )


def addresses_are_unique(draft: Draft) -> Iterator[InputError]:
    """No two legs share an address, and no host has two legs on one device."""
    seen: dict[IPv4Address | IPv6Address, str] = {}
    for host, zone, interface in draft.legs():
        for address in interface.addresses:
            if address in seen:
                yield InputError(
                    f"{address} is given to {seen[address]} and to {host}",
                    draft.at("interfaces", zone, f"ipv{address.version}", host=host),
                    "give each leg an address of its own",
                )
            seen.setdefault(address, host)
    for host, values in draft.hosts.items():
        devices = Counter(interface.device for interface in values.get("interfaces", {}).values())
        for device in [device for device, count in devices.items() if count > 1]:
            yield InputError(
                f"host {host} has two legs on {device}: no rule could tell its zones apart",
                draft.at("interfaces", host=host),
                f"name one device for each zone (a VLAN is one); with one card leave out '{MANAGEMENT}': it is managed by its other leg",
            )


def public_address_is_on_the_edge(draft: Draft) -> Iterator[InputError]:
    """What the edge translates arrives at the edge."""
    public = draft.settings.get("public_ipv4")
    edges = [host for host in draft.members("edges") if "interfaces" in draft.hosts.get(host, {})]
    if public is None or not edges:
        return
    if len(draft.members("edges")) > 1:
        shared = draft.settings.get("edge_addresses", {}).get(OUTSIDE)
        if shared is not None and shared.ipv4 != public:
            yield InputError(
                f"{PREFIX}public_ipv4 {public} is not what the edges share in '{OUTSIDE}' ({shared.ipv4})",
                draft.at("public_ipv4"),
                f"give the same address here and in {PREFIX}edge_addresses: one edge alone would lead it nowhere after the other took over",
            )
        return
    if not any(leg.ipv4 == public for host, zone, leg in draft.legs() if host in edges and zone == OUTSIDE):
        yield InputError(
            f"no edge has {PREFIX}public_ipv4 {public} on its leg in '{OUTSIDE}'",
            draft.at("public_ipv4"),
            f"give the edge's own address in '{OUTSIDE}'",
        )


def standbys_are_sound(draft: Draft) -> Iterator[InputError]:
    """A standby is a store that keeps the mail of one other store, which is no standby and has no further one."""
    stores = draft.members("stores")
    of = {name: values["standby_of"] for name, values in draft.hosts.items() if values.get("standby_of")}
    taken: dict[str, str] = {}
    for name, store in of.items():
        where = draft.at("standby_of", host=name)
        remedy = f"name a host of the group 'stores' that has no {PREFIX}standby_of itself"
        if name not in stores:
            yield InputError(
                f"{name} is no store, so it can't be a standby", where, "put it into the group 'stores', or take the variable away"
            )
        elif store not in stores or store == name:
            yield InputError(f"{name} is to be the standby of '{store}', which is no other store", where, suggest(store, stores, remedy))
        elif store in of:
            yield InputError(f"{name} is to be the standby of {store}, which is a standby itself", where, remedy)
        elif store in taken:
            yield InputError(f"{store} has two standbys, {taken[store]} and {name}", where, "keep one of the two")
        taken.setdefault(store, name)


def edges_share_addresses(draft: Draft) -> Iterator[InputError]:
    """Two edges share an address in each zone and IP version they both stand in; one edge has its own and shares none."""
    edges, shared = draft.members("edges"), draft.settings.get("edge_addresses")
    zones: dict[str, Zone] = draft.settings.get("zones") or {}
    if shared is None:
        return
    if len(edges) < 2:
        if shared:
            yield InputError(
                f"{PREFIX}edge_addresses is for two edges that share them, and there is {'one' if edges else 'none'}",
                draft.at("edge_addresses"),
                "take it away, or add the second edge to the group 'edges'",
            )
        return
    legs = {address: host for host, _, leg in draft.legs() for address in leg.addresses}
    standing = [draft.hosts.get(edge, {}).get("interfaces", {}) for edge in edges]
    for zone in [zone for zone in KINDS.zones if zone != MANAGEMENT and all(zone in legs_of for legs_of in standing)]:
        for family in ("ipv4", "ipv6"):
            if not all(getattr(legs_of[zone], family) for legs_of in standing):
                continue
            if getattr(shared.get(zone), family, None) is None:
                yield InputError(
                    f"the edges share no {family} address in '{zone}'",
                    draft.at("edge_addresses"),
                    f"add {zone}: {{{family}: …}}, an address of the zone that no host has: a way by an edge's own ends with it",
                )
    for zone, pair in shared.items():
        for address in pair.addresses:
            where = draft.at("edge_addresses", zone, f"ipv{address.version}")
            network = getattr(zones[zone], f"ipv{address.version}") if zone in zones else None
            if network is not None and address not in network:
                yield InputError(f"{address} is outside zone '{zone}' ({network})", where, "give an address of the zone")
            if zone == MANAGEMENT:
                yield InputError(f"the edges share {address} in '{zone}', where each is reached as itself", where, f"take '{zone}' away")
            if address in legs:
                yield InputError(f"{address}, which the edges share, is {legs[address]}'s own", where, "give an address that no host has")


def users_are_sound(draft: Draft) -> Iterator[InputError]:
    """Users and aliases are unique and in a mail domain, and their store exists."""
    users: tuple[User, ...] | None = draft.settings.get("users")
    if users is None:
        return
    domains = draft.settings.get("mail_domains")
    stores = tuple(name for name in draft.members("stores") if not draft.hosts.get(name, {}).get("standby_of"))
    standbys = set(draft.members("stores")) - set(stores)
    taken: dict[str, str] = {}
    for number, user in enumerate(users):
        addresses = [(user.name, ("name",)), *((alias, ("aliases", position)) for position, alias in enumerate(user.aliases))]
        for address, path in addresses:
            domain = address.rpartition("@")[2]
            if domains is not None and domain not in domains:
                yield InputError(
                    f"{address} is in no mail domain of this site",
                    draft.at("users", number, *path),
                    suggest(domain, domains, f"add '{domain}' to {PREFIX}mail_domains"),
                )
            if address in taken:
                yield InputError(
                    f"{address} is taken twice (the other is in {taken[address]})",
                    draft.at("users", number, *path),
                    "keep one of the two",
                )
            taken.setdefault(address, f"{PREFIX}users[{number}]")
        if user.store is not None and user.store not in stores:
            yield InputError(
                f"{user.name}: {user.store} is a standby" if user.store in standbys else f"{user.name}: there is no store '{user.store}'",
                draft.at("users", number, "store"),
                f"name the store it stands by for: {draft.hosts[user.store]['standby_of']}"
                if user.store in standbys
                else suggest(user.store, stores, f"use a host of the group 'stores' ({', '.join(stores) or 'which is empty'})"),
            )
        if user.store is None and len(stores) > 1:
            yield InputError(
                f"{user.name} has no store", draft.at("users", number), f"there are several, so name one of {', '.join(stores)} in 'store'"
            )


def users_have_a_password(draft: Draft) -> Iterator[InputError]:
    """Each user has a password or a hash to be seeded with, and no password is for nobody."""
    users: tuple[User, ...] | None = draft.settings.get("users")
    # A fault in the passwords themselves has been told; what is missing because of it is no news.
    if users is None or any("user_passwords" not in values for values in draft.hosts.values()):
        return
    passwords = {name: host for host, values in draft.hosts.items() for name in values["user_passwords"]}
    behind = _services(draft).directory
    for number, user in enumerate(users):
        if user.password_hash is None and user.name not in passwords and not (behind and behind.judges(user.name)):
            yield InputError(
                f"{user.name} has neither a password nor a hash",
                draft.at("users", number),
                f"add the name to {PREFIX}user_passwords in a vault, or give password_hash",
            )
    names = [user.name for user in users]
    for name, host in passwords.items():
        if name not in names:
            yield InputError(
                f"{PREFIX}user_passwords has a password for '{name}', who is no user",
                draft.at("user_passwords", host=host),
                suggest(name, names, "remove it"),
            )


def seeds_open_something(draft: Draft) -> Iterator[InputError]:
    """What the directory is seeded with can be compared and typed: else everything looks right and nobody gets in."""
    for number, user in enumerate(draft.settings.get("users") or ()):
        fault = hash_fault(user.password_hash) if user.password_hash is not None else None
        if fault:
            yield InputError(
                f"{PREFIX}users[{number}].password_hash of {user.name}: {fault}",
                draft.at("users", number, "password_hash"),
                f"make one with `lemonstand user hash`, or give a first password in {PREFIX}user_passwords, from a vault",
            )
    judged: set[tuple[str, str]] = set()  # every host has them all
    for host, values in draft.hosts.items():
        for name, secret in values.get("user_passwords", {}).items():
            password = secret.get_secret_value()
            fault = password_fault(password) if (name, password) not in judged else None
            judged.add((name, password))
            if fault:
                yield InputError(
                    f"{PREFIX}user_passwords of {name}: {fault}",
                    draft.at("user_passwords", name, host=host),
                    "give another first password",
                )


def probe_users_can_log_in(draft: Draft) -> Iterator[InputError]:
    """Live checks have two accounts whose passwords are known, or none."""
    chosen: tuple[str, ...] = draft.settings.get("probe_users", ())
    users: tuple[User, ...] | None = draft.settings.get("users")
    if not chosen or users is None or any("user_passwords" not in values for values in draft.hosts.values()):
        return
    if len(set(chosen)) < 2:
        yield InputError(
            f"{PREFIX}probe_users names one user only", draft.at("probe_users"), "name two: checks send mail from one to the other"
        )
    names = [user.name for user in users]
    passwords = {name for values in draft.hosts.values() for name in values["user_passwords"]}
    for number, name in enumerate(chosen):
        if name not in names:
            yield InputError(
                f"the probe user '{name}' is no user",
                draft.at("probe_users", number),
                suggest(name, names, f"add it to {PREFIX}users: an account of its own, for its mailbox is emptied"),
            )
        elif name not in passwords:
            yield InputError(
                f"the probe user {name} has no password that checks could use",
                draft.at("probe_users", number),
                f"give it one in {PREFIX}user_passwords, from a vault",
            )


def flows_are_known(draft: Draft) -> Iterator[InputError]:
    """What a site adds or takes away fits the shipped flows."""
    shipped = draft.flows.names()
    for number, name in enumerate(draft.settings.get("flows_disabled", ())):
        if name not in shipped:
            yield InputError(
                f"there is no flow '{name}' to disable",
                draft.at("flows_disabled", number),
                suggest(name, shipped, "remove it; playbooks/flows.yml has all flows"),
            )
    names = list(shipped)
    for number, flow in enumerate(draft.settings.get("flows_extra", ())):
        if flow.name in names:
            yield InputError(f"there is a flow '{flow.name}' already", draft.at("flows_extra", number, "name"), "give it another name")
        names.append(flow.name)
        for key, endpoint in (("from", flow.source), ("to", flow.destination)):
            if endpoint not in ENDPOINTS:
                yield InputError(
                    f"flow '{flow.name}': unknown endpoint '{endpoint}'",
                    draft.at("flows_extra", number, key),
                    suggest(endpoint, ENDPOINTS, f"use one of {', '.join(ENDPOINTS)}"),
                )


def flows_keep_the_invariants(draft: Draft) -> Iterator[InputError]:
    """No flow opens what must never be open, whoever answers for it; nor does a list of addresses that a shipped flow leads to."""
    zones = draft.settings.get("zones")
    if zones is None:
        return
    addressing = _addressing(draft, zones)
    for number, flow in enumerate(draft.settings.get("flows_extra", ())):
        if flow.source not in ENDPOINTS or flow.destination not in ENDPOINTS:
            continue  # told already
        for invariant, source, target in broken(flow, addressing):
            yield InputError(
                f"flow '{flow.name}' lets {source} reach {target}, and {invariant.title} ({invariant.id})",
                draft.at("flows_extra", number),
                f"no waiver lifts that: {invariant.why}. Take the flow out; {invariant.instead}",
            )
    disabled, told = draft.settings.get("flows_disabled", ()), set()
    for flow in draft.flows.flows:
        for invariant, source, target in broken(flow, addressing) if flow.name not in disabled and flow.holds(_conditions(draft)) else ():
            variable = next((KINDS.lists[end] for end in (flow.destination, flow.source) if end in KINDS.lists), "")
            if (variable, invariant.id) in told:
                continue  # one list serves several flows
            told.add((variable, invariant.id))
            yield InputError(
                f"{variable} makes flow '{flow.name}' let {source} reach {target}, and {invariant.title} ({invariant.id})",
                draft.at(variable.removeprefix(PREFIX), host=_first_with(draft, variable)),
                f"no waiver lifts that: {invariant.why}. Name an address that lies elsewhere",
            )


def backups_go_elsewhere(draft: Draft) -> Iterator[InputError]:
    """What is to outlive the site's hosts is on none of them, and whom to believe there is known."""
    service = _services(draft).backup
    if service is None:
        return
    for number, host, address in _at_hosts(draft, service):
        if not KINDS.apart & set(draft.raw.hosts[host].groups):
            yield InputError(
                f"backups would go to {host} ({address}), a host of this site: who loses or breaks it has them too",
                draft.at("services", "backup", "addresses", number),
                "name an address of a machine that is no host of this inventory",
            )
    yield from _without_its_ca(draft, service, "backup")


def _at_hosts(draft: Draft, service: Service) -> Iterator[tuple[int, str, IPv4Address | IPv6Address]]:
    """The addresses of a service that hosts of the inventory have: which of them it is, the host, the address."""
    for number, address in enumerate(service.addresses):
        yield from ((number, host, address) for host, _, leg in draft.legs() if address in leg.addresses)


def _at_no_host_of_ours(draft: Draft, name: str, service: Service, what: str, remedy: str) -> Iterator[InputError]:
    """No address of a service is one of a host that the site sets up; `what` has a place for that host."""
    for number, host, address in _at_hosts(draft, service):
        if set(draft.raw.hosts[host].groups) & set(ROLE_GROUPS):
            yield InputError(what.format(f"{host} ({address})"), draft.at("services", name, "addresses", number), remedy)


def _without_its_ca(draft: Draft, service: Service, name: str) -> Iterator[InputError]:
    if service.ca is not None and not service.ca.is_file():
        yield InputError(f"{service.ca} is not there", draft.at("services", name, "ca"), "put the PEM file there, or correct the path")


def a_smarthost_is_somebody_elses(draft: Draft) -> Iterator[InputError]:
    """Mail to others goes to no host of the site, and what relays log in with is there and nobody else's to read."""
    service = _services(draft).smarthost
    if service is None:
        return
    remedy = "name an address of whoever hands mail on for you; without a smarthost relays send by themselves"
    yield from _at_no_host_of_ours(draft, "smarthost", service, "mail to others would go to {}, a host of this site", remedy)
    yield from _without_its_ca(draft, service, "smarthost")
    yield from _password_nobody_reads(service.password_file, draft.at("services", "smarthost", "password_file"))


def _password_nobody_reads(file: Path, where: str) -> Iterator[InputError]:
    if not file.is_file():
        yield InputError(f"{file} is not there", where, "put the password there, in one line, mode 0600; ansible-vault may encrypt it")
    elif file.stat().st_mode & 0o077:
        yield InputError(f"others may read {file}", where, f"chmod 600 {file}; have the password changed if they did")


def mirrors_are_somebody_elses(draft: Draft) -> Iterator[InputError]:
    """Packages come from no host of the site, and whom to believe is known."""
    services = _services(draft)
    for name, service in (("mirror", services.mirror), ("mirror_dmz", services.mirror_dmz)):
        if service is None:
            continue
        what = "packages would come from {}, a host of this site: who breaks it chooses what others run"
        yield from _at_no_host_of_ours(draft, name, service, what, "name an address of a mirror that is no host of this inventory")
        yield from _without_its_ca(draft, service, name)
        if service.key is not None and not service.key.is_file():
            yield InputError(
                f"{service.key} is not there", draft.at("services", name, "key"), "put the signing key there, or correct the path"
            )
        elif service.key is not None and not service.key.read_bytes().startswith(b"-----BEGIN PGP PUBLIC KEY BLOCK-----"):
            yield InputError(
                f"{service.key} is no public key in ASCII armor",
                draft.at("services", name, "key"),
                "write it with gpg --armor --export; without `key` Debian's own keys count",
            )


def a_directory_behind_is_near(draft: Draft) -> Iterator[InputError]:
    """Who judges passwords is no host of the site, and is not across the Internet, where auth hosts never go (INV-1)."""
    service = _services(draft).directory
    if service is None:
        return
    remedy = "name an address of the organisation's own directory; without one the directory of auth hosts judges"
    yield from _at_no_host_of_ours(draft, "directory", service, "passwords would be judged by {}, a host of this site", remedy)
    zones: Mapping[str, Zone] = draft.settings.get("zones") or {}
    for number, address in enumerate(service.addresses):
        zone = zone_at(address, zones)
        if zone in {"dmz", OUTSIDE} or (zone is None and not any(address in network for network in PRIVATE)):
            yield InputError(
                f"passwords would be judged at {address}, " + (f"in the zone {zone}" if zone else "across the Internet"),
                draft.at("services", "directory", "addresses", number),
                "name a private address (RFC 1918, RFC 4193) or one in an inner zone: have a replica, or a leg of that directory, there",
            )
    yield from _without_its_ca(draft, service, "directory")
    if service.search is not None:
        yield from _password_nobody_reads(service.search.password_file, draft.at("services", "directory", "search", "password_file"))


def a_directory_behind_knows_whom_it_is_asked_about(draft: Draft) -> Iterator[InputError]:
    """A login name becomes one name there, and no other's."""
    service = _services(draft).directory
    if service is None:
        return
    at = draft.at("services", "directory")
    if (service.bind_name is None) == (service.search is None):
        yield InputError(
            "the directory behind has " + ("both bind_name and search" if service.search else "neither bind_name nor search"),
            at,
            "give one of them: the name a user binds as, or how his entry is found",
        )
        return
    template = service.bind_name or (service.search.filter if service.search else "")
    where = draft.at("services", "directory", *(("bind_name",) if service.bind_name else ("search", "filter")))
    parts = set(re.findall(r"\{([^{}]*)\}", template))
    known = {"login", "local", "domain"}
    if parts - known or not parts & {"login", "local"}:
        what = f"'{template}' says {{{sorted(parts - known)[0]}}}" if parts - known else f"'{template}' is the same for every user"
        yield InputError(what, where, "use {login} (the whole address), or {local} and {domain} (its parts)")
    mail: tuple[str, ...] = draft.settings.get("mail_domains") or ()
    judged = service.domains or mail
    if "login" not in parts and "domain" not in parts and len(judged) > 1:
        yield InputError(
            f"'{template}' is the same for one name in {judged[0]} and in {judged[1]}: the one could log in as the other",
            where,
            "use {login}, or {domain} beside {local}; or name one of the domains in 'domains'",
        )
    for number, domain in enumerate(service.domains):
        if mail and domain not in mail:
            yield InputError(
                f"{domain} is in no mail domain of this site", draft.at("services", "directory", "domains", number),
                suggest(domain, mail, f"one of {', '.join(mail)}"),
            )  # fmt: skip
    for number, name in enumerate(service.own_passwords):
        if mail and name.lower().rpartition("@")[2] not in mail:
            yield InputError(
                f"'{name}' is no login name of this site", draft.at("services", "directory", "own_passwords", number),
                f"a whole address in one of {', '.join(mail)}",
            )  # fmt: skip


def _addressing(draft: Draft, zones: Mapping[str, Zone]) -> Addressing:
    """What invariants are judged on."""
    kind_of = {name: next((group for group in ROLE_GROUPS if group in host.groups), OUTSIDE) for name, host in draft.raw.hosts.items()}
    # Who stands apart is somebody in the zone of the address, as whoever runs a service for the site is.
    apart = {name for name, host in draft.raw.hosts.items() if KINDS.apart & set(host.groups)}
    owners = {
        address: End(kind_of[host], zone if kind_of[host] != OUTSIDE else OUTSIDE)
        for host, zone, leg in draft.legs()
        if host not in apart
        for address in leg.addresses
    }
    lists: dict[str, dict[str, set[IPv4Address | IPv6Address]]] = {name: {} for name in KINDS.lists}
    for host, values in draft.hosts.items():
        for name, variable in KINDS.lists.items():
            if variable == SERVICES:
                service = _services(draft).at(name)
                lists[name].setdefault(kind_of[host], set()).update(service.addresses if service else ())
                continue
            key = variable.removeprefix(PREFIX)
            lists[name].setdefault(kind_of[host], set()).update(values.get(key) or draft.settings.get(key) or ())
    shells = {shell_port(host.connection) for host in draft.raw.hosts.values()}
    return Addressing(zones, lists, owners, frozenset({SSH, *shells}))


def _first_with(draft: Draft, variable: str) -> str | None:
    """The first host with a variable of its own; None for one that all share."""
    if variable.removeprefix(PREFIX) in draft.settings:
        return None
    return next((name for name, host in draft.raw.hosts.items() if variable in host.values), None)


def waivers_are_known(draft: Draft) -> Iterator[InputError]:
    """A site's waivers are about controls that exist, each under an id of its own."""
    if not draft.settings.get("waivers"):
        return
    controls = load_controls().by_id()
    taken = {waiver.id for waiver in load_waivers()}
    for number, waiver in enumerate(draft.settings.get("waivers", ())):
        if waiver.id in taken:
            yield InputError(f"there is a waiver '{waiver.id}' already", draft.at("waivers", number, "id"), "give it an id of its own")
        taken.add(waiver.id)
        held = [each for each in load_invariants() if not waiver.part and set(each.controls) & set(waiver.controls)]
        if held:
            mine = [name for name in waiver.controls if any(name in each.controls for each in held)]
            yield InputError(
                f"waiver '{waiver.id}' waives {', '.join(mine)} as a whole, and {held[0].title} ({held[0].id})",
                draft.at("waivers", number, "controls"),
                f"no waiver lifts that: {held[0].why}. Name the part that is not met in `part`, or take the waiver out",
            )
        for name in waiver.controls:
            if name not in controls:
                yield InputError(
                    f"waiver '{waiver.id}' is about '{name}', which is no control",
                    draft.at("waivers", number, "controls"),
                    suggest(name, controls, "`lemonstand verify` lists all controls"),
                )


def accepts_are_known(draft: Draft) -> Iterator[InputError]:
    """What a site's owner accepts is a deviation that is proposed to him, once, and not before it was proposed or in days to come."""
    accepts = draft.settings.get("accepts", ())
    if not accepts:
        return
    shipped = {waiver.id: waiver for waiver in load_waivers()}
    profile = draft.settings.get("timer_profile")
    timed = [deviation_id(profile, relation) for relation, _ in draft.timers.deviations(profile)] if profile is not None else []
    own = {waiver.id for waiver in draft.settings.get("waivers", ())}
    today = dt.datetime.now(dt.UTC).date()
    seen: set[str] = set()
    for number, each in enumerate(accepts):
        at = draft.at("accepts", number, "id")
        if each.id in own:
            yield InputError(f"'{each.id}' is a waiver of the site's own", at, "take it out here: the waiver names its owner itself")
        elif each.id not in shipped and each.id not in timed:
            known = sorted({*shipped, *timed})
            yield InputError(f"there is no deviation '{each.id}' to accept", at, suggest(each.id, known, f"use one of {', '.join(known)}"))
        if each.id in seen:
            yield InputError(f"the deviation '{each.id}' is accepted twice", at, "leave the one that holds")
        seen.add(each.id)
        if each.date > today:
            yield InputError(
                f"'{each.id}' is accepted on {each.date}, which is in the future",
                draft.at("accepts", number, "date"),
                "give the day it was done",
            )
        if each.id in shipped and each.date < shipped[each.id].date:
            yield InputError(
                f"'{each.id}' was accepted on {each.date}, before what is proposed now ({shipped[each.id].date})",
                draft.at("accepts", number, "date"),
                "read it again, and accept it anew",
            )


def own_settings_leave_controls_alone(draft: Draft) -> Iterator[InputError]:
    """What a site sets itself is nothing that a role sets, and nothing a control depends on (record 0038)."""
    programs = load_own_settings()
    own: list[tuple[str, str, tuple[str, ...], Mapping[str, Any]]] = [
        ("dovecot", group, ("dovecot_extra", group), names) for group, names in draft.settings.get("dovecot_extra", {}).items()
    ]
    own.append(("postfix", "relays", ("postfix_extra",), draft.settings.get("postfix_extra", {})))
    for program, group, (variable, *way), names in own:
        for name in names:
            why = programs[program].refusal(group, name)
            if why:
                yield InputError(
                    f"'{name}' of {program} on {group} is not the site's to choose: {why}",
                    draft.at(variable, *way, name),
                    "leave it out; docs/variables.md has the variables that change what roles set",
                )


def drop_ins_leave_controls_alone(draft: Draft) -> Iterator[InputError]:
    """A site's own text is for programs that read one, and says nothing that a role says or a control depends on (record 0052)."""
    dovecots = load_own_settings()[DOVECOT].files
    for group, texts in draft.settings.get("drop_ins", {}).items():
        programs = (*((DOVECOT,) if group in dovecots else ()), *KINDS.kinds[group].units)
        for program, text in texts.items():
            if program not in programs:
                yield InputError(
                    f"{group} have no '{program}' to which a site may add",
                    draft.at("drop_ins", group, program),
                    suggest(program, programs, f"use one of {', '.join(programs)}"),
                )
                continue
            for line, what, why in load_drop_ins().refusals(group, program, text):
                yield InputError(
                    f"line {line} of the text for {program} on {group}: '{what}' is not the site's to choose: {why}",
                    draft.at("drop_ins", group, program),
                    "leave it out; docs/variables.md has the variables that change what roles set",
                )


def timers_agree(draft: Draft) -> Iterator[InputError]:
    """The timer profile exists, and its relations hold on every host with the numbers the site changes."""
    profile, changed = draft.settings.get("timer_profile"), draft.settings.get("timers")
    if profile is None or changed is None:
        return
    profiles = draft.timers.profiles
    if profile not in profiles:
        yield InputError(
            f"there is no timer profile '{profile}'",
            draft.at("timer_profile"),
            suggest(profile, profiles, f"use one of {', '.join(profiles)}"),
        )
        return
    for name in changed:
        if name not in profiles[profile]:
            yield InputError(
                f"there is no timer '{name}'",
                draft.at("timers", name),
                suggest(name, profiles[profile], f"use one of {', '.join(profiles[profile])}"),
            )
    told = set()
    for host in draft.raw.hosts.values():
        timers = {name: (value, f"{TIMERS_YML} (profiles.{profile}.{name})") for name, value in profiles[profile].items()}
        timers |= {name: (value, draft.at("timers", name)) for name, value in changed.items() if name in timers}
        timers |= {name: found for name, found in _own_timers(host).items() if name in timers}
        numbers = {name: value for name, (value, _) in timers.items()}
        for relation in draft.timers.broken(profile, numbers):
            right, where = (
                (f"{relation.right} = {numbers[relation.right]}", timers[relation.right][1])
                if isinstance(relation.right, str)
                else (str(relation.right), f"{TIMERS_YML} (relations: {relation})")
            )
            value, place = timers[relation.left]
            fault = InputError(
                f"timer profile '{profile}': {relation.left} = {value} must be {relation.op} {right}",
                f"{place} and {where}",
                f"{relation.reason} ({relation.control}); give a number that fits, or leave the profile's own",
            )
            if (fault.what, fault.where) not in told:
                told.add((fault.what, fault.where))
                yield fault


TIMERS_YML = "playbooks/timers.yml"
ROLE_TIMERS = {"mail_store_idle_notify_interval": "idle_notify", "mail_store_hibernate_timeout": "hibernate"}
"""Variables of roles that carry one timer each. Those of a packet filter carry several, by name; those of the kernel by name as well."""


def _own_timers(host: RawHost) -> dict[str, tuple[int, str]]:
    """The timers a host's own role variables change: {timer: (number, place)}."""
    found: dict[str, tuple[Any, str]] = {}
    for variable, timer in ROLE_TIMERS.items():
        if variable in host.values:
            found[timer] = host.values[variable], place_of(host, variable)
    for variable, prefix in (("nftables_timeouts", ""), ("sysctl_settings", "net.ipv4.")):
        values = host.values.get(variable)
        for key, value in values.items() if isinstance(values, dict) else ():
            if key.startswith(prefix):
                found[key.removeprefix(prefix)] = value, place_of(host, variable, key)
    # What is no number has been told by the role's own specification.
    return {name: (value, where) for name, (value, where) in found.items() if isinstance(value, int)}


def middleboxes_keep_connections(draft: Draft) -> Iterator[InputError]:
    """What else is on the path remembers connections long enough, hop by hop, or somebody answers for it."""
    profile, boxes = draft.settings.get("timer_profile"), draft.settings.get("middleboxes")
    if profile not in draft.timers.profiles or "middleboxes" not in draft.settings:
        return
    terms = draft.timers.terms.get(profile)
    if boxes is None:
        if terms is not None and terms.states_middleboxes:
            yield InputError(
                f"timer profile '{profile}' needs a word about the devices on the path",
                draft.at("timer_profile"),
                f"list your balancers and appliances in {PREFIX}middleboxes, or [] if there is none",
            )
        return
    timers = {**draft.timers.profiles[profile], **draft.settings.get("timers", {})}
    names: set[str] = set()
    for number, box in enumerate(boxes):
        if box.name in names:
            yield InputError(f"two middleboxes are named '{box.name}'", draft.at("middleboxes", number, "name"), "give each a name")
        names.add(box.name)
        yield from _judge_box(draft, number, box, timers)


def _judge_box(draft: Draft, number: int, box: Middlebox, timers: dict[str, int]) -> Iterator[InputError]:
    excused = False
    for hop in draft.timers.hops:
        value = getattr(box, hop.left)
        if value is None or (hop.zones and not set(box.between) <= set(hop.zones)) or hop.holds({**timers, hop.left: value}):
            continue
        right = f"{hop.right} = {timers[hop.right]}" if isinstance(hop.right, str) else str(hop.right)
        place = f"{TIMERS_YML} (hops: {hop})"
        if isinstance(hop.right, str):
            own = hop.right in draft.settings.get("timers", {})
            place = draft.at("timers", hop.right) if own else f"{TIMERS_YML} (profiles.{draft.settings['timer_profile']}.{hop.right})"
        if hop.waivable and box.waiver is not None:
            excused = True
            continue
        remedy = "add a waiver: {reason, owner, date, expires}" if hop.waivable else f"lower {hop.right}, or raise the device's limit"
        yield InputError(
            f"middlebox '{box.name}' between {box.hop}: {hop.left} = {value} must be {hop.op} {right}",
            f"{draft.at('middleboxes', number, hop.left)} and {place}",
            f"{hop.reason} ({hop.control}); {remedy}",
        )
    if box.waiver is None:
        return
    if not excused:
        yield InputError(f"the waiver of middlebox '{box.name}' waives nothing", draft.at("middleboxes", number, "waiver"), "remove it")
    elif box.waiver.expired(dt.datetime.now(dt.UTC).date()):
        yield InputError(
            f"the waiver of middlebox '{box.name}' ended on {box.waiver.expires}",
            draft.at("middleboxes", number, "waiver", "expires"),
            f"ask {box.waiver.owner}: replace the device, or grant it anew",
        )


def controllers_get_in(draft: Draft) -> Iterator[InputError]:
    """Some flow lets the controllers reach the hosts, or the first apply would be the last."""
    disabled, extra = draft.settings.get("flows_disabled"), draft.settings.get("flows_extra")
    if disabled is None or extra is None:
        return
    left = [flow for flow in (*draft.flows.flows, *extra) if flow.name not in disabled]
    if not any(flow.source == "controllers" and flow.destination == MANAGEMENT and flow.protocol == "tcp" for flow in left):
        yield InputError(
            "no flow lets the controllers in: nobody could reach the hosts after an apply",
            draft.at("flows_disabled"),
            "leave the flow 'management-ssh', or add one from controllers to management in its place",
        )


def controllers_come_in_where_flows_let_them(draft: Draft) -> Iterator[InputError]:
    """How Ansible gets to each host is a way some flow leaves open, as far as the inventory tells; the rest is seen on the hosts."""
    ports = _management_ports(draft)
    owners = {address: (host, zone) for host, zone, leg in draft.legs() for address in leg.addresses}
    reached: dict[tuple[str, str, str], str] = {}
    for name, host in draft.raw.hosts.items():
        ways = host.connection
        if not any(group in host.groups for group in ROLE_GROUPS) or ways.get("ansible_connection", "ssh") not in {
            "ssh",
            "smart",
            "paramiko",
        }:
            continue
        variable, port = _port_of(ways)
        if ports is not None and port.isdigit() and int(port) not in ports:
            yield InputError(
                f"no flow lets the controllers in on {port}: nobody could reach {name} after an apply",
                place_of(host, variable),
                f"add a flow to {PREFIX}flows_extra: {{name: management-ssh-{port}, from: controllers, to: management, protocol: tcp, "
                f"ports: [{port}], reason: …}}, or let sshd listen on {' or '.join(map(str, sorted(ports))) or 'a port of a flow'}",
            )
        elif not port.isdigit() or not 1 <= int(port) <= MAX_PORT:
            yield InputError(f"'{port}' is no port", place_of(host, variable), f"give a number from 1 to {MAX_PORT}")
        variable = "ansible_ssh_host" if "ansible_ssh_host" in ways else "ansible_host"
        target = ways.get(variable, name)
        yield from _wrong_address(draft, host, variable, target, owners)
        jump = jump_host(ways)
        first = reached.setdefault((target, port, jump), name)
        if first != name and variable in ways:
            yield InputError(
                f"{name} and {first} are reached by the same address {target}: both would be made of one machine",
                place_of(host, variable),
                "give each host its own address",
            )
        controllers = draft.settings.get("controllers")
        through = _address(jump.rpartition("@")[2])
        if controllers is not None and through is not None and through not in controllers:
            yield InputError(
                f"{name} is reached by way of {through}, which no flow lets in",
                place_of(host, next(key for key in SSH_ARGUMENTS if jump in ways.get(key, ""))),
                f"add the jump host's address on the management network to {PREFIX}controllers",
            )


def controllers_keep_their_way_in(draft: Draft) -> Iterator[InputError]:
    """SSH will take keys alone, from listed accounts: what Ansible comes in by must go on."""
    for name, host in draft.raw.hosts.items():
        if not any(group in host.groups for group in ROLE_GROUPS):
            continue
        ways = host.connection
        for variable in PASSWORDS:
            if variable in ways:
                yield InputError(
                    f"Ansible logs in at {name} by password, and SSH there will take keys alone: nobody could come in after an apply",
                    place_of(host, variable),
                    f"`ssh-copy-id` the controller's key to {name}, and take {variable} away",
                )
        account = ways.get("ansible_user", ways.get("ansible_ssh_user", ""))
        if account == "root" and host.values.get("sshd_permit_root_login") == "no":
            yield InputError(
                f"SSH at {name} will not let root in, and Ansible comes in as root: nobody could come in after an apply",
                place_of(host, "sshd_permit_root_login"),
                "set ansible_user to an account that may become root, or take sshd_permit_root_login away",
            )
        jump = _address(jump_host(ways).rpartition("@")[2])
        legs = ((other, leg) for other, _, leg in draft.legs() if set(draft.raw.hosts[other].groups) & set(ROLE_GROUPS))
        through = next((other for other, leg in legs if jump is not None and jump in leg.addresses), "")
        if through and not draft.raw.hosts[through].values.get("sshd_jump_to"):
            yield InputError(
                f"{name} is reached by way of {through}, whose SSH will pass nobody on",
                place_of(host, next(key for key in SSH_ARGUMENTS if key in ways)),
                f"list {name}'s address and port in sshd_jump_to of {through}, or come by another way",
            )
        elif through and not _leads_on(draft, through):
            yield InputError(
                f"{name} is reached by way of {through}, and no flow lets that host open a shell on others",
                place_of(host, next(key for key in SSH_ARGUMENTS if key in ways)),
                "come by a jump host of the management network that is no host of this site; or by a flow of your own in "
                f"{PREFIX}flows_extra, which can't lead to auth hosts",
            )


def _leads_on(draft: Draft, through: str) -> bool:
    """Whether a flow of the site's own lets one of its hosts open shells on others; no shipped one does."""
    extra = draft.settings.get("flows_extra") or ()
    groups = draft.raw.hosts[through].groups
    return any(flow.source in groups and flow.destination == MANAGEMENT and flow.protocol == "tcp" for flow in extra)


def routers_speak_where_the_host_stands(draft: Draft) -> Iterator[InputError]:
    """A host hears routers in zones in which it has a leg with IPv6."""
    for name, settings in draft.hosts.items():
        for zone in settings.get("accept_ra", ()):
            leg = settings.get("interfaces", {}).get(zone)
            if leg is None or leg.ipv6 is None:
                yield InputError(
                    f"{name} is to hear routers in zone '{zone}', where it has no {'leg' if leg is None else 'IPv6 address'}",
                    draft.at("accept_ra", host=name),
                    f"take '{zone}' from {PREFIX}accept_ra, or give the host a leg there",
                )


MAX_PORT = 65535
SSH_ARGUMENTS = ("ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args")


def _management_ports(draft: Draft) -> set[int] | None:
    """The TCP ports on which flows let controllers in; None where flows can't be judged."""
    disabled, extra = draft.settings.get("flows_disabled"), draft.settings.get("flows_extra")
    if disabled is None or extra is None:
        return None
    active = [flow for flow in (*draft.flows.flows, *extra) if flow.name not in disabled and flow.holds(_conditions(draft))]
    let_in = [flow for flow in active if flow.source == "controllers" and flow.destination == MANAGEMENT and flow.protocol == "tcp"]
    return {port for flow in let_in for port in flow.ports} if let_in else None


def _services(draft: Draft) -> Services:
    """The services that are named, where they are sound."""
    services = draft.settings.get("services")
    return services if isinstance(services, Services) else Services.model_validate({})


def _conditions(draft: Draft) -> dict[str, bool]:
    """Which conditions of flows hold."""
    return {
        "implicit_tls": draft.settings.get("tls_profile") != "seed-strict",
        "managesieve": bool(draft.settings.get("managesieve")),
        "self_service": bool(draft.settings.get("self_service")),
        "acme": isinstance(draft.settings.get("public_certificate"), AcmeCertificate),
        **_services(draft).conditions(),
        **several(draft.members),
    }


def _port_of(ways: Mapping[str, str]) -> tuple[str, str]:
    """The port Ansible's ssh plug-in takes, and the variable it is from; the later name wins, then arguments for ssh, then 22."""
    for variable in ("ansible_ssh_port", "ansible_port"):
        if variable in ways:
            return variable, ways[variable].strip()
    for variable in SSH_ARGUMENTS:
        found = re.search(r"(?:^|\s)-(?:p\s*|o\s*['\"]?Port\s*[= ]\s*)(\d+)", ways.get(variable, ""), re.IGNORECASE)
        if found:
            return variable, found.group(1)
    return "ansible_port", "22"


def shell_port(ways: Mapping[str, str]) -> int:
    """The port Ansible comes in by; SSH's own where what is given is none, which is told elsewhere."""
    port = _port_of(ways)[1]
    return int(port) if port.isdigit() else SSH


def jump_host(ways: Mapping[str, str]) -> str:
    """The last host SSH jumps over, as the arguments for ssh name it (`-J`, ProxyJump, a ProxyCommand of ssh's); empty if there is none."""
    for variable in SSH_ARGUMENTS:
        text = ways.get(variable, "")
        found = re.search(r"(?:^|\s)-(?:J\s*|o\s*['\"]?ProxyJump\s*[= ]\s*)([^\s'\"]+)", text, re.IGNORECASE)
        if found and found.group(1).lower() != "none":
            return _without_port(found.group(1).rpartition(",")[2])
        if not found and (by_command := _jump_of_command(text)):
            return by_command
    return ""


def _without_port(target: str) -> str:
    """A target of ssh's without its port, brackets and scheme."""
    last = target.removeprefix("ssh://")
    if "[" in last:
        return re.sub(r"\A(.*@)?\[([^\]]+)\](:\d+)?\Z", r"\2", last)
    return re.sub(r":\d+\Z", "", last) if last.count(":") == 1 else last


WITH_VALUE = "BbcDEeFIiJLlmOopQRSWw"
"""Options of ssh(1) that take a value."""


def _jump_of_command(text: str) -> str:
    """The host of a ProxyCommand that is an ssh which passes on its standard input (`-W %h:%p`); empty: it is something else."""
    try:
        given = shlex.split(text)
    except ValueError:
        return ""
    options = [word.removeprefix("-o") or after for word, after in zip(given, [*given[1:], ""], strict=False) if word.startswith("-o")]
    command = next((each for each in options if each.lower().startswith("proxycommand")), "")
    words = command[len("ProxyCommand") :].lstrip("= ").split()
    if not words or words[0].rpartition("/")[2] != "ssh" or not any(word.startswith("-W") for word in words):
        return ""
    rest = iter(words[1:])
    for word in rest:
        if not word.startswith("-"):
            return _without_port(word)
        if word[-1] in WITH_VALUE and len(word) == 2:
            next(rest, "")
    return ""


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _wrong_address(
    draft: Draft,
    host: RawHost,
    variable: str,
    target: str,
    owners: Mapping[IPv4Address | IPv6Address, tuple[str, str]],
) -> Iterator[InputError]:
    """An address that is another host's, or this host's in a zone controllers are not let in by."""
    address = _address(target)
    if address is None or MANAGEMENT not in (draft.settings.get("zones") or {}):
        return
    legs = draft.hosts.get(host.name, {}).get("interfaces", {})
    way_in = MANAGEMENT if MANAGEMENT in legs or not legs else next(iter(legs))
    own = legs.get(way_in)
    remedy = f"give its address in '{way_in}'" + (f": {own.addresses[0]}" if own is not None else "")
    owner, zone = owners.get(address, (host.name, way_in))
    if owner != host.name:
        yield InputError(f"{variable} {target} of {host.name} is an address of {owner}", place_of(host, variable), remedy)
    elif way_in != MANAGEMENT and zone_at(address, draft.settings["zones"]) == MANAGEMENT:
        yield InputError(
            f"{variable} {target} lies in '{MANAGEMENT}', where {host.name} has no leg",
            place_of(host, variable),
            f"add the leg to {PREFIX}interfaces; or, where the host has one card, {remedy}",
        )
    elif zone != way_in:
        yield InputError(
            f"{variable} {target} is {host.name}'s address in '{zone}', and flows let controllers in by '{way_in}' alone",
            place_of(host, variable),
            remedy,
        )


def families_match(draft: Draft) -> Iterator[InputError]:
    """A host has the IP versions its zone has, and clients reach the site by each of them."""
    zones: dict[str, Zone] | None = draft.settings.get("zones")
    if zones is None:
        return
    for host, zone, interface in draft.legs():
        if zone not in zones or any(group in draft.raw.hosts[host].groups for group in OUTER_GROUPS):
            continue
        for family, name in (("ipv4", "IPv4"), ("ipv6", "IPv6")):
            if getattr(zones[zone], family) is not None and getattr(interface, family) is None:
                yield InputError(
                    f"host {host} has no {name} address in zone '{zone}', which has {name}: flows would reach it in one IP version only",
                    draft.at("interfaces", zone, host=host),
                    f"give it an address of {getattr(zones[zone], family)}, or take {family} from {PREFIX}zones",
                )
    dmz, public, routed = zones.get("dmz"), draft.settings.get("public_ipv4"), draft.settings.get("routed_ipv4")
    if dmz is None or "public_ipv4" not in draft.settings or routed is None:
        return
    if routed and public is not None:
        yield InputError(
            f"{PREFIX}routed_ipv4 says that nothing is translated, and {PREFIX}public_ipv4 {public} is what is translated",
            draft.at("routed_ipv4"),
            "keep the address if the border translates it to hosts of the DMZ; keep the other if the Internet has a route to them",
        )
    if routed and dmz.ipv4 is None:
        yield InputError(
            f"{PREFIX}routed_ipv4 is true, and the zone 'dmz' has no IPv4",
            draft.at("routed_ipv4"),
            "give the zone an IPv4 network, or take the variable away",
        )
    if dmz.ipv4 is not None and public is None and not routed:
        yield InputError(
            f"the zone 'dmz' has IPv4, but nobody outside can reach it by IPv4: {PREFIX}public_ipv4 is not set",
            draft.at("zones", "dmz", "ipv4"),
            f"set {PREFIX}public_ipv4 to the border's address outside; or {PREFIX}routed_ipv4: true, if the Internet has a route to "
            f"{dmz.ipv4}; or take ipv4 from the zone",
        )
    if dmz.ipv4 is None and public is not None:
        yield InputError(
            f"{PREFIX}public_ipv4 {public} leads nowhere: the zone 'dmz' has no IPv4",
            draft.at("public_ipv4"),
            "give the zone an IPv4 network, or remove the address",
        )


def flows_have_a_family(draft: Draft) -> Iterator[InputError]:
    """The ends of each flow share an IP version."""
    zones: dict[str, Zone] | None = draft.settings.get("zones")
    if zones is None:
        return
    for flow in draft.flows.flows:
        ends = [families_of(endpoint, zones) for endpoint in (flow.source, flow.destination)]
        if None not in ends and flow.name not in draft.settings.get("flows_disabled", ()) and not set(ends[0] or ()) & set(ends[1] or ()):
            yield InputError(
                f"flow '{flow.name}': {flow.source} and {flow.destination} share no IP version",
                draft.at("zones"),
                "give both zones a network of the same IP version",
            )


def names_differ(draft: Draft) -> Iterator[InputError]:
    """The public name and the name in the MX record are two: their certificates belong to two hosts."""
    public, exchanger = draft.settings.get("public_name"), draft.settings.get("mx_name")
    if public is not None and public == exchanger:
        yield InputError(
            f"{PREFIX}public_name and {PREFIX}mx_name are both {public}",
            draft.at("mx_name"),
            "give the relay a name of its own in the MX record",
        )


def files_exist(draft: Draft) -> Iterator[InputError]:
    """The public certificate's files are there and hidden from others; the CAs' directory is absolute."""
    certificate = draft.settings.get("public_certificate")
    if isinstance(certificate, FileCertificate):
        for key in ("certificate", "key"):
            path = getattr(certificate, key)
            if not path.is_file():
                yield InputError(f"{path} is not there", draft.at("public_certificate", key), "put the PEM file there, or correct the path")
            elif key == "key" and path.stat().st_mode & 0o077:
                yield InputError(f"others may read the key {path}", draft.at("public_certificate", key), f"chmod 600 {path}")
    pki = draft.settings.get("pki_dir")
    if pki is not None and not pki.is_absolute():
        yield InputError(f"{PREFIX}pki_dir '{pki}' is relative", draft.at("pki_dir"), "give an absolute directory on the controller")


def authorities_are_whole(draft: Draft) -> Iterator[InputError]:
    """The directory with the CAs can be used, and each CA in it: what hosts trust is not lost, ended, or in others' hands."""
    pki = draft.settings.get("pki_dir")
    if pki is None or not pki.is_absolute():
        return
    for fault in filter_plugin("authorities").authority_faults(pki, draft.settings.get("signer")):
        what, _, remedy = fault.partition("; ")
        yield InputError(what, draft.at("pki_dir"), remedy)


def acme_can_work(draft: Draft) -> Iterator[InputError]:
    """One frontend, which can look up the ACME server's name; the files it needs are there."""
    certificate = draft.settings.get("public_certificate")
    if not isinstance(certificate, AcmeCertificate):
        return
    frontends = draft.members("frontends")
    if len(frontends) > 1:
        # The CA asks port 80 of the public name, which leads to any of them; only one knows the answer (RFC 8555 section 8.3).
        yield InputError(
            f"there are {len(frontends)} frontends, and ACME's question reaches any of them",
            draft.at("public_certificate", "source"),
            "get the certificate elsewhere and give it as {source: files, …}",
        )
    for host in frontends:
        if host in draft.hosts and not draft.hosts[host].get("dns_resolvers", ()):
            yield InputError(
                f"{host} has no resolver to find the ACME server with",
                draft.at("dns_resolvers", host=host),
                f"give it {PREFIX}dns_resolvers, or take {PREFIX}public_certificate from elsewhere",
            )
    path = certificate.server_ca
    if path is not None and not path.is_file() and not draft.members("peers"):  # a lab makes it in its first run
        yield InputError(f"{path} is not there", draft.at("public_certificate", "server_ca"), "put the PEM file there, or correct the path")


RULES: tuple[Rule, ...] = (
    groups_are_filled,
    one_role_a_host,
    hosts_have_names,
    no_host_is_called_like_a_group,
    no_group_has_too_many,
    directories_are_told_apart,
    zones_are_declared,
    hosts_stand_at_home,
    hosts_of_one_leg_are_reached,
    hosts_stay_in_one_zone,
    addresses_lie_in_their_zone,
    networks_are_joined,
    addresses_are_unique,
    public_address_is_on_the_edge,
    edges_share_addresses,
    names_differ,
    domains_are_sound,
    standbys_are_sound,
    users_are_sound,
    users_have_a_password,
    seeds_open_something,
    probe_users_can_log_in,
    flows_are_known,
    flows_keep_the_invariants,
    backups_go_elsewhere,
    a_smarthost_is_somebody_elses,
    mirrors_are_somebody_elses,
    a_directory_behind_is_near,
    a_directory_behind_knows_whom_it_is_asked_about,
    waivers_are_known,
    accepts_are_known,
    own_settings_leave_controls_alone,
    drop_ins_leave_controls_alone,
    controllers_get_in,
    controllers_come_in_where_flows_let_them,
    controllers_keep_their_way_in,
    routers_speak_where_the_host_stands,
    families_match,
    flows_have_a_family,
    timers_agree,
    middleboxes_keep_connections,
    files_exist,
    authorities_are_whole,
    acme_can_work,
)
"""All rules, in the order their faults are shown."""
