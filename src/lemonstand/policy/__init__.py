"""What must hold, as data that is written once (flows, timers, controls), and its loaders."""

from lemonstand.policy.flows import Flow, Flows, load_flows
from lemonstand.policy.timers import DEFAULT_PROFILE, Relation, Timers, load_timers

__all__ = ["DEFAULT_PROFILE", "Flow", "Flows", "Relation", "Timers", "load_flows", "load_timers"]
