"""Controller's side of `lemonstand.lemonstand.program`; plugins/modules/program.py documents it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible_collections.lemonstand.lemonstand.plugins.plugin_utils.host import HostAction

LONGEST = 4000
"""Letters of a complaint; of a longer one the last line is enough."""


class ActionModule(HostAction):
    """Sends a program of the role's and its order over standard input."""

    def run(self, tmp: object = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """See the documentation of the module."""
        known: dict[str, Any] = task_vars or {}
        result: dict[str, Any] = super().run(tmp, known)
        _, given = self.validate_argument_spec(
            {"src": {"required": True}, "entry": {"default": "main_encoded"}, "order": {"type": "dict", "default": {}}}
        )
        text = Path(self._find_needle("files", given["src"])).read_text(encoding="utf-8")
        done = self.program(text, given["entry"], given["order"], known)
        result.update(done, stdout_lines=done["stdout"].splitlines())
        if done["rc"] != 0:
            words = (done["stderr"] or done["stdout"]).strip().removeprefix("error: ") or f"exit status {done['rc']}"
            result.update(failed=True, msg=words if len(words) < LONGEST else words.splitlines()[-1])
        return result
