"""Foundations of all other packages: records, errors, storage, the registry. Imports no other part of Rewright."""
