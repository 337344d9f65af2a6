"""Every way that was thought of to make a run say something else: each is refused by name."""
