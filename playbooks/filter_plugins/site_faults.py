"""Says what is wrong with a site's inventory before any host is touched.

The judge is the site model of the Python package. Where the controller's Python has no such package (the collection alone is installed),
names and types are checked against `variables.json`, which is made from the model, and a warning says so.
"""

from __future__ import annotations

import datetime
import difflib
import functools
import importlib
import importlib.util
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from ansible.utils.display import Display

PLAYBOOKS = Path(__file__).resolve().parents[1]
TABLE = PLAYBOOKS / "variables.json"
PREFIX = "lemonstand_"
OURS = {f"{PREFIX}kind"}
"""Variables with the prefix that the plays set themselves."""
ONLY_TYPES = (
    "only the names and types of the site's variables were checked, not what they say together: the Python package lemonstand {}. "
    "Install the package of this version for ansible-playbook's Python, or run `lemonstand check` on the inventory"
)
TYPES: dict[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "string": lambda value: isinstance(value, str | datetime.date),
    "array": lambda value: isinstance(value, Sequence) and not isinstance(value, str | bytes),
    "object": lambda value: isinstance(value, Mapping),
}
NAMES = {
    "null": "nothing",
    "boolean": "true or false",
    "integer": "a number",
    "string": "text",
    "array": "a list",
    "object": "a dictionary",
}
_last: list[Any] = [None, []]
"""Whom the last question was about, and the answer: a task names its variables more than once."""


def site_faults(hostvars: Any) -> list[str]:
    """All that is wrong with the inventory, a line each; none: it can be deployed.

    Args:
        hostvars: Ansible's variable of that name.
    """
    if _last[0] is not hostvars:
        judge = _judge()
        _last[:] = [hostvars, judge(hostvars, PLAYBOOKS) if judge else plain_faults(hostvars)]
    answer: list[str] = _last[1]
    return answer


def _judge() -> Callable[[Any, Path], list[str]] | None:
    """The package's judge; None, and a warning, where there is none that fits these playbooks."""
    try:
        package = importlib.import_module("lemonstand.site.preflight")
        shipped = importlib.import_module("lemonstand.paths").data_dir("playbooks") / TABLE.name
    except ImportError as missing:
        Display().warning(ONLY_TYPES.format(f"can't be imported here ({missing})"))
        return None
    if shipped.resolve() != TABLE and shipped.read_bytes() != TABLE.read_bytes():
        Display().warning(ONLY_TYPES.format("is of another version than these playbooks"))
        return None
    judge: Callable[[Any, Path], list[str]] = package.faults
    return judge


# --- without the package ---


def plain_faults(hostvars: Any) -> list[str]:
    """Names and types alone, against the table that is made from the model; secrets and CAs as with the model."""
    hurt: list[str] = _sibling("secret_values").secret_faults(hostvars)
    if hurt:
        return hurt
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    kinds = yaml.safe_load((PLAYBOOKS / "kinds.yml").read_text(encoding="utf-8"))
    groups = {*kinds["kinds"], *kinds["outer"]}
    found: dict[str, None] = {}
    directories: dict[str, Any] = {}
    seen: dict[str, Any] = {}
    for name in hostvars:
        host = hostvars[name]
        if not groups & set(host.get("group_names") or ()):
            continue
        raw = hostvars.raw_get(name) if hasattr(hostvars, "raw_get") else host
        found |= dict.fromkeys(_host_faults(str(name), host, raw, table, seen))
        directories[str(host.get(f"{PREFIX}pki_dir") or "")] = host.get(f"{PREFIX}signer")
    judge = _sibling("authorities").authority_faults
    return [*found, *(fault for directory, signer in sorted(directories.items()) if directory for fault in judge(directory, signer))]


