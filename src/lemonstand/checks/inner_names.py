"""What nobody outside may read: names and addresses of hosts behind the public names."""

from __future__ import annotations

import re

from lemonstand.site import Site


def inner_names(site: Site) -> re.Pattern[str]:
    """Matches each of them where it stands as a word of its own (LEM-8-03)."""
    names = [each.name for each in site.hosts.values() if each.role_groups]
    public = {str(site.settings.public_ipv4)}
    addresses = [
        str(address)
        for each in site.hosts.values()
        if each.role_groups
        for zone, leg in each.interfaces.items()
        for address in leg.addresses
        if zone != "internet" and str(address) not in public
    ]
    words = [re.escape(each) for each in (*names, site.settings.internal_domain, *addresses)]
    return re.compile(rf"(?<![\w.-])(?:{'|'.join(words)})(?![\w-])")
