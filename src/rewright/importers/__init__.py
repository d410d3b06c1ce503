"""Importers of trajectories and logs written by other projects."""
