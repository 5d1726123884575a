"""The site model: an inventory goes in, a validated `Site` comes out, or all that is wrong with it at once."""

from lemonstand.site.load import build, load_site, read_inventory
from lemonstand.site.model import Host, HostSettings, Interface, Site, SiteSettings, User, Zone

__all__ = ["Host", "HostSettings", "Interface", "Site", "SiteSettings", "User", "Zone", "build", "load_site", "read_inventory"]
