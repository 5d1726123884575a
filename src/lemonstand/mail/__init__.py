"""A small client to look with: writes a message and submits it the way a handset does."""

from lemonstand.mail.send import Order, compose, send

__all__ = ["Order", "compose", "send"]
