"""Loaders of published benchmarks and data sets."""
