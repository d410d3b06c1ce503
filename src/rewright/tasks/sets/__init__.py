"""Readers of published function-calling sets, one module each."""
