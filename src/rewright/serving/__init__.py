"""Servers for what many processes share, and the clients of them: the search index and the reward model."""
