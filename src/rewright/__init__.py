"""Rewright: trajectories, repair and turn-level credit for language models that use tools."""

__version__ = "0.1.0"
