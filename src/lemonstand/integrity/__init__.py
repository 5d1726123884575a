"""Whether a host is what apply would write, and nothing beside it.

`reading` has what is read from hosts and from the manifest, `known` what explains it, `judge` the comparison, `discrepancies` what comes of
it.
"""

from lemonstand.integrity.discrepancies import APPLY, KINDS, Discrepancy
from lemonstand.integrity.reading import Integrity, read_integrity

__all__ = ["APPLY", "KINDS", "Discrepancy", "Integrity", "read_integrity"]
