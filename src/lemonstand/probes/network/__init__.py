"""Probes of the network between hosts: reachability, translation, interruptions, connection state. Standard library only."""
