"""Reads an inventory with ansible-core's own classes, so that vault, precedence and Jinja mean what they mean to Ansible.

Run as `python -m lemonstand.site.reader INVENTORY PLAYBOOK_DIR` it prints JSON: ansible-core keeps its configuration in
module globals that it fills from the environment when it is first imported, so a process of its own is the only clean call.
"""

from __future__ import annotations

import gc
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from ansible import constants, context
from ansible.errors import AnsibleError, AnsibleValueOmittedError
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import EncryptedString, VaultSecretsContext, get_file_vault_secret
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar
from ansible.utils.context_objects import CLIArgs
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager

from lemonstand.site import files
from lemonstand.site.origins import origin
from lemonstand.site.raw import BECOME_PASSWORDS, PASSWORDS, packed

VAULT_REMEDY = "name the file with the vault's password in ANSIBLE_VAULT_PASSWORD_FILE"


def read(inventory: Path, playbook_dir: Path) -> dict[str, Any]:
    """Reads an inventory.

    Args:
        inventory: its file or directory.
        playbook_dir: where relative paths in lookups start, as they do when the playbooks run.

    Returns:
        As `collect` does.
    """
    # Keys that are there twice are told all at once, with the lines of both (files.py); Ansible would end at the first.
    setting = "ANSIBLE_DUPLICATE_YAML_DICT_KEY"
    before = os.environ.get(setting)
    os.environ[setting] = "ignore"
    try:
        return _read(inventory, playbook_dir)
    finally:
        os.environ.pop(setting)
        if before is not None:
            os.environ[setting] = before


def _read(inventory: Path, playbook_dir: Path) -> dict[str, Any]:
    inventory = inventory.absolute()
    folder = inventory if inventory.is_dir() else inventory.parent
    _find_plugins()
    command_line()
    loader = DataLoader()
    loader.set_basedir(str(playbook_dir))
    try:
        _unlock(loader)
        manager = InventoryManager(loader=loader, sources=[str(inventory)])
    except AnsibleError as error:
        return {**_nothing(folder), "problems": [_problem(error, folder)]}
    variables = VariableManager(loader=loader, inventory=manager)
    return collect(HostVars(manager, variables, loader), playbook_dir)


def _nothing(folder: Path) -> dict[str, Any]:
    return {"folder": str(folder), "hosts": {}, "groups": {}, "problems": [], "strays": []}


def collect(hostvars: HostVars, playbook_dir: Path) -> dict[str, Any]:
    """What an inventory that Ansible has read says, with the places it says it at.

    Args:
        hostvars: Ansible's, of the whole inventory: a `--limit` changes nothing.
        playbook_dir: the playbooks' directory, whose own variables are no part of the site.

    Returns:
        Plain data for `RawSite.from_plain`. Hosts share a value that is the same for all of them.
    """
    # What the class holds has no public name; Ansible's own plugins take it from there as well.
    manager, variables, loader = hostvars._inventory, hostvars._variable_manager, hostvars._loader
    sources = [path for path in (Path(str(source)) for source in manager._sources) if path.exists()]
    folders = [path if path.is_dir() else path.parent for path in sources] or [Path(str(loader.get_basedir()))]
    folder = folders[0]
    result = _nothing(folder)
    problems: list[tuple[str, str, str]] = result["problems"]
    # Without the playbooks' own group_vars: what the site says, whether or not the playbooks say something else after it.
    own_loader = DataLoader()
    own_loader.set_basedir(str(folder))
    own_loader.set_vault_secrets(loader._vault.secrets)
    own_loader._FILE_CACHE = loader._FILE_CACHE  # files are parsed once; the way to a file is its name in it
    own_variables = VariableManager(loader=own_loader, inventory=manager)
    result["groups"] = {
        str(name): [str(host) for host in members]
        for name, members in manager.get_groups_dict().items()
        if name not in {"all", "ungrouped"}
    }
    group_names, host_names = {str(name) for name in manager.groups}, {str(name) for name in manager.hosts}
    told: set[str] = set()
    for source, around in zip(sources, folders, strict=False):
        found = files.look(around, source, sorted(group_names), sorted(host_names), lambda path: _text(own_loader, path))
        problems += [each for each in found.problems if each not in problems]
        told |= found.secrets
        strays = [stray for stray in _strays(around, group_names, host_names) if stray[0] not in found.passed_over]
        result["strays"] += [stray for stray in strays if stray not in result["strays"]]
    values = _Values(told, folder)
    given = sorted(str(name) for name in own_variables.extra_vars)
    for name in sorted(host_names, key=list(manager.hosts).index):
        host = manager.hosts[name]
        try:
            known = variables.get_vars(host=host, include_hostvars=False)
            own = own_variables.get_vars(host=host, include_hostvars=False)
        except AnsibleError as error:
            problem = _problem(error, folder)
            if problem not in problems:
                problems.append(problem)
            continue
        known["hostvars"] = hostvars
        groups = [str(group.name) for group in host.get_groups() if group.name not in {"all", "ungrouped"}]
        templar = Templar(loader=loader, variables=known)
        result["hosts"][name] = {"groups": groups, "given": given, **_host(templar, own, known, playbook_dir, values)}
    problems += [each for each in values.problems if each not in problems]
    return result


