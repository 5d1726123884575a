"""A repository that lost what it was given: the next backup names it, `verify` and `backup check` too, and what they say to do heals it."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from .conftest import Command

PART = "/srv/backups/store"
DAMAGE = f"find {PART}/data -type f -exec chmod u+w {{}} + -exec dd if=/dev/urandom of={{}} bs=64 count=1 conv=notrunc status=none ';'"


@pytest.mark.long
def test_damage_in_the_repository_is_named_and_its_remedy_heals(deployed: str, lemonstand: Command, on: Callable[..., str]) -> None:
    lemonstand("backup", "run", "--lab", deployed)
    on("repository", DAMAGE)
    for words in (("backup", "run", "store"), ("backup", "check", "store")):
        done = lemonstand(*words, "--lab", deployed, code=1)
        assert "the repository of store is damaged" in done.stdout + done.stderr
        assert "move the part of store aside" in done.stdout + done.stderr
    found = lemonstand("verify", "--lab", deployed, "-k", "made_lately", code=1).stdout
    assert re.search(r"made_lately\[store\]", found) and "move the part of store aside" in found
    on("repository", f"mv {PART} {PART}.aside")
    lemonstand("backup", "run", "store", "--lab", deployed)
    lemonstand("verify", "--lab", deployed, "-k", "made_lately")
    on("repository", f"rm -r {PART}.aside")
