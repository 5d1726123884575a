"""Filters that turn the inventory, the flows and the timers into what roles are handed. Pure functions, but for `data`."""

from __future__ import annotations

import difflib
import functools
import importlib.util
import ipaddress
import re
import string
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleFilterError

ZONES = ("internet", "dmz", "auth", "store", "management")
GROUPS = ("edges", "frontends", "auths", "stores", "relays")
LISTS = {"controllers": "lemonstand_controllers", "resolvers": "lemonstand_dns_resolvers", "ntp": "lemonstand_ntp_servers"}
KNOWN = [
    "site_name",
    "zones",
    "interfaces",
    "mail_domains",
    "public_name",
    "mx_name",
    "internal_domain",
    "public_ipv4",
    "controllers",
    "ntp_servers",
    "dns_resolvers",
    "tls_profile",
    "timer_profile",
    "timers",
    "middleboxes",
    "managesieve",
    "users",
    "user_passwords",
    "devices_per_user",
    "probe_users",
    "review",
    "message_size_limit",
    "pki_dir",
    "public_certificate",
    "flows_extra",
    "flows_disabled",
    "foreign_variables",
    "waivers",
    "foreign_tables",
    "clock_is_ours",
    "kind",
]
REQUIRED = ["site_name", "zones", "mail_domains", "public_name", "mx_name", "internal_domain", "users", "pki_dir"]
TLS_PROFILES = ("both", "seed-strict", "modern")
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?\Z")

Host = Mapping[str, Any]
Hosts = Mapping[str, Host]


@functools.cache
def data(name: str) -> Any:
    """One of the data files beside the playbooks, such as `timers.yml`. Read once a task: Ansible asks whenever a variable is named."""
    text = (Path(__file__).parents[1] / name).read_text(encoding="utf-8")
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are the safe one


def active_flows(
    flows: Iterable[Mapping[str, Any]], conditions: Mapping[str, bool], extra: Iterable[Mapping[str, Any]], disabled: Iterable[str]
) -> list[dict[str, Any]]:
    """The flows a site uses: the shipped ones, less the disabled, plus its own, where their condition holds.

    Args:
        conditions: the names a flow's `when` may have, and whether they hold; `always` does.

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
            result.append(dict(flow))
    return result


def _near(name: str, known: Iterable[str]) -> str:
    match = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean '{match[0]}'?" if match else ""


def _members(groups: Mapping[str, list[str]], group: str) -> list[str]:
    return list(groups.get(group, []))


def _addresses(host: Host, zones: Iterable[str] | None = None) -> list[str]:
    """A host's addresses outside the management zone, or in some zones, both families."""
    found = []
    for zone, leg in (host.get("lemonstand_interfaces") or {}).items():
        if zone in zones if zones is not None else zone != "management":
            found += [str(leg[key]) for key in ("ipv4", "ipv6") if leg.get(key)]
    return found


def _resolve(endpoint: str, groups: Mapping[str, list[str]], hosts: Hosts, own: Host) -> list[str] | None:
    """Addresses and networks of an endpoint; None means any."""
    if endpoint == "internet":
        return None
    if endpoint in ZONES:
        return [str(network) for network in (own["lemonstand_zones"].get(endpoint) or {}).values() if network]
    if endpoint in LISTS:
        return [str(address) for address in own.get(LISTS[endpoint]) or []]
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


def host_rules(flows: list[dict[str, Any]], name: str, groups: Mapping[str, list[str]], hosts: Hosts) -> dict[str, list[dict[str, Any]]]:
    """What one host's packet filter lets through on its own account.

    Returns:
        ``{"input": rules, "output": rules}``; a rule has name, reason, protocol, ports, ipv4 and ipv6 (lists of the other side,
        None is any) and device (None is any).
    """
    own = hosts[name]
    legs = own.get("lemonstand_interfaces") or {}
    rules: dict[str, list[dict[str, Any]]] = {"input": [], "output": []}
    # "Internet" is any address, but never by way of the management zone.
    outer = [leg["device"] for zone, leg in legs.items() if zone != "management"]
    for flow in flows:
        common = {"name": flow["name"], "reason": flow["reason"], "protocol": flow["protocol"], "ports": list(flow["ports"])}
        if _is(flow["to"], name, groups, hosts):
            other = _split(_resolve(flow["from"], groups, hosts, own))
            managed = flow["to"] == "management"
            devices = [legs["management"]["device"]] if managed else outer if flow["from"] == "internet" else [None]
            rules["input"] += [{**common, "device": device, "management": managed, **other} for device in devices]
        if _is(flow["from"], name, groups, hosts):
            other = _split(_resolve(flow["to"], groups, hosts, own))
            rules["output"] += [
                {**common, "device": device, "management": False, **other} for device in (outer if flow["to"] == "internet" else [None])
            ]
    return rules


