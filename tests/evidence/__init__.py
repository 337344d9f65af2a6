"""Tests of the run file, the statuses and the views."""
