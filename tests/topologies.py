"""Sites as people have them: the shipped lab, changed where they differ."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import shipped_lab

Change = Callable[[str], str]
DMZ_CLOCKS = re.compile(r'lemonstand_ntp_servers: \["\{\{ lab4 \}\}\.2\.1"\]')
INNER_CLOCKS = re.compile(r'lemonstand_ntp_servers: \["\{\{ lab4 \}\}\.[34]\.1"\]')


def _same(text: str) -> str:
    return text


def _without_edge(hosts: str) -> str:
    """An appliance of somebody else's stands between the zones, and tells nobody the time: a lab's clocks are its machine's."""
    hosts = re.sub(r"    edges:\n(?:      .*\n)+", "", hosts)
    return INNER_CLOCKS.sub("lemonstand_ntp_servers: []", DMZ_CLOCKS.sub('lemonstand_ntp_servers: ["{{ lab4 }}.1.25"]', hosts))


def _without_ipv6(text: str) -> str:
    return re.sub(r', (?:ipv6: "[^"]*"|"\{\{ lab6 \}\}[^"]*")', "", text)


def _hosts_without_ipv4(hosts: str) -> str:
    """Management keeps its IPv4 network: it is the controller's."""
    hosts = re.sub(r'((?:internet|dmz|auth|store): \{device: \w+), ipv4: "[^"]*"', r"\1", hosts)
    hosts = re.sub(r'\["\{\{ lab4 \}\}\.(\d)\.(\d+)"\]', r'["{{ lab6 }}:\1::\2"]', hosts)
    return hosts.replace("[lab4 ~ '.1.25']", "[lab6 ~ ':1::25']")


def _site_without_ipv4(site: str) -> str:
    site = re.sub(r"((?:internet|dmz|auth|store): \{)ipv4: \"[^\"]*\", ", r"\1", site)
    return re.sub(r"lemonstand_public_ipv4:.*\n", "", site)


def _with_routes(site: str) -> str:
    """The DMZ has addresses of its own on the Internet."""
    return re.sub(r"lemonstand_public_ipv4:.*\n", "lemonstand_routed_ipv4: true\n", site)


TOPOLOGIES: dict[str, tuple[Change, Change]] = {
    "no edge but an appliance": (_without_edge, _same),
    "IPv4 only": (_without_ipv6, _without_ipv6),
    "IPv6 only": (_hosts_without_ipv4, _site_without_ipv4),
    "a routed DMZ": (_same, _with_routes),
    "a routed DMZ behind an appliance": (_without_edge, _with_routes),
}
"""What becomes of `hosts.yml` and of `site.yml`."""


def write(kind: str, folder: Path) -> Path:
    """Writes the inventory of a topology; returns it."""
    hosts, site = TOPOLOGIES[kind]
    shutil.copytree(shipped_lab.ROOT / "lab", folder)
    for name, change in (("hosts.yml", hosts), ("group_vars/all/site.yml", site)):
        path = folder / name
        before = path.read_text(encoding="utf-8")
        after = change(before)
        assert change is _same or after != before, f"{kind}: {name} is what it was"
        path.write_text(after, encoding="utf-8")
    return folder
