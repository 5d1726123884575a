"""Updates on a real lab: what is safe arrives by itself, an update of Dovecot costs a user one reconnect, a broken one is taken back."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lemonstand import lab as labs
from lemonstand.measure import Vantage, failover, open_vantage
from lemonstand.remote.endpoints import PEER_SENDER, ca_of_exchangers, public_endpoints
from lemonstand.site import Site

from .conftest import Command

pytestmark = pytest.mark.long

SLEEPERS, WRITERS = 12, 4
LONGEST = 900
LEAD_SECONDS = 5
SETTLE_SECONDS = 120
HOST_UPDATES = "/usr/local/lib/lemonstand/host-updates"
CHECKS = "test_updates or test_every_flow_gets_through or test_nothing_gets_through"
WAITS = r"""python3 - <<'EOF'
import json, pathlib
path = pathlib.Path("/var/lib/lemonstand/updates/seen.json")
seen = json.loads(path.read_text())
seen["since"] = {key: at - 8 * 86400 for key, at in seen["since"].items()}
path.write_text(json.dumps(seen))
EOF"""

On = Callable[..., str]


@pytest.fixture(scope="module")
def mirrored(deployed: str, lemonstand: Command) -> Iterator[str]:
    """The lab with its mirrors; without them again afterwards."""
    lemonstand("lab", "offer", "--name", deployed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEMONSTAND_LAB_MIRROR", "lab")
        lemonstand("apply", "--lab", deployed)
        yield deployed
    lemonstand("apply", "--lab", deployed)


def version(on: On, host: str, package: str = "dovecot-core") -> str:
    """The installed version of a package."""
    return on(host, "dpkg-query", "-W", "-f", "'${Version}'", package)


def test_a_mirror_is_reached_and_no_other(mirrored: str, lemonstand: Command, *, on: On, last_run: Callable[[], dict[str, Any]]) -> None:
    lemonstand("verify", "--lab", mirrored, "-k", CHECKS)
    lemonstand("apply", "--lab", mirrored)
    assert last_run()["changes"] == []
    assert lemonstand("upgrade", "--plan", "--lab", mirrored).stdout.count("nothing is pending") == 5

    # An index that was good once: a mirror that withholds what is new.
    lemonstand("lab", "offer", "--name", mirrored, "--valid-days", "-1")
    shown = lemonstand("verify", "--lab", mirrored, "-k", "test_updates_are_reachable", code=1).stdout
    assert "the mirror's index can't be had" in shown
    assert "was left out" in lemonstand("upgrade", "--plan", "--lab", mirrored, code=2).stderr
    lemonstand("lab", "offer", "--name", mirrored)
    on("relay", "echo 'deb [trusted=yes] http://elsewhere.example/ ./' >/etc/lemonstand/apt/sources.d/more.list")
    shown = lemonstand("verify", "--lab", mirrored, "-k", "test_updates_are_reachable", code=1).stdout
    assert "elsewhere.example" in shown
    on("relay", "rm /etc/lemonstand/apt/sources.d/more.list")
    lemonstand("verify", "--lab", mirrored, "-k", "test_updates_are_reachable")


def test_what_nothing_at_work_has_loaded_arrives_by_itself(mirrored: str, lemonstand: Command, *, on: On) -> None:
    lemonstand("lab", "offer", "--name", mirrored, "tzdata", "dovecot")
    before = version(on, "store")
    for host in ("store", "relay"):
        on(host, "systemctl start lemonstand-updates.service")
        assert "+lemon" in version(on, host, "tzdata")
    assert version(on, "store") == before, "what is at work waits"
    plan = lemonstand("upgrade", "--plan", "--lab", mirrored).stdout
    assert "store: dovecot-core" in plan and "waits for `lemonstand upgrade`" in plan
    on("store", WAITS)
    shown = lemonstand("verify", "--lab", mirrored, "-k", "test_no_update_waits_for_long", code=1).stdout
    assert "updates wait for long" in shown


def test_a_broken_update_is_taken_back(mirrored: str, lemonstand: Command, *, on: On) -> None:
    lemonstand("lab", "offer", "--name", mirrored, "dovecot", "--broken")
    before = {host: version(on, host) for host in ("frontend", "store")}
    done = lemonstand("upgrade", "--lab", mirrored, code=1)
    assert "frontend has the versions it had before, and answers" in done.stderr
    assert "left alone: store" in done.stderr
    assert {host: version(on, host) for host in before} == before
    on("frontend", "systemctl is-active dovecot && dpkg --audit && test ! -e /var/lib/lemonstand/updates/mark.json")
    assert "was brought back once" in lemonstand("upgrade", "--plan", "--lab", mirrored).stdout
    assert "failed" in lemonstand("log", "--lab", mirrored, "--last", "1").stdout
    lemonstand("verify", "--lab", mirrored, "-k", "test_packages_are_as_the_archive_has_them or test_what_runs or test_starttls")


def test_an_upgrade_that_is_killed_is_ended_by_the_same_command(mirrored: str, lemonstand: Command, *, on: On) -> None:
    lemonstand("lab", "offer", "--name", mirrored, "postfix")
    words = [sys.executable, "-m", "lemonstand", "upgrade", "relay", "--lab", mirrored]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True) as running:
        until = time.monotonic() + 300
        while "mark" not in on("relay", "ls /var/lib/lemonstand/updates") and time.monotonic() < until:
            time.sleep(0.3)
        running.send_signal(signal.SIGKILL)
    done = lemonstand("upgrade", "--lab", mirrored).stdout
    assert "relay: answers" in done
    assert "+lemon" in version(on, "relay", "postfix")
    on("relay", "systemctl is-active postfix && test ! -e /var/lib/lemonstand/updates/mark.json")
    assert json.loads(on("relay", HOST_UPDATES, "status"))["replaced"] == {}, "what was renewed is what runs"


def test_an_update_of_dovecot_costs_a_user_one_reconnect_and_no_message(
    mirrored: str, lab_site: Site, lemonstand: Command, *, on: On
) -> None:
    lemonstand("lab", "offer", "--name", mirrored, "dovecot")
    tag = f"upgrade-{time.time_ns()}"
    users = [user.name for user in lab_site.settings.users if user.name not in lab_site.settings.probe_users][:2]
    with open_vantage(lab_site) as vantage:
        ways = failover.doors(vantage)
        exchangers = [endpoint for _, endpoint in public_endpoints(lab_site, ca_of_exchangers(lab_site), "relays")]
        asleep = vantage.start(
            "idle-comebacks", seconds=LONGEST, endpoints=ways, accounts=vantage.accounts[:2], count=SLEEPERS // len(ways), within=LONGEST
        )
        writing = vantage.prober.start(
            vantage.outsider, "writers", kind="mx", endpoints=exchangers, count=WRITERS, recipients=users, sender=PEER_SENDER, accounts=[],
            seconds=LONGEST, tag=tag, within=LONGEST, pace=1.0,
        )  # fmt: skip
        with asleep, writing:
            assert asleep.wait("idling").values["opened"] == SLEEPERS // len(ways) * len(ways)
            writing.wait("writing")
            time.sleep(LEAD_SECONDS)
            done = lemonstand("upgrade", "--lab", mirrored).stdout
            time.sleep(LEAD_SECONDS)
            asleep.enough()
            writing.enough()
            clients, written = asleep.result()["clients"], writing.result()
        assert "store: answers" in done
        assert all("+lemon" in version(on, host) for host in ("frontend", "store"))
        assert [each["back"] for each in clients] == [1] * len(clients), clients
        assert all(each["answered"] for each in clients), clients
        found = _arrived(mirrored, vantage, users, tag, set(written["accepted"]))
    print(json.dumps({"away": sorted(each["away"] for each in clients), "accepted": len(written["accepted"]), "failed": written["failed"]}))
    assert set(written["accepted"]) <= set(found)
    again = set(written["unsure"])
    assert not [name for name, times in found.items() if times > 1 and name not in again]
    lemonstand("verify", "--lab", mirrored, "-k", "test_updates or test_integrity")


def _arrived(lab: str, vantage: Vantage, users: list[str], tag: str, wanted: set[str]) -> Counter[str]:
    """How often each message arrived; all are taken away then."""
    until = time.monotonic() + SETTLE_SECONDS
    while True:
        found: Counter[str] = Counter()
        for user in users:
            text = labs.run_on(lab, "store", f"doveadm -f tab fetch -u {user} hdr.message-id mailbox '*' header message-id {tag}")
            found.update(word.strip("<>") for word in text.split() if word.startswith("<"))
        if wanted <= set(found) or time.monotonic() > until:
            break
        time.sleep(3)
    for user in users:
        labs.run_on(lab, "store", f"doveadm expunge -u {user} mailbox '*' header message-id {tag}")
    return found
