"""Mutants: deliberate breaks of a deployed lab that named checks must notice. Labs only."""

from lemonstand.breaking.catalogue import Mutant, load_mutants, sample, shares, todays_seed
from lemonstand.breaking.runner import Run, Verdict

__all__ = ["Mutant", "Run", "Verdict", "load_mutants", "sample", "shares", "todays_seed"]
