"""The forms of a site's variables as JSON Schema: what playbooks without this package check an inventory against (`variables.json`)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from lemonstand.site.model import HostSettings, SiteSettings


def table() -> str:
    """The table as JSON: `site` and `host`, each an object's schema whose properties are variables without `lemonstand_`."""
    return json.dumps({"site": _form(SiteSettings), "host": _form(HostSettings)}, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _form(model: type[BaseModel]) -> dict[str, Any]:
    form: dict[str, Any] = _bare(model.model_json_schema())
    return form


def _bare(form: Any) -> Any:
    """A form without what is only for reading."""
    if isinstance(form, dict):
        return {key: _bare(value) for key, value in form.items() if not (key in {"title", "examples"} and not isinstance(value, dict))}
    return [_bare(each) for each in form] if isinstance(form, list) else form


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(table(), encoding="utf-8")
