"""Messages name the line a value was read from, and do without where ansible-core does not tell."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible.parsing.dataloader import DataLoader

from lemonstand.site import origins


def test_a_value_knows_its_line(tmp_path: Path) -> None:
    path = tmp_path / "site.yml"
    path.write_text("one: 1\ntwo: second\n", encoding="utf-8")
    value = DataLoader().load_from_file(str(path))["two"]
    assert origins.origin(value) == f"{path}:2"
    assert origins.origin("made by nobody") == ""


def test_a_version_that_keeps_its_tags_elsewhere_costs_the_line_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origins, "Origin", None)
    assert origins.origin("anything") == ""
