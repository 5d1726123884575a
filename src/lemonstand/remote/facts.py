"""What a snapshot says, with names: settings of services, certificates, sockets, packet filter."""

from __future__ import annotations

import ipaddress
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lemonstand.observations import note
from lemonstand.outcomes import Invalid
from lemonstand.remote.netfilter import Ruleset

SECONDS = {"s": 1, "sec": 1, "secs": 1, "second": 1, "seconds": 1, "m": 60, "min": 60, "mins": 60, "minute": 60, "minutes": 60,
           "h": 3600, "hour": 3600, "hours": 3600, "d": 86400, "day": 86400, "days": 86400}  # fmt: skip
BYTES = {"": 1, "B": 1, "k": 1 << 10, "kB": 1 << 10, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
LOOPBACK = ("127.", "::1")
ASKED = {
    "nft": "nft -j list ruleset", "listen": "ss -Htln; ss -Huln", "packages": "dpkg-query -W", "tracking": "chronyc -c tracking",
    "units": "systemctl show", "socket_units": "systemctl show *.socket", "scheduled": "systemctl list-timers; cron tables",
    "sysctl_skipped": "cat /run/lemonstand/sysctl-skipped.json", "pki": "ls -l /etc/lemonstand/pki", "mounts": "cat /proc/self/mounts",
    "ticket_keys": "ls -l /etc/lemonstand/ticket* /run/ticket-issuer", "sieve": "sievec of a script with all extensions",
    "directory": "cat /var/lib/lemonstand/directory.json",
    "secrets": "grep for private keys, hashes and credentials below /etc /srv /root /home /opt /usr/local /var",
    "mailboxes": "find mailboxes below /srv /home /root /var /opt", "accounts": "getent passwd", "dovecot": "doveconf -a",
    "postfix": "postconf; postconf -M; postconf -P", "issuer_processes": "pgrep -f ticket_issuer:create_app",
}  # fmt: skip
"""Which commands the parts of a snapshot stand for, as evidence names them."""
SETTING_SOURCES = {"postfix": "postconf", "unit": "systemctl show"}


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


@dataclass(frozen=True)
class Socket:
    """A listening socket; `address` is what `ss` shows, such as `0.0.0.0`, `*`, `::`."""

    protocol: str
    address: str
    port: int

    @property
    def is_local(self) -> bool:
        """Whether only this host can reach it."""
        return self.address.startswith(LOOPBACK)

    def hears(self, version: int) -> bool:
        """Whether it takes connections of an IP version from elsewhere. `*` is IPv6's wildcard with IPv4 mapped into it."""
        if self.address == "*":
            return True
        return not self.is_local and ipaddress.ip_address(self.address).version == version


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


class Certificate:
    """A certificate on a host.

    Args:
        name: its file without `.crt`.
        pem: its text.
    """

    def __init__(self, name: str, pem: str) -> None:
        self.name = name
        self.x509 = x509.load_pem_x509_certificates(pem.encode())[0]

    @property
    def names(self) -> list[str]:
        """The DNS names it is good for (RFC 6125: the common name counts for nothing)."""
        try:
            found = self.x509.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        except x509.ExtensionNotFound:
            return []
        return found.value.get_values_for_type(x509.DNSName)

    @property
    def uses(self) -> list[str]:
        """`server`, `client`, or the number of another extended use."""
        known = {ExtendedKeyUsageOID.SERVER_AUTH: "server", ExtendedKeyUsageOID.CLIENT_AUTH: "client"}
        try:
            found = self.x509.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
        except x509.ExtensionNotFound:
            return []
        return sorted(known.get(use, use.dotted_string) for use in found.value)

    @property
    def public_key(self) -> str:
        """Its public key as PEM."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.x509.public_key().public_bytes(serialization.Encoding.PEM, form).decode()

    def signed_by(self, authority: Certificate) -> bool:
        """Whether a CA signed it."""
        try:
            self.x509.verify_directly_issued_by(authority.x509)
        except Exception:  # any reason is a no; cryptography has several
            return False
        return True

    @property
    def sha256(self) -> str:
        """Its fingerprint, in hexadecimal digits."""
        return self.x509.fingerprint(hashes.SHA256()).hex()

    @property
    def signer(self) -> str:
        """The name of who signed it."""
        names = self.x509.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(names[0].value) if names else self.x509.issuer.rfc4514_string()

    def days_left_now(self) -> float:
        """Days until it ends, by this machine's clock."""
        return self.days_left(time.time())

    def days_left(self, now: float) -> float:
        """Days until it ends."""
        return (self.x509.not_valid_after_utc.timestamp() - now) / 86400


class Noting(dict[str, Any]):
    """A dictionary whose readers are noted: what they asked is part of the evidence.

    Args:
        data: its content.
        host: whose it is.
        name: gives the question for a key, or nothing if it is not worth a note.
    """

    def __init__(self, data: dict[str, Any], host: str, name: Callable[[str], str]) -> None:
        super().__init__(data)
        self._host, self._name = host, name

    def __getitem__(self, key: str) -> Any:
        value = super().__getitem__(key)
        question = self._name(key)
        if question:
            note("setting" if question.split()[0] in SETTING_SOURCES.values() else "command", self._host, question, value)
        return value

    def get(self, key: str, default: Any = None) -> Any:
        """As of any dictionary."""
        return self[key] if key in self else default  # noqa: SIM401 - this is get


class Facts:
    """One host's snapshot.

    Args:
        name: the host's inventory name.
        data: what `snapshot.py` printed.
    """

    def __init__(self, name: str, data: dict[str, Any]) -> None:
        self.name = name
        self.data = Noting(data, name, lambda key: ASKED.get(key, ""))
        self._data = data

    @property
    def in_container(self) -> bool:
        """Whether the host shares a kernel with others."""
        return str(self._data["virtualization"]) != "none"

    def sysctl(self, name: str) -> int:
        """A kernel setting as it is in the host's network namespace.

        Raises:
            Invalid: the kernel has none of this name.
        """
        if name not in self._data["sysctl"]:
            raise Invalid(f"{self.name}: the kernel shows no {name}")
        value = int(self._data["sysctl"][name])
        note("setting", self.name, f"sysctl {name}", value)
        return value

    @property
    def rules(self) -> Ruleset:
        """Its packet filter.

        Raises:
            Invalid: it can't be read.
        """
        found = self._ruleset
        note("command", self.name, ASKED["nft"], self._rules_told)
        return found

    @cached_property
    def _ruleset(self) -> Ruleset:
        if self._data["nft"] is None:
            raise Invalid(f"{self.name}: nft lists no rules")
        return Ruleset(self._data["nft"])

    @cached_property
    def _rules_told(self) -> str:
        kinds = Counter(kind for entry in self._data["nft"] for kind in entry if kind != "metainfo")
        return ", ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in sorted(kinds.items()))

    @property
    def sockets(self) -> list[Socket]:
        """Everything that listens."""
        found = [Socket(**entry) for entry in self._data["listen"]]
        note("command", self.name, ASKED["listen"], " ".join(f"{each.protocol} {each.address}:{each.port}" for each in found))
        return found

    def unit(self, name: str) -> dict[str, str]:
        """The properties of a service.

        Raises:
            Invalid: there is no such service.
        """
        found = self._data["units"].get(f"{name}.service")
        if found is None:
            raise Invalid(f"{self.name}: there is no {name}.service")
        return Noting(found, self.name, lambda key: f"systemctl show {name} -p {key}")

    @cached_property
    def dovecot(self) -> Settings:
        """Dovecot's settings.

        Raises:
            Invalid: there is no Dovecot, or its configuration is broken.
        """
        found = self._data["dovecot"]
        if not found or not found["all"]:
            raise Invalid(f"{self.name}: doveconf shows nothing")
        return Settings(found["all"], found["special"], self.name)

    @property
    def postfix(self) -> dict[str, str]:
        """Postfix's settings in main.cf, defaults included."""
        return Noting(_pairs(self._postfix()["main"]), self.name, lambda key: f"postconf {key}")

    @property
    def postfix_services(self) -> dict[str, list[str]]:
        """The lines of master.cf by `name/type`, as words."""
        rows = [line.split() for line in self._postfix()["services"].splitlines() if line.strip()]
        return {f"{row[0]}/{row[1]}": row for row in rows}

    def postfix_service(self, name: str) -> dict[str, str]:
        """Settings in force for a service such as `smtp/inet`: main.cf with the overrides of master.cf."""
        own = {
            key.removeprefix(name + "/"): value for key, value in _pairs(self._postfix()["overrides"]).items() if key.startswith(name + "/")
        }
        return Noting({**_pairs(self._postfix()["main"]), **own}, self.name, lambda key: f"postconf {name}/{key}")

    def _postfix(self) -> dict[str, str]:
        found = self._data["postfix"]
        if not found:
            raise Invalid(f"{self.name}: postconf shows nothing")
        return dict(found)

    def text(self, path: str) -> str:
        """A configuration file's text.

        Raises:
            Invalid: it isn't there.
        """
        if path not in self._data["texts"]:
            raise Invalid(f"{self.name}: there is no {path}")
        text = str(self._data["texts"][path])
        note("command", self.name, f"cat {path}", text)
        return text

    def certificates(self) -> dict[str, Certificate]:
        """The certificates below /etc/lemonstand/pki that belong to a key, by name."""
        found = {
            name.removesuffix(".crt"): Certificate(name.removesuffix(".crt"), entry["pem"])
            for name, entry in self._data["pki"].items()
            if name.endswith(".crt") and not name.startswith("ca-")
        }
        for name, each in found.items():
            note("command", self.name, f"openssl x509 -in /etc/lemonstand/pki/{name}.crt", f"{' '.join(each.names)}; {' '.join(each.uses)}")
        return found

    def authority(self, name: str) -> Certificate | None:
        """A CA this host trusts, by the CA's name."""
        entry = self._data["pki"].get(f"ca-{name}.crt")
        return Certificate(name, entry["pem"]) if entry else None


def _pairs(text: str) -> dict[str, str]:
    rows = [line.partition("=") for line in text.splitlines() if "=" in line]
    return {key.strip(): value.strip() for key, _, value in rows}