def _host_faults(name: str, host: Mapping[str, Any], raw: Mapping[str, Any], table: Any, seen: dict[str, Any]) -> Iterator[str]:
    known = {**table["site"]["properties"], **table["host"]["properties"]}
    foreign = host.get(f"{PREFIX}foreign_variables") or ()
    for variable in [key for key in host if key.startswith(PREFIX) and key not in OURS]:
        short = variable.removeprefix(PREFIX)
        if short not in known:
            if variable not in foreign:
                near = difflib.get_close_matches(variable, [PREFIX + each for each in known], 1)
                yield f"unknown variable '{variable}'; " + (f"did you mean '{near[0]}'?" if near else "remove it")
        elif seen.get(variable, seen) is not raw[variable]:  # most are the same for all hosts
            seen[variable] = raw[variable]
            part = table["site" if short in table["site"]["properties"] else "host"]
            for fault in form_faults(host[variable], known[short], part.get("$defs", {}), variable):
                yield f"{fault}; give {known[short]['description']}"
    for short in table["site"]["required"]:
        if PREFIX + short not in host:
            yield f"{PREFIX}{short} is not set on host {name}; set it: {known[short]['description']}"


def form_faults(value: Any, form: Mapping[str, Any], named: Mapping[str, Any], at: str) -> list[str]:  # noqa: PLR0911 - a case a kind
    """What a value has against a form of JSON Schema, as far as the model's forms use it.

    Args:
        named: forms that others refer to.
        at: the way to the value.
    """
    if "$ref" in form:
        return form_faults(value, named[form["$ref"].rpartition("/")[2]], named, at)
    choices = form.get("anyOf") or form.get("oneOf")
    if choices:
        tried = [form_faults(value, each, named, at) for each in choices]
        # The nearest one speaks: the one that fails deepest.
        return [] if [] in tried else max(tried, key=lambda faults: max(fault.partition(":")[0].count(".") for fault in faults))
    if "type" in form and not TYPES[form["type"]](value):
        return [f"{at}: this is not {NAMES[form['type']]}"]
    allowed = [form["const"]] if "const" in form else form.get("enum")
    if allowed is not None and value not in allowed:
        return [f"{at}: this is none of {', '.join(map(str, allowed))}"]
    if isinstance(value, Mapping):
        return list(_parts(value, form, named, at))
    if TYPES["array"](value):
        return list(_items(value, form, named, at))
    return list(_limits(value, form, at))


def _parts(value: Mapping[str, Any], form: Mapping[str, Any], named: Mapping[str, Any], at: str) -> Iterator[str]:
    known = form.get("properties", {})
    for missing in [key for key in form.get("required", ()) if key not in value]:
        yield f"{at}: '{missing}' is missing"
    more = form.get("additionalProperties", True)
    for key, item in value.items():
        if key in known:
            yield from form_faults(item, known[key], named, f"{at}.{key}")
        elif more is False:
            yield f"{at}.{key}: no such key"
        elif isinstance(more, Mapping):
            yield from form_faults(item, more, named, f"{at}.{key}")


def _items(value: Sequence[Any], form: Mapping[str, Any], named: Mapping[str, Any], at: str) -> Iterator[str]:
    if not form.get("minItems", 0) <= len(value) <= form.get("maxItems", len(value)):
        yield f"{at}: {len(value)} entries are not what fits here"
    first = form.get("prefixItems", ())
    for number, item in enumerate(value):
        each = first[number] if number < len(first) else form.get("items")
        if isinstance(each, Mapping):
            yield from form_faults(item, each, named, f"{at}[{number}]")


def _limits(value: Any, form: Mapping[str, Any], at: str) -> Iterator[str]:
    if isinstance(value, str):
        if len(value) < form.get("minLength", 0) or ("pattern" in form and not re.search(form["pattern"], value)):
            yield f"{at}: this is not in the form that fits here"
    elif isinstance(value, int) and not form.get("minimum", value) <= value <= form.get("maximum", value):
        yield f"{at}: {value} is out of the range that fits here"


@functools.cache
def _sibling(name: str) -> Any:
    """Another module of this directory, which Ansible loads under names of its own."""
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"lemonstand_plain_{name}", path)
    assert spec is not None and spec.loader is not None  # noqa: S101 - for the type checker
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class FilterModule:
    """Announces the filter to Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {"lemonstand_site_faults": site_faults}
