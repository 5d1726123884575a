"""Writes which users this store serves, from the site's list of users and the placement (docs/decisions/0036).

Dovecot looks users up by the service that asks (`%{protocol}`): `doveadm` finds everybody, so that copies can be kept; all others find a
user who is elsewhere now with `tempfail`, so that neither is his mail sent back nor does anybody take him for unknown. The lists lie under
/run: after a boot nobody is served until `mail-standby` has asked the other member of the pair who serves.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, "/usr/local/lib/lemonstand")

import placement

SETTINGS = Path("/etc/lemonstand/mail-standby.json")
USERS = Path("/etc/dovecot/users")
RUN = Path("/run/lemonstand-mail")
PROTOCOLS = ("imap", "imap-urlauth", "imap-urlauth-worker", "submission", "lmtp", "sieve", "managesieve")
KEPT = "kept"
"""What ends the domain of a copy that the relay hands to the standby."""


def whose(line: str) -> str:
    """Return the user a line of Dovecot's list is about."""
    found = re.search(r"\buserdb_user=(\S+)", line)
    return found.group(1) if found else line.partition(":")[0].replace("\\'", "'")


def lines_of(text: str, told: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    """Return Dovecot's list as services other than `doveadm` see it.

    Args:
        text: the list of all users of the site.
        told: the placement.
        settings: `me`, `members` ({store: [host]}), `directory`.
    """
    me, members = settings["me"], settings["members"]
    found = []
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        store = told["users"].get(whose(line), "")
        here = me in members.get(store, ()) and placement.active(told, store) == me
        found.append(line if here else f"{line} userdb_tempfail=yes")
        if me in members.get(store, ()) and len(members[store]) > 1:
            address = line.partition(":")[0]
            local, _, domain = address.replace("\\'", "'").partition("@")
            found.append(f"{address}.{store}.{KEPT}:::::{settings['directory']}/.{KEPT}/{domain}/{local}::")
    return found


def end_copies(served: set[str]) -> None:
    """End what still brings a copy of somebody who is served here now: it would undo what he does when its connection comes to life."""
    for path in RUN.glob("copying-*"):
        user = path.name.removeprefix("copying-")
        if user not in served:
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


def main() -> int:
    """Write the lists; print what changed."""
    settings = json.loads(SETTINGS.read_text(encoding="utf-8"))
    text = USERS.read_text(encoding="utf-8")
    RUN.mkdir(mode=0o755, exist_ok=True)
    lines = lines_of(text, placement.read(), settings)
    here = {whose(line) for line in lines if "userdb_tempfail" not in line and f".{KEPT}:" not in line}
    end_copies(here)
    served = "\n".join(lines) + "\n"
    changed = [name for name in PROTOCOLS if write(RUN / f"users.{name}", served)]
    changed += ["doveadm"] if write(RUN / "users.doveadm", text) else []
    if changed:
        print(f"changed: who is served here ({', '.join(changed)})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
