"""The stages of a run: each reads what the one before wrote into the run directory, and can be resumed or redone."""
