"""Shared by all tests: Ansible's configuration is ours before anything imports it, state goes to temporary directories."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# ansible-core reads these once, when it is first imported.
os.environ["ANSIBLE_CONFIG"] = str(ROOT / "ansible.cfg")
os.environ["ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED"] = "true"
for name in ("ANSIBLE_VAULT_PASSWORD_FILE", "ANSIBLE_VAULT_IDENTITY_LIST", "ANSIBLE_INVENTORY"):
    os.environ.pop(name, None)
sys.path.insert(0, str(Path(__file__).resolve().parent))


@pytest.fixture(autouse=True)
def _own_state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """No test touches the user's labs, caches or runs."""
    if "lab" in request.path.parts[-2:]:
        return  # a real lab keeps its state where a user's lab does
    monkeypatch.setenv("LEMONSTAND_STATE", str(tmp_path_factory.mktemp("state")))
    monkeypatch.setenv("LEMONSTAND_CACHE", str(tmp_path_factory.mktemp("cache")))
