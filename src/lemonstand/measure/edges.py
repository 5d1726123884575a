"""Of two edges, which one is at work."""

from __future__ import annotations

from lemonstand.outcomes import Invalid, NotApplicable
from lemonstand.remote.prober import Prober
from lemonstand.site import Site


def shared_addresses(site: Site) -> list[str]:
    """The addresses the edges share.

    Raises:
        NotApplicable: there is one edge or none.
    """
    if len(site.group("edges")) < 2:
        raise NotApplicable("the site has no second edge")
    return [str(address) for pair in site.settings.edge_addresses.values() for address in pair.addresses]


def at_work_and_other(prober: Prober, site: Site) -> tuple[str, str]:
    """The edge that holds what both share, and the other one, as they say now.

    Raises:
        Invalid: not exactly one does.
        NotApplicable: there is one edge or none.
    """
    addresses = shared_addresses(site)
    holding = {each.name: prober.ask(each.name, "held-addresses", addresses=addresses) for each in site.group("edges")}
    at_work = [name for name, held in holding.items() if len(held) == len(addresses)]
    others = [name for name, held in holding.items() if not held]
    if len(at_work) != 1 or len(others) != 1:
        raise Invalid(f"not exactly one edge holds the shared addresses: { {name: len(held) for name, held in holding.items()} }")
    return at_work[0], others[0]
