"""Filters that turn the inventory, the flows and the timers into what roles are handed. Pure functions, but for `data`."""

from __future__ import annotations

import base64
import collections
import datetime
import difflib
import functools
import hashlib
import ipaddress
import json
import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleFilterError

Host = Mapping[str, Any]
Hosts = Mapping[str, Host]
"""Members of a site: name to variables. The plays hand it over as JSON (`members`), which Ansible doesn't look into for templates."""


@functools.cache
def data(name: str) -> Any:
    """One of the data files beside the playbooks, such as `timers.yml`. Read once a task: Ansible asks whenever a variable is named."""
    text = (Path(__file__).parents[1] / name).read_text(encoding="utf-8")
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are the safe one


SHAPE = data("kinds.yml")
ZONES, GROUPS, LISTS = tuple(SHAPE["zones"]), tuple(SHAPE["kinds"]), SHAPE["lists"]
SERVICES = tuple(end for end, variable in LISTS.items() if variable == "lemonstand_services")


TOLD = ("lemonstand_interfaces", "lemonstand_zones", "lemonstand_edge_addresses", "lemonstand_standby_of", *dict.fromkeys(LISTS.values()))
"""The variables that rules and lists of hosts are made from."""


def active_flows(
    flows: Iterable[Mapping[str, Any]],
    conditions: Mapping[str, bool],
    extra: Iterable[Mapping[str, Any]],
    disabled: Iterable[str],
    services: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """The flows a site uses: the shipped ones, less the disabled, plus its own, where their condition holds.

    Args:
        conditions: the names a flow's `when` may have, and whether they hold; `always` does.
        services: `lemonstand_services`: flows to one of these go to the port it names.

    Raises:
        AnsibleFilterError: an unknown name, endpoint or condition, with the flow's name and the remedy.
    """
    shipped = list(flows)
    off = set(disabled)
    names = {flow["name"] for flow in shipped}
    for name in off - names:
        raise AnsibleFilterError(f"lemonstand_flows_disabled: there is no flow '{name}'{_near(name, names)}")
    conditions = {"always": True, **conditions}
    result = []
    for flow in [*(flow for flow in shipped if flow["name"] not in off), *extra]:
        for side in ("from", "to"):
            if flow.get(side) not in (*ZONES, *GROUPS, *LISTS):
                raise AnsibleFilterError(
                    f"flow '{flow.get('name')}': unknown endpoint '{flow.get(side)}' in '{side}'"
                    + _near(str(flow.get(side)), (*ZONES, *GROUPS, *LISTS))
                )
        when = flow.get("when", "always")
        if when not in conditions:
            raise AnsibleFilterError(f"flow '{flow['name']}': unknown condition '{when}'; use one of {', '.join(conditions)}")
        if conditions[when]:
            port = (_service(services, flow["to"]) or {}).get("port")
            result.append({**flow, "ports": [port]} if port else dict(flow))
    return result


def _service(services: Any, name: str) -> Mapping[str, Any] | None:
    """A service as the site names it; None: it names none of that name."""
    found = services.get(name) if isinstance(services, Mapping) else None
    return found if isinstance(found, Mapping) else None


def _listed(host: Host, endpoint: str) -> list[str]:
    """The addresses of an end of flows that is a list, as a host's variables have it."""
    value = host.get(LISTS[endpoint]) or []
    return [str(address) for address in ((_service(value, endpoint) or {}).get("addresses") or [] if isinstance(value, Mapping) else value)]


def _near(name: str, known: Iterable[str]) -> str:
    match = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean '{match[0]}'?" if match else ""


def pattern(which: str) -> str:
    """The host pattern of a play: `site`, all kinds of hosts of a site; `deployed`, those of a lab's Internet that plays set up as well."""
    groups = list(GROUPS)
    if which == "deployed":
        groups += [name for name, outer in SHAPE["outer"].items() if outer.get("deployed")]
    return ":".join(groups)


def turns(groups: Mapping[str, list[str]], hostvars: Any) -> list[list[str]]:
    """The hosts of a site in the order in which services are brought to their files: those who go first, and those who go second.

    Of several of a kind some go first, so that there are always some at work: those that are not at work now, else standbys, which
    nobody is at, else the first half.

    Args:
        hostvars: has what the hosts said of themselves (`__host_state` of `preflight_hosts.yml`), and which stores are standbys.
    """
    first: list[str] = []
    second: list[str] = []
    for group in GROUPS:
        names = _members(groups, group)
        known = {name: _values(hostvars, name, ["lemonstand_standby_of", "__host_state"]) for name in names if len(names) > 1}
        idle = [name for name, seen in known.items() if seen.get("__host_state", {}).get("answer", {}).get("idle")]
        standbys = [name for name, seen in known.items() if seen.get("lemonstand_standby_of")]
        mine = idle or standbys or names[: max(1, len(names) // 2)]
        first += mine
        second += [name for name in names if name not in mine]
    return [first, second]


def several(groups: Mapping[str, list[str]]) -> bool:
    """Whether a site has several hosts of a kind, so that some of them go second."""
    return any(len(_members(groups, group)) > 1 for group in GROUPS)


def unanswered(groups: Mapping[str, list[str]], hostvars: Any, name: str, in_turn: Sequence[Sequence[str]]) -> list[str]:
    """Hosts of a host's kind that had their turn before it in this run, and do not answer since.

    Those that were not in the run, or could not be reached before their turn, had none.

    Args:
        name: the host whose turn it is (variables `__turn_came` and `__turn_answers` are those of `tasks/turn.yml`).
        in_turn: what `turns` returned.
    """
    first, second = in_turn
    if name not in second:
        return []
    kind = next(group for group in GROUPS if name in _members(groups, group))
    seen = {other: _values(hostvars, other, ["__turn_came", "__turn_answers"]) for other in _members(groups, kind) if other in first}
    return [other for other, each in seen.items() if each.get("__turn_came") and each.get("__turn_answers", {}).get("rc") != 0]


@functools.cache
def _parsed(text: str) -> Any:
    return json.loads(text)


def _known(hosts: Hosts | str) -> Hosts:
    known: Hosts = _parsed(str(hosts)) if isinstance(hosts, str) else hosts
    return known


def _is_plain(value: Any) -> bool:
    """Whether a value as it stands in a file is what it is worth: no template in it, and no vault."""
    if isinstance(value, str):
        return "{{" not in value and "{%" not in value and "{#" not in value
    if isinstance(value, Mapping):
        return all(_is_plain(item) for item in value.values())
    if isinstance(value, list | tuple):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | datetime.date)


def _values(hostvars: Any, name: str, variables: Iterable[str]) -> dict[str, Any]:
    """Some variables of a host. Templating is what costs, so it is left out where there is no template."""
    raw = hostvars.raw_get(name) if hasattr(hostvars, "raw_get") else hostvars[name]
    given = [variable for variable in variables if variable in raw]
    host = {} if all(_is_plain(raw[variable]) for variable in given) else hostvars[name]
    return {variable: raw[variable] if _is_plain(raw[variable]) else host[variable] for variable in given}


def _json(value: Any) -> str:
    return json.dumps(value, default=lambda each: each.isoformat() if isinstance(each, datetime.date) else str(each))


def members(hostvars: Any, groups: Mapping[str, list[str]]) -> str:
    """What hosts need to know of one another (`TOLD`), of members of a site and machines outside, as JSON."""
    return _json({name: _values(hostvars, name, TOLD) for group in (*GROUPS, *SHAPE["outer"]) for name in _members(groups, group)})


def as_json(hostvars: Any, name: str, variable: str) -> str:
    """A variable of a host as JSON: a list of thousands goes through Ansible's templates as one text."""
    return _json(_values(hostvars, name, [variable])[variable])


def count(users: str) -> int:
    """The number of users in a list that `as_json` made."""
    return len(_parsed(str(users)))


def first_user(users: str) -> str:
    """The first user's name, in lower case; empty without one."""
    return next((str(user["name"]).lower() for user in _parsed(str(users))), "")


def newest_placement(told: list[dict[str, Any]]) -> dict[str, Any]:
    """What counts of several placements; nothing of none. Who serves and who there is have a number each (roles/base)."""
    if not told:
        return {}
    serving = max(told, key=lambda each: int(each["generation"]))
    people = max(told, key=lambda each: (int(each.get("edition", -1)), int(each["generation"])))
    return {**people, **{key: serving[key] for key in ("generation", "active", "sealed") if key in serving}}


def lacking_placements(summaries: list[dict[str, Any] | None]) -> list[dict[str, Any]]:
    """Of which placements others have not got something; none if all hosts were told the same.

    Args:
        summaries: of hosts, `generation`, `edition` and a hash of the file; None or nothing of one that was told nothing.
    """
    numbers = [(each.get("generation", -1), each.get("edition", -1)) if each else (-1, -1) for each in summaries]
    if len(set(numbers)) < 2:
        return []
    most = [max(each[part] for each in numbers) for part in (0, 1)]
    return [each for each, number in zip(summaries, numbers, strict=True) if each and any(number[part] == most[part] for part in (0, 1))]


def room(users: str, planned: int | None, store: str = "", stores: Iterable[str] = ()) -> int:
    """How many users limits and tables are made for: those of the list that `as_json` made, or as many as are planned.

    Args:
        planned: how many the site is to have; none or 0: as many as are listed.
        store: of this store alone; empty: of all.
        stores: all of them; the first one is a user's who names none.
    """
    listed = len(users_of(users, store, list(stores))) if store else count(users)
    return max(listed, int(planned or 0))


def accounts(users: str, stores: list[str], domain: str, keys: Iterable[str] = ()) -> list[dict[str, Any]]:
    """Users as roles want them: `store` is the inner name of the one that has the mailbox, `aliases` a list.

    Args:
        users: as `as_json` made them.
        stores: the group; the first one is a user's who names none.
        domain: the internal domain.
        keys: those that are wanted; none: all.
    """
    wanted = set(keys)
    found = [{**user, "store": f"{user.get('store') or stores[0]}.{domain}"} for user in _parsed(str(users))]
    if wanted:
        found = [{key: user[key] for key in user if key in wanted} | {"aliases": user.get("aliases") or []} for user in found]
    return found


def judged_behind(users: str, service: Mapping[str, Any]) -> list[str]:
    """The names of the users whose passwords a directory behind judges, in lower case.

    Args:
        users: as `as_json` made them.
        service: `lemonstand_services.directory`; empty: there is none.
    """
    if not service:
        return []
    domains, own = ({str(each).lower() for each in service.get(key) or ()} for key in ("domains", "own_passwords"))
    names = [str(user["name"]).lower() for user in _parsed(str(users))]
    return [name for name in names if name not in own and (not domains or name.rpartition("@")[2] in domains)]


def users_of(users: str, store: str, stores: list[str]) -> list[str]:
    """The names of the users whose mailboxes a store has."""
    return [user["name"] for user in _parsed(str(users)) if (user.get("store") or stores[0]) == store]


def aliases_of(users: str, store: str, stores: list[str]) -> dict[str, str]:
    """The aliases that are one user's alone and no login name, of users on a store: {alias: login name}, in lower case."""
    everybody = _parsed(str(users))
    own = {user["name"]: list(dict.fromkeys(alias.lower() for alias in user.get("aliases") or ())) for user in everybody}
    times = collections.Counter(alias for aliases in own.values() for alias in aliases)
    names = {name.lower() for name in own}
    here = users_of(users, store, stores)
    return {alias: name.lower() for name in here for alias in own[name] if alias not in names and times[alias] == 1}


def places(users: str, stores: list[str]) -> dict[str, str]:
    """Each user with the store the inventory names for him, the first one where it names none."""
    return {user["name"].lower(): user.get("store") or stores[0] for user in _parsed(str(users))}


def pairs(stores: Iterable[str], hosts: Hosts | str) -> dict[str, list[str]]:
    """The stores of a site by name, each with the hosts that may serve its users: itself, then its standby."""
    known = _known(hosts)
    standbys = {name: (known[name] or {}).get("lemonstand_standby_of") for name in stores}
    found = {name: [name] for name, of in standbys.items() if not of}
    for name, of in standbys.items():
        if of in found:
            found[of].append(name)
    return found


def aliases_of_all(users: str) -> dict[str, str]:
    """The aliases that are one user's alone and no login name, of all users of a site: {alias: login name}, in lower case."""
    every = [{**user, "store": "any"} for user in _parsed(str(users))]
    return aliases_of(json.dumps(every), "any", ["any"])


def _members(groups: Mapping[str, list[str]], group: str) -> list[str]:
    return list(groups.get(group, []))


def _as_lists(groups: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """The groups of a site's hosts as plain lists: Ansible's own look for templates whenever they are read."""
    return {group: [str(name) for name in _members(groups, group)] for group in (*GROUPS, *SHAPE["outer"])}


def _addresses(host: Host, zones: Iterable[str] | None = None) -> list[str]:
    """A host's addresses outside the management zone, or in some zones, both families."""
    found = []
    for zone, leg in (host.get("lemonstand_interfaces") or {}).items():
        if zone in zones if zones is not None else zone != "management":
            found += [str(address) for address in (leg.get("ipv4"), leg.get("ipv6"), *(leg.get("more") or ())) if address]
    return found


def _networks(zone: Mapping[str, Any] | None) -> list[str]:
    """All networks of a zone, both families."""
    known = zone or {}
    return [str(network) for network in (known.get("ipv4"), known.get("ipv6"), *(known.get("more") or ())) if network]


def _shared(host: Host, zones: Iterable[str] | None = None) -> list[str]:
    """The addresses a pair of edges shares, in all zones or some, both families."""
    shared = host.get("lemonstand_edge_addresses") or {}
    return [str(pair[key]) for zone, pair in shared.items() if zones is None or zone in zones for key in ("ipv4", "ipv6") if pair.get(key)]


def _resolve(endpoint: str, groups: Mapping[str, list[str]], hosts: Hosts, own: Host) -> list[str] | None:
    """Addresses and networks of an endpoint; None means any."""
    if endpoint == "edges":
        # Whichever of them is at work answers at the addresses they share; it speaks from its own.
        return [*_shared(own), *(address for name in _members(groups, endpoint) for address in _addresses(hosts[name]))]
    if endpoint == "internet":
        return None
    if endpoint in ZONES:
        return _networks(own["lemonstand_zones"].get(endpoint))
    if endpoint in LISTS:
        return _listed(own, endpoint)
    return [address for name in _members(groups, endpoint) for address in _addresses(hosts[name])]


def _split(addresses: list[str] | None) -> dict[str, list[str] | None]:
    if addresses is None:
        return {"ipv4": None, "ipv6": None}
    versions: dict[str, list[str] | None] = {"ipv4": [], "ipv6": []}
    for address in addresses:
        part = versions["ipv6" if ":" in address else "ipv4"]
        if part is not None and address not in part:
            part.append(address)
    return versions


def _is(endpoint: str, name: str, groups: Mapping[str, list[str]], hosts: Hosts) -> bool:
    """Whether a host is (in) an endpoint. Edges stand in every zone, but are meant only where they are named or by management."""
    if endpoint in GROUPS:
        return name in _members(groups, endpoint)
    if endpoint == "management":
        return "management" in (hosts[name].get("lemonstand_interfaces") or {})
    return endpoint in (hosts[name].get("lemonstand_interfaces") or {}) and name not in _members(groups, "edges")


def _way_in(host: Host) -> str | None:
    """The zone by which controllers reach a host: management; of a host with one leg alone, that leg's (record 0051)."""
    legs = host.get("lemonstand_interfaces") or {}
    return "management" if "management" in legs else next(iter(legs), None)


def _of_one_leg(groups: Mapping[str, list[str]], hosts: Hosts) -> list[str]:
    """The site's hosts that have a leg, and none in management."""
    names = [name for group in GROUPS for name in _members(groups, group)]
    return [name for name in names if _way_in(hosts[name]) not in {None, "management"}]


def host_rules(
    flows: list[dict[str, Any]], name: str, groups: Mapping[str, list[str]], hosts: Hosts | str
) -> dict[str, list[dict[str, Any]]]:
    """What one host's packet filter lets through on its own account.

    Returns:
        ``{"input": rules, "output": rules}``; a rule has name, reason, protocol, ports, ipv4 and ipv6 (lists of the other side,
        None is any), inside4 and inside6 (ranges the other side is not in, where it is the Internet) and device (None is any).
    """
    hosts, groups = _known(hosts), _as_lists(groups)
    own = hosts[name]
    legs = own.get("lemonstand_interfaces") or {}
    # A peer of a lab has no leg in management of which flows know.
    way_in = _way_in(own) if "management" in legs or name in _of_one_leg(groups, hosts) else None
    rules: dict[str, list[dict[str, Any]]] = {"input": [], "output": []}
    # "Internet" is any address outside the zones, and never by way of management: a relay takes no mail of strangers from its twin.
    outer = [leg["device"] for zone, leg in legs.items() if zone != "management"]
    inner = (nets for zone, nets in own["lemonstand_zones"].items() if zone != "internet")
    inside = _split(_ranges(net for nets in inner for net in _networks(nets)))

    def beyond(end: str) -> dict[str, list[str] | None]:
        return {"inside4": inside["ipv4"], "inside6": inside["ipv6"]} if end == "internet" else {"inside4": [], "inside6": []}

    for flow in flows:
        common = {"name": flow["name"], "reason": flow["reason"], "protocol": flow["protocol"], "ports": list(flow["ports"])}
        if flow.get("by"):
            for side, others, mine in (("input", flow["from"], flow["to"]), ("output", flow["to"], flow["from"])):
                if _is(mine, name, groups, hosts):
                    rules[side] += _between_legs(common, legs, flow["by"], (hosts[each] for each in _members(groups, others)))
            continue
        managed = flow["to"] == "management"
        if way_in is not None if managed else _is(flow["to"], name, groups, hosts):
            other = _split(_resolve(flow["from"], groups, hosts, own))
            devices = [legs[way_in]["device"]] if managed else outer if flow["from"] == "internet" else [None]
            most = flow.get("per_source")
            common_in = {**common, "management": managed, "per_source": most, **other, **beyond(flow["from"])}
            rules["input"] += [{**common_in, "device": device} for device in devices]
        if _is(flow["from"], name, groups, hosts):
            other = _split(_resolve(flow["to"], groups, hosts, own))
            common_out = {**common, "management": False, **other, **beyond(flow["to"])}
            rules["output"] += [{**common_out, "device": device} for device in (outer if flow["to"] == "internet" else [None])]
    return rules


def _ranges(networks: Iterable[object]) -> list[str]:
    """Networks as nft lists them: those that touch are one range. Else a table that was saved and loaded would differ from its file."""
    found: list[str] = []
    every = [ipaddress.ip_network(str(each)) for each in networks]
    for version in (4, 6):
        merged: list[list[Any]] = []
        for network in sorted((each for each in every if each.version == version), key=lambda each: int(each[0])):
            if merged and int(network[0]) <= int(merged[-1][1]) + 1:
                merged[-1][1] = max(merged[-1][1], network[-1])
            else:
                merged.append([network[0], network[-1]])
        for first, last in merged:
            whole = list(ipaddress.summarize_address_range(first, last))
            found.append(str(first) if first == last else str(whole[0]) if len(whole) == 1 else f"{first}-{last}")
    return found


def _between_legs(common: Mapping[str, Any], legs: Mapping[str, Any], zones: Iterable[str], others: Iterable[Host]) -> list[dict[str, Any]]:
    """Rules for a flow that goes by the legs in some zones alone: one a zone, with its device and the other side's addresses there."""
    others = list(others)
    common = {**common, "management": False, "per_source": None, "inside4": [], "inside6": []}
    return [
        {**common, "device": legs[zone]["device"], **_split([address for host in others for address in _addresses(host, [zone])])}
        for zone in zones
        if zone in legs
    ]


def edge_rules(flows: list[dict[str, Any]], name: str, groups: Mapping[str, list[str]], hosts: Hosts | str) -> dict[str, Any]:
    """What an edge lets through between zones, and what it translates.

    Returns:
        ``forward``: rules with source4/6, target4/6 (None is any), inside4/6 (ranges the target is not in, where it is the Internet),
        from_devices, to_devices;
        ``publish``: ``{protocol, ports, ipv4: [addresses]}``; ``zones``: ``{zone: device}``.
    """
    hosts, groups = _known(hosts), _as_lists(groups)
    own = hosts[name]
    legs = own.get("lemonstand_interfaces") or {}
    devices = {zone: leg["device"] for zone, leg in legs.items() if zone != "management"}
    networks = {zone: [ipaddress.ip_network(net) for net in _networks(nets)] for zone, nets in own["lemonstand_zones"].items()}
    # By these an edge leads on to where it was asked from: its one leg in the zone has several networks.
    turning = {devices[zone] for zone in devices if zone != "internet" and (own["lemonstand_zones"].get(zone) or {}).get("more")}

    @functools.cache
    def device_to(text: str) -> str:
        address = ipaddress.ip_interface(text).ip
        inside = [zone for zone, nets in networks.items() if zone in devices and any(address in net for net in nets)]
        return str(devices[inside[0] if inside else "internet"])

    def device_of(addresses: list[str] | None) -> list[str]:
        return [devices["internet"]] if addresses is None else sorted({device_to(text) for text in addresses})

    # The other edge stands on the Internet's side as well, and is no part of it. Both leave out both, so that their rules are the same.
    pair = _members(groups, "edges")
    beside = _split(_ranges(address for each in pair for address in _addresses(hosts[each], ["internet"])) if len(pair) > 1 else [])
    forward, publish = [], []

    def joined(flow: Mapping[str, Any], source: list[str] | None, target: list[str]) -> Iterable[dict[str, Any]]:
        """Rules for a flow between management and hosts that have no leg there: one a pair of devices, for each stands in one zone."""
        managed = str((legs.get("management") or {}).get("device", ""))
        inward = flow["to"] == "management"
        for device in device_of(target if inward else source):
            here = [each for each in (target if inward else source) or [] if device_to(each) == device]
            ends = (source, here) if inward else (here, target)
            (froms, tos), (sources, targets) = ((managed, device) if inward else (device, managed)), map(_split, ends)
            yield {
                "name": flow["name"], "reason": flow["reason"], "protocol": flow["protocol"], "ports": list(flow["ports"]),
                "from_devices": [froms], "to_devices": [tos], "source4": sources["ipv4"], "source6": sources["ipv6"],
                "target4": targets["ipv4"], "target6": targets["ipv6"], "inside4": [], "inside6": [],
            }  # fmt: skip

    one_legged = _of_one_leg(groups, hosts) if "management" in legs else []
    for flow in flows:
        if flow["to"] == "management" and flow["from"] in ("controllers", "management") and one_legged:
            forward += joined(flow, _resolve(flow["from"], groups, hosts, own), _addresses_of(one_legged, hosts))
        if flow["to"] in SERVICES:
            alone = _addresses_of([each for each in one_legged if _is(flow["from"], each, groups, hosts)], hosts)
            there = [each for each in _listed(own, flow["to"]) if any(ipaddress.ip_address(each) in net for net in networks["management"])]
            forward += joined(flow, alone, there) if alone and there else ()
        if flow["from"] in ("management", "controllers") or "edges" in (flow["from"], flow["to"]):
            continue
        source = _resolve(flow["from"], groups, hosts, own)
        managed = flow["to"] == "management"
        target = _addresses_of(one_legged, hosts) if managed else _resolve(flow["to"], groups, hosts, own)
        if flow["to"] in LISTS:
            # The list is the asking hosts' own: an edge may use other servers.
            asking = _members(groups, flow["from"]) if flow["from"] in GROUPS else []
            target = sorted({address for host in asking for address in _listed(hosts[host], flow["to"])})
        if flow["to"] in SERVICES:
            # In management hosts reach it by legs of their own, and an edge joins nobody to that zone.
            managed = networks.get("management", [])
            target = [each for each in target or [] if not any(ipaddress.ip_address(each) in network for network in managed)]
        if source == [] or target == []:
            continue
        froms, tos = device_of(source), device_of(target)
        if froms == tos and not turning & set(froms):
            continue
        sources, targets = _split(source), _split(target)
        forward.append(
            {
                "name": flow["name"], "reason": flow["reason"], "protocol": flow["protocol"], "ports": list(flow["ports"]),
                "from_devices": froms, "to_devices": tos, "source4": sources["ipv4"], "source6": sources["ipv6"],
                "target4": targets["ipv4"], "target6": targets["ipv6"],
                "inside4": beside["ipv4"] if target is None else [], "inside6": beside["ipv6"] if target is None else [],
            }
        )  # fmt: skip
        if flow.get("publish"):
            publish.append(
                {"name": flow["name"], "protocol": flow["protocol"], "ports": list(flow["ports"]), "ipv4": targets["ipv4"] or []}
            )
    return {"forward": forward, "publish": publish, "devices": devices}


def spread_services(flows: Iterable[Mapping[str, Any]], groups: Mapping[str, list[str]], hosts: Hosts | str) -> list[dict[str, Any]]:
    """Services whose new connections an edge spreads over several hosts.

    Returns:
        For each group: ``name``; ``ports``, those that are published; ``greetings``, ``[[port, how it begins]]`` for those that flows let
        the edge ask; ``moves``, whether another member takes connections for a member's own address; ``members``, each
        ``{name, number, ipv4, ipv6}``.
    """
    known, flows = _known(hosts), list(flows)
    found = []
    for group in GROUPS:
        names = _members(groups, group)
        ports = sorted({port for flow in flows if flow.get("publish") and flow["to"] == group for port in flow["ports"]})
        if len(names) < 2 or not ports:
            continue
        asked = sorted({port for flow in flows if flow["from"] == "edges" and flow["to"] == group for port in flow["ports"]})
        members = [{"name": name, "number": number, **_one_each(known[name])} for number, name in enumerate(names, 1)]
        # Who sends mail to a domain tries all its exchangers (RFC 5321 section 5.1); who reads mail has one name for all.
        says = SHAPE["kinds"][group]["answers"]
        greetings = [[port, says[port]] for port in asked if port in says]
        found.append({"name": group, "ports": ports, "greetings": greetings, "moves": group == "frontends", "members": members})
    return found


def _one_each(host: Host) -> dict[str, str]:
    """A host's address outside management in each IP version; empty: none."""
    addresses = _split(_addresses(host))
    return {version: (found or [""])[0] for version, found in addresses.items()}


def pair_of_edges(name: str, groups: Mapping[str, list[str]], hosts: Hosts | str) -> dict[str, Any]:
    """What an edge of a pair knows of the other one, and of who is around; empty where there is no pair.

    Returns:
        ``shared``: ``[{address, length, device}]``; ``links``: ``[{zone, device, own, twin}]``, where the two hear each other;
        ``neighbours``: addresses of others that answer an echo, ``twin``: those of the other edge among them; ``devices``; ``own``: all
        addresses of both.
    """
    known = _known(hosts)
    others = [each for each in _members(groups, "edges") if each != name]
    if not others:
        return {}
    own, twin = known[name], known[others[0]]
    legs, theirs = own["lemonstand_interfaces"], twin["lemonstand_interfaces"]
    links = []
    for zone in PAIR_ZONES:
        version = next((each for each in ("ipv4", "ipv6") if legs.get(zone, {}).get(each) and theirs.get(zone, {}).get(each)), None)
        if version:
            links.append(
                {"zone": zone, "device": legs[zone]["device"], "own": str(legs[zone][version]), "twin": str(theirs[zone][version])}
            )
    shared = [
        {"address": str(pair[version]), "length": length, "device": legs[zone]["device"]}
        for zone, pair in own["lemonstand_edge_addresses"].items()
        for version, length in (("ipv4", 32), ("ipv6", 128))
        if pair.get(version)
    ]
    at_hand = [*others, *(each for group in GROUPS if group != "edges" for each in _members(groups, group))]
    twins = _addresses(twin, PAIR_ZONES)
    return {
        "links": links,
        "shared": shared,
        "twin": twins,
        "neighbours": [*twins, *(address for each in at_hand[1:] for address in _addresses(known[each]))],
        "devices": sorted(leg["device"] for zone, leg in legs.items() if zone != "management"),
        "own": [address for each in (name, others[0]) for address in _addresses(known[each], ZONES)],
    }


PAIR_ZONES = ("auth", "store")
"""Where two edges hear each other: no host that the Internet reaches stands there, and none of its hosts could speak for an edge."""


def host_names(
    groups: Mapping[str, list[str]], hosts: Hosts | str, domain: str, own: str = "", once: Iterable[str] = ()
) -> list[dict[str, Any]]:
    """Lines of a hosts file: every site host's inner name at its addresses (an edge: at those in inner zones).

    Args:
        domain: the internal domain.
        own: the host the file is for; needed with `once`.
        once: hosts with one line only, at the address `own` reaches them at.
    """
    lines = []
    hosts, groups = _known(hosts), _as_lists(groups)
    single = {name: reach_address(name, own, hosts) for name in once}
    for group in GROUPS:
        for name in _members(groups, group):
            zones = (
                [z for z in (hosts[name].get("lemonstand_interfaces") or {}) if z not in ("management", "internet")]
                if group == "edges"
                else None
            )
            lines += [
                {"address": address, "names": [f"{name}.{domain}", name]}
                for address in _addresses(hosts[name], zones)
                if address == single.get(name, address)
            ]
    return lines


def service_ports(flows: Iterable[Mapping[str, Any]]) -> list[int]:
    """The TCP ports that clients outside connect to: what `lemonstand service close` closes."""
    clients = (flow for flow in flows if flow["from"] == "internet" and flow["to"] == "frontends" and flow["protocol"] == "tcp")
    return sorted({port for flow in clients for port in flow["ports"]})


def server_id(name: str) -> int:
    """The number of an auth host among its twins (serverID of slapd.conf(5)): of its name alone, so none moves when hosts come or go."""
    return 1 + int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) % 4095


def ldaps(addresses: Iterable[str], port: int) -> list[str]:
    """URLs of LDAP over TLS at some addresses (RFC 4516; brackets as in RFC 3986 section 3.2.2)."""
    return [f"ldaps://[{address}]:{port}/" if ":" in address else f"ldaps://{address}:{port}/" for address in addresses]


def table_size(devices: int) -> int:
    """Entries a table of connections needs for a number of devices: a power of two.

    IMAP and submission, the session that was lost beside the one that is, both sides of a frontend; and a thousand for the rest.
    """
    needed = 2 * 2 * 2 * devices + 1024
    return max(65536, 1 << (needed - 1).bit_length())


def addresses_of(names: Iterable[str], hosts: Hosts | str) -> list[str]:
    """All addresses of some hosts outside the management zone."""
    return _addresses_of(names, _known(hosts))


def _addresses_of(names: Iterable[str], hosts: Hosts) -> list[str]:
    return [address for name in names for address in _addresses(hosts[name])]


def addresses_by_name(names: Iterable[str], hosts: Hosts | str, domain: str) -> dict[str, list[str]]:
    """All addresses of some hosts outside the management zone, by inner name."""
    return {f"{name}.{domain}": addresses_of([name], hosts) for name in names}


def reached_by_name(names: Iterable[str], hosts: Hosts | str, domain: str, own: str) -> dict[str, str]:
    """The address a host reaches each of some others at, by inner name."""
    return {f"{name}.{domain}": reach_address(name, own, hosts) for name in names}


def name_pattern(names: Mapping[str, Any]) -> str:
    """A mailbox's name before the @ as a regular expression, from `names.yml`."""
    part = names["local_part"]
    marks, first = (re.sub(r"([\]\\^-])", r"\\\1", part[key]) for key in ("marks", "first_marks"))
    return rf"[a-z0-9{first}][a-z0-9{marks}]*(\.[a-z0-9{marks}]+)*"


def login_pattern(names: Mapping[str, Any]) -> str:
    """A whole login name as a regular expression that has to match all of it. Its length over all is not in it."""
    label = rf"[a-z0-9](?:[a-z0-9-]{{0,{names['host']['longest_label'] - 2}}}[a-z0-9])?"
    return rf"(?=[^@]{{1,{names['local_part']['longest']}}}@){name_pattern(names)}@(?:{label}\.)+(?![0-9]+$){label}"


def name_characters(names: Mapping[str, Any]) -> str:
    """Every character a login name may be typed with, the @ included: Dovecot's `auth_username_chars`."""
    part = names["local_part"]
    return "".join(sorted({*string.ascii_letters, *string.digits, *part["marks"], *".@"}))


def reach_address(target: str, own: str, hosts: Hosts | str) -> str:
    """The address a host reaches another one at: IPv4 where both have it, else IPv6.

    Raises:
        AnsibleFilterError: they share no IP version.
    """
    known = _known(hosts)
    mine = _split(_addresses(known[own]))
    theirs = _split(_addresses(known[target]))
    for family in ("ipv4", "ipv6"):
        found = theirs[family]
        if mine[family] and found:
            return found[0]
    raise AnsibleFilterError(f"{own} and {target} share no IP version; `lemonstand check` names the zones")


def htpasswd(password: str) -> str:
    """A password as a file of htpasswd(1) has it. SHA-1 is enough for one of 43 random characters, which nobody guesses."""
    return "{SHA}" + base64.b64encode(hashlib.sha1(password.encode(), usedforsecurity=False).digest()).decode()


def pointer(address: str) -> str:
    """The name in DNS below which an address has its name (RFC 1035 section 3.5, RFC 3596 section 2.5)."""
    return ipaddress.ip_address(address).reverse_pointer


class FilterModule:
    """Announces the filters to Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {
            "lemonstand_active_flows": active_flows,
            "lemonstand_host_rules": host_rules,
            "lemonstand_edge_rules": edge_rules,
            "lemonstand_spread_services": spread_services,
            "lemonstand_pair_of_edges": pair_of_edges,
            "lemonstand_host_names": host_names,
            "lemonstand_name_characters": name_characters,
            "lemonstand_login_pattern": login_pattern,
            "lemonstand_addresses_of": addresses_of,
            "lemonstand_data": data,
            "lemonstand_pattern": pattern,
            "lemonstand_turns": turns,
            "lemonstand_several": several,
            "lemonstand_unanswered": unanswered,
            "lemonstand_members": members,
            "lemonstand_as_json": as_json,
            "lemonstand_count": count,
            "lemonstand_accounts": accounts,
            "lemonstand_users_of": users_of,
            "lemonstand_judged_behind": judged_behind,
            "lemonstand_aliases_of": aliases_of,
            "lemonstand_aliases_of_all": aliases_of_all,
            "lemonstand_room": room,
            "lemonstand_first_user": first_user,
            "lemonstand_newest_placement": newest_placement,
            "lemonstand_lacking_placements": lacking_placements,
            "lemonstand_pairs": pairs,
            "lemonstand_places": places,
            "lemonstand_addresses_by_name": addresses_by_name,
            "lemonstand_reached_by_name": reached_by_name,
            "lemonstand_reach_address": reach_address,
            "lemonstand_service_ports": service_ports,
            "lemonstand_pointer": pointer,
            "lemonstand_table_size": table_size,
            "lemonstand_server_id": server_id,
            "lemonstand_ldaps": ldaps,
            "lemonstand_htpasswd": htpasswd,
        }
