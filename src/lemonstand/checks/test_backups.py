"""Backups: how old they are, that nobody at the site can take them back, whose they are, and that they come back."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator
from datetime import datetime
from hashlib import sha256

import pytest

from lemonstand.admin.access import Hosts
from lemonstand.admin.backups import KEYS, Backups, Kept
from lemonstand.checks.conftest import HostFactory, Measure
from lemonstand.checks.undone import do
from lemonstand.errors import LemonstandError
from lemonstand.files import write_text
from lemonstand.outcomes import expect, invalid, not_measurable
from lemonstand.probes.protocols.wire import Account
from lemonstand.remote.prober import Prober
from lemonstand.site import Site

FIRST_SECONDS = 240.0
"""A backup that is under way when it is asked for is waited for: a host that was just set up makes its first one."""
NICE = 10
IDLE = "3"
"""The class of I/O that comes after all others (ioprio_set(2))."""
LONGEST_SECONDS = 24 * 3600
SLACK_SECONDS = 3.0


@pytest.fixture(scope="module")
def backups(site: Site) -> Iterator[Backups]:
    """A way to the hosts that are backed up."""
    with Hosts(site.inventory) as hosts:
        yield Backups(site, hosts)


def _kept(backups: Backups, name: str) -> Kept:
    """How a host's backups stand, with those in the repository; one that is under way is waited for."""
    until = time.monotonic() + FIRST_SECONDS
    while (seen := backups.kept(name)).underway and time.monotonic() < until:
        time.sleep(2)
    return backups.kept(name, listed=True) if not seen.fault else seen


@pytest.mark.answer("live")
@pytest.mark.control("BAK-01")
def test_a_backup_was_made_lately(backups: Backups, backed: str, measure: Measure) -> None:
    """The repository has a backup of the host that is no older than a day and two hours; the last try did not fail."""
    kept = _kept(backups, backed)
    expect(not kept.fault, f"the last backup of {backed} failed", seen=kept.fault, expected="none", remedy=kept.remedy)
    expect(bool(kept.snapshots), f"the repository has no backup of {backed}", seen="none", expected="one of the last day")
    newest = kept.snapshots[-1]
    age = kept.now - datetime.fromisoformat(newest["time"]).timestamp()
    measure("age of the newest backup", round(age), "s", volatile=True)
    measure("size of the newest backup", newest["bytes"], "B", volatile=True)
    measure("backups in the repository", len(kept.snapshots), volatile=True)
    said = kept.age(kept.made)
    expect(
        said is not None and max(age, said) <= kept.oldest,
        f"the backup of {backed} is old",
        seen=f"{max(age, said or age) / 3600:.1f} h",
        expected=f"{kept.oldest / 3600:.0f} h at the most",
        remedy="`lemonstand backup list`; journalctl -u lemonstand-backup",
    )
    empty = kept.made.get("users") == 0
    expect(bool(newest["files"]) or empty, f"the backup of {backed} holds nothing", seen=newest, expected="files")


@pytest.mark.answer("live")
@pytest.mark.control("BAK-05")
def test_something_came_back_lately(backups: Backups, backed: str, measure: Measure) -> None:
    """With each backup a part of it is brought back and compared: the last such proof is no older than a backup may be."""
    kept = _kept(backups, backed)
    age = kept.age(kept.proven)
    expect(age is not None, f"nothing of {backed} was ever brought back", seen=kept.fault or "no proof", expected="one with each backup")
    measure("age of the last proven restore", round(age or 0), "s", volatile=True)
    measure("what came back", kept.proven["what"], volatile=True)
    measure("seconds it took", kept.proven["seconds"], "s", volatile=True)
    expect(
        (age or 0) <= kept.oldest and not kept.fault,
        f"the last proof that a backup of {backed} comes back is old, or a later one failed",
        seen=kept.fault or f"{(age or 0) / 3600:.1f} h",
        expected=f"{kept.oldest / 3600:.0f} h at the most",
        remedy=kept.remedy,
    )


@pytest.mark.answer("live")
@pytest.mark.control("BAK-02")
def test_a_host_can_not_take_its_backups_back(site: Site, prober: Prober, backups: Backups, backed: str) -> None:
    """With its own credentials a host reads its part of the repository, and deletes nothing; others' parts are shut."""
    others = [name for name in backups.names if name != backed]
    seen = prober.ask(backed, "backup-deeds", others=others)
    expect(seen["read"] == 200, f"{backed} can't read its own backups", seen=seen["read"], expected=200)
    removed = {kind: status for kind, status in seen["remove"].items() if status != 403}
    expect(
        not removed,
        f"the repository would let {backed} delete its backups",
        seen=removed,
        expected="403 for each",
        remedy="start the repository's server with --append-only",
    )
    shown = {name: status for name, status in seen["others"].items() if status not in {401, 403}}
    expect(
        not shown,
        f"the repository shows {backed} other hosts' backups",
        seen=shown,
        expected="401 or 403",
        remedy="start the repository's server with --private-repos, and give each host a user of its own",
    )


