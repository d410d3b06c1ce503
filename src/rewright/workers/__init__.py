"""Processes that do bounded work and can be killed. What they do is a module that the caller names."""
