"""What plain Ansible is told of a site before it touches a host: the judge's words, over what Ansible itself has read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lemonstand.policy import load_flows, load_timers
from lemonstand.site.load import judge
from lemonstand.site.raw import RawSite
from lemonstand.site.shipped import filter_plugin


def faults(hostvars: Any, playbook_dir: Path) -> list[str]:
    """All that is wrong with an inventory, a line each: what, where, and the remedy. None: it can be deployed.

    Args:
        hostvars: Ansible's variable of that name.
        playbook_dir: where the playbooks lie that ask.
    """
    from lemonstand.site.reader import collect  # noqa: PLC0415 - needs ansible-core's classes, which the model does without

    # Before anything is templated: what Jinja would take out of a secret. The reader says the same of the site's files, with the line.
    hurt: list[str] = filter_plugin("secret_values").secret_faults(hostvars)
    found = collect(hostvars, playbook_dir)
    told, _ = judge(RawSite.from_plain(found), load_flows(), load_timers())
    lines = [line(fault.what, fault.where, fault.remedy) for fault in told]
    return [*(each for each in hurt if each.partition(" ")[0] not in " ".join(lines)), *lines]


def line(what: str, where: str, remedy: str) -> str:
    """A fault in one line."""
    return f"{what} ({where}); {remedy}" if where else f"{what}; {remedy}"
