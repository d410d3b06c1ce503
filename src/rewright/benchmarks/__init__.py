"""Loaders of published benchmarks and data sets: one function a format, from a row to a `Task`."""
