"""Controller's side of `lemonstand.lemonstand.activate`; plugins/modules/activate.py documents it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible_collections.lemonstand.lemonstand.plugins.plugin_utils.host import AnsibleActionFail, HostAction

CONVERGE = "/usr/local/lib/lemonstand/converge-service"
"""Put there by the role `base`."""
WAITS = re.compile("^(changed|unconfirmed):", re.MULTILINE)
"""What a program says where something waits to be confirmed."""
TEXTS = {"type": "list", "elements": "str"}
STEP = {
    "unit": {"type": "str"}, "off": {"type": "str"}, "restart": TEXTS, "reload": TEXTS, "also": TEXTS,
    "tool": TEXTS, "confirm": TEXTS, "program": {"type": "str"},
    "order": {"type": "dict"},
}  # fmt: skip
KINDS = ("unit", "off", "tool", "program")
Step = dict[str, Any]


class ActionModule(HostAction):
    """Takes the steps one after the other, in as few trips as their order allows."""

    def run(self, tmp: object = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """See the documentation of the module."""
        known: dict[str, Any] = task_vars or {}
        result: dict[str, Any] = super().run(tmp, known)
        _, given = self.validate_argument_spec(
            {
                "steps": {"type": "list", "elements": "dict", "default": [], "options": STEP},
                "roles": {"type": "list", "elements": "str", "default": []},
                "only": {"default": ""},
            }
        )
        steps = [(step, self._own) for step in given["steps"]]
        for role in self.roles(given["roles"], known):
            steps += [(step, role.find) for step in role.says("steps")]
        if given["only"]:
            steps = [(step, find) for step, find in steps if step.get("unit") and any(_below(step, given["only"]).values())]
            steps = [({"tool": _renewed(step, given["only"])}, find) for step, find in steps]
        result.update(changed=False, rc=0)
        printed: list[str] = []
        for done in self._trips(steps, known):
            printed += [done["stdout"]] if done["stdout"] else []
            result.update(changed=result["changed"] or done["changed"], rc=done["rc"], stderr=done["stderr"])
            if done["rc"] != 0:
                words = (done["stderr"] or done["stdout"]).strip().splitlines() or [f"exit status {done['rc']}"]
                result.update(failed=True, msg=words[0].removeprefix("error: "))
                break
        return result | {"stdout": "\n".join(printed)}

    def _own(self, kind: str, name: str) -> str:
        return str(self._find_needle(kind, name))

    def _trips(self, steps: list[tuple[Step, Any]], known: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """What each trip to the host brought."""
        calls: list[list[str]] = []
        for step, find in steps:
            kind = [key for key in KINDS if step.get(key)]
            if len(kind) != 1:
                raise AnsibleActionFail(f"a step is one of {', '.join(KINDS)}; this one is {' and '.join(kind) or 'none'}: {step}")
            if kind == ["program"]:
                if calls:
                    yield self.tools(calls)
                    calls = []
                text = Path(find("files", step["program"])).read_text(encoding="utf-8")
                yield self.program(text, "main_encoded", step.get("order") or {}, known)
                continue
            calls.append(_call(kind[0], step))
            if step.get("confirm"):
                done = self.tools(calls)
                calls = []
                yield done
                if not self.check and done["rc"] == 0 and WAITS.search(done["stdout"]):
                    # The connection that is open survives bad rules; only a new one shows that the controller can still come in.
                    self._connection.reset()
                    yield {**self.tools([step["confirm"]]), "changed": False}
        if calls:
            yield self.tools(calls)


def _call(kind: str, step: Step) -> list[str]:
    """The program a step runs, with its arguments."""
    if kind == "off":
        return [CONVERGE, step["off"], "--off"]
    return _converge(step) if kind == "unit" else list(step["tool"])


def _below(step: Step, folder: str) -> dict[str, list[str]]:
    """The files of a unit that lie in a folder, by what is done when they change."""
    return {kind: [path for path in step.get(kind) or [] if path.startswith(folder)] for kind in ("reload", "restart")}


def _renewed(step: Step, folder: str) -> list[str]:
    """The call that brings a unit to its files in a folder, and leaves its others for who brings it to all."""
    found = _below(step, folder)
    words = [CONVERGE, step["unit"]]
    words += ["--renewed", *found["reload"]] if found["reload"] else []
    return words + (["--renewed-restart", *found["restart"]] if found["restart"] else [])


def _converge(step: Step) -> list[str]:
    """The call that brings a unit to its files."""
    words = [CONVERGE, step["unit"], "--enable"]
    for key in ("restart", "reload", "also"):
        words += [f"--{key}", *step[key]] if step.get(key) else []
    return words
