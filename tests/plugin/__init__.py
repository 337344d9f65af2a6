"""Tests of the pytest plugin, most of them on the toy suite."""
