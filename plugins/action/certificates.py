"""Controller's side of `lemonstand.lemonstand.certificates`; plugins/modules/certificates.py documents it."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

# Loaded here and not by the signer alone: Ansible reads this file once, before it makes a process for each task.
import cryptography.x509  # noqa: F401
from ansible_collections.lemonstand.lemonstand.plugins.plugin_utils.host import AnsibleActionFail, HostAction, call
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: F401

SIGNER, PROGRAM = "sign_certificates.py", "certificate_host.py"
TEXTS = {"type": "list", "elements": "str", "default": []}
SETTINGS = {
    "requests": {"type": "list", "elements": "dict", "default": []},
    "trusted_cas": TEXTS,
    "files": {"type": "dict", "default": {}},
    "renewed_on_host": TEXTS,
    "renew_now": {"type": "bool", "default": False},
    "new_keys": {"type": "bool", "default": False},
    "only_due": {"type": "bool", "default": False},
    "pki_dir": {"required": True},
    "signer_command": TEXTS,
    "ca_label": {"required": True},
    "ca_name_constraints": {"type": "dict", "default": {}},
    "ca_days": {"type": "int", "required": True},
    "days": {"type": "float", "required": True},
    "renew_days": {"type": "float", "required": True},
}
"""Variables of the role `certificates`, without its name."""


class ActionModule(HostAction):
    """Has keys made on the host, signs on the controller, puts certificates in place: two trips, one where nothing is to be done."""

    def run(self, tmp: object = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """See the documentation of the module."""
        known: dict[str, Any] = task_vars or {}
        result: dict[str, Any] = super().run(tmp, known)
        self._find = self._find_needle
        if "role" in self._task.args:
            (role,) = self.roles([str(self._task.args["role"])], known)
            self._find = role.find
            self._task.args = {name: role.setting(name) for name in SETTINGS}
        _, given = self.validate_argument_spec(SETTINGS)
        ours = [request for request in given["requests"] if request["name"] not in given["files"]]
        prepared = self._on_host(
            {
                "mode": "prepare", "requests": ours, "new_keys": given["new_keys"], "renewed_on_host": given["renewed_on_host"],
                "given": list(given["files"]), "only_due": given["only_due"],
            },
            known,
        )  # fmt: skip
        signed = self._sign(given, ours, prepared["requests"], str(known["inventory_hostname"]))
        if given["only_due"]:
            return result | self._renewed(given, signed, known)
        files = {name: {part: self._read(pair[part]) for part in ("certificate", "key")} for name, pair in given["files"].items()}
        changed = prepared["changed"] + signed["changed"]
        if not _all_there(prepared.get("held", {}), given["requests"], signed, files):
            changed += self._install(given, signed, files, known)
        return result | self._told(changed)

    def _renewed(self, given: dict[str, Any], signed: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
        """What came of signing what is due; what can't be renewed fails, after the rest was put in place."""
        if signed["certificates"]:
            self._install(given, signed, {}, known)
        problems = "; ".join(signed["problems"])
        return self._told(signed["changed"]) | ({"failed": True, "msg": problems} if problems else {})

    def _install(self, given: dict[str, Any], signed: dict[str, Any], files: dict[str, Any], known: dict[str, Any]) -> list[str]:
        order = {"mode": "install", "requests": given["requests"], "certificates": signed["certificates"], "cas": signed["cas"]}
        written: list[str] = self._on_host({**order, "files_json": json.dumps(files)}, known)["changed"]
        return written

    def _told(self, changed: list[str]) -> dict[str, Any]:
        word = "would change " if self.check else ""
        return {"changed": bool(changed), "stdout": "\n".join(f"changed: {word}{each}" for each in changed)}

    def _read(self, path: str) -> str:
        """What an operator supplies; it may be in a vault."""
        return str(self._loader.get_text_file_contents(self._find_needle("files", path))).rstrip()

    def _on_host(self, order: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
        text = Path(self._find("files", PROGRAM)).read_text(encoding="utf-8")
        status, out, err = self.python(call(text, "main_encoded", {"check": self.check, **order}), known)
        if status != 0:
            raise AnsibleActionFail((err.strip() or out.strip() or f"exit status {status}")[-2000:])
        answer: dict[str, Any] = json.loads(out.splitlines()[-1])
        return answer

    def _sign(self, given: dict[str, Any], requests: list[dict[str, Any]], prepared: dict[str, Any], host: str) -> dict[str, Any]:
        """What of this host's is signed: changed, certificates and CA certificates."""
        signer = _load(Path(self._find("files", SIGNER)))
        order = {
            "check": self.check, "host": host, "directory": given["pki_dir"], "signer": given["signer_command"],
            "requests": requests, "prepared": prepared,
            "renewed_on_host": given["renewed_on_host"], "renew_now": given["renew_now"] or given["new_keys"],
            "trusted_cas": given["trusted_cas"], "ca_label": given["ca_label"], "ca_name_constraints": given["ca_name_constraints"],
            "ca_days": given["ca_days"], "days": given["days"], "renew_days": given["renew_days"],
        }  # fmt: skip
        # This process is for this task alone: Ansible makes one for each.
        os.umask(0o077)
        try:
            # Through JSON: what comes from an inventory is not only what Python's own types are.
            work = signer.renew_due if given["only_due"] else signer.work
            done: dict[str, Any] = work(json.loads(json.dumps(order)))
        except signer.SignError as problem:
            raise AnsibleActionFail(str(problem)) from None
        return done


def _load(path: Path) -> ModuleType:
    """The program of the role that signs."""
    spec = importlib.util.spec_from_file_location("lemonstand_sign_certificates", path)
    if spec is None or spec.loader is None:
        raise AnsibleActionFail(f"{path} cannot be read")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _all_there(held: dict[str, Any], requests: list[dict[str, Any]], signed: dict[str, Any], files: dict[str, dict[str, str]]) -> bool:
    """Whether the host has all of it: {file name: [SHA-256, owner, group, mode]}."""
    groups = {request["name"]: request.get("group") for request in requests}
    wanted = {f"{name}.crt": (pem, "root", "0644") for name, pem in signed["certificates"].items()}
    wanted |= {f"ca-{name}.crt": (pem, "root", "0644") for name, pem in signed["cas"].items()}
    for name, pair in files.items():
        group = groups.get(name)
        wanted[f"{name}.crt"] = (pair["certificate"] + "\n", "root", "0644")
        wanted[f"{name}.key"] = (pair["key"] + "\n", group or "root", "0640" if group else "0600")
    left = [name for name in held if name.endswith(".key.next")]
    return not left and all(
        held.get(name) == [hashlib.sha256(text.encode()).hexdigest(), "root", group, mode] for name, (text, group, mode) in wanted.items()
    )
