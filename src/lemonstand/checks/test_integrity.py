"""Each host is what apply would write, what its packages brought and what the site declares: nothing else, nothing less."""

from __future__ import annotations

import pytest

from lemonstand.checks.background import measurement
from lemonstand.checks.conftest import Measure
from lemonstand.integrity import KINDS, Integrity, read_integrity
from lemonstand.measure import Vantage
from lemonstand.outcomes import expect

pytestmark = pytest.mark.answer("configuration")


@measurement(waits=True)
def integrity(vantage: Vantage) -> Integrity:
    """What lies and runs on every host, compared with what should; read in one go."""
    return read_integrity(vantage.site, vantage.prober)


def nothing_found(integrity: Integrity, host: str, kind: str, measure: Measure) -> None:
    """Ends the check unless nothing of a kind was found on a host; every discrepancy has a line of its own, and so has its remedy."""
    found = integrity.of(host, kind)
    measure("discrepancies", len(found))
    measure("declared by the site", sum(each.startswith(f"{kind} ") for each in integrity.declared[host]))
    expect(
        not found,
        f"not so: {KINDS[kind]}",
        seen="\n".join(map(str, found)),
        expected="\n".join(f"{each.item}: {each.wanted}" for each in found),
        remedy="\n".join(dict.fromkeys(each.remedy for each in found)),
    )


@pytest.mark.control("INT-01")
def test_files_are_as_apply_writes_them(integrity: Integrity, node: str, measure: Measure) -> None:
    """Text, owner, group and mode of each file of each role, against the manifest made on the controller now."""
    if node in integrity.cpu:
        measure("CPU of the host for the reading", integrity.cpu[node], "s")
    nothing_found(integrity, node, "own-files", measure)


@pytest.mark.control("INT-02")
def test_packages_are_as_the_archive_has_them(integrity: Integrity, node: str, measure: Measure) -> None:
    """Each file of each package against its hash, each package's hashes against other hosts'; no holds, no unsigned archives."""
    nothing_found(integrity, node, "packages", measure)


@pytest.mark.control("INT-03")
def test_every_file_was_brought_by_somebody(integrity: Integrity, node: str, measure: Measure) -> None:
    """Where programs and settings are read from there is no file that no package, role or installer brought."""
    nothing_found(integrity, node, "files", measure)


@pytest.mark.control("INT-03")
def test_units_start_as_asked_for(integrity: Integrity, node: str, measure: Measure) -> None:
    """No unit is enabled, masked or started by hand beside those known; all of ours start with the host."""
    nothing_found(integrity, node, "units", measure)


@pytest.mark.control("INT-03")
def test_sockets_belong_to_known_units(integrity: Integrity, node: str, measure: Measure) -> None:
    """Each socket that listens, and each raw one, is held by a unit that is meant to."""
    nothing_found(integrity, node, "sockets", measure)


@pytest.mark.control("INT-03")
def test_processes_run_programs_of_packages(integrity: Integrity, node: str, measure: Measure) -> None:
    """No process runs a program or library that no package brought, or outlived the login that started it."""
    nothing_found(integrity, node, "processes", measure)


@pytest.mark.control("INT-03")
@pytest.mark.supports("INT-01")
def test_nothing_is_mounted_over_files(integrity: Integrity, node: str, measure: Measure) -> None:
    """What was compared is what programs see."""
    nothing_found(integrity, node, "mounts", measure)


@pytest.mark.control("INT-04")
def test_accounts_are_those_of_the_site(integrity: Integrity, node: str, measure: Measure) -> None:
    """Accounts, their shells, passwords, groups and SSH keys, and how PAM decides."""
    nothing_found(integrity, node, "accounts", measure)


@pytest.mark.control("INT-05")
def test_keys_are_the_sites_own(integrity: Integrity, node: str, measure: Measure) -> None:
    """Ticket keys against the issuers' own, CAs that the system trusts against their package."""
    nothing_found(integrity, node, "keys", measure)


@pytest.mark.control("INT-05")
@pytest.mark.supports("INT-03")
def test_no_copy_lies_about(integrity: Integrity, node: str, measure: Measure) -> None:
    """No key, mailbox or directory that others can read, and no program with others' rights, where data lies."""
    nothing_found(integrity, node, "copies", measure)


@pytest.mark.control("INT-06")
def test_only_our_rules_decide_about_packets(integrity: Integrity, node: str, measure: Measure) -> None:
    """No table beside ours in any family, none of iptables' old ones, no filter or program at an interface."""
    nothing_found(integrity, node, "filters", measure)


@pytest.mark.control("INT-06")
def test_packets_take_the_sites_ways(integrity: Integrity, node: str, measure: Measure) -> None:
    """Routes, rules, links, addresses and neighbours of both IP versions are those of the inventory."""
    nothing_found(integrity, node, "routes", measure)


@pytest.mark.control("INT-06")
def test_kernel_settings_are_in_force(integrity: Integrity, node: str, measure: Measure) -> None:
    """What the role wrote is so, other settings that let a host do more are as Debian has them, for each interface."""
    nothing_found(integrity, node, "kernel", measure)


@pytest.mark.control("INT-07")
def test_what_happens_is_logged(integrity: Integrity, node: str, measure: Measure) -> None:
    """The journal keeps what services say, and no unit is silenced."""
    nothing_found(integrity, node, "logs", measure)


@pytest.mark.control("INT-07")
def test_the_clock_asks_whom_it_should(integrity: Integrity, node: str, measure: Measure) -> None:
    """The sources the time service asks are those of its configuration."""
    nothing_found(integrity, node, "clock", measure)
