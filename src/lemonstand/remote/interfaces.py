"""Who may tell a host its routes: what the settings of its interfaces come to.

Linux looks at `all` and at the interface's own value, and what it makes of the two differs from setting to setting: one of them is enough,
both are needed, the interface's alone counts (include/linux/inetdevice.h, net/ipv6/ndisc.c, route.c and exthdrs.c). `default` is what an
interface begins with that appears later.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

Values = Mapping[str, Mapping[str, Mapping[str, int]]]
"""By IP version (ipv4, ipv6) and interface, `all` and `default` among them."""
KERNELS = {
    "ipv4": {"accept_redirects": 1, "secure_redirects": 1, "send_redirects": 1, "accept_source_route": 1},
    "ipv6": {"accept_redirects": 1, "accept_ra": 1},
}
"""What the kernel begins with, where that is not 0."""


@dataclass(frozen=True)
class Interfaces:
    """The settings of a host's interfaces.

    Args:
        values: as the kernel has them.
    """

    values: Values

    def devices(self) -> Iterator[tuple[str, str]]:
        """IP version and name of each interface; `default` stands for those to come."""
        for version, devices in self.values.items():
            yield from ((version, device) for device in devices if device != "all")

    def forwards(self, version: str, device: str) -> bool:
        """Whether what comes in by an interface is passed on. IPv6 asks `all` for that, and the interface for how it behaves."""
        own = self.values[version][device]["forwarding"]
        return bool(own if version == "ipv4" else self.values[version]["all"]["forwarding"])

    def open(self, version: str, device: str) -> dict[str, bool]:
        """What an interface lets a stranger do, by the name of the setting."""
        every, own = self.values[version]["all"], self.values[version][device]
        if version == "ipv4":
            redirects = (every["accept_redirects"], own["accept_redirects"])
            return {
                "accept_redirects": all(redirects) if own["forwarding"] else any(redirects),
                "send_redirects": bool(every["send_redirects"] or own["send_redirects"]),
                "accept_source_route": bool(every["accept_source_route"] and own["accept_source_route"]),
            }
        return {
            "accept_redirects": bool(own["accept_redirects"] and not own["forwarding"]),
            # 0 takes a header of type 2 alone, which names the host's own other address (RFC 6275 section 6.4).
            "accept_source_route": min(every["accept_source_route"], own["accept_source_route"]) > 0,
            "accept_ra": own["accept_ra"] > (1 if own["forwarding"] else 0),
        }


def after_boot(values: Values, told: Iterable[Iterable[str]]) -> Interfaces:
    """What interfaces will have after a boot.

    Args:
        values: today's, for the names of interfaces and settings.
        told: what systemd-sysctl reads, in that order: a name and its value; no value: this name is never set by a pattern (sysctl.d(5)).
    """
    exact: dict[str, str] = {}
    patterns: dict[str, str] = {}
    for name, value in told:
        kept = patterns if set(name) & set("*?[") else exact
        kept.pop(name, None)  # the later one counts, in its own turn
        kept[name] = value

    def value_of(version: str, device: str, setting: str) -> int:
        name = f"net/{version}/conf/{device}/{setting}"
        start = 0 if device == "all" and setting == "accept_source_route" else KERNELS[version].get(setting, 0)
        if name in exact:
            return int(exact[name]) if exact[name] else start
        fitting = [value for pattern, value in patterns.items() if fnmatch.fnmatchcase(name, pattern)]
        return int(fitting[-1]) if fitting else start

    return Interfaces(
        {
            version: {device: {setting: value_of(version, device, setting) for setting in own} for device, own in devices.items()}
            for version, devices in values.items()
        }
    )
