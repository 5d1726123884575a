"""Moves the CAs of a directory to `retired/TIME` below it, so that new ones are made in their place. Argument: the directory."""

import datetime
import fcntl
import sys
from pathlib import Path

root = Path(sys.argv[1]).expanduser()
if root.is_dir():
    # The lock of sign_certificates.py: nobody signs meanwhile.
    with (root / ".lock").open("w", encoding="ascii") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        target = root / "retired" / datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        for folder in sorted(root.iterdir()):
            if folder.is_dir() and folder.name != "retired" and any((folder / name).exists() for name in ("ca.crt", "ca.key")):
                target.mkdir(mode=0o700, parents=True, exist_ok=True)
                folder.rename(target / folder.name)
                print(f"changed: {folder} is in {target} now")
        (root / "rotation.json").unlink(missing_ok=True)  # whatever was changed one after the other is changed at once now
