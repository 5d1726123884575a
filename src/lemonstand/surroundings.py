"""What programs of ours are started with: an allow list of variables, one locale, nothing of the caller's habits (docs/decisions/0024)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from lemonstand.errors import InputError
from lemonstand.paths import state_dir
from lemonstand.survey import files, read_text

KEPT = frozenset(
    {
        # who and where
        "HOME", "USER", "LOGNAME", "SHELL", "PATH", "TMPDIR", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME",
        "XDG_DATA_HOME",
        # how a terminal is drawn on
        "TERM", "COLORTERM", "COLUMNS", "LINES", "NO_COLOR",
        # keys that an agent holds; Kerberos
        "SSH_AUTH_SOCK", "KRB5CCNAME",
        # the way out, for lookups
        "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR",
        # where programs that know the vault's password find it
        "GNUPGHOME", "GPG_TTY", "PASSWORD_STORE_DIR", "PASSWORD_STORE_GPG_OPTS", "DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "WAYLAND_DISPLAY",
        "XAUTHORITY", "BW_SESSION", "VAULT_ADDR", "VAULT_TOKEN", "VAULT_NAMESPACE", "VAULT_CACERT",
        # systemd's, for what runs as its service
        "NOTIFY_SOCKET", "INVOCATION_ID",
    }
)  # fmt: skip
"""Variables that are handed on as they are, beside LEMONSTAND_*."""

PASSWORD_FILES = ("ANSIBLE_VAULT_PASSWORD_FILE", "ANSIBLE_VAULT_IDENTITY_LIST", "ANSIBLE_BECOME_PASSWORD_FILE")
"""What of ANSIBLE_* is handed on: it names files, and changes the meaning of nothing."""

REACH = re.compile(
    r"ANSIBLE_(REMOTE_USER|REMOTE_PORT|PRIVATE_KEY_FILE|BECOME(_METHOD|_USER|_EXE|_FLAGS)?|SSH_(ARGS|COMMON_ARGS|EXTRA_ARGS|EXECUTABLE)"
    r"|CONNECTION_PASSWORD_FILE|TRANSPORT|COLLECTIONS_PATHS?)\Z"
)
"""What somebody may count on: told that it does not count."""

MORE = "LEMONSTAND_PASS_ENVIRONMENT"
LOCALE = "C.UTF-8"
LOOKUP = re.compile(r"""env['"]?\s*,\s*['"]([A-Za-z_][A-Za-z0-9_]*)['"]""")
"""How an inventory asks for a variable: `lookup('ansible.builtin.env', 'NAME')`."""
NEVER = re.compile(r"(ANSIBLE_|PYTHON|LD_|LC_|LANG\Z|LANGUAGE\Z|PYTEST|BASH_ENV\Z|ENV\Z)")
"""What not even an inventory can have handed on: it changes what programs mean."""


def environment(extra: Mapping[str, str] | None = None, inventory: Path | None = None) -> dict[str, str]:
    """The whole environment for a program of ours.

    Args:
        extra: variables that are set beside the allowed ones, whatever their names.
        inventory: the site's directory or hosts file: variables that it looks up are handed on.
    """
    own = os.environ
    wanted = {name for name in re.split(r"[,\s]+", own.get(MORE, "")) if name}
    wanted |= set(_asked_for(inventory)) if inventory is not None else set()
    names = KEPT | {name for name in wanted if not NEVER.match(name)}
    found = {name: value for name, value in own.items() if name in names or name.startswith("LEMONSTAND_")}
    if not Path(found.get("TMPDIR", "/tmp")).is_dir():  # noqa: S108 - only asked whether it is there
        del found["TMPDIR"]
    for name in PASSWORD_FILES:
        if own.get(name):
            found[name] = _absolute(own[name])
    # Ansible of our own environment, whether or not that was activated in this shell.
    found["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{own.get('PATH') or os.defpath}"
    # Ansible keeps temporary files there, also where the home directory can't be written.
    found |= {"LANG": LOCALE, "LC_ALL": LOCALE, "ANSIBLE_HOME": str(state_dir() / "ansible"), "PYDANTIC_DISABLE_PLUGINS": "__all__"}
    if own.get("PYTHONPATH"):  # of a copy that was not installed, the way to itself
        found["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
    return {**found, **(extra or {})}


def end_with_parent() -> None:
    """For a child, before it becomes a program: it is interrupted when whoever started it is gone, however that ended (`prctl(2)`)."""
    ctypes.CDLL(None).prctl(1, signal.SIGINT)


def ignored() -> list[str]:
    """Variables of the caller that say how hosts are reached, and that runs don't take from there."""
    return sorted(name for name in os.environ if REACH.match(name))


def _absolute(value: str) -> str:
    """Paths in a list of password files, also those behind `LABEL@`, independent of where a program is started."""
    words = []
    for word in value.split(","):
        label, found, path = word.strip().rpartition("@")
        plain = path.startswith(("prompt", "/"))
        words.append(f"{label}{found}{path if plain else Path(path).expanduser().absolute()}")
    return ",".join(words)


def _asked_for(inventory: Path) -> Iterator[str]:
    """The names of variables that an inventory's files look up."""
    for path in files(inventory):
        if path.suffix in {"", ".yml", ".yaml", ".json", ".ini"} and path.is_file():
            with contextlib.suppress(InputError):
                yield from LOOKUP.findall(read_text(path))
