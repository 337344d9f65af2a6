"""Faults that nobody planned: small changes of a trainer's source, and which claims fall."""
