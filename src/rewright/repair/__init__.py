"""Repair of trajectories: quality and selection of candidates, repair prompts, acceptance of repairs."""
