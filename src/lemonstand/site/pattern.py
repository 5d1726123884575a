"""Which hosts a pattern of `--limit` means: Ansible's own answer, out of a process of its own (see `reader`).

Run as `python -m lemonstand.site.pattern INVENTORY PATTERN` it prints JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lemonstand.errors import InputError, LemonstandError
from lemonstand.paths import data_dir
from lemonstand.site.fields import suggest
from lemonstand.surroundings import environment
from lemonstand.survey import look_at, read_text, shown

READ_SECONDS = 60
WHERE = "--limit"


@dataclass(frozen=True)
class Limit:
    """What a pattern means.

    Args:
        typed: the pattern.
        hosts: the hosts it matches, in the inventory's order.
        excluded: hosts that a word with `!` names.
    """

    typed: str
    hosts: tuple[str, ...]
    excluded: frozenset[str]


def limited(inventory: Path, pattern: str) -> Limit:
    """The hosts of a pattern.

    Args:
        inventory: the site's directory or hosts file.
        pattern: as Ansible's `--limit` takes it: names, groups, `a,b`, `a:b`, `!a`, `&a`, `*`, `~regex`, `a[0:2]`, `@file`.

    Raises:
        InputError: it matches nobody, a word of it matches nobody, or it is no pattern.
    """
    if not pattern.strip(" ,:"):
        raise InputError("the pattern is empty: it names nobody", WHERE, "name hosts or groups, or leave it out for all")
    look_at(inventory)
    for word in pattern.split(","):
        if word.strip().startswith("@"):
            read_text(Path(word.strip()[1:]).expanduser())  # no pipe, no junk: Ansible would wait, or end in the middle
    env = environment({"ANSIBLE_CONFIG": str(data_dir("ansible.cfg")), "ANSIBLE_HOST_PATTERN_MISMATCH": "ignore"}, inventory)
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", __name__, str(inventory.absolute()), pattern],
            check=False, capture_output=True, text=True, encoding="utf-8", errors="replace", timeout=READ_SECONDS,
            stdin=subprocess.DEVNULL, env=env,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise LemonstandError(f"no end after {READ_SECONDS} s of reading", str(inventory), "look for a lookup that waits") from None
    except (ValueError, UnicodeEncodeError):
        raise InputError("the pattern is no text", WHERE, "name hosts or groups") from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(
            f"this is no pattern of hosts: {shown(said)}", f"{WHERE} {shown(pattern)}", "see Ansible's patterns; quote it for the shell"
        )
    found: dict[str, Any] = json.loads(done.stdout)
    names = [*found["all"], *found["groups"]]
    for word in found["unmatched"]:
        bare = word.lstrip("!&")
        raise InputError(
            f"'{shown(word)}' matches no host", f"{WHERE} {shown(pattern)}", suggest(bare, names, f"there are: {', '.join(names)[:300]}")
        )
    if not found["hosts"]:
        raise InputError("the pattern matches no host", f"{WHERE} {shown(pattern)}", f"there are: {', '.join(names)[:300]}")
    return Limit(pattern, tuple(found["hosts"]), frozenset(found["excluded"]))


def match(inventory: str, pattern: str) -> dict[str, Any]:
    """In the process of its own: what Ansible makes of a pattern."""
    from ansible.inventory.manager import InventoryManager, split_host_pattern  # noqa: PLC0415
    from ansible.parsing.dataloader import DataLoader  # noqa: PLC0415

    from lemonstand.site.reader import unlock  # noqa: PLC0415

    loader = DataLoader()
    unlock(loader)
    manager = InventoryManager(loader=loader, sources=[inventory])
    everybody = [str(host.name) for host in manager.get_hosts("all")]
    manager.subset(pattern)
    words = [word for word in manager._subset or [] if word]  # with the words of @files in it
    manager.subset(None)
    unmatched, excluded = [], set()
    for word in words:
        bare = word[1:] if word[0] in "!&" else word
        met = {str(host.name) for host in manager.get_hosts(split_host_pattern(bare))} & set(everybody) if bare else set()
        if not met and bare not in manager.groups:
            unmatched.append(word)
        if word[0] == "!":
            excluded |= met
    manager.subset(pattern)
    hosts = {str(host.name) for host in manager.get_hosts("all")}
    return {
        "hosts": [name for name in everybody if name in hosts],
        "all": everybody,
        "groups": sorted(str(name) for name in manager.groups if name not in {"all", "ungrouped"}),
        "unmatched": unmatched,
        "excluded": sorted(excluded),
    }


def main() -> None:
    """Prints what the pattern on the command line matches as JSON."""
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    from ansible.errors import AnsibleError  # noqa: PLC0415

    try:
        found = match(sys.argv[1], sys.argv[2])
    except (AnsibleError, IndexError, ValueError) as fault:
        sys.exit(" ".join(str(fault).split())[:300] or type(fault).__name__)
    with answer:
        json.dump(found, answer)


if __name__ == "__main__":
    main()