class _Values:
    """Values of variables, worked out once for all hosts that have the same one.

    Most of what a site says is the same object for all hosts, since Ansible reads a file once, and most of it holds no template: so a list
    of ten thousand users costs as much for two hundred hosts as for one.

    Args:
        told: variables whose faults are told already.
        folder: named where a value has no place.
    """

    def __init__(self, told: set[str], folder: Path) -> None:
        self.told = told
        self.folder = folder
        self.problems: list[tuple[str, str, str]] = []
        self._shapes: dict[tuple[str, int], _Shape] = {}

    def shape(self, key: object, raw: object) -> _Shape:
        """What there is to know of a variable without a host."""
        name = str(key)
        known = self._shapes.get((name, id(raw)))
        if known is None:
            origins: dict[str, str] = {}
            _collect_origins(raw, "", origins, fallback=origin(key))
            known = self._shapes[name, id(raw)] = _Shape(raw, origins)
            sealed = _sealed_faults(name, raw, origin(key) or str(self.folder))
            self.problems += [each for each in sealed if each not in self.problems]
        return known


class _Shape:
    """A value as it stands in a file: what is the same for every host, and the templates in it."""

    def __init__(self, raw: object, origins: dict[str, str]) -> None:
        self.raw = raw  # kept, so that nothing else gets its identity
        self.origins = origins
        self._holes: list[object] = []
        self._frame = self._frame_of(raw)
        self._filled: dict[str, Any] = {}
        self._opened: dict[int, Any] = {}

    def _frame_of(self, value: object) -> Any:
        if isinstance(value, EncryptedString) or (isinstance(value, str) and any(brace in value for brace in files.BRACES)):
            self._holes.append(value)
            return _Hole(len(self._holes) - 1)
        if isinstance(value, Mapping):
            return {str(key): self._frame_of(item) for key, item in value.items()}
        if isinstance(value, Sequence) and not isinstance(value, str | bytes):
            return [self._frame_of(item) for item in value]
        return _plain(value)

    def value(self, templar: Templar) -> Any:
        """The plain value for a host.

        Raises:
            AnsibleError: a template fails, or a vault can't be opened.
        """
        if not self._holes:
            return self._frame
        found: list[Any] = []
        for number, hole in enumerate(self._holes):
            if isinstance(hole, EncryptedString):
                if number not in self._opened:
                    self._opened[number] = _plain(templar.template(hole))
                found.append(self._opened[number])
                continue
            try:
                found.append(_plain(templar.template(hole)))
            except AnsibleValueOmittedError:  # what is left out changes the frame
                return _plain(templar.template(self.raw))
        key = json.dumps(found)
        if key not in self._filled:
            self._filled[key] = _fill(self._frame, found)
        return self._filled[key]


@dataclass(frozen=True)
class _Hole:
    """Where a template's value goes."""

    number: int


def _fill(frame: Any, found: list[Any]) -> Any:
    if isinstance(frame, _Hole):
        return found[frame.number]
    if isinstance(frame, dict):
        return {key: _fill(item, found) for key, item in frame.items()}
    return [_fill(item, found) for item in frame] if isinstance(frame, list) else frame


def _host(templar: Templar, own: Mapping[str, Any], known: Mapping[str, Any], playbook_dir: Path, shared: _Values) -> dict[str, Any]:
    """The site's own variables of a host, templated among all that is known of it; faults that are told already are left out."""
    values: dict[str, Any] = {}
    origins: dict[str, Mapping[str, str]] = {}
    faulty: dict[str, str] = {}
    shadowed: dict[str, str] = {}
    for key, raw in own.items():
        name = str(key)
        if name in constants.INTERNAL_STATIC_VARS or name.startswith("ansible_"):
            continue
        shape = shared.shape(key, raw)
        origins[name] = shape.origins
        winner = origin(known.get(key))
        if winner.startswith(f"{playbook_dir}/"):
            shadowed[name] = winner
        try:
            values[name] = shape.value(templar)
        except AnsibleError as error:
            place = origin(getattr(error, "obj", None))
            origins[name] = {**shape.origins, "": place} if place else shape.origins
            faulty[name] = "" if name in shared.told else _hidden_reason(error) if files.is_secret(name) else _reason(error)
    return {"values": values, "origins": origins, "faulty": faulty, "shadowed": shadowed, "connection": _connection(templar, own, origins)}