@pytest.mark.answer("live")
@pytest.mark.control("BAK-03")
def test_without_the_key_backups_are_noise(prober: Prober, backups: Backups, backed: str) -> None:
    """A key that is not the host's opens nothing, strangers are sent away, and a server with a foreign certificate is not talked to."""
    mine, another = (backups.order(backed, action="opens", key=key)["opens"] for key in (backups.key(backed), secrets.token_urlsafe(32)))
    expect(mine, "the key that is kept does not open the repository", seen="it does not", expected="it does")
    expect(not another, "any key opens the repository", seen="a random one did", expected="the host's alone")
    seen = prober.ask(backed, "backup-deeds", others=[])
    expect(seen["stranger"] == 401, "the repository answers who does not sign in", seen=seen["stranger"], expected=401)
    foreign = backups.order(backed, action="trusts")
    expect(
        not foreign["talks"] and "x509" in foreign["why"],
        f"{backed} would send to a server that another authority signed for",
        seen=foreign["why"] or "it talked",
        expected="no connection",
    )


@pytest.mark.answer("live")
@pytest.mark.control("BAK-04")
def test_the_key_is_kept_elsewhere_too(host: HostFactory, backups: Backups, backed: str) -> None:
    """The controller has the key of the host's backups, the host uses no other, and the key opens the repository."""
    key = backups.key(backed)
    there = do(host, backed, "sha256sum </etc/lemonstand/backup/key").split()[0]
    expect(
        there == sha256(f"{key}\n".encode()).hexdigest(),
        f"{backed} encrypts its backups with a key that is kept nowhere else",
        seen="another key than the controller's",
        expected="the controller's",
        remedy=f"find out which one its backups were made with: `lemonstand backup check {backed}`",
    )
    opens = backups.order(backed, action="opens", key=key)["opens"]
    expect(opens, "the controller's key does not open the repository", seen="wrong key", expected="it opens")


@pytest.mark.answer("live")
@pytest.mark.disruptive
@pytest.mark.control("BAK-07")
def test_a_key_is_changed_and_all_backups_stay(site: Site, host: HostFactory, backups: Backups, backed: str, measure: Measure) -> None:
    """After the change the host uses another key, both open what there was, and a backup is made with the new one. Then back again."""
    if not site.is_lab:
        not_measurable("on a site that people use it is an operator's: lemonstand backup rotate-keys")
    path, old = site.settings.pki_dir / KEYS / f"{backed}.key", backups.key(backed)
    before = {each["id"] for each in _kept(backups, backed).snapshots}
    try:
        try:
            others = backups.rotate_key(backed)
        except LemonstandError as fault:
            expect(False, f"the key of {backed}'s backups can't be changed", seen=fault.what, expected="another key", remedy=fault.remedy)
            raise
        new = backups.key(backed)
        there = do(host, backed, "sha256sum </etc/lemonstand/backup/key").split()[0]
        opens = {name: backups.order(backed, action="opens", key=key)["opens"] for name, key in (("old", old), ("new", new))}
        made = backups.order(backed, action="run")["made"]["snapshot"]
        after = {each["id"] for each in backups.kept(backed, listed=True).snapshots}
    finally:
        # Whichever of the two a change that was cut off has left in use.
        backups.order(backed, action="rekey", key=old)
        write_text(path, f"{old}\n")
        path.with_suffix(".key-next").unlink(missing_ok=True)
    measure("keys that open the repository", 1 + len(others), volatile=True)
    expect(new != old and there == sha256(f"{new}\n".encode()).hexdigest(), "the host uses the old key", seen="old", expected="new")
    expect(all(opens.values()), "a key opens the repository no more", seen=opens, expected="both do")
    expect(before <= after and made in after, "backups are gone with the old key", seen=sorted(before - after), expected="none")


