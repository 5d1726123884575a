"""What the text of a site's files says beside their values: keys that are there twice, files that are passed over, secrets
that YAML or Jinja change.

Works on the nodes of YAML, before values exist: what Ansible would merge, drop or coerce in silence is still there. Never shows a value.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, nodes

from lemonstand.site.shipped import filter_plugin

Problem = tuple[str, str, str]
"""What is wrong, where, and the remedy."""
Read = Callable[[Path], str]
"""Gives a file's text, vaulted ones opened; raises OSError or ValueError where there is none to be had."""

READABLE = (".yml", ".yaml", ".json")
PASSED_OVER = (".bak", ".cfg", ".orig", ".pyc", ".pyo", ".retry", ".rpm", ".swp", "~")
"""Ends of names in an inventory's directory that Ansible passes over (its INVENTORY_IGNORE_EXTS), documents left out."""
OPTIONS = "ansible.cfg"
"""Lies there for who starts Ansible from this folder, and was never meant to be read as an inventory."""
DOCUMENTS = (".md", ".txt", ".rst")
LARGEST = 8 * 1024 * 1024
"""Bytes of a file that is looked into; no site's file is larger."""
BRACES = ("{{", "{%", "{#")
KINDS = {"int": "a number", "float": "a number", "bool": "true or false", "null": "nothing", "timestamp": "a date"}
SHOWN = re.compile(r"\b(alias|tag|anchor|character|key)( for the tag)?:? ['\"`].*", re.DOTALL)
"""Where messages of YAML begin to show what they found."""
QUOTE = "put it into quotes"


def is_secret(name: str) -> bool:
    """Whether a variable's or key's name says that its value is a secret."""
    return bool(filter_plugin("secret_values").is_secret(name))


def hush(reason: str) -> str:
    """A reason of YAML without what it shows of a file that holds secrets."""
    return SHOWN.sub(r"\1 that means something to YAML; if it is part of a password, put that into quotes", reason)


def holds_secrets(text: str) -> bool:
    """Whether some key in a text names a secret, or the text is a vault."""
    return text.startswith("$ANSIBLE_VAULT") or any(is_secret(name) for name in re.findall(r"[A-Za-z_]\w*(?=['\"]?\s*:)", text))


@dataclass
class Found:
    """What a look at the files brought.

    Args:
        problems: as `RawSite.problems` has them.
        secrets: variables with a secret that was told of.
        passed_over: files that Ansible does not read and that were told of.
    """

    problems: list[Problem] = field(default_factory=list)
    secrets: set[str] = field(default_factory=set)
    passed_over: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Setting:
    """A variable as a file sets it."""

    path: Path
    line: int
    name: str
    value: yaml.Node


def look(folder: Path, inventory: Path, groups: Iterable[str], hosts: Iterable[str], read: Read) -> Found:
    """Looks at all files of a site.

    Args:
        folder: the site's folder.
        inventory: its hosts file, or the folder.
        groups: the inventory's groups; `all` is one.
        hosts: its hosts.
        read: gives a file's text.
    """
    found = Found()
    owners: dict[tuple[str, str], list[Setting]] = {}
    lines: dict[Path, list[str]] = {}
    sources = _sources(inventory, found)
    for path in sources:
        for owner, settings in _inventory_settings(path, _compose(path, read, lines, found)):
            owners.setdefault(owner, []).extend(settings)
    for kind, names in (("group", groups), ("host", hosts)):
        for name in names:
            for path in _variable_files(folder / f"{kind}_vars", name, found):
                owners.setdefault((kind, name), []).extend(_settings(path, _compose(path, read, lines, found)))
    for (kind, name), settings in owners.items():
        found.problems += _conflicts(kind, name, settings)
    every = [setting for settings in owners.values() for setting in settings]
    meant = _secret_names(every)
    for setting in every:
        told = list(_secret_problems(setting, meant, lines[setting.path]))
        found.problems += told
        found.secrets |= {setting.name} if told else set()
    found.problems = list(dict.fromkeys(found.problems))
    return found


# --- which files are read, and which are not ---


def _regular(path: Path) -> bool:
    try:
        state = path.stat()
    except OSError:
        return False
    return stat.S_ISREG(state.st_mode) and state.st_size <= LARGEST


def _sources(inventory: Path, found: Found) -> list[Path]:
    """The inventory's own files."""
    if not inventory.is_dir():
        return [inventory]
    paths = sorted(path for path in inventory.iterdir() if _regular(path) and not path.name.startswith("."))
    for path in paths:
        if path.name.endswith(PASSED_OVER) and path.name != OPTIONS:
            _pass_over(path, "end it in .yml if it is to be read", found)
    return [path for path in paths if path.suffix in READABLE]


