"""FTRL: multi-hop tasks with tools of their own."""
