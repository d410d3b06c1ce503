"""Embedded worlds: procedurally generated tasks with tools and gold calls."""
