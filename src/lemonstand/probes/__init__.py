"""Live probes: small clients that are sent to a host, run there on the standard library, and say what they saw.

A probe is a function that takes plain values and returns plain values (`run.PROBES`). It judges nothing: the checks do. Nothing is left
on the host it ran on; what it needs, passwords included, arrives over standard input, and no password is part of a transcript.
"""
