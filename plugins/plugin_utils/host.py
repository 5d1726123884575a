"""How actions of this collection speak to a host: one program over the open connection, its question on standard input.

A module of Ansible's is packed into an archive, sent, unpacked and imported for every task: 25 times what the trip itself costs. These
actions send the text of one small program of Python's standard library instead (`on_host/`), or a line for the shell. Nothing is put on
the host for it, and the question, which may hold secrets, is no argument of any process.
"""

from __future__ import annotations

import base64
import json
import shlex
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.lemonstand.lemonstand.plugins.plugin_utils.roles import Role, roles

PYTHON = "/usr/bin/python3"
"""Where Debian has it; `ansible_python_interpreter` names another."""
ON_HOST = Path(__file__).with_name("on_host")


@lru_cache
def program(name: str) -> str:
    """The text of a program of ours."""
    return (ON_HOST / name).read_text(encoding="utf-8")


def call(text: str, entry: str, order: Any) -> str:
    """A program with the call of one of its functions at the end.

    Args:
        text: the program.
        entry: name of a function that takes an order, base64 of JSON, and returns the exit status.
        order: what JSON can hold; anything else (a vault's text) as its string.
    """
    packed = base64.b64encode(json.dumps(order, default=str).encode()).decode("ascii")
    return f'{text}\nraise SystemExit({entry}("{packed}"))\n'


def said(out: str) -> dict[str, Any]:
    """Whether a program changed something, by what it printed: lines `changed: …`, or JSON with a list `changed`."""
    try:
        answer = json.loads(out)
    except ValueError:
        answer = None
    if isinstance(answer, dict):
        return {"changed": bool(answer.get("changed")), "answer": answer}
    return {"changed": any(line.startswith("changed:") for line in out.splitlines())}


class HostAction(ActionBase):  # type: ignore[misc] # Ansible has no types
    """What the actions of this collection share."""

    TRANSFERS_FILES = False

    def __init_subclass__(cls, **given: Any) -> None:
        """Each action of ours counts, for the run, whether it changed the host: a fact `lemonstand_changes` (record 0038)."""
        super().__init_subclass__(**given)
        own = cls.run

        @wraps(own)
        def counted(self: HostAction, tmp: object = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
            result: dict[str, Any] = own(self, tmp, task_vars)
            if result.get("changed"):
                before = ((task_vars or {}).get("ansible_facts") or {}).get("lemonstand_changes", 0)
                result["ansible_facts"] = {**result.get("ansible_facts", {}), "lemonstand_changes": int(before) + 1}
            return result

        cls.run = counted

    _supports_check_mode = True
    _supports_diff = True

    @property
    def check(self) -> bool:
        """Whether nothing may be changed. A task that says `check_mode` for itself is heard."""
        return bool(self._task.check_mode)

    @property
    def shows_differences(self) -> bool:
        """Whether differences are wanted and may be shown."""
        return bool(self._task.diff) and not self._task.no_log

    def shell(self, line: str, text: str | None = None) -> tuple[int, str, str]:
        """Runs a line of the shell on the host, as the task's `become` says.

        Args:
            line: the line; no secrets.
            text: its standard input.

        Returns:
            Exit status, standard output, standard error.
        """
        if text is not None and not self._connection.has_pipelining:
            raise AnsibleActionFail(f"the connection '{self._connection.transport}' hands no standard input on: use ssh")
        given = None if text is None else text.encode("utf-8")
        found = self._low_level_execute_command(line, in_data=given, sudoable=True)
        return int(found["rc"]), str(found["stdout"]).rstrip("\r\n"), str(found["stderr"]).rstrip("\r\n")

    def python(self, text: str, task_vars: dict[str, Any]) -> tuple[int, str, str]:
        """Runs a program of Python's standard library on the host; see `shell`."""
        named = str(task_vars.get("ansible_python_interpreter") or PYTHON)
        # `auto` and its like would look for one: on what these roles know there is one.
        interpreter = named if named.startswith("/") else PYTHON
        return self.shell(f"{shlex.quote(interpreter)} -I -", text)

    def roles(self, names: list[str], known: dict[str, Any]) -> list[Role]:
        """Roles as data (`plugin_utils/roles.py`)."""
        return roles(names, str(known["playbook_dir"]), self._templar, self._loader)

    def tools(self, calls: list[list[str]]) -> dict[str, Any]:
        """Runs programs that roles have put on the host, one after the other, until one fails; all in one trip.

        Each understands `--check`, and says what it did, or would do, in lines that begin with `changed: `. In check mode one may not be
        there: the first check run of an empty host comes before the role that brings it. This is the one place that allows for it.

        Args:
            calls: program and arguments of each; no secrets.

        Returns:
            `changed`, `rc`, `stdout`, `stderr`.
        """
        lines = []
        for words in calls:
            line = shlex.join(words + (["--check"] if self.check else []))
            if self.check:
                missing = shlex.quote(f"changed: would run {shlex.join(words[:2])}, which is not there yet")
                line = f"if [ -x {shlex.quote(words[0])} ]; then {line}; else echo {missing}; fi"
            lines.append(line)
        status, out, err = self.shell(" && ".join(f"{{ {line}; }}" for line in lines))
        return {**said(out), "rc": status, "stdout": out, "stderr": err}

    def program(self, text: str, entry: str, order: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Runs a program on the host with an order, to which `check` is added.

        Returns:
            `changed`, `rc`, `stdout`, `stderr`, and `answer` if it printed JSON.
        """
        status, out, err = self.python(call(text, entry, {"check": self.check, **order}), task_vars)
        return {**said(out), "rc": status, "stdout": out, "stderr": err}

    def ask(self, name: str, order: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Asks the host by a program of `on_host/`.

        Raises:
            AnsibleActionFail: the program failed, or Python is not there.
        """
        status, out, err = self.python(call(program(name), "main_encoded", order), task_vars)
        try:
            if status != 0:
                raise ValueError
            # A login shell of the host's may have said something before.
            answer: dict[str, Any] = json.loads(out.splitlines()[-1])
        except (ValueError, IndexError):
            raise AnsibleActionFail(f"{name} failed on the host (exit {status}): {(err or out).strip()[-2000:]}") from None
        return answer


__all__ = ["AnsibleActionFail", "HostAction", "call", "said"]
