"""Each kind of host lost for good and rebuilt on an empty machine by one command (record 0045), while somebody else's session sleeps."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lemonstand.measure import Vantage
from lemonstand.measure.vantage import open_vantage
from lemonstand.paths import lab_dir
from lemonstand.probes.protocols.wire import Account
from lemonstand.site import Site

from .conftest import Command
from .test_identity import _typed
from .test_people import _arrives, _gets_in

pytestmark = pytest.mark.long

USERS = ("alice@lemon.test", "bob@lemon.test", "carol@lemon.test", "o'hara@lemon.test")
EACH = 40
"""Messages of each user in each of two folders."""
LEAP = 1_000_000
SECONDS = 1500
FILL = f"""
import subprocess, sys
for user in {USERS!r}:
    subprocess.run(["doveadm", "mailbox", "create", "-u", user, "Archive/2026"], check=True)
    subprocess.run(["doveadm", "mailbox", "subscribe", "-u", user, "Archive/2026"], check=True)
    for box in ("INBOX", "Archive/2026"):
        for number in range({EACH}):
            text = f"From: a@b.test\\nSubject: {{number}}\\nMessage-ID: <{{number}}.{{box}}@b.test>\\n\\nbody {{number}}\\n"
            subprocess.run(["doveadm", "save", "-u", user, "-m", box], input=text.encode(), check=True)
        for flags, query in (("\\\\Seen", "1:20"), ("\\\\Flagged $Label1", "10:30"), ("\\\\Answered", "35")):
            subprocess.run(["doveadm", "flags", "add", "-u", user, flags, "mailbox", box, query], check=True)
        subprocess.run(["doveadm", "expunge", "-u", user, "mailbox", box, "5"], check=True)
    subprocess.run(["doveadm", "sieve", "put", "-u", user, "-a", "mine"], input=b"keep;\\n", check=True)
"""


@pytest.fixture(scope="module")
def vantage(lab_site: Site) -> Iterator[Vantage]:
    with open_vantage(lab_site) as found:
        yield found


def _mail(on: Callable[..., str]) -> dict[str, Any]:
    """All messages of all users with mailbox, UID, GUID and flags; each mailbox's UIDVALIDITY and UIDNEXT."""
    found: dict[str, Any] = {"messages": {}, "boxes": {}}
    for user in (*USERS, "probe-one@lemon.test"):
        name = user.replace("'", "'\\''")
        rows = json.loads(
            on("store", f"doveadm -f json fetch -u '{name}' 'mailbox uid guid flags' mailbox '*' all || test $? = 68") or "[]"
        )
        for row in rows:
            flags = " ".join(sorted(set(row["flags"].split()) - {"\\Recent"}))
            found["messages"][user, row["mailbox"], row["uid"], row["guid"]] = flags
        boxes = json.loads(on("store", f"doveadm -f json mailbox status -u '{name}' 'uidvalidity uidnext' '*'"))
        found["boxes"] |= {(user, row["mailbox"]): (row["uidvalidity"], int(row["uidnext"])) for row in boxes}
    return found


def _lose(lemonstand: Command, lab: str, host: str) -> str:
    said = lemonstand("lab", "replace", "--name", lab, host).stdout
    return re.findall(r"SHA256:\S+", said)[-1]


def _rebuild(lemonstand: Command, lab: str, host: str, *more: str) -> str:
    """Loses a host and rebuilds it; a line with the figures for whoever reads the suite's output."""
    key = _lose(lemonstand, lab, host)
    began = time.monotonic()
    said = lemonstand("rebuild", "--lab", lab, host, "--host-key", key, *more, timeout=SECONDS).stdout
    told = [line for line in said.splitlines() if re.match(r"brought back|backup |note:|lost:", line)]
    print(f"\n{host}: rebuilt in {time.monotonic() - began:.0f} s; " + "; ".join(told))
    return said