def edge_rules(flows: list[dict[str, Any]], name: str, groups: Mapping[str, list[str]], hosts: Hosts) -> dict[str, Any]:
    """What an edge lets through between zones, and what it translates.

    Returns:
        ``forward``: rules with source4/6, destination4/6 (None is any), source_zones, destination_zones (device names);
        ``publish``: ``{protocol, ports, ipv4: [addresses]}``; ``zones``: ``{zone: device}``.
    """
    own = hosts[name]
    legs = own.get("lemonstand_interfaces") or {}
    devices = {zone: leg["device"] for zone, leg in legs.items() if zone != "management"}
    networks = {zone: [ipaddress.ip_network(net) for net in (nets or {}).values() if net] for zone, nets in own["lemonstand_zones"].items()}

    def device_of(addresses: list[str] | None) -> list[str]:
        if addresses is None:
            return [devices["internet"]]
        found = set()
        for text in addresses:
            address = ipaddress.ip_interface(text).ip
            inside = [zone for zone, nets in networks.items() if zone in devices and any(address in net for net in nets)]
            found.add(devices[inside[0] if inside else "internet"])
        return sorted(found)

    forward, publish = [], []
    for flow in flows:
        if "management" in (flow["from"], flow["to"]) or "edges" in (flow["from"], flow["to"]) or flow["from"] == "controllers":
            continue
        source, target = _resolve(flow["from"], groups, hosts, own), _resolve(flow["to"], groups, hosts, own)
        if flow["to"] in LISTS:
            # The list is the asking hosts' own: an edge may use other servers.
            asking = _members(groups, flow["from"]) if flow["from"] in GROUPS else []
            target = sorted({str(a) for host in asking for a in hosts[host].get(LISTS[flow["to"]]) or []})
        if source == [] or target == []:
            continue
        froms, tos = device_of(source), device_of(target)
        if froms == tos:
            continue
        sources, targets = _split(source), _split(target)
        forward.append(
            {
                "name": flow["name"], "reason": flow["reason"], "protocol": flow["protocol"], "ports": list(flow["ports"]),
                "from_devices": froms, "to_devices": tos, "source4": sources["ipv4"], "source6": sources["ipv6"],
                "target4": targets["ipv4"], "target6": targets["ipv6"],
            }
        )  # fmt: skip
        if flow.get("publish"):
            publish.append(
                {"name": flow["name"], "protocol": flow["protocol"], "ports": list(flow["ports"]), "ipv4": targets["ipv4"] or []}
            )
    return {"forward": forward, "publish": publish, "devices": devices}


def host_names(groups: Mapping[str, list[str]], hosts: Hosts, domain: str) -> list[dict[str, Any]]:
    """Lines of a hosts file: every site host's inner name at its addresses (an edge: at those in inner zones)."""
    lines = []
    for group in GROUPS:
        for name in _members(groups, group):
            zones = (
                [z for z in (hosts[name].get("lemonstand_interfaces") or {}) if z not in ("management", "internet")]
                if group == "edges"
                else None
            )
            lines += [{"address": address, "names": [f"{name}.{domain}", name]} for address in _addresses(hosts[name], zones)]
    return lines


def service_ports(flows: Iterable[Mapping[str, Any]]) -> list[int]:
    """The TCP ports that clients outside connect to: what `lemonstand service close` closes."""
    clients = (flow for flow in flows if flow["from"] == "internet" and flow["to"] == "frontends" and flow["protocol"] == "tcp")
    return sorted({port for flow in clients for port in flow["ports"]})


