"""Planted defects. One family a file, so that a change stales only the teeth that use it."""
