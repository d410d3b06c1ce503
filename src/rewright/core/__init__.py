"""Foundations of every other package: records, errors, storage, the registry. Imports no other part of Rewright."""