def table_size(devices: int) -> int:
    """Entries a table of connections needs for a number of devices: a power of two.

    IMAP and submission, the session that was lost beside the one that is, both sides of a frontend; and a thousand for the rest.
    """
    needed = 2 * 2 * 2 * devices + 1024
    return max(65536, 1 << (needed - 1).bit_length())


def addresses_of(names: Iterable[str], hosts: Hosts) -> list[str]:
    """All addresses of some hosts outside the management zone."""
    return [address for name in names for address in _addresses(hosts[name])]


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


def address_fault(text: str, names: Mapping[str, Any]) -> str:
    """Why a text is no login name or alias; empty if it is one."""
    local, at, domain = text.rpartition("@")
    refused = next((each for each in local if each in names["refused"]), "")
    part, marks = names["local_part"], " ".join(names["local_part"]["marks"])
    ascii_only = "names are ASCII: there is no SMTPUTF8, and a domain is written as its A-label, which begins with xn--"
    sorts = f"before the @ stand a to z, 0 to 9, {marks} and single dots between them, first a letter or digit; correct it"
    lengths = f"it is too long ({part['longest']} before the @, {names['longest']} in all); shorten it"
    faults = {
        "write it as name@domain": not (at and local and domain),
        ascii_only: not text.isascii(),
        f"write it in lower case: {text.lower()}": text.lower() != text,
        f"'{refused}' {names['refused'].get(refused)}; choose a name without it": refused,
        sorts: not re.fullmatch(name_pattern(names), local),
        lengths: len(local) > part["longest"] or len(text) > names["longest"],
    }
    return next((fault for fault, found in faults.items() if found), "") or domain_fault(domain, names)


def domain_fault(text: str, names: Mapping[str, Any]) -> str:
    """Why a text is no host name with a domain (RFC 1123 section 2.1); empty if it is one."""
    labels = text.split(".")
    sound = len(labels) > 1 and not labels[-1].isdigit() and len(text) <= names["host"]["longest"]
    if sound and all(LABEL.match(label) and len(label) <= names["host"]["longest_label"] for label in labels):
        return ""
    return f"'{text}' is no domain name (labels of a to z, 0 to 9 and hyphens inside, in lower case, no dot at the end); correct it"


def host_fault(name: str, domain: str, names: Mapping[str, Any]) -> str:
    """Why an inventory name can't be a host's, whose inner name it makes; empty if it can."""
    try:
        numeric = bool(ipaddress.ip_address(name))
    except ValueError:
        numeric = name.replace(".", "").isdigit()
    if numeric:
        return "it is read as an address; give the host a name, and the address to ansible_host"
    if name in names["host"]["reserved"]:
        return "it means something else already; give the host a name of its own"
    if not all(LABEL.match(label) and len(label) <= names["host"]["longest_label"] for label in name.split(".")):
        return "it can't be a host name (labels of a to z, 0 to 9 and hyphens inside, 63 at most: RFC 1123 2.1); rename the host"
    if len(f"{name}.{domain}") > names["host"]["longest"]:
        return f"its inner name has more than {names['host']['longest']} characters; shorten it"
    return ""


COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">=": lambda a, b: a >= b, ">": lambda a, b: a > b, "<": lambda a, b: a < b, "<=": lambda a, b: a <= b,
}  # fmt: skip


def reach_address(target: Host, own: Host) -> str:
    """The address a host reaches another one at: IPv4 where both have it, else IPv6.

    Raises:
        AnsibleFilterError: they share no IP version.
    """
    mine = _split(_addresses(own))
    theirs = _split(_addresses(target))
    for family in ("ipv4", "ipv6"):
        found = theirs[family]
        if mine[family] and found:
            return found[0]
    raise AnsibleFilterError("two hosts share no IP version; `lemonstand check` names the zones")


