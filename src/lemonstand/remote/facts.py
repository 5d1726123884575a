"""What was read from a host in one go, with names: settings of services, certificates, sockets, packet filter."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from lemonstand.observations import note
from lemonstand.outcomes import Invalid
from lemonstand.remote.certificates import Certificate
from lemonstand.remote.interfaces import Interfaces, after_boot
from lemonstand.remote.netfilter import Ruleset
from lemonstand.remote.settings import Settings, pairs

LOOPBACK = ("127.", "::1")
ASKED = {
    "nft": "nft -j list ruleset", "listen": "ss -Htln; ss -Huln", "packages": "dpkg-query -W", "tracking": "chronyc -c tracking",
    "units": "systemctl show", "socket_units": "systemctl show *.socket", "scheduled": "systemctl list-timers; cron tables",
    "sysctl_skipped": "cat /run/lemonstand/sysctl-skipped.json", "interfaces": "sysctl net.ipv4.conf net.ipv6.conf",
    "settings_of_boot": "systemd-sysctl --cat-config", "pki": "ls -l /etc/lemonstand/pki", "mounts": "cat /proc/self/mounts",
    "ticket_keys": "ls -l /etc/lemonstand/ticket* /run/ticket-issuer", "sieve": "sievec of a script with all extensions",
    "directory": "cat /var/lib/lemonstand/directory.json",
    "secrets": "grep for private keys, hashes and credentials below /etc /srv /root /home /opt /usr/local /var",
    "mailboxes": "find mailboxes below /srv /home /root /var /opt", "accounts": "getent passwd", "dovecot": "doveconf -a",
    "postfix": "postconf; postconf -M; postconf -P", "issuer_processes": "pgrep -f ticket_issuer:create_app",
}  # fmt: skip
"""Which commands the parts of it stand for, as evidence names them."""
SETTING_SOURCES = {"postfix": "postconf", "unit": "systemctl show"}


@dataclass(frozen=True)
class Socket:
    """A listening socket; `address` is what `ss` shows, such as `0.0.0.0`, `*`, `::`; `program` is empty if it can't be told."""

    protocol: str
    address: str
    port: int
    program: str = ""

    @property
    def is_local(self) -> bool:
        """Whether only this host can reach it."""
        return self.address.startswith(LOOPBACK)

    def hears(self, version: int) -> bool:
        """Whether it takes connections of an IP version from elsewhere. `*` is IPv6's wildcard with IPv4 mapped into it."""
        if self.address == "*":
            return True
        return not self.is_local and ipaddress.ip_address(self.address).version == version


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
    """What was read from one host.

    Args:
        name: the host's inventory name.
        data: what the probe `facts` found.
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
    def interfaces(self) -> Interfaces:
        """Who may tell this host its routes, interface by interface, as it is now."""
        return Interfaces(self.data["interfaces"])

    @property
    def interfaces_after_boot(self) -> Interfaces:
        """The same as the next boot will have it.

        Raises:
            Invalid: what systemd-sysctl is told can't be read.
        """
        told = self.data["settings_of_boot"]
        if told is None:
            raise Invalid(f"{self.name}: systemd-sysctl shows no configuration")
        return after_boot(self._data["interfaces"], told)

    def ssh_server(self, whose: Literal["everybody", "account's"]) -> dict[str, list[str]]:
        """The settings of sshd by keyword, for everybody or for the account the checks come as.

        Raises:
            Invalid: sshd does not take its own configuration.
        """
        told = self._data["ssh"][whose]
        if told is None:
            raise Invalid(f"{self.name}: sshd -T fails")
        found: dict[str, list[str]] = {}
        for line in told.splitlines():
            keyword, _, value = line.partition(" ")
            found.setdefault(keyword, []).append(value)
        return Noting(found, self.name, lambda key: f"sshd -T {key}" if whose == "everybody" else f"sshd -T -C user={self.account} {key}")

    @property
    def account(self) -> str:
        """The account that the checks come as."""
        return str(self._data["ssh"]["account"])

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
        return Noting(pairs(self._postfix()["main"]), self.name, lambda key: f"postconf {key}")

    def postfix_service(self, name: str) -> dict[str, str]:
        """Settings in force for a service such as `smtp/inet`: main.cf with the overrides of master.cf."""
        own = {
            key.removeprefix(name + "/"): value for key, value in pairs(self._postfix()["overrides"]).items() if key.startswith(name + "/")
        }
        return Noting({**pairs(self._postfix()["main"]), **own}, self.name, lambda key: f"postconf {name}/{key}")

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
