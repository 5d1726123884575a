"""What a host should hold: one entry a file or directory, with its text's SHA-256, owner, group and mode.

A role names its files in `__ROLE_files` (`vars/main.yml`). The action plugin `files` writes from the entries made here; whoever wants to
know what lies on a host as it should makes the same entries on the controller, without the host (`lemonstand.deploy.manifest`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.template import Templar, trust_as_template

STATES = ("file", "directory", "absent")
KEYS = frozenset(
    {
        "path", "state", "template", "copy", "content", "vars", "owner", "group", "mode", "validate", "in_place", "secret", "only",
        "during_run", "made_by",
    }
)  # fmt: skip
MANAGED = "Ansible managed"
"""What `{{ ansible_managed }}` says where the site does not say anything else."""

Find = Callable[[str, str], str]
"""Where a file of the role's lies: by the folder (`templates`, `files`) and its name there."""


@dataclass(frozen=True)
class Entry:
    """One file or directory of a host.

    Args:
        path: where it is.
        state: `file`, `directory`, or `absent`: there is to be nothing.
        owner, group: names.
        mode: octal digits.
        text: of a file.
        validate: command that must take the text before it replaces the old one; `%s` stands for a file with it.
        in_place: it may be a mount of its own, which nothing can take the place of: then it is overwritten.
        secret: its text is never shown.
        only: of a directory: the names of the files that may be in it; others are removed. None: any.
        during_run: what the text follows beside the inventory: something that is known only while Ansible runs. Empty: nothing.
        made_by: what makes it on the host, where the text is never known on the controller; then nobody writes it from here.
    """

    path: str
    state: str = "file"
    owner: str = "root"
    group: str = "root"
    mode: str = "0644"
    text: str | None = field(default=None, repr=False)
    validate: str = ""
    in_place: bool = False
    secret: bool = False
    only: tuple[str, ...] | None = None
    during_run: str = ""
    made_by: str = ""

    @property
    def sha256(self) -> str | None:
        """Of the text as it lies on disk (UTF-8), in hexadecimal digits; None of what is no file."""
        return None if self.text is None else hashlib.sha256(self.text.encode()).hexdigest()

    def question(self) -> dict[str, Any]:
        """What a host is asked: is it so? Without the text."""
        asked: dict[str, Any] = {"path": self.path, "state": self.state, "owner": self.owner, "group": self.group, "mode": self.mode}
        asked |= {"sha256": self.sha256, "secret": self.secret}
        return asked if self.only is None else {**asked, "only": list(self.only)}

    def order(self) -> dict[str, Any]:
        """What a host is told to hold."""
        return {**self.question(), "text": self.text, "validate": self.validate, "in_place": self.in_place}

    def as_dict(self) -> dict[str, Any]:
        """The entry for those who compare hosts with it; the hash is null where the text is not known without a host."""
        found: dict[str, Any] = {"path": self.path, "state": self.state, "owner": self.owner, "group": self.group, "mode": self.mode}
        if self.state == "file":
            found["sha256"] = None if self.during_run else self.sha256
        return found | {key: why for key, why in (("during_run", self.during_run), ("made_by", self.made_by)) if why}


def entries(files: Iterable[Mapping[str, Any]], find: Find, templar: Templar, loader: Any) -> list[Entry]:
    """Entries of what a role names.

    Args:
        files: `path` and whatever differs from the usual: `state`, `owner`, `group`, `mode` (0644, of directories 0755),
            `validate`, `in_place`, `secret`, `only`, `during_run`, `made_by`; the text from `content`, from `copy` (a name in `files/`,
            as it is) or from `template` (a name in `templates/`; the path with `.j2` where nothing is said), with `vars` beside the
            play's variables.
        find: finds files of the role.
        templar: knows the play's variables.
        loader: reads files.

    Raises:
        AnsibleError: an entry is wrong, or a template cannot be rendered.
    """
    return [_entry(each, find, templar, loader) for each in files]


def _entry(given: Mapping[str, Any], find: Find, templar: Templar, loader: Any) -> Entry:
    path, state = str(given.get("path", "")), str(given.get("state", "file"))
    if unknown := set(given) - KEYS:
        raise AnsibleError(f"{path}: unknown: {', '.join(sorted(unknown))}; known: {', '.join(sorted(KEYS))}")
    if not path.startswith("/") or state not in STATES:
        raise AnsibleError(f"{path or 'an entry'}: `path` is absolute, `state` one of {', '.join(STATES)}")
    mode = given.get("mode", "0755" if state == "directory" else "0644")
    if not isinstance(mode, str):
        raise AnsibleError(f"{path}: `mode` is text, such as '0640': {mode} would be read as a decimal number")
    only = given.get("only")
    return Entry(
        path=path,
        state=state,
        owner=str(given.get("owner", "root")),
        group=str(given.get("group", "root")),
        mode=f"{int(mode, 8):04o}",
        text=_text(given, path, find, templar, loader) if state == "file" and not given.get("made_by") else None,
        validate=str(given.get("validate", "")),
        in_place=bool(given.get("in_place", False)),
        secret=bool(given.get("secret", False)),
        only=None if only is None else tuple(str(name) for name in only),
        during_run=str(given.get("during_run", "")),
        made_by=str(given.get("made_by", "")),
    )


def _text(given: Mapping[str, Any], path: str, find: Find, templar: Templar, loader: Any) -> str:
    if "content" in given:
        return str(given["content"])
    if "copy" in given:
        return Path(find("files", str(given["copy"]))).read_text(encoding="utf-8")
    return render(find("templates", str(given.get("template", f"{path[1:]}.j2"))), templar, loader, given.get("vars") or {})


def render(source: str, templar: Templar, loader: Any, more: Mapping[str, Any]) -> str:
    """The text a template makes.

    Unlike Ansible's own action and lookup it does not copy all variables of the play for every file.

    Args:
        source: the template's path.
        templar: knows the play's variables.
        loader: reads files.
        more: variables beside those.
    """
    variables = templar.available_variables
    extra = dict(more)
    if "ansible_managed" not in variables:
        extra["ansible_managed"] = MANAGED
    known = {**variables, **extra} if extra else variables
    own = templar.copy_with_new_env(searchpath=[str(Path(source).parent)], available_variables=known)
    text = trust_as_template(loader.get_text_file_contents(source))
    made = own.template(text, escape_backslashes=False, overrides={"trim_blocks": True})
    if not isinstance(made, str):
        raise AnsibleError(f"{source}: a template makes text, this one makes a value of type {type(made).__name__}")
    return str(made)