def broken_timers(
    timers: Mapping[str, Any], relations: Iterable[Mapping[str, Any]], profile: str = "", waived: Iterable[str] = ()
) -> list[str]:
    """Relations that don't hold in a profile, as sentences with the control.

    Args:
        timers: its numbers.
        relations: of all profiles; those of others are left out.
        profile: its name.
        waived: relations the profile breaks on purpose, such as `idle_notify >= 1500`.
    """
    faults = []
    for relation in relations:
        text = f"{relation['left']} {relation['op']} {relation['right']}"
        if relation.get("profile", profile) != profile or text in waived:
            continue
        left, right = timers[relation["left"]], relation["right"]
        value = timers[right] if isinstance(right, str) else right
        if not COMPARE[relation["op"]](left, value):
            other = f"{right} = {value}" if isinstance(right, str) else right
            faults.append(f"{relation['left']} = {left} must be {relation['op']} {other}: {relation['reason']} ({relation['control']})")
    return faults


def site_faults(
    hosts: Hosts, groups: Mapping[str, list[str]], timers: Mapping[str, Any], flows: Iterable[Mapping[str, Any]] = (), today: str = ""
) -> list[str]:
    """What is wrong with a site's inventory, one sentence a fault with the remedy. The essentials only; `lemonstand check` knows more.

    Args:
        timers: `timers.yml`.
        flows: the shipped flows.
        today: the date, YYYY-MM-DD.
    """
    faults = [f"the group '{group}' has no host; add a host to it in hosts.yml" for group in GROUPS[1:] if not _members(groups, group)]
    members = [name for group in GROUPS for name in _members(groups, group)]
    faults += [
        f"host {name} is in several groups of {', '.join(GROUPS)}; give each its own host"
        for name in sorted(set(members))
        if members.count(name) > 1
    ]
    if not members:
        return faults
    auths = _members(groups, "auths")
    if len(auths) > 1:
        faults.append(
            f"the group 'auths' has {len(auths)} hosts ({', '.join(auths)}), each with a directory of its own: a password set or a lock "
            "put on one would not count on the other; leave the one with the accounts"
        )
    shared = hosts[members[0]]
    for name in sorted({key for member in members for key in hosts[member] if str(key).startswith("lemonstand_")}):
        if name.removeprefix("lemonstand_") not in KNOWN and name not in (shared.get("lemonstand_foreign_variables") or []):
            faults.append(f"unknown variable '{name}'{_near(name, ['lemonstand_' + known for known in KNOWN])}")
    missing = [f"lemonstand_{name}" for name in REQUIRED if not shared.get(f"lemonstand_{name}")]
    faults += [f"{name} is not set; set it in group_vars/all" for name in missing]
    if missing:
        return faults
    if shared.get("lemonstand_tls_profile", "both") not in TLS_PROFILES:
        faults.append(f"lemonstand_tls_profile '{shared['lemonstand_tls_profile']}' is none of {', '.join(TLS_PROFILES)}")
    faults += _timer_faults(shared, members, hosts, timers, today)
    faults += _flow_faults(shared, list(flows))
    faults += _name_faults(members, shared)
    faults += _port_faults(shared, members, hosts, list(flows))
    faults += _address_faults(members, groups, hosts)
    return faults + _user_faults(shared, groups)


def _timer_faults(shared: Host, members: list[str], hosts: Hosts, data: Mapping[str, Any], today: str) -> list[str]:
    profile = str(shared.get("lemonstand_timer_profile", "rfc5383"))
    changed = shared.get("lemonstand_timers") or {}
    if profile not in data["profiles"]:
        return [f"lemonstand_timer_profile: no timer profile '{profile}'{_near(profile, data['profiles'])}"]
    timers = {**data["profiles"][profile], **changed}
    unknown = [name for name in changed if name not in data["profiles"][profile]]
    if unknown:
        return [f"lemonstand_timers: there is no timer '{name}'{_near(name, data['profiles'][profile])}" for name in unknown]
    terms = (data.get("terms") or {}).get(profile, {})
    waived = [deviation["relation"] for deviation in terms.get("deviations", [])]
    faults = [f"lemonstand_timers: {fault}" for fault in broken_timers(timers, data["relations"], profile, waived)]
    if not faults:
        for name in members:
            own = {
                timer: hosts[name][variable]
                for variable, timer in (("mail_store_idle_notify_interval", "idle_notify"), ("mail_store_hibernate_timeout", "hibernate"))
                if variable in hosts[name]
            }
            numbers = {**timers, **{timer: int(value) for timer, value in own.items()}}
            faults += [f"host {name}, mail_store_*: {fault}" for fault in broken_timers(numbers, data["relations"], profile, waived)]
    boxes = shared.get("lemonstand_middleboxes")
    if boxes is None:
        if terms.get("states_middleboxes"):
            faults.append(f"lemonstand_timer_profile '{profile}' needs lemonstand_middleboxes: list your devices on the path, or []")
        return faults
    for box in boxes:
        faults += _box_faults(box, timers, data.get("hops") or [], today)
    return faults


