"""Installed environments of verifiers (0.4): their tasks, tools and rubrics."""
