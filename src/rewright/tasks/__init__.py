"""Load, validate and generate tasks."""
