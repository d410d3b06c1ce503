"""ToolHop: multi-hop questions with local tools."""
