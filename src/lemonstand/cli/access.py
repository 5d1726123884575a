"""Passwords and variables of one command: options that mean what they mean to Ansible, in every command (docs/decisions/0024).

What was typed is kept in memory of this process only; programs it starts read it below /proc, as long as it lives.
"""

from __future__ import annotations

import json
import os
import re
import select
import stat
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from lemonstand.deploy.run import EXTRA_VARS, SECRET_NAME
from lemonstand.errors import InputError
from lemonstand.paths import data_dir
from lemonstand.surroundings import environment
from lemonstand.survey import read_text, shown

READ_SECONDS = 60
PIPE_SECONDS = 30
"""How long a pipe (`<(pass show sudo)`) may take to say a password: somebody may have to unlock a key first."""
MOST_OCTETS = 2**20


@dataclass(frozen=True)
class Access:
    """What was given to reach the hosts and to read the inventory.

    Args:
        env: variables for programs of ours.
        options: the options as they were typed, for a command to repeat; what looks like a secret is left out.
    """

    env: dict[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()


def access_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options; `take` makes an `Access` of their values."""
    for option in (
        click.option(
            "-e", "--extra-vars", "extra_vars", multiple=True, metavar="VARS", help="Variables of this command: NAME=VALUE, YAML or @FILE."
        ),
        click.option("--vault-id", "vault_ids", multiple=True, metavar="ID", help="A vault's password: LABEL@FILE or LABEL@prompt."),
        click.option(
            "--vault-password-file",
            "--vault-pass-file",
            "vault_files",
            multiple=True,
            metavar="FILE",
            help="A file with the vault's password.",
        ),
        click.option("-J", "--ask-vault-pass", "--ask-vault-password", "ask_vault", is_flag=True, help="Ask for the vault's password."),
        click.option(
            "--become-password-file",
            "--become-pass-file",
            "become_file",
            metavar="FILE",
            help="A file with the password sudo wants on hosts.",
        ),
        click.option(
            "-K", "--ask-become-pass", "--ask-become-password", "ask_become", is_flag=True, help="Ask for sudo's password on hosts."
        ),
    ):
        command = option(command)
    return command


NAMES = ("extra_vars", "vault_ids", "vault_files", "ask_vault", "become_file", "ask_become")


def take(given: dict[str, Any]) -> Access:
    """Takes the options' values out of a command's arguments and makes an `Access` of them.

    Raises:
        InputError: a file can't be read, variables are none, or there is nobody to ask.
    """
    extra_vars, vault_ids, vault_files, ask_vault, become_file, ask_become = (given.pop(name, None) for name in NAMES)
    env: dict[str, str] = {}
    options = [*_sudo(env, become_file, asked=ask_become), *_vault(env, vault_files or (), vault_ids or (), asked=ask_vault)]
    if extra_vars:
        env[EXTRA_VARS] = held(json.dumps(_variables(extra_vars, env)))
        options += [word for text in extra_vars for word in ("-e", text if text.startswith("@") or not SECRET_NAME.search(text) else "…")]
    return Access(env, tuple(options))


def _sudo(env: dict[str, str], file: str | None, *, asked: bool) -> list[str]:
    """Notes where sudo's password is read; the options that say so."""
    name = "ANSIBLE_BECOME_PASSWORD_FILE"
    if asked and file:
        raise InputError("sudo's password is given twice", "--ask-become-pass, --become-password-file", "leave one of them out")
    if asked:
        env[name] = held(_ask("Password for sudo on the hosts"))
        return ["--ask-become-pass"]
    if file:
        env[name] = _file(file, "--become-password-file")
        return ["--become-password-file", file]
    if os.environ.get("ANSIBLE_BECOME_PASS"):
        env[name] = held(os.environ["ANSIBLE_BECOME_PASS"])
    elif os.environ.get(name):
        env[name] = _file(os.environ[name], name)
    return []


def _vault(env: dict[str, str], files: Sequence[str], ids: Sequence[str], *, asked: bool) -> list[str]:
    """Notes where the vault's passwords are read; the options that say so."""
    options: list[str] = []
    identities: list[str] = []
    own = os.environ.get("ANSIBLE_VAULT_IDENTITY_LIST", "")
    if asked:
        identities.append(f"default@{held(_ask('Password of the vault'))}")
        options.append("--ask-vault-pass")
    for path in files:
        identities.append(f"default@{_file(path, '--vault-password-file')}")
        options += ["--vault-password-file", path]
    for word in ids:
        identities.append(_identity(word, "--vault-id"))
        options += ["--vault-id", word]
    if own and (identities or "prompt" in own):
        identities += [_identity(word.strip(), "ANSIBLE_VAULT_IDENTITY_LIST") for word in own.split(",") if word.strip()]
    if identities:
        env["ANSIBLE_VAULT_IDENTITY_LIST"] = ",".join(identities)
    elif os.environ.get("ANSIBLE_VAULT_PASSWORD_FILE"):
        env["ANSIBLE_VAULT_PASSWORD_FILE"] = _file(os.environ["ANSIBLE_VAULT_PASSWORD_FILE"], "ANSIBLE_VAULT_PASSWORD_FILE")
    return options


def held(text: str) -> str:
    """Keeps a text in memory of this process and returns the path at which its children read it."""
    handle = os.memfd_create("lemonstand", os.MFD_CLOEXEC)
    os.fchmod(handle, 0o600)
    os.write(handle, text.encode())
    return f"/proc/{os.getpid()}/fd/{handle}"


def _ask(what: str) -> str:
    if not sys.stdin.isatty():
        raise InputError(
            f"there is no terminal to ask at: {what.lower()}", "stdin", "name a file with it: --become-password-file, --vault-password-file"
        )
    return str(click.prompt(what, hide_input=True, err=True))


def _identity(word: str, where: str) -> str:
    """`LABEL@FILE` or `FILE`, with a file that can be read from anywhere and more than once."""
    label, _, path = word.rpartition("@")
    if path.startswith("prompt"):
        return f"{label or 'default'}@{held(_ask(f'Password of the vault {label}'.strip()))}"
    return f"{label or 'default'}@{_file(path, where)}"


def _file(name: str, where: str) -> str:
    """A password file, or a program that prints one, as an absolute path; what can be read only once is read now.

    Raises:
        InputError: it can't be read, or is empty.
    """
    path = Path(name).expanduser().absolute()
    try:
        found = path.stat()
    except OSError as fault:
        raise InputError(f"this password file can't be read: {fault.strerror}", f"{where} {shown(name)}", "name another one") from None
    if stat.S_ISFIFO(found.st_mode):
        return held(_from_pipe(path, f"{where} {shown(name)}"))
    if not stat.S_ISREG(found.st_mode):
        raise InputError("this is no file with a password", f"{where} {shown(name)}", "name a file, or a program that prints it")
    if not os.access(path, os.X_OK) and not read_text(path).strip():
        raise InputError("this password file is empty", f"{where} {shown(name)}", "write the password into it")
    return str(path)


def _from_pipe(path: Path, where: str) -> str:
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    poll = select.poll()
    poll.register(handle, select.POLLIN | select.POLLHUP)
    text = b""
    with os.fdopen(handle, "rb", buffering=0) as stream:
        while len(text) < MOST_OCTETS:
            ready = poll.poll(PIPE_SECONDS * 1000)
            if not ready:
                break
            more = stream.read(65536)
            if not more:
                break
            text += more
    if not text.strip():
        raise InputError("no password came out of this pipe", where, "see what should write to it")
    return text.decode("utf-8", "replace").strip("\r\n")


def _variables(texts: Sequence[str], env: dict[str, str]) -> dict[str, Any]:
    """What `-e` says, as Ansible reads it.

    Raises:
        InputError: it says nothing that Ansible understands.
    """
    words = []
    for text in texts:
        if text.startswith("@"):
            path = Path(text[1:]).expanduser().absolute()
            read_text(path)
            words.append(f"@{path}")
        else:
            words.append(text)
    program = "import sys; from lemonstand.cli import access; access.main()"
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], input=json.dumps(words), check=False, capture_output=True, text=True, encoding="utf-8",
        errors="replace", timeout=READ_SECONDS, env=environment({"ANSIBLE_CONFIG": str(data_dir("ansible.cfg")), **env}),
    )  # fmt: skip
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"these are no variables: {shown(said)}", "-e", "write NAME=VALUE, YAML in quotes, or @FILE")
    found: dict[str, Any] = json.loads(done.stdout)
    for name in found:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise InputError(f"'{shown(name)}' can't name a variable", "-e", "use letters, digits and _")
    return found


def main() -> None:
    """In a process of its own: prints the variables of the `-e` on standard input, as Ansible reads them, as JSON."""
    from ansible import context  # noqa: PLC0415 - reads its configuration when it is imported
    from ansible.errors import AnsibleError  # noqa: PLC0415
    from ansible.parsing.dataloader import DataLoader  # noqa: PLC0415
    from ansible.utils.context_objects import CLIArgs  # noqa: PLC0415
    from ansible.utils.vars import load_extra_vars  # noqa: PLC0415

    from lemonstand.site.reader import plain, unlock  # noqa: PLC0415

    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        loader = DataLoader()
        unlock(loader)
        context.CLIARGS = CLIArgs({"extra_vars": tuple(json.load(sys.stdin))})
        found = plain(load_extra_vars(loader))
    except AnsibleError as fault:
        sys.exit(" ".join(str(fault).split())[:300])
    with answer:
        json.dump(found, answer)
