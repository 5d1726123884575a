"""Everything that makes a host do what it does, read without changing anything.

Who compares it with what should be is on the controller (`lemonstand.integrity`).
"""

from __future__ import annotations

import grp
import json
import resource
from pathlib import Path
from typing import Any

from lemonstand.probes.hosts import files, in_force, shared


def read() -> dict[str, Any]:
    """Everything at once; each part says what it is.

    Returns:
        JSON's values. Of files: `files` (no package brought them, or they run with others' rights), `kept` (settings of packages),
        `altered` and `missing` (of packages), `templates`, `loose`, `databases`, `packages`, `archives`. In force: all else.
    """
    packages = files.Packages()
    found_files = list(files.unexplained(packages))
    accounts, routes = in_force.accounts(), in_force.routes()
    found = {
        "files": found_files,
        "kept": packages.kept,
        "templates": [files.described(str(path), path.lstat()) for path in sorted(Path("/usr/share/base-files").glob("*"))],
        "altered": packages.altered,
        "missing": packages.missing(),
        "databases": packages.databases(),
        "packages": in_force.installed(),
        "loose": list(files.loose()),
        "accounts": accounts,
        "groups": {each.gr_name: sorted(each.gr_mem) for each in grp.getgrall() if each.gr_mem},
        "keys": in_force.keys(accounts),
        "pam": in_force.pam(),
        "units": in_force.units(),
        "environment": in_force.environment(),
        "enabled": in_force.enabled(),
        "sockets": in_force.sockets(),
        "tables": in_force.tables(),
        "traffic": in_force.traffic(routes["links"]),
        "routes": routes,
        "sysctl": in_force.sysctl(),
        "sysctl_skipped": json.loads(shared.text("/run/lemonstand/sysctl-skipped.json") or "[]"),
        "mounts": in_force.mounts(),
        "modules": in_force.modules(),
        "processes": in_force.processes(packages),
        "trusted": in_force.trusted(),
        "tickets": in_force.tickets(),
        "certificates": in_force.certificates(),
        "suffix": in_force.suffix(),
        "archives": in_force.archives(),
        "journal": in_force.journal(),
        "time": shared.command("chronyc", "-N", "-c", "sources"),
        "container": (shared.command("systemd-detect-virt", "--container") or "none").strip(),
    }
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    found["cpu"] = round(sum(each.ru_utime + each.ru_stime for each in used), 2)
    return found
