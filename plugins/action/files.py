"""Controller's side of `lemonstand.lemonstand.files`; plugins/modules/files.py documents it."""

from __future__ import annotations

from typing import Any

from ansible_collections.lemonstand.lemonstand.plugins.plugin_utils.host import HostAction
from ansible_collections.lemonstand.lemonstand.plugins.plugin_utils.manifest import Entry, entries

HIDDEN = "[not shown: it may hold secrets]\n"


class ActionModule(HostAction):
    """Asks once about all files of a role, then sends what differs."""

    def run(self, tmp: object = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """See the documentation of the module."""
        known: dict[str, Any] = task_vars or {}
        result: dict[str, Any] = super().run(tmp, known)
        _, given = self.validate_argument_spec(
            {
                "files": {"type": "list", "elements": "dict", "default": []},
                "roles": {"type": "list", "elements": "str", "default": []},
                "accounts": {
                    "type": "list",
                    "elements": "dict",
                    "default": [],
                    "options": {"name": {"required": True}, "home": {"required": True}, "comment": {"default": ""}, "shell": {}},
                },
            }
        )
        wanted = entries(given["files"], self._find_needle, self._templar, self._loader)
        accounts = list(given["accounts"])
        for role in self.roles(given["roles"], known):
            wanted += role.entries()
            accounts += role.says("accounts")
        # Two roles may name the same directory; the last word counts, as it would if each wrote for itself.
        wanted = list({entry.path: entry for entry in wanted}.values())
        question: dict[str, Any] = {"accounts": accounts, "diff": self.shows_differences, "write": False}
        found = self.ask("hold_files.py", {**question, "entries": [entry.question() for entry in wanted]}, known)
        by_path = {entry.path: entry for entry in wanted}
        missing = [name for name, numbers in found["accounts"].items() if numbers is None]
        differing, stale = {each["path"]: each for each in found["differing"]}, found["stale"]
        result.update(changed=bool(missing or differing or stale), accounts=found["accounts"])
        if not result["changed"]:
            return result
        if self.shows_differences:
            result["diff"] = [self._difference(by_path[path], each) for path, each in differing.items()]
            result["diff"] += [{"prepared": f"- {path}\n"} for path in stale]
        word = "would " if self.check else ""
        lines = {f"user {name}": f"changed: {word}make the user {name}" for name in missing}
        for path, each in differing.items():
            deed = "remove" if by_path[path].state == "absent" else "write"
            lines[path] = f"changed: {word}{deed} {path} ({', '.join(each['what'])})"
        lines |= {path: f"changed: {word}remove {path}" for path in stale}
        result["stdout"] = "\n".join(lines.values())
        if self.check:
            return result
        # In the order of the role; an entry with stale files in it goes along.
        sent = [entry.order() for entry in wanted if entry.path in differing or entry.only is not None]
        done = self.ask("hold_files.py", {"accounts": accounts, "entries": sent, "write": True}, known)
        result.update(accounts=done["accounts"], changed=bool(done["changed"]))
        result["stdout"] = "\n".join(lines.get(path, f"changed: {path}") for path in done["changed"])
        if done["faults"]:
            result.update(failed=True, msg="\n".join(done["faults"]))
        return result

    @staticmethod
    def _difference(entry: Entry, found: dict[str, Any]) -> dict[str, Any]:
        """What `--diff` shows of one file: its text, or its owner, group and mode."""
        shown: dict[str, Any] = {"before_header": entry.path, "after_header": entry.path}
        if entry.state == "file" and {"content", "absent", "type"} & set(found["what"]):
            hidden = entry.secret or found["text"] is None
            return {**shown, "before": "" if hidden else found["text"], "after": HIDDEN if hidden else entry.text}
        wanted = {"owner": entry.owner, "group": entry.group, "mode": entry.mode}
        if entry.state != "file" or not found["before"]:
            wanted = {"state": entry.state, **({} if entry.state == "absent" else wanted)}
        return {**shown, "before": {**found["before"], "path": entry.path}, "after": {**wanted, "path": entry.path}}
