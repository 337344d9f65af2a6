"""The story of a failure, told from a run alone: what failed, what held, what it looks like."""
