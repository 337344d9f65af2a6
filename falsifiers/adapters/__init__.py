"""Subjects: the trainers that the suite can put under test."""
