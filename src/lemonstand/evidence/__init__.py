"""Evidence: what verifications saw, control by control, as JSON, JUnit, OSCAL and on the terminal; bundles of it, and what changed."""

from lemonstand.evidence.verification import UNMEASURED, Selection, verify

__all__ = ["UNMEASURED", "Selection", "verify"]
