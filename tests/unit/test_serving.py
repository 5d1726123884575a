"""Where a user's mail is, as hosts know it: after moves and promotions the inventory no longer does."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lemonstand.outcomes import Invalid
from lemonstand.probes.hosts.placed import serving
from lemonstand.remote.serving import home_of

SITE: Any = SimpleNamespace(group=lambda name: [SimpleNamespace(name="store1"), SimpleNamespace(name="standby1")])


def test_a_moved_user_is_where_he_was_moved_and_a_promoted_host_serves(tmp_path: Path) -> None:
    file = tmp_path / "placement.json"
    told = {"users": {"a@x": "store1", "b@x": "store2"}, "active": {"store2": {"host": "standby2", "since": 4}}}
    file.write_text(json.dumps(told), encoding="utf-8")
    assert serving(["a@x", "b@x", "nobody@x"], str(file)) == {"a@x": "store1", "b@x": "standby2"}


class _Prober:
    """Hosts that answer, or not."""

    def __init__(self, **answers: dict[str, str] | None) -> None:
        self.answers = answers

    def ask(self, host: str, probe: str, **_: Any) -> dict[str, str]:
        answer = self.answers[host]
        if answer is None:
            raise Invalid(f"{probe}: {host} is away")
        return answer


def test_any_store_that_is_there_says_who_serves() -> None:
    prober: Any = _Prober(store1=None, standby1={"a@x": "standby1"})
    assert home_of(prober, SITE, "a@x") == "standby1"
    assert home_of(prober, SITE, "nobody@x") == "store1"
    gone: Any = _Prober(store1=None, standby1=None)
    with pytest.raises(Invalid, match=r"no store says who serves a@x: store1: .*standby1: "):
        home_of(gone, SITE, "a@x")