def _box_faults(box: Mapping[str, Any], timers: Mapping[str, Any], hops: Iterable[Mapping[str, Any]], today: str) -> list[str]:
    name, between = box.get("name"), list(box.get("between") or [])
    faults = [
        f"lemonstand_middleboxes: '{name}' stands at the unknown zone '{zone}'{_near(str(zone), ZONES)}"
        for zone in between
        if zone not in ZONES
    ]
    if not isinstance(box.get("established"), int) or len(between) != 2:
        return [*faults, f"lemonstand_middleboxes: '{name}' needs between (two zones) and established (seconds)"]
    waiver = box.get("waiver")
    for hop in hops:
        value, right = box.get(hop["left"]), hop["right"]
        if value is None or (hop.get("zones") and not set(between) <= set(hop["zones"])):
            continue
        bound = timers[right] if isinstance(right, str) else right
        if COMPARE[hop["op"]](value, bound):
            continue
        text = f"{hop['left']} = {value} must be {hop['op']} {f'{right} = {bound}' if isinstance(right, str) else bound}"
        if not (hop.get("waivable") and waiver):
            remedy = "; add a waiver" if hop.get("waivable") else ""
            faults.append(f"lemonstand_middleboxes: '{name}': {text}: {hop['reason']} ({hop['control']}){remedy}")
        elif str(waiver.get("expires", "")) <= today:
            faults.append(f"lemonstand_middleboxes: the waiver of '{name}' ended on {waiver.get('expires')}; grant it anew")
    return faults


def _flow_faults(shared: Host, flows: list[Mapping[str, Any]]) -> list[str]:
    extra, disabled = shared.get("lemonstand_flows_extra") or [], shared.get("lemonstand_flows_disabled") or []
    endpoints = (*ZONES, *GROUPS, *LISTS)
    names = [flow["name"] for flow in flows]
    faults = [f"lemonstand_flows_disabled: there is no flow '{name}'{_near(str(name), names)}" for name in disabled if name not in names]
    for flow in extra:
        name = flow.get("name")
        if name in names:
            faults.append(f"lemonstand_flows_extra: there is a flow '{name}' already; give it another name")
        names.append(name)
        faults += [
            f"lemonstand_flows_extra: flow '{name}': unknown endpoint '{flow.get(side)}' in '{side}'{_near(str(flow.get(side)), endpoints)}"
            for side in ("from", "to")
            if flow.get(side) not in endpoints
        ]
        ports = flow.get("ports")
        if not isinstance(ports, list) or not ports or any(not isinstance(port, int) or not 1 <= port <= 65535 for port in ports):
            faults.append(f"lemonstand_flows_extra: flow '{name}': ports {ports} are no list of numbers from 1 to 65535")
    left = [flow for flow in [*flows, *extra] if flow.get("name") not in disabled]
    if flows and not any(flow.get("from") == "controllers" and flow.get("to") == "management" for flow in left):
        faults.append("lemonstand_flows_disabled: no flow lets the controllers in; leave 'management-ssh', or add one in its place")
    return faults


