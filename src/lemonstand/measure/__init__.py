"""Measurements of a site as its clients meet it, each by several probes at once, with units.

A question is a function of a `Vantage` that returns a `Finding`. It judges nothing: checks and operators do. What could not be measured
raises `lemonstand.outcomes.Invalid` or `NotMeasurable`, never returns.
"""

from lemonstand.measure.catalogue import QUESTIONS, Question
from lemonstand.measure.vantage import Finding, Value, Vantage, open_vantage, watching

__all__ = ["QUESTIONS", "Finding", "Question", "Value", "Vantage", "open_vantage", "watching"]
