"""The page about variables is what the model says, and its examples are values the model takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from lemonstand.derived.variables_page import page
from lemonstand.site.model import PREFIX, HostSettings, SiteSettings

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_current() -> None:
    assert (ROOT / "docs" / "variables.md").read_text(encoding="utf-8") == page(), "write it anew: `make docs`"


@pytest.fixture(scope="module")
def examples() -> dict[str, Any]:
    """The examples as somebody who copies them has them."""
    found: dict[str, Any] = yaml.safe_load(page().partition("```yaml")[2].partition("```")[0])
    return found


@pytest.mark.parametrize(
    ("name", "info"),
    [each for model in (SiteSettings, HostSettings) for each in model.model_fields.items()],
    ids=lambda each: str(each)[:30],
)
def test_an_example_is_a_value_the_model_takes(name: str, info: FieldInfo, examples: dict[str, Any]) -> None:
    value = examples[PREFIX + name]
    if name == "review":
        value = {**value, "analysis": "0" * 64}  # the example shows where the hash goes
    kind: Any = Annotated[info.annotation, info]
    TypeAdapter(kind).validate_python(value)
