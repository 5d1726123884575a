"""Which files an inventory is made of: whoever has judged them says so by their digest, so that the play need not judge them again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path


def fingerprint(sources: Iterable[str | Path]) -> str:
    """A digest of the names and texts of all files of an inventory (SHA-256, hexadecimal digits).

    Empty where files don't say it all, so that nothing is equal to it: a program makes the inventory, a part of it lies elsewhere (a link),
    it is a list of hosts on the command line, or a file can't be read.

    Args:
        sources: directories or hosts files, as Ansible is given them.
    """
    total = hashlib.sha256()
    try:
        for source in map(Path, sources):
            if not source.exists():
                return ""
            # A hosts file is read with the variables beside it.
            parts = [source] if source.is_dir() else [source, source.with_name("group_vars"), source.with_name("host_vars")]
            for path in (path for part in parts for path in [part, *sorted(part.rglob("*"))] if path.exists() or path.is_symlink()):
                if path.is_symlink() or (path.is_file() and os.access(path, os.X_OK)):
                    return ""
                text = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "directory"
                total.update(f"{path.relative_to(source.parent)}\0{text}\0".encode())
    except OSError:
        return ""
    return total.hexdigest()


class FilterModule:
    """Announces the filter to Ansible."""

    def filters(self) -> dict[str, Callable[..., str]]:
        """Names and functions."""
        return {"lemonstand_fingerprint": fingerprint}
