"""Tasks and trajectories as the token ids that a model sees."""
