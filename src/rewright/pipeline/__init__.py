"""Runs the stages of a recipe in a run directory."""
