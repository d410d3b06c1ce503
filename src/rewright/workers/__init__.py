"""Processes that do bounded work and can be killed."""
