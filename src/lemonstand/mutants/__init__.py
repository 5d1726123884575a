"""Mutants: deliberate breaks of a deployed lab that named checks must notice. Labs only."""

from lemonstand.mutants.catalogue import Mutant, load_mutants
from lemonstand.mutants.run import Verdict, mutate

__all__ = ["Mutant", "Verdict", "load_mutants", "mutate"]
