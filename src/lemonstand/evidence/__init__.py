"""Evidence: what a verification saw, control by control, as JSON, JUnit and on the terminal."""

from lemonstand.evidence.run import verify

__all__ = ["verify"]
