"""Rendering: convert tasks and trajectories to token ids."""