@pytest.mark.answer("configuration")
@pytest.mark.control("BAK-06")
def test_backups_begin_by_themselves_and_come_after_mail(host: HostFactory, backed: str, measure: Measure) -> None:
    """The timer runs and comes again after a reboot; the unit yields processor and disk, and has an end."""
    words = "systemctl show lemonstand-backup.timer -p ActiveState,UnitFileState,RandomizedDelayUSec,NextElapseUSecRealtime"
    timer = _shown(do(host, backed, words))
    expect(
        (timer["ActiveState"], timer["UnitFileState"]) == ("active", "enabled") and bool(timer["NextElapseUSecRealtime"]),
        f"no backup of {backed} will begin by itself",
        seen=timer,
        expected="a timer that is active and enabled",
        remedy=f"`lemonstand apply --limit {backed}`",
    )
    expect(timer["RandomizedDelayUSec"] not in {"", "0"}, "all hosts send at once", seen=timer["RandomizedDelayUSec"], expected="a jitter")
    unit = _shown(do(host, backed, "systemctl show lemonstand-backup.service -p Nice,IOSchedulingClass,TimeoutStartUSec"))
    measure("next", timer["NextElapseUSecRealtime"], volatile=True)
    expect(int(unit["Nice"]) >= NICE, "a backup takes the processor from mail", seen=unit["Nice"], expected=f"{NICE} or more")
    expect(unit["IOSchedulingClass"] == IDLE, "a backup takes the disk from mail", seen=unit["IOSchedulingClass"], expected="idle")
    expect(unit["TimeoutStartUSec"] != "infinity", "a backup may hang for ever", seen=unit["TimeoutStartUSec"], expected="an end")


def _shown(text: str) -> dict[str, str]:
    return dict(line.partition("=")[::2] for line in text.splitlines())


@pytest.mark.answer("live")
@pytest.mark.disruptive
@pytest.mark.control("BAK-05")
def test_a_mailbox_comes_back(
    site: Site, host: HostFactory, prober: Prober, backups: Backups, backed_store: str, accounts: list[Account], measure: Measure
) -> None:
    """A message with flags is written, a backup made, the mailbox brought back into a scratch place: UIDs, GUIDs and flags are the same."""
    names = [each["user"] for each in accounts]
    user = next((name for name in names if host(backed_store).run("doveadm user -x protocol=lmtp -f home %s", name).rc == 0), None)
    if user is None:
        not_measurable(f"no probe user is served by {backed_store}")
    ident = f"{secrets.token_hex(8)}@backup.invalid"
    message = f"From: {user}\nTo: {user}\nSubject: for a backup\nMessage-ID: <{ident}>\n\nto be brought back\n"
    with Hosts(site.inventory) as hosts, contextlib.ExitStack() as after:
        after.callback(hosts.run, backed_store, ["doveadm", "expunge", "-u", user, "mailbox", "INBOX", "header", "Message-ID", ident])
        hosts.run(backed_store, ["doveadm", "save", "-u", user, "-m", "INBOX"], message)
        hosts.run(
            backed_store, ["doveadm", "flags", "add", "-u", user, "\\Flagged $Forwarded", "mailbox", "INBOX", "header", "Message-ID", ident]
        )
        _kept(backups, backed_store)
        backups.order(backed_store, action="run")
        live = prober.ask(backed_store, "mailbox-copy", user=user)
        back = backups.order(backed_store, action="try", user=user)
    measure("messages", back["messages"], volatile=True)
    measure("seconds", round(back["seconds"], 2), "s", volatile=True)
    expect(back["messages"] > 0, "the backup gives no message back", seen=back["messages"], expected=live["messages"])
    differing = {key: [live[key], back[key]] for key in ("messages", "boxes", "uids") if live[key] != back[key]}
    expect(not differing, f"the mailbox that comes back is not that of {user}", seen=differing, expected="the same")


@pytest.mark.answer("live")
@pytest.mark.disruptive
@pytest.mark.control("BAK-05")
def test_a_directory_comes_back(host: HostFactory, backups: Backups, backed_auth: str, measure: Measure) -> None:
    """A backup is made, and a directory is built of it in a scratch place: it has every entry of the living one, with every attribute."""
    _kept(backups, backed_auth)
    backups.order(backed_auth, action="run")
    seen = backups.order(backed_auth, action="try")
    measure("entries", seen["entries"])
    measure("seconds", round(seen["seconds"], 2), "s", volatile=True)
    live = int(do(host, backed_auth, "slapcat -f /etc/ldap/lemonstand.conf | grep -c '^dn:'"))
    if not live:
        invalid(f"the directory of {backed_auth} is empty")
    expect(
        seen["entries"] == live and not seen["differing"],
        "the directory that comes back is another one",
        seen=seen["differing"] or f"{seen['entries']} entries",
        expected=f"the {live} entries it has",
    )