def _name_faults(members: list[str], shared: Host) -> list[str]:
    names, internal = data("names.yml")["names"], str(shared["lemonstand_internal_domain"])
    public = {str(shared[f"lemonstand_{key}"]): f"lemonstand_{key}" for key in ("public_name", "mx_name")}
    domains = [str(domain) for domain in shared["lemonstand_mail_domains"]]
    faults = []
    for name in members:
        inner, fault = f"{name}.{internal}", host_fault(name, internal, names)
        taken = next((public[text] for text in (name, inner) if text in public), None)
        taken = taken or next((f"the inner name of host {other}" for other in members if f"{other}.{internal}" == name), None)
        if fault or taken:
            faults.append(f"host {name}: {fault or f'its name or its inner name {inner} is {taken} too; give the host a name of its own'}")
    for key, value in [("internal_domain", internal), *((key.removeprefix("lemonstand_"), text) for text, key in public.items())]:
        if domain_fault(value, names):
            faults.append(f"lemonstand_{key}: {domain_fault(value, names)}")
    for number, domain in enumerate(domains):
        if domain_fault(domain, names):
            faults.append(f"lemonstand_mail_domains: {domain_fault(domain, names)}")
        if domain in domains[:number]:
            faults.append(f"lemonstand_mail_domains: {domain} is there twice; keep one of the two")
        if domain == shared["lemonstand_mx_name"]:
            faults.append(f"lemonstand_mail_domains: {domain} is lemonstand_mx_name too; give the relay another name")
    return faults


def _port_faults(shared: Host, members: list[str], hosts: Hosts, flows: list[Mapping[str, Any]]) -> list[str]:
    """Hosts whose SSH port no flow leaves open, as far as variables tell; what the connection really is, each host is asked."""
    disabled = shared.get("lemonstand_flows_disabled") or []
    left = [flow for flow in [*flows, *(shared.get("lemonstand_flows_extra") or [])] if flow.get("name") not in disabled]
    let_in = [flow for flow in left if (flow.get("from"), flow.get("to"), flow.get("protocol")) == ("controllers", "management", "tcp")]
    ports = {port for flow in let_in for port in flow.get("ports") or ()}
    faults = []
    for name in members if let_in else ():
        for variable in ("ansible_ssh_port", "ansible_port"):
            port = hosts[name].get(variable)
            if port is not None:
                if str(port) not in {str(each) for each in ports}:
                    faults.append(
                        f"{variable} {port} of {name}: no flow lets the controllers in on {port}; "
                        f"add one from controllers to management with ports [{port}] to lemonstand_flows_extra"
                    )
                break
    return faults


def _address_faults(members: list[str], groups: Mapping[str, list[str]], hosts: Hosts) -> list[str]:
    faults = _zone_faults(members, groups, hosts)
    taken: dict[str, str] = {}
    for name in members:
        zones = hosts[name].get("lemonstand_zones") or {}
        legs = hosts[name].get("lemonstand_interfaces") or {}
        home = {"frontends": "dmz", "relays": "dmz", "auths": "auth", "stores": "store"}
        for group, zone in home.items():
            if name in _members(groups, group) and zone not in legs:
                faults.append(f"host {name} has no leg in the zone '{zone}'; add it to lemonstand_interfaces")
            if name in _members(groups, group) and set(legs) - {zone, "management"}:
                faults.append(f"host {name} stands in {' and '.join(sorted(set(legs) - {'management'}))}; only an edge may join zones")
        for zone, leg in legs.items():
            if zone not in ZONES:
                faults.append(f"host {name}: lemonstand_interfaces names the unknown zone '{zone}'{_near(zone, ZONES)}")
                continue
            if zone != "internet" and not zones.get(zone):
                faults.append(f"the zone '{zone}' has no network; add '{zone}' to lemonstand_zones")
                continue
            for family in ("ipv4", "ipv6"):
                if (zones.get(zone) or {}).get(family) and not leg.get(family):
                    faults.append(f"host {name} has no {family} address in the zone '{zone}', which has {family}; give it one")
                address, network = leg.get(family), (zones.get(zone) or {}).get(family)
                if address and network and ipaddress.ip_address(address) not in ipaddress.ip_network(network):
                    faults.append(
                        f"host {name}: {address} lies outside the zone '{zone}' ({network}); mend lemonstand_interfaces or lemonstand_zones"
                    )
                if address and taken.setdefault(str(address), name) != name:
                    faults.append(f"host {name}: {address} belongs to {taken[str(address)]} already")
    return faults


