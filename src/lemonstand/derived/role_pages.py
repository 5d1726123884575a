"""Reference pages of roles, in Markdown: what a role says of itself, its variables, its packages and files, the controls it enforces."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from lemonstand.paths import data_dir
from lemonstand.policy.controls import load_controls
from lemonstand.site.roles import entry_points, specification

MADE = "Generated from the role by `make docs`; change the role, not this page."
INDEX = "README.md"
LONGEST_DEFAULT = 56
"""Letters of a default that still fits into a table."""
WIRING = "playbooks/tasks/STAGE/KIND.yml"

Options = Mapping[str, Mapping[str, Any]]


def pages() -> dict[str, str]:
    """All pages by the name of their file.

    Raises:
        LemonstandError: a role lacks what a page is made from.
    """
    folders = sorted(path for path in data_dir("roles").iterdir() if path.is_dir())
    specifications = {folder.name: specification(folder) for folder in folders}
    kinds = _kinds()
    found = {f"{folder.name}.md": _page(folder, specifications[folder.name], kinds.get(folder.name, [])) for folder in folders}
    rows = [
        f"| [{name}]({name}.md) | {_cell(said['short_description'])} | {', '.join(kinds.get(name, []))} |"
        for name, said in specifications.items()
    ]
    head = [
        "# Roles",
        "",
        MADE,
        "",
        "One role a function, each usable alone. Which kind of host has it: `playbooks/tasks/STAGE/KIND.yml`.",
        "",
    ]
    found[INDEX] = "\n".join([*head, "| role | is | on |", "|---|---|---|", *rows, ""])
    return found


def write(target: Path) -> None:
    """Puts all pages into a directory, and takes away pages of roles that are gone.

    Args:
        target: `docs/roles`.
    """
    target.mkdir(parents=True, exist_ok=True)
    wanted = pages()
    for name, text in wanted.items():
        (target / name).write_text(text, encoding="utf-8")
    for path in target.glob("*.md"):
        if path.name not in wanted:
            path.unlink()


def _page(folder: Path, said: Mapping[str, Any], kinds: list[str]) -> str:
    readme = (folder / "README.md").read_text(encoding="utf-8").partition("\n")[2].strip()
    # A page lies elsewhere than the text it shows.
    readme = re.sub(r"\]\((?!\w+:|#|/)", f"](../../roles/{folder.name}/", readme)
    options: Options = said.get("options") or {}
    lines = [f"# {folder.name}", "", f"{said['short_description']}. {MADE}", "", readme, ""]
    for title, section in (
        ("Variables", list(_variables(options))),
        *((f"`tasks_from: {name}`", _entry_point(said)) for name, said in entry_points(folder).items() if name != "main"),
        ("Packages and files", list(_things(folder))),
        ("Controls it enforces", list(_controls(folder.name))),
        ("Where it runs", [f"On {', '.join(kinds)}: `{WIRING}`."] if kinds else []),
    ):
        if section:
            lines += [f"## {title}", "", *section, ""]
    return "\n".join(lines)


def _variables(options: Options) -> Iterator[str]:
    """A table of all variables, then the long defaults and the parts of structured ones."""
    if not options:
        return
    yield from _table(options)
    for name, option in options.items():
        default = option.get("default")
        if "default" in option and len(_plain(default)) > LONGEST_DEFAULT:
            text = yaml.safe_dump(default, sort_keys=False, allow_unicode=True, width=120).removesuffix("...\n").rstrip()
            yield from ("", f"The default of `{name}`:", "", "```yaml", *text.splitlines(), "```")
        if option.get("options"):
            yield from ("", f"Each of `{name}`:" if option.get("elements") else f"Keys of `{name}`:", "")
            yield from _table(option["options"])


def _entry_point(said: Mapping[str, Any]) -> list[str]:
    """What another way to use a role does, and its variables."""
    words = said.get("description", ())
    text = " ".join([words] if isinstance(words, str) else words)
    return [_marked(f"{said['short_description']}. {text}".rstrip()), "", *_variables(said.get("options", {}))]


def _table(options: Options) -> Iterator[str]:
    yield "| variable | type | default | meaning |"
    yield "|---|---|---|---|"
    for name, option in options.items():
        kind = option.get("type", "str") + (f" of {option['elements']}" if option.get("elements") else "")
        meaning = " ".join(option["description"]) if isinstance(option["description"], list) else str(option["description"])
        if option.get("choices"):
            meaning += f" One of {', '.join(f'`{each}`' for each in option['choices'])}."
        yield f"| `{name}` | {kind} | {_default(option)} | {_cell(meaning)} |"


def _default(option: Mapping[str, Any]) -> str:
    if option.get("required"):
        return "**required**"
    if "default" not in option:
        return ""
    text = _plain(option["default"])
    if len(text) > LONGEST_DEFAULT:
        return "below"
    return f"`{_cell(text)}`" if text else "empty"


def _plain(default: object) -> str:
    return default if isinstance(default, str) else json.dumps(default, ensure_ascii=False)


def _things(folder: Path) -> Iterator[str]:
    """What it puts on a host: packages and files."""
    variables = folder / "vars" / "main.yml"
    data = (yaml.safe_load(variables.read_text(encoding="utf-8")) or {}) if variables.is_file() else {}
    packages = [package for name, value in data.items() if name.endswith("_packages") and isinstance(value, list) for package in value]
    if packages:
        yield f"Packages: {', '.join(f'`{package}`' for package in dict.fromkeys(packages))}."
    files = [entry["path"] for entry in _entries(data, f"__{folder.name}_") if not entry["path"].startswith("{{")]
    if files:
        yield from (["", "Files:", ""] if packages else ["Files:", ""])
        yield from (f"- `{name}`" for name in sorted(set(files)))


def _entries(data: Mapping[str, Any], prefix: str) -> Iterator[Mapping[str, Any]]:
    """What a role writes, as far as it is data: its lists of files, but for what is not to be there."""
    for name, value in data.items():
        for entry in value if name.startswith(prefix) and isinstance(value, list) else ():
            if isinstance(entry, dict) and "path" in entry and entry.get("state", "file") == "file":
                yield entry


def _controls(role: str) -> Iterator[str]:
    for control in load_controls().controls:
        if any(source.startswith(f"roles/{role}/") for source in control.enforced_by):
            yield f"- {control.id} ({control.level}): {control.statement}"


def _kinds() -> dict[str, list[str]]:
    """Role to the kinds of hosts that have it, by the plays."""
    found: dict[str, set[str]] = {}
    for path in (data_dir("playbooks") / "tasks").glob("*/*.yml"):
        for task in yaml.safe_load(path.read_text(encoding="utf-8")):
            for role in _roles_in(task):
                found.setdefault(role, set()).add(path.stem)
    return {role: sorted(kinds) for role, kinds in found.items()}


def _roles_in(task: Mapping[str, Any]) -> Iterator[str]:
    """The roles a task of a play is about: it plays one, or has an action do something for several."""
    for key, said in task.items():
        if key.endswith((".import_role", ".include_role")):
            yield said["name"]
        elif key.endswith(".certificates"):
            yield said["role"]
        # A list by a condition is a template, and its roles have other tasks as well.
        elif key.endswith((".packages", ".files", ".activate")) and isinstance(said.get("roles"), list):
            yield from said["roles"]


def _cell(text: str) -> str:
    """A text as it can stand in a table; what Ansible's documents mark as code is code here."""
    return _marked(" ".join(text.split())).replace("|", "\\|")


def _marked(text: str) -> str:
    return re.sub(r"\bC\(([^)]*)\)", r"`\1`", text)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