CONNECTION = (
    "ansible_connection", "ansible_host", "ansible_ssh_host", "ansible_port", "ansible_ssh_port", "ansible_ssh_common_args",
    "ansible_ssh_extra_args", "ansible_ssh_args", "ansible_user", "ansible_ssh_user",
)  # fmt: skip
"""How Ansible gets to a host; what else begins with `ansible_` is between it and the user."""


def _connection(templar: Templar, own: Mapping[str, Any], origins: dict[str, Mapping[str, str]]) -> dict[str, str]:
    """What a host's connection variables say, as text; their origins are noted."""
    found = {}
    for key in [key for key in own if str(key) in CONNECTION]:
        try:
            value = templar.template(own[key])
        except AnsibleError:
            continue  # Ansible will say so when it connects, and only the user knows what is meant
        if value is not None:
            found[str(key)] = str(value)
            origins[str(key)] = {"": origin(own[key]) or origin(key)}
    for key in [key for key in own if str(key) in {*PASSWORDS, *BECOME_PASSWORDS}]:
        found[str(key)] = "set"
        origins[str(key)] = {"": origin(own[key]) or origin(key)}
    return found


def _sealed_faults(name: str, raw: object, where: str) -> list[tuple[str, str, str]]:
    """Secrets encrypted one by one that end where they should not: `echo` adds a line's end before the vault closes."""
    faults = []
    waiting: list[tuple[str, object]] = [(name, raw)]
    while waiting:
        at, value = waiting.pop()
        if isinstance(value, Mapping):
            waiting += [(f"{at}.{key}", item) for key, item in value.items()]
        elif isinstance(value, Sequence) and not isinstance(value, str | bytes | EncryptedString):
            waiting += [(f"{at}[{number}]", item) for number, item in enumerate(value)]
        elif isinstance(value, EncryptedString) and (files.is_secret(name) or files.is_secret(at.rpartition(".")[2])):
            try:
                text = str(value)
            except AnsibleError:
                continue  # told when it is templated
            if text != text.strip():
                remedy = "encrypt it without: `printf %s … | ansible-vault encrypt_string`"
                faults.append((f"{at} is a secret that begins or ends with a blank or a line's end", f"{where} ({at})", remedy))
    return faults


def _hidden_reason(error: AnsibleError) -> str:
    """Why a secret can't be worked out, without a word of it."""
    reason = _reason(error)
    return reason if "undecryptable" in reason else "its template fails (what it says is not shown, for it is a secret)"


def command_line() -> None:
    """Lets Ansible take the variables that were given by `-e`: their file is named in LEMONSTAND_EXTRA_VARS (docs/decisions/0024)."""
    named = os.environ.get("LEMONSTAND_EXTRA_VARS")
    if named:
        context.CLIARGS = CLIArgs({"extra_vars": (f"@{named}",)})


@cache
def _find_plugins() -> None:
    """Lets Ansible find lookups and filters by their full names; it may be asked only once in a process."""
    init_plugin_loader()


def _unlock(loader: DataLoader) -> None:
    """Gives the loader the vault passwords the environment or ansible.cfg names."""
    named: list[tuple[str, str]] = []
    for entry in constants.DEFAULT_VAULT_IDENTITY_LIST or []:
        label, _, path = str(entry).rpartition("@")
        named.append((label or constants.DEFAULT_VAULT_IDENTITY, path))
    if constants.DEFAULT_VAULT_PASSWORD_FILE:
        named.append((constants.DEFAULT_VAULT_IDENTITY, str(constants.DEFAULT_VAULT_PASSWORD_FILE)))
    secrets = []
    for label, path in named:
        if path.startswith("prompt"):
            continue  # nobody to ask here; Ansible itself asks during a run
        secret = get_file_vault_secret(filename=path, vault_id=label, loader=loader)
        secret.load()
        secrets.append((label, secret))
    loader.set_vault_secrets(secrets)
    if VaultSecretsContext.current(optional=True) is None:
        VaultSecretsContext.initialize(VaultSecretsContext(secrets))  # values encrypted one by one look there


unlock, find_plugins = _unlock, _find_plugins
"""For those that read a site's other variables."""


def _text(loader: DataLoader, path: Path) -> str:
    """A file's text, opened if it is vaulted.

    Raises:
        ValueError: Ansible can't read it, and says so when it reads the values.
    """
    try:
        return str(loader.get_text_file_contents(str(path)))
    except AnsibleError as error:
        raise ValueError(str(path)) from error


def _strays(folder: Path, groups: set[str], hosts: set[str]) -> list[tuple[str, str]]:
    """Variable files Ansible would pass over in silence."""
    found = []
    for kind, names in (("group_vars", groups), ("host_vars", hosts)):
        for path in sorted((folder / kind).glob("*")):
            stem = (
                path.name
                if path.is_dir()
                else path.name.removesuffix(path.suffix)
                if path.suffix in {".yml", ".yaml", ".json"}
                else path.name
            )
            if not path.name.startswith(".") and stem not in names:
                found.append((str(path), kind))
    return found


