"""Installs Debian packages that are missing, without starting any service of theirs.

Runs on a host from standard input (`python3 -`), on the standard library alone. The action plugin `packages` appends a call of
`main_encoded` with the order.
"""

import base64
import json
import os
import subprocess
from pathlib import Path
from typing import Any

POLICY = Path("/usr/sbin/policy-rc.d")
"""Asked by maintainer scripts before they start a service (invoke-rc.d(8)); 101 is "no"."""
OURS = "#!/bin/sh\n# lemonstand: services start with their own configuration, in the stage `activate`\nexit 101\n"
APT = [
    "apt-get", "--quiet", "--yes", "--no-install-recommends", "--option=DPkg::Lock::Timeout=120",
    "--option=Dpkg::Options::=--force-confdef", "--option=Dpkg::Options::=--force-confold",
]  # fmt: skip


def missing(names: list[str]) -> list[str]:
    """Those packages that are not installed."""
    query = ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *names]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    there = {line.split()[0] for line in done.stdout.splitlines() if line.endswith(" installed")}
    return [name for name in names if name not in there]


def apt(*words: str) -> subprocess.CompletedProcess[str]:
    """Runs apt-get; it asks nothing."""
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C", "APT_LISTCHANGES_FRONTEND": "none"}
    return subprocess.run([*APT, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", env=env, check=False)


def quiet_install(names: list[str]) -> subprocess.CompletedProcess[str]:
    """Installs, while maintainer scripts are told to start nothing; what somebody else tells them is put back."""
    kept = POLICY.with_name(POLICY.name + ".lemonstand")
    if POLICY.exists() and POLICY.read_text(encoding="utf-8", errors="replace") != OURS:
        POLICY.replace(kept)
    POLICY.write_text(OURS, encoding="utf-8")
    POLICY.chmod(0o755)
    try:
        return apt("install", *names)
    finally:
        # Also what a run left behind that died in here.
        kept.replace(POLICY) if kept.exists() else POLICY.unlink()


def install(order: dict[str, Any]) -> dict[str, Any]:
    """Does one order.

    Args:
        order: `names`; with `check` apt only says what it would do.

    Returns:
        `changed`: packages that were, or would be, installed, those they need among them; `fault`: a sentence, where it failed.
    """
    names = missing(order["names"])
    if not names:
        return {"changed": []}
    plan = apt("--simulate", "install", *names) if order["check"] else quiet_install(names)
    if plan.returncode != 0:
        lines = [line for line in plan.stderr.splitlines() if line.startswith(("E:", "dpkg:"))] or plan.stderr.splitlines()[-5:]
        return {"changed": [], "fault": "apt-get: " + " ".join(lines), "output": plan.stdout[-4000:]}
    # `Inst NAME (VERSION …)`, `Setting up NAME:ARCH (VERSION) ...`
    word, place = ("Inst ", 1) if order["check"] else ("Setting up ", 2)
    changed = [line.split()[place].partition(":")[0] for line in plan.stdout.splitlines() if line.startswith(word)]
    return {"changed": changed or names}


def main_encoded(text: str) -> int:
    """Does one order (base64 of JSON) and prints the answer as JSON."""
    print(json.dumps(install(json.loads(base64.b64decode(text)))))
    return 0
