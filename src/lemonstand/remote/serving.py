"""Where a user's mail is: commands move users and let standbys serve, so hosts know it and the inventory does not."""

from __future__ import annotations

from lemonstand.outcomes import Invalid
from lemonstand.remote.prober import Prober
from lemonstand.site import Site


def home_of(prober: Prober, site: Site, name: str) -> str:
    """The host that serves a login name now; of a name nobody has, the first store.

    Raises:
        Invalid: no store says.
    """
    faults = []
    for host in site.group("stores"):
        try:
            found: dict[str, str] = prober.ask(host.name, "serving", names=[name])
        except Invalid as fault:
            faults.append(f"{host.name}: {fault}")
        else:
            return found.get(name, site.group("stores")[0].name)
    raise Invalid(f"no store says who serves {name}: {'; '.join(faults)}")
