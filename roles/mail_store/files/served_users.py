"""Writes which users this store serves, and keeps mailboxes with the people they are of (docs/decisions/0036 and 0041).

Dovecot looks users up by the service that asks (`%{protocol}`): `doveadm` finds everybody, so that copies can be kept; all others find a
user who is elsewhere now with `tempfail`, so that neither is his mail sent back nor does anybody take him for unknown. A user who is locked
gets mail, and gets in nowhere, whatever ticket he still has. With a standby the lists lie under /run: after a boot nobody is served until
`mail-standby` has asked the other member of the pair who serves.

Whose a home is, a list of its own remembers (`HOMES`): who has another name now takes his home along, and the home of somebody who is gone
goes aside, whole, so that whoever gets the name later finds nothing of his. A run that was cut off is done again by the next one.
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, "/usr/local/lib/lemonstand")

import placement

SETTINGS = Path("/etc/lemonstand/served-users.json")
RUN = Path("/run/lemonstand-mail")
HOMES = Path("/var/lib/lemonstand/homes.json")
LOGINS = ("imap", "imap-urlauth", "imap-urlauth-worker", "submission", "sieve", "managesieve")
PROTOCOLS = (*LOGINS, "lmtp")
KEPT = "kept"
"""What ends the domain of a copy that the relay hands to the standby."""
DELETED = ".deleted"
"""Where homes of people who are gone wait: DELETED/TIME/DOMAIN/NAME."""
UNDER_WAY_SECONDS = 0.3
"""What is being delivered when a home moves is given this long to end."""
LATER = "userdb_tempfail=yes"


def home_of(directory: str, user: str) -> Path:
    """Return where a user's mail lies.

    Raises:
        ValueError: the name would lead elsewhere.
    """
    local, _, domain = user.partition("@")
    if any(part in {"", ".", ".."} or "/" in part or "\0" in part or part.startswith(".") for part in (local, domain)):
        raise ValueError(f"{user!r} is no user's name")
    return Path(directory, domain, local)


def line_of(address: str, home: str, *fields: str) -> str:
    """Return a line of Dovecot's list. It looks an apostrophe up with a backslash before it."""
    escaped = address.replace("'", "\\'")
    return f"{escaped}:::::{home}::{' '.join(fields)}".rstrip()


def everybody(told: dict[str, Any], directory: str) -> list[tuple[str, str, str]]:
    """Return each address with its user and the line that Dovecot is to know it by. Sieve is told the user's own address."""
    homes = {user: str(home_of(directory, user)) for user in told["users"]}
    bounds = {user: (f"userdb_quota_storage_size={size}B",) for user, size in told["quotas"].items()}
    found = [
        (user, user, line_of(user, home, f"userdb_sieve_user_email={user}", *bounds.get(user, ()))) for user, home in sorted(homes.items())
    ]
    for alias, user in sorted(told["aliases"].items()):
        if user in homes:
            fields = (f"userdb_user={user}", f"userdb_sieve_user_email={user}", *bounds.get(user, ()))
            found.append((alias, user, line_of(alias, homes[user], *fields)))
    return found


def lines_of(
    told: dict[str, Any],
    settings: dict[str, Any],
    *,
    logins: bool = False,
    later: frozenset[str] = frozenset(),
    known: list[tuple[str, str, str]] | None = None,
) -> list[str]:
    """Return Dovecot's list as services other than `doveadm` see it.

    Args:
        told: the placement.
        settings: `me`, `members` ({store: [host]}), `directory`.
        logins: as services see it that users log in to.
        later: users who are to come later, whatever else holds.
        known: what `everybody` said of it already.
    """
    me, members = settings["me"], settings["members"]
    away = set(later) | (set(told["locked"]) if logins else set())
    here = served_here(told, settings) - away
    paired = {store for store, hosts in members.items() if me in hosts and len(hosts) > 1}
    found = []
    for address, user, line in everybody(told, settings["directory"]) if known is None else known:
        found.append(line if user in here else f"{line} {LATER}")
        store = told["users"][user]
        if store in paired:
            local, _, domain = address.partition("@")
            found.append(line_of(f"{address}.{store}.{KEPT}", f"{settings['directory']}/.{KEPT}/{domain}/{local}"))
    return found


def served_here(told: dict[str, Any], settings: dict[str, Any]) -> set[str]:
    """Return the users whom this host serves."""
    me, members = settings["me"], settings["members"]
    stores = {store for store, hosts in members.items() if me in hosts and placement.active(told, store) == me}
    return {user for user, store in told["users"].items() if store in stores}


def end_copies(users: set[str]) -> None:
    """End what still brings a copy of these users: it would undo what is done here when its connection comes to life."""
    for path in RUN.glob("copying-*"):
        user = path.name.removeprefix("copying-")
        if user not in users:
            continue
        with contextlib.suppress(OSError, ValueError):
            process = int(path.read_text(encoding="ascii"))
            if b"dsync-server" in Path(f"/proc/{process}/cmdline").read_bytes():
                os.kill(process, signal.SIGKILL)
        with (RUN / f"lock-{user}").open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)


