"""The pages about roles are what the roles say."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from lemonstand.derived.role_pages import pages, write

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())


@pytest.fixture(scope="module")
def wanted() -> dict[str, str]:
    """The pages as they should be."""
    return pages()


def test_the_pages_are_current(wanted: dict[str, str]) -> None:
    written = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "roles").iterdir()}
    assert sorted(written) == sorted(wanted), "write them anew: `make docs`"
    assert [name for name in wanted if written[name] != wanted[name]] == [], "write them anew: `make docs`"


@pytest.mark.parametrize("role", ROLES)
def test_a_page_names_every_variable_once(role: str, wanted: dict[str, str]) -> None:
    path = ROOT / "roles" / role / "meta" / "argument_specs.yml"
    ways = yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"].values()
    options = [name for way in ways for name in way.get("options") or {}]
    rows = [line for line in wanted[f"{role}.md"].partition("## Variables")[2].splitlines() if line.startswith("| `")]
    for name in options:
        assert sum(row.startswith(f"| `{name}` |") for row in rows) == 1
    for row in rows:
        assert row.replace("\\|", "").count("|") == 5, f"a table of four columns: {row}"


def test_pages_of_roles_that_are_gone_go(tmp_path: Path, wanted: dict[str, str]) -> None:
    (tmp_path / "gone.md").write_text("# gone\n", encoding="utf-8")
    write(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(wanted)
