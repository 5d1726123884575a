"""Evidence: what verifications saw, control by control, as JSON, JUnit, OSCAL and on the terminal; bundles of it, and what changed."""

from lemonstand.evidence.run import Selection, verify

__all__ = ["Selection", "verify"]