def _unchanged(lemonstand: Command, lab: str, last_run: Callable[[], dict[str, Any]]) -> None:
    lemonstand("apply", "--lab", lab)
    changed = {host: tally["changed"] for host, tally in last_run()["hosts"].items() if tally["changed"]}
    assert not changed


def test_a_store_from_nothing(deployed: str, lemonstand: Command, on: Callable[..., str], vantage: Vantage) -> None:
    """From its backup, with the controller killed in the middle: all messages, UIDs, flags, scripts; no UID is given twice."""
    done = _run_on("store", FILL, deployed)
    assert done.returncode == 0, done.stderr
    lemonstand("backup", "run", "store", "--lab", deployed)
    before = _mail(on)
    # What came after the backup, and which UIDs clients have seen of it.
    assert _arrives(vantage, "probe-one@lemon.test", vantage.accounts[0])
    seen = _mail(on)["boxes"]
    refused = lemonstand("rebuild", "--lab", deployed, "store", code=1)
    assert "store is not fresh" in refused.stderr and "mailboxes" in refused.stderr
    key = _lose(lemonstand, deployed, "store")
    refused = lemonstand("rebuild", "--lab", deployed, "store", "--plan", code=1)
    assert "SSH key that is not the one known" in refused.stderr and key not in refused.stderr
    refused = lemonstand("rebuild", "--lab", deployed, "store", "--host-key", "SHA256:" + "A" * 43, code=1)
    assert "has another key" in refused.stderr
    planned = lemonstand("rebuild", "--lab", deployed, "store", "--plan", "--host-key", key).stdout
    assert "bring back its newest backup" in planned and "relay" in planned
    began = time.monotonic()
    _killed_at("comes back", "rebuild", "--lab", deployed, "store")
    said = lemonstand("rebuild", "--lab", deployed, "store", timeout=SECONDS).stdout
    assert "this goes on where that was cut off" in said
    print(
        f"\nstore: killed once, rebuilt in {time.monotonic() - began:.0f} s: " + next(x for x in said.splitlines() if "brought back" in x)
    )
    after = _mail(on)
    assert after["messages"] == before["messages"]
    assert len(after["messages"]) >= len(USERS) * 2 * (EACH - 1)
    for box, (validity, _) in before["boxes"].items():
        assert after["boxes"][box][0] == validity
        assert after["boxes"][box][1] >= seen[box][1] + LEAP - 10
    assert on("store", "doveadm sieve list -u alice@lemon.test").split() == ["mine", "ACTIVE"]
    assert _arrives(vantage, "probe-one@lemon.test", vantage.accounts[0])
    print(f"{len(after['messages'])} messages of {len({key[0] for key in after['messages']})} users: same UIDs, GUIDs and flags")


