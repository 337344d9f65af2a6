"""Views of a run: each a pure function of run.jsonl, byte for byte."""
