"""Which store has which user and which host of a pair serves: read from a site's hosts, changed, sealed and handed out (record 0036)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lemonstand.admin.access import Hosts
from lemonstand.admin.users import PROGRAM as DIRECTORY
from lemonstand.errors import InputError, LemonstandError
from lemonstand.site import Site
from lemonstand.site.shipped import filter_plugin, role_program

PYTHON = ("/usr/bin/python3", "-I", "-B")
PLACEMENT = (*PYTHON, "/usr/local/lib/lemonstand/placement.py")
STANDBY = (*PYTHON, "/usr/local/lib/lemonstand/mail_standby.py", "order")


def told_hosts(site: Site) -> list[str]:
    """The hosts that are told who there is and who is served where: those that hold mail, then those that hand it over."""
    return [host.name for group in ("stores", "relays") for host in site.group(group)]


def heard(hosts: Hosts, names: Iterable[str], action: str) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """What some hosts say of what they were told.

    Args:
        action: `show` (all of it) or `summary` (how far).

    Returns:
        By host, and who gave no answer, with the reason.
    """
    found: dict[str, dict[str, Any]] = {}
    unasked: dict[str, str] = {}
    for host, answer in hosts.run_on(list(names), PLACEMENT, json.dumps({"action": action}) + "\n").items():
        if isinstance(answer, LemonstandError):
            unasked[host] = answer.what
        else:
            found[host] = json.loads(answer)
    return found, unasked


def newest(told: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """What counts of what some hosts were told: who serves by the newest generation, who there is by the newest edition."""
    found: dict[str, Any] = filter_plugin("lemonstand").newest_placement(list(told.values()))
    return found


def serving(placement: Mapping[str, Any], store: str) -> str:
    """The host that serves a store's users."""
    return str(placement["active"].get(store, {}).get("host", store))


@dataclass(frozen=True)
class Told:
    """What the hosts of a site were told.

    Args:
        placement: the newest.
        by_host: the generation each host has.
        unasked: hosts that gave no answer, with the reason.
    """

    placement: dict[str, Any] = field(repr=False)
    by_host: dict[str, int]
    unasked: dict[str, str]

    def active(self, store: str) -> str:
        """The host that serves a store's users."""
        return serving(self.placement, store)

    def since(self, store: str) -> int:
        """The generation in which that host began to serve."""
        return int(self.placement["active"].get(store, {}).get("since", 0))

    def users(self, store: str) -> list[str]:
        """The users of a store."""
        return sorted(user for user, place in self.placement["users"].items() if place == store)


