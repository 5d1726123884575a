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


def _with_one_card(hosts: str) -> str:
    """Whoever has no business in several zones has one card, and is managed by it."""
    home = r"            (?:dmz|auth|store): \{device: \w+, ipv4: (\"[^\"]*\")[^\n]*\n"
    block = rf"ansible_host: \"[^\"]*\"\n(          lemonstand_interfaces:\n{home})            management: [^\n]*\n"
    return re.sub(block, r"ansible_host: \2\n\1", hosts)


JUMP = "{{ lab4 }}.5.30"
BY_COMMAND = f"""'ProxyCommand=ssh -F {{{{ lab_dir }}}}/ssh/config -W %h:%p {JUMP}'"""


def _jump_host(hosts: str) -> str:
    """The controller's SSH goes through a machine that the site does not manage: ProxyJump is everybody's way, ProxyCommand the store's."""
    hosts = hosts.replace(
        "        store:\n", f'        store:\n          ansible_ssh_common_args: "-F {{{{ lab_dir }}}}/ssh/config -o {BY_COMMAND}"\n'
    )
    return (
        hosts
        + f"""    jumphosts:
      hosts:
        bastion:
          ansible_host: "{JUMP}"
          ansible_ssh_common_args: "-F {{{{ lab_dir }}}}/ssh/config"
          lemonstand_interfaces:
            management: {{device: mgmt0, ipv4: "{JUMP}", ipv6: "{{{{ lab6 }}}}:5::30"}}
"""
    )


def _by_jump_host(site: str) -> str:
    site = site.replace('lemonstand_controllers: ["{{ lab4 }}.5.254"]', f'lemonstand_controllers: ["{JUMP}"]')
    return site.replace('ssh/config"\n', f'ssh/config -o ProxyJump={JUMP}"\n')


def _in_two_networks(hosts: str) -> str:
    """Relays stand in a network of their own within the DMZ, and the edge in both."""
    dmz = r'(            dmz: \{device: dmz0, ipv4: "\{\{ lab4 \}\}.2.1", ipv6: "\{\{ lab6 \}\}:2::1")'
    hosts = re.sub(dmz, r'\1, more: ["{{ lab4 }}.2.129", "{{ lab6 }}:2:8000::1"]', hosts)
    relay = 'dmz: {device: dmz0, ipv4: "{{ lab4 }}.2.20", ipv6: "{{ lab6 }}:2::20"}'
    before, _, after = hosts.partition(relay)
    return before + 'dmz: {device: dmz0, ipv4: "{{ lab4 }}.2.140", ipv6: "{{ lab6 }}:2:8000::140"}' + after.replace('.2.1"]', '.2.129"]', 1)


def _two_networks(site: str) -> str:
    one = 'dmz: {ipv4: "{{ lab4 }}.2.0/24", ipv6: "{{ lab6 }}:2::/64"}'
    both = 'dmz: {ipv4: "{{ lab4 }}.2.0/25", ipv6: "{{ lab6 }}:2::/65", more: ["{{ lab4 }}.2.128/25", "{{ lab6 }}:2:8000::/65"]}'
    return site.replace(one, both)


def _asked_by_sudo(hosts: str) -> str:
    """On some hosts sudo asks for a password, on the others it does not."""
    secret = "          ansible_become_password: \"{{ lookup('ansible.builtin.file', lab_dir ~ '/secrets/become') }}\"\n"
    return re.sub(r"(        (?:edge|store|relay):\n)", rf"\1{secret}", hosts)


def _as_an_administrator(site: str) -> str:
    """Nobody comes in as root."""
    return site.replace("ansible_user: root\n", 'ansible_user: ops\nsshd_permit_root_login: "no"\n')


def _all(*changes: Change) -> Change:
    """Several changes one after the other."""

    def change(text: str) -> str:
        for each in changes:
            text = each(text)
        return text

    return change


TOPOLOGIES: dict[str, tuple[Change, Change]] = {
    "one card a host": (_with_one_card, _same),
    "one card a host behind an appliance": (_all(_without_edge, _with_one_card), _with_routes),
    "an administrator with sudo": (_asked_by_sudo, _as_an_administrator),
    "a jump host": (_jump_host, _by_jump_host),
    "two networks in the DMZ": (_in_two_networks, _two_networks),
    "one card a host, sudo, a jump host and two networks": (
        _all(_asked_by_sudo, _jump_host, _in_two_networks, _with_one_card),
        _all(_as_an_administrator, _by_jump_host, _two_networks),
    ),
    "no edge but an appliance": (_without_edge, _same),
    "IPv4 only": (_without_ipv6, _without_ipv6),
    "IPv6 only": (_hosts_without_ipv4, _site_without_ipv4),
    "a routed DMZ": (_same, _with_routes),
    "a routed DMZ behind an appliance": (_without_edge, _with_routes),
}
"""What becomes of `hosts.yml` and of `site.yml`."""
BEHIND_ITS_OWN_EDGE = ("one card a host", "one card a host, sudo, a jump host and two networks")
"""Those whose edge has to be applied before the controller reaches the others."""


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
