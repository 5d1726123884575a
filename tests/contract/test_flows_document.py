"""The document about the flows is what the flows say."""

from __future__ import annotations

from pathlib import Path

from lemonstand.derived.flow_chart import document
from lemonstand.policy import load_flows

ROOT = Path(__file__).resolve().parents[2]


def test_the_document_is_current() -> None:
    written = (ROOT / "docs" / "flows.md").read_text(encoding="utf-8")
    assert written == document(load_flows().flows), "write it anew: `make docs`"