def _collect_origins(value: object, way: str, into: dict[str, str], fallback: str) -> None:
    """Notes the place of a value and of all in it; what Ansible doesn't mark (true, nothing) stands where its key does."""
    found = origin(value) or fallback
    if found:
        into[way] = found
    if isinstance(value, str | bytes):
        return
    stem = f"{way}." if way else ""
    if isinstance(value, Mapping):
        for key, item in value.items():
            _collect_origins(item, f"{stem}{key}", into, "" if isinstance(item, str) else origin(key) or found)
    elif isinstance(value, Sequence):
        for position, item in enumerate(value):
            _collect_origins(item, f"{stem}{position}", into, found)


def _plain(value: object) -> Any:
    """The value without Ansible's tags, in types that JSON knows."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    return float(value) if isinstance(value, float) else str(value)


plain = _plain
"""For those that read a site's other variables."""


def _reason(error: AnsibleError) -> str:
    """The heart of Ansible's message: one line, without the repeated causes and the source excerpt."""
    cause = _causes(error)[-1]
    text = str(getattr(cause, "_original_message", "") or getattr(cause, "message", "") or cause).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__


def _problem(error: AnsibleError, folder: Path) -> tuple[str, str, str]:
    """An error of Ansible as (what, where, remedy); of a file that holds secrets nothing is shown."""
    what, where, remedy = _whole_problem(error, folder)
    path = Path(re.sub(r":\d+\Z", "", where))
    try:
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    except OSError:
        text = ""
    return (files.hush(what) if files.holds_secrets(text) else what), where, remedy


def _whole_problem(error: AnsibleError, folder: Path) -> tuple[str, str, str]:
    chain = _causes(error)
    place = next((found for link in chain if (found := origin(getattr(link, "obj", None)))), "") or _told_origin(error)
    if any("vault" in str(link).lower() or "decrypt" in str(link).lower() for link in chain):
        locked = [path for path in sorted(folder.rglob("*.y*ml")) if path.read_bytes().startswith(b"$ANSIBLE_VAULT")]
        return _reason(error), place or ", ".join(str(path) for path in locked) or str(folder), VAULT_REMEDY
    remedy = "correct the file; `ansible-inventory --list -i` on the inventory shows what Ansible reads"
    if not place:
        if not any(path.is_file() for path in folder.iterdir()):
            return "the folder holds no file with hosts", f"{folder}/hosts.yml", "write one; inventories/example shows how"
        broken = _broken_text(folder)
        if broken is not None:
            return broken[1], broken[0], remedy
        place = _told_path(error, folder)
    return _reason(error), place or str(folder), remedy


def _broken_text(folder: Path) -> tuple[str, str] | None:
    """The first of a site's files that is no text or no YAML, for errors of Ansible that name none: (where, what)."""
    for path in sorted(folder.rglob("*.y*ml")):
        try:
            yaml.compose(path.read_bytes().decode("utf-8"), Loader=yaml.SafeLoader)
        except UnicodeDecodeError as fault:
            line = fault.object[: fault.start].count(b"\n") + 1
            return f"{path}:{line}", "this is not UTF-8"
        except yaml.MarkedYAMLError as fault:
            mark = fault.problem_mark or fault.context_mark
            return f"{path}:{mark.line + 1}" if mark else str(path), f"this is not YAML: {fault.problem}"
    return None


def _told_path(error: BaseException, folder: Path) -> str:
    """A file of the site that an error's text names."""
    found = re.search(re.escape(str(folder)) + r"/[^\s'\",:]+", " ".join(str(link) for link in _causes(error)))
    return found.group(0) if found else ""


def _told_origin(error: BaseException) -> str:
    """The origin in the text of the errors behind an error: some of Ansible's wrappers keep nothing else."""
    link: BaseException | None = error
    while link is not None:
        found = re.search(r"^Origin: (/.+?:\d+)", str(getattr(link, "_formatted_source_context", None) or link), re.MULTILINE)
        if found:
            return found.group(1)
        link = link.__cause__ or link.__context__
    return ""


def _causes(error: BaseException) -> list[BaseException]:
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    return chain


def main() -> None:
    """Prints the inventory named on the command line as JSON."""
    os.umask(0o077)
    gc.disable()  # this process ends when it has answered, and what it makes is all in use
    # Ansible and its plugins may say what they like: the answer goes where nothing else is written to.
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    with answer:
        json.dump(packed(read(Path(sys.argv[1]), Path(sys.argv[2]))), answer)


if __name__ == "__main__":
    main()
