"""What must hold, as data that is written once (flows, timers, controls), and answers to questions about it."""

from lemonstand.policy.flows import Flow, Flows, load_flows
from lemonstand.policy.matrix import CONTROLLER, Cell, allowed_between, expected_matrix
from lemonstand.policy.timers import DEFAULT_PROFILE, Relation, Timers, load_timers

__all__ = [
    "CONTROLLER",
    "DEFAULT_PROFILE",
    "Cell",
    "Flow",
    "Flows",
    "Relation",
    "Timers",
    "allowed_between",
    "expected_matrix",
    "load_flows",
    "load_timers",
]
