"""The reference of site variables, in Markdown: type, default, meaning, an example, and who reads each."""

from __future__ import annotations

import ast
import datetime as dt
import re
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from lemonstand.paths import data_dir
from lemonstand.site.model import PREFIX, AnyAddress, HostName, HostSettings, MailAddress, SiteSettings, ZoneName

HEAD = f"""# Variables of a site

Made from the model by `make docs`; change `src/lemonstand/site/model.py`, not this page. Everything a site says stands in its inventory,
in variables that begin with `{PREFIX}`. `lemonstand check --site DIR` refuses unknown names, wrong types and what does not fit together,
with file and line. Other variables in the site's folder are refused too, but Ansible's own (`ansible_*`), those of our roles
([roles/](roles/README.md)), and those listed in `{PREFIX}foreign_variables`. "Read by" names the roles that get something from the
variable, and the parts of lemonstand that look at it.
"""
NAMED = {
    get_args(kind)[1].func: name
    for kind, name in (
        (HostName, "host name"),
        (ZoneName, "zone"),
        (MailAddress, "mail address of this site"),
        (AnyAddress, "mail address"),
    )
}
"""What judges a text to what the text then is."""
PLAIN: Mapping[object, str] = {
    str: "text", int: "whole number", bool: "true or false", Path: "path on the controller", SecretStr: "secret text",
    dt.date: "date (YYYY-MM-DD)", IPv4Address: "IPv4 address", IPv6Address: "IPv6 address", IPv4Network: "IPv4 network",
    IPv6Network: "IPv6 network",
}  # fmt: skip
PLURALS = {"address": "addresses", "text": "texts", "path": "paths"}
PARTS = ("cli", "deploy", "admin", "lab", "checks", "evidence", "redteam", "derived", "measure", "mail", "policy")
"""Packages whose reading of a setting is worth telling."""


def page() -> str:
    """The whole page.

    Raises:
        LemonstandError: a shipped file is missing.
    """
    sections: list[tuple[str, type[BaseModel], str]] = [
        ("One value for the whole site", SiteSettings, "In `group_vars/all/`. The same on every host."),
        ("May differ from host to host", HostSettings, "In `hosts.yml`, `host_vars/` or `group_vars/GROUP/`."),
    ]
    parts: dict[type[BaseModel], None] = {}
    lines = [HEAD]
    for title, model, where in sections:
        lines += [f"## {title}", "", where, "", "| variable | type | default | meaning | read by |", "|---|---|---|---|---|"]
        for name, info in model.model_fields.items():
            readers = ", ".join(_readers(name)) or "the model"
            lines.append(_row(PREFIX + name, info, parts, readers))
        lines.append("")
    done: set[type[BaseModel]] = set()
    lines += ["## Structured values", ""]
    while todo := [model for model in parts if model not in done]:
        for model in todo:
            done.add(model)
            lines += [f"### {_title(model)}", "", _first(model), "", "| key | type | default | meaning |", "|---|---|---|---|"]
            for name, info in model.model_fields.items():
                lines.append(_row(info.alias or name, info, parts))
            lines.append("")
    lines += ["## Examples", "", "From the sites that ship with lemonstand, and one each for what they leave at its default.", ""]
    lines += ["```yaml", *_examples(), "```", ""]
    return "\n".join(lines)


def _row(name: str, info: FieldInfo, parts: dict[type[BaseModel], None], *more: str) -> str:
    cells = (f"`{name}`", _type(info.annotation, info.metadata, parts), _default(info), _cell(info.description), *more)
    return f"| {' | '.join(cells)} |"


