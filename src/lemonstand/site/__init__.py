"""The site model: an inventory goes in, a validated `Site` comes out, or all that is wrong with it at once."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lemonstand.site.load import build, load_site, read_inventory
    from lemonstand.site.model import Host, HostSettings, Interface, Site, SiteSettings, User, Zone

__all__ = ["Host", "HostSettings", "Interface", "Site", "SiteSettings", "User", "Zone", "build", "load_site", "read_inventory"]


def __getattr__(name: str) -> Any:
    """Loads what is asked for, when it is: the process that reads an inventory is started anew each time and needs no model."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{'model' if name[0].isupper() else 'load'}"), name)