def _variable_files(folder: Path, name: str, found: Found) -> list[Path]:
    """The files Ansible reads for a group or host, in its order: NAME/, then the first of NAME, NAME.yml, NAME.yaml and NAME.json."""
    read: list[Path] = []
    if (folder / name).is_dir():
        read += _directory(folder / name, found)
    one = [path for path in (folder / name, *(folder / f"{name}{end}" for end in READABLE)) if path.is_file()]
    read += one[:1]
    for path in one[1:]:
        _pass_over(path, f"Ansible reads {one[0].name} alone: put both into one file, or into {folder.name}/{name}/", found)
    ends = tuple(end for end in PASSED_OVER if end)
    for path in sorted(folder.glob(f"{name}.*")) + sorted(folder.glob(f"{name}~")):
        if _regular(path) and path not in one and path.name.endswith((*ends, ".old", ".save", ".dist", ".new")):
            _pass_over(path, "move it away, or end its name in .yml if it is to be read", found)
    return [path for path in read if _regular(path)]


def _directory(folder: Path, found: Found, depth: int = 0) -> list[Path]:
    read: list[Path] = []
    for path in sorted(folder.iterdir()):
        hidden = path.name.startswith(".") or path.name.startswith("README") or path.name.endswith(DOCUMENTS)
        if path.is_dir() and not path.suffix and not path.name.startswith(".") and not path.name.endswith("~") and depth < 8:
            read += _directory(path, found, depth + 1)
        elif path.is_file() and not path.name.startswith(".") and not path.name.endswith("~") and path.suffix in {"", *READABLE}:
            read.append(path)
        elif not hidden:
            remedy = "take the dot out of its name" if path.is_dir() else "move it away, or end its name in .yml if it is to be read"
            _pass_over(path, remedy, found)
    return read


def _pass_over(path: Path, remedy: str, found: Found) -> None:
    found.problems.append(("Ansible passes over this in silence", str(path), remedy))
    found.passed_over.add(str(path))


# --- nodes ---


def _compose(path: Path, read: Read, lines: dict[Path, list[str]], found: Found) -> yaml.Node | None:
    """A file's nodes; None where there are none, which is told by who reads the values."""
    lines[path] = []
    if not _regular(path):
        return None
    try:
        text = read(path)
        node = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return None
    lines[path] = text.splitlines()
    found.problems += duplicate_keys(node, path)
    return node


def duplicate_keys(node: yaml.Node | None, path: Path) -> Iterator[Problem]:
    """Keys that a mapping has twice, at any depth; a merged key (`<<`) that is set again is no second one."""
    waiting: list[tuple[yaml.Node, str]] = [(node, "")] if node is not None else []
    seen: set[int] = set()
    while waiting:
        each, at = waiting.pop()
        if id(each) in seen:  # an anchor: said once
            continue
        seen.add(id(each))
        if isinstance(each, yaml.SequenceNode):
            waiting += [(item, f"{at}[{number}]") for number, item in enumerate(each.value)]
        elif isinstance(each, yaml.MappingNode):
            lines: dict[tuple[str, Any], int] = {}
            for key, value in each.value:
                name = key.value if isinstance(key, yaml.ScalarNode) else "?"
                here = f"{at}.{name}" if at else str(name)
                waiting.append((value, here))
                if not isinstance(key, yaml.ScalarNode) or key.tag.endswith(":merge"):
                    continue
                identity = _identity(key)
                if identity in lines:
                    yield (
                        f"the key '{here}' is there twice (first in line {lines[identity]}): only the last one would count",
                        f"{path}:{key.start_mark.line + 1}",
                        "keep one of the two",
                    )
                lines.setdefault(identity, key.start_mark.line + 1)


def _identity(key: yaml.ScalarNode) -> tuple[str, Any]:
    """What makes two keys one: `yes` and `true` are the same, `1` and `"1"` are not."""
    kind = key.tag.rpartition(":")[2]
    if kind in {"int", "float", "bool", "null"}:
        try:
            return kind, yaml.safe_load(key.value)
        except yaml.YAMLError:
            pass
    return "str", key.value


