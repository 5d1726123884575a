"""lemonstand: RFC 5383 (deployable Lemonade) as running hosts, with evidence."""

from __future__ import annotations


def __getattr__(name: str) -> str:
    """The version, looked up when it is asked for: most of our processes never say it."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415

    try:
        return version("lemonstand")
    except PackageNotFoundError:  # a source tree that was never installed
        return "0+unknown"
