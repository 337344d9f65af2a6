"""Tests of the claim grammar, of the YAML reader and of the linter."""
