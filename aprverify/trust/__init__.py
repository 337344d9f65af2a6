"""Who made a run: signatures over it, keys, and whose keys are trusted."""
