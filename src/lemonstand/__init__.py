"""lemonstand: RFC 5383 (deployable Lemonade) as running hosts, with evidence."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("lemonstand")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
