"""Probes of the red team and false servers. Standard library only; sent to hosts of labs alone."""