def test_an_auth_host_from_nothing(
    deployed: str,
    lemonstand: Command,
    *,
    on: Callable[..., str],
    vantage: Vantage,
    last_run: Callable[[], dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From its backup: a changed password and a lock hold, a lock and a user of after it as well; a session that sleeps is not ended."""
    mark, old, new = secrets.token_hex(3), secrets.token_urlsafe(18), secrets.token_urlsafe(18)
    name, locked, late = (f"{kind}-{mark}@lemon.test" for kind in ("changed", "locked", "late"))
    with vantage.start(
        "push", seconds=SECONDS, endpoint=vantage.endpoints(4), account=vantage.accounts[0], within=SECONDS - 100
    ) as session:
        session.wait("idling")
        for each in (name, locked):
            assert _typed("user", "add", "--lab", deployed, each, "--password", given=old + "\n").returncode == 0
        assert _typed("user", "passwd", "--lab", deployed, name, given=new + "\n").returncode == 0
        lemonstand("user", "lock", "--lab", deployed, "bob@lemon.test")
        lemonstand("backup", "run", "auth", "--lab", deployed)
        lemonstand("user", "lock", "--lab", deployed, locked)
        assert _typed("user", "add", "--lab", deployed, late, "--password", given=old + "\n").returncode == 0
        keys = on("auth", "ls /etc/lemonstand/ticket/public")
        said = _rebuild(lemonstand, deployed, "auth")
        assert f"added after the backup, and without a password now: {late}" in said
        assert "passwords that were set after" in said
        assert on("auth", "ls /etc/lemonstand/ticket/public") == keys
        assert _gets_in(vantage, Account(user=name, password=new))
        assert not _gets_in(vantage, Account(user=name, password=old))
        assert not _gets_in(vantage, Account(user=locked, password=old))
        assert not _gets_in(vantage, Account(user=late, password=old))
        monkeypatch.setenv("COLUMNS", "200")
        listed = {line.split()[0]: line for line in lemonstand("user", "list", "--lab", deployed).stdout.splitlines() if "@" in line}
        assert "locked" in listed["bob@lemon.test"] and "locked" in listed[locked] and "no password" in listed[late]
        ident = vantage.mail()
        assert session.wait("result").values["data"]["arrived"], "the session of somebody else was ended"
    vantage.tidy(ident)
    _unchanged(lemonstand, deployed, last_run)
    lemonstand("user", "unlock", "--lab", deployed, "bob@lemon.test")
    for each in (name, locked, late):
        lemonstand("user", "delete", "--lab", deployed, each)


@pytest.mark.parametrize("host", ["relay", "frontend", "edge"])
def test_a_host_with_nothing_of_its_own_from_nothing(
    deployed: str, lemonstand: Command, *, vantage: Vantage, host: str, last_run: Callable[[], dict[str, Any]]
) -> None:
    _rebuild(lemonstand, deployed, host)
    assert _gets_in(vantage, vantage.accounts[0])
    assert _arrives(vantage, "probe-one@lemon.test", vantage.accounts[0])
    _unchanged(lemonstand, deployed, last_run)


def test_all_of_it_holds_afterwards(deployed: str, lemonstand: Command, last_run: Callable[[], dict[str, Any]]) -> None:
    lemonstand("backup", "run", "--lab", deployed)
    said = lemonstand("verify", "--lab", deployed, timeout=3600).stdout
    print("\n" + "\n".join(said.splitlines()[-6:]))
    _unchanged(lemonstand, deployed, last_run)


def test_a_controller_from_nothing(deployed: str, lemonstand: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The PKI directory out of an archive, the inventory and the way in, with a state directory that is empty: one line."""
    old, new = lab_dir(deployed), tmp_path / "state" / "labs" / deployed
    new.mkdir(parents=True, mode=0o700)
    for part in ("lab.json", "ssh", "secrets", "hosts"):  # what stands for the inventory and the operator's own SSH key
        subprocess.run(["cp", "-a", old / part, new], check=True)
    subprocess.run(["tar", "-C", old, "-cf", tmp_path / "pki.tar", "pki"], check=True)
    subprocess.run(["tar", "-C", new, "-xpf", tmp_path / "pki.tar"], check=True)
    monkeypatch.setenv("LEMONSTAND_STATE", str(tmp_path / "state"))
    assert lemonstand("plan", "--lab", deployed).stdout.strip() == "nothing would change; never verified"
    monkeypatch.undo()


def _run_on(host: str, program: str, lab: str) -> subprocess.CompletedProcess[str]:
    words = ["ssh", "-F", str(lab_dir(lab) / "ssh" / "config"), host, "python3", "-"]
    return subprocess.run(words, input=program, capture_output=True, text=True, timeout=600, check=False)


def _killed_at(words: str, *command: str) -> None:
    """Starts a command and kills it, without warning, once it says something."""
    with subprocess.Popen(
        [sys.executable, "-m", "lemonstand", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        said = ""
        for line in process.stdout or ():
            said += line
            if words in line:
                break
        else:
            pytest.fail(f"it ended before it said {words!r}: {said[-3000:]}")
        time.sleep(1)
        os.killpg(process.pid, signal.SIGKILL)
