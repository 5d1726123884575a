"""What would stop a run or undo it is named by the hosts first: filters and units of others, lost CAs, a kernel without IPv6."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lemonstand.paths import lab_dir

from .conftest import Command
from .test_families import one_version

pytestmark = pytest.mark.long

DOCKER = "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }"
NO_IPV6 = "/run/systemd/system/service.d/no-ipv6.conf"
"""For every service, sshd among them, what a kernel with ipv6.disable=1 does: socket(AF_INET6) fails with EAFNOSUPPORT."""


def test_docker_on_an_edge_is_named(deployed: str, lemonstand: Command, on: Callable[..., str]) -> None:
    on("edge", "nft", f"'{DOCKER}'")
    try:
        for command in ("plan", "apply"):
            said = lemonstand(command, "--lab", deployed, code=1).stdout
            assert "a table 'ip filter' of somebody else: chain FORWARD (hook forward, priority 0) drops what it does not accept" in said
            assert "`nft delete table ip filter`" in said
    finally:
        on("edge", "nft", "delete", "table", "ip", "filter")
    lemonstand("plan", "--lab", deployed)


def test_a_restart_of_debians_unit_flushes_nothing(deployed: str, lemonstand: Command, on: Callable[..., str]) -> None:
    before = on("relay", "nft", "--stateless", "list", "table", "inet", "lemonstand")
    on("relay", "systemctl", "restart", "nftables", code=1)
    assert on("relay", "nft", "--stateless", "list", "table", "inet", "lemonstand") == before
    on("relay", "systemctl", "unmask", "--quiet", "nftables")
    assert "mask nftables.service" in lemonstand("plan", "--lab", deployed).stdout
    lemonstand("apply", "--lab", deployed, "--limit", "relay")
    assert on("relay", "systemctl", "is-enabled", "nftables", code=1).strip() == "masked"


@pytest.fixture
def lost(deployed: str) -> Iterator[Path]:
    """The lab's CAs, moved away; back again afterwards."""
    pki, away = lab_dir(deployed) / "pki", lab_dir(deployed) / "pki-away"
    pki.rename(away)
    yield away
    if away.exists():
        assert not pki.exists(), "nothing was made in its place"
        away.rename(pki)


def test_lost_cas_are_named_and_nothing_is_made(deployed: str, lemonstand: Command, lost: Path) -> None:
    for command in (["plan"], ["apply", "--limit", "store"], ["certificates", "renew"]):
        said = lemonstand(*command, "--lab", deployed, code=1).stdout
        assert "trusts the CA 'store-clients'" in said and "restore it from its backup" in said
        assert not (lab_dir(deployed) / "pki").exists()


def test_new_cas_where_they_are_wanted(deployed: str, lemonstand: Command, lost: Path) -> None:
    lemonstand("certificates", "renew", "--lab", deployed, "--new-authorities")
    assert (lab_dir(deployed) / "pki" / "hosts" / "ca.crt").read_bytes() != (lost / "hosts" / "ca.crt").read_bytes()
    lost.rename(lost.with_name("pki-before"))
    lemonstand("apply", "--lab", deployed)
    lemonstand("mail", "send", "--lab", deployed, "--from", "alice@lemon.test", "--to", "bob@lemon.test", "--subject", "by new CAs")


@pytest.fixture
def without_ipv6(deployed: str, on: Callable[..., str]) -> Iterator[str]:
    """The store's services, sshd among them, on a kernel that makes no IPv6 sockets."""
    script = f"mkdir -p $(dirname {NO_IPV6}) && printf '[Service]\\nRestrictAddressFamilies=~AF_INET6\\n' >{NO_IPV6}"
    on("store", f"{script} && systemctl daemon-reload && systemctl restart ssh")
    _leave(deployed)
    yield "store"
    on("store", f"rm {NO_IPV6} && systemctl daemon-reload && systemctl restart ssh")
    _leave(deployed)


def _leave(name: str) -> None:
    """Ends the controller's open connections: their shells keep the kernel they were started with."""
    from lemonstand.lab.keeping import close_connections  # noqa: PLC0415 - what a restore does as well

    close_connections(name)


def test_a_kernel_without_ipv6_is_named_or_enough(
    deployed: str, lemonstand: Command, on: Callable[..., str], without_ipv6: str, tmp_path: Path
) -> None:
    said = lemonstand("plan", "--lab", deployed, code=1).stdout
    assert "the kernel has no IPv6, and the site gives this host" in said
    inventory = one_version(4, tmp_path / "site")
    for path in (inventory / "hosts.yml", inventory / "group_vars" / "all" / "site.yml"):
        # A host without IPv6 has none in the management zone either.
        text = re.sub(r'(management: \{.*), ipv6: "[^"]*"', r"\1", path.read_text(encoding="utf-8"))
        path.write_text(text, encoding="utf-8")
    try:
        on(without_ipv6, "systemctl", "restart", "dovecot", code=1)
        lemonstand("apply", "--lab", deployed, "-i", str(inventory), "--limit", "all:!peers")
        assert on(without_ipv6, "systemctl", "is-active", "dovecot").strip() == "active"
    finally:
        lemonstand("apply", "--lab", deployed)
