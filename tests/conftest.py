"""Shared by all tests: Ansible's configuration is ours before anything imports it, state goes to temporary directories."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from lemonstand.site.raw import RawSite
    from standing import Standing

ROOT = Path(__file__).resolve().parent.parent
VARIABLES = ("LEMONSTAND_LAB_", "ANSIBLE_")
"""What an inventory's values may depend on beside its files."""
# ansible-core reads these once, when it is first imported.
os.environ["ANSIBLE_CONFIG"] = str(ROOT / "ansible.cfg")
os.environ["ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED"] = "true"
for name in ("ANSIBLE_VAULT_PASSWORD_FILE", "ANSIBLE_VAULT_IDENTITY_LIST", "ANSIBLE_INVENTORY"):
    os.environ.pop(name, None)
sys.path.insert(0, str(Path(__file__).resolve().parent))
# How long an example takes says how busy the machine is.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")


def pytest_configure(config: pytest.Config) -> None:
    """Shipped checks are imported by some tests: their marks are known here, too."""
    from lemonstand.evidence.plugin import MARKS  # noqa: PLC0415 - only now is Ansible's configuration ours

    for mark, meaning in MARKS.items():
        config.addinivalue_line("markers", f"{mark}: {meaning}")


@pytest.fixture(scope="session")
def _inventories_read() -> dict[tuple[object, ...], RawSite]:
    return {}


@pytest.fixture(scope="session")
def _standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    from standing import Standing  # noqa: PLC0415

    found = Standing(tmp_path_factory.mktemp("standing"))
    yield found
    found.close()


@pytest.fixture(autouse=True)
def _ansible_is_loaded_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions to Ansible are asked of a fork that has it loaded."""
    if "lab" not in request.path.parts[-2:]:
        for module in ("process", "pattern"):
            monkeypatch.setattr(f"lemonstand.site.{module}.subprocess", request.getfixturevalue("_standing"))


@pytest.fixture(autouse=True)
def _same_inventory_is_read_once(
    _inventories_read: dict[tuple[object, ...], RawSite], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Reading an inventory takes a process and a second. Files and variables that did not change bring the same, so they are read once."""
    if "lab" in request.path.parts[-2:]:
        return
    from lemonstand.site import load  # noqa: PLC0415

    read = load.read_inventory

    def once(inventory: Path, env: Mapping[str, str] | None = None) -> RawSite:
        folder = inventory if inventory.is_dir() else inventory.parent
        files = tuple(sorted((str(path), path.read_bytes()) for path in folder.rglob("*") if path.is_file()))
        settings = tuple(sorted((env or {}).items())), tuple(sorted(item for item in os.environ.items() if item[0].startswith(VARIABLES)))
        key = (str(inventory), files, settings)
        if key not in _inventories_read:
            _inventories_read[key] = read(inventory, env)
        return copy.deepcopy(_inventories_read[key])

    monkeypatch.setattr(load, "read_inventory", once)


@pytest.fixture(autouse=True)
def _own_state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """No test touches the user's labs, caches or runs."""
    if "lab" in request.path.parts[-2:]:
        return  # a real lab keeps its state where a user's lab does
    monkeypatch.setenv("LEMONSTAND_STATE", str(tmp_path_factory.mktemp("state")))
    monkeypatch.setenv("LEMONSTAND_CACHE", str(tmp_path_factory.mktemp("cache")))
