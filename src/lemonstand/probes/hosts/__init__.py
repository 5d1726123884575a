"""Probes that read the host they run on. Standard library only."""
