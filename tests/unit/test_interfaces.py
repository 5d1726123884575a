"""What the settings of interfaces come to: as the kernel combines them, now and after a boot."""

from __future__ import annotations

from typing import Any

import pytest

from lemonstand.remote.interfaces import Interfaces, after_boot

SHUT = {
    "ipv4": dict.fromkeys(
        ("forwarding", "accept_redirects", "secure_redirects", "send_redirects", "accept_source_route", "log_martians"), 0
    ),
    "ipv6": dict.fromkeys(("forwarding", "accept_redirects", "accept_source_route", "accept_ra"), 0),
}


def values(**changes: int) -> dict[str, dict[str, dict[str, int]]]:
    """All shut, but for `VERSION__DEVICE__SETTING`."""
    found: Any = {version: {device: dict(settings) for device in ("all", "default", "eth0")} for version, settings in SHUT.items()}
    for name, value in changes.items():
        version, device, setting = name.split("__")
        found[version][device][setting] = value
    return dict(found)


def opened(**changes: int) -> set[str]:
    interfaces = Interfaces(values(**changes))
    return {f"{device} {name}" for version, device in interfaces.devices() for name, on in interfaces.open(version, device).items() if on}


def test_what_is_shut_is_shut() -> None:
    assert opened() == set()


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        # A host takes redirects where either says so, a router where both do.
        ({"ipv4__eth0__accept_redirects": 1}, {"eth0 accept_redirects"}),
        ({"ipv4__all__accept_redirects": 1}, {"eth0 accept_redirects", "default accept_redirects"}),
        ({"ipv4__eth0__accept_redirects": 1, "ipv4__eth0__forwarding": 1}, set()),
        ({"ipv4__eth0__accept_redirects": 1, "ipv4__all__accept_redirects": 1, "ipv4__eth0__forwarding": 1, "ipv4__default__forwarding": 1},
         {"eth0 accept_redirects"}),
        ({"ipv4__default__accept_redirects": 1}, {"default accept_redirects"}),
        ({"ipv4__eth0__send_redirects": 1}, {"eth0 send_redirects"}),
        ({"ipv4__eth0__accept_source_route": 1}, set()),
        ({"ipv4__eth0__accept_source_route": 1, "ipv4__all__accept_source_route": 1}, {"eth0 accept_source_route"}),
        # By IPv6 the interface's own counts, and `all` for nothing.
        ({"ipv6__all__accept_redirects": 1}, set()),
        ({"ipv6__eth0__accept_redirects": 1}, {"eth0 accept_redirects"}),
        ({"ipv6__eth0__accept_redirects": 1, "ipv6__eth0__forwarding": 1}, set()),
        ({"ipv6__eth0__accept_ra": 1}, {"eth0 accept_ra"}),
        ({"ipv6__eth0__accept_ra": 1, "ipv6__eth0__forwarding": 1}, set()),
        ({"ipv6__eth0__accept_ra": 2, "ipv6__eth0__forwarding": 1}, {"eth0 accept_ra"}),
        ({"ipv6__eth0__accept_source_route": 1, "ipv6__all__accept_source_route": 1}, {"eth0 accept_source_route"}),
    ],
)  # fmt: skip
def test_settings_combine_as_in_the_kernel(changes: dict[str, int], found: set[str]) -> None:
    assert opened(**changes) == found


OURS = [
    ["net/ipv4/conf/*/accept_redirects", "0"], ["net/ipv4/conf/*/send_redirects", "0"], ["net/ipv4/conf/*/accept_source_route", "0"],
    ["net/ipv6/conf/*/accept_redirects", "0"], ["net/ipv6/conf/*/accept_ra", "0"],
]  # fmt: skip


def after(told: list[list[str]]) -> set[str]:
    interfaces = after_boot(values(), told)
    return {f"{device} {name}" for version, device in interfaces.devices() for name, on in interfaces.open(version, device).items() if on}


def test_the_role_s_patterns_shut_all() -> None:
    assert after(OURS) == set()


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ([], {f"{device} {name}" for device in ("default", "eth0") for name in ("accept_redirects", "send_redirects", "accept_ra")}),
        ([*OURS, ["net/ipv6/conf/eth0/accept_ra", "1"]], {"eth0 accept_ra"}),
        ([["net/ipv6/conf/eth0/accept_ra", "1"], *OURS], {"eth0 accept_ra"}),
        ([*OURS, ["net/ipv6/conf/*/accept_ra", "1"]], {"eth0 accept_ra", "default accept_ra"}),
        ([["net/ipv6/conf/*/accept_ra", "1"], *OURS], set()),
        ([*OURS, ["net/ipv6/conf/eth*/accept_ra", "1"]], {"eth0 accept_ra"}),
        # Never by a pattern: then the kernel's own.
        ([*OURS, ["net/ipv6/conf/eth0/accept_ra", ""]], {"eth0 accept_ra"}),
    ],
)
def test_a_boot_reads_names_before_patterns_and_the_later_one(told: list[list[str]], found: set[str]) -> None:
    assert after(told) == found
