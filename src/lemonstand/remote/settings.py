"""Settings of Dovecot and Postfix as their own programs print them, and the durations and sizes in them."""

from __future__ import annotations

import re

from lemonstand.observations import note
from lemonstand.outcomes import Invalid

SECONDS = {"s": 1, "sec": 1, "secs": 1, "second": 1, "seconds": 1, "m": 60, "min": 60, "mins": 60, "minute": 60, "minutes": 60,
           "h": 3600, "hour": 3600, "hours": 3600, "d": 86400, "day": 86400, "days": 86400}  # fmt: skip
BYTES = {"": 1, "B": 1, "k": 1 << 10, "kB": 1 << 10, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def seconds(text: str) -> int:
    """A duration of Dovecot (`29 mins`), Postfix (`300s`) or systemd as seconds; `infinity` and empty are errors.

    Raises:
        Invalid: it is no duration.
    """
    found = re.fullmatch(r"(\d+)\s*([a-z]*)", text.strip())
    if not found or (found.group(2) and found.group(2) not in SECONDS):
        raise Invalid(f"'{text}' is no duration")
    return int(found.group(1)) * SECONDS.get(found.group(2) or "s", 1)


def size(text: str) -> int:
    """A size of Dovecot (`41942016 B`) or Postfix as bytes.

    Raises:
        Invalid: it is no size.
    """
    found = re.fullmatch(r"(\d+)\s*([a-zA-Z]*)", text.strip())
    if not found or found.group(2) not in BYTES:
        raise Invalid(f"'{text}' is no size")
    return int(found.group(1)) * BYTES[found.group(2)]


class Settings:
    """Dovecot's settings as `doveconf -a` prints them: sections as a path, `service imap-login/inet_listener imap/port`.

    Args:
        text: the output.
        special: values as they are within one protocol, by `protocol=imap/name`.
        host: whose they are.
    """

    def __init__(self, text: str, special: dict[str, str], host: str = "") -> None:
        self.host = host
        self.values: dict[str, str] = {}
        self.special = special
        path: list[str] = []
        for raw in text.splitlines():
            line = raw.strip()
            if not line or line.startswith("#"):
                continue
            if line.endswith("{"):
                path.append(line[:-1].strip())
            elif line == "}":
                path.pop()
            else:
                key, _, value = line.partition("=")
                self.values["/".join([*path, key.strip()])] = value.strip()

    def get(self, name: str, protocol: str = "") -> str:
        """A setting's value in force, empty if it has none.

        A section that sets `ssl_server_*` shows it as `ssl_server { … }`: that one counts where both are there.
        """
        if protocol:
            found = self.special.get(f"protocol={protocol}/{name}")
            if found is None:
                raise Invalid(f"doveconf does not show {name} for protocol {protocol}")
            note("setting", self.host, f"doveconf -f protocol={protocol} {name}", found)
            return found
        for group in ("ssl_server", "ssl_client"):
            if name.startswith(group + "_"):
                inner = self.values.get(f"{group}/{name.removeprefix(group + '_')}")
                if inner is not None:
                    note("setting", self.host, f"doveconf {name}", inner)
                    return inner
        if name not in self.values:
            raise Invalid(f"doveconf does not show {name}")
        note("setting", self.host, f"doveconf {name}", self.values[name])
        return self.values[name]

    def section(self, prefix: str) -> dict[str, str]:
        """The settings of a section and those in it, by the rest of their path."""
        return {key.removeprefix(prefix + "/"): value for key, value in self.values.items() if key.startswith(prefix + "/")}

    def sections(self, kind: str) -> list[str]:
        """The names of all sections of a kind: `passdb` gives `["lua"]`."""
        heads = {key.split("/")[0] for key in self.values if key.startswith(kind + " ")}
        return sorted(head.removeprefix(kind + " ") for head in heads)


def pairs(text: str) -> dict[str, str]:
    """Settings in lines of `NAME = VALUE`, as `postconf` prints them."""
    rows = [line.partition("=") for line in text.splitlines() if "=" in line]
    return {key.strip(): value.strip() for key, _, value in rows}
