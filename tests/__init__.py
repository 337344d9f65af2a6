"""Tests of aprverify, of the oracle, of the bundled suite and of the trainer."""