def write(path: Path, text: str) -> bool:
    """Replace a file of Dovecot's in one step; return whether it differed."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    temporary = path.with_suffix(".new")
    temporary.write_text(text, encoding="utf-8")
    shutil.chown(temporary, group="dovecot")
    temporary.chmod(0o640)
    temporary.replace(path)
    return True


def write_lists(told: dict[str, Any], settings: dict[str, Any], later: frozenset[str] = frozenset()) -> list[str]:
    """Write the lists; return the names of those that differed."""
    folder = Path(settings["lists"])
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    known = everybody(told, settings["directory"])
    others = "\n".join(lines_of(told, settings, later=later, known=known)) + "\n"
    logins = "\n".join(lines_of(told, settings, logins=True, later=later, known=known)) + "\n" if told["locked"] else others
    changed = [name for name in PROTOCOLS if write(folder / f"users.{name}", logins if name in LOGINS else others)]
    everyone = "\n".join(line for _, _, line in known) + "\n"
    return changed + (["doveadm"] if write(folder / "users.doveadm", everyone) else [])


# --- homes and the people they are of ---


def identities(told: dict[str, Any]) -> dict[str, str]:
    """Return each person's identity, which outlives a name, with the name of now."""
    return {told["ids"].get(user, user): user for user in told["users"]}


def known_homes(path: Path) -> dict[str, Any]:
    """Return what was remembered: `people` ({identity: name}), `locked`, `there` (users who had a home)."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = {}
    return {"people": {}, "locked": [], "there": [], **found}


def differences(before: dict[str, str], now: dict[str, str]) -> tuple[dict[str, str], set[str]]:
    """Return who has another name ({old: new}) and who is gone."""
    moved = {name: now[one] for one, name in before.items() if one in now and now[one] != name}
    return moved, {name for one, name in before.items() if one not in now}


def homes_there(users: Iterable[str], directory: str) -> set[str]:
    """Return the users who have a home, by one look at each domain's directory."""
    domains = {user.partition("@")[2] for user in users}
    found = set()
    for domain in domains:
        with contextlib.suppress(OSError):
            found |= {f"{home.name}@{domain}" for home in Path(directory, domain).iterdir()}
    return found & set(users)


def free_place(directory: str, user: str) -> Path:
    """Return where a home can go aside."""
    domain_local = home_of("", user)
    moment = time.time()
    while (place := Path(directory, DELETED, time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(moment)), domain_local)).exists():
        moment += 1
    for folder in reversed(place.parents):
        if len(folder.parts) > len(Path(directory).parts) and not folder.exists():
            folder.mkdir(mode=0o700)
            shutil.chown(folder, "vmail", "vmail")
    return place


def put_home(home: Path, place: Path) -> None:
    """Give a home another place in one step."""
    if not place.parent.exists():
        place.parent.mkdir(mode=0o700)
        shutil.chown(place.parent, "vmail", "vmail")
    home.replace(place)


def move_homes(moved: dict[str, str], gone: set[str], directory: str) -> None:
    """Bring homes to where their people are; those of nobody go aside."""
    # Names may be exchanged: first all go out of the way of one another.
    waiting = {}
    for old, new in moved.items():
        home = home_of(directory, old)
        if home.exists():
            aside = home.with_name(f".{home.name}.moving")
            home.replace(aside)
            waiting[new] = aside
        elif home.with_name(f".{home.name}.moving").exists():  # cut off the last time
            waiting[new] = home.with_name(f".{home.name}.moving")
    for user in gone:
        home = home_of(directory, user)
        if home.exists():
            put_home(home, free_place(directory, user))
    for new, aside in waiting.items():
        home = home_of(directory, new)
        if home.exists():  # of nobody who is known
            put_home(home, free_place(directory, new))
        put_home(aside, home)


def bring_late(moved: dict[str, str], users: dict[str, str], directory: str) -> None:
    """Bring along what was still being delivered under an old name."""
    for old, new in moved.items():
        home = home_of(directory, old)
        if old in users or not (home / "Maildir").exists():
            continue
        done = subprocess.run(
            ["doveadm", "import", "-u", new, f"maildir:{home / 'Maildir'}", "", "ALL"], capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            shutil.rmtree(home)
        else:
            print(f"{home}: what came late for {new} stays there: {done.stderr.strip()[-200:]}", file=sys.stderr)


def main() -> int:
    """Write the lists, move homes, end sessions that are nobody's any more; print what changed."""
    settings = json.loads(SETTINGS.read_text(encoding="utf-8"))
    RUN.mkdir(mode=0o755, exist_ok=True)
    with (RUN / "people.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        return follow(placement.read(), settings)


def follow(told: dict[str, Any], settings: dict[str, Any]) -> int:
    """Do so, alone."""
    directory, before = settings["directory"], known_homes(HOMES)
    now = identities(told)
    moved, gone = differences(before["people"], now)
    locked = set(told["locked"]) - set(before["locked"])
    end_copies(served_here(told, settings) | set(moved) | gone)
    changed = write_lists(told, settings, frozenset(moved.values()))
    for user in sorted({*moved, *gone, *locked}):
        subprocess.run(["doveadm", "kick", user], capture_output=True, check=False)
    if moved or gone:
        time.sleep(UNDER_WAY_SECONDS)
        move_homes(moved, gone, directory)
    if moved:
        write_lists(told, settings)
        bring_late(moved, told["users"], directory)
    there = sorted(homes_there(told["users"], directory))
    # A home that was there and is gone is not forgotten: a verification names it.
    lost = set(before["there"]) & served_here(told, settings) - set(there)
    text = json.dumps({"people": now, "locked": told["locked"], "there": sorted({*there, *lost})}, sort_keys=True)
    if not HOMES.exists() or HOMES.read_text(encoding="utf-8") != text:
        new = HOMES.with_suffix(".new")
        new.write_text(text, encoding="utf-8")
        new.chmod(0o600)
        new.replace(HOMES)
    if changed:
        print(f"changed: who is served here ({', '.join(changed)})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
