"""Tests of unplanned mutants: what is made, drawn, tried, counted and said."""
