"""Two hundred sleeping sessions, and what may be done to the site meanwhile: every certificate renewed, the whole site applied."""

from __future__ import annotations

from pathlib import Path

import pytest

from lemonstand.checks.conftest import Measure
from lemonstand.deploy import run_playbook
from lemonstand.measure import Vantage
from lemonstand.measure.crowd import woken
from lemonstand.outcomes import expect, invalid
from lemonstand.paths import data_dir
from lemonstand.probes.protocols.wire import Account
from lemonstand.remote.certificates import Certificate
from lemonstand.remote.endpoints import Endpoints, families_of
from lemonstand.remote.prober import Prober
from lemonstand.site import Site

pytestmark = [pytest.mark.answer("live"), pytest.mark.disruptive]

CROWD = 100
"""Sessions in each IP version."""
CROWD_SECONDS = 900
"""How long they wait for a message: all the work has to be done by then."""
TOLD_SECONDS = 60
"""How long they have to be told of a message that is there."""


@pytest.mark.control("LEM-4.1-11", "LEM-8-20")
@pytest.mark.supports("LEM-4.1-02", "LEM-4.1-10")
def test_no_sleeping_session_is_lost_by_renewal_or_apply(
    prober: Prober, site: Site, vantage: Vantage, endpoints: Endpoints, accounts: list[Account], tmp_path: Path, *, measure: Measure
) -> None:
    """All keys and certificates are made anew, then everything is applied; each session is told of a message afterwards, and heard."""
    servers = [host.name for host in site.hosts.values() if host.role_groups]
    before = {name: prober.ask(name, "certificates")["certificates"] for name in servers}
    ways = [endpoints(family) for family in families_of(site)]
    with vantage.start(
        "idle-crowd", seconds=2 * CROWD_SECONDS, endpoints=ways, accounts=accounts[:2], count=CROWD, within=CROWD_SECONDS
    ) as crowd:
        opened = crowd.wait("idling").values
        measure("sessions", opened["opened"])
        for name, extra in (("renew-certificates", {"certificates_new_keys": True}), ("site", {})):
            done = run_playbook(site.inventory, [data_dir("playbooks") / f"{name}.yml"], runs=tmp_path / "runs", extra=extra)
            if done.exit_code != 0:
                invalid(f"{name}.yml failed: {[failure.message for failure in done.record.failures][:3] or done.message}")
            measure(f"{name}.yml", round(done.seconds), "s")
        found = woken(vantage, crowd, TOLD_SECONDS)
    kept, renewed = [], 0
    for name in servers:
        for own, pem in prober.ask(name, "certificates")["certificates"].items():
            if own.startswith("ca-"):
                continue
            renewed += 1
            old = before[name].get(own)
            if old is not None and Certificate(own, old).sha256 == Certificate(own, pem).sha256:
                kept.append(f"{name}: {own}")
    measure("certificates renewed", renewed - len(kept))
    measure("told of a message", found["pushed"])
    measure("answered afterwards", found["answered"])
    if found["refused"] or found["opened"] != CROWD * len(ways):
        invalid(f"only {found['opened']} sessions could be opened: {found['refused'][:3]}")
    if kept:
        invalid(f"these certificates were not renewed: {kept}")
    measure("dropped", len(found["ended"]))
    expect(not found["ended"], "sleeping sessions were lost", seen=found["ended"], expected="none")
    expect(found["pushed"] == found["opened"], "sessions were not told of a message", seen=found["pushed"], expected=found["opened"])
    expect(found["answered"] == found["opened"], "sessions were not heard any more", seen=found["answered"], expected=found["opened"])
