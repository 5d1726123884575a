"""The red team: attacks a lab from each position an intruder may reach, and says what each attempt got. Labs only."""

from lemonstand.redteam.catalogue import POSITIONS, Attempt, Catalogue, Deviation, Yield, load_catalogue

__all__ = ["POSITIONS", "Attempt", "Catalogue", "Deviation", "Yield", "load_catalogue"]