def _type(annotation: Any, metadata: Iterable[Any], parts: dict[type[BaseModel], None]) -> str:  # noqa: PLR0911 - a case a kind
    """A type in words; models in it are added to `parts`."""
    for each in metadata:
        if getattr(each, "func", None) in NAMED:
            return NAMED[each.func]
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(args[0], args[1:], parts)
    if origin is Literal:
        return "one of " + ", ".join(f"`{each}`" for each in args)
    if origin is tuple and args[-1] is not Ellipsis:
        return " and ".join(_type(each, (), parts) for each in args)
    if origin is tuple:
        return "list of " + _plural(_type(args[0], (), parts))
    if origin is dict:
        return f"dictionary of {_plural(_type(args[1], (), parts))} by {_type(args[0], (), parts)}"
    if origin in {Union, types.UnionType}:
        known = [_type(each, (), parts) for each in args if each is not type(None)]
        return "address" if set(known) == {"IPv4 address", "IPv6 address"} else " or ".join(known)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        parts[annotation] = None
        return f"[{_title(annotation)}](#{_title(annotation).replace(' ', '-')})"
    return PLAIN[annotation]


def _plural(name: str) -> str:
    if name.startswith(("[", "one of", "list of", "dictionary", "true")):
        return name
    first, _, rest = name.partition(" of ")
    word = first.rpartition(" ")[2]
    return first.removesuffix(word) + PLURALS.get(word, word + "s") + (f" of {rest}" if rest else "")


def _title(model: type[BaseModel]) -> str:
    """The class's name in words: `FileCertificate` is `file certificate`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", model.__name__).lower()


def _first(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").split("\n\n")[0].split())


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "**required**"
    value = info.default
    if value is None or value is PydanticUndefined:
        return "none"
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{_flow(value)}`"


def _flow(value: object) -> str:
    """A value as YAML in one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True).removesuffix("\n").removesuffix("\n...").strip()


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|") or "-"


def _examples() -> Iterator[str]:
    """Each variable once: as a shipped inventory has it, else the example of the model."""
    shipped: dict[str, Any] = {}
    for name in ("lab", "example"):
        folder = data_dir("inventories") / name / "group_vars" / "all"
        for path in sorted(folder.glob("*.yml")):
            found = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
            shipped |= {key: value for key, value in found.items() if "{{" not in str(value)}
    for model in (SiteSettings, HostSettings):
        for name, info in model.model_fields.items():
            key = PREFIX + name
            if info.examples:
                value = info.examples[0]
            elif key in shipped:
                value = shipped[key]
            else:
                raise KeyError(f"{key} has no example: add examples=[…] to its field in the model")
            # A value of its own line by line if it is a list or a dictionary; on the line of its name if it is not.
            text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
            lines = text.removesuffix("...\n").rstrip().splitlines()
            short = len(lines) == 1 and (not isinstance(value, list | dict) or lines[0][0] in "[{")
            yield from [f"{key}: {lines[0]}"] if short else [f"{key}:", *(f"  {line}" for line in lines)]


@cache
def _reads() -> dict[str, set[str]]:
    """Variable of the plays to the names in its expression, over all kinds of hosts."""
    found: dict[str, set[str]] = {}
    for path in (data_dir("playbooks") / "group_vars").rglob("*.yml"):
        for name, value in (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).items():
            found.setdefault(name, set()).update(re.findall(r"\b(?:__)?[a-z][a-z0-9_]+", str(value)))
    return found


def _readers(name: str) -> list[str]:
    """The roles whose variables follow from a setting, then the packages that look at it."""
    roles = {path.name for path in data_dir("roles").iterdir() if path.is_dir()}
    reached, last = {PREFIX + name}, 0
    while len(reached) != last:
        last = len(reached)
        reached |= {key for key, names in _reads().items() if names & reached}
    owners = sorted({role for role in roles for key in reached if key.startswith(role + "_")})
    return [*(f"role [{role}](roles/{role}.md)" for role in owners), *(f"`{part}`" for part in sorted(_parts().get(name, ())))]


@cache
def _parts() -> dict[str, set[str]]:
    """Setting to the packages of lemonstand that read it (`….settings.NAME`)."""
    found: dict[str, set[str]] = {}
    root = Path(__file__).resolve().parent.parent
    for path in root.rglob("*.py"):
        part = path.relative_to(root).parts[0]
        if part in PARTS:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and node.value.attr == "settings":
                    found.setdefault(node.attr, set()).add(part)
    return found


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
