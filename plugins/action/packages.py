"""Controller's side of `lemonstand.lemonstand.packages`; plugins/modules/packages.py documents it."""

from __future__ import annotations

import shlex
from typing import Any

from ansible_collections.lemonstand.lemonstand.plugins.plugin_utils.host import HostAction


class ActionModule(HostAction):
    """Asks dpkg, and calls apt only where something is missing: apt takes a second to say that nothing is to be done."""

    def run(self, tmp: object = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """See the documentation of the module."""
        known: dict[str, Any] = task_vars or {}
        result: dict[str, Any] = super().run(tmp, known)
        _, given = self.validate_argument_spec(
            {"names": {"type": "list", "elements": "str", "default": []}, "roles": {"type": "list", "elements": "str", "default": []}}
        )
        wanted = [*given["names"], *(name for role in self.roles(given["roles"], known) for name in role.says("needed", "packages"))]
        names = list(dict.fromkeys(wanted))
        if not names:
            return result | {"changed": False}
        _, out, _ = self.shell(shlex.join(["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *names]) + " 2>/dev/null; true")
        there = {line.split()[0] for line in out.splitlines() if line.endswith(" installed")}
        missing = [name for name in names if name not in there]
        if not missing:
            return result | {"changed": False}
        done = self.ask("install_packages.py", {"names": missing, "check": self.check}, known)
        if "fault" in done:
            return result | {"failed": True, "msg": done["fault"], "stdout": done.get("output", "")}
        installed = sorted(done["changed"])
        if self.shows_differences:
            result["diff"] = {"prepared": "".join(f"+ {name}\n" for name in installed)}
        return result | {"changed": True, "stdout": f"changed: {'would install' if self.check else 'installed'} {' '.join(installed)}"}
