"""AutoTraj's question files."""
