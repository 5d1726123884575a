"""Loads a site: reads the inventory in a process of its own, judges every variable, then the rules between them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lemonstand.errors import InputError, InputErrors, LemonstandError
from lemonstand.policy import Flows, Timers, load_flows, load_timers
from lemonstand.policy.kinds import load_kinds
from lemonstand.policy.settings import load_options
from lemonstand.site.fields import check_fields, place_of, suggest
from lemonstand.site.model import PREFIX, Host, HostSettings, Site, SiteSettings, variables
from lemonstand.site.process import answer_of
from lemonstand.site.raw import RawHost, RawSite, unpacked
from lemonstand.site.roles import check_role_variable, role_of
from lemonstand.site.rules import RULES, Draft, shell_port
from lemonstand.survey import look_at

READ_SECONDS = 60
VAULT_HINT = "name the file with the vault's password in ANSIBLE_VAULT_PASSWORD_FILE"


def load_site(inventory: Path, env: Mapping[str, str] | None = None) -> Site:
    """Loads and validates a site.

    Args:
        inventory: its directory or hosts file.
        env: variables for lookups in the inventory beside the process's own (the lab's, say).

    Raises:
        InputErrors: everything that is wrong with it.
        LemonstandError: the shipped data can't be read.
    """
    if not inventory.exists():
        raise InputErrors([InputError("there is no inventory", str(inventory), "name its directory with --site")])
    return build(inventory, read_inventory(inventory, env), load_flows(), load_timers())


def read_inventory(inventory: Path, env: Mapping[str, str] | None = None) -> RawSite:
    """What Ansible reads out of an inventory (see `load_site` for the arguments)."""
    look_at(inventory)
    settings = {
        "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true",  # a file Ansible can't parse is else passed over with a warning
        "ANSIBLE_DEPRECATION_WARNINGS": "false",
        **(env or {}),
    }
    answer = answer_of(
        "lemonstand.site.reader", inventory, what="the inventory can't be read", remedy="see if `ansible-inventory --list -i` on it works",
        seconds=READ_SECONDS, settings=settings,
    )  # fmt: skip
    try:
        return RawSite.from_plain(unpacked(json.loads(answer)))
    except ValueError:
        raise LemonstandError(
            "the inventory's answer is cut off", str(inventory), "see if memory or disk is full, then try again"
        ) from None


def build(inventory: Path, raw: RawSite, flows: Flows, timers: Timers) -> Site:
    """A site of what was read.

    Args:
        inventory: where it came from.
        raw: the inventory's content.
        flows: the shipped flows.
        timers: the shipped timer profiles.

    Raises:
        InputErrors: everything that is wrong with it.
    """
    faults, draft = judge(raw, flows, timers)
    if faults or draft is None:
        raise InputErrors(faults)
    hosts = {
        name: Host.model_construct(
            name=name,
            groups=raw.hosts[name].groups,
            settings=HostSettings.model_construct(**values),
            shell_port=shell_port(raw.hosts[name].connection),
        )
        for name, values in draft.hosts.items()
    }
    apart = load_kinds().apart
    return Site(
        inventory=inventory,
        settings=SiteSettings.model_construct(**draft.settings),
        hosts={name: host for name, host in hosts.items() if not apart & set(host.groups)},
        apart={name: host for name, host in hosts.items() if apart & set(host.groups)},
        flows=flows,
        timers=timers,
    )


def judge(raw: RawSite, flows: Flows, timers: Timers) -> tuple[list[LemonstandError], Draft | None]:
    """Everything that is wrong with what was read, and what is sound in it.

    The one judge: `lemonstand check` and the preflight of plain Ansible ask it, each with what it has read (docs/decisions/0027).

    Args:
        raw: the inventory's content.
        flows: the shipped flows.
        timers: the shipped timer profiles.

    Returns:
        The faults, in the order in which they are shown, and the sound values; no values where there is no host.
    """
    faults: list[LemonstandError] = [InputError(*problem) for problem in raw.problems]
    if not raw.hosts:
        if not faults:
            faults.append(
                InputError("the inventory has no hosts", f"{raw.folder}/hosts.yml", "list them there; inventories/example shows how")
            )
        return faults, None
    faults += _unread_files(raw)
    faults += _unique(_check_names(raw))
    shared = _shared_host(raw)
    faults += _unique(_disagreements(raw, shared))
    settings, wrong = check_fields(SiteSettings, shared, raw.folder)
    faults += wrong
    hosts: dict[str, dict[str, Any]] = {}
    per_host: list[InputError] = []
    for name, host in raw.hosts.items():
        hosts[name], wrong = check_fields(HostSettings, host, raw.folder)
        per_host += wrong
    faults += _unique(iter(per_host))
    draft = Draft(raw, shared, settings, hosts, flows, timers)
    for rule in RULES:
        faults += rule(draft)
    return faults, draft


def _unique(faults: Iterator[InputError]) -> list[InputError]:
    """Keeps one of the faults that many hosts share because they share the variable."""
    kept = {(fault.what, fault.where): fault for fault in faults}
    return list(kept.values())


def _unread_files(raw: RawSite) -> Iterator[InputError]:
    for path, kind in raw.strays:
        names = raw.groups if kind == "group_vars" else raw.hosts
        thing = "group" if kind == "group_vars" else "host"
        stem = Path(path).name.partition(".")[0]
        yield InputError(f"Ansible never reads this: there is no {thing} '{stem}'", path, suggest(stem, names, "remove it"))


def _check_names(raw: RawSite) -> Iterator[InputError]:
    """Every variable is the site's own, a role's, or listed as foreign."""
    known = variables()
    for host in raw.hosts.values():
        foreign = host.values.get(PREFIX + "foreign_variables")
        allowed = {str(each) for each in foreign} if isinstance(foreign, list) else set()
        for name in [*host.values, *host.faulty]:
            if name.startswith(PREFIX):
                if name not in known:
                    yield InputError(f"unknown variable '{name}'", place_of(host, name), suggest(name, known, "remove it"))
                elif host.faulty.get(name) == "":
                    continue  # told with the file's other problems
                elif name in host.faulty:
                    reason = host.faulty[name]
                    remedy = VAULT_HINT if "undecryptable" in reason else "define what the template needs, or correct it"
                    yield InputError(f"{name} can't be worked out: {reason}", place_of(host, name), remedy)
            elif name in host.given and name in load_options():
                continue
            elif role_of(name) is not None:
                yield from check_role_variable(host, name)
                if name in host.shadowed:
                    yield InputError(
                        f"'{name}' has no effect: the playbooks set it after the site ({host.shadowed[name]})",
                        place_of(host, name),
                        f"set the {PREFIX}* variable it is made from, or move it to host_vars/{host.name}.yml",
                    )
            elif name not in allowed:
                yield InputError(
                    f"foreign variable '{name}'",
                    place_of(host, name),
                    suggest(name, known, f"list it in {PREFIX}foreign_variables"),
                )


def _shared_host(raw: RawSite) -> RawHost:
    """All site-wide variables as one host would see them."""
    values: dict[str, Any] = {}
    origins: dict[str, Mapping[str, str]] = {}
    faulty: dict[str, str] = {}
    for host in raw.hosts.values():
        for name in SiteSettings.model_fields:
            variable = PREFIX + name
            if variable in host.faulty:
                faulty.setdefault(variable, host.faulty[variable])
            elif variable in host.values and variable not in values:
                values[variable] = host.values[variable]
                origins[variable] = host.origins.get(variable, {})
    return RawHost("all", (), values, origins, faulty)


def _disagreements(raw: RawSite, shared: RawHost) -> Iterator[InputError]:
    for host in raw.hosts.values():
        for variable, value in shared.values.items():
            if variable in host.faulty:
                continue
            if variable not in host.values:
                yield InputError(
                    f"{variable} is set for some hosts, but not for {host.name}", place_of(shared, variable), "set it in group_vars/all"
                )
            elif host.values[variable] is not value and host.values[variable] != value:
                yield InputError(
                    f"{variable} on {host.name} differs from other hosts", place_of(host, variable), "set it once, in group_vars/all"
                )
