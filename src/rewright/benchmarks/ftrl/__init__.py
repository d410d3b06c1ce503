"""FTRL: multi-hop tasks with task-specific tools."""
