"""Recipes: the settings of all rooms composed, read from YAML and checked."""