def _pairs(node: yaml.Node | None) -> Iterator[tuple[str, int, yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                yield str(key.value), key.start_mark.line + 1, value


def _settings(path: Path, node: yaml.Node | None) -> list[Setting]:
    return [Setting(path, line, name, value) for name, line, value in _pairs(node)]


def _inventory_settings(path: Path, node: yaml.Node | None) -> Iterator[tuple[tuple[str, str], list[Setting]]]:
    """Variables in an inventory's own file, by whom they are for."""
    waiting = [(name, value) for name, _, value in _pairs(node)]
    seen: set[int] = set()
    while waiting:
        group, body = waiting.pop()
        if id(body) in seen:
            continue
        seen.add(id(body))
        for part, _, value in _pairs(body):
            if part == "vars":
                yield ("group", group), _settings(path, value)
            elif part == "hosts":
                for host, _, variables in _pairs(value):
                    yield ("host", host), _settings(path, variables)
            elif part == "children":
                waiting += [(name, child) for name, _, child in _pairs(value)]


def _conflicts(kind: str, name: str, settings: list[Setting]) -> Iterator[Problem]:
    """A variable that two files set for one group or host, with two values: which one counts hangs on the files' names."""
    table: dict[Any, int] = {}
    memory: dict[int, int] = {}
    first: dict[str, Setting] = {}
    for setting in settings:
        other = first.setdefault(setting.name, setting)
        if other.path != setting.path and _canonical(other.value, table, memory) != _canonical(setting.value, table, memory):
            yield (
                f"{setting.name} is set for the {kind} '{name}' in {other.path.name}:{other.line} too, with another value: only this "
                "one counts",
                f"{setting.path}:{setting.line}",
                "keep one of the two",
            )


def _canonical(node: yaml.Node, table: dict[Any, int], memory: dict[int, int]) -> int:
    """A number for a node's content: two nodes of the same content have the same, however often anchors repeat them."""
    if id(node) in memory:
        return memory[id(node)]
    memory[id(node)] = -1  # an anchor within itself
    if isinstance(node, yaml.MappingNode):
        content: Any = ("map", frozenset((_canonical(key, table, memory), _canonical(value, table, memory)) for key, value in node.value))
    elif isinstance(node, yaml.SequenceNode):
        content = ("seq", tuple(_canonical(item, table, memory) for item in node.value))
    else:
        content = (node.tag, node.value)
    memory[id(node)] = table.setdefault(content, len(table))
    return memory[id(node)]


# --- secrets ---


def _secret_names(settings: list[Setting]) -> set[str]:
    """Variables that are secrets by name, and those that templates of secrets take them from."""
    by_name: dict[str, list[Setting]] = {}
    for setting in settings:
        by_name.setdefault(setting.name, []).append(setting)
    waiting = [name for name in by_name if is_secret(name)]
    meant = set(waiting)
    while waiting:
        for setting in by_name.get(waiting.pop(), ()):
            for _, scalar in _scalars(setting.value, setting.name):
                named = _names(scalar.value) & by_name.keys() - meant
                meant |= named
                waiting += named
    return meant


def _scalars(node: yaml.Node, at: str) -> Iterator[tuple[str, yaml.ScalarNode]]:
    """Every scalar below a node with the way to it."""
    waiting, seen = [(node, at)], set()
    while waiting:
        each, here = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, yaml.ScalarNode):
            yield here, each
        elif isinstance(each, yaml.SequenceNode):
            waiting += [(item, f"{here}[{number}]") for number, item in reversed(list(enumerate(each.value)))]
        elif isinstance(each, yaml.MappingNode):
            waiting += [(value, f"{here}.{key.value}" if isinstance(key, yaml.ScalarNode) else here) for key, value in reversed(each.value)]


def _secret_problems(setting: Setting, meant: set[str], lines: list[str]) -> Iterator[Problem]:
    """Secrets of a variable that YAML or Jinja would change, each told without a letter of it."""
    for at, scalar in _scalars(setting.value, setting.name):
        if setting.name not in meant and not is_secret(at.rpartition(".")[2]):
            continue
        where = f"{setting.path}:{scalar.start_mark.line + 1} ({at})"
        if scalar.tag == "!vault":
            continue  # what is in it is for who opens it
        kind = KINDS.get(scalar.tag.rpartition(":")[2])
        if kind is not None:
            yield f"{at} is a secret, and to YAML it is no text but {kind}", where, f"{QUOTE}, in a vault as elsewhere"
            continue
        if not scalar.style:  # None or empty, by the parser
            line = lines[scalar.end_mark.line] if scalar.end_mark.line < len(lines) else ""
            rest = line[scalar.end_mark.column :] if scalar.start_mark.line == scalar.end_mark.line else ""
            if re.match(r"\s+#", rest):
                yield (
                    f"{at} is a secret, and YAML takes what follows ' #' for a comment",
                    where,
                    f"{QUOTE}; comments have lines of their own",
                )
            elif rest and not rest.strip():
                yield f"{at} is a secret with blanks behind it, which YAML drops", where, f"{QUOTE}, or take the blanks away"
        if scalar.value != scalar.value.strip():
            remedy = "write it in one line and in quotes, without them (a block needs `|-`)"
            yield f"{at} is a secret that begins or ends with a blank or a line's end", where, remedy
        if scalar.tag != "!unsafe" and is_eaten(scalar.value):
            yield (
                f"{at} is a secret with braces in it that Ansible takes for a template",
                where,
                "write it as !unsafe, which leaves it alone: `NAME: !unsafe '…'`",
            )


def is_eaten(text: str) -> bool:
    """Whether Jinja would change a text that is meant as it stands."""
    return bool(filter_plugin("secret_values").is_eaten(text))


def _names(text: str) -> set[str]:
    """The variables whose values a template hands on; what a lookup is asked with is not one of them."""
    if not any(brace in text for brace in BRACES) or is_eaten(text):
        return set()
    waiting: list[nodes.Node] = [part for output in Environment(autoescape=True).parse(text).body for part in output.iter_child_nodes()]
    names = set()
    while waiting:
        node = waiting.pop()
        if isinstance(node, nodes.Name):
            names.add(node.name)
        elif isinstance(node, nodes.Getattr | nodes.Getitem | nodes.Filter) and node.node is not None:
            waiting.append(node.node)
        elif isinstance(node, nodes.CondExpr):
            waiting += [each for each in (node.expr1, node.expr2) if each is not None]
    return names
