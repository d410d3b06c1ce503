"""Thin adapters for other trainers."""
