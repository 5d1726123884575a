"""What follows from a site and the policy: the expected matrix, DNS records, the change request, charts and documents."""

from lemonstand.derived.matrix import CONTROLLER, Cell, allowed_between, expected_matrix

__all__ = ["CONTROLLER", "Cell", "allowed_between", "expected_matrix"]