class Placement:
    """Reads and changes who is served where.

    Args:
        site: the validated model.
        hosts: a way to its hosts.
        say: is told each step.
    """

    def __init__(self, site: Site, hosts: Hosts, say: Callable[[str], None]) -> None:
        self.site = site
        self.hosts = hosts
        self.say = say

    @property
    def told_hosts(self) -> list[str]:
        """The hosts that are told."""
        return told_hosts(self.site)

    def read(self) -> Told:
        """Asks all of them.

        Raises:
            InputError: the site has one store and no standby.
            LemonstandError: none answers.
        """
        if len(self.site.group("stores")) < 2:
            raise InputError(
                "this site has one store and no standby",
                str(self.site.inventory),
                "add a host to 'stores', with lemonstand_standby_of if it is to be a standby, and apply",
            )
        found, unasked = heard(self.hosts, self.told_hosts, "show")
        if not found:
            raise LemonstandError("no store and no relay can be asked who is served where", ", ".join(unasked), "`lemonstand apply` first")
        return Told(newest(found), {host: int(each["generation"]) for host, each in found.items()}, unasked)

    def next(self, told: Told, *, active: dict[str, str] | None = None, users: dict[str, str] | None = None) -> dict[str, Any]:
        """The placement after a change, with the next generation and the site's seal on who serves.

        Args:
            active: {store: host} that change.
            users: {user: store} that change.
        """
        generation, edition = int(told.placement["generation"]) + 1, int(told.placement["edition"]) + (1 if users else 0)
        serving = {**told.placement["active"], **{store: {"host": host, "since": generation} for store, host in (active or {}).items()}}
        places = {**told.placement["users"], **(users or {})}
        said = {user.name: self.site.store_of(user) for user in self.site.settings.users}
        text = json.dumps({"generation": generation, "active": serving}, sort_keys=True)
        return {
            **told.placement,
            "generation": generation,
            "edition": edition,
            "active": serving,
            "users": places,
            # What the inventory says now is heard with it, of those whom it seeded.
            "said": {**told.placement["said"], **{user: store for user, store in said.items() if user in told.placement["said"]}},
            "sealed": {"text": text, "signature": sealed(self.site, text)},
        }

    def hand_out(self, placement: dict[str, Any], hosts: Iterable[str]) -> dict[str, LemonstandError]:
        """Tells some hosts; returns those that could not be told."""
        given = json.dumps({"action": "put", "placement": placement}) + "\n"
        answers = self.hosts.run_on(list(hosts), PLACEMENT, given)
        return {host: answer for host, answer in answers.items() if isinstance(answer, LemonstandError)}

    def order(self, on: str, /, **order: Any) -> dict[str, Any]:
        """Has a store do something with mailboxes.

        Raises:
            LemonstandError: it can't, and why.
        """
        answer: dict[str, Any] = json.loads(
            self.hosts.run(on, STANDBY, json.dumps(order) + "\n", codes=(0, 1), breathes=True) or '{"error": "no answer"}'
        )
        if "error" in answer:
            raise LemonstandError(f"{on}: {answer['error']}", on, "`lemonstand store list` shows how things stand; then try again")
        return answer

    def place(self, users: dict[str, str], edition: int = 0) -> str:
        """Writes in the directory which host has whose mail; returns the auth host that took it.

        Args:
            edition: what stores and relays are told with it; 0: of the people nothing.

        Raises:
            LemonstandError: none does.
        """
        stores = {user: f"{host}.{self.site.settings.internal_domain}" for user, host in users.items()}
        faults = []
        for host in self.site.group("auths"):
            try:
                said = self.hosts.run(
                    host.name, DIRECTORY, json.dumps({"action": "place", "stores": stores, "edition": edition}) + "\n", codes=(0, 1)
                )
                answer = json.loads(said or '{"error": "no answer"}')
                if "error" not in answer:
                    return host.name
                faults.append(f"{host.name}: {answer['error']}")
            except LemonstandError as fault:
                faults.append(f"{host.name}: {fault.what}")
        raise LemonstandError(
            f"no auth host takes who is where: {'; '.join(faults)}", "auths", "see that one is up, then give the command again: it goes on"
        )

    def flush(self, hosts: Iterable[str]) -> None:
        """Lets relays try again what they hold."""
        self.hosts.run_on(list(hosts), ["postqueue", "-f"])


def sealed(site: Site, text: str) -> str:
    """The signature of the site's CA of hosts, in hexadecimal digits: no host can make one.

    Raises:
        InputError: the key can't be used, or who has it does not sign.
    """
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - loads OpenSSL, for this alone
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey  # noqa: PLC0415

    program = role_program("certificates", "sign_certificates")
    if (signer := site.settings.signer) is not None:
        try:
            return str(program.Signer(list(signer.command), site.settings.pki_dir, check=False).seal(text))
        except program.SignError as fault:
            raise InputError(str(fault), "lemonstand_signer", "then give the command again") from None
    path = site.settings.pki_dir / "hosts" / "ca.key"
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as fault:
        raise InputError(f"the key of the CA of hosts can't be used: {fault}", str(path), "run this where applies are run") from None
    if not isinstance(key, EllipticCurvePrivateKey):
        raise InputError("the key of the CA of hosts is of another kind", str(path), "CAs here have keys of P-256")
    return str(program.seal(key, text))