def _zone_faults(members: list[str], groups: Mapping[str, list[str]], hosts: Hosts) -> list[str]:
    shared = hosts[members[0]]
    zones = shared.get("lemonstand_zones") or {}
    faults = []
    names = sorted(zones)
    for position, first in enumerate(names):
        for second in names[position + 1 :]:
            for family in ("ipv4", "ipv6"):
                one, other = (zones[zone] or {} for zone in (first, second))
                if (
                    one.get(family)
                    and other.get(family)
                    and ipaddress.ip_network(one[family]).overlaps(ipaddress.ip_network(other[family]))
                ):
                    faults.append(f"lemonstand_zones: the zones '{first}' and '{second}' overlap; give each networks of its own")
    dmz, public = zones.get("dmz") or {}, shared.get("lemonstand_public_ipv4")
    if _members(groups, "edges") and dmz.get("ipv4") and not public:
        faults.append("lemonstand_public_ipv4 is not set, so nobody outside reaches the zone 'dmz' by IPv4; set it")
    if _members(groups, "edges") and public and not dmz.get("ipv4"):
        faults.append(f"lemonstand_public_ipv4 {public} leads nowhere: the zone 'dmz' has no IPv4; remove it")
    return faults


@functools.cache
def _seed_program() -> Any:
    """The program that seeds the directory, for its rule of what slapd can compare."""
    path = Path(__file__).parents[2] / "roles" / "directory" / "files" / "directory_seed.py"
    spec = importlib.util.spec_from_file_location("lemonstand_directory_seed", path)
    assert spec is not None and spec.loader is not None  # noqa: S101 - for the type checker
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _hash_fault(text: str) -> str | None:
    try:
        _seed_program().stored_hash(text)
    except _seed_program().SeedError as problem:
        return str(problem)
    return None


def _user_faults(shared: Host, groups: Mapping[str, list[str]]) -> list[str]:
    faults = []
    domains = shared["lemonstand_mail_domains"]
    passwords = shared.get("lemonstand_user_passwords") or {}
    seen: set[str] = set()
    for user in shared["lemonstand_users"]:
        name = str(user.get("name", ""))
        for address in [name, *(user.get("aliases") or [])]:
            fault = address_fault(str(address), data("names.yml")["names"])
            if fault:
                faults.append(f"lemonstand_users: '{address}' is no mail address here: {fault}")
            elif address.split("@")[1] not in domains:
                faults.append(f"lemonstand_users: {address} is in none of lemonstand_mail_domains ({', '.join(domains)})")
            if address in seen:
                faults.append(f"lemonstand_users: {address} is there twice")
            seen.add(address)
        if not user.get("password_hash") and not passwords.get(name):
            faults.append(
                f"lemonstand_users: {name} has neither password_hash nor an entry in lemonstand_user_passwords (put it into a vault)"
            )
        fault = _hash_fault(str(user["password_hash"])) if user.get("password_hash") else None
        if fault:
            faults.append(
                f"lemonstand_users: password_hash of {name}: {fault}; make one with `lemonstand user hash`, "
                "or give a first password in lemonstand_user_passwords"
            )
        stores = _members(groups, "stores")
        if user.get("store") and user["store"] not in stores:
            faults.append(
                f"lemonstand_users: {name} lives on '{user['store']}', which is not in the group 'stores'{_near(user['store'], stores)}"
            )
        elif not user.get("store") and len(stores) > 1:
            faults.append(f"lemonstand_users: {name} names no store, and there are {len(stores)}")
    return faults


class FilterModule:
    """Announces the filters to Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {
            "lemonstand_active_flows": active_flows,
            "lemonstand_host_rules": host_rules,
            "lemonstand_edge_rules": edge_rules,
            "lemonstand_host_names": host_names,
            "lemonstand_name_characters": name_characters,
            "lemonstand_login_pattern": login_pattern,
            "lemonstand_addresses_of": addresses_of,
            "lemonstand_broken_timers": broken_timers,
            "lemonstand_data": data,
            "lemonstand_reach_address": reach_address,
            "lemonstand_service_ports": service_ports,
            "lemonstand_site_faults": site_faults,
            "lemonstand_table_size": table_size,
        }
