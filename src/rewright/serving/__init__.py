"""Servers for the search index and the reward model, and the client of the reward server."""
