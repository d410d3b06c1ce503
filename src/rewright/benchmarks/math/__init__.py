"""MATH: competition mathematics."""
