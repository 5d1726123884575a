"""A change of the signing key: each step is done once, and one that was cut off is finished."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

PATH = Path(__file__).parents[2] / "roles" / "ticket_issuer" / "files" / "ticket_keys.py"


@pytest.fixture(scope="module")
def keys() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ticket_keys", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _step(keys: ModuleType, root: Path, name: str, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    assert keys.rotate(name, bits=1024, root=root) == 0
    answer: dict[str, object] = json.loads(capsys.readouterr().out)
    return answer


def test_a_change_from_end_to_end(keys: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "etc" / "ticket"
    first = keys.make_key(root, 1024)
    assert keys.states(root) == {first: "signs"}

    prepared = _step(keys, root, "prepare", capsys)
    assert sorted(keys.states(root).values()) == ["next", "signs"]
    assert len(prepared["public_keys"]) == 2  # type: ignore[arg-type]
    assert _step(keys, root, "prepare", capsys)["changed"] == [], "the next key is made once"
    second = next(kid for kid in keys.states(root) if kid != first)

    assert _step(keys, root, "switch", capsys)["changed"] == [f"signing key {second} signs"]
    assert keys.states(root) == {first: "old", second: "signs"}
    assert _step(keys, root, "switch", capsys)["changed"] == []
    assert _step(keys, root, "prepare", capsys)["changed"] == [], "a change that was cut off here is finished first"

    dropped = _step(keys, root, "drop", capsys)
    assert list(dropped["public_keys"]) == [second]  # type: ignore[call-overload]
    assert keys.states(root) == {first: "old", second: "signs"}, "the private half tells that it is not finished"
    assert _step(keys, root, "prepare", capsys)["changed"] == []
    _step(keys, root, "purge", capsys)
    assert keys.states(root) == {second: "signs"}
    assert (root / "private" / "active.pem").resolve().stem == second
    assert _step(keys, root, "drop", capsys)["changed"] == [], "the key that signs is never removed"


def test_a_key_whose_making_was_cut_off_is_swept(keys: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "etc" / "ticket"
    keys.make_key(root, 1024)
    (root / "private" / "0123456789abcdef.pem").write_text("half made", encoding="ascii")
    for step in ("prepare", "switch", "drop", "purge"):
        _step(keys, root, step, capsys)
    assert list(keys.states(root).values()) == ["signs"]
