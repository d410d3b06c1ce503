"""The embedded world: generated tasks, tools, gold calls, and the pico models."""
