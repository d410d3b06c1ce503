"""Bamboogle: two-hop questions that search engines answer wrongly."""
