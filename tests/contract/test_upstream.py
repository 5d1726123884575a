"""The list of upstream faults, its page and its reproductions fit each other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lemonstand.errors import LemonstandError
from lemonstand.policy.controls import load_controls
from lemonstand.policy.upstream import Fault, load_faults

DOCS = Path(__file__).resolve().parents[2] / "docs"
FAULTS = load_faults()
FAULT = "faults: [{id: x, title: a title of one, package: dovecot-core, seen: ['1'], gone: nothing, try: x.md, controls: [LEM-3-01]}"


def _fault(**changed: object) -> Fault:
    values = FAULTS[0].model_dump(by_alias=True) | {"seen": ("1:2.4.1+dfsg1-6+deb13u7",), "fixed": "2.4.2"} | changed
    return Fault.model_validate(values)


def test_each_fault_has_a_heading_a_reproduction_and_controls() -> None:
    page = (DOCS / "upstream.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)$", page, re.MULTILINE) == [fault.id for fault in FAULTS]
    tried = {fault.try_ for fault in FAULTS}
    assert tried == {path.name for path in (DOCS / "upstream").iterdir() if path.is_file()}
    for fault in FAULTS:
        text = (DOCS / "upstream" / fault.try_).read_text(encoding="utf-8")
        assert any(len(word) > 5 and word in text for word in (fault.id, fault.id.partition("-")[2])), (
            f"{fault.try_} does not name {fault.id}"
        )
        section = page.partition(f"## {fault.id}\n")[2].partition("\n## ")[0]
        assert (f"Fixed: {fault.fixed}" if fault.fixed else "Fixed: in no version") in section, fault.id
    known = set(load_controls().by_id())
    assert {control for fault in FAULTS for control in fault.controls} <= known


def test_limits_name_faults_that_are_listed() -> None:
    page = (DOCS / "known-limits.md").read_text(encoding="utf-8")
    assert set(re.findall(r"upstream fault `([^`]+)`", page)) <= {fault.id for fault in FAULTS}


@pytest.mark.parametrize(
    ("installed", "obsolete", "untested"),
    [
        ("1:2.4.1+dfsg1-6+deb13u7", False, False),
        ("1:2.4.1+dfsg1-6+deb13u8", False, True),
        ("1:2.4.2+dfsg1-1", True, False),
        ("1:2.4.10-1", True, False),
        ("2.5", True, False),
        ("1:2.3.21+dfsg1-2", False, True),
    ],
)
def test_a_version_ends_a_fault_or_is_new(installed: str, obsolete: bool, untested: bool) -> None:
    assert (_fault().obsolete(installed), _fault().untested(installed)) == (obsolete, untested)
    assert not _fault(fixed="").obsolete(installed)


@pytest.mark.parametrize("text", [f"{FAULT}, {FAULT[9:]}]", f"{FAULT[:-1]}, more: 1}}]", "faults: 1", "]", FAULT.replace("'1'", "") + "]"])
def test_a_broken_list_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "upstream.yml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(LemonstandError) as caught:
        load_faults(path)
    assert str(path) in caught.value.where
