"""Probes that do what mail clients, mail hosts and frontends do. Standard library only."""
