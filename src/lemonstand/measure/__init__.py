"""A site as a phone meets it: questions that take several probes at once, each answered by what was measured, with units.

A question is a function of a `Look` that returns a `Finding`. It judges nothing: checks and operators do. What could not be measured raises
`lemonstand.checks.Invalid` or `NotMeasurable`, never returns.
"""

from lemonstand.measure.questions import QUESTIONS, Question
from lemonstand.measure.vantage import Finding, Look, Value, looking, watching

__all__ = ["QUESTIONS", "Finding", "Look", "Question", "Value", "looking", "watching"]
