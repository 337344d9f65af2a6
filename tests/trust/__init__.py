"""Tests of aprverify.trust."""
