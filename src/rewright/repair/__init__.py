"""Repair of trajectories: quality and selection, the prompt, the decision."""
