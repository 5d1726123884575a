"""Whether a host is what apply would write, and nothing beside it.

`reading` has what is read from hosts and from the manifest, `known` what explains it, `judge` the comparison, `findings` what comes of it.
"""

from lemonstand.integrity.findings import KINDS, Finding
from lemonstand.integrity.reading import Integrity, read_integrity

__all__ = ["KINDS", "Finding", "Integrity", "read_integrity"]
