"""Roles as data: what a role says of its packages, files and services, read without playing it.

So that one task can do for several roles what each of them would do for itself: one call of apt-get, one question about all files.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.errors import AnsibleError
from ansible.template import Templar
from ansible_collections.lemonstand.lemonstand.plugins.plugin_utils.manifest import Entry, entries

NAME = re.compile(r"\b[A-Za-z_]\w*")
OTHERS = frozenset({"hostvars", "vars"})
"""Variables that stand for all variables there are."""


class Role:
    """One role on one host.

    Args:
        folder: the role's.
        templar: knows the play's variables of the host; they go before the role's defaults, as in a play.
        loader: reads files.
    """

    def __init__(self, folder: Path, templar: Templar, loader: Any) -> None:
        self.name = folder.name
        self.folder = folder
        self._loader = loader
        self._own = self._read("vars")
        search = {"role_path": str(folder), "ansible_search_path": [str(folder)]}
        known = {**self._read("defaults"), **templar.available_variables, **self._own, **search}
        self._templar = templar.copy_with_new_env(available_variables=known)
        self._resolved: set[str] = set()

    def says(self, *names: str) -> list[Any]:
        """The first of these private lists that the role has (`packages` is `__ROLE_packages`); none: empty."""
        for name in names:
            if (full := f"__{self.name}_{name}") in self._own:
                self._resolve(self._own[full])
                found: list[Any] = self._templar.template(self._own[full])
                return found
        return []

    def setting(self, name: str) -> Any:
        """One of its variables (`days` of the role `certificates` is `certificates_days`), as it holds for the host."""
        return self._templar.template(self._templar.available_variables[f"{self.name}_{name}"])

    def entries(self, name: str = "files") -> list[Entry]:
        """What it writes, or by the name `made` what is made on the host."""
        for path in self.folder.glob("templates/**/*.j2"):
            self._resolve(f"{{{{ {path.read_text(encoding='utf-8')}")
        return entries(self.says(name), self.find, self._templar, self._loader)

    def _read(self, part: str) -> Mapping[str, Any]:
        path = self.folder / part / "main.yml"
        found: Mapping[str, Any] = self._loader.load_from_file(str(path), trusted_as_template=True) if path.exists() else {}
        return found or {}

    def _resolve(self, value: object) -> None:
        """Works out, once, the variables a value needs that are the role's own or private to the play (`__…`).

        Ansible works a variable out again wherever it is named: a list of rules for each template, loop and condition, and all that it is
        made of with it. What cannot be worked out yet stays a template: perhaps nobody asks for it.
        """
        variables = self._templar.available_variables
        for name in _names(value):
            if name in self._resolved or name not in variables or name in OTHERS:
                continue
            self._resolved.add(name)
            self._resolve(variables[name])
            if name.startswith(("__", f"{self.name}_")):
                with contextlib.suppress(AnsibleError):
                    variables[name] = self._templar.template(variables[name])

    def find(self, kind: str, name: str) -> str:
        """A file of the role's by its folder (`files`, `templates`) and name."""
        path = self.folder / kind / name
        if not path.is_file():
            raise AnsibleError(f"role {self.name} has no {kind}/{name}; its vars/main.yml names it")
        return str(path)


def _names(value: object) -> Iterator[str]:
    """The words in the templates of a value; names of variables are among them."""
    if isinstance(value, str):
        if "{{" in value or "{%" in value:
            yield from NAME.findall(value)
    elif isinstance(value, dict):  # and not what stands for other hosts (`hostvars`)
        for each in value.values():
            yield from _names(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _names(each)


def roles(names: Iterable[str], playbooks: str, templar: Templar, loader: Any) -> list[Role]:
    """Roles by name, looked for where Ansible looks (`roles_path`), and beside the collection's plugins and playbooks.

    Args:
        names: of roles of this collection.
        playbooks: directory of the play.
        templar: knows the play's variables.
        loader: reads files.

    Raises:
        AnsibleError: there is no such role.
    """
    places = [Path(place) for place in constants.DEFAULT_ROLES_PATH]
    places += [Path(__file__).resolve().parents[2] / "roles", Path(playbooks).parent / "roles"]
    found = []
    for name in names:
        folder = next((place / name for place in places if (place / name / "vars").is_dir()), None)
        if folder is None:
            raise AnsibleError(f"there is no role {name} in {', '.join(map(str, places))}")
        found.append(Role(folder, templar, loader))
    return found
